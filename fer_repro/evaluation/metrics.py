"""Scores of predicted probabilities, each accuracy with its interval."""

from __future__ import annotations

from typing import Any

import numpy as np

from fer_repro.data import LABELS
from fer_repro.errors import FerReproError
from fer_repro.evaluation.statistics import wilson

CLASSES = len(LABELS)
ECE_BINS = 15
# Predictions are stored as float16: a 0 there means less than half its smallest number, and costs that, not infinity.
SMALLEST = 2.0**-25


def evaluate(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Score ``probabilities`` (float [N,7], any float type) against ``labels`` (int [N], 0..6).

    Returns JSON-ready data, fractions in 0..1: n, correct, accuracy, interval (Wilson 95 %), balanced_accuracy (over
    the classes that occur), macro_f1 (over those that occur or are predicted), log_loss (nats), ece (15 equal bins of
    confidence), top2, per_class {label: n, correct, recall, interval, precision, f1} (None where undefined), confusion
    (7x7, rows = truth). Equal probabilities: the first class wins.
    """
    scores, labels = _checked(probabilities, labels)
    n = len(labels)
    predicted = scores.argmax(axis=0)
    hit = predicted == labels
    confusion = np.bincount(labels * CLASSES + predicted, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    per_class = {label: _class_scores(confusion, index) for index, label in enumerate(LABELS)}
    own = scores[labels, np.arange(n)]
    return {
        "n": n,
        "correct": int(hit.sum()),
        "accuracy": float(hit.mean()),
        "interval": list(wilson(int(hit.sum()), n)),
        "balanced_accuracy": float(np.mean([row["recall"] for row in per_class.values() if row["recall"] is not None])),
        "macro_f1": float(np.mean([row["f1"] for row in per_class.values() if row["f1"] is not None])),
        "log_loss": float(-np.log(np.maximum(own, SMALLEST)).mean()),
        "ece": expected_calibration_error(scores.max(axis=0), hit),
        "top2": float((_rank(scores, labels, own) < 2).mean()),
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }


def _checked(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64 [7,N], a column per image that sums to 1, and int64 labels; anything else than predictions for these
    labels is an error. numpy is several times faster along N than along 7."""
    rows, labels = np.asarray(probabilities), np.asarray(labels)
    if rows.ndim != 2 or rows.shape[1] != CLASSES or labels.shape != (len(rows),) or len(labels) == 0:
        raise FerReproError(
            f"predictions {list(rows.shape)} and labels {list(labels.shape)} do not match: "
            f"expected [N,{CLASSES}] and [N] of the same images, N > 0"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= CLASSES:
        raise FerReproError(f"labels must be whole numbers from 0 to {CLASSES - 1}")
    scores = rows.T.astype(np.float64, order="C")
    total = scores.sum(axis=0)
    # float16 storage rounds each of seven numbers to about three digits.
    if not np.isfinite(scores).all() or scores.min() < 0 or np.abs(total - 1).max() > 0.01:
        raise FerReproError("predictions must be probabilities: finite, not negative, each row summing to 1")
    return scores / total, labels.astype(np.int64)


def _class_scores(confusion: np.ndarray, index: int) -> dict[str, Any]:
    correct, n, claimed = (
        int(value) for value in (confusion[index, index], confusion[index].sum(), confusion[:, index].sum())
    )
    return {
        "n": n,
        "correct": correct,
        "recall": correct / n if n else None,
        "interval": list(wilson(correct, n)) if n else None,
        "precision": correct / claimed if claimed else None,
        "f1": 2 * correct / (n + claimed) if n + claimed else None,
    }


def _rank(scores: np.ndarray, labels: np.ndarray, own: np.ndarray) -> np.ndarray:
    """int [N]: how many classes stand before the true one, whose score is ``own``; an equal earlier one included."""
    earlier = np.arange(CLASSES)[:, None] < labels
    return ((scores > own) | ((scores == own) & earlier)).sum(axis=0)


def expected_calibration_error(confidence: np.ndarray, hit: np.ndarray, bins: int = ECE_BINS) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by count. (Guo et al. 2017, equation 3)

    ``confidence`` float [N] of the predicted class, ``hit`` bool [N]. A bin includes its upper edge.
    """
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(index, weights=confidence, minlength=bins) - np.bincount(index, weights=hit, minlength=bins)
    return float(np.abs(gap).sum() / len(hit))
