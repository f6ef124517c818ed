"""The accuracy of a stored result on the clean part of a test set: without images that Training holds too, and the
like.

Which images are left out is in the committed index of the data's audit, by their ids, so this needs predictions and no
data. ``clean`` leaves out what has an identical image in Training, a conflicting label, or is blank; ``strict`` also
what has a near-duplicate in Training.

The clean part is part of the whole, so the two accuracies are not independent. With m of n images left out, the
difference is (accuracy on the clean part - accuracy on what is left out) * m / n: two separate sets of images. Its
interval is Newcombe's for the difference of two proportions (1998, method 10, from Wilson's intervals), times m / n.
Which images are left out is known and does not vary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_repro import results
from fer_repro.data.audit.index import CLEAN, STRICT, Index, committed
from fer_repro.errors import FerReproError
from fer_repro.evaluation.statistics import wilson
from fer_repro.results.result import Result
from fer_repro.results.schema import EVIDENCE

SUBSETS = {"clean": CLEAN, "strict": STRICT}


@dataclass(frozen=True)
class Part:
    """How many of ``n`` images were right; ``accuracy`` None where there are none, ``interval`` Wilson's 95 %."""

    n: int
    correct: int

    @property
    def accuracy(self) -> float | None:
        return self.correct / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.correct, self.n)


@dataclass(frozen=True)
class CleanScore:
    """One result on one test set: the ``whole``, its ``clean`` part, what is ``left_out``, and clean minus whole with
    its 95 % interval (fractions)."""

    usage: str
    whole: Part
    clean: Part
    left_out: Part
    difference: float
    interval: tuple[float, float]


def difference(clean: Part, left_out: Part) -> tuple[float, float, float]:
    """Accuracy on the clean part minus that on the whole, with its 95 % interval: (difference, low, high); zero where
    nothing is left out. Raises `FerReproError` where everything is."""
    if clean.accuracy is None:
        raise FerReproError("the clean subset is empty: every image was left out, so there is nothing to compare")
    if left_out.accuracy is None:
        return 0.0, 0.0, 0.0
    a, b = clean.accuracy, left_out.accuracy
    (a_low, a_high), (b_low, b_high) = clean.interval, left_out.interval
    share = left_out.n / (clean.n + left_out.n)
    low, high = a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)
    return share * (a - b), share * low, share * high


def score(correct: np.ndarray, flagged: np.ndarray, usage: str) -> CleanScore:
    """``correct``, ``flagged``: bool [N], whether each image was right, and whether it is left out."""
    clean = Part(int((~flagged).sum()), int((correct & ~flagged).sum()))
    left_out = Part(int(flagged.sum()), int((correct & flagged).sum()))
    gain, low, high = difference(clean, left_out)
    whole = Part(len(correct), int(correct.sum()))
    return CleanScore(usage, whole, clean, left_out, gain, (low, high))


def of_result(
    result: Result, usage: str = "PrivateTest", findings: Sequence[str] = CLEAN, index: Index | None = None
) -> CleanScore | None:
    """A result's clean score on a test set, by test-time augmentation where it has any (as its headline is), or None
    where it was not scored there, or on a copy whose ids the index does not know."""
    index, found = committed() if index is None else index, result.predictions
    if usage not in result.halves or not index.holds_for(result.record["data"]["digest"], found[f"{usage}_ids"]):
        return None
    guess = found[f"{usage}_{'views' if result.has_views else 'plain'}"].argmax(axis=1)
    return score(guess == found[f"{usage}_labels"], index.flagged(found[f"{usage}_ids"], findings), usage)


def identical_only(result: Result, usage: str = "PrivateTest", index: Index | None = None) -> Part | None:
    """How a result does on the images that have an identical one in Training alone; None as `of_result`."""
    scored = of_result(result, usage, ("identical_in_training",), index)
    return None if scored is None else scored.left_out


def every(results_dir: Path | None = None) -> list[Result]:
    """Every stored result of every kind, in the order of the kinds: full runs, released weights, and so on."""
    return [result for kind in EVIDENCE for result in results.read_all(results_dir, kind)]
