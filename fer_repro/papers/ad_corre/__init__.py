"""Ad-Corre: Xception with losses on the correlations between embeddings (Fard & Mahoor, IEEE Access 2022).

Idea: beside the cross-entropy, three losses on Pearson correlations pull the embeddings of one class together, push
those of different classes apart, and keep an image's embeddings different from each other; classes with a low recall
weigh more. Claim: 72.03 %. Five facts (accuracy claimed and measured, parameters, cost, hardware) stand
in the claim and in ``results/ad-corre/``; the chapter prints them.

Protocols. The released code scores PublicTest and PrivateTest as one set of 7,178 images, after every epoch, and names
the saved network by that accuracy: ``claimed`` repeats it. ``official`` selects on PublicTest and scores PrivateTest.

The claim starts from ImageNet weights. The recipes here start from random weights: a full run measures the method from
scratch, which is not what the claim measured.
"""

from __future__ import annotations

import dataclasses
import re
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_repro.data.protocol import OFFICIAL, Protocol, Splits
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.layers import GreyAsRgb, keras_batch_norm, keras_init_
from fer_repro.papers.ad_corre import losses
from fer_repro.papers.ad_corre.losses import TERMS, AdCorreLoss
from fer_repro.papers.base import Released, State, deviations, family
from fer_repro.pretrained import keras
from fer_repro.recipe import Recipe, Selection, Stage, bind, step
from fer_repro.training import loop
from fer_repro.training.run import Run

BOTH = ("PublicTest", "PrivateTest")
CLAIMED = Protocol("claimed", train=("Training",), select=BOTH, test=BOTH)

# Channels of the two first convolutions, the three entry blocks, and the last three widths of the exit.
WIDTHS = (32, 64, 128, 256, 728, 1024, 1536, 2048)


class SeparableConv(nn.Sequential):
    """A 3x3 convolution of each channel by itself, a 1x1 one across channels, batch norm: [B,C,H,W] -> [B,C',H,W]."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(
            nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False),
            nn.Conv2d(before, after, 1, bias=False),
            keras_batch_norm(after),
        )


class XceptionBlock(nn.Module):
    """Separable convolutions with a skip connection (Chollet 2017, figure 5): [B,C,H,W] -> [B,C',H/2,W/2].

    ``widths``: channels before, between and after. Without ``halve`` the input itself is the skip connection.
    """

    def __init__(self, *widths: int, halve: bool = True, first_relu: bool = True) -> None:
        super().__init__()
        layers = [layer for pair in pairwise(widths) for layer in (nn.ReLU(), SeparableConv(*pair))]
        self.body, self.halve = nn.Sequential(*layers[0 if first_relu else 1 :]), halve
        before, after = widths[0], widths[-1]
        projection = (nn.Conv2d(before, after, 1, stride=2, bias=False), keras_batch_norm(after)) if halve else ()
        self.shortcut = nn.Sequential(*projection)

    def forward(self, maps: Tensor) -> Tensor:
        # The residual: [B,C,H,W] -> [B,C',H,W]
        residual = self.body(maps)
        if self.halve:
            # The largest of 3x3: -> [B,C',H/2,W/2], rounded up
            residual = max_pool_same(residual)
        # Added to the input, or to its projection to the same shape
        return residual + self.shortcut(maps)


def max_pool_same(maps: Tensor) -> Tensor:
    """Keras' 3x3 pooling of stride 2 with padding "same": one border on both sides of an odd edge, else on the last."""
    odd = maps.shape[-1] % 2 == 1
    return F.max_pool2d(maps, 3, 2, padding=1) if odd else F.max_pool2d(maps, 3, 2, ceil_mode=True)


class Embeddings(nn.Module):
    """k linear layers side by side, each scaled to length 1: [B,C] -> [B,k*D]."""

    def __init__(self, channels: int, count: int, dimensions: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(channels, dimensions) for _ in range(count))

    def forward(self, features: Tensor) -> Tensor:
        # k vectors of length 1, one after the other: [B,C] -> [B,k*D]
        return torch.cat([F.normalize(head(features), dim=1) for head in self.heads], dim=1)


class AdCorre(nn.Module):
    """Xception without its top, k unit-length embeddings, dropout and one linear layer (released ``cnn_model.py``).

    Input [B,1,224,224] in [-1, 1]; output (logits [B,7], embeddings [B,k,256]). ``embeddings`` is k, ``middle`` the
    number of middle blocks, ``momentum`` that of batch norm in torch's sense (Keras' default 0.99 is 0.01 here; a smoke
    run has too few batches for that).
    """

    def __init__(
        self,
        embeddings: int = 7,
        dimensions: int = 256,
        widths: tuple[int, ...] = WIDTHS,
        middle: int = 8,
        dropout: float = 0.5,
        momentum: float = 0.01,
    ) -> None:
        super().__init__()
        first, second, a, b, c, d, e, last = widths
        self.colour = GreyAsRgb()
        self.entry = nn.Sequential(
            nn.Conv2d(3, first, 3, stride=2, bias=False),
            keras_batch_norm(first),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, bias=False),
            keras_batch_norm(second),
            nn.ReLU(),
            XceptionBlock(second, a, a, first_relu=False),
            XceptionBlock(a, b, b),
            XceptionBlock(b, c, c),
        )
        self.middle = nn.Sequential(*(XceptionBlock(c, c, c, c, halve=False) for _ in range(middle)))
        self.exit = nn.Sequential(
            XceptionBlock(c, c, d), SeparableConv(d, e), nn.ReLU(), SeparableConv(e, last), nn.ReLU()
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.embed = Embeddings(last, embeddings, dimensions)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(embeddings * dimensions, 7)
        self.count = embeddings
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum
        keras_init_(self)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        # Three equal channels, then the entry: [B,1,224,224] -> [B,728,14,14]
        maps = self.entry(self.colour(images))
        # Eight blocks that keep the shape, then the exit: -> [B,2048,7,7]
        maps = self.exit(self.middle(maps))
        # One number per channel: -> [B,2048]
        features = self.pool(maps).flatten(1)
        # k embeddings of length 1: -> [B,k*256] -> [B,k,256]
        embeddings = self.embed(features).unflatten(1, (self.count, -1))
        # Dropout, then one linear layer over all of them: -> [B,k*256] -> [B,7]
        logits = self.classify(self.dropout(embeddings.flatten(1)))
        return logits, embeddings


def build(recipe: Recipe) -> nn.Module:
    return AdCorre(**recipe.network.kwargs())


def fit(splits: Splits, run: Run) -> NetworkClassifier:
    """Train with the loss that the recipe names; its history of predictions is part of the checkpoint."""
    loss = bind(run.recipe.loss, {"ad-corre": AdCorreLoss}, "loss")() if run.recipe.loss.name == "ad-corre" else None
    return loop.fit(build, splits, run, loss)


# Unknown in the release (a copy of the training images on disk, its generator not published): ours.
AUGMENT = (
    step("flip", p=0.5),
    step("affine", degrees=15, shift=0.1, scale=(0.9, 1.1), interpolation="bilinear", fill="edge"),
)

DEVIATIONS = deviations(__file__)

# Options of the network and of the loss, and the deviations that only some variants have.
KINDS = {
    "ad-corre": (7, {"terms": TERMS, "adaptive": True}, DEVIATIONS["seven"] + DEVIATIONS["adaptive"]),
    "ad-corre-ten-embeddings": (10, {"terms": TERMS, "adaptive": True}, DEVIATIONS["adaptive"]),
    # What the released code really minimises: its three other terms have no gradient.
    "ad-corre-cross-entropy": (7, {"terms": (), "adaptive": False}, DEVIATIONS["seven"]),
}


def recipe(variant: str, protocol: str, profile: str) -> Recipe:
    """Adam at 1e-3 / (1 + 1e-5 t) in batches of 50 (released train.py and config.py)."""
    count, terms, own = KINDS[variant]
    adam = step("adam", lr=1e-3, eps=1e-7)
    full = Recipe(
        variant=variant,
        network=step("AdCorre", embeddings=count, dimensions=256, widths=WIDTHS, middle=8, dropout=0.5, momentum=0.01),
        protocol=CLAIMED if protocol == "claimed" else OFFICIAL,
        stages=(Stage("train", 40, adam, step("inverse-time", decay=1e-5, per="batch")),),
        input_size=224,
        mean=0.5,
        std=0.5,
        augment=AUGMENT,
        loss=step("ad-corre", cross_entropy=50.0, history=1000, **terms),
        batch_size=50,
        selection=Selection("best"),
        deviations=DEVIATIONS["all"] + own + DEVIATIONS[protocol],
    )
    if profile == "full":
        return full
    small = {"dimensions": 32, "widths": (8, 16, 16, 24, 32, 48, 64, 64), "middle": 1, "momentum": 0.1}
    return full.shrunk(
        network=full.network.having(**small), input_size=48, batch_size=20, stages=(full.stages[0].shortened(5),)
    )


NUMBERED = ("conv2d", "batch_normalization", "dense")  # layers that the release left to Keras to name
PROJECTED = ("entry.6", "entry.7", "entry.8", "exit.0")  # blocks with a projected shortcut, in Keras' order


def _arranged(state: State) -> State:
    return keras.counted(keras.as_torch(state), NUMBERED)


def _separable(found: re.Match[str]) -> str:
    """``block3_sepconv2.depthwise.`` -> ``entry.7.body.3.0.``, ``block14_sepconv1_bn.`` -> ``exit.1.2.``"""
    block, number = int(found[1]), int(found[2])
    part = {"_bn.": 2, ".depthwise.": 0, ".pointwise.": 1}[found[3]]
    if block == 14:
        return f"exit.{2 * number - 1}.{part}."
    where = f"entry.{block + 4}" if block < 5 else f"middle.{block - 5}" if block < 13 else "exit.0"
    return f"{where}.body.{2 * number - (2 if block == 2 else 1)}.{part}."  # block 2 begins without a ReLU


def _shortcut(found: re.Match[str]) -> str:
    return f"{PROJECTED[int(found[2])]}.shortcut.{int(found[1] == 'batch_normalization')}."


def _scored(claimed: Recipe, state: State) -> Recipe:
    """Inputs in [0, 1] as the release has them, and as many embeddings as the file holds."""
    count = sum(bool(re.fullmatch(r"dense(_\d+)?/kernel", name)) for name in state) or claimed.network["embeddings"]
    return dataclasses.replace(claimed, mean=0.0, std=1.0, network=claimed.network.having(embeddings=count))


RELEASED = Released(
    at="in the repository",
    url="https://github.com/aliprf/Ad-Corre",
    file="Fer2013_7203.h5",
    trained_on="an augmented copy of Training, which is not published",
    selected_on="PublicTest and PrivateTest as one, scored after every epoch; the file's name states that accuracy",
    differs="the release enlarges with skimage and rounds to 8 bits",
    arrange=_arranged,
    rename=(
        (r"^block1_conv([12])\.", lambda found: f"entry.{3 * int(found[1]) - 3}."),
        (r"^block1_conv([12])_bn\.", lambda found: f"entry.{3 * int(found[1]) - 2}."),
        (r"^block([2-9]|1[0-4])_sepconv([1-3])(_bn\.|\.depthwise\.|\.pointwise\.)", _separable),
        (r"^(conv2d|batch_normalization)_([0-3])\.", _shortcut),
        (r"^dense_(\d+)\.", r"embed.heads.\1."),
        (r"^out\.", "classify."),
    ),
    head="classify",
    classes=("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry"),
    recipe=_scored,
)

# What the chapter shows of the source: network, loss, and what is special to the method.
SHOWN = (
    AdCorre,
    XceptionBlock,
    SeparableConv,
    Embeddings,
    AdCorreLoss,
    losses.correlation,
    losses.embedding_discriminator,
    losses.feature_discriminator,
    losses.mean_discriminator,
    losses.RunningRecall,
    losses.pair_weights,
)

VARIANTS = tuple(family("ad-corre", KINDS, recipe, build=build, fit=fit, released={"ad-corre": RELEASED}))
