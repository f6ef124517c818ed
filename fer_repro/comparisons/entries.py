"""What is compared: one model with its runs, on the same images as all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fer_repro.evaluation.statistics import mean_interval
from fer_repro.results import FULL, PACKAGE, UNFINISHED, Result

SCORED = "PrivateTest"
SELECTING = "PublicTest"
KINDS = {FULL: "full run", "released": "released weights", PACKAGE: "package", UNFINISHED: "unfinished run"}
"""Every kind of evidence that takes part, in words."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One model: the full runs of a recipe under one protocol (of different seeds), an unfinished run,
    weights that others published, or the model of a package.

    ``name`` is unlike that of any other entry. ``remark`` says what its numbers are where they are not those of
    finished runs under the official protocol. ``decides``: whether it takes part in tests, groups and ensembles;
    ``why_not`` says why not. ``may_select``: whether every run has predictions of PublicTest and none was, or may have
    been, trained on it, so that PublicTest may choose between models and fit a temperature. Arrays are over the images
    of the `Comparison`: ``probabilities`` float32 [S, N, 7] of S runs, as the recipe scores an image (with test-time
    augmentation where it has any).
    """

    name: str
    kind: str
    variant: str
    protocol: str
    runs: tuple[Result, ...]
    probabilities: np.ndarray
    labels: np.ndarray
    remark: str = ""
    why_not: str = ""
    year: int | None = None
    may_select: bool = True

    @property
    def decides(self) -> bool:
        return not self.why_not

    @cached_property
    def predicted(self) -> np.ndarray:
        """int [S, N]: the predicted class of every run."""
        return self.probabilities.argmax(axis=2)

    @cached_property
    def hits(self) -> np.ndarray:
        """bool [S, N]: which images every run got right."""
        return self.predicted == self.labels

    @cached_property
    def accuracies(self) -> tuple[float, ...]:
        """Of every run, fractions."""
        return tuple(float(share) for share in self.hits.mean(axis=1))

    @property
    def accuracy(self) -> float:
        """The mean over the runs."""
        return float(np.mean(self.accuracies))

    @property
    def interval(self) -> tuple[float, float]:
        """Of the mean: the chance of the images and the spread of the seeds (`mean_interval`)."""
        return mean_interval(self.accuracies, len(self.labels))

    @property
    def record(self) -> dict[str, Any]:
        """Of the run with the lowest seed."""
        return self.runs[0].record

    @property
    def label(self) -> str:
        """The name and, in brackets, the remark."""
        return f"{self.name} ({self.remark})" if self.remark else self.name

    @property
    def parameters(self) -> int | None:
        return self.record["parameters"]

    @property
    def multiply_adds(self) -> int | None:
        """Of one pass over one image."""
        return self.record["multiply_adds"]

    @property
    def seconds(self) -> float | None:
        """Of training, the mean over the runs; None for what was not trained to its end here."""
        spent = [run.record["cost"]["seconds"] for run in self.runs if self.kind == FULL]
        known = [amount for amount in spent if amount is not None]
        return float(np.mean(known)) if known else None

    @property
    def device(self) -> str:
        """What it was trained on, in words: the GPU's name, or "CPU"."""
        return self.record["environment"].get("gpu") or str(self.record["cost"]["device"]).upper()

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The classes that a package knows; None where it is all seven."""
        return tuple(self.record["package"]["labels"]) if self.kind == PACKAGE else None


@dataclass(frozen=True, eq=False)
class Comparison:
    """All entries on the same images of PrivateTest: ``ids`` text [N] in ascending order and ``labels`` int64 [N].

    ``entries``: the best accuracy first, those that decide before the others. ``left_out``: what could not be brought
    onto these images, with the reason. ``runs``: every result that was read, for what is computed from single runs.
    """

    ids: np.ndarray
    labels: np.ndarray
    entries: tuple[Entry, ...]
    left_out: dict[str, str]
    runs: tuple[Result, ...] = ()

    @property
    def deciding(self) -> tuple[Entry, ...]:
        """The entries that take part in tests, groups and ensembles."""
        return tuple(entry for entry in self.entries if entry.decides)

    @property
    def others(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if not entry.decides)

    def __bool__(self) -> bool:
        return bool(self.entries)


def in_order(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Those that decide first, then by accuracy, then by name."""
    return tuple(sorted(entries, key=lambda one: (not one.decides, -one.accuracy, one.name)))
