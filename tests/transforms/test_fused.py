"""Steps done in one resampling have the draws and the pixels that they have one by one."""

import itertools

import pytest
import torch

from fer_repro import papers
from fer_repro.recipe import step
from fer_repro.transforms import Augmenter

TRANSLATE = step("translate", fraction=0.2, p=0.7)
FLIP = step("flip", p=0.5)
NEAREST = step("rotate", degrees=30, p=0.8)
ZOOM = step("scale", factor=(0.7, 1.3), per_axis=True)
BILINEAR = step("affine", degrees=15, shift=0.1, scale=(0.8, 1.2), interpolation="bilinear", p=0.9)
BLENDED = step("affine", degrees=15, shift=0.1, interpolation="bilinear", fill="blended", truncated=True, p=0.9)
EDGE = step("affine", degrees=15, shift=0.1, scale=(0.8, 1.2), interpolation="bilinear", fill="edge")
NETWORKS = [name for name, variant in papers.variants().items() if variant.build and not variant.ablation_of]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def share_that_differs(steps, n: int = 200) -> float:
    """Of the pixels, between the steps fused and one by one, from equal generators."""
    images = torch.rand(n, 1, 48, 48, generator=generator(2))
    fused, apart = Augmenter(steps), Augmenter(steps, fused=False)
    left, right = generator(3), generator(3)
    differ = (fused(images.clone(), left) - apart(images.clone(), right)).abs() > 1e-4
    assert torch.equal(left.get_state(), right.get_state()), "another number of draws"
    return differ.float().mean().item()


@pytest.mark.parametrize(
    "affine", [NEAREST, ZOOM, BILINEAR, EDGE, BLENDED], ids=["rotate", "scale", "affine", "edge", "blended"]
)
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_shift_mirror_and_map_in_any_order(affine, order):
    steps = [(TRANSLATE, FLIP, affine)[index] for index in order]
    # A source point that lies just between two pixels may be rounded to either.
    assert share_that_differs(tuple(steps)) < 1e-4


@pytest.mark.parametrize(
    ("steps", "functions"),
    [
        ((TRANSLATE, FLIP, NEAREST), 1),
        ((BILINEAR, FLIP, TRANSLATE), 1),
        ((TRANSLATE, BILINEAR), 2),  # the shift's black border is blended with the face
        ((FLIP, NEAREST, BILINEAR), 2),  # two resamplings
        ((FLIP, FLIP, NEAREST), 2),
        ((step("flip", vertical=True), NEAREST), 2),
        ((step("translate", fraction=0.1, fill=0.5), NEAREST), 2),
        ((TRANSLATE, FLIP), 2),  # nothing to resample
        ((FLIP, step("jitter", brightness=0.2), NEAREST), 3),
    ],
)
def test_only_what_keeps_the_pixels_is_fused(steps, functions):
    assert len(Augmenter(steps)._functions) == functions
    assert share_that_differs(steps, n=40) < 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_official_recipes_are_unchanged_by_it(name):
    assert share_that_differs(papers.get(name).recipe("official", "full").augment, n=60) < 1e-4


def test_the_comparison_notices_a_wrong_pixel():
    wrong = (TRANSLATE, FLIP, step("rotate", degrees=30, p=0.8, fill=0.1))
    images = torch.rand(20, 1, 48, 48, generator=generator(2))
    right = Augmenter((TRANSLATE, FLIP, NEAREST))(images.clone(), generator(3))
    assert (Augmenter(wrong)(images.clone(), generator(3)) - right).abs().gt(1e-4).any()
