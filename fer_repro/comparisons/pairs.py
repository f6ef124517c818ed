"""What differs from what: tests of all pairs with Holm's correction, differences, rank intervals, groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product

import numpy as np
from scipy.stats import binomtest

from fer_repro.comparisons.entries import Comparison, Entry
from fer_repro.evaluation.cost import hardware
from fer_repro.evaluation.statistics import holm, mcnemar, rank_intervals, resampled
from fer_repro.results import Result

LEVEL = 0.05


@dataclass(frozen=True)
class Pair:
    """Two entries by their places in `Pairs.entries`: the accuracy of ``first`` minus that of ``second``, its bootstrap
    interval, McNemar's ``p`` and the same after Holm's correction (None where one of the two does not decide)."""

    first: int
    second: int
    difference: float
    interval: tuple[float, float]
    p: float
    adjusted: float | None

    @property
    def different(self) -> bool:
        """Whether the test finds a difference; if not, the two may still differ."""
        return self.adjusted is not None and self.adjusted < LEVEL


def pair_p(first: np.ndarray, second: np.ndarray) -> float:
    """The p-value of "these two methods are equally good", from all their runs: bool [S, N] and [T, N].

    McNemar's exact test compares single runs. Two methods differ only if every run of one is better than every run of
    the other, so the largest p over all pairs of runs counts; it is 1 where the runs do not agree which is better.
    """
    signs, values = set(), []
    for a, b in product(first, second):
        signs.add(int(np.sign(int(a.sum()) - int(b.sum()))))
        values.append(mcnemar(a, b))
    return max(values) if len(signs) == 1 else 1.0


class Pairs:
    """All pairs of a comparison's entries; ``draws`` and ``seed`` of the bootstrap, which is one for all of them."""

    def __init__(self, comparison: Comparison, draws: int = 10_000, seed: int = 0) -> None:
        self.entries: tuple[Entry, ...] = comparison.entries
        self.draws = draws
        self._seed = seed

    @cached_property
    def accuracies(self) -> np.ndarray:
        """float64 [draws, M]: the accuracy of every entry in every draw."""
        hits = np.concatenate([entry.hits for entry in self.entries])
        return resampled(hits, [len(entry.runs) for entry in self.entries], self.draws, self._seed)

    @cached_property
    def all(self) -> tuple[Pair, ...]:
        """Every pair, the better entry first. Holm's family: the pairs of two entries that decide."""
        places = list(combinations(range(len(self.entries)), 2))
        values = [pair_p(self.entries[a].hits, self.entries[b].hits) for a, b in places]
        decided = [k for k, pair in enumerate(places) if all(self.entries[i].decides for i in pair)]
        adjusted = dict(zip(decided, holm([values[k] for k in decided]), strict=True))
        return tuple(self._pair(a, b, values[k], adjusted.get(k)) for k, (a, b) in enumerate(places))

    def _pair(self, a: int, b: int, p: float, adjusted: float | None) -> Pair:
        if self.entries[a].accuracy < self.entries[b].accuracy:
            a, b = b, a
        low, high = np.quantile(self.accuracies[:, a] - self.accuracies[:, b], [0.025, 0.975])
        gap = self.entries[a].accuracy - self.entries[b].accuracy
        return Pair(a, b, gap, (float(low), float(high)), p, None if adjusted is None else float(adjusted))

    @cached_property
    def family(self) -> tuple[Pair, ...]:
        """The pairs that Holm's correction is over."""
        return tuple(pair for pair in self.all if pair.adjusted is not None)

    @cached_property
    def different(self) -> tuple[Pair, ...]:
        return tuple(pair for pair in self.family if pair.different)

    @property
    def with_single_runs(self) -> int:
        """How many of the different pairs hold at least one model with a single run."""
        return sum(any(len(self.entries[k].runs) == 1 for k in (one.first, one.second)) for one in self.different)

    @cached_property
    def ranks(self) -> dict[int, tuple[int, int]]:
        """Place of a deciding entry -> between which ranks among the deciding ones it lies in 95 % of the draws."""
        places = [place for place, entry in enumerate(self.entries) if entry.decides]
        if not places:
            return {}
        bounds = rank_intervals(self.accuracies[:, places])
        return {place: (int(low), int(high)) for place, (low, high) in zip(places, bounds, strict=True)}

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Entries that stand next to each other by accuracy, of which the test distinguishes no two; the best first.

        Every group is as long as possible, so groups may overlap. Entries that do not decide are in none.
        """
        places = [place for place, entry in enumerate(self.entries) if entry.decides]
        apart = {frozenset((pair.first, pair.second)) for pair in self.different}
        found: list[tuple[int, ...]] = []
        for start in range(len(places)):
            end = start + 1
            while end < len(places) and all(frozenset((places[end], one)) not in apart for one in places[start:end]):
                end += 1
            group = tuple(places[start:end])
            if not found or not set(group) <= set(found[-1]):
                found.append(group)
        return tuple(found)


@dataclass(frozen=True)
class SeedPairs:
    """Of ``tried`` pairs of runs of one recipe, trained in the same precision with different seeds, McNemar's test,
    uncorrected, finds a difference in ``found``; these are of the models ``names``. In ``moved`` of the pairs the
    machine or the version of our code differs as well."""

    found: int
    tried: int
    names: tuple[str, ...]
    moved: int = 0

    @property
    def by_chance(self) -> float:
        """How many of them would have p below the level if the seed changed nothing (at most: the test is exact)."""
        return LEVEL * self.tried

    @property
    def more_than_chance(self) -> bool:
        """Whether so many are unlikely by chance: a one-sided binomial test, as if the pairs were independent."""
        return self.tried > 0 and binomtest(self.found, self.tried, LEVEL, "greater").pvalue < LEVEL


def seed_pairs(entries: Sequence[Entry]) -> SeedPairs:
    """All pairs of runs of one entry that were trained in the same precision, over all entries. Runs that answer one
    class for every image take no part: they differ from any other, and would say more of a failed training than of the
    seed."""
    tried = [
        (entry, places)
        for entry in entries
        for places in combinations([place for place, run in enumerate(entry.runs) if not run.one_class], 2)
        if len({entry.runs[place].precision for place in places}) == 1
    ]
    names = [entry.name for entry, (a, b) in tried if mcnemar(entry.hits[a], entry.hits[b]) < LEVEL]
    moved = [places for entry, places in tried if len({_where(entry.runs[place]) for place in places}) > 1]
    return SeedPairs(len(names), len(tried), tuple(dict.fromkeys(names)), len(moved))


def _where(run: Result) -> tuple[str, str]:
    """The machine and the version of our code that a run was made with."""
    return hardware(run.record), run.record["code_version"]
