"""All pairs: the rule for several seeds, Holm's family, ranks and groups, against counts that can be done by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from made_comparisons import forty, run_of, some
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from fer_repro import results
from fer_repro.comparisons.gather import compared
from fer_repro.comparisons.pairs import Pairs, SeedPairs, pair_p, seed_pairs
from fer_repro.evaluation.statistics import mcnemar


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return Pairs(compared(some()), draws=1000)


def hits(*right: int, n: int = 400) -> np.ndarray:
    """bool [S, n]: runs that get the first so many images right."""
    return np.arange(n) < np.array(right)[:, None]


def test_one_run_each_is_mcnemars_exact_test_of_statsmodels():
    a, b = np.random.default_rng(0).random((2, 500)) < np.array([[0.7], [0.6]])
    table = [[np.sum(a & b), np.sum(a & ~b)], [np.sum(~a & b), np.sum(~a & ~b)]]
    assert pair_p(a[None], b[None]) == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)


def test_every_run_must_beat_every_run():
    good, bad, between = hits(300, 290), hits(200, 210), hits(195)
    assert pair_p(good, bad) == mcnemar(hits(290)[0], hits(210)[0]) < 0.001  # the closest two
    assert pair_p(hits(300, 100), between) == 1.0  # one better, one worse, each clearly
    assert pair_p(good, good) == 1.0


def test_holms_family_is_that_of_the_models_that_decide(pairs):
    deciding = [k for k, entry in enumerate(pairs.entries) if entry.decides]
    assert len(pairs.all) == 9 * 8 / 2 and len(pairs.family) == len(deciding) * (len(deciding) - 1) / 2 == 15
    expected = multipletests([pair.p for pair in pairs.family], method="holm")[1]
    assert [pair.adjusted for pair in pairs.family] == pytest.approx(list(expected))
    for pair in pairs.all:
        assert (pair.adjusted is None) == (not {pair.first, pair.second} <= set(deciding))
        assert pair.difference >= 0 and pair.interval[0] <= pair.difference <= pair.interval[1]
        assert not (pair.adjusted is None and pair.different)


def test_the_interval_of_a_difference_is_that_of_the_draws(pairs):
    pair = next(one for one in pairs.family if one.first == 0)
    gap = pairs.accuracies[:, pair.first] - pairs.accuracies[:, pair.second]
    assert pair.interval == pytest.approx(tuple(np.quantile(gap, [0.025, 0.975])))


def test_alike_models_share_a_group_and_clear_ones_do_not(pairs):
    names = [tuple(pairs.entries[place].name for place in group) for group in pairs.groups]
    together = next(group for group in names if "DeepEmotion" in group)
    assert "deep-emotion-no-stn" in together and "VGGNet" not in together
    apart = {frozenset((pair.first, pair.second)) for pair in pairs.different}
    for group in pairs.groups:
        assert not any(frozenset(two) in apart for two in combinations(group, 2))
        assert list(group) == list(range(group[0], group[-1] + 1))
    covered = {place for group in pairs.groups for place in group}
    assert covered == {k for k, entry in enumerate(pairs.entries) if entry.decides}
    # Each is as long as it can be.
    for group in pairs.groups:
        more = group[-1] + 1
        assert more not in covered or any(frozenset((more, one)) in apart for one in group)


def test_ranks_hold_the_place_and_are_narrow_for_a_clear_winner(pairs):
    assert pairs.ranks[0] == (1, 1)
    for place, (low, high) in pairs.ranks.items():
        assert 1 <= low <= place + 1 <= high <= 6
    same = Pairs(compared([run_of("deep-emotion", 0.6), run_of("baseline", 0.6)]), draws=500)
    assert set(same.ranks.values()) == {(1, 2)} and same.groups == ((0, 1),)


def test_the_seeds_of_one_model_are_counted(pairs):
    seeds = seed_pairs(pairs.entries)
    assert seeds.tried == 3 + 1 and 0 <= seeds.found <= seeds.tried and seeds.by_chance == pytest.approx(0.2)
    far = compared([run_of("baseline", 0.5), run_of("baseline", 0.7, 1)])
    assert seed_pairs(far.entries) == SeedPairs(1, 1, ("plain baseline",))


def test_runs_of_different_precision_are_no_pair_and_other_machines_are_counted():
    runs = [run_of("baseline", right, seed) for seed, right in enumerate((0.5, 0.6, 0.7))]
    for run, precision, code in zip(
        runs, ("fp32", "bf16", "bf16"), ("0.1.0 (a)", "0.1.0 (a)", "0.1.0 (b)"), strict=True
    ):
        run.record["facts"]["precision"], run.record["code_version"] = precision, code
    assert seed_pairs(compared(runs).entries) == SeedPairs(1, 1, ("plain baseline",), moved=1)
    runs[2].record["code_version"] = "0.1.0 (a)"
    assert seed_pairs(compared(runs).entries).moved == 0


def test_a_run_that_answers_one_class_says_nothing_of_the_seed():
    runs = [run_of("baseline", 0.5), run_of("baseline", 0.7, 1), run_of("baseline", 0.5, 2)]
    runs[2].predictions["PrivateTest_plain"] = np.tile(np.eye(7, dtype=np.float16)[3], (3589, 1))
    runs[2].record["scores"] = results.score_all(runs[2].predictions)
    assert seed_pairs(compared(runs).entries) == SeedPairs(1, 1, ("plain baseline",))


def test_few_differences_between_seeds_are_chance():
    assert not SeedPairs(0, 0, ()).more_than_chance
    assert not SeedPairs(1, 20, ("a",)).more_than_chance
    assert not SeedPairs(2, 15, ("a",)).more_than_chance  # P(2 or more of 15) = 0.17
    assert SeedPairs(3, 15, ("a",)).more_than_chance  # P(3 or more of 15) = 0.036


def test_pairs_with_a_single_run_are_counted(pairs):
    single = [k for k, entry in enumerate(pairs.entries) if len(entry.runs) == 1]
    expected = [one for one in pairs.different if one.first in single or one.second in single]
    assert 0 < pairs.with_single_runs == len(expected) < len(pairs.different)


@pytest.mark.parametrize("made", [lambda: some()[3:6], forty], ids=["2 models", "40 models"])
def test_two_and_forty_models(made):
    found = Pairs(compared(made()), draws=200)
    n = sum(entry.decides for entry in found.entries)
    assert len(found.family) == n * (n - 1) / 2 and len(found.ranks) == n
    assert {place for group in found.groups for place in group} == set(range(n))
    if n > 30:
        assert 0 < len(found.different) < len(found.family)


def test_one_model_and_none():
    alone = Pairs(compared([run_of("baseline", 0.6)]), draws=50)
    assert alone.all == alone.family == () and alone.groups == ((0,),) and alone.ranks == {0: (1, 1)}
    nothing = Pairs(compared([]))
    assert nothing.all == () and nothing.groups == () and nothing.ranks == {}
