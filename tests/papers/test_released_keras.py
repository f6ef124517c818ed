"""Files that Keras or TensorFlow wrote, converted: our networks give what the authors' layers compute.

The layers are written in Keras' layout (pictures [B,H,W,C], kernels [h,w,in,out]) and by the authors' names.
"""

from __future__ import annotations

import random

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fer_repro import papers
from fer_repro.data import LABELS
from fer_repro.errors import FerReproError
from fer_repro.papers.base import from_release
from fer_repro.pretrained import keras, tensors_of

State = dict[str, Tensor]


class Weights:
    """A state dict that grows: a layer's weights are drawn when it is first used."""

    def __init__(self) -> None:
        self.state: State = {}
        self.draw = torch.Generator().manual_seed(0)

    def __call__(self, name: str, *shape: int) -> Tensor:
        if name not in self.state:
            kind, values = name.rpartition("/")[2], torch.randn(shape, generator=self.draw)
            if kind.endswith("kernel"):
                fan_in = shape[0] * shape[1] if kind == "depthwise_kernel" else int(np.prod(shape[:-1]))
                values *= (1.3 / fan_in) ** 0.5
            elif kind in ("gamma", "moving_variance"):
                values = 0.5 + 0.6 * torch.rand(shape, generator=self.draw)
            else:
                values *= 0.1
            self.state[name] = values
        return self.state[name].double()  # so that no rounding hides or makes a difference

    def norm(self, x: Tensor, name: str, eps: float = 1e-3, scale: bool = True) -> Tensor:
        channels = x.shape[-1]
        mean, variance = (self(f"{name}/moving_{part}", channels) for part in ("mean", "variance"))
        x = (x - mean) / (variance + eps).sqrt()
        return (x * self(f"{name}/gamma", channels) if scale else x) + self(f"{name}/beta", channels)

    def conv(
        self, x: Tensor, name: str, channels: int, k: int = 3, stride: int = 1, pad: int = 0, bias=False
    ) -> Tensor:
        kernel = self(f"{name}/kernel", k, k, x.shape[-1], channels)
        y = torch.einsum("bhwcij,ijco->bhwo", windows(x, k, stride, pad), kernel)
        return y + self(f"{name}/bias", channels) if bias else y

    def separable(self, x: Tensor, name: str, channels: int) -> Tensor:
        depthwise = self(f"{name}/depthwise_kernel", 3, 3, x.shape[-1], 1)
        x = torch.einsum("bhwcij,ijcm->bhwc", windows(x, 3, 1, 1), depthwise)
        return self.norm(x @ self(f"{name}/pointwise_kernel", 1, 1, x.shape[-1], channels)[0, 0], f"{name}_bn")

    def dense(self, x: Tensor, name: str, units: int) -> Tensor:
        return x @ self(f"{name}/kernel", x.shape[-1], units) + self(f"{name}/bias", units)


def windows(x: Tensor, k: int, stride: int, pad: int) -> Tensor:
    """[B,H,W,C] -> [B,H',W',C,k,k]"""
    return F.pad(x, (0, 0, pad, pad, pad, pad)).unfold(1, k, stride).unfold(2, k, stride)


def pooled(x: Tensor, k: int, stride: int, pad: tuple[int, int]) -> Tensor:
    """Maxima with padding that never wins."""
    x = F.pad(x, (0, 0, *pad, *pad), value=float("-inf"))
    return x.unfold(1, k, stride).unfold(2, k, stride).amax((-2, -1))


def cnn(weights: Weights, grey: Tensor, start: int = 0) -> Tensor:
    def numbered(kind: str, index: int) -> str:
        return f"{kind}_{start + index}" if start + index else kind

    x = F.relu(weights.conv(grey.permute(0, 2, 3, 1), numbered("conv2d", 0), 256, pad=1, bias=True))
    for index, channels in enumerate((512, 384, 192, 384)):
        x = F.relu(weights.conv(x, numbered("conv2d", index + 1), channels, pad=1, bias=True))
        x = pooled(weights.norm(x, numbered("batch_normalization", index)), 2, 2, (0, 0))
    x = F.relu(weights.dense(x.flatten(1), numbered("dense", 0), 256))
    return weights.dense(weights.norm(x, numbered("batch_normalization", 4)), numbered("dense", 1), 7)


def xception(weights: Weights, grey: Tensor, embeddings: int, start: int) -> Tensor:
    projections = iter(range(start, start + 4))

    def block(x: Tensor, number: int, *widths: int) -> Tensor:
        residual = x
        for index, width in enumerate(widths, 1):
            residual = residual if number == 2 and index == 1 else F.relu(residual)
            residual = weights.separable(residual, f"block{number}_sepconv{index}", width)
        if 5 <= number <= 12:
            return x + residual
        total = max((-(-residual.shape[1] // 2) - 1) * 2 + 3 - residual.shape[1], 0)
        suffix = f"_{index}" if (index := next(projections)) else ""
        x = weights.norm(weights.conv(x, f"conv2d{suffix}", widths[-1], 1, 2), f"batch_normalization{suffix}")
        return x + pooled(residual, 3, 2, (total // 2, total - total // 2))

    x = grey.permute(0, 2, 3, 1).expand(-1, -1, -1, 3)
    x = F.relu(weights.norm(weights.conv(x, "block1_conv1", 32, 3, 2), "block1_conv1_bn"))
    x = F.relu(weights.norm(weights.conv(x, "block1_conv2", 64), "block1_conv2_bn"))
    for number, width in ((2, 128), (3, 256), (4, 728)):
        x = block(x, number, width, width)
    for number in range(5, 13):
        x = block(x, number, 728, 728, 728)
    x = block(x, 13, 728, 1024)
    for index, width in ((1, 1536), (2, 2048)):
        x = F.relu(weights.separable(x, f"block14_sepconv{index}", width))
    features, parts = x.mean((1, 2)), []
    for index in range(embeddings):
        part = weights.dense(features, f"dense_{start + index}" if start + index else "dense", 256)
        parts.append(part / part.norm(dim=1, keepdim=True))
    return weights.dense(torch.cat(parts, dim=1), "out", 7)


def lhc_net(weights: Weights, grey: Tensor) -> Tensor:
    def around(x: Tensor) -> Tensor:
        """Means of 3x3 neighbours, those inside the picture."""
        inside = windows(torch.ones_like(x), 3, 1, 1).sum((-2, -1))
        return windows(x, 3, 1, 1).sum((-2, -1)) / inside

    def attention(x: Tensor, name: str, heads: int, width: int) -> Tensor:
        edge, channels = x.shape[1], x.shape[-1]
        values = around(weights.conv(x, f"{name}/Wv", channels, pad=1, bias=True))
        parts = [part.flatten(1, 2).mT for part in (around(x), pooled(x, 3, 1, (1, 1)), values)]  # [B,C,pixels]
        mixed, size = [], edge * edge // heads
        for head in range(heads):
            query, key, value = (part[..., head * size : (head + 1) * size] for part in parts)
            query, key = (weights.dense(part, f"{name}/Wqk/{head}", width) for part in (query, key))
            scores = query @ key.mT
            power = 1 + weights.dense(scores.mean(-1), f"{name}/Wp", channels).sigmoid()
            mixed.append((scores / width ** power[..., None]).softmax(-1) @ value)
        return x + torch.cat(mixed, dim=-1).mT.unflatten(1, (edge, edge))

    eps, blocks = 2e-5, iter(((8, 196), (8, 56 * 7 // 2), (7, 56), (7, 14), (1, 25)))
    x = grey.permute(0, 2, 3, 1).expand(-1, -1, -1, 3) * 255
    x = weights.conv(weights.norm(x, "conv1/bn1", eps, scale=False), "conv1/conv1", 64, 7, 2, 3)
    x = pooled(F.pad(F.relu(weights.norm(x, "conv1/bn2", eps)), (0, 0, 1, 1, 1, 1)), 3, 2, (0, 0))
    x = attention(x, "conv1/LHC_Module", *next(blocks))
    for stage, (units, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 2):
        for unit in range(1, units + 1):
            name, stride = f"conv{stage}_{unit}", 2 if stage > 2 and unit == 1 else 1
            active = F.relu(weights.norm(x, f"{name}/bn1", eps))
            y = weights.conv(active, f"{name}/conv1", width, stride=stride, pad=1)
            y = weights.conv(F.relu(weights.norm(y, f"{name}/bn2", eps)), f"{name}/conv2", width, pad=1)
            x = y + (weights.conv(active, f"{name}/convId", width, 1, stride) if unit == 1 else x)
        x = attention(x, f"{name}/LHC_Module", *next(blocks))
    x = F.relu(weights.norm(x, "bn", eps)).mean((1, 2))
    for name, units in (("fc1", 4096), ("fc2", 1024)):
        x = F.relu(weights.dense(x, name, units))
    return weights.dense(x, "fc3", 7)


def grey_pictures(count: int, side: int) -> Tensor:
    return torch.rand(count, 1, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def written(path, state: State):
    """As Keras 2 saves a whole model: a group of weights for each layer, names ``layer/kind:0``."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.4.0"
        root, layers = file.create_group("model_weights"), {}
        for name in state:
            layers.setdefault(name.rpartition("/")[0], []).append(name)
        root.attrs["layer_names"] = [*(name.encode() for name in layers), b"dropout"]
        root.create_group("dropout").attrs["weight_names"] = []
        for layer, names in layers.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [f"{name}:0".encode() for name in names]
            for name in names:
                group[f"{name}:0"] = state[name].numpy()
    return path


def agree(variant: str, state: State, grey: Tensor, expected: Tensor):
    network, recipe = from_release(papers.get(variant), state)
    with torch.no_grad():
        output = network.double()((grey - recipe.mean) / recipe.std)
    logits = output if isinstance(output, Tensor) else output[0]
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize("start", [0, 6])
def test_cnn_hyperparameters(tmp_path, start):
    weights, grey = Weights(), grey_pictures(2, 48)
    logits = cnn(weights, grey, start)
    agree("cnn-hyperparameters", tensors_of(written(tmp_path / "model.h5", weights.state)), grey, logits)


@pytest.mark.parametrize(("embeddings", "start"), [(10, 0), (7, 4)])
def test_ad_corre_with_as_many_embeddings_as_the_file_holds(tmp_path, embeddings, start):
    weights, grey = Weights(), grey_pictures(2, 71)
    logits = xception(weights, grey, embeddings, start)
    state = tensors_of(written(tmp_path / "Fer2013_7203.h5", weights.state))
    agree("ad-corre", state, grey, logits[:, [6, 5, 4, 1, 2, 3, 0]])


@pytest.mark.parametrize("index", range(7))
def test_ad_corres_classes_are_ours(index):
    theirs = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry").index(LABELS[index])
    state = {"out/kernel": F.one_hot(torch.tensor(theirs), 7).float()[None], "out/bias": torch.zeros(7)}
    assert papers.get("ad-corre").released.convert(state)["classify.weight"][:, 0].argmax() == index


def test_lhc_net_from_the_variables_of_a_checkpoint(tmp_path):
    weights, grey = Weights(), grey_pictures(1, 224)
    logits = lhc_net(weights, grey)
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    named = {f"{name}{suffix}": part.numpy() for name, part in weights.state.items()}
    named |= {f"save_counter{suffix}": np.array(3), "_CHECKPOINTABLE_OBJECT_GRAPH": np.array(b"text")}
    named |= {f"fc1/kernel/.OPTIMIZER_SLOT/optimizer/momentum{suffix}": np.zeros(3)}
    np.savez(tmp_path / "lhc.npz", **named)
    agree("lhc-net", tensors_of(tmp_path / "lhc.npz"), grey, logits)
    agree("lhc-net", weights.state, grey, logits)


def test_a_comparison_notices_what_is_laid_out_wrongly():
    weights, grey = Weights(), grey_pictures(2, 48)
    logits = cnn(weights, grey)
    kernel = weights.state["dense/kernel"]
    by_channel = kernel.unflatten(0, (9, 384)).transpose(0, 1).flatten(0, 1)
    with pytest.raises(AssertionError):
        agree("cnn-hyperparameters", weights.state | {"dense/kernel": by_channel}, grey, logits)


@pytest.mark.parametrize("name", ["ad-corre", "cnn-hyperparameters", "lhc-net"])
def test_damaged_files_are_refused(name):
    weights, draw = Weights(), random.Random(0)
    with torch.device("meta"):
        {
            "ad-corre": lambda: xception(Shapes(weights), torch.rand(1, 1, 71, 71), 7, 0),
            "cnn-hyperparameters": lambda: cnn(Shapes(weights), torch.rand(1, 1, 48, 48)),
            "lhc-net": lambda: lhc_net(Shapes(weights), torch.rand(1, 1, 224, 224)),
        }[name]()
        variant, whole = papers.get(name), weights.state
        from_release(variant, whole)
        for _ in range(10):
            key = draw.choice(list(whole))
            rest = {other: part for other, part in whole.items() if other != key}
            part = whole[key]
            for wrong in (rest, rest | {f"x{key}": part}, rest | {key: part.new_empty((*part.shape, 1))}):
                with pytest.raises(FerReproError):
                    from_release(variant, wrong)
        for wrong in ({}, {"": torch.empty(1)}, {"conv2d": torch.empty(1)}, {"dense_x/kernel": torch.empty(3)}):
            with pytest.raises(FerReproError):
                from_release(variant, wrong)


class Shapes(Weights):
    """The same without numbers."""

    def __init__(self, of: Weights) -> None:
        self.state = of.state

    def __call__(self, name: str, *shape: int) -> Tensor:
        return self.state.setdefault(name, torch.empty(shape))


# ---- the vocabulary -------------------------------------------------------------------------------------------------


def test_depthwise_and_pointwise_kernels_are_torchs_convolutions():
    """Also where a depthwise convolution makes several maps of each channel."""
    x = torch.rand(2, 5, 9, 9)
    kernel, across = torch.rand(3, 3, 5, 2), torch.rand(1, 1, 10, 4)
    state = keras.as_torch({"sep/depthwise_kernel": kernel, "sep/pointwise_kernel": across})
    assert list(state) == ["sep.depthwise.weight", "sep.pointwise.weight"]
    seen = windows(x.permute(0, 2, 3, 1), 3, 1, 0)
    expected = torch.einsum("bhwcij,ijcm->bhwcm", seen, kernel).flatten(3)
    found = F.conv2d(x, state["sep.depthwise.weight"], groups=5)
    torch.testing.assert_close(found.permute(0, 2, 3, 1), expected)
    found = F.conv2d(found, state["sep.pointwise.weight"]).permute(0, 2, 3, 1)
    torch.testing.assert_close(found, expected @ across[0, 0])


def test_other_kinds_and_shapes_are_named():
    with pytest.raises(FerReproError, match="'lstm/recurrent' is of no known kind"):
        keras.as_torch({"lstm/recurrent": torch.ones(1)})
    with pytest.raises(FerReproError, match=r"'conv1d/kernel' is \[3, 1, 2\], expected a kernel"):
        keras.as_torch({"conv1d/kernel": torch.ones(3, 1, 2)})


def test_layers_are_counted_in_the_order_of_their_numbers():
    names = [
        "conv2d_10.weight",
        "conv2d_9.weight",
        "conv2d_9.bias",
        "block1_conv1.weight",
        "dense.bias",
        "dense_2.bias",
    ]
    found = keras.counted({name: torch.ones(1) for name in names}, ("conv2d", "dense"))
    expected = ["conv2d_1.weight", "conv2d_0.weight", "conv2d_0.bias", "block1_conv1.weight", "dense_0.bias"]
    assert list(found) == [*expected, "dense_1.bias"]


def test_two_weights_of_one_name_in_a_layer_are_an_error(tmp_path):
    """A model inside a model: one of the two would be lost."""
    with h5py.File(tmp_path / "nested.h5", "w") as file:
        file.attrs["layer_names"] = [b"inner"]
        group = file.create_group("inner")
        group.attrs["weight_names"] = [b"a/kernel:0", b"b/kernel:0"]
        group["a/kernel:0"] = group["b/kernel:0"] = np.ones((2, 2))
    with pytest.raises(FerReproError, match="nested.h5 cannot be read as weights of Keras"):
        tensors_of(tmp_path / "nested.h5")
