"""The network of ``PyEmotion`` (``NetworkV2`` there): four convolutions with mirrored borders, two linear layers.

Its last layer is a sigmoid per class, trained as if it were a logit: outputs lie in [0, 1] and do not sum to 1. The
class with the largest one is the package's answer; here they are divided by their sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from fer_repro import pretrained
from fer_repro.packages.networks.base import Family, State, as_float

WIDTHS = (32, 64, 128, 256)


def _convolution(before: int, after: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride)
    return nn.Sequential(nn.ReflectionPad2d(1), convolution, nn.BatchNorm2d(after), nn.ReLU())


class ReflectedCNN(nn.Module):
    """[N,1,48,48] -> outputs [N,7] in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_1, self.conv_2 = _convolution(1, WIDTHS[0], 1), _convolution(*WIDTHS[:2], 2)
        self.conv_3, self.conv_4 = _convolution(*WIDTHS[1:3], 2), _convolution(*WIDTHS[2:], 2)
        self.linear = nn.Sequential(nn.Linear(WIDTHS[-1] * 36, 256), nn.ReLU(), nn.Linear(256, 7), nn.Sigmoid())

    def forward(self, images: Tensor) -> Tensor:
        # Four convolutions, three of them halve the sides: [N,256,6,6]
        features = self.conv_4(self.conv_3(self.conv_2(self.conv_1(images))))
        # Two linear layers and a sigmoid per class: [N,7]
        return self.linear(features.flatten(1))


def weights(files: Sequence[Path]) -> State:
    """The state of `ReflectedCNN`; the optimiser's, which lies beside it, is left out."""
    return pretrained.tensors_of(files[0], "network")


def inputs(images: np.ndarray) -> Tensor:
    """uint8 [N,48,48] -> float32 [N,1,48,48] in [-1, 1]."""
    return (as_float(images) / 255 - 0.5) / 0.5


def shares(outputs: Tensor) -> Tensor:
    """Outputs [N,7] of a sigmoid each, divided by their sum."""
    return outputs / outputs.sum(dim=1, keepdim=True)


FAMILY = Family("CNN with mirrored borders", ReflectedCNN, weights, inputs, shares)
