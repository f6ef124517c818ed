"""Near-duplicates, what a look-up scores, and votes against labels, on sets whose answers are known by construction."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from test_data_ferplus import lines_for, write

from fer_repro.data import FER2013, audit
from fer_repro.data.audit import lookup, near, precision, votes
from fer_repro.data.ferplus import OWN, VOTES
from fer_repro.data.ferplus import votes as read_votes
from fer_repro.errors import FerReproError

MARGIN = 8


def fields(count: int, seed: int = 0) -> np.ndarray:
    """Smooth random pictures with details, uint8 [count,64,64]: no two of them look alike."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(2, count, 48 + 2 * MARGIN, 48 + 2 * MARGIN))
    coarse, fine = gaussian_filter(noise[0], (0, 9, 9)), gaussian_filter(noise[1], (0, 1.2, 1.2))
    rough = coarse / coarse.std(axis=(1, 2), keepdims=True) + 0.15 * fine / fine.std()
    return np.clip(128 + 45 * rough, 0, 255).astype(np.uint8)


def cut(field: np.ndarray, down: int = 0, right: int = 0) -> np.ndarray:
    return field[MARGIN + down : MARGIN + down + 48, MARGIN + right : MARGIN + right + 48]


def compressed(image: np.ndarray, quality: int = 40) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def faces(images, labels, usage) -> FER2013:
    ids = np.array([f"{u}-{n:02d}" for n, u in enumerate(usage)])
    labels = np.array(labels, np.int64)
    return FER2013(np.array(images, np.uint8), labels, np.array(usage), ids, "fer2013", "made up", "d" * 64)


@pytest.fixture(scope="module")
def planted() -> FER2013:
    """Twelve pictures, 0-8 in Training, and six more of the first ones in the test sets; 18 and 19 are blank."""
    field = fields(12)
    images = [cut(one) for one in field]
    marked = cut(field[3]).copy()
    marked[20:26, 4:44] = np.minimum(255, marked[20:26, 4:44].astype(int) + 40)
    images += [
        cut(field[0], 2, -3),  # 12: shifted
        (20 + 0.6 * compressed(cut(field[1], 1, 1))).astype(np.uint8),  # 13: compressed, darker, less contrast
        marked,  # 14: a watermark
        cut(field[4])[:, ::-1],  # 15: mirrored: not looked for
        cut(field[5], 7, 0),  # 16: shifted too far
        images[6],  # 17: identical
        np.full((48, 48), 9),
        np.full((48, 48), 10),
    ]
    labels = [n % 7 for n in range(12)] + [0, 2, 3, 4, 5, 0, 1, 2]
    usage = ["Training"] * 9 + ["PublicTest"] * 5 + ["PrivateTest"] * 6
    return faces(images, labels, usage)


def test_the_planted_pairs_are_found_and_no_others(planted):
    found = near.near_duplicates(planted)
    pairs = set(zip(found["first"], found["second"], strict=True))
    assert pairs == {(0, 12), (1, 13), (3, 14)}
    assert (found["correlation"] >= near.SHOWN).all() and found["correlation"].is_monotonic_decreasing
    assert (found["cosine"] >= near.ALIKE).all()


def test_the_correlation_is_that_of_numpy(planted):
    """Of the centre of one with the best window of the other, the smaller one of both directions."""
    centre = slice(3, 45)
    for pair in near.near_duplicates(planted).itertuples():
        ways = []
        for one, other in ((pair.first, pair.second), (pair.second, pair.first)):
            a, b = planted.images[one], planted.images[other]
            windows = [b[y : y + 42, x : x + 42] for y in range(7) for x in range(7)]
            ways.append(max(np.corrcoef(a[centre, centre].ravel(), window.ravel())[0, 1] for window in windows))
        assert pair.correlation == pytest.approx(min(ways), abs=6e-5)


def test_the_order_of_the_images_changes_nothing(planted):
    def named(data):
        found = near.near_duplicates(data)
        return {
            (frozenset((data.ids[a], data.ids[b])), c)
            for a, b, c in zip(found["first"], found["second"], found["correlation"], strict=True)
        }

    order = np.random.default_rng(5).permutation(len(planted))
    assert named(planted.subset(order)) == named(planted)


def test_a_shifted_copy_of_itself_correlates_fully():
    field = fields(1)[0]
    data = faces([cut(field), cut(field, 3, 3)], [0, 0], ["Training", "PublicTest"])
    assert near.near_duplicates(data)["correlation"].tolist() == [1.0]
    data = faces([cut(field), 255 - cut(field)], [0, 0], ["Training", "PublicTest"])
    assert near.near_duplicates(data).empty, "a negative is another picture"


def test_nothing_to_compare():
    blank = faces([np.full((48, 48), n) for n in range(3)], [0, 1, 2], ["Training"] * 3)
    assert near.near_duplicates(blank).empty
    assert near.near_duplicates(blank.subset([])).empty


def test_what_the_look_up_scores(planted):
    """PublicTest: 12 (right), 13 (another label); PrivateTest: 14 (right), and 17, identical with another label."""
    found = audit.audit(planted).numbers()
    assert found["lookup"] == {
        "PublicTest": {
            "identical": {"n": 0, "correct": 0, "accuracy": None, "of_test_set": 0.0},
            "identical_or_near": {"n": 2, "correct": 1, "accuracy": 0.5, "of_test_set": 0.2},
        },
        "PrivateTest": {
            "identical": {"n": 1, "correct": 0, "accuracy": 0.0, "of_test_set": 0.0},
            "identical_or_near": {"n": 2, "correct": 1, "accuracy": 0.5, "of_test_set": 1 / 6},
        },
    }


def test_the_majority_decides_and_the_most_alike_counts():
    pictures = [cut(one) for one in fields(2)]
    group = np.array([0, 0, 0, 0, 1, 2, 1])
    usage = ["Training", "Training", "Training", "PublicTest", "Training", "PrivateTest", "PublicTest"]
    data = faces([pictures[0]] * 7, [2, 5, 5, 5, 4, 4, 6], usage)
    pairs = pd.DataFrame({"first": [0, 4], "second": [5, 5], "correlation": [0.95, 0.97]})
    partner = lookup.near_in_training(data, group, pairs)
    assert partner.tolist() == [-1, -1, -1, -1, -1, 1, -1]
    found = lookup.lookup(data, group, partner)
    assert found["PublicTest"]["identical"] == {"n": 2, "correct": 1, "accuracy": 0.5, "of_test_set": 0.5}
    assert found["PrivateTest"]["identical_or_near"]["correct"] == 1


def test_the_findings_in_ids_and_numbers(planted):
    found = audit.audit(planted)
    assert found.findings() == {
        "identical_in_training": ["PrivateTest-17"],
        "near_in_training": ["PublicTest-12", "PublicTest-13", "PrivateTest-14"],
        "conflicting": ["Training-06", "PrivateTest-17"],
        "blank": ["PrivateTest-18", "PrivateTest-19"],
    }
    numbers = found.numbers()
    assert numbers["near"] == {
        **{"threshold": 0.92, "pairs": 3, "images": 6, "across": 3, "same_label": 2},
        "in_training": {"PublicTest": 2, "PrivateTest": 1},
    }
    assert numbers["by_usage"]["conflicting"] == {"Training": 1, "PublicTest": 0, "PrivateTest": 1}
    assert numbers["chance"] == pytest.approx(sum((np.bincount(planted.labels) / 20) ** 2))
    assert numbers["ferplus"] is None


def test_how_many_groups_reach_across_by_chance(planted):
    """One group of two: 1 minus the chance that both are in the same split."""
    expected = 1 - sum((n / 20) ** 2 for n in (9, 5, 6))
    assert audit.audit(planted).numbers()["across_by_chance"] == pytest.approx(expected, abs=5e-4)


def test_bands_cover_everything_from_the_lowest_edge_on(planted):
    correlation = np.array([0.5, 0.86, 0.8799, 0.88, 0.92, 0.9399, 0.98, 1.0])
    assert precision.band_of(correlation).tolist() == [-1, 0, 0, 1, 3, 3, 6, 6]
    counted = precision.bands(planted, near.near_duplicates(planted))
    assert sum(band["pairs"] for band in counted) == 3 and sum(band["same_label"] for band in counted) == 2
    assert near.NEAR in precision.EDGES and near.SHOWN == precision.EDGES[0]


def test_votes_against_labels():
    """Three images: one seen as labelled, one as no face, one where two columns share the votes."""
    data = faces([cut(one) for one in fields(3)], [3, 4, 0], ["Training", "PublicTest", "PrivateTest"])
    counts = np.zeros((3, 10), np.int64)
    counts[0, VOTES.index("happiness")] = 10
    counts[1, [VOTES.index("NF"), VOTES.index("sadness")]] = 6, 4
    counts[2, [VOTES.index("anger"), VOTES.index("unknown")]] = 5, 5
    table = pd.DataFrame(counts, index=data.ids, columns=list(VOTES))
    found = votes.against_votes(data, table)
    assert found["all"] == {"images": 3, "disagree": 1, "non_face": 1, "unknown": 0, "unclear": 1}
    assert found["PublicTest"] == {"images": 1, "disagree": 1, "non_face": 1, "unknown": 0, "unclear": 0}
    assert found["by_label"]["sad"]["NF"] == 1 and found["by_label"]["happy"]["happiness"] == 1
    assert votes.ids_of_nothing(data, table).tolist() == ["PublicTest-01"]


def test_the_audit_takes_votes_of_a_csv_alone(small_csv, small, tmp_path, planted):
    data = small(small_csv)
    table = write(tmp_path / "fer2013new.csv", lines_for(data.labels, data.usage))
    found = audit.audit(data, table).numbers()["ferplus"]
    counts = read_votes(data, table).to_numpy()
    own = counts[np.arange(len(data)), OWN[data.labels]]
    assert found["all"]["disagree"] == int((own < counts.max(axis=1)).sum()) > 0
    assert sum(found[usage]["images"] for usage in ("Training", "PublicTest", "PrivateTest")) == len(data)
    with pytest.raises(FerReproError, match="follow the rows of fer2013.csv"):
        audit.audit(planted, table)
