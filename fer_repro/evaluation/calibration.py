"""Whether a classifier is as often right as it says: calibration errors, reliability by bins, and temperature scaling.

Probabilities are float [N, 7], as they are stored; labels int [N], 0..6. (Guo et al. 2017)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from fer_repro.errors import FerReproError
from fer_repro.evaluation.metrics import ECE_BINS, SMALLEST, expected_calibration_error
from fer_repro.evaluation.statistics import wilson

RANGE = (0.05, 20.0)
"""Between what a temperature is looked for; a model that gives only 0 and 1 would want an infinite one."""


@dataclass(frozen=True)
class Bin:
    """Images of similar confidence: how many, their mean confidence, and how many of them are right."""

    n: int
    confidence: float
    correct: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        return wilson(self.correct, self.n)


@dataclass(frozen=True)
class Calibration:
    """Of one set of predictions, fractions 0..1: accuracy, mean confidence, the calibration error over bins of equal
    width and over bins of equally many images, and the log loss in nats."""

    accuracy: float
    confidence: float
    equal_width: float
    equal_mass: float
    log_loss: float


def confidence_and_hits(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probability of the predicted class, float64 [N], and whether that class is right, bool [N]."""
    rows = _rows(probabilities, labels)
    return rows.max(axis=1), rows.argmax(axis=1) == labels


def calibration(probabilities: np.ndarray, labels: np.ndarray) -> Calibration:
    """All errors of one set of predictions, over `ECE_BINS` bins."""
    rows = _rows(probabilities, labels)
    confidence, hit = confidence_and_hits(rows, labels)
    return Calibration(
        accuracy=float(hit.mean()),
        confidence=float(confidence.mean()),
        equal_width=expected_calibration_error(confidence, hit),
        equal_mass=equal_mass_error(confidence, hit),
        log_loss=log_loss(rows, labels),
    )


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative logarithm of the label's probability, in nats."""
    own = _rows(probabilities, labels)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(own, SMALLEST)).mean())


def equal_mass_error(confidence: np.ndarray, hit: np.ndarray, bins: int = ECE_BINS) -> float:
    """Mean gap between confidence and accuracy over the bins of `mass_bins`, weighted by count. (Nguyen, O'Connor
    2015)"""
    return sum(one.n * abs(one.accuracy - one.confidence) for one in mass_bins(confidence, hit, bins)) / len(hit)


def mass_bins(confidence: np.ndarray, hit: np.ndarray, bins: int = ECE_BINS) -> list[Bin]:
    """Bins of equally many images (up to one), the least confident first; fewer where there are fewer images.

    Images of equal confidence share a bin, the first that one of them falls into, so the order of the images has no
    effect.
    """
    order = np.argsort(confidence, kind="stable")
    sizes = [len(part) for part in np.array_split(order, bins)]
    ranked = confidence[order]
    first = np.searchsorted(ranked, ranked, side="left")  # for each image the first place with its confidence
    number = np.repeat(np.arange(bins), sizes)[first]
    parts = [order[number == one] for one in range(bins)]
    return [Bin(len(part), float(confidence[part].mean()), int(hit[part].sum())) for part in parts if len(part)]


def scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """The probabilities softmax(z / T) for logits z = log p: softer for T above 1, the predicted class unchanged."""
    return softmax(_logarithms(probabilities) / temperature, axis=1)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature within `RANGE` for which `scaled` has the least log loss on these images."""
    logits, rows = _logarithms(_rows(probabilities, labels)), np.arange(len(labels))

    def loss(exponent: float) -> float:
        own = softmax(logits / np.exp(exponent), axis=1)[rows, labels]
        return float(-np.log(np.maximum(own, SMALLEST)).mean())

    found = minimize_scalar(loss, bounds=tuple(np.log(RANGE)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def at_the_limit(temperature: float) -> bool:
    """Whether a temperature is one of the ends of `RANGE`: no temperature in it fits."""
    return not RANGE[0] * 1.01 < temperature < RANGE[1] / 1.01


def _logarithms(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), SMALLEST))


def _rows(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 rows that sum to 1."""
    rows = np.asarray(probabilities, dtype=np.float64)
    if rows.ndim != 2 or len(rows) == 0 or np.shape(labels) != (len(rows),):
        raise FerReproError(
            f"calibration of predictions {list(rows.shape)} and labels {list(np.shape(labels))}: expected [N, 7] and "
            "[N] of the same images, N > 0"
        )
    return rows / rows.sum(axis=1, keepdims=True)
