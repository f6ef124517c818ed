"""Grey levels: pixels as OpenCV computes them, draws as albumentations 2.0.8 makes them."""

import numpy as np
import pytest
import torch
from scipy import stats

from fer_repro import transforms
from fer_repro.errors import FerReproError
from fer_repro.recipe import step
from fer_repro.transforms import geometry, photometric

cv2 = pytest.importorskip("cv2", reason="the reference is OpenCV: pip install fer-repro[test]")

RNG = np.random.default_rng(0)
N, DRAWS, SMALLEST_P = 8, 4000, 1e-3
GREY = np.clip(
    90 + 60 * np.sin(np.arange(48) / 5)[None, :, None] * np.cos(np.arange(48) / 7) + RNG.normal(0, 40, (N, 48, 48)),
    0,
    255,
).astype(np.uint8)
CLIPS = torch.linspace(1, 4, N)


def batch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).float().div(255).unsqueeze(1)


def enlarged(size: int) -> np.ndarray:
    return np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_LANCZOS4) for image in GREY])


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def levels_off(ours: torch.Tensor, theirs: np.ndarray) -> np.ndarray:
    """By how many of 255 levels each pixel differs."""
    return np.abs(ours[:, 0].numpy() * 255 - theirs.astype(float)).round(3)


def uniform_p(values, low: float, high: float) -> float:
    return stats.kstest(np.asarray(values, dtype=float), "uniform", args=(low, high - low)).pvalue


def share_is(hits, p: float) -> bool:
    return stats.binomtest(int(np.sum(np.asarray(hits))), len(hits), p).pvalue > SMALLEST_P


def recorded(monkeypatch, name: str) -> list:
    """The arguments of every call of a function of the module."""
    calls, original = [], getattr(photometric, name)
    monkeypatch.setattr(photometric, name, lambda *a, **k: calls.append(a) or original(*a, **k))
    return calls


@pytest.mark.parametrize("size", [224, 64, 40])
def test_lanczos_is_opencvs(size):
    off = levels_off(geometry.lanczos4(batch(GREY), size), enlarged(size))
    # OpenCV's weights have 11 bits: a level that falls between two may become either.
    assert off.max() <= 1 and (off > 0).mean() < 0.07
    bilinear = levels_off(geometry.resize(batch(GREY), size), enlarged(size))
    assert bilinear.max() > 5
    assert geometry.lanczos4(batch(GREY), 48).equal(batch(GREY))


def as_in_albumentations(image: np.ndarray, clip: float) -> np.ndarray:
    """CLAHE of a grey image in three channels: of its lightness (albumentations' `clahe`)."""
    lab = cv2.cvtColor(np.repeat(image[..., None], 3, axis=2), cv2.COLOR_RGB2LAB)
    lab[:, :, 0] = cv2.createCLAHE(clip, (8, 8)).apply(lab[:, :, 0])
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)[..., 1]


@pytest.mark.parametrize("size", [224, 48, 50])  # 50 is no multiple of 8: the border is mirrored
def test_clahe_is_opencvs(size):
    images = enlarged(size)
    plain = np.stack([cv2.createCLAHE(float(c), (8, 8)).apply(x) for c, x in zip(CLIPS, images, strict=True)])
    off = levels_off(photometric.equalise(batch(images), CLIPS, lightness=False), plain)
    assert off.max() <= 1 and (off > 0).mean() < 0.02
    wrong = levels_off(photometric.equalise(batch(images), CLIPS + 2, lightness=False), plain)
    assert wrong.max() > 5 or size < 200  # tiles of so few pixels get the least limit, whatever is drawn
    light = np.stack([as_in_albumentations(x, float(c)) for c, x in zip(CLIPS, images, strict=True)])
    off = levels_off(photometric.equalise(batch(images), CLIPS), light)
    assert off.max() <= 2 and (off > 1).mean() < 0.001
    assert levels_off(photometric.equalise(batch(images), CLIPS, lightness=False), light).max() > 5


def test_lightness_is_opencvs_level_by_level():
    grey = np.arange(256, dtype=np.uint8)
    forth, back = (table.numpy() for table in photometric.lightness_tables(torch.device("cpu")))
    lab = cv2.cvtColor(np.repeat(grey[None, :, None], 3, axis=2), cv2.COLOR_RGB2LAB)[0]
    assert (lab[:, 0] == forth).all() and (lab[:, 1:] == 128).all()
    neutral = np.full(256, 128, np.uint8)
    rgb = cv2.cvtColor(np.stack((grey, neutral, neutral), axis=1)[None], cv2.COLOR_LAB2RGB)[0]
    assert np.abs(rgb[:, 1] - back).max() <= 1


def test_clahe_wants_grey_images():
    with pytest.raises(FerReproError, match="3 channels, expected grey ones"):
        photometric.equalise(torch.rand(2, 3, 16, 16), torch.ones(2))


def test_blur_is_opencvs():
    deviation, radius = torch.linspace(0.5, 3, N), torch.tensor([1.0, 2, 3, 1, 2, 3, 1, 2])
    expected = []
    for image, s, r in zip(batch(GREY)[:, 0].numpy(), deviation, radius, strict=True):
        kernel = np.exp(-0.5 * (np.arange(-int(r), int(r) + 1) / float(s)) ** 2)
        expected.append(cv2.sepFilter2D(image, -1, kernel / kernel.sum(), kernel / kernel.sum()))
    ours = photometric.blur(batch(GREY), deviation, radius, 3)
    np.testing.assert_allclose(ours[:, 0].numpy(), np.stack(expected), atol=1e-6)


def test_brightness_and_contrast_are_synthetic_evenly():
    images = torch.tensor([0.4, 0.6]).expand(DRAWS, 1, 1, 2)
    out = photometric.brightness_contrast(images, generator(), 0.2, 0.3)[:, 0, 0]
    factor = (out[:, 1] - out[:, 0]) / 0.2
    added = out[:, 0] - 0.4 * factor
    assert uniform_p(factor, 0.7, 1.3) > SMALLEST_P > uniform_p(factor, 0.68, 1.32)
    assert uniform_p(added, -0.2, 0.2) > SMALLEST_P > uniform_p(added, -0.22, 0.22)
    assert abs(np.corrcoef(factor, added)[0, 1]) < 0.05
    half = photometric.brightness_contrast(images, generator(), p=0.5)
    assert share_is((half != images).flatten(1).any(1), 0.5)
    assert photometric.brightness_contrast(torch.ones(50, 1, 2, 2), generator(), 0.5).amax() == 1


def test_noise_is_normal_with_a_deviation_of_its_own_per_image():
    grey = torch.full((500, 1, 64, 64), 0.5)
    noise = photometric.gaussian_noise(grey, generator(), (0.02, 0.08)) - grey
    deviation = noise.flatten(1).std(dim=1)
    assert uniform_p(deviation, 0.02, 0.08) > SMALLEST_P > uniform_p(deviation, 0.02, 0.09)
    told = stats.kstest((noise[0] / deviation[0]).flatten().numpy(), "norm").pvalue
    assert told > SMALLEST_P
    strong = photometric.gaussian_noise(grey[:20], generator(), (0.44, 0.44))
    assert strong.amin() == 0 and strong.amax() == 1
    assert share_is((photometric.gaussian_noise(grey, generator(), p=0.3) != grey).flatten(1).any(1), 0.3)


def test_widths_and_deviations_of_the_blur(monkeypatch):
    calls = recorded(monkeypatch, "blur")
    photometric.gaussian_blur(torch.rand(DRAWS, 1, 8, 8), generator())
    _, deviation, radius, most = calls[0]
    assert most == 3 and uniform_p(deviation, 0.5, 3.0) > SMALLEST_P > uniform_p(deviation, 0.5, 3.3)
    # Whole numbers from 3 to 7, an even one made odd.
    counts = [int((radius == r).sum()) for r in (1, 2, 3)]
    assert sum(counts) == DRAWS
    assert stats.chisquare(counts, np.array([0.2, 0.4, 0.4]) * DRAWS).pvalue > SMALLEST_P
    assert stats.chisquare(counts, np.array([1, 1, 1]) * DRAWS / 3).pvalue < SMALLEST_P


def test_limits_of_clahe_are_synthetic_evenly(monkeypatch):
    calls = recorded(monkeypatch, "equalise")
    images = torch.rand(DRAWS, 1, 16, 16)
    out = photometric.clahe(images, generator(), p=0.4)
    assert uniform_p(calls[0][1], 1, 4) > SMALLEST_P > uniform_p(calls[0][1], 1, 4.3)
    assert share_is((out != images).flatten(1).any(1), 0.4)


def test_one_of_several_in_their_shares():
    ramp = torch.linspace(0.2, 0.8, 8).expand(DRAWS, 1, 8, 8)
    steps = (step("flip", p=1.0), step("gaussian_noise", std=(0.1, 0.1)))
    out = transforms.Augmenter((step("one_of", p=0.4, shares=(0.3, 0.5), steps=steps),))(ramp, generator())
    same = (out == ramp).flatten(1).all(1)
    turned = (out == ramp.flip(-1)).flatten(1).all(1)
    assert share_is(same, 0.6) and share_is(turned, 0.15) and share_is(~same & ~turned, 0.25)
    assert not share_is(turned, 0.2)
    every = transforms.one_of(ramp, generator(), steps, p=1.0)
    assert share_is((every == ramp.flip(-1)).flatten(1).all(1), 0.5) and not (every == ramp).flatten(1).all(1).any()


def test_one_of_complains():
    with pytest.raises(FerReproError, match="1 steps and 2 shares"):
        transforms.one_of(torch.rand(2, 1, 4, 4), generator(), (step("flip"),), p=1.0, shares=(1, 2))
    with pytest.raises(FerReproError, match="unknown augmentation 'blurr'"):
        transforms.one_of(torch.rand(2, 1, 4, 4), generator(), (step("blurr"),), p=1.0)
