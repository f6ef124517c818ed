"""The small dual encoder: its loss by hand, its halves, and whether it finds the label of a face."""

from __future__ import annotations

import numpy as np
import torch

from fer_repro.data import LABELS
from fer_repro.papers.sdafe import mini_clip
from fer_repro.papers.sdafe.mini_clip import ContrastiveLoss, DualEncoder


def test_prompts_go_with_the_labels():
    assert len(mini_clip.PROMPTS) == len(LABELS) and LABELS[6] == mini_clip.ADJECTIVES[6] == "neutral"
    for label, prompt in zip(LABELS, mini_clip.PROMPTS, strict=True):
        assert label[:4] in prompt.split("with a")[1]


def test_both_towers_give_vectors_of_length_one():
    torch.manual_seed(0)
    network = DualEncoder((8, 8))
    rows = network(torch.rand(5, 1, 48, 48))
    assert rows.shape == (5, 7) and rows.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(network.read().norm(dim=1), torch.ones(7))


def test_the_loss_is_the_symmetric_one():
    """Against a loop over pictures and texts."""
    rng = np.random.default_rng(0)
    cosines, labels, scale = rng.uniform(-1, 1, (6, 7)), np.array([0, 0, 3, 3, 3, 6]), 5.0
    scaled = scale * cosines
    to_text = np.mean([np.log(np.exp(scaled[i]).sum()) - scaled[i, labels[i]] for i in range(6)])
    to_picture = []
    for text in (0, 3, 6):
        whole = np.log(np.exp(scaled[:, text]).sum())
        to_picture.append(np.mean([whole - scaled[i, text] for i in range(6) if labels[i] == text]))
    found = mini_clip.contrastive(torch.tensor(cosines), torch.tensor(scale), torch.tensor(labels))
    assert np.isclose(found.item(), (to_text + np.mean(to_picture)) / 2)


def test_the_halves_share_every_class():
    labels = np.repeat(np.arange(7), [40, 4, 40, 70, 48, 32, 50])
    side = mini_clip.halves(labels, seed=3)
    for index in range(7):
        assert abs(int(side[labels == index].sum()) * 2 - (labels == index).sum()) <= 1
    assert np.array_equal(side, mini_clip.halves(labels, 3)) and not np.array_equal(side, mini_clip.halves(labels, 4))


def test_it_finds_the_label_of_faces_it_has_seen(few_synthetic):
    torch.manual_seed(0)
    faces, labels = np.asarray(few_synthetic.images[:28]), np.asarray(few_synthetic.labels[:28])
    network, generator = DualEncoder((8, 16, 16)), torch.Generator().manual_seed(0)
    loss_of = ContrastiveLoss(torch.tensor(faces), torch.tensor(labels), 28)
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    before = mini_clip.cosines(network, faces, torch.device("cpu"))
    for _ in range(70):
        optimiser.zero_grad()
        loss_of(network, generator).backward()
        optimiser.step()
    after = mini_clip.cosines(network, faces, torch.device("cpu"))
    assert (before.argmax(axis=1) == labels).mean() < 0.5 < 0.6 < (after.argmax(axis=1) == labels).mean()
    assert mini_clip.cosines(network, faces[:0], torch.device("cpu")).shape == (0, 7)
