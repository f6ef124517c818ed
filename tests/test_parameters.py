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
        ({"runs_dir": None}, ["runs_dir", "None", "expected a text"]),
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


# What people call their own things in a notebook: none of it is a parameter.
OWN = """x y i n seeds epoch variants profiles protocols device_name device_id device2 batch_size model df fig ax path
 root name results results_path result out data_dir data1 xdata lr learning_rate n_epochs num_epochs max_epochs
 SEED EPOCHS DATA_DIR seed0 seed_1 my_seed random_seed speed need feed date metadata variance variable resumed
 profiler folder file title label color size count total index row key text line word url start end step steps
 state run runs run_folder slug chapter board page score accuracy loss best version threshold verbose workers jobs
 config debug checkpoint""".split()


@pytest.mark.parametrize("value", [1, 0.1, "a text", None, [1, 2]])
def test_a_users_own_names_are_not_judged(value):
    namespace = GOOD | dict.fromkeys(OWN, value) | {"PAPERMILL_INPUT_PATH": "a.ipynb", "_hidden": 1}
    assert parameters.from_namespace(namespace, "vggnet").seed == 0
    assert parameters.set_in(namespace | {"measured_dir": ""}, ["measured_dir"]) == {"measured_dir": ""}


@pytest.mark.parametrize(
    "name", ["profil", "Profile", "Seed", "devic", "dvice", "epohs", "protcol", "resum", "result_dir", "run_dir"]
)
def test_almost_a_parameters_name_is_refused_wherever_it_was_set(name):
    with pytest.raises(FerReproError, match=f"unknown parameter '{name}'"):
        parameters.from_namespace(GOOD | {name: 1}, "vggnet")


CELL = "\n".join(f"{name}: object = {value!r}  # what it is" for name, value in GOOD.items())


@pytest.mark.parametrize("name", ["sed", "epoch", "foo", "SEED", "x"])
def test_all_that_the_parameters_cells_assign_is_judged(name):
    """IPython keeps the cells that ran: the last run of the parameters cell, and papermill's own behind it."""
    for history in ([CELL, f"# Parameters\n{name} = 1\n"], [f"{CELL}\n{name} = 1"], [CELL, f"{CELL}\n{name} = 1"]):
        with pytest.raises(FerReproError, match=f"unknown parameter '{name}'"):
            parameters.from_namespace(GOOD | {name: 1, "In": ["", *history]}, "vggnet")
    own = [f"{CELL}\n{name} = 1", f"# Parameters\n{name} = 1", CELL, f"{name} = 1", "not ( Python: seed"]
    assert parameters.from_namespace(GOOD | {name: 1, "In": ["", *own]}, "vggnet").seed == 0
    inject = '# Parameters\nseed = 0\nPAPERMILL_OUTPUT_PATH = "o.ipynb"\n'
    namespace = GOOD | {"PAPERMILL_OUTPUT_PATH": "o.ipynb", "In": ["", CELL, inject]}
    assert parameters.from_namespace(namespace, "vggnet").seed == 0


def test_a_chapter_without_a_parameter_is_told_which():
    with pytest.raises(FerReproError, match="sets no seed"):
        parameters.from_namespace({k: v for k, v in GOOD.items() if k != "seed"}, "vggnet")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_cuda_is_an_error():
    with pytest.raises(FerReproError, match="no CUDA"):
        parameters.check(GOOD | {"device": "cuda"})
    assert resolve_device("auto") == "cpu"
