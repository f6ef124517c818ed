"""Grey-level transforms as one finds them written with OpenCV and NumPy, for PIL images: one image, one draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

Draw = Callable[[np.ndarray], np.ndarray]
"""uint8 [H,W] -> uint8 [H,W]."""


def _uniform(low: float, high: float) -> float:
    return float(torch.empty(1).uniform_(low, high))


def _cut(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8)


class OnArray:
    """A function of arrays as a transform of PIL images, with probability ``p``."""

    def __init__(self, change: Draw, p: float) -> None:
        self.change, self.p = change, p

    def __call__(self, image: Image.Image) -> Image.Image:
        return Image.fromarray(self.change(np.asarray(image))) if float(torch.rand(1)) < self.p else image


class OneOf:
    """With probability ``p`` one of the transforms, chosen in proportion to ``shares``."""

    def __init__(self, changes: list[Callable[[Any], Any]], shares: tuple[float, ...], p: float) -> None:
        self.changes, self.shares, self.p = changes, torch.tensor(shares), p

    def __call__(self, image: Image.Image) -> Image.Image:
        if float(torch.rand(1)) >= self.p:
            return image
        return self.changes[int(torch.multinomial(self.shares, 1))](image)


def lanczos4(side: int, size: int) -> OnArray:
    import cv2

    return OnArray(lambda image: cv2.resize(image, (size, size), interpolation=cv2.INTER_LANCZOS4), 1.0)


def brightness_contrast(side: int, brightness: float = 0.2, contrast: float = 0.2, p: float = 1.0) -> OnArray:
    def change(image: np.ndarray) -> np.ndarray:
        return _cut(image * _uniform(1 - contrast, 1 + contrast) + 255 * _uniform(-brightness, brightness))

    return OnArray(change, p)


def gaussian_noise(side: int, std: tuple[float, float] = (0.2, 0.44), p: float = 1.0) -> OnArray:
    return OnArray(lambda image: _cut(image + 255 * _uniform(*std) * torch.randn(image.shape).numpy()), p)


def gaussian_blur(
    side: int, kernel: tuple[int, int] = (3, 7), sigma: tuple[float, float] = (0.5, 3.0), p: float = 1.0
) -> OnArray:
    import cv2

    def change(image: np.ndarray) -> np.ndarray:
        width = int(torch.randint(kernel[0], kernel[1] + 1, (1,))) | 1
        return cv2.GaussianBlur(image, (width, width), _uniform(*sigma), borderType=cv2.BORDER_REFLECT_101)

    return OnArray(change, p)


def clahe(
    side: int, clip: tuple[float, float] = (1.0, 4.0), tiles: int = 8, lightness: bool = True, p: float = 1.0
) -> OnArray:
    import cv2

    def change(image: np.ndarray) -> np.ndarray:
        equalise = cv2.createCLAHE(_uniform(*clip), (tiles, tiles))
        if not lightness:
            return equalise.apply(image)
        lab = cv2.cvtColor(np.repeat(image[..., None], 3, axis=2), cv2.COLOR_RGB2LAB)
        lab[:, :, 0] = equalise.apply(lab[:, :, 0])
        return np.ascontiguousarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)[..., 1])

    return OnArray(change, p)
