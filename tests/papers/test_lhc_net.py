"""LHC-Net: the block against NumPy, the backbone against timm, augmentation against SciPy, Keras' weights."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from fer_repro import data, papers, pretrained
from fer_repro.errors import FerReproError
from fer_repro.evaluation import cost
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.evaluation.tta import posed, view_count, view_weights
from fer_repro.markup import SYNTHETIC
from fer_repro.papers import lhc_net
from fer_repro.papers.lhc_net import ChannelAttention
from fer_repro.papers.lhc_net import figures as page
from fer_repro.pretrained import keras
from fer_repro.reproduce import reproduce, require_weights
from fer_repro.transforms import Augmenter, geometry

CHAPTER = Path(__file__).parents[2] / "chapters" / "papers" / "lhc-net.ipynb"
FULL = {name: lhc_net.recipe(name, "official", "full") for name in ("lhc-net", "lhc-net-backbone", "lhc-net-continued")}


def small(blocks: bool = True, **changes) -> nn.Module:
    step = lhc_net.SMALL_BLOCKS if blocks else lhc_net.SMALL
    torch.manual_seed(0)
    return lhc_net.LhcNet(**(step.kwargs() | changes))


def shaken(network: nn.Module, seed: int = 1) -> nn.Module:
    """Every parameter and statistic at random, so that no default can hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(
                noise + 0.5
                if name.endswith(("running_var", "norm1.weight", "norm2.weight"))
                else (noise - 0.5) * (0.1 if tensor.dim() > 1 else 1.0)
            )
    return network.eval()


# ---- the block -------------------------------------------------------------------------------------------------------


def numpy_block(block: ChannelAttention, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One image [C,R,R] through the block's definition, number by number: (output, attention [n,C,C])."""
    weights = {name: tensor.detach().double().numpy() for name, tensor in block.state_dict().items()}
    channels, edge, _ = image.shape
    heads, width, pixels = weights["embed"].shape
    near = [[(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)] for y in range(edge) for x in range(edge)]
    inside = [[(y, x) for y, x in places if 0 <= y < edge and 0 <= x < edge] for places in near]

    def pooled(maps, how):  # -> [C, R*R], row by row
        return np.array([[how([channel[place] for place in places]) for places in inside] for channel in maps])

    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    convolved = np.empty_like(image)
    for c in range(channels):
        for y in range(edge):
            for x in range(edge):
                window = padded[:, y : y + 3, x : x + 3]
                convolved[c, y, x] = (weights["value.weight"][c] * window).sum() + weights["value.bias"][c]
    query, key, value = pooled(image, np.mean), pooled(image, np.max), pooled(convolved, np.mean)
    output, attention = image.reshape(channels, -1).copy(), np.empty((heads, channels, channels))
    for h in range(heads):
        own = slice(h * pixels, (h + 1) * pixels)
        q, k = (rows[:, own] @ weights["embed"][h].T + weights["embed_bias"][h] for rows in (query, key))
        scores = np.array([[q[i] @ k[j] for j in range(channels)] for i in range(channels)])
        p = 1 / (1 + np.exp(-(weights["exponent.weight"] @ scores.mean(axis=1) + weights["exponent.bias"])))
        for i in range(channels):
            row = scores[i] / width ** (1 + p[i])
            attention[h, i] = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
            output[i, own] += attention[h, i] @ value[:, own]
    return output.reshape(image.shape), attention


@pytest.mark.parametrize(("channels", "edge", "heads", "width"), [(5, 6, 3, 7), (4, 4, 1, 3), (6, 4, 8, 2)])
def test_the_block_is_its_definition(channels, edge, heads, width):
    torch.manual_seed(3)
    block = ChannelAttention(channels, edge, heads, width).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.7)
    maps = torch.randn(2, channels, edge, edge, dtype=torch.double) * 2
    found, (attention, exponents) = block(maps), block.attention(maps)
    assert attention.shape == (2, heads, channels, channels) and exponents.shape == (2, heads, channels)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, heads, channels, dtype=torch.double))
    assert attention.std() > 0.02, "an even attention would prove nothing"
    for image in range(2):
        output, expected = numpy_block(block, maps[image].numpy())
        np.testing.assert_allclose(found[image].detach(), output, atol=1e-10)
        np.testing.assert_allclose(attention[image].detach(), expected, atol=1e-12)


def test_a_head_sees_its_strip_and_one_row_around_it():
    torch.manual_seed(0)
    block, maps = ChannelAttention(4, 8, 4, 3), torch.randn(1, 4, 8, 8)
    changed = maps.clone()
    changed[..., 7, :] += 1  # the last of eight rows; strips are two rows high
    before, after = block.attention(maps)[0], block.attention(changed)[0]
    assert torch.equal(before[:, :3], after[:, :3]) and not torch.allclose(before[:, 3], after[:, 3])
    changed = maps.clone()
    changed[..., 6, :] += 1
    assert not torch.allclose(before[:, 2], block.attention(changed)[0][:, 2])


def test_a_block_without_values_changes_nothing():
    block, maps = ChannelAttention(4, 4, 2, 3), torch.randn(2, 4, 4, 4)
    nn.init.zeros_(block.value.weight)
    assert torch.equal(block(maps), maps)


# ---- the network -----------------------------------------------------------------------------------------------------


def test_counts_and_shapes_of_the_full_network():
    """The block counts are those of the released layers in TensorFlow 2.15.1, as are the 15,366 statistics."""
    with torch.device("meta"):
        network = lhc_net.build(FULL["lhc-net"])
        shapes = []
        for block in network.blocks:
            block.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
        assert network(torch.zeros(2, 1, 224, 224)).shape == (2, 7)
    assert shapes == [(64, 56, 56), (64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]
    counts = [cost.count_parameters(block) for block in network.blocks]
    assert counts == [657_312, 657_312, 208_392, 658_714, 2_623_714] and sum(counts) == 4_805_444
    assert cost.count_parameters(network) - sum(counts) == 27_590_858
    assert cost.count_parameters(network.norm) == 1_024, "the picture's last block has them, as the chapter says"
    assert cost.count_parameters(network.head) == 6_303_751
    statistics = sum(b.numel() for name, b in network.named_buffers() if "running" in name)
    assert statistics == 15_366
    assert cost.count_multiply_adds(network, (1, 1, 224, 224)) == pytest.approx(4.53e9, rel=1e-3)
    assert {(m.eps, m.momentum) for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {(2e-5, 0.01)}


def test_the_chapters_table_of_blocks_is_the_networks():
    prose = "\n".join("".join(cell["source"]) for cell in json.loads(CHAPTER.read_text())["cells"])
    rows = re.findall(r"^\| LHC \d \|(.+)\|$", prose, re.M)
    rows = [[int(cell.replace(",", "")) for cell in row.split("|")] for row in rows]
    with torch.device("meta"):
        blocks = lhc_net.build(FULL["lhc-net"]).blocks
    expected = []
    for block, edge in zip(blocks, (56, 56, 28, 14, 7), strict=True):
        heads, width, pixels = block.embed.shape
        assert heads * pixels == edge**2
        expected.append([block.value.in_channels, edge, heads, pixels, width, cost.count_parameters(block)])
    assert rows == expected


def test_the_first_norm_has_no_scale_and_levels_go_from_0_to_255():
    network = small(blocks=False)
    assert [name for name, _ in network.stem[1].named_parameters()] == ["shift"]
    faces = data.load("synthetic", size=(28, 7, 7)).images[:8]
    seen = []
    network.stem[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    recipe = lhc_net.recipe("lhc-net-backbone", "official", "smoke")
    NetworkClassifier(network, recipe, "cpu").predict_proba(np.asarray(faces))
    assert seen[0].max() > 200 and seen[0].shape[1] == 3 and torch.equal(seen[0][:, 0], seen[0][:, 2])


def test_the_backbone_is_timms_pre_activation_network_where_they_agree():
    """Stages 2 to 4 and the last norm, on the same random weights; the stem and the first shortcut differ."""
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("resnetv2_34", num_classes=7)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in theirs.stem.modules())
    assert theirs.stages[0].blocks[0].downsample is None, "our weights are no substitute for each other"
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 2e-5
    shaken(theirs)
    ours = lhc_net.LhcNet(hidden=(8, 8)).eval()
    named = {
        re.sub(r"blocks\.(\d+)\.", r"\1.", name).replace("downsample.conv", "shortcut"): tensor
        for name, tensor in theirs.state_dict().items()
        if name.startswith(("stages.1", "stages.2", "stages.3", "norm."))
    }
    places = {n for n in ours.state_dict() if n.startswith(("stages.1", "stages.2", "stages.3", "norm."))}
    assert set(named) == places
    ours.load_state_dict(named, strict=False)
    maps = torch.randn(2, 64, 20, 20)
    with torch.no_grad():
        expected, found = theirs.norm(theirs.stages[1:](maps)), maps
        for stage in ours.stages[1:]:
            found = stage(found)
        found = F.relu(ours.norm(found))
    assert expected.shape == (2, 512, 3, 3) and expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


# ---- weights ---------------------------------------------------------------------------------------------------------


def keras_layers(width: int, units: tuple[int, ...]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Layers and shapes of image-classifiers' ResNet34 without top, from its definition (models/resnet.py)."""

    def norm(channels: int) -> dict[str, tuple[int, ...]]:
        return {name: (channels,) for name in ("gamma", "beta", "moving_mean", "moving_variance")}

    layers = {"bn_data": norm(3), "conv0": {"kernel": (7, 7, 3, width)}, "bn0": norm(width)}
    del layers["bn_data"]["gamma"]
    before = width
    for stage, count in enumerate(units):
        after = width * 2**stage
        for unit in range(count):
            name = f"stage{stage + 1}_unit{unit + 1}_"
            layers[name + "bn1"] = norm(before)
            if unit == 0:
                layers[name + "sc"] = {"kernel": (1, 1, before, after)}
            layers[name + "conv1"] = {"kernel": (3, 3, before, after)}
            layers[name + "bn2"] = norm(after)
            layers[name + "conv2"] = {"kernel": (3, 3, after, after)}
            before = after
    return layers | {"bn1": norm(before)}


def keras_state(width: int = 8, units: tuple[int, ...] = (2, 1, 1, 1)) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        f"{layer}/{kind}": torch.rand(shape, generator=generator) + 0.5
        for layer, kinds in keras_layers(width, units).items()
        for kind, shape in kinds.items()
    }


def test_the_papers_weights_have_a_place_each():
    shapes = keras_layers(64, (3, 4, 6, 3))
    numbers = sum(math.prod(shape) for kinds in shapes.values() for shape in kinds.values())
    assert numbers == 27_590_858 - 6_303_751 + 15_366
    with torch.device("meta"):
        network = lhc_net.build(FULL["lhc-net-backbone"])
        state = {f"{layer}/{kind}": torch.empty(s) for layer, kinds in shapes.items() for kind, s in kinds.items()}
    own = {n: t.shape for n, t in network.state_dict().items() if not n.startswith("head.") and "num_batches" not in n}
    given = {lhc_net.own_name(name): tensor.shape for name, tensor in keras.as_torch(state).items()}
    assert given == own


def test_loaded_weights_compute_what_keras_would():
    network, state = small(blocks=False, units=(2, 1, 1, 1)), keras_state()
    head = network.head[0].weight.clone()
    network.load_pretrained(state)
    assert torch.equal(network.head[0].weight, head)
    network.eval()
    images = torch.rand(2, 1, 32, 32) * 255

    def norm(maps, layer):  # channels last, as in Keras
        gamma = state.get(f"{layer}/gamma", torch.ones(maps.shape[-1]))
        scaled = (maps - state[f"{layer}/moving_mean"]) / (state[f"{layer}/moving_variance"] + 2e-5).sqrt()
        return scaled * gamma + state[f"{layer}/beta"]

    def conv(maps, layer, stride=1):
        kernel = state[f"{layer}/kernel"]  # [h,w,in,out]
        size = kernel.shape[0]
        padded = F.pad(maps, (0, 0, size // 2, size // 2, size // 2, size // 2))
        windows = padded.unfold(1, size, stride).unfold(2, size, stride)  # [B,H,W,in,h,w]
        return torch.einsum("bxyihw,hwio->bxyo", windows, kernel)

    maps = norm(images.permute(0, 2, 3, 1).expand(-1, -1, -1, 3), "bn_data")
    maps = F.relu(norm(conv(maps, "conv0", 2), "bn0"))
    maps = F.pad(maps, (0, 0, 1, 1, 1, 1)).unfold(1, 3, 2).unfold(2, 3, 2).amax((-1, -2))
    for stage, count in enumerate((2, 1, 1, 1)):
        for unit in range(count):
            name, stride = f"stage{stage + 1}_unit{unit + 1}_", 2 if stage and not unit else 1
            active = F.relu(norm(maps, name + "bn1"))
            shortcut = conv(active, name + "sc", stride) if unit == 0 else maps
            inner = F.relu(norm(conv(active, name + "conv1", stride), name + "bn2"))
            maps = conv(inner, name + "conv2") + shortcut
    expected = F.relu(norm(maps, "bn1")).mean((1, 2))
    found = []
    network.head.register_forward_hook(lambda module, inputs, output: found.append(inputs[0]))
    with torch.no_grad():
        network(images)
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-4)


def test_weights_that_do_not_fit_are_refused_in_one_sentence():
    state = keras_state(units=(1, 1, 1, 1))
    with pytest.raises(FerReproError, match="1 missing .stages.0.0.shortcut.weight.*use the file"):
        small(False).load_pretrained({n: t for n, t in state.items() if n != "stage1_unit1_sc/kernel"})
    with pytest.raises(FerReproError, match=r"stem.2.weight is \[9, 3, 7, 7\], expected \[8, 3, 7, 7\]"):
        small(False).load_pretrained(state | {"conv0/kernel": torch.zeros(7, 7, 3, 9)})
    with pytest.raises(FerReproError, match="without a place .fc1.weight"):
        small(False).load_pretrained(state | {"fc1/kernel": torch.zeros(4, 2)})
    with pytest.raises(FerReproError, match="'conv0/depthwise' is of no known kind"):
        small(False).load_pretrained({"conv0/depthwise": torch.zeros(1)})


def test_without_the_file_the_backbone_and_what_builds_on_it_say_where_it_belongs(tmp_path, monkeypatch):
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path))
    for name in FULL:
        with pytest.raises(FerReproError, match=f"{lhc_net.WEIGHTS.file} into a folder.*--from-scratch"):
            require_weights(name, "official", "full")
        require_weights(name + "-scratch", "official", "full")


@pytest.fixture
def h5(tmp_path):
    h5py = pytest.importorskip("h5py")

    def write(state, inside=""):
        with h5py.File(tmp_path / lhc_net.WEIGHTS.file, "w") as file:
            root = file.create_group(inside) if inside else file
            layers = list(dict.fromkeys(name.split("/")[0] for name in state))
            root.attrs["layer_names"] = [layer.encode() for layer in ["data", *layers]]
            root.create_group("data").attrs["weight_names"] = []
            for layer in layers:
                group = root.create_group(layer)
                named = {f"{layer}/{n.split('/')[1]}:0": t for n, t in state.items() if n.split("/")[0] == layer}
                group.attrs["weight_names"] = [name.encode() for name in named]
                for name, tensor in named.items():
                    group.create_dataset(name, data=tensor.numpy())
        return tmp_path

    return write


@pytest.mark.parametrize("inside", ["", "model_weights"])
def test_a_file_of_keras_is_read_from_the_users_folder(h5, inside, monkeypatch):
    state = keras_state(units=(1, 1, 1, 1))
    monkeypatch.setenv(pretrained.FOLDER, str(h5(state, inside)))
    found = pretrained.read(lhc_net.WEIGHTS)
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)
    recipe = lhc_net.recipe("lhc-net-backbone", "official", "smoke")
    network = pretrained.loaded(lhc_net.build)(dataclasses.replace(recipe, pretrained=lhc_net.WEIGHTS))
    assert torch.equal(network.stages[1][0].shortcut.weight[:, :, 0, 0], state["stage2_unit1_sc/kernel"][0, 0].t())


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_what_is_no_file_of_keras_is_refused(tmp_path, monkeypatch, content):
    pytest.importorskip("h5py")
    (tmp_path / lhc_net.WEIGHTS.file).write_bytes(content)
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path))
    with pytest.raises(FerReproError, match="cannot be read as weights.*fetch it again"):
        pretrained.read(lhc_net.WEIGHTS)


# ---- test-time copies and augmentation -------------------------------------------------------------------------------


def scipy_warp(image: np.ndarray, matrix: np.ndarray, offset: np.ndarray | None = None) -> np.ndarray:
    """Output place -> input place about the centre, as (row, column); bilinear, border repeated."""
    centre = (np.array(image.shape) - 1) / 2
    shift = centre - matrix @ centre + (0 if offset is None else offset)
    return ndimage.affine_transform(image.astype(float), matrix, shift, order=1, mode="nearest")


def turned(radians: float) -> np.ndarray:
    """For a counter-clockwise turn as one sees it (rows go down)."""
    cos, sin = math.cos(radians), math.sin(radians)
    return np.array([[cos, sin], [-sin, cos]])


def released_view(image: np.ndarray, mirrored: bool, zoomed: bool, dx: int, dy: int, radians: float) -> np.ndarray:
    """One view as the release makes it: mirror, crop and enlarge, shift, rotate, each on its own."""
    view = image[:, ::-1] if mirrored else image
    if zoomed:  # tf.image.central_crop(0.9) of 224 pixels, tf.image.resize
        middle = torch.tensor(view[11:213, 11:213].copy())[None, None]
        view = F.interpolate(middle, size=(224, 224), mode="bilinear", align_corners=False)[0, 0].numpy()
    view = ndimage.shift(view, (dy, dx), order=1, mode="nearest")
    return scipy_warp(view, turned(radians)) if radians else view


def a_face() -> np.ndarray:
    face = torch.tensor(np.asarray(data.load("synthetic", size=(14, 7, 7)).images[:1]))[None].float()
    return geometry.resize(face, 224)[0, 0].numpy()


def test_there_are_sixty_copies_of_weight_62():
    poses = lhc_net.poses()
    views = FULL["lhc-net"].views
    assert views.poses == poses and view_count(views) == 60 and views.average == "probabilities"
    assert len({pose[1:] for pose in poses}) == 60 and sum(pose[0] for pose in poses) == 62
    assert [pose for pose in poses if pose[0] != 1] == [(3, 0, 1, 0, 0, 0)]
    assert sum(pose[2] == 1 for pose in poses) == 54 and {pose[2] for pose in poses} == {1, 202 / 224}
    assert view_weights(views)[:2] == [3 / 62, 1 / 62]
    assert FULL["lhc-net"].plain != views and FULL["lhc-net"].selection.views is False


def test_every_view_is_what_the_release_makes_step_by_step():
    image = a_face()
    moves = (0, 10, -10)
    grid = [(m, False, dx, dy, r) for r in (0, 0.4, -0.4) for dx in moves for dy in moves for m in (0, 1)]
    enlarged = [(m, True, 0, 0, r) for r in (0, 0.15, -0.15) for m in (0, 1)]
    found = posed(torch.tensor(image)[None, None], lhc_net.poses())[:, 0].numpy()
    assert len(found) == len(grid + enlarged)
    for view, how in zip(found, grid + enlarged, strict=True):
        expected = released_view(image, *how)
        off = np.abs(view - expected)
        # A crop repeats its own border where the enlarged whole still knows its neighbours: half a pixel, which the
        # rotation then draws out into the corners. Grey levels go from 0 to 255.
        assert off.max() < (1.0 if how[1] else 0.05), how
        assert (off > 0.05).mean() < (0.05 if how[1] else 1e-9), how


def test_views_turn_the_way_torchvision_turns():
    image = torch.tensor(a_face())[None, None]
    middle = slice(60, 164)
    for pose, degrees in ((lhc_net.poses()[18], 22.918), (lhc_net.poses()[36], -22.918)):
        found, expected = posed(image, (pose,)), rotate(image, degrees, InterpolationMode.BILINEAR)
        torch.testing.assert_close(found[..., middle, middle], expected[..., middle, middle], atol=0.3, rtol=0)


@pytest.mark.parametrize(("stage", "degrees", "shift", "zoom"), [(0, 30, 0, 0), (1, 10, 0.1, 0.1)])
def test_phases_augment_as_their_draws_say(stage, degrees, shift, zoom):
    """Phase A is Keras' map; phase B has its ranges, zoomed and turned before it is moved."""
    steps = FULL["lhc-net-backbone"].stages[stage].augment
    assert [step.name for step in steps] == ["resize", "affine", "flip"] and steps[2]["p"] == 0.5
    faces = torch.tensor(np.asarray(data.load("synthetic", size=(14, 7, 7)).images[:6]))[:, None].float() / 255
    found = Augmenter(steps[:2])(faces.clone(), torch.Generator().manual_seed(4))
    options = {"degrees": degrees, "shift": shift, "scale": (1 - zoom, 1 + zoom), "per_axis": bool(zoom)}
    draws = geometry.affine_draws(6, 224, 224, torch.Generator().manual_seed(4), **options)
    large = geometry.resize(faces, 224)[:, 0].numpy()
    draws = torch.stack(draws, dim=1).tolist()
    for image, view, (angle, zoom_x, zoom_y, dx, dy) in zip(large, found[:, 0], draws, strict=True):
        inverse = np.diag([1 / zoom_y, 1 / zoom_x]) @ turned(math.radians(angle))
        expected = scipy_warp(image, inverse, -inverse @ np.array([dy, dx]))
        assert np.abs(view.numpy() - expected).max() < 2e-3
        assert bool(zoom) == (zoom_x != 1)


def test_draws_cover_what_keras_draws():
    draws = geometry.affine_draws(20000, 224, 224, torch.Generator().manual_seed(0), 10, 0.1, (0.9, 1.1), True)
    for synthetic, limit, centre in zip(draws, (10, 0.1, 0.1, 22, 22), (0, 1, 1, 0, 0), strict=True):
        assert (synthetic - centre).abs().max() <= limit + 0.5 * (limit > 20)  # shifts are whole pixels
        assert synthetic.std() == pytest.approx(limit / 3**0.5, rel=0.03)


# ---- recipes and runs ------------------------------------------------------------------------------------------------


def test_the_stages_are_the_released_ones():
    backbone = FULL["lhc-net-backbone"]
    settings = [
        (s.optimiser.name, s.optimiser["lr"], backbone.at(s).batch_size, s.patience, s.start, s.epochs)
        for s in backbone.stages
    ]
    assert settings == [
        ("adam", 1e-4, 48, 30, "fresh", 300),
        ("sgd", 0.01, 64, 10, "best", 300),
        ("sgd", 0.01, 64, 5, "best", 300),
    ]
    assert [bool(backbone.at(stage).augment) for stage in backbone.stages] == [True, True, False]
    for name in ("lhc-net", "lhc-net-continued"):
        (stage,) = FULL[name].stages
        assert (stage.optimiser, stage.patience) == (backbone.stages[2].optimiser, 3)
        assert not FULL[name].at(stage).augment
        assert papers.get(name).requires == ("lhc-net-backbone",) and FULL[name].pretrained is None
    assert dataclasses.replace(FULL["lhc-net"], variant="", network=None, deviations=()) == dataclasses.replace(
        FULL["lhc-net-continued"], variant="", network=None, deviations=()
    ), "the control differs in the blocks alone"


def test_the_whole_backbone_is_the_start():
    recipe = lhc_net.recipe("lhc-net", "official", "smoke")
    before, images = small(blocks=False), torch.rand(8, 1, 32, 32) * 255
    for _ in range(20):  # statistics of its own to hand over
        before(images)
    before.eval()
    backbone = NetworkClassifier(before, lhc_net.recipe("lhc-net-backbone", "official", "smoke"), "cpu")
    network = lhc_net.warm_started(backbone)(recipe).eval()
    taken = network.state_dict()
    assert all(torch.equal(taken[name], tensor) for name, tensor in before.state_dict().items())
    assert {name.split(".")[0] for name in taken.keys() - before.state_dict().keys()} == {"blocks"}
    with torch.no_grad():
        logits = before(images)
        assert logits.std(dim=0).min() > 0.01 and (network(images) - logits).abs().max() > 0.01
        for block in network.blocks:
            nn.init.zeros_(block.value.weight)
        torch.testing.assert_close(network(images), logits)
    narrow = NetworkClassifier(small(blocks=False, width=4), backbone.recipe, "cpu")
    with pytest.raises(FerReproError, match="of lhc-net-backbone do not fit LhcNet"):
        lhc_net.warm_started(narrow)(recipe)


@pytest.fixture(scope="module")
def result():
    return reproduce("lhc-net", profile="smoke", device="cpu")


def test_a_run_records_its_backbone_and_what_it_attends_to(result):
    facts = result.record["facts"]
    assert re.fullmatch(r"[0-9a-f]{64}", facts["backbone_sha256"])
    assert list(result.history["stage"].unique()) == ["all trainable"]
    blocks = facts["attention"]["blocks"]
    assert [(b["channels"], b["heads"]) for b in blocks] == [(8, 4), (8, 4), (16, 2), (32, 2), (64, 1)]
    assert all(0 < e <= 1 and 0 < p < 1 for b in blocks for e, p in zip(b["evenness"], b["exponent"], strict=True))


def test_recorded_attention_is_the_mean_over_the_images(result):
    faces = page.scored_faces(result)
    modes = [module.training for module in result.classifier.model.modules()]
    whole, first, second = (result.classifier.attention(part) for part in (faces, faces[:100], faces[100:]))
    assert len(faces) == 140 and modes == [module.training for module in result.classifier.model.modules()]
    for all_, some, rest in zip(whole, first, second, strict=True):
        for name in all_:
            np.testing.assert_allclose(all_[name], (100 * some[name] + 40 * rest[name]) / 140, atol=1e-4)
        np.testing.assert_allclose(all_["attention"].sum(-1), 1, atol=1e-4)
    # By the definition, on the first block's own input
    seen = []
    hook = result.classifier.model.blocks[0].register_forward_hook(lambda m, i, o: seen.append((i[0], o)))
    result.classifier.attention(faces[:2])
    hook.remove()
    maps, output = seen[0]
    weights = result.classifier.model.blocks[0].attention(maps)[0].detach().numpy()
    means = result.classifier.attention(faces[:2])[0]
    entropy = -(weights * np.log(weights)).sum(-1).mean((0, 2)) / np.log(8)
    np.testing.assert_allclose(means["evenness"], entropy, atol=1e-5)
    share = [np.linalg.norm((o - i).numpy()) / np.linalg.norm(i.numpy()) for i, o in zip(maps, output, strict=True)]
    assert means["share"] == pytest.approx(np.mean(share), abs=1e-5)


# ---- the chapter -----------------------------------------------------------------------------------------------------


def test_the_page_shows_matrices_only_where_there_is_a_network(result):
    shown = page.attention(result)
    assert shown.body.count("<img") == 2 and SYNTHETIC in shown.body and "LHC 5" in shown.plain
    loaded = page.attention(dataclasses.replace(result, classifier=None))
    assert "<img" not in loaded.body and "need the network itself" in loaded.body and loaded.plain == shown.plain
    record = result.record | {"facts": {}}
    none = page.attention(dataclasses.replace(result, record=record))
    assert "has no attention blocks" in none.body
    np.testing.assert_allclose(page.relative(np.array([[0.25, 0.75], [0.5, 0.5]])), [[-1, np.log2(1.5)], [0, 0]])


def test_the_picture_of_views_holds_all_sixty():
    figure = page.sixty_copies()
    assert "60 copies" in figure.alt and "sum to 62" in figure.caption and figure.remark == SYNTHETIC
    (image,) = figure.canvas("dark").axes[0].images
    sheet = np.asarray(image.get_array().filled(np.nan))
    tiles = [sheet[r * 76 : r * 76 + 72, c * 76 : c * 76 + 72] for r in range(5) for c in range(12)]
    assert len({tile.tobytes() for tile in tiles}) == 60 and not np.isnan(tiles).any()


def test_the_gain_of_the_best_run():
    assert page.expected_best(1) == pytest.approx(0, abs=1e-9)
    assert page.expected_best(2) == pytest.approx(1 / math.sqrt(math.pi))
    assert page.expected_best(3) == pytest.approx(1.5 / math.sqrt(math.pi))
    synthetic = np.random.default_rng(0).standard_normal((40000, 50)).max(axis=1)
    assert page.expected_best(50) == pytest.approx(synthetic.mean(), abs=0.01)


def test_the_table_of_the_selection_gain_uses_the_stored_seeds(result, monkeypatch):
    runs = []
    for accuracy in (0.70, 0.71, 0.72):
        scores = {half: {"plain": {"accuracy": accuracy}} for half in ("PublicTest", "PrivateTest")}
        runs.append(dataclasses.replace(result, record=result.record | {"scores": scores}, predictions={}))
    monkeypatch.setattr(page.results, "read_all", lambda where: runs)
    shown = page.selection_gain(None)
    assert "lhc-net, official, σ = 1.00" in shown.body and "0.56" in shown.body and "no σ" not in shown.body
    monkeypatch.setattr(page.results, "read_all", lambda where: runs[:2])
    assert "no σ was measured here" in page.selection_gain(None).body
