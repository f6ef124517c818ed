"""Duplicates, contradicting labels and empty images, on a set whose answers are known by construction."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fer_repro.data import LABELS, audit
from fer_repro.errors import FerReproError


@pytest.fixture
def known(few_synthetic):
    """20 faces: 0-11 Training, 12-15 PublicTest, 16-19 PrivateTest, with copies planted among them."""
    images = few_synthetic.images[:20].copy()
    labels = np.arange(20) % 7
    images[1] = images[0]  # a pair inside Training, two labels
    images[12] = images[2]  # Training and PublicTest
    labels[12] = labels[2]
    images[16] = images[3]  # Training and both tests, three images, one label
    images[13] = images[3]
    labels[[13, 16]] = labels[3]
    images[19] = images[15]  # PublicTest and PrivateTest only
    labels[19] = labels[15]
    images[7] = 90  # constant
    images[8] = 30
    images[8, 5, 5] = 32  # nearly constant
    usage = np.array(["Training"] * 12 + ["PublicTest"] * 4 + ["PrivateTest"] * 4)
    ids = np.array([f"face-{i:02d}" for i in range(20)])
    return dataclasses.replace(few_synthetic, images=images, labels=labels, usage=usage, ids=ids)


def test_summary(known):
    assert audit.summary(known) == {
        "groups": 4,
        "images": 9,
        "across": 3,
        "conflict": 1,
        "duplicates_in_training": {"PublicTest": 2, "PrivateTest": 1},
        "constant": 1,
        "almost_constant": 2,
    }


def test_duplicates_stand_side_by_side(known):
    frame = audit.duplicates(known)
    assert list(frame["position"]) == [0, 1, 2, 12, 3, 13, 16, 15, 19]
    assert list(frame["group"]) == [0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert list(frame["size"]) == [2, 2, 2, 2, 3, 3, 3, 2, 2]
    assert list(frame.groupby("group")["across"].first()) == [False, True, True, True]
    assert list(frame.groupby("group")["conflict"].first()) == [True, False, False, False]
    assert frame["label"].iloc[0] == LABELS[0] and frame["id"].iloc[3] == "face-12"


def test_twins(known):
    assert list(audit.duplicates_in_training(known, "PublicTest")) == ["face-12", "face-13"]
    assert list(audit.duplicates_in_training(known, "PrivateTest")) == ["face-16"]
    for usage in ("Training", "test"):
        with pytest.raises(FerReproError, match="expected PublicTest or PrivateTest"):
            audit.duplicates_in_training(known, usage)


def test_constant(known):
    assert list(audit.constant_images(known)) == ["face-07"]
    assert list(audit.constant_images(known, spread=3)) == ["face-07", "face-08"]


def test_one_pixel_less_is_no_duplicate(known):
    images = known.images.copy()
    images[1, 47, 47] ^= 1
    assert audit.summary(dataclasses.replace(known, images=images))["groups"] == 3


def test_nothing_to_find(few_synthetic):
    found = audit.summary(few_synthetic)
    assert found["groups"] == found["images"] == found["constant"] == 0
    assert list(audit.duplicates(few_synthetic).columns) == [
        "group",
        "position",
        "id",
        "usage",
        "label",
        "size",
        "across",
        "conflict",
    ]
