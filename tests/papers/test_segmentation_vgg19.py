"""Segmentation VGG-19: torchvision's backbone with gates, their effect, two trainings, every reading of a number."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from apple_gpu import WithoutFloat64, exact_there
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchvision.models.vgg import cfgs, make_layers

from fer_repro import data, papers, pretrained
from fer_repro.claims import declared_parameters
from fer_repro.errors import FerReproError
from fer_repro.evaluation.cost import count_parameters
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.page import open_chapter
from fer_repro.papers import segmentation_vgg19 as paper
from fer_repro.papers.segmentation_vgg19 import PLAIN, ROW, Gate, SegmentationVgg19, Vgg19Classifier, figures, gates
from fer_repro.papers.segmentation_vgg19.gates import describe, gate_statistics
from fer_repro.parameters import FIELDS
from fer_repro.recipe import step
from fer_repro.training.optim import make_optimiser, make_schedule

SMALL = {"widths": (4, 8, 8, 16, 16), "hidden": 12, "dropout": 0.0}


def small(**options):
    torch.manual_seed(0)
    return SegmentationVgg19(**(SMALL | options))


# ---- the network -----------------------------------------------------------------------------------------------------


def test_every_part_has_the_released_number_of_parameters():
    with torch.device("meta"):
        network = SegmentationVgg19()
    gates = [count_parameters(gate) for gate in network.gates.values()]
    assert list(network.gates) == ["1", "2", "3", "5"] and gates == [349_312, 1_394_944, 5_575_168, 22_291_456]
    assert count_parameters(network.backbone()) == 20_035_392 and count_parameters(network.head) == 119_574_535
    assert count_parameters(network) == 169_220_807


def test_the_backbone_is_torchvisions_and_takes_its_file():
    torch.manual_seed(1)
    features = make_layers(cfgs["E"], batch_norm=True)
    state = {f"features.{name}": tensor for name, tensor in features.state_dict().items()}
    network = SegmentationVgg19(hidden=4, gates=()).eval()
    network.load_pretrained(state | {"classifier.0.weight": torch.zeros(2, 2)})
    faces, seen = torch.rand(2, 1, 32, 32), []
    network.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        network(faces)
        pooled = nn.functional.adaptive_avg_pool2d(features.eval()(faces.expand(-1, 3, -1, -1)), 7)
    torch.testing.assert_close(seen[0], pooled.flatten(1))
    with pytest.raises(FerReproError, match=r"vgg19_bn-c79401a0.pth do not fit Sequential: 1 missing \(0.weight\)"):
        network.load_pretrained({name: tensor for name, tensor in state.items() if name != "features.0.weight"})


def test_a_full_recipe_starts_from_the_users_file(tmp_path, monkeypatch):
    narrow = make_layers([4, 4, "M", 8, 8, "M", *[8] * 4, "M", *[16] * 4, "M", *[16] * 4, "M"], batch_norm=True)
    state = {f"features.{name}": tensor for name, tensor in narrow.state_dict().items()}
    torch.save(state, tmp_path / paper.WEIGHTS.file)
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path))
    full = papers.get(PLAIN).recipe("official", "full")
    assert full.pretrained == paper.WEIGHTS and papers.get(ROW).recipe("official", "full").pretrained is None
    recipe = dataclasses.replace(
        full,
        network=step("SegmentationVgg19", **(full.network.kwargs() | SMALL)),
        pretrained=dataclasses.replace(full.pretrained, sha256=None),
    )
    network = pretrained.loaded(paper.build)(recipe)
    assert torch.equal(network.backbone()[-3].weight, narrow[-4].weight)
    with pytest.raises(FerReproError, match="is not the file that the recipe names"):
        pretrained.loaded(paper.build)(dataclasses.replace(recipe, pretrained=full.pretrained))


def test_gates_stand_before_the_pooling_of_stages_1_2_3_and_5():
    network, faces = small(gate="sigmoid").eval(), torch.rand(2, 1, 32, 32)
    maps, stage = faces.expand(-1, 3, -1, -1), 1
    with torch.no_grad():
        for layer in [*network.backbone(), network.pool[0]]:
            if isinstance(layer, nn.MaxPool2d):
                if stage in (1, 2, 3, 5):
                    maps = maps + maps * network.gates[str(stage)](maps)
                stage += 1
            maps = layer(maps)
        expected = network.head(nn.functional.adaptive_avg_pool2d(maps, 7).flatten(1))
        torch.testing.assert_close(network(faces), expected)
    assert stage == 6 and maps.shape == (2, 16, 1, 1)


class Share(nn.Module):
    """A mask that favours nothing: 1/C everywhere."""

    def forward(self, maps):
        return torch.full_like(maps, 1 / maps.shape[1])


def test_batch_norm_undoes_a_mask_that_favours_nothing():
    plain, gated, faces = small(gates=()).train(), small().train(), torch.rand(6, 1, 64, 64)
    gated.backbone().load_state_dict(plain.backbone().state_dict())
    gated.head.load_state_dict(plain.head.state_dict())
    with torch.no_grad():
        before = plain(faces)
        moved = gated(faces)
        for stage in gated.stages[:3]:
            stage[-1].mask = Share()
        gated.stages[4] = gated.stages[4][:-1]
        torch.testing.assert_close(gated(faces), before, rtol=0.02, atol=2e-3)
    assert (moved - before).abs().max() > 0.05


def test_a_mask_adds_up_to_one_over_the_channels_and_starts_as_the_shortcut():
    network, seen = small().train(), []
    network.gates["1"].register_forward_hook(lambda module, given, mask: seen.append((given[0], mask)))
    network(torch.rand(3, 1, 32, 32))
    maps, mask = seen[0]
    torch.testing.assert_close(mask.sum(dim=1), torch.ones(3, 32, 32))
    assert ((maps * mask).sum(dim=1) <= maps.amax(dim=1) + 1e-6).all()
    first = network.gates["1"].down[0]
    torch.testing.assert_close(first(maps), torch.relu(first.shortcut(maps)))


# ---- the gates by numbers --------------------------------------------------------------------------------------------


def test_the_statistics_of_a_mask():
    maps = torch.rand(2, 4, 5, 5)
    even = describe("a", maps, torch.full_like(maps, 0.25))
    assert (even.channels, even.mean, even.median, even.high, even.largest) == (4, 0.25, 0.25, 0.25, 0.25)
    assert even.change == pytest.approx(0.25) and even.shaped == pytest.approx(0, abs=1e-6)
    maps, mask = torch.ones(1, 2, 1, 50), torch.zeros(1, 2, 1, 50)
    mask[:, 0] = 1  # half of the values double: |x m| / |x| = sqrt(1/2), the best common factor leaves half of each
    half = describe("b", maps, mask)
    assert (half.mean, half.high, half.largest) == (0.5, 1.0, 1.0)
    assert half.change == pytest.approx(math.sqrt(0.5)) and half.shaped == pytest.approx(0.5)


def test_a_mask_is_measured_on_a_device_without_float64(monkeypatch):
    maps = torch.rand(2, 4, 5, 5)
    monkeypatch.setattr(gates, "exact", exact_there)
    with WithoutFloat64():
        even = describe("a", maps, torch.full_like(maps, 0.25))
    assert even.mean == 0.25 and even.change == pytest.approx(0.25)


def test_gates_are_measured_by_name_and_left_unchanged():
    network = small(gates=(2, 4)).eval()
    found = gate_statistics(network, network.gates, torch.rand(2, 1, 32, 32))
    assert [(gate.name, gate.channels) for gate in found] == [("2", 8), ("4", 16)]
    assert all(gate.mean == pytest.approx(1 / gate.channels, rel=1e-5) for gate in found)
    assert not any(gate._forward_hooks for gate in network.gates.values())


def test_at_full_width_the_gates_are_nearly_the_identity():
    first, *_, last = gates = figures.measure_start(0)
    assert [gate.channels for gate in gates] == [64, 128, 256, 512]
    assert all(gate.mean == pytest.approx(1 / gate.channels, rel=1e-5) for gate in gates)
    assert [round(gate.high, 2) for gate in gates] == pytest.approx([0.08, 0.04, 0.02, 0.01], abs=0.021)
    assert 0.01 < first.change < 0.06 and last.change < 0.006
    assert all(gate.shaped < gate.change for gate in gates)


# ---- training --------------------------------------------------------------------------------------------------------


def test_the_second_training_takes_the_convolutions_and_nothing_else():
    recipe = papers.get(ROW).recipe("official", "smoke")
    plain = paper.build(papers.get(PLAIN).recipe("official", "smoke"))
    fitted = NetworkClassifier(plain, recipe, "cpu")
    network = paper.build_on(fitted, recipe)
    for name, tensor in plain.backbone().state_dict().items():
        assert torch.equal(network.backbone().state_dict()[name], tensor), name
    assert len(network.gates) == 4 and not torch.equal(network.head[0].weight, plain.head[0].weight)
    wide = dataclasses.replace(
        recipe, network=step("SegmentationVgg19", **(recipe.network.kwargs() | {"widths": (8, 8, 8, 16, 16)}))
    )
    with pytest.raises(FerReproError, match="weights of the fitted segmentation-vgg19-plain do not fit"):
        paper.build_on(fitted, wide)


def test_recipes_are_the_released_configuration():
    for name in (PLAIN, ROW):
        official, claimed = (papers.get(name).recipe(protocol, "full") for protocol in papers.PROTOCOLS)
        for recipe in (official, claimed):
            (stage,) = recipe.stages
            assert (stage.epochs, stage.patience, recipe.batch_size, recipe.input_size) == (51, 9, 8, 224)
            assert stage.optimiser == step("radam", lr=1e-4, weight_decay=1e-3, decoupled_weight_decay=True)
            assert stage.schedule.kwargs() == {"factor": 0.1, "patience": 3, "min_lr": 1e-6}
            assert (recipe.mean, recipe.std, recipe.loss.name, recipe.loss.kwargs()) == (0.0, 1.0, "cross-entropy", {})
            assert [s.name for s in recipe.augment] == ["resize", "flip", "rotate"] and not recipe.selection.views
            assert recipe.protocol.select == ("PublicTest",) and recipe.protocol.test == ("PrivateTest",)
        assert (
            official.views == official.plain
            and str(claimed.views) == "random, 10 copies, 224 pixels, mean of probabilities"
        )
        assert claimed.views.steps == claimed.augment[1:]
    assert papers.get(ROW).requires == (PLAIN,)
    assert papers.get(f"{ROW}-scratch").requires == (f"{PLAIN}-scratch",)


def test_radam_is_the_released_one():
    """Liu et al.'s steps as the release takes them: decay first, then momentum alone while the variance is unknown."""
    parameter = nn.Parameter(torch.tensor([0.5, -2.0], dtype=torch.float64))
    options = {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}
    optimiser = make_optimiser(step("radam", **options), [parameter])
    value, m, v = parameter.detach().numpy().copy(), np.zeros(2), np.zeros(2)
    rng, longest = np.random.default_rng(0), 2 / (1 - 0.999) - 1
    for t in range(1, 12):
        gradient = rng.normal(size=2)
        parameter.grad = torch.from_numpy(gradient.copy())
        optimiser.step()
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        value -= 0.1 * 0.01 * value
        length = longest - 2 * t * 0.999**t / (1 - 0.999**t)
        if length >= 5:
            share = (length - 4) / (longest - 4) * (length - 2) / length * longest / (longest - 2)
            value -= 0.01 * math.sqrt((1 - 0.999**t) * share) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-8)
        else:
            value -= 0.01 / (1 - 0.9**t) * m
    np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=1e-6)


def test_the_plateau_on_shares_is_the_released_one_on_percent():
    counts = np.random.default_rng(3).integers(2500, 2600, 60)
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    ours, theirs = (torch.optim.SGD([weight], lr=1e-4) for weight in weights)
    stage = papers.get(ROW).recipe("official", "full").stages[0]
    schedule = make_schedule(stage.schedule, ours, 60, 10)
    released = ReduceLROnPlateau(theirs, patience=3, min_lr=1e-6)
    rates = []
    for count in counts:
        schedule.after_epoch(count / 3589, None)
        released.step(100 - 100 * count / 3589)
        rates.append((ours.param_groups[0]["lr"], theirs.param_groups[0]["lr"]))
    assert all(a == pytest.approx(b) for a, b in rates) and len({round(a, 8) for a, _ in rates}) == 3


# ---- the number and the page -----------------------------------------------------------------------------------------


def test_which_means_of_batches_print_as_the_claim():
    by_hand = {s + c for s in range(3585) for c in range(6) if round(100 * (s / 8 + c / 5) / 449, 2) == 75.97}
    assert set(figures.batch_means_that_print(75.97)) == by_hand == {2726, 2727, 2729}
    assert figures.batch_means_that_print(50.0, n=16) == (8,)
    hits = np.array([True] * 8 + [False] * 2 + [True] * 2)
    assert figures.batch_mean(hits) == pytest.approx((1 + 0.5) / 2)
    page = figures.arithmetic().body
    assert "2,726 or 2,727 or 2,729" in page and "5,453" in page and ">none<" in page


class Bright(nn.Module):
    """Happy where the left half is brighter, else sad: a mirror changes the answer."""

    gates: dict[str, nn.Module] = {}

    def forward(self, images):
        left, right = (half.mean(dim=(1, 2, 3)) for half in images.chunk(2, dim=-1))
        logits = torch.full((len(images), 7), -9.0)
        logits[:, 3], logits[:, 4] = left - right, right - left
        return logits


def test_random_views_are_counted_for_each_seed():
    recipe = papers.get(ROW).recipe("claimed", "smoke")
    splits = recipe.protocol.split(data.load("synthetic", size=(35, 21, 70)))
    found = Vgg19Classifier(Bright(), recipe, "cpu").extra_scores(splits)
    assert set(found) == {"random_views"}  # a network without gates records none
    recorded, test = found["random_views"], splits.test
    assert (recorded["n"], recorded["count"], len(recorded["views"])) == (70, 4, 3)
    plain = NetworkClassifier(Bright(), recipe, "cpu").predict_proba(test.images).argmax(axis=1)
    assert recorded["plain"] == (plain == test.labels).sum()
    for seed, right in enumerate(recorded["views"]):
        synthetic = dataclasses.replace(recipe, views=dataclasses.replace(recipe.views, seed=seed))
        scores = NetworkClassifier(Bright(), synthetic, "cpu").predict_proba(test.images, with_views=True)
        assert right == (scores.argmax(axis=1) == test.labels).sum()
    assert len(set(recorded["views"])) > 1


def open_page(**chosen):
    given = {name: field.default for name, field in FIELDS.items()} | {"device": "cpu", "variant": ROW} | chosen
    return open_chapter(ROW, given)


def test_the_chapter_reads_one_run_in_every_way():
    chapter = open_page(protocol="claimed")
    with pytest.raises(FerReproError, match="run"):
        figures.readings(chapter.result)
    chapter.run()
    result = chapter.result
    page = figures.readings(chapter.result).body
    assert "not a result" in page and page.count("both test sets, as one set") == 2
    for half in ("PublicTest", "PrivateTest"):
        for views in (False, True):
            assert f"{100 * result.score(half, views)['accuracy']:.2f}" in page
    right = sum(
        (result.predictions[f"{half}_plain"].argmax(axis=1) == result.predictions[f"{half}_labels"]).sum()
        for half in ("PublicTest", "PrivateTest")
    )
    assert f"{100 * right / 280:.2f}" in page and "mean over batches of 8" in page
    assert "± " in figures.views(chapter.result).body
    gates = figures.gates_of_run(chapter.result).body
    assert gates.count("after stage") >= 4 and "0.25000" in gates and "synthetic faces" in gates
    assert "few channels" in gates
    result.record["facts"].pop("random_views")
    with pytest.raises(FerReproError, match="no random copies"):
        figures.views(chapter.result)


def test_gates_cost_three_quarters_and_their_effect_is_not_run(tmp_path):
    page = figures.effect("official", tmp_path).body
    assert "19.6" in page and "76.4" in page and "29,610,880" in page and "not run" in page
    assert declared_parameters(ROW) - declared_parameters(PLAIN) == 29_610_880


def test_a_small_mask_is_not_lost_in_half_precision():
    """Under autocast a softmax of 512 channels may come in bf16, where 1 + m would round to 1."""

    class Small(nn.Module):
        def forward(self, maps):
            return torch.full_like(maps, 0.002, dtype=torch.bfloat16)

    gate = Gate(4, "softmax")
    gate.mask = Small()
    torch.testing.assert_close(gate(torch.ones(1, 4, 2, 2)), torch.full((1, 4, 2, 2), 1.002), atol=1e-5, rtol=0)


def test_what_is_not_known_of_the_released_weights_is_not_stated():
    for variant in (PLAIN, ROW):
        release = papers.get(variant).released
        assert "not established" in release.trained_on and "not established" in release.selected_on
