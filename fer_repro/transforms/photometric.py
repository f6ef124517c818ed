"""Batched changes of grey levels: brightness and contrast, noise, blur, local equalisation of the histogram.

Like `fer_repro.transforms.geometry`: float images [B,1,H,W] in [0, 1], a `torch.Generator` on their device, no
host-device synchronisation. Distributions and pixels are those of albumentations 2.0.8 and its OpenCV functions (the
tests compare them), but for the rounding to 8 bits, which only the equalisation needs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fer_repro.errors import FerReproError
from fer_repro.transforms.geometry import coin, uniform

LEVELS = 256


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def brightness_contrast(
    images: Tensor, generator: torch.Generator, brightness: float = 0.2, contrast: float = 0.2, p: float = 1.0
) -> Tensor:
    """a x + b cut to [0, 1], with probability p: a uniform in 1 +- ``contrast``, b uniform in +- ``brightness``.

    ``RandomBrightnessContrast``: brightness is added as a share of the whole range, contrast is a factor about 0.
    """
    n = images.shape[0]
    chosen = coin(p, n, generator)
    factor = uniform(1 - contrast, 1 + contrast, (n,), generator)
    added = uniform(-brightness, brightness, (n,), generator)
    changed = torch.addcmul(_per_image(added), images, _per_image(factor)).clamp_(0, 1)
    return torch.where(_per_image(chosen), changed, images)


def gaussian_noise(
    images: Tensor, generator: torch.Generator, std: tuple[float, float] = (0.2, 0.44), p: float = 1.0
) -> Tensor:
    """Independent normal noise on every pixel, cut to [0, 1]; its deviation is uniform in ``std``, one per image."""
    n = images.shape[0]
    chosen = coin(p, n, generator)
    deviation = uniform(std[0], std[1], (n,), generator)
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    changed = torch.addcmul(images, noise, _per_image(deviation)).clamp_(0, 1)
    return torch.where(_per_image(chosen), changed, images)


def gaussian_blur(
    images: Tensor,
    generator: torch.Generator,
    kernel: tuple[int, int] = (3, 7),
    sigma: tuple[float, float] = (0.5, 3.0),
    p: float = 1.0,
) -> Tensor:
    """Blurred with probability p by a kernel whose deviation is uniform in ``sigma`` (pixels).

    Its width is uniform among the whole numbers of ``kernel``, an even one made odd by adding 1, as ``GaussianBlur``
    does: of 3 to 7, the widths 5 and 7 come twice as often as 3.
    """
    n = images.shape[0]
    chosen = coin(p, n, generator)
    deviation = uniform(sigma[0], sigma[1], (n,), generator)
    size = uniform(kernel[0], kernel[1] + 1, (n,), generator).floor_().clamp_(max=kernel[1])
    radius = (size / 2).floor_()
    return torch.where(_per_image(chosen), blur(images, deviation, radius, kernel[1] // 2), images)


def blur(images: Tensor, deviation: Tensor, radius: Tensor, most: int) -> Tensor:
    """Image b convolved with a normal curve of ``deviation[b]``, cut after ``radius[b]`` <= ``most`` pixels a side.

    The border is mirrored about its outermost pixels.
    """
    offset = torch.arange(-most, most + 1, device=images.device)
    weight = torch.exp(-0.5 * (offset / deviation[:, None]).square()).mul_(offset.abs() <= radius[:, None])
    shares = (weight / weight.sum(dim=1, keepdim=True)).view(-1, 2 * most + 1, 1, 1, 1).unbind(dim=1)
    height, width = images.shape[-2:]
    wide = functional.pad(images, (most, most, 0, 0), mode="reflect")
    across = sum(share * wide[..., i : i + width] for i, share in enumerate(shares))
    tall = functional.pad(across, (0, 0, most, most), mode="reflect")  # type: ignore[arg-type]
    return sum(share * tall[..., i : i + height, :] for i, share in enumerate(shares))  # type: ignore[return-value]


def clahe(
    images: Tensor,
    generator: torch.Generator,
    clip: tuple[float, float] = (1.0, 4.0),
    tiles: int = 8,
    lightness: bool = True,
    p: float = 1.0,
) -> Tensor:
    """Contrast-limited adaptive histogram equalisation with a limit uniform in ``clip``, with probability p.

    ``lightness``: equalise the CIELAB lightness, which is what ``CLAHE`` does to an image of three (equal) channels,
    and not the grey levels themselves.
    """
    n = images.shape[0]
    chosen = coin(p, n, generator)
    limit = uniform(clip[0], clip[1], (n,), generator)
    return torch.where(_per_image(chosen), equalise(images, limit, tiles, lightness), images)


def equalise(images: Tensor, clip: Tensor, tiles: int = 8, lightness: bool = True) -> Tensor:
    """OpenCV's ``createCLAHE(clip[b], (tiles, tiles))`` applied to image b of [B,1,H,W]; results are 8-bit levels.

    Every tile maps a level to its rank in the tile's histogram; no bin counts more than ``clip`` times the mean, the
    excess is shared out. A pixel gets the bilinear mean of what the four nearest tiles say. (Zuiderveld 1994)
    """
    if images.shape[1] != 1:
        raise FerReproError(f"CLAHE: the images have {images.shape[1]} channels, expected grey ones [B,1,H,W]")
    level = (images * (LEVELS - 1)).round_().clamp_(0, LEVELS - 1).long()
    if lightness:
        to_lightness, to_grey = lightness_tables(images.device)
        level = to_lightness[level].long()
    height, width = images.shape[-2:]
    padded = level
    if height % tiles or width % tiles:  # as OpenCV: then both sides grow, a side that fits by a whole row of tiles
        border = (0, tiles - width % tiles, 0, tiles - height % tiles)
        padded = functional.pad(level.float(), border, mode="reflect").long()
    high, wide = padded.shape[-2] // tiles, padded.shape[-1] // tiles
    answers = _answers(padded, clip, tiles, high, wide)
    (top, below, down), (left, right, along) = (
        _between(height, high, tiles, images.device),
        _between(width, wide, tiles, images.device),
    )

    def asked(row: Tensor, column: Tensor) -> Tensor:
        place = (row[:, None] * tiles + column) * LEVELS + level
        return answers.gather(1, place.flatten(1)).view(images.shape)

    upper = torch.lerp(asked(top, left), asked(top, right), along)
    lower = torch.lerp(asked(below, left), asked(below, right), along)
    equal = torch.lerp(upper, lower, down[:, None]).round_()
    return (to_grey[equal.long()] if lightness else equal) / (LEVELS - 1)


def _answers(level: Tensor, clip: Tensor, tiles: int, high: int, wide: int) -> Tensor:
    """int64 [B,1,H,W] -> float32 [B, tiles*tiles*256]: the new level of every level in every tile."""
    n, device = level.shape[0], level.device
    row = torch.arange(tiles * high, device=device) // high
    column = torch.arange(tiles * wide, device=device) // wide
    place = ((row[:, None] * tiles + column) * LEVELS + level).flatten(1)
    counts = torch.zeros(n, tiles * tiles * LEVELS, device=device)
    counts.scatter_add_(1, place, torch.ones(place.shape, device=device))
    counts = counts.view(n, tiles * tiles, LEVELS)
    area = high * wide
    limit = (clip * area / LEVELS).floor_().clamp_(min=1).view(-1, 1, 1)
    excess = (counts - limit).clamp_(min=0).sum(dim=2, keepdim=True)
    # What every bin gets, and the rest: one each to so many bins, evenly spaced from the first.
    each = (excess / LEVELS).floor_()
    rest = excess - each * LEVELS
    apart = (LEVELS / rest.clamp(min=1)).floor_()
    bins = torch.arange(LEVELS, device=device)
    more = (bins.remainder(apart) == 0) & ((bins / apart).floor_() < rest)
    counts = torch.minimum(counts, limit) + each + more
    return counts.cumsum(dim=2).mul_((LEVELS - 1) / area).round_().clamp_(0, LEVELS - 1).flatten(1)


def _between(size: int, tile: int, tiles: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each of ``size`` pixels the tiles whose centres lie before and after it, and how far it is on its way."""
    place = torch.arange(size, device=device) / tile - 0.5
    before = place.floor()
    return before.clamp(min=0).long(), (before + 1).clamp(max=tiles - 1).long(), place - before


def lightness_tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """float32 [256] twice: the 8-bit CIELAB lightness of each 8-bit grey level (sRGB), and the way back.

    Forth in OpenCV's fixed-point steps, since a level in the wrong bin would change the histogram; back by formula.
    """
    place = torch.device("cpu") if device.type == "mps" else device  # Apple's GPUs have no float64
    share = torch.arange(LEVELS, device=place, dtype=torch.float64) / (LEVELS - 1)
    luminance = torch.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055).pow(2.4))
    luminance = (luminance * 2040).round_() / 2040
    curved = torch.where(luminance < 0.008856, luminance * 7.787 + 16 / 116, luminance.pow(1 / 3))
    forth = ((296 * (curved * 2**15).round_() - 1336934) / 2**15).round_()
    luminance = torch.where(share > 0.08, ((share + 0.16) / 1.16).pow(3), share / 9.033)
    back = torch.where(luminance <= 0.0031308, 12.92 * luminance, 1.055 * luminance.pow(1 / 2.4) - 0.055)
    back = back.mul_(LEVELS - 1).round_()
    return forth.clamp_(0, LEVELS - 1).float().to(device), back.clamp_(0, LEVELS - 1).float().to(device)
