"""Files cut into size-limited parts that are named by their content, and put together again when all are right.

A folder of parts has one ``manifest.json``, written last: whatever interrupts a packing, the manifest
names only complete parts. A manifest may come from another machine, so nothing in it is trusted: names are checked
before any use.
Nothing is compressed: trained weights are close to noise, so compression saves little and takes long.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fer_repro.claims import schema
from fer_repro.errors import FerReproError
from fer_repro.files import atomic_write, sha256_of

MANIFEST, FORMAT = "manifest.json", 1
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # one step of a path: neither hidden, nor "..", nor absolute
_PATHS = {"run": rf"{_NAME}/{_NAME}/{_NAME}/seed-\d+", "export": _NAME}
_PART = r"[0-9a-f]{20}\.part"
_part_name = schema.pattern(_PART, "the name of a part")
_file_name = schema.pattern(rf"(?!(.*/)?lock$){_NAME}(/{_NAME}){{0,2}}", "the name of a packed file")
_sha256 = schema.pattern(r"[0-9a-f]{64}", "64 hex digits")


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
    """Cut ``path`` into parts of at most ``part_size`` bytes in ``folder``; parts that exist already are kept.

    One part is held in memory. The file must not change meanwhile. Raises `OSError` as the file system does.
    """
    parts, whole = [], hashlib.sha256()
    with open(path, "rb") as file:
        size = min(part_size, os.fstat(file.fileno()).st_size)  # no more memory than the file needs
        while content := file.read(size):
            whole.update(content)
            sha256 = hashlib.sha256(content).hexdigest()
            parts.append(Part(f"{sha256[:20]}.part", len(content), sha256))
            target = folder / parts[-1].name
            if not target.is_file() or sha256_of(target) != sha256:
                with atomic_write(target) as copy:
                    copy.write(content)
        return File(name, file.tell(), whole.hexdigest(), tuple(parts))


def contents(folder: Path, file: File, owner: str) -> Iterator[bytes]:
    """The bytes of a packed file, part by part; one that is missing or damaged is a `FerReproError` naming it."""
    whole = hashlib.sha256()
    for part in file.parts:
        what = f"part {part.name} of {owner}/{file.name}"
        path = folder / part.name
        if not path.is_file():  # not there, a folder, a device
            raise FerReproError(f"{what} is missing from {folder}: copy it there from where it was packed")
        try:
            # The size first: a manifest may ask for more than the memory holds.
            content = path.read_bytes() if path.stat().st_size == part.size else b""
        except OSError as error:
            raise FerReproError(f"{what} in {folder} cannot be read ({error.strerror}): copy it there again") from error
        if len(content) != part.size or hashlib.sha256(content).hexdigest() != part.sha256:
            raise FerReproError(
                f"{what} in {folder} is damaged (its checksum is not the manifest's): copy it there once more"
            )
        whole.update(content)
        yield content
    if whole.hexdigest() != file.sha256:
        raise FerReproError(
            f"{owner}/{file.name}: each of its parts in {folder} is whole, together they are not: pack again"
        )


def verify(folder: Path, packed: Packed) -> None:
    """Read every part of a packed folder once. Raises `FerReproError` for the first that is missing or damaged."""
    for file in packed.files:
        for _ in contents(folder, file, packed.path):
            pass


def write_manifest(folder: Path, everything: list[Packed]) -> None:
    """Name what the folder holds, then delete parts that are not named and what an interrupted packing left."""
    document = {"format": FORMAT, "packed": [asdict(packed) for packed in everything]}
    with atomic_write(folder / MANIFEST) as file:
        file.write((json.dumps(document, indent=1) + "\n").encode())
    for path in [*(folder / name for name in unknown_parts(folder, everything)), *folder.glob(".*.part.*.tmp")]:
        path.unlink(missing_ok=True)


def unknown_parts(folder: Path, everything: list[Packed]) -> list[str]:
    """Names of parts in the folder that the manifest does not name."""
    named = {part.name for packed in everything for file in packed.files for part in file.parts}
    found = {path.name for path in folder.glob("*.part") if path.is_file() and re.fullmatch(_PART, path.name)}
    return sorted(found - named)


def read_manifest(folder: Path) -> list[Packed]:
    """The manifest of a folder of parts, every name and number checked. Raises `FerReproError`."""
    path = folder / MANIFEST
    if not path.is_file():
        raise FerReproError(f"{folder} holds no {MANIFEST}: name the folder that `checkpoint pack` wrote")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version, entries = document["format"], document["packed"]
        found = schema.list_of(_packed)(entries, "packed") if version == FORMAT else ()
        _require_different(((packed.kind, packed.path) for packed in found), "packed")
    # RecursionError: brackets in brackets, which Python's reader does not count.
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = f"{type(error).__name__}: {str(error)[:100]}"
        raise FerReproError(f"{path} cannot be read as a manifest ({why}): copy it there once more") from error
    except FerReproError as error:
        raise FerReproError(f"{path}: {error}, as `checkpoint pack` writes it: do not trust this copy") from error
    if version != FORMAT:
        raise FerReproError(f"{path} has format {version!s:.20}, this version reads {FORMAT}: pack with this version")
    return list(found)


def is_run(path: str) -> bool:
    """Whether ``path`` below the runs folder is one that a manifest may name."""
    return bool(re.fullmatch(_PATHS["run"], path))


def is_file(name: str) -> bool:
    """Whether ``name`` in a run's folder is one that a manifest may name."""
    try:
        return bool(_file_name(name, ""))
    except FerReproError:
        return False


def _packed(value: Any, where: str) -> Packed:
    readers = {
        "kind": schema.one_of(tuple(_PATHS)),
        "path": schema.as_is,
        "facts": _facts,
        "files": schema.list_of(_file),
    }
    packed = Packed(**schema.fields(value, where, **readers))
    schema.pattern(_PATHS[packed.kind], "the path of a run or an export")(packed.path, f"{where}, field path")
    _require_different((file.name for file in packed.files), where)
    return packed


def _file(value: Any, where: str) -> File:
    readers = {"name": _file_name, "size": schema.as_is, "sha256": _sha256, "parts": schema.list_of(_part)}
    file = File(**schema.fields(value, where, **readers))
    if type(file.size) is not int or file.size != sum(part.size for part in file.parts):
        raise schema.wrong(f"{where}, field size", file.size, "the sum of its parts' sizes")
    return file


def _part(value: Any, where: str) -> Part:
    return Part(**schema.fields(value, where, name=_part_name, size=schema.whole, sha256=_sha256))


def _facts(value: Any, where: str) -> dict[str, Any]:
    """Plain values, and a mapping of plain values as the identity: what `pack` takes from a checkpoint."""
    if not isinstance(value, dict) or not isinstance(value.get("identity", {}), dict):
        raise schema.wrong(where, value, "a mapping, and one as its identity")
    for name, fact in [*value.items(), *value.get("identity", {}).items()]:
        if name != "identity" and not isinstance(fact, (str, int, float, type(None))):
            raise schema.wrong(f"{where}, {name}", fact, "a plain value")
    return value


def _require_different(names: Iterable[Hashable], where: str) -> None:
    known = list(names)
    if len(set(known)) != len(known):
        raise schema.wrong(where, known, "no name twice")
