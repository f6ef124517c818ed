"""The effect of the protocol: test set, epoch, test-time augmentation, and the protocol that was claimed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from fer_repro.comparisons import Comparison, Entry
from fer_repro.comparisons.entries import SCORED, SELECTING
from fer_repro.comparisons.pairs import LEVEL
from fer_repro.comparisons.protocols import (
    BY_PRIVATE,
    BY_PUBLIC,
    CHOICES,
    LAST,
    Augmented,
    BothSets,
    Claimed,
    Epochs,
    oracle_gains,
)
from fer_repro.markup import Html, details, note, percent, small, table, text, with_interval
from fer_repro.page.comparisons.words import (
    MARK,
    count,
    listed,
    named,
    one_class_runs,
    p_value,
    points,
    points_with_interval,
    runs_of,
    starred,
    tick_names,
    without,
)
from fer_repro.plots.dots import dots
from fer_repro.plots.panels import ByEpoch, by_epoch
from fer_repro.recipe import Views
from fer_repro.results import PACKAGE, UNFINISHED

SHOWN = 6
"""Runs in the picture of accuracies by epoch."""
ROWS = 12
"""Runs in the table of epochs; of more, one for each model, and the others folded."""
CHANGES = (f"Last minus best on {SELECTING}", f"Oracle minus best on {SELECTING}")
NO_EPOCHS = "no stored run has the predictions of its epochs. They are made after the training, from kept weights: "
NO_EPOCHS += "fer-repro run baseline --seed 0 --score-epochs"


def both_sets(models: Sequence[BothSets]) -> Html:
    """PublicTest beside PrivateTest for every model: a picture, and the numbers folded away."""
    if not models:
        return Html(note("Nothing to show:", f"no result has predictions of both {SELECTING} and {SCORED}."), "none")
    values = {starred(one.entry): {SELECTING: one.public, SCORED: one.private} for one in models}
    said = "; ".join(f"{name} {percent(p[SELECTING][0])} and {percent(p[SCORED][0])}" for name, p in values.items())
    figure = dots(
        dict(zip(tick_names([one.entry for one in models]), values.values(), strict=True)),
        f"Accuracy on {SELECTING} and on {SCORED}",
        alt=f"Accuracies on {SELECTING} and {SCORED}: {said}.",
        caption="Dots: the mean over the seeds; bars: its 95 % interval. The two sets have other images, so the "
        f"difference of one model is not paired. {MARK}",
    )
    rows = [
        [
            named(one.entry),
            runs_of(one.entry),
            with_interval(*one.public),
            with_interval(*one.private),
            points_with_interval(*one.gap),
        ]
        for one in models
    ]
    header = ["Model", "Runs", SELECTING, SCORED, f"{SELECTING} minus {SCORED}, points"]
    caption = (
        "The difference has Newcombe's 95 % interval for two sets of images, from the intervals of the two accuracies."
    )
    numbers = details("The numbers", table(header, rows, caption, (2, 3, 4)))
    return Html(figure.figure() + numbers + f"<p>{text(_sets_sentence(models))}</p>", said)


def _sets_sentence(models: Sequence[BothSets]) -> str:
    counted = [one for one in models if one.entry.decides]
    if not counted:
        return f"No model that decides has predictions of both {SELECTING} and {SCORED}."
    higher = sum(one.private[0] > one.public[0] for one in counted)
    clear = [one.entry.name for one in counted if not one.gap[1] <= 0 <= one.gap[2]]
    models = f"{count(len(counted), 'model')} {'has' if higher == 1 else 'have'}"
    lines = [f"{higher or 'None'} of {models} a higher accuracy on {SCORED} than on {SELECTING}."]
    if gaps := [gap for one in counted if (gap := _gap(one.entry)) is not None]:
        left_out = without(one_class_runs(one.entry for one in counted))
        lines.append(f"{SELECTING} minus {SCORED} is {points(statistics.fmean(gaps))} points on average{left_out}.")
    lines.append(
        f"The interval of the difference does not contain zero for {listed(clear)}."
        if clear
        else "Every interval of the difference contains zero."
    )
    return " ".join(lines)


def _gap(entry: Entry) -> float | None:
    """PublicTest minus PrivateTest, the mean over the runs; None where every run answers one class."""
    runs = [run for run in entry.runs if not run.one_class]
    gaps = [run.score(SELECTING)["accuracy"] - run.score(SCORED)["accuracy"] for run in runs]
    return statistics.fmean(gaps) if gaps else None


def epochs(runs: Sequence[Epochs]) -> Html:
    """What the choice of an epoch is worth: last, best on PublicTest, best on PrivateTest."""
    if not runs:
        return Html(note("Not stored:", text(NO_EPOCHS)), NO_EPOCHS)
    header = ["Run", *(rule[0].upper() + rule[1:] for rule in CHOICES), *(f"{name}, points" for name in CHANGES)]
    caption = (
        f"Accuracy on {SCORED} of the weights of one epoch; small: the epoch, and its accuracy on {SELECTING}. The "
        f"epoch that is best on {SELECTING} is chosen as the official protocol does it, here always without test-time "
        f"augmentation. Differences on the same images of {SCORED}, with 95 % bootstrap intervals for the two epochs "
        f"as they are. The oracle looks at {SCORED} to choose, so its number measures no method, and its difference is "
        "never negative."
    )
    shown = runs if len(runs) <= ROWS else list(_first_of_each(runs).values())
    body = table(header, [_epochs_row(one) for one in shown], caption, range(1, 6))
    if more := [one for one in runs if one not in shown]:
        body += details("The other seeds", table(header, [_epochs_row(one) for one in more], numeric=range(1, 6)))
    words = _epochs_sentence(runs)
    return Html(body + f"<p>{text(words)}</p>", words)


def _epochs_row(one: Epochs) -> list[str]:
    cells = [
        f"{percent(choice.private)}<br>{small(f'epoch {choice.epoch}')}<br>{small(percent(choice.public))}"
        for choice in one.choices
    ]
    changes = [points_with_interval(*choice.against[:3]) for choice in one.choices if choice.rule != BY_PUBLIC]
    return [f"{text(one.name)}<br>{small(f'{len(one.numbers)} epochs')}", *cells, *changes]


def _first_of_each(runs: Sequence[Epochs]) -> dict[str, Epochs]:
    """The run with the lowest seed of every model."""
    first: dict[str, Epochs] = {}
    for one in runs:
        first.setdefault(one.entry.name, one)
    return first


def _epochs_sentence(runs: Sequence[Epochs]) -> str:
    deciding = [one for one in runs if one.entry.decides]
    counted = [one for one in deciding if not one.run.one_class]
    gains = oracle_gains(counted)
    if not gains:
        return (
            f"How much the choice of the epoch changes is open: the predictions of all epochs are stored for "
            f"{_kinds(runs)}."
        )
    last = [one.choices[CHOICES.index(LAST)].against for one in counted]
    clear = sum(not low <= 0 <= high for _, low, high, _ in last)
    zero = f"in {clear} of them the interval does not contain zero" if clear else "every interval contains zero"
    left_out = without((one.entry, one.run) for one in deciding if one.run.one_class)
    span = f" (from {100 * min(gains):.2f} to {100 * max(gains):.2f})" if len(gains) > 1 else ""
    return (
        f"Selecting the epoch on {SCORED} instead of {SELECTING} raises the accuracy on {SCORED} by "
        f"{100 * statistics.fmean(gains):.2f} points on average over {count(len(gains), 'variant')}{span}"
        f"{left_out}. The last epoch differs from the one that {SELECTING} selects by "
        f"{points(statistics.fmean(one[0] for one in last))} points on average over the same "
        f"{count(len(last), 'run')}; {zero}. The predictions of all epochs are stored for {_kinds(runs)}."
    )


def _kinds(runs: Sequence[Epochs]) -> str:
    """Which kinds of runs a table of epochs has: "2 full runs under the official protocol and 1 unfinished run, which
    decides nothing"."""
    deciding = sum(one.entry.decides for one in runs)
    stopped = sum(one.entry.kind == UNFINISHED for one in runs)
    others = len(runs) - deciding - stopped
    parts = [
        count(deciding, "full run under the official protocol", "full runs under the official protocol"),
        count(others, "full run under the claimed protocol", "full runs under the claimed protocol"),
        count(stopped, "unfinished run") + (", which decides nothing" if stopped == 1 else ", which decide nothing"),
    ]
    return listed([part for part, n in zip(parts, (deciding, others, stopped), strict=True) if n])


def epoch_curves(runs: Sequence[Epochs]) -> Html:
    """Accuracy of every epoch's weights on both test sets, one panel for each variant (its lowest seed)."""
    first = _first_of_each(runs)
    shown = list(first.values())[:SHOWN]
    if not shown:
        return Html(f'<p class="fer-small">Accuracy by epoch: {text(NO_EPOCHS)}</p>', NO_EPOCHS)
    panels = [
        ByEpoch(
            one.name,
            [int(number) for number in one.numbers],
            {SELECTING: one.public, SCORED: one.private},
            [(choice.rule, choice.epoch, choice.private) for choice in one.choices],
        )
        for one in shown
    ]
    said = "; ".join(
        f"{one.name} on {SCORED}: "
        + ", ".join(f"{choice.rule}, epoch {choice.epoch}, {percent(choice.private)}" for choice in one.choices)
        for one in shown
    )
    left = f" The {len(shown)} first of {len(first)}; the table has all." if len(first) > len(shown) else ""
    figure = by_epoch(
        panels,
        "Accuracy by epoch",
        alt=f"Accuracy of the weights of every epoch on both test sets. {said}.",
        caption=f"Lines: weights of every epoch, without test-time augmentation. Marks: the accuracy on {SCORED} of "
        f"the epoch that each rule takes. {BY_PRIVATE[0].upper()}{BY_PRIVATE[1:]} is no protocol: it chooses by what "
        f"it scores.{left}",
    )
    return Html(figure.figure(), figure.alt)


def augmentation(runs: Sequence[Augmented]) -> Html:
    """What test-time augmentation adds, on the same images and weights."""
    if not runs:
        return Html(note("Not stored:", "no stored run was scored with and without test-time augmentation."), "none")
    rows = [
        [
            f"{text(starred(one.entry))}<br>{small(_seed(one))}",
            text(Views(**one.run.record["recipe"]["views"])),
            text(one.usage),
            percent(one.plain),
            percent(one.augmented),
            points_with_interval(*one.gain[:3]),
            p_value(one.gain[3]),
        ]
        for one in runs
    ]
    header = ["Run", "Test-time augmentation", "Test set", "Plain", "With it", "Difference, points", "p"]
    caption = (
        "The same weights on the same images: paired bootstrap interval (95 %), p of McNemar's exact test, uncorrected."
    )
    words = _augmentation_sentence(runs)
    said = f"<p>{text(words)}</p>" if words else ""
    return Html(table(header, rows, caption, (3, 4, 5, 6)) + said, words or "no run that decides")


def _seed(one: Augmented) -> str:
    return f"seed {one.run.seed}" if one.run.record["seed"] is not None else one.run.name


def _augmentation_sentence(runs: Sequence[Augmented]) -> str:
    """Of the runs that decide; empty where there are none."""
    deciding = [one for one in runs if one.usage == SCORED and one.entry.decides]
    counted = [one for one in deciding if not one.run.one_class]
    own = [one.gain for one in counted]
    if not own:
        return ""
    left_out = without((one.entry, one.run) for one in deciding if one.run.one_class)
    up = sum(gain > 0 and p < LEVEL for gain, *_, p in own)
    down = sum(gain < 0 and p < LEVEL for gain, *_, p in own)
    mean = statistics.fmean(gain for gain, *_ in own)
    return (
        f"On {SCORED} test-time augmentation changes the accuracy by {points(mean)} points on average over "
        f"{_whose([one.entry for one in counted])}; {up or 'none'} {'gains' if up < 2 else 'gain'} and "
        f"{down or 'none'} {'loses' if down < 2 else 'lose'} with p below {LEVEL}{left_out}."
    )


def _whose(entries: Sequence[Entry]) -> str:
    """Whose runs an average is over, given the model of each run: "3 seeds of plain baseline"."""
    names = list(dict.fromkeys(entry.name for entry in entries))
    what = "seed" if len(names) == 1 and len(entries) > 1 else "run"
    return f"{count(len(entries), what)} of {listed(names)}"


def claimed(pairs: Sequence[Claimed], comparison: Comparison) -> Html:
    """Every variant that has full runs under both protocols."""
    if not pairs:
        have = sorted({one.variant for one in comparison.entries if one.protocol == "claimed" and one.kind != PACKAGE})
        said = f" Under the claimed protocol alone: {', '.join(have)}." if have else ""
        words = f"no variant has full runs under the official and under the claimed protocol so far.{said}"
        return Html(note("Not run:", text(words)), words)
    rows = [
        [
            f"{text(one.official.name)}<br>{small(f'as claimed: {one.remark}')}",
            percent(one.accuracies[0]),
            f"{percent(one.accuracies[1])}<br>{small(f'on {one.usage}')}",
            points_with_interval(*one.difference),
        ]
        for one in pairs
    ]
    header = ["Model", f"Official, {SCORED}", "As claimed", "Claimed minus official, points"]
    caption = (
        "Each protocol's own score, the mean over the seeds; Newcombe's 95 % interval, which does not use that some "
        "images are the same."
    )
    words = "; ".join(f"{one.official.name} {points(one.difference[0])} points as claimed" for one in pairs)
    return Html(table(header, rows, caption, (1, 2, 3)), words)


def found(
    models: Sequence[BothSets], runs: Sequence[Epochs], tta: Sequence[Augmented], pairs: Sequence[Claimed]
) -> list[str]:
    """Sentences for the top of the page: what the protocol's effect amounts to."""
    lines = [_sets_sentence(models)] if any(one.entry.decides for one in models) else []
    lines.append(_epochs_sentence(runs) if runs else f"The effect of the selected epoch is open: {NO_EPOCHS}.")
    lines += filter(None, [_augmentation_sentence(tta)])
    if changes := [change for one in pairs if (change := _change(one)) is not None]:
        left_out = without(one_class_runs(entry for one in pairs for entry in (one.official, one.claimed)))
        lines.append(
            f"The claimed protocol changes the accuracy of {count(len(changes), 'variant')} by "
            f"{points(statistics.fmean(changes))} points on average{left_out}."
        )
    return lines


def _change(pair: Claimed) -> float | None:
    """Claimed minus official, each the mean over its runs; None where every run of one answers one class."""
    both = (
        [run.headline["accuracy"] for run in entry.runs if not run.one_class] for entry in (pair.official, pair.claimed)
    )
    means = [statistics.fmean(values) for values in both if values]
    return means[1] - means[0] if len(means) == 2 else None
