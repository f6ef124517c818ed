"""Neighbouring steps of an augmentation in one resampling, with the draws and the pixels that they have one by one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fer_repro.recipe import Step
from fer_repro.transforms import geometry

AFFINE = ("rotate", "scale", "affine")
CROP = ("random_resized_crop", "translate", "flip")


def fuse(steps: list[tuple[Step, Callable[..., Tensor]]]) -> list[Callable[..., Tensor]]:
    """The steps' functions in order, each (images, generator) -> images, with those that allow it made one.

    Two kinds of neighbours are fused: a crop, a shift and a mirror (`geometry.crop_translate_flip`); and mirrors and
    shifts around one rotation, zoom or affine map (`place`).
    """
    functions: list[Callable[..., Tensor]] = []
    while steps:
        names = tuple(step.name for step, _ in steps[:3])
        length = _placed(steps)
        if names == CROP and all(_whole_pixels(step) for step, _ in steps[1:3]):
            crop, translate, flip = (step.kwargs() for step, _ in steps[:3])
            functions.append(partial(geometry.crop_translate_flip, crop=crop, translate=translate, flip=flip))
            steps = steps[3:]
        elif length > 1:
            functions.append(partial(place, steps=tuple(step for step, _ in steps[:length])))
            steps = steps[length:]
        else:
            functions.append(steps[0][1])
            steps = steps[1:]
    return functions


def _whole_pixels(step: Step) -> bool:
    """Whether a step only moves whole pixels sideways or mirrors left-right, and black moves in."""
    return (step.name == "translate" and not step.get("fill")) or (step.name == "flip" and not step.get("vertical"))


def _placed(steps: list[tuple[Step, Callable[..., Tensor]]]) -> int:
    """How many steps from the first on `place` can do at once; 0 if there is no affine map among them."""
    kinds: list[str] = []
    for step, _ in steps:
        kind = "affine" if step.name in AFFINE else step.name if _whole_pixels(step) else ""
        # Before a bilinear map a shift's black border would be blended with the face.
        blended = step.get("interpolation", "nearest") != "nearest" or step.get("fill", 0.0) != 0
        if not kind or kind in kinds or (kind == "affine" and "translate" in kinds and blended):
            break
        kinds.append(kind)
    return len(kinds) if "affine" in kinds else 0


def place(images: Tensor, generator: torch.Generator, steps: tuple[Step, ...]) -> Tensor:
    """At most one shift, at most one mirror and one affine map, in any order, in one resampling of [B,C,H,W]."""
    n, height, width = images.shape[0], images.shape[-2], images.shape[-1]
    warp: dict[str, Any] = {}
    draws: list[tuple[Step, Any]] = []
    for step in steps:
        if step.name == "translate":
            shift = geometry.shifts(n, height, width, step["fraction"], step.get("p", 1.0), generator)
            draws.append((step, shift))
        elif step.name == "flip":
            draws.append((step, geometry.coin(step.get("p", 0.5), n, generator)))
        else:
            options = step.kwargs()
            warp = {key: options.pop(key) for key in ("interpolation", "fill") if key in options}
            options |= {"scale": options.pop("factor")} if "factor" in options else {}
            draws.append((step, geometry.affine_draws(n, height, width, generator, **options)))
    where = next(index for index, (step, _) in enumerate(draws) if step.name in AFFINE)
    columns, rows, inside = _shown(draws[where + 1 :], height, width, images.device)
    images, flip_x, offset = _source(draws[:where], images)
    placed = geometry.warp(images, *draws[where][1], **warp, columns=columns, rows=rows, flip_x=flip_x, offset=offset)
    return placed if inside is None else placed.mul_(inside[0]).mul_(inside[1])


def _shown(
    after: list[tuple[Step, Any]], height: int, width: int, device: torch.device
) -> tuple[Tensor | None, Tensor | None, tuple[Tensor, Tensor] | None]:
    """Which column and row of the warped image each output pixel shows, and the masks of those that show any."""
    columns, rows, inside = None, None, None
    for step, draw in reversed(after):
        x = torch.arange(width, device=device)[None] if columns is None else columns
        if step.name == "flip":
            columns = torch.where(draw[:, None], width - 1 - x, x)
            continue
        columns = x - draw[0][:, None]
        rows = torch.arange(height, device=device)[None] - draw[1][:, None]
        across, down = (columns >= 0) & (columns < width), (rows >= 0) & (rows < height)
        inside = down.float()[:, None, :, None], across.float()[:, None, None, :]
    return columns, rows, inside


def _source(
    before: list[tuple[Step, Any]], images: Tensor
) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor] | None]:
    """The images as the warp may read them, the sign of x, and how far the source lies off."""
    flip_x: Tensor | None = None
    offset: tuple[Tensor, Tensor] | None = None
    inside: tuple[Tensor, Tensor] | None = None
    for step, draw in reversed(before):
        if step.name == "flip":
            flip_x = 1.0 - 2.0 * draw.float()
            if offset is not None and inside is not None:
                offset = offset[0] * flip_x, offset[1]
                inside = inside[0], torch.where(draw[:, None], inside[1].flip(-1), inside[1])
            continue
        # What the shift pushed over the border is gone, even if the warp would bring it back.
        offset = -draw[0].float(), -draw[1].float()
        x, y = (torch.arange(size, device=images.device) for size in (images.shape[-1], images.shape[-2]))
        across, down = x + draw[0][:, None], y + draw[1][:, None]
        inside = (down >= 0) & (down < len(y)), (across >= 0) & (across < len(x))
    if inside is not None:
        images = images * inside[0].float()[:, None, :, None] * inside[1].float()[:, None, None, :]
    return images, flip_x, offset
