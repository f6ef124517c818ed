"""How LHC-Net is scored: the sixty views of its release, and a classifier that tells what its blocks attend to."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_repro.data.protocol import Splits
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.layers import as_input, normalise_
from fer_repro.transforms.geometry import resize

LOOKED_AT = 256  # scored images whose attention is averaged for the result


def poses(size: int = 224, shift: int = 10) -> tuple[tuple[float, ...], ...]:
    """The 60 copies of a test image as `Views` wants them (released ``Lib/Utils.py``, TTA_Inference).

    A grid of three rotations, three moves by ``shift`` pixels along each axis, and mirrors; in it the untouched image,
    which counts three times. Then the middle nine tenths, enlarged, three times rotated by less, mirrored or not.
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


class Attending(NetworkClassifier):
    """A trained network that also tells what its blocks attend to."""

    @torch.inference_mode()
    def looks(self, images: np.ndarray) -> list[dict[str, Any]]:
        """uint8 [N,48,48] -> for each block, means over the images.

        ``attention`` float32 [n,C,C] (row: who listens), ``evenness`` [n] (mean entropy of the rows over ln C; 1 = all
        channels alike), ``exponent`` [n], ``share`` (norm of what is added over the norm of what it is added to).
        """
        found: list[dict[str, Any]] = [{} for _ in self.model.blocks]
        hooks = [
            block.register_forward_hook(partial(_add_look, sums=sums, count=len(images)))
            for block, sums in zip(self.model.blocks, found, strict=True)
        ]
        was_training = self.model.training
        try:
            for part in torch.tensor(np.asarray(images)).to(self.device).split(16):
                inputs = normalise_(resize(as_input(part), self.recipe.input_size), self.recipe.mean, self.recipe.std)
                self.model.eval()(inputs)
        finally:
            self.model.train(was_training)
            for hook in hooks:
                hook.remove()
        return [{name: value.cpu().numpy() for name, value in sums.items()} for sums in found]

    def extra_scores(self, splits: Splits) -> dict[str, Any]:
        """``attention`` for the result: what `looks` tells of the first scored images, the matrices left out."""
        images = np.asarray(splits.test.images[:LOOKED_AT])
        blocks = [
            {
                "channels": int(look["attention"].shape[1]),
                "heads": len(look["attention"]),
                "evenness": rounded(look["evenness"]),
                "exponent": rounded(look["exponent"]),
                "share": rounded(look["share"]),
            }
            for look in self.looks(images)
        ]
        return {"attention": {"n": len(images), "blocks": blocks}} if blocks else {}


def rounded(values: np.ndarray) -> Any:
    return values.astype(float).round(4).tolist()


def _add_look(block: nn.Module, inputs: tuple[Tensor], output: Tensor, sums: dict[str, Any], count: int) -> None:
    """Forward hook: add a batch's part of the means over ``count`` images to ``sums``."""
    weights, exponents = block.look(inputs[0])
    entropy = -torch.special.xlogy(weights, weights).sum(dim=-1) / float(np.log(weights.shape[-1]))
    added, before = (output - inputs[0]).flatten(1).norm(dim=1), inputs[0].flatten(1).norm(dim=1)
    parts = {"attention": weights, "evenness": entropy.mean(-1), "exponent": exponents.mean(-1)}
    for name, part in (parts | {"share": added / before}).items():
        sums[name] = sums.get(name, 0.0) + part.sum(dim=0) / count
