"""Accuracy on a part of the test set, against closed forms and a bootstrap over images, and from the stored results."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from made_results import made_result

from fer_repro import results
from fer_repro.data.audit import index
from fer_repro.errors import FerReproError
from fer_repro.project import default_results_dir
from fer_repro.results import clean_subset
from fer_repro.results.clean_subset import Part


def test_the_difference_is_that_of_the_two_accuracies():
    correct = np.array([True] * 6 + [False] * 4 + [True] * 9 + [False])
    flagged = np.array([True] * 10 + [False] * 10)
    found = clean_subset.score(correct, flagged, "PrivateTest")
    assert (found.whole, found.clean, found.left_out) == (Part(20, 15), Part(10, 9), Part(10, 6))
    assert found.difference == pytest.approx(0.9 - 0.75)
    assert found.interval[0] < found.difference < found.interval[1]


def test_newcombe_published_example():
    """56 of 70 against 48 of 80: 0.2, interval 0.0524 to 0.3339 (Newcombe 1998, table II, method 10)."""
    found = clean_subset.difference(Part(70, 56), Part(80, 48))
    assert np.array(found) * 150 / 80 == pytest.approx([0.2, 0.0524, 0.3339], abs=5e-5)


@pytest.mark.parametrize(("clean", "left_out"), [((3300, 2200), (289, 243)), ((3000, 1500), (589, 300))])
def test_the_interval_is_that_of_a_bootstrap_over_images(clean, left_out):
    """10,000 times all images with replacement, the clean ones and those left out each from their own."""
    rng = np.random.default_rng(0)
    (n, k), (m, j) = clean, left_out
    a, b = rng.binomial(n, k / n, 10_000) / n, rng.binomial(m, j / m, 10_000) / m
    differences = a - (n * a + m * b) / (n + m)
    found = clean_subset.difference(Part(n, k), Part(m, j))
    assert found[0] == pytest.approx(k / n - (k + j) / (n + m))
    assert found[1:] == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=4e-4)


def test_nothing_left_out_and_everything():
    assert clean_subset.difference(Part(5, 3), Part(0, 0)) == (0.0, 0.0, 0.0)
    with pytest.raises(FerReproError, match="the clean subset is empty"):
        clean_subset.difference(Part(0, 0), Part(5, 3))
    assert Part(0, 0).accuracy is None


@pytest.fixture
def scored():
    """A result with random predictions, and an index that flags the first 100 images of PrivateTest."""
    result = made_result()
    ids = result.predictions["PrivateTest_ids"]
    empty = dict.fromkeys(index.STRICT, [])
    found = empty | {"identical_in_training": ids[:100].tolist(), "near_in_training": ids[100:150].tolist()}
    known = dataclasses.replace(index.committed(), digest=result.record["data"]["digest"], findings=found)
    return result, known


def test_a_result_by_its_ids_and_its_test_time_augmentation(scored):
    result, known = scored
    found = clean_subset.of_result(result, index=known)
    right = result.predictions["PrivateTest_views"].argmax(axis=1) == result.predictions["PrivateTest_labels"]
    assert found.whole.accuracy == pytest.approx(result.score()["accuracy"])
    assert (found.left_out.n, found.left_out.correct) == (100, right[:100].sum())
    assert clean_subset.identical_only(result, index=known) == found.left_out
    assert clean_subset.of_result(result, findings=index.STRICT, index=known).clean.n == 3589 - 150


def test_other_ids_and_other_sets_have_no_clean_score(scored):
    result, known = scored
    assert clean_subset.of_result(result) is None, "made of another copy"
    rows = result.predictions | {"PrivateTest_ids": np.array([f"row-{n}" for n in range(3589)])}
    csv = dataclasses.replace(result, predictions=rows)
    assert clean_subset.of_result(csv, index=known) is None, "a CSV that was written from the pictures"
    assert clean_subset.of_result(result, "Training", index=known) is None


def test_every_stored_result_of_the_folder_copy_has_one():
    stored = clean_subset.every()
    assert len(stored) == len(results.all_folders(default_results_dir()))
    for result in stored:
        if result.record["data"]["digest"] != index.committed().digest:
            continue
        for usage in set(result.halves) & set(results.HALVES):
            found = clean_subset.of_result(result, usage)
            assert found.whole.accuracy == pytest.approx(result.score(usage)["accuracy"])
            parts = clean_subset.identical_only(result, usage)
            assert parts.n == index.committed().numbers["duplicates_in_training"][usage]
            assert found.clean.n + found.left_out.n == found.whole.n == 3589
