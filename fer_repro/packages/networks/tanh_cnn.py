"""The network of ``what-the-face-classification``: three convolutions with tanh and pooling, three linear layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from fer_repro import pretrained
from fer_repro.packages.networks.base import Family, State, as_float

WIDTHS = (28, 56, 112)


class TanhCNN(nn.Module):
    """[N,1,48,48] -> logits [N,7]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(before, after, 3) for before, after in zip((1, *WIDTHS), WIDTHS, strict=False)
        )
        self.fc1, self.fc2, self.fc3 = nn.Linear(WIDTHS[-1] * 16, 2000), nn.Linear(2000, 304), nn.Linear(304, 7)

    def forward(self, images: Tensor) -> Tensor:
        # Three times convolution, tanh, pooling, without padding: [N,112,4,4]
        for convolution in (self.conv1, self.conv2, self.conv3):
            images = F.max_pool2d(convolution(images).tanh(), 2)
        # Three linear layers: [N,7]
        return self.fc3(self.fc2(self.fc1(images.flatten(1)).relu()).relu())


def weights(files: Sequence[Path]) -> State:
    """The state of `TanhCNN`, whose names are the package's."""
    return pretrained.tensors_of(files[0])


def inputs(images: np.ndarray) -> Tensor:
    """uint8 [N,48,48] -> float32 [N,1,48,48] in [0, 1]."""
    return as_float(images) / 255


FAMILY = Family("CNN with tanh", TanhCNN, weights, inputs)
