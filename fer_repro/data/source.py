"""Where FER2013 is: the three places it is looked for, and what is found there."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from fer_repro.data import archive
from fer_repro.data.folder_reader import is_class_folder, is_picture_name, is_split_folder
from fer_repro.data.kinds import ARCHIVES, COMPRESSED, HEAD, INCOMPLETE, Kind, sniff
from fer_repro.data.official import damaged, printable
from fer_repro.data.place import (
    ACCEPTED,
    CSV_NAMES,
    READERS,
    VARIABLE,
    Place,
    choose,
    first,
    is_part,
    rank,
    several,
    why_not,
)
from fer_repro.errors import FerReproError

HOME = Path("data/fer2013")
_DEPTH = 4  # folders in folders: archive/fer2013/fer2013/fer2013.csv
_LOOKED_AT = 1000  # files and folders that a search opens


def _kind_of(path: Path) -> Kind | None:
    with path.open("rb") as file:
        return sniff(file.read(HEAD))


def recognise(path: Path) -> Place | None:
    """The copy that ``path`` (a table, an archive or a folder with one of these or with folders of pictures) names.

    Files are known by their first bytes, not by their names. A folder is searched to a depth of four.
    None where nothing is there; `FerReproError` where something is there that is not FER2013, or several copies are.
    """
    try:
        if path.is_dir():
            return _Search().folder(path)
        return _recognise_file(path) if path.exists() else None
    except OSError as error:
        raise FerReproError(printable(_unreadable(path, error))) from error


def _unreadable(path: Path, error: OSError) -> str:
    return f"'{path}' cannot be read ({error.strerror or error}); check that it is there and that you may read it"


def _recognise_file(path: Path) -> Place:
    if not path.is_file():
        raise FerReproError(f"'{path.name}' is neither a file nor a folder; expected {ACCEPTED}")
    kind = _kind_of(path)
    if kind and kind.role in (*ARCHIVES, *COMPRESSED):
        return Place(path, "archive")
    if kind and kind.role in READERS and not is_part(path.name):
        return Place(path, kind.role)
    if kind and is_part(path.name) and (kind == INCOMPLETE or kind.role in READERS):
        around = _Search().survey(path.parent)  # what is missing may lie beside it
        whole = sorted((p for p in around.tables if rank(p.name) < len(CSV_NAMES)), key=lambda p: rank(p.name))
        parts = tuple(p for p in around.tables if is_part(p.name))
        if kind != INCOMPLETE:
            return Place(path.parent, kind.role, parts) if len(parts) > 1 else Place(path, kind.role)
        if whole:
            return Place(whole[0], "csv")
    elif path.suffix.lower() == ".csv" and (kind is None or kind == INCOMPLETE):
        return Place(path, "csv")  # its reader says what is wrong with the header
    for why in why_not(path.name, kind):
        raise damaged(path.name, why) if kind is None else FerReproError(printable(why))
    found = f"it is {kind.words}" if kind else "its first bytes are those of no form that is read"
    raise FerReproError(
        printable(
            f"'{path.name}' is no FER2013: expected a folder, a .csv or an archive, and {found}; point --root or "
            f"${VARIABLE} at {ACCEPTED}"
        )
    )


@dataclass
class _Survey:
    """What one folder holds."""

    folder: Path
    tables: list[Path] = field(default_factory=list)
    roles: dict[str, str] = field(default_factory=dict)
    pictures: bool = False
    archives: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def place(self) -> Place | None:
        """The copy in this folder, outside archives."""
        pictures = ["the folders of pictures"] if self.pictures else []
        archives = [p.name for p in self.archives]
        if not self.tables:
            return Place(self.folder, "folder", beside=(*archives,)) if self.pictures else None
        chosen = choose([p.name for p in self.tables], f"the folder '{self.folder.name or self.folder}'")
        rest = [p.name for p in self.tables if p.name not in chosen]
        beside, role = (*rest, *pictures, *archives), self.roles[chosen[0]]
        if len(chosen) == 1:
            return Place(self.folder / chosen[0], role, beside=beside)
        return Place(self.folder, role, tuple(self.folder / name for name in chosen), beside)


class _Search:
    """A search through a folder and the folders in it, bounded in depth and in what it opens."""

    def __init__(self) -> None:
        self.looked, self.why = 0, list[str]()

    def folder(self, root: Path) -> Place | None:
        """The copy nearest to ``root``: in a folder's files, else in an archive."""
        level, levels = [root], list[list[Path]]()
        for _ in range(_DEPTH + 1):
            here = [self.survey(folder) for folder in level]
            levels.append([path for survey in here for path in survey.archives])
            places = [place for survey in here if (place := survey.place())]
            if place := _only(root, places):
                return place
            level = [folder for survey in here for folder in survey.folders]
        for archives in levels:
            if place := _only(root, [Place(path, "archive") for path in archives]):
                return place
        if self.why:
            raise FerReproError(printable(self.why[0]))
        return None

    def survey(self, folder: Path) -> _Survey:
        """What lies in one folder, each file known by its first bytes."""
        found = _Survey(folder)
        self.looked += 1
        if self.looked > _LOOKED_AT:
            return found
        try:
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            self.why.append(_unreadable(folder, error))
            return found
        split = set()
        for entry in entries:
            path = folder / entry.name
            if archive.is_litter(entry.name) or is_picture_name(entry.name):
                continue
            try:
                if path.is_dir():
                    inside = {e.name for e in os.scandir(path)} if is_split_folder(entry.name) else set()
                    found.pictures |= any(map(is_class_folder, inside))
                    split |= {entry.name.lower()} if inside else set()
                    found.folders.append(path)
                elif path.is_file() and self.looked < _LOOKED_AT:
                    self.looked += 1
                    kind = _kind_of(path)
                    if kind and kind.role in READERS:
                        found.tables.append(path)
                        found.roles[entry.name] = kind.role
                    elif kind and kind.role:  # many kinds of documents are zip files: their names say that they are not
                        if archive.is_archive_name(entry.name) or not path.suffix:
                            found.archives.append(path)
                    else:
                        self.why.extend(why_not(entry.name, kind))
            except OSError as error:
                if path.suffix.lower() == ".csv" or archive.is_archive_name(entry.name):
                    self.why.append(_unreadable(path, error))
        found.pictures |= len(split) > 1
        return found


def _only(root: Path, places: list[Place]) -> Place | None:
    """The one place, or the one that is named for the data set; `FerReproError` where several are there.

    ``fer2013/`` below the root is torchvision's layout.
    """
    named = [p for p in places if "fer2013" in p.path.name.lower() and p.kind == "archive"]
    named = named or [p for p in places if "fer2013" in (p.path.name, p.path.parent.name) and p.kind != "archive"]
    choice = named if len(places) > 1 and named else places
    names = [printable(place.path.relative_to(root).as_posix()) for place in places]
    if len(choice) > 1:
        where = f"the folder '{root.name or root}'"
        if choice[0].kind == "archive":
            raise FerReproError(
                f"{several(where, 'archives', names)} (or unpack them into one folder, if they are parts)"
            )
        raise FerReproError(several(where, "copies", names))
    if not choice:
        return None
    others = [name for name, place in zip(names, places, strict=True) if place is not choice[0]]
    return replace(choice[0], beside=(*choice[0].beside, *others))


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
        missing.append(f"{what} is '{value}', which {_holds(path)}")
        raise FerReproError(_not_found([*missing, f"{after} not tried, because {what} comes first"]))
    for home in _homes():
        if place := recognise(home):
            return place
    missing.append(f"{HOME}/ {_holds(HOME)}")
    raise FerReproError(_not_found(missing))


def _homes() -> tuple[Path, Path]:
    """Where the data lie without being named: in the working folder, and in the checkout."""
    return HOME, Path(__file__).resolve().parents[2] / HOME


def at_hand() -> bool:
    """Whether somebody says that FER2013 is on this machine: ``$FER2013_ROOT`` is set, or ``data/fer2013/`` holds it.

    Raises `FerReproError` where the folder holds something else, or several copies.
    """
    return bool(os.environ.get(VARIABLE)) or any(recognise(home) for home in _homes())


def _holds(path: Path) -> str:
    """What is there instead of FER2013."""
    if not path.is_dir():
        return "does not exist"
    names = [f"{name}/" if (path / name).is_dir() else name for name in sorted(os.listdir(path))]
    return f"holds none, only {first(names)}" if names else "holds none: the folder is empty"


def _not_found(missing: list[str]) -> str:
    return printable(
        f"FER2013 was not found: {'; '.join(missing)}; get it with `fer-repro data --download`, or point --root or "
        f"${VARIABLE} at {ACCEPTED} (the synthetic faces, data 'synthetic', need none)"
    )
