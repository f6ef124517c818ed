"""Intervals and tests against scipy, and their coverage by simulation."""

import numpy as np
import pytest
from scipy import stats

from fer_repro.errors import FerReproError
from fer_repro.evaluation.statistics import mcnemar, paired_difference, wilson


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (10, 10), (1, 2), (2630, 3589), (56, 56), (3, 56)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_is_scipys(correct, n, level):
    expected = stats.binomtest(correct, n).proportion_ci(level, method="wilson")
    assert wilson(correct, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_and_of_nonsense():
    assert wilson(0, 0) == (0.0, 1.0)
    for correct, n in ((3, 2), (-1, 5)):
        with pytest.raises(FerReproError, match="expected a count between"):
            wilson(correct, n)


def pairs(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    return a, b


def test_mcnemar_is_the_exact_binomial_test():
    assert mcnemar(*pairs(50, 12, 3, 20)) == pytest.approx(2 * stats.binom.cdf(3, 15, 0.5))
    assert mcnemar(*pairs(50, 12, 3, 20)) == mcnemar(*pairs(9, 3, 12, 1))
    assert mcnemar(*pairs(50, 0, 0, 20)) == 1.0
    assert mcnemar(*pairs(0, 7, 7, 0)) == pytest.approx(1.0)


def test_paired_difference_follows_the_pairs():
    difference, low, high = paired_difference(*pairs(2400, 160, 100, 929))
    assert difference == pytest.approx(60 / 3589)
    # Normal approximation of the paired difference.
    error = np.sqrt(260 - 60**2 / 3589) / 3589
    assert (low, high) == pytest.approx((difference - 1.96 * error, difference + 1.96 * error), abs=6e-4)
    assert low > 0
    assert paired_difference(*pairs(10, 0, 0, 5)) == (0.0, 0.0, 0.0)
    assert paired_difference(*pairs(40, 9, 4, 20)) == paired_difference(*pairs(40, 9, 4, 20))


def test_paired_difference_covers_the_truth():
    rng, covered = np.random.default_rng(0), 0
    for seed in range(200):
        kind = rng.choice(4, 500, p=[0.6, 0.1, 0.06, 0.24])
        a, b = np.isin(kind, (0, 1)), np.isin(kind, (0, 2))
        _, low, high = paired_difference(a, b, draws=2000, seed=seed)
        covered += low <= 0.04 <= high
    assert 180 <= covered <= 198


def test_unpaired_input_is_refused():
    with pytest.raises(FerReproError, match="expected two bool arrays over the same images"):
        mcnemar(np.array([True]), np.array([True, False]))
    with pytest.raises(FerReproError, match="expected two bool arrays"):
        mcnemar(np.array([1.0]), np.array([1.0]))
    with pytest.raises(FerReproError, match="no images to compare"):
        paired_difference(np.empty(0, bool), np.empty(0, bool))
