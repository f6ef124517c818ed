"""What the baseline is compared with: the recipes of its search, and the claims of the leaderboard."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path

from fer_repro import papers
from fer_repro.claims import Claim, leaderboard_claims
from fer_repro.evaluation.statistics import mean_interval, wilson
from fer_repro.markup import Html, facts, interval, note, percent, text
from fer_repro.papers.baseline.figures import NAME, SCORED, ensemble_score, full_runs_of, not_run
from fer_repro.papers.baseline.recipe_search import EARLIER, SEARCH, TRIED
from fer_repro.plots.figure import Figure
from fer_repro.plots.forest import Row, forest
from fer_repro.recipe import Recipe
from fer_repro.results import Result

FIRST = TRIED[0].letter  # the recipe that every other one changes in one thing
ALIKE, ABOVE, BELOW = "not distinguishable", "above", "below"


def search(results_dir: Path | None = None) -> Html:
    """The recipes that were tried, and what one run of each allows to say."""
    picture = SEARCH.shown(results_dir, beside=FIRST)
    if isinstance(picture, Html):
        return picture
    words = reading(SEARCH.read(results_dir), papers.get(NAME).recipe("official", "full"))
    return Html(picture.figure() + "".join(f"<p>{text(one)}</p>" for one in words), " ".join(words))


def reading(lines: Sequence[dict], chosen: Recipe) -> list[str]:
    """Sentences: which recipes lie outside the interval of the first, which is best, which one the chapter takes,
    and which came too late for that choice.

    ``lines``: of the search's file; ``chosen``: the chapter's full recipe.
    """
    said = []
    trained = {one["recipe"] for one in lines}
    if missing := [f"{one.letter} ({one.change})" for one in TRIED if one.letter not in trained]:
        said.append(
            f"The search is not complete: {len(TRIED) - len(missing)} of {len(TRIED)} recipes were trained so far. Not "
            f"trained: {'; '.join(missing)}."
        )
    first = next((one for one in lines if one["recipe"] == FIRST), None)
    if first is not None:
        low, high = wilson(first["correct"], first["n"])
        outside = [one for one in lines if not low <= one["accuracy"] <= high]
        listed = [f"{one['recipe']} ({100 * (one['accuracy'] - first['accuracy']):+.2f} points)" for one in outside]
        inside = [one["recipe"] for one in lines if one not in outside and one is not first]
        said.append(
            f"Outside the interval of {FIRST}, {interval((low, high))}: {', '.join(listed) or 'none'}. Inside it, so "
            f"that one run does not distinguish them from {FIRST}: {', '.join(inside) or 'none'}."
        )
    best = max(lines, key=lambda one: one["accuracy"])
    said.append(
        f"The highest accuracy has {best['recipe']}, {percent(best['accuracy'])}; on the training images, "
        f"as augmented, it has {percent(best['train_accuracy'])}."
    )
    same = next((one for one in TRIED if lengthened(one.recipe, chosen.epochs).sha256() == chosen.sha256()), None)
    epochs = f"trained for {chosen.epochs} epochs instead of {max(one['epochs'] for one in lines)}"
    name = f"{same.letter} ({same.change})" if same else "none of these, but combines what they show"
    said.append(f"The recipe of this chapter is {name}, {epochs}.")
    if later := sorted(trained - {*EARLIER}):
        said.append(
            f"Its choice rests on {', '.join(EARLIER)} at most. Trained after its seeds, so without a say in "
            f"that choice: {', '.join(later)}."
        )
    return said


def lengthened(recipe: Recipe, epochs: int) -> Recipe:
    """The same recipe of one stage with another number of epochs."""
    return dataclasses.replace(recipe, stages=(recipe.stages[0].shortened(epochs),))


def bounds_of(claim: Claim) -> tuple[float, float] | None:
    """Wilson's interval of a claim, None where the audit could not establish which test images were scored."""
    n = claim.audit.n
    return wilson(claim.accuracy / 100 * n, n) if isinstance(n, int) else None


def place(claim: Claim, bounds: tuple[float, float]) -> str:
    """Where a claim lies: `ALIKE` where its interval (without one, the printed value) meets ``bounds``."""
    low, high = bounds_of(claim) or (claim.accuracy / 100, claim.accuracy / 100)
    return ABOVE if low > bounds[1] else BELOW if high < bounds[0] else ALIKE


def claims(result: Result, results_dir: Path | None = None) -> Html:
    """The interval of the baseline's full runs among the leaderboard's claims, and which of them it meets."""
    counted = full_runs_of(result, results_dir)
    if not counted:
        return Html(note("Not run:", f"{not_run()} So nothing is compared here."), "not run: nothing to compare")
    values, n = [run.score(SCORED)["accuracy"] for run in counted], counted[0].score(SCORED)["n"]
    mean, bounds = statistics.fmean(values), mean_interval(values, n)
    listed = sorted(leaderboard_claims().values(), key=lambda claim: -claim.accuracy)
    known = {claim.model: place(claim, bounds) for claim in listed if bounds_of(claim)}
    unknown = {claim.model: place(claim, bounds) for claim in listed if not bounds_of(claim)}
    met = [model for model, where in known.items() if where == ALIKE]
    words = (
        f"The interval of the plain baseline on {SCORED}, {interval(bounds)}, overlaps those of {len(met)} of the "
        f"{len(known)} claims whose test images are known: {', '.join(met) or 'none'}."
    )

    def named(claims: dict[str, str], where: str) -> str:
        return text(", ".join(model for model, own in claims.items() if own == where), "none")

    pairs = [
        ("Claims above it", named(known, ABOVE)),
        ("Claims below it", named(known, BELOW)),
        ("Test images not known, inside its interval", named(unknown, ALIKE)),
        ("Test images not known, above", named(unknown, ABOVE)),
        ("Test images not known, below", named(unknown, BELOW)),
    ]
    picture = _picture(counted, mean, bounds, listed)
    return Html(picture.figure() + f"<p><strong>{text(words)}</strong></p>" + facts(pairs), words)


def claims_beside(runs: Sequence[Result]) -> list[str]:
    """Sentences on the full runs ``runs``: their ensemble, and where the claims of known test images lie."""
    counted = [run for run in runs if run.protocol == "official"]
    if not counted:
        return []
    values, n = [run.score(SCORED)["accuracy"] for run in counted], counted[0].score(SCORED)["n"]
    bounds = mean_interval(values, n)
    places = [place(claim, bounds) for claim in leaderboard_claims().values() if claim.pinned and bounds_of(claim)]
    lines = [
        f"Of the {len(places)} claims of the leaderboard whose test images are known, {places.count(ABOVE)} lie above "
        f"the baseline, {places.count(BELOW)} below, and {places.count(ALIKE)} cannot be distinguished from it."
    ]
    if len(counted) > 1:
        score = ensemble_score(counted, SCORED)
        lines.insert(
            0,
            f"The mean of the probabilities of {len(counted)} seeds gives {percent(score['accuracy'])}, "
            f"{100 * (score['accuracy'] - statistics.fmean(values)):+.2f} points against their mean accuracy.",
        )
    return lines


def _picture(runs: Sequence[Result], mean: float, bounds: tuple[float, float], listed: Sequence[Claim]) -> Figure:
    seeds = f"{len(runs)} seed{'s' * (len(runs) != 1)}"
    rows = [Row(f"mean of {seeds}", mean, bounds, "measured", (percent(mean), "", ""), "plain baseline")]
    if len(runs) > 1:
        score = ensemble_score(runs, SCORED)
        words = (percent(score["accuracy"]), "", "")
        own = tuple(score["interval"])
        rows.append(Row(f"ensemble of {seeds}", score["accuracy"], own, "measured", words, "plain baseline"))
    for claim in listed:
        own = bounds_of(claim)
        words = (f"{claim.accuracy:.2f}\u00a0%", claim.audit.comparability, place(claim, bounds) if own else "")
        kind, group = ("claimed", "test images known") if own else ("context", "test images not known")
        rows.append(Row(claim.model, claim.accuracy / 100, own, kind, words, group))
    rows.sort(key=lambda row: ("plain baseline", "test images known", "test images not known").index(row.group))
    listing = "; ".join(" ".join((row.label, *filter(None, row.words))) for row in rows)
    return forest(
        rows,
        "The plain baseline among the claims",
        alt=f"The plain baseline and the claims of the leaderboard: {listing}.",
        caption=f"Filled: measured on {SCORED}, with 95 % intervals. Hollow: claimed by a paper, on the test set that "
        "it used; dashed: the interval that follows from its number of images. Letters: the class of the claim.",
        line=mean,
        columns=("accuracy", "class", "against it"),
    )
