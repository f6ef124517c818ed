"""Segmentation VGG-19: a VGG19-BN with four softmax gates on its feature maps (Vignesh et al., IJIT 15, 2023).

Idea: after some stages a small network takes the maps x and gives a mask m of the same shape; the maps go on as
x (1 + m). The gates are those of the Residual Masking Network, at depth one. No segmentation mask, label or loss exists
anywhere in the release: nothing is segmented. Claim: 75.97 %. Five facts (accuracy claimed and measured, parameters,
cost, hardware) stand in the claim and in ``results/segmentation-vgg19/``; the chapter prints them.

Protocols. Both train on Training and select on PublicTest, plain; they differ in how PrivateTest is scored. ``claimed``
adds up ten random views of each image, as the released test does; ``official`` takes the image as it is.

Two trainings. ``segmentation-vgg19-plain`` is the first one: VGG19-BN from ImageNet weights, fine-tuned.
``segmentation-vgg19`` takes its convolutions, adds the gates, starts with a new head and is trained again. The
difference between the two is the effect of gates and second training together.
"""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.vgg import make_layers

from fer_repro import pretrained
from fer_repro.data.protocol import OFFICIAL, Protocol, Splits
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.evaluation.tta import TURNS, turned_views
from fer_repro.layers import MaskingBlock, ResidualBlock, as_input
from fer_repro.papers.base import Released, Variant, deviations, torchvision_weights, with_scratch
from fer_repro.papers.segmentation_vgg19.gates import gate_statistics
from fer_repro.recipe import Recipe, Selection, Stage, Views, step
from fer_repro.training import loop
from fer_repro.training.run import Run
from fer_repro.transforms.geometry import resize

ROW, PLAIN = "segmentation-vgg19", "segmentation-vgg19-plain"
CLAIMED = Protocol("claimed")  # the same images in the same roles; only the test-time augmentation differs

CONVOLUTIONS = (2, 2, 4, 4, 4)  # in each stage of VGG-19, "E" in Simonyan and Zisserman's table 1
WIDTHS = (64, 128, 256, 512, 512)
GATES = (1, 2, 3, 5)  # the stages with a gate, counted from 1; the released network has none after the fourth

MEASURED = 8  # test images on which the gates are measured

WEIGHTS = torchvision_weights("VGG19_BN_Weights", "vgg19_bn-c79401a0.pth")


class Gate(nn.Module):
    """Maps x [B,C,H,W] to x (1 + mask), of the same shape."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.mask = MaskingBlock(channels, depth=1, gate=kind)

    def forward(self, maps: Tensor) -> Tensor:
        # A mask of the same shape, and x (1 + m), in fp32, where a small mask is not lost in 1 + m: -> [B,C,H,W]
        return maps * (1 + self.mask(maps).float())


class SegmentationVgg19(nn.Module):
    """torchvision's VGG19-BN with gates: input [B,1,S,S] in [0, 1], S at least 32; logits [B,7].

    ``gates``: the stages (from 1) whose maps x become x (1 + m) before they are pooled, none for the plain network.
    ``gate``: ``softmax`` over the channels as released, or ``sigmoid``. (Released ``models/vgg_19_bn_mask.py``.)
    """

    def __init__(
        self,
        widths: tuple[int, ...] = WIDTHS,
        hidden: int = 4096,
        gates: tuple[int, ...] = GATES,
        gate: str = "softmax",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        plan = [layer for width, n in zip(widths, CONVOLUTIONS, strict=True) for layer in (*[width] * n, "M")]
        stages: list[list[nn.Module]] = [[]]
        for layer in make_layers(plan, batch_norm=True):
            # A stage begins with the pooling of the one before it, so that a gate sits between the two.
            if isinstance(layer, nn.MaxPool2d):
                stages.append([])
            stages[-1].append(layer)
        for number in gates:
            stages[number - 1].append(Gate(widths[number - 1], gate))
        *body, last = (nn.Sequential(*layers) for layers in stages)
        self.stages = nn.ModuleList(body)
        self.pool = nn.Sequential(*last, nn.AdaptiveAvgPool2d(7))
        first = nn.Linear(widths[-1] * 49, hidden), nn.ReLU(), nn.Dropout(dropout)
        second = nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout)
        self.head = nn.Sequential(*first, *second, nn.Linear(hidden, 7))
        for layer in self.backbone():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        # Three equal channels: [B,1,S,S] -> [B,3,S,S]
        maps = images.expand(-1, 3, -1, -1)
        for stage in self.stages:
            # All but the first halve the sides; then convolutions and, where there is one, the gate: -> [B,C,H,W]
            maps = stage(maps)
        # Halved once more, then as means of 7x7 cells: -> [B,512,7,7] -> [B,25088]
        features = self.pool(maps).flatten(1)
        # Three linear layers: -> [B,4096] -> [B,4096] -> [B,7]
        return self.head(features)

    def backbone(self) -> nn.Sequential:
        """The layers of the five stages without the gates, numbered as torchvision numbers its ``features``."""
        return nn.Sequential(*(layer for stage in self.stages for layer in stage if not isinstance(layer, Gate)))

    @property
    def gates(self) -> dict[str, MaskingBlock]:
        """The masking blocks by the number of their stage."""
        last = enumerate((stage[-1] for stage in self.stages), start=1)
        return {str(number): layer.mask for number, layer in last if isinstance(layer, Gate)}

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """Take the convolutions and their batch norms of torchvision's file; the head stays random."""
        renamed = {name.removeprefix("features."): tensor for name, tensor in state.items()}
        pretrained.fill_(self.backbone(), renamed, leave=("classifier.",), where=WEIGHTS.file)


class Vgg19Classifier(NetworkClassifier):
    """A fitted network that also records its score with random views, and how far its gates move its maps."""

    def extra_scores(self, splits: Splits) -> dict[str, Any]:
        """``random_views``: counts of correct answers on the test images, plain and with several seeds of the views.

        ``gates``: `gate_statistics` on the first `MEASURED` test images; absent without gates.
        """
        found: dict[str, Any] = {"random_views": self.random_views(splits.test.images, splits.test.labels)}
        if self.model.gates:
            images = torch.tensor(np.asarray(splits.test.images[:MEASURED]), device=self.device)
            inputs = resize(as_input(images), self.recipe.input_size)
            gates = gate_statistics(self.model.eval(), self.model.gates, inputs)
            found["gates"] = [dataclasses.asdict(gate) for gate in gates]
        return found

    def random_views(self, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        """Correct answers among n images: ``plain``, and ``views``, one count for each seed from 0 on."""

        def right(views: Views | None) -> int:
            recipe = dataclasses.replace(self.recipe, views=views or self.recipe.views)
            scores = NetworkClassifier(self.model, recipe, self.device).predict_proba(images, views is not None)
            # float16 as stored, so that the counts are those of the stored predictions.
            return int((scores.astype(np.float16).argmax(axis=1) == labels).sum())

        size, options = self.recipe.input_size, self.recipe.options
        views = [right(turned_views(size, options["count"], seed)) for seed in range(options["draws"])]
        return {"n": len(labels), "count": options["count"], "plain": right(None), "views": views}


def build(recipe: Recipe) -> nn.Module:
    return SegmentationVgg19(**recipe.network.kwargs())


def build_on(below: NetworkClassifier, recipe: Recipe) -> nn.Module:
    """The network on the convolutions of a fitted plain one; gates and head are new."""
    network = build(recipe)
    pretrained.fill_(network.backbone(), below.model.backbone().state_dict(), where=f"the fitted {PLAIN}")
    return network


def fit(splits: Splits, run: Run) -> NetworkClassifier:
    """Fine-tune from the recipe's weights; where a fitted plain network is given, from its convolutions."""
    below = next(iter(run.required.values()), None)
    start = pretrained.loaded(build) if below is None else partial(build_on, below)
    fitted = loop.fit(start, splits, run)
    return Vgg19Classifier(fitted.model, fitted.recipe, fitted.device)


DEVIATIONS = deviations(__file__)


def recipe(protocol: str, profile: str, variant: str) -> Recipe:
    """RAdam at 1e-4 in batches of 8, a tenth of it after four epochs without improvement (released config.json)."""
    claimed, gated = protocol == "claimed", variant == ROW
    radam = step("radam", lr=1e-4, weight_decay=1e-3, decoupled_weight_decay=True)
    plateau = step("reduce-on-plateau", factor=0.1, patience=3, min_lr=1e-6)
    full = Recipe(
        variant=variant,
        network=step("SegmentationVgg19", widths=WIDTHS, hidden=4096, gates=GATES if gated else (), dropout=0.5),
        protocol=CLAIMED if claimed else OFFICIAL,
        stages=(Stage("fine-tune", 51, radam, plateau, patience=9),),
        input_size=224,
        augment=(step("resize", size=224), *TURNS),
        batch_size=8,
        selection=Selection("best", views=False),
        views=turned_views(224) if claimed else Views(),
        options=step("random-views", count=10, draws=5),
        deviations=DEVIATIONS["all"]
        + (DEVIATIONS["gated"] if gated else ())
        + (() if claimed else DEVIATIONS["official"]),
        pretrained=None if gated else WEIGHTS,
    )
    return full if profile == "full" else smoke(full)


def smoke(full: Recipe) -> Recipe:
    """The same steps with a network, an image and a schedule that two cores finish in seconds."""
    small = {"widths": (4, 8, 8, 16, 16), "hidden": 64, "dropout": 0.1}
    radam = step("radam", lr=3e-3, betas=(0.9, 0.95), weight_decay=1e-3, decoupled_weight_decay=True)
    return full.shrunk(
        network=step("SegmentationVgg19", **(full.network.kwargs() | small)),
        input_size=32,
        augment=(step("resize", size=32), *TURNS),
        views=full.views if full.views == full.plain else turned_views(32, 4),
        options=step("random-views", count=4, draws=3),
        batch_size=20,
        stages=(dataclasses.replace(full.stages[0].shortened(2), optimiser=radam),),
    )


# Where the release's convolutions, counted through from 1, stand in ours: a stage but the first begins with a pool.
_PLACES = [(stage, 3 * index + (stage > 0)) for stage, count in enumerate(CONVOLUTIONS) for index in range(count)]


def _place(found: re.Match[str]) -> str:
    """``conv3.`` -> ``stages.1.1.``, ``bn3.`` -> ``stages.1.2.``; a number beyond the sixteenth stays as it is."""
    number = int(found[2])
    if not 1 <= number <= len(_PLACES):
        return found[0]
    stage, place = _PLACES[number - 1]
    return f"stages.{stage}.{place + (found[1] == 'bn')}."


def _gate(found: re.Match[str]) -> str:
    """``seg4.`` -> ``stages.4.13.mask.``: a gate is the last layer of its stage."""
    stage = GATES[int(found[1]) - 1] - 1
    return f"stages.{stage}.{3 * CONVOLUTIONS[stage] + (stage > 0)}.mask."


RELEASED = Released(
    at="named by the test of the release, not published",
    published=False,
    url="https://github.com/VigneshS10/Segmentation-VGG19",
    file="Segmentation_VGG_final_model",
    wrapper="net",
    trained_on="train.csv; whether it holds Training is not established",
    selected_on="not established: which run made the file is not stated; the trainer selects on val.csv, single views",
    # The projections of a gate's units are there twice: by their own name and inside their unit.
    drop=r"^seg\d\.downsample\d\.",
    rename=(
        (r"^(seg\d\.conv\d\.)downsample\.", r"\1shortcut."),
        (r"^(seg\d\.)conv1\.", r"\1down.0."),
        (r"^(seg\d\.)conv2\.", r"\1last."),
        (r"^seg([1-4])\.", _gate),
        (r"^(conv|bn)(\d+)\.", _place),
        (r"^classifier\.", "head."),
    ),
)
FIRST = dataclasses.replace(
    RELEASED,
    at="loaded by the release's second training, not published",
    file="",
    selected_on="val.csv, each image as it is; whether it holds PublicTest is not established",
)

# What the chapter shows of the source: network, loss, and what is special to the method.
SHOWN = (SegmentationVgg19, Gate, MaskingBlock, ResidualBlock)

VARIANTS = with_scratch(
    Variant(PLAIN, ROW, partial(recipe, variant=PLAIN), build=build, fit=fit, ablation_of=ROW, released=FIRST),
    Variant(ROW, ROW, partial(recipe, variant=ROW), build=build, fit=fit, requires=(PLAIN,), released=RELEASED),
)
