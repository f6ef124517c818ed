"""How good the threshold of near-duplicates is: pairs in bands of correlation, and a fixed sample of them judged by
looking at them.

Two things speak for a pair: that both pictures show the same photograph to whoever looks at them (``sample.json`` has
the ids of `SAMPLE` pairs for each band, and whether they do), and that the labels agree more often than those of
different faces that look alike.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_repro.data.audit.near import NEAR
from fer_repro.data.dataset import FER2013

EDGES = (0.86, 0.88, 0.90, NEAR, 0.94, 0.96, 0.98, 1.0)
SAMPLE = 24
RULE = f"the {SAMPLE} pairs of a band whose sha256 of '<first id> <second id>', ids in alphabetical order, comes first"
FILE = Path(__file__).with_name("sample.json")


def band_of(correlation: np.ndarray) -> np.ndarray:
    """The band of each correlation, int64 [P]: from its lower edge on, 1 in the last one; -1 below the lowest edge."""
    return np.minimum(np.searchsorted(EDGES, correlation, side="right"), len(EDGES) - 1) - 1


def bands(data: FER2013, alike: pd.DataFrame) -> list[dict[str, Any]]:
    """Each band of `EDGES`: ``low``, ``high``, the ``pairs`` in it and how many of these have the ``same_label``."""
    labels = data.labels[alike[["first", "second"]].to_numpy(np.int64)]
    same, band = labels[:, 0] == labels[:, 1], band_of(alike["correlation"].to_numpy())
    return [
        {"low": low, "high": high, "pairs": int((band == at).sum()), "same_label": int(same[band == at].sum())}
        for at, (low, high) in enumerate(zip(EDGES, EDGES[1:], strict=False))
    ]


def chosen(data: FER2013, alike: pd.DataFrame) -> list[list[tuple[str, str]]]:
    """The sample of each band by `RULE`: pairs of ids, each in alphabetical order."""
    pairs = np.sort(data.ids[alike[["first", "second"]].to_numpy(np.int64)].astype(str), axis=1)
    band = band_of(alike["correlation"].to_numpy())
    sample = []
    for at in range(len(EDGES) - 1):
        named = [(str(first), str(second)) for first, second in pairs[band == at]]
        named.sort(key=lambda pair: hashlib.sha256(" ".join(pair).encode()).digest())
        sample.append(named[:SAMPLE])
    return sample


@cache
def judged() -> dict[str, Any]:
    """The committed sample: ``how`` it was judged, and ``bands``, each with ``low``, ``high`` and ``pairs`` of [first
    id, second id, whether both show the same photograph]."""
    return json.loads(FILE.read_text(encoding="utf-8"))
