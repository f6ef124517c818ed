"""EmoNeXt: a pretrained ConvNeXt behind a spatial transformer, with channel weights between its stages and a term on
attention in its loss (El Boudouri and Bohi, IEEE MMSP 2023, arXiv 2501.08199).

Idea: let the network straighten the face first, weight its channels where the resolution halves, and keep the
attention between features even. Claim: 76.12 %, the largest of five sizes, ten crops of each image. Five facts
(accuracy claimed and measured, parameters, cost, hardware) stand in the claim and in ``results/emonext/``; the chapter
prints them.

Protocols. Both train on Training and score PrivateTest once. ``claimed`` is the released code run as published: a peak
learning rate of 0.001 whatever its flag says, gradients clipped while a loss scaler still multiplies them, validation
on one random crop with the weights without averaging, the averaged weights of the last epoch scored. ``official``
corrects these. The leaderboard lists the largest size; the others are ablations.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from fer_repro import pretrained
from fer_repro.data.protocol import OFFICIAL, Protocol, Splits
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.evaluation.tta import view_batch
from fer_repro.layers import IMAGENET_MEAN, IMAGENET_STD, GreyAsRgb, SqueezeExcite, as_input, normalise_
from fer_repro.papers.base import Released, State, Variant, deviations, with_scratch
from fer_repro.papers.emonext.weights import torchvision_names
from fer_repro.recipe import Pretrained, Recipe, Selection, Stage, Step, Views, step
from fer_repro.training import loop
from fer_repro.training.losses import SmoothedWithSpread, make_loss, spread
from fer_repro.training.run import Run

# The usages are the official ones; what makes it "claimed" is the released code's recipe.
CLAIMED = Protocol("claimed")

# Blocks and channels of each stage (released models.py, get_model).
SIZES = {
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "xlarge": ((3, 3, 27, 3), (256, 512, 1024, 2048)),
}


class EmoNeXt(nn.Module):
    """The released network (models.py): 362,312,331 parameters in the largest size.

    Input [B,1,s,s] in [0, 1] (grey; repeated to RGB inside), s = ``input_size``; output (logits [B,7], attention
    weights [B,B] between the images of the batch, which only the loss reads). ``depths``, ``dims``: blocks and channels
    of the four stages. ``depth_drop``: the last block's probability of being skipped, growing linearly from 0.
    ``normalise``: shift and scale like the photos of the pretraining. ``power``: see `BatchAttention`.
    """

    def __init__(
        self,
        depths: tuple[int, ...] = SIZES["tiny"][0],
        dims: tuple[int, ...] = SIZES["tiny"][1],
        input_size: int = 224,
        depth_drop: float = 0.1,
        normalise: bool = False,
        power: float = 0.25,
        layer_scale: float = 1e-6,
    ) -> None:
        super().__init__()
        self.rgb = GreyAsRgb(IMAGENET_MEAN, IMAGENET_STD) if normalise else GreyAsRgb()
        self.transformer = SpatialTransformer(input_size)
        stages = [CNBlockConfig(*stage) for stage in zip(dims, (*dims[1:], None), depths, strict=True)]
        self.features = ConvNeXt(stages, depth_drop, layer_scale, num_classes=1).features
        # torchvision's sequence: stem, stage, then three times a halving of the resolution and a stage.
        for index, channels in enumerate(dims[1:], start=1):
            self.features[2 * index].append(SqueezeExcite(channels))
        self.norm = nn.LayerNorm(dims[-1], eps=1e-6)
        self.attention = BatchAttention(dims[-1], power)
        for part in (self.transformer, self.attention, *(m for m in self.modules() if isinstance(m, SqueezeExcite))):
            part.apply(_start)
        self.transformer.start_as_identity()
        self.head = nn.Linear(dims[-1], 7)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        # Three channels, then straightened: [B,1,224,224] -> [B,3,224,224]
        straight = self.transformer(self.rgb(images))
        # The stages, and the mean over all positions: -> [B,D,7,7] -> [B,D]
        features = self.norm(self.features(straight).mean(dim=(2, 3)))
        # Attention between the batch's images; as released, its output is not used: [B,B]
        _, weights = self.attention(features)
        # The classifier takes the features alone: [B,D] -> [B,7]
        return self.head(features), weights

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """ConvNeXt's weights as Facebook, timm or torchvision name them; what EmoNeXt adds and the head stay."""
        added = [f"features.{index}.2." for index in (2, 4, 6)]
        own = ("transformer.", "attention.", "head.", "classifier.", *added)
        pretrained.fill_(self, torchvision_names(state), leave=own, where="ConvNeXt")


def _start(module: nn.Module) -> None:
    """Truncated normal weights with a standard deviation of 0.02, biases 0, as in ConvNeXt."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class SpatialTransformer(nn.Module):
    """Predicts an affine map from the image and resamples the image by it: [B,3,s,s] -> [B,3,s,s].

    (Jaderberg et al. 2015; the localisation network is that of a well-known tutorial.)
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        first = nn.Conv2d(3, 8, 7), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.ReLU()
        second = nn.Conv2d(8, 10, 5), nn.BatchNorm2d(10), nn.MaxPool2d(2), nn.ReLU()
        self.look = nn.Sequential(*first, *second)
        edge = ((size - 6) // 2 - 4) // 2
        self.answer = nn.Sequential(nn.Linear(10 * edge * edge, 32), nn.ReLU(), nn.Linear(32, 6))

    def start_as_identity(self) -> None:
        """Start with the identity map for every image."""
        nn.init.zeros_(self.answer[-1].weight)
        with torch.no_grad():
            self.answer[-1].bias.copy_(torch.eye(2, 3).flatten())

    def theta(self, images: Tensor) -> Tensor:
        """The affine maps, float32 [B,2,3]."""
        # Two convolutions and two pools, then six numbers: [B,3,224,224] -> [B,10,52,52] -> [B,27040] -> [B,6]
        return self.answer(self.look(images).flatten(1)).float().unflatten(1, (2, 3))

    def forward(self, images: Tensor) -> Tensor:
        # Where each position is read, in float32 (half precision cannot tell neighbouring pixels apart): [B,s,s,2]
        grid = sampling_grid(self.theta(images), images.shape[-1])
        # Bilinear, zero outside: [B,3,s,s]
        return F.grid_sample(images, grid, padding_mode="zeros", align_corners=True)


def sampling_grid(theta: Tensor, size: int) -> Tensor:
    """The affine maps [B,2,3] of a square grid's points, -1 and 1 being the outermost pixels' centres: [B,size,size,2].

    torch's `affine_grid` without its matrix product, which autocast would make in half precision.
    """
    along = torch.linspace(-1, 1, size, device=theta.device)
    by_x, by_y, shift = (part[..., None, None] for part in theta.unbind(dim=2))
    return (by_x * along + by_y * along[:, None] + shift).permute(0, 2, 3, 1)


class BatchAttention(nn.Module):
    """Dot-product attention whose tokens are the images of the batch: [B,D] -> ([B,D], weights [B,B]).

    The scores are divided by D ** ``power``; released: 0.25, by a doubled root. 0.5 is that of Vaswani et al. 2017.
    """

    def __init__(self, channels: int, power: float) -> None:
        super().__init__()
        self.scale = channels**-power
        self.norm = nn.LayerNorm(channels)
        self.query, self.key, self.value = (nn.Linear(channels, channels) for _ in range(3))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.norm(features)
        # How much each image attends to every other: [B,D] x [D,B] -> [B,B], rows sum to 1
        weights = (self.query(tokens) @ self.key(tokens).mT * self.scale).softmax(dim=-1)
        # The mixture of values plus a skip connection: [B,D]; not used as released
        return weights @ self.value(tokens) + tokens, weights


class EmoNeXtClassifier(NetworkClassifier):
    """A trained network that also records how large the two parts of its loss are on both test sets."""

    @torch.no_grad()
    def extra_scores(self, splits: Splits) -> dict[str, Any]:
        """``loss_parts``: for both test sets the number of whole batches, their size, and the mean of each part."""
        loss, size = make_loss(self.recipe.loss), self.recipe.batch_size
        if not isinstance(loss, SmoothedWithSpread):
            return {}
        found = {}
        for part in (splits.select, splits.test):
            count = min(len(part.labels) // size, 16)
            images = torch.tensor(np.asarray(part.images), device=self.device).split(size)
            labels = torch.tensor(np.asarray(part.labels), dtype=torch.long, device=self.device).split(size)
            parts = [self._parts(loss, images[batch], labels[batch]) for batch in range(count)]
            means = torch.stack(parts).mean(dim=0).tolist() if parts else (None, None)
            names = ("batches", "batch_size", "cross_entropy", "spread")
            found["+".join(sorted(set(part.usage)))] = dict(zip(names, (count, size, *means), strict=True))
        return {"loss_parts": found}

    def _parts(self, loss: SmoothedWithSpread, images: Tensor, labels: Tensor) -> Tensor:
        """The terms of the loss on the middle crops of one batch, float32 [2]."""
        recipe, views = self.recipe, dataclasses.replace(self.recipe.plain, kind="centre-crop", count=None, steps=())
        inputs = view_batch(normalise_(as_input(images), recipe.mean, recipe.std), views, recipe.input_size)
        output = self.model.eval()(inputs.contiguous(memory_format=self.memory_format))
        return torch.stack(list(loss.parts(output, labels).values()))


def build(recipe: Recipe) -> nn.Module:
    return EmoNeXt(**recipe.network.kwargs())


def fit(splits: Splits, run: Run) -> EmoNeXtClassifier:
    """Train as the recipe says, from its pretrained weights where it has some."""
    fitted = loop.fit(pretrained.loaded(build), splits, run)
    return EmoNeXtClassifier(fitted.model, fitted.recipe, fitted.device)


RESIZED, SIZE = 236, 224
DEVIATIONS = deviations(__file__)


def augmentation(resized: int, size: int, upside_down: bool) -> tuple[Step, ...]:
    """Random mirrors, enlargement, a rotation with black corners, a random crop (released train.py)."""
    mirrors = (step("flip", p=0.5), *((step("flip", p=0.5, vertical=True),) if upside_down else ()))
    return *mirrors, step("resize", size=resized), step("rotate", degrees=20), step("crop", size=size)


def single_view(resized: int, size: int, random: bool) -> Views:
    """The middle crop, or as released one random crop, another one at every measurement."""
    if random:
        return Views("random", size, resize=resized, count=1, steps=(step("crop", size=size),))
    return Views("centre-crop", size, resize=resized)


def averaging(measure: str, every: int = 16, start: int = 100) -> Step:
    """The averaged weights are scored; ``measure``: the ``average`` or the ``online`` weights choose the epoch."""
    return step("ema", decay=0.99, every=every, start=start, power=2 / 3, measure=measure, keep="average")


def _adamw(lr: float) -> Step:
    return step("adamw", lr=lr, weight_decay=0.01)


def recipe(protocol: str, profile: str, variant: str = "emonext", size: str = "xlarge") -> Recipe:
    """AdamW in batches of 64, smoothed labels and the attention's spread, averaged weights (released train.py)."""
    claimed = protocol == "claimed"
    depths, dims = SIZES[size]
    licence, file = "Apache-2.0 (as timm states it)", f"convnext_{size}_22k_224.pth"
    if claimed:
        cycles = step("rising-restarts", rise=128, cycle=1024, per="batch")
        train = Stage("train", 300, _adamw(1e-3), cycles, patience=12)
    else:
        peak = 1e-4 if size in ("tiny", "small") else 5e-5
        train = Stage("train", 30, _adamw(peak), step("cosine", per="batch", warmup=449))
    full = Recipe(
        variant=variant,
        network=step("EmoNeXt", depths=depths, dims=dims, input_size=SIZE, depth_drop=0.1, normalise=not claimed),
        protocol=CLAIMED if claimed else OFFICIAL,
        stages=(train,),
        input_size=SIZE,
        augment=augmentation(RESIZED, SIZE, upside_down=claimed),
        loss=step("cross-entropy-and-spread", label_smoothing=0.2, weight=1.0),
        batch_size=64,
        selection=Selection("last" if claimed else "best", views=False),
        views=Views("ten-crop", SIZE, average="logits", resize=RESIZED),
        plain=single_view(RESIZED, SIZE, random=claimed),
        clip_norm=step("scaled", norm=1.0, start=65536.0, every=2000) if claimed else 1.0,
        ema=averaging("online" if claimed else "average"),
        deviations=DEVIATIONS["all"] + DEVIATIONS[protocol],
        pretrained=Pretrained(f"convnext_{size}.fb_in22k", "timm", licence, file, sha256=None, data="ImageNet-22k"),
    )
    return full if profile == "full" else smoke(full)


def smoke(full: Recipe) -> Recipe:
    """The same steps with one small network for all sizes, which one core trains in seconds."""
    claimed, (stage,) = full.protocol == CLAIMED, full.stages
    schedule = stage.schedule.kwargs() | ({"rise": 4, "cycle": 16} if claimed else {"warmup": 4})
    train = dataclasses.replace(stage, epochs=6, schedule=step(stage.schedule.name, **schedule), optimiser=_adamw(3e-3))
    small = {"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 48), "input_size": 32, "depth_drop": 0.0, "layer_scale": 0.1}
    return full.shrunk(
        network=step("EmoNeXt", normalise=full.network["normalise"], **small),
        stages=(train,),
        input_size=32,
        augment=augmentation(36, 32, upside_down=claimed),
        batch_size=32,
        views=Views("ten-crop", 32, average="logits", resize=36),
        plain=single_view(36, 32, random=claimed),
        ema=averaging(full.ema["measure"], every=2, start=4),
    )


def from_scratch(recipe: Recipe) -> Recipe:
    """What the official recipe needs without pretrained weights; the claimed one and smoke runs stay as they are."""
    (stage,) = recipe.stages
    if recipe.protocol == CLAIMED or recipe.input_size != SIZE:
        return recipe
    stage = dataclasses.replace(stage, epochs=60, optimiser=_adamw(5e-4))
    return dataclasses.replace(recipe, stages=(stage,), deviations=(*recipe.deviations, *DEVIATIONS["from scratch"]))


def _scored(claimed: Recipe, state: State) -> Recipe:
    """The release's input and ten crops; beside them the middle crop, not another random one at every measurement."""
    return dataclasses.replace(claimed, plain=single_view(RESIZED, SIZE, random=False))


RELEASED = Released(
    at="nothing is published",
    published=False,
    url="https://github.com/yelboudouri/EmoNeXt",
    wrapper="ema",
    trained_on="Training",
    selected_on="PublicTest ends the training; the averaged weights of the last epoch are scored",
    differs="the release reads images that were stored as JPEG of quality 75",
    arrange=torchvision_names,
    rename=(
        (r"^(features\.[246]\.2)\.fc\.0\.", r"\1.squeeze."),
        (r"^(features\.[246]\.2)\.fc\.2\.", r"\1.excite."),
        (r"^localization\.", "transformer.look."),
        (r"^fc_loc\.", "transformer.answer."),
    ),
    head="head",
    classes=("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
    recipe=_scored,
)


def _variant(size: str) -> Variant:
    name = "emonext" if size == "xlarge" else f"emonext-{size}"
    return Variant(
        id=name,
        slug="emonext",
        recipe=partial(recipe, variant=name, size=size),
        build=build,
        fit=fit,
        ablation_of=None if size == "xlarge" else "emonext",
        released=RELEASED,
    )


# What the chapter shows of the source: network, loss, and what is special to the method.
SHOWN = (EmoNeXt, SpatialTransformer, sampling_grid, SqueezeExcite, BatchAttention, SmoothedWithSpread, spread)

VARIANTS = with_scratch(*(_variant(size) for size in reversed(SIZES)), scratch=from_scratch)
