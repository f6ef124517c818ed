"""ResEmoteNet: a convolutional stem, one squeeze-and-excitation block, three residual blocks (Roy et al., IEEE Signal
Processing Letters 2024, arXiv 2409.10545).

Idea: channel attention after a plain stem, then wide residual blocks that reduce a 64x64 face to one cell. Claim:
79.79 %, one network without test-time augmentation, trained from scratch. Five facts (accuracy claimed and measured,
parameters, cost, hardware) stand in the claim and in ``results/resemotenet/``; the chapter prints them.

Protocols. The paper's text and the released code differ. ``official`` follows the text (the learning rate falls when
the validation accuracy stops improving) with the bugs corrected; ``claimed`` follows the code (a constant learning
rate). Both train on Training, select on PublicTest and score PrivateTest, the roles that the author names; which images
the claimed number was measured on is not known (`leakage` shows the effect of a split after augmentation).
"""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from fer_repro.data.protocol import Protocol, Splits
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.layers import IMAGENET_MEAN, IMAGENET_STD, GreyAsRgb, SqueezeExcite
from fer_repro.papers.base import Released, Variant, deviations
from fer_repro.recipe import Recipe, Selection, Stage, step
from fer_repro.training import loop
from fer_repro.training.losses import Loss
from fer_repro.training.run import Run


class ResEmoteNet(nn.Module):
    """The network of the paper's figure 1 as released in ``approach/ResEmoteNet.py``: 80,238,599 parameters.

    Input [B,1,64,64] in [0, 1] (grey; repeated to RGB inside); output logits [B,7]. ``divisor`` divides every hidden
    width, ``scale_fc=False`` leaves those of the linear layers alone. ``dropout`` acts after the first two pools,
    ``fc_dropout`` between the linear layers.
    """

    def __init__(self, divisor: int = 1, scale_fc: bool = True, dropout: float = 0.2, fc_dropout: float = 0.5) -> None:
        super().__init__()
        c1, c2, c3, r1, r2, r3 = (max(1, width // divisor) for width in (64, 128, 256, 512, 1024, 2048))
        f1, f2, f3 = (max(1, width // divisor) if scale_fc else width for width in (1024, 512, 256))
        self.rgb = GreyAsRgb(IMAGENET_MEAN, IMAGENET_STD)
        self.stem = nn.Sequential(*stem(3, c1, dropout), *stem(c1, c2, dropout), *stem(c2, c3, 0.0))
        self.attention = SqueezeExcite(c3)
        self.blocks = nn.Sequential(ResidualBlock(c3, r1), ResidualBlock(r1, r2), ResidualBlock(r2, r3))
        self.pool = nn.AdaptiveAvgPool2d(1)
        hidden = [
            layer
            for before, after in pairwise((r3, f1, f2, f3))
            for layer in (nn.Linear(before, after), nn.ReLU(), nn.Dropout(fc_dropout))
        ]
        self.head = nn.Sequential(*hidden, nn.Linear(f3, 7))

    def forward(self, images: Tensor) -> Tensor:
        # Grey to normalised RGB: [B,1,64,64] -> [B,3,64,64]
        features = self.rgb(images)
        # Three convolutions, each followed by 2x2 pooling: -> [B,256,8,8]
        features = self.stem(features)
        # Channel attention from the mean of every channel: [B,256,8,8]
        features = self.attention(features)
        # Three residual blocks of stride 2: -> [B,2048,1,1]
        features = self.blocks(features)
        # One cell, four linear layers: [B,2048] -> [B,7]
        return self.head(self.pool(features).flatten(1))


def stem(before: int, after: int, dropout: float) -> list[nn.Module]:
    """Convolution, batch norm, ReLU, pool and (element-wise) dropout: [B,C,H,W] -> [B,C',H/2,W/2]."""
    layers = [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    return [*layers, nn.Dropout(dropout)] if dropout else layers


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a projected shortcut, all with bias: [B,C,H,W] -> [B,C',H/2,W/2]."""

    def __init__(self, before: int, after: int, stride: int = 2) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, padding=1), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride), nn.BatchNorm2d(after))

    def forward(self, features: Tensor) -> Tensor:
        # The residual: [B,C,H,W] -> [B,C',H/2,W/2]
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(features)))))
        # Added to the projected input: [B,C',H/2,W/2]
        return F.relu(residual + self.shortcut(features))


def build(recipe: Recipe) -> nn.Module:
    return ResEmoteNet(**recipe.network.kwargs())


DEVIATIONS = deviations(__file__)
# Smoke runs keep the order of the sizes, not their ratios: below a 24th of the width nothing is learnt.
SMOKE_DIVISORS = {1: 8, 2: 12, 4: 16, 8: 24}


def recipe(protocol: str, profile: str, variant: str = "resemotenet", divisor: int = 1) -> Recipe:
    """At most 80 epochs of SGD at 0.001 in batches of 16 (paper, training details; released ResEmoteNet_train.py).

    ``divisor`` makes a narrower network under the same recipe.
    """
    schedule = step("constant") if protocol == "claimed" else step("reduce-on-plateau", factor=0.1, patience=5)
    full = Recipe(
        variant=variant,
        network=step("ResEmoteNet", divisor=divisor, scale_fc=True, dropout=0.2, fc_dropout=0.5),
        protocol=Protocol(protocol),  # "claimed" has the official roles too; the released code's recipe differs
        stages=(
            # The release stops at the 16th consecutive epoch that is no better.
            Stage("train", 80, step("sgd", lr=1e-3, momentum=0.9, weight_decay=1e-4), schedule, patience=16),
        ),
        input_size=64,
        augment=(step("flip", p=0.5),),
        loss=step("cross-entropy"),
        batch_size=16,
        selection=Selection("best"),
        precision="fp32",
        deviations=DEVIATIONS["all"] + DEVIATIONS[protocol],
    )
    if profile == "full":
        return full
    # Narrow linear layers learn nothing with half of their units dropped.
    network = step("ResEmoteNet", divisor=SMOKE_DIVISORS[divisor], scale_fc=True, dropout=0.05, fc_dropout=0.05)
    # In so few epochs SGD at 0.001 leaves all predictions equal: flip and teacher would have no visible effect.
    stage = dataclasses.replace(full.stages[0], epochs=5, optimiser=step("adam", lr=2e-3))
    return full.shrunk(network=network, input_size=32, batch_size=32, stages=(stage,))


class MirrorClassifier(NetworkClassifier):
    """A trained network that also measures the effect of the released evaluation's random horizontal flip."""

    def extra_scores(self, splits: Splits) -> dict[str, Any]:
        """``mirror``: for both test sets n, correct plain, correct flipped and their mean accuracy, which is what
        flipping with probability 0.5 gives on average; and correct by the mean logits of image and flipped image."""
        scores = {}
        for usage, part in splits.held_out().items():
            images, labels, n = np.asarray(part.images), np.asarray(part.labels), len(part.labels)
            plain, mirrored = self.predict_proba(images), self.predict_proba(np.ascontiguousarray(images[:, :, ::-1]))
            both = np.log(plain) + np.log(mirrored)  # the mean of logits up to a constant of each image
            # float16 as stored, so that the plain count is the one that the stored predictions give back.
            predicted = (plain.astype(np.float16), mirrored.astype(np.float16), both)
            correct, correct_mirrored, correct_both = (int((p.argmax(axis=1) == labels).sum()) for p in predicted)
            scores[usage] = {
                "n": n,
                "correct_plain": correct,
                "correct_mirrored": correct_mirrored,
                "accuracy_random_mirror": (correct + correct_mirrored) / (2 * n),
                "correct_flip_average": correct_both,
                "accuracy_flip_average": correct_both / n,
            }
        return {"mirror": scores}


def fit(splits: Splits, run: Run, loss: Loss | None = None) -> MirrorClassifier:
    """Train as ``run.recipe`` says; ``loss`` replaces the recipe's (see `loop.fit`)."""
    fitted = loop.fit(build, splits, run, loss)
    return MirrorClassifier(fitted.model, fitted.recipe, fitted.device)


RELEASED = Released(
    at="a folder of Google Drive, linked in the README of the repository",
    url="https://github.com/ArnabKumarRoy02/ResEmoteNet",
    file="fer2013_model.pth",
    licence="MIT (the repository)",
    wrapper="model_state_dict",
    trained_on="by the paper Training; the data set that the author shared holds augmented copies, and a user reports "
    "test images among its training images",
    selected_on="the validation images; whether they are PublicTest is not established",
    differs="the released evaluation flips every image with probability 0.5; here it is scored as it is",
    rename=(
        (r"^conv(\d)\.", lambda found: f"stem.{5 * (int(found[1]) - 1)}."),
        (r"^bn(\d)\.", lambda found: f"stem.{5 * (int(found[1]) - 1) + 1}."),
        (r"^se\.fc\.0\.", "attention.squeeze."),
        (r"^se\.fc\.2\.", "attention.excite."),
        (r"^res_block(\d)\.", lambda found: f"blocks.{int(found[1]) - 1}."),
        (r"^fc(\d)\.", lambda found: f"head.{3 * (int(found[1]) - 1)}."),
    ),
    head="head.9",
    classes=("happy", "surprise", "sad", "angry", "disgust", "fear", "neutral"),
)

# What the chapter shows of the source: network, loss, and what is special to the method.
SHOWN = (ResEmoteNet, stem, SqueezeExcite, ResidualBlock)

VARIANTS = (Variant("resemotenet", "resemotenet", recipe, build=build, fit=fit, released=RELEASED),)
