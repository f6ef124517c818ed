"""Batched augmentation on the device: a recipe's steps by name.

Images are float32 [B,C,H,W] in [0, 1]; all randomness comes from one `torch.Generator` on their device, so a run can be
stopped and resumed inside an epoch. The distributions are those of torchvision's transforms (the tests compare them).
Normalisation is the loop's business: erased pixels get ``value`` on the [0, 1] scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fer_repro.errors import FerReproError
from fer_repro.recipe import Step, bind
from fer_repro.transforms import crops, geometry, photometric
from fer_repro.transforms.fused import fuse
from fer_repro.transforms.geometry import TRIES, coin, uniform

LEVELS = 255  # jitter works on 8-bit grey levels


def jitter(
    images: Tensor, generator: torch.Generator, brightness: float = 0.0, contrast: float = 0.0, p: float = 1.0
) -> Tensor:
    """Brightness and contrast by factors uniform in 1 +- the option (from 0), in random order, with probability p.

    What `torchvision.transforms.ColorJitter` does to an 8-bit grey image, its rounding included; an image that the coin
    spares keeps its exact values.
    """
    n = images.shape[0]
    chosen = coin(p, n, generator)
    light = uniform(max(0.0, 1 - brightness), 1 + brightness, (n,), generator)
    spread = uniform(max(0.0, 1 - contrast), 1 + contrast, (n,), generator)
    light_first = coin(0.5, n, generator)
    changed = adjust(images, light, spread, light_first, brightness > 0, contrast > 0)
    return torch.where(chosen.view(-1, 1, 1, 1), changed, images)


def adjust(
    images: Tensor, light: Tensor, spread: Tensor, light_first: Tensor, brightness: bool = True, contrast: bool = True
) -> Tensor:
    """Image b times ``light[b]`` and stretched about its mean by ``spread[b]``, on 8-bit levels, in the given order."""
    light, spread, light_first = (value.view(-1, 1, 1, 1) for value in (light, spread, light_first))

    def brighten(levels: Tensor) -> Tensor:
        return (levels * light).clamp_(0, LEVELS).floor_() if brightness else levels

    def stretch(levels: Tensor) -> Tensor:
        if not contrast:
            return levels
        mean = (levels.mean(dim=(1, 2, 3), keepdim=True) + 0.5).floor_()
        return (levels - mean).mul_(spread).add_(mean).clamp_(0, LEVELS).floor_()

    levels = (images * LEVELS).round_()
    if not (brightness and contrast):
        return stretch(brighten(levels)) / LEVELS
    return torch.where(light_first, stretch(brighten(levels)), brighten(stretch(levels))) / LEVELS


def erase_boxes(
    n: int,
    height: int,
    width: int,
    p: float,
    area: tuple[float, float],
    aspect: tuple[float, float],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes to erase: top, left, height, width, int64 [n] each; height and width 0 where nothing is erased.

    The share of the area is uniform, height/width log-uniform; of ten draws the first box strictly smaller than the
    image is used.
    """
    surface = uniform(area[0], area[1], (n, TRIES), generator).mul_(height * width)
    ratio = uniform(math.log(aspect[0]), math.log(aspect[1]), (n, TRIES), generator).exp_()
    h, w = (surface * ratio).sqrt_().round_(), (surface / ratio).sqrt_().round_()
    fits = (h < height) & (w < width)
    first = fits.byte().argmax(dim=1, keepdim=True)
    used = fits.gather(1, first).squeeze(1) & coin(p, n, generator)
    h = h.gather(1, first).squeeze(1).long() * used
    w = w.gather(1, first).squeeze(1).long() * used
    top = geometry.integers(height - h + 1, generator)
    left = geometry.integers(width - w + 1, generator)
    return top, left, h, w


def erase_box_(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, value: float = 0.0) -> Tensor:
    """Set one box per image ([B] int64 each) to ``value``, in place; the images must lie in [0, 1]."""
    y = torch.arange(images.shape[-2], device=images.device)
    x = torch.arange(images.shape[-1], device=images.device)
    rows = (y >= top[:, None]) & (y < (top + height)[:, None])
    columns = (x >= left[:, None]) & (x < (left + width)[:, None])
    # Taking more away than any pixel has and clamping blackens the box; on a CPU several times faster than a mask.
    box = rows.float()[:, None, :, None], columns.float()[:, None, None, :]
    images.addcmul_(*box, value=-2).clamp_(min=0)
    return images if value == 0 else images.addcmul_(*box, value=value)


def erase(
    images: Tensor,
    generator: torch.Generator,
    p: float = 0.5,
    area: tuple[float, float] = (0.02, 0.33),
    aspect: tuple[float, float] = (0.3, 3.3),
    value: float = 0.0,
) -> Tensor:
    """Random erasing in place, each image of the batch on its own; see `erase_boxes` for the distribution."""
    boxes = erase_boxes(images.shape[0], images.shape[-2], images.shape[-1], p, area, aspect, generator)
    return erase_box_(images, *boxes, value)


def mixup(images: Tensor, targets: Tensor, generator: torch.Generator, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    """Blend a batch with a permutation of itself: lambda x + (1 - lambda) x[permutation], the targets alike.

    ``targets`` float [B,7] (soft). One lambda ~ Beta(alpha, alpha) per batch. (Zhang et al. 2018)
    """
    concentration = torch.full((2,), float(alpha), device=generator.device)
    # torch.distributions.Beta draws by the same function but takes no generator.
    share = torch._sample_dirichlet(concentration, generator=generator)[0]
    partner = torch.randperm(images.shape[0], generator=generator, device=generator.device)
    return torch.lerp(images[partner], images, share), torch.lerp(targets[partner], targets, share)


def one_of(
    images: Tensor,
    generator: torch.Generator,
    steps: tuple[Step, ...],
    p: float,
    shares: tuple[float, ...] | None = None,
) -> Tensor:
    """With probability ``p`` one of ``steps`` happens to an image, chosen in proportion to ``shares`` (None: equal).

    Like albumentations' ``OneOf``, where a step's own probability is its share and nothing else.
    """
    shares = shares or (1.0,) * len(steps)
    if not steps or len(shares) != len(steps):
        raise FerReproError(f"augmentation 'one_of': {len(steps)} steps and {len(shares)} shares, expected as many")
    n = images.shape[0]
    chosen, pointer = coin(p, n, generator), uniform(0.0, sum(shares), (n,), generator)
    changed, low = images, 0.0
    for step, share in zip(steps, shares, strict=True):
        # Every image goes through every step, and most is thrown away: to pick them out would wait for the device.
        done = bind(step, AUGMENTATIONS, "augmentation", given=2)(images.clone(), generator)
        hit = chosen & (pointer >= low) & ((pointer < low + share) | (step is steps[-1]))
        changed, low = torch.where(hit.view(-1, 1, 1, 1), done, changed), low + share
    return changed


def _drawless(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Give a function without randomness the signature of the others."""

    def step(images: Tensor, generator: torch.Generator, size: int) -> Tensor:
        return function(images, size)

    return step


AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "random_resized_crop": geometry.random_resized_crop,
    "translate": geometry.translate,
    "flip": geometry.flip,
    "rotate": geometry.rotate,
    "scale": geometry.scale,
    "affine": geometry.affine,
    "jitter": jitter,
    "erase": erase,
    "crop": crops.crop,
    "brightness_contrast": photometric.brightness_contrast,
    "gaussian_noise": photometric.gaussian_noise,
    "gaussian_blur": photometric.gaussian_blur,
    "clahe": photometric.clahe,
    "one_of": one_of,
    "resize": _drawless(geometry.resize),
    "lanczos4": _drawless(geometry.lanczos4),
    "centre_crop": _drawless(crops.centre_crop),
    "five_crop": _drawless(crops.five_crop),
    "ten_crop": _drawless(crops.ten_crop),
}
MIXES: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"mixup": mixup}
COPIES = {"five_crop": 5, "ten_crop": 10}


class Augmenter:
    """A recipe's augmentation steps, ready to run; ``copies`` is how many samples an image becomes.

    ``mirrored`` tells which images of the last batch a flip step of its own turned left-right, bool [B]; None where the
    recipe has no such step (a flip that is fused with its neighbours does not count).
    """

    def __init__(self, steps: tuple[Step, ...], fused: bool = True) -> None:
        self.copies = math.prod(COPIES.get(step.name, 1) for step in steps)
        self.mirrored: Tensor | None = None
        bound = [(step, bind(step, AUGMENTATIONS, "augmentation", given=2)) for step in steps]
        self._functions = fuse(bound) if fused else [function for _, function in bound]
        for index, step in enumerate(steps):
            if len(self._functions) == len(steps) and step.name == "flip" and not step.get("vertical"):
                self._functions[index] = partial(self._flip, p=step.get("p", 0.5))

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """float [B,C,H,W] in [0, 1] -> [B*copies,C,h,w], an image's copies side by side; may overwrite the argument."""
        for function in self._functions:
            images = function(images, generator)
        return images

    def _flip(self, images: Tensor, generator: torch.Generator, p: float) -> Tensor:
        self.mirrored = coin(p, images.shape[0], generator)
        return geometry.mirror(images, self.mirrored)


def mixer(step: Step | None) -> Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]] | None:
    """The function that blends (images, soft targets, generator), or None."""
    return None if step is None else bind(step, MIXES, "mix", given=3)
