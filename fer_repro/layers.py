"""Layers and conventions that at least two papers share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fer_repro.errors import FerReproError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class GreyAsRgb(nn.Module):
    """A grey image as three equal channels, each normalised by its own mean and deviation: [B,1,H,W] -> [B,3,H,W].

    Networks made for colour images want it; the grey image stays the one thing that the data path carries. ``mean`` and
    ``std`` are on the [0, 1] scale; the defaults change nothing.
    """

    mean: Tensor
    std: Tensor

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


class SqueezeExcite(nn.Module):
    """Channels weighed by a bottleneck that sees their means (Hu et al. 2018): [B,C,H,W] -> [B,C,H,W]."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        # Means, bottleneck, one weight in (0, 1) for each channel: [B,C,H,W] -> [B,C]
        weights = self.excite(torch.relu(self.squeeze(features.mean(dim=(2, 3))))).sigmoid()
        # Scaled: [B,C,H,W]
        return features * weights[:, :, None, None]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut: [B,C,H,W] -> [B,C',H/stride,W/stride].

    The shortcut is projected or, without ``project``, the input itself. As always projected, it is the unit of the
    masking blocks (Residual Masking Network, released ``models/masking.py``).
    """

    def __init__(self, before: int, after: int, stride: int = 1, project: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        projection = (nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)) if project else ()
        self.shortcut = nn.Sequential(*projection)

    def forward(self, features: Tensor) -> Tensor:
        # The residual: [B,C,H,W] -> [B,C',H/stride,W/stride]
        residual = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(features)))))
        # Added to the input or its projection
        return torch.relu(residual + self.shortcut(features))


class MaskingBlock(nn.Module):
    """A small U-Net that gives a mask of its input's shape: [B,C,H,W] -> [B,C,H,W] (same released file).

    ``depth`` residual units on the way down, doubling the channels and, between them, halving the sides (H and W
    divisible by 2 ** (depth - 1)); as many less one on the way up, each on the concatenation of what comes from below
    and what was there; one more unit and ``gate``: ``softmax`` over the channels, as released, or ``sigmoid``.
    """

    def __init__(self, channels: int, depth: int, gate: str = "softmax") -> None:
        super().__init__()
        if depth < 1 or gate not in ("softmax", "sigmoid"):
            raise FerReproError(f"masking block: depth {depth}, gate '{gate}'; expected 1 or more, softmax or sigmoid")
        widths = [channels * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(ResidualBlock(widths[level], widths[level + 1]) for level in range(depth))
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(widths[level + 1], widths[level], 2, stride=2),
                nn.BatchNorm2d(widths[level]),
                nn.ReLU(),
            )
            for level in range(depth - 1, 0, -1)
        )
        self.merge = nn.ModuleList(ResidualBlock(2 * widths[level], widths[level]) for level in range(depth - 1, 0, -1))
        self.last = ResidualBlock(widths[1], channels)
        self.gate = gate
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, ResidualBlock):
                nn.init.zeros_(module.bn2.weight)  # a unit begins as its shortcut

    def forward(self, features: Tensor) -> Tensor:
        # Down: C -> 2C at full size, then twice the channels at half the side, depth - 1 times
        levels = [self.down[0](features)]
        for unit in self.down[1:]:
            levels.append(unit(torch.max_pool2d(levels[-1], 2)))
        # Up again, beside what was there: -> [B,2C,H,W]
        mask = levels.pop()
        for widen, unit in zip(self.up, self.merge, strict=True):
            mask = unit(torch.cat((widen(mask), levels.pop()), dim=1))
        # [B,2C,H,W] -> [B,C,H,W], and the gate
        mask = self.last(mask)
        return mask.softmax(dim=1) if self.gate == "softmax" else mask.sigmoid()


def logits_of(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The logits [B,7] of a network that returns them alone or first in a tuple."""
    return output if isinstance(output, Tensor) else output[0]


def as_input(images: Tensor) -> Tensor:
    """uint8 [B,48,48] -> float32 [B,1,48,48] in [0, 1]."""
    return images.unsqueeze(1).float().div_(255)


def normalise_(images: Tensor, mean: float, std: float) -> Tensor:
    """(images - mean) / std, in place; nothing is touched where that is the identity."""
    if mean != 0.0:
        images.sub_(mean)
    return images if std == 1.0 else images.div_(std)
