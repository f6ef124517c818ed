"""Accuracy against what a model costs and when it was published."""

from __future__ import annotations

from fer_repro.comparisons import Comparison, Entry
from fer_repro.comparisons.entries import KINDS, SCORED
from fer_repro.markup import Html, details, percent, seconds, small, table, text, whole
from fer_repro.page.comparisons.words import MARK, named, starred
from fer_repro.plots.panels import Cloud, clouds

PARAMETERS, ADDS, MINUTES, YEAR = (
    "parameters",
    "multiply-adds for one image",
    "minutes of training",
    "year of publication",
)


def cost(comparison: Comparison) -> Html:
    """Four small pictures, and the numbers folded away."""
    entries = comparison.entries
    devices = sorted({entry.device for entry in entries if entry.seconds is not None})
    figure = clouds(
        [
            Cloud(PARAMETERS, True, _points(comparison, "parameters")),
            Cloud(ADDS, True, _points(comparison, "multiply_adds")),
            Cloud(MINUTES, True, [(spent / 60, *others) for spent, *others in _points(comparison, "seconds")]),
            Cloud(YEAR, False, _points(comparison, "year")),
        ],
        f"Accuracy on {SCORED} against cost",
        alt="Accuracy against parameters, multiply-adds, minutes of training and year: "
        + "; ".join(_said(entry) for entry in entries)
        + ".",
        caption="Each number is a model, numbered as in the table of all models; k: thousand, M: million, G: billion. "
        "Minutes: of training one seed to its "
        f"end here, on {' and '.join(devices) or 'no device so far'}; times of different devices and of runs that "
        "shared a machine are not comparable. Year: of the paper or of the package's release; the baseline has none. A "
        f"model whose number is not known is left out of a picture. {MARK}",
    )
    rows = [
        [
            f"{place}  {named(entry)}",
            percent(entry.accuracy),
            whole(entry.parameters, "no network"),
            whole(entry.multiply_adds, "no network"),
            small("not trained here") if entry.seconds is None else seconds(entry.seconds),
            text(entry.device if entry.seconds is not None else None, ""),
            text(entry.year, "none"),
        ]
        for place, entry in enumerate(entries, start=1)
    ]
    header = ["Model", "Accuracy", "Parameters", "Multiply-adds", "Training", "Device", "Year"]
    caption = (
        "Parameters and multiply-adds are counted in the network; the time is that of one seed, the mean over them."
    )
    numbers = details("The numbers", table(header, rows, caption, (1, 2, 3, 4, 6)))
    return Html(figure.figure() + numbers, figure.alt)


def _points(comparison: Comparison, name: str) -> list[tuple[float, float, str, str]]:
    """Of every model with that number; the star of the tables stands at the number of what decides nothing."""
    known = ((place, one, getattr(one, name)) for place, one in enumerate(comparison.entries, start=1))
    return [
        (value, one.accuracy, f"{place}{'' if one.decides else '*'}", KINDS[one.kind])
        for place, one, value in known
        if value
    ]


def _said(entry: Entry) -> str:
    parts = (
        f"{whole(entry.parameters)} parameters" if entry.parameters else "",
        f"{whole(entry.multiply_adds)} multiply-adds" if entry.multiply_adds else "",
        f"{seconds(entry.seconds)} of training" if entry.seconds is not None else "",
        f"{entry.year}" if entry.year else "",
    )
    return f"{starred(entry)} {percent(entry.accuracy)}, {', '.join(filter(None, parts))}"
