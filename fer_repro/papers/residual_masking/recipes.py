"""What differs between the networks of the Residual Masking ensemble: layers, pretrained weights, deviations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from fer_repro.papers.residual_masking.members import B2
from fer_repro.recipe import Deviation, Pretrained, Step, step

ROW = "residual-masking"
# The paper's own network first, the same without dropout last.
MEMBERS = (
    ROW,
    "residual-masking-resnet18",
    "residual-masking-resnet50-vggface2",
    "residual-masking-resnet101",
    "residual-masking-cbam-resnet50",
    "residual-masking-efficientnet-b2",
    "residual-masking-no-dropout",
)
SMOKE_SIZE = 24
TTA_SEED = 1234  # the seed of all released scripts
EXTRA_SEEDS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Kind:
    """One network: ``full`` and ``smoke`` size, initial weights, its own deviations.

    ``seeds``: of further random views that its score is repeated with. ``of_row``: an ablation of the single network
    rather than a member of the ensemble only.
    """

    full: Step
    smoke: Step
    pretrained: Pretrained
    deviations: tuple[Deviation, ...] = ()
    seeds: tuple[int, ...] = ()
    of_row: bool = False


def torchvision_weights(name: str, file: str) -> Pretrained:
    """An entry of torchvision's weight enums; the file's name holds the leading digits of its sha256."""
    digits = file.split("-")[1].removesuffix(".pth")
    return Pretrained(f"{name}.IMAGENET1K_V1", "torchvision", "BSD-3-Clause", file, digits, "ImageNet-1k")


def pytorchcv_weights(name: str, file: str) -> Pretrained:
    source = "pytorchcv 0.0.74, a file of its releases on GitHub (osmr/imgclsmob)"
    return Pretrained(name, source, "MIT", file, None, "ImageNet-1k")


RESNET18 = torchvision_weights("ResNet18_Weights", "resnet18-f37072fd.pth")
RESNET34 = torchvision_weights("ResNet34_Weights", "resnet34-b627a593.pth")
RESNET101 = torchvision_weights("ResNet101_Weights", "resnet101-63fe2227.pth")
CBAM = pytorchcv_weights("cbam_resnet50", "cbam_resnet50-0505-d8cf8488.pth")
EFFICIENTNET = pytorchcv_weights("efficientnet_b2b", "efficientnet_b2b-0527-531f10e6.pth")
VGGFACE2 = Pretrained(
    "resnet50_scratch_dims_2048",
    source="the authors of VGGFace2 (PyTorch port of their Caffe model); whether it is still offered is unknown",
    licence="unknown; VGGFace2's images were for research only",
    file="resnet50_scratch_dims_2048.pth",
    sha256=None,
    data="VGGFace2, 8,631 identities",
)

DEVIATIONS = (
    Deviation(
        "released fer2013dataset.py, augment.py",
        "images are resized and rotated as floating-point numbers, in batches on the device",
        "the release works on 8-bit images one by one and rounds after each step",
    ),
    Deviation(
        "released trainers/tta_trainer.py, validation",
        "the accuracy of all PublicTest images selects",
        "the release averages the accuracies of its batches, of which the last holds 37 images, not 48",
    ),
    Deviation(
        "released trainers/tta_trainer.py, schedule",
        "the plateau watches the accuracy, relative threshold 1e-4",
        "the release watches 100 minus the accuracy; both thresholds are less than one image of PublicTest",
    ),
    Deviation(
        "released main_fer2013.py, test",
        "the random views come from a generator of their own, seed 1234",
        "in the release they depend on how many random numbers training has used before",
    ),
    Deviation(
        "released data loader",
        "every sample has its own mirror and angle",
        "the release's eight workers copy one random state and repeat each other's random numbers",
    ),
    Deviation(
        "paper, training details",
        "bf16 autocast on a GPU, and on a CPU where that is faster; 1 + M and the losses in fp32",
        "speed",
    ),
)
ACTIVE = Deviation(
    "released models/resmasking.py",
    "the ResNet34 part starts from ImageNet weights",
    "the lines that load them are commented out since January 2020; the author says that 74 % needs them",
)
TODAY = Deviation(
    "released models, weights",
    "torchvision's current file for the same entry",
    "the release names an older upload; whether every number in it is the same was not checked",
)
PLAIN = Deviation("paper, table of baselines", "no masks", "the paper's own ablation: the effect of the masks")
NO_DROPOUT = Deviation(
    "released models/resmasking.py",
    "no dropout before the last layer",
    "the seventh member is the same network without it",
)
UNKNOWN_START = Deviation(
    "released models/resnet.py",
    "ImageNet weights",
    "the code says no pretraining in every public version, the reported accuracy speaks for it: unknown",
)
FACES = Deviation(
    "released models/resnet50_scratch_dims_2048.py",
    "VGGFace2 weights",
    "the lines that load them are commented out in every public version; the member's name says that they were used",
)
OTHER_PYTORCHCV = Deviation(
    "released models/__init__.py",
    "pytorchcv's file of its version 0.0.74",
    "which file the version of 2019 loaded is unknown",
)
ENSEMBLE_DEVIATIONS = (
    Deviation(
        "paper and released script/gen_ensemble.py",
        "the seven members are fixed in advance",
        "the paper describes a search by validation accuracy, the first published script searches PrivateTest",
    ),
    Deviation(
        "released checkpoints",
        "all seven members are fitted here",
        "the author says that the trained ResNet18 and VGGFace2 ResNet50 are lost",
    ),
    Deviation(
        "released script/gen_results.py",
        "each member's random views have a seed of their own, 1234 and upwards",
        "in the release one generator runs on from member to member",
    ),
)
SCRATCH_DEVIATION = Deviation(
    "pretraining", "adds up networks that started from random weights", "the effect of the method without pretraining"
)


def _masked(dropout: float) -> dict[str, Step]:
    # Smoke: two narrow stages and little dropout, so that three epochs teach something.
    full, smoke = {"blocks": (3, 4, 6, 3), "width": 64, "depths": (4, 3, 2, 1)}, {"blocks": (1, 1), "width": 6}
    masked = partial(step, "ResidualMaskingNetwork", gate="softmax")
    return {"full": masked(**full, dropout=dropout), "smoke": masked(**smoke, depths=(2, 1), dropout=min(dropout, 0.1))}


def _resnet(kind: str, *blocks: int) -> dict[str, Step]:
    return {
        "full": step("ResNet", kind=kind, blocks=blocks, width=64, dropout=0.0),
        "smoke": step("ResNet", kind=kind, blocks=(1, 1), width=8, dropout=0.0),
    }


_SMALL_STAGES = ((8, 1, 3, 1, 1), (12, 1, 3, 2, 4), (16, 1, 5, 2, 4))
_EFFICIENTNET = {
    "full": step("EfficientNet", stages=B2, stem=32, head=1408, dropout=0.3),
    "smoke": step("EfficientNet", stages=_SMALL_STAGES, stem=8, head=64, dropout=0.1),
}

KINDS = {
    ROW: Kind(**_masked(0.4), pretrained=RESNET34, deviations=(ACTIVE, TODAY), seeds=EXTRA_SEEDS, of_row=True),
    "residual-masking-resnet18": Kind(**_resnet("basic", 2, 2, 2, 2), pretrained=RESNET18, deviations=(TODAY,)),
    "residual-masking-resnet50-vggface2": Kind(
        **_resnet("caffe", 3, 4, 6, 3), pretrained=VGGFACE2, deviations=(FACES,)
    ),
    "residual-masking-resnet101": Kind(
        **_resnet("bottleneck", 3, 4, 23, 3), pretrained=RESNET101, deviations=(UNKNOWN_START,)
    ),
    "residual-masking-cbam-resnet50": Kind(
        **_resnet("cbam", 3, 4, 6, 3), pretrained=CBAM, deviations=(OTHER_PYTORCHCV,)
    ),
    "residual-masking-efficientnet-b2": Kind(**_EFFICIENTNET, pretrained=EFFICIENTNET, deviations=(OTHER_PYTORCHCV,)),
    "residual-masking-no-dropout": Kind(
        **_masked(0.0), pretrained=RESNET34, deviations=(ACTIVE, TODAY, NO_DROPOUT), of_row=True
    ),
    "residual-masking-resnet34": Kind(
        **_resnet("basic", 3, 4, 6, 3), pretrained=RESNET34, deviations=(TODAY, PLAIN), seeds=EXTRA_SEEDS, of_row=True
    ),
}
