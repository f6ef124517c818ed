"""What a network of a package must say of itself, and the padding that TensorFlow's networks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = dict[str, Tensor]


def softmax(logits: Tensor) -> Tensor:
    """float [N,C] -> probabilities."""
    return logits.softmax(dim=1)


@dataclass(frozen=True)
class Family:
    """One architecture with the package's own preprocessing.

    ``build``: the network without weights, which maps ``inputs`` to outputs [N, classes]; ``weights``: the package's
    files (in the order of its table) as a state of that network; ``inputs``: grey uint8 [N,48,48] -> float32 [N,C,H,W];
    ``probabilities``: outputs -> what sums to 1.
    """

    name: str
    build: Callable[[], nn.Module]
    weights: Callable[[Sequence[Path]], State]
    inputs: Callable[[np.ndarray], Tensor]
    probabilities: Callable[[Tensor], Tensor] = softmax


def as_float(images: np.ndarray) -> Tensor:
    """uint8 [N,H,W] -> float32 [N,1,H,W] of the same levels, 0 to 255."""
    return torch.from_numpy(np.array(images, dtype=np.float32)).unsqueeze(1)


def pad_same(features: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """[N,C,H,W] with TensorFlow's padding "same": where the border is odd, the larger part lies right and below."""
    border: list[int] = []
    for length in (features.shape[3], features.shape[2]):
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        border += [total // 2, total - total // 2]
    return F.pad(features, border, value=value)


def max_pool_same(features: Tensor) -> Tensor:
    """Maximum of 3x3 at stride 2, padded as TensorFlow does: [N,C,H,W] -> [N,C,ceil(H/2),ceil(W/2)]."""
    return F.max_pool2d(pad_same(features, 3, 2, -torch.inf), 3, 2)


class Separable(nn.Module):
    """A 3x3 convolution of each channel, then one over the channels: [N,C,H,W] -> [N,C',H/stride,W/stride].

    ``bias`` belongs to the second one. Padding is TensorFlow's "same".
    """

    def __init__(self, before: int, after: int, stride: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(before, before, 3, stride, groups=before, bias=False)
        self.pointwise = nn.Conv2d(before, after, 1, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        # Pad so that stride alone divides the sides, then each channel by itself, then all: [N,C',H/stride,W/stride]
        padded = pad_same(features, 3, self.depthwise.stride[0])
        return self.pointwise(self.depthwise(padded))
