"""Views of a test image: the copies whose outputs are averaged, as a recipe's `Views` names them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fer_repro.errors import FerReproError
from fer_repro.recipe import Views, step
from fer_repro.transforms import Augmenter
from fer_repro.transforms.crops import centre_crop, five_crop, ten_crop, with_mirror
from fer_repro.transforms.geometry import lanczos4, resize, warp

_CROPS: dict[str, tuple[int, Callable[[Tensor, int], Tensor]]] = {
    "plain": (1, centre_crop),
    "centre-crop": (1, centre_crop),
    "lanczos4": (1, lanczos4),  # no crop: the whole image, enlarged
    "flip": (2, lambda images, size: with_mirror(centre_crop(images, size))),
    "five-crop": (5, five_crop),
    "ten-crop": (10, ten_crop),
}


# The augmentation of the Residual Masking Network's code, which another paper took over: mirror, then a rotation by
# OpenCV with black moving in; its views of a test image are ten draws of it.
TURNS = (step("flip", p=0.5), step("rotate", degrees=30, interpolation="bilinear", fill="blended"))


def turned_views(size: int, count: int = 10, seed: int = 0) -> Views:
    """``count`` draws of `TURNS` at ``size`` pixels, probabilities averaged."""
    return Views("random", average="probabilities", resize=size, count=count, steps=TURNS, seed=seed)


def view_count(views: Views) -> int:
    """How many network inputs one image becomes; unknown or unfinished views are an error."""
    if views.average not in ("logits", "probabilities"):
        raise FerReproError(f"recipe: views average '{views.average}', expected 'logits' or 'probabilities'")
    if views.kind == "random":
        if not views.count or views.count < 1 or not views.steps:
            raise FerReproError("recipe: random views need a count from 1 and the augmentation steps they draw")
        return views.count
    if views.kind == "poses":
        if not views.poses or any(len(pose) != 6 or pose[0] <= 0 for pose in views.poses):
            raise FerReproError(
                "recipe: posed views need poses, each (weight above 0, mirrored, zoom, dx, dy, degrees)"
            )
        return len(views.poses)
    if views.kind not in _CROPS:
        raise FerReproError(
            f"recipe: unknown views '{views.kind}', expected one of {', '.join((*_CROPS, 'random', 'poses'))}"
        )
    return _CROPS[views.kind][0]


def view_weights(views: Views) -> list[float]:
    """The share of each view in the mean, in their order; they sum to 1."""
    count = view_count(views)
    weights = [pose[0] for pose in views.poses] if views.kind == "poses" else [1.0] * count
    return [weight / sum(weights) for weight in weights]


def view_draws(views: Views, device: torch.device) -> torch.Generator | None:
    """The stream that random views draw from, None for the others.

    ``seed`` None: from torch's CPU stream, which a checkpoint holds, so that each measurement sees other views and a
    resumed run the same ones.
    """
    if views.kind != "random":
        return None
    seed = views.seed if views.seed is not None else int(torch.randint(2**31, (1,)))
    return torch.Generator(device).manual_seed(seed)


def view_batch(images: Tensor, views: Views, input_size: int, generator: torch.Generator | None = None) -> Tensor:
    """float [B,C,H,W] -> [B*V,C,input_size,input_size]: an image's V views side by side, resized where sizes differ.

    Random views are augmentations: they want images in [0, 1] and the ``generator`` of `view_draws`.
    """
    if views.resize:
        images = resize(images, views.resize)
    if views.kind == "random":
        assert generator is not None and views.count is not None, "random views draw from a generator"
        augment = Augmenter(views.steps)
        copies = [augment(images.clone(), generator) for _ in range(views.count)]
        made = torch.stack(copies, dim=1).flatten(0, 1)
    elif views.kind == "poses":
        made = posed(images, views.poses)
    else:
        made = _CROPS[views.kind][1](images, views.size or min(images.shape[-2:]))
    return resize(made, input_size)


def posed(images: Tensor, poses: tuple[tuple[float, ...], ...]) -> Tensor:
    """Fixed copies [B*V,C,H,W], an image's V poses side by side; outside the image its border pixels are repeated.

    A pose is (weight, mirrored, zoom, dx, dy, degrees). In this order: mirror (1) or not (0); ``zoom`` z: the middle
    share z of both sides, resized back; shift right and down by whole pixels; rotation counter-clockwise, bilinear.
    """
    copies = []
    for _, mirrored, zoom, dx, dy, degrees in poses:
        copy = images.flip(-1) if mirrored else images
        if zoom != 1:
            copy = _warped(copy, 0.0, 1 / zoom)
        if dx or dy:
            copy = _shifted(_shifted(copy, int(dx), -1), int(dy), -2)
        copies.append(_warped(copy, degrees, 1.0) if degrees else copy)
    return torch.stack(copies, dim=1).flatten(0, 1)


def _warped(images: Tensor, degrees: float, zoom: float) -> Tensor:
    angle, zooms, zero = (torch.full((len(images),), value, device=images.device) for value in (degrees, zoom, 0.0))
    return warp(images, angle, zooms, zooms, zero, zero, "bilinear", "edge")


def _shifted(images: Tensor, by: int, axis: int) -> Tensor:
    """Moved by whole pixels along one axis, the border repeated."""
    size = images.shape[axis]
    return images.index_select(axis, torch.arange(size, device=images.device).sub_(by).clamp_(0, size - 1))
