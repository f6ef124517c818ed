"""The method without a network, end to end on synthetic faces: selection, ladder, determinism, resuming, stopping."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from fer_repro import data, papers
from fer_repro.recipe import step
from fer_repro.training.run import Interrupted, Run

pytest.importorskip("faiss")
VARIANT = papers.get("local-learning-bow")
SMALL = {
    "channels": ((4, 1, 150), (4, 2, 150)),
    "step": 4,
    "k": (20, 40),
    "C": (1.0, 10.0),
    "weights": ((1, 1), (0, 1)),
    "weight_pool": 100,
    "pool": "plain",
}


@pytest.fixture(scope="module")
def splits():
    return VARIANT.recipe("official", "smoke").protocol.split(data.load("synthetic", size=(400, 70, 70)))


def a_run(folder, seed=0, **changes):
    recipe = VARIANT.recipe("official", "smoke")
    options = step("visual-words", **(recipe.options.kwargs() | SMALL | changes))
    return Run(dataclasses.replace(recipe, options=options), seed, "cpu", folder, "digest")


@pytest.fixture(scope="module")
def fitted(splits, tmp_path_factory):
    run = a_run(tmp_path_factory.mktemp("run"))
    return run, VARIANT.fit(splits, run)


def test_settings_are_chosen_on_the_select_images(fitted, splits):
    run, classifier = fitted
    assert run.facts["status"] == "done"
    grid = {(row["k"], row["C"]): row["select_accuracy"] for row in run.facts["grid"]}
    assert set(grid) == {(20, 1.0), (20, 10.0), (40, 1.0), (40, 10.0)}
    chosen = run.facts["chosen"]
    assert grid[chosen["k"], chosen["C"]] == max(grid.values())
    tried = {tuple(row["weights"]): row["select_accuracy"] for row in run.facts["weights_tried"]}
    assert tried[chosen["weights"]] == max(tried.values())
    answers = classifier.predict_proba(splits.select.images).argmax(axis=1)
    assert (answers == splits.select.labels).mean() == pytest.approx(max(grid.values()))


def test_probabilities(fitted, splits):
    _, classifier = fitted
    rows = classifier.predict_proba(splits.test.images)
    assert rows.shape == (70, 7) and rows.dtype == np.float32
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-5)
    assert (rows.argmax(axis=1) == classifier.decisions(splits.test.images).argmax(axis=1)).all()
    # an image's answer does not depend on the images beside it
    np.testing.assert_allclose(rows[10:30], classifier.predict_proba(splits.test.images[10:30]), atol=1e-5)


def test_views_average_an_image_with_its_mirror(fitted, splits):
    _, classifier = fitted
    both = classifier.predict_proba(splits.test.images, with_views=True)
    turned = classifier.predict_proba(splits.test.images[:, :, ::-1], with_views=True)
    np.testing.assert_allclose(both, turned, atol=1e-6)


def test_it_learns_and_the_ladder_is_recorded(fitted, splits):
    run, classifier = fitted
    ladder = classifier.extra_scores(splits)["ladder"]
    assert [row["step"] for row in ladder] == ["histogram-global", "presence-global", "pyramid-global", "pyramid-local"]
    stages = {row["stage"]: row["select_accuracy"] for row in run.history}
    for row in ladder:
        for half in ("PublicTest", "PrivateTest"):
            assert row[half]["n"] == 70 and row[half]["accuracy"] == row[half]["correct"] / 70
        assert row["PublicTest"]["accuracy"] == pytest.approx(stages[row["step"]])
    commonest = np.bincount(splits.test.labels).max() / 70
    assert ladder[-1]["PrivateTest"]["accuracy"] > commonest + 0.05


def test_the_seed_decides_everything(fitted, splits, tmp_path):
    _, classifier = fitted
    again = VARIANT.fit(splits, a_run(tmp_path / "again"))
    other = VARIANT.fit(splits, a_run(tmp_path / "other", seed=1))
    images = splits.test.images
    assert np.array_equal(classifier.predict_proba(images), again.predict_proba(images))
    assert not np.array_equal(classifier.predict_proba(images), other.predict_proba(images))


def test_a_stopped_run_goes_on_to_the_same_result(fitted, splits, tmp_path, monkeypatch):
    _, classifier = fitted
    run = a_run(tmp_path)
    run.deadline = time.monotonic()
    with pytest.raises(Interrupted, match="time budget"):
        VARIANT.fit(splits, run)
    kept = sorted(path.name for path in tmp_path.glob("*.npz"))
    assert [name.split("-")[0] for name in kept] == ["vocabulary"]

    def fail(*arguments, **options):
        raise AssertionError("a cached vocabulary was made again")

    monkeypatch.setattr("fer_repro.local_learning.visual_words.train_vocabulary", fail)
    resumed = VARIANT.fit(splits, a_run(tmp_path))
    assert np.array_equal(resumed.predict_proba(splits.test.images), classifier.predict_proba(splits.test.images))


def test_damaged_and_foreign_pieces_are_not_used(fitted, splits, tmp_path):
    _, classifier = fitted
    first = a_run(tmp_path)
    VARIANT.fit(splits, first)
    words = next(tmp_path.glob("words-train-*.npz"))
    words.write_bytes(words.read_bytes()[:-200])
    resumed = a_run(tmp_path)
    again = VARIANT.fit(splits, resumed)
    assert np.array_equal(again.predict_proba(splits.test.images), classifier.predict_proba(splits.test.images))
    changed = a_run(tmp_path, blur=1.5)
    blurred = VARIANT.fit(splits, changed)
    assert not np.array_equal(blurred.predict_proba(splits.test.images), classifier.predict_proba(splits.test.images))


def test_a_mirrored_pool_holds_every_face_twice(splits, tmp_path):
    run = a_run(tmp_path, pool="mirrored")
    classifier = VARIANT.fit(splits, run)
    assert run.facts["pool"] == 800 and classifier.gram.shape == (800, 800)
    assert np.array_equal(classifier.labels[:400], classifier.labels[400:])
    turned = splits.train.images[:5, :, ::-1]
    rows = classifier.words.vectors(turned)[0]
    assert (abs(rows - classifier.words.vectors(splits.train.images[:, :, ::-1])[0][:5])).nnz == 0
