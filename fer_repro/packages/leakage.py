"""Which images a model was trained on, judged from its accuracies alone.

The rule was fixed before the accuracy of any package on the sample of Training was measured, but after that of most on
the test sets. A model knows the images it was trained on better than others. So the fixed sample of Training is
compared with each test set; the gap is the accuracy on the sample minus that on the test set, with a 95 % interval
(Newcombe 1998, method 10: from the Wilson intervals of the two accuracies).

For each test set:

1. **seen**: its accuracy lies above `CEILING`, its whole interval: more than any claim of the leaderboard whose test
   images are known to be official ones (comparability A or B).
2. **held out**: the whole interval of the gap lies above 0.
3. **undecided**: anything else. The sample is not known better than the test set: all or none of both was trained
   on, or the model is too small to learn its images by rote.

A gap does not prove that a test set played no part: a checkpoint may have been selected on it, which costs no gap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fer_repro.results import HALVES

CEILING = 0.80
SEEN, HELD_OUT, UNDECIDED = "seen", "held out", "undecided"
SUMMARIES = {
    SEEN: "trained on test images",
    HELD_OUT: "trained on Training, not on the test sets",
    UNDECIDED: "undecided",
}


@dataclass(frozen=True)
class Judgement:
    """One test set against the sample of Training: the gap with its interval (fractions), and what follows."""

    usage: str
    gap: float
    interval: tuple[float, float]
    verdict: str


def difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[float, float, float]:
    """Accuracy of ``first`` minus that of ``second`` on other images, with its 95 % interval: (gap, low, high).

    Both are scores with ``accuracy`` and its Wilson ``interval``. (Newcombe 1998, method 10)
    """
    a, b = first["accuracy"], second["accuracy"]
    (a_low, a_high), (b_low, b_high) = first["interval"], second["interval"]
    low = a - b - math.hypot(a - a_low, b_high - b)
    return a - b, low, a - b + math.hypot(a_high - a, b - b_low)


def judge(training: Mapping[str, Any], test: Mapping[str, Any], usage: str) -> Judgement:
    """The rule applied to one test set; both are scores (see `difference`)."""
    gap, low, high = difference(training, test)
    verdict = SEEN if test["interval"][0] > CEILING else HELD_OUT if low > 0 else UNDECIDED
    return Judgement(usage, gap, (low, high), verdict)


def summary(judgements: Mapping[str, Judgement]) -> str:
    """Both test sets in one sentence: what holds for both, or what was seen."""
    verdicts = {usage: judgements[usage].verdict for usage in HALVES}
    if seen := [usage for usage, verdict in verdicts.items() if verdict == SEEN]:
        return SUMMARIES[SEEN] if len(seen) == len(HALVES) else f"trained on {seen[0]}"
    return SUMMARIES[HELD_OUT if set(verdicts.values()) == {HELD_OUT} else UNDECIDED]
