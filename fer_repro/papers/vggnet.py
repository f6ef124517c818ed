"""VGGNet: a plain VGG on ten crops of a face (Khaireddin & Chen, arXiv 2105.03588, 2021).

Idea: a VGG with four stages is enough for 48x48 faces, if it is trained on ten crops of strongly augmented copies and
scored on the mean of ten crops. Claim: 73.28 %. Five facts (accuracy claimed and measured, parameters, cost,
hardware) stand in the claim and in ``results/vggnet/``; the chapter prints them.

Protocols. The authors' loader calls PrivateTest "validation" and PublicTest "test"; the row sums of their published
confusion matrix are PublicTest's. ``claimed`` repeats that: plateau and best epoch on PrivateTest, 50 more epochs on
Training + PrivateTest, last epoch, PublicTest scored. ``official`` keeps the recipe with the official roles.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from fer_repro.data.protocol import OFFICIAL, Protocol
from fer_repro.papers.base import Released, Variant, deviations
from fer_repro.recipe import Recipe, Selection, Stage, Views, step
from fer_repro.training import loop

CLAIMED = Protocol(
    "claimed", train=("Training",), select=("PrivateTest",), test=("PublicTest",), finetune=("Training", "PrivateTest")
)


class VGGNet(nn.Module):
    """Four stages of two 3x3 convolutions, then three linear layers (section III of the paper; released
    ``models/vgg.py``).

    Input [B,1,40,40] in [0, 1]; output logits [B,7]. ``width`` is the first stage's channels (64 in the paper),
    ``hidden`` the linear layers' units (4096).
    """

    def __init__(self, width: int = 64, hidden: int = 4096, dropout: float = 0.2) -> None:
        super().__init__()
        widths = [1, width, 2 * width, 4 * width, 8 * width]
        self.stages = nn.Sequential(*(VGGStage(before, after) for before, after in pairwise(widths)))
        # 40 -> 20 -> 10 -> 5 -> 2: the last pool drops the fifth row and column of the 5x5 map.
        layers = [nn.Linear(8 * width * 2 * 2, hidden), nn.Dropout(dropout), nn.ReLU()]
        layers += [nn.Linear(hidden, hidden), nn.Dropout(dropout), nn.ReLU(), nn.Linear(hidden, 7)]
        self.head = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        # Four halvings: [B,1,40,40] -> [B,512,2,2]
        features = self.stages(images)
        # Three linear layers: [B,2048] -> [B,7]
        return self.head(features.flatten(1))


class VGGStage(nn.Sequential):
    """Convolution, batch norm, ReLU, twice; then a 2x2 maximum: [B,C,H,W] -> [B,C',H/2,W/2]."""

    def __init__(self, before: int, after: int) -> None:
        layers: list[nn.Module] = []
        for channels in (before, after):
            layers += [nn.Conv2d(channels, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.MaxPool2d(2))


def build(recipe: Recipe) -> nn.Module:
    return VGGNet(**recipe.network.kwargs())


AUGMENT = (
    step("random_resized_crop", size=48, scale=(0.8, 1.2), ratio=(3 / 4, 4 / 3)),
    step("translate", fraction=0.2, p=0.5),
    step("flip", p=0.5),
    step("rotate", degrees=10, p=0.5, interpolation="nearest"),
    step("ten_crop", size=40),
    step("erase", p=0.5, area=(0.02, 0.33), aspect=(0.3, 3.3), value=0.0),
)

DEVIATIONS = deviations(__file__)


def recipe(protocol: str, profile: str) -> Recipe:
    """300 epochs on a plateau schedule, then 50 with a small cosine (released train.py and hparams.py)."""
    claimed = protocol == "claimed"
    sgd = {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
    plateau = step("reduce-on-plateau", factor=0.75, patience=5)
    cosine = step("cosine", t_max=10, eta_min=1e-6)
    full = Recipe(
        variant="vggnet",
        network=step("VGGNet", width=64, hidden=4096, dropout=0.2),
        protocol=CLAIMED if claimed else OFFICIAL,
        stages=(
            Stage("train", 300, step("sgd", lr=0.01, **sgd), plateau),
            # The published weights continue epoch 300, not the best one: the accuracy log has no gap.
            Stage("fine-tune", 50, step("sgd", lr=1e-4, **sgd), cosine, images="finetune", start="last"),
        ),
        input_size=40,
        augment=AUGMENT,
        loss=step("cross-entropy"),
        batch_size=64,
        selection=Selection("last" if claimed else "best"),
        views=Views("ten-crop", 40, "logits"),
        plain=Views("centre-crop", 40),
        deviations=DEVIATIONS["all"] + DEVIATIONS[protocol],
    )
    if profile == "full":
        return full
    stages = tuple(stage.shortened(epochs) for stage, epochs in zip(full.stages, (2, 1), strict=True))
    return full.shrunk(network=step("VGGNet", width=4, hidden=64, dropout=0.2), batch_size=16, stages=stages)


RELEASED = Released(
    at="Google Drive, linked in the README of the repository",
    url="https://github.com/usef-kh/fer",
    wrapper="params",
    trained_on="Training and, in the last 50 epochs, PrivateTest",
    selected_on="PrivateTest in the first 300 epochs, then the last epoch; the way of fine-tuning on PublicTest",
    test_sets=("PublicTest",),
    why="the fine-tuning has trained on PrivateTest",
    rename=(
        (r"^conv(\d)a\.", lambda found: f"stages.{int(found[1]) - 1}.0."),
        (r"^bn(\d)a\.", lambda found: f"stages.{int(found[1]) - 1}.1."),
        (r"^conv(\d)b\.", lambda found: f"stages.{int(found[1]) - 1}.3."),
        (r"^bn(\d)b\.", lambda found: f"stages.{int(found[1]) - 1}.4."),
        (r"^lin(\d)\.", lambda found: f"head.{3 * (int(found[1]) - 1)}."),
    ),
)

# What the chapter shows of the source: network, loss, and what is special to the method.
SHOWN = (VGGNet, VGGStage)

VARIANTS = (
    Variant(
        id="vggnet",
        slug="vggnet",
        recipe=recipe,
        build=build,
        fit=lambda splits, run: loop.fit(build, splits, run),
        released=RELEASED,
    ),
)
