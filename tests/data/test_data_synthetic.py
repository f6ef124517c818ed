"""The synthetic faces: the same everywhere, in FER2013's proportions, learnable but not perfectly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fer_repro.data import LABELS, OFFICIAL, USAGES, load, synthetic
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.errors import FerReproError


@pytest.fixture(name="faces")
def default_faces(synthetic):
    """The session's synthetic faces under another name, since the module is called ``synthetic`` here."""
    return synthetic


def test_shape_and_kind(faces):
    assert faces.images.shape == (2000, 48, 48) and faces.images.dtype == np.uint8
    assert faces.labels.dtype == np.int64 and faces.name == "synthetic"
    assert [int((faces.usage == u).sum()) for u in USAGES] == [1600, 200, 200]
    assert len(set(faces.ids)) == 2000
    assert not faces.images.flags.writeable


def test_proportions(faces):
    counts = faces.counts().to_numpy()
    assert counts.min() >= 3
    np.testing.assert_allclose(counts[0] / 1600, OFFICIAL_COUNTS[0] / OFFICIAL_COUNTS[0].sum(), atol=1 / 1600)
    np.testing.assert_allclose(counts[1:] / 200, OFFICIAL_COUNTS[1:] / 3589, atol=1 / 200)


@pytest.mark.parametrize("size", [(7, 7, 7), (21, 30, 50), (300, 100, 100)])
def test_small_sizes_hold_every_class(size):
    counts = load("synthetic", size=size).counts().to_numpy()
    assert tuple(counts.sum(axis=1)) == size
    assert (counts.min(axis=1) >= np.minimum(3, np.array(size) // 7)).all()


def test_the_same_seed_gives_the_same_faces():
    first = load("synthetic", seed=3, size=(40, 20, 20))
    synthetic._draw.cache_clear()
    again = load("synthetic", seed=3, size=(40, 20, 20))
    assert first is not again and first.digest == again.digest
    np.testing.assert_array_equal(first.images, again.images)
    assert load("synthetic", seed=4, size=(40, 20, 20)).digest != first.digest


def test_faces_do_not_depend_on_the_other_usages():
    one, other = load("synthetic", size=(40, 20, 20)), load("synthetic", size=(90, 20, 20))
    np.testing.assert_array_equal(one.images[one.usage == "PublicTest"], other.images[other.usage == "PublicTest"])


def test_no_two_faces_are_the_same_and_none_is_empty(faces):
    rows = faces.images.reshape(2000, -1)
    assert len({r.tobytes() for r in rows}) == 2000
    assert rows.std(axis=1).min() > 5


@pytest.mark.parametrize(
    "size", [(1600, 200), (1600, 200, 6), (10.5, 20, 20), "abc", 5, (10**6, 200, 200), (None, 1, 2), (-9, 20, 20)]
)
def test_a_size_that_makes_no_sense(size):
    with pytest.raises(FerReproError, match="the size of the synthetic faces is"):
        load("synthetic", size=size)


@pytest.mark.parametrize("seed", [-1, 0.5, "1", None])
def test_a_seed_that_makes_no_sense(seed):
    with pytest.raises(FerReproError, match="the seed of the synthetic faces is"):
        load("synthetic", seed=seed)


def test_every_expression_moves_its_own_features():
    """Without pose, light and noise: the mean face of each expression differs from every other one's, eyes to mouth."""
    rng = np.random.default_rng(0)
    means = np.stack([synthetic._faces(np.full(96, c), rng).mean(axis=0) for c in range(len(LABELS))])
    features = means[:, 12:42, 8:40]
    for a in range(len(LABELS)):
        for b in range(a):
            assert np.abs(features[a] - features[b]).max() > 8, (LABELS[a], LABELS[b])


def test_a_small_network_learns_them_but_not_perfectly(faces, request):
    """Six epochs of a three-block network: far above the most frequent class, and below perfection."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine the threads of so small a network only wait for each other
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    torch.manual_seed(0)
    splits = OFFICIAL.split(faces)

    def tensors(part):
        return torch.tensor(part.images[:, None], dtype=torch.float32) / 255 - 0.5, torch.tensor(part.labels)

    def block(inputs, outputs):
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]

    x, y = tensors(splits.train)
    # Half the resolution keeps the test cheap; the expressions are still there.
    pool = nn.AvgPool2d(2)
    model = nn.Sequential(pool, *block(1, 24), *block(24, 48), *block(48, 64), nn.Flatten(), nn.Linear(64 * 9, 7))
    optimiser = torch.optim.AdamW(model.parameters(), 4e-3)
    for _ in range(6):
        for at in torch.randperm(len(x)).split(64):
            loss = nn.functional.cross_entropy(model(x[at]), y[at])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    model.eval()
    with torch.no_grad():
        correct = [(model(a).argmax(1) == b) for a, b in map(tensors, (splits.select, splits.test))]
    accuracy = torch.cat(correct).float().mean().item()
    chance = OFFICIAL_COUNTS[1:, LABELS.index("happy")].sum() / OFFICIAL_COUNTS[1:].sum()
    assert accuracy > chance + 0.2, f"{accuracy:.3f} is hardly more than the {chance:.3f} of always saying happy"
    assert accuracy < 0.97, f"{accuracy:.3f} leaves nothing to tell networks apart"
