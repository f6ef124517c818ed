"""FER2013 in memory: read-only arrays with labels, usages and ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from fer_repro.data import source as source_module
from fer_repro.data.official import LABELS, MODIFIED, USAGES, Difference, count, in_words

SYNTHETIC_WORDS = "synthetic faces - not a result"


@dataclass(frozen=True, eq=False)
class FER2013:
    """Grey faces with labels and usages; all arrays are read-only and in the order of the source.

    images uint8 [N,48,48] (memory-mapped where the cache can be written); labels int64 [N], an index into LABELS;
    usage str [N], one of USAGES; ids str [N], unique (``angry/Training_10118481`` in the folder copies, ``row-00000``
    counting data rows from 0 in the CSV, ``synthetic-<seed>-...`` for the synthetic faces); name ``fer2013``,
    ``fer2013-modified`` (see `load`) or ``synthetic``; source: where it came from, without a path; digest: the sha256
    (hex) over pixels, labels and usages of the whole set, which a subset keeps; facts: how it was opened (see
    `describe`).
    """

    images: np.ndarray
    labels: np.ndarray
    usage: np.ndarray
    ids: np.ndarray
    name: str
    source: str
    digest: str
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    place: source_module.Place | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def modified(self) -> bool:
        """Whether it is a copy whose counts are not the official ones."""
        return self.name == MODIFIED

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Every usage and class of a modified copy whose number of images is not the official one."""
        return tuple(self.facts.get("differences", ()))

    @property
    def difference(self) -> str:
        """The `differences` in words; empty for the official data."""
        return in_words(self.differences) if self.modified else ""

    @property
    def folder_name(self) -> str:
        """What the folder of a run calls its data: the name, of a modified copy with the first digits of its digest."""
        return f"{self.name}-{self.digest[:12]}" if self.modified else self.name

    def subset(self, index: np.ndarray | slice | list) -> FER2013:
        """The images at ``index`` (positions, a slice or a boolean mask [N]) as a `FER2013` of their own.

        Adjacent positions are returned as a numpy view, so that cutting a set by usage copies nothing.
        """
        if not isinstance(index, slice):
            index = np.asarray(index)
            index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
            if len(index) and index[0] >= 0 and (np.diff(index) == 1).all() and index[-1] < len(self):
                index = slice(int(index[0]), int(index[-1]) + 1)
        parts = {name: getattr(self, name)[index] for name in ("images", "labels", "usage", "ids")}
        for array in parts.values():
            array.setflags(write=False)
        return replace(self, **parts)

    def counts(self) -> pd.DataFrame:
        """Images per usage (rows) and class (columns)."""
        return pd.DataFrame(count(self.labels, self.codes()), index=list(USAGES), columns=list(LABELS))

    def codes(self) -> np.ndarray:
        """The usages as indices into USAGES, uint8 [N]."""
        return (self.usage[:, None] == np.array(USAGES)).argmax(axis=1).astype(np.uint8)

    def _repr_html_(self) -> str:
        warning = f"<p>{SYNTHETIC_WORDS}</p>" if self.name == "synthetic" else ""
        warning = f"<p>a modified copy of FER2013: {self.difference}</p>" if self.modified else warning
        return f"{warning}{self.counts().to_html()}"
