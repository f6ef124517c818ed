"""The evidence for a model on real faces, beside the verdict: whose number it is, and the best kind that exists.

Only a full run decides a verdict. The other kinds are shown, each with its name, in the order of `KINDS`: weights that
others published, scored here; a run of ours that was stopped before its recipe's end; an ablation of ours; what third
parties report. Accuracies are fractions 0..1.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_repro import papers
from fer_repro.claims import HALF, Claim
from fer_repro.claims.others import NOBODY, Reported, nobody_measured, reported_range
from fer_repro.evaluation.statistics import mean_interval
from fer_repro.leaderboard.stored import Stored, read_stored
from fer_repro.leaderboard.verdicts import Verdict
from fer_repro.markup import percent
from fer_repro.results import Result

KINDS = ("full", "released", "unfinished", "ablation", "others", "none")
"""Kinds of evidence, the best first."""
BASELINE = "baseline"  # the plain network that claims are compared with


@dataclass(frozen=True)
class Measured:
    """An accuracy of ours on PrivateTest under the official protocol: the mean of runs of one recipe, or
    one unfinished run, then with ``epoch`` and ``epochs``."""

    variant: str
    accuracy: float
    interval: tuple[float, float]
    seeds: tuple[int, ...]
    selecting: float
    epoch: int | None = None
    epochs: int | None = None

    @property
    def state(self) -> str:
        """Empty for a full run."""
        return "" if self.epoch is None else f"unfinished: epoch {self.epoch} of {self.epochs}"


@dataclass(frozen=True)
class Evidence:
    """All that is known of a model beside its verdict; ``kind`` is the best of `KINDS`, ``text`` says whose number it
    is in a few words. The other fields are None where that kind does not exist."""

    kind: str
    text: str
    released: Result | None
    unfinished: Measured | None
    ablation: Measured | None
    others: Reported | None


@dataclass(frozen=True)
class Band:
    """The interval of the plain baseline (``state`` empty: from full runs)."""

    low: float
    high: float
    measured: float
    seeds: tuple[int, ...]
    state: str

    def __str__(self) -> str:
        runs = self.state or f"{len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}"
        return f"plain baseline {percent(self.measured)} ({100 * self.low:.2f} to {percent(self.high)}, {runs})"


def released_beside(claim: Claim, released: Iterable[Result]) -> list[Result]:
    """The scores of published weights that stand beside a claim: those of its own network; where no weights of that
    are known, those of its ablations, but not of the members of an ensemble."""
    variant = papers.variants().get(claim.variant)
    names = {claim.variant}
    if variant is not None and variant.released is None:
        names |= set(_ablations(claim.variant)) - {*variant.requires}
    return [one for one in released if one.variant in names and one.storable and one.headline["n"] == HALF]


def _ablations(variant: str) -> list[str]:
    return [other.id for other in papers.variants().values() if other.ablation_of == variant]


def full_runs(variant: str, runs: Iterable[Result]) -> Measured | None:
    """The mean of a variant's full runs under the official protocol. Where a recipe or the data changed between them,
    only the group with the most seeds counts (of equal ones the last): such a mixture is no error beside a verdict."""
    groups: dict[tuple[str, str], dict[int, Result]] = {}
    for one in runs:
        if one.variant == variant and one.protocol == "official" and one.storable and one.headline["n"] == HALF:
            alike = groups.setdefault((one.record["recipe_sha256"], one.record["data"]["digest"]), {})
            alike[one.seed] = one
    if not groups:
        return None
    chosen = max(groups.values(), key=lambda alike: (len(alike), max(one.record["ended"] for one in alike.values())))
    accuracies = [one.headline["accuracy"] for one in chosen.values()]
    selecting = statistics.fmean(one.score("PublicTest")["accuracy"] for one in chosen.values())
    mean, seeds = statistics.fmean(accuracies), tuple(sorted(chosen))
    return Measured(variant, mean, mean_interval(accuracies, HALF), seeds, selecting)


def unfinished_run(variant: str, unfinished: Iterable[Result]) -> Measured | None:
    """A variant's stored unfinished run under the official protocol; of several seeds the one that came furthest."""
    own = [one for one in unfinished if one.variant == variant and one.protocol == "official"]
    if not own:
        return None
    best = max(own, key=lambda one: (one.record["unfinished"]["epochs_done"], -one.seed))
    score, done = best.headline, best.record["unfinished"]
    bounds = mean_interval([score["accuracy"]], score["n"])
    selecting = best.score("PublicTest")["accuracy"]
    return Measured(variant, score["accuracy"], bounds, (best.seed,), selecting, done["epochs_done"], done["epochs"])


def ablation(claim: Claim, runs: Sequence[Result], unfinished: Sequence[Result]) -> Measured | None:
    """The best ablation of a model that is stored, full before unfinished; PublicTest decides which is the best."""
    names = _ablations(claim.variant)
    found = [one for name in names if (one := full_runs(name, runs)) is not None]
    found = found or [one for name in names if (one := unfinished_run(name, unfinished)) is not None]
    return max(found, key=lambda one: one.selecting, default=None)


def evidence_for(claim: Claim, official: Verdict, claimed: Verdict, stored: Stored) -> Evidence:
    """All evidence for a claim's model: its verdicts under the official and the claimed protocol, and what is stored.

    The best kind's ``text`` names what is beside a full run as well: weights that were released.
    """
    weights = next(iter(released_beside(claim, stored.released)), None)
    own, other = unfinished_run(claim.variant, stored.unfinished), ablation(claim, stored.runs, stored.unfinished)
    reported = reported_range(claim.others)
    full = _full(official) or _full(claimed)
    texts = {
        "full": "; ".join(part for part in (full, _released(claim, weights)) if part) if full else "",
        "released": _released(claim, weights),
        "unfinished": f"{own.state}, {percent(own.accuracy)}" if own else "",
        "ablation": _ablation(other),
        "others": f"others: {reported}" if reported else "",
        "none": _nobody(claim),
    }
    kind = next(name for name in KINDS if texts[name])
    return Evidence(kind, texts[kind], weights, own, other, reported)


def _full(found: Verdict) -> str:
    """Under the official protocol the number stands in a column of its own, so that only the runs are named."""
    if found.measured is None:
        return ""
    seeds = f"{found.n_seeds} seed{'s' * (found.n_seeds > 1)}"
    if found.protocol == "official":
        return f"full run, {seeds}"
    return f"full run as claimed, {seeds}: {percent(found.measured)} on {' and '.join(found.usages)}"


def _released(claim: Claim, weights: Result | None) -> str:
    if weights is None:
        return ""
    whose = f" of {weights.variant}" if weights.variant != claim.variant else ""
    where = "" if weights.halves[-1] == "PrivateTest" else f" on {weights.halves[-1]}"
    return f"released weights{whose} {percent(weights.headline['accuracy'])}{where}"


def _ablation(found: Measured | None) -> str:
    if found is None:
        return ""
    state = f", {found.state}" if found.state else ""
    return f"ablation {found.variant}{state}: {percent(found.accuracy)}"


def _nobody(claim: Claim) -> str:
    return NOBODY if nobody_measured(claim.others) else "others report no number for it"


def baseline_band(results_dir: Path | str | None = None) -> Band | None:
    """The interval of the variant `BASELINE` under the official protocol: of its full runs, else of an unfinished one,
    else None. Raises `FerReproError` for results that cannot be read."""
    stored = read_stored(results_dir)
    found = full_runs(BASELINE, stored.runs) or unfinished_run(BASELINE, stored.unfinished)
    return Band(*found.interval, found.accuracy, found.seeds, found.state) if found else None
