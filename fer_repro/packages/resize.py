"""How packages enlarge a face before their network sees it, each as its own library computes it."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

# OpenCV's weights of 8-bit images are whole numbers of 2048ths.
_WEIGHT_BITS = 11


def opencv_linear(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 [N,H,W] -> uint8 [N,size,size], as OpenCV's ``INTER_LINEAR`` enlarges 8-bit images, bit for bit.

    It computes in whole numbers: along the rows first, then down the columns, each with weights of 11 bits.
    """
    (height, width), one = images.shape[1:], 1 << _WEIGHT_BITS
    left, share = _opencv_weights(width, size)
    share[(left < 0) | (left >= width - 1)] = 0  # beyond the border one column counts alone
    levels, right = images.astype(np.int32), (left + 1).clip(0, width - 1)
    wide = levels[:, :, left.clip(0)] * (one - share) + levels[:, :, right] * share
    # Beyond the border a row is mixed with itself instead, and each part is cut off by itself.
    above, share = _opencv_weights(height, size)
    upper, lower = (wide[:, place.clip(0, height - 1)] >> 4 for place in (above, above + 1))
    share = share[:, None]
    total = ((upper * (one - share)) >> 16) + ((lower * share) >> 16)
    return ((total + 2) >> 2).astype(np.uint8)


def _opencv_weights(before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    """For each new place the old one at or before it (-1 to ``before``), and the weight of the next one in 2048ths."""
    place = (np.arange(after, dtype=np.float32) + np.float32(0.5)) * np.float32(before / after) - np.float32(0.5)
    first = np.floor(place)
    return first.astype(np.int64), np.rint((place - first) * (1 << _WEIGHT_BITS)).astype(np.int32)


def tfjs_linear(images: Tensor, size: int) -> Tensor:
    """float32 [N,H,W] -> [N,size,size], as TensorFlow.js' ``resizeBilinear(images, [size, size], false)`` does.

    Its default counts from pixels' corners (``halfPixelCenters`` is false): the first pixel stays where it is, and the
    last ones are repeated.
    """
    for axis in (2, 1):
        before = images.shape[axis]
        place = torch.arange(size, dtype=torch.float32) * (before / size)
        first = place.floor().long()
        share = (place - first).unsqueeze(-1) if axis == 1 else place - first
        following = place.ceil().long().clamp(max=before - 1)
        low, high = images.index_select(axis, first), images.index_select(axis, following)
        images = low + (high - low) * share
    return images


def pillow_bicubic(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 [N,H,W] -> uint8 [N,size,size] by Pillow, whose default is the bicubic kernel."""
    made = [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in images]
    return np.stack(made) if made else np.empty((0, size, size), np.uint8)
