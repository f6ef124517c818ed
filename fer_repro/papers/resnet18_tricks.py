"""ResNet18 With Tricks: a small-image ResNet18 with mixup, label smoothing and crops (X. Yuan, 2021, repository and
blog).

Idea: keep a standard residual network and combine common tricks of image classification: mixup on every batch, label
smoothing, five crops in training, ten in the test, random erasing. Claim: 73.70 %. Five facts (accuracy claimed
and measured, parameters, cost, hardware) stand in the claim and in ``results/resnet18-tricks/``; the chapter prints
them.

Protocols. The released train.py controls its schedule and selects its checkpoint by PrivateTest accuracy, the number
the README reports: ``claimed`` repeats that. ``official`` selects on PublicTest and changes nothing else.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from fer_repro.data.protocol import OFFICIAL, Protocol
from fer_repro.layers import ResidualBlock
from fer_repro.papers.base import Released, Variant, deviations
from fer_repro.recipe import Recipe, Selection, Stage, Views, step
from fer_repro.training import loop
from fer_repro.training.losses import CrossEntropy
from fer_repro.transforms import mixup

CLAIMED = Protocol("claimed", train=("Training",), select=("PrivateTest",), test=("PrivateTest",))


class BasicBlock(ResidualBlock):
    """The block of He et al. 2016, figure 2: the input is projected only where the shape changes."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__(before, after, stride, project=stride != 1 or before != after)


class ResNet18(nn.Module):
    """ResNet18 with a 3x3 stem and no stem pooling (released ``models/resnet.py``).

    Input [B,1,40,40]; output logits [B,7]. ``width`` is the first stage's channels (64 in the release). ``pool`` is
    ``avg4`` (the release: a 4x4 window on a 5x5 map, so that the last row and column are never used) or ``global``.
    """

    def __init__(self, width: int = 64, blocks: int = 2, pool: str = "avg4") -> None:
        super().__init__()
        convolution = nn.Conv2d(1, width, 3, 1, 1, bias=False)
        self.stem = nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.stages, before = nn.Sequential(), width
        for index in range(4):
            after = width * 2**index
            first = BasicBlock(before, after, stride=2 if index else 1)
            self.stages.append(nn.Sequential(first, *(BasicBlock(after, after) for _ in range(blocks - 1))))
            before = after
        self.pool = nn.AvgPool2d(4) if pool == "avg4" else nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(before, 7)

    def forward(self, images: Tensor) -> Tensor:
        # Stem, then four stages: [B,1,40,40] -> [B,64,40,40] -> [B,512,5,5]
        features = self.stages(self.stem(images))
        # One position: [B,512,5,5] -> [B,512]; then [B,7]
        return self.linear(self.pool(features).flatten(1))


def build(recipe: Recipe) -> nn.Module:
    return ResNet18(**recipe.network.kwargs())


AUGMENT = (
    step("random_resized_crop", size=48, scale=(0.8, 1.2), ratio=(3 / 4, 4 / 3)),
    step("jitter", brightness=0.5, contrast=0.5, p=0.5),
    step("translate", fraction=0.2, p=0.5),
    step("flip", p=0.5),
    step("rotate", degrees=10, p=0.5, interpolation="nearest"),
    step("five_crop", size=40),
    step("erase", p=0.5, area=(0.02, 0.33), aspect=(0.3, 3.3), value=0.0),
)

# The release spreads 0.1 over the six wrong classes, torch its value over all seven: 0.1 * 7/6 is the same target.
LABEL_SMOOTHING = 0.1 * 7 / 6

DEVIATIONS = deviations(__file__)


def recipe(protocol: str, profile: str) -> Recipe:
    """The defaults of the released train.py: 300 epochs, SGD at 0.1, plateau schedule, mixup on every batch."""
    claimed = protocol == "claimed"
    sgd = step("sgd", lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    plateau = step("reduce-on-plateau", factor=0.75, patience=5)
    full = Recipe(
        variant="resnet18-tricks",
        network=step("ResNet18", width=64, blocks=2, pool="avg4"),
        protocol=CLAIMED if claimed else OFFICIAL,
        stages=(Stage("train", 300, sgd, plateau),),
        input_size=40,
        # Divided by 255 twice in the release (by ToTensor on an 8-bit image, then by Normalize): kept.
        std=255.0,
        augment=AUGMENT,
        mix=step("mixup", alpha=1.0),
        loss=step("cross-entropy", label_smoothing=LABEL_SMOOTHING),
        batch_size=128,
        selection=Selection("best"),
        views=Views("ten-crop", 40, "logits"),
        plain=Views("centre-crop", 40),
        deviations=DEVIATIONS["all"] if claimed else (*DEVIATIONS["all"], *DEVIATIONS["clean"]),
    )
    return full if profile == "full" else smoke(full)


def smoke(full: Recipe) -> Recipe:
    """The same steps with a network and schedule that two cores finish in seconds."""
    small = step("ResNet18", width=4, blocks=1, pool="avg4")
    return full.shrunk(network=small, batch_size=16, stages=(full.stages[0].shortened(3),))


RELEASED = Released(
    at="Google Drive, USTC's drive and Baidu, linked in the README of the repository",
    url="https://github.com/LetheSec/Fer2013-Facial-Emotion-Recognition-Pytorch",
    file="best_checkpoint.tar",
    licence="MIT (the repository)",
    wrapper="model_state_dict",
    trained_on="Training",
    selected_on="PrivateTest, by ten-crop accuracy after each of 300 epochs; the learning rate follows it too",
    rename=(
        (r"^conv1\.", "stem.0."),
        (r"^bn1\.", "stem.1."),
        (r"^layer(\d)\.", lambda found: f"stages.{int(found[1]) - 1}."),
    ),
)

# What the chapter shows of the source: network, loss, and what is special to the method.
SHOWN = (ResNet18, BasicBlock, ResidualBlock, CrossEntropy, mixup)

VARIANTS = (
    Variant("resnet18-tricks", "resnet18-tricks", recipe, fit=partial(loop.fit, build), build=build, released=RELEASED),
)
