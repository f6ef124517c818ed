"""The road from a name to a stored result; VGGNet's smoke recipe stands in for a full one."""

import dataclasses

import numpy as np
import pytest

from fer_repro import data, papers, reproduce, results
from fer_repro.errors import FerReproError
from fer_repro.papers.resemotenet import leakage
from fer_repro.training.run import Interrupted


@pytest.fixture
def small_full(monkeypatch):
    """`full` takes seconds: synthetic faces that call themselves fer2013, and the smoke recipe."""
    variant = papers.get("vggnet")
    faces = dataclasses.replace(data.load("synthetic", size=(96, 40, 40)), name="fer2013")
    small = dataclasses.replace(variant, recipe=lambda protocol, profile: variant.recipe(protocol, "smoke"))
    monkeypatch.setattr(papers, "variants", lambda: {"vggnet": small})
    monkeypatch.setattr(data, "load", lambda *words, **options: faces)
    return small


def run(tmp_path, **options):
    folders = {"results_dir": tmp_path / "results", "runs_dir": tmp_path / "runs", "device": "cpu"}
    return reproduce.reproduce("vggnet", **({"profile": "full"} | folders | options))


def test_a_full_run_is_stored_once_and_then_read(tmp_path, small_full, monkeypatch):
    first = run(tmp_path)
    folder = results.folder_of(tmp_path / "results", "vggnet", "official", 0)
    assert sorted(p.name for p in folder.iterdir()) == ["history.csv", "predictions.npz", "result.json"]
    monkeypatch.setattr(data, "load", None)  # neither data nor training is needed any more
    for profile in ("full", "stored"):
        again = run(tmp_path, profile=profile)
        assert again.record["scores"] == first.record["scores"] and again.note == ""


def test_a_stored_result_of_another_recipe_is_refused(tmp_path, small_full, monkeypatch):
    run(tmp_path)
    recipe = small_full.recipe
    other = dataclasses.replace(small_full, recipe=lambda *a: dataclasses.replace(recipe(*a), batch_size=65))
    monkeypatch.setattr(papers, "variants", lambda: {"vggnet": other})
    with pytest.raises(FerReproError, match="another recipe"):
        run(tmp_path)


def test_other_epochs_are_never_stored(tmp_path, small_full):
    result = run(tmp_path, epochs=1)
    assert result.status == "done" and len(result.history) == 1
    assert results.read_all(tmp_path / "results") == []


def test_a_run_stopped_by_its_budget_goes_on_to_the_same_result(tmp_path, small_full):
    with pytest.raises(Interrupted):
        run(tmp_path, time_budget=0.0)
    assert results.read_all(tmp_path / "results") == []
    resumed = run(tmp_path)
    whole = run(tmp_path, results_dir=tmp_path / "other", runs_dir=tmp_path / "other-runs")
    for name, values in whole.predictions.items():
        assert (values == resumed.predictions[name]).all(), name


def test_nothing_stored_says_not_run_and_shows_a_smoke_run(tmp_path):
    result = run(tmp_path, profile="stored")
    assert "not run" in result.note and result.profile == "smoke" and result.synthetic
    assert results.read_all(tmp_path / "results") == []


def test_scores_are_those_of_the_stored_predictions(tmp_path, small_full):
    result = run(tmp_path)
    for half in results.HALVES:
        rows, labels = result.predictions[f"{half}_views"], result.predictions[f"{half}_labels"]
        assert result.score(half)["accuracy"] == np.mean(rows.astype(np.float32).argmax(1) == labels)


@pytest.mark.parametrize("seed", [-1, 2**31, 2**64, True, 1.0, "0", None])
def test_a_seed_out_of_range_is_refused_before_anything_runs(tmp_path, small_full, monkeypatch, seed):
    monkeypatch.setattr(data, "load", None)
    with pytest.raises(FerReproError, match="parameter seed is .*from 0 to 2,147,483,647"):
        run(tmp_path, seed=seed)
    with pytest.raises(FerReproError, match="parameter seed is"):
        leakage.demonstrate(seed=seed, runs_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variant", ["vggnet", "local-learning-bow", "sdafe", "cnn-hyperparameters-search"])
def test_the_largest_seed_runs(tmp_path, variant):
    """faiss takes an int32, and so must every seed that is derived from the run's."""
    result = reproduce.reproduce(variant, seed=np.int64(2**31 - 1), results_dir=tmp_path, device="cpu")
    assert result.record["seed"] == 2**31 - 1


def test_full_without_data_names_the_places(tmp_path, monkeypatch):
    monkeypatch.delenv("FER2013_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FerReproError, match="FER2013_ROOT"):
        run(tmp_path, root=tmp_path / "nowhere")


def test_results_that_cannot_be_written_stop_the_run_before_it_trains(tmp_path, small_full):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FerReproError, match="cannot be written"):
        run(tmp_path, results_dir=tmp_path / "file")
    assert not (tmp_path / "runs").exists()
