"""The folder copies of FER2013: ``train/<class>/Training_<id>.jpg`` and
``test/<class>/{PublicTest,PrivateTest}_<id>.jpg``, or the folders ``Training``, ``PublicTest`` and ``PrivateTest`` with
class folders below.

Capital and small letters are the same in all these names. Pictures are JPEG, or PNG or BMP, which lose
nothing. The same names are read from a folder on disk and from an archive. The order of the result depends on the names
alone (usage, then numeric id), so that a folder, a zip and a tar of the same files give the same arrays.
"""

from __future__ import annotations

import io
import os
import re
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fer_repro.data.archive import is_litter
from fer_repro.data.kinds import HEAD, sniff
from fer_repro.data.official import LABELS, SIDE, USAGES, Parsed, damaged, too_many
from fer_repro.errors import FerReproError

LARGEST_PICTURE = 1 << 20
_AHEAD = 2048  # pictures that may wait to be decoded
_SUFFIX = re.compile(r"\.(jpe?g|jpe|jfif|png|bmp|dib|webp|gif|tiff?|p[gpnb]m|avif|hei[cf]|jp2|jxl)$", re.IGNORECASE)
_NAME = re.compile(r"(?:^|/)([^/]+)/([^/]+)/([^/]+)$")
_OFFICIAL = re.compile(r"(Training|PublicTest|PrivateTest)_(\d{1,18})", re.IGNORECASE)
_SECOND = re.compile(
    r"(\s*\(\d{1,3}\)|\s*-\s*copy( \(\d+\))?|\s+copy( \d+)?)$", re.IGNORECASE
)  # what a browser or editor adds
_FOLDERS = {
    "train": 0,
    "training": 0,
    "test": None,
    "publictest": 1,
    "privatetest": 2,
}  # test: its file names say which
_FORMATS = ((b"\x89PNG", "PNG"), (b"BM", "BMP"))


@dataclass(frozen=True)
class Picture:
    """What the path of a picture says: ``usage`` and ``label`` as codes, the number in the name, the id.

    The id holds the class (``angry/Training_10118481``) because the numbers alone are not unique: some pictures lie in
    two class folders under the same name.
    """

    usage: int
    number: int
    id: str
    label: int

    @property
    def rank(self) -> tuple[int, int, int, str]:
        """Sorts pictures into the canonical order: by usage, number, class, id."""
        return self.usage, self.number, self.label, self.id


def _folder(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


def is_split_folder(name: str) -> bool:
    """True for a folder whose name says which images lie in it: train, test, Training, PublicTest or PrivateTest."""
    return _folder(name) in _FOLDERS


def is_class_folder(name: str) -> bool:
    """True for the name of one of the seven classes."""
    return name.lower() in LABELS


def is_picture_name(name: str) -> bool:
    """True where the suffix promises a picture, of whatever format."""
    return bool(_SUFFIX.search(name))


def is_picture(name: str) -> bool:
    """True for a picture in ``.../<split>/<class>/`` where one of the two folders is known; litter is not."""
    parts = _NAME.search(name)
    known = parts and (is_split_folder(parts[1]) or is_class_folder(parts[2]))
    return bool(known and is_picture_name(name) and not is_litter(name))


def picture(name: str, source: str) -> Picture:
    """Read usage, class and id off a picture's path (with ``/``); `FerReproError` where they contradict each other."""
    parts = _NAME.search(name)
    assert parts is not None, "only the names that `is_picture` accepts come here"
    folder, class_name, stem = parts[1], parts[2], _SUFFIX.sub("", parts[3])
    if not name.isprintable():
        raise damaged(source, f"the name '{name}' is damaged")
    if not is_split_folder(folder):
        raise damaged(
            source,
            f"'{name}' lies in the folder '{folder}', expected train and test, or Training, PublicTest and PrivateTest",
        )
    if not is_class_folder(class_name):
        raise damaged(source, f"'{name}' lies in the class folder '{class_name}', expected one of {', '.join(LABELS)}")
    label = LABELS.index(class_name.lower())
    usage = _FOLDERS[_folder(folder)]
    match = _OFFICIAL.search(stem)
    if match is None:
        if usage is None:
            raise damaged(
                source, f"'{name}' does not name its test set, expected PublicTest_<id>.jpg or PrivateTest_<id>.jpg"
            )
        digits = re.search(r"(\d{1,18})$", stem)
        return Picture(usage, int(digits[1]) if digits else -1, f"{LABELS[label]}/{USAGES[usage]}_{stem}", label)
    named = [u.lower() for u in USAGES].index(match[1].lower())
    if match[0] != stem:
        raise damaged(
            source,
            f"'{name}' looks like a second copy of '{USAGES[named]}_{match[2]}' that a browser or an editor made, so "
            "delete it (or rename it where the first is missing)",
        )
    if named != usage and (usage is not None or named == 0):
        raise damaged(
            source, f"'{name}' is a {USAGES[named]} picture in the folder '{folder}', where it does not belong"
        )
    return Picture(named, int(match[2]), f"{LABELS[label]}/{USAGES[named]}_{match[2]}", label)


def decode(data: bytes, where: str) -> np.ndarray:
    """One grey 48x48 picture as uint8 [48,48]; ``where`` names it in the `FerReproError` a broken one raises.

    Bytes changed in the middle of the compressed data of a JPEG may still decode, to another picture: JPEG has no
    checksum, and neither has BMP. An archive's own checksum finds them, and in a folder the digest, which is then no
    known copy's.
    """
    form = next((form for magic, form in _FORMATS if data.startswith(magic)), "JPEG")
    if form == "JPEG" and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        kind = None if data.startswith(b"\xff\xd8") else sniff(data[:HEAD])
        if kind:
            raise damaged(where, f"it is {kind.words}, expected a 48x48 grey JPEG, PNG or BMP picture; {kind.advice}")
        # The decoder fills the missing rest of a cut picture with grey and says nothing if little is missing.
        raise damaged(where, f"the JPEG is cut, expected an end marker after {len(data):,} bytes")
    try:
        if form == "PNG":
            with Image.open(io.BytesIO(data), formats=(form,)) as image:
                image.verify()  # its checksums, which decoding passes over
        with Image.open(io.BytesIO(data), formats=(form,)) as image:
            if image.size != (SIDE, SIDE) or image.mode != "L":
                raise damaged(
                    where, f"a {image.size[0]}x{image.size[1]} picture of mode {image.mode}, expected 48x48 grey"
                )
            return np.asarray(image)
    except FerReproError:
        raise
    except Exception as error:
        # Pillow's decoders let many kinds through where a header is malformed (OSError, SyntaxError, struct.error).
        raise damaged(where, f"the {form} cannot be decoded ({error})") from error


class Album:
    """Collects the pictures of one copy in any order and sorts them at the end.

    Decoding runs in threads while the caller reads on. At most ``capacity`` pictures are accepted.
    """

    def __init__(self, source: str, capacity: int) -> None:
        self.source, self.capacity = source, capacity
        self._names: dict[str, str] = {}
        self._astray: list[str] = []  # in the folder of a class, which lies in a folder that names no split
        self._pictures: list[Picture] = []
        self._pixels: list[Future[np.ndarray]] = []
        self._pool = ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1)))

    def __enter__(self) -> Album:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, name: str, data: bytes) -> None:
        """Take one picture: its path with ``/`` and its bytes."""
        parts = _NAME.search(name)
        if parts and not is_split_folder(parts[1]):
            self._astray.append(name)
            return
        found = picture(name, self.source)
        if found.id in self._names:
            raise damaged(
                self.source, f"{found.id} is there twice ('{self._names[found.id]}' and '{name}'), expected once"
            )
        self._names[found.id] = name
        if len(self._pictures) == self.capacity:
            raise too_many(self.source, "pictures", self.capacity)
        if len(data) > LARGEST_PICTURE:
            raise damaged(
                self.source, f"'{name}' has more than {LARGEST_PICTURE:,} bytes, expected a 48x48 JPEG, PNG or BMP"
            )
        self._pictures.append(found)
        self._pixels.append(self._pool.submit(decode, data, f"{self.source}: '{name}'"))
        if len(self._pixels) > _AHEAD:
            self._pixels[-_AHEAD].result()  # raises what is wrong with it, and waits where reading is too far ahead

    def __len__(self) -> int:
        return len(self._pictures) + len(self._astray)

    def parsed(self) -> Parsed:
        """Everything in canonical order (`Picture.rank`)."""
        if self._astray and len({p.usage for p in self._pictures}) < len(USAGES):
            picture(self._astray[0], self.source)  # raises, with what is wrong
        for name, path in self._names.items():
            if (first := _SECOND.sub("", name)) != name and first in self._names:
                raise damaged(self.source, f"'{path}' is a second copy of '{self._names[first]}', so delete it")
        ranked = sorted(zip(self._pictures, self._pixels, strict=True), key=lambda pair: pair[0].rank)
        pixels = np.array([face.result() for _, face in ranked])
        labels, usage = (np.array([getattr(p, of) for p, _ in ranked], np.uint8) for of in ("label", "usage"))
        return Parsed(pixels, labels, usage, np.array([p.id for p, _ in ranked], str), "folder copy")


def class_folders(root: Path) -> list[tuple[str, str]]:
    """The class folders of a copy: (``<split>/<class>``, path), sorted.

    All folders below ``train``, ``test``, ``Training``, ``PublicTest`` and ``PrivateTest``; below any other folder
    those that are called as a class is.
    """
    parts = [(part.name, part.path) for part in _folders(root)]
    parts += [  # test/PublicTest/<class>
        (f"{name}/{inner.name}", inner.path)
        for name, path in parts
        if is_split_folder(name)
        for inner in _folders(path)
        if is_split_folder(inner.name)
    ]
    found = []
    for name, path in parts:
        known = is_split_folder(name.rsplit("/", 1)[-1])
        for entry in _folders(path):
            if is_class_folder(entry.name) or (known and not is_split_folder(entry.name)):
                found.append((f"{name}/{entry.name}", entry.path))
    return sorted(found)


def _folders(path: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return [e for e in entries if not is_litter(e.name) and _is_folder(e)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # A link that leads to itself is no folder for os.path, and an error for the entry.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def list_pictures(root: Path) -> list[tuple[str, os.stat_result]]:
    """The pictures in the `class_folders` of ``root``: paths below ``root`` (with ``/``) and their stat; sorted."""
    found = [(f"{folder}/{entry.name}", entry) for folder, path in class_folders(root) for entry in os.scandir(path)]
    return sorted((name, entry.stat()) for name, entry in found if is_picture(name))


def read_folder(root: Path, capacity: int) -> Parsed:
    """Read a folder copy from disk; see `Album` for order and errors."""
    with Album(root.name, capacity) as album:
        for name, status in list_pictures(root):
            if status.st_size > LARGEST_PICTURE:
                raise damaged(root.name, f"'{name}' has {status.st_size:,} bytes, expected a 48x48 JPEG, PNG or BMP")
            album.add(name, (root / name).read_bytes())
        if not len(album):
            raise damaged(root.name, f"no picture lies in the folder of a class, expected {', '.join(LABELS)}")
        return album.parsed()
