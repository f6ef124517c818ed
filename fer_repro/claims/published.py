"""What is published beside a claim and can be counted: the claimed accuracy with more decimals, and confusion matrices.

The figures stand in ``published.yaml``, as they are printed and with their sources; it is read as strictly as
``claims.yaml``: an unknown variant, a missing class or a number that is no number is an error that names its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cache, partial
from pathlib import Path
from typing import Any

from fer_repro.claims import leaderboard_claims
from fer_repro.claims import schema as need
from fer_repro.data import LABELS
from fer_repro.errors import FerReproError

SCHEMA = 1
FILE = Path(__file__).parent / "published.yaml"
UNITS = {"images": 0, "percent": 100, "share": 1}
"""What a matrix counts in -> what a whole row is worth; 0: its number of images."""
DECIMALS = 8  # the most that a printed number may have


@dataclass(frozen=True)
class Printed:
    """A claimed accuracy in percent as a source prints it ("79.79"), with its ``decimals``."""

    variant: str
    text: str
    source: str

    @property
    def decimals(self) -> int:
        return len(self.text.partition(".")[2])


@dataclass(frozen=True)
class Matrix:
    """A published confusion matrix in the order of LABELS: ``rows`` hold what is printed, one text per cell.

    ``unit`` is one of `UNITS`; ``class_counts``: test images per class as the source prints them, None where it does
    not.
    """

    variant: str
    unit: str
    source: str
    rows: tuple[tuple[str, ...], ...]
    class_counts: tuple[int, ...] | None


@cache
def published() -> tuple[tuple[Printed, ...], tuple[Matrix, ...]]:
    """The project's published.yaml, read once."""
    return read(FILE)


def matrices() -> tuple[Matrix, ...]:
    """All published confusion matrices that are known."""
    return published()[1]


def matrix_of(variant: str) -> Matrix:
    """The matrix published for a claim. Raises `FerReproError` where none is known."""
    for matrix in matrices():
        if matrix.variant == variant:
            return matrix
    raise FerReproError(f"no confusion matrix of '{variant}' is known: published are {', '.join(_names(matrices()))}")


def _names(found: tuple[Matrix, ...]) -> list[str]:
    return [matrix.variant for matrix in found]


def read(path: Path) -> tuple[tuple[Printed, ...], tuple[Matrix, ...]]:
    """Read and check such a file. Raises `FerReproError` naming the entry and the field that is wrong."""
    schema = partial(need.checked, lambda value: value == SCHEMA, f"{SCHEMA}, the version this fer_repro reads")
    lists = {"accuracies": need.list_of(_accuracy), "matrices": need.list_of(_matrix)}
    found = need.fields(need.load(path), Path(path).name, schema=schema, **lists)
    names = _names(found["matrices"])
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise FerReproError(f"{Path(path).name}, field matrices: {', '.join(twice)} stands there twice, expected once")
    return found["accuracies"], found["matrices"]


def _variant(value: Any, where: str) -> str:
    return need.one_of(tuple(leaderboard_claims()))(value, where)


def _printed(value: Any, where: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(rf"\d{{1,2}}(\.\d{{1,{DECIMALS}}})?", value):
        raise need.wrong(where, value, 'a percent in quotes, as it is printed ("67.484")')
    return value


def _accuracy(value: Any, where: str) -> Printed:
    got = need.fields(value, where, variant=_variant, printed=_printed, source=need.text)
    claimed = Decimal(f"{leaderboard_claims()[got['variant']].accuracy:.2f}")
    if Decimal(got["printed"]).quantize(Decimal("0.01"), ROUND_HALF_UP) != claimed:
        raise need.wrong(f"{where}, field printed", got["printed"], f"the claim of {claimed} % with more decimals")
    return Printed(got["variant"], got["printed"], got["source"])


def _classes(value: Any, where: str) -> tuple[str, ...]:
    names = tuple(need.text(value, where).split())
    if sorted(names) != sorted(LABELS):
        raise need.wrong(where, value, f"the seven classes in the order of the columns ({' '.join(LABELS)})")
    return names


def _row(cell: str, value: Any, where: str) -> tuple[str, ...]:
    cells = tuple(need.text(value, where).split())
    if len(cells) != len(LABELS) or not all(re.fullmatch(cell, one) for one in cells):
        raise need.wrong(where, value, "seven numbers in quotes, as they are printed")
    return cells


def _by_class(reader: need.Reader) -> need.Reader:
    """A reader of a mapping that has exactly the seven classes, each through ``reader``."""
    return lambda value, where: need.fields(value, where, **dict.fromkeys(LABELS, reader))


def _matrix(value: Any, where: str) -> Matrix:
    unit = value.get("unit") if isinstance(value, Mapping) else None
    cell = r"\d{1,6}" if unit == "images" else rf"(\d{{1,3}}|\d{{0,3}}\.\d{{1,{DECIMALS}}})"
    got = need.fields(
        value,
        where,
        variant=_variant,
        unit=need.one_of(tuple(UNITS)),
        source=need.text,
        columns=_classes,
        rows=_by_class(partial(_row, cell)),
        class_counts=need.maybe(_by_class(need.whole)),
    )
    order = [got["columns"].index(label) for label in LABELS]
    rows = tuple(tuple(got["rows"][label][at] for at in order) for label in LABELS)
    class_counts = got["class_counts"] and tuple(got["class_counts"][label] for label in LABELS)
    return Matrix(got["variant"], got["unit"], got["source"], rows, class_counts)
