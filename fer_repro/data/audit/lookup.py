"""What the duplicates alone give away: test images labelled by the Training images that show the same, without any
model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from fer_repro.data.dataset import FER2013
from fer_repro.data.official import LABELS, USAGES

IDENTICAL, WITH_NEAR = "identical", "identical_or_near"


def near_in_training(data: FER2013, group: np.ndarray, pairs: pd.DataFrame) -> np.ndarray:
    """For each image the group of the Training image that it is a near-duplicate of, int64 [N]; -1 where there is none.

    The most alike one counts. ``group``: `groups` of the data; ``pairs``: near-duplicates, see `near_duplicates`.
    """
    trained = np.isin(group, group[data.usage == USAGES[0]])
    partner = np.full(int(group.max(initial=-1)) + 1, -1, np.int64)
    for first, second in pairs.sort_values("correlation", ascending=False)[["first", "second"]].to_numpy():
        for one, other in ((first, second), (second, first)):
            if trained[other] and partner[group[one]] < 0:
                partner[group[one]] = group[other]
    return partner[group]


def lookup(data: FER2013, group: np.ndarray, partner: np.ndarray) -> dict[str, dict[str, dict[str, Any]]]:
    """The score of the look-up on both test sets: usage -> `IDENTICAL` or `WITH_NEAR` -> n, correct and shares.

    An image is labelled by the majority of the identical Training images (a tie goes to the first class of LABELS);
    ``identical_or_near`` also labels those without one by the most alike near-duplicate (``partner``, see
    `near_in_training`). ``accuracy`` is that on the n images, ``of_test_set`` the share of the whole test set that the
    look-up gets right, every other image counted as wrong.
    """
    training = data.usage == USAGES[0]
    counts = np.zeros((int(group.max(initial=-1)) + 1, len(LABELS)), np.int64)
    np.add.at(counts, (group[training], data.labels[training]), 1)
    identical = counts[group].sum(axis=1) > 0
    source = np.where(identical, group, partner)
    guess = counts[source].argmax(axis=1)
    report: dict[str, dict[str, dict[str, Any]]] = {}
    for usage in USAGES[1:]:
        here = data.usage == usage
        report[usage] = {}
        for kind, known in ((IDENTICAL, identical), (WITH_NEAR, source >= 0)):
            n = int((here & known).sum())
            correct = int((here & known & (guess == data.labels)).sum())
            report[usage][kind] = {
                "n": n,
                "correct": correct,
                "accuracy": correct / n if n else None,
                "of_test_set": correct / int(here.sum()) if here.any() else None,
            }
    return report
