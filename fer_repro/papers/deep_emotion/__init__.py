"""DeepEmotion: a small network with a spatial transformer (Minaee et al., arXiv 1902.01019, 2019; Sensors 21(9), 2021).

Idea: a few places of a face carry most of the expression; a small network looks at the image and chooses an affine
window, and what lies in the window is classified. Claim: 70.02 %. Five facts (accuracy claimed and measured,
parameters, cost, hardware) stand in the claim and in ``results/deep-emotion/``; the chapter prints them.

There is no released code. The leaderboard's variant follows the architecture figure; three ablations are the networks
of the linked third-party repository (the transformer warps the image), of another re-implementation (a wide
localisation network) and one without a transformer. Protocols: nothing known contradicts the official one, so
``claimed`` uses its splits too; its recipe is what re-implementations say of the paper, or their own.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_repro.data.protocol import OFFICIAL, Protocol, Splits
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.layers import as_input, normalise_
from fer_repro.papers.base import Released, deviations, family
from fer_repro.recipe import Recipe, Selection, Stage, Step, step
from fer_repro.training import loop
from fer_repro.training.losses import Loss
from fer_repro.training.run import Run

CLAIMED = Protocol("claimed")


class Localisation(nn.Module):
    """The localisation network, from the image to six numbers, an affine map: [B,1,48,48] -> [B,2,3].

    ``kind``: ``figure`` (3x3 convolutions, pools of 4, so that 10x3x3 = 90 features come out, as the paper's figure
    prints), ``valid`` (3x3 without padding, pools of 2: 1,000 features), ``tutorial`` (7x7 and 5x5, as in PyTorch's
    tutorial on spatial transformers: 640 features). It starts as the identity: the image stays as it is.
    """

    SIZES = {"figure": (3, 3, 1, 4, 90), "valid": (3, 3, 0, 2, 1000), "tutorial": (7, 5, 0, 2, 640)}

    def __init__(self, kind: str) -> None:
        super().__init__()
        first, second, padding, pool, features = self.SIZES[kind]
        self.look = nn.Sequential(
            nn.Conv2d(1, 8, first, padding=padding),
            nn.MaxPool2d(pool),
            nn.ReLU(),
            nn.Conv2d(8, 10, second, padding=padding),
            nn.MaxPool2d(pool),
            nn.ReLU(),
        )
        self.answer = nn.Sequential(nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, 6))

    def start_as_identity(self) -> None:
        nn.init.zeros_(self.answer[-1].weight)
        with torch.no_grad():
            self.answer[-1].bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))

    def forward(self, images: Tensor) -> Tensor:
        # Two convolutions and pools: [B,1,48,48] -> [B,10,3,3]
        features = self.look(images)
        # Two linear layers: [B,90] -> [B,6], read as the rows of an affine map
        return self.answer(features.flatten(1)).view(-1, 2, 3)


def warp(maps: Tensor, theta: Tensor) -> Tensor:
    """``maps`` [B,C,H,W] sampled through the affine maps ``theta`` [B,2,3], bilinear, zero outside (Jaderberg et al.
    2015, sections 3.2 and 3.3)."""
    grid = F.affine_grid(theta, list(maps.shape), align_corners=False)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class DeepEmotion(nn.Module):
    """Four convolutions, a spatial transformer, two linear layers (the paper's architecture figure).

    Input [B,1,48,48]; output (logits [B,7], squared norm of the two linear layers' weights, a scalar for the weight
    penalty of the loss). ``localisation``: see `Localisation`, or ``none``. ``warps``: ``features`` (the figure: after
    the backbone) or ``image``. ``norm``: a batch norm after the fourth convolution. ``gaussian``: standard deviation of
    the initial weights, None = torch's default. ``between``: dropout between the linear layers.
    """

    def __init__(
        self,
        localisation: str = "figure",
        warps: str = "features",
        width: int = 10,
        hidden: int = 50,
        norm: bool = False,
        dropout: float = 0.5,
        by_channel: bool = False,
        between: float = 0.0,
        gaussian: float | None = 0.05,
    ) -> None:
        super().__init__()
        self.warps = warps
        self.localisation = None if localisation == "none" else Localisation(localisation)
        self.trunk = nn.Sequential(  # the backbone; its name is part of every checkpoint
            nn.Conv2d(1, width, 3),
            nn.ReLU(),
            nn.Conv2d(width, width, 3),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3),
            nn.ReLU(),
            nn.Conv2d(width, width, 3),
            *([nn.BatchNorm2d(width)] if norm else []),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Dropout2d(dropout) if by_channel else nn.Dropout(dropout),
        )
        self.hidden = nn.Sequential(nn.Linear(width * 9 * 9, hidden), nn.ReLU(), nn.Dropout(between))
        self.classifier = nn.Linear(hidden, 7)
        for module in self.modules():
            if gaussian is not None and isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.normal_(module.weight, std=gaussian)
                nn.init.zeros_(module.bias)
        if self.localisation is not None:
            self.localisation.start_as_identity()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        # The affine window: [B,1,48,48] -> [B,2,3]
        theta = None if self.localisation is None else self.localisation(images)
        # The image through that window, in the variant that warps it
        seen = warp(images, theta) if theta is not None and self.warps == "image" else images
        # Four convolutions without padding, two pools: 48, 46, 44, 22, 20, 18, 9 pixels: [B,10,9,9]
        features = self.trunk(seen)
        # The feature map through that window, in the others
        features = warp(features, theta) if theta is not None and self.warps == "features" else features
        # Two linear layers: [B,810] -> [B,50] -> [B,7]
        logits = self.classifier(self.hidden(features.flatten(1)))
        return logits, self.hidden[0].weight.square().sum() + self.classifier.weight.square().sum()


class PenalisedCrossEntropy(nn.Module):
    """Cross-entropy + ``weight`` x the squared norm that the network returns with its logits (the paper's loss)."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, output: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
        logits, squared_norm = output
        return F.cross_entropy(logits, targets) + self.weight * squared_norm


def loss(recipe: Recipe) -> Loss | None:
    """This paper's loss where the recipe names it; None: the loop makes what the recipe names."""
    return PenalisedCrossEntropy(**recipe.loss.kwargs()) if recipe.loss.name == "penalised-cross-entropy" else None


def build(recipe: Recipe) -> nn.Module:
    return DeepEmotion(**recipe.network.kwargs())


class Attentive(NetworkClassifier):
    """The trained network; it also records the window of each image, for the chapter."""

    def windows(self, images: np.ndarray) -> np.ndarray | None:
        """uint8 [N,48,48] -> float32 [N,2,3], the affine map of each image; None without a transformer."""
        if self.model.localisation is None:
            return None
        inputs = normalise_(as_input(torch.tensor(np.asarray(images))), self.recipe.mean, self.recipe.std)
        with torch.inference_mode():
            parts = [self.model.localisation(part.to(self.device)).cpu() for part in inputs.split(512)]
        return torch.cat(parts).numpy()

    def extra_scores(self, splits: Splits) -> dict[str, Any]:
        """``windows`` for the result: mean and deviation of the maps over the scored images, and one map per class."""
        test = splits.test
        theta = self.windows(test.images)
        if theta is None:
            return {}
        maps = theta.reshape(-1, 6).astype(float)
        first = [int(np.flatnonzero(test.labels == index)[0]) for index in np.unique(test.labels)]
        faces = [
            {"id": str(test.ids[i]), "label": int(test.labels[i]), "theta": maps[i].round(5).tolist()} for i in first
        ]
        mean, deviation = (values.round(5).tolist() for values in (maps.mean(axis=0), maps.std(axis=0)))
        return {"windows": {"n": len(maps), "mean": mean, "deviation": deviation, "faces": faces}}


def fit(splits: Splits, run: Run) -> Attentive:
    trained = loop.fit(build, splits, run, loss=loss(run.recipe))
    return Attentive(trained.model, run.recipe, trained.device)


FIGURE = step("DeepEmotion", localisation="figure")
INPUT_STN = step("DeepEmotion", localisation="tutorial", warps="image", norm=True, gaussian=None)
WIDE = step("DeepEmotion", localisation="valid", by_channel=True, between=0.5, gaussian=None)
NO_STN = step("DeepEmotion", localisation="none")
LIGHT = (
    step("flip", p=0.5),
    step("affine", degrees=10, p=0.5, interpolation="bilinear"),
    step("translate", fraction=0.1, p=0.5),
)
DEVIATIONS = deviations(__file__)


def as_claimed(variant: str, network: Step) -> Recipe:
    """What re-implementations say of the paper: Adam at 0.005, 500 epochs, a weight penalty. The rest is ours."""
    return Recipe(
        variant=variant,
        network=network,
        protocol=CLAIMED,
        stages=(Stage("train", 500, step("adam", lr=0.005)),),
        augment=LIGHT,
        loss=step("penalised-cross-entropy", weight=1e-3),
        batch_size=128,
        selection=Selection("best"),
        deviations=(*DEVIATIONS["unknown"], *DEVIATIONS["precision"]),
    )


def as_linked(variant: str, network: Step) -> Recipe:
    """The linked repository's training (omarsayed7/Deep-Emotion, main.py), its dropout corrected."""
    return dataclasses.replace(
        as_claimed(variant, network),
        stages=(Stage("train", 100, step("adam", lr=0.005)),),
        mean=0.5,
        std=0.5,
        augment=(),
        loss=step("cross-entropy"),
        selection=Selection("last"),
        deviations=(*DEVIATIONS["as linked"], *DEVIATIONS["precision"]),
    )


def as_wide(variant: str, network: Step) -> Recipe:
    """The other re-implementation's training (mkmohangb/deep-emotion, train.py)."""
    plateau = step("reduce-on-plateau", on="loss", factor=0.1, patience=10)
    return dataclasses.replace(
        as_claimed(variant, network),
        stages=(Stage("train", 100, step("adam", lr=0.005), plateau),),
        augment=(),
        loss=step("penalised-cross-entropy", weight=5e-4),
        batch_size=256,
        selection=Selection("best", measure="loss"),
        deviations=(*DEVIATIONS["as wide"], *DEVIATIONS["precision"]),
    )


def official(variant: str, network: Step) -> Recipe:
    """The best recipe of the search on PublicTest (``results/deep-emotion/search.csv``), the same for every network."""
    unknown = (*DEVIATIONS["unknown"][:2], DEVIATIONS["unknown"][3])
    dropout = {"dropout": 0.1} | ({"between": 0.1} if network.get("between") else {})
    return dataclasses.replace(
        as_claimed(variant, network.having(gaussian=None, **dropout)),
        protocol=OFFICIAL,
        stages=(Stage("train", 80, step("adam", lr=0.005), step("cosine", per="batch")),),
        loss=step("penalised-cross-entropy", weight=0.0),
        deviations=(*unknown, *DEVIATIONS["searched"], *DEVIATIONS["precision"]),
    )


RECIPES = {
    "deep-emotion": (as_claimed, FIGURE),
    "deep-emotion-input-stn": (as_linked, INPUT_STN),
    "deep-emotion-wide-localisation": (as_wide, WIDE),
    "deep-emotion-no-stn": (as_claimed, NO_STN),
}


def recipe(variant: str, protocol: str, profile: str) -> Recipe:
    """claimed: the training that re-implementations give as the paper's, or their own; official: the searched one."""
    make, network = RECIPES[variant] if protocol == "claimed" else (official, RECIPES[variant][1])
    full = make(variant, network)
    return full if profile == "full" else full.shrunk(stages=(full.stages[0].shortened(8),), batch_size=16)


LOCALISATION = ((r"^localization\.", "localisation.look."), (r"^fc_loc\.", "localisation.answer."))
RELEASED = {
    "deep-emotion-wide-localisation": Released(
        at="in the repository of a re-implementation",
        url="https://github.com/mkmohangb/deep-emotion",
        file="deep_emotion-256-0.005-300.pt",
        trained_on="Training",
        selected_on="PublicTest, by the loss after each of 300 epochs",
        rename=(
            (r"^feat_extraction\.", "trunk."),
            (r"^fc_de\.0\.", "hidden.0."),
            (r"^fc_de\.3\.", "classifier."),
            *LOCALISATION,
        ),
    ),
    "deep-emotion-input-stn": Released(
        at="nothing usable is published",
        published=False,
        url="https://github.com/omarsayed7/Deep-Emotion",
        trained_on="Training without its first 3,589 images",
        selected_on="nothing: the last epoch's weights are kept",
        differs="the release stores the images as JPEG first, and its dropout stays on in evaluation; here it is off",
        rename=(
            (r"^conv([12])\.", lambda found: f"trunk.{2 * (int(found[1]) - 1)}."),
            (r"^conv([34])\.", lambda found: f"trunk.{2 * int(found[1]) - 1}."),
            (r"^norm\.", "trunk.8."),
            (r"^fc1\.", "hidden.0."),
            (r"^fc2\.", "classifier."),
            *LOCALISATION,
        ),
    ),
}

# What the chapter shows of the source: network, loss, and what is special to the method.
SHOWN = (DeepEmotion, Localisation, warp, PenalisedCrossEntropy)

VARIANTS = tuple(family("deep-emotion", RECIPES, recipe, build=build, fit=fit, released=RELEASED))
