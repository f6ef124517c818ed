"""What a user would write must do what our batched steps do; every comparison is shown to notice a wrong transform."""

from __future__ import annotations

import _pil
import numpy as np
import pytest
import torch
from _cases import TITLES, Case
from PIL import Image
from torchvision import transforms

from fer_repro import papers
from fer_repro.data import synthetic
from fer_repro.errors import FerReproError
from fer_repro.evaluation.tta import view_batch, view_count
from fer_repro.recipe import Step, Views, step
from fer_repro.transforms import AUGMENTATIONS, Augmenter
from fer_repro.transforms.geometry import resize

DRAWS = 800
ALIKE = 0.016  # of the grey range: mean distance of two mean pictures; chance alone leaves about a third of it


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """One bright synthetic face, uint8 [48,48]."""
    return np.clip(synthetic.draw(seed=0, size=(7, 7, 7)).images[3].astype(int) + 40, 0, 255).astype(np.uint8)


def mean_picture(face: np.ndarray, one: Step, draws: int = DRAWS) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation over many draws of one step, by our batched code and by its torchvision counterpart."""
    batch = torch.from_numpy(face).float().div(255).expand(draws, 1, 48, 48).clone()
    ours = Augmenter((one,))(batch, torch.Generator().manual_seed(0)).unflatten(0, (draws, -1))
    torch.manual_seed(0)
    change = _pil.counterpart(one, 48)
    image = Image.fromarray(face)
    if one.name == "erase":
        theirs = torch.stack([change(transforms.functional.to_tensor(image))[None] for _ in range(draws)])
    else:
        as_tuple = [change(image) for _ in range(draws)]
        as_tuple = [copies if isinstance(copies, tuple) else (copies,) for copies in as_tuple]
        theirs = torch.stack([torch.stack([transforms.functional.to_tensor(c) for c in t]) for t in as_tuple])
    assert ours.shape == theirs.shape
    return tuple(torch.cat((side.mean(0), side.std(0))) for side in (ours, theirs))


def distance(pictures: tuple[torch.Tensor, torch.Tensor]) -> float:
    return float((pictures[0] - pictures[1]).abs().mean())


STEPS = [
    (step("random_resized_crop", size=40, scale=(0.5, 0.9)), step("random_resized_crop", size=40, scale=(0.2, 0.6))),
    (step("translate", fraction=0.2, p=0.5), step("translate", fraction=0.2, p=0.9)),
    (step("translate", fraction=0.2, p=1.0, fill=1.0), step("translate", fraction=0.2, p=1.0)),
    (step("flip", p=0.2), step("flip", p=0.5)),
    (step("flip", p=0.7, vertical=True), step("flip", p=0.4, vertical=True)),
    (step("rotate", degrees=30, p=0.5), step("rotate", degrees=30, p=1.0)),
    (step("rotate", degrees=30, interpolation="bilinear", fill="edge"), step("rotate", degrees=30, fill=0.0)),
    (step("scale", factor=(0.6, 0.9)), step("scale", factor=(0.8, 1.2))),
    (
        step("affine", degrees=15, shift=0.1, scale=(0.9, 1.1), interpolation="bilinear", fill="edge"),
        step("affine", degrees=15, shift=0.3, scale=(0.9, 1.1), interpolation="bilinear", fill="edge"),
    ),
    (
        step("affine", degrees=10, scale=(0.6, 1.4), per_axis=True, interpolation="bilinear", fill="edge"),
        step("affine", degrees=10, scale=(0.9, 1.1), per_axis=True, interpolation="bilinear", fill="edge"),
    ),
    (step("jitter", brightness=0.5, contrast=0.5, p=0.5), step("jitter", brightness=0.5, contrast=0.5, p=1.0)),
    (step("erase", p=0.5), step("erase", p=0.9)),
    (step("crop", size=40, padding=4), step("crop", size=40)),
    (
        step("affine", degrees=10, shift=0.2, scale=(0.9, 1.1), per_axis=True, interpolation="bilinear"),
        step("affine", degrees=10, scale=(0.9, 1.1), per_axis=True, interpolation="bilinear"),
    ),
    (step("brightness_contrast", brightness=0.3, p=0.5), step("brightness_contrast", brightness=0.3, p=1.0)),
    (step("gaussian_noise", std=(0.2, 0.44), p=0.5), step("gaussian_noise", std=(0.2, 0.44))),
    (step("gaussian_blur", sigma=(2.0, 3.0), p=0.3), step("gaussian_blur", sigma=(2.0, 3.0), p=1.0)),
    (step("clahe", p=0.7), step("clahe", p=0.4)),
    (
        step("one_of", steps=(step("clahe"), step("flip", p=1.0)), shares=(0.3, 0.7), p=0.8),
        step("one_of", steps=(step("clahe"), step("flip", p=1.0)), shares=(0.7, 0.3), p=0.8),
    ),
    (step("lanczos4", size=64), None),
    (step("resize", size=64), None),
    (step("centre_crop", size=40), None),
    (step("five_crop", size=40), None),
    (step("ten_crop", size=40), None),
]


@pytest.mark.parametrize(("right", "wrong"), STEPS, ids=[str(right) for right, _ in STEPS])
def test_a_step_and_its_counterpart_draw_the_same_pictures(face, right, wrong):
    ours, theirs = mean_picture(face, right, DRAWS if wrong else 2)  # what draws nothing is the same every time
    assert distance((ours, theirs)) < ALIKE
    if wrong is not None:
        assert distance((ours, mean_picture(face, wrong)[1])) > ALIKE


def test_every_augmentation_has_a_counterpart():
    assert set(_pil.COUNTERPARTS) == set(AUGMENTATIONS) == {right.name for right, _ in STEPS}
    with pytest.raises(FerReproError, match="no torchvision counterpart of the augmentation 'blur'"):
        _pil.counterpart(step("blur"), 48)


@pytest.mark.parametrize("protocol", papers.PROTOCOLS)
def test_every_recipe_of_the_book_gets_the_shapes_that_ours_gives(face, protocol):
    seen = set()
    for variant in papers.variants().values():
        recipe = variant.recipe(protocol, "full")
        if not recipe.stages or (recipe.augment, recipe.input_size) in seen:
            continue
        seen.add((recipe.augment, recipe.input_size))
        ours = Augmenter(recipe.augment)(torch.rand(2, 1, 48, 48), torch.Generator().manual_seed(0))
        ours = resize(ours, recipe.input_size).unflatten(0, (2, -1))
        theirs = _pil.training_transform(recipe)(Image.fromarray(face))
        assert theirs.dtype == torch.float32
        assert (theirs if theirs.ndim == 4 else theirs[None]).shape == ours.shape[1:], variant.id
    assert len(seen) >= 5


def test_the_order_is_the_recipes_and_normalisation_comes_last(face):
    recipe = Case("resnet18-tricks").recipe()
    names = [type(part).__name__ for part in _pil.training_transform(recipe).transforms]
    assert names == [
        "RandomResizedCrop",
        "RandomApply",
        "RandomApply",
        "RandomHorizontalFlip",
        "RandomApply",
        "FiveCrop",
        "EachCrop",
    ]
    crops = _pil.training_transform(recipe).transforms[-1]
    assert [type(part).__name__ for part in crops.transform.transforms] == ["ToTensor", "RandomErasing", "Normalize"]
    assert float(_pil.training_transform(recipe)(Image.fromarray(face)).max()) <= 1 / 255 + 1e-6


@pytest.mark.parametrize("name", ["vggnet", "resemotenet", "deep-emotion"])
def test_the_views_are_those_of_the_library(face, name):
    recipe = Case(name).recipe()
    for views in {recipe.views, recipe.plain}:
        whole = torch.from_numpy(face).float().div(255)[None, None]
        ours = (view_batch(whole, views, recipe.input_size) - recipe.mean) / recipe.std
        theirs = _pil.view_transform(recipe, views)(Image.fromarray(face))
        assert theirs.shape == ours.shape and len(theirs) == view_count(views)
        # Pillow rounds a resized picture to whole grey levels.
        torch.testing.assert_close(theirs, ours, rtol=0, atol=0.005 if recipe.input_size == 64 else 1e-6)
    with pytest.raises(FerReproError, match="no torchvision counterpart of the test-time augmentation 'flip'"):
        _pil.view_transform(recipe, Views("flip"))


def test_the_cases_are_known_by_name():
    for name in TITLES:
        case = Case(name, small=True)
        recipe = case.recipe()
        assert recipe.batch_size >= 4 and callable(case.loss(recipe))
    with pytest.raises(FerReproError, match="there is no network 'vgg' to measure: expected some of vggnet"):
        Case("vgg")
