"""What methods know together: agreement of their predictions, ensembles, and the images that none gets right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from fer_repro.comparisons.entries import SELECTING, Comparison, Entry
from fer_repro.data import LABELS
from fer_repro.evaluation.statistics import kappa, paired_difference, wilson


@dataclass(frozen=True)
class Together:
    """An ensemble over the same images: its accuracy with Wilson's interval, and its difference to the best single
    model with a bootstrap interval (None where it is that model)."""

    name: str
    accuracy: float
    interval: tuple[float, float]
    difference: tuple[float, float, float] | None


@dataclass(frozen=True)
class Hard:
    """An image: its id, its label, how many of the models got it right, and the class that most of them said."""

    id: str
    label: str
    right: int
    said: str
    times: int


def agreement(entries: Sequence[Entry]) -> np.ndarray:
    """Cohen's kappa of the predicted classes, float64 [M, M]: the mean over all pairs of runs of two methods; on the
    diagonal that of the seeds of one method, NaN where it has one run."""
    table = np.full((len(entries), len(entries)), np.nan)
    for a, first in enumerate(entries):
        if len(first.runs) > 1:
            table[a, a] = np.mean([kappa(x, y) for x, y in combinations(first.predicted, 2)])
        for b, second in enumerate(entries[:a]):
            table[a, b] = table[b, a] = np.mean([kappa(x, y) for x, y in product(first.predicted, second.predicted)])
    return table


def best_by_selecting(entries: Sequence[Entry]) -> Entry:
    """The entry whose first run is best on PublicTest; one that has no predictions of it, or was trained on it, only if
    that is so of all (then the first)."""

    def value(entry: Entry) -> float:
        return entry.runs[0].score(SELECTING)["accuracy"] if entry.may_select else -1.0

    return max(entries, key=value)


def ensembles(entries: Sequence[Entry]) -> list[Together]:
    """The best single model (by PublicTest), the majority of all, the mean of their probabilities, and the oracle that
    is right where at least one of them is; one run of each method, that of the lowest seed.

    A tie of the majority goes to the class with the higher mean probability.
    """
    labels = entries[0].labels
    best = best_by_selecting(entries)
    single = best.hits[0]
    mean = np.mean([entry.probabilities[0] for entry in entries], axis=0, dtype=np.float64)
    votes = sum(np.eye(len(LABELS))[entry.predicted[0]] for entry in entries)
    found = [
        (f"best single model by {SELECTING}: {best.name}", single),
        ("majority of the predicted classes", (votes + mean / 2).argmax(axis=1) == labels),
        ("mean of the probabilities", mean.argmax(axis=1) == labels),
        ("oracle: at least one model is right", np.any([entry.hits[0] for entry in entries], axis=0)),
    ]
    return [
        Together(
            name,
            float(hit.mean()),
            wilson(int(hit.sum()), len(hit)),
            None if hit is single else paired_difference(hit, single),
        )
        for name, hit in found
    ]


def right_counts(entries: Sequence[Entry]) -> np.ndarray:
    """int [N]: how many of the methods (one run each, of the lowest seed) get an image right."""
    return np.sum([entry.hits[0] for entry in entries], axis=0)


def hardest(comparison: Comparison, count: int = 24) -> list[Hard]:
    """The images that the fewest deciding models get right; of equal ones those whose label has the lowest mean
    probability. One run of each model."""
    entries = comparison.deciding
    right = right_counts(entries)
    rows, labels = np.arange(len(comparison.labels)), comparison.labels
    own = np.mean([entry.probabilities[0][rows, labels] for entry in entries], axis=0)
    votes = sum(np.eye(len(LABELS), dtype=int)[entry.predicted[0]] for entry in entries)
    order = np.lexsort((own, right))[:count]
    return [
        Hard(
            str(comparison.ids[i]),
            LABELS[labels[i]],
            int(right[i]),
            LABELS[int(votes[i].argmax())],
            int(votes[i].max()),
        )
        for i in order
    ]


def hardest_class(entries: Sequence[Entry]) -> tuple[str, int]:
    """The class that is the worst recognised one of the most methods, and of how many; equal ones: the first."""
    worst = [int(np.argmin(recalls(entry))) for entry in entries]
    counts = np.bincount(worst, minlength=len(LABELS))
    return LABELS[int(counts.argmax())], int(counts.max())


def recalls(entry: Entry) -> np.ndarray:
    """float64 [7]: the share of each class that was recognised, the mean over the runs; 1 for one without images."""
    labels = entry.labels
    return np.array([entry.hits[:, labels == c].mean() if (labels == c).any() else 1.0 for c in range(len(LABELS))])
