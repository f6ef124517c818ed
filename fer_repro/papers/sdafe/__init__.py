"""SDAFE: faces of rare expressions, generated from neutral ones and selected by two filters.

Zhao, Chen, Lyu, Du, Lv, Wang: "SDAFE: A Dual-filter Stable Diffusion Data Augmentation Method for Facial Expression
Recognition", ICASSP 2025. Only its abstract could be read. Its classifier FERNeXt is not described there, so it is not
rebuilt here: what is trained is a stand-in, fernext-proxy, torchvision's ConvNeXt.

Idea: FER2013's classes are imbalanced. Turn neutral training faces into other expressions with a text-guided diffusion
model; keep what stays near its source (PSNR) and fits its label (similarity of image and text); train on both.

Accuracy claimed: 81.33 %, on which images is unknown.
Accuracy measured, seconds, memory and machine: ``results/sdafe/official/seed-0/result.json``, where there is one.
Parameters of the proxy (not of FERNeXt): counted by the tests against claims.yaml.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn
from torchvision.models import convnext
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from fer_repro import pretrained
from fer_repro.data.official import OFFICIAL_COUNTS, USAGES
from fer_repro.data.protocol import Protocol, Splits
from fer_repro.errors import FerReproError
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.layers import IMAGENET_MEAN, IMAGENET_STD, GreyAsRgb
from fer_repro.papers.base import Variant, deviations
from fer_repro.papers.sdafe import diffusion, generated, mini_clip
from fer_repro.papers.sdafe.generated import WITHOUT_FACES, Generated
from fer_repro.papers.sdafe.synthesis import LabelSimilarity, Maker, settings_of
from fer_repro.recipe import Deviation, Pretrained, Recipe, Selection, Stage, Step, step
from fer_repro.training import loop
from fer_repro.training.run import Run, pausable

IMAGES = "sdafe-images"


class FernextProxy(nn.Module):
    """A ConvNeXt with seven outputs: float32 [B,1,S,S] in [0, 1] -> logits [B,7]. It is not FERNeXt.

    ``size``: tiny, small, base or large, as torchvision has them; or ``widths`` and ``depths`` of the stages instead.
    """

    def __init__(
        self, size: str = "tiny", widths: Sequence[int] = (), depths: Sequence[int] = (), stochastic_depth: float = 0.1
    ) -> None:
        super().__init__()
        self.grey = GreyAsRgb(IMAGENET_MEAN, IMAGENET_STD)
        if widths:
            stages = [CNBlockConfig(*stage) for stage in zip(widths, (*widths[1:], None), depths, strict=True)]
            # torchvision's layer scale of 1e-6 at the start needs longer than a smoke run.
            network = ConvNeXt(stages, stochastic_depth, layer_scale=0.1, num_classes=7)
        elif size in ("tiny", "small", "base", "large"):
            network = getattr(convnext, f"convnext_{size}")(num_classes=7, stochastic_depth_prob=stochastic_depth)
        else:
            raise FerReproError(f"fernext-proxy: unknown size '{size}', expected tiny, small, base or large")
        self.features, self.avgpool, self.classifier = network.features, network.avgpool, network.classifier

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """Weights for ImageNet's classes, without the last layer."""
        pretrained.fill_(self, state, leave=("classifier.2.",), where="ConvNeXt")

    def forward(self, images: Tensor) -> Tensor:
        # Three normalised channels: [B,1,S,S] -> [B,3,S,S]
        colour = self.grey(images)
        # Patches of 4x4 pixels, then four stages, each half the size of the one before: -> [B,C,S/32,S/32]
        features = self.features(colour)
        # The mean over the positions, layer norm, linear: -> [B,7]
        return self.classifier(self.avgpool(features))


def build(recipe: Recipe) -> nn.Module:
    return FernextProxy(**recipe.network.kwargs())


def fit_images(splits: Splits, run: Run) -> LabelSimilarity:
    """Fit the generator and its filters on Training, make the faces, store them in the run folder.

    Raises `FerReproError` where any of these images is not a Training image, `Interrupted` at the end of the budget.
    """
    with pausable(run) as pause:
        return Maker(splits.train, run, pause).make()


def fit(splits: Splits, run: Run) -> NetworkClassifier:
    """Train the proxy on the Training images of the recipe's arm.

    A recipe with plain cross-entropy (the arms have label smoothing) takes the images as they are and needs no
    generated faces. Raises `FerReproError` for an arm whose faces were not given, and for images not of Training.
    """
    generated.require_training_only(splits.train, run.recipe.variant)
    arm, target = run.recipe.options["arm"], run.recipe.options["target"]
    if not run.recipe.loss.get("label_smoothing"):
        return loop.fit(pretrained.loaded(build), splits, run)
    maker = require_maker(run)
    faces = None if maker is None else maker.generated
    train, run.facts["added"] = generated.training_set(splits.train, faces, arm, target, run.seed)
    if maker is not None:
        run.facts["images"] = maker.facts
        # The faces are part of the data: weights that were trained on other faces belong to another run.
        run = dataclasses.replace(run, data_digest=f"{run.data_digest} {faces.digest()}")
    fitted = loop.fit(pretrained.loaded(build), dataclasses.replace(splits, train=train, finetune=train), run)
    proxy = Proxy(fitted.model, fitted.recipe, fitted.device)
    proxy.generated, proxy.sources = faces, splits.train
    return proxy


class Proxy(NetworkClassifier):
    """The fitted proxy with the generated faces (None where the arm has none) and the Training images."""

    generated: Generated | None = None
    sources: Any = None


def require_maker(run: Run) -> LabelSimilarity | None:
    """The fitted variant that made the faces, of the same settings and protocol; None for an arm without faces."""
    name, maker = run.recipe.variant, run.required.get(IMAGES)
    if run.recipe.options["arm"] in WITHOUT_FACES:
        return None
    if maker is None:
        raise FerReproError(
            f"{name} adds the faces of {IMAGES}, and none were given: run `fer-repro run {name}`, which makes or finds "
            "them first, or `sdafe-real-only`, which needs none"
        )
    if settings_of(maker.recipe) != settings_of(run.recipe) or maker.recipe.protocol != run.recipe.protocol:
        raise FerReproError(
            f"{name} needs the faces of {IMAGES} with its own settings and protocol, got others: run {IMAGES} again "
            "with this version"
        )
    return maker


# The generator fitted here (official protocol) and its two filters.
FILTERS = {"psnr_percentile": 10.0, "psnr_highest": None, "pilot": 500, "cosine_percentile": 25.0}
# What a run uses besides the audit's words on the claim, by protocol, for the pages.
RUNS_USE = {
    "official": "FER2013, and faces that a generator trained on FER2013's Training makes from it",
    "claimed": "FER2013, and faces that Stable Diffusion, which was trained on other pictures, makes from it",
}
SHARED = FILTERS | {"surplus": 2.0, "most": None, "grid": 50}
UNET = {"base": 64, "widths": (1, 2, 4), "blocks": 2, "heads": 4, "dropout": 0.1}
UNET_FIT = {"size": 48, "steps": 60_000, "batch": 128, "rate": 2e-4, "ema": 0.9995, "silent": 0.1}
EDIT = {"target": "neutral", "strength": 0.6, "guidance": 2.0, "portion": 256}
ENCODER = {"encoder_channels": (64, 128, 256, 512), "encoder_steps": 6_000, "encoder_batch": 128, "encoder_rate": 1e-3}
OWN = {"generator": "mini_diffusion"} | SHARED | UNET | UNET_FIT | EDIT | ENCODER
# Stable Diffusion from the user's folder (claimed protocol); what only the generator fitted here needs stays out.
OUTSIDE = SHARED | {"generator": "stable-diffusion", "target": "largest", "strength": 0.55, "guidance": 7.5}
OUTSIDE |= {"size": 512, "portion": 16}
SMOKE = OWN | {"base": 8, "widths": (1, 1, 2), "blocks": 1, "heads": 2, "steps": 30, "batch": 2, "rate": 6e-3}
SMOKE |= {"ema": 0.9, "strength": 0.2, "grid": 10, "most": 8, "portion": 64}
SMOKE |= {"encoder_channels": (8, 16, 16), "encoder_steps": 20, "encoder_batch": 16, "encoder_rate": 5e-3}

WEIGHTS = Pretrained(
    "ConvNeXt_Tiny_Weights.IMAGENET1K_V1",
    source="torchvision",
    licence="BSD-3-Clause",
    file="convnext_tiny-983f1562.pth",
    sha256="983f1562",
    data="ImageNet-1k",
    why="our choice for the claimed protocol: how FERNeXt was initialised could not be read",
)

DEVIATIONS = deviations(__file__)
ARMS = {
    "real-only": "no generated face; images repeated in the data's own proportions",
    "oversampled": "no generated face; images of rare classes repeated",
    "unfiltered": "generated faces without a filter",
    "psnr": "generated faces that pass the PSNR filter",
    "cosine": "generated faces that pass the label filter",
}


def _augmentation(size: int) -> tuple[Step, ...]:
    crop, jitter = {"size": size, "scale": (0.8, 1.0)}, {"brightness": 0.2, "contrast": 0.2}
    move = (step("random_resized_crop", **crop), step("flip", p=0.5), step("rotate", degrees=10))
    return (*move, step("jitter", **jitter), step("erase", p=0.25))


SMALL_PROXY = {
    "network": step("fernext-proxy", widths=(16, 32), depths=(1, 1), stochastic_depth=0.0),
    "input_size": 48,
    "augment": _augmentation(48),
    "ema": 0.9,
    "batch_size": 64,
    "stages": (Stage("train", 2, step("adamw", lr=3e-3, weight_decay=0.05)),),
}


def recipe(protocol: str, profile: str, arm: str | None) -> Recipe:
    """``arm`` None: the images alone; otherwise the proxy on that arm's training images (``both``: SDAFE)."""
    claimed = protocol == "claimed"
    settings: dict[str, Any] = OUTSIDE if claimed else OWN
    images = Recipe(
        variant=IMAGES,
        network=step("none"),
        # The scored and the selecting images of the claim are unknown; the official ones are our reading.
        protocol=Protocol(protocol),
        selection=Selection("last"),
        options=step("synthesis", **settings),
        deviations=DEVIATIONS["all"] + DEVIATIONS[protocol],
    )
    full = images if arm is None else _with_proxy(images, arm, claimed)
    if profile == "full":
        return full
    options = full.options.having(**(SMOKE | {"target": settings["target"]}))
    small = full.shrunk(options=options, **({} if arm is None else SMALL_PROXY))
    return dataclasses.replace(small, deviations=small.deviations + (DEVIATIONS["smoke claimed"] if claimed else ()))


def _with_proxy(images: Recipe, arm: str, claimed: bool) -> Recipe:
    counts = np.asarray(OFFICIAL_COUNTS[USAGES.index("Training")])
    total = counts.sum() + generated.needed(counts, images.options["target"]).sum()
    epochs, batch = 40, 64
    number = generated.ARMS.index(arm) + 1
    own = (Deviation("method", ARMS[arm], f"arm {number} of the six"),) if arm in ARMS else ()
    optimiser = step("adamw", lr=1e-4 if claimed else 1e-3, weight_decay=0.05)
    schedule = step("cosine", eta_min=1e-6, per="batch", warmup=math.ceil(total / batch) * epochs // 20)
    return dataclasses.replace(
        images,
        variant="sdafe" if arm == "both" else f"sdafe-{arm}",
        network=step("fernext-proxy", size="tiny", stochastic_depth=0.1),
        input_size=224,
        augment=_augmentation(224),
        stages=(Stage("train", epochs, optimiser, schedule),),
        loss=step("cross-entropy", label_smoothing=0.1),
        batch_size=batch,
        selection=Selection("best"),
        ema=0.999,
        options=step("synthesis", arm=arm, **settings_of(images)),
        deviations=images.deviations + own,
        pretrained=WEIGHTS if claimed else None,
    )


def pipeline(recipe: Recipe) -> list[tuple[str, str]]:
    """The stages that make the faces, with the recipe's settings, for the chapter's picture."""
    o = recipe.options
    return [
        ("sources", "neutral Training faces, each several times"),
        ("generator", f"{o['generator']}: noise up to {o['strength']:.0%} of the levels, denoise as another class"),
        ("PSNR filter", f"near its source: above the {o['psnr_percentile']:g}th percentile of {o['pilot']} candidates"),
        ("label filter", "the wanted label is the most similar of seven, and similar enough"),
        ("training set", f"every class filled up to the number of the {o['target']} class"),
        ("classifier", "fernext-proxy"),
    ]


def _arm(arm: str) -> Variant:
    return Variant(
        id="sdafe" if arm == "both" else f"sdafe-{arm}",
        slug="sdafe",
        recipe=partial(recipe, arm=arm),
        build=build,
        fit=fit,
        ablation_of=None if arm == "both" else "sdafe",
        requires=() if arm in WITHOUT_FACES else (IMAGES,),
        called="fernext-proxy" if arm == "both" else None,
    )


# What the chapter shows of the source: network, loss, and what is special to the method.
SHOWN = (
    FernextProxy,
    diffusion.Unet,
    diffusion.NoiseLoss,
    diffusion.ddim,
    diffusion.edit,
    generated.psnr,
    generated.passes_psnr,
    generated.passes_cosine,
    mini_clip.DualEncoder,
    mini_clip.contrastive,
)

VARIANTS = (
    _arm("both"),
    Variant(id=IMAGES, slug="sdafe", recipe=partial(recipe, arm=None), fit=fit_images, ablation_of="sdafe"),
    *(_arm(arm) for arm in ARMS),
)
