"""Random and posed views against what they are told to be."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from fer_repro.data.protocol import OFFICIAL
from fer_repro.errors import FerReproError
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.evaluation.tta import posed, view_batch, view_count, view_draws, view_weights
from fer_repro.recipe import Recipe, Views, step

TURNED = (step("flip", p=0.5), step("rotate", degrees=30, interpolation="bilinear"))
RANDOM = Views("random", average="probabilities", count=4, steps=TURNED, seed=7)
POSES = tuple(
    (weight, mirrored, zoom, dx, dy, degrees)
    for weight, (mirrored, zoom, dx, dy, degrees) in enumerate(
        itertools.product((0, 1), (1, 0.8), (0, 3), (0, -5), (0, 20.0)), start=1
    )
)
IMAGES = torch.rand(3, 1, 24, 24, generator=torch.Generator().manual_seed(1))


def by_hand(image: np.ndarray, pose: tuple[float, ...]) -> np.ndarray:
    """The pose of one image [S,S], step by step with SciPy: border pixels repeated, linear interpolation."""
    _, mirrored, zoom, dx, dy, degrees = pose
    size = len(image)
    middle = (size - 1) / 2
    image = image[:, ::-1] if mirrored else image
    if zoom != 1:
        image = ndimage.affine_transform(image, [zoom, zoom], middle * (1 - zoom), order=1, mode="nearest")
    image = ndimage.shift(image, (dy, dx), order=0, mode="nearest")
    return ndimage.rotate(image, degrees, reshape=False, order=1, mode="nearest")


def test_poses_are_mirror_zoom_shift_rotation_in_this_order():
    copies = posed(IMAGES, POSES).unflatten(0, (3, len(POSES)))
    assert len(POSES) == 32
    for image, (pose, copy) in itertools.product(range(3), zip(POSES, copies[0], strict=True)):
        copy = copies[image, POSES.index(pose)]
        expected = by_hand(IMAGES[image, 0].double().numpy(), pose)
        np.testing.assert_allclose(copy[0].numpy(), expected, atol=2e-4, err_msg=str(pose))


def test_another_order_would_be_noticed():
    pose = (1.0, 1, 0.8, 3, -5, 20.0)
    expected = by_hand(IMAGES[0, 0].double().numpy(), pose)
    other = by_hand(by_hand(IMAGES[0, 0].double().numpy(), (1, 1, 0.8, 0, 0, 20.0)), (1, 0, 1, 3, -5, 0))
    assert np.abs(other - expected).max() > 0.1


def test_weights_of_poses_make_a_weighted_mean():
    views = Views("poses", average="probabilities", poses=((3.0, 0, 1, 0, 0, 0), (1.0, 1, 1, 0, 0, 0)))
    assert view_weights(views) == [0.75, 0.25]
    images = (IMAGES[:, 0] * 255).round().byte().numpy()
    for average in ("probabilities", "logits"):
        recipe = recipe_with(dataclasses.replace(views, average=average))
        classifier = NetworkClassifier(Linear(), recipe, "cpu")
        ours = classifier.log_probabilities(torch.tensor(images), with_views=True).exp().numpy()
        grey = torch.tensor(images)[:, None] / 255
        straight, mirrored = Linear()(grey), Linear()(grey.flip(-1))
        expected = (0.75 * straight + 0.25 * mirrored).softmax(1)
        if average == "probabilities":
            expected = 0.75 * straight.softmax(1) + 0.25 * mirrored.softmax(1)
        np.testing.assert_allclose(ours, expected.detach().numpy(), rtol=1e-5)


class Linear(torch.nn.Linear):
    def __init__(self) -> None:
        super().__init__(24 * 24, 7)
        torch.manual_seed(0)
        torch.nn.init.normal_(self.weight, std=0.2)

    def forward(self, images):
        return super().forward(images.flatten(1)) - self.bias


def recipe_with(views: Views) -> Recipe:
    return Recipe("probe", step("Linear"), OFFICIAL, input_size=24, views=views, plain=Views())


def test_random_views_repeat_at_every_call_and_differ_among_themselves():
    first, again = (view_batch(IMAGES, RANDOM, 24, view_draws(RANDOM, torch.device("cpu"))) for _ in range(2))
    assert torch.equal(first, again) and first.shape == (12, 1, 24, 24)
    copies = first.unflatten(0, (3, 4))
    assert all(not torch.equal(copies[:, a], copies[:, b]) for a, b in itertools.combinations(range(4), 2))
    other = dataclasses.replace(RANDOM, seed=8)
    assert not torch.equal(first, view_batch(IMAGES, other, 24, view_draws(other, torch.device("cpu"))))


def test_without_a_seed_each_measurement_draws_anew_but_from_the_saved_stream():
    views = dataclasses.replace(RANDOM, seed=None)
    torch.manual_seed(5)
    first, second = (view_draws(views, torch.device("cpu")).initial_seed() for _ in range(2))
    torch.manual_seed(5)
    assert first != second and view_draws(views, torch.device("cpu")).initial_seed() == first


def test_random_views_are_synthetic_on_grey_levels_and_then_normalised():
    """What rotates in is black, not the mean."""
    seen = []

    class Watching(Linear):
        def forward(self, images):
            seen.append(images)
            return super().forward(images)

    recipe = dataclasses.replace(recipe_with(RANDOM), mean=0.5, std=0.25)
    white = torch.full((2, 24, 24), 255, dtype=torch.uint8)
    NetworkClassifier(Watching(), recipe, "cpu").log_probabilities(white, with_views=True)
    assert seen[0].shape[0] == 8 and seen[0].min() == -2 and seen[0].max() == 2


def test_the_image_is_resized_before_it_is_cut():
    views = Views("ten-crop", 20, resize=30)
    batch = view_batch(IMAGES, views, 20)
    assert batch.shape == (30, 1, 20, 20)
    whole = torch.nn.functional.interpolate(IMAGES, size=(30, 30), mode="bilinear", align_corners=False)
    torch.testing.assert_close(batch[0], whole[0, :, :20, :20])
    assert str(views) == "ten-crop, 20 of 30 pixels, mean of logits"


@pytest.mark.parametrize(
    ("views", "words"),
    [
        (Views("random", count=3), "random views need a count"),
        (Views("random", steps=TURNED), "need a count"),
        (Views("poses"), "posed views need poses"),
        (Views("poses", poses=((0.0, 0, 1, 0, 0, 0),)), "weight above 0"),
        (Views("sideways"), "unknown views 'sideways', expected one of plain.*random, poses"),
    ],
)
def test_unfinished_views_are_refused(views, words):
    with pytest.raises(FerReproError, match=words):
        view_count(views)


def test_a_recipe_without_the_later_fields_prints_as_before():
    printed = recipe_with(Views("flip", 20)).as_dict()
    assert printed["views"] == {"kind": "flip", "size": 20, "average": "logits"} and "pretrained" not in printed
    assert recipe_with(RANDOM).as_dict()["views"]["count"] == 4
