"""A plain network under the official protocol: what the claims of the leaderboard are to be compared with.

Idea: none of its own. A small residual network (He et al. 2016) with the ordinary means of image classification: crops,
flips, small rotations, label smoothing, one learning-rate cycle, averaged weights, the mean of an image and its mirror
image in the test. Nothing in it was made for faces. Five facts (accuracy, parameters, cost, hardware, seeds) stand in
``results/baseline/``; the chapter prints them.

Protocol. ``official``: trained on Training; the recipe was chosen on PublicTest among those of
``results/baseline/search.csv`` that had been trained by then (`fer_repro.papers.baseline.recipe_search`), and the last
epoch is scored. There is no claim, so the ``claimed`` protocol has the same roles and the same recipe.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from torch import Tensor, nn

from fer_repro.data.protocol import OFFICIAL, Protocol
from fer_repro.layers import ResidualBlock
from fer_repro.papers.base import Variant
from fer_repro.recipe import Recipe, Selection, Stage, Step, Views, step
from fer_repro.training import loop


class PlainResNet(nn.Module):
    """A stem and three stages of residual blocks, each with twice the channels at half the side of the one before.

    Input [B,1,44,44]; output logits [B,7]. ``widths``: channels of the stages; ``blocks``: of each stage. The stem, a
    5x5 convolution of stride 2, has the channels of the first stage.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128), blocks: tuple[int, ...] = (2, 2, 2)) -> None:
        super().__init__()
        convolution = nn.Conv2d(1, widths[0], 5, stride=2, padding=2, bias=False)
        self.stem = nn.Sequential(convolution, nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True))
        self.stages, before = nn.Sequential(), widths[0]
        for index, (after, count) in enumerate(zip(widths, blocks, strict=True)):
            for place in range(count):
                stride = 2 if index and not place else 1
                self.stages.append(ResidualBlock(before, after, stride, project=stride != 1 or before != after))
                before = after
        self.linear = nn.Linear(before, 7)

    def forward(self, images: Tensor) -> Tensor:
        # Stem, then three stages: [B,1,44,44] -> [B,32,22,22] -> [B,32,22,22] -> [B,64,11,11] -> [B,128,6,6]
        features = self.stages(self.stem(images))
        # Mean over the positions: [B,128,6,6] -> [B,128]; then [B,7]
        return self.linear(features.mean(dim=(2, 3)))


def build(recipe: Recipe) -> nn.Module:
    return PlainResNet(**recipe.network.kwargs())


SIZE = 44
NETWORK = step("PlainResNet", widths=(32, 64, 128), blocks=(2, 2, 2))
MILD = (
    step("flip", p=0.5),
    step("affine", degrees=10, scale=(0.9, 1.1), interpolation="bilinear"),
    step("crop", size=SIZE),
)


# The decay rises with the batches: an average that remembers its random start is of no use in a short schedule.
AVERAGE = step("average", decay=0.998, power=0.75)


def plain(
    epochs: int,
    network: Step = NETWORK,
    augment: tuple[Step, ...] = MILD,
    smoothing: float = 0.1,
    ema: Step | None = AVERAGE,
    lr: float = 0.1,
    batch_size: int = 128,
) -> Recipe:
    """The recipe with what the search varies: SGD with Nesterov momentum through one cycle of the learning rate."""
    sgd = step("sgd", lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    cycle = step("one-cycle", per="batch", max_lr=lr, pct_start=0.2, div_factor=10, final_div_factor=1000)
    return Recipe(
        variant="baseline",
        network=network,
        protocol=OFFICIAL,
        stages=(Stage("train", epochs, sgd, cycle),),
        input_size=SIZE,
        mean=0.5,
        std=0.25,
        augment=augment,
        loss=step("cross-entropy", label_smoothing=smoothing),
        batch_size=batch_size,
        selection=Selection("last", views=False),
        views=Views("flip", SIZE, "logits"),
        plain=Views("centre-crop", SIZE),
        ema=ema,
    )


EPOCHS = 24


def recipe(protocol: str, profile: str) -> Recipe:
    """The recipe that the search chose, trained for longer; the same under both protocols."""
    full = plain(EPOCHS) if protocol == "official" else dataclasses.replace(plain(EPOCHS), protocol=Protocol(protocol))
    return full if profile == "full" else smoke(full)


def smoke(full: Recipe) -> Recipe:
    """The same steps with a network and schedule that two cores finish in seconds."""
    small = step("PlainResNet", widths=(8, 16, 32), blocks=(1, 1, 1))
    return full.shrunk(network=small, batch_size=16, stages=(full.stages[0].shortened(3),))


# What the chapter shows of the source: network, loss, and what is special to the method.
SHOWN = (PlainResNet,)

VARIANTS = (
    Variant("baseline", "baseline", recipe, fit=partial(loop.fit, build), build=build, called="plain baseline"),
)
