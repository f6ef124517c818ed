"""The accuracy-over-time chart as matplotlib draws it, for pages (SVG) and for the README (PNG).

Two layouts show the same marks. `wide` has time from left to right. `narrow`, for phones, has one row for each model,
the oldest at the top, and accuracy from left to right. Every artist has a ``gid`` "what:variant", by which
`fer_repro.page.svg` makes links of the marks and names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from fer_repro.leaderboard import Band, record_line
from fer_repro.page.marks import BELOW, CLAIMS, KINDS, Mark, marks, points
from fer_repro.plots.figure import Theme, canvas
from fer_repro.plots.label_placement import FAR, Point, place_names

RECORD, BASELINE = "record line", "plain baseline"
LEGEND = (RECORD, *KINDS.values(), BASELINE)
DAYS = 60.0  # between marks of one accuracy
MARGIN = 200.0  # days before the first and after the last claim
NAME_ROOM, TRACK, GAP = 9.5, 8.0, 8.0  # of a row, in points: its name, each line of marks, the space below
# Marker, its size and the width of its edge, in points.
SHAPES = {"claimed": ("D", 6.5, 1.5), "clean": ("D", 6.5, 1.5)}
SHAPES |= {"measured": ("o", 6.5, 1.0), "released": ("s", 6.0, 1.0), "unfinished": ("^", 6.5, 1.2)}
SHAPES |= {"ablation": ("p", 7.0, 1.2)}
OPEN = ("claimed", "unfinished", "ablation")


@dataclass(frozen=True)
class Layout:
    """Where everything stands. ``start``, ``end``: of the time axis; ``rows``: whether time runs downwards; ``size`` in
    inches."""

    shown: pd.DataFrame
    record: Sequence[str]
    marks: Sequence[Mark]
    start: float
    end: float
    rows: bool
    size: tuple[float, float]

    @property
    def claims(self) -> dict[str, Mark]:
        """Each model's claim by its variant, in the order of time."""
        found = {mark.row.variant: mark for mark in self.marks if mark.kind in CLAIMS}
        return {variant: found[variant] for variant in self.shown["variant"]}

    @property
    def kinds(self) -> set[str]:
        return {mark.kind for mark in self.marks}


def wide(board: pd.DataFrame) -> Layout:
    """Time from left to right, accuracy upwards. ``board``: `fer_repro.leaderboard.leaderboard`."""
    shown = points(board)
    at = mdates.date2num(shown["date"])
    found = marks(shown, list(at), DAYS)
    return Layout(shown, _record(board), found, at.min() - MARGIN, at.max() + MARGIN, rows=False, size=(7.4, 5.3))


def narrow(board: pd.DataFrame) -> Layout:
    """A row for each model, as high as its marks need, and accuracy from left to right."""
    shown, apart = points(board), 100  # tracks, more than a row can have
    found = marks(shown, [float(apart * row) for row in range(len(shown))], 1.0, BELOW)
    tracks = [1 + max(mark.at % apart for mark in found if mark.at // apart == row) for row in range(len(shown))]
    tops = np.cumsum([0, *(NAME_ROOM + TRACK * n + GAP for n in tracks)])
    moved = [
        replace(mark, at=float(tops[int(mark.at // apart)] + NAME_ROOM + TRACK * (mark.at % apart + 0.5)))
        for mark in found
    ]
    height = (tops[-1] + 36) / 72
    return Layout(shown, _record(board), moved, -2.0, float(tops[-1]), rows=True, size=(3.65, height))


def _record(board: pd.DataFrame) -> list[str]:
    return list(points(record_line(board))["variant"])


def draw(layout: Layout, theme: Theme, band: Band | None = None, *, legend: bool = False) -> Canvas:
    """The picture in one theme; ``band``: the plain baseline's interval; ``legend``: for a picture on its own."""
    figure = canvas(*layout.size)
    axes = figure.add_subplot()
    axes.grid(axis="x" if layout.rows else "y")
    if band:
        span = axes.axvspan if layout.rows else axes.axhspan
        look = {"color": theme.measured, "alpha": 0.16, "lw": 0, "gid": "baseline:"}
        span(100 * band.low, 100 * band.high, label=BASELINE, **look)
    _draw_record(axes, layout, theme)
    for mark in layout.marks:
        if not layout.rows and mark.kind not in CLAIMS:
            _draw_tie(axes, layout, mark, theme)
    for mark in layout.marks:
        _draw_mark(axes, layout, mark, theme)
    _scales(axes, layout)
    if legend:
        entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        order = [name for name in LEGEND if name in entries]
        figure.legend([entries[name] for name in order], order, loc="outside upper left", ncols=3, fontsize=8.8)
    (_name_rows if layout.rows else _name_points)(figure, axes, layout, theme)
    return figure


def _plot(axes: Axes, layout: Layout, at: Sequence[float], values: Sequence[float], **style: Any) -> None:
    """A line or markers at places along the time and at accuracies (fractions)."""
    shares = [100 * value for value in values]
    axes.plot(*((shares, at) if layout.rows else (at, shares)), **style)


def _draw_record(axes: Axes, layout: Layout, theme: Theme) -> None:
    best = [layout.claims[variant] for variant in layout.record]
    until = [*(mark.at for mark in best[1:]), layout.end]
    at = [place for mark, end in zip(best, until, strict=True) for place in (mark.at, end)]
    values = [mark.low for mark in best for _ in range(2)]
    _plot(axes, layout, at, values, color=theme.soft, lw=1.3, ls=":", label=RECORD, gid="record:", zorder=1.5)


def _draw_tie(axes: Axes, layout: Layout, mark: Mark, theme: Theme) -> None:
    """A thin line from a claim to a mark beside it."""
    claim = layout.claims[mark.row.variant]
    near = min(max(claim.low, mark.low), mark.high)
    style = {"color": theme.soft, "lw": 0.5, "alpha": 0.6, "zorder": 1, "gid": f"tie-{mark.kind}:{mark.row.variant}"}
    _plot(axes, layout, [claim.at, mark.at], [claim.low, near], **style)


def _draw_mark(axes: Axes, layout: Layout, mark: Mark, theme: Theme) -> None:
    """A claim, a point with its interval, or a range."""
    common = {"gid": f"{mark.kind}:{mark.row.variant}", "zorder": 3 if mark.kind in CLAIMS else 4, "clip_on": False}
    label = KINDS[mark.kind]
    cap = {"marker": "|" if layout.rows else "_", "ms": 5.5}
    ends = [mark.at, mark.at], [mark.low, mark.high]
    if mark.value is None:
        lowest = min(mark.low, mark.high - 0.005), max(mark.high, mark.low + 0.005)  # one number has a height, too
        if mark.kind == "others":
            _plot(axes, layout, ends[0], lowest, color=theme.soft, lw=4.5, solid_capstyle="butt", label=label, **common)
        else:
            _plot(axes, layout, *ends, color=theme.soft, lw=1.2, label=label, **cap, **common)
        return
    marker, size, edge = SHAPES[mark.kind]
    colour = {"claimed": theme.claimed, "clean": theme.clean, "released": theme.extra}.get(mark.kind, theme.measured)
    if mark.kind not in CLAIMS:
        _plot(axes, layout, *ends, color=colour, lw=1.0 if mark.kind in OPEN else 1.6, **cap, **common)
    fill = theme.page if mark.kind in OPEN else colour
    style = {"marker": marker, "ms": size, "mew": edge, "mec": colour, "mfc": fill, "ls": "", "label": label}
    _plot(axes, layout, [mark.at], [mark.value], **style, **common)


def _scales(axes: Axes, layout: Layout) -> None:
    if layout.rows:
        axes.set(ylim=(layout.end, layout.start), yticks=[], xlabel="accuracy, %")
        axes.margins(x=0.04)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="x", top=True, labeltop=True)
        return
    axes.set(ylabel="accuracy, %", xlim=(layout.start, layout.end))
    axes.margins(y=0.08)
    axes.xaxis.set_major_locator(mdates.YearLocator(2))
    axes.xaxis.set_major_formatter(mdates.DateFormatter("%Y"))


def _name_rows(figure: Canvas, axes: Axes, layout: Layout, theme: Theme) -> None:
    """Each model's name and year above its marks, at the left."""
    left = axes.get_xlim()[0]
    for variant, mark in layout.claims.items():
        line = f"{mark.row.model}, {mark.row.date:%Y}"
        style = {"fontsize": 8.4, "color": theme.ink, "va": "center", "gid": f"name:{variant}"}
        axes.text(left, mark.at - TRACK / 2 - NAME_ROOM / 2, line, **style)


def _name_points(figure: Canvas, axes: Axes, layout: Layout, theme: Theme) -> None:
    """Write each model's name beside its claim, clear of every mark."""
    figure.draw_without_rendering()
    renderer, unit = figure.canvas.get_renderer(), figure.dpi / 72  # type: ignore[attr-defined]

    def place(at: float, fraction: float) -> Point:
        x, y = axes.transData.transform((at, 100 * fraction))
        return float(x), float(y)

    claims = layout.claims
    obstacles = []
    for mark in layout.marks:
        if mark.kind not in CLAIMS:
            (x, low), (_, high) = place(mark.at, mark.low), place(mark.at, mark.high)
            obstacles.append((x - 5 * unit, low - 3 * unit, x + 5 * unit, high + 3 * unit))
    corners = [place(claims[variant].at, claims[variant].low) for variant in layout.record]
    frame = axes.get_window_extent(renderer).extents
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], (frame[2], corners[-1][1])], strict=True):
        obstacles += [(x0, y0 - unit, x1, y0 + unit), (x1 - unit, min(y0, y1), x1 + unit, max(y0, y1))]

    at = {"textcoords": "offset points", "va": "center", "fontsize": 8.4, "color": theme.ink}
    dots = {variant: (mark.at, 100 * mark.low) for variant, mark in claims.items()}
    names = {v: axes.annotate(claims[v].row.model, dot, (0, 0), gid=f"name:{v}", **at) for v, dot in dots.items()}
    sizes = [(box.width, box.height) for box in (name.get_window_extent(renderer) for name in names.values())]
    offsets = place_names(sizes, [place(mark.at, mark.low) for mark in claims.values()], obstacles, frame, unit)
    for (variant, name), (dx, dy) in zip(names.items(), offsets, strict=True):
        name.set_position((dx, dy))
        name.set_ha("left" if dx > 1 else "right" if dx < -1 else "center")
        if np.hypot(dx, dy) > FAR:
            side = 0 if abs(dx) > 1 else 6
            line_to = {"arrowstyle": "-", "color": theme.soft, "lw": 0.6, "shrinkA": side, "shrinkB": 4}
            line_to |= {"gid": f"name:{variant}"}
            axes.annotate("", dots[variant], (dx, dy), textcoords="offset points", arrowprops=line_to)
