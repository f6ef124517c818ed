"""Rows of the forest plots: a claim and what was measured, similar models, and the steps of an ablation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fer_repro import leaderboard, papers
from fer_repro.claims import Claim, leaderboard_claims
from fer_repro.evaluation.statistics import wilson
from fer_repro.markup import percent
from fer_repro.plots import Row
from fer_repro.results import Result

SIMILAR = 2  # models above and below on the leaderboard


def claim_rows(claim: Claim, runs: Sequence[Result], released: Sequence[Result] = ()) -> list[Row]:
    """The claim, each run of its variant, unfinished ones too, and its ``released`` weights; a protocol without a run
    says "not run". Synthetic faces never stand here.

    The claim has an interval only where the audit says how many images of which test set were right.
    """
    audit = claim.audit
    counted = audit.arithmetic.correct if audit.arithmetic.n == audit.n else None
    bounds = wilson(counted, audit.n) if counted is not None else None
    first = (f"{claim.accuracy:.2f}\u00a0%", _where(audit.usages))
    rows = [Row("claimed", claim.accuracy / 100, bounds, "claimed", first, claim.model)]
    for protocol in papers.PROTOCOLS:
        own = _measured_rows(claim.variant, protocol, runs, claim.model)
        rows += own or [Row(f"{protocol} protocol", None, words=("not run",), group=claim.model)]
    return rows + _released_rows(claim.variant, released, claim.model)


def ablation_rows(claim: Claim, runs: Sequence[Result], released: Sequence[Result] = ()) -> list[Row]:
    """The runs of the model's declared ablations and their ``released`` weights, a group for each; what was not run is
    left out."""
    rows: list[Row] = []
    for name in (variant.id for variant in papers.variants().values() if variant.ablation_of == claim.variant):
        group = f"ablation {name}"
        for protocol in papers.PROTOCOLS:
            rows += _measured_rows(name, protocol, runs, group)
        rows += _released_rows(name, released, group)
    return rows


def _released_rows(variant: str, released: Sequence[Result], group: str) -> list[Row]:
    """One row for each stored score of published weights of ``variant``."""
    own = [one for one in released if one.variant == variant and one.storable]
    return [
        Row(
            "released weights",
            one.headline["accuracy"],
            tuple(one.headline["interval"]),
            "released",
            (percent(one.headline["accuracy"]), one.halves[-1]),
            group,
        )
        for one in own
    ]


def _measured_rows(variant: str, protocol: str, runs: Sequence[Result], group: str) -> list[Row]:
    """One row for each run of ``variant`` under ``protocol`` on real data."""
    full, rows = papers.get(variant).recipe(protocol, "full").sha256(), []
    for run in runs:
        if run.variant != variant or run.protocol != protocol or run.synthetic:
            continue
        score = run.headline
        state = "" if run.storable or run.unfinished else f", {run.profile}, {run.status}"
        if run.record["recipe_sha256"] != full:
            state += ", another recipe"
        words = (percent(score["accuracy"]), _where(run.record["usages"]["test"]) + state)
        label, kind = f"{protocol} protocol, seed {run.seed}", "measured"
        if run.unfinished:
            as_claimed = ", as claimed" if protocol == "claimed" else ""
            label, kind = f"{run.progress}, seed {run.seed}{as_claimed}", "unfinished"
        rows.append(Row(label, score["accuracy"], tuple(score["interval"]), kind, words, group))
    return rows


def similar_rows(claim: Claim, runs: Sequence[Result]) -> list[Row]:
    """The next models above and below on the leaderboard: their claims, and what was measured."""
    listed = [other for other in leaderboard_claims().values() if other.pinned or other == claim]
    order = sorted(listed, key=lambda c: -c.accuracy)
    place = next(i for i, c in enumerate(order) if c.variant == claim.variant)
    near = order[max(0, place - SIMILAR) : place] + order[place + 1 : place + 1 + SIMILAR]
    rows = []
    for other in near:
        words = (f"{other.accuracy:.2f}\u00a0%", _where(other.audit.usages))
        rows.append(Row(other.model, other.accuracy / 100, None, "context", words, "similar models"))
        verdict = leaderboard.verdict(other, runs)
        if verdict.measured is not None:
            words = (percent(verdict.measured), _where(verdict.usages))
            label = f"{other.model}, measured"
            rows.append(Row(label, verdict.measured, verdict.interval, "measured", words, "similar models"))
    return rows


def _where(usages: Sequence[str]) -> str:
    return "both test sets" if len(usages) == 2 else "+".join(usages) or "unknown"


def ladder_rows(steps: Sequence[Mapping[str, Any]], usage: str) -> list[Row]:
    """An ablation's steps on one test set; the second column is the gain over the step before.

    ``steps``: ``facts["ladder"]`` of a result, [{"step": name, <usage>: {n, correct, accuracy}, ...}, ...].
    """
    rows, before = [], None
    for step in steps:
        score = step[usage]
        accuracy = score["accuracy"]
        gain = "" if before is None else f"{100 * (accuracy - before):+.2f}"
        bounds = wilson(score["correct"], score["n"])
        rows.append(Row(step["step"].replace("-", ", "), accuracy, bounds, words=(percent(accuracy), gain)))
        before = accuracy
    return rows
