"""Rotations, zooms and shifts as OpenCV computes them behind imgaug and albumentations: borders blended with black."""

import numpy as np
import pytest
import torch

from fer_repro import papers
from fer_repro.transforms import geometry

cv2 = pytest.importorskip("cv2", reason="the reference is OpenCV: pip install fer-repro[test]")

FACE = np.random.default_rng(0).integers(0, 256, (6, 6)).astype(np.uint8)
IMAGE = cv2.resize(FACE, (224, 224), interpolation=cv2.INTER_CUBIC)  # smooth, and bright at some borders


def turned(image, degrees, zoom=(1.0, 1.0), shift=(0, 0)):
    """Zoomed, rotated and shifted about the centre by OpenCV as albumentations and imgaug call it: black outside."""
    height, width = image.shape
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    linear = np.array([[cos, sin], [-sin, cos]]) @ np.diag(zoom)
    matrix = np.column_stack([linear, middle - linear @ middle + shift])
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def levels_apart(degrees, fill, zoom=(1.0, 1.0), shift=(0, 0)):
    """Differences of our map to OpenCV's, in 8-bit levels, [H,W]."""
    values = (torch.tensor([float(value)]) for value in (degrees, *zoom, *shift))
    batch = torch.from_numpy(IMAGE).float()[None, None] / 255
    ours = geometry.warp(batch, *values, "bilinear", fill)[0, 0].numpy() * 255
    return np.abs(ours - turned(IMAGE.astype(np.float32), degrees, zoom, shift))


@pytest.mark.parametrize("degrees", [12.3, -27.0])
def test_blended_borders_are_opencvs(degrees):
    assert (levels_apart(degrees, 0.0) > 3).sum() > 200, "cut at the pixel's edge, as Pillow does it"
    apart = levels_apart(degrees, "blended")
    assert apart.max() < 1.5 and (apart > 3).sum() == 0


def test_blended_borders_are_opencvs_in_every_map():
    for degrees, zoom, shift in ((0, (0.9, 1.1), (0, 0)), (0, (1, 1), (-13, 9)), (14.2, (1.07, 0.93), (5, -11))):
        assert levels_apart(degrees, "blended", zoom, shift).max() < 1.5


def test_recipes_whose_code_calls_opencv_blend_and_truncate():
    """Those of the Residual Masking Network, of Segmentation VGG-19 (training and views) and of EfficientFER."""
    for variant in papers.variants().values():
        if variant.slug in ("residual-masking", "segmentation-vgg19", "efficientfer") and "lite0" not in variant.id:
            for protocol in papers.PROTOCOLS:
                recipe = variant.recipe(protocol, "full")
                maps = [s for s in (*recipe.augment, *recipe.views.steps) if s.name in ("rotate", "affine")]
                assert maps or recipe.options.name == "sum", variant.id
                assert all(s["fill"] == "blended" and s["interpolation"] == "bilinear" for s in maps)
                assert all(s.get("truncated", False) == (variant.slug == "efficientfer") for s in maps)


def test_truncated_shifts_are_albumentations():
    """int() of a uniform share of 224 pixels: 13 at most, 0 twice as often as any other."""
    n, options = 200_000, {"shift": 0.0625}
    draws = {
        truncated: geometry.affine_draws(n, 224, 224, torch.Generator().manual_seed(0), **options, truncated=truncated)
        for truncated in (False, True)
    }
    for axis in (3, 4):
        cut, rounded = draws[True][axis], draws[False][axis]
        assert (cut.min(), cut.max(), rounded.max()) == (-13, 13, 14)
        assert abs(cut.std().item() - 7.66) < 0.05 and abs(rounded.std().item() - 8.08) < 0.05
        assert abs((cut == 0).float().mean().item() - 0.071) < 0.003
        assert abs((rounded == 0).float().mean().item() - 0.036) < 0.003
        reference = np.trunc(np.random.default_rng(0).uniform(-14, 14, n))
        for value in range(-13, 14):
            assert abs((cut == value).float().mean().item() - (reference == value).mean()) < 0.004
