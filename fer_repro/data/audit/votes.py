"""The labels against the votes of FER+: how often ten people see another expression, or no face at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from fer_repro.data.dataset import FER2013
from fer_repro.data.ferplus import OWN, VOTES
from fer_repro.data.official import LABELS, USAGES

NOTHING = ("unknown", "NF")  # people could not say, or saw no face


def against_votes(data: FER2013, votes: pd.DataFrame) -> dict[str, Any]:
    """What the votes say of the labels, JSON-ready; ``votes``: those of `fer_repro.data.ferplus.votes` for ``data``.

    By usage, and for ``all``: ``images``; ``disagree``, where the label is not among the most voted for; ``non_face``
    and ``unknown``, where that got the most votes, alone; ``unclear``, where no column got more than half of the votes.
    ``by_label``: for each label how many images have their most votes (the first column of a tie) in each column.
    """
    counts = votes.to_numpy()
    most = counts.max(axis=1)
    own = counts[np.arange(len(data)), OWN[data.labels]]
    alone = (counts == most[:, None]).sum(axis=1) == 1
    top = counts.argmax(axis=1)
    found = {
        "disagree": own < most,
        "non_face": alone & (top == VOTES.index("NF")),
        "unknown": alone & (top == VOTES.index("unknown")),
        "unclear": 2 * most <= counts.sum(axis=1),
    }
    parts = {"all": np.ones(len(data), bool)} | {usage: data.usage == usage for usage in USAGES}
    report: dict[str, Any] = {
        name: {"images": int(part.sum())} | {what: int((part & where).sum()) for what, where in found.items()}
        for name, part in parts.items()
    }
    report["by_label"] = {
        label: dict(zip(VOTES, np.bincount(top[data.labels == at], minlength=len(VOTES)).tolist(), strict=True))
        for at, label in enumerate(LABELS)
    }
    return report


def ids_of_nothing(data: FER2013, votes: pd.DataFrame) -> np.ndarray:
    """The ids (str) of the images where most votes are for no face or for unknown, those of both columns together."""
    counts = votes.to_numpy()
    nothing = counts[:, [VOTES.index(name) for name in NOTHING]].sum(axis=1)
    return data.ids[2 * nothing > counts.sum(axis=1)]
