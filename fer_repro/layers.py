"""Layers and conventions that at least two papers share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class GreyAsRgb(nn.Module):
    """A grey image as three equal channels, each normalised by its own mean and deviation: [B,1,H,W] -> [B,3,H,W].

    Networks made for colour images want it; the grey image stays the one thing that the data path carries. ``mean`` and
    ``std`` are on the [0, 1] scale; the defaults change nothing.
    """

    def __init__(self, mean: tuple[float, ...] = (0.0, 0.0, 0.0), std: tuple[float, ...] = (1.0, 1.0, 1.0)) -> None:
        super().__init__()
        # Constants of the recipe, not state: a checkpoint must not carry them.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        # Repeat, then shift and scale each channel: [B,1,H,W] -> [B,3,H,W]
        return (images - self.mean) / self.std


def keras_batch_norm(channels: int, flat: bool = False) -> nn.Module:
    """Batch norm with Keras' defaults: the running average keeps 0.99 of itself, epsilon is 1e-3.

    ``flat``: for vectors [B,C] instead of maps [B,C,H,W].
    """
    kind = nn.BatchNorm1d if flat else nn.BatchNorm2d
    return kind(channels, eps=1e-3, momentum=0.01)


def keras_init_(model: nn.Module) -> nn.Module:
    """Keras' defaults for every convolution and linear layer, in place: Glorot-uniform kernels, zero biases."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
