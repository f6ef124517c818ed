import numpy as np
import pytest
import torch

from fer_repro import parameters
from fer_repro.errors import FerReproError
from fer_repro.training.execution import resolve_device

GOOD = {name: described.default for name, described in parameters.FIELDS.items()} | {"variant": "vggnet"}


def test_defaults_pass_and_are_smoke():
    assert parameters.check(GOOD, "vggnet").profile == "smoke"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epohs": 2}, ["epohs", "epochs"]),
        ({"variant": "vgnet"}, ["vgnet", "vggnet"]),
        ({"variant": "resnet18-tricks"}, ["resnet18-tricks", "vggnet"]),
        ({"protocol": "offical"}, ["offical", "official"]),
        ({"profile": "ful"}, ["ful", "full"]),
        ({"device": "gpu"}, ["gpu", "cuda"]),
        ({"data": "fer"}, ["fer", "fer2013"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"seed": 2**31}, ["seed", "2147483648", "from 0 to 2,147,483,647"]),
        ({"seed": 10**40}, ["seed", "from 0 to"]),
        ({"seed": np.int64(-1)}, ["seed", "-1"]),
        ({"seed": np.float32(1)}, ["seed", "1.0"]),
        ({"seed": np.bool_(True)}, ["seed", "True"]),
        ({"seed": float("nan")}, ["seed", "nan"]),
        ({"seed": "1"}, ["seed", "'1'"]),
        ({"seed": None}, ["seed", "None"]),
        ({"profile": "FULL"}, ["FULL", "did you mean 'full'"]),
        ({"variant": "VGGNet"}, ["VGGNet", "did you mean vggnet"]),
        ({"seed": 1.5}, ["seed", "1.5"]),
        ({"seed": True}, ["seed", "True"]),
        ({"epochs": 0}, ["epochs", "0"]),
        ({"epochs": "3"}, ["epochs", "'3'"]),
        ({"resume": "no"}, ["resume", "no"]),
        ({"results_dir": 3}, ["results_dir", "3"]),
    ],
)
def test_wrong_names_and_values_are_one_sentence(change, words):
    with pytest.raises(FerReproError) as caught:
        parameters.check(GOOD | change, "vggnet")
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_seeds_to_the_last_one_and_of_numpy_are_plain_numbers():
    for seed in (0, 2**31 - 1, np.int64(7), np.uint8(7)):
        checked = parameters.check(GOOD | {"seed": seed, "epochs": np.int32(2)})
        assert type(checked.seed) is int and checked.seed == seed and type(checked.epochs) is int


def test_a_misspelt_papermill_parameter_is_found_in_the_namespace():
    namespace = GOOD | {"In": ["x"], "Out": {}, "_i": "x", "page": parameters, "print": print}
    assert parameters.from_namespace(namespace, "vggnet").variant == "vggnet"
    with pytest.raises(FerReproError, match="'epohs'.*'epochs'"):
        parameters.from_namespace(namespace | {"epohs": 2}, "vggnet")


def test_a_chapter_without_a_parameter_is_told_which():
    with pytest.raises(FerReproError, match="sets no seed"):
        parameters.from_namespace({k: v for k, v in GOOD.items() if k != "seed"}, "vggnet")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_cuda_is_an_error():
    with pytest.raises(FerReproError, match="no CUDA"):
        parameters.check(GOOD | {"device": "cuda"})
    assert resolve_device("auto") == "cpu"
