"""The table of packages, ``packages.yaml``, read strictly: what their archives hold and what their authors say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated

from fer_repro.claims.schema import (
    checked,
    date,
    fields,
    list_of,
    load,
    note,
    one_of,
    pattern,
    record,
    text,
    whole,
    wrong,
)
from fer_repro.data import LABELS
from fer_repro.errors import FerReproError, nearest
from fer_repro.packages.networks import FAMILIES, Family

TABLE = Path(__file__).with_name("packages.yaml")
REGISTRIES = ("PyPI", "npm")

# They stand in commands of pip and npm, so that nothing else than a name and a version may be in them.
_name = pattern(r"(@[a-z0-9][a-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*", "a package's name, such as fer or @owner/name")
_version = pattern(r"[0-9][0-9A-Za-z.+-]*", "a version, such as 1.0.0")
_member = pattern(r"(?!.*(^|/)\.\.?(/|$))[A-Za-z0-9][\w./-]*", "a path inside an archive")
_digest = pattern(r"[0-9a-f]{64}", "64 hexadecimal digits")
_label = partial(checked, lambda value: value in LABELS, f"one of {', '.join(LABELS)}")


@dataclass(frozen=True)
class File:
    """One member of an archive, which is what it was when the table was written: sha256 and size in bytes."""

    member: Annotated[str, _member]
    sha256: Annotated[str, _digest]
    bytes: Annotated[int, whole]

    @property
    def name(self) -> str:
        return self.member.rpartition("/")[2]


@dataclass(frozen=True)
class Statement:
    """What its authors say of a model, in our words, and where."""

    what: Annotated[str, text]
    source: Annotated[str, text]


@dataclass(frozen=True)
class Package:
    """A package that is scored. ``sha256``: of its archive; ``labels``: the classes of its outputs, in their order."""

    name: Annotated[str, _name]
    registry: Annotated[str, one_of(REGISTRIES)]
    version: Annotated[str, _version]
    released: Annotated[str, date]
    licence: Annotated[str, text]
    family: Annotated[str, one_of(tuple(FAMILIES))]
    sha256: Annotated[str, _digest]
    files: Annotated[tuple[File, ...], list_of(record(File))]
    labels: Annotated[tuple[str, ...], list_of(_label)]
    preprocessing: Annotated[str, text]
    remark: Annotated[str, note]
    says: Annotated[tuple[Statement, ...], list_of(record(Statement))]
    also_sold_as: Annotated[tuple[str, ...], list_of(text)]

    @property
    def network(self) -> Family:
        return FAMILIES[self.family]

    @property
    def slug(self) -> str:
        """Its name as a part of a path: ``fer``, ``vladmandic-human``."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip("-")

    @property
    def folder(self) -> str:
        """The name of its folders of files and of results: ``fer-25.10.3``, ``vladmandic-human-3.3.6``."""
        return f"{self.slug}-{self.version}"

    @property
    def missing(self) -> tuple[str, ...]:
        """The classes of FER2013 that it does not know."""
        return tuple(label for label in LABELS if label not in self.labels)


@dataclass(frozen=True)
class NotScored:
    """A package that is not scored, and why; the version is empty where the reason holds for any."""

    name: Annotated[str, _name]
    registry: Annotated[str, one_of(REGISTRIES)]
    version: Annotated[str, note]
    because: Annotated[str, text]


@dataclass(frozen=True)
class Table:
    scored: tuple[Package, ...]
    not_scored: tuple[NotScored, ...]


def read(path: Path = TABLE) -> Table:
    """The table of a file. Raises `FerReproError` for whatever is not as it should be, with its place."""
    found = fields(load(path), path.name, scored=list_of(record(Package)), not_scored=list_of(record(NotScored)))
    for package in found["scored"]:
        where = f"{path.name}, {package.name}"
        if not package.files or not package.says:
            raise FerReproError(
                f"{where}: the field {'says' if package.files else 'files'} is empty, expected an entry"
            )
        if not package.labels or len(set(package.labels)) < len(package.labels):
            raise wrong(f"{where}, field labels", list(package.labels), "different classes")
    names = [package.name for package in (*found["scored"], *found["not_scored"])]
    if twice := [name for name in names if names.count(name) > 1]:
        raise FerReproError(f"{path.name}: {twice[0]} is there twice")
    return Table(**found)


@cache
def table() -> Table:
    """The project's own table."""
    return read()


def chosen(names: list[str] | tuple[str, ...]) -> list[Package]:
    """The packages of these names, all without any. Raises `FerReproError` for a name that is not in the table, and for
    a package that is not scored, with the reason."""
    known = {package.name: package for package in table().scored}
    reasons = {package.name: package.because for package in table().not_scored}
    for name in names:
        if name in reasons:
            raise FerReproError(f"{name} is not scored, because {reasons[name]}")
        if name not in known:
            raise FerReproError(f"unknown package '{name}': {nearest(name, known)}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())
