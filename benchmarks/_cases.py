"""The networks that are measured: papers with their official recipes, and heavier stand-ins from torchvision."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torchvision
from torch import Tensor, nn

from fer_repro import papers
from fer_repro.data.official import OFFICIAL_COUNTS, USAGES
from fer_repro.data.protocol import OFFICIAL
from fer_repro.errors import FerReproError
from fer_repro.layers import GreyAsRgb
from fer_repro.papers import deep_emotion
from fer_repro.papers.ad_corre.losses import AdCorreLoss
from fer_repro.recipe import Recipe, Stage, bind, step
from fer_repro.training.losses import Loss, make_loss

PAPERS = {
    "vggnet": "VGGNet",
    "resnet18-tricks": "ResNet18 with tricks",
    "resemotenet": "ResEmoteNet",
    "cnn-hyperparameters": "CNN by random search",
    "ad-corre": "Ad-Corre’s Xception",
    "deep-emotion": "DeepEmotion",
    "mini-resemotenet-b-alone": "Mini-ResEmoteNet B, without a teacher",
    "mini-resemotenet-c-alone": "Mini-ResEmoteNet C, without a teacher",
}
STAND_INS = {
    "resnet34": "ResNet34, 224 pixels",
    "convnext_tiny": "ConvNeXt-T, 224 pixels",
    "efficientnet_v2_s": "EfficientNetV2-S, 224 pixels",
}
TITLES = PAPERS | STAND_INS
TRAINED = ("vggnet", "resnet18-tricks", "resemotenet", "cnn-hyperparameters", "ad-corre", "deep-emotion", *STAND_INS)
TRAINING_IMAGES = int(OFFICIAL_COUNTS[USAGES.index("Training")].sum())
PUBLIC_IMAGES = int(OFFICIAL_COUNTS[USAGES.index("PublicTest")].sum())


class StandIn(nn.Module):
    """A network of torchvision for one grey channel and seven classes, random weights."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.colour = GreyAsRgb()
        self.network = getattr(torchvision.models, name)(weights=None, num_classes=7)

    def forward(self, images: Tensor) -> Tensor:
        # Three equal channels, then the network: [B,1,s,s] -> [B,7]
        return self.network(self.colour(images))


@dataclasses.dataclass(frozen=True)
class Case:
    """One network to measure; ``small`` takes a paper's smoke recipe, or a stand-in at 64 pixels (for tests)."""

    name: str
    small: bool = False

    def __post_init__(self) -> None:
        if self.name not in TITLES:
            raise FerReproError(f"there is no network '{self.name}' to measure: expected some of {', '.join(TITLES)}")

    def recipe(self) -> Recipe:
        """The paper's official recipe, or a plain one for a stand-in."""
        if self.name in PAPERS:
            return papers.get(self.name).recipe("official", "smoke" if self.small else "full")
        sgd = step("sgd", lr=0.01, momentum=0.9, weight_decay=1e-4)
        optimiser = step("adamw", lr=1e-3, weight_decay=0.05) if self.name == "convnext_tiny" else sgd
        return Recipe(
            variant=self.name,
            network=step(self.name),
            protocol=OFFICIAL,
            stages=(Stage("train", 40, optimiser),),
            input_size=64 if self.small else 224,
            augment=(step("flip", p=0.5), step("rotate", degrees=10, p=0.5, interpolation="bilinear")),
            batch_size=4 if self.small else 32,
        )

    def build(self, recipe: Recipe) -> nn.Module:
        return papers.get(self.name).build(recipe) if self.name in PAPERS else StandIn(self.name)

    def loss(self, recipe: Recipe) -> Loss:
        """The recipe's loss, those that are a paper's own included."""
        if recipe.loss.name == "ad-corre":
            return bind(recipe.loss, {"ad-corre": AdCorreLoss}, "loss")()
        return deep_emotion.loss(recipe) or make_loss(recipe.loss)

    def facts(self) -> dict[str, Any]:
        return {"network": self.name, "title": TITLES[self.name], "paper": self.name in PAPERS}


def chosen(only: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The networks named in ``only`` (separated by commas), or all of ``known``. Raises `FerReproError`."""
    names = tuple(name.strip() for name in only.split(",") if name.strip())
    for name in names:
        if name not in TITLES:
            Case(name)
    return names or known


def random_faces(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [n,48,48] of noise and int64 [n] labels: no transform here takes longer for one picture than another."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 48, 48), dtype=np.uint8), rng.integers(0, 7, n)
