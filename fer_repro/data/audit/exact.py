"""Exact findings: duplicates, contradicting labels, blank images.

Two images are duplicates where all their 2,304 decoded pixels agree. A model may have seen a scored image that has a
duplicate in Training; in a group with several labels at least one label is wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from fer_repro.data.dataset import FER2013
from fer_repro.data.official import LABELS, PIXELS, USAGES
from fer_repro.errors import FerReproError

JPEG_SPREAD = 3  # what compression adds to a constant image; a picture of anything spreads over dozens of grey values


def groups(data: FER2013) -> np.ndarray:
    """The number of each image's group of identical images, int64 [N]; one without a duplicate is alone in its."""
    seen: dict[bytes, int] = {}
    rows = np.ascontiguousarray(data.images).reshape(len(data), PIXELS)
    return np.fromiter((seen.setdefault(row.tobytes(), len(seen)) for row in rows), np.int64, len(data))


def duplicates(data: FER2013) -> pd.DataFrame:
    """One row for every image that has an exact duplicate, duplicates side by side.

    Columns: ``group`` (0, 1, ...), ``position`` (in ``data``), ``id``, ``usage``, ``label`` (the class's name), and of
    its group: ``size``, ``across`` (it spans several usages), ``conflict`` (it carries several labels).
    """
    group = groups(data)
    size = np.bincount(group)[group]
    at = np.flatnonzero(size > 1)
    at = at[np.argsort(group[at], kind="stable")]
    frame = pd.DataFrame(
        {
            "group": pd.factorize(group[at])[0],
            "position": at,
            "id": data.ids[at],
            "usage": data.usage[at],
            "label": np.array(LABELS)[data.labels[at]],
            "size": size[at],
        }
    )
    by_group = frame.groupby("group")
    frame["across"] = by_group["usage"].transform("nunique") > 1
    frame["conflict"] = by_group["label"].transform("nunique") > 1
    return frame


def duplicates_in_training(data: FER2013, usage: str) -> np.ndarray:
    """The ids (str, in the order of ``data``) of the images of ``usage`` that are also, pixel by pixel, in Training."""
    if usage not in USAGES[1:]:
        raise FerReproError(
            f"duplicates in Training were asked for usage '{usage}', expected PublicTest or PrivateTest"
        )
    group = groups(data)
    trained = np.isin(group, group[data.usage == "Training"])
    return data.ids[trained & (data.usage == usage)]


def constant_images(data: FER2013, spread: int = 0) -> np.ndarray:
    """The ids (str) of the images whose brightest and darkest pixel differ by at most ``spread`` grey values.

    They show nothing. JPEG compression can lend a constant image a spread of a few values.
    """
    rows = data.images.reshape(len(data), PIXELS)
    return data.ids[rows.max(axis=1) - rows.min(axis=1) <= spread]


def summary(data: FER2013) -> dict[str, Any]:
    """The audit in numbers, JSON-ready.

    ``groups`` of duplicates and the ``images`` in them, groups ``across`` usages, groups with a ``conflict`` of labels,
    images with ``duplicates_in_training`` by usage, ``constant`` images, and images that are
    ``almost_constant`` (within JPEG_SPREAD grey values, the constant ones included).
    """
    frame = duplicates(data)
    first = frame.drop_duplicates("group")
    return {
        "groups": int(len(first)),
        "images": int(len(frame)),
        "across": int(first["across"].sum()),
        "conflict": int(first["conflict"].sum()),
        "duplicates_in_training": {u: int(len(duplicates_in_training(data, u))) for u in USAGES[1:]},
        "constant": int(len(constant_images(data))),
        "almost_constant": int(len(constant_images(data, JPEG_SPREAD))),
    }
