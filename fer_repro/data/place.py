"""A copy of FER2013 on disk and how it is read: a table or several, folders of pictures, or an archive of these.

`READERS` is the table of the kinds of tables: a new kind is a line in `fer_repro.data.kinds.KINDS` and one here.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from fer_repro.data import archive
from fer_repro.data.csv_reader import read_csv
from fer_repro.data.folder_reader import (
    LARGEST_PICTURE,
    Album,
    class_folders,
    is_picture,
    is_picture_name,
    list_pictures,
    read_folder,
)
from fer_repro.data.kinds import ARRAY, INCOMPLETE, Kind
from fer_repro.data.mirror_reader import MOST_ARRAYS, content, read_arrays, read_parquet
from fer_repro.data.official import LABELS, USAGES, Parsed, printable
from fer_repro.errors import FerReproError

VARIABLE = "FER2013_ROOT"
CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")  # in the order of preference; they hold the same data
READERS: dict[str, Callable[[IO[bytes], str, int], Parsed]] = {"csv": read_csv, "parquet": read_parquet}
"""The kinds of tables (`Kind.role`) and what reads them: (stream, name for the errors, most rows) -> `Parsed`."""

ACCEPTED = (
    "a CSV with the columns emotion, pixels and Usage (fer2013.csv or icml_face_data.csv), pictures (48x48 grey JPEG, "
    "PNG or BMP) in train/<class>/ and test/<class>/ or in Training/, PublicTest/ and PrivateTest/<class>/ with the "
    f"classes {', '.join(LABELS)}, a Parquet table or an .npz with images, labels and usages, or an archive of these "
    "(.zip, .tar, .gz, .bz2, .xz)"
)
_PART = re.compile(r"train|test|val", re.IGNORECASE)  # the name of a table that holds one part of the images
_NAMED = 6  # names that a sentence lists


@dataclass(frozen=True)
class Place:
    """A copy of FER2013 on disk: ``kind`` is ``csv`` (or another key of `READERS`), ``folder`` or ``archive``.

    ``path`` is the file or folder; where several tables make one copy it is their folder, and ``parts`` are the tables.
    ``beside`` names what lies in the same folder, could be read as well, and is not.
    """

    path: Path
    kind: str
    parts: tuple[Path, ...] = ()
    beside: tuple[str, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """What a sentence calls it: the name of the file or folder, or of its parts."""
        return " and ".join(p.name for p in self.parts) or self.path.name or str(self.path)

    @property
    def _files(self) -> tuple[Path, ...]:
        return self.parts or (self.path,)

    def stamp(self) -> list:
        """What the file system says about the copy, cheap to ask and different after any change; JSON-ready.

        For files: size, mtime and ctime in ns, inode of each. For a folder: the number of class folders and a hash over
        the names, sizes and times of all their files (a folder's own time does not move when a picture is overwritten).
        """
        if self.kind != "folder":
            status = [path.stat() for path in self._files]
            return [value for s in status for value in (s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino)]
        # One stat for each of 35,887 pictures takes longer than all the rest of opening a cached copy; a CSV or an
        # archive needs one in all.
        lines = []
        for name, path in class_folders(self.path):
            with os.scandir(path) as entries:
                files = sorted((e.name, s.st_size, s.st_mtime_ns) for e in entries for s in (e.stat(),))
            lines.append(f"{name} {files}")
        return [len(lines), hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()]

    def key(self) -> str:
        """sha256 (hex) over the content: the files' bytes, or the names and bytes of all pictures of a folder."""
        h = hashlib.sha256()
        if self.kind != "folder":
            for path in self._files:
                with path.open("rb") as file:
                    hashlib.file_digest(file, lambda: h)
                if self.parts:
                    h.update(f"\0{path.stat().st_size}\0".encode())
            return h.hexdigest()
        for name, status in list_pictures(self.path):
            h.update(f"{name}\0{status.st_size}\0".encode("utf-8", "surrogateescape"))
            h.update((self.path / name).read_bytes())
        return h.hexdigest()

    def read(self, capacity: int) -> Parsed:
        """Parse the copy; `FerReproError` for anything wrong in it."""
        if self.kind not in READERS:
            return (read_folder if self.kind == "folder" else _read_archive)(self.path, capacity)
        tables = {}
        for path in self._files:
            with path.open("rb") as file:
                tables[path.name] = READERS[self.kind](file, path.name, capacity)
        return _together(tables, self.name)

    def csv_md5(self, layout: str) -> str:
        """md5 (hex) of the bytes of the CSV that was read, the file itself or the member of the archive."""
        sums: dict[str, str] = {}

        def update(name: str, kind: Kind | None, stream: IO[bytes]) -> None:
            if kind and kind.role in READERS and _wanted(name, sums):
                h = hashlib.md5(usedforsecurity=False)
                while piece := stream.read(1 << 20):
                    h.update(piece)
                sums[name] = h.hexdigest()

        if self.kind in READERS:
            with self._files[0].open("rb") as file:
                return hashlib.file_digest(file, "md5").hexdigest() if len(self._files) == 1 else ""
        archive.walk(self.path, update)
        chosen = choose(sums, self.name)
        return sums[chosen[0]] if len(chosen) == 1 else ""


def rank(name: str) -> int:
    """The preference among tables: the original files first, then any other, then what seems a part by its name."""
    last = name.rsplit("/", 1)[-1]
    if last.lower() in CSV_NAMES:
        return CSV_NAMES.index(last.lower())
    return len(CSV_NAMES) + bool(_PART.search(last))


def is_part(name: str) -> bool:
    """True where the name of a table seems to say that it holds one part of the images."""
    return rank(name) > len(CSV_NAMES)


def _wanted(name: str, found: Collection[str]) -> bool:
    """Whether a table that an archive gives out may be read, where others were ``found`` before it."""
    best = min(map(rank, found), default=99)
    return rank(name) < best or (rank(name) == best and best >= len(CSV_NAMES))


def choose(names: Collection[str], where: str) -> list[str]:
    """The tables of one copy among ``names``: the best, or all its parts; `FerReproError` where that is a guess."""
    best = min(map(rank, names))
    chosen = sorted(name for name in names if rank(name) == best)
    if best < len(CSV_NAMES):
        return chosen[:1]
    if best == len(CSV_NAMES) and len(chosen) > 1:
        raise FerReproError(several(where, "tables with all columns", chosen))
    return chosen


def several(where: str, what: str, names: list[str]) -> str:
    return printable(f"{where} holds several {what} ({first(names)}); point --root or ${VARIABLE} at the one to use")


def first(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _together(tables: dict[str, Parsed], where: str) -> Parsed:
    """Tables that hold one copy between them, in the order of their usages; `FerReproError` where two hold the same."""
    if len(tables) == 1:
        return next(iter(tables.values()))
    owner: dict[int, str] = {}
    for name, table in sorted(tables.items()):
        for usage in np.unique(table.usage).tolist():
            if usage in owner:
                raise FerReproError(
                    printable(
                        f"{where}: '{owner[usage]}' and '{name}' both hold images of {USAGES[usage]}, so they are not "
                        f"parts of one copy; point --root or ${VARIABLE} at the one to use, in a folder of its own"
                    )
                )
            owner[usage] = name
    ordered = [tables[name] for name in dict.fromkeys(owner[usage] for usage in sorted(owner))] or list(tables.values())
    images, labels, usage = (np.concatenate([getattr(t, of) for t in ordered]) for of in ("images", "labels", "usage"))
    ids = np.array([f"row-{i:05d}" for i in range(len(labels))], dtype="<U16")
    return Parsed(images, labels, usage, ids, ordered[0].layout)


def _read_archive(path: Path, capacity: int) -> Parsed:
    """The best of what an archive holds, whatever its order: the table that `choose` takes, else pictures."""
    tables: dict[str, Parsed] = {}
    arrays: dict[str, bytes] = {}  # of an .npz, which is a zip
    names: list[str] = []
    why: list[str] = []

    with Album(path.name, capacity) as album:

        def visit(name: str, kind: Kind | None, stream: IO[bytes]) -> None:
            if kind and kind.role in READERS:
                if _wanted(name, tables):
                    tables[name] = READERS[kind.role](stream, f"{path.name}: {name}", capacity)
            elif is_picture(name):
                if not tables:
                    album.add(name, stream.read(LARGEST_PICTURE + 1))
            elif kind == ARRAY and len(arrays) < MOST_ARRAYS:
                arrays[name] = content(stream, f"{path.name}: {name}")
            else:
                names.append(name)
                why.extend(why_not(name, kind))

        archive.walk(path, visit)
        if tables:
            return _together({name: tables[name] for name in choose(tables, path.name)}, path.name)
        if len(album):
            return album.parsed()
    if arrays:
        return read_arrays(arrays, path.name, capacity)
    if why:
        raise FerReproError(printable(f"{path.name}: {why[0]}"))
    found = f"it holds {first(names)}" if names else "it holds no file"
    raise FerReproError(printable(f"{path.name} holds no FER2013: {found}; expected {ACCEPTED}; point at another file"))


def why_not(name: str, kind: Kind | None) -> Iterator[str]:
    """The sentence about a file that seems to be meant, and is not read; nothing for any other file."""
    last = name.rsplit("/", 1)[-1]
    promises = last.lower().endswith(".csv") or archive.is_archive_name(last)
    if kind == INCOMPLETE:
        yield no_labels(last)
    elif kind and kind.advice and not is_picture_name(last) and (promises or not kind.in_place_of):
        yield f"'{last}' is {kind.words}; {kind.advice}"
    elif kind is None and last.lower().endswith(".csv") and "fer2013" in last.lower():
        yield f"'{last}' has no header line with the columns emotion, pixels and Usage; take fer2013.csv from Kaggle"
    elif kind is None and archive.is_archive_name(last):
        yield f"'{last}' is no archive, or its beginning is damaged; expected one by its name"


def no_labels(name: str) -> str:
    return (
        f"'{name}' has no column emotion or no column Usage, and the contest's test.csv has no labels: put "
        "icml_face_data.csv (which holds all images with labels) beside it, or use fer2013.csv"
    )
