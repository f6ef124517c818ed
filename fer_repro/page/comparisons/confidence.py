"""Calibration of every model: errors as numbers, reliability as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fer_repro.comparisons.calibrated import Calibrated, mean_of
from fer_repro.comparisons.entries import SCORED, SELECTING
from fer_repro.evaluation.calibration import RANGE, Bin, Calibration
from fer_repro.evaluation.metrics import ECE_BINS
from fer_repro.markup import Html, percent, small, table, text
from fer_repro.page.comparisons.words import MARK, count, named, one_class_runs, starred, without
from fer_repro.plots.figure import Figure
from fer_repro.plots.panels import Reliability
from fer_repro.plots.panels import reliability as panels

SHOWN = 6
"""Models in the picture: the best ones that decide."""


def errors(models: Sequence[Calibrated]) -> Html:
    """Confidence, both calibration errors and the log loss of every model, before and after its temperature."""
    rows = [_row(one) for one in models]
    header = ["Model", "Confidence minus accuracy", "ECE, equal width", "ECE, equal mass", "Log loss", "Temperature"]
    limit = (
        " Limit: no temperature from {:g} to {:g} fits.".format(*RANGE) if any(m.at_the_limit for m in models) else ""
    )
    caption = (
        f"On {SCORED}, the mean over the seeds; large: as predicted, small: with a temperature that was fitted on "
        f"{SELECTING} only. Confidence minus accuracy and ECE in points, over {ECE_BINS} bins; log loss in nats. A "
        f"temperature above 1 lowers the confidence.{limit} {MARK}"
    )
    plain = "; ".join(f"{starred(m.entry)} ECE {percent(mean_of(m.before, 'equal_width'))}" for m in models)
    return Html(table(header, rows, caption, range(1, 6)), plain)


def _row(one: Calibrated) -> list[str]:
    fitted = text(f"{np.mean(one.temperatures):.2f}") if one.temperatures else small(_not_fitted(one))
    cells = [
        _two(one, lambda part: f"{100 * (part.confidence - part.accuracy):+.1f}"),
        _two(one, lambda part: f"{100 * part.equal_width:.1f}"),
        _two(one, lambda part: f"{100 * part.equal_mass:.1f}"),
        _two(one, lambda part: f"{part.log_loss:.3f}"),
    ]
    return [named(one.entry), *cells, fitted + (f"<br>{small('limit')}" if one.at_the_limit else "")]


def _not_fitted(one: Calibrated) -> str:
    if all(SELECTING in run.halves for run in one.entry.runs):
        return f"none: {SELECTING} was or may have been trained on"
    return f"no predictions of {SELECTING}"


def _two(one: Calibrated, shape) -> str:  # noqa: ANN001
    """A number before, and after in small text."""
    before = shape(_mean(one.before))
    return f"{before}<br>{small(shape(_mean(one.after)))}" if one.after else before


def _mean(parts: Sequence[Calibration]) -> Calibration:
    names = ("accuracy", "confidence", "equal_width", "equal_mass", "log_loss")
    return Calibration(**{name: mean_of(parts, name) for name in names})


def reliability(models: Sequence[Calibrated]) -> Figure:
    """Accuracy against confidence of the best models that decide."""
    shown = [one for one in models if one.entry.decides][:SHOWN]
    said = "; ".join(
        f"{one.entry.name}: mean confidence {percent(one.before[0].confidence, 1)}, "
        f"accuracy {percent(one.before[0].accuracy, 1)}"
        for one in shown
    )
    return panels(
        [Reliability(one.entry.name, _curve(one.bins[0]), _curve(one.bins[1])) for one in shown],
        f"Accuracy against confidence, {SCORED}",
        alt=f"Reliability diagrams of {count(len(shown), 'model')}: {said}.",
        caption=f"Each point: one of {ECE_BINS} equal parts of the images, by the confidence of the predicted class, "
        "with its Wilson 95 % interval. On the dashed line a model is as often right as it says; below it, it is too "
        f"confident. The run with the lowest seed of the {len(shown)} most accurate models that decide; the table has "
        "all.",
    )


def _curve(bins: Sequence[Bin]) -> list[tuple[float, float, tuple[float, float]]]:
    return [(one.confidence, one.accuracy, one.interval) for one in bins]


def found(models: Sequence[Calibrated]) -> list[str]:
    """Sentences for the top of the page."""
    fitted = [one for one in models if one.entry.decides and _kept(one, "after")]
    if not fitted:
        return []
    before, after = (
        float(np.mean([mean_of(_kept(one, when), "equal_width") for one in fitted])) for when in ("before", "after")
    )
    left_out = without(one_class_runs(one.entry for one in models if one.entry.decides and one.after))
    gaps = [mean_of(one.before, "confidence") - mean_of(one.before, "accuracy") for one in fitted]
    over = sum(gap > 0 for gap in gaps)
    return [
        f"{over} of {count(len(fitted), 'model')} {'is' if over == 1 else 'are'} more confident than right on average. "
        f"One temperature for each, fitted on {SELECTING}, changes the mean calibration error on {SCORED} from "
        f"{100 * before:.1f} to {100 * after:.1f} points and no predicted class{left_out}."
    ]


def _kept(one: Calibrated, when: str) -> list[Calibration]:
    """Of the runs that do not answer one class for every image; empty where there is no temperature."""
    values: tuple[Calibration, ...] = getattr(one, when)
    return [value for run, value in zip(one.entry.runs, values, strict=False) if not run.one_class]
