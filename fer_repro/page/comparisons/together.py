"""Agreement, ensembles, classes and the hardest images."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from fer_repro import data
from fer_repro.comparisons import Comparison, Entry
from fer_repro.comparisons import ensembles as together
from fer_repro.comparisons.ensembles import Hard
from fer_repro.comparisons.entries import SCORED, SELECTING
from fer_repro.data import LABELS
from fer_repro.data.place import VARIABLE
from fer_repro.markup import Html, details, percent, table, text, with_interval
from fer_repro.page.comparisons.words import MARK, count, points_with_interval, starred, tick_names
from fer_repro.plots import image_grid
from fer_repro.plots.dots import shares
from fer_repro.plots.figure import Figure
from fer_repro.plots.matrix import pair_matrix

PICTURES = 24


def agreement(entries: Sequence[Entry]) -> Figure:
    """Cohen's kappa of the predicted classes of every pair of models, and of the seeds of one model."""
    table = together.agreement(entries)
    low = np.tril(np.ones_like(table, dtype=bool), k=-1)
    pairs = np.where(low, table, np.nan)
    row, column = np.unravel_index(np.nanargmax(pairs), pairs.shape)
    seeds = [f"{entry.name} {table[k, k]:.2f}" for k, entry in enumerate(entries) if not np.isnan(table[k, k])]
    return pair_matrix(
        # Adding 0 makes -0 a 0.
        np.round(100 * table) + 0.0,
        tick_names(entries),
        f"Agreement of predictions on {SCORED}, Cohen's kappa in hundredths",
        alt=f"Heat map of Cohen's kappa for {len(entries)} models: between two models from {np.nanmin(pairs):.2f} to "
        f"{np.nanmax(pairs):.2f} ({starred(entries[row])} and {starred(entries[column])}). Between the seeds of one "
        f"model: {'; '.join(seeds) or 'no model has two'}.",
        caption="83: a kappa of 0.83; 100: always the same class; 0: as often as chance. Mean over all pairs of runs; "
        f"on the diagonal between the seeds of one model. {MARK}",
        limits=(min(0.0, 100 * float(np.nanmin(table))), 100.0),
    )


def ensembles(comparison: Comparison) -> Html:
    """What the deciding models reach together: majority, mean, and the oracle."""
    entries = comparison.deciding
    rows = [
        [
            text(one.name[0].upper() + one.name[1:]),
            with_interval(one.accuracy, one.interval),
            "" if one.difference is None else points_with_interval(*one.difference),
        ]
        for one in together.ensembles(entries)
    ]
    right = together.right_counts(entries)
    caption = (
        f"{count(len(entries), 'model')} that decide, one run each (the lowest seed), on {SCORED}. Wilson 95 % "
        "intervals; paired differences with bootstrap intervals. The oracle needs the labels: it is no method."
    )
    words = (
        f"All {len(entries)} models are right on {percent(float((right == len(entries)).mean()))} of the images, none "
        f"of them on {percent(float((right == 0).mean()))}."
    )
    body = table(["Together", "Accuracy", "Against the single model, points"], rows, caption, (1, 2))
    return Html(body + f"<p>{text(words)}</p>", words)


def recalls(comparison: Comparison) -> Html:
    """Which share of each class every model recognises."""
    values: dict[str, list[float | None]] = {}
    for entry in comparison.entries:
        known = entry.classes or LABELS
        own = together.recalls(entry)
        values[starred(entry)] = [float(own[k]) if name in known else None for k, name in enumerate(LABELS)]
    words = "; ".join(
        f"{name} " + ", ".join(f"{label} {percent(one, 0, 'none')}" for label, one in zip(LABELS, row, strict=True))
        for name, row in values.items()
    )
    figure = shares(
        dict(zip(tick_names(comparison.entries), values.values(), strict=True)),
        LABELS,
        f"Recall by class on {SCORED}, %",
        alt=f"Share of each class that a model recognises: {words}.",
        caption=f"Each cell: the share of a class's images that were recognised, the mean over the seeds. none: not a "
        f"class of this package. {MARK}",
    )
    counts = np.bincount(comparison.labels, minlength=len(LABELS))
    rows = [[text(label), f"{n:,}"] for label, n in zip(LABELS, counts, strict=True)]
    body = figure.figure() + details(
        "Images of each class", table(["Class", f"Images of {SCORED}"], rows, numeric=(1,))
    )
    return Html(body, words)


def hardest(comparison: Comparison) -> Html:
    """The images that the fewest models get right, by their ids; as pictures where the data are at hand."""
    found, models = together.hardest(comparison, PICTURES), len(comparison.deciding)
    rows = [[text(one.id), text(one.label), f"{one.right} of {models}", f"{one.said}, {one.times}"] for one in found]
    never = int((together.right_counts(comparison.deciding) == 0).sum())
    caption = (
        f"Of {count(models, 'model')} that decide, one run each: how many get the image right, and the class that most "
        f"of them say. No model is right on {count(never, 'image')}; of these the ones whose label is the least likely."
    )
    body = table(["Image", "Label", "Right", "Said most often"], rows, caption, (2,))
    folded = details(f"The {count(len(found), 'image')} by id", body)
    pictures = _pictures(found)
    words = f"No model is right on {count(never, 'image')}"
    if isinstance(pictures, str):
        return Html(f"<p>{text(pictures)}</p>{folded}", words)
    return Html(pictures.figure() + folded, words)


def _pictures(found: Sequence[Hard]) -> Figure | str:
    """The images themselves, or a sentence that says why they are not shown."""
    if not os.environ.get(VARIABLE):
        return f"The images are shown only where FER2013 is at hand when the book is built ({VARIABLE})."
    faces = data.load()
    places = {str(name): place for place, name in enumerate(faces.ids)}
    if not all(one.id in places for one in found):
        return "The copy of FER2013 at hand gives its images other ids than the stored results, so none is shown."
    shown = {
        f"{number}. {one.label}\nsaid: {one.said}": faces.images[places[one.id]] / 255
        for number, one in enumerate(found, start=1)
    }
    listing = "; ".join(f"{one.id}: labelled {one.label}, {one.times} models said {one.said}" for one in found)
    columns = 6
    return image_grid(
        shown,
        alt=f"{len(found)} faces of FER2013 that the fewest models recognise: {listing}.",
        caption="Above each image its label in FER2013 and the class that most models say.",
        size=(7.2, 1.62 * -(-len(shown) // columns)),
        columns=columns,
    )


def found(comparison: Comparison) -> list[str]:
    """Sentences for the top of the page."""
    entries = comparison.deciding
    if len(entries) < 2:
        return []
    single, _, mean, oracle = together.ensembles(entries)
    label, times = together.hardest_class(entries)
    right = together.right_counts(entries)
    return [
        f"An oracle that takes the right one of {len(entries)} models would reach {percent(oracle.accuracy)}; the "
        f"single model that {SELECTING} prefers reaches {percent(single.accuracy)}, the mean of all probabilities "
        f"{percent(mean.accuracy)}. No model is right on {percent(float((right == 0).mean()))} of the images.",
        f"The hardest class is {label}: {times} of {len(entries)} models recognise it worst.",
    ]
