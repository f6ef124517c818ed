"""Where FER2013 is: the three places it is looked for, and what is found there."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fer_repro.data import archive
from fer_repro.data.csv_reader import read_csv
from fer_repro.data.folder_reader import LARGEST_PICTURE, Album, is_picture, list_pictures, read_folder
from fer_repro.data.official import LABELS, Parsed
from fer_repro.errors import FerReproError

VARIABLE = "FER2013_ROOT"
HOME = Path("data/fer2013")
CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")  # in the order of preference; they hold the same data
_WITHOUT_USAGE = ("train.csv", "test.csv")


@dataclass(frozen=True)
class Place:
    """A copy of FER2013 on disk: ``kind`` is ``csv``, ``folder`` or ``archive``."""

    path: Path
    kind: str

    def stamp(self) -> list:
        """What the file system says about the copy, cheap to ask and different after any change; JSON-ready.

        For a file: size, mtime and ctime in ns, inode. For a folder: the number of class folders and a hash over the
        names, sizes and times of all their files (a folder's own time does not move when a picture is overwritten).
        """
        if self.kind != "folder":
            s = self.path.stat()
            return [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino]
        # One stat for each of 35,887 pictures takes longer than all the rest of opening a cached copy; a CSV or an
        # archive needs one in all.
        lines = []
        for pattern in ("train/*/", "test/*/"):
            for folder in sorted(p for p in self.path.glob(pattern) if p.is_dir()):
                with os.scandir(folder) as entries:
                    files = sorted((e.name, s.st_size, s.st_mtime_ns) for e in entries for s in (e.stat(),))
                lines.append(f"{folder.name} {files}")
        return [len(lines), hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()]

    def key(self) -> str:
        """sha256 (hex) over the content: the file's bytes, or the names and bytes of all pictures of a folder."""
        if self.kind != "folder":
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        h = hashlib.sha256()
        for name, status in list_pictures(self.path):
            h.update(f"{name}\0{status.st_size}\0".encode())
            h.update((self.path / name).read_bytes())
        return h.hexdigest()

    def read(self, capacity: int) -> Parsed:
        """Parse the copy; `FerReproError` for anything wrong in it."""
        if self.kind != "csv":
            return (read_folder if self.kind == "folder" else _read_archive)(self.path, capacity)
        with self.path.open("rb") as file:
            return read_csv(file, self.path.name, capacity)

    def csv_md5(self, layout: str) -> str:
        """md5 (hex) of the bytes of the CSV named ``layout``, the file itself or a member of the archive."""
        h = hashlib.md5(usedforsecurity=False)

        def update(name: str, size: int, stream: IO[bytes]) -> None:
            while piece := stream.read(1 << 20):
                h.update(piece)

        if self.kind == "csv":
            with self.path.open("rb") as file:
                update(self.path.name, 0, file)
        else:
            archive.walk(self.path, lambda name: name.rsplit("/", 1)[-1] == layout, update)
        return h.hexdigest()


def _read_archive(path: Path, capacity: int) -> Parsed:
    """The best of what an archive holds, whatever its order: fer2013.csv, else icml_face_data.csv, else pictures."""
    csv_found: dict[str, Parsed] = {}
    incomplete: set[str] = set()

    def wanted(name: str) -> bool:
        last = name.rsplit("/", 1)[-1]
        if last in _WITHOUT_USAGE:
            incomplete.add(last)
        if last in CSV_NAMES:
            return not any(better in csv_found for better in CSV_NAMES[: CSV_NAMES.index(last) + 1])
        return is_picture(name) and not csv_found

    with Album(path.name, capacity) as album:

        def visit(name: str, size: int, stream: IO[bytes]) -> None:
            last = name.rsplit("/", 1)[-1]
            if last in CSV_NAMES:
                csv_found[last] = read_csv(stream, f"{path.name}: {last}", capacity)
            else:
                album.add(name, stream.read(LARGEST_PICTURE + 1))

        archive.walk(path, wanted, visit)
        if csv_found:
            return csv_found[min(csv_found, key=CSV_NAMES.index)]
        if len(album):
            return album.parsed()
    if incomplete:
        raise FerReproError(_no_labels(path.name))
    raise FerReproError(
        f"{path.name} holds no FER2013: expected fer2013.csv, icml_face_data.csv or pictures named "
        f"train/<class>/*.jpg and test/<class>/*.jpg with the classes {', '.join(LABELS)}; point at another file"
    )


def _no_labels(where: str) -> str:
    return (
        f"{where} holds train.csv or test.csv alone, and test.csv has no labels: put icml_face_data.csv (which holds "
        "all images with labels) beside it, or use fer2013.csv"
    )


def recognise(path: Path) -> Place | None:
    """The copy that ``path`` (a CSV, an archive or a folder with one of these or with train/ and test/) names.

    None where nothing is there; `FerReproError` where something is there that is not FER2013, or several archives are.
    """
    if path.is_dir():
        return _recognise_folder(path)
    if not path.exists():
        return None
    if archive.is_archive(path):
        return Place(path, "archive")
    if path.name in _WITHOUT_USAGE:
        beside = path.with_name("icml_face_data.csv")
        if beside.is_file():
            return Place(beside, "csv")
        raise FerReproError(_no_labels(path.name))
    if path.suffix.lower() == ".csv":
        return Place(path, "csv")
    raise FerReproError(
        f"'{path.name}' is no FER2013: expected a folder, a .csv or an archive ({', '.join(archive.SUFFIXES)}); point "
        f"--root or ${VARIABLE} at one"
    )


def _recognise_folder(folder: Path) -> Place | None:
    for name in CSV_NAMES:
        if (folder / name).is_file():
            return Place(folder / name, "csv")
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        return Place(folder, "folder")
    archives = sorted(p for p in folder.iterdir() if p.is_file() and archive.is_archive(p))
    named = [p for p in archives if "fer2013" in p.name.lower()]
    choice = named or archives
    if len(choice) > 1:
        raise FerReproError(
            f"the folder '{folder.name}' holds several archives ({', '.join(p.name for p in choice[:4])}); point "
            f"--root or ${VARIABLE} at the one to use"
        )
    if choice:
        return Place(choice[0], "archive")
    if (folder / "fer2013").is_dir():  # torchvision's layout: root/fer2013/fer2013.csv
        return _recognise_folder(folder / "fer2013")
    if any((folder / name).is_file() for name in _WITHOUT_USAGE):
        raise FerReproError(_no_labels(f"the folder '{folder.name}'"))
    return None


def find(root: str | os.PathLike | None = None) -> Place:
    """The copy to use: ``root``, else ``$FER2013_ROOT``, else ``data/fer2013/`` (here or in the project's folder).

    A place that was named must hold FER2013: no other data is used instead.
    Raises `FerReproError` naming the three places and how to get the data.
    """
    missing = []
    variable = os.environ.get(VARIABLE) or None
    for what, value, absent, after in (
        ("--root", root, "is not given", f"${VARIABLE} and {HOME}/ were"),
        (f"${VARIABLE}", variable, "is not set", f"{HOME}/ was"),
    ):
        if value is None:
            missing.append(f"{what} {absent}")
            continue
        path = Path(os.path.expanduser(value))  # Path.expanduser ends where no home folder is known
        if place := recognise(path):
            return place
        missing.append(f"{what} is '{value}', which {'holds none' if path.exists() else 'does not exist'}")
        raise FerReproError(_not_found([*missing, f"{after} not tried, because {what} comes first"]))
    for home in (HOME, Path(__file__).resolve().parents[2] / HOME):
        if place := recognise(home):
            return place
    missing.append(f"{HOME}/ {'holds none' if HOME.is_dir() else 'does not exist'}")
    raise FerReproError(_not_found(missing))


def _not_found(missing: list[str]) -> str:
    return (
        f"FER2013 was not found: {'; '.join(missing)}; get it with `fer-repro data --download`, or point --root or "
        f"${VARIABLE} at a folder, a CSV or an archive with it (the synthetic faces, data 'synthetic', need none)"
    )
