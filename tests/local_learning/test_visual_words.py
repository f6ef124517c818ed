"""Dense SIFT against explicit loops, words against exact search, presence vectors against counting by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fer_repro.errors import FerReproError
from fer_repro.local_learning import visual_words
from fer_repro.local_learning.visual_words import SiftGrid


def slow_sift(image: np.ndarray, grid: SiftGrid, cell_row: int, cell_column: int) -> np.ndarray:
    """One descriptor, pixel by pixel, straight from the definition (no blur): the corner cell's centre is given."""
    grey = image.astype(float)
    histogram = np.zeros((4, 4, 8))
    for y in range(48):
        for x in range(48):
            up, down = grey[max(y - 1, 0), x], grey[min(y + 1, 47), x]
            left, right = grey[y, max(x - 1, 0)], grey[y, min(x + 1, 47)]
            dy = (down - up) / (2 if 0 < y < 47 else 1)
            dx = (right - left) / (2 if 0 < x < 47 else 1)
            turn = (math.atan2(dy, dx) / (2 * math.pi) * 8) % 8
            for i in range(4):
                for j in range(4):
                    near = max(0, 1 - abs(y - cell_row - i * grid.cell) / grid.cell)
                    near *= max(0, 1 - abs(x - cell_column - j * grid.cell) / grid.cell)
                    if near:
                        low = int(turn) % 8
                        histogram[i, j, low] += near * math.hypot(dx, dy) * (1 - turn % 1)
                        histogram[i, j, (low + 1) % 8] += near * math.hypot(dx, dy) * (turn % 1)
    flat = histogram.ravel()
    flat = np.minimum(flat / np.linalg.norm(flat), 0.2)
    return np.sqrt(flat / flat.sum()) if grid.root else flat / np.linalg.norm(flat)


@pytest.mark.parametrize("grid", [SiftGrid(step=5, cell=4, blur=0), SiftGrid(step=7, cell=3, blur=0, root=True)])
def test_sift_equals_the_definition(grid):
    image = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    found = visual_words.dense_sift(image[None], grid)[0]
    corners = grid.corners()
    assert found.shape == (len(corners) ** 2, 128) and found.dtype == np.float32
    for index in (0, 1, len(corners), len(corners) ** 2 - 1):
        row, column = corners[index // len(corners)], corners[index % len(corners)]
        np.testing.assert_allclose(found[index], slow_sift(image, grid, row, column), atol=1e-5)


def test_sift_follows_a_shift_and_ignores_contrast():
    rng = np.random.default_rng(1)
    wide = rng.integers(60, 120, (48, 50), dtype=np.uint8)
    grid = SiftGrid(step=2, cell=4)
    a, b = (visual_words.dense_sift(part[None], grid)[0].reshape(18, 18, 128) for part in (wide[:, :48], wide[:, 2:]))
    np.testing.assert_allclose(a[:, 4:-4], b[:, 3:-5], atol=1e-4)
    twice = visual_words.dense_sift((wide[None, :, :48] - 60) * 4, grid)[0]
    np.testing.assert_allclose(twice.reshape(18, 18, 128), a, atol=1e-4)


def test_flat_patches_give_zeros():
    assert not visual_words.dense_sift(np.full((2, 48, 48), 77, np.uint8), SiftGrid()).any()


def test_centres_lie_symmetric_in_the_image():
    for grid in (SiftGrid(2, 4), SiftGrid(1, 3), SiftGrid(5, 6)):
        centres = grid.centres()
        assert len(centres) == len(grid.corners()) ** 2
        assert abs(centres.min() + centres.max() - 47) <= 1


def test_impossible_grids_are_refused():
    for options in ({"step": 0}, {"cell": 13}, {"blur": -1}):
        with pytest.raises(FerReproError, match="SiftGrid"):
            SiftGrid(**options)


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    images = np.random.default_rng(2).integers(0, 256, (60, 48, 48), dtype=np.uint8)
    return visual_words.sample_descriptors(images, SiftGrid(step=3), 5000, seed=0)


def test_vocabulary_depends_on_the_seed_only(sample):
    pytest.importorskip("faiss")
    first, again, other = (visual_words.train_vocabulary(sample, 40, seed, 3) for seed in (0, 0, 1))
    assert first.shape == (40, 128)
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_too_few_descriptors_for_a_vocabulary(sample):
    with pytest.raises(FerReproError, match="ask for fewer"):
        visual_words.train_vocabulary(sample[:30], 40, 0)


@pytest.mark.parametrize(("words", "least"), [(300, 1.0), (2000, 0.9)])
def test_nearest_words_agree_with_exact_search(sample, words, least):
    pytest.importorskip("faiss")
    vocabulary, queries = sample[:words], sample[-500:]
    distance = (vocabulary**2).sum(1) - 2 * queries @ vocabulary.T
    exact = np.argsort(distance, axis=1)[:, :3]
    found = visual_words.WordFinder(vocabulary, probes=20).nearest(queries, 3)
    assert found.shape == (500, 3) and found.dtype == np.int32
    assert (found[:, 0] == exact[:, 0]).mean() >= least
    assert found.min() >= 0


def test_presence_by_hand():
    # two images, four descriptors, one in each quadrant; three words
    centres = np.array([[10, 10], [10, 40], [40, 10], [40, 40]], np.float32)
    words = np.array([[0, 1, 1, 1], [2, 2, 2, 2]])[:, :, None]
    flat = visual_words.spatial_words(words, centres, 3, 1).toarray()
    np.testing.assert_allclose(flat, [[2**-0.5, 2**-0.5, 0], [0, 0, 1]], rtol=1e-6)
    counted = visual_words.spatial_words(words, centres, 3, 1, counts=True).toarray()
    np.testing.assert_allclose(counted, np.array([[1, 3, 0], [0, 0, 10**0.5]]) / 10**0.5, rtol=1e-6)
    spatial = visual_words.spatial_words(words, centres, 3, 2).toarray()
    expected = np.zeros((2, 12))
    expected[0, [0, 4, 7, 10]] = expected[1, [2, 5, 8, 11]] = 0.5
    np.testing.assert_allclose(spatial, expected)


def test_several_words_per_descriptor_all_count_as_present():
    words = np.array([[[0, 2], [2, 1]]])
    found = visual_words.spatial_words(words, np.full((2, 2), 5, np.float32), 4, 1)
    np.testing.assert_allclose(found.toarray(), [[3**-0.5, 3**-0.5, 3**-0.5, 0]], rtol=1e-6)


def test_weighted_sum_is_the_sum_of_the_kernels():
    rng = np.random.default_rng(3)
    centres = SiftGrid(step=4).centres()
    words = rng.integers(0, 20, (6, len(centres), 1))
    levels = [visual_words.spatial_words(words, centres, 20, level) for level in (1, 2, 3)]
    joined = visual_words.weighted_sum(levels, (1, 0, 2))
    expected = (levels[0] @ levels[0].T + 2 * (levels[2] @ levels[2].T)).toarray() / 3
    np.testing.assert_allclose((joined @ joined.T).toarray(), expected, atol=1e-5)
    np.testing.assert_allclose((joined @ joined.T).diagonal(), 1, atol=1e-5)
    for bad in ((1, 1), (0, 0, 0), (1, -1, 1)):
        with pytest.raises(FerReproError, match="kernel weights"):
            visual_words.weighted_sum(levels, bad)
