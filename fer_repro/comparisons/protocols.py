"""What the protocol changes: the test set, the epoch, test-time augmentation, and the claimed protocol.

Accuracies and differences are fractions. Differences on the same images are paired (bootstrap and McNemar's test of
`evaluation.statistics`); those between two test sets are not (Newcombe 1998, method 10).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer_repro.comparisons.entries import SCORED, SELECTING, Comparison, Entry
from fer_repro.evaluation.statistics import mean_interval, paired_comparison
from fer_repro.packages.leakage import difference
from fer_repro.results import FULL, PACKAGE, UNFINISHED, Result

LAST, BY_PUBLIC, BY_PRIVATE = "last epoch", f"best on {SELECTING}", f"best on {SCORED} (an oracle)"
CHOICES = (LAST, BY_PUBLIC, BY_PRIVATE)
"""Which epoch's weights are scored. The third needs the scored images to choose, so no protocol may use it."""
OURS = (FULL, UNFINISHED)
Point = tuple[float, tuple[float, float]]  # an accuracy and its interval


@dataclass(frozen=True)
class BothSets:
    """One entry on both test sets, (accuracy, interval) each, the mean over its runs; ``gap`` is PublicTest minus
    PrivateTest with its interval."""

    entry: Entry
    public: Point
    private: Point
    gap: tuple[float, float, float]


@dataclass(frozen=True)
class Choice:
    """A rule that chose an epoch: its number (counted from 1), the accuracy of that epoch on both test sets, and on
    PrivateTest the difference to the epoch that PublicTest chose (difference, low, high, p). All without test-time
    augmentation, also where the official protocol scores with it."""

    rule: str
    epoch: int
    public: float
    private: float
    against: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Epochs:
    """One run with the predictions of every epoch: ``numbers`` int [E], accuracies float [E] on both test sets without
    test-time augmentation, and the three choices of an epoch."""

    entry: Entry
    run: Result
    numbers: np.ndarray
    public: np.ndarray
    private: np.ndarray
    choices: tuple[Choice, ...]

    @property
    def name(self) -> str:
        return f"{self.entry.name}, seed\u00a0{self.run.seed}"


@dataclass(frozen=True)
class Augmented:
    """One run's plain accuracy, that with test-time augmentation, and the second minus the first on the same images
    (difference, low, high, p)."""

    entry: Entry
    run: Result
    usage: str
    plain: float
    augmented: float
    gain: tuple[float, float, float, float]


@dataclass(frozen=True)
class Claimed:
    """A variant under both protocols: each scored as the protocol scores it, on ``usage``; the claimed protocol's
    accuracy minus the official one with an interval of unpaired accuracies. ``remark``: what made the claimed one."""

    official: Entry
    claimed: Entry
    usage: str
    accuracies: tuple[float, float]
    difference: tuple[float, float, float]
    remark: str


def both_sets(comparison: Comparison) -> list[BothSets]:
    """Every entry with predictions of both test sets."""
    return [_both(entry) for entry in comparison.entries if all(SELECTING in run.halves for run in entry.runs)]


def _both(entry: Entry) -> BothSets:
    public, private = (_mean([run.score(usage) for run in entry.runs]) for usage in (SELECTING, SCORED))
    return BothSets(entry, public, private, _unpaired(public, private))


def _mean(scores: Sequence[Mapping[str, Any]]) -> Point:
    """The mean accuracy of several runs on the same images, with its interval."""
    values = [score["accuracy"] for score in scores]
    return statistics.fmean(values), mean_interval(values, scores[0]["n"])


def _unpaired(first: Point, second: Point) -> tuple[float, float, float]:
    """The first accuracy minus the second one, on other images, with its interval."""
    return difference(*({"accuracy": value, "interval": bounds} for value, bounds in (first, second)))


def by_epoch(comparison: Comparison) -> list[Epochs]:
    """Every run of ours with the predictions of all its epochs, unfinished ones too.

    Where some are lacking, because the run was begun without keeping them, the best of the others may not be the best.
    """
    return [
        _epochs(entry, run)
        for entry in comparison.entries
        if entry.kind in OURS
        for run in entry.runs
        if run.epochs and len(run.epochs["epoch"]) == len(run.history)
    ]


def _epochs(entry: Entry, run: Result) -> Epochs:
    hits = {usage: run.epochs[usage] == run.predictions[f"{usage}_labels"] for usage in (SELECTING, SCORED)}
    public, private = (hits[usage].mean(axis=1) for usage in (SELECTING, SCORED))
    # Of equally good epochs the first, as the selection of a run takes it.
    places = dict(zip(CHOICES, (len(public) - 1, int(public.argmax()), int(private.argmax())), strict=True))
    chosen = hits[SCORED][places[BY_PUBLIC]]
    choices = tuple(
        Choice(
            rule,
            int(run.epochs["epoch"][place]),
            float(public[place]),
            float(private[place]),
            paired_comparison(hits[SCORED][place], chosen),
        )
        for rule, place in places.items()
    )
    return Epochs(entry, run, run.epochs["epoch"], public, private, choices)


def oracle_gains(runs: Sequence[Epochs]) -> list[float]:
    """Of every variant that decides: how much the epoch that is best on PrivateTest is above the one that PublicTest
    chooses, on PrivateTest, the mean over its runs."""
    gains: dict[str, list[float]] = {}
    for one in runs:
        if one.entry.decides:
            gains.setdefault(one.entry.name, []).append(one.choices[CHOICES.index(BY_PRIVATE)].against[0])
    return [statistics.fmean(values) for values in gains.values()]


def augmented(comparison: Comparison) -> list[Augmented]:
    """Every run whose recipe has test-time augmentation, on both test sets."""
    found = []
    for entry in comparison.entries:
        for run in entry.runs if entry.kind != PACKAGE else ():
            for usage in run.halves if run.has_views else ():
                labels = run.predictions[f"{usage}_labels"]
                plain, better = (
                    run.predictions[f"{usage}_{kind}"].argmax(axis=1) == labels for kind in ("plain", "views")
                )
                gain = paired_comparison(better, plain)
                found.append(Augmented(entry, run, usage, float(plain.mean()), float(better.mean()), gain))
    return found


def both_protocols(comparison: Comparison) -> list[Claimed]:
    """Every variant with full runs under the official and under the claimed protocol."""
    full = [entry for entry in comparison.entries if entry.kind == FULL]
    return [
        _claimed(one, other)
        for one in full
        for other in full
        if one.protocol == "official" and other.protocol == "claimed" and one.variant == other.variant
    ]


def _claimed(official: Entry, claimed: Entry) -> Claimed:
    before, after = (_mean([run.headline for run in entry.runs]) for entry in (official, claimed))
    usage, change = claimed.runs[0].scored, _unpaired(after, before)
    return Claimed(official, claimed, usage, (before[0], after[0]), change, claimed.remark)
