"""Forest plots: one line per value, with its interval, its kind, and columns of text to its right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from fer_repro.errors import FerReproError
from fer_repro.plots.figure import Figure, Theme, canvas, headline
from fer_repro.plots.intervals import CONTINUES, Interval, bar, leave, limits


@dataclass(frozen=True)
class Row:
    """One line of a forest plot: a value (fraction 0..1) with its interval, and ``words`` in columns to its right.

    ``kind`` is ``claimed``, ``measured``, ``unfinished`` (a run that was stopped), ``released`` (weights of others,
    scored here), ``clean`` or ``context`` (a similar model, in grey). ``group``: the heading of the line's block.
    ``ticks``: values of single runs, whose mean the value is (fractions).
    """

    label: str
    value: float | None
    interval: tuple[float, float] | None = None
    kind: str = "measured"
    words: tuple[str, ...] = ()
    group: str = ""
    ticks: tuple[float, ...] = ()


def forest(
    rows: Sequence[Row],
    title: str,
    *,
    alt: str,
    caption: str = "",
    line: float | None = None,
    line_label: str = "",
    columns: Sequence[str] = (),
    quantity: str = "accuracy",
    remark: str = "",
) -> Figure:
    """Values with intervals, one line each; ``line`` is a reference (fraction) drawn through all of them.

    ``columns`` are the headings of the rows' text. A row without a value has no point, only its text ("not run").
    """
    known = [row for row in rows if row.value is not None]
    if not known:
        raise FerReproError(f"nothing to draw for '{title}': no row has a value")
    values = [value for row in known for value in (row.value, *row.ticks) if value is not None]
    values += [] if line is None else [line]
    intervals = [row.interval for row in known]
    axis = limits(values, intervals)
    places: dict[int, float] = {}
    heads: dict[str, float] = {}
    y = 0.0
    for group in dict.fromkeys(row.group for row in rows):
        if group:
            heads[group] = y
            y += 0.8
        for index, row in enumerate(rows):
            if row.group == group:
                places[index] = y
                y += 1.0
        y += 0.35
    widths = [max(map(len, column)) for column in zip_longest(columns, *(row.words for row in rows), fillvalue="")]
    starts = [10 + 5.1 * sum(widths[:i]) + 9 * i for i in range(len(widths))]
    top = -1.0 if line is None or not line_label else -1.25

    def draw(theme: Theme) -> Canvas:
        figure = canvas(7.2, 0.8 + 0.285 * (y - 0.35 - top))
        axes = figure.add_subplot()
        axes.grid(axis="x")
        colours = {"claimed": theme.claimed, "measured": theme.measured, "released": theme.extra}
        colours |= {"clean": theme.clean, "context": theme.soft, "unfinished": theme.measured}
        offset = {"textcoords": "offset points", "va": "center"}
        if line is not None:
            axes.axvline(100 * line, 0, 0.99, color=theme.claimed, lw=1.2, ls="--")
            side, shift = ("right", -4) if line > sum(axis) / 2 else ("left", 4)
            box = {"facecolor": theme.page, "edgecolor": "none", "pad": 1}
            style = {"ha": side, "fontsize": 8.2, "color": theme.claimed, "bbox": box, **offset}
            axes.annotate(line_label, (100 * line, top + 0.3), (shift, 0), **style)
        right = axes.get_yaxis_transform()

        def write(words: Sequence[str], place: float, colour: str) -> None:
            for start, word in zip(starts, words, strict=False):
                axes.annotate(word, (1, place), (start, 0), right, fontsize=8.6, color=colour, **offset)

        write(columns, top + 0.3, theme.soft)
        for index, row in enumerate(rows):
            if row.value is not None:
                _point(axes, row, places[index], axis, colours[row.kind], theme)
            write(row.words, places[index], theme.soft if row.value is None or row.kind == "context" else theme.ink)
        for group, place in heads.items():
            style = {"ha": "right", "va": "center", "fontsize": 8.6, "weight": "bold", "color": theme.soft}
            axes.text(-0.01, place, group, transform=right, **style)
        axes.set_yticks([places[i] for i in range(len(rows))], [row.label for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set(xlim=(100 * axis[0], 100 * axis[1]), ylim=(y - 0.35, top), xlabel=f"{quantity}, %")
        headline(figure, title)
        return figure

    said = f"{caption} {CONTINUES}".strip() if leave(intervals, axis) else caption
    return Figure(draw, alt=alt, caption=said, remark=remark, scrolls=title)


def _point(axes: Axes, row: Row, place: float, axis: Interval, colour: str, theme: Theme) -> None:
    """One value: claims are hollow diamonds (nobody stored their predictions), measurements filled dots, those of
    unfinished runs hollow ones, those of published weights squares. Single runs are ticks."""
    if row.interval:
        bar(axes, row.interval, place, axis, colour, (0, (2, 1.5)) if row.kind == "claimed" else "solid")
    if row.ticks:
        axes.plot([100 * one for one in row.ticks], [place] * len(row.ticks), "|", ms=11, mew=1.3, color=colour)
    hollow = row.kind in ("claimed", "unfinished") or (row.kind == "context" and not row.interval)
    fill = theme.page if hollow else colour
    mark = "o" if row.kind == "unfinished" else "D" if hollow else "s" if row.kind == "released" else "o"
    axes.plot(100 * row.value, place, mark, ms=6.5, color=colour, mew=1.6, mfc=fill, zorder=3)
