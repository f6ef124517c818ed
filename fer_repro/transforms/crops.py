"""Crops: one per image, or several that multiply the batch, in training and at test time alike."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fer_repro.errors import FerReproError
from fer_repro.transforms.geometry import integers


def _fits(images: Tensor, size: int, what: str) -> tuple[int, int]:
    """The image's height and width, or an error if a crop of ``size`` is larger."""
    height, width = images.shape[-2:]
    if size > height or size > width:
        raise FerReproError(
            f"{what} of {size} pixels does not fit into images of {height}x{width}; make it smaller or resize first"
        )
    return height, width


def centre_crop(images: Tensor, size: int) -> Tensor:
    """The middle [B,C,size,size] of [B,C,H,W]."""
    height, width = _fits(images, size, "centre crop")
    top, left = round((height - size) / 2), round((width - size) / 2)
    return images[..., top : top + size, left : left + size]


def crop(images: Tensor, generator: torch.Generator, size: int, padding: int = 0) -> Tensor:
    """A window of ``size`` pixels at a uniformly drawn place, after ``padding`` black pixels on every side."""
    if padding:
        images = functional.pad(images, (padding,) * 4)
    height, width = _fits(images, size, "crop")
    one = torch.ones(images.shape[0], dtype=torch.long, device=images.device)
    top = integers(one * (height - size + 1), generator)
    left = integers(one * (width - size + 1), generator)
    window = torch.arange(size, device=images.device)
    index = ((top[:, None] + window)[:, :, None] * width + (left[:, None] + window)[:, None, :]).flatten(1)
    picked = images.flatten(2).gather(2, index[:, None].expand(-1, images.shape[1], -1))
    return picked.view(*images.shape[:2], size, size)


def _corners_and_centre(images: Tensor, size: int) -> list[Tensor]:
    """The windows top left, top right, bottom left, bottom right, centre (views, nothing copied)."""
    height, width = _fits(images, size, "five-crop")
    corners = [
        images[..., top : top + size, left : left + size] for top in (0, height - size) for left in (0, width - size)
    ]
    return [*corners, centre_crop(images, size)]


def five_crop(images: Tensor, size: int) -> Tensor:
    """Corners and centre: [B,C,H,W] -> [5B,C,size,size], the five crops of an image side by side."""
    return torch.stack(_corners_and_centre(images, size), dim=1).flatten(0, 1)


def ten_crop(images: Tensor, size: int) -> Tensor:
    """Corners and centre of the image, then of its mirror: [B,C,H,W] -> [10B,C,size,size], side by side."""
    crops = _corners_and_centre(images, size) + _corners_and_centre(images.flip(-1), size)
    return torch.stack(crops, dim=1).flatten(0, 1)


def with_mirror(images: Tensor) -> Tensor:
    """Image and mirror: [B,C,H,W] -> [2B,C,H,W], side by side."""
    return torch.stack((images, images.flip(-1)), dim=1).flatten(0, 1)
