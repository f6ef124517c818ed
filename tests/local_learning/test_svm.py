"""The batched local machines against scikit-learn's, and the corners of a neighbourhood."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.svm import SVC

from fer_repro.errors import FerReproError
from fer_repro.local_learning import svm


def neighbourhoods(shift: float, images: int = 4, k: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors with a common part ``shift`` and a weak class part: gram, rows to one test point, labels 0..5."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, (images, k))
    points = rng.normal(size=(images, k + 1, 80)) + shift * rng.normal(size=(images, 1, 80))
    points[:, :k] += 0.4 * rng.normal(size=(7, 80))[labels]
    points /= np.linalg.norm(points, axis=2, keepdims=True)
    kernel = points @ points.transpose(0, 2, 1)
    return kernel[:, :k, :k], kernel[:, k, :k], labels


@pytest.mark.parametrize("shift", [0.2, 2.0])
@pytest.mark.parametrize("cost", [0.3, 1.0, 10.0, 100.0])
def test_decisions_equal_sklearn_one_against_all(shift, cost):
    gram, rows, labels = neighbourhoods(shift)
    found = svm.solve(gram, rows, labels, cost)
    for image in range(len(gram)):
        expected = [
            SVC(kernel="precomputed", C=cost, tol=1e-5)
            .fit(gram[image], np.where(labels[image] == c, 1, -1))
            .decision_function(rows[image : image + 1])[0]
            for c in range(6)
        ]
        np.testing.assert_allclose(found[image, :6], expected, atol=0.02)
        assert found[image].argmax() == np.argmax(expected)


@pytest.mark.parametrize("cost", [1.0, 10.0, 100.0])
def test_neighbours_that_are_nearly_parallel(cost):
    """Deep features of near neighbours: all coefficients end at their bounds, and the bias must not run away."""
    rng = np.random.default_rng(0)
    labels = rng.choice(7, 200, p=[0.3, 0.05, 0.2, 0.2, 0.1, 0.05, 0.1])
    points = np.abs(rng.normal(size=300)) + 0.1 * rng.normal(size=(201, 300)) * np.exp(-np.arange(300) / 60)
    points[:200] += 0.02 * rng.normal(size=(7, 300))[labels]
    points = np.maximum(points, 0)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    gram, row = points[:200] @ points[:200].T, points[200:] @ points[:200].T
    assert gram.mean() > 0.998
    found = svm.solve(gram[None], row, labels[None], cost)[0]
    machine = SVC(kernel="precomputed", C=cost, tol=1e-5)
    expected = [machine.fit(gram, labels == c).decision_function(row)[0] for c in range(7)]
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_a_class_without_neighbours_never_wins():
    gram, rows, labels = neighbourhoods(0.2)
    found = svm.solve(gram, rows, labels, 1.0)
    assert (labels != 6).all()
    assert (found[:, 6] <= np.minimum(found[:, :6].min(axis=1), -1)).all()


def test_neighbours_of_one_class_decide_for_it():
    gram, rows, labels = neighbourhoods(0.2)
    found = svm.solve(gram, rows, np.full_like(labels, 3), 10.0)
    np.testing.assert_allclose(found, np.where(np.arange(7) == 3, 1, -1) * np.ones((4, 1)), atol=1e-4)


def test_neighbours_are_the_nearest_with_ties_by_index():
    similarity = np.array([[0.1, 0.9, 0.5, 0.5, 0.2], [0.3, 0.3, 0.3, 0.3, 0.3]], np.float16)
    assert svm.neighbours(similarity, 3).tolist() == [[1, 2, 3], [0, 1, 2]]
    with pytest.raises(FerReproError, match="k = 6 .* pool of 5"):
        svm.neighbours(similarity, 6)


def test_kernels_of_sparse_vectors():
    rng = np.random.default_rng(1)
    # rare and frequent columns: both kinds of product are used
    dense = rng.random((30, 50)) * (rng.random((30, 50)) < np.linspace(0, 0.5, 50))
    dense /= np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-9)
    rows = sparse.csr_matrix(dense.astype(np.float32))
    whole = svm.self_kernel(rows, strip=8)
    assert whole.dtype == np.float16
    np.testing.assert_allclose(whole, dense @ dense.T, atol=1e-3)
    np.testing.assert_allclose(whole, svm.kernel(rows, rows, strip=7), atol=1e-3)


def test_local_decisions_use_each_image_own_neighbours():
    rng = np.random.default_rng(2)
    points = rng.normal(size=(90, 20))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    labels = rng.integers(0, 7, 80)
    pool, queries = points[:80], points[80:]
    gram, similarity = pool @ pool.T, queries @ pool.T
    stops = []
    found = svm.local_decisions(similarity, gram, labels, 25, (1.0, 10.0), lambda: stops.append(1))
    assert set(found) == {1.0, 10.0} and stops
    near = svm.neighbours(similarity, 25)
    for image in (0, 9):
        among = near[image]
        inner, row = gram[np.ix_(among, among)], similarity[image, among]
        alone = svm.solve(inner[None], row[None], labels[among][None], 10.0)
        np.testing.assert_allclose(found[10.0][image], alone[0], atol=0.01)


def test_temperature_minimises_log_loss_and_keeps_the_answer():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 7, 2000)
    logits = rng.normal(size=(2000, 7)) + 2 * np.eye(7)[labels]
    temperature = svm.fit_temperature(logits, labels)
    losses = [
        -np.log(svm.softmax(logits, t)[np.arange(2000), labels]).mean()
        for t in (temperature * 0.8, temperature, temperature * 1.25)
    ]
    assert losses[1] < losses[0] and losses[1] < losses[2]
    rows = svm.softmax(logits, temperature)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(rows.argmax(axis=1), logits.argmax(axis=1))
