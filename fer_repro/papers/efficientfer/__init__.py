"""EfficientFER: a pretrained EfficientNetV2-S, two attention branches behind its pooled features, a small classifier
(Konuk and Kılıç, ICHORA 2025).

Idea: transfer learning plus attention, on FER2013 enlarged by further images. Claim: 82.47 %, one network, one view,
trained on images that the author keeps to himself. Five facts (accuracy claimed and measured, parameters, cost,
hardware) stand in the claim and in ``results/efficientfer/``; the chapter prints them.

Protocols. Both train on Training, select on PublicTest and score PrivateTest; neither has the private images.
``claimed`` is the code as released: a learning rate that never moves, gradients clipped while a loss scaler still
multiplies them, the epoch chosen with averaged weights, the weights without averaging scored. ``official`` corrects
these. In both the attention gets a single position; ``efficientfer-map-attention`` gives it the whole feature map, with
equal parameters.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torchvision.models import efficientnet
from torchvision.models.efficientnet import EfficientNet, FusedMBConvConfig, MBConvConfig

from fer_repro import pretrained
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.data.protocol import OFFICIAL, Protocol
from fer_repro.layers import IMAGENET_MEAN, IMAGENET_STD, GreyAsRgb
from fer_repro.papers.base import Released, Variant, deviations, torchvision_weights, with_scratch
from fer_repro.papers.efficientfer import lite0
from fer_repro.recipe import Recipe, Selection, Stage, Step, Views, step
from fer_repro.training import loop
from fer_repro.training.losses import Focal

# The usages are the official ones; what makes it "claimed" is the released code's recipe.
CLAIMED = Protocol("claimed")
WEIGHTS = torchvision_weights("EfficientNet_V2_S_Weights", "efficientnet_v2_s-dd5fe13b.pth")


class EfficientFER(nn.Module):
    """The released network (efficientfer.py): 23,797,177 parameters.

    Input [B,1,224,224] in [0, 1] (grey; repeated to RGB inside); output logits [B,7]. ``backbone``: ``v2-s``, or
    ``tiny`` for smoke runs. ``attend``: ``pooled`` (as released: behind the global pool) or ``map`` (before it).
    ``heads`` x ``width``: the self-attention's. ``depth_drop``: the last block's probability of being skipped.
    """

    def __init__(
        self,
        backbone: str = "v2-s",
        attend: str = "pooled",
        heads: int = 8,
        width: int = 64,
        ratio: int = 16,
        hidden: tuple[int, int] = (512, 256),
        dropout: float = 0.3,
        depth_drop: float = 0.2,
    ) -> None:
        super().__init__()
        self.attend = attend
        self.rgb = GreyAsRgb(IMAGENET_MEAN, IMAGENET_STD)
        # Without the classifier and its dropout.
        self.features = BACKBONES[backbone](stochastic_depth_prob=depth_drop).features
        channels = self.features[-1].out_channels
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.attention = SelfAttention(channels, heads, width)
        self.cbam = Cbam(channels, ratio)
        self.classifier = Classifier(channels, hidden, dropout)

    def forward(self, images: Tensor) -> Tensor:
        # Grey to normalised RGB, and the backbone: [B,1,224,224] -> [B,3,224,224] -> [B,1280,7,7]
        return self.head(self.features(self.rgb(images)))

    def head(self, maps: Tensor) -> Tensor:
        """Everything behind the backbone: [B,1280,7,7] -> logits [B,7]."""
        # As released, the mean over all positions comes first: [B,1280,7,7] -> [B,1280,1,1]
        inputs = self.pool(maps) if self.attend == "pooled" else maps
        # Two branches side by side, no skip connection: [B,1280,1,1]
        attended = self.attention(inputs) + self.cbam(inputs)
        # The mean over positions (of one, as released), three linear layers: [B,1280] -> [B,7]
        return self.classifier(self.pool(attended).flatten(1))

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """torchvision's weights into the backbone; its classifier of 1,000 classes stays out."""
        backbone = {name.removeprefix("features."): tensor for name, tensor in state.items()}
        pretrained.fill_(self.features, backbone, leave=("classifier.",), where=WEIGHTS.name)


class Classifier(nn.Sequential):
    """Three linear layers; batch norm, ReLU and dropout after the hidden ones: [B,C] -> logits [B,7]."""

    def __init__(self, channels: int, hidden: tuple[int, int], dropout: float) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise((channels, *hidden)):
            layers += nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(), nn.Dropout(dropout)
        super().__init__(*layers, nn.Linear(hidden[-1], 7))


class SelfAttention(nn.Module):
    """Self-attention over positions (Vaswani et al. 2017), no skip connection: [B,C,H,W] -> [B,C,H,W].

    With one position, each softmax is over one number and equals 1, whatever the queries and keys are.
    """

    def __init__(self, channels: int, heads: int, width: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, width**-0.5
        self.qkv = nn.Linear(channels, 3 * heads * width)
        self.out = nn.Linear(heads * width, channels)

    def forward(self, maps: Tensor) -> Tensor:
        # One token per position, three vectors per head: [B,C,H,W] -> [B,N,C] -> three of [B,heads,N,width]
        q, k, v = self.qkv(maps.flatten(2).mT).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # How much each position attends to every other: [B,heads,N,N]
        weights = (q @ k.mT * self.scale).softmax(dim=-1)
        # The heads side by side and back to channels: [B,N,heads*width] -> [B,C,H,W]
        return self.out((weights @ v).transpose(1, 2).flatten(2)).mT.unflatten(2, maps.shape[2:])


class Cbam(nn.Module):
    """Channel attention, then spatial attention (Woo et al. 2018): [B,C,H,W] -> [B,C,H,W]."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        inner = channels // ratio
        self.channel = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False), nn.ReLU(), nn.Conv2d(inner, channels, 1, bias=False)
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        # One bottleneck takes the mean and the largest value of each channel: [B,C,H,W] -> [B,C,1,1]
        gate = (self.channel(maps.mean((2, 3), keepdim=True)) + self.channel(maps.amax((2, 3), keepdim=True))).sigmoid()
        gated = maps * gate
        # Mean and largest value over the channels: [B,2,H,W]; one gate per position: [B,1,H,W]
        pooled = torch.cat((gated.mean(1, keepdim=True), gated.amax(1, keepdim=True)), dim=1)
        return gated * self.spatial(pooled).sigmoid()


# The tiny one has the same two kinds of blocks, one of each.
_TINY = [FusedMBConvConfig(2, 3, 2, 8, 16, 1), MBConvConfig(2, 3, 2, 16, 24, 1)]
BACKBONES = {"v2-s": efficientnet.efficientnet_v2_s, "tiny": partial(EfficientNet, _TINY, dropout=0.0, last_channel=48)}


def build(recipe: Recipe) -> nn.Module:
    return EfficientFER(**recipe.network.kwargs())


SIZE = 224
NOISE_OR_BLUR = step(
    "one_of",
    p=0.4,
    shares=(0.3, 0.5),
    steps=(step("gaussian_noise", std=(0.2, 0.44)), step("gaussian_blur", kernel=(3, 7), sigma=(0.5, 3.0))),
)
BRIGHTNESS = step("brightness_contrast", brightness=0.2, contrast=0.2)
CLAHE_OR_BRIGHTNESS = step(
    "one_of", p=0.4, shares=(0.5, 0.5), steps=(step("clahe", clip=(1.0, 4.0), tiles=8), BRIGHTNESS)
)
AFFINE = step(
    "affine",
    degrees=15,
    shift=0.0625,
    scale=(0.9, 1.1),
    per_axis=True,
    p=0.4,
    interpolation="bilinear",
    fill="blended",
    truncated=True,
)
# N / (7 n_c), from the training images (released calculate_weight.py).
CLASS_WEIGHTS = tuple(round(float(n), 6) for n in OFFICIAL_COUNTS[0].sum() / (7 * OFFICIAL_COUNTS[0]))

DEVIATIONS = deviations(__file__)


def augmentation(size: int) -> tuple[Step, ...]:
    """The released pipeline, at ``size`` pixels (dataloader.py)."""
    brightness = step(BRIGHTNESS.name, **BRIGHTNESS.kwargs(), p=0.5)
    return step("lanczos4", size=size), step("flip", p=0.5), brightness, AFFINE, NOISE_OR_BLUR, CLAHE_OR_BRIGHTNESS


def recipe(protocol: str, profile: str, variant: str = "efficientfer", attend: str = "pooled") -> Recipe:
    """AdamW on a one-cycle schedule in batches of 64, focal loss, averaged weights (released train.py)."""
    claimed = protocol == "claimed"
    peak = 5e-3 if claimed else 5e-4
    adamw = step("adamw", lr=peak, weight_decay=0.03)
    steps = {"per": "epoch", "total_steps": 50 * 449} if claimed else {"per": "batch"}
    one_cycle = step("one-cycle", max_lr=peak, pct_start=0.3, **steps)
    full = Recipe(
        variant=variant,
        network=step("EfficientFER", backbone="v2-s", attend=attend),
        protocol=CLAIMED if claimed else OFFICIAL,
        stages=(Stage("train", 50 if claimed else 30, adamw, one_cycle, patience=7),),
        input_size=SIZE,
        augment=augmentation(SIZE),
        loss=step("focal", gamma=2.0, class_weights=CLASS_WEIGHTS),
        batch_size=64,
        selection=Selection("best", measure="loss"),
        views=Views("lanczos4", SIZE),
        plain=Views("lanczos4", SIZE),
        clip_norm=step("scaled", norm=1.0, start=65536.0, every=2000) if claimed else 1.0,
        ema=averaging(keep="online" if claimed else "average"),
        deviations=DEVIATIONS["all"] + DEVIATIONS[protocol] + (DEVIATIONS["on the map"] if attend == "map" else ()),
        pretrained=WEIGHTS,
    )
    return full if profile == "full" else smoke(full)


def averaging(keep: str, start: int = 100) -> Step:
    """The averaged weights choose the epoch; scored are the averaged or the ``online`` weights."""
    return step("ema", decay=0.999, start=start, power=2 / 3, measure="average", keep=keep)


def smoke(full: Recipe) -> Recipe:
    """The same steps with a network that one core trains in a second."""
    stage = full.stages[0].shortened(4)
    if full.protocol == OFFICIAL:  # with so few steps, each must be larger
        schedule = step("one-cycle", **(stage.schedule.kwargs() | {"max_lr": 1e-2}))
        stage = dataclasses.replace(stage, optimiser=step("adamw", lr=1e-2, weight_decay=0.03), schedule=schedule)
    small = {"heads": 2, "width": 8, "ratio": 4, "hidden": (32, 16), "dropout": 0.05, "depth_drop": 0.0}
    return full.shrunk(
        network=step("EfficientFER", backbone="tiny", attend=full.network["attend"], **small),
        stages=(stage,),
        input_size=48,
        augment=augmentation(48),
        batch_size=32,
        views=Views("lanczos4", 48),
        plain=Views("lanczos4", 48),
        ema=averaging(full.ema["keep"], start=4),
    )


RELEASED = Released(
    at="Google Drive, linked by the author in issue #1 of the repository",
    url="https://github.com/mkonuk66/EfficientFER/issues/1",
    wrapper="model_state_dict",
    trained_on="Training and private images of unknown number and origin",
    selected_on="the validation images, by the loss of the averaged weights; the weights before averaging are scored",
    rename=(
        (r"^backbone\.features\.", "features."),
        (r"^self_attention\.qkv\.", "attention.qkv."),
        (r"^self_attention\.proj\.", "attention.out."),
        (r"^cbam\.channel_attention\.fc\.", "cbam.channel."),
        (r"^cbam\.spatial_attention\.conv\.", "cbam.spatial."),
    ),
    head="classifier.8",
    classes=("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
)


def _variant(variant: str, attend: str) -> Variant:
    return Variant(
        id=variant,
        slug="efficientfer",
        recipe=partial(recipe, variant=variant, attend=attend),
        build=build,
        fit=lambda splits, run: loop.fit(pretrained.loaded(build), splits, run),
        ablation_of=None if variant == "efficientfer" else "efficientfer",
        released=RELEASED if variant == "efficientfer" else None,
    )


# What the chapter shows of the source: network, loss, and what is special to the method.
SHOWN = (EfficientFER, SelfAttention, Cbam, Classifier, Focal)

VARIANTS = (
    *with_scratch(_variant("efficientfer", "pooled"), _variant("efficientfer-map-attention", "map")),
    *lite0.VARIANTS,  # the pair that measures the effect of pretraining
)
