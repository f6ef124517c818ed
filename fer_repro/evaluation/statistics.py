"""Intervals and paired tests for accuracies, and agreement between classifiers; counts in, fractions out.

The statistics are those of scipy, statsmodels and scikit-learn; here is what joins them to predictions.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import numpy as np
from scipy import stats
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep

from fer_repro.data import LABELS
from fer_repro.errors import FerReproError

DRAWS = 10_000
CHUNK = 500  # of the draws of a bootstrap, at a time: a table of 500 by 3,589 counts


def wilson(correct: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for ``correct`` of ``n``; (0, 1) when there is nothing to count. (Wilson 1927)

    ``correct`` may be a fraction: the mean count of several seeds. The formula stands here because statsmodels takes
    two hundred times as long for one interval, and every stored result has at least sixteen.
    """
    if not 0 <= correct <= n:
        raise FerReproError(f"{correct} correct of {n}: expected a count between 0 and {n}")
    if n == 0:
        return 0.0, 1.0
    share, z = correct / n, _normal_quantile(level)
    scale = 1 + z**2 / n
    center = (share + z**2 / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / scale
    # At 0 and n the formula is exact only up to rounding.
    low, high = 0.0 if correct == 0 else center - half, 1.0 if correct == n else center + half
    return max(0.0, float(low)), min(1.0, float(high))


@cache
def _normal_quantile(level: float) -> float:
    """How many standard deviations around the mean hold the share ``level`` of a normal distribution."""
    return float(stats.norm.isf((1 - level) / 2))


def mean_interval(accuracies: Iterable[float], n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean accuracy of several seeds on the same ``n`` images.

    Wilson at the mean, each side widened in quadrature by the half width of the t interval of the seeds' mean; with one
    seed it is Wilson's alone.
    """
    values = list(accuracies)
    mean = statistics.fmean(values)
    low, high = wilson(mean * n, n, level)
    half = 0.0
    if len(values) > 1:
        quantile = float(stats.t.ppf((1 + level) / 2, len(values) - 1))
        half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return max(0.0, mean - math.hypot(mean - low, half)), min(1.0, mean + math.hypot(high - mean, half))


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
    a_correct: np.ndarray, b_correct: np.ndarray, level: float = 0.95, draws: int = DRAWS, seed: int = 0
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


def separate_difference(
    a_correct: int, a_n: int, b_correct: int, b_n: int, level: float = 0.95
) -> tuple[float, float, float]:
    """Accuracy of a minus accuracy of b from counts alone, with Newcombe's interval: (difference, low, high).

    For different images, or where it is not known which ones were right; of the same images it is wider than
    `paired_difference` as a rule. (Newcombe 1998, method 10)
    """
    if not (0 <= a_correct <= a_n and 0 <= b_correct <= b_n and a_n > 0 and b_n > 0):
        raise FerReproError(
            f"{a_correct} of {a_n} against {b_correct} of {b_n}: expected counts of one image or more on each side"
        )
    low, high = confint_proportions_2indep(
        a_correct, a_n, b_correct, b_n, method="newcomb", compare="diff", alpha=1 - level
    )
    return a_correct / a_n - b_correct / b_n, float(low), float(high)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values of one family of tests, adjusted so that among all of them a false "different" has at most the chance
    that is asked of one (Holm 1979). float [M] in the given order; empty in, empty out."""
    values = np.asarray(p_values, dtype=np.float64)
    return multipletests(values, method="holm")[1] if values.size else values


def kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Cohen's kappa of two classifiers' predicted classes (int [N], 0..6): 1 where they always agree, 0 where they
    agree as often as chance would; NaN where both predict one and the same class only. (Cohen 1960)"""
    if len(np.union1d(first, second)) == 1:
        return math.nan  # scikit-learn would warn on the page
    return float(cohen_kappa_score(first, second, labels=np.arange(len(LABELS))))


def resampled(hits: np.ndarray, runs: Sequence[int], draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Accuracies of several methods on the same images, drawn again and again: float64 [draws, len(runs)].

    ``hits``: bool [R, N], was image i right in run r; the runs of one method are neighbours, and ``runs`` says how many
    each has. Every draw takes N images with replacement, the same ones for all methods, and as many runs of each method
    as it has, with replacement too; the accuracy of a method is the mean of its drawn runs. Differences of columns are
    a bootstrap of paired differences, their order one of the ranks. (Efron 1979)
    """
    right = np.ascontiguousarray(np.asarray(hits).T, dtype=np.float32)
    if right.ndim != 2 or right.shape[0] == 0 or right.shape[1] != sum(runs) or not all(n > 0 for n in runs):
        raise FerReproError(
            f"a bootstrap got hits {list(np.shape(hits))} for methods of {list(runs)} runs: expected [R, N] with N > 0 "
            "and R the sum of the runs"
        )
    generator = np.random.default_rng(seed)
    return np.concatenate([_accuracies(generator, right, runs, size) for size in _sizes(draws)])


def _sizes(draws: int) -> Iterator[int]:
    """A number of draws in parts of at most `CHUNK`."""
    for start in range(0, draws, CHUNK):
        yield min(CHUNK, draws - start)


def _accuracies(generator: np.random.Generator, right: np.ndarray, runs: Sequence[int], size: int) -> np.ndarray:
    """``size`` draws of images and runs; ``right`` float32 [N, R]."""
    n = len(right)
    taken = generator.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
    counts = np.bincount(taken.ravel(), minlength=size * n).reshape(size, n).astype(np.float32)
    correct = counts @ right  # whole numbers below 2**24, so float32 holds them exactly
    columns, start = [], 0
    for number in runs:
        chosen = generator.integers(start, start + number, size=(size, number))
        columns.append(np.take_along_axis(correct, chosen, axis=1).mean(axis=1, dtype=np.float64) / n)
        start += number
    return np.stack(columns, axis=1)


def rank_intervals(accuracies: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Between which ranks each method lies in ``level`` of the draws: int [M, 2], best rank first; 1 is the
    best method.

    ``accuracies``: [draws, M] of `resampled`. Methods that are equal in a draw share the mean of their ranks there.
    """
    ranks = stats.rankdata(-accuracies, axis=1)
    low, high = np.quantile(ranks, [0.5 - level / 2, 0.5 + level / 2], axis=0)
    return np.stack([np.floor(low), np.ceil(high)], axis=1).astype(int)


def _paired(a_correct: np.ndarray, b_correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a_correct), np.asarray(b_correct)
    if a.dtype != bool or b.dtype != bool or a.shape != b.shape or a.ndim != 1:
        raise FerReproError(
            f"paired comparison got {a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}, "
            "expected two bool arrays over the same images"
        )
    return a, b
