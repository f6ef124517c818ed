"""Residual Masking Network: what its masks are, its members against their publishers' networks, and the sum."""

from __future__ import annotations

import dataclasses
import itertools
import re

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from fer_repro import data, papers, pretrained, results
from fer_repro.claims import book
from fer_repro.errors import FerReproError
from fer_repro.evaluation import cost
from fer_repro.evaluation.tta import turned_views
from fer_repro.markup import SYNTHETIC
from fer_repro.papers import residual_masking as paper
from fer_repro.papers.residual_masking import figures as page
from fer_repro.papers.residual_masking.members import B2, EfficientNet, ResNet, SameConv2d, from_caffe
from fer_repro.papers.residual_masking.recipes import KINDS, MEMBERS, ROW, TTA_SEED
from fer_repro.recipe import Stage, step
from fer_repro.reproduce import reproduce, require_weights
from fer_repro.training.optim import make_optimiser, make_schedule
from fer_repro.training.run import Run

ENSEMBLE = papers.get(paper.ENSEMBLE)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    """One smoke run of the ensemble, its members in it."""
    return reproduce(paper.ENSEMBLE, profile="smoke", device="cpu", results_dir=tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def full():
    """The whole network without memory."""
    with torch.device("meta"):
        return paper.build(papers.get(ROW).recipe("official", "full"))


# ---- the network -----------------------------------------------------------------------------------------------------


def test_shapes_and_counts_are_those_of_the_released_network(full):
    shapes, inside = [], []
    hooks = [mask.register_forward_hook(lambda m, i, o: shapes.append(tuple(o.shape[1:]))) for mask in full.masks]
    first = full.masks[0]
    units = [*first.down, *first.merge, first.last]
    hooks += [unit.register_forward_hook(lambda m, i, o: inside.append(tuple(o.shape[1:3]))) for unit in units]
    with torch.device("meta"):
        assert full.eval()(torch.zeros(1, 1, 224, 224)).shape == (1, 7)
    for hook in hooks:
        hook.remove()
    assert shapes == [(64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]
    assert inside == [(128, 56), (256, 28), (512, 14), (1024, 7), (512, 14), (256, 28), (128, 56), (64, 56)]
    counted = [cost.count_parameters(mask) for mask in full.masks]
    assert counted == [32_366_080, 31_885_312, 29_965_312, 22_291_456]
    assert cost.count_multiply_adds(full, (1, 1, 224, 224)) == pytest.approx(21.90e9, rel=1e-3)


def test_the_printed_size_counts_the_shortcuts_twice(full):
    shortcuts = sum(parameter.numel() for name, parameter in full.masks.named_parameters() if ".shortcut." in name)
    assert cost.count_parameters(full) + shortcuts == 142_943_431 and shortcuts == 5_147_008


def test_a_mask_sums_to_one_at_every_place_and_turns_nothing_off():
    network = paper.ResidualMaskingNetwork(blocks=(1, 1), width=4, depths=(2, 1))
    generator = torch.Generator().manual_seed(0)
    for block in network.modules():  # so that the softmax is not flat
        if isinstance(block, nn.BatchNorm2d):
            nn.init.uniform_(block.weight, 1, 3, generator=generator)
    inputs = torch.rand(3, 1, 32, 32)
    for one, mask in zip(page.mask_statistics(network, inputs), network.masks, strict=True):
        maps = torch.rand(2, one.channels, 8, 8)
        torch.testing.assert_close(mask.eval()(maps).sum(dim=1), torch.ones(2, 8, 8))
        assert one.mean == pytest.approx(1 / one.channels, rel=1e-4) and one.largest > 1.2 * one.mean
        assert (one.gain >= -1e-5).all() and one.gain.max() <= one.largest + 1e-5


def test_the_network_multiplies_by_one_plus_the_mask():
    network = paper.ResidualMaskingNetwork(blocks=(1, 1), width=4, depths=(2, 1)).eval()
    inputs = torch.rand(2, 1, 32, 32)
    plain = ResNet("basic", (1, 1), 4).eval()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("masks.")})
    assert not torch.allclose(network(inputs), plain(inputs), atol=1e-4)
    for mask in network.masks:
        mask.forward = torch.zeros_like
    torch.testing.assert_close(network(inputs), plain(inputs))
    for mask in network.masks:
        mask.forward = torch.ones_like
    maps = plain.stem(inputs)
    for name in plain.stages:
        maps = 2 * getattr(plain, name)(maps)
    torch.testing.assert_close(network(inputs), plain.classify(maps))


def test_the_mask_stays_float32_where_the_rest_is_bf16():
    """In bf16 there is no number between 1 and 1 + 1/128: masks of 1/512 would vanish, and do not."""
    network, seen = paper.ResidualMaskingNetwork(blocks=(1,), width=4, depths=(1,)).eval(), []
    classify, network.classify = network.classify, lambda maps: seen.append(maps) or classify(maps)
    images = torch.rand(2, 1, 32, 32)
    for value in (0.0, 1 / 512):
        network.masks[0].forward = lambda maps, value=value: torch.full_like(maps, value)
        with torch.autocast("cpu", torch.bfloat16):
            network(images)
    torch.testing.assert_close(seen[1], seen[0] * (1 + 1 / 512), rtol=1e-6, atol=0)


# ---- members ---------------------------------------------------------------------------------------------------------


def shaken(network):
    """Statistics and scales that a wrongly placed tensor would not survive."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.8, 1.5)
    return network.double().eval()


@pytest.mark.parametrize(
    ("member", "name"), [("residual-masking-resnet18", "resnet18"), ("residual-masking-resnet34", "resnet34")]
)
def test_a_member_with_torchvisions_weights_is_torchvisions_network(member, name):
    theirs, ours = shaken(torchvision.models.get_model(name)), paper.network(KINDS[member].full).double().eval()
    ours.load_pretrained(theirs.state_dict())
    ours.fc.weight.data, ours.fc.bias.data = theirs.fc.weight.data[:7], theirs.fc.bias.data[:7]
    images = torch.rand(2, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images.expand(-1, 3, -1, -1))[:, :7])


def test_the_masked_network_takes_the_same_weights_and_keeps_its_masks():
    theirs = torchvision.models.resnet.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
    ours = paper.ResidualMaskingNetwork(blocks=(1, 1, 1, 1), depths=(1, 1, 1, 1))
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    ours.load_pretrained(theirs.state_dict())
    for name, tensor in ours.state_dict().items():
        same = before[name] if name.startswith(("masks.", "fc.")) else theirs.state_dict()[name]
        assert torch.equal(tensor, same), name
    with pytest.raises(FerReproError, match="do not fit ResidualMaskingNetwork"):
        ours.load_pretrained(
            torchvision.models.resnet.ResNet(torchvision.models.resnet.BasicBlock, [2, 1, 1, 1]).state_dict()
        )


def test_resnet101_has_torchvisions_names_and_shapes():
    with torch.device("meta"):
        theirs, ours = torchvision.models.resnet101(), paper.network(KINDS["residual-masking-resnet101"].full)
    named = {name: tensor.shape for name, tensor in ours.state_dict().items() if not name.startswith("fc.")}
    assert named == {name: t.shape for name, t in theirs.state_dict().items() if not name.startswith("fc.")}


def caffe_names(blocks=(3, 4, 6, 3)):
    """The layers of VGGFace2's released ResNet50 with their shapes, written down from its description."""
    shapes, before = {"conv1_7x7_s2": (64, 3, 7, 7)}, 64
    for stage, count in enumerate(blocks, 2):
        width = 64 * 2 ** (stage - 2)
        for block in range(1, count + 1):
            name = f"conv{stage}_{block}"
            shapes[f"{name}_1x1_reduce"] = (width, before, 1, 1)
            shapes[f"{name}_3x3"] = (width, width, 3, 3)
            shapes[f"{name}_1x1_increase"] = (4 * width, width, 1, 1)
            if block == 1:
                shapes[f"{name}_1x1_proj"] = (4 * width, before, 1, 1)
            before = 4 * width
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.empty(shape)
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}_bn.{part}"] = torch.empty(shape[0])
    return state | {"classifier.weight": torch.empty(8631, 2048, 1, 1), "classifier.bias": torch.empty(8631)}


def test_vggface2s_names_find_their_places():
    with torch.device("meta"):
        network, state = paper.network(KINDS["residual-masking-resnet50-vggface2"].full), caffe_names()
        found = from_caffe(state)
        network.load_pretrained(state)
    assert found["layer2.0.downsample.1.running_var"] is state["conv3_1_1x1_proj_bn.running_var"]
    assert found["layer4.2.conv2.weight"] is state["conv5_3_3x3.weight"]
    strides = [(block.conv1.stride, block.conv2.stride) for block in (network.layer2[0], network.layer2[1])]
    assert strides == [((2, 2), (1, 1)), ((1, 1), (1, 1))]
    assert network.maxpool(torch.zeros(1, 1, 112, 112)).shape[-1] == 56


@pytest.mark.parametrize("member", ["residual-masking-cbam-resnet50", "residual-masking-efficientnet-b2"])
def test_pytorchcv_agrees(member):
    """With the reference at hand; without it the next test holds the names."""
    provider = pytest.importorskip("pytorchcv.model_provider", exc_type=ImportError)
    theirs = shaken(provider.get_model(KINDS[member].pretrained.name, pretrained=False))
    ours, state = paper.network(KINDS[member].full).double().eval(), theirs.state_dict()
    ours.load_pretrained(state)
    last = [name for name in state if name.startswith("output")]
    ours.fc.weight.data, ours.fc.bias.data = (state[name][:7] for name in last)
    images = torch.rand(2, 1, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images.expand(-1, 3, -1, -1))[:, :7])


def norm(name, channels):
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


def test_pytorchcvs_names_find_their_places():
    """A unit of each network under the names that pytorchcv 0.0.74 gives it."""
    unit = "features.stage2.unit1"
    shapes = {f"{unit}.cbam.ch_gate.mlp.fc1.weight": (32, 512), f"{unit}.identity_conv.conv.weight": (512, 256, 1, 1)}
    shapes |= norm(f"{unit}.body.conv3.bn", 512) | norm(f"{unit}.cbam.sp_gate.conv.bn", 1)
    with torch.device("meta"):
        own = {name: tuple(t.shape) for name, t in ResNet("cbam").state_dict().items()}
        for name, shape in shapes.items():
            (new,) = paper_rename("cbam", name)
            assert own[new] == shape, name
    units = {f"features.stage1.unit{n}.dw_conv.conv.weight": (c, 1, 3, 3) for n, c in ((1, 32), (2, 16))}
    units |= {
        "features.stage2.unit1.conv1.conv.weight": (96, 16, 1, 1),
        "features.stage2.unit1.se.conv1.bias": (4,),
        "features.stage2.unit1.conv3.bn.bias": (24,),
        "features.final_block.bn.bias": (1408,),
        "features.init_block.conv.conv.weight": (32, 3, 3, 3),
    }
    with torch.device("meta"):
        own = {name: tuple(t.shape) for name, t in EfficientNet().state_dict().items()}
    for new, shape in zip(paper_rename("efficientnet", *units), units.values(), strict=True):
        assert own[new] == shape, new


def paper_rename(kind, *names):
    from fer_repro.papers.residual_masking import members

    rename = {"cbam": members.from_pytorchcv, "efficientnet": members.from_pytorchcv_efficientnet}[kind]
    return list(rename({name: torch.empty(0) for name in names}))


@pytest.mark.parametrize(("side", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (8, 5, 2), (7, 5, 1), (9, 5, 2)])
def test_convolutions_pad_like_tensorflow(side, kernel, stride):
    layer = SameConv2d(1, 1, kernel, stride, bias=False)
    nn.init.ones_(layer.weight)
    found = layer(torch.ones(1, 1, side, side))[0, 0]
    out = -(-side // stride)
    total = max((out - 1) * stride + kernel - side, 0)
    starts = [index * stride - total // 2 for index in range(out)]  # TensorFlow's rule, written out
    reach = torch.tensor([min(side, start + kernel) - max(0, start) for start in starts], dtype=torch.float32)
    torch.testing.assert_close(found, reach[:, None] * reach)


def test_b2_is_b0_scaled():
    b0 = ((16, 1), (24, 2), (40, 2), (80, 3), (112, 3), (192, 4), (320, 1))
    eights = lambda width: int(width + 4) // 8 * 8  # noqa: E731
    assert [(eights(1.1 * c), -(-12 * n // 10)) for c, n in b0] == [stage[:2] for stage in B2]


def test_counts_of_the_members_make_the_ensembles():
    counts = book().parameters
    assert sum(counts[name] for name in MEMBERS) == counts[paper.ENSEMBLE] == 386_575_651


# ---- recipes ---------------------------------------------------------------------------------------------------------


def test_the_recipe_is_the_released_configuration():
    for name in KINDS:
        recipe = papers.get(name).recipe("claimed", "full")
        (stage,) = recipe.stages
        assert (stage.epochs, stage.patience, recipe.batch_size) == (51, 9, 48)
        assert recipe.selection.rule == "best" and not recipe.selection.views
        assert (recipe.views.count, recipe.views.average, recipe.views.seed) == (10, "probabilities", 1234)
        assert recipe.augment[1:] == recipe.views.steps and recipe.augment[0] == step("resize", size=224)
        assert (recipe.mean, recipe.std, recipe.loss) == (0.0, 1.0, step("cross-entropy"))
        official = papers.get(name).recipe("official", "full")
        assert dataclasses.replace(recipe, protocol=official.protocol).sha256() == official.sha256()


def test_radam_decays_the_weights_by_themselves():
    """One step from a zero gradient: the weight shrinks by rate times decay and by nothing else."""
    stage = papers.get(ROW).recipe("official", "full").stages[0]
    weight = nn.Parameter(torch.tensor([2.0]))
    optimiser = make_optimiser(stage.optimiser, [weight])
    weight.grad = torch.zeros(1)
    optimiser.step()
    assert weight.item() == pytest.approx(2 * (1 - 1e-4 * 1e-3), rel=1e-7)
    schedule, rates = make_schedule(stage.schedule, optimiser, 51, 1), []
    for _ in range(12):
        schedule.after_epoch(0.7, 1.0)
        rates.append(optimiser.param_groups[0]["lr"])
    # The first epoch is the best; after more than two without a better one the rate falls.
    assert rates == pytest.approx([1e-4] * 3 + [1e-5] * 3 + [1e-6] * 6)


def test_random_views_are_the_training_draws():
    views = turned_views(224, seed=TTA_SEED)
    assert [s.name for s in views.steps] == ["flip", "rotate"]
    assert views.steps[0]["p"] == 0.5 and views.steps[1]["degrees"] == 30 and views.steps[1]["fill"] == "blended"


def test_weights_are_named_and_from_scratch_ablations_start_without():
    for name, kind in KINDS.items():
        recipe = papers.get(name).recipe("official", "full")
        assert recipe.pretrained is kind.pretrained and recipe.pretrained.why == "required by the paper"
        if kind.pretrained.source == "torchvision":
            weights = torchvision.models.get_weight(kind.pretrained.name)
            assert weights.url.endswith("/" + kind.pretrained.file) and kind.pretrained.sha256 in weights.url
        assert papers.get(name + "-scratch").recipe("official", "full").pretrained is None
    scratch = papers.get(paper.ENSEMBLE + "-scratch")
    assert scratch.requires == tuple(f"{name}-scratch" for name in MEMBERS) and scratch.ablation_of == paper.ENSEMBLE


def test_without_its_weights_the_model_does_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_REPRO_WEIGHTS", str(tmp_path))
    name = "residual-masking-resnet50-vggface2"
    with pytest.raises(FerReproError, match=r"resnet50_scratch_dims_2048\.pth into a folder.*--from-scratch"):
        require_weights(name, "official", "full")
    torch.save({"conv1_7x7_s2.weight": torch.zeros(1)}, tmp_path / "resnet50_scratch_dims_2048.pth")
    network = paper.network(KINDS[name].smoke)
    with pytest.raises(FerReproError, match="do not fit ResNet: .* missing"):
        network.load_pretrained(pretrained.read(KINDS[name].pretrained))


# ---- the sum ---------------------------------------------------------------------------------------------------------


class Fixed(paper.NetworkClassifier):
    """A fitted network with given probabilities."""

    def __init__(self, rows, recipe):
        super().__init__(nn.Identity(), recipe, "cpu")
        self.rows = np.asarray(rows, np.float32)


def test_the_sum_is_the_released_rule():
    """Against the rule written out: sum over views, four decimals, sum over networks, largest entry."""
    rng, recipe = np.random.default_rng(0), ENSEMBLE.recipe("official", "full")
    member = papers.get(ROW).recipe("official", "full")
    tables = rng.dirichlet(np.full(7, 0.4), (7, 50)).astype(np.float32)
    added = paper.Sum({name: Fixed(rows, member) for name, rows in zip(MEMBERS, tables, strict=True)}, recipe)
    for one, rows in zip(added.members, tables, strict=True):
        one.predict_proba = lambda images, with_views=False, rows=rows: rows
    images = np.zeros((50, 48, 48), np.uint8)
    summed = np.round(8 * tables.astype(np.float64), 4).sum(axis=0)
    np.testing.assert_array_equal(added.votes(images).sum(axis=0), np.rint(1e4 * summed))
    found = added.predict_proba(images, with_views=True)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, summed / summed.sum(axis=1, keepdims=True), rtol=1e-6)
    assert [one.recipe.views.seed for one in added.members] == list(range(1234, 1241))
    assert {one.recipe.views.count for one in added.members} == {8}


def test_the_ensemble_stores_what_makes_it(ensemble):
    record, stored = ensemble.record, ensemble.predictions
    assert record["facts"]["members"] == list(MEMBERS) and record["selection"] == "nothing, all is fixed in advance"
    assert record["parameters"] == sum(cost.count_parameters(paper.network(KINDS[name].smoke)) for name in MEMBERS)
    for half in results.HALVES:
        votes = stored[f"{half}_votes"]
        assert votes.dtype == np.int32 and votes.shape == (7, 140, 7)
        np.testing.assert_allclose(votes.sum(axis=2), 3 * 10_000, atol=4)
        total = votes.sum(axis=0)
        made = (total / total.sum(axis=1, keepdims=True)).astype(np.float32).astype(np.float16)
        np.testing.assert_array_equal(made, stored[f"{half}_views"])
    assert list(ensemble.history["stage"]) == [*MEMBERS, "all added"]


def test_an_ensemble_without_its_members_is_refused(tmp_path):
    recipe, faces = ENSEMBLE.recipe("official", "smoke"), data.load("synthetic", size=(28, 14, 14))
    run = Run(recipe, 0, "cpu", tmp_path, faces.digest)
    splits = recipe.protocol.split(faces)
    with pytest.raises(FerReproError, match="residual-masking, .* are missing: run `fer-repro run"):
        ENSEMBLE.fit(splits, run)
    member = papers.get(ROW).recipe("claimed", "smoke")
    run.required = {name: paper.NetworkClassifier(nn.Identity(), member, "cpu") for name in MEMBERS}
    with pytest.raises(FerReproError, match="fitted under the official protocol"):
        ENSEMBLE.fit(splits, run)
    run.required = dict.fromkeys((*MEMBERS[:-1],), None)
    with pytest.raises(FerReproError, match="residual-masking-no-dropout is missing"):
        ENSEMBLE.fit(splits, run)


def test_networks_side_by_side_average_probabilities():
    recipe = ENSEMBLE.recipe("official", "smoke")
    network = paper.build_ensemble(recipe).eval()
    images = torch.rand(3, 1, 24, 24)
    mean = torch.stack([one(images).softmax(dim=1) for one in network.networks]).mean(dim=0)
    torch.testing.assert_close(network(images).exp(), mean)
    joint = dataclasses.replace(recipe, stages=(Stage("all", 1, step("adam", lr=1e-3)),))
    assert joint.sha256() != recipe.sha256()


# ---- the page --------------------------------------------------------------------------------------------------------


def test_every_subset_is_scored_and_the_oracle_is_never_worse(ensemble):
    found = page.every_subset(ensemble)
    assert len(found.members) == len(set(found.members)) == 127 and found.members[-1] == (1,) * 7
    for half in results.HALVES:
        votes, labels = ensemble.predictions[f"{half}_votes"], ensemble.predictions[f"{half}_labels"]
        by_hand = []
        for size in range(1, 8):
            for chosen in itertools.combinations(range(7), size):
                by_hand.append(np.mean(sum(votes[m].astype(int) for m in chosen).argmax(axis=1) == labels))
        assert sorted(by_hand) == pytest.approx(sorted(found.accuracies[half]))
        assert found.accuracies[half][-1] == ensemble.score(half)["accuracy"]
    public, private = (found.best(half) for half in results.HALVES)
    assert found.accuracies["PrivateTest"][private] >= found.accuracies["PrivateTest"][public]


def test_the_search_takes_the_first_of_equals():
    equal = page.Subsets(((0, 1), (1, 0), (1, 1)), {"PublicTest": np.array([0.5, 0.7, 0.7])})
    assert equal.best("PublicTest") == 1


def test_the_picture_draws_a_stage_and_its_mask_in_one_box():
    figure = page.architecture()
    assert "3 × BasicBlock, mask of 4 levels to 64×56×56" in figure.alt and "137,796,423 parameters" in figure.alt
    assert "mask of 1 level to 512×7×7" in figure.alt and "MaskingBlock" not in figure.alt


def test_the_pages_tables_say_synthetic_and_not_run(ensemble):
    for shown in (page.ensemble(ensemble), page.subsets(ensemble)):
        assert "not a result" in shown.body and "Not run:" in shown.body
    listed = page.members("official").body
    assert listed.count("weights are lost") == 2 and listed.count("not run") == 7
    assert "resnet50_scratch_dims_2048.pth" in listed and "386,575,651" in listed
    assert re.findall(r"<td[^>]*>(0\.\d|0)</td>", listed) == ["0.4", "0", "0", "0", "0", "0.3", "0"], "dropout"
    assert page.masks(ensemble).plain.endswith("the network of residual-masking-ensemble has none")
    assert "one seed" in page.views(ensemble).plain


def test_the_views_table_holds_every_seed(tmp_path):
    result = reproduce(ROW, profile="smoke", device="cpu", results_dir=tmp_path)
    recorded = result.record["facts"]["views_by_seed"]
    assert [one["seed"] for one in recorded] == [1234, 1]
    for half in results.HALVES:
        assert recorded[0][half] == {"n": 140, "correct": result.score(half)["correct"]}
    assert "standard deviation" in page.views(result).body
    shown = page.masks(result)
    assert "0.0156" in shown.body and "0.0020" in shown.body and SYNTHETIC in shown.body.split("</figure>")[1]


def test_the_from_scratch_ensemble_adds_up_from_scratch_members(tmp_path):
    """Its members have the suffix and keep their order."""
    scratch = papers.get(paper.ENSEMBLE + "-scratch")
    recipe, faces = scratch.recipe("official", "smoke"), data.load("synthetic", size=(28, 14, 14))
    run = Run(recipe, 0, "cpu", tmp_path, faces.digest)
    for name in reversed(scratch.requires):
        own = papers.get(name).recipe("official", "smoke")
        run.required[name] = paper.NetworkClassifier(paper.build(own), own, "cpu")
    fitted = scratch.fit(recipe.protocol.split(faces), run)
    assert fitted.names == scratch.requires and run.facts["status"] == "done"
