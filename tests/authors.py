"""The authors' networks: state dicts under their names, filled by a formula, and what some of them compute.

``golden/released/<variant>.json`` names the entries of an author's module, and holds the logits that it gave for the
formula's weights and picture (null: withheld). The networks here are written by the authors' names, so that they know
nothing of this library's.
"""

from __future__ import annotations

import itertools
import json
import zlib
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

GOLDEN = Path(__file__).with_name("golden") / "released"
State = dict[str, Tensor]


def documents() -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(GOLDEN.glob("*.json"))}


def filled(name: str, shape: tuple[int, ...]) -> Tensor:
    """The formula's values for an entry, float32."""
    random, word = np.random.RandomState(zlib.crc32(name.encode())), name.split(".")[-1]
    if word == "running_var":
        values = 0.5 + random.random_sample(shape)
    elif word == "running_mean":
        values = 0.2 * random.standard_normal(shape)
    elif "fc_loc.2" in name:
        values = 0.002 * random.standard_normal(shape) + ([1, 0, 0, 0, 1, 0] if word == "bias" else 0)
    elif word == "gamma":
        values = 0.5 * random.random_sample(shape)
    elif len(shape) > 1:
        values = random.standard_normal(shape) * np.sqrt(1.3 / np.prod(shape[1:]))
    elif word == "weight":
        values = 0.5 + 0.6 * random.random_sample(shape)
    else:
        values = 0.1 * random.standard_normal(shape)
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def state_of(document: dict) -> State:
    """The authors' state dict of a golden file."""
    state: State = {}
    for name, shape, note in document["keys"]:
        if note.startswith("same tensor as "):
            state[name] = state[note.removeprefix("same tensor as ")]
        else:
            state[name] = torch.tensor(0) if note == "left as built" else filled(name, tuple(shape))
    return state


def picture(document: dict) -> Tensor:
    """The grey picture of a golden file, [2,1,S,S] in [0, 1]."""
    return torch.from_numpy(np.random.RandomState(0).random_sample((2, 1, *document["size"])).astype(np.float32))


# ---- what the authors' networks compute ------------------------------------------------------------------------------


def norm(x: Tensor, state: State, name: str, eps: float = 1e-5) -> Tensor:
    parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *parts, eps=eps)


def conv(x: Tensor, state: State, name: str, stride: int = 1, padding: int = 0) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), stride, padding)


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def basic(x: Tensor, state: State, name: str, stride: int = 1, skip: str = "downsample") -> Tensor:
    y = F.relu(norm(conv(x, state, f"{name}.conv1", stride, 1), state, f"{name}.bn1"))
    y = norm(conv(y, state, f"{name}.conv2", 1, 1), state, f"{name}.bn2")
    if f"{name}.{skip}.0.weight" in state:
        x = norm(conv(x, state, f"{name}.{skip}.0", stride), state, f"{name}.{skip}.1")
    return F.relu(y + x)


def resnet18_tricks(state: State, grey: Tensor) -> Tensor:
    x = F.relu(norm(conv(grey, state, "conv1", 1, 1), state, "bn1"))
    for stage in range(1, 5):
        for block in range(2):
            x = basic(x, state, f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1, "shortcut")
    return linear(F.avg_pool2d(x, 4).flatten(1), state, "linear")


def resnet34(state: State, grey: Tensor) -> Tensor:
    network = torchvision.models.resnet34(num_classes=7)
    network.load_state_dict(state)
    return network.eval()(grey.expand(-1, 3, -1, -1))


def segmentation_vgg19(state: State, grey: Tensor) -> Tensor:
    x, layers = grey.expand(-1, 3, -1, -1), iter(range(1, 17))
    for count, gate in ((2, "seg1"), (2, "seg2"), (4, "seg3"), (4, None), (4, "seg4")):
        for layer in itertools.islice(layers, count):
            x = F.relu(norm(conv(x, state, f"conv{layer}", 1, 1), state, f"bn{layer}"))
        if gate:
            mask = basic(basic(x, state, f"{gate}.conv1"), state, f"{gate}.conv2")
            x = x * (1 + mask.softmax(dim=1))
        x = F.max_pool2d(x, 2)
    x = F.adaptive_avg_pool2d(x, 7).flatten(1)
    for index in (0, 3):
        x = F.relu(linear(x, state, f"classifier.{index}"))
    return linear(x, state, "classifier.6")


def cbam_resnet50(state: State, grey: Tensor) -> Tensor:
    def block(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        return norm(conv(x, state, f"{name}.conv", stride, padding), state, f"{name}.bn")

    x = F.relu(block(grey.expand(-1, 3, -1, -1), "features.init_block.conv", 2, 3))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate((3, 4, 6, 3), 1):
        for number in range(1, count + 1):
            unit, stride = f"features.stage{stage}.unit{number}", 2 if stage > 1 and number == 1 else 1
            y = F.relu(block(x, f"{unit}.body.conv1"))
            y = block(F.relu(block(y, f"{unit}.body.conv2", stride, 1)), f"{unit}.body.conv3")
            mlp, total = f"{unit}.cbam.ch_gate.mlp", 0
            for pooled in (y.mean((2, 3)), y.amax((2, 3))):
                total = total + linear(F.relu(linear(pooled, state, f"{mlp}.fc1")), state, f"{mlp}.fc2")
            y = y * total.sigmoid()[:, :, None, None]
            seen = torch.cat((y.amax(1, keepdim=True), y.mean(1, keepdim=True)), dim=1)
            y = y * block(seen, f"{unit}.cbam.sp_gate.conv", 1, 3).sigmoid()
            x = F.relu(y + (block(x, f"{unit}.identity_conv", stride) if number == 1 else x))
    return linear(x.mean((2, 3)), state, "output")


def efficientfer(state: State, grey: Tensor) -> Tensor:
    """One position is left when the attention comes: a softmax of one number is 1, mean and maximum are the same."""
    prefix, features = "backbone.features.", torchvision.models.efficientnet_v2_s().features
    features.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = features.eval()((grey - mean) / std).mean((2, 3), keepdim=True)
    value = linear(x.flatten(1), state, "self_attention.qkv").chunk(3, dim=1)[2]
    attended = linear(value, state, "self_attention.proj")
    gate = conv(F.relu(conv(x, state, "cbam.channel_attention.fc.0")), state, "cbam.channel_attention.fc.2")
    gated = x * (2 * gate).sigmoid()
    pooled = torch.cat((gated.mean(1, keepdim=True), gated.amax(1, keepdim=True)), dim=1)
    x = attended + (gated * conv(pooled, state, "cbam.spatial_attention.conv", 1, 3).sigmoid()).flatten(1)
    for index in (0, 4):
        x = F.relu(norm(linear(x, state, f"classifier.{index}"), state, f"classifier.{index + 1}"))
    return linear(x, state, "classifier.8")


NETWORKS = {
    "efficientfer": efficientfer,
    "residual-masking-cbam-resnet50": cbam_resnet50,
    "residual-masking-resnet34": resnet34,
    "resnet18-tricks": resnet18_tricks,
    "segmentation-vgg19": segmentation_vgg19,
    "segmentation-vgg19-64": segmentation_vgg19,
}
