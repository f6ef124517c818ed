"""What a user would write instead: PIL images, torchvision transforms made from a recipe's own steps, a DataLoader.

Every augmentation step has the torchvision transform of the same meaning. Where torchvision has none (a zoom of its own
for each axis, a border that repeats) Pillow's affine map and an edge-padded image do it, as one finds it written; what
changes grey levels is in `_opencv`.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import _opencv
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from fer_repro.errors import FerReproError
from fer_repro.recipe import Recipe, Step, Views

SIDE = 48
MODES = {"nearest": InterpolationMode.NEAREST, "bilinear": InterpolationMode.BILINEAR}
MANY = {"five_crop": transforms.FiveCrop, "ten_crop": transforms.TenCrop}
MANY_VIEWS = {"five-crop": transforms.FiveCrop, "ten-crop": transforms.TenCrop}


class EachCrop:
    """The same transforms on each crop of a tuple, stacked: -> float [K,1,s,s]."""

    def __init__(self, transform: Callable[[Any], Tensor]) -> None:
        self.transform = transform

    def __call__(self, crops: Iterable[Any]) -> Tensor:
        return torch.stack([self.transform(crop) for crop in crops])


class ZoomEachAxis:
    """Rotation and a zoom of its own for each axis about the centre, then a shift, in one of Pillow's affine maps.

    ``shift``: the most in pixels, either way; ``whole`` makes whole pixels of it.
    """

    def __init__(
        self,
        degrees: float,
        scale: tuple[float, float],
        interpolation: str,
        fill: int,
        shift: float = 0.0,
        whole: Callable[[float], int] = round,
    ) -> None:
        self.degrees, self.scale, self.fill, self.shift, self.whole = degrees, scale, fill, shift, whole
        self.resample = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}[interpolation]

    def __call__(self, image: Image.Image) -> Image.Image:
        draw = torch.empty(5).uniform_(-1, 1).tolist()
        middle, half = sum(self.scale) / 2, (self.scale[1] - self.scale[0]) / 2
        angle, zoom_x, zoom_y = math.radians(draw[0] * self.degrees), middle + half * draw[1], middle + half * draw[2]
        cos, sin, x, y = math.cos(angle), math.sin(angle), image.width / 2, image.height / 2
        a, b, d, e = cos / zoom_x, -sin / zoom_x, sin / zoom_y, cos / zoom_y
        # Where the centre goes.
        right, down = (x + self.whole(draw[3] * self.shift), y + self.whole(draw[4] * self.shift))
        matrix = (a, b, x - a * right - b * down, d, e, y - d * right - e * down)
        return image.transform(image.size, Image.Transform.AFFINE, matrix, self.resample, fillcolor=self.fill)


def _affine(
    side: int,
    degrees: float = 0.0,
    shift: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    per_axis: bool = False,
    p: float = 1.0,
    interpolation: str = "nearest",
    fill: float | str = 0.0,
    truncated: bool = False,
) -> Callable[[Any], Any]:
    """`torchvision.transforms.RandomAffine`, on an edge-padded image where the border repeats.

    Pillow cuts where OpenCV blends the outermost pixels with black: another look, the same work.
    """
    turn = math.radians(degrees)
    # As far as any corner can come to lie outside, so that the crop afterwards never shows the padding's end.
    reach = (math.sin(turn) + math.cos(turn)) / min(scale[0], 1.0) - 1
    pad = math.ceil(side / 2 * reach + shift * side) if fill == "edge" else 0
    level = 0 if isinstance(fill, str) else round(255 * fill)
    if per_axis:
        whole = int if truncated else round
        change: Callable[[Any], Any] = ZoomEachAxis(degrees, scale, interpolation, level, shift * side, whole)
    else:
        part = shift * side / (side + 2 * pad)  # torchvision counts a shift in shares of the image it is given
        change = transforms.RandomAffine(
            degrees, (part, part) if shift else None, scale, interpolation=MODES[interpolation], fill=level
        )
    if pad:
        change = transforms.Compose([transforms.Pad(pad, padding_mode="edge"), change, transforms.CenterCrop(side)])
    return change if p == 1.0 else transforms.RandomApply([change], p)


def _translate(side: int, fraction: float, p: float = 1.0, fill: float = 0.0) -> Callable[[Any], Any]:
    return _affine(side, shift=fraction, p=p, fill=fill)


def _rotate(
    side: int, degrees: float, p: float = 1.0, interpolation: str = "nearest", fill: float | str = 0.0
) -> Callable[[Any], Any]:
    if fill == "edge":
        return _affine(side, degrees=degrees, p=p, interpolation=interpolation, fill=fill)
    level = 0 if isinstance(fill, str) else round(255 * fill)
    return transforms.RandomApply([transforms.RandomRotation(degrees, MODES[interpolation], fill=level)], p)


def _scale(side: int, factor: tuple[float, float], **options: Any) -> Callable[[Any], Any]:
    return _affine(side, scale=factor, **options)


def _flip(side: int, p: float = 0.5, vertical: bool = False) -> Callable[[Any], Any]:
    return (transforms.RandomVerticalFlip if vertical else transforms.RandomHorizontalFlip)(p)


def _jitter(side: int, brightness: float = 0.0, contrast: float = 0.0, p: float = 1.0) -> Callable[[Any], Any]:
    return transforms.RandomApply([transforms.ColorJitter(brightness, contrast)], p)


def _erase(
    side: int,
    p: float = 0.5,
    area: tuple[float, float] = (0.02, 0.33),
    aspect: tuple[float, float] = (0.3, 3.3),
    value: float = 0.0,
) -> Callable[[Any], Any]:
    return transforms.RandomErasing(p, area, aspect, value)


def _one_of(
    side: int, steps: tuple[Step, ...], p: float, shares: tuple[float, ...] | None = None
) -> Callable[[Any], Any]:
    return _opencv.OneOf([counterpart(step, side) for step in steps], shares or (1.0,) * len(steps), p)


COUNTERPARTS: dict[str, Callable[..., Callable[[Any], Any]]] = {
    "random_resized_crop": lambda side, size, **options: transforms.RandomResizedCrop(size, **options),
    "translate": _translate,
    "flip": _flip,
    "rotate": _rotate,
    "scale": _scale,
    "affine": _affine,
    "jitter": _jitter,
    "erase": _erase,
    "brightness_contrast": _opencv.brightness_contrast,
    "gaussian_noise": _opencv.gaussian_noise,
    "gaussian_blur": _opencv.gaussian_blur,
    "clahe": _opencv.clahe,
    "one_of": _one_of,
    "lanczos4": _opencv.lanczos4,
    "crop": lambda side, size, padding=0: transforms.RandomCrop(size, padding or None),
    "resize": lambda side, size: transforms.Resize((size, size)),
    "centre_crop": lambda side, size: transforms.CenterCrop(size),
    "five_crop": lambda side, size: transforms.FiveCrop(size),
    "ten_crop": lambda side, size: transforms.TenCrop(size),
}
"""Step name -> maker of the transform for images of ``side`` pixels, with the step's own options."""


def counterpart(step: Step, side: int) -> Callable[[Any], Any]:
    """The transform that does what an augmentation step does. Raises `FerReproError` where there is none."""
    if step.name not in COUNTERPARTS:
        raise FerReproError(
            f"benchmark: no torchvision counterpart of the augmentation '{step.name}': add it to _pil.py"
        )
    return COUNTERPARTS[step.name](side, **step.kwargs())


def training_transform(recipe: Recipe) -> transforms.Compose:
    """PIL image of 48x48 -> float [1,s,s], or [K,1,s,s] where the recipe cuts K crops; normalised.

    On PIL images up to the first erasing, which torchvision does on tensors.
    """
    names = [step.name for step in recipe.augment]
    first_erasing = names.index("erase") if "erase" in names else len(names)
    cut = next((index for index, name in enumerate(names) if name in MANY), len(names))
    before, after, side = [], [], SIDE
    for index, step in enumerate(recipe.augment[:first_erasing]):
        (before if index <= cut else after).append(counterpart(step, side))
        side = step.get("size", side)
    tail = [
        *after,
        *([transforms.Resize((recipe.input_size,) * 2)] if side != recipe.input_size else []),
        transforms.ToTensor(),
        *(counterpart(step, side) for step in recipe.augment[first_erasing:]),
        transforms.Normalize((recipe.mean,), (recipe.std,)),
    ]
    return transforms.Compose(before + ([EachCrop(transforms.Compose(tail))] if cut < len(names) else tail))


def view_transform(recipe: Recipe, views: Views) -> transforms.Compose:
    """PIL image of 48x48 -> float [K,1,s,s]: the copies that a test image is scored on."""
    size = views.size or SIDE
    resize = [transforms.Resize((recipe.input_size,) * 2)] if size != recipe.input_size else []
    tail = transforms.Compose([*resize, transforms.ToTensor(), transforms.Normalize((recipe.mean,), (recipe.std,))])
    if views.kind in MANY_VIEWS:
        return transforms.Compose([MANY_VIEWS[views.kind](size), EachCrop(tail)])
    if views.kind not in ("plain", "centre-crop"):
        raise FerReproError(
            f"benchmark: no torchvision counterpart of the test-time augmentation '{views.kind}': add it to _pil.py"
        )
    whole = [transforms.CenterCrop(size)] if size != SIDE else []
    return transforms.Compose([*whole, tail, transforms.Lambda(_alone)])


def _alone(image: Tensor) -> Tensor:
    return image[None]


class Faces(Dataset):
    """PIL images made from uint8 [N,48,48] in memory, through ``transform``, with their labels int64 [N]."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Callable[[Any], Tensor]) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def worker_counts() -> list[int]:
    """Numbers of DataLoader workers worth trying on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [0, 1, 2] if cores <= 2 else sorted({0, 2, cores // 4, cores // 2, cores} - {1})


def loader_options(workers: int, device: torch.device) -> dict[str, Any]:
    """Of a DataLoader. On Linux workers are forked, as in a user's own process: a benchmark's would start otherwise."""
    forked = {"multiprocessing_context": "fork"} if workers and sys.platform == "linux" else {}
    return {"num_workers": workers, "pin_memory": device.type == "cuda"} | forked


def predict(
    model: nn.Module,
    recipe: Recipe,
    views: Views,
    images: np.ndarray,
    device: torch.device,
    workers: int,
    batch_size: int = 64,
) -> np.ndarray:
    """uint8 [N,48,48] -> float32 [N,7]: the mean over a test image's crops, batch by batch through a DataLoader."""
    faces = Faces(images, np.zeros(len(images), np.int64), view_transform(recipe, views))
    loader = DataLoader(faces, batch_size, **loader_options(workers, device))
    batches = []
    model.eval()
    with torch.no_grad():
        for copies, _ in loader:
            n, count = copies.shape[:2]
            output = model(copies.flatten(0, 1).to(device))
            logits = (output if isinstance(output, Tensor) else output[0]).view(n, count, -1)
            mean = logits.mean(1).softmax(1) if views.average == "logits" else logits.softmax(2).mean(1)
            batches.append(mean.cpu())
    return torch.cat(batches).numpy()
