"""Several small pictures side by side, each of one thing: reliability, accuracy by epoch, accuracy against cost."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import EngFormatter, FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter

from fer_repro.errors import FerReproError
from fer_repro.plots.figure import Figure, Theme, canvas, headline
from fer_repro.plots.label_placement import FAR, place_names

SMALL = 0.55
"""How small the marks and labels of a cloud are against those that `place_names` was made for."""
Curve = Sequence[tuple[float, float, tuple[float, float]]]
"""Points (confidence, accuracy, interval of the accuracy), fractions."""


@dataclass(frozen=True)
class Reliability:
    """One panel: its name, and a curve before and after temperature scaling (empty where there is none)."""

    name: str
    before: Curve
    after: Curve = ()


@dataclass(frozen=True)
class ByEpoch:
    """One panel: its name, epochs [E], accuracies [E] (fractions) by the name of their test set, and marked epochs:
    (words, epoch, accuracy)."""

    name: str
    epochs: Sequence[int]
    accuracies: dict[str, Sequence[float]]
    marks: Sequence[tuple[str, int, float]] = ()


@dataclass(frozen=True)
class Cloud:
    """One panel: its name, which is what is on its x axis, whether that is logarithmic, and points (x, accuracy, label,
    kind)."""

    name: str
    logarithmic: bool
    points: Sequence[tuple[float, float, str, str]]


def reliability(panels: Sequence[Reliability], title: str, *, alt: str, caption: str = "") -> Figure:
    """Accuracy against confidence, one panel each; on the dashed line confidence is right."""

    def fill(axes: Axes, panel: Reliability, theme: Theme) -> None:
        axes.plot([0, 100], [0, 100], color=theme.soft, lw=1, ls="--")
        for curve, colour, mark, name in (
            (panel.before, theme.measured, "o", "as predicted"),
            (panel.after, theme.claimed, "s", "with temperature"),
        ):
            x, y = [100 * point[0] for point in curve], [100 * point[1] for point in curve]
            low, high = [100 * point[2][0] for point in curve], [100 * point[2][1] for point in curve]
            axes.vlines(x, low, high, color=colour, lw=1, alpha=0.7)
            axes.plot(x, y, mark, ls="-", ms=3.2, lw=1, color=colour, label=name if curve else None)
        axes.set(xlim=(10, 101), ylim=(0, 101))

    return _grid(panels, fill, title, ("confidence, %", "accuracy, %"), alt, caption)


def by_epoch(panels: Sequence[ByEpoch], title: str, *, alt: str, caption: str = "") -> Figure:
    """Accuracy of every epoch's weights on both test sets, one panel each, with the chosen epochs marked."""

    def fill(axes: Axes, panel: ByEpoch, theme: Theme) -> None:
        looks = zip(panel.accuracies.items(), (theme.extra, theme.measured), ("--", "-"), strict=False)
        for (name, values), colour, line in looks:
            axes.plot(panel.epochs, 100 * np.asarray(values), line, color=colour, lw=1.3, label=name)
        shapes = zip(panel.marks, ("o", "D", "*"), (theme.soft, theme.clean, theme.claimed), strict=False)
        for (words, epoch, value), mark, colour in shapes:
            # The ring of the last epoch can be seen around another mark on the same point.
            look = {"ms": 11, "mfc": "none", "mew": 1.5} if mark == "o" else {"ms": 9 if mark == "*" else 6}
            edge = colour if mark == "o" else theme.page
            axes.plot(epoch, 100 * value, mark, color=colour, mec=edge, label=words, zorder=3, ls="", **look)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))

    return _grid(panels, fill, title, ("epoch", "accuracy, %"), alt, caption)


def clouds(panels: Sequence[Cloud], title: str, *, alt: str, caption: str = "") -> Figure:
    """Accuracy against one quantity each; every point has a short label, its kind the colour and the mark."""
    kinds = list(dict.fromkeys(point[3] for panel in panels for point in panel.points))

    def fill(axes: Axes, panel: Cloud, theme: Theme) -> None:
        colours = (theme.measured, theme.clean, theme.extra, theme.soft, theme.claimed, theme.ink)
        for kind, colour, mark in zip(kinds, colours, "osD^v*", strict=False):
            own = [point for point in panel.points if point[3] == kind]
            axes.plot([p[0] for p in own], [100 * p[1] for p in own], mark, ms=6, color=colour, label=kind)
        if panel.logarithmic and panel.points:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(_ticks([point[0] for point in panel.points]))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _in_few_letters(value)))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        axes.margins(x=0.12, y=0.12)
        if not panel.points:
            axes.text(0.5, 0.5, "not known", transform=axes.transAxes, ha="center", color=theme.soft)
            axes.set_xticks([])

    return _grid(panels, fill, title, ("", "accuracy, %"), alt, caption, columns=2, share=False, finish=_label)


def _ticks(values: Sequence[float]) -> Locator:
    """Of a logarithmic axis: powers of ten, multiples of them on a short one, and round numbers on a shorter one, which
    no multiple would fall on."""
    ratio = max(values) / min(values)
    if ratio < 8:
        return MaxNLocator(nbins=4, steps=[1, 2, 5, 10], min_n_ticks=1)
    return LogLocator(subs=(1,) if ratio > 30 else (1, 2, 5))


def _in_few_letters(value: float) -> str:
    """1500 -> "1,500", 2000000 -> "2M"."""
    return f"{value:,g}" if value < 10_000 else str(EngFormatter(sep="")(value))


def _label(axes: Axes, panel: Cloud, theme: Theme) -> None:
    """Write each label beside its point, clear of the other points and labels; the layout has to be final."""
    figure = axes.get_figure(root=True)
    renderer, unit = figure.canvas.get_renderer(), figure.dpi / 72  # type: ignore[union-attr]
    style = {"textcoords": "offset points", "fontsize": 7.5, "color": theme.ink, "va": "center"}
    places = [(x, 100 * y) for x, y, *_ in panel.points]
    labels = [axes.annotate(one[2], at, (0, 0), **style) for one, at in zip(panel.points, places, strict=True)]
    if not labels:
        return
    sizes = [(box.width, box.height) for box in (label.get_window_extent(renderer) for label in labels)]
    marks = [(float(x), float(y)) for x, y in axes.transData.transform(places)]
    frame = axes.get_window_extent(renderer).extents
    offsets = np.array(place_names(sizes, marks, [], frame, SMALL * unit, more_orders=0))
    for label, at, (dx, dy) in zip(labels, places, offsets, strict=True):
        label.set_position((SMALL * dx, SMALL * dy))
        label.set_ha("left" if dx > 1 else "right" if dx < -1 else "center")
        label.set_in_layout(False)
        if np.hypot(dx, dy) > FAR:
            line = {"arrowstyle": "-", "color": theme.soft, "lw": 0.6, "shrinkA": 0 if abs(dx) > 1 else 4, "shrinkB": 3}
            ends = at, (SMALL * dx, SMALL * dy)
            axes.annotate("", *ends, textcoords="offset points", arrowprops=line).set_in_layout(False)


def _grid(
    panels: Sequence,
    fill: Callable[..., None],
    title: str,
    words: tuple[str, str],
    alt: str,
    caption: str,
    columns: int = 3,
    share: bool = True,
    finish: Callable[..., None] | None = None,
) -> Figure:
    """Panels in rows, under one title and above one legend; ``finish`` draws on each when the layout is final. Raises
    `FerReproError` where there are none."""
    if not panels:
        raise FerReproError(f"nothing to draw for '{title}': there is no panel")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)

    def draw(theme: Theme) -> Canvas:
        figure = canvas(7.4 if columns > 1 else 5.2, 0.8 + (2.45 if columns < 3 else 2.25) * rows)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True if share else "row")
        entries: dict[str, object] = {}
        for place, axes in enumerate(grid.flat):
            if place >= len(panels):
                axes.remove()
                continue
            axes.grid(axis="y")
            fill(axes, panels[place], theme)
            axes.set_title(textwrap.fill(panels[place].name, 30), fontsize=8.5)
            axes.set_xlabel(words[0], fontsize=8.5)
            axes.set_ylabel(words[1] if place % columns == 0 else "", fontsize=8.5)
            axes.tick_params(labelsize=8)
            handles, names = axes.get_legend_handles_labels()
            entries |= {name: handle for handle, name in zip(handles, names, strict=True) if name not in entries}
        headline(figure, title)
        if entries:
            figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=4, fontsize=8)
        if finish:
            figure.draw_without_rendering()
            for axes, panel in zip(figure.axes, panels, strict=True):
                finish(axes, panel, theme)
        return figure

    return Figure(draw, alt=alt, caption=caption, scrolls=title)
