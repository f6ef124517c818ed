"""Weights of any origin are recognised, scored, printed and stored; what is no weights is one sentence."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import re
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from authors import documents, state_of
from damage import damaged_bytes, damaged_documents
from made_results import made_predictions, made_result
from test_cli import call

from fer_repro import leaderboard, page, papers, results, score
from fer_repro.claims import declared_parameters, leaderboard_claims
from fer_repro.errors import FerReproError
from fer_repro.evaluation import progress
from fer_repro.evaluation.cost import weightless
from fer_repro.page.timeline import accuracy_over_time, accuracy_over_time_static
from fer_repro.papers.base import TEST_SETS, from_release
from fer_repro.results import Result

DOCUMENTS = documents()
WIDE = "deep-emotion-wide-localisation"
NETWORKS = {name: variant for name, variant in papers.variants().items() if variant.build is not None}
SMALL = ("deep-emotion-input-stn", WIDE, "resnet18-tricks", "vggnet")
LARGE = tuple(name for name in DOCUMENTS if name in NETWORKS and name not in SMALL)


@pytest.fixture(autouse=True)
def two_faces(monkeypatch, few_synthetic):
    """Two synthetic faces of each test set in place of hundreds; the real data set stays what it is."""
    usage, load = np.asarray(few_synthetic.usage), score.data_sets.load
    few = few_synthetic.subset(np.concatenate([np.flatnonzero(usage == half)[:2] for half in TEST_SETS]))
    monkeypatch.setattr(
        score.data_sets,
        "load",
        lambda name, *rest, **more: few if name == "synthetic" and not more else load(name, *rest, **more),
    )
    return few


@pytest.fixture(scope="module")
def state():
    return state_of(DOCUMENTS[WIDE])


def saved(path: Path, content) -> Path:
    torch.save(content, path)
    return path


# ---- every variant ---------------------------------------------------------------------------------------------------


def quick(*given, **more):
    """`from_release` with one random view, or one pose, in place of many."""
    network, recipe = from_release(*given, **more)
    views = dataclasses.replace(recipe.views, count=recipe.views.count and 1, poses=recipe.views.poses[:1])
    return network, dataclasses.replace(recipe, views=views)


@pytest.mark.parametrize("name", SMALL)
def test_a_file_under_the_authors_names_is_scored(name, tmp_path, two_faces):
    variant, state = papers.get(name), state_of(DOCUMENTS[name])
    content = {variant.released.wrapper: state, "epoch": 3} if variant.released.wrapper else state
    path = saved(tmp_path / "weights.pth", content)
    weights, result, stored = score.score(variant.id, path, data="synthetic", device="cpu")
    assert weights.origin == "released" and stored is None and result.synthetic
    assert set(result.record["scores"]) == set(variant.released.test_sets) == set(result.halves)
    network, recipe = from_release(variant, state)
    assert result.record["recipe_sha256"] == recipe.sha256() and result.has_views == (recipe.views != recipe.plain)
    expected = score.NetworkClassifier(network, recipe, "cpu").predict_proba(two_faces.images[:2])
    np.testing.assert_allclose(result.predictions["PublicTest_plain"], expected, atol=1e-3)


@pytest.mark.parametrize("name", LARGE)
def test_so_are_large_ones(name, tmp_path, monkeypatch):
    """Without hundreds of megabytes on the disk, with zeros for weights and one random view."""
    state = {key: torch.zeros(shape) for key, shape, _ in DOCUMENTS[name]["keys"] if not key.endswith("tracked")}
    (tmp_path / "weights.pth").write_bytes(b"")
    monkeypatch.setattr(score.pretrained, "tensors_of", lambda path, wrapper="": state)

    monkeypatch.setattr(score, "from_release", quick)
    variant = papers.get(name)
    weights, result, _ = score.score(variant.id, tmp_path / "weights.pth", data="synthetic", device="cpu")
    assert weights.origin == "released" and tuple(result.record["scores"]) == variant.released.test_sets


@pytest.mark.parametrize("name", ["ad-corre", "cnn-hyperparameters", "lhc-net"])
def test_a_file_of_keras_or_tensorflow_is_scored(name, tmp_path, monkeypatch):
    monkeypatch.setattr(score, "from_release", quick)
    from test_released_keras import Weights, cnn, grey_pictures, lhc_net, written, xception

    layers = Weights()
    if name == "lhc-net":
        lhc_net(layers, grey_pictures(1, 224))
        path = tmp_path / "lhc.npz"
        np.savez(path, **{key: part.numpy() for key, part in layers.state.items()})
    elif name == "ad-corre":
        xception(layers, grey_pictures(1, 71), 7, 0)
        path = written(tmp_path / "Fer2013_7203.h5", layers.state)
    else:
        cnn(layers, grey_pictures(1, 48))
        path = written(tmp_path / "model", layers.state)  # no .h5: the content says what it is
    weights, result, _ = score.score(name, path, data="synthetic", device="cpu")
    assert weights.origin == "released" and list(result.record["scores"]) == list(TEST_SETS)


@pytest.mark.parametrize("name", ["deep-emotion", WIDE, "mini-resemotenet-a", "vggnet"])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_file_under_our_names_is_scored(name, ending, tmp_path):
    recipe = papers.get(name).recipe("official", "full")
    network = papers.get(name).build(recipe)
    path = tmp_path / f"ours.{ending}"
    if ending == "pth":
        saved(path, {"model_state_dict": {f"module.{key}": part for key, part in network.state_dict().items()}})
    else:
        safetensors.torch.save_file(network.state_dict(), path)
    weights, result, _ = score.score(name, path, data="synthetic", device="cpu")
    assert weights.origin == "our names" and result.record["recipe_sha256"] == recipe.sha256()
    with pytest.raises(FerReproError, match="only a paper's released weights.*origin is not known.*leave out --store"):
        score.score(name, path, store=True, results_dir=tmp_path)


def test_no_variants_own_names_are_taken_for_the_authors_nor_theirs_for_ours():
    """Where both are the same, as in a plain ResNet, it is the release."""
    same = {name for name, variant in NETWORKS.items() if variant.released and not variant.released.rename}
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, variant in NETWORKS.items():
            if variant.released:
                own = weightless(variant.build, variant.recipe("official", "full")).state_dict()
                assert score._under_our_names(variant, own) == (name not in same), name
        for name, document in DOCUMENTS.items():
            theirs = {key: torch.empty(shape) for key, shape, _ in document["keys"]}
            assert not score._under_our_names(papers.get(name.removesuffix("-64")), theirs), name


def test_an_export_is_scored_by_its_own_recipe_and_only_on_images_it_has_not_seen(tmp_path):
    from fer_repro.reproduce import reproduce
    from fer_repro.transfer.export import export

    smoke = {"protocol": "claimed", "profile": "smoke"}
    reproduce("vggnet", device="cpu", runs_dir=tmp_path / "runs", **smoke)
    folder = export("vggnet", runs_dir=tmp_path / "runs", out=tmp_path / "out", **smoke)
    for path in (folder, folder / "model.safetensors"):
        weights, result, _ = score.score("vggnet", path, data="synthetic", device="cpu")
        assert weights.origin == "export" and weights.test_sets == ("PublicTest",)
        assert list(result.record["scores"]) == ["PublicTest"] and "PrivateTest" in weights.about["why"]
    with pytest.raises(FerReproError, match="is an export of vggnet, not of deep-emotion"):
        score.score("deep-emotion", folder)
    with pytest.raises(FerReproError, match="stores the results of this project's own weights"):
        score.score("vggnet", folder, store=True, results_dir=tmp_path)


# ---- what is no weights ----------------------------------------------------------------------------------------------


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))


def compressed(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("weights/model.pth", content)
    return packed.getvalue()


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


PAGE = b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>"
BAD = {
    "empty": (lambda whole, mark: b"", "it is empty"),
    "page": (lambda whole, mark: PAGE, "a web page, not the file: Google Drive"),
    "page with a blank": (lambda whole, mark: b"\n  <html>", "a web page"),
    "text": (lambda whole, mark: b"hello", "a text that begins with 'hello'"),
    "pointer": (lambda whole, mark: b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS"),
    "cut": (lambda whole, mark: whole[: len(whole) // 2], "cut off"),
    "cut early": (lambda whole, mark: whole[:40], "cut off"),
    "flipped bit": (lambda whole, mark: flipped(whole), "damaged: checksum"),
    "zip": (lambda whole, mark: compressed(whole), "a zip archive that holds 'weights/model.pth': unpack it"),
    "gzip": (lambda whole, mark: b"\x1f\x8b" + whole, "a gzip archive: unpack it"),
    "pickle with code": (lambda whole, mark: pickle.dumps(Hostile(mark)), "a bare pickle, which may run code"),
    "old pickle": (lambda whole, mark: pickle.dumps(Hostile(mark), protocol=0), "a bare pickle, which may run code"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_file_of_weights_says_what_it_is(kind, state, tmp_path):
    damage, words = BAD[kind]
    path, mark = saved(tmp_path / "weights.pth", state), tmp_path / "mark"
    path.write_bytes(damage(path.read_bytes(), mark))
    with pytest.raises(FerReproError) as caught:
        score.read(WIDE, path)
    said = str(caught.value)
    assert words in said and "weights.pth" in said and "\n" not in said and not mark.exists()


def test_a_checkpoint_with_code_in_it_is_refused(state, tmp_path):
    path = saved(tmp_path / "weights.pth", {"net": state, "extra": Hostile(tmp_path / "mark")})
    with pytest.raises(FerReproError, match=r"a pickle that wants to run code, posix\.mkdir, which is refused"):
        score.read(WIDE, path)
    assert not (tmp_path / "mark").exists()


def test_weights_that_do_not_fit_are_named(state, tmp_path):
    first = "feat_extraction.0.weight"
    with pytest.raises(FerReproError, match="trunk.0.weight is not finite"):
        score.read(WIDE, saved(tmp_path / "nan.pth", state | {first: state[first] * float("nan")}))
    others = state_of(DOCUMENTS["vggnet"])
    with pytest.raises(FerReproError, match="do not fit DeepEmotion.*its names and shapes are those of vggnet$"):
        score.read(WIDE, saved(tmp_path / "other.pth", others))
    odd = {key: part for key, part in state.items() if key != first} | {"more": torch.ones(1)}
    with pytest.raises(FerReproError, match=r"1 missing \(trunk.0.weight\); 1 without a place \(more\)"):
        score.read(WIDE, saved(tmp_path / "odd.pth", odd))
    huge = {key: part * 1e30 for key, part in state.items()}
    with pytest.raises(FerReproError, match="gives no probabilities"):
        score.score(WIDE, saved(tmp_path / "huge.pth", huge), data="synthetic", device="cpu")
    for name in ("local-learning-bow", "vgnet"):
        with pytest.raises(FerReproError, match="has no network|did you mean"):
            score.read(name, tmp_path / "nan.pth")


def test_damaged_files_are_one_sentence(state, tmp_path):
    whole = saved(tmp_path / "weights.pth", state).read_bytes()
    for content in damaged_bytes(whole, 3, 120):
        (tmp_path / "weights.pth").write_bytes(content)
        try:
            weights = score.read(WIDE, tmp_path / "weights.pth")
        except FerReproError as error:
            assert "\n" not in str(error)
            continue
        # What is still read (a byte between two entries) is what was written.
        own = weights.classifier.model.state_dict()
        assert all(torch.equal(own[key], part) for key, part in papers.get(WIDE).released.convert(state).items())


# ---- what is stored --------------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(state, tmp_path, monkeypatch) -> Path:
    """A stored result of released weights, with made-up predictions for FER2013's counts, beside a run of VGGNet."""
    weights, result, _ = score.score(WIDE, saved(tmp_path / "some file.pth", state), data="synthetic", device="cpu")
    predictions = {name: part for name, part in made_predictions().items() if not name.endswith("views")}
    record = result.record | {"data": made_result().record["data"], "scores": results.score_all(predictions)}
    where = tmp_path / "results"
    results.write(Result(record, predictions, result.history), where)
    results.write(made_result(parameters=declared_parameters("vggnet")), where)
    return where


def folder_of(shelf: Path) -> Path:
    return shelf / WIDE / "released" / "some-file"


def test_a_stored_release_is_read_verified_and_never_overwritten(shelf, tmp_path, capsys):
    folder = folder_of(shelf)
    assert sorted(path.name for path in folder.iterdir()) == ["predictions.npz", "result.json"]
    [one] = results.read_all(shelf, results.RELEASED)
    assert results.verify(shelf) == [] and [run.variant for run in results.read_all(shelf)] == ["vggnet"]
    about = one.record["released"]
    assert about["name"] == one.name == "some-file" and about["file"] == "some file.pth" and len(about["sha256"]) == 64
    assert about["url"] == "https://github.com/mkmohangb/deep-emotion" and about["licence"] == "none stated"
    assert about["trained_on"] == "Training" and "20 under other names" in about["conversion"]
    with pytest.raises(FerReproError, match="already holds a result"):
        results.write(one, shelf)
    with pytest.raises(FerReproError, match="already holds a result"):
        score.score(WIDE, tmp_path / "some file.pth", store=True, results_dir=shelf)
    status, out, _ = call(capsys, "verify", "--results-dir", str(shelf))
    assert status == 0 and out == "2 stored results, 2 records of packages and networks checked, 0 problems\n"
    status, out, _ = call(capsys, "list", "--results-dir", str(shelf), "--json")
    assert {e["id"]: e["released"] for e in json.loads(out)["variants"]}[WIDE] == ["some-file"]
    status, out, _ = call(capsys, "audit", "--results-dir", str(shelf), "--json")
    rows = {row["variant"]: row for row in json.loads(out)["rows"]}
    assert [one["variant"] for one in rows["deep-emotion"]["released"]] == [WIDE] and rows["vggnet"]["released"] == []


def test_a_result_of_vggnets_release_has_publictest_alone(tmp_path, capsys):
    path = saved(tmp_path / "vgg.pth", {"params": state_of(DOCUMENTS["vggnet"])})
    _, result, _ = score.score("vggnet", path, data="synthetic", device="cpu")
    predictions = {name: part for name, part in made_predictions().items() if name.startswith("PublicTest")}
    scores = results.score_all(predictions, halves=("PublicTest",))
    record = result.record | {"data": made_result().record["data"], "scores": scores}
    results.write(Result(record, predictions, result.history), tmp_path / "results")
    assert results.verify(tmp_path / "results") == []
    [one] = results.read_all(tmp_path / "results", results.RELEASED)
    assert one.headline == one.score("PublicTest") and one.halves == ("PublicTest",)
    both = Result(record | {"usages": {"test": list(TEST_SETS)}}, made_predictions(), result.history)
    with pytest.raises(FerReproError, match="cannot be stored"):
        results.write(both, tmp_path / "again")
    status, out, _ = call(capsys, "score", "vggnet", "-c", str(path), "--data", "synthetic", "--device", "cpu")
    assert status == 0 and "PrivateTest is not scored: the fine-tuning has trained on PrivateTest" in out
    assert "synthetic faces - not a result" in out and "claimed" not in out


def test_every_damage_of_a_stored_release_is_found(shelf):
    folder = folder_of(shelf)
    whole = (folder / "result.json").read_bytes()
    for where, document in damaged_documents(json.loads(whole), 5, 150):
        (folder / "result.json").write_text(json.dumps(document, indent=1) + "\n")
        assert len(results.verify(shelf)) == 1, where
    for content in damaged_bytes(whole, 6, 60):
        (folder / "result.json").write_bytes(content)
        assert (len(results.verify(shelf)) == 1) == (content != whole)
    (folder / "result.json").write_bytes(whole)
    kept = (folder / "predictions.npz").read_bytes()
    for content in damaged_bytes(kept, 7, 30):
        (folder / "predictions.npz").write_bytes(content)
        assert (len(results.verify(shelf)) == 1) == (content != kept)
    (folder / "predictions.npz").write_bytes(kept)
    shutil.move(folder, folder.with_name("another"))
    [problem] = results.verify(shelf)
    assert "the folder's name does not say" in problem


def rewritten(folder: Path, change) -> None:
    """A record that was changed by somebody who knows the digest."""
    record = json.loads((folder / "result.json").read_text())
    change(record)
    record["sha256"] = results.schema.content_digest(record)
    (folder / "result.json").write_text(json.dumps(record, indent=1) + "\n")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["scores"]["PrivateTest"]["plain"].update(correct=3000), "scores in result.json are not those"),
        (lambda r: r.update(kind="full"), "seed is None"),
        (lambda r: r.update(protocol="official"), "protocol is 'official'"),
        (lambda r: r.update(selection="nothing"), "selection in result.json is not what its recipe says"),
        (lambda r: r["usages"].update(test=["PublicTest"]), "scores in result.json are not those"),
        (lambda r: r["data"].update(name="synthetic"), "only finished full runs on fer2013"),
        (lambda r: r["released"].pop("sha256"), "lacks sha256"),
        (lambda r: r["released"].update(name="seed-0"), "not like seed-0"),
        (lambda r: r["recipe"].update(batch_size=1), "recipe_sha256 is not the digest"),
    ],
)
def test_a_record_with_a_right_digest_says_nothing_else_than_its_parts(shelf, change, words):
    rewritten(folder_of(shelf), change)
    [problem] = results.verify(shelf)
    assert words in problem


def test_released_weights_change_no_verdict_and_stand_beside_it(shelf, monkeypatch, tmp_path):
    empty = tmp_path / "none"
    empty.mkdir()
    before, after = (leaderboard.leaderboard(where).set_index("variant") for where in (empty, shelf))
    assert after.loc["deep-emotion", "verdict"] == before.loc["deep-emotion", "verdict"] == "not run"
    own = after.loc["deep-emotion"]
    [one] = results.read_all(shelf, results.RELEASED)
    assert own["released"] == one.score("PrivateTest")["accuracy"] and own["released_on"] == "PrivateTest"
    assert own["released_variant"] == WIDE and after["released"].notna().sum() == 1
    shown = after.reset_index()
    entry = 'value="released"'
    assert entry in accuracy_over_time(shown).body and "Squares" in accuracy_over_time_static(shown).caption
    bare = before.reset_index()
    assert entry not in accuracy_over_time(bare).body
    assert "Squares" not in accuracy_over_time_static(bare).caption
    assert own["evidence"] == "released" and f"released weights of {WIDE} " in own["evidence_text"]
    assert own["evidence_text"] in page.leaderboard_table(shown)._repr_html_()
    assert "released weights" not in page.leaderboard_table(bare)._repr_html_()


def test_the_members_weights_are_not_those_of_the_ensemble():
    claims, (one,) = leaderboard_claims(), [made_result()]
    for member in papers.get("residual-masking-ensemble").requires:
        one.record["variant"] = member
        beside = leaderboard.released_beside(claims["residual-masking-ensemble"], [one])
        assert beside == [] and (leaderboard.released_beside(claims["residual-masking"], [one]) != []) == (
            member == "residual-masking"
        )


def test_a_chapter_says_of_each_release_whether_it_was_scored(shelf):
    said = page.verdict("deep-emotion", shelf)._repr_html_()
    assert "the released weights give" in said
    assert "No usable weights of deep-emotion-input-stn are published." in said and "no name is known" not in said
    assert "their code" not in said and ">github.com/omarsayed7/Deep-Emotion</a>" in said
    assert f"fer-repro score {WIDE} --checkpoint deep_emotion-256-0.005-300.pt" in re.sub(r"<[^>]*>", "", said)
    for variant in papers.variants().values():
        if variant.released:
            said = page.verdict(variant.slug, shelf)._repr_html_()
            assert variant.id in said and "fer-repro</span> score" in said and (variant.released.file or "FILE") in said
    assert "Released weights" not in page.verdict("local-learning-bow", shelf)._repr_html_()
    assert "has not been fetched" in page.verdict("resnet18-tricks", shelf)._repr_html_()
    assert "may be scored: the fine-tuning" in page.verdict("vggnet", shelf)._repr_html_()


# ---- the command -----------------------------------------------------------------------------------------------------


def test_progress_is_told_while_it_lasts(state, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    path = saved(tmp_path / "weights.pth", state)
    status, out, err = call(capsys, "score", WIDE, "-c", str(path), "--data", "synthetic", "--device", "cpu", "--json")
    document = json.loads(out)
    assert status == 0 and "scored 2 of 4 inputs, about" in err and document["origin"] == "released"
    assert document["scores"]["PrivateTest"]["plain"]["n"] == 2 and document["claimed"]["accuracy"] == 70.02
    assert document["synthetic"] and document["stored"] is None and document["not_scored"] == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vgnet"], "unknown variant 'vgnet': did you mean vggnet?"),
        (["vggnet", "--data", "fer2014"], "data is 'fer2014'"),
        (["vggnet", "--device", "gpu"], "device is 'gpu'"),
        (["vggnet"], "nowhere.pth cannot be read as weights (No such file or directory)"),
        (["local-learning-bow"], "has no network"),
        (["vggnet", "--data", "synthetic", "--store"], "No such file"),
    ],
)
def test_mistakes_are_one_sentence(capsys, words, said):
    status, out, err = call(capsys, "score", *words, "--checkpoint", "nowhere.pth")
    assert status == 1 and out == "" and said in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(("name", "words"), [("seed-1", "not like seed-0"), ("a/b", "a name of letters")])
def test_a_bad_name_and_synthetic_faces_are_refused_before_scoring(state, tmp_path, name, words):
    path = saved(tmp_path / "weights.pth", state)
    with pytest.raises(FerReproError, match=words):
        score.score(WIDE, path, store=True, name=name, results_dir=tmp_path)
    with pytest.raises(FerReproError, match="synthetic faces are no result"):
        score.score(WIDE, path, store=True, data="synthetic", results_dir=tmp_path)
    assert not (tmp_path / WIDE).exists()


# ---- the real one ----------------------------------------------------------------------------------------------------


def test_the_stored_release_scores_what_its_authors_module_does():
    where = results.folder_of(results.default_results_dir(), WIDE, "released", 0).with_name(
        "deep_emotion-256-0.005-300"
    )
    one = results.read(where)
    assert [one.score(half)["correct"] for half in TEST_SETS] == [1828, 1850] and results.verify(folders=[where]) == []


def test_the_released_file_is_scored_on_the_real_images(real_root, tmp_path):
    """Needs the data set, and the released file in the folder that FER_REPRO_RELEASED names."""
    folder = os.environ.get("FER_REPRO_RELEASED", "")
    path = Path(folder) / "deep_emotion-256-0.005-300.pt"
    if not folder or not path.is_file():
        pytest.skip("FER_REPRO_RELEASED names no folder with deep_emotion-256-0.005-300.pt")
    _, result, stored = score.score(WIDE, path, root=real_root, store=True, results_dir=tmp_path, device="cpu")
    assert result.headline["correct"] == 1850 and result.score("PublicTest")["correct"] == 1828
    assert results.verify(tmp_path) == [] and stored == tmp_path / WIDE / "released" / "deep_emotion-256-0.005-300"
