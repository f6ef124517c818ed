"""The verdict on a claim: the claim against the mean of our seeds.

The rule is fixed in chapters/protocol.md, which was written before any result was stored. Its interval allows for both
the chance of the test images and the spread between runs.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from fer_repro.claims import CLASSES, HALF, Claim
from fer_repro.errors import FerReproError
from fer_repro.evaluation.statistics import mean_interval
from fer_repro.recipe import Views
from fer_repro.results import Result

VERDICTS = ("reproduced", "above", "below", "not comparable", "not run")
OFFICIAL_USAGES = ("PrivateTest",)


@dataclass(frozen=True)
class Verdict:
    """What the stored runs say about a claim under one protocol; accuracies are fractions 0..1.

    ``measured`` is the mean over ``seeds``, ``accuracies`` holds one value per seed, ``spread`` is their standard
    deviation (None with one seed). All are empty or None for ``not run``.
    """

    name: str
    reason: str
    protocol: str
    usages: tuple[str, ...]
    measured: float | None = None
    interval: tuple[float, float] | None = None
    seeds: tuple[int, ...] = ()
    accuracies: tuple[float, ...] = ()
    spread: float | None = None
    views: str = ""
    parameters: int | None = None
    run_date: str | None = None

    @property
    def n_seeds(self) -> int:
        return len(self.seeds)


def verdict(claim: Claim, results: Iterable[Result], protocol: str = "official") -> Verdict:
    """Judge one claim by its stored runs under ``protocol``; runs of other variants or protocols are passed over.

    Only finished full runs on FER2013 count. Raises `FerReproError` where the counted runs do not belong together:
    different recipes or data, a seed twice, or a test set that is not complete.
    """
    usages = OFFICIAL_USAGES if protocol == "official" else claim.audit.usages or OFFICIAL_USAGES
    own = [r for r in results if r.variant == claim.variant and r.protocol == protocol]
    counted = sorted((r for r in own if r.storable), key=lambda r: r.seed)
    if not counted:
        return Verdict("not run", _not_run(protocol, own), protocol, usages)
    _refuse_mixture(claim.variant, protocol, counted)
    accuracies = tuple(_accuracy(r, usages) for r in counted)
    measured, interval = statistics.fmean(accuracies), mean_interval(accuracies, HALF * len(usages))
    first = counted[0].record
    found = Verdict(
        name=_name(claim, interval),
        reason="",
        protocol=protocol,
        usages=usages,
        measured=measured,
        interval=interval,
        seeds=tuple(r.seed for r in counted),
        accuracies=accuracies,
        spread=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        views=str(Views(**first["recipe"]["views"])) if counted[0].has_views else "no test-time augmentation",
        parameters=first["parameters"],
        run_date=max(r.record["ended"] for r in counted)[:10],
    )
    return dataclasses.replace(found, reason=_reason(claim, found))


def _name(claim: Claim, interval: tuple[float, float]) -> str:
    if claim.audit.comparability in "CD":
        return "not comparable"
    low, high = interval
    claimed = claim.accuracy / 100
    return "below" if high < claimed else "above" if low > claimed else "reproduced"


def _not_run(protocol: str, own: list[Result]) -> str:
    states = ", ".join(f"seed {r.seed}: {r.status}, profile {r.profile}" for r in own)
    more = f" What is stored does not count ({states})." if own else ""
    return f"No finished full run on FER2013 under the {protocol} protocol is stored.{more}"


def _refuse_mixture(variant: str, protocol: str, counted: list[Result]) -> None:
    """Runs are averaged only where recipe and data are the same."""
    where = f"results of {variant} under the {protocol} protocol"
    recipes, data = ({r.record["recipe_sha256"] for r in counted}, {r.record["data"]["digest"] for r in counted})
    for what, values in (("recipe", recipes), ("data", data)):
        if len(values) > 1:
            shown = ", ".join(f"seed {r.seed}" for r in counted)
            raise FerReproError(
                f"{where}: the runs ({shown}) have {len(values)} different {what} digests, expected one; move the "
                "older runs away or run them again"
            )
    seeds = [r.seed for r in counted]
    if len(set(seeds)) != len(seeds):
        raise FerReproError(f"{where}: a seed occurs twice in {seeds}, expected each once; keep one of the runs")


def _accuracy(result: Result, usages: tuple[str, ...]) -> float:
    """Share of correct images over whole test sets, with test-time augmentation where the recipe has any."""
    scores = {usage: result.score(usage) for usage in usages}
    for usage, score in scores.items():
        if score["n"] != HALF:
            raise FerReproError(
                f"results of {result.variant}, {result.protocol}, seed {result.seed}: {usage} was scored on "
                f"{score['n']} images, expected all {HALF}; run it again on the complete data"
            )
    return sum(score["correct"] for score in scores.values()) / (HALF * len(usages))


def _reason(claim: Claim, found: Verdict) -> str:
    assert found.interval is not None and found.measured is not None, "only a run has a reason with numbers"
    low, high = (f"{100 * end:.2f}" for end in found.interval)
    one = found.n_seeds == 1
    seeds = "one seed, so the spread between runs is not in it" if one else f"mean of {found.n_seeds} seeds"
    reason = (
        f"Measured {100 * found.measured:.2f} % on {' and '.join(found.usages)} under the {found.protocol} protocol, "
        f"{found.views} (95 % interval {low} to {high} %, {seeds}). The claimed {claim.accuracy:.2f} %"
    )
    audit, gap = claim.audit, claim.accuracy - 100 * found.measured
    if found.name == "not comparable":
        return f"{reason} is of class {audit.comparability}: {CLASSES[audit.comparability]}."
    if found.name == "reproduced":
        reason += " lies inside the interval."
    else:
        reason += f" lies {abs(gap):.2f} points {'above' if gap > 0 else 'below'} the mean, outside the interval."
    if audit.comparability == "B" and found.protocol == "official":
        reason += f" The claim was made differently (class B): scored on {audit.scored}; selected on "
        reason += f"{audit.selected_on}; trained on {audit.trained_on}."
    return reason
