"""A number for every pair of things: a square picture, shaded, with the lower triangle only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas

from fer_repro.errors import FerReproError
from fer_repro.plots.figure import Figure, Theme, canvas, headline
from fer_repro.plots.theme import readable_on

PRINTED = 26
"""Of how many things the numbers can still be read; above that only the shade is left."""


def pair_matrix(
    numbers: np.ndarray,
    names: Sequence[str],
    title: str,
    *,
    alt: str,
    caption: str = "",
    shape: str = "{:.0f}",
    limits: tuple[float, float] | None = None,
    quiet: np.ndarray | None = None,
) -> Figure:
    """``numbers``: float [M, M], symmetric; NaN cells stay empty, so do those above the diagonal.

    ``names`` stand beside the rows behind their number, the columns have the number only. ``shape`` prints a cell,
    ``limits`` are the ends of the shades. ``quiet``: bool [M, M], cells that are printed without a shade. Raises
    `FerReproError` for fewer than two things and for arrays of another shape.
    """
    size = len(names)
    if size < 2 or numbers.shape != (size, size):
        raise FerReproError(
            f"nothing to draw for '{title}': {size} names and numbers {list(numbers.shape)}, expected M > 1"
        )
    hidden = np.isnan(numbers) | np.triu(np.ones((size, size), dtype=bool), k=1)
    flat = np.zeros((size, size), dtype=bool) if quiet is None else quiet
    shown = numbers[~hidden]
    low, high = limits or (float(shown.min()), float(shown.max()))
    lines = max(name.count("\n") + 1 for name in names)
    row_height = max(min(0.36, 7.5 / size), 0.05 + 0.145 * lines)
    # The names take about 2.6 inches; a digit is 0.64 of the size of its letters wide.
    longest = max(len(shape.format(number)) for number in shown)
    font = min(8.5, 72 * 4.8 / size / (0.64 * longest + 0.3))

    def draw(theme: Theme) -> Canvas:
        figure = canvas(7.4, 1.0 + row_height * size)
        axes = figure.add_subplot()
        tint = LinearSegmentedColormap.from_list("tint", [theme.page, theme.measured])
        rows = [f"{name}  {place}" for place, name in enumerate(names, start=1)]
        columns = [str(place) for place in range(1, size + 1)]
        cells(axes, np.where(hidden | flat, np.nan, numbers), rows, columns, tint, theme, (low, high))
        if size <= PRINTED:
            for row, column in zip(*np.nonzero(~hidden), strict=True):
                place = (numbers[row, column] - low) / ((high - low) or 1)
                colour = theme.soft if flat[row, column] else readable_on(tint(place)[:3])
                write(axes, shape.format(numbers[row, column]), row, column, colour, font)
        axes.tick_params(axis="y", labelsize=8.5)
        axes.tick_params(axis="x", labelsize=8.5 if size <= PRINTED else 6.5)
        headline(figure, title)
        return figure

    return Figure(draw, alt=alt, caption=caption, scrolls=title)


def cells(
    axes: Axes,
    numbers: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    tint: LinearSegmentedColormap,
    theme: Theme,
    limits: tuple[float, float],
) -> None:
    """A grid of shaded cells, the first row on top; ``numbers`` float [R, C], NaN for a cell without a shade."""
    height, width = numbers.shape
    lines = {"edgecolors": theme.line, "linewidth": 0.6}
    axes.pcolormesh(np.zeros_like(numbers), cmap=LinearSegmentedColormap.from_list("page", [theme.page] * 2), **lines)
    axes.pcolormesh(np.ma.masked_invalid(numbers), cmap=tint, vmin=limits[0], vmax=limits[1], **lines)
    axes.set_xticks(np.arange(width) + 0.5, list(columns))
    axes.set_yticks(np.arange(height) + 0.5, list(rows))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.tick_params(length=0, labelrotation=0)
    axes.spines[:].set_visible(False)


def write(axes: Axes, words: str, row: int, column: int, colour: str, size: float) -> None:
    """A word in the middle of a cell of `cells`."""
    style = {"ha": "center", "va": "center", "fontsize": size, "color": colour}
    # Inside the axes, so that the layout need not measure it.
    axes.text(column + 0.5, row + 0.5, words, **style).set_in_layout(False)
