"""One run's outcome in memory: its record, predictions and history."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from fer_repro.data.dataset import SYNTHETIC_WORDS
from fer_repro.errors import FerReproError
from fer_repro.results import schema
from fer_repro.results.schema import FINISHED


class NotRecorded(FerReproError):
    """A result does not hold what a picture or table of its paper shows."""


NOT_OURS = (schema.RELEASED, schema.PACKAGE)


@dataclass
class Result:
    """One run's outcome. ``note`` is a sentence for the page (for example: nothing stored, so this is a smoke run);
    ``label`` says what it is where a page shows it in place of another one ("ablation resnet18-tricks-plain").

    ``epochs``: where the run was asked for it, the class that the weights of every epoch give to every image without
    test-time augmentation: ``epoch`` int64 [E], counted from 1, and of each test set uint8 [E,N]; else empty.

    ``kind`` is one of `schema.EVIDENCE`. Of released weights ``protocol`` is "released", the seed None, and ``history``
    empty; ``name`` is theirs.
    """

    record: dict[str, Any]
    predictions: dict[str, np.ndarray]
    history: pd.DataFrame
    epochs: dict[str, np.ndarray] = field(default_factory=dict)
    note: str = ""
    label: str = ""
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
        return schema.place_of(self.record)[-1]

    @property
    def kind(self) -> str:
        return schema.kind_of(self.record)

    @property
    def unfinished(self) -> bool:
        """Whether it is of a run that was stopped: it decides nothing."""
        return self.kind == schema.UNFINISHED

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
    def modified(self) -> bool:
        """Whether it is of a run on a modified copy of FER2013: it says nothing about the official data."""
        return self.kind == schema.MODIFIED

    @property
    def changed_data(self) -> str:
        """Which modified copy its data are, in words; empty for others."""
        if not self.modified:
            return ""
        images = sum(sum(classes.values()) for classes in self.record["modified"]["counts"].values())
        return f"on a modified copy of FER2013 ({images:,} images): no result of the model"

    @property
    def progress(self) -> str:
        """How far an unfinished run came, in words; empty for others."""
        if not self.unfinished:
            return ""
        said = self.record["unfinished"]
        return f"unfinished: epoch {said['epochs_done']} of {said['epochs']}"

    @property
    def remark(self) -> str:
        """What every number and picture of it must say: that it stands for another one, is of synthetic faces, of an
        unfinished run, or of a modified copy of the data. Empty where there is nothing to say."""
        synthetic = SYNTHETIC_WORDS if self.synthetic else ""
        return "; ".join(filter(None, [self.label, synthetic, self.progress, self.changed_data]))

    @property
    def precision(self) -> str:
        """What its network was trained in: ``bf16``, ``fp16`` or ``fp32``; empty where none was trained here, or where
        it is not known."""
        facts = self.record["facts"]
        if "precision" in facts:
            return facts["precision"]
        if "rehearsal" in facts:  # as results were stored before the precision had its own name
            return "bf16" if facts["rehearsal"]["autocast"] else "fp32"
        # The versions before that kept neither, and left fp32 on CUDA only.
        trained = self.kind not in NOT_OURS and self.record["parameters"] is not None
        return "fp32" if trained and self.record["cost"]["device"] == "cpu" else ""

    @property
    def has_views(self) -> bool:
        return "views" in next(iter(self.record["scores"].values()))

    @property
    def storable(self) -> bool:
        """Only full runs on FER2013 that ran to their end (or to the recipe's own patience) may decide anything."""
        return self.profile == "full" and self.status in FINISHED and self.record["data"]["name"] == "fer2013"

    @property
    def storable_apart(self) -> bool:
        """The same of a run on a modified copy: it is stored, and decides nothing."""
        return self.profile == "full" and self.status in FINISHED and self.modified

    @property
    def halves(self) -> tuple[str, ...]:
        """The sets with predictions: both test sets, but of released weights only those that may be scored; of a
        package a sample of Training before them."""
        return schema.scored_halves(self.record)

    def score(self, usage: str = "PrivateTest", views: bool | None = None) -> dict[str, Any]:
        """The metrics on one test set, or on both as one where the protocol merges them (``PublicTest+PrivateTest``).

        ``views=None`` takes the paper's views where there are any, else the plain score.
        """
        views = self.has_views if views is None else views
        return self.record["scores"][usage]["views" if views else "plain"]

    @property
    def one_class(self) -> str:
        """That the model predicts the same class for every image of PrivateTest, in words; empty for others."""
        usage = "PrivateTest"
        if usage not in self.halves:
            return ""
        score = self.score(usage)
        given = np.any(score["confusion"], axis=0)  # of every class: was it predicted for any image
        labels = [label for label, predicted in zip(score["per_class"], given, strict=True) if predicted]
        return f"answers {labels[0]} for every image" if len(labels) == 1 else ""

    @property
    def scored(self) -> str:
        """The name of what the protocol scores: a test set, or "PublicTest+PrivateTest" for both as one."""
        return "+".join(self.record["usages"]["test"])

    @property
    def headline(self) -> dict[str, Any]:
        """The score that stands beside the claim: on the protocol's test images, as the paper views an image.

        Weights of others are shown by PrivateTest, as all measurements are, where that may be scored.
        """
        return self.score(self.halves[-1] if self.kind in NOT_OURS else self.scored)
