"""Confidence of every entry on PrivateTest, before and after a temperature that was fitted on PublicTest only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fer_repro.comparisons.entries import SCORED, SELECTING, Entry
from fer_repro.evaluation import calibration
from fer_repro.evaluation.calibration import Bin, Calibration
from fer_repro.results import Result


@dataclass(frozen=True, eq=False)
class Calibrated:
    """One entry: a `Calibration` of every run ``before`` and ``after`` its temperature, which is None (and ``after``
    empty) where there are no predictions of PublicTest, or the model was or may have been trained on it."""

    entry: Entry
    before: tuple[Calibration, ...]
    after: tuple[Calibration, ...]
    temperatures: tuple[float, ...]

    @property
    def at_the_limit(self) -> bool:
        """Whether no temperature fits: the model gives next to nothing but 0 and 1, or nothing but chance."""
        return any(map(calibration.at_the_limit, self.temperatures))

    @cached_property
    def bins(self) -> tuple[list[Bin], list[Bin]]:
        """Of the run with the lowest seed, before and after its temperature, by equally many images each."""
        rows = self.entry.probabilities[0]
        first = _bins(rows, self.entry.labels)
        return first, _bins(calibration.scaled(rows, self.temperatures[0]), self.entry.labels) if self.after else []


def calibrated(entries: Sequence[Entry]) -> list[Calibrated]:
    """Every entry, in their order."""
    return [_calibrated(entry) for entry in entries]


def mean_of(values: Sequence[Calibration], name: str) -> float:
    """The mean of one number over an entry's runs."""
    return float(np.mean([getattr(value, name) for value in values]))


def _calibrated(entry: Entry) -> Calibrated:
    before = tuple(calibration.calibration(rows, entry.labels) for rows in entry.probabilities)
    if not entry.may_select:
        return Calibrated(entry, before, (), ())
    found = tuple(_temperature(run) for run in entry.runs)
    after = tuple(
        calibration.calibration(calibration.scaled(rows, temperature), entry.labels)
        for rows, temperature in zip(entry.probabilities, found, strict=True)
    )
    return Calibrated(entry, before, after, found)


def _temperature(run: Result) -> float:
    """Fitted on all of PublicTest, as the recipe scores an image; PrivateTest (`SCORED`) is not looked at."""
    rows = run.predictions[f"{SELECTING}_{'views' if run.has_views else 'plain'}"].astype(np.float32)
    return calibration.fit_temperature(rows, run.predictions[f"{SELECTING}_labels"].astype(np.int64))


def _bins(rows: np.ndarray, labels: np.ndarray) -> list[Bin]:
    return calibration.mass_bins(*calibration.confidence_and_hits(rows, labels))


__all__ = ["SCORED", "Calibrated", "calibrated", "mean_of"]
