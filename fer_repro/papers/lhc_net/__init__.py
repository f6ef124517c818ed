"""LHC-Net: a pre-activation ResNet-34 with self-attention over channels (Pecoraro, Basile, Bono; Information 13(9),
2022, arXiv 2111.07224).

Idea: self-attention between channels instead of positions, in horizontal strips of the map ("local heads"), added to a
trained backbone as five `ChannelAttention` blocks that keep its shapes. Claim: 74.42 %, one network, test-time
augmentation with sixty copies. Five facts (accuracy claimed and measured, parameters, cost, hardware) stand in the
claim and in ``results/lhc-net/``; the chapter prints them.

Protocols. The released scripts train on Training, stop and select on PublicTest, and score PrivateTest at the end, so
``claimed`` and ``official`` have the same roles and the same recipe. What the claim adds is the choice of one "very
well performing" backbone among an unknown number; no recipe repeats that. ``lhc-net-backbone`` is the network before
the blocks, ``lhc-net`` starts from its weights and trains everything, ``lhc-net-continued`` trains on without them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_repro import pretrained
from fer_repro.data.protocol import Protocol, Splits
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.layers import GreyAsRgb
from fer_repro.papers.base import deviations, family, with_scratch
from fer_repro.papers.lhc_net.released import RELEASED
from fer_repro.papers.lhc_net.scoring import LhcClassifier, poses
from fer_repro.pretrained import keras
from fer_repro.recipe import Pretrained, Recipe, Selection, Stage, Step, Views, step
from fer_repro.training import loop
from fer_repro.training.run import Run
from fer_repro.training.weights import digest

BACKBONE, ROW, CONTINUED = "lhc-net-backbone", "lhc-net", "lhc-net-continued"
SIZE = 224

# The paper's own start. The file's published digest is an MD5, 8caaa0ad39d927cb8ba5385bf945d582. Neither timm's nor
# pytorchcv's pre-activation ResNet-34 fits: both lack the projection in the first stage and the norm of the data, and
# timm's the norm in the stem.
WEIGHTS = Pretrained(
    "ResNet-34 v2 without its top",
    source="release 0.0.1 of github.com/qubvel/classification_models (package image-classifiers)",
    licence="MIT",
    file="resnet34_imagenet_1000_no_top.h5",
    sha256=None,
    data="ImageNet-1k",
)


class ChannelAttention(nn.Module):
    """The LHC block, local multi-head channel self-attention: [B,C,R,R] -> [B,C,R,R] (released ``Lib/LHC_Net.py``).

    ``heads`` n cut the R*R pixels, in reading order, into n strips of d; ``embedding`` e is the width of queries and
    keys. ``power`` c: scores are divided by e to a power between c and c + 1 that each channel chooses.
    """

    def __init__(self, channels: int, edge: int, heads: int, embedding: int, power: float = 1.0) -> None:
        super().__init__()
        self.heads, self.pixels, self.power = heads, edge * edge // heads, power
        # One linear layer a head, for queries and keys alike: d -> e
        self.embed = nn.Parameter(torch.empty(heads, embedding, self.pixels))
        self.embed_bias = nn.Parameter(torch.zeros(heads, embedding))
        self.value = nn.Conv2d(channels, channels, 3, padding=1)
        self.exponent = nn.Linear(channels, channels)
        for head in self.embed.data:
            nn.init.xavier_uniform_(head)
        for layer in (self.value, self.exponent):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def strips(self, maps: Tensor) -> Tensor:
        """[B,C,R,R] -> [B,n,C,d]: head h gets pixels h*d to (h+1)*d - 1 of every channel."""
        return maps.flatten(2).unflatten(2, (self.heads, self.pixels)).transpose(1, 2)

    def attention(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [B,n,C,C], rows sum to 1: what channel i takes from channel j; and exponents in (0, 1), [B,n,C]."""
        # Queries: means of 3x3 neighbours; keys: their maxima; each strip embedded: [B,n,C,d] -> [B,n,C,e]
        queries, keys = (
            torch.einsum("bncd,ned->bnce", self.strips(pooled), self.embed) + self.embed_bias[:, None]
            for pooled in (mean_of_neighbours(maps), F.max_pool2d(maps, 3, 1, 1))
        )
        # Every channel against every channel: [B,n,C,C]
        scores = queries @ keys.transpose(-1, -2)
        # From its mean score, how strongly a channel damps its own row: [B,n,C]
        exponents = self.exponent(scores.mean(dim=-1)).sigmoid()
        damping = float(self.embed.shape[1]) ** (self.power + exponents)
        return (scores / damping[..., None]).softmax(dim=-1), exponents

    def forward(self, maps: Tensor) -> Tensor:
        # Values: a 3x3 convolution, smoothed, not embedded: [B,n,C,d]
        values = self.strips(mean_of_neighbours(self.value(maps)))
        # Each channel's strip becomes a mixture of all channels' strips: [B,n,C,d]
        mixed = self.attention(maps)[0] @ values
        # Strips back at their positions, added to the input: [B,C,R,R]
        return maps + mixed.transpose(1, 2).reshape(maps.shape)


def mean_of_neighbours(maps: Tensor) -> Tensor:
    """Mean over 3x3 neighbours; at the border only those inside count, as in Keras."""
    return F.avg_pool2d(maps, 3, 1, 1, count_include_pad=False)


class ShiftNorm(nn.Module):
    """Batch norm with a shift and no scale ("no gamma"): [B,C,H,W] -> [B,C,H,W]."""

    def __init__(self, channels: int, momentum: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, 2e-5, momentum, affine=False)
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        # Normalised, then shifted: [B,C,H,W]
        return self.norm(maps) + self.shift[:, None, None]


class Unit(nn.Module):
    """Pre-activation residual unit: norm, ReLU, 3x3, twice: [B,C,H,W] -> [B,C',H/stride,W/stride] (He et al. 2016).

    ``project``: the shortcut is a 1x1 convolution of the *activated* input, instead of the input itself.
    """

    def __init__(self, before: int, after: int, stride: int, project: bool, momentum: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before, 2e-5, momentum)
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after, 2e-5, momentum)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if project else None

    def forward(self, maps: Tensor) -> Tensor:
        # Normalised and rectified before anything else: [B,C,H,W]
        active = F.relu(self.norm1(maps))
        # The residual: [B,C',H/stride,W/stride]
        residual = self.conv2(F.relu(self.norm2(self.conv1(active))))
        # Added to the input or its projection; no ReLU on the sum
        return residual + (maps if self.shortcut is None else self.shortcut(active))


class LhcNet(nn.Module):
    """ResNet-34 v2 with a large head and, unless ``heads`` is empty, five `ChannelAttention` blocks.

    Input [B,1,S,S], grey levels 0 to 255 (the first norm is all the normalisation there is); output logits [B,7].
    ``heads`` and ``embeddings`` have one number for each block: after the stem and after each stage.
    """

    def __init__(
        self,
        heads: tuple[int, ...] = (),
        embeddings: tuple[int, ...] = (),
        size: int = SIZE,
        width: int = 64,
        units: tuple[int, ...] = (3, 4, 6, 3),
        hidden: tuple[int, int] = (4096, 1024),
        dropout: float = 0.4,
        momentum: float = 0.01,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            GreyAsRgb(),
            ShiftNorm(3, momentum),
            nn.Conv2d(3, width, 7, 2, padding=3, bias=False),
            nn.BatchNorm2d(width, 2e-5, momentum),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1),
        )
        self.stages = nn.ModuleList()
        channels, edges = [width], [-(-size // 4)]
        for index, count in enumerate(units):
            after, stride = width * 2**index, 2 if index else 1
            first = Unit(channels[-1], after, stride, True, momentum)
            rest = (Unit(after, after, 1, False, momentum) for _ in range(count - 1))
            self.stages.append(nn.Sequential(first, *rest))
            channels.append(after)
            edges.append(-(-edges[-1] // stride))
        self.norm = nn.BatchNorm2d(channels[-1], 2e-5, momentum)
        wide, narrow = hidden
        head = [nn.Linear(channels[-1], wide), nn.ReLU(), nn.Dropout(dropout)]
        head += [nn.Linear(wide, narrow), nn.ReLU(), nn.Dropout(dropout), nn.Linear(narrow, 7)]
        self.head = nn.Sequential(*head)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        # After the backbone, whose first draws are then the same with and without blocks.
        self.blocks = nn.ModuleList(map(ChannelAttention, channels, edges, heads, embeddings))

    def forward(self, images: Tensor) -> Tensor:
        # Three equal channels, normalised; 7x7 of stride 2, norm, ReLU, maximum: [B,1,224,224] -> [B,64,56,56]
        maps = self.stem(images)
        # Channel attention, where there are blocks: [B,64,56,56]
        maps = self.blocks[0](maps) if self.blocks else maps
        # Four stages, a block after each: -> [B,64,56,56], [B,128,28,28], [B,256,14,14], [B,512,7,7]
        for place, stage in enumerate(self.stages, 1):
            maps = stage(maps)
            maps = self.blocks[place](maps) if self.blocks else maps
        # The last activation, means over the map: -> [B,512]
        features = F.relu(self.norm(maps)).mean(dim=(2, 3))
        # Three linear layers: [B,512] -> [B,4096] -> [B,1024] -> [B,7]
        return self.head(features)

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """Load the backbone's weights as Keras named them (``stage1_unit1_conv1/kernel``); head and blocks stay."""
        named = {own_name(name): tensor for name, tensor in keras.as_torch(state).items()}
        pretrained.fill_(self, named, leave=("head.", "blocks."), where=WEIGHTS.file)


FIXED = {"bn_data": "stem.1.norm", "conv0": "stem.2", "bn0": "stem.3", "bn1": "norm"}


def own_name(name: str) -> str:
    """``stage1_unit2_bn1.weight`` -> ``stages.0.1.norm1.weight``; a name of no layer here stays as it is."""
    layer, _, kind = name.partition(".")
    if name == "bn_data.bias":
        return "stem.1.shift"
    if layer in FIXED:
        return f"{FIXED[layer]}.{kind}"
    match = re.fullmatch(r"stage(\d+)_unit(\d+)_(?:(bn|conv)(\d)|sc)", layer)
    if not match:
        return name
    stage, unit, what, number = match.groups()
    inner = f"{'norm' if what == 'bn' else 'conv'}{number}" if what else "shortcut"
    return f"stages.{int(stage) - 1}.{int(unit) - 1}.{inner}.{kind}"


def build(recipe: Recipe) -> nn.Module:
    return LhcNet(**recipe.network.kwargs())


PLAIN, BLOCKS = step("LhcNet"), step("LhcNet", heads=(8, 8, 7, 7, 1), embeddings=(196, 196, 56, 14, 25))
SMALL = step("LhcNet", size=32, width=8, units=(1, 1, 1, 1), hidden=(64, 32), dropout=0.1, momentum=0.1)
SMALL_BLOCKS = step("LhcNet", **SMALL.kwargs(), heads=(4, 4, 2, 2, 1), embeddings=(8, 8, 4, 2, 1))

DEVIATIONS = deviations(__file__)


def keras_affine(size: int, degrees: float, shift: float = 0.0, zoom: float = 0.0) -> tuple[Step, ...]:
    """Keras' ImageDataGenerator on the enlarged image: one bilinear affine map, the border repeated, then a flip."""
    scale = {"scale": (1 - zoom, 1 + zoom), "per_axis": True, "shift": shift} if zoom else {}
    affine = step("affine", degrees=degrees, interpolation="bilinear", fill="edge", **scale)
    return (step("resize", size=size), affine, step("flip", p=0.5))


def phases(size: int) -> tuple[Stage, ...]:
    """The backbone's three stages (released ``ResNet34_Train.py``), each from the best weights of the one before."""
    adam, sgd = step("adam", lr=1e-4, eps=1e-7), step("sgd", lr=0.01)
    return (
        Stage("phase A", 300, adam, patience=30, augment=keras_affine(size, 30), batch_size=48),
        Stage("phase B", 300, sgd, start="best", patience=10, augment=keras_affine(size, 10, shift=0.1, zoom=0.1)),
        Stage("phase C", 300, sgd, start="best", patience=5),
    )


def recipe(variant: str, protocol: str, profile: str) -> Recipe:
    """The released training: phases A, B, C for the backbone; then SGD until 3 epochs in a row do not improve."""
    first = variant == BACKBONE
    second = (Stage("all trainable", 300, step("sgd", lr=0.01), patience=3),)
    own = DEVIATIONS["first"] if first else DEVIATIONS["second"]
    full = Recipe(
        variant=variant,
        network=BLOCKS if variant == ROW else PLAIN,
        protocol=Protocol(protocol),
        stages=phases(SIZE) if first else second,
        input_size=SIZE,
        std=1 / 255,  # the network expects grey levels from 0 to 255
        batch_size=64,
        selection=Selection("best", views=False),
        views=Views("poses", average="probabilities", resize=SIZE, poses=poses()),
        plain=Views("plain", resize=SIZE),
        precision="fp32",
        deviations=DEVIATIONS["all"] + own + (DEVIATIONS["control"] if variant == CONTINUED else ()),
        pretrained=WEIGHTS if first else None,
    )
    return full if profile == "full" else smoke(full)


def smoke(full: Recipe) -> Recipe:
    """A narrow network on images of 32 pixels, three of the sixty copies, a few epochs at higher learning rates."""
    size = SMALL["size"]
    backbone, quick = len(full.stages) > 1, {"patience": None, "batch_size": None}
    first, *rest = phases(size) if backbone else full.stages
    adam, sgd = step("adam", lr=5e-3), step("sgd", lr=0.02)
    first = dataclasses.replace(first, epochs=3, optimiser=adam if backbone else sgd, **quick)
    stages = (first, *(dataclasses.replace(stage, epochs=1, optimiser=sgd, **quick) for stage in rest))
    every = poses(size, shift=1)
    return full.shrunk(
        network=SMALL_BLOCKS if full.network == BLOCKS else SMALL,
        stages=stages,
        input_size=size,
        batch_size=28,
        views=dataclasses.replace(full.views, resize=size, poses=(every[0], every[53], every[-1])),
        plain=dataclasses.replace(full.plain, resize=size),
    )


def warm_started(before: NetworkClassifier) -> Callable[[Recipe], nn.Module]:
    """`build`, with everything but the blocks copied from a fitted backbone."""

    def start(recipe: Recipe) -> nn.Module:
        network = build(recipe)
        pretrained.fill_(network, before.model.state_dict(), leave=("blocks.",), where=before.recipe.variant)
        return network

    return start


def fit(splits: Splits, run: Run) -> LhcClassifier:
    """Train as ``run.recipe`` says: from its pretrained weights, or from the backbone among ``run.required``."""
    before = next(iter(run.required.values()), None)
    fitted = loop.fit(pretrained.loaded(build) if before is None else warm_started(before), splits, run)
    if before is not None:
        run.facts["backbone_sha256"] = digest(before.model)
    return LhcClassifier(fitted.model, fitted.recipe, fitted.device)


# What the chapter shows of the source: network, loss, and what is special to the method.
SHOWN = (LhcNet, ChannelAttention, mean_of_neighbours, Unit, ShiftNorm)

VARIANTS = with_scratch(
    *family("lhc-net", [BACKBONE], recipe, build=build, fit=fit),
    *family("lhc-net", [ROW, CONTINUED], recipe, {ROW: RELEASED}, build=build, fit=fit, requires=(BACKBONE,)),
)
