"""Files cut into small parts that are named by their content, and put together again when every checksum is right.

A folder of parts has one ``manifest.json``, written last: whatever interrupts a packing, the manifest that lies there
names only parts that are whole. Manifests travel, so nothing in them is trusted: names are checked before any use.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fer_repro.errors import FerReproError
from fer_repro.files import atomic_write, sha256_of

MANIFEST, FORMAT = "manifest.json", 1
BLOCK = 1 << 20  # bytes in memory at a time
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # one step of a path: neither hidden, nor "..", nor absolute
_PART, _SHA256 = re.compile(r"[0-9a-f]{20}\.part"), re.compile(r"[0-9a-f]{64}")
_PATHS = {"run": re.compile(rf"{_NAME}/{_NAME}/{_NAME}/seed-\d+"), "export": re.compile(_NAME)}
_FILE = re.compile(rf"{_NAME}(/{_NAME}){{0,2}}")


@dataclass(frozen=True)
class Part:
    """One file of the folder: name, bytes, sha256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class File:
    """A file of a packed folder (``name`` relative to it) and the parts that make it, in order."""

    name: str
    size: int
    sha256: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Packed:
    """A packed folder: a ``run`` (path below the runs folder) or an ``export`` (below the exports folder).

    ``facts``: what is known of the run, for whoever reads the manifest (recipe, data set, how far it has come).
    """

    kind: str
    path: str
    facts: dict[str, Any]
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def split(path: Path, name: str, folder: Path, part_size: int) -> File:
    """Cut ``path`` into parts of at most ``part_size`` bytes in ``folder``; parts that lie there already are kept.

    The file must not change meanwhile. Raises `OSError` as the file system does.
    """
    parts, whole = [], hashlib.sha256()
    with open(path, "rb") as file:
        while True:
            begin, part, size = file.tell(), hashlib.sha256(), 0
            for block in _blocks(file, part_size):
                part.update(block)
                whole.update(block)
                size += len(block)
            if not size:
                return File(name, begin, whole.hexdigest(), tuple(parts))
            sha256 = part.hexdigest()
            parts.append(Part(f"{sha256[:20]}.part", size, sha256))
            target = folder / parts[-1].name
            if target.exists() and sha256_of(target) == sha256:
                continue
            file.seek(begin)
            with atomic_write(target) as copy:
                for block in _blocks(file, part_size):
                    copy.write(block)


def _blocks(file: Any, size: int) -> Iterator[bytes]:
    """The next ``size`` bytes of an open file, or what is left of it, a block at a time."""
    while size and (block := file.read(min(BLOCK, size))):
        yield block
        size -= len(block)


def contents(folder: Path, file: File, owner: str) -> Iterator[bytes]:
    """The bytes of a packed file, block by block; a part that is missing or damaged is a `FerReproError` naming it."""
    whole = hashlib.sha256()
    for part in file.parts:
        what, sha256, size = f"part {part.name} of {owner}/{file.name}", hashlib.sha256(), 0
        try:
            with open(folder / part.name, "rb") as stored:
                for block in _blocks(stored, part.size + 1):
                    sha256.update(block)
                    whole.update(block)
                    size += len(block)
                    yield block
        except FileNotFoundError as error:
            raise FerReproError(f"{what} is missing from {folder}: copy it there from where it was packed") from error
        if size != part.size or sha256.hexdigest() != part.sha256:
            raise FerReproError(
                f"{what} in {folder} is damaged (its checksum is not the manifest's): copy it there once more"
            )
    if whole.hexdigest() != file.sha256:
        raise FerReproError(f"{owner}/{file.name}: its parts in {folder} are whole, together they are not: pack again")


def verify(folder: Path, packed: Packed) -> None:
    """Read every part of a packed folder once. Raises `FerReproError` for the first that is missing or damaged."""
    for file in packed.files:
        for _ in contents(folder, file, packed.path):
            pass


def write_manifest(folder: Path, everything: list[Packed]) -> None:
    """Name what the folder holds, then delete parts that nothing names any more and what a killed packing left."""
    document = {"format": FORMAT, "packed": [asdict(packed) for packed in everything]}
    with atomic_write(folder / MANIFEST) as file:
        file.write((json.dumps(document, indent=1) + "\n").encode())
    left = [*(folder / name for name in strangers(folder, everything)), *folder.glob(".*.part.*.tmp")]
    for path in left:
        path.unlink(missing_ok=True)


def strangers(folder: Path, everything: list[Packed]) -> list[str]:
    """Names of parts in the folder that the manifest does not know."""
    named = {part.name for packed in everything for file in packed.files for part in file.parts}
    return sorted(path.name for path in folder.glob("*.part") if _PART.fullmatch(path.name) and path.name not in named)


def read_manifest(folder: Path) -> list[Packed]:
    """What a folder of parts says it holds, every name and number checked. Raises `FerReproError`."""
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_text())
        version = document["format"]
        if version != FORMAT:
            raise FerReproError(f"{path} has format {version!r}, this version reads {FORMAT}: pack with this version")
        found = [_packed(entry, path) for entry in document["packed"]]
    except FileNotFoundError as error:
        raise FerReproError(f"{folder} holds no {MANIFEST}: name the folder that `checkpoint pack` wrote") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FerReproError(f"{path} cannot be read as a manifest ({error}): copy it there once more") from error
    if len({(packed.kind, packed.path) for packed in found}) != len(found):
        raise FerReproError(f"{path} names one folder twice: pack again")
    return found


def _packed(entry: dict[str, Any], path: Path) -> Packed:
    def require(sound: bool, what: str, value: Any) -> None:
        if not sound:
            raise FerReproError(
                f"{path}: {what} {value!r} is none that `checkpoint pack` writes: do not trust this copy"
            )

    kind, place = entry["kind"], entry["path"]
    require(kind in _PATHS, "kind", kind)
    require(isinstance(place, str) and _PATHS[kind].fullmatch(place) is not None, "path", place)
    files = []
    for file in entry["files"]:
        parts = tuple(Part(part["name"], part["size"], part["sha256"]) for part in file["parts"])
        name = file["name"]
        require(isinstance(name, str) and _FILE.fullmatch(name) is not None and name != "lock", "file name", name)
        for part in parts:
            require(isinstance(part.name, str) and _PART.fullmatch(part.name) is not None, "part name", part.name)
        sized = (file["size"], *(part.size for part in parts))
        require(all(type(size) is int and size >= 0 for size in sized), "size", sized)
        require(sized[0] == sum(sized[1:]), "size", sized[0])
        for sha256 in (file["sha256"], *(part.sha256 for part in parts)):
            require(isinstance(sha256, str) and _SHA256.fullmatch(sha256) is not None, "checksum", sha256)
        files.append(File(name, file["size"], file["sha256"], parts))
    names = [file.name for file in files]
    require(len(set(names)) == len(names), "files", names)
    require(isinstance(entry["facts"], dict), "facts", entry["facts"])
    return Packed(kind, place, entry["facts"], tuple(files))
