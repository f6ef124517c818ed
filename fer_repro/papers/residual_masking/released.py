"""The weights that the authors of the Residual Masking Network published, and how they become those of our networks."""

from __future__ import annotations

import re
from functools import partial

from fer_repro.papers.base import Released, State
from fer_repro.papers.residual_masking.members import CAFFE, PYTORCHCV, from_pytorchcv_efficientnet
from fer_repro.papers.residual_masking.recipes import ROW
from fer_repro.pretrained import Rules

DEPTHS = (4, 3, 2, 1)  # levels of the masking blocks ``mask1`` to ``mask4``
TABLE = "Google Drive, the table of models in the README of the repository"
LOST = f"{TABLE}; the author says that this file is lost (issue #46)"


def _mask(found: re.Match[str]) -> str:
    """``mask2.conv3.`` -> ``masks.1.down.2.``: conv1 to conv<depth> lead down, the last convolution closes the block,
    those between them merge; ``up_pool`` is numbered like the convolution behind it."""
    mask, kind, number = int(found[1]), found[2], int(found[3])
    depth = DEPTHS[mask - 1]
    if kind == "up_pool":
        inner = f"up.{number - depth - 1}"
    elif number <= depth:
        inner = f"down.{number - 1}"
    else:
        inner = "last" if number == 2 * depth else f"merge.{number - depth - 1}"
    return f"masks.{mask - 1}.{inner}."


MASKS: Rules = (
    (r"^fc\.1\.", "fc."),  # with dropout before it
    (r"^(mask\d\..*\.)downsample\.", r"\1shortcut."),
    (r"^mask([1-4])\.(conv|up_pool)(\d)\.", _mask),
)


def _flat_head(state: State) -> State:
    """The last layer of the VGGFace2 network is a 1x1 convolution."""
    return {name: part.flatten(1) if name == "classifier.weight" else part for name, part in state.items()}


_release = partial(
    Released,
    at=TABLE,
    url="https://github.com/phamquiluan/ResidualMaskingNetwork",
    licence="MIT (the repository)",
    wrapper="net",
    trained_on="Training",
    selected_on="PublicTest, each image as it is",
)
# The projections of a masking block's units are there twice: by their own name and inside their unit.
_masked = partial(_release, rename=MASKS, drop=r"^mask\d\.downsample\d\.")

RELEASED = {
    ROW: _masked(
        at=f"{TABLE}; also Hugging Face, phamquiluan/ResidualMaskingNetwork, and the repository's release v0.0.1",
        file="Z_resmasking_dropout1_rot30_2019Nov30_13.32",
    ),
    "residual-masking-no-dropout": _masked(),
    "residual-masking-resnet18": _release(at=LOST, published=False, rename=()),
    "residual-masking-resnet34": _release(rename=()),
    "residual-masking-resnet101": _release(rename=()),
    "residual-masking-resnet50-vggface2": _release(at=LOST, published=False, arrange=_flat_head, rename=CAFFE),
    "residual-masking-cbam-resnet50": _release(rename=PYTORCHCV),
    "residual-masking-efficientnet-b2": _release(
        arrange=from_pytorchcv_efficientnet, rename=((r"^output\.1\.", "fc."),)
    ),
}
