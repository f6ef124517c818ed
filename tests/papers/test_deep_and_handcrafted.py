"""Three networks, dense-sparse-dense training, blocks of features under one kernel, local machines on them."""

from __future__ import annotations

import dataclasses
import os
import signal
import time

import numpy as np
import pytest
import torch
from listening import listening
from scipy import sparse
from scipy.io import savemat
from sklearn.svm import SVC, LinearSVC
from torch.nn import functional as F

from fer_repro import data, papers, pretrained
from fer_repro.errors import FerReproError
from fer_repro.evaluation.cost import count_parameters
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.local_learning import svm
from fer_repro.markup import SYNTHETIC
from fer_repro.papers import deep_and_handcrafted as paper
from fer_repro.papers.deep_and_handcrafted import figures, kernels, matconvnet
from fer_repro.papers.deep_and_handcrafted.fusion import described
from fer_repro.papers.deep_and_handcrafted.networks import MaskedConv2d, MaskedLinear, Vgg13, VggF, VggFace, smallest
from fer_repro.recipe import Selection, Stage, step
from fer_repro.reproduce import require_weights
from fer_repro.training import loop
from fer_repro.training.run import Interrupted, Run

pytest.importorskip("faiss")
ROW = papers.get("deep-and-handcrafted")
FACE, F_NET, THIRTEEN = (papers.get(f"deep-and-handcrafted-{name}") for name in paper.NAMES)


# ---- the networks ----------------------------------------------------------------------------------------------------


def test_every_part_has_its_number_of_parameters():
    with torch.device("meta"):
        face, fast, small = VggFace(), VggF(), Vgg13()
    linear = sum(count_parameters(layer) for layer in (face.fc6, face.fc7, face.fc8))
    assert (count_parameters(face.convolutions), linear) == (14_714_688, 119_574_535)
    assert count_parameters(face) == 134_289_223 and count_parameters(fast) == 56_766_215
    assert count_parameters(small) == 8_756_679
    # With the 2,622 people of the pretraining.
    assert count_parameters(face) + (2622 - 7) * 4097 == 145_002_878


def test_the_maps_have_the_published_edges():
    seen = {}
    with torch.device("meta"):
        network = VggF()
    for name, layer in network.convolutions.named_children():
        layer.register_forward_hook(lambda _, __, out, name=name: seen.update({name: tuple(out.shape[1:])}))
    network.eval()(torch.zeros(1, 1, 224, 224, device="meta"))
    expected = {"conv1": (64, 54), "pool1": (64, 27), "conv2": (256, 27), "pool2": (256, 13), "conv5": (256, 13)}
    assert {name: seen[name][:2] for name in expected} == expected and seen["pool5"] == (256, 6, 6)


def test_local_response_normalisation_is_over_five_channels():
    maps = torch.rand(2, 9, 3, 3) * 50
    squares = F.pad(maps.square(), (0, 0, 0, 0, 2, 2))
    windows = sum(squares[:, shift : shift + 9] for shift in range(5))
    with torch.device("meta"):
        layer = VggF().convolutions.norm1
    torch.testing.assert_close(layer(maps), maps / (2 + 1e-4 * windows) ** 0.75)


def test_a_network_classifies_by_its_description():
    torch.manual_seed(0)
    network = THIRTEEN.build(THIRTEEN.recipe("official", "smoke")).eval()
    images = torch.rand(3, 1, 24, 24)
    description = network.describe(images)
    assert description.shape == (3, 32) and float(description.detach().min()) >= 0
    torch.testing.assert_close(network(images), F.linear(description, network.fc8.weight, network.fc8.bias))


def test_grey_reaches_the_pretrained_weights_on_the_scale_of_their_authors():
    torch.manual_seed(0)
    options = {"widths": (4,), "depths": (1,), "grid": 2, "hidden": 3}
    network, seen = VggFace(**options, scale=255.0), []
    network.convolutions.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(torch.full((1, 1, 4, 4), 200 / 255))
    expected = 200 - torch.tensor([129.1863, 104.7624, 93.5940])
    torch.testing.assert_close(seen[0][0, :, 0, 0], expected)


# ---- pretrained weights ----------------------------------------------------------------------------------------------


def small_face():
    """A VGG-face of one convolution, and a file's content for it with another number of classes."""
    torch.manual_seed(1)
    network = VggFace(widths=(4,), depths=(1,), grid=2, hidden=3, pruned=("fc6",), sparsity=0.5)
    shapes = {
        "conv1_1.weight": (4, 3, 3, 3),
        "conv1_1.bias": (4,),
        "fc6.weight": (3, 16),
        "fc6.bias": (3,),
        "fc7.weight": (3, 3),
        "fc7.bias": (3,),
        "fc8.weight": (11, 3),
        "fc8.bias": (11,),
    }
    return network, {name: torch.randn(shape) for name, shape in shapes.items()}


def test_the_authors_weights_are_loaded_everywhere_but_in_the_last_layer():
    network, state = small_face()
    head = network.fc8.weight.clone()
    network.load_pretrained(state)
    assert torch.equal(network.convolutions.conv1_1.weight, state["conv1_1.weight"])
    assert torch.equal(network.fc7.weight, state["fc7.weight"]) and torch.equal(network.fc6.bias, state["fc6.bias"])
    assert torch.equal(network.fc8.weight, head) and network.fc6.mask.all()
    with pytest.raises(FerReproError, match="2 missing .convolutions.conv1_1.weight"):
        network.load_pretrained({name: value for name, value in state.items() if not name.startswith("conv")})


def test_the_system_needs_both_files_and_its_ablation_none(tmp_path, monkeypatch):
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path))
    for file in ("imagenet-vgg-f.safetensors", "vgg_face_dag.pth"):
        with pytest.raises(FerReproError, match=rf"{file} into a folder.*--from-scratch"):
            require_weights(ROW.id, "official", "full", fetch=False)
        (tmp_path / file).write_bytes(b"")
    require_weights(ROW.id, "official", "full", fetch=False)
    require_weights(f"{ROW.id}-scratch", "official", "full")
    scratch = papers.get(f"{ROW.id}-scratch").requires
    assert scratch == tuple(f"{ROW.id}-{n}" for n in ("vgg-face-scratch", "vgg-f-scratch", "vgg-13"))


def test_from_scratch_all_layers_learn_at_another_rate():
    row, scratch = (papers.get(name).recipe("official", "full") for name in (FACE.id, f"{FACE.id}-scratch"))
    assert row.options["frozen"] and not scratch.options["frozen"]
    assert (row.options["scale"], scratch.options["scale"]) == (255.0, 1.0)
    assert [stage.optimiser["lr"] for stage in row.stages] == pytest.approx([1e-4, *[1e-5] * 4])
    assert [stage.optimiser["lr"] for stage in scratch.stages] == pytest.approx([1e-2, *[1e-3] * 4])
    assert [(s.name, s.epochs, s.start) for s in scratch.stages] == [(s.name, s.epochs, s.start) for s in row.stages]


def matlab_file(path, older=False):
    rng = np.random.default_rng(0)
    filters = {"conv1": (3, 3, 3, 4), "fc6": (2, 2, 4, 5), "fc7": (1, 1, 5, 6), "fc8": (1, 1, 6, 1)}
    arrays = {name: (rng.normal(size=shape), rng.normal(size=shape[3])) for name, shape in filters.items()}
    layers = np.empty((1, len(arrays) + 1), dtype=object)
    for place, (name, (weight, bias)) in enumerate(arrays.items()):
        pair = np.empty((1, 2), dtype=object)
        pair[0, 0], pair[0, 1] = np.float32(weight), np.float32(bias)[None]
        own = {"filters": pair[0, 0], "biases": pair[0, 1]} if older else {"weights": pair}
        layers[0, place] = {"name": name, "type": "conv"} | own
    layers[0, -1] = {"name": "relu1", "type": "relu"}
    savemat(path, {"layers": layers} if older else {"net": {"layers": layers}})
    return arrays


@pytest.mark.parametrize("older", [False, True])
def test_matconvnets_file_becomes_tensors_that_compute_the_same(tmp_path, older):
    arrays = matlab_file(tmp_path / "net.mat", older)
    assert matconvnet.main([str(tmp_path / "net.mat"), str(tmp_path / "net.safetensors")]) == 0
    from safetensors.torch import load_file

    found = load_file(tmp_path / "net.safetensors")
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "conv1.weight": (4, 3, 3, 3),
        "conv1.bias": (4,),
        "fc6.weight": (5, 16),
        "fc6.bias": (5,),
        "fc7.weight": (6, 5),
        "fc7.bias": (6,),
        "fc8.weight": (1, 6),
        "fc8.bias": (1,),
    }
    # MATLAB: every output is the sum over height, width and channel of the map times its filter.
    maps = np.random.default_rng(1).normal(size=(2, 2, 4)).astype(np.float32)
    expected = np.einsum("hwc,hwck->k", maps, arrays["fc6"][0]) + arrays["fc6"][1]
    ours = F.linear(torch.from_numpy(maps).permute(2, 0, 1).flatten(), found["fc6.weight"], found["fc6.bias"])
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    # A layer of one position keeps its two sides apart.
    np.testing.assert_array_equal(found["fc7.weight"], np.float32(arrays["fc7"][0][0, 0].T))


def test_what_is_no_network_of_matconvnet_is_one_sentence(tmp_path, capsys):
    (tmp_path / "text.mat").write_text("no network")
    savemat(tmp_path / "other.mat", {"numbers": np.ones(3)})
    for name, words in (("text", "cannot be read as a .mat file"), ("other", "no layers with weights")):
        assert matconvnet.main([str(tmp_path / f"{name}.mat"), str(tmp_path / "out")]) == 1
        assert words in capsys.readouterr().err
    assert matconvnet.main([]) == 2


# ---- dense, sparse, dense --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.4, 0.6])
def test_exactly_that_share_is_removed_and_it_is_the_smallest(share):
    weight = torch.randn(31, 47)
    gone = smallest(weight, share)
    assert int(gone.sum()) == round(share * weight.numel())
    if share:
        assert weight[gone].abs().max() < weight[~gone].abs().min()
    # The sign does not matter.
    assert torch.equal(gone, smallest(-weight, share))


def test_equal_weights_do_not_change_the_share():
    weight = torch.tensor([0.5, -0.5, 0.5, -0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 2.0])
    for share, kept in ((0.3, 7), (0.6, 4), (0.9, 1)):
        assert int(smallest(weight, share).logical_not().sum()) == kept
    with pytest.raises(FerReproError, match="share 1"):
        smallest(weight, 1.0)


@pytest.mark.parametrize("layer", [MaskedLinear(6, 5), MaskedConv2d(3, 5, 3, padding=1)])
def test_a_pruned_layer_computes_and_learns_without_the_removed_weights(layer):
    images = torch.randn(4, 6) if isinstance(layer, MaskedLinear) else torch.randn(4, 3, 5, 5)
    plain = F.linear if isinstance(layer, MaskedLinear) else lambda x, w, b: F.conv2d(x, w, b, padding=1)
    torch.testing.assert_close(layer(images), plain(images, layer.weight, layer.bias))
    layer.to(memory_format=torch.channels_last)
    layer.prune(0.4)
    assert int((layer.weight == 0).sum()) == round(0.4 * layer.weight.numel())
    layer(images).square().sum().backward()
    assert torch.equal(layer.weight.grad == 0, ~layer.mask)
    layer.free()
    layer.weight.grad = None
    layer(images).square().sum().backward()
    assert (layer.weight.grad != 0).all()


@pytest.fixture(scope="module")
def splits():
    return FACE.recipe("official", "smoke").protocol.split(data.load("synthetic", size=(140, 35, 35)))


def a_run(folder, variant=F_NET, **changes):
    recipe = dataclasses.replace(variant.recipe("official", "smoke"), **changes)
    return Run(recipe, 0, "cpu", folder, "digest")


def watched(monkeypatch):
    """(stage, weights by layer, masks by layer) after every epoch."""
    seen, end = [], loop.Trainer._end_epoch

    def note(trainer, stage, select):
        layers = dict(trainer.state.model.masked())
        weights = {name: layer.weight.detach().clone() for name, layer in layers.items()}
        seen.append((stage.name, weights, {name: layer.mask.clone() for name, layer in layers.items()}))
        return end(trainer, stage, select)

    monkeypatch.setattr(loop.Trainer, "_end_epoch", note)
    return seen


@pytest.mark.parametrize("optimiser", [step("sgd", lr=0.05, momentum=0.9, weight_decay=0.01), step("adamw", lr=0.01)])
def test_zeros_stay_through_the_sparse_stage_and_move_in_the_dense_one(splits, tmp_path, monkeypatch, optimiser):
    seen = watched(monkeypatch)
    names = (("dense 1", 1, "fresh"), ("sparse 1", 2, "best"), ("dense 2", 1, "last"))
    stages = tuple(Stage(name, epochs, optimiser, start=start) for name, epochs, start in names)
    run = a_run(tmp_path, stages=stages, selection=Selection("last"))
    fitted = F_NET.fit(splits, run)
    assert [name for name, _, _ in seen] == ["dense 1", "sparse 1", "sparse 1", "dense 2"]
    layers = ("conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    assert tuple(seen[0][1]) == layers
    for name in layers:
        first, begun, sparse_end, last = (weights[name] for _, weights, _ in seen)
        masks = [masks[name] for _, _, masks in seen]
        count = round(0.4 * first.numel())
        assert masks[0].all() and masks[3].all() and torch.equal(masks[1], masks[2])
        assert torch.equal(~masks[1], smallest(first, 0.4))
        assert int((begun == 0).sum()) == int((sparse_end == 0).sum()) == count
        assert torch.equal(sparse_end == 0, ~masks[2])
        assert (sparse_end != begun)[masks[1]].float().mean() > 0.5, "what is left goes on learning"
        assert (last != 0)[~masks[1]].float().mean() > 0.1, "what was 0 moves again, where a ReLU is open"
    assert fitted.recipe.variant == F_NET.id and set(run.facts["share_of_zero_weights"]) == set(layers)


def test_a_run_stopped_inside_a_sparse_stage_goes_on_bit_for_bit(splits, tmp_path):
    stages = tuple(
        Stage(name, 2, step("sgd", lr=0.05, momentum=0.9), start=start)
        for name, start in (("dense 1", "fresh"), ("sparse 1", "best"), ("dense 2", "last"))
    )
    whole = F_NET.fit(splits, a_run(tmp_path / "whole", stages=stages, selection=Selection("last")))
    cut = a_run(tmp_path / "cut", stages=stages, selection=Selection("last"))
    looks = iter([False] * (3 * 7 + 3) + [True])  # seven batches an epoch: in the sparse stage's second one
    cut.out_of_time = lambda ahead=0.0: next(looks)
    with pytest.raises(Interrupted, match="sparse 1"):
        F_NET.fit(splits, cut)
    resumed = a_run(tmp_path / "cut", stages=stages, selection=Selection("last"))
    again = F_NET.fit(splits, resumed)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert len(resumed.history) == 6


def test_frozen_convolutions_stay_and_those_from_scratch_move(splits, tmp_path):
    recipe = FACE.recipe("official", "smoke")
    torch.manual_seed(0)
    before = {name: value.clone() for name, value in FACE.build(recipe).state_dict().items()}
    run = a_run(tmp_path / "frozen", FACE)
    fitted = FACE.fit(splits, run)
    counts = count_parameters(fitted.model.convolutions), count_parameters(fitted.model)
    assert run.facts["trained_parameters"] == counts[1] - counts[0] and run.facts["parameters"] == counts[1]
    after = fitted.model.state_dict()
    same = {name for name in after if torch.equal(before[name], after[name])}
    assert {name for name in after if name.startswith("convolutions.")} <= same
    assert not same & {"fc6.weight", "fc7.weight", "fc8.weight"}
    scratch = papers.get(f"{FACE.id}-scratch")
    free = a_run(tmp_path / "free", scratch)
    moved = scratch.fit(splits, free).model.state_dict()
    assert not torch.equal(before["convolutions.conv1_1.weight"], moved["convolutions.conv1_1.weight"])
    assert free.facts["trained_parameters"] == free.facts["parameters"]


# ---- blocks under one kernel -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def blocks():
    rng = np.random.default_rng(0)
    dense, thin = np.abs(rng.normal(size=(90, 12))), sparse.random(90, 40, 0.2, "csr", random_state=1)
    labels = np.arange(90) % 7
    return {"net": 5 * dense + labels[:, None] * (np.arange(12) < 4), "words": thin}, labels


def whole(blocks, names):
    parts = [blocks[name].toarray() if sparse.issparse(blocks[name]) else blocks[name] for name in names]
    return np.hstack([part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts])


@pytest.mark.parametrize("names", [("net",), ("words",), ("net", "words")])
def test_the_kernel_is_that_of_the_blocks_side_by_side(blocks, names):
    features, labels = blocks
    cut = {name: block[:70] for name, block in features.items()}, {name: block[70:] for name, block in features.items()}
    pool = kernels.Pool(cut[0], labels[:70])
    rows = whole(features, names)
    np.testing.assert_allclose(pool.similarity(cut[1], names), rows[70:] @ rows[:70].T, atol=2e-3)
    near = np.array([[3, 1, 50], [7, 8, 9]])
    expected = np.stack([rows[one] @ rows[one].T for one in near])
    np.testing.assert_allclose(pool.gram(names)(near), expected, atol=2e-3)
    side_by_side = kernels.joined(pool.blocks, names)
    side_by_side = side_by_side.toarray() if sparse.issparse(side_by_side) else side_by_side
    np.testing.assert_allclose(side_by_side, rows[:70], atol=1e-6)


def test_the_local_machine_is_libsvms_on_the_nearest(blocks):
    features, labels = blocks
    pool = kernels.Pool({name: block[:80] for name, block in features.items()}, labels[:80])
    asked, names = {name: block[80:] for name, block in features.items()}, ("net", "words")
    found = svm.local_decisions(pool.similarity(asked, names), pool.gram(names), pool.labels, 40, (100.0,))
    rows = whole(features, names)
    for image in range(3):
        cosine = rows[80 + image] @ rows[:80].T
        near = np.argsort(-cosine, kind="stable")[:40]
        for label in range(7):
            machine = SVC(kernel="precomputed", C=100.0, tol=1e-5).fit(rows[near] @ rows[near].T, labels[near] == label)
            expected = machine.decision_function(cosine[None, near])[0]
            assert found[100.0][image, label] == pytest.approx(expected, abs=0.03)


def test_any_saved_features_may_be_blocks(tmp_path, blocks):
    features, labels = blocks
    np.save(tmp_path / "net.npy", features["net"])
    loaded = kernels.Pool({"net": np.load(tmp_path / "net.npy", mmap_mode="r")}, labels)
    np.testing.assert_allclose(loaded.blocks["net"], whole(features, ("net",)), atol=1e-6)
    with pytest.raises(FerReproError, match="one row per label"):
        kernels.Pool(features, labels[:-1])
    with pytest.raises(FerReproError, match="block 'net' has 5 columns, the pool's has 12"):
        loaded.similarity({"net": features["net"][:, :5]}, ("net",))


def test_rows_have_length_one_and_an_empty_one_stays():
    rows = kernels.unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    assert rows.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]
    thin = kernels.unit_rows(sparse.csr_matrix([[0, 2.0, 0], [0, 0, 0]]))
    assert thin.toarray().tolist() == [[0, 1, 0], [0, 0, 0]]


# ---- the method ------------------------------------------------------------------------------------------------------


def untrained(protocol="official"):
    networks = {}
    for variant in (FACE, F_NET, THIRTEEN):
        recipe = variant.recipe(protocol, "smoke")
        torch.manual_seed(len(networks))
        networks[variant.id] = NetworkClassifier(variant.build(recipe), recipe, "cpu")
    return networks


SMALL = {"channels": ((4, 1, 60), (4, 2, 60)), "step": 6, "k": (15, 25), "C": (1.0, 10.0), "start": ((15,), (10.0,))}


def fusion_run(folder, protocol="official", **changes):
    recipe = ROW.recipe(protocol, "smoke")
    machine = SMALL | ({"k": (15,), "C": (10.0,)} if protocol == "claimed" else {}) | changes
    options = step("fusion", **(recipe.options.kwargs() | machine))
    run = Run(dataclasses.replace(recipe, options=options), 0, "cpu", folder, "digest")
    run.required = untrained(protocol)
    return run


@pytest.fixture(scope="module")
def fused(splits, tmp_path_factory):
    run = fusion_run(tmp_path_factory.mktemp("fusion"))
    return run, ROW.fit(splits, run)


def test_blocks_k_and_c_are_chosen_on_the_select_images(fused, splits):
    run, classifier = fused
    tried = {tuple(row["blocks"]): row["select_accuracy"] for row in run.facts["blocks_tried"]}
    assert set(tried) == {paper.BLOCKS, paper.NAMES, ("words",)}
    chosen = run.facts["chosen"]
    assert tried[tuple(chosen["blocks"])] == max(tried.values())
    grid = {(row["k"], row["C"]): row["select_accuracy"] for row in run.facts["grid"]}
    assert set(grid) == {(15, 1.0), (15, 10.0), (25, 1.0), (25, 10.0)}
    assert grid[chosen["k"], chosen["C"]] == max(grid.values())
    answers = classifier.predict_proba(splits.select.images).argmax(axis=1)
    assert (answers == splits.select.labels).mean() == pytest.approx(max(grid.values()))
    assert run.facts["pool"] == 140 and run.facts["dimensions"] == {
        "vgg-face": 32,
        "vgg-f": 32,
        "vgg-13": 32,
        "words": 300,
    }
    rows = classifier.predict_proba(splits.test.images)
    assert rows.shape == (35, 7) and rows.dtype == np.float32 and np.allclose(rows.sum(axis=1), 1, atol=1e-5)


def test_every_block_and_all_are_scored_by_every_machine(fused, splits):
    run, classifier = fused
    rows = classifier.extra_scores(splits)["blocks"]
    found = {(tuple(row["blocks"]), row["machine"]): row for row in rows}
    groups = {*((name,) for name in paper.BLOCKS), paper.BLOCKS, tuple(run.facts["chosen"]["blocks"])}
    expected = {(group, machine) for group in groups for machine in ("global", "local")}
    assert set(found) == expected | {((name,), "softmax") for name in paper.NAMES}
    for row in rows:
        assert all(row[half]["accuracy"] == row[half]["correct"] / 35 for half in ("PublicTest", "PrivateTest"))
    own = found[tuple(run.facts["chosen"]["blocks"]), "local"]["PrivateTest"]
    answers = classifier.predict_proba(splits.test.images).argmax(axis=1)
    assert own["correct"] == int((answers == splits.test.labels).sum())
    network = run.required[FACE.id].predict_proba(splits.test.images).argmax(axis=1)
    assert found[("vgg-face",), "softmax"]["PrivateTest"]["correct"] == int((network == splits.test.labels).sum())
    block = described(run.required[FACE.id], splits.train.images)
    machine = LinearSVC(C=1.0, tol=1e-3, random_state=0).fit(kernels.unit_rows(block), splits.train.labels)
    asked = kernels.unit_rows(described(run.required[FACE.id], splits.test.images))
    correct = int((machine.predict(asked) == splits.test.labels).sum())
    assert found[("vgg-face",), "global"]["PrivateTest"]["correct"] == pytest.approx(correct, abs=1)


def test_the_test_images_cannot_change_the_vocabulary(fused, splits, tmp_path):
    """Nor anything else that is fitted: other test images, same answers to the same faces."""
    run, classifier = fused
    noise = np.random.default_rng(0).integers(0, 256, splits.test.images.shape, dtype=np.uint8)
    other = dataclasses.replace(splits, test=dataclasses.replace(splits.test, images=noise))
    again = fusion_run(tmp_path / "test")
    second = ROW.fit(other, again)
    second.extra_scores(other)
    assert again.facts["chosen"] == run.facts["chosen"]
    assert np.array_equal(second.predict_proba(splits.test.images), classifier.predict_proba(splits.test.images))
    # Other select images choose other settings, but they do not change a single word either.
    third = fusion_run(tmp_path / "select")
    ROW.fit(dataclasses.replace(splits, select=dataclasses.replace(splits.select, images=noise)), third)
    words = [
        np.load(next(folder.glob("vocabulary-*.npz")))["array"] for folder in (run.folder, again.folder, third.folder)
    ]
    assert np.array_equal(words[0], words[1]) and np.array_equal(words[0], words[2])
    # Other train images do.
    fourth = fusion_run(tmp_path / "train")
    turned = dataclasses.replace(splits.train, images=np.ascontiguousarray(splits.train.images[:, ::-1]))
    ROW.fit(dataclasses.replace(splits, train=turned), fourth)
    assert not np.array_equal(words[0], np.load(next(fourth.folder.glob("vocabulary-*.npz")))["array"])


def test_the_claimed_pool_holds_every_face_twice_and_chooses_nothing(splits, tmp_path):
    run = fusion_run(tmp_path, "claimed")
    classifier = ROW.fit(splits, run)
    assert run.facts["pool"] == 280 and len(run.facts["grid"]) == len(run.facts["blocks_tried"]) == 1
    assert run.facts["chosen"]["blocks"] == list(paper.BLOCKS)
    assert np.array_equal(classifier.pool.labels[:140], classifier.pool.labels[140:])
    mirrored = described(run.required[THIRTEEN.id], splits.train.images[:4, :, ::-1])
    np.testing.assert_allclose(classifier.pool.blocks["vgg-13"][140:144], kernels.unit_rows(mirrored), atol=1e-3)
    full = {protocol: ROW.recipe(protocol, "full").options for protocol in papers.PROTOCOLS}
    assert (full["claimed"]["k"], full["claimed"]["C"], full["claimed"]["pool"]) == ((200,), (100.0,), "mirrored")
    assert len(full["official"]["blocks"]) == 15 and full["official"]["pool"] == "plain"
    assert full["official"]["k"] == (50, 100, 200, 500, 1000) and full["official"]["C"] == (1.0, 10.0, 100.0)


def test_a_stopped_run_goes_on_to_the_same_result_with_the_same_networks(fused, splits, tmp_path, monkeypatch):
    _, classifier = fused
    run = fusion_run(tmp_path)
    run.deadline = time.monotonic()
    with pytest.raises(Interrupted, match="time budget"):
        ROW.fit(splits, run)
    again = fusion_run(tmp_path)

    def say(line):
        if line.startswith("descriptions"):
            os.kill(os.getpid(), signal.SIGINT)

    with listening(say), pytest.raises(Interrupted, match="Ctrl-C"):
        ROW.fit(splits, again)
    asked = []
    ask = paper.fuse.__globals__["described"]

    def counted(network, images):
        asked.append(len(images))
        return ask(network, images)

    monkeypatch.setattr("fer_repro.papers.deep_and_handcrafted.fusion.described", counted)
    resumed = ROW.fit(splits, fusion_run(tmp_path))
    assert asked == [], "descriptions are cached"
    assert np.array_equal(resumed.predict_proba(splits.test.images), classifier.predict_proba(splits.test.images))
    # Another network's descriptions are not taken for this one's.
    changed = fusion_run(tmp_path)
    with torch.no_grad():
        changed.required[F_NET.id].model.fc7.weight.neg_()
    asked.clear()
    ROW.fit(splits, changed)
    assert asked == [140, 35]


def test_missing_and_foreign_networks_are_named(splits, tmp_path):
    run = fusion_run(tmp_path)
    run.required.pop(F_NET.id)
    with pytest.raises(FerReproError, match="deep-and-handcrafted-vgg-f was not given"):
        ROW.fit(splits, run)
    run.required = untrained("claimed")
    with pytest.raises(FerReproError, match="vgg-face as a network fitted under the official protocol"):
        ROW.fit(splits, run)


def test_the_systems_recipe_depends_on_its_networks_recipes(monkeypatch):
    before = ROW.recipe("official", "full").sha256()
    changed = dict(paper.FULL) | {"vgg-13": paper.FULL["vgg-13"] | {"batch_size": 256}}
    monkeypatch.setattr(paper, "FULL", changed)
    assert ROW.recipe("official", "full").sha256() != before
    own, scratch = (
        dict(papers.get(name).recipe("official", "full").options["networks"]) for name in (ROW.id, f"{ROW.id}-scratch")
    )
    assert scratch[f"{F_NET.id}-scratch"] == papers.get(f"{F_NET.id}-scratch").recipe("official", "full").sha256()[:16]
    assert scratch.keys() & own.keys() == {THIRTEEN.id}


# ---- the page --------------------------------------------------------------------------------------------------------


def test_the_mistakes_are_measured():
    weight = torch.tensor([-9.0, -1.0, -0.1, 0.2, 0.3, 0.4, 0.5, 6.0, 7.0, 8.0])
    # 0.4 of ten numbers: the fourth smallest |w| is 0.4, and everything below it goes, -9 first of all.
    assert figures.sign_error(weight, 0.6).tolist() == [True] * 5 + [False] * 5
    assert smallest(weight, 0.6).tolist() == [False] + [True] * 6 + [False] * 3
    alt = figures.masks().alt
    assert "60\xa0% set to 0, of the largest tenth 0\xa0%" in alt and "70\xa0% set to 0, of the largest tenth 50" in alt
    cosines = figures._faces_as_words()
    same, other = cosines["one vocabulary"], cosines["one for each set"]
    np.testing.assert_allclose(np.diag(same), 1, atol=1e-5)
    assert (same.argmax(axis=0) == np.arange(60)).all() and (other.argmax(axis=0) == np.arange(60)).mean() < 0.2
    assert "synthetic faces" in figures.vocabularies().body.lower()
    standardised = np.random.default_rng(0).poisson(0.1, 5000)
    standardised = (standardised - standardised.mean()) / standardised.std()
    assert standardised @ standardised == pytest.approx(5000)
    assert "201,000" in figures.lengths().body


def test_the_page_shows_the_networks_and_the_blocks(fused, splits):
    body = figures.networks().body
    assert body.count("134,289,223") == body.count("56,766,215") - 1 == body.count("8,756,679") - 1 == 2
    assert "199,812,117" in body and "119,574,535" in body
    run, classifier = fused

    class Stored:
        variant, remark = ROW.id, SYNTHETIC
        record = {"facts": run.facts | classifier.extra_scores(splits)}

    shown = figures.blocks(Stored())
    assert shown.plain.count("one SVM for each face") >= 10 and "not a result" in shown.body
    Stored.record = {"facts": {}}
    assert "is one network" in figures.blocks(Stored()).body
    assert "the k training faces nearest by cosine, k from 50" in figures.steps().alt
