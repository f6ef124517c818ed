"""Every figure of the book: each function turns numbers that were measured or claimed into one picture.

Scores are the dictionaries of `fer_repro.evaluation.metrics.evaluate`; accuracies are fractions 0..1 there, percent in
pictures. Every function returns a `fer_repro.plots.figure.Figure`, which is drawn for light and for dark pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from torch import Tensor

from fer_repro.errors import FerReproError
from fer_repro.markup import SYNTHETIC, absent, percent, whole
from fer_repro.plots.architecture import Block, architecture, pipeline, trace
from fer_repro.plots.figure import Figure, Theme, canvas, headline
from fer_repro.plots.forest import Row, forest
from fer_repro.plots.theme import readable_on

__all__ = [
    "Block",
    "Row",
    "architecture",
    "confusion_matrix",
    "eight_pictures",
    "forest",
    "image_grid",
    "ladder",
    "learning_curves",
    "per_class",
    "pipeline",
    "samples",
    "trace",
]


def learning_curves(
    history: pd.DataFrame, *, selected: int | None = None, select_name: str = "PublicTest", remark: str = ""
) -> Figure:
    """Loss and accuracy by epoch, with the learning rate below where it was recorded.

    ``history``: one row per epoch; of its columns loss, train_accuracy, select_accuracy, lr and stage those present are
    drawn. ``selected``: the epoch (counted over all stages from 1) whose weights are scored. Raises `FerReproError` for
    a history without epochs.
    """
    if history.empty:
        raise FerReproError("no learning curves: the history has no epochs (a method without training has none)")
    epochs = np.arange(1, len(history) + 1)
    named = history.filter(["loss", "train_accuracy", "select_accuracy", "lr"]).dropna(axis="columns", how="all")
    columns = {name: named[name].to_numpy(float) for name in named}
    stages = history["stage"].to_numpy() if "stage" in history else np.full(len(history), "")
    borders = np.flatnonzero(stages[1:] != stages[:-1]) + 1.5
    panels = [name for name in ("loss", "accuracy") if any(name in column for column in columns)]
    curve = {"marker": "o" if len(history) <= 40 else "", "ms": 3.5, "lw": 1.6}

    def draw(theme: Theme) -> Canvas:
        heights = [4, 1] if "lr" in columns else [1]
        figure = canvas(7.2, 3.6 if "lr" in columns else 2.9)
        grid = figure.subplots(len(heights), len(panels), sharex=True, squeeze=False, height_ratios=heights)
        for axes, name in zip(grid[0], panels, strict=True):
            axes.grid(axis="y")
            for border in borders:
                axes.axvline(border, color=theme.line, lw=1)
            if name == "loss":
                axes.plot(epochs, columns["loss"], color=theme.measured, **curve)
                axes.set_title("training loss")
                continue
            axes.set_title("accuracy, %")
            for column, label, colour, line in (
                ("train_accuracy", "training images", theme.soft, "--"),
                ("select_accuracy", select_name, theme.measured, "-"),
            ):
                if column in columns:
                    axes.plot(epochs, 100 * columns[column], line, color=colour, label=label, **curve)
            if selected is not None:
                axes.axvline(selected, color=theme.clean, lw=1.4, ls=":", label=f"scored: epoch {selected}")
            axes.legend(fontsize=8.5, frameon=True, facecolor=theme.page, edgecolor="none", framealpha=0.85)
        for axes in grid[1] if "lr" in columns else []:
            _learning_rate(axes, epochs, columns["lr"], theme)
        for axes in grid[-1]:
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        return figure

    facts = [f"{len(history)} epoch{'s' * (len(history) != 1)}"]
    if "loss" in columns:
        facts.append(f"training loss from {columns['loss'][0]:.3f} to {columns['loss'][-1]:.3f}")
    if "select_accuracy" in columns:
        best, last = np.nanmax(columns["select_accuracy"]), columns["select_accuracy"][-1]
        facts.append(f"accuracy on {select_name} at most {percent(best)}, at the end {percent(last)}")
    caption = "Training loss and accuracy by epoch." + (" Grey lines separate the stages." if len(borders) else "")
    return Figure(
        draw, alt=f"Learning curves: {'; '.join(facts)}.", caption=caption, remark=remark, scrolls="learning curves"
    )


def _learning_rate(axes: Axes, epochs: np.ndarray, rates: np.ndarray, theme: Theme) -> None:
    axes.set_title("learning rate", fontsize=9)
    # One epoch has no line to draw.
    mark = "o" if len(epochs) == 1 else ""
    axes.step(epochs, rates, where="mid", color=theme.extra, lw=1.4, marker=mark, ms=3.5)
    low, high = min(rates), max(rates)
    if high < 2 * low:  # the ticks of a decade would all lie outside: the two ends are enough
        axes.yaxis.set_major_locator(FixedLocator(sorted({low, high})))
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 10 * low else (1,), numticks=4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y")


def confusion_matrix(score: Mapping[str, Any], title: str, *, remark: str = "") -> Figure:
    """Counts and row shares of the label (rows) against the prediction (columns); shading is the row share."""
    counts = np.asarray(score["confusion"], dtype=np.int64)
    labels = list(score["per_class"])
    rows = counts.sum(1)
    shares = counts / np.maximum(rows, 1)[:, None]

    def draw(theme: Theme) -> Canvas:
        figure = canvas(6.4, 5.3)
        axes = figure.add_subplot()
        tint = LinearSegmentedColormap.from_list("tint", [theme.page, theme.measured])
        colours = {"cmap": tint, "vmin": 0, "vmax": 1, "cbar": False, "linewidths": 1, "linecolor": theme.line}
        notes = {"annot": counts, "fmt": "d", "annot_kws": {"va": "bottom", "fontsize": 9.5}}
        ticks = [f"{name}\nn = {n}" for name, n in zip(labels, rows, strict=True)]
        sns.heatmap(shares, ax=axes, xticklabels=labels, yticklabels=ticks, **colours, **notes)
        for count, share, diagonal in zip(list(axes.texts), shares.flat, np.eye(len(labels)).flat, strict=True):
            column, row = count.get_position()
            count.set(color=readable_on(tint(share)[:3]), weight="bold" if diagonal else "normal")
            words = f"{100 * share:.1f} %"
            axes.text(column, row + 0.1, words, ha="center", va="top", fontsize=7.4, color=count.get_color())
        axes.tick_params(length=0, labelsize=8.8, labelrotation=0)
        axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.set_xlabel("predicted \u2192", loc="left", color=theme.soft)
        axes.xaxis.set_label_position("top")
        axes.text(-0.012, 1.012, "truth \u2193", transform=axes.transAxes, ha="right", va="bottom", color=theme.soft)
        headline(figure, title)
        return figure

    mistakes = np.where(np.eye(len(labels), dtype=bool), -1, shares)
    actual, taken = np.unravel_index(mistakes.argmax(), mistakes.shape)
    recalls = ", ".join(f"{name} {percent(shares[i, i], 1)}" for i, name in enumerate(labels))
    return Figure(
        draw,
        alt=f"Confusion matrix, {title}, {whole(counts.sum())} images. Share of each class that was recognised: "
        f"{recalls}. Most frequent mistake: {labels[actual]} taken for {labels[taken]}, "
        f"{percent(shares[actual, taken], 1)}.",
        caption="Rows: the label; columns: the prediction. Each cell: images, and their share of the row.",
        remark=remark,
        scrolls=f"confusion matrix, {title}",
    )


def per_class(score: Mapping[str, Any], *, title: str = "Recall by class", remark: str = "") -> Figure:
    """Recall of each class with its Wilson 95 % interval; n and F1 are printed; the line is the overall accuracy."""
    classes: Mapping[str, Mapping[str, Any]] = score["per_class"]
    rows = [
        Row(name, c["recall"], tuple(c["interval"]), words=(percent(c["recall"], 1), f"{c['n']}", f"{c['f1']:.2f}"))
        if c["n"]
        else Row(name, None, words=("no image",))
        for name, c in classes.items()
    ]
    recalls = "; ".join(f"{name} {percent(c['recall'], 1)} of {c['n']}" for name, c in classes.items())
    return forest(
        rows,
        title,
        alt=f"{title} with 95 % intervals: {recalls}. Overall accuracy {percent(score['accuracy'])}.",
        caption="Dots: share of a class that was recognised; bars: Wilson 95 % intervals.",
        line=score["accuracy"],
        line_label=f"accuracy over all, {percent(score['accuracy'])}",
        columns=("recall", "images", "F1"),
        quantity="recall",
        remark=remark,
    )


def ladder(steps: Sequence[Row], title: str, *, columns: Sequence[str] = (), remark: str = "") -> Figure:
    """An ablation ladder: one row per system, each one part richer than the one above it."""
    first = steps[0].value if steps else None
    return forest(
        steps,
        title,
        alt=f"{title}: {'; '.join(f'{row.label} {percent(row.value)}' for row in steps)}.",
        remark=remark,
        caption="Each row adds one part to the row above it. Bars: Wilson 95 % intervals.",
        line=None if absent(first) else first,
        line_label="the plainest system",
        columns=columns,
    )


def samples(
    images: np.ndarray, labels: np.ndarray, names: Sequence[str], *, each: int = 8, title: str = "", remark: str = ""
) -> Figure:
    """A contact sheet: the first ``each`` images of every class. ``images`` uint8 [N,48,48], ``labels`` int [N]."""
    if images.ndim != 3 or len(images) != len(labels):
        raise FerReproError(
            f"samples: images {images.shape} and {len(labels)} labels do not fit, expected [N,48,48] and [N]"
        )
    rows = [images[np.flatnonzero(labels == index)[:each]] for index in range(len(names))]
    edge, step = images.shape[1], images.shape[1] + 3
    # One picture with transparent gaps: seventy axes would take seconds to lay out.
    sheet = np.zeros((step * len(names) - 3, step * each - 3, 4), np.uint8)
    for row, faces in enumerate(rows):
        for column, face in enumerate(faces):
            cell = sheet[row * step : row * step + edge, column * step : column * step + edge]
            cell[..., :3], cell[..., 3] = face[..., None], 255
    counted = ", ".join(f"{len(faces)} {name}" for name, faces in zip(names, rows, strict=True))
    return image_grid(
        {title: sheet},
        alt=f"Contact sheet of 48 by 48 pixel faces, one row per class: {counted}.",
        caption="One row per class, the first images of the training part.",
        size=(0.62 * each + 1.1, 0.64 * len(names) + (0.35 if title else 0.05)),
        rows=names,
        interpolation="bilinear",
        remark=remark,
    )


def eight_pictures(pictures: Mapping[str, Tensor], alt: str, caption: str) -> Figure:
    """Two rows of four synthetic grey faces, each float [1,1,H,W] in [0, 1] on the CPU under its name."""
    faces = {name: picture[0, 0].numpy() for name, picture in pictures.items()}
    return image_grid(faces, alt=alt, caption=caption, size=(8.2, 4.4), columns=4, remark=SYNTHETIC)


def image_grid(
    pictures: Mapping[str, np.ndarray],
    *,
    alt: str,
    caption: str,
    size: tuple[float, float],
    columns: int = 1,
    rows: Sequence[str] = (),
    interpolation: str = "nearest",
    remark: str = "",
) -> Figure:
    """Pictures under their names, ``columns`` in a row: grey float [H,W] in [0, 1] or RGBA uint8 [H,W,4] each.

    ``size`` in inches. ``rows`` are names for equal parts of a picture's height, written to its left.
    """

    def draw(theme: Theme) -> Canvas:
        figure = canvas(*size)
        grid = figure.subplots(-(-len(pictures) // columns), columns, squeeze=False)
        for axes, (name, picture) in zip(grid.flat, pictures.items(), strict=True):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation=interpolation)
            part = len(picture) / max(1, len(rows))
            axes.set_yticks([(row + 0.5) * part for row in range(len(rows))], list(rows))
            axes.set_xticks([])
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            style = {"loc": "center", "fontsize": 9.5} if columns > 1 else {}
            axes.set_title(name, **style)
        return figure

    return Figure(draw, alt=alt, caption=caption, remark=remark, photo=True)
