"""How LHC-Net is scored: sixty copies of a test image, and a classifier that records channel attention."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_repro.data.protocol import Splits
from fer_repro.evaluation.predict import NetworkClassifier

ATTENTION_IMAGES = 256  # scored images over which the recorded attention is averaged


def poses(size: int = 224, shift: int = 10) -> tuple[tuple[float, ...], ...]:
    """The 60 copies of a test image as `Views` wants them (released ``Lib/Utils.py``, TTA_Inference).

    A grid of three rotations, three shifts by ``shift`` pixels along each axis, and mirrors; it contains the unchanged
    image, which counts three times. Then the middle nine tenths, enlarged, three times rotated by less, mirrored or
    not.
    """
    moves = (0, shift, -shift)
    grid = [
        (1.0, mirrored, 1.0, dx, dy, float(np.rad2deg(turn)))
        for turn, dx, dy, mirrored in product((0.0, 0.4, -0.4), moves, moves, (0, 1))
    ]
    grid[0] = (3.0, *grid[0][1:])
    share = 1 - 2 * int((size - 0.9 * size) / 2) / size  # TensorFlow cuts whole pixels: 202 of 224 stay
    zoomed = product((0.0, 0.15, -0.15), (0, 1))
    return (*grid, *((1.0, mirrored, share, 0, 0, float(np.rad2deg(turn))) for turn, mirrored in zoomed))


class LhcClassifier(NetworkClassifier):
    """A trained network whose channel attention can be read out."""

    def attention(self, images: np.ndarray) -> list[dict[str, np.ndarray]]:
        """uint8 [N,48,48] -> for each block, means over the images.

        ``attention`` float32 [n,C,C] (row: the receiving channel), ``evenness`` [n] (mean entropy of the rows over
        ln C; 1 = all channels alike), ``exponent`` [n], ``share`` (norm of what is added over the norm of the input).
        """
        means: list[dict[str, Any]] = [{} for _ in self.model.blocks]
        with ExitStack() as hooks:
            for block, sums in zip(self.model.blocks, means, strict=True):
                hook = partial(_add_part, sums=sums, count=len(images))
                hooks.enter_context(block.register_forward_hook(hook))
            self.predict_proba(images)
        return [{name: value.cpu().numpy() for name, value in sums.items()} for sums in means]

    def extra_scores(self, splits: Splits) -> dict[str, Any]:
        """``attention`` for the result: the means over the first scored images, without the matrices."""
        images = np.asarray(splits.test.images[:ATTENTION_IMAGES])
        blocks = [
            {"channels": int(block["attention"].shape[1]), "heads": len(block["attention"])}
            | {name: block[name].astype(float).round(4).tolist() for name in ("evenness", "exponent", "share")}
            for block in self.attention(images)
        ]
        return {"attention": {"n": len(images), "blocks": blocks}} if blocks else {}


def _add_part(block: nn.Module, inputs: tuple[Tensor], output: Tensor, sums: dict[str, Any], count: int) -> None:
    """Forward hook: add a batch's part of the means over ``count`` images to ``sums``."""
    weights, exponents = block.attention(inputs[0])
    entropy = -torch.special.xlogy(weights, weights).sum(dim=-1) / float(np.log(weights.shape[-1]))
    added, before = (output - inputs[0]).flatten(1).norm(dim=1), inputs[0].flatten(1).norm(dim=1)
    parts = {"attention": weights, "evenness": entropy.mean(-1), "exponent": exponents.mean(-1)}
    for name, part in (parts | {"share": added / before}).items():
        sums[name] = sums.get(name, 0.0) + part.sum(dim=0) / count
