"""What is drawn must come from torchvision's distributions; every comparison is shown to notice a wrong one."""

import random

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision import transforms as theirs_of

from fer_repro import transforms
from fer_repro.errors import FerReproError
from fer_repro.recipe import step
from fer_repro.transforms import Augmenter, geometry, mixer

DRAWS = 20_000
SMALLEST_P = 1e-3  # seeds are fixed: a right sampler passes for ever, a wrong one is far below


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def alike(ours: torch.Tensor, theirs: np.ndarray) -> float:
    """p-value that two samples have one distribution: Kolmogorov-Smirnov, or chi-square where few values occur."""
    a, b = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    values = np.union1d(a, b)
    if len(values) > 60:
        return stats.ks_2samp(a, b).pvalue
    counts = np.array([[(side == value).sum() for value in values] for side in (a, b)])
    frequent = counts.sum(0) >= 20
    table = np.column_stack([counts[:, frequent], counts[:, ~frequent].sum(1)])
    return stats.chi2_contingency(table[:, table.sum(0) > 0]).pvalue


def crop_features(top, left, height, width) -> dict[str, np.ndarray]:
    top, left, height, width = (np.asarray(v, dtype=float) for v in (top, left, height, width))
    return {
        "area": height * width,
        "aspect": width / height + 1e-9 * height * width,
        "height": height,
        "width": width,
        "top": top,
        "left": left,
        "whole": (height == 48) & (width == 48),
    }


@pytest.fixture(scope="module")
def torchvision_crops() -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    image = torch.zeros(1, 48, 48)
    get = theirs_of.RandomResizedCrop.get_params
    boxes = np.array([get(image, [0.8, 1.2], [3 / 4, 4 / 3]) for _ in range(DRAWS)])
    return crop_features(*boxes.T)


def test_random_resized_crop_draws_torchvisions_boxes(torchvision_crops):
    ours = crop_features(*geometry.crop_boxes(DRAWS, 48, 48, (0.8, 1.2), (3 / 4, 4 / 3), generator()))
    for name, theirs in torchvision_crops.items():
        assert alike(ours[name], theirs) > SMALLEST_P, name
    # The whole image where no draw fits, and a zoom only inwards.
    assert 0.08 < ours["whole"].mean() < 0.11
    assert ours["area"].mean() / 48**2 == pytest.approx(0.88, abs=0.005)


@pytest.mark.parametrize(
    ("scale", "ratio", "tries"),
    [
        ((0.8, 1.0), (3 / 4, 4 / 3), 10),
        ((0.78, 1.2), (3 / 4, 4 / 3), 10),
        ((0.8, 1.2), (0.8, 1.25), 10),
        ((0.8, 1.2), (3 / 4, 4 / 3), 8),
    ],
)
def test_the_comparison_notices_wrong_boxes(torchvision_crops, monkeypatch, scale, ratio, tries):
    monkeypatch.setattr(geometry, "TRIES", tries)
    wrong = crop_features(*geometry.crop_boxes(DRAWS, 48, 48, scale, ratio, generator()))
    assert min(alike(wrong[name], theirs) for name, theirs in torchvision_crops.items()) < SMALLEST_P


def test_crop_boxes_of_a_long_image_fall_back_as_torchvision_does():
    for height, width in ((20, 96), (96, 20)):
        expected = theirs_of.RandomResizedCrop.get_params(torch.zeros(1, height, width), [2.0, 2.0], [3 / 4, 4 / 3])
        boxes = geometry.crop_boxes(3, height, width, (2.0, 2.0), (3 / 4, 4 / 3), generator())
        assert [tuple(row) for row in torch.stack(boxes, 1).tolist()] == [expected] * 3


def erase_features(top, left, height, width) -> dict[str, np.ndarray]:
    top, left, height, width = (np.asarray(v, dtype=float) for v in (top, left, height, width))
    done = height * width > 0
    return {
        "erased": done,
        "area": (height * width)[done],
        "aspect": (np.log(height[done] / width[done]) + 1e-9 * (height * width)[done]),
        "height": height[done],
        "top": top[done],
        "left": left[done],
    }


def torchvision_erasing(**options) -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    transform, image, boxes = theirs_of.RandomErasing(**options), torch.ones(1, 40, 40), []
    for _ in range(DRAWS // 2):
        hole = transform(image)[0] == 0
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        boxes.append((rows[0], columns[0], len(rows), len(columns)) if len(rows) else (0, 0, 0, 0))
    return erase_features(*np.array(boxes).T)


@pytest.mark.parametrize("area", [(0.02, 0.33), (0.75, 1.0)])
def test_erasing_draws_torchvisions_boxes(area):
    # The second area seldom fits, so that all ten tries count.
    theirs, aspect = torchvision_erasing(p=0.5, scale=area, ratio=(0.3, 3.3)), (0.3, 3.3)

    def worst(p: float, area: tuple[float, float], aspect: tuple[float, float]) -> float:
        ours = erase_features(*transforms.erase_boxes(DRAWS, 40, 40, p, area, aspect, generator()))
        return min(alike(ours[name], sample) for name, sample in theirs.items())

    assert worst(0.5, area, aspect) > SMALLEST_P
    for wrong in ((0.6, area, aspect), (0.5, (area[0], area[1] * 1.1), aspect), (0.5, area, (0.4, 2.5))):
        assert worst(*wrong) < SMALLEST_P


def test_erasing_tries_ten_times(monkeypatch):
    theirs = torchvision_erasing(p=1.0, scale=(0.9, 1.0), ratio=(0.3, 3.3))["erased"]
    for tries, is_right in ((10, True), (8, False)):
        monkeypatch.setattr(transforms, "TRIES", tries)
        done = transforms.erase_boxes(DRAWS, 40, 40, 1.0, (0.9, 1.0), (0.3, 3.3), generator())[2] > 0
        assert bool(alike(done, theirs) > SMALLEST_P) is is_right


def recorded(monkeypatch, module, name: str) -> list:
    """The arguments of every call of ``module.name``."""
    calls, original = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a, **k: calls.append(a) or original(*a, **k))
    return calls


IMAGES = torch.rand(DRAWS, 1, 6, 6, generator=generator(9))


def test_translation_draws_torchvisions_shifts():
    shifts = geometry.shifts(DRAWS, 48, 48, 0.2, 1.0, generator())
    torch.manual_seed(0)
    get = theirs_of.RandomAffine.get_params
    theirs = np.array([get([0.0, 0.0], (0.2, 0.2), None, None, [48, 48])[1] for _ in range(DRAWS)])
    for axis in (0, 1):
        assert alike(shifts[axis], theirs[:, axis]) > SMALLEST_P
        wrong = geometry.shifts(DRAWS, 48, 48, 0.22, 1.0, generator())[axis]
        assert alike(wrong, theirs[:, axis]) < SMALLEST_P
        truncated = (torch.rand(DRAWS, generator=generator()) * 19.2 - 9.6).long()
        assert alike(truncated, theirs[:, axis]) < SMALLEST_P
    assert abs(np.corrcoef(*shifts)[0, 1]) < 0.03
    spared = geometry.shifts(DRAWS, 48, 48, 0.2, 0.5, generator())
    # Half are spared, and a drawn shift is (0, 0) once in 19.2 squared.
    assert share_is(((spared[0] == 0) & (spared[1] == 0)), 0.5 + 0.5 / 19.2**2)


def share_is(chosen: torch.Tensor, p: float) -> bool:
    return stats.binomtest(int(chosen.sum()), len(chosen), p).pvalue > SMALLEST_P


def test_rotation_angles_are_uniform(monkeypatch):
    calls = recorded(monkeypatch, geometry, "warp")
    geometry.rotate(IMAGES, generator(), degrees=10, p=0.5)
    angle = calls[0][1]
    turned = angle[angle != 0]
    assert share_is(angle != 0, 0.5)
    torch.manual_seed(0)
    theirs = [theirs_of.RandomRotation.get_params([-10.0, 10.0]) for _ in range(DRAWS)]
    assert alike(turned, theirs) > SMALLEST_P
    assert alike(turned * 1.05, theirs) < SMALLEST_P


def test_zoom_and_affine_draw_torchvisions_parameters(monkeypatch):
    calls = recorded(monkeypatch, geometry, "warp")
    geometry.affine(IMAGES, generator(), degrees=15, shift=0.1, scale=(0.9, 1.1), p=1.0)
    geometry.scale(IMAGES, generator(), factor=(0.9, 1.1), per_axis=True)
    torch.manual_seed(0)
    theirs = [
        theirs_of.RandomAffine.get_params([-15.0, 15.0], (0.1, 0.1), (0.9, 1.1), None, [6, 6]) for _ in range(DRAWS)
    ]
    _, angle, zoom_x, zoom_y, dx, dy = calls[0][:6]
    assert torch.equal(zoom_x, zoom_y)
    for ours, sample in (
        (angle, [t[0] for t in theirs]),
        (zoom_x, [t[2] for t in theirs]),
        (dx, [t[1][0] for t in theirs]),
        (dy, [t[1][1] for t in theirs]),
    ):
        assert alike(ours, sample) > SMALLEST_P
    assert alike(calls[1][2], [t[2] for t in theirs]) > SMALLEST_P
    assert abs(np.corrcoef(calls[1][2], calls[1][3])[0, 1]) < 0.03


def test_flip_and_its_fusion_are_fair_coins():
    ramp = torch.arange(6.0).div(6).expand(DRAWS, 1, 6, 6).clone()
    assert share_is(geometry.flip(ramp, generator(), p=0.5)[:, 0, 0, 0] > 0, 0.5)
    assert share_is(geometry.flip(ramp, generator(), p=0.2)[:, 0, 0, 0] > 0, 0.2)
    assert not share_is(geometry.flip(ramp, generator(), p=0.23)[:, 0, 0, 0] > 0, 0.2)
    upside_down = geometry.flip(ramp.transpose(2, 3), generator(), p=1.0, vertical=True)
    assert torch.equal(upside_down, ramp.transpose(2, 3).flip(2))


def test_jitter_draws_torchvisions_factors_and_order(monkeypatch):
    calls = recorded(monkeypatch, transforms, "adjust")
    out = transforms.jitter(IMAGES, generator(), brightness=0.5, contrast=0.5, p=0.5)
    light, spread, light_first = calls[0][1:4]
    torch.manual_seed(0)
    get = theirs_of.ColorJitter.get_params
    theirs = [get([0.5, 1.5], [0.5, 1.5], None, None) for _ in range(DRAWS)]
    first = np.array([int((order == 0).nonzero()) < int((order == 1).nonzero()) for order, *_ in theirs])
    assert alike(light, [t[1] for t in theirs]) > SMALLEST_P
    assert alike(spread, [t[2] for t in theirs]) > SMALLEST_P
    assert alike(light_first, first) > SMALLEST_P
    assert alike(light**1.05, [t[1] for t in theirs]) < SMALLEST_P
    assert share_is((out != IMAGES).flatten(1).any(1), 0.5)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
def test_mixup_shares_are_beta(alpha):
    source, target = generator(), torch.eye(7)[:2]
    shares = []
    while len(shares) < 4000:
        mixed = transforms.mixup(torch.zeros(2, 1, 1, 1), target, source, alpha)[1]
        if 0 < mixed[0, 0] < 1:  # the permutation swapped the two
            shares.append(float(mixed[0, 0]))
    assert stats.kstest(shares, "beta", args=(alpha, alpha)).pvalue > SMALLEST_P
    assert stats.kstest(shares, "beta", args=(alpha * 1.3, alpha * 1.3)).pvalue < SMALLEST_P


VGGNET = (
    step("random_resized_crop", size=48, scale=(0.8, 1.2), ratio=(3 / 4, 4 / 3)),
    step("translate", fraction=0.2, p=0.5),
    step("flip", p=0.5),
    step("rotate", degrees=10, p=0.5, interpolation="nearest"),
    step("ten_crop", size=40),
    step("erase", p=0.5, area=(0.02, 0.33), aspect=(0.3, 3.3), value=0.0),
)


@pytest.mark.parametrize("size", [24, 48, 64])
def test_fused_steps_equal_the_same_steps_one_by_one(size):
    images = torch.rand(200, 1, 48, 48, generator=generator(2))
    steps = (step("random_resized_crop", size=size), *VGGNET[1:4])
    together, apart = Augmenter(steps), [Augmenter((one,)) for one in steps]
    assert len(together._functions) < len(apart)
    source, expected = generator(3), images.clone()
    for one in apart:
        expected = one(expected, source)
    torch.testing.assert_close(together(images.clone(), generator(3)), expected, rtol=0, atol=1e-6)


def test_the_batch_is_multiplied_image_by_image():
    augmenter = Augmenter(VGGNET)
    assert augmenter.copies == 10
    # Grey levels that no step but black filling changes: every crop must come from its own image.
    levels = torch.arange(1, 9).div(10).view(-1, 1, 1, 1).expand(-1, 1, 48, 48).clone()
    crops = augmenter(levels, generator())
    assert crops.shape == (80, 1, 40, 40)
    torch.testing.assert_close(crops.flatten(1).max(1).values, torch.arange(1, 9).div(10).repeat_interleave(10))


def test_each_crop_is_erased_on_its_own():
    bright = torch.ones(64, 1, 48, 48)
    crops = Augmenter(VGGNET[-2:])(bright, generator())
    holes = (crops == 0).flatten(1)
    assert 250 < holes.any(1).sum() < 390
    assert len(holes[holes.any(1)].unique(dim=0)) > 0.95 * holes.any(1).sum()


def test_only_the_given_generator_is_synthetic_from():
    images = torch.rand(16, 1, 48, 48, generator=generator(2))
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    first = Augmenter(VGGNET)(images.clone(), generator(4))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1] and random.getstate() == before[2]
    torch.rand(5)
    assert torch.equal(Augmenter(VGGNET)(images.clone(), generator(4)), first)
    assert not torch.equal(Augmenter(VGGNET)(images.clone(), generator(5)), first)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (step("blur"), "unknown augmentation 'blur', expected one of"),
        (step("flip", chance=0.5), "'flip' has no option 'chance', expected one of p, vertical"),
        (step("rotate", p=0.5), "'rotate' needs the option 'degrees'"),
    ],
)
def test_wrong_steps_are_told_before_training(wrong, words):
    with pytest.raises(FerReproError, match=words):
        Augmenter((wrong,))
    with pytest.raises(FerReproError, match="unknown mix 'cutmix'"):
        mixer(step("cutmix"))


def test_wrong_values_are_told():
    images = torch.rand(2, 1, 48, 48)
    with pytest.raises(FerReproError, match="five-crop of 50 pixels does not fit into images of 48x48"):
        Augmenter((step("five_crop", size=50),))(images, generator())
    with pytest.raises(FerReproError, match="unknown interpolation 'cubic'"):
        Augmenter((step("rotate", degrees=3, interpolation="cubic"),))(images, generator())
    with pytest.raises(FerReproError, match="unknown fill 'black', expected a grey value, 'edge' or 'blended'"):
        Augmenter((step("rotate", degrees=3, fill="black"),))(images, generator())
