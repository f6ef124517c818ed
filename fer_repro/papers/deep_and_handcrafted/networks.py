"""The three networks of "Local Learning with Deep and Handcrafted Features", and dense-sparse-dense training.

VGG-face (Parkhi et al. 2015), VGG-f (Chatfield et al. 2014) and VGG-13 (Barsoum et al. 2016) are convolutions, then
three linear layers; the second one's output describes a face. `Masked` layers can be pruned for a stage of training
(Han et al. 2017): their smallest weights become 0 and stay 0 until a later stage trains them again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_repro import pretrained
from fer_repro.errors import FerReproError
from fer_repro.layers import GreyAsRgb
from fer_repro.recipe import Stage
from fer_repro.transforms.geometry import resize

Ints = tuple[int, ...]
# Red, green, blue, of 255: of the faces VGG-face was trained on, and of ImageNet's photos.
FACES_MEAN = (129.1863, 104.7624, 93.5940)
PHOTOS_MEAN = (123.68, 116.779, 103.939)


class Masked(nn.Module):
    """Mix-in for a layer whose smallest weights can be set to 0 and kept there.

    The layer computes with ``weight * mask``: where the mask is off, the gradient is exactly 0 as well, so an
    optimiser without old momentum leaves those weights at 0. The mask is a buffer: a checkpoint holds it.
    """

    weight: Tensor
    mask: Tensor

    def __init__(self, *sizes: int, **options: int) -> None:
        super().__init__(*sizes, **options)
        self.register_buffer("mask", torch.ones_like(self.weight, dtype=torch.bool))

    def free(self) -> None:
        """Train every weight again; those that were 0 start from there."""
        self.mask.fill_(True)

    @torch.no_grad()
    def prune(self, share: float) -> None:
        """Set the ``share`` of the weights that is smallest by |w| to 0, to the nearest whole number of weights."""
        self.mask.copy_(smallest(self.weight, share).logical_not())
        self.weight.mul_(self.mask)


def smallest(weight: Tensor, share: float) -> Tensor:
    """True for the ``share`` of ``weight`` with the smallest absolute values (of equal ones, some): bool, its shape."""
    if not 0 <= share < 1:
        raise FerReproError(f"pruning: share {share}, expected a number from 0 up to but not including 1")
    sizes = weight.abs().flatten()
    chosen = torch.zeros(len(sizes), dtype=torch.bool, device=weight.device)
    # By rank, not by a threshold: of a hundred million weights several equal any threshold.
    chosen[sizes.topk(round(share * len(sizes)), largest=False, sorted=False).indices] = True
    return chosen.view(weight.shape)


class MaskedConv2d(Masked, nn.Conv2d):
    """A convolution that can be pruned."""

    def forward(self, maps: Tensor) -> Tensor:
        # With the masked weights: [B,C,H,W] -> [B,C',H',W']
        return self._conv_forward(maps, self.weight * self.mask, self.bias)


class MaskedLinear(Masked, nn.Linear):
    """A linear layer that can be pruned."""

    def forward(self, features: Tensor) -> Tensor:
        # With the masked weights: [B,C] -> [B,C']
        return F.linear(features, self.weight * self.mask, self.bias)


class Vgg(nn.Module):
    """Convolutions, then linear layers fc6, fc7 and fc8: [B,1,S,S] in [0, 1] -> logits [B,7].

    ``mean``: subtracted per colour channel, of 255; None for a network of one channel. ``scale``: what the input is
    multiplied by; networks pretrained by their authors expect 0 to 255. ``flat``: numbers that the convolutions leave.
    ``dropout``: behind fc6 and fc7. ``frozen``: the convolutions keep their weights. ``pruned``: the layers that
    stages whose name begins with "sparse" prune, each by ``sparsity``. ``spread``: deviation of the linear layers'
    first weights.
    """

    def __init__(
        self,
        convolutions: Sequence[tuple[str, nn.Module]],
        flat: int,
        hidden: int,
        dropout: tuple[float, float],
        mean: tuple[float, ...] | None = None,
        scale: float = 1.0,
        frozen: bool = False,
        pruned: tuple[str, ...] = (),
        sparsity: float = 0.0,
        spread: float = 0.01,
    ) -> None:
        super().__init__()
        self.scale, self.frozen, self.pruned, self.sparsity = scale, frozen, pruned, sparsity
        # The mean belongs to grey levels of 255, whatever the scale.
        self.colour = nn.Identity() if mean is None else GreyAsRgb(tuple(value / 255 for value in mean))
        self.convolutions = nn.Sequential(OrderedDict(convolutions))
        self.fc6, self.drop6 = MaskedLinear(flat, hidden), nn.Dropout(dropout[0])
        self.fc7, self.drop7 = MaskedLinear(hidden, hidden), nn.Dropout(dropout[1])
        self.fc8 = MaskedLinear(hidden, 7)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=spread)
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        # The description, half of it or more dropped while training, and a linear layer: [B,hidden] -> [B,7]
        return self.fc8(self.drop7(self.describe(images)))

    def describe(self, images: Tensor) -> Tensor:
        """The face's description in the fusion: [B,1,S,S] -> [B,hidden], none below 0."""
        # Three channels minus their means (or the one), on the scale that the weights expect: -> [B,3,S,S]
        maps = self.convolutions(self.colour(images) * self.scale)
        # [B,C,E,E] -> [B,flat] -> [B,hidden] -> [B,hidden]
        hidden = self.drop6(F.relu(self.fc6(maps.flatten(1))))
        return F.relu(self.fc7(hidden))

    def begin_stage(self, stage: Stage, fresh: bool) -> None:
        """Freeze the convolutions if they are ``frozen``; where a stage starts, prune for a sparse one, or unprune."""
        self.convolutions.requires_grad_(not self.frozen)
        for _, layer in self.masked() if fresh else ():  # otherwise the masks come with the checkpoint
            if stage.name.startswith("sparse"):
                layer.prune(self.sparsity)
            else:
                layer.free()

    def masked(self) -> Iterator[tuple[str, Masked]]:
        """The layers that sparse stages prune, by name."""
        for name in self.pruned:
            yield name, self.get_submodule(name if name.startswith("fc") else f"convolutions.{name}")

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """The authors' weights by layer ("conv1_1.weight", "fc6.bias"); fc8, of other classes, stays out."""
        given = {(name if name.startswith("fc") else f"convolutions.{name}"): value for name, value in state.items()}
        masks = [name for name in self.state_dict() if name.endswith(".mask")]
        pretrained.fill_(self, given, leave=("fc8.", *masks), where=f"the pretrained {type(self).__name__}")


def blocks(widths: Ints, depths: Ints, before: int, dropout: float = 0.0) -> Iterator[tuple[str, nn.Module]]:
    """Blocks of 3x3 convolutions and ReLUs, each ending in a pool that halves the sides, layers named as by VGG."""
    for block, (width, depth) in enumerate(zip(widths, depths, strict=True), 1):
        for layer in range(1, depth + 1):
            yield f"conv{block}_{layer}", nn.Conv2d(before, width, 3, padding=1)
            yield f"relu{block}_{layer}", nn.ReLU()
            before = width
        yield f"pool{block}", nn.MaxPool2d(2)
        if dropout:
            yield f"drop{block}", nn.Dropout(dropout)


class VggFace(Vgg):
    """VGG-face, Simonyan and Zisserman's configuration D: 13 convolutions, 134,289,223 parameters with 7 outputs.

    ``grid``: edge of the last maps, 7 for an input of 224. Further options as in `Vgg`.
    """

    def __init__(
        self, widths: Ints = (64, 128, 256, 512, 512), depths: Ints = (2, 2, 3, 3, 3), grid: int = 7, **options: Any
    ) -> None:
        options = {"hidden": 4096, "dropout": (0.7, 0.5), "mean": FACES_MEAN} | options
        super().__init__(list(blocks(widths, depths, 3)), widths[-1] * grid**2, **options)


class VggF(Vgg):
    """VGG-f, the fast one: five convolutions, 56,766,215 parameters with 7 outputs. ``grid``: 6 for an input of 224."""

    def __init__(
        self, widths: Ints = (64, 256, 256, 256, 256), grid: int = 6, inner_dropout: float = 0.35, **options: Any
    ) -> None:
        a, b, c, d, e = widths
        # A window of 5 channels; torch divides alpha by its length, MatConvNet does not.
        norm = {"size": 5, "alpha": 5e-4, "beta": 0.75, "k": 2.0}
        layers = [
            ("conv1", nn.Conv2d(3, a, 11, stride=4)),
            ("relu1", nn.ReLU()),
            ("norm1", nn.LocalResponseNorm(**norm)),
            ("pool1", nn.MaxPool2d(3, 2, ceil_mode=True)),
            ("conv2", nn.Conv2d(a, b, 5, padding=2)),
            ("relu2", nn.ReLU()),
            ("norm2", nn.LocalResponseNorm(**norm)),
            ("pool2", nn.MaxPool2d(3, 2, ceil_mode=True)),
            ("conv3", MaskedConv2d(b, c, 3, padding=1)),
            ("relu3", nn.ReLU()),
            ("conv4", MaskedConv2d(c, d, 3, padding=1)),
            ("relu4", nn.ReLU()),
            ("drop4", nn.Dropout(inner_dropout)),
            ("conv5", MaskedConv2d(d, e, 3, padding=1)),
            ("relu5", nn.ReLU()),
            ("drop5", nn.Dropout(inner_dropout)),
            ("pool5", nn.MaxPool2d(3, 2, ceil_mode=True)),
        ]
        options = {"hidden": 4096, "dropout": (0.5, 0.5), "mean": PHOTOS_MEAN} | options
        super().__init__(layers, e * grid**2, **options)


class Vgg13(Vgg):
    """VGG-13 as made for FER+: ten convolutions on 64x64 pixels of one channel, 8,756,679 parameters.

    ``grid``: 4 for an input of 64.
    """

    def __init__(
        self,
        widths: Ints = (64, 128, 256, 256),
        depths: Ints = (2, 2, 3, 3),
        grid: int = 4,
        inner_dropout: float = 0.25,
        **options: Any,
    ) -> None:
        options = {"hidden": 1024, "dropout": (0.5, 0.5)} | options
        super().__init__(list(blocks(widths, depths, 1, inner_dropout)), widths[-1] * grid**2, **options)


class Three(nn.Module):
    """The networks side by side, so that they can be counted as one: [B,1,S,S] -> the mean of their logits [B,7].

    ``sizes``: the edge of the input that each expects. The method itself uses their descriptions, not this mean.
    """

    def __init__(self, networks: dict[str, nn.Module], sizes: dict[str, int]) -> None:
        super().__init__()
        self.networks, self.sizes = nn.ModuleDict(networks), sizes

    def forward(self, images: Tensor) -> Tensor:
        # Each network at its own size: three of [B,7]
        each = [network(resize(images, self.sizes[name])) for name, network in self.networks.items()]
        # Their mean: [B,7]
        return torch.stack(each).mean(dim=0)
