"""EmoNeXt: its parts, weights from three publishers, the attention that only the loss reads, rates, clipping, views."""

from __future__ import annotations

import math
import re

import pytest
import torch
from timm.models import convnext as timm_convnext
from torch import nn
from torch.nn import functional as F
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.ops import StochasticDepth
from torchvision.transforms import functional as transforms

from fer_repro import data, papers, pretrained
from fer_repro.errors import FerReproError
from fer_repro.evaluation.cost import count_parameters
from fer_repro.evaluation.tta import view_batch, view_draws
from fer_repro.layers import SqueezeExcite
from fer_repro.page import open_chapter
from fer_repro.papers.emonext import SIZES, BatchAttention, EmoNeXt, SpatialTransformer, build, figures, sampling_grid
from fer_repro.papers.emonext.weights import torchvision_names
from fer_repro.parameters import FIELDS
from fer_repro.recipe import step
from fer_repro.training.losses import SmoothedWithSpread, make_loss, spread
from fer_repro.training.optim import Ema, make_optimiser, make_schedule
from fer_repro.training.step import norm_limit
from fer_repro.training.traces import BATCHES, steps_left
from fer_repro.transforms import Augmenter

VARIANT = papers.get("emonext")
SMALL = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}
# Measured by building the released classes: backbone without the head, channel weights, attention, head.
PARTS = {
    "tiny": (27_820_128, 96_768, 1_773_312, 5_383),
    "small": (49_454_688, 96_768, 1_773_312, 5_383),
    "base": (87_566_464, 172_032, 3_150_848, 7_175),
    "large": (196_230_336, 387_072, 7_085_568, 10_759),
    "xlarge": (348_147_968, 688_128, 12_593_152, 14_343),
}


def full(protocol: str, size: str = "xlarge"):
    return papers.get("emonext" if size == "xlarge" else f"emonext-{size}").recipe(protocol, "full")


def small(**options) -> EmoNeXt:
    torch.manual_seed(0)
    return EmoNeXt(**(SMALL | {"input_size": 64} | options))


@pytest.mark.parametrize("size", SIZES)
def test_every_part_has_the_released_number_of_parameters(size):
    with torch.device("meta"):
        network = build(full("official", size))
    gates = sum(count_parameters(module) for module in network.modules() if isinstance(module, SqueezeExcite))
    backbone = count_parameters(network.features) - gates + count_parameters(network.norm)
    assert (backbone, gates, count_parameters(network.attention), count_parameters(network.head)) == PARTS[size]
    assert count_parameters(network.transformer.look) == 3_230
    assert count_parameters(network.transformer.answer) == 865_510
    # Skipped in training: linear from 0 to 0.1 over all blocks.
    drops = [module.p for module in network.modules() if isinstance(module, StochasticDepth)]
    torch.testing.assert_close(drops, torch.linspace(0, 0.1, sum(SIZES[size][0])).tolist())


def test_the_transformer_starts_as_the_identity():
    transformer, images = SpatialTransformer(224).eval(), torch.rand(2, 3, 224, 224)
    transformer.start_as_identity()
    assert transformer.look(images).shape == (2, 10, 52, 52)
    torch.testing.assert_close(transformer.theta(images), torch.eye(2, 3).expand(2, 2, 3))
    torch.testing.assert_close(transformer(images), images, atol=1e-4, rtol=0)


def test_the_sampling_grid_is_torchs_affine_grid():
    theta = torch.randn(3, 2, 3)
    torch.testing.assert_close(sampling_grid(theta, 9), F.affine_grid(theta, [3, 1, 9, 9], align_corners=True))


def test_half_precision_does_not_blur_the_identity():
    transformer, images = SpatialTransformer(64).eval(), torch.rand(1, 3, 64, 64)
    transformer.start_as_identity()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(transformer(images).float(), images, atol=1e-4, rtol=0)


def test_channel_weights_follow_each_halving_and_start_near_one_half():
    network = small()
    kinds = [[type(layer).__name__ for layer in part] for part in network.features]
    assert [len(part) for part in kinds] == [2, 1, 3, 1, 3, 2, 3, 1]
    assert all(kinds[index][2] == "SqueezeExcite" for index in (2, 4, 6))
    gate, maps = network.features[2][2], torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(gate(maps) / maps, torch.full_like(maps, 0.5), atol=0.02, rtol=0)


def test_attention_is_between_images_and_divides_by_the_fourth_root():
    attention, features = BatchAttention(16, 0.25), torch.randn(5, 16)
    tokens = F.layer_norm(features, (16,))
    scores = attention.query(tokens) @ attention.key(tokens).T / math.sqrt(math.sqrt(16))
    attended, weights = attention(features)
    torch.testing.assert_close(weights, scores.softmax(dim=1))
    torch.testing.assert_close(attended, weights @ attention.value(tokens) + tokens)
    usual = BatchAttention(16, 0.5)
    usual.load_state_dict(attention.state_dict())
    q, k, v = (layer(tokens)[None] for layer in (usual.query, usual.key, usual.value))
    torch.testing.assert_close(usual(features)[0], F.scaled_dot_product_attention(q, k, v)[0] + tokens)


def test_spread_lies_between_its_bounds():
    for n in (1, 10, 64):
        even, single = torch.full((n, n), 1 / n), torch.eye(n)
        assert spread(even).item() == pytest.approx(0, abs=1e-12)
        assert spread(single).item() == pytest.approx(figures.ceiling(n), rel=1e-5)
    assert figures.ceiling(64) == pytest.approx(0.0154, abs=5e-5)
    weights = torch.randn(12, 12, generator=torch.Generator().manual_seed(0)).mul(3).softmax(dim=1)
    assert spread(weights).item() == pytest.approx(weights.var(correction=0).item(), rel=1e-4)


def test_loss_is_smoothed_cross_entropy_plus_the_spread():
    logits, labels, weights = torch.randn(8, 7), torch.arange(8) % 7, torch.randn(8, 8).softmax(dim=1)
    logarithms = logits.log_softmax(dim=1)
    hard, even = -logarithms.gather(1, labels[:, None]).mean(), -logarithms.mean()
    loss = make_loss(full("claimed").loss)
    assert isinstance(loss, SmoothedWithSpread)
    torch.testing.assert_close(loss((logits, weights), labels), 0.8 * hard + 0.2 * even + spread(weights))
    assert figures.floor(0.2) == pytest.approx(0.765, abs=5e-4)


def test_predictions_do_not_depend_on_the_batch():
    network, images = small().eval(), torch.rand(3, 1, 64, 64)
    with torch.no_grad():
        together, alone = network(images), network(images[:1])
    torch.testing.assert_close(together[0][:1], alone[0], atol=1e-5, rtol=1e-4)
    assert alone[1].tolist() == [[1.0]] and spread(alone[1]) == 0


def test_only_the_values_never_get_a_gradient():
    network, loss = small(), SmoothedWithSpread()
    loss(network(torch.rand(6, 1, 64, 64)), torch.arange(6)).backward()
    never = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert never == ["attention.value.weight", "attention.value.bias"]
    found = figures.gradients()
    assert found.counts["attention: value"] == found.idle[0]["attention: value"] == found.idle[1]["attention: value"]
    assert found.counts["attention: value"] == 590_592
    # The transformer waits for its last layer, which starts as 0.
    look = "transformer: convolutions"
    assert (found.counts[look], found.idle[0][look]) == (3_230, 3_230) and found.idle[1][look] < 100
    assert found.idle[0]["stages"] == found.idle[0]["head"] == 0
    assert ">590,592<" in figures.idle_weights().body


def facebook_names(state):
    """A timm ConvNeXt's tensors under the names of Facebook's files."""
    renamed = {}
    for name, tensor in state.items():
        name = re.sub(r"^stem\.", "downsample_layers.0.", name)
        name = re.sub(r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name)
        name = re.sub(r"^stages\.(\d)\.blocks\.", r"stages.\1.", name)
        name = name.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        renamed[name.replace("head.norm", "norm").replace("head.fc", "head")] = tensor
    return renamed


def test_facebooks_and_timms_weights_give_timms_features():
    torch.manual_seed(0)
    given = timm_convnext.ConvNeXt(**SMALL, num_classes=21, ls_init_value=0.5).eval()
    facebooks = facebook_names(given.state_dict())
    back = timm_convnext.checkpoint_filter_fn(dict(facebooks), given)
    assert back.keys() == given.state_dict().keys() and "stages.0.0.pwconv1.weight" in facebooks
    images = torch.rand(2, 1, 64, 64)
    for state in (given.state_dict(), facebooks):
        network = small().eval()
        network.load_pretrained(state)
        for index in (2, 4, 6):
            network.features[index][2] = nn.Identity()
        with torch.no_grad():
            expected = given.forward_head(given.forward_features(images.expand(-1, 3, -1, -1)), pre_logits=True)
            features = network.norm(network.features(network.transformer(network.rgb(images))).mean(dim=(2, 3)))
        torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)


def test_torchvisions_weights_fit_and_others_are_refused():
    stages = zip(SMALL["dims"], (*SMALL["dims"][1:], None), SMALL["depths"], strict=True)
    given = ConvNeXt([CNBlockConfig(*stage) for stage in stages]).state_dict()
    network = small()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_pretrained(given)
    now = network.state_dict()
    assert torch.equal(now["features.5.1.block.3.weight"], given["features.5.1.block.3.weight"])
    assert torch.equal(now["norm.weight"], given["classifier.0.weight"])
    assert torch.equal(now["head.weight"], before["head.weight"])
    assert torch.equal(now["features.2.2.squeeze.weight"], before["features.2.2.squeeze.weight"])
    given.pop("features.3.0.layer_scale")
    with pytest.raises(FerReproError, match="1 missing .features.3.0.layer_scale."):
        network.load_pretrained(given)


@pytest.mark.parametrize("size", SIZES)
def test_timms_model_of_every_size_has_our_shapes(size):
    with torch.device("meta"):
        network = build(full("official", size))
        given = timm_convnext.ConvNeXt(*(3, 1000, "avg", 32, *SIZES[size])).state_dict()
    named = {name: tensor.shape for name, tensor in torchvision_names(given).items()}
    own = {name: tensor.shape for name, tensor in network.state_dict().items() if name.startswith(("features", "norm"))}
    added = {name for name in own if re.match(r"features\.[246]\.2\.", name)}
    assert {name: shape for name, shape in named.items() if not name.startswith("head")} == {
        name: shape for name, shape in own.items() if name not in added
    }
    weights = full("claimed", size).pretrained
    assert (weights.name, weights.source) == (f"convnext_{size}.fb_in22k", "timm")
    assert weights.file == f"convnext_{size}_22k_224.pth"


def test_a_file_of_facebooks_is_read_from_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path))
    given = timm_convnext.ConvNeXt(**SMALL, num_classes=21)
    weights = full("official").pretrained
    torch.save({"model": facebook_names(given.state_dict())}, tmp_path / weights.file)
    network = small()
    network.load_pretrained(pretrained.read(weights))
    assert torch.equal(network.features[0][0].weight, given.stem[0].weight)


def test_the_released_rate_rises_and_restarts_whatever_the_flag_says():
    released, flagged, corrected = figures.rates().values()
    found = released[:2200]
    expected = []
    for number in range(1, 2201):
        place = number % 1024
        rise = place / 128
        expected.append(1e-3 * (rise if place < 128 else (1 + math.cos(math.pi * (place - 128) / 896)) / 2))
    assert found == pytest.approx(expected, abs=1e-12)
    assert found[0] == pytest.approx(7.8125e-6) and found[127] == 1e-3 and found[1023] == found[2047] == 0
    assert flagged[:200] == pytest.approx([rate / 10 for rate in found[:200]])
    assert max(corrected) == pytest.approx(1e-4) and corrected.index(max(corrected)) == BATCHES
    assert corrected[-1] < 1e-9
    assert "7.8e-06 at the first batch, 0.001 at batch 128, 0 at batch 1024" in figures.schedule().caption


def test_a_resumed_schedule_goes_on():
    def made():
        optimiser = make_optimiser(step("adamw", lr=1.0), [nn.Parameter(torch.zeros(1))], fused=False)
        return optimiser, make_schedule(step("rising-restarts", rise=2, cycle=6, per="batch"), optimiser, 1, 10)

    (first, one), (second, two) = made(), made()
    for _ in range(3):
        first.step()
        one.after_batch()
    two.load_state_dict(one.state_dict())
    second.load_state_dict(first.state_dict())
    second.step()
    for _ in range(5):
        one.after_batch()
        two.after_batch()
        assert first.param_groups[0]["lr"] == second.param_groups[0]["lr"]


def test_what_the_recipes_share_and_where_they_part():
    claimed, official = full("claimed"), full("official")
    for recipe in (claimed, official):
        (stage,) = recipe.stages
        assert (recipe.batch_size, recipe.input_size, stage.optimiser["weight_decay"]) == (64, 224, 0.01)
        assert str(recipe.views) == "ten-crop, 224 of 236 pixels, mean of logits"
    (stage,) = claimed.stages
    assert (stage.epochs, stage.patience, stage.optimiser["lr"]) == (300, 12, 1e-3)
    assert claimed.selection.name(claimed.protocol) == "last epoch" and not claimed.selection.views
    assert (claimed.ema["measure"], claimed.ema["keep"]) == ("online", "average")
    assert [norm_limit(claimed.clip_norm, done) for done in (0, 1999, 2000)] == [2.0**-16, 2.0**-16, 2.0**-17]
    (stage,) = official.stages
    assert (stage.epochs, stage.patience, official.clip_norm) == (30, None, 1.0)
    assert official.selection.name(official.protocol) == "best epoch on PublicTest"
    assert (official.ema["measure"], official.ema["keep"]) == ("average", "average")
    rates = [full("official", size).stages[0].optimiser["lr"] for size in SIZES]
    assert rates == [1e-4, 1e-4, 5e-5, 5e-5, 5e-5]
    scratch = papers.get("emonext-tiny-scratch").recipe("official", "full")
    assert (scratch.epochs, scratch.stages[0].optimiser["lr"]) == (60, 5e-4)
    assert papers.get("emonext-tiny-scratch").recipe("claimed", "full").stages == full("claimed", "tiny").stages


def test_training_images_are_mirrored_turned_and_cropped_as_released():
    names = [[one.name for one in full(protocol).augment] for protocol in papers.PROTOCOLS]
    assert names == [["flip", "resize", "rotate", "crop"], ["flip", "flip", "resize", "rotate", "crop"]]
    assert full("claimed").augment[1]["vertical"] and full("claimed").augment[3]["degrees"] == 20
    # A face with a bright upper half: half of them come out upside down.
    face = torch.zeros(200, 1, 48, 48)
    face[:, :, :24] = 1
    made = Augmenter(full("claimed").augment)(face, torch.Generator().manual_seed(0))
    assert made.shape == (200, 1, 224, 224)
    below = made[:, 0, 140:200, 80:140].mean(dim=(1, 2)) > made[:, 0, 20:80, 80:140].mean(dim=(1, 2))
    assert 70 < int(below.sum()) < 130


def test_test_views_are_torchvisions_ten_crops_of_the_enlarged_face():
    face = torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    large = transforms.resize(face, [236, 236], antialias=True)
    expected = torch.cat(transforms.ten_crop(large, [224, 224]))
    torch.testing.assert_close(view_batch(face, full("claimed").views, 224), expected, atol=1e-5, rtol=0)
    middle = view_batch(face, full("official").plain, 224)
    torch.testing.assert_close(middle, expected[4:5], atol=1e-5, rtol=0)


def test_validation_as_released_sees_another_random_crop_each_time():
    views, face = full("claimed").plain, torch.rand(2, 1, 48, 48)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        seen = [view_batch(face, views, 224, view_draws(views, torch.device("cpu"))) for _ in range(2)]
    assert seen[0].shape == (2, 1, 224, 224) and not torch.equal(*seen)


def test_the_average_starts_after_a_hundred_batches_and_moves_every_16():
    model = nn.Linear(1, 1, bias=False)
    ema = Ema(full("claimed").ema, model)
    for batches, expected in ((96, 0.0), (112, 1 - 12 ** (-2 / 3)), (2000, 0.99)):
        nn.init.ones_(ema.module.weight)
        nn.init.zeros_(model.weight)
        ema.batches = batches - 1
        ema.after_batch(model)
        assert float(ema.module.weight) == pytest.approx(expected, abs=1e-5), batches
    nn.init.ones_(ema.module.weight)
    ema.after_batch(model)  # batch 2001 is not one of them
    assert float(ema.module.weight) == 1


def test_what_is_left_of_a_step_after_clipping():
    # The arithmetic of equal gradients: a norm of 2^-16 over 30,564,331 weights leaves 0.2 of a step.
    equal = torch.full((4,), 30_564_331**-0.5)
    assert float(steps_left(equal, 2.0**-16).mean()) == pytest.approx(0.216, abs=5e-3)
    assert float(steps_left(equal, 1.0).mean()) > 0.9999
    rows = [row.split("</td>") for row in figures.clipping().body.split("<tr>")[2:]]
    means = [float(row[-3].split(">")[-1].split("\u00a0")[0]) for row in rows]
    assert means[0] < 25 and all(a > b for a, b in zip(means[:3], means[1:4], strict=True)) and means[-1] > 95


def test_the_regulariser_is_small_beside_the_cross_entropy():
    found = figures.start()
    assert 1.9 < found.loss["cross-entropy"] < 2.4
    assert found.loss["spread"] == pytest.approx(found.spreads[0.25, 64], rel=1e-3)
    assert found.spreads[0.5, 64] < found.spreads[0.25, 64] < 0.1 * figures.ceiling(64)
    assert 0 < found.pull["spread"] < 0.1 * found.pull["cross-entropy"]
    assert "2.0\u00a0%" in figures.regulariser().body


def test_the_table_of_sizes_counts_what_is_declared():
    body = figures.sizes().body
    for text in (
        "30,564,331",
        "362,312,331",
        "4,196,352",
        ">45<",
        ">610<",
        "unused values",
        "Multiply-adds of one test image with ten crops",
    ):
        assert text in body, text


def test_a_run_records_the_parts_of_its_loss():
    chosen = {name: field.default for name, field in FIELDS.items()} | {"variant": "emonext", "device": "cpu"}
    chapter = open_chapter("emonext", chosen | {"epochs": 1})
    with pytest.raises(FerReproError, match="run"):
        figures.loss_parts(chapter.result)
    chapter.run()
    part = chapter.result.record["facts"]["loss_parts"]["PrivateTest"]
    assert (part["batches"], part["batch_size"]) == (140 // 32, 32)
    assert 0 <= part["spread"] <= figures.ceiling(32) and 0.765 < part["cross_entropy"] < 2.5
    page = figures.loss_parts(chapter.result)
    assert f"{part['cross_entropy']:.4f}" in page.body and "not a result" in page.body
    assert "two parts of the loss after training" in page.body
    # As the classifier's own probabilities have it, on the same images.
    splits = chapter.result.classifier.recipe.protocol.split(data.load("synthetic", size=(280, 140, 140)))
    images, labels = splits.test.images[:128], torch.tensor(splits.test.labels[:128].astype("int64"))
    scores = torch.tensor(chapter.result.classifier.predict_proba(images)).log()
    expected = 0.8 * F.nll_loss(scores, labels) - 0.2 * scores.mean()
    assert part["cross_entropy"] == pytest.approx(float(expected), abs=1e-4)
    chapter.result.record["facts"].pop("loss_parts")
    with pytest.raises(FerReproError, match="no parts of its loss"):
        figures.loss_parts(chapter.result)


def test_pictures_say_what_they_show():
    alt = figures.architecture().alt
    assert "conv 2×2, SqueezeExcite, 27 × CNBlock to 1024×14×14" in alt and "362,312,331 parameters in all" in alt
    figure = figures.crops_of_a_face()
    assert figure.remark and "synthetic faces" in figure.alt
    figure.canvas("dark")
    figures.schedule().canvas("dark")
