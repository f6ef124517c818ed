"""How many faces, from which sources, through which filter, into which training set."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fer_repro.data import LABELS, USAGES
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.errors import FerReproError
from fer_repro.papers.sdafe import generated
from fer_repro.papers.sdafe.generated import ARMS, Generated

OFFICIAL = np.asarray(OFFICIAL_COUNTS[USAGES.index("Training")])


def test_how_many_are_wanted():
    """The two targets' numbers from the official counts."""
    assert generated.needed(OFFICIAL, "neutral").tolist() == [970, 4529, 868, 0, 135, 1794, 0]
    assert generated.needed(OFFICIAL, "largest").tolist() == [3220, 6779, 3118, 0, 2385, 4044, 0]
    with pytest.raises(FerReproError, match="unknown target"):
        generated.needed(OFFICIAL, "happy")


def test_sources_are_neutral_and_are_used_again():
    labels = np.repeat(np.arange(7), [5, 1, 9, 12, 9, 2, 6])
    plan = generated.plan(labels, "neutral", surplus=2.0, seed=0)
    assert (labels[plan.sources] == 6).all()
    assert np.bincount(plan.classes, minlength=7).tolist() == [2, 10, 0, 0, 0, 8, 0]
    disgust = plan.sources[plan.classes == 1]
    assert len(set(disgust[:6])) == 6 and len(set(plan.seeds)) == len(plan)
    again, other = (generated.plan(labels, "neutral", 2.0, seed) for seed in (0, 1))
    assert np.array_equal(plan.seeds, again.seeds) and not np.array_equal(plan.seeds, other.seeds)
    assert len(generated.plan(labels, "neutral", 2.0, 0, most=3)) == 8
    for wrong, words in ((labels[labels != 6], "no neutral face"), (np.arange(7), "nothing to generate")):
        with pytest.raises(FerReproError, match=words):
            generated.plan(wrong, "neutral", 2.0, 0)


def test_psnr():
    rng = np.random.default_rng(0)
    faces = rng.integers(60, 200, (3, 48, 48), dtype=np.uint8)
    near = faces.copy()
    near[0, 0, 0] += 48  # a squared error of 48^2 in one of 48^2 pixels: a mean of 1
    values = generated.psnr(near, faces)
    assert values[0] == pytest.approx(20 * np.log10(255), abs=1e-4) and np.isinf(values[1:]).all()
    noise = rng.integers(0, 256, faces.shape, dtype=np.uint8)
    assert (
        generated.passes_psnr(values, 12.0).all()
        and not generated.passes_psnr(generated.psnr(noise, faces), 12.0).any()
    )
    # an upper bound rejects what did not change
    assert generated.passes_psnr(values, 12.0, highest=50.0).tolist() == [True, False, False]


def test_the_psnr_bound_is_a_percentile_of_a_pilot_spread_over_all():
    values = np.arange(1000, dtype=np.float32)
    assert generated.lowest_psnr(values, 10, pilot=500) == pytest.approx(99.9, abs=1)
    assert generated.lowest_psnr(values[:7], 0, pilot=500) == 0


def test_the_label_filter():
    cosines = np.full((4, 7), 0.1)
    cosines[0, 2] = 0.9  # fits
    cosines[1, 2], cosines[1, 3] = 0.5, 0.6  # another label fits better
    cosines[2, 2] = 0.2  # the best one, but weak
    cosines[3, 5] = 0.9  # wanted as 5, and fits
    wanted, lowest = np.array([2, 2, 2, 5]), np.full(7, 0.3, np.float32)
    assert generated.passes_cosine(cosines, wanted, lowest).tolist() == [True, False, False, True]
    each = np.tile(lowest, (4, 1))
    each[3, 5] = 0.95
    assert generated.passes_cosine(cosines, wanted, each).tolist() == [True, False, False, False]
    # the prompt of a class passes for that class: the cosine with itself is 1
    assert generated.passes_cosine(np.eye(7), np.arange(7), np.ones(7)).all()


def test_its_bounds_come_from_real_images():
    labels = np.repeat([0, 3], 5)
    cosines = np.zeros((10, 7))
    cosines[np.arange(10), labels] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.6, 0.7, 0.8, 0.9]
    found = generated.thresholds(cosines, labels, 25)
    assert found[[0, 3]] == pytest.approx([0.2, 0.6]) and (found[[1, 2, 4, 5, 6]] == 1).all()


def made(train, each=6):
    """``each`` candidates of every class that lacks some; every second passes PSNR, every third the label filter."""
    lacking = np.flatnonzero(generated.needed(np.bincount(train.labels, minlength=7), "neutral"))
    classes = np.repeat(lacking, each)
    n = len(classes)
    near, fitting = np.arange(n) % 2 == 0, np.arange(n) % 3 == 0
    neutral = np.flatnonzero(train.labels == 6)
    return Generated(
        images=np.random.default_rng(0).integers(0, 256, (n, 48, 48), dtype=np.uint8),
        source=np.asarray(train.ids)[np.resize(neutral, n)],
        classes=classes,
        seed=np.arange(n),
        psnr=np.linspace(5, 30, n).astype(np.float32),
        cosine=np.zeros(n, np.float32),
        guess=classes,
        near=near,
        fitting=fitting,
        accepted=near & fitting,
        seen=np.asarray(train.ids),
    )


@pytest.fixture(scope="module")
def train(few_synthetic):
    return few_synthetic.subset(few_synthetic.usage == "Training")


def test_the_arms_have_as_many_images_and_the_right_ones(train):
    store = made(train)
    counts = np.bincount(train.labels, minlength=7)
    lacking = generated.needed(counts, "neutral")
    added = {}
    for arm in ARMS:
        part, counted = generated.training_set(train, store, arm, "neutral", 0)
        assert len(part) == len(train) + lacking.sum() and set(part.usage) == {"Training"}
        assert sum(row["generated"] + row["repeated"] for row in counted) == lacking.sum()
        assert np.array_equal(part.images[: len(train)], train.images)
        names = [name for name in part.ids[len(train) :] if name.startswith("generated from ")]
        added[arm] = set(names)
        assert all(name.split(" as ")[0].removeprefix("generated from ") in set(train.ids) for name in names)
        if arm != "real-only":
            assert np.array_equal(np.bincount(part.labels, minlength=7), counts + lacking)
    assert not added["real-only"] and not added["oversampled"]
    assert added["both"] == added["psnr"] & added["cosine"] and added["both"] < added["psnr"]
    assert added["psnr"] | added["cosine"] < added["unfiltered"]


def test_where_nothing_passes_real_faces_are_repeated(train):
    store = made(train)
    nothing = dataclasses.replace(store, accepted=np.zeros(len(store.classes), bool))
    part, counted = generated.training_set(train, nothing, "both", "neutral", 0)
    plain, _ = generated.training_set(train, None, "oversampled", "neutral", 0)
    assert all(row["generated"] == 0 for row in counted) and np.array_equal(part.images, plain.images)


def test_what_is_refused(train, few_synthetic):
    with pytest.raises(FerReproError, match="unknown arm"):
        generated.training_set(train, None, "leaky", "neutral", 0)
    with pytest.raises(FerReproError, match="none were given"):
        generated.training_set(train, None, "both", "neutral", 0)
    generated.require_training_only(train, "a test")
    with pytest.raises(FerReproError, match="Training images only, got images of PrivateTest and PublicTest"):
        generated.require_training_only(few_synthetic, "a test")


def test_the_store_holds_every_field(train, tmp_path):
    store, path = made(train), tmp_path / "generated.npz"
    store.save(path)
    with np.load(path, allow_pickle=False) as file:
        back = Generated(**{name: file[name] for name in file.files})
    for field in dataclasses.fields(Generated):
        assert np.array_equal(getattr(back, field.name), getattr(store, field.name)), field.name
    assert back.digest() == store.digest() and back.rates() == store.rates()


def test_rates_count_what_passes(train):
    store = made(train)
    for row in store.rates():
        own = store.classes == LABELS.index(row["class"])
        assert (row["candidates"], row["psnr"]) == (6, int(store.near[own].sum()))
        assert row["both"] <= min(row["psnr"], row["cosine"])
