"""ResEmoteNet: its layers one by one, weights that never meet an image, both protocols, the flipped evaluation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fer_repro import data, papers
from fer_repro.claims import arithmetic
from fer_repro.claims.published import matrix_of
from fer_repro.errors import FerReproError
from fer_repro.evaluation.cost import count_parameters
from fer_repro.layers import IMAGENET_MEAN, IMAGENET_STD
from fer_repro.page import open_chapter
from fer_repro.papers.resemotenet import MirrorClassifier, ResEmoteNet, ResidualBlock, SqueezeExcite, figures
from fer_repro.parameters import FIELDS
from fer_repro.results import HALVES

VARIANT = papers.get("resemotenet")

# Measured by building the released classes: convolutions have biases, the two layers of the channel weights have none.
PARTS = {
    "stem": 1_792 + 128 + 73_856 + 256 + 295_168 + 512,
    "attention": 8_192,
    "blocks.0": 3_674_624,
    "blocks.1": 14_689_280,
    "blocks.2": 58_738_688,
    "head": 2_098_176 + 524_800 + 131_328 + 1_799,
}


def test_every_part_has_the_released_number_of_parameters():
    with torch.device("meta"):
        network = ResEmoteNet()
    assert {name: count_parameters(network.get_submodule(name)) for name in PARTS} == PARTS
    assert sum(PARTS.values()) == count_parameters(network) == 80_238_599


def test_linear_layers_may_keep_their_width():
    with torch.device("meta"):
        counted = [count_parameters(ResEmoteNet(divisor, scale_fc=False)) for divisor in (2, 4, 8)]
    assert counted == [21_086_983, 6_032_519, 2_135_623]


def test_maps_halve_to_one_cell_and_dropout_sits_where_released():
    network, shapes = ResEmoteNet(divisor=16).eval(), []
    for module in (network.stem, network.attention, *network.blocks):
        module.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    assert network(torch.rand(2, 1, 64, 64)).shape == (2, 7)
    assert shapes == [(16, 8, 8), (16, 8, 8), (32, 4, 4), (64, 2, 2), (128, 1, 1)]
    kinds = [type(layer).__name__ for layer in network.stem]
    once = ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    assert kinds == [*once, "Dropout", *once, "Dropout", *once]
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.2, 0.2, 0.5, 0.5, 0.5]


def test_the_network_sees_three_normalised_copies_of_the_grey_image():
    network, seen = ResEmoteNet(divisor=32).eval(), []
    network.stem.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    grey = torch.rand(2, 1, 64, 64)
    network(grey)
    expected = torch.cat([(grey - m) / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)], dim=1)
    torch.testing.assert_close(seen[0], expected)


def test_channel_weights_are_those_of_the_formula():
    block, maps = SqueezeExcite(32), torch.randn(3, 32, 5, 4)
    means = maps.flatten(2).mean(dim=2)
    inner = torch.relu(means @ block.squeeze.weight.T)
    expected = maps * torch.sigmoid(inner @ block.excite.weight.T)[:, :, None, None]
    torch.testing.assert_close(block(maps), expected)
    assert block.squeeze.weight.shape == (2, 32) and block.squeeze.bias is None and block.excite.bias is None


def test_a_block_adds_a_projected_shortcut():
    block, maps = ResidualBlock(4, 6).eval(), torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        block.bn2.weight.zero_()
        block.bn2.bias.zero_()
        torch.testing.assert_close(block(maps), torch.relu(block.shortcut(maps)))
    assert block.conv1.bias is not None and block.shortcut[0].bias is not None


def test_more_than_half_of_the_weights_never_meet_an_image():
    """The chapter's 44,040,192 weights: taps of the last block's kernels that see nothing but padding."""
    network = ResEmoteNet(divisor=16).eval()
    network(torch.rand(8, 1, 64, 64)).pow(2).sum().backward()
    last = network.blocks[2]
    alive = [(layer.weight.grad.abs().sum(dim=(0, 1)) > 0).sum().item() for layer in (last.conv1, last.conv2)]
    assert alive == [4, 1]
    assert (network.blocks[1].conv2.weight.grad.abs().sum(dim=(0, 1)) > 0).all()
    dead = 5 * 1024 * 2048 + 8 * 2048 * 2048
    assert dead == 44_040_192 > 80_238_599 / 2


def test_the_text_has_a_schedule_and_the_code_has_none():
    official, claimed = (VARIANT.recipe(protocol, "full") for protocol in papers.PROTOCOLS)
    for recipe in (official, claimed):
        (stage,) = recipe.stages
        assert (stage.epochs, stage.patience, recipe.batch_size, recipe.input_size) == (80, 16, 16, 64)
        assert str(stage.optimiser) == "sgd(lr=0.001, momentum=0.9, weight_decay=0.0001)"
        assert [s.name for s in recipe.augment] == ["flip"] and recipe.loss.name == "cross-entropy"
        assert recipe.views == recipe.plain and recipe.precision == "fp32"
    assert official.stages[0].schedule.kwargs() == {"factor": 0.1, "patience": 5}
    assert claimed.stages[0].schedule.name == "constant"
    assert official.sha256() != claimed.sha256()


def test_scores_of_flipped_images():
    """A network that predicts happy where the left side is brighter, else sad, with a small bonus for happy."""

    class Sided(nn.Module):
        def forward(self, images):
            left, right = images[..., :24].mean(dim=(1, 2, 3)), images[..., 24:].mean(dim=(1, 2, 3))
            logits = torch.full((len(images), 7), -9.0)
            logits[:, 3], logits[:, 4] = 0.1 + 5 * (left - right), 2 * (right - left)
            return logits

    faces = data.load("synthetic", size=(35, 21, 14))
    recipe = VARIANT.recipe("official", "smoke")
    splits = recipe.protocol.split(faces)
    inputs = torch.from_numpy(splits.test.images.copy())[:, None] / 255
    plain, flipped = (Sided()(faces).argmax(dim=1).numpy() for faces in (inputs, inputs.flip(-1)))
    found = MirrorClassifier(Sided(), recipe.shrunk(input_size=48), "cpu").extra_scores(splits)["mirror"]
    assert set(found) == set(HALVES)
    scores, labels = found["PrivateTest"], splits.test.labels
    assert scores["n"] == 14 and scores["correct_plain"] == (plain == labels).sum()
    assert scores["correct_mirrored"] == (flipped == labels).sum() and (plain != flipped).any()
    assert scores["accuracy_random_mirror"] == (scores["correct_plain"] + scores["correct_mirrored"]) / 28
    # In the mean of both logits the sides cancel and the small bonus for happy is left.
    assert scores["correct_flip_average"] == (labels == 3).sum()
    assert scores["accuracy_flip_average"] == scores["correct_flip_average"] / 14


def test_what_the_published_matrix_implies():
    matrix = matrix_of("resemotenet")
    official, published = (arithmetic.implied(matrix, images) for images in (figures.PRIVATE_TEST, matrix.class_counts))
    assert [round(100 * value, 1) for value in official] == [77.9, 78.4, 78.9]
    assert [round(100 * value, 1) for value in published] == [75.5, 76.0, 76.5]
    # the paper's counts are PrivateTest's, under other names
    assert sum(matrix.class_counts) == 3589 and arithmetic.same_numbers(matrix.class_counts) == "PrivateTest"
    body = figures.published_matrix().body
    assert "78.40" in body and "79.79" in body and "77.90 to 78.90" in body


def test_the_chapter_shows_scores_of_flipped_images_and_says_synthetic():
    chosen = {name: field.default for name, field in FIELDS.items()} | {"variant": "resemotenet", "device": "cpu"}
    chapter = open_chapter("resemotenet", chosen)
    with pytest.raises(FerReproError, match="run"):
        figures.mirror(chapter.result)
    chapter.run()
    page = figures.mirror(chapter.result)
    assert "not a result" in page.body
    scores = chapter.result.record["facts"]["mirror"]["PrivateTest"]
    assert f"{100 * scores['accuracy_random_mirror']:.2f}" in page.body
    assert scores["correct_plain"] / scores["n"] == pytest.approx(chapter.result.headline["accuracy"])
    chapter.result.record["facts"].pop("mirror")
    with pytest.raises(FerReproError, match="no scores of flipped images"):
        figures.mirror(chapter.result)
