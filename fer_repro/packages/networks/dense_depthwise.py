"""The expression network of face-api.js, as ``@vladmandic/face-api`` carries it: weights of one byte each.

Four blocks of four convolutions, separable except for the first one of all; inside a block every convolution sees the
sum of those before it. The sides are halved at the beginning of each block, the last maps are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fer_repro.packages.networks import tfjs
from fer_repro.packages.networks.base import Family, Separable, State, pad_same
from fer_repro.packages.resize import tfjs_linear

SIZE = 112
WIDTHS = (32, 64, 128, 256)
MEAN = (122.782, 117.001, 104.298)  # of red, green and blue


class Stem(nn.Module):
    """The one full convolution, 3x3 at stride 2: [N,3,H,W] -> [N,C,H/2,W/2]."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, after, 3, 2)

    def forward(self, images: Tensor) -> Tensor:
        # Padded right and below, convolved: [N,C,H/2,W/2]
        return self.conv(pad_same(images, 3, 2))


class Block(nn.Module):
    """Four convolutions, each over the sum of those before: [N,C,H,W] -> [N,C',H/2,W/2]."""

    def __init__(self, start: nn.Module, width: int) -> None:
        super().__init__()
        self.conv0 = start
        self.conv1, self.conv2, self.conv3 = (Separable(width, width, bias=True) for _ in range(3))

    def forward(self, features: Tensor) -> Tensor:
        # Halved: [N,C',H/2,W/2]; the running sum keeps that shape.
        total = self.conv0(features).relu()
        # The first sum goes in as it is (it is not negative), the later ones through a ReLU.
        for conv in (self.conv1, self.conv2, self.conv3):
            total = total + conv(total.relu())
        return total.relu()


class DenseDepthwise(nn.Module):
    """[N,3,112,112] -> logits [N,7]."""

    def __init__(self) -> None:
        super().__init__()
        starts = [Stem(WIDTHS[0]), *(Separable(*pair, 2, bias=True) for pair in zip(WIDTHS, WIDTHS[1:], strict=False))]
        self.blocks = nn.Sequential(*(Block(start, width) for start, width in zip(starts, WIDTHS, strict=True)))
        self.fc = nn.Linear(WIDTHS[-1], 7)

    def forward(self, images: Tensor) -> Tensor:
        # Four blocks: [N,256,7,7]; means of the maps: [N,256]; classes: [N,7]
        return self.fc(self.blocks(images).mean(dim=(2, 3)))


def _names() -> dict[str, str]:
    names = {"fc/weights": "fc.weight", "fc/bias": "fc.bias"}
    names |= {"dense0/conv0/filters": "blocks.0.conv0.conv.weight", "dense0/conv0/bias": "blocks.0.conv0.conv.bias"}
    parts = {"depthwise_filter": "depthwise.weight", "pointwise_filter": "pointwise.weight", "bias": "pointwise.bias"}
    for block in range(len(WIDTHS)):
        for conv in range(4):
            if (block, conv) != (0, 0):
                theirs, ours = f"dense{block}/conv{conv}", f"blocks.{block}.conv{conv}"
                names |= {f"{theirs}/{a}": f"{ours}.{b}" for a, b in parts.items()}
    return names


NAMES = _names()


def weights(files: Sequence[Path]) -> State:
    """The state of `DenseDepthwise` from the manifest and its bytes."""
    description, content = files
    return tfjs.renamed(tfjs.read(description, content), NAMES, description)


def inputs(images: np.ndarray) -> Tensor:
    """uint8 [N,48,48] -> float32 [N,3,112,112]: three equal channels minus the mean of each, over 255."""
    made = tfjs_linear(torch.from_numpy(np.array(images, dtype=np.float32)), SIZE).unsqueeze(1)
    return (made - torch.tensor(MEAN).view(1, 3, 1, 1)) / 255


FAMILY = Family("dense depthwise", DenseDepthwise, weights, inputs)
