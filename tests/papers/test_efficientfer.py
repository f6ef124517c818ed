"""EfficientFER: its parts one by one, the weights that never learn, the schedule that stands still, both protocols."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import efficientnet_v2_s

from fer_repro import papers
from fer_repro.errors import FerReproError
from fer_repro.evaluation.cost import count_parameters
from fer_repro.evaluation.tta import view_batch
from fer_repro.papers.efficientfer import CLASS_WEIGHTS, Cbam, EfficientFER, SelfAttention, build, figures
from fer_repro.recipe import step
from fer_repro.training.losses import make_loss
from fer_repro.training.optim import Ema
from fer_repro.training.step import norm_limit
from fer_repro.transforms import Augmenter

VARIANT = papers.get("efficientfer")
TINY = {"backbone": "tiny", "heads": 2, "width": 8, "ratio": 4, "hidden": (32, 16), "dropout": 0.0, "depth_drop": 0.0}
PARTS = {
    "features": 20_177_488,
    "attention": 1280 * 1536 + 1536 + 512 * 1280 + 1280,
    "cbam": 2 * 1280 * 80 + 98,
    "classifier": 656_896 + 131_840 + 1_799,
}


def full(protocol: str):
    return VARIANT.recipe(protocol, "full")


def test_every_part_has_the_released_number_of_parameters():
    with torch.device("meta"):
        network = build(full("official"))
    assert {name: count_parameters(network.get_submodule(name)) for name in PARTS} == PARTS
    assert sum(PARTS.values()) == count_parameters(network) == 23_797_177


def test_only_the_backbones_dropout_goes_its_skipped_blocks_stay():
    with torch.device("meta"):
        network = build(full("official"))
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.3, 0.3]
    skips = [module.p for module in network.modules() if type(module).__name__ == "StochasticDepth"]
    assert min(skips) == 0 and 0.19 < max(skips) < 0.2


def test_self_attention_is_torchs():
    layer, maps = SelfAttention(12, heads=3, width=5), torch.randn(2, 12, 2, 3)
    tokens = maps.flatten(2).transpose(1, 2)
    q, k, v = (part.view(2, 6, 3, 5).transpose(1, 2) for part in layer.qkv(tokens).split(15, dim=2))
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 6, 15)
    torch.testing.assert_close(layer(maps), layer.out(mixed).transpose(1, 2).view(2, 12, 2, 3))


def test_of_one_position_self_attention_is_a_linear_map_of_the_values():
    layer, vector = SelfAttention(12, heads=3, width=5), torch.randn(4, 12, 1, 1)
    values = vector.flatten(1) @ layer.qkv.weight[30:].T + layer.qkv.bias[30:]
    torch.testing.assert_close(layer(vector).flatten(1), layer.out(values))


def test_cbam_gates_channels_then_places():
    block, maps = Cbam(8, ratio=4), torch.randn(2, 8, 5, 4)
    down, up = block.channel[0].weight[:, :, 0, 0], block.channel[2].weight[:, :, 0, 0]

    def bottleneck(values):
        return torch.relu(values @ down.T) @ up.T

    gate = torch.sigmoid(bottleneck(maps.flatten(2).mean(2)) + bottleneck(maps.flatten(2).amax(2)))
    gated = maps * gate[:, :, None, None]
    seen = torch.stack((gated.mean(1), gated.amax(1)), dim=1)
    expected = gated * torch.sigmoid(F.conv2d(seen, block.spatial.weight, padding=3))
    torch.testing.assert_close(block(maps), expected)
    # Of one position mean and maximum are the same, and only the kernel's middle counts.
    vector = torch.randn(3, 8)
    gated = vector * torch.sigmoid(2 * bottleneck(vector))
    middle = block.spatial.weight[0, :, 3, 3]
    place = torch.sigmoid(middle[0] * gated.mean(1) + middle[1] * gated.amax(1))
    torch.testing.assert_close(block(vector[:, :, None, None]).flatten(1), gated * place[:, None])


def test_the_branches_are_added_without_a_skip_connection():
    network, maps = EfficientFER(**TINY).eval(), torch.randn(2, 48, 3, 3)
    pooled = maps.mean((2, 3), keepdim=True)
    expected = network.classifier((network.attention(pooled) + network.cbam(pooled)).flatten(1))
    torch.testing.assert_close(network.head(maps), expected)
    network.attend = "map"
    expected = network.classifier((network.attention(maps) + network.cbam(maps)).mean((2, 3)))
    torch.testing.assert_close(network.head(maps), expected)


def test_queries_keys_and_96_of_98_weights_have_no_gradient():
    found = figures.gradients()
    queries, spatial = "self-attention: queries and keys", "CBAM: spatial gate"
    assert sum(found.parts.values()) == 23_797_177
    assert found.parts[queries] == found.zero["pooled"][queries] == 1_311_744
    assert (found.parts[spatial], found.zero["pooled"][spatial]) == (98, 96)
    others = [name for name in found.parts if name not in (queries, spatial)]
    assert all(found.zero["pooled"][name] < 0.15 * found.parts[name] for name in others)
    assert found.unchanged["pooled"]
    # Before the pool they are alive.
    assert found.zero["map"][queries] < 1000 and found.zero["map"][spatial] == 0
    assert not found.unchanged["map"]
    body = figures.dead_weights().body
    assert "1,311,744" in body and ">96<" in body and "unchanged, bit for bit" in body


def test_biases_before_a_batch_norm_get_rounding_errors_only():
    torch.manual_seed(0)
    network = EfficientFER(**TINY)
    F.cross_entropy(network(torch.rand(16, 1, 48, 48)), torch.arange(16) % 7).backward()
    size = {name: p.grad.norm() / p.grad.numel() ** 0.5 for name, p in network.named_parameters()}
    for name in ("attention.out", "classifier.0", "classifier.4"):
        assert size[f"{name}.bias"] < 1e-4 * size[f"{name}.weight"], name
    assert size["classifier.8.bias"] > 0.1 * size["classifier.8.weight"]


def test_torchvisions_weights_go_into_the_backbone():
    torch.manual_seed(0)
    given = efficientnet_v2_s()
    with torch.random.fork_rng():
        network = build(full("claimed")).eval()
    network.load_pretrained(given.state_dict())
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network.features(images), given.eval().features(images))
    state = given.state_dict()
    state.pop("features.0.0.weight")
    with pytest.raises(FerReproError, match="1 missing"):
        network.load_pretrained(state)


def test_class_weights_are_those_of_the_training_images():
    expected = (1.0266, 9.4066, 1.0010, 0.5684, 0.8491, 1.2934, 0.8260)
    assert CLASS_WEIGHTS == pytest.approx(expected, abs=5e-5)


def test_focal_loss_is_a_plain_mean():
    logits, labels = torch.randn(20, 7), torch.arange(20) % 7
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    own = p[np.arange(20), labels.numpy()]
    expected = (np.array(CLASS_WEIGHTS)[labels] * (1 - own) ** 2 * -np.log(own)).mean()
    for recipe in (full("official"), full("claimed")):
        assert float(make_loss(recipe.loss)(logits, labels)) == pytest.approx(expected, rel=1e-5)
    assert float(make_loss(step("focal", gamma=0.0))(logits, labels)) == pytest.approx(
        float(F.cross_entropy(logits, labels)), rel=1e-5
    )
    with pytest.raises(FerReproError, match="has 3 numbers"):
        make_loss(step("focal", class_weights=(1.0, 2.0, 3.0)))


def test_the_released_schedule_stands_still_and_the_corrected_one_moves():
    released, _, corrected = figures.rates().values()
    rates, betas = zip(*released, strict=True)
    assert len(rates) == 50 and set(np.round(betas, 4)) == {0.95}
    assert rates[0] == pytest.approx(2e-4) and max(rates) < 2.008e-4
    rates, betas = zip(*corrected, strict=True)
    assert len(rates) == 30 and max(rates) == pytest.approx(5e-4, rel=0.01) and rates[-1] < 1e-5
    assert min(betas) == pytest.approx(0.85, abs=1e-3)
    figure = figures.schedule()
    assert "0.000200 in the first epoch and 0.000201 in the last" in figure.caption
    assert figures.BATCHES == 449


def test_what_the_recipes_share_and_where_they_part():
    claimed, official = full("claimed"), full("official")
    for recipe in (claimed, official):
        (stage,) = recipe.stages
        assert (stage.patience, recipe.batch_size, recipe.input_size, recipe.precision) == (7, 64, 224, "bf16")
        assert recipe.selection.name(recipe.protocol) == "epoch of lowest loss on PublicTest"
        assert stage.optimiser["weight_decay"] == 0.03 and recipe.views == recipe.plain
        assert recipe.pretrained.sha256 == "dd5fe13b" and recipe.ema["measure"] == "average"
    assert (claimed.epochs, claimed.ema["keep"]) == (50, "online")
    assert (official.epochs, official.ema["keep"], official.clip_norm) == (30, "average", 1.0)
    limits = [norm_limit(claimed.clip_norm, done) for done in (0, 1999, 2000, 6000)]
    assert limits == [2.0**-16, 2.0**-16, 2.0**-17, 2.0**-19]


def test_the_average_follows_the_librarys_decay():
    """1 - (1 + step - 101)^(-2/3), as ema_pytorch computes it."""
    model = nn.Linear(1, 1, bias=False)
    ema = Ema(full("official").ema, model)
    nn.init.ones_(model.weight)
    for batches, expected in ((50, 0.0), (101, 0.0), (449, 0.980), (5 * 449, 0.994), (14 * 449, 0.997)):
        nn.init.zeros_(ema.module.weight)
        ema.batches = batches - 1
        ema.after_batch(model)
        assert 1 - float(ema.module.weight) == pytest.approx(expected, abs=5e-4), batches


def test_training_and_test_images_are_enlarged_alike():
    recipe = full("official")
    faces = torch.rand(4, 1, 48, 48, generator=torch.Generator().manual_seed(0)).mul_(255).round_().div_(255)
    seen = view_batch(faces, recipe.plain, recipe.input_size)
    enlarged = Augmenter(recipe.augment[:1])(faces.clone(), torch.Generator())
    assert seen.shape == (4, 1, 224, 224) and torch.equal(seen, enlarged)
    assert str(recipe.plain) == "lanczos4, 224 pixels"
    made = Augmenter(recipe.augment)(faces.clone(), torch.Generator().manual_seed(1))
    assert made.shape == seen.shape and 0 <= made.min() and made.max() <= 1
    assert [one.name for one in recipe.augment] == [
        "lanczos4",
        "flip",
        "brightness_contrast",
        "affine",
        "one_of",
        "one_of",
    ]


def test_what_is_left_of_a_step_after_clipping():
    page = figures.clipping()
    rows = [row.split("</td>") for row in page.body.split("<tr>")[2:]]
    means = [float(row[-3].split(">")[-1].split("\u00a0")[0]) for row in rows]
    assert len(means) == 5 and means[0] < 15
    assert all(later < before for before, later in zip(means[:3], means[1:4], strict=True))
    assert means[-1] > 95


def test_the_picture_counts_every_parameter():
    figure = figures.architecture()
    assert "10 × FusedMBConv to 64×28×28; 30 × MBConv to 256×7×7" in figure.alt
    assert "23,797,177 parameters in all" in figure.alt


def test_the_augmented_face_says_that_it_is_synthetic():
    figure = figures.augmented()
    assert figure.remark and "synthetic faces" in figure.alt
    figure.canvas("dark")
