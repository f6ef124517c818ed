"""Claims and stored results side by side: one table, and a verdict on each claim.

The rule of a verdict is fixed in chapters/protocol.md, which was written before any result was stored: the claim
against the mean of our seeds, with an interval for both the chance of the test images and the spread between runs.
"""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from fer_repro import papers
from fer_repro import results as stored
from fer_repro.claims import CLASSES, HALF, Claim, book, declared_parameters, leaderboard_claims
from fer_repro.errors import FerReproError
from fer_repro.evaluation.statistics import wilson
from fer_repro.project import default_results_dir
from fer_repro.recipe import Views
from fer_repro.results import Result

VERDICTS = ("reproduced", "above", "below", "not comparable", "not run")
DAMAGED = "damaged"  # no verdict: what is stored cannot be read
OFFICIAL_USAGES = ("PrivateTest",)
# The pinned leaderboard's own columns, and the fields of `LeaderboardRow` that hold them.
COLUMNS = dict(
    Paper="paper", Code="code", Accuracy="accuracy", ModelName="model", ReleaseDate="date", PaperURL="paper_url"
)
NUMBERS = ("Accuracy", "claimed", "measured", "low", "high", "released", "released_low", "released_high")


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
        views=str(Views(**first["recipe"]["views"])) if counted[0].has_views else "one view",
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
    """Runs are averaged only where nothing but the seed differs between them."""
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


def leaderboard(results_dir: Path | str | None = None) -> pd.DataFrame:
    """All claims in the leaderboard's order and columns, then our columns.

    The leaderboard's: Paper, Code, Accuracy (percent, as printed), ModelName, ReleaseDate. Ours: PaperURL, variant,
    slug, model, date, pinned (False for a paper that is not on the leaderboard), claimed (fraction 0..1),
    comparability, scored, parameters; for the official protocol measured, low, high (fractions), seeds, verdict,
    reason, run_date; for the claimed one the same with ``as_claimed_`` before the name (verdict and reason None where
    no such run is stored); released, released_low, released_high, released_on, released_variant for published weights
    scored here (`released_beside`), which change no verdict. Missing numbers are NaN, missing texts and counts None.
    ``results_dir``: the project's own where empty. Raises `FerReproError` for a folder that does not exist and for
    results that cannot be read or do not belong together.
    """
    where = _folder(results_dir)
    runs, released = stored.read_all(where), stored.read_all(where, released=True)
    table = pd.DataFrame([_row(claim, runs, released) for claim in leaderboard_claims().values()], dtype=object)
    numeric = [name for name in table if name.removeprefix("as_claimed_") in NUMBERS]
    return table.astype(dict.fromkeys(numeric, float) | {"seeds": int, "as_claimed_seeds": int, "pinned": bool})


def _folder(results_dir: Path | str | None) -> Path:
    if results_dir and not os.path.isdir(results_dir):
        raise FerReproError(
            f"results folder '{results_dir}' does not exist: give the folder that holds <variant>/<protocol>"
        )
    return Path(results_dir) if results_dir else default_results_dir()


def released_beside(claim: Claim, released: Iterable[Result]) -> list[Result]:
    """The scores of published weights that stand beside a claim: those of its own network; where no weights of that
    are known, those of its ablations, but not of the members of an ensemble."""
    variant = papers.variants().get(claim.variant)
    names = {claim.variant}
    if variant is not None and variant.released is None:
        names |= {v.id for v in papers.variants().values() if v.ablation_of == claim.variant} - {*variant.requires}
    return [one for one in released if one.variant in names and one.storable and one.headline["n"] == HALF]


def _released(claim: Claim, released: list[Result]) -> dict[str, Any]:
    """The columns of the first of them; the chapter shows all."""
    first = next(iter(released_beside(claim, released)), None)
    if first is None:
        return dict.fromkeys(("released", "released_low", "released_high", "released_on", "released_variant"))
    (low, high), on = first.headline["interval"], first.halves[-1]
    row = {"released": first.headline["accuracy"], "released_low": low, "released_high": high}
    return row | {"released_on": on, "released_variant": first.variant}


def _row(claim: Claim, runs: list[Result], released: list[Result]) -> dict[str, Any]:
    official, claimed = verdict(claim, runs), verdict(claim, runs, "claimed")
    counted = official.parameters if official.parameters is not None else declared_parameters(claim.variant)
    variant = papers.variants().get(claim.variant)
    if variant is not None and variant.called:
        counted = None  # a stand-in was counted; the claim's own network is not published
    row = {name: getattr(claim.row, field) for name, field in COLUMNS.items()} | {
        **{name: getattr(claim, name) for name in ("variant", "slug", "model", "date", "pinned")},
        "claimed": claim.accuracy / 100,
        "comparability": claim.audit.comparability,
        "scored": claim.audit.scored,
        "parameters": counted,
    }
    again = _measured(claimed) | ({} if claimed.n_seeds else {"verdict": None, "reason": None})
    row |= _released(claim, released)
    return row | _measured(official) | {f"as_claimed_{name}": value for name, value in again.items()}


def _measured(found: Verdict) -> dict[str, Any]:
    low, high = found.interval or (None, None)
    row = {"measured": found.measured, "low": low, "high": high, "seeds": found.n_seeds, "verdict": found.name}
    return row | {"reason": found.reason, "run_date": found.run_date}


def record_line(table: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard's rows that raised the best claimed accuracy, by date (of one day, the best counts)."""
    by_day = table[table["pinned"]].sort_values(["ReleaseDate", "Accuracy"]).drop_duplicates("ReleaseDate", keep="last")
    best_before = by_day["Accuracy"].cummax().shift(fill_value=float("-inf"))
    return by_day[by_day["Accuracy"] > best_before].reset_index(drop=True)


def clean_subset(table: pd.DataFrame) -> pd.DataFrame:
    """The rows whose claims are comparable with the official protocol (class A)."""
    return table[table["comparability"] == "A"].reset_index(drop=True)


def audit_json(results_dir: Path | str | None = None) -> dict[str, Any]:
    """All claims and audits, JSON-ready: the pinned leaderboard, the classes, per claim its audit and verdicts.

    ``released`` of a row: published weights of any of its networks that were scored here. ``problems``: one sentence
    for each stored result that cannot be read; the verdict on it is `DAMAGED`.
    """
    where, whole = _folder(results_dir), book()
    runs, damaged = stored.survey(where)
    released, unread = stored.survey(where, released=True)
    problems = list((damaged | unread).values())
    lying = {folder.relative_to(where).parts[:2]: problem for folder, problem in damaged.items()}

    def judged(claim: Claim, protocol: str) -> dict[str, Any]:
        """The verdict; where a run of it is damaged or does not belong to the others, "damaged" with the reason."""
        problem = lying.get((claim.variant, protocol)) or lying.get((claim.variant,)) or lying.get(())
        found = Verdict(DAMAGED, problem or "", protocol, ())
        if problem is None:
            try:
                found = verdict(claim, runs, protocol)
            except FerReproError as error:
                problems.append(str(error))
                found = dataclasses.replace(found, reason=str(error))
        return dataclasses.asdict(found)

    pinned = {name: value for name, value in vars(whole).items() if name not in ("claims", "parameters")}
    rows = []
    for claim in whole.claims.values():
        verdicts = {protocol: judged(claim, protocol) for protocol in ("official", "claimed")}
        scored = [
            one.record["released"] | {"variant": one.variant, "scores": one.record["scores"]}
            for one in released
            if claim.variant in _models(one.variant)
        ]
        more = {"parameters": declared_parameters(claim.variant), "verdicts": verdicts, "released": scored}
        rows.append(dataclasses.asdict(claim) | more)
    return {"leaderboard": pinned, "classes": CLASSES, "rows": rows, "problems": problems}


def _models(variant_id: str) -> tuple[str | None, ...]:
    """A variant, and the model that it is an ablation of."""
    variant = papers.variants().get(variant_id)
    return (variant_id, variant.ablation_of if variant else None)
