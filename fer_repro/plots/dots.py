"""Dot plots of several series: a line for each thing that was measured, with a dot and an interval for each series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas

from fer_repro.errors import FerReproError
from fer_repro.plots.figure import Figure, Theme, canvas, headline
from fer_repro.plots.intervals import CONTINUES, Interval, bar, leave, limits
from fer_repro.plots.matrix import cells, write
from fer_repro.plots.theme import readable_on

Point = tuple[float, Interval]
MARKS = ("D", "o", "s")


def dots(
    values: Mapping[str, Mapping[str, Point]],
    title: str,
    *,
    alt: str,
    caption: str = "",
    line: float | None = None,
    line_label: str = "",
    quantity: str = "accuracy",
) -> Figure:
    """``values``: name -> series -> (value, interval), fractions 0..1; the names top down, at most three series.

    ``line``: a reference drawn through all of them. Raises `FerReproError` where there is nothing to draw.
    """
    if not values:
        raise FerReproError(f"nothing to draw for '{title}': there are no values")
    series = list(dict.fromkeys(name for points in values.values() for name in points))
    points = [point for row in values.values() for point in row.values()]
    intervals = [interval for _, interval in points]
    axis = limits([value for value, _ in points] + ([] if line is None else [line]), intervals)
    offsets = np.linspace(-0.24, 0.24, len(series)) if len(series) > 1 else np.zeros(1)

    def draw(theme: Theme) -> Canvas:
        figure = canvas(7.2, 1.25 + (0.52 if len(values) <= 10 else 0.4) * len(values))
        axes = figure.add_subplot()
        axes.grid(axis="x")
        colours = (theme.extra, theme.measured, theme.clean)
        for place in range(1, len(values)):
            axes.axhline(place - 0.5, color=theme.line, lw=0.6)
        if line is not None:
            axes.axvline(100 * line, color=theme.claimed, lw=1.2, ls="--", label=line_label or None)
        for name, offset, colour, mark in zip(series, offsets, colours, MARKS, strict=False):
            rows = [(place, points[name]) for place, points in enumerate(values.values()) if name in points]
            for place, (_, interval) in rows:
                bar(axes, interval, place + offset, axis, colour)
            shares, places = [100 * point[0] for _, point in rows], [place + offset for place, _ in rows]
            axes.plot(shares, places, mark, ms=5.5, color=colour, label=name)
        axes.set_yticks(range(len(values)), list(values))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set(xlim=(100 * axis[0], 100 * axis[1]), ylim=(len(values) - 0.5, -0.5), xlabel=f"{quantity}, %")
        headline(figure, title)
        figure.legend(loc="outside lower center", ncols=4, fontsize=8.5)
        return figure

    said = f"{caption} {CONTINUES}".strip() if leave(intervals, axis) else caption
    return Figure(draw, alt=alt, caption=said, scrolls=title)


def shares(
    values: Mapping[str, Sequence[float | None]], columns: Sequence[str], title: str, *, alt: str, caption: str = ""
) -> Figure:
    """A table of shares 0..1 as a picture: ``values`` row by row, shaded and printed in percent; None stays empty."""
    rows = {name: [np.nan if share is None else share for share in row] for name, row in values.items()}
    numbers = np.array(list(rows.values()), dtype=float).reshape(len(rows), len(columns))

    def draw(theme: Theme) -> Canvas:
        figure = canvas(7.2, 0.9 + min(0.42, 0.31 + 0.9 / len(rows)) * len(rows))
        axes = figure.add_subplot()
        tint = LinearSegmentedColormap.from_list("tint", [theme.page, theme.measured])
        cells(axes, numbers, list(rows), columns, tint, theme, (0, 1))
        for (row, column), share in np.ndenumerate(numbers):
            words = "none" if np.isnan(share) else f"{100 * share:.0f}"
            write(axes, words, row, column, theme.soft if np.isnan(share) else readable_on(tint(share)[:3]), 9)
        axes.tick_params(labelsize=8.5)
        axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
        headline(figure, title)
        return figure

    return Figure(draw, alt=alt, caption=caption, scrolls=title)
