"""Arithmetic of the claims: can a printed percent be a count of images, how much does that say, and do published
confusion matrices agree with the class counts of FER2013 and with the claim?

An accuracy over n images is one of the n + 1 shares k/n. Printed with d decimals these are at most n + 1 of the
100 * 10**d + 1 numbers from 0 to 100, so that an arbitrary number fits n with the share `share_that_fits`. A number
that does not fit n is no rounded accuracy over n images (a mean of several runs may be any number); one that fits may
be one, or fit by chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from scipy import stats

from fer_repro.claims import HALF, book, counts_that_print, leaderboard_claims
from fer_repro.claims.published import UNITS, Matrix, Printed, published
from fer_repro.data import LABELS, USAGES
from fer_repro.data.official import OFFICIAL_COUNTS

SETS = {
    "PublicTest": OFFICIAL_COUNTS[1],
    "PrivateTest": OFFICIAL_COUNTS[2],
    "both test sets together": OFFICIAL_COUNTS[1] + OFFICIAL_COUNTS[2],
}
"""The sets of official test images that a claim may be about: images per class, int [7]."""
ROUNDED = 0.5e-4 + 1e-12  # a claim of two decimals may be off by half of its last one
LARGEST = 10**18  # of n * 100 * 10**decimals: numpy's int64 holds four times that


@dataclass(frozen=True)
class Fit:
    """The counts k of ``n`` images that print as a claim: ``rounded``, or ``cut`` after the last decimal."""

    printed: Printed
    n: int
    rounded: tuple[int, ...]
    cut: tuple[int, ...]


@dataclass(frozen=True)
class Surprise:
    """How many of ``claims`` printed numbers fit ``n`` images, beside arbitrary numbers of as many decimals.

    ``share``: of the arbitrary numbers, those that fit; ``expected`` of the claims by chance; ``probability`` that as
    many or more fit where each is arbitrary.
    """

    n: int
    decimals: int
    share: float
    fitting: tuple[str, ...]
    claims: int
    probability: float

    @property
    def expected(self) -> float:
        return self.share * self.claims

    @property
    def factor(self) -> float:
        """By how much a fit raises the odds that a number is an accuracy over ``n`` images and no arbitrary one."""
        return 1 / self.share


def printings() -> tuple[Printed, ...]:
    """Every claimed accuracy as it is printed: on the leaderboard, with two decimals, and wherever more are known."""
    claims = leaderboard_claims().values()
    rows = [Printed(claim.variant, f"{claim.accuracy:.2f}", "the leaderboard") for claim in claims]
    return (*rows, *published()[0])


def totals() -> dict[int, str]:
    """The numbers of test images that a claim may be about -> what they are: one test set, both, and every other one
    that the audit of a claim names."""
    found = {HALF: "PublicTest, or PrivateTest", 2 * HALF: "PublicTest and PrivateTest together"}
    for claim in book().claims.values():
        for total in claim.audit.arithmetic.others:
            found.setdefault(total.n, total.what)
    return found


def fit(printed: Printed, n: int) -> Fit:
    """Which counts of ``n`` images print as ``printed``."""
    accuracy, decimals = float(printed.text), printed.decimals
    return Fit(printed, n, counts_that_print(accuracy, n, decimals), counts_that_print(accuracy, n, decimals, True))


def share_that_fits(n: int, decimals: int = 2, or_cut: bool = False) -> Fraction:
    """The share of all numbers from 0 to 100 with ``decimals`` decimals as which some k of ``n`` images prints,
    rounded, or with ``or_cut`` either rounded or cut after the last decimal."""
    steps = 100 * 10**decimals
    if not (n > 0 and n * steps <= LARGEST):
        raise ValueError(f"{n:,} images and {decimals} decimals, expected an image or more and fewer decimals")
    k = np.arange(n + 1, dtype=np.int64)
    # Exact in whole numbers, as `counts_that_print`: halves are rounded up.
    shown = [(2 * k * steps + n) // (2 * n), *([k * steps // n] if or_cut else [])]
    return Fraction(len(np.unique(np.concatenate(shown))), steps + 1)


def surprise(n: int, decimals: int = 2) -> Surprise:
    """The claims that are printed with ``decimals`` decimals against ``n`` images."""
    own = [one for one in printings() if one.decimals == decimals]
    fitting = tuple(one.variant for one in own if fit(one, n).rounded)
    share = float(share_that_fits(n, decimals))
    return Surprise(n, decimals, share, fitting, len(own), at_least(len(fitting), len(own), share))


def at_least(fitting: int, n: int, share: float) -> float:
    """The probability that ``fitting`` or more of ``n`` arbitrary numbers fit where each does with the chance
    ``share``; NaN of no numbers."""
    return float(stats.binomtest(fitting, n, share, alternative="greater").pvalue) if n else math.nan


# ---- published confusion matrices -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """A matrix as one of a set of test images.

    ``images``: per class; ``rows``: of each class, whether counts of that many images print as its row; ``accuracy``:
    what follows, as least, value and most (the bounds by the rounding of the printed figures); ``agrees``: whether the
    claim can be that number.
    """

    name: str
    images: tuple[int, ...]
    rows: tuple[bool, ...]
    accuracy: tuple[float, float, float]
    agrees: bool


def values(matrix: Matrix) -> np.ndarray:
    """The printed figures of a matrix, float64 [7,7], rows and columns in the order of LABELS."""
    return np.array([[float(cell) for cell in row] for row in matrix.rows])


def half_units(matrix: Matrix) -> np.ndarray:
    """Half a unit of the last decimal of every cell, float64 [7,7]; 0 where a matrix prints counts."""
    if matrix.unit == "images":
        return np.zeros((len(LABELS), len(LABELS)))
    return np.array([[0.5 / 10 ** _decimals(cell) for cell in row] for row in matrix.rows])


def row_sums(matrix: Matrix) -> tuple[np.ndarray, np.ndarray]:
    """What every row of a matrix adds up to, and by how much rounding alone may move that; float64 [7] each."""
    return values(matrix).sum(axis=1), half_units(matrix).sum(axis=1)


def whole_rows(matrix: Matrix) -> tuple[bool, ...]:
    """Of each row that prints shares, whether it can add up to the whole within its rounding; True of counts."""
    whole = UNITS[matrix.unit]
    sums, slack = row_sums(matrix)
    return tuple(bool(not whole or abs(total - whole) <= by + 1e-9) for total, by in zip(sums, slack, strict=True))


def counts_of_row(row: Sequence[str], unit: str, n: int) -> tuple[tuple[int, int], ...] | None:
    """Least and largest count of each cell of a printed row over ``n`` images; None where no counts that add up to
    ``n`` print as it. A figure that lies half-way between two decimals may have been rounded either way."""
    if unit == "images":
        return tuple((int(cell), int(cell)) for cell in row) if sum(map(int, row)) == n else None
    bounds = []
    for cell in row:
        value, half = Fraction(cell if cell[0] != "." else f"0{cell}"), Fraction(1, 2 * 10 ** _decimals(cell))
        low = max(0, math.ceil((value - half) * n / UNITS[unit]))
        bounds.append((low, min(n, math.floor((value + half) * n / UNITS[unit]))))
    least, most = sum(low for low, _ in bounds), sum(high for _, high in bounds)
    if any(low > high for low, high in bounds) or not least <= n <= most:
        return None
    # What the other cells leave over narrows each.
    return tuple((max(low, n - most + high), min(high, n - least + low)) for low, high in bounds)


def implied(matrix: Matrix, images: Sequence[int]) -> tuple[float, float, float]:
    """The accuracy that a matrix gives with ``images`` per class: least, value and most, fractions 0..1.

    Of a matrix of counts it is their own, whatever the images. The bounds follow from the rounding of the diagonal.
    """
    diagonal, half = np.diag(values(matrix)), np.diag(half_units(matrix))
    if matrix.unit == "images":
        own = float(diagonal.sum() / values(matrix).sum())
        return own, own, own
    weights = np.asarray(images) / np.sum(images) / UNITS[matrix.unit]
    low, value, high = (float(weights @ part) for part in (diagonal - half, diagonal, diagonal + half))
    return low, value, high


def readings(matrix: Matrix) -> tuple[Reading, ...]:
    """A matrix read as one of PublicTest, of PrivateTest, of both, and with the class counts that its source prints."""
    sets = {name: tuple(images.tolist()) for name, images in SETS.items()}
    if matrix.class_counts is not None:
        sets["class counts of the source"] = matrix.class_counts
    claimed = leaderboard_claims()[matrix.variant].accuracy / 100
    found = []
    for name, images in sets.items():
        rows = tuple(counts_of_row(row, matrix.unit, n) is not None for row, n in zip(matrix.rows, images, strict=True))
        low, value, high = implied(matrix, images)
        agrees = low - ROUNDED <= claimed <= high + ROUNDED
        found.append(Reading(name, images, rows, (low, value, high), agrees))
    return tuple(found)


def same_numbers(images: Sequence[int]) -> str:
    """The test set whose seven class counts are these in another order; empty where there is none, or they are in its
    own order."""
    for usage, official in zip(USAGES[1:], OFFICIAL_COUNTS[1:].tolist(), strict=True):
        if sorted(images) == sorted(official) and list(images) != official:
            return usage
    return ""


def as_json() -> dict[str, Any]:
    """All of it, JSON-ready: ``totals`` (images -> what they are), ``claims`` with the counts that fit each total,
    ``chance`` per total, and ``matrices`` with their readings."""
    known = totals()
    claims = [
        asdict(printed)
        | {"fits": {n: {"rounded": found.rounded, "cut": found.cut} for n in known for found in [fit(printed, n)]}}
        for printed in printings()
    ]
    chance = [asdict(found) | {"expected": found.expected} for found in map(surprise, known)]
    own = [asdict(matrix) | {"readings": [asdict(one) for one in readings(matrix)]} for matrix in published()[1]]
    return {"totals": known, "claims": claims, "chance": chance, "matrices": own}


def _decimals(cell: str) -> int:
    return len(cell.partition(".")[2])
