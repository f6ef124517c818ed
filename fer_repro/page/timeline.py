"""Accuracy over time: every claim of the leaderboard, the evidence beside it, the record line, the clean subset.

Both pictures are drawn by one function (`drawing.draw`) from one table, `fer_repro.leaderboard.leaderboard`: the chart
of the book's pages, an SVG whose marks are links, and the still picture of the README.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
from PIL import Image

from fer_repro.leaderboard import Band
from fer_repro.markup import Html, absent, details, interval, percent, table, text
from fer_repro.page.drawing import BASELINE, RECORD, Layout, draw, narrow, wide
from fer_repro.page.marks import KINDS, points, reported
from fer_repro.page.svg import colours, svg
from fer_repro.plots.figure import Figure
from fer_repro.plots.theme import DARK, LIGHT

DIGEST_KEY = "fer-data-sha256"
CSS, SCRIPT = ((Path(__file__).parent / name).read_text(encoding="utf-8").strip() for name in ("chart.css", "chart.js"))
# The legend's groups: what a check box hides and shows, and a small picture of it, 24 by 14.
DIAMOND = '<path d="M12 2l5 5-5 5-5-5z" stroke-width="2" {}/>'
BARS = '<path d="M12 0v14M9 1h6M9 13h6" stroke="var(--chart-{0})" stroke-width="1.6" fill="none"/>'
SWATCHES = {
    "record": '<path d="M1 7h22" stroke="var(--chart-soft)" stroke-width="2" stroke-dasharray="2 3"/>',
    "claimed": DIAMOND.format('stroke="var(--chart-claimed)" fill="var(--chart-page)"'),
    "clean": DIAMOND.format('stroke="var(--chart-clean)" fill="var(--chart-clean)"'),
    "measured": BARS.format("measured") + '<circle cx="12" cy="7" r="4" fill="var(--chart-measured)"/>',
    "released": BARS.format("extra") + '<path d="M8 3h8v8h-8z" fill="var(--chart-extra)"/>',
    "unfinished": BARS.format("measured")
    + '<path d="M12 2l4.5 8h-9z" stroke="var(--chart-measured)" stroke-width="1.6" fill="var(--chart-page)"/>',
    "ablation": BARS.format("measured")
    + '<path d="M12 2l5 3.6-1.9 5.8h-6.2L7 5.6z" stroke="var(--chart-measured)" stroke-width="1.6" '
    'fill="var(--chart-page)"/>',
    "others": '<path d="M9 0h6v14h-6z" fill="var(--chart-soft)"/>',
    "incomparable": BARS.format("soft"),
    "baseline": '<path d="M0 1h24v12h-24z" fill="var(--chart-measured)" opacity=".25"/>',
}
GROUPS = {"record": RECORD, **KINDS, "baseline": BASELINE}
EXPLAINED = {
    "measured": "Dots with bars: measured here, with 95 % intervals.",
    "released": "Squares: weights that others published, scored here.",
    "unfinished": "Triangles: our runs that were stopped before their recipe's end.",
    "ablation": "Pentagons: our best ablation of the model, a method that was changed on purpose; its run may be "
    "unfinished.",
    "others": "Wide bars: the range of what third parties report.",
    "incomparable": "Thin bars: the same, where no report can be compared with the claim.",
}


def accuracy_over_time(board: pd.DataFrame, band: Band | None = None) -> Html:
    """All claims by release date, and beside them every kind of evidence that exists, as a chart for a page.

    A mark and a model's name lead to the chapter; pointing at a mark or reaching it by keyboard shows the model, its
    claim, its evidence and its verdict; the legend's check boxes hide and show what exists of `GROUPS`. Narrow pages
    show a narrow drawing. All but the text at a mark works without a script, and on paper it is a picture. ``board``:
    `fer_repro.leaderboard.leaderboard`; ``band``: the plain baseline's interval. Raises `FerReproError` for a foreign
    table.
    """
    layout = wide(board)
    label, drawings = _label(layout), svg(layout, band, "wide") + svg(narrow(board), band, "narrow")
    body = (
        f"<style>{_style()}</style>"
        f'<div class="fer-chart"><figure role="group" aria-label="{text(label)}">{_legend(layout, band)}'
        f"{drawings}<figcaption>{text(_note(layout, band))}</figcaption></figure>"
        f'<div class="fer-tip" role="tooltip" hidden></div>'
        f"{details('The numbers of this chart', _numbers(layout.shown))}"
        f'<script type="module">{SCRIPT}</script></div>'
    )
    return Html(body, f"Chart: {label}")


def accuracy_over_time_static(board: pd.DataFrame, band: Band | None = None) -> Figure:
    """The same as one picture with a legend in it; a saved file carries its `data_digest`."""
    layout = wide(board)
    models = "; ".join(f"{row.model} {percent(row.claimed)}, {row.verdict}" for row in layout.shown.itertuples())
    return Figure(
        lambda theme: draw(layout, theme, band, legend=True),
        alt=f"{_label(layout)} {models}.",
        caption=_caption(layout, band),
        metadata={DIGEST_KEY: data_digest(board, band)},
    )


def data_digest(board: pd.DataFrame, band: Band | None = None) -> str:
    """sha256 over everything the chart shows; stored in its files, so that an outdated one is recognised."""
    content = points(board).to_csv(index=False, float_format="%.6f") + (str(band) if band else "")
    return hashlib.sha256(content.encode()).hexdigest()


def picture_digest(path: str | Path) -> str:
    """The data digest a saved picture carries, empty where it carries none."""
    with Image.open(path) as image:
        return str(image.info.get(DIGEST_KEY, ""))


def _label(layout: Layout) -> str:
    shown = layout.shown
    return (
        f"Accuracy on FER2013 over time, {len(shown)} claims from {shown['date'].min():%Y} to "
        f"{shown['date'].max():%Y}, {shown['measured'].notna().sum()} of them measured."
    )


def _note(layout: Layout, band: Band | None) -> str:
    """What the legend does not say."""
    return (
        f"The {len(layout.shown)} claims by release date; marks that would cover one another stand beside it. Thin "
        f"lines with ends: 95 % intervals of our measurements.{f' Band: {band}.' if band else ''}"
    )


def _caption(layout: Layout, band: Band | None) -> str:
    """Everything that a picture without check boxes needs."""
    sentences = [
        "Hollow diamonds: claimed; filled: claimed under the official split with a clean selection (class A).",
        *(sentence for kind, sentence in EXPLAINED.items() if kind in layout.kinds),
        _note(layout, band),
    ]
    return " ".join(sentences)


def _style() -> str:
    """The chart's style sheet: its colours on light and on dark pages, and what a check box of the legend hides."""
    dark = ":is([data-theme=dark],[data-jp-theme-light=false]) .fer-chart"
    hides = "".join(
        f".fer-chart:has([value={group}]:not(:checked)) svg .{'k-' if group in KINDS else ''}{group}{{display:none}}"
        for group in GROUPS
    )
    return (
        f".fer-chart{{{colours(LIGHT)}}}{dark}{{{colours(DARK)}}}@media print{{{dark}{{{colours(LIGHT)}}}}}{CSS}{hides}"
    )


def _legend(layout: Layout, band: Band | None) -> str:
    """A check box for each group that has a mark."""
    there = {"record", *layout.kinds, *(["baseline"] if band else [])}
    boxes = "".join(
        f'<label><input type="checkbox" value="{group}" checked>'
        f'<svg viewBox="0 0 24 14" aria-hidden="true">{SWATCHES[group]}</svg>{text(name)}</label>'
        for group, name in GROUPS.items()
        if group in there
    )
    return f'<fieldset class="fer-legend"><legend>Show:</legend>{boxes}</fieldset>'


def _numbers(shown: pd.DataFrame) -> str:
    """Every point of the chart as a table."""
    rows = []
    for row in shown.itertuples():
        name = f'<a href="papers/{text(row.slug)}.html">{text(row.model)}</a>'
        claimed = [name, f"{row.date:%Y-%m-%d}", percent(row.claimed), text(row.comparability)]
        bounds = "" if absent(row.measured) else interval((row.low, row.high))
        evidence = [text(row.evidence_text), text(reported(row._asdict()), "none")]
        rows.append([*claimed, percent(row.measured, missing="not run"), bounds, text(row.verdict), *evidence])
    header = ["Model", "Date", "Claimed", "Class", "Measured", "95 % interval", "Verdict"]
    header += ["Best evidence", "Others measured"]
    return table(header, rows, "Every point of the chart, by release date", numeric=(2, 4, 5))
