"""What stands on the accuracy-over-time chart and where: marks that would cover one another stand apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fer_repro.claims.others import Reported
from fer_repro.errors import FerReproError
from fer_repro.markup import absent, interval, percent

BOUNDED = ("released", "unfinished", "ablation")
COLUMNS = (
    *("variant", "slug", "model", "date", "claimed", "comparability", "verdict", "measured", "low", "high"),
    *(name + end for name in BOUNDED for end in ("", "_low", "_high")),
    *("ablation_variant", "ablation_state"),
    *("unfinished_epoch", "unfinished_epochs", "others_low", "others_high", "others_n", "others_comparable"),
    *("evidence", "evidence_text"),
)
# Each kind of mark, by its name in the legend: what is claimed, then the evidence beside it.
CLAIMS = {"claimed": "claimed", "clean": "claimed, class A (clean selection)"}
EVIDENCE = {
    "measured": "measured",
    "released": "released weights",
    "unfinished": "unfinished",
    "ablation": "ablation",
    "others": "measured by others",
    "incomparable": "measured by others, not comparable",
}
KINDS = CLAIMS | EVIDENCE
# The columns of an accuracy and its bounds; a range has no accuracy of its own.
ACCURACIES: dict[str, tuple[str | None, str, str]] = {
    "measured": ("measured", "low", "high"),
    "released": ("released", "released_low", "released_high"),
    "unfinished": ("unfinished", "unfinished_low", "unfinished_high"),
    "ablation": ("ablation", "ablation_low", "ablation_high"),
    "others": (None, "others_low", "others_high"),
    "incomparable": (None, "others_low", "others_high"),
}
LEAST = 0.008  # half the extent of a mark without bounds, as a fraction
# In steps beside a model's place, the nearest first: on both sides, or one below the other.
BESIDE = {"claimed": (0, 1, -1, 2, -2), "clean": (0, 1, -1, 2, -2)}
BESIDE |= {"measured": (0, 1, -1, 2), "released": (1, 2, -1, 3), "unfinished": (0, 1, -1, 2)}
BESIDE |= {"ablation": (0, 1, -1, 2)}
BESIDE |= dict.fromkeys(("others", "incomparable"), (-1, -2, 1, -3, 2, 3))
BELOW = dict.fromkeys(KINDS, tuple(range(len(EVIDENCE) + 1)))


@dataclass(frozen=True)
class Mark:
    """One mark: ``at`` is where it stands along the time, in the unit of the drawing; accuracies as fractions 0..1,
    ``value`` None for a range; ``row`` is the model's row of the table."""

    kind: str
    at: float
    value: float | None
    low: float
    high: float
    row: Any


def points(board: pd.DataFrame) -> pd.DataFrame:
    """The columns a chart needs of the leaderboard's own rows, by date; accuracies as fractions 0..1.

    Raises `FerReproError` for a foreign table.
    """
    missing = [name for name in (*COLUMNS, "pinned") if name not in board]
    if missing:
        raise FerReproError(
            f"the table for the chart lacks {', '.join(missing)}: expected what leaderboard.leaderboard() returns"
        )
    shown = board.loc[board["pinned"], list(COLUMNS)].copy()
    shown["date"] = pd.to_datetime(shown["date"])
    return shown.sort_values(["date", "claimed"], kind="stable").reset_index(drop=True)


def marks(
    shown: pd.DataFrame, at: Sequence[float], step: float, places: Mapping[str, Sequence[int]] = BESIDE
) -> list[Mark]:
    """Every mark: first the claims, then the evidence kind by kind in the order of `KINDS`.

    ``shown``: `points`; ``at``: where its models stand along the time; ``step``: how far marks of one accuracy must be
    apart; ``places``: the places of each kind, in steps.
    """
    found: list[Mark] = []
    for kind in KINDS:
        for own, row in zip(at, shown.itertuples(), strict=True):
            if (accuracy := _accuracy(kind, row)) is None:
                continue
            value, low, high = accuracy
            middle = (low + high) / 2 if value is None else value
            reach = min(low, middle - LEAST), max(high, middle + LEAST)
            found.append(Mark(kind, _place(own, step, reach, places[kind], found), value, low, high, row))
    return found


def _accuracy(kind: str, row: Any) -> tuple[float | None, float, float] | None:
    """What one kind of mark shows of a model: its accuracy, and from where to where it reaches; None for nothing."""
    if kind in CLAIMS:
        own = "clean" if row.comparability == "A" else "claimed"
        return (row.claimed, row.claimed, row.claimed) if kind == own else None
    value, low, high = ACCURACIES[kind]
    if absent(getattr(row, low)) or (value is None and bool(row.others_comparable) != (kind == "others")):
        return None
    return None if value is None else getattr(row, value), getattr(row, low), getattr(row, high)


def _place(own: float, step: float, reach: tuple[float, float], places: Sequence[int], taken: Sequence[Mark]) -> float:
    """The first place where no other mark overlaps; where all are taken, the one with the fewest."""

    def overlaps(place: int) -> int:
        at = own + place * step
        return sum(
            abs(at - one.at) < 0.99 * step and one.low - LEAST < reach[1] and reach[0] < one.high + LEAST
            for one in taken
        )

    return own + min(places, key=lambda place: (overlaps(place), places.index(place))) * step


def words(row: Any) -> list[str]:
    """The lines of text at a mark: model, claim, evidence of each kind that exists, verdict, date."""
    lines = [row.model, f"claimed {percent(row.claimed)} (class {row.comparability})"]
    if not absent(row.measured):
        lines.append(f"measured {percent(row.measured)} ({interval((row.low, row.high))})")
    if not absent(row.released):
        bounds = interval((row.released_low, row.released_high))
        lines.append(f"released weights {percent(row.released)} ({bounds})")
    if not absent(row.unfinished):
        bounds = interval((row.unfinished_low, row.unfinished_high))
        state = f"unfinished: epoch {row.unfinished_epoch} of {row.unfinished_epochs}"
        lines.append(f"{state}, {percent(row.unfinished)} ({bounds})")
    if not absent(row.ablation):
        bounds = interval((row.ablation_low, row.ablation_high))
        state = "" if absent(row.ablation_state) else f", {row.ablation_state}"
        lines.append(f"ablation {row.ablation_variant} {percent(row.ablation)} ({bounds}{state})")
    if found := reported(row._asdict()):
        lines.append(f"others: {found}")
    return [*lines, f"verdict: {row.verdict}", row.date.strftime("%d %B %Y").lstrip("0")]


def reported(row: Mapping[str, Any]) -> Reported | None:
    """What others measured of a row of the leaderboard, None where nobody has published a number."""
    if absent(row["others_low"]):
        return None
    return Reported(row["others_low"], row["others_high"], int(row["others_n"]), bool(row["others_comparable"]))
