"""The spatial transformer, the weight penalty on the linear layers, the recorded windows, the search for a recipe."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from fer_repro import data, papers
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.data.protocol import OFFICIAL
from fer_repro.errors import FerReproError
from fer_repro.papers import deep_emotion
from fer_repro.papers.deep_emotion import DeepEmotion, Localisation, PenalisedCrossEntropy, figures, recipe_search, warp
from fer_repro.reproduce import reproduce
from fer_repro.training.run import Run


@pytest.fixture
def images():
    return torch.rand(4, 1, 48, 48, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("kind", "map_size"), [("figure", 3), ("valid", 10), ("tutorial", 8)])
def test_localisation_networks_have_the_sizes_their_sources_print(kind, map_size, images):
    network = Localisation(kind)
    assert network.look(images).shape == (4, 10, map_size, map_size)
    assert network.answer[0].in_features == 10 * map_size**2
    network.start_as_identity()
    torch.testing.assert_close(network(images), torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(4, 2, 3))


def test_an_untrained_transformer_leaves_the_network_as_it_is(images):
    with_stn, without = DeepEmotion().eval(), DeepEmotion(localisation="none").eval()
    without.load_state_dict({k: v for k, v in with_stn.state_dict().items() if not k.startswith("localisation")})
    torch.testing.assert_close(with_stn(images)[0], without(images)[0], atol=1e-5, rtol=1e-4)


def test_warp_shifts_by_whole_pixels_and_fills_with_zero():
    maps = torch.rand(1, 2, 9, 9)
    # One ninth of the width is 2/9 on the scale of -1 to 1: every place reads its right neighbour.
    theta = torch.tensor([[[1.0, 0, 2 / 9], [0, 1, 0]]])
    moved = warp(maps, theta)
    torch.testing.assert_close(moved[..., :-1], maps[..., 1:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(moved[..., -1], torch.zeros(1, 2, 9), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["deep-emotion", "deep-emotion-input-stn", "deep-emotion-wide-localisation"])
def test_the_classification_error_reaches_the_localisation_network(name, images):
    torch.manual_seed(0)
    network = deep_emotion.build(papers.get(name).recipe("official", "full"))
    functional.cross_entropy(network(images)[0], torch.tensor([0, 1, 2, 3])).backward()
    assert network.localisation.answer[-1].bias.grad.abs().sum() > 0
    assert network.localisation.answer[-1].weight.grad.abs().sum() > 0


def test_the_weight_penalty_is_the_squared_norm_of_the_two_linear_layers(images):
    network, targets = DeepEmotion().eval(), torch.tensor([0, 1, 2, 3])
    weights = [network.hidden[0].weight, network.classifier.weight]
    logits, squared_norm = network(images)
    assert squared_norm.item() == pytest.approx(sum(w.square().sum().item() for w in weights), rel=1e-5)
    both = torch.autograd.grad(PenalisedCrossEntropy(0.25)((logits, squared_norm), targets), weights, retain_graph=True)
    plain = torch.autograd.grad(functional.cross_entropy(logits, targets), weights)
    for penalised, without, weight in zip(both, plain, weights, strict=True):
        torch.testing.assert_close(penalised - without, 2 * 0.25 * weight, atol=1e-5, rtol=1e-3)


def test_dropout_is_off_in_evaluation(images):
    network = DeepEmotion().eval()
    torch.testing.assert_close(network(images)[0], network(images)[0], atol=0, rtol=0)


def test_a_run_records_the_windows_of_the_scored_faces():
    result = reproduce("deep-emotion", profile="smoke", epochs=1, device="cpu")
    found = figures.recorded(result)
    assert found["n"] == (result.predictions["PrivateTest_labels"]).size
    assert [face["label"] for face in found["faces"]] == list(range(7))
    assert all(len(face["theta"]) == 6 for face in found["faces"]) and len(found["mean"]) == 6
    images, synthetic = figures.faces_for(result)
    assert images.shape == (7, 48, 48) and synthetic
    theta = np.array(found["faces"][0]["theta"]).reshape(1, 2, 3)
    again = result.classifier.windows(images[:1])
    np.testing.assert_allclose(again, theta, atol=1e-4)


def test_without_a_transformer_there_is_nothing_to_show():
    result = reproduce("deep-emotion-no-stn", profile="smoke", epochs=1, device="cpu")
    with pytest.raises(FerReproError, match="no transformer"):
        figures.recorded(result)


def test_outline_of_the_identity_is_the_image():
    corners = figures.outline(np.array([[1, 0, 0], [0, 1, 0]]))
    assert corners.min() == -0.5 and corners.max() == 47.5
    zoomed = figures.outline(np.array([[0.5, 0, 0], [0, 0.5, 0]]))
    assert zoomed.min() == 11.5 and zoomed.max() == 35.5
    face = np.arange(48 * 48, dtype=float).reshape(1, 48, 48) % 251
    np.testing.assert_allclose(figures.through(face, np.array([[[1, 0, 0], [0, 1, 0]]])), face, atol=1e-3)


def test_the_search_holds_what_it_says():
    rows = recipe_search.SEARCH.read()
    tried = {one.letter: one for one in recipe_search.TRIED}
    assert len(tried) == len(recipe_search.TRIED) <= 10 and {row["recipe"] for row in rows} == set(tried)
    for row in rows:
        recipe = tried[row["recipe"]].recipe
        assert row["recipe_sha256"] == recipe.sha256() and row["change"] == tried[row["recipe"]].change
        assert recipe.protocol == OFFICIAL and row["n"] == 3589
        assert row["accuracy"] == pytest.approx(row["correct"] / row["n"], abs=6e-5)


def test_the_official_recipe_is_the_best_of_the_search_trained_for_longer():
    best = max(recipe_search.SEARCH.read(), key=lambda row: row["accuracy"])
    searched = next(tried for tried in recipe_search.TRIED if tried.letter == best["recipe"]).recipe
    official = papers.get("deep-emotion").recipe("official", "full")
    assert official.epochs > searched.epochs
    longer = dataclasses.replace(searched, stages=(searched.stages[0].shortened(official.epochs),))
    assert longer.sha256() == official.sha256()


def test_all_networks_share_the_official_training():
    first = papers.get("deep-emotion").recipe("official", "full")
    for name in deep_emotion.RECIPES:
        other = papers.get(name).recipe("official", "full")
        assert (other.stages, other.augment, other.loss, other.selection) == (
            first.stages,
            first.augment,
            first.loss,
            first.selection,
        )


def test_what_the_release_of_the_wide_network_loses_is_declared():
    """Its loaders drop the last incomplete batch of training and selection; ours keep both."""
    recipe = papers.get("deep-emotion-wide-localisation").recipe("claimed", "full")
    training, select, _ = OFFICIAL_COUNTS.sum(axis=1)
    lost = f"{training % recipe.batch_size} and {select % recipe.batch_size} images"
    assert lost == "37 and 5 images" and any(lost in entry.why for entry in recipe.deviations)


def test_a_windows_run_gives_probabilities(tmp_path):
    faces = data.load("synthetic", size=(64, 32, 16))
    recipe = papers.get("deep-emotion").recipe("official", "smoke").with_epochs(1)
    run = Run(recipe, 0, "cpu", tmp_path, faces.digest)
    classifier = deep_emotion.fit(OFFICIAL.split(faces), run)
    np.testing.assert_allclose(classifier.predict_proba(faces.images[:5]).sum(axis=1), 1, atol=1e-5)
