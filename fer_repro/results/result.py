"""One run's outcome in memory: its record, predictions and history."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from fer_repro.results import schema
from fer_repro.results.schema import FINISHED


@dataclass
class Result:
    """One run's outcome. ``note`` is a sentence for the page (for example: nothing stored, so this is a smoke run).

    Of released weights ``protocol`` is "released", the seed None, and ``history`` empty; ``name`` is theirs.
    """

    record: dict[str, Any]
    predictions: dict[str, np.ndarray]
    history: pd.DataFrame
    note: str = ""
    classifier: Any = field(default=None, repr=False)

    @property
    def variant(self) -> str:
        return self.record["variant"]

    @property
    def protocol(self) -> str:
        return self.record["protocol"]

    @property
    def name(self) -> str:
        """The folder's name: "seed-0", or that of released weights."""
        return schema.place_of(self.record)[2]

    @property
    def profile(self) -> str:
        return self.record["profile"]

    @property
    def seed(self) -> int:
        return self.record["seed"]

    @property
    def status(self) -> str:
        return self.record["status"]

    @property
    def synthetic(self) -> bool:
        """True where the faces are synthetic: such a number says nothing about a paper."""
        return self.record["data"]["name"] == "synthetic"

    @property
    def has_views(self) -> bool:
        return "views" in next(iter(self.record["scores"].values()))

    @property
    def storable(self) -> bool:
        """Only full runs on FER2013 that ran to their end (or to the recipe's own patience) may stand in results/."""
        return self.profile == "full" and self.status in FINISHED and self.record["data"]["name"] == "fer2013"

    @property
    def halves(self) -> tuple[str, ...]:
        """The test sets with predictions: both, but of released weights only those that may be scored."""
        return schema.scored_halves(self.record)

    def score(self, usage: str = "PrivateTest", views: bool | None = None) -> dict[str, Any]:
        """The metrics on one test set, or on both as one where the protocol merges them (``PublicTest+PrivateTest``).

        ``views=None`` takes the paper's views where there are any, else the plain score.
        """
        views = self.has_views if views is None else views
        return self.record["scores"][usage]["views" if views else "plain"]

    @property
    def scored(self) -> str:
        """The name of what the protocol scores: a test set, or "PublicTest+PrivateTest" for both as one."""
        return "+".join(self.record["usages"]["test"])

    @property
    def headline(self) -> dict[str, Any]:
        """The score that stands beside the claim: on the protocol's test images, as the paper views an image.

        Released weights are shown by PrivateTest, as all measurements are, where that may be scored.
        """
        return self.score(self.halves[-1] if schema.is_released(self.record) else self.scored)
