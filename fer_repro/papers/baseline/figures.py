"""What the baseline's chapter shows of its runs: five facts, the recipe with its reasons, the seeds, the accuracy by
minutes, the effect of test-time flips, and the ensemble of the seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_repro import papers, results
from fer_repro.errors import FerReproError
from fer_repro.evaluation.cost import hardware
from fer_repro.evaluation.metrics import evaluate
from fer_repro.evaluation.statistics import mean_interval, paired_comparison
from fer_repro.markup import (
    Html,
    facts,
    interval,
    note,
    percent,
    remark_note,
    seconds,
    small,
    table,
    text,
    whole,
    with_interval,
)
from fer_repro.plots.figure import Canvas, Figure, Theme, canvas
from fer_repro.recipe import Recipe, Views
from fer_repro.results import HALVES, Result

NAME = "baseline"
AIM, AIM_SECONDS = 0.70, 7200.0  # on PrivateTest, for one seed on two cores: set before the first run
COMMAND = f"fer-repro run {NAME} --seed 0 --seed 1 --seed 2"
SCORED = "PrivateTest"
LINES = ("-", "--", ":", "-.")
REASONS = {
    "network": "Residual blocks train without care for the first weights; few parameters, because the images are few "
    "and small.",
    "flip": "A mirrored face has the same expression.",
    "affine": "Faces are cropped and turned differently from picture to picture.",
    "crop": "A face is not always in the same place; the crop also leaves less to compute.",
    "centre_crop": "No augmentation: the same pixels in every epoch.",
    "erase": "No part of the face alone may decide.",
    "loss": "Many labels of FER2013 are doubtful; smoothing keeps the network from being certain of them.",
    "optimiser": "The usual optimiser of image classification; momentum evens out small batches.",
    "schedule": "A large learning rate in the middle, a small one at the end: short training needs both.",
    "ema": "The mean over the last steps is better than the last step, while the learning rate is large.",
    "selection": "The schedule ends where the network is best, so no test set has to choose an epoch.",
    "views": "Image and mirror image are two looks at one face; their mean costs a second pass.",
    "batch_size": "Small enough for many steps in an epoch, large enough for a processor to be busy.",
    "precision": "Half as many bytes for each number, where the processor computes with them.",
}


def stored_runs(results_dir: Path | None = None, protocol: str = "official") -> list[Result]:
    """The stored full runs of the chapter's recipe, by seed."""
    wanted = papers.get(NAME).recipe(protocol, "full").sha256()
    found = [r for r in results.read_all(results_dir) if r.variant == NAME and r.protocol == protocol and r.storable]
    return sorted((r for r in found if r.record["recipe_sha256"] == wanted), key=lambda r: r.seed)


def runs_of(result: Result, results_dir: Path | None = None) -> list[Result]:
    """A full run with all stored seeds of its recipe; a smoke run, or one that was stopped, stands alone."""
    if not result.storable:
        return [result]
    others = [one for one in stored_runs(results_dir, result.protocol) if one.seed != result.seed]
    return sorted([*others, result], key=lambda one: one.seed)


def full_runs_of(result: Result, results_dir: Path | None = None) -> list[Result]:
    """Those of `runs_of` that may decide something; beside a run that may not, what is stored of its protocol."""
    return runs_of(result, results_dir) if result.storable else stored_runs(results_dir, result.protocol)


def five_facts(runs: Sequence[Result]) -> Html:
    """Accuracy, parameters, cost, hardware and seeds of the full runs ``runs``."""
    if not runs:
        return Html(note("Not run:", not_run()), f"not run: {COMMAND}")
    values, first = _accuracies(runs), runs[0].record
    spread = f", standard deviation {100 * statistics.stdev(values):.2f} points" if len(values) > 1 else ""
    scored = f"on {SCORED}, {Views(**first['recipe']['views'])}"
    adds = "" if first["multiply_adds"] is None else f" ({whole(first['multiply_adds'])} multiply-adds for an image)"
    mean = percent(statistics.fmean(values))
    pairs = [
        ("Accuracy", f"<strong>{mean}</strong> {text(scored)} (95 % interval {interval(_interval(runs))})"),
        ("Parameters", text(whole(first["parameters"]) + adds)),
        ("Cost", text(f"{seconds(_mean_seconds(runs))} a seed")),
        ("Hardware", text("; ".join(dict.fromkeys(hardware(r.record) for r in runs)))),
        ("Seeds", text(", ".join(str(r.seed) for r in runs) + spread)),
    ]
    return Html(
        f'<div class="fer-card">{facts(pairs)}</div>', f"plain baseline: {mean} {scored}, {_count(len(runs), 'seed')}"
    )


def not_run() -> str:
    """Markup: that nothing is stored, and the command that makes the runs."""
    return f"no full run of the plain baseline is stored. <code>{text(COMMAND)}</code> makes three."


def ingredients(recipe: Recipe) -> Html:
    """Every part of the recipe with its numbers, and why it is there."""
    stage = recipe.stages[0]
    parts: list[tuple[str, Any, str]] = [
        ("Network", recipe.network, "network"),
        *(("Augmentation", one, one.name) for one in recipe.augment),
        ("Loss", recipe.loss, "loss"),
        ("Optimiser", stage.optimiser, "optimiser"),
        ("Learning rate", stage.schedule, "schedule"),
        ("Batch", recipe.batch_size, "batch_size"),
        ("Averaged weights", recipe.ema, "ema"),
        ("Scored", recipe.selection.name(recipe.protocol), "selection"),
        ("Test-time augmentation", recipe.views, "views"),
        ("Precision", recipe.precision, "precision"),
    ]
    rows = [[text(name), text(value, "none"), text(REASONS.get(key, ""), "")] for name, value, key in parts]
    caption = f"{recipe.epochs} epochs on {'+'.join(recipe.protocol.train)}"
    return Html(table(["Part", "Setting", "Why"], rows, caption), f"the recipe in {len(rows)} parts")


def seeds(result: Result, results_dir: Path | None = None) -> Html:
    """Both test sets of every run, plain and with test-time augmentation, its epoch, time and device; then the mean."""
    runs = runs_of(result, results_dir)
    columns = [(half, views) for half in HALVES for views in (False, True)]
    rows = [
        [
            "<br>".join((text(name_of(run)), *map(small, _how(run)))),
            *(with_interval((score := run.score(*column))["accuracy"], score["interval"]) for column in columns),
        ]
        for run in runs
    ]
    if len(runs) > 1:
        means = []
        for column in columns:
            scores = [run.score(*column) for run in runs]
            values = [score["accuracy"] for score in scores]
            bounds = mean_interval(values, scores[0]["n"])
            means.append(f"<strong>{percent(statistics.fmean(values))}</strong><br>{small(interval(bounds))}")
        rows.append([f"mean<br>{small(seconds(_mean_seconds(runs)))}", *means])
    kinds = {False: "plain", True: Views(**runs[0].record["recipe"]["views"]).kind}
    header = ["Run", *(f"{half}, {kinds[views]}" for half, views in columns)]
    caption = "Below each accuracy its 95 % interval; that of a mean allows for the spread between seeds too."
    plain = "; ".join(f"{name_of(run)}: {percent(run.score(SCORED)['accuracy'])}" for run in runs)
    return Html(remark_note(result.remark) + table(header, rows, caption, range(1, 5)), plain)


def accuracy_by_minutes(result: Result, results_dir: Path | None = None) -> Figure:
    """Accuracy on the selecting images after every epoch against the minutes of training, a line for each run, and at
    its end the accuracy on PrivateTest."""
    runs = runs_of(result, results_dir)
    curves = [(run, run.history["seconds"].cumsum().to_numpy() / 60) for run in runs]
    select = "+".join(result.record["usages"]["select"])

    def draw(theme: Theme) -> Canvas:
        figure = canvas(7.2, 3.6)
        axes = figure.add_subplot()
        axes.grid(axis="y")
        for index, (run, minutes) in enumerate(curves):
            style = {"ls": LINES[index % len(LINES)], "color": theme.measured, "marker": "o", "ms": 3.5, "lw": 1.4}
            axes.plot(minutes, 100 * run.history["select_accuracy"], label=f"{select}, {name_of(run)}", **style)
        last = [minutes[-1] for _, minutes in curves]
        axes.plot(last, [100 * one for one in _accuracies(runs)], "s", ms=7, color=theme.clean, label=SCORED)
        if not result.synthetic:
            axes.axhline(100 * AIM, color=theme.claimed, ls="--", lw=1.2, label=f"the aim on {SCORED}")
        axes.set(xlabel="minutes of training", ylabel="accuracy, %")
        axes.set_xlim(left=0)
        axes.legend(loc="lower right", fontsize=8.5)
        return figure

    ends = "; ".join(
        f"{name_of(run)}: {percent(run.history['select_accuracy'].iloc[0])} on {select} after {minutes[0]:.1f} min, "
        f"{percent(run.history['select_accuracy'].iloc[-1])} after {minutes[-1]:.1f} min, "
        f"{percent(run.score(SCORED)['accuracy'])} on {SCORED}"
        for run, minutes in curves
    )
    return Figure(
        draw,
        scrolls="accuracy against minutes of training",
        alt=f"Accuracy against minutes of training. {ends}.",
        caption=f"Lines: {select}, plain, after every epoch. Squares: {SCORED} with test-time augmentation, after "
        "the training. The learning rate falls until the end: a point in the middle is not what a shorter schedule "
        "would give.",
        remark=result.remark,
    )


def overfitting(result: Result) -> Html:
    """Whether the last epoch of a run is better on the images that it was trained on than on the selecting ones."""
    select = "+".join(result.record["usages"]["select"])
    history, last = result.history, result.history.iloc[-1]
    gap = last["train_accuracy"] - last["select_accuracy"]
    best = int(history["select_accuracy"].argmax())
    words = (
        f"In the last epoch of this run, {int(last['epoch'])}, the accuracy is {percent(last['train_accuracy'])} on "
        f"the augmented training images and {percent(last['select_accuracy'])} on {select}: "
        f"{100 * abs(gap):.2f} points {'less' if gap > 0 else 'more'}. By this measure it "
        f"{'overfits' if gap > 0 else 'does not overfit'}. The highest accuracy on {select} is that of epoch "
        f"{int(history['epoch'].iloc[best])}, {percent(history['select_accuracy'].iloc[best])}."
    )
    return Html(remark_note(result.remark) + f"<p>{text(words)}</p>", words)


def flips(result: Result, results_dir: Path | None = None) -> Html:
    """What test-time augmentation adds to the plain accuracy of each run, on the same images, with a paired test."""
    runs, rows, gains, clear = runs_of(result, results_dir), [], [], 0
    for half in HALVES:
        for run in runs:
            gain, low, high, p = paired_comparison(_hits(run, half, "views"), _hits(run, half, "plain"))
            points = f"{100 * gain:+.2f}<br>{small(f'{100 * low:+.2f} to {100 * high:+.2f}')}"
            kinds = [percent(run.score(half, views)["accuracy"]) for views in (False, True)]
            rows.append([text(half), text(name_of(run)), *kinds, points, "below 0.001" if p < 0.001 else f"{p:.3f}"])
            if half == SCORED:
                gains.append(gain)
                clear += p < 0.05
    mean = f"{100 * statistics.fmean(gains):+.2f}"
    words = (
        f"On {SCORED} the accuracy changes by {mean} points on average over {_count(len(runs), 'run')}; in "
        f"{clear or 'none'} of them the change is more than chance (p below 0.05)."
    )
    header = ["Test set", "Run", "Plain", "With flips", "Difference, points", "p"]
    caption = "Difference on the same images with its 95 % interval; p of McNemar's exact test."
    body = table(header, rows, caption, range(2, 6)) + f"<p>{text(words)}</p>"
    return Html(remark_note(result.remark) + body, words)


def ensemble_score(runs: Sequence[Result], half: str) -> dict[str, Any]:
    """The metrics (`evaluate`) of the mean of the runs' stored probabilities on one test set, image by image.

    Raises `FerReproError` where the runs were scored on different images.
    """
    orders = [np.argsort(run.predictions[f"{half}_ids"]) for run in runs]
    ids = [run.predictions[f"{half}_ids"][order] for run, order in zip(runs, orders, strict=True)]
    if not all(np.array_equal(ids[0], other) for other in ids):
        raise FerReproError(f"the runs were scored on different images of {half}: an ensemble needs the same ones")
    kind = "views" if runs[0].has_views else "plain"
    each = [
        run.predictions[f"{half}_{kind}"][order].astype(np.float64) for run, order in zip(runs, orders, strict=True)
    ]
    return evaluate(np.mean(each, axis=0), runs[0].predictions[f"{half}_labels"][orders[0]])


def ensemble(result: Result, results_dir: Path | None = None) -> Html:
    """The ensemble of the seeds on both test sets beside its members."""
    runs = runs_of(result, results_dir)
    if len(runs) < 2:
        return Html(note("One run only:", "an ensemble needs at least two seeds."), "one run only: no ensemble")
    rows, words = [], ""
    for half in HALVES:
        members, together = [run.score(half)["accuracy"] for run in runs], ensemble_score(runs, half)
        losses = [run.score(half)["log_loss"] for run in runs]
        gain = f"{100 * (together['accuracy'] - statistics.fmean(members)):+.2f}"
        spread = f"{100 * min(members):.2f} to {percent(max(members))}"
        single = f"{percent(statistics.fmean(members))}<br>{small(spread)}"
        both = with_interval(together["accuracy"], together["interval"])
        rows.append([text(half), single, f"<strong>{both}</strong>", gain, f"{statistics.fmean(losses):.3f}"])
        rows[-1].append(f"{together['log_loss']:.3f}")
        words = f"The mean of {len(runs)} networks has {percent(together['accuracy'])} on {half}, {gain} points "
    words += "against one network on average, at as many times the cost."
    header = ["Test set", "Members, mean", "Ensemble", "Gain, points", "Log loss, members", "Log loss, ensemble"]
    caption = (
        "Mean of the stored probabilities. Small: lowest and highest member; Wilson 95 % interval of the ensemble."
    )
    body = table(header, rows, caption, range(1, 6)) + f"<p>{text(words)}</p>"
    return Html(remark_note(result.remark) + body, words)


def aim(result: Result, results_dir: Path | None = None) -> Html:
    """Whether the full runs of the recipe reached what was aimed at, in accuracy and in time."""
    goal = f"The aim was {percent(AIM, 0)} on {SCORED} within {seconds(AIM_SECONDS)} a seed on two cores."
    counted = full_runs_of(result, results_dir)
    if not counted:
        return Html(f"<p>{text(goal)} Whether it is reached is open: {not_run()}</p>", f"{goal} Not run.")
    mean, spent = statistics.fmean(_accuracies(counted)), _mean_seconds(counted)
    side = "above" if mean >= AIM else "below"
    found = (
        f"{_count(len(counted), 'seed')} gave {percent(mean)} on average ({interval(_interval(counted))}), "
        f"{100 * abs(mean - AIM):.2f} points {side} it, in {seconds(spent)} each."
    )
    missed = [words for words, failed in (("accuracy", mean < AIM), ("time", spent > AIM_SECONDS)) if failed]
    verdict = f"It is missed in {' and in '.join(missed)}." if missed else "It is reached."
    return Html(f"<p>{text(f'{goal} {found}')} <strong>{verdict}</strong></p>", f"{goal} {found} {verdict}")


def _how(run: Result) -> tuple[str, ...]:
    """The epoch that is scored, and time and device of a run."""
    epoch, cost = run.record["selected_epoch"], run.record["cost"]
    return f"epoch {epoch}", seconds(cost["seconds"]), hardware(run.record)


def name_of(run: Result) -> str:
    """For example "seed 0", "seed 0, unfinished: epoch 5 of 30"."""
    return f"seed\u00a0{run.seed}{f', {run.progress}' if run.progress else ''}"


def _accuracies(runs: Sequence[Result]) -> list[float]:
    return [run.score(SCORED)["accuracy"] for run in runs]


def _interval(runs: Sequence[Result]) -> tuple[float, float]:
    return mean_interval(_accuracies(runs), runs[0].score(SCORED)["n"])


def _mean_seconds(runs: Sequence[Result]) -> float:
    return statistics.fmean(run.record["cost"]["seconds"] for run in runs)


def _hits(run: Result, half: str, kind: str) -> np.ndarray:
    """bool [N]: which images of a test set a run gets right, plain or with ``views``."""
    return run.predictions[f"{half}_{kind}"].argmax(axis=1) == run.predictions[f"{half}_labels"]


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
