"""The folder copies of FER2013: ``train/<class>/Training_<id>.jpg`` and
``test/<class>/{PublicTest,PrivateTest}_<id>.jpg``.

The same names are read from a folder on disk and from an archive. The order of the result depends on the names alone
(usage, then numeric id), so that a folder, a zip and a tar of the same files give the same arrays.
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

from fer_repro.data.official import LABELS, SIDE, USAGES, Parsed, damaged

LARGEST_PICTURE = 1 << 20
_AHEAD = 2048  # pictures that may wait to be decoded
_NAME = re.compile(r"(?:^|/)(train|test)/([^/]+)/([^/]+)\.jpe?g$", re.IGNORECASE)
_STEM = re.compile(r"(Training|PublicTest|PrivateTest)_(\d{1,18})$")


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


def is_picture(name: str) -> bool:
    """True for ``.../train/<class>/x.jpg`` and ``.../test/<class>/x.jpg``; hidden files and resource forks are not."""
    return bool(_NAME.search(name)) and not any(p.startswith((".", "__MACOSX")) for p in name.split("/") if p != ".")


def picture(name: str, source: str) -> Picture:
    """Read usage, class and id off a picture's path (with ``/``); `FerReproError` where they contradict each other."""
    parts = _NAME.search(name)
    assert parts is not None, "only the names that `is_picture` accepts come here"
    folder, class_name, stem = parts.groups()
    if class_name not in LABELS:
        raise damaged(source, f"'{name}' lies in the class folder '{class_name}', expected one of {', '.join(LABELS)}")
    label = LABELS.index(class_name)
    match = _STEM.match(stem)
    if match is None:
        if folder.lower() == "test":
            raise damaged(
                source, f"'{name}' does not name its test set, expected PublicTest_<id>.jpg or PrivateTest_<id>.jpg"
            )
        digits = re.search(r"(\d{1,18})$", stem)
        return Picture(0, int(digits[1]) if digits else -1, f"{class_name}/Training_{stem}", label)
    usage = USAGES.index(match[1])
    if (folder.lower() == "train") != (usage == 0):
        raise damaged(source, f"'{name}' is a {match[1]} picture in the folder '{folder}', where it does not belong")
    return Picture(usage, int(match[2]), f"{class_name}/{stem}", label)


def decode(data: bytes, where: str) -> np.ndarray:
    """One grey 48x48 JPEG as uint8 [48,48]; ``where`` names it in the `FerReproError` a broken one raises.

    Bytes changed in the middle of the compressed data may still decode, to another picture: JPEG has no checksum. An
    archive's own checksum finds them, and in a folder the digest, which is then no known copy's.
    """
    if not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        # The decoder fills the missing rest of a cut picture with grey and says nothing if little is missing.
        raise damaged(where, f"the JPEG is cut, expected an end marker after {len(data):,} bytes")
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            if image.size != (SIDE, SIDE) or image.mode != "L":
                raise damaged(
                    where, f"a {image.size[0]}x{image.size[1]} picture of mode {image.mode}, expected 48x48 grey"
                )
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise damaged(where, f"the JPEG cannot be decoded ({error})") from error


class Album:
    """Collects the pictures of one copy in any order and sorts them at the end.

    Decoding runs in threads while the caller reads on. At most ``capacity`` pictures are accepted.
    """

    def __init__(self, source: str, capacity: int) -> None:
        self.source, self.capacity = source, capacity
        self._names: dict[str, str] = {}
        self._pictures: list[Picture] = []
        self._pixels: list[Future[np.ndarray]] = []
        self._pool = ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1)))

    def __enter__(self) -> Album:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, name: str, data: bytes) -> None:
        """Take one picture: its path with ``/`` and its bytes."""
        found = picture(name, self.source)
        if found.id in self._names:
            raise damaged(
                self.source, f"{found.id} is there twice ('{self._names[found.id]}' and '{name}'), expected once"
            )
        self._names[found.id] = name
        if len(self._pictures) == self.capacity:
            raise damaged(self.source, f"more than the {self.capacity:,} pictures that FER2013 has")
        if len(data) > LARGEST_PICTURE:
            raise damaged(self.source, f"'{name}' has more than {LARGEST_PICTURE:,} bytes, expected a 48x48 JPEG")
        self._pictures.append(found)
        self._pixels.append(self._pool.submit(decode, data, f"{self.source}: '{name}'"))
        if len(self) > _AHEAD:
            self._pixels[-_AHEAD].result()  # raises what is wrong with it, and waits where reading is too far ahead

    def __len__(self) -> int:
        return len(self._pictures)

    def parsed(self) -> Parsed:
        """Everything in canonical order (`Picture.rank`)."""
        ranked = sorted(zip(self._pictures, self._pixels, strict=True), key=lambda pair: pair[0].rank)
        pixels = np.array([face.result() for _, face in ranked])
        labels, usage = (np.array([getattr(p, of) for p, _ in ranked], np.uint8) for of in ("label", "usage"))
        return Parsed(pixels, labels, usage, np.array([p.id for p, _ in ranked], str), "folder copy")


def list_pictures(root: Path) -> list[tuple[str, os.stat_result]]:
    """The pictures below ``root/train`` and ``root/test``: paths below ``root`` (with ``/``) and their stat; sorted."""
    classes = [
        (f"{part}/{e.name}", e.path) for part in ("train", "test") for e in os.scandir(root / part) if e.is_dir()
    ]
    found = [(f"{folder}/{entry.name}", entry) for folder, path in classes for entry in os.scandir(path)]
    return sorted((name, entry.stat()) for name, entry in found if is_picture(name))


def read_folder(root: Path, capacity: int) -> Parsed:
    """Read a folder copy from disk; see `Album` for order and errors."""
    with Album(root.name, capacity) as album:
        for name, status in list_pictures(root):
            if status.st_size > LARGEST_PICTURE:
                raise damaged(root.name, f"'{name}' has {status.st_size:,} bytes, expected a 48x48 JPEG")
            album.add(name, (root / name).read_bytes())
        return album.parsed()
