"""Batched geometric augmentations: each draws its parameters like the torchvision transform of the same meaning.

Every function takes float images [B,C,H,W] in [0, 1] and a `torch.Generator` on the images' device, and returns new
images on that device, without host-device synchronisation: a parameter is a tensor [B], a retry is the first valid one
of ten columns, and an image that a step leaves alone gets the identity's parameters. Coordinates follow Pillow: pixel i
covers [i, i+1), its centre is i + 0.5.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fer_repro.errors import FerReproError

TRIES = 10  # torchvision's number of attempts at a crop or an erased box that fits


def uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """float32 of ``shape``, uniform in [low, high)."""
    return torch.rand(shape, generator=generator, device=generator.device).mul_(high - low).add_(low)


def coin(p: float, n: int, generator: torch.Generator) -> Tensor:
    """bool [n], each True with probability ``p``."""
    return torch.rand(n, generator=generator, device=generator.device) < p


def integers(n: Tensor, generator: torch.Generator) -> Tensor:
    """int64 like ``n``: uniform in 0 .. n-1, each element with its own ``n`` (>= 1)."""
    draws = torch.rand(n.shape, generator=generator, device=generator.device).mul(n).long()
    return torch.minimum(draws, n - 1)  # float32 rounding can reach n itself


def resize(images: Tensor, size: int) -> Tensor:
    """[B,C,H,W] -> [B,C,size,size], bilinear with half-pixel centres; shrinking is antialiased, as Pillow does it."""
    if images.shape[-2:] == (size, size):
        return images
    shrinks = size < max(images.shape[-2:])
    return functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=shrinks)


def lanczos4(images: Tensor, size: int) -> Tensor:
    """[B,C,H,W] -> [B,C,size,size], as OpenCV's ``INTER_LANCZOS4`` resizes 8-bit images.

    Eight neighbours per axis, the border repeated, half-pixel centres, nothing antialiased; the result is rounded to
    8-bit levels, over- and undershoot cut off.
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    rows, columns = _lanczos_weights(height, size, images.device), _lanczos_weights(width, size, images.device)
    return (rows @ images @ columns.T).mul_(255).round_().clamp_(0, 255).div_(255)


def _lanczos_weights(n: int, size: int, device: torch.device) -> Tensor:
    """float32 [size,n]: what each of n pixels gives to each of ``size``; sinc(x) sinc(x / 4), scaled to a sum of 1."""
    centre = (torch.arange(size, device=device) + 0.5).mul_(n / size).sub_(0.5)
    first = centre.floor()
    taps = torch.arange(-3, 5, device=device)
    distance = (centre - first)[:, None] - taps
    weight = torch.sinc(distance).mul_(torch.sinc(distance / 4))
    weight /= weight.sum(dim=1, keepdim=True)
    pixel = (first.long()[:, None] + taps).clamp_(0, n - 1)
    return torch.zeros(size, n, device=device).scatter_add_(1, pixel, weight)


def crop_boxes(
    n: int, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes of a random resized crop: top, left, height, width, each int64 [n].

    The area is uniform in ``scale`` (a share of the image), the aspect log-uniform in ``ratio``; of ten draws the first
    that fits is used, otherwise the largest centred box whose aspect is in ``ratio``.
    """
    area = uniform(scale[0], scale[1], (n, TRIES), generator).mul_(height * width)
    aspect = uniform(math.log(ratio[0]), math.log(ratio[1]), (n, TRIES), generator).exp_()
    w, h = (area * aspect).sqrt_().round_(), (area / aspect).sqrt_().round_()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.byte().argmax(dim=1, keepdim=True)  # of equal maxima argmax gives the first
    found = fits.gather(1, first).squeeze(1)
    fallback_w, fallback_h = width, height
    if width / height < ratio[0]:
        fallback_h = round(width / ratio[0])
    elif width / height > ratio[1]:
        fallback_w = round(height * ratio[1])
    w = torch.where(found, w.gather(1, first).squeeze(1).long(), fallback_w)
    h = torch.where(found, h.gather(1, first).squeeze(1).long(), fallback_h)
    top = torch.where(found, integers(height - h + 1, generator), (height - fallback_h) // 2)
    left = torch.where(found, integers(width - w + 1, generator), (width - fallback_w) // 2)
    return top, left, h, w


def crop_and_resize(
    images: Tensor,
    top: Tensor,
    left: Tensor,
    height: Tensor,
    width: Tensor,
    size: int,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
) -> Tensor:
    """Cut one box per image ([B] int64 each) and resize it to [B,C,size,size], bilinear.

    Separable, as two matrix products per image: the weights are Pillow's triangle filter, widened where a side shrinks.
    ``rows`` and ``columns`` [B,size] may say which row and column of the resized box each output row and column shows
    (outside 0 .. size-1: black), so that shifts and mirrors cost nothing.
    """
    weights = _filter(top, height, images.shape[-2], size, rows), _filter(left, width, images.shape[-1], size, columns)
    return weights[0][:, None] @ images @ weights[1][:, None].transpose(-1, -2)


def _filter(start: Tensor, length: Tensor, n: int, size: int, shown: Tensor | None) -> Tensor:
    """float32 [B,size,n]: row i holds what each source pixel gives to output pixel i of the stretch from start on."""
    pixel = torch.arange(size, device=start.device)
    shown = pixel if shown is None else shown
    step = (length.float() / size)[:, None]
    centre = (shown.clamp(0, size - 1) + 0.5) * step
    source = torch.arange(n, device=start.device)
    if size >= n:
        # Nothing shrinks: two neighbours share each output pixel; beyond the outermost centres the last one repeats.
        centre = torch.minimum((centre - 0.5).clamp_(min=0.0), length[:, None] - 1.0).add_(start[:, None])
        if shown is not pixel:
            centre = centre.masked_fill_((shown < 0) | (shown >= size), math.inf)  # no pixel is near: the row is black
        return (source - centre[..., None]).abs_().neg_().add_(1.0).clamp_(min=0.0)
    weight = (source + 0.5 - (centre + start[:, None])[..., None]).abs_()
    weight = weight.div_(-step.clamp(min=1.0)[..., None]).add_(1.0).clamp_(min=0.0)
    weight *= ((source >= start[:, None]) & (source < (start + length)[:, None]))[:, None]
    weight /= weight.sum(dim=-1, keepdim=True)
    return weight if shown is pixel else weight.mul_(((shown >= 0) & (shown < size))[..., None])


def random_resized_crop(
    images: Tensor,
    generator: torch.Generator,
    size: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """A box of random area and aspect, resized to ``size`` pixels; see `crop_boxes` for the distribution."""
    boxes = crop_boxes(images.shape[0], images.shape[-2], images.shape[-1], scale, ratio, generator)
    return crop_and_resize(images, *boxes, size)


def crop_translate_flip(
    images: Tensor, generator: torch.Generator, crop: dict[str, Any], translate: dict[str, Any], flip: dict[str, Any]
) -> Tensor:
    """`random_resized_crop`, `translate` (filling with black) and `flip` at once: equal draws, equal pixels."""
    n, size = images.shape[0], crop["size"]
    ratio = crop.get("ratio", (3 / 4, 4 / 3))
    boxes = crop_boxes(n, images.shape[-2], images.shape[-1], crop.get("scale", (0.08, 1.0)), ratio, generator)
    dx, dy = shifts(n, size, size, translate["fraction"], translate.get("p", 1.0), generator)
    mirrored = coin(flip.get("p", 0.5), n, generator)[:, None]
    pixel = torch.arange(size, device=images.device)
    columns = torch.where(mirrored, size - 1 - pixel, pixel) - dx[:, None]
    return crop_and_resize(images, *boxes, size, rows=pixel - dy[:, None], columns=columns)


def flip(images: Tensor, generator: torch.Generator, p: float = 0.5, vertical: bool = False) -> Tensor:
    """Mirror left-right (or upside down) with probability ``p``."""
    return mirror(images, coin(p, images.shape[0], generator), vertical)


def mirror(images: Tensor, chosen: Tensor, vertical: bool = False) -> Tensor:
    """Mirror the images where ``chosen``, bool [B], left-right or upside down."""
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(-2 if vertical else -1), images)


def translate(images: Tensor, generator: torch.Generator, fraction: float, p: float = 1.0, fill: float = 0.0) -> Tensor:
    """Shift with probability ``p``: x and y each uniform in +-``fraction`` of the side, rounded to whole pixels."""
    return shift(images, *shifts(images.shape[0], images.shape[-2], images.shape[-1], fraction, p, generator), fill)


def shifts(
    n: int, height: int, width: int, fraction: float, p: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """int64 [n] pixels to the right and down, 0 for those that the coin spares."""
    chosen = coin(p, n, generator)
    dx = uniform(-fraction * width, fraction * width, (n,), generator).round_() * chosen
    dy = uniform(-fraction * height, fraction * height, (n,), generator).round_() * chosen
    return dx.long(), dy.long()


def shift(images: Tensor, dx: Tensor, dy: Tensor, fill: float = 0.0) -> Tensor:
    """Move image b right by dx[b] and down by dy[b] pixels, int64 [B] each; ``fill`` moves in."""
    height, width = images.shape[-2:]
    x = torch.arange(width, device=images.device) - dx[:, None]
    y = torch.arange(height, device=images.device) - dy[:, None]
    inside_x, inside_y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    index = (inside_y * width)[:, :, None] + inside_x[:, None, :]
    moved = images.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, images.shape[1], -1)).view(images.shape)
    inside = (y == inside_y).float()[:, None, :, None], (x == inside_x).float()[:, None, None, :]
    moved.mul_(inside[0]).mul_(inside[1])
    return moved if fill == 0 else moved.add_(1.0 - inside[0] * inside[1], alpha=fill)


def affine(
    images: Tensor,
    generator: torch.Generator,
    degrees: float = 0.0,
    shift: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    per_axis: bool = False,
    p: float = 1.0,
    interpolation: str = "nearest",
    fill: float | str = 0.0,
    truncated: bool = False,
) -> Tensor:
    """Rotation, zoom and shift about the centre in one resampling, with probability ``p``.

    The angle is uniform in +-``degrees`` (counter-clockwise), the zoom uniform in ``scale`` (one for both axes unless
    ``per_axis``), the shift uniform in +-``shift`` of the side, rounded to pixels, or ``truncated`` as albumentations
    does it. ``fill``: see `warp`.
    """
    n, height, width = images.shape[0], images.shape[-2], images.shape[-1]
    draws = affine_draws(n, height, width, generator, degrees, shift, scale, per_axis, p, truncated)
    return warp(images, *draws, interpolation, fill)


def affine_draws(
    n: int,
    height: int,
    width: int,
    generator: torch.Generator,
    degrees: float = 0.0,
    shift: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    per_axis: bool = False,
    p: float = 1.0,
    truncated: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What `affine` draws: angle (degrees), zoom x and y, shift right and down (pixels), float32 [n] each."""
    whole = torch.trunc if truncated else torch.round
    chosen = coin(p, n, generator)
    angle = uniform(-degrees, degrees, (n,), generator) * chosen
    zoom_x = torch.where(chosen, uniform(*scale, (n,), generator), 1.0)
    zoom_y = torch.where(chosen, uniform(*scale, (n,), generator), 1.0) if per_axis else zoom_x
    dx = whole(uniform(-shift * width, shift * width, (n,), generator)) * chosen
    dy = whole(uniform(-shift * height, shift * height, (n,), generator)) * chosen
    return angle, zoom_x, zoom_y, dx, dy


def rotate(
    images: Tensor,
    generator: torch.Generator,
    degrees: float,
    p: float = 1.0,
    interpolation: str = "nearest",
    fill: float | str = 0.0,
) -> Tensor:
    """Rotate about the centre by an angle uniform in +-``degrees`` with probability ``p``; the frame stays."""
    return affine(images, generator, degrees=degrees, p=p, interpolation=interpolation, fill=fill)


def scale(
    images: Tensor,
    generator: torch.Generator,
    factor: tuple[float, float],
    p: float = 1.0,
    per_axis: bool = False,
    interpolation: str = "nearest",
    fill: float | str = 0.0,
) -> Tensor:
    """Zoom about the centre by a factor uniform in ``factor`` (above 1 enlarges) with probability ``p``."""
    return affine(images, generator, scale=factor, per_axis=per_axis, p=p, interpolation=interpolation, fill=fill)


def warp(
    images: Tensor,
    angle: Tensor,
    zoom_x: Tensor,
    zoom_y: Tensor,
    dx: Tensor,
    dy: Tensor,
    interpolation: str = "nearest",
    fill: float | str = 0.0,
    *,
    columns: Tensor | None = None,
    rows: Tensor | None = None,
    flip_x: Tensor | None = None,
    offset: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Rotate (degrees), zoom and then shift (pixels) image b by the b-th parameters, float32 [B] each.

    ``fill``, what points outside the image show: a grey value, cut hard at the border as Pillow does it; "edge", the
    border repeated; or "blended", black, with which the outermost pixels mix as OpenCV does it.
    Integer steps around it cost nothing. What comes after: ``columns`` [B,W] and ``rows`` [B,H] say which column and
    row of the warped image each output pixel shows. What came before: ``flip_x`` [B] is -1 where the image was
    mirrored, ``offset`` two [B]: by how many pixels x and y of the source then lie off.
    """
    if interpolation not in ("nearest", "bilinear"):
        raise FerReproError(f"augmentation: unknown interpolation '{interpolation}', expected 'nearest' or 'bilinear'")
    if isinstance(fill, str) and fill not in ("edge", "blended"):
        raise FerReproError(f"augmentation: unknown fill '{fill}', expected a grey value, 'edge' or 'blended'")
    height, width = images.shape[-2:]
    radians = torch.deg2rad(angle)
    cos, sin = radians.cos()[:, None], radians.sin()[:, None]
    u = _centred(columns, width, images.device) - dx[:, None]
    v = _centred(rows, height, images.device) - dy[:, None]
    # The inverse map says where in the source each output pixel's centre lies. grid_sample counts from -1 at the left
    # edge of the first pixel to 1 at the right edge of the last.
    to_x, to_y = 2 / (width * zoom_x[:, None]), 2 / (height * zoom_y[:, None])
    if flip_x is not None:
        to_x = to_x * flip_x[:, None]
    from_u, from_v = (cos * u * to_x, sin * u * to_y), (sin * v * to_x, cos * v * to_y)
    if offset is not None:
        from_u = from_u[0] + offset[0][:, None] * (2 / width), from_u[1] + offset[1][:, None] * (2 / height)
    grid = torch.empty(images.shape[0], height, width, 2, device=images.device)
    torch.sub(from_u[0][:, None, :], from_v[0][:, :, None], out=grid[..., 0])
    torch.add(from_u[1][:, None, :], from_v[1][:, :, None], out=grid[..., 1])
    if fill == "blended" or (fill == 0 and interpolation == "nearest"):
        return functional.grid_sample(images, grid, interpolation, "zeros", align_corners=False)
    # Within half a pixel of the border Pillow repeats the border's pixels; only points outside the image are filled.
    sampled = functional.grid_sample(images, grid, interpolation, "border", align_corners=False)
    return sampled if fill == "edge" else sampled.masked_fill_((grid.abs() > 1).any(dim=-1)[:, None], float(fill))


def _centred(shown: Tensor | None, size: int, device: torch.device) -> Tensor:
    """Centres of the pixels ``shown`` (all of 0 .. size-1 if None), counted from the middle of the image."""
    if shown is None:
        return torch.arange(0.5 - size / 2, size / 2, device=device)
    return shown + (0.5 - size / 2)
