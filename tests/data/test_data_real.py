"""The real data set against what is known of it; skipped where FER2013_ROOT does not name it."""

from __future__ import annotations

import numpy as np

from fer_repro.data import audit, describe
from fer_repro.data.official import OFFICIAL_COUNTS


def test_counts_and_digest(real):
    np.testing.assert_array_equal(real.counts().to_numpy(), OFFICIAL_COUNTS)
    report = describe(real)
    assert report["digest_verified"]
    if real.facts["layout"] == "folder copy":
        assert report["known_copy"] == "the JPEG copy on Kaggle (msambare/fer2013)"
    assert len(set(real.ids)) == 35_887


def test_the_audit(real):
    """The duplicates of the JPEG copy; a CSV has other pixels, so its numbers may differ a little."""
    found = audit.summary(real)
    if real.facts["layout"] == "folder copy":
        assert found == {
            "groups": 1516,
            "images": 3369,
            "across": 557,
            "conflict": 57,
            "duplicates_in_training": {"PublicTest": 280, "PrivateTest": 288},
            "constant": 12,
            "almost_constant": 13,
        }
    else:
        assert found["groups"] > 1000 and found["duplicates_in_training"]["PrivateTest"] > 200


def test_it_is_opened_from_the_cache(real, real_root):
    from fer_repro.data import load

    again = load(root=real_root)
    assert again.facts["from_cache"] and again.digest == real.digest
