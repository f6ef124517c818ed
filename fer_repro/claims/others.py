"""What third parties report about a claim's model: each report with what it scored, and how it relates to the claim.

Nothing of it was run here and no verdict uses it. `reported_range` says which reports make the range that a table or a
chart shows beside the claim.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from fer_repro.claims import schema as need
from fer_repro.errors import FerReproError

# How a report relates to the claim. "Official" is FER2013's own split.
COMPARISONS = {
    "comparable": "this network and official training images, scored on the claim's test set; where the claim names "
    "none, on PrivateTest or on images that the report does not name",
    "other test set": "scored on other images than the claim, or on the images that selected the model",
    "other training": "trained on other images or from another start than the claim or the official protocol",
    "other size": "the same design with more or fewer parameters",
    "a part": "a part of the method alone",
    "unclear": "the report does not say enough about what was run or scored",
    "failed run": "training broke down, or a defect decides the number",
    "other method": "another method on FER2013, listed as context only",
}
COMPARABLE = "comparable"
OUTSIDE = ("failed run", "other method")  # never in a range: these say nothing about the claim's model
SCORED = ("PrivateTest", "PublicTest", "PublicTest+PrivateTest", "other", "unknown")
NUMBER = r"\d{1,2}(?:\.\d{1,4})?"
RESULT = re.compile(rf"(?:(?:about|above|at most) )?({NUMBER})(?: (?:to|and) ({NUMBER}))?")
NOBODY = "no measurement known"


def printed(value: Any, where: str) -> str:
    """A reader: percent as printed ("71.4127", "about 60", "58 to 66", "60 and 66"), or words without any digit."""
    words = need.text(value, where)
    if re.search(r"\d", words) and not RESULT.fullmatch(words):
        expected = (
            'a percent in quotes ("69.0", "about 60", "above 90", "at most 52", "58 to 66") or words without digits'
        )
        raise need.wrong(where, value, expected)
    return words


@dataclass(frozen=True)
class Measurement:
    """What somebody else measured: ``result`` in percent as printed, ``comparison`` one of `COMPARISONS`, and why."""

    who: Annotated[str, need.text]
    protocol: Annotated[str, need.text]
    scored: Annotated[str, need.one_of(SCORED)]
    result: Annotated[str, printed]
    source: Annotated[str, need.text]
    comparison: Annotated[str, need.one_of(tuple(COMPARISONS))]
    why: Annotated[str, need.text]

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The lowest and the highest number of the report, as fractions 0..1; None where it gives none. "About",
        "above" and "at most" are left away."""
        found = RESULT.fullmatch(self.result)
        if found is None:
            return None
        numbers = [round(float(number) / 100, 8) for number in found.groups() if number]
        return min(numbers), max(numbers)


@dataclass(frozen=True)
class Reported:
    """The range of ``n`` reports, fractions 0..1; ``comparable`` where each of them can be compared with the claim."""

    low: float
    high: float
    n: int
    comparable: bool

    def __str__(self) -> str:
        """The range and its reports: "58 to 66 % (6 reports)"."""
        return f"{self.percent} ({self.reports})"

    @property
    def reports(self) -> str:
        """How many they are, and whether they can be compared: "3 reports, not comparable"."""
        return f"{self.n} report{'s' * (self.n > 1)}{'' if self.comparable else ', not comparable'}"

    @property
    def percent(self) -> str:
        """The range: "58 to 66 %", or one number where all reports agree."""
        ends = dict.fromkeys(f"{100 * end:.2f}".rstrip("0").rstrip(".") for end in (self.low, self.high))
        return " to ".join(ends) + "\u00a0%"


def reported_range(others: Iterable[Measurement]) -> Reported | None:
    """The range to show beside a claim: of the comparable reports where there are any, else of all reports on the
    claim's model or parts of it; None where no report gives a number. Failed runs and other methods never count."""
    numbers = [(one, one.bounds) for one in others if one.comparison not in OUTSIDE]
    known = [(one, bounds) for one, bounds in numbers if bounds is not None]
    best = [(one, bounds) for one, bounds in known if one.comparison == COMPARABLE]
    chosen = [bounds for _, bounds in best or known]
    if not chosen:
        return None
    return Reported(min(low for low, _ in chosen), max(high for _, high in chosen), len(chosen), bool(best))


def nobody_measured(others: Iterable[Measurement]) -> bool:
    """True where no report is about the claim's model: then pages say `NOBODY`."""
    return all(one.comparison == "other method" for one in others)


def comparable_scope(others: Iterable[Measurement], usages: tuple[str, ...], where: str) -> None:
    """Refuse a report that is called comparable but has no number, or was scored elsewhere than the claim was
    (``usages``: the test sets of the claim, empty where the audit does not know them). Raises `FerReproError`."""
    allowed = ("+".join(usages),) if usages else ("PrivateTest", "unknown")
    for number, one in enumerate(others):
        if one.comparison != COMPARABLE:
            continue
        place = f"{where}, field others [{number}]"
        if one.bounds is None:
            raise FerReproError(f"{place}: a comparable report needs a number, but its result is '{one.result[:40]}'")
        if one.scored not in allowed:
            expected = f"{' or '.join(allowed)}, as the claim, for a comparable report"
            raise need.wrong(f"{place}, field scored", one.scored, expected)
