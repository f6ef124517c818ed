"""Intervals and tests against scipy, and their coverage by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from fer_repro.errors import FerReproError
from fer_repro.evaluation.statistics import (
    holm,
    kappa,
    mcnemar,
    mean_interval,
    paired_difference,
    rank_intervals,
    resampled,
    separate_difference,
    wilson,
)


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


def test_a_difference_of_counts_has_newcombes_interval():
    """The first example of Newcombe (1998), table II, method 10: 56 of 70 against 48 of 80."""
    difference, low, high = separate_difference(56, 70, 48, 80)
    assert (difference, round(low, 4), round(high, 4)) == (pytest.approx(0.2), 0.0524, 0.3339)
    assert separate_difference(0, 10, 0, 20)[0] == 0 and separate_difference(0, 10, 0, 20)[1] < 0
    for counts in ((11, 10, 1, 2), (1, 2, -1, 2), (0, 0, 1, 2)):
        with pytest.raises(FerReproError, match="expected counts of one image or more"):
            separate_difference(*counts)


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


def test_wilson_of_a_mean_count_is_the_formula():
    z, n, share = stats.norm.ppf(0.975), 3589, 2441.5 / 3589
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    assert wilson(2441.5, n) == pytest.approx((centre - half, centre + half), abs=1e-12)
    assert mean_interval([0.5], 3589) == pytest.approx(wilson(0.5 * 3589, 3589))
    low, high = mean_interval([0.67, 0.68, 0.69], 3589)
    spread = stats.t.ppf(0.975, 2) * 0.01 / np.sqrt(3)
    bounds = wilson(0.68 * 3589, 3589)
    assert (low, high) == pytest.approx(
        (0.68 - np.hypot(0.68 - bounds[0], spread), 0.68 + np.hypot(bounds[1] - 0.68, spread))
    )


def test_holms_correction_of_a_textbook_family():
    """The smallest p times 4, the next times 3, and so on; never below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.2]) == pytest.approx([0.2])
    assert holm([]).shape == (0,)


def test_kappa_in_closed_form():
    """Two raters with margins 0.5 and 0.5 that agree on 80 % have (0.8 - 0.5) / (1 - 0.5)."""
    first = np.repeat([0, 1], 50)
    second = np.concatenate([np.zeros(40), np.ones(10), np.zeros(10), np.ones(40)]).astype(int)
    assert kappa(first, second) == pytest.approx(0.6)
    assert kappa(first, first) == 1.0 and kappa(first, 1 - first) == pytest.approx(-1.0)
    # Independent answers: agreement as often as chance.
    assert kappa(np.tile([0, 1], 50), np.repeat([3, 3], 50)) == pytest.approx(0.0)


def test_the_bootstrap_has_the_variance_of_a_binomial():
    rng = np.random.default_rng(0)
    hits = np.array([rng.random(2000) < 0.7, rng.random(2000) < 0.5])
    drawn = resampled(hits, [1, 1], draws=4000, seed=3)
    assert drawn.shape == (4000, 2)
    shares = hits.mean(axis=1)
    assert drawn.mean(axis=0) == pytest.approx(shares, abs=1e-3)
    assert drawn.std(axis=0) == pytest.approx(np.sqrt(shares * (1 - shares) / 2000), rel=0.05)
    # Paired: the same images for both, so the difference follows the discordant pairs.
    low, high = np.quantile(drawn[:, 0] - drawn[:, 1], [0.025, 0.975])
    assert (low, high) == pytest.approx(paired_difference(hits[0], hits[1])[1:], abs=2e-3)
    assert np.array_equal(drawn, resampled(hits, [1, 1], draws=4000, seed=3))
    assert not np.array_equal(drawn, resampled(hits, [1, 1], draws=4000, seed=4))


def test_equal_methods_are_equal_in_every_draw_and_seeds_add_their_spread():
    hits = np.random.default_rng(1).random((1, 1000)) < 0.6
    assert (np.diff(resampled(np.repeat(hits, 2, axis=0), [1, 1], draws=600), axis=1) == 0).all()
    # Two runs of one method, always right and always wrong: the mean of two drawn runs is 0, 1/2 or 1.
    drawn = resampled(np.array([np.ones(50, bool), np.zeros(50, bool)]), [2], draws=4000)[:, 0]
    assert set(np.unique(drawn)) == {0.0, 0.5, 1.0}
    assert np.bincount((2 * drawn).astype(int)) / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


@pytest.mark.parametrize(
    ("hits", "runs"), [(np.ones((2, 5), bool), [1]), (np.ones((1, 0), bool), [1]), (np.ones((2, 5)), [2, 0])]
)
def test_a_bootstrap_of_nothing_or_of_other_runs_is_refused(hits, runs):
    with pytest.raises(FerReproError, match="expected \\[R, N\\]"):
        resampled(hits, runs, draws=2)


def test_rank_intervals_follow_the_order_of_the_draws():
    steps = np.arange(1000)
    first, second = 0.9 + 0 * steps, np.where(steps % 2, 0.5, 0.6)
    third = 0.55 + 0 * steps  # above the second in half of the draws
    assert rank_intervals(np.stack([first, second, third], axis=1)).tolist() == [[1, 1], [2, 3], [2, 3]]
    rarely = np.where(steps < 20, 0.95, 0.1)  # in 2 % of the draws the best: outside 95 %
    assert rank_intervals(np.stack([first, second, rarely], axis=1)).tolist() == [[1, 1], [2, 2], [3, 3]]


@pytest.mark.filterwarnings("error")
def test_kappa_of_two_that_know_one_class_is_undefined():
    """As of two runs that never left chance; a warning would stand on the page."""
    same = np.full(50, 3)
    assert math.isnan(kappa(same, same)) and kappa(same, np.full(50, 4)) == 0.0
