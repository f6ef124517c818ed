"""Accuracy over time: every claim of the leaderboard, what was measured, the record line, the clean subset.

Both pictures read one table, `fer_repro.leaderboard.leaderboard`: the chart for the book's pages (plotly, drawn by a
script that the book carries itself) and the still picture for the README and for pages without scripts.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from PIL import Image

from fer_repro.errors import FerReproError
from fer_repro.leaderboard import clean_subset, record_line
from fer_repro.markup import CSS, absent, details, interval, percent, table, text
from fer_repro.page.label_placement import FAR, Point, place_names
from fer_repro.plots.figure import Figure, Theme, canvas
from fer_repro.plots.theme import CLAIMED, CLEAN, DARK, EXTRA, LIGHT, MEASURED, QUIET, RULE, SOFT

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

DIV = "fer-accuracy-over-time"
ASIDE = pd.Timedelta(days=45)  # released weights stand beside what was measured for the same model, not upon it
RELEASED = ("released", "released_low", "released_high")
COLUMNS = ("variant", "model", "date", "claimed", "comparability", "verdict", "measured", "low", "high", *RELEASED)
DIGEST_KEY = "fer-data-sha256"
BUTTONS = [["zoom2d", "pan2d", "resetScale2d", "toImage"]]

FOLLOW_PAGE = (Path(__file__).parent / "chart.js").read_text(encoding="utf-8")
FOLLOW_PAGE = FOLLOW_PAGE.replace("{light}", LIGHT.card).replace("{dark}", DARK.card)


def points(board: pd.DataFrame) -> pd.DataFrame:
    """The columns a chart needs of the leaderboard's own rows, by date; accuracies as fractions 0..1.

    Raises `FerReproError` for a foreign table.
    """
    missing = [name for name in (*COLUMNS, "pinned") if name not in board]
    if missing:
        raise FerReproError(
            f"the table for the chart lacks {', '.join(missing)}: expected what leaderboard.leaderboard() returns"
        )
    shown = board.loc[board["pinned"], list(COLUMNS)].copy()
    shown["date"] = pd.to_datetime(shown["date"])
    return shown.sort_values(["date", "claimed"], kind="stable").reset_index(drop=True)


def data_digest(board: pd.DataFrame) -> str:
    """sha256 over everything the still picture shows; stored in the file, so that an outdated picture is recognised."""
    return hashlib.sha256(points(board).to_csv(index=False, float_format="%.6f").encode()).hexdigest()


def picture_digest(path: str | Path) -> str:
    """The data digest a saved picture carries, empty where it carries none."""
    with Image.open(path) as image:
        return str(image.info.get(DIGEST_KEY, ""))


class Chart:
    """The chart for a page: markup with its own data and script, a still picture where none runs, and the numbers."""

    def __init__(self, figure: PlotlyFigure, still: Figure, numbers: str) -> None:
        self.figure, self.still, self.numbers = figure, still, numbers
        self.label = still.alt.split(". ")[0] + "."

    def _repr_html_(self) -> str:
        drawing = self.figure.to_html(
            include_plotlyjs=False,
            full_html=False,
            div_id=DIV,
            post_script=FOLLOW_PAGE,
            config={"displaylogo": False, "responsive": True, "modeBarButtons": BUTTONS},
        )
        return (
            f'<style>{CSS}</style><div class="fer fer-chart"><figure role="group" aria-label="{text(self.label)}">'
            f'<div class="fer-still">{self.still.images()}</div>{drawing}'
            f"<figcaption>{text(self.still.caption)}</figcaption></figure>"
            f"{details('The numbers of this chart', self.numbers)}</div>"
        )

    def __repr__(self) -> str:
        return f"Chart: {self.label}"


def accuracy_over_time(board: pd.DataFrame) -> Chart:
    """All claims by release date. The legend shows or hides: claimed, clean subset (class A), measured, released
    weights where any were scored, record line.

    Hovering a point names the model, its claimed accuracy and its verdict. Needs plotly (the extra ``book``).
    """
    from plotly.graph_objects import Figure as PlotlyFigure
    from plotly.graph_objects import Scatter

    shown = points(board)
    clean = clean_subset(shown)
    measured = shown[shown["measured"].notna()]
    line = points(record_line(board))
    last = shown["date"].max() + pd.Timedelta(days=120)

    def dots(
        name: str,
        rows: pd.DataFrame,
        column: str,
        colour: str,
        symbol: str,
        edge: int = 2,
        aside: bool = False,
        **more: Any,
    ) -> Any:
        return Scatter(
            name=name,
            x=_days(rows["date"] + ASIDE * int(aside)),
            y=[round(100 * v, 4) for v in rows[column]] or [None],
            mode="markers",
            customdata=[_hover(row) for row in rows.itertuples()],
            hovertemplate="%{customdata}<extra></extra>",
            marker={"symbol": symbol, "size": 10 + edge / 2, "color": colour, "line": {"width": edge, "color": colour}},
            **more,
        )

    def bars(rows: pd.DataFrame, colour: str, *columns: str) -> dict[str, Any]:
        below, above = (list(side) for side in _spread(rows, *columns))
        style = {"type": "data", "symmetric": False, "thickness": 2, "width": 5, "color": colour}
        return style | {"array": above, "arrayminus": below}

    record = Scatter(
        name="record line",
        x=_days([*line["date"], last]),
        y=[100 * v for v in [*line["claimed"], line["claimed"].iloc[-1]]],
        mode="lines",
        line={"shape": "hv", "color": QUIET, "width": 1.6, "dash": "dot"},
        hoverinfo="skip",
    )
    claimed = dots("claimed", shown, "claimed", CLAIMED, "diamond-open")
    comparable = dots(f"clean subset (class A, {len(clean)})", clean, "claimed", CLEAN, "diamond")
    label = f"measured ({len(measured)} of {len(shown)})"
    ours = dots(label, measured, "measured", MEASURED, "circle", edge=0, error_y=bars(measured, MEASURED))
    traces = [record, claimed, comparable, ours]
    if len(scored := _released(shown)):
        spread = bars(scored, EXTRA, *RELEASED)
        traces.append(dots("released weights", scored, "released", EXTRA, "square", edge=0, aside=True, error_y=spread))
    figure = PlotlyFigure(traces)
    clear = "rgba(0,0,0,0)"
    figure.update_layout(
        template="none",
        height=520,
        autosize=True,
        hovermode="closest",
        hoverdistance=30,
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        font={"color": SOFT, "size": 13, "family": "system-ui, sans-serif"},
        margin={"l": 58, "r": 16, "t": 16, "b": 42},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
        modebar={"bgcolor": clear, "color": QUIET, "activecolor": MEASURED},
        hoverlabel={"align": "left", "bgcolor": LIGHT.card, "font": {"color": LIGHT.ink, "size": 13}},
        xaxis={"gridcolor": RULE, "showline": True, "linecolor": RULE, "zeroline": False},
        yaxis={"gridcolor": RULE, "title": {"text": "accuracy, %", "font": {"size": 13}}, "zeroline": False},
    )
    return Chart(figure, accuracy_over_time_static(board), _numbers(shown))


def _numbers(shown: pd.DataFrame) -> str:
    """Every point of the chart as a table."""
    rows = []
    for row in shown.itertuples():
        claimed = [text(row.model), f"{row.date:%Y-%m-%d}", percent(row.claimed), text(row.comparability)]
        bounds = "" if absent(row.measured) else interval((row.low, row.high))
        weights = percent(row.released, missing="")
        rows.append([*claimed, percent(row.measured, missing="not run"), bounds, text(row.verdict), weights])
    header = ["Model", "Date", "Claimed", "Class", "Measured", "95 % interval", "Verdict", "Released weights"]
    return table(header, rows, "Every point of the chart, by release date", numeric=(2, 4, 5, 7))


def _released(shown: pd.DataFrame) -> pd.DataFrame:
    """The models with released weights that were scored here."""
    return shown[shown["released"].notna()]


def _spread(rows: pd.DataFrame, value: str = "measured", low: str = "low", high: str = "high") -> list[pd.Series]:
    """How far the intervals reach below and above the accuracies, in percent points."""
    return [100 * (rows[value] - rows[low]), 100 * (rows[high] - rows[value])]


def _days(dates: Any) -> list[str | None]:
    return [date.strftime("%Y-%m-%d") for date in dates] or [None]


def _hover(row: Any) -> str:
    lines = [f"<b>{text(row.model)}</b>", f"claimed {percent(row.claimed)} (class {text(row.comparability)})"]
    if not absent(row.measured):
        lines.append(f"measured {percent(row.measured)} ({interval((row.low, row.high))})")
    if not absent(row.released):
        bounds = interval((row.released_low, row.released_high))
        lines.append(f"released weights {percent(row.released)} ({bounds})")
    return "<br>".join([*lines, f"verdict: {text(row.verdict)}", row.date.strftime("%d %B %Y").lstrip("0")])


def accuracy_over_time_static(board: pd.DataFrame) -> Figure:
    """The same as a still picture with every model's name; a saved file carries its `data_digest`."""
    shown = points(board)
    line = points(record_line(board))
    measured, released = shown[shown["measured"].notna()], _released(shown)
    clean = shown["comparability"] == "A"

    def draw(theme: Theme) -> Canvas:
        figure = canvas(7.4, 4.9)
        axes = figure.add_subplot()
        axes.grid(axis="y")
        last = shown["date"].max() + pd.Timedelta(days=200)
        record = [100 * v for v in [*line["claimed"], line["claimed"].iloc[-1]]]
        style = {"where": "post", "color": theme.soft, "lw": 1.3, "ls": ":"}
        axes.step([*line["date"], last], record, label="record line", **style)
        hollow = (shown[~clean], theme.claimed, "none", "claimed")
        filled = (shown[clean], theme.clean, theme.clean, "claimed, clean subset (class A)")
        for rows, colour, fill, label in (hollow, filled):
            style = {"marker": "D", "s": 38, "edgecolors": colour, "facecolors": fill, "linewidths": 1.5, "zorder": 3}
            axes.scatter(rows["date"], 100 * rows["claimed"], label=label, **style)
        if len(measured):
            style = {"fmt": "o", "ms": 6.5, "capsize": 3, "color": theme.measured, "lw": 1.6, "zorder": 4}
            label = "measured, with 95 % interval"
            axes.errorbar(measured["date"], 100 * measured["measured"], yerr=_spread(measured), label=label, **style)
        if len(released):
            style = {"fmt": "s", "ms": 6, "capsize": 3, "color": theme.extra, "lw": 1.6, "zorder": 4}
            spread = _spread(released, *RELEASED)
            axes.errorbar(
                released["date"] + ASIDE, 100 * released["released"], yerr=spread, label="released weights", **style
            )
        axes.set(ylabel="accuracy, %", xlim=(shown["date"].min() - pd.Timedelta(days=200), last))
        axes.margins(y=0.08)
        axes.xaxis.set_major_locator(mdates.YearLocator(2))
        axes.xaxis.set_major_formatter(mdates.DateFormatter("%Y"))
        axes.legend(loc="upper left", fontsize=8.8)
        _name_points(figure, axes, shown, line, theme)
        return figure

    models = "; ".join(f"{row.model} {percent(row.claimed)}, {row.verdict}" for row in shown.itertuples())
    caption = (
        f"The {len(shown)} claims of the leaderboard by release date. Hollow diamonds: claimed; filled: claimed "
        "under the official split with a clean selection (class A); dots with bars: measured here, with 95 % intervals."
        + (" Squares: weights that others published, scored here." if len(released) else "")
    )
    return Figure(
        draw,
        alt=f"Accuracy on FER2013 over time, {len(shown)} claims from {shown['date'].min():%Y} to "
        f"{shown['date'].max():%Y}, {len(measured)} of them measured. {models}.",
        caption=caption,
        metadata={DIGEST_KEY: data_digest(board)},
    )


def _name_points(figure: Canvas, axes: Axes, shown: pd.DataFrame, line: pd.DataFrame, theme: Theme) -> None:
    """Write each model's name beside its point."""
    figure.draw_without_rendering()
    renderer, unit = figure.canvas.get_renderer(), figure.dpi / 72

    def place(date: pd.Timestamp, fraction: float) -> Point:
        x, y = axes.transData.transform((mdates.date2num(date), 100 * fraction))
        return float(x), float(y)

    marks = [place(row.date, row.claimed) for row in shown.itertuples()]
    obstacles = [axes.get_legend().get_window_extent(renderer).extents]
    bars = [(row.date, row.low, row.high) for row in shown.itertuples() if not absent(row.measured)]
    bars += [(row.date + ASIDE, row.released_low, row.released_high) for row in _released(shown).itertuples()]
    for date, below, above in bars:
        (x, low), (_, high) = place(date, below), place(date, above)
        obstacles.append((x - 5 * unit, low, x + 5 * unit, high))
    corners = [place(row.date, row.claimed) for row in line.itertuples()]
    frame = axes.get_window_extent(renderer).extents
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], (frame[2], corners[-1][1])], strict=True):
        obstacles += [(x0, y0 - unit, x1, y0 + unit), (x1 - unit, min(y0, y1), x1 + unit, max(y0, y1))]

    at = {"textcoords": "offset points", "va": "center", "fontsize": 8, "color": theme.ink}
    dots = [(mdates.date2num(row.date), 100 * row.claimed) for row in shown.itertuples()]
    names = [axes.annotate(model, dot, (0, 0), **at) for model, dot in zip(shown["model"], dots, strict=True)]
    sizes = [(box.width, box.height) for box in (name.get_window_extent(renderer) for name in names)]
    offsets = place_names(sizes, marks, obstacles, frame, unit)
    for name, dot, (dx, dy) in zip(names, dots, offsets, strict=True):
        name.set_position((dx, dy))
        name.set_ha("left" if dx > 1 else "right" if dx < -1 else "center")
        if np.hypot(dx, dy) > FAR:
            side = 0 if abs(dx) > 1 else 6
            line_to = {"arrowstyle": "-", "color": theme.soft, "lw": 0.6, "shrinkA": side, "shrinkB": 4}
            axes.annotate("", dot, (dx, dy), textcoords="offset points", arrowprops=line_to)
