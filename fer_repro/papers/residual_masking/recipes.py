"""What differs between the networks of the Residual Masking ensemble: layers, pretrained weights, deviations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from fer_repro.papers.base import deviations, torchvision_weights
from fer_repro.papers.residual_masking.members import B2
from fer_repro.recipe import Deviation, Pretrained, Step, step

ROW = "residual-masking"
# The members and their names in figures and tables: the paper's own network first, the same without dropout last.
SHORT = {
    ROW: "RMN",
    "residual-masking-resnet18": "ResNet18",
    "residual-masking-resnet50-vggface2": "ResNet50 of VGGFace2",
    "residual-masking-resnet101": "ResNet101",
    "residual-masking-cbam-resnet50": "CBAM-ResNet50",
    "residual-masking-efficientnet-b2": "EfficientNet-B2",
    "residual-masking-no-dropout": "RMN without dropout",
}
MEMBERS = tuple(SHORT)
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

DEVIATIONS = deviations(__file__)


def _kind(full: Step, smoke: Step, weights: Pretrained, groups: tuple[str, ...], **more: Any) -> Kind:
    return Kind(full, smoke, weights, tuple(entry for group in groups for entry in DEVIATIONS[group]), **more)


def _masked(dropout: float, *groups: str, seeds: tuple[int, ...] = ()) -> Kind:
    # Smoke: two narrow stages and little dropout, so that three epochs teach something.
    masked = partial(step, "ResidualMaskingNetwork", gate="softmax")
    full = masked(blocks=(3, 4, 6, 3), width=64, depths=(4, 3, 2, 1), dropout=dropout)
    smoke = masked(blocks=(1, 1), width=6, depths=(2, 1), dropout=min(dropout, 0.1))
    return _kind(full, smoke, RESNET34, groups, seeds=seeds, of_row=True)


def _resnet(kind: str, blocks: tuple[int, ...], weights: Pretrained, *groups: str, **more: Any) -> Kind:
    resnet = partial(step, "ResNet", kind=kind, dropout=0.0)
    return _kind(resnet(blocks=blocks, width=64), resnet(blocks=(1, 1), width=8), weights, groups, **more)


_SMALL_STAGES = ((8, 1, 3, 1, 1), (12, 1, 3, 2, 4), (16, 1, 5, 2, 4))

KINDS = {
    ROW: _masked(0.4, "active", "today", seeds=EXTRA_SEEDS),
    "residual-masking-resnet18": _resnet("basic", (2, 2, 2, 2), RESNET18, "today"),
    "residual-masking-resnet50-vggface2": _resnet("caffe", (3, 4, 6, 3), VGGFACE2, "faces"),
    "residual-masking-resnet101": _resnet("bottleneck", (3, 4, 23, 3), RESNET101, "unknown start"),
    "residual-masking-cbam-resnet50": _resnet("cbam", (3, 4, 6, 3), CBAM, "other pytorchcv"),
    "residual-masking-efficientnet-b2": _kind(
        step("EfficientNet", stages=B2, stem=32, head=1408, dropout=0.3),
        step("EfficientNet", stages=_SMALL_STAGES, stem=8, head=64, dropout=0.1),
        EFFICIENTNET,
        ("other pytorchcv",),
    ),
    "residual-masking-no-dropout": _masked(0.0, "active", "today", "no dropout"),
    "residual-masking-resnet34": _resnet(
        "basic", (3, 4, 6, 3), RESNET34, "today", "plain", seeds=EXTRA_SEEDS, of_row=True
    ),
}
