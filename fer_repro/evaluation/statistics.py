"""Intervals and paired tests for accuracies; counts in, fractions out."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from fer_repro.errors import FerReproError


def wilson(correct: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for ``correct`` of ``n``; (0, 1) when there is nothing to count. (Wilson 1927)"""
    if not 0 <= correct <= n:
        raise FerReproError(f"{correct} correct of {n}: expected a count between 0 and {n}")
    if n == 0:
        return 0.0, 1.0
    z = stats.norm.ppf(0.5 + level / 2)
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and n the formula is exact only up to rounding.
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == n else centre + half
    return float(low), float(high)


def mcnemar(a_correct: np.ndarray, b_correct: np.ndarray) -> float:
    """Exact two-sided p-value that two methods scored on the same images are equally good (McNemar 1947).

    ``a_correct``, ``b_correct``: bool [N], was image i right. Only images that one got right and the other wrong count;
    1.0 when there are none.
    """
    a, b = _paired(a_correct, b_correct)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)


def paired_difference(
    a_correct: np.ndarray, b_correct: np.ndarray, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Accuracy of a minus accuracy of b on the same images, with a bootstrap interval: (difference, low, high).

    Images are drawn with replacement and keep their pair. That is a multinomial draw of three counts (only a right,
    only b right, the rest), so no image is touched.
    """
    a, b = _paired(a_correct, b_correct)
    n = len(a)
    if n == 0:
        raise FerReproError("no images to compare: expected at least one that both methods scored")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    shares = [only_a / n, only_b / n, (n - only_a - only_b) / n]
    counts = np.random.default_rng(seed).multinomial(n, shares, size=draws)
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / n, [0.5 - level / 2, 0.5 + level / 2])
    return (only_a - only_b) / n, float(low), float(high)


def paired_comparison(a_correct: np.ndarray, b_correct: np.ndarray) -> tuple[float, float, float, float]:
    """Accuracy of a minus accuracy of b with its bootstrap interval, and McNemar's p: (difference, low, high, p)."""
    return *paired_difference(a_correct, b_correct), mcnemar(a_correct, b_correct)


def _paired(a_correct: np.ndarray, b_correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a_correct), np.asarray(b_correct)
    if a.dtype != bool or b.dtype != bool or a.shape != b.shape or a.ndim != 1:
        raise FerReproError(
            f"paired comparison got {a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}, "
            "expected two bool arrays over the same images"
        )
    return a, b
