"""The same drawn parameters must give the same pixels as torchvision's functions on a Pillow image."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from fer_repro import transforms
from fer_repro.transforms import crops, geometry

RNG = np.random.default_rng(0)
N = 24
# Smooth structure and noise, so that a shifted or blurred pixel shows.
GREY = np.clip(
    90 + 60 * np.sin(np.arange(48) / 5)[None, :, None] * np.cos(np.arange(48) / 7) + RNG.normal(0, 40, (N, 48, 48)),
    0,
    255,
).astype(np.uint8)
BATCH = torch.from_numpy(GREY).float().div(255).unsqueeze(1)


def as_float_image(index: int) -> Image.Image:
    """The image in Pillow's 32-bit float mode, on [0, 1]: its operations do not round."""
    return Image.fromarray(BATCH[index, 0].numpy())


def compare(ours: torch.Tensor, theirs: list, tolerance: float) -> None:
    expected = torch.stack([torch.from_numpy(np.array(image, dtype=np.float32)) for image in theirs])
    assert ours.shape[0] == len(theirs)
    torch.testing.assert_close(ours[:, 0], expected, rtol=0, atol=tolerance)


def whole(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def integers(low: int, high: int) -> torch.Tensor:
    return torch.from_numpy(RNG.integers(low, high, N))


def reals(low: float, high: float) -> torch.Tensor:
    return torch.from_numpy(RNG.uniform(low, high, N)).float()


@pytest.mark.parametrize("size", [48, 24, 40, 64, 224])
def test_crop_and_resize_is_pillows_bilinear(size):
    height, width = integers(20, 49), integers(20, 49)
    top, left = (reals(0, 1) * (49 - height)).long(), (reals(0, 1) * (49 - width)).long()
    ours = geometry.crop_and_resize(BATCH, top, left, height, width, size)
    theirs = [
        reference.resized_crop(as_float_image(i), *(int(v[i]) for v in (top, left, height, width)), [size, size])
        for i in range(N)
    ]
    compare(ours, theirs, 1e-5)


@pytest.mark.parametrize("size", [24, 40, 64, 224])
def test_resize_is_pillows_bilinear(size):
    compare(geometry.resize(BATCH, size), [reference.resize(as_float_image(i), [size, size]) for i in range(N)], 1e-5)


def test_shift_equals_a_translation():
    dx, dy = integers(-12, 13), integers(-12, 13)
    ours = geometry.shift(BATCH, dx, dy)
    theirs = [reference.affine(as_float_image(i), 0, [int(dx[i]), int(dy[i])], 1.0, [0.0]) for i in range(N)]
    compare(ours, theirs, 0.0)


def test_shift_fills_with_the_value_given():
    moved = geometry.shift(BATCH, whole(*[3] * N), whole(*[-2] * N), fill=0.25)
    assert (moved[..., :3] == 0.25).all() and (moved[..., -2:, :] == 0.25).all()
    torch.testing.assert_close(moved[..., :-2, 3:], BATCH[..., 2:, :-3], rtol=0, atol=1e-7)


def warped(angle=None, zoom=None, interpolation="nearest", fill=0.0):
    zero, one = torch.zeros(N), torch.ones(N)
    angle, zoom = zero if angle is None else angle, one if zoom is None else zoom
    return geometry.warp(BATCH, angle, zoom, zoom, zero, zero, interpolation, fill)


def test_rotation_to_the_nearest_pixel():
    angle = reals(-30, 30)
    ours = warped(angle)[:, 0]
    theirs = [np.array(reference.rotate(as_float_image(i), float(angle[i]))) for i in range(N)]
    # Pillow counts in 1/65536 of a pixel: where a point falls on the edge between two pixels the neighbour may be
    # taken.
    different = np.mean([(ours[i].numpy() != theirs[i]).mean() for i in range(N)])
    assert different < 5e-4


@pytest.mark.parametrize("fill", [0.0, 0.5])
def test_rotation_with_bilinear_interpolation(fill):
    angle = reals(-30, 30)
    bilinear = InterpolationMode.BILINEAR
    theirs = [reference.rotate(as_float_image(i), float(angle[i]), bilinear, fill=[fill]) for i in range(N)]
    compare(warped(angle, interpolation="bilinear", fill=fill), theirs, 2e-4)


def test_zoom_to_the_nearest_pixel():
    zoom = reals(0.7, 1.3)
    ours = warped(zoom=zoom)[:, 0]
    theirs = [np.array(reference.affine(as_float_image(i), 0, [0, 0], float(zoom[i]), [0.0])) for i in range(N)]
    assert np.mean([(ours[i].numpy() != theirs[i]).mean() for i in range(N)]) < 2e-3


def test_edge_fill_repeats_the_border():
    constant = torch.full((2, 1, 48, 48), 0.7)
    zero, half = torch.zeros(2), torch.full((2,), 0.5)
    for interpolation in ("nearest", "bilinear"):
        out = geometry.warp(constant, torch.tensor([17.0, -40.0]), half, half, zero, zero, interpolation, "edge")
        torch.testing.assert_close(out, constant)


def test_no_change_leaves_every_pixel():
    torch.testing.assert_close(warped(), BATCH, rtol=0, atol=0)
    torch.testing.assert_close(warped(interpolation="bilinear"), BATCH, rtol=0, atol=1e-5)
    same = geometry.crop_and_resize(BATCH, *(whole(*[v] * N) for v in (0, 0, 48, 48)), 48)
    torch.testing.assert_close(same, BATCH, rtol=0, atol=0)


def test_crops_are_torchvisions_in_its_order():
    for name, count in (("five_crop", 5), ("ten_crop", 10)):
        ours = getattr(crops, name)(BATCH, 40)
        theirs = [crop for i in range(N) for crop in getattr(reference, name)(as_float_image(i), 40)]
        assert ours.shape == (N * count, 1, 40, 40)
        compare(ours, theirs, 0.0)
    compare(crops.centre_crop(BATCH, 41), [reference.center_crop(as_float_image(i), 41) for i in range(N)], 0.0)


def test_random_crop_takes_a_window_of_the_padded_image():
    generator = torch.Generator().manual_seed(0)
    out = crops.crop(BATCH, generator, size=48, padding=4)
    padded = torch.nn.functional.pad(BATCH, (4,) * 4)
    windows = padded.unfold(2, 48, 1).unfold(3, 48, 1).flatten(1, 3)
    hits = (windows == out).all(-1).all(-1)
    assert (hits.sum(1) == 1).all()
    assert hits.int().argmax(1).unique().numel() > 10


@pytest.mark.parametrize("value", [0.0, 0.4])
def test_erased_box(value):
    height, width = integers(1, 40), integers(1, 40)
    top, left = (reals(0, 1) * (49 - height)).long(), (reals(0, 1) * (49 - width)).long()
    ours = transforms.erase_box_(BATCH.clone(), top, left, height, width, value)
    boxes = torch.stack((top, left, height, width), 1).tolist()
    for i, box in enumerate(boxes):
        assert torch.equal(ours[i], reference.erase(BATCH[i], *box, torch.tensor(value)))


@pytest.mark.parametrize("light_first", [True, False])
def test_jitter_is_pillows_on_grey_levels(light_first):
    light, spread = reals(0.5, 1.5), reals(0.5, 1.5)
    ours = transforms.adjust(BATCH, light, spread, torch.full((N,), light_first)) * 255
    theirs = []
    for i in range(N):
        image = Image.fromarray(GREY[i])
        steps = [(reference.adjust_brightness, float(light[i])), (reference.adjust_contrast, float(spread[i]))]
        for function, factor in steps if light_first else steps[::-1]:
            image = function(image, factor)
        theirs.append(image)
    compare(ours, theirs, 1e-4)


def test_jitter_with_one_of_the_two():
    light = reals(0.5, 1.5)
    ours = transforms.adjust(BATCH, light, light, torch.ones(N, dtype=torch.bool), contrast=False) * 255
    compare(ours, [reference.adjust_brightness(Image.fromarray(GREY[i]), float(light[i])) for i in range(N)], 1e-4)


def test_mixup_blends_images_and_targets_alike():
    generator = torch.Generator().manual_seed(5)
    targets = torch.eye(7)[torch.arange(N) % 7]
    # An image that is its own target, seven pixels wide: whatever happens to one must happen to the other.
    images, mixed = transforms.mixup(targets.view(N, 1, 1, 7), targets, generator, alpha=1.0)
    torch.testing.assert_close(images.view(N, 7), mixed)
    torch.testing.assert_close(mixed.sum(1), torch.ones(N))
    shares = mixed[mixed > 0].unique()
    assert len(shares) <= 3  # lambda, 1 - lambda, and 1 where both partners have one class
