"""Views averaged as told, in any batch size; costs against numbers worked out elsewhere."""

import platform
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fer_repro.data.protocol import OFFICIAL
from fer_repro.errors import FerReproError
from fer_repro.evaluation import cost, predict
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.papers import resnet18_tricks, vggnet
from fer_repro.recipe import Recipe, Views, step

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 48, 48), dtype=np.uint8)


class Probe(nn.Module):
    """A fixed random linear map of all pixels of a ``size`` input, with the logits first in a tuple."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.map = nn.Linear(size * size, 7)
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, images):
        self.sizes.append(tuple(images.shape))
        return self.map(images.flatten(1)), images


def classifier(views: Views, plain: Views = Views("centre-crop", 40), size: int = 40) -> NetworkClassifier:  # noqa: B008
    recipe = Recipe("probe", step("Probe"), OFFICIAL, input_size=size, mean=0.4, std=0.2, views=views, plain=plain)
    torch.manual_seed(0)
    return NetworkClassifier(Probe(size), recipe, "cpu")


def crops_by_hand(image: np.ndarray) -> list[np.ndarray]:
    corners = [image[:40, :40], image[:40, 8:], image[8:, :40], image[8:, 8:], image[4:44, 4:44]]
    mirror = image[:, ::-1]
    return corners + [mirror[:40, :40], mirror[:40, 8:], mirror[8:, :40], mirror[8:, 8:], mirror[4:44, 4:44]]


def softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


@pytest.mark.parametrize("average", ["logits", "probabilities"])
@pytest.mark.parametrize(
    ("kind", "chosen"), [("ten-crop", slice(0, 10)), ("five-crop", slice(0, 5)), ("flip", slice(4, 10, 5))]
)
def test_views_are_averaged_as_told(kind, chosen, average):
    ours = classifier(Views(kind, 40, average))
    weight, bias = (tensor.detach().double().numpy() for tensor in (ours.model.map.weight, ours.model.map.bias))
    expected = []
    for image in IMAGES:
        inputs = np.stack([(crop / 255 - 0.4) / 0.2 for crop in crops_by_hand(image)[chosen]]).reshape(-1, 1600)
        logits = inputs @ weight.T + bias
        expected.append(softmax(logits.mean(0)) if average == "logits" else softmax(logits).mean(0))
    got = ours.predict_proba(IMAGES, with_views=True)
    assert got.dtype == np.float32 and got.shape == (9, 7)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(got.sum(1), 1, atol=1e-5)


def test_plain_is_the_centre_crop_or_the_resized_whole():
    ours = classifier(Views("ten-crop", 40))
    weight, bias = (tensor.detach().numpy() for tensor in (ours.model.map.weight, ours.model.map.bias))
    inputs = ((IMAGES[:, 4:44, 4:44] / 255 - 0.4) / 0.2).reshape(-1, 1600)
    np.testing.assert_allclose(ours.predict_proba(IMAGES), softmax(inputs @ weight.T + bias), atol=1e-5)
    whole = classifier(Views(), Views(), size=64)
    whole.predict_proba(IMAGES)
    assert whole.model.sizes == [(9, 1, 64, 64)]


def test_batches_of_any_size_give_the_same(monkeypatch):
    ours = classifier(Views("ten-crop", 40))
    together = ours.predict_proba(IMAGES, with_views=True)
    monkeypatch.setitem(predict.PIXELS_PER_PASS, "cpu", 1600 * 10 * 4)
    ours.model.sizes.clear()
    np.testing.assert_allclose(ours.predict_proba(IMAGES, with_views=True), together, atol=1e-6)
    assert [size[0] for size in ours.model.sizes] == [40, 40, 10]
    assert ours.predict_proba(IMAGES[:0]).shape == (0, 7)


def test_prediction_does_not_train():
    ours = classifier(Views("flip", 40))
    ours.model.train()
    ours.model.dropout = nn.Dropout(0.5)
    modes = []
    ours.model.register_forward_pre_hook(lambda module, args: modes.append((module.training, torch.is_grad_enabled())))
    ours.predict_proba(IMAGES)
    assert modes == [(False, False)] and ours.model.training


def test_images_of_another_type_are_refused():
    with pytest.raises(FerReproError, match=r"images are float64 \[9, 48, 48\], expected uint8 \[N,48,48\]"):
        classifier(Views()).predict_proba(IMAGES / 255)


@pytest.mark.parametrize(
    ("paper", "parameters", "multiply_adds"), [(vggnet, 29_890_759, 350.5e6), (resnet18_tricks, 11_171_271, 866e6)]
)
def test_costs_of_the_two_networks(paper, parameters, multiply_adds):
    network = paper.build(paper.recipe("official", "full"))
    assert cost.count_parameters(network) == parameters
    assert cost.count_multiply_adds(network, (1, 1, 40, 40)) == pytest.approx(multiply_adds, rel=2e-3)
    assert network.training


def test_multiply_adds_by_hand():
    network = nn.Sequential(nn.Conv2d(1, 6, 5, stride=4), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6 * 81, 7))
    assert cost.count_multiply_adds(network, (1, 1, 40, 40)) == 6 * 25 * 81 + 6 * 81 * 7
    network[0].weight.requires_grad_(False)
    assert cost.count_parameters(network) == 6 + 12 + 6 * 81 * 7 + 7


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of the process")
def test_peak_memory_is_the_high_water_mark_in_bytes():
    status = Path("/proc/self/status").read_text()
    kibibytes = int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1))
    assert cost.peak_memory(torch.device("cpu")) == pytest.approx(kibibytes * 1024, rel=0.02)


def test_peak_memory_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert cost.peak_memory(torch.device("cpu")) == 0


def test_environment_names_versions_but_not_the_machine():
    told = cost.environment()
    assert told["torch"] == torch.__version__ and told["python"] == platform.python_version() and told["cores"] >= 1
    assert platform.node() not in str(told.values()) and "/" not in str(told["cpu"])
    assert (told["gpu"] is None) == (not torch.cuda.is_available())


def test_recipes_views_are_used():
    recipe = vggnet.recipe("official", "smoke")
    ours = NetworkClassifier(vggnet.build(recipe), recipe, "cpu")
    seen = []
    ours.model.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    ours.predict_proba(IMAGES)
    ours.predict_proba(IMAGES, with_views=True)
    assert seen == [(9, 1, 40, 40), (90, 1, 40, 40)]


def test_activations_of_a_batch_are_counted():
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 7))
    # Kept in float32: the five inputs of 64 pixels for the convolution, and the ReLU's output, once for itself and
    # the linear layer.
    expected = 4 * 5 * (64 + 128)
    assert cost.count_activation_bytes(network, (5, 1, 8, 8)) == expected
    with torch.device("meta"):
        weightless = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 7))
    assert cost.count_activation_bytes(weightless.eval(), (5, 1, 8, 8)) == expected and not weightless.training
