"""big-Xception of oarriaga/face_classification, as ``human`` carries it: for TensorFlow.js, batch norms folded in.

A graph of TensorFlow.js (``emotion.json`` with one file of weights): two plain convolutions, two residual modules of
separable convolutions, a convolution to seven maps, their means. Grey faces of 64x64 pixels, enlarged by TensorFlow.js.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fer_repro.packages.networks import tfjs
from fer_repro.packages.networks.base import Family, Separable, State, max_pool_same
from fer_repro.packages.resize import tfjs_linear

SIZE = 64
WIDTHS = (64, 128, 256)
GREY = (0.2989, 0.587, 0.114)  # the package's weights of red, green and blue; their sum is 0.9999


class Module(nn.Module):
    """Two separable convolutions and pooling beside a 1x1 convolution of stride 2: [N,C,H,W] -> [N,C',H/2,W/2].

    ``relu``: of the input of the separable convolutions, not of the shortcut's.
    """

    def __init__(self, before: int, after: int, relu: bool) -> None:
        super().__init__()
        self.first, self.second = Separable(before, after, bias=True), Separable(after, after, bias=True)
        self.shortcut, self.relu = nn.Conv2d(before, after, 1, 2), relu

    def forward(self, features: Tensor) -> Tensor:
        # Separable, ReLU, separable: [N,C',H,W]
        deep = self.second(self.first(features.relu() if self.relu else features).relu())
        # Pooled and added to the shortcut: [N,C',H/2,W/2]
        return max_pool_same(deep) + self.shortcut(features)


class BigXception(nn.Module):
    """[N,1,64,64] -> logits [N,7]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, 2), nn.Conv2d(32, WIDTHS[0], 3)
        self.stages = nn.Sequential(Module(*WIDTHS[:2], relu=False), Module(*WIDTHS[1:], relu=True))
        self.head = nn.Conv2d(WIDTHS[-1], 7, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        # A convolution of stride 2 and one more, without padding: [N,64,29,29]
        features = self.conv2(self.conv1(images).relu()).relu()
        # Two modules: [N,256,8,8]
        features = self.stages(features)
        # A map per class, and its mean: [N,7]
        return self.head(features).mean(dim=(2, 3))


# The graph's constants; depthwise kernels and the head lost their names when the batch norms were folded in.
PREFIX = "StatefulPartitionedCall/model_1/"
DEPTHWISE = {"unknown_9": "0.first", "unknown_15": "0.second", "unknown_26": "1.first", "unknown_32": "1.second"}
PLAIN = {"conv2d_1/Conv2D": "conv1", "conv2d_2/Conv2D": "conv2"}
PLAIN |= {"conv2d_3/Conv2D": "stages.0.shortcut", "conv2d_4/Conv2D": "stages.1.shortcut"}
PLAIN |= {
    f"separable_conv2d_{2 * stage + place + 1}/separable_conv2d": f"stages.{stage}.{name}.pointwise"
    for stage in range(2)
    for place, name in enumerate(("first", "second"))
}
NAMES = {PREFIX + theirs + "_weights": f"{ours}.weight" for theirs, ours in PLAIN.items()}
NAMES |= {PREFIX + theirs + "_bn_offset": f"{ours}.bias" for theirs, ours in PLAIN.items()}
NAMES |= {theirs: f"stages.{ours}.depthwise.weight" for theirs, ours in DEPTHWISE.items()}
NAMES |= {"unknown_43": "head.weight", "unknown_44": "head.bias"}


def weights(files: Sequence[Path]) -> State:
    """The state of `BigXception` from the graph's description and its weights."""
    description, content = files
    return tfjs.renamed(tfjs.read(description, content), NAMES, description)


def inputs(images: np.ndarray) -> Tensor:
    """uint8 [N,48,48] -> float32 [N,1,64,64] in [-1, 1]."""
    colour = torch.from_numpy(np.array(images, dtype=np.float32)) / 255
    made = tfjs_linear(colour, SIZE)
    grey = made * GREY[0] + made * GREY[1] + made * GREY[2]
    return ((grey - 0.5) * 2).unsqueeze(1)


FAMILY = Family("big-Xception", BigXception, weights, inputs)
