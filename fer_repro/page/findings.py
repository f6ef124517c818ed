"""What we found: the conclusions of a chapter in sentences, each one made from stored results and claims.

A sentence appears with the result that supports it and goes with it; nothing is written by hand. What only one paper
can say comes from functions of its own (``more`` of `chapter_findings`), which also take stored results.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fer_repro import papers, results
from fer_repro.claims import CLASSES, Claim
from fer_repro.evaluation.statistics import mcnemar, mean_interval
from fer_repro.leaderboard import verdict
from fer_repro.leaderboard.evidence import BASELINE
from fer_repro.leaderboard.stored import Stored
from fer_repro.markup import Html, interval, percent, text, whole
from fer_repro.page.tables import others_sentence
from fer_repro.papers import PROTOCOLS, SCRATCH, model_name
from fer_repro.recipe import Views
from fer_repro.results import HALVES, Result

SCORED = HALVES[1]
CHANCE = 0.05  # of a paired test: below it a difference is called more than chance
More = Callable[[Sequence[Result]], Sequence[str]]


def bullets(sentences: Iterable[str]) -> Html:
    """Finished sentences (markup) as a list; one alone is a paragraph."""
    lines = list(sentences)
    body = f"<p>{lines[0]}</p>" if len(lines) == 1 else f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"
    return Html(body, f"{len(lines)} finding{'s' * (len(lines) != 1)}")


def chapter_findings(slug: str, claims: Sequence[Claim], stored: Stored, more: Sequence[More] = ()) -> Html:
    """The findings of one paper, or of the baseline; ``more``: sentences that only its module can make of its full
    runs. Where nothing is stored, one sentence says so."""
    own = _of_paper(slug, stored)
    if not (own.runs or own.released or own.unfinished):
        return bullets([_nothing(claims)])
    lead = _lead(slug, claims, own)
    lines = [line for claim in claims for line in _of_claim(claim, own)]
    lines += [_accuracy(lead)] if lead and lead[0].variant not in _claimed(claims) else []
    lines += _details(lead, stored) if lead else []
    beside = [runs for runs in _groups(own.runs) if runs[0].variant not in _claimed(claims)]
    lines += [_other(runs, lead, own) for runs in beside if runs[0].variant != lead[0].variant]
    lines += [text(line) for function in more for line in function(own.runs)]
    lines += [_released(one, own.runs, claims) for one in own.released]
    lines += [_stopped(one) for one in own.unfinished]
    return bullets([*lines, *(line for claim in claims for line in _undecided(claim, own))])


def _of_paper(slug: str, stored: Stored) -> Stored:
    """What is stored of a paper's variants, on real faces and of their present recipes."""
    known = {name for name, variant in papers.variants().items() if variant.slug == slug}
    return Stored(
        [one for one in stored.runs if one.variant in known and one.storable],
        [one for one in stored.released if one.variant in known],
        [one for one in stored.unfinished if one.variant in known],
    )


def _claimed(claims: Sequence[Claim]) -> set[str]:
    return {claim.variant for claim in claims}


def _groups(runs: Iterable[Result], protocol: str = PROTOCOLS[0]) -> list[list[Result]]:
    """Full runs of one recipe, by variant; where a recipe or the data changed, the group with the most seeds (of equal
    ones the last)."""
    found: dict[str, dict[tuple[str, str], list[Result]]] = {}
    for one in sorted(runs, key=lambda run: (run.variant, run.seed)):
        if one.protocol == protocol:
            alike = found.setdefault(one.variant, {})
            alike.setdefault((one.record["recipe_sha256"], one.record["data"]["digest"]), []).append(one)
    return [
        max(groups.values(), key=lambda alike: (len(alike), max(one.record["ended"] for one in alike)))
        for groups in found.values()
    ]


def _lead(slug: str, claims: Sequence[Claim], own: Stored) -> list[Result]:
    """The runs whose details are given: those of a claimed variant, else of the ablation that PublicTest prefers."""
    groups = _groups(own.runs)
    wanted = _claimed(claims) or {slug}
    first = [runs for runs in groups if runs[0].variant in wanted] or groups
    return max(first, key=lambda runs: (_mean(runs, HALVES[0]), len(runs)), default=[])


def _mean(runs: Sequence[Result], half: str = SCORED, views: bool | None = None) -> float:
    return statistics.fmean(run.score(half, views)["accuracy"] for run in runs)


def _seeds(runs: Sequence[Result]) -> str:
    return f"mean of {len(runs)} seeds" if len(runs) > 1 else "one seed"


def _bounds(runs: Sequence[Result]) -> str:
    values = [run.score(SCORED)["accuracy"] for run in runs]
    return interval(mean_interval(values, runs[0].score(SCORED)["n"]))


def against(share: float, base: float, other: str) -> str:
    """A fraction against another in words, ``other`` is markup: "0.68 points more than PrivateTest". It is the
    difference of what `percent` shows of them."""
    points = round(100 * share, 2) - round(100 * base, 2)
    if abs(points) < 0.005:
        return f"as much as {other}"
    return f"{abs(points):.2f} points {'more' if points > 0 else 'less'} than {other}"


def _name(variant: str) -> str:
    """A claimed model by its name, an ablation by its id; as markup."""
    if papers.get(variant).ablation_of is not None:
        return f"<code>{text(variant)}</code>"
    return f"{'the ' if variant == BASELINE else ''}{text(model_name(variant))}"


def _accuracy(runs: Sequence[Result]) -> str:
    """The sentence with the number."""
    name = re.sub("^the ", "The ", _name(runs[0].variant))
    share = f"<strong>{percent(_mean(runs))}</strong>"
    return f"{name} recognises {share} of {SCORED} (95 % interval {_bounds(runs)}, {_seeds(runs)})."


def _of_claim(claim: Claim, own: Stored) -> list[str]:
    """A claim against the runs of its variant under both protocols."""
    lines = []
    runs = next((group for group in _groups(own.runs) if group[0].variant == claim.variant), [])
    if runs:
        found, claimed = verdict(claim, own.runs), claim.accuracy / 100
        low, high = mean_interval([run.score(SCORED)["accuracy"] for run in runs], runs[0].score(SCORED)["n"])
        place = "inside" if low <= claimed <= high else "outside"
        lines.append(
            f"{_accuracy(runs)} The paper claims {claim.accuracy:.2f}\u00a0%, "
            f"{against(claimed, _mean(runs), 'measured')}; that lies {place} the interval. "
            f"The verdict: <strong>{text(found.name)}</strong>."
        )
    again = verdict(claim, own.runs, "claimed")
    if again.measured is not None:
        gain = f", {against(again.measured, _mean(runs), 'under the official protocol')}" if runs else ""
        lines.append(
            f"Run as the claim was made, {_name(claim.variant)} gives {percent(again.measured)} on "
            f"{text(' and '.join(again.usages))}{gain}."
        )
    return lines


def _details(runs: Sequence[Result], stored: Stored) -> list[str]:
    """What the lead's runs say besides their accuracy: seeds, test sets, test-time augmentation, classes, baseline."""
    lines = [_spread(runs), _test_sets(runs), *_augmentation(runs), _classes(runs), *_ladder(runs)]
    baseline = next((group for group in _groups(stored.runs) if group[0].variant == BASELINE), [])
    if baseline and runs[0].variant != BASELINE:
        lines.append(
            f'The <a href="../baseline.html">plain baseline</a> of this book gives {percent(_mean(baseline))} under '
            f"the same protocol, {against(_mean(baseline), _mean(runs), _name(runs[0].variant))}."
        )
    return lines


def _spread(runs: Sequence[Result]) -> str:
    name = _name(runs[0].variant)
    if len(runs) == 1:
        return f"Only one seed of {name} is stored, so that nothing is known of the spread between seeds."
    values = [run.score(SCORED)["accuracy"] for run in runs]
    return (
        f"The {len(runs)} seeds of {name} lie between {percent(min(values))} and {percent(max(values))} (standard "
        f"deviation {100 * statistics.stdev(values):.2f} points)."
    )


def _test_sets(runs: Sequence[Result]) -> str:
    selects = runs[0].record["usages"]["select"] == [HALVES[0]] and runs[0].record["recipe"]["selection"]["rule"] in (
        "best",
        "grid",
    )
    role = ", which selected what is scored," if selects else ""
    public = _mean(runs, HALVES[0])
    return f"PublicTest{role} gives {percent(public)}, {against(public, _mean(runs), SCORED)}."


def _augmentation(runs: Sequence[Result]) -> list[str]:
    """What test-time augmentation adds on the same images, and in how many runs that is more than chance."""
    if not runs[0].has_views:
        return []
    gain = _mean(runs, views=True) - _mean(runs, views=False)
    clear = sum(mcnemar(*(_hits(run, kind) for kind in ("views", "plain"))) < CHANCE for run in runs)
    views = text(Views(**runs[0].record["recipe"]["views"]))
    return [
        f"Test-time augmentation ({views}) changes the accuracy on {SCORED} by {100 * gain:+.2f} points; that is more "
        f"than chance in {clear} of {len(runs)} run{'s' * (len(runs) > 1)} (McNemar’s test, p below {CHANCE})."
    ]


def _hits(run: Result, kind: str) -> np.ndarray:
    return run.predictions[f"{SCORED}_{kind}"].argmax(axis=1) == run.predictions[f"{SCORED}_labels"]


def _classes(runs: Sequence[Result]) -> str:
    """The easiest and the hardest class, and the largest share of a class that is taken for another, over all runs."""
    scores = [run.score(SCORED) for run in runs]
    labels = list(scores[0]["per_class"])
    confusion = np.sum([score["confusion"] for score in scores], axis=0)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    recall = shares.diagonal()
    best, worst = int(recall.argmax()), int(recall.argmin())
    truth, taken = np.unravel_index((shares - np.diag(recall)).argmax(), shares.shape)
    images = whole(scores[0]["per_class"][labels[worst]]["n"])
    over = f"Over the {len(runs)} seeds, the" if len(runs) > 1 else "The"
    return (
        f"{over} easiest class is {labels[best]} (recall {percent(recall[best], 1)}), the hardest {labels[worst]} "
        f"({percent(recall[worst], 1)} of {images} images). The largest share of a class that is taken for another: "
        f"{labels[taken]} is the answer for {percent(shares[truth, taken], 1)} of {labels[truth]}."
    )


def _ladder(runs: Sequence[Result]) -> list[str]:
    """How the accuracy changes step by step, for a method that records an ablation ladder."""
    steps: list[dict[str, Any]] = runs[0].record["facts"].get("ladder") or []
    if len(steps) < 2 or SCORED not in steps[0]:
        return []
    parts = [f"{text(steps[0]['step'])} {percent(steps[0][SCORED]['accuracy'])}"]
    for before, step in zip(steps, steps[1:], strict=False):
        gain = 100 * (step[SCORED]["accuracy"] - before[SCORED]["accuracy"])
        parts.append(f"{text(step['step'])} {percent(step[SCORED]['accuracy'])} ({gain:+.2f})")
    return [f"Step by step on {SCORED}: {', '.join(parts)}."]


def _other(runs: Sequence[Result], lead: Sequence[Result], own: Stored) -> str:
    """The full runs of a variant that nothing is claimed for, against those of the lead, or, where it starts from
    random weights, against those of its original."""
    known = {group[0].variant: group for group in _groups(own.runs)}
    base = known.get(runs[0].variant.removesuffix(SCRATCH), lead) if runs[0].variant.endswith(SCRATCH) else lead
    pairs = [(one, other) for one in runs for other in base if one.seed == other.seed]
    clear = sum(mcnemar(*results.paired_hits(*pair)) < CHANCE for pair in pairs)
    tested = f"; on the same images the difference is more than chance in {clear} of {len(pairs)} seeds"
    if len(pairs) == 1:
        tested = f"; on the same images the difference is {'' if clear else 'not '}more than chance"
    difference = against(_mean(runs), _mean(base), _name(base[0].variant))
    return f"{_accuracy(runs).removesuffix('.')}, {difference}{tested if pairs else ''}."


def _released(one: Result, runs: Sequence[Result], claims: Sequence[Claim]) -> str:
    """What published weights score, against the claim of their model and our own training of that network."""
    half = one.halves[-1]
    score = one.score(half)
    owner = papers.get(one.variant).ablation_of or one.variant
    claim = next((claim for claim in claims if claim.variant == owner), None)
    said = f"; the claim is {claim.accuracy:.2f}\u00a0%" if claim else ""
    trained = next((group for group in _groups(runs) if group[0].variant == one.variant), [])
    ours = (
        f"; our own training of that network gives {percent(_mean(trained, half))} ({_seeds(trained)})"
        if trained
        else ""
    )
    weights = one.record["released"]
    made = f"; trained on {text(weights['trained_on'])}, selected on {text(weights['selected_on'])}"
    return (
        f"Released weights of {_name(one.variant)} (<code>{text(one.name)}</code>) give "
        f"{percent(score['accuracy'])} of {text(half)} ({interval(score['interval'])}){said}{ours}{made}."
    )


def _stopped(one: Result) -> str:
    said, score = one.record["unfinished"], one.score(SCORED)
    how = "" if one.protocol == PROTOCOLS[0] else f", {one.protocol} protocol"
    same = f", and {one.one_class}" if one.one_class else ""
    return (
        f"A run of {_name(one.variant)} (seed {one.seed}{how}) was stopped after {said['epochs_done']} of "
        f"{said['epochs']} epochs. So far it recognises {percent(score['accuracy'])} of {SCORED} "
        f"({interval(score['interval'])}){same}; this decides nothing."
    )


def _undecided(claim: Claim, own: Stored) -> list[str]:
    """Why a claim is neither confirmed nor contradicted; nothing where the verdict decides it."""
    claimed = f"{claim.accuracy:.2f}\u00a0%"
    found = verdict(claim, own.runs)
    if found.name == "not run":
        return [
            f"Not decided: the claim of {claimed} for {text(claim.model)}, because no full run of it under the "
            "official protocol is stored."
        ]
    if found.name == "not comparable":
        letter = claim.audit.comparability
        why = text(CLASSES[letter])
        return [f"Not decided: whether {claimed} was reached. The claim is of class {letter}: {why}."]
    if len(found.seeds) == 1:
        return [f"Not decided: what another seed of {_name(claim.variant)} gives."]
    return []


def _nothing(claims: Sequence[Claim]) -> str:
    """What a chapter without evidence says, with what others report where they do."""
    untested = [
        f"The claim of {claim.accuracy:.2f}\u00a0% for {text(claim.model)} is not tested here. "
        f"{text(others_sentence(claim))}"
        for claim in claims
    ]
    return " ".join(["Nothing was measured on real faces yet.", *untested])
