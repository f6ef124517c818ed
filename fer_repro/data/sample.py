"""A fixed random sample of Training, as large as a test set: how well a model knows the images it may be trained on."""

from __future__ import annotations

import hashlib

import numpy as np

from fer_repro.data.dataset import FER2013
from fer_repro.data.official import OFFICIAL_COUNTS, USAGES

SAMPLE = int(OFFICIAL_COUNTS[1].sum())  # 3,589 images, as many as each test set has
SEED = 0
RULE = f"the {SAMPLE:,} images of {USAGES[0]} whose sha256 of '{SEED}/<id>' comes first"
"""As the results of packages record it."""
WORDS = (
    f"a random sample of {SAMPLE:,} images of {USAGES[0]} that is the same everywhere: those with the smallest SHA-256 "
    f"of '{SEED}/' and their id"
)


def training_sample(faces: FER2013, size: int = SAMPLE) -> FER2013:
    """``size`` images of Training (all where there are fewer), chosen by `RULE` and in the order of ``faces``.

    Their digests decide, so the choice depends on the ids alone: not on the order of the copy, and on no library's
    random numbers.
    """
    training = np.flatnonzero(faces.usage == USAGES[0])
    ranks = [hashlib.sha256(f"{SEED}/{name}".encode()).digest() for name in faces.ids[training].tolist()]
    chosen = sorted(range(len(training)), key=ranks.__getitem__)[:size]
    return faces.subset(np.sort(training[chosen]))
