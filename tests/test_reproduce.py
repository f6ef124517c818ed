"""The road from a name to a stored result; VGGNet's smoke recipe stands in for a full one."""

import dataclasses

import numpy as np
import pytest
import torch
from made_results import made_unfinished

from fer_repro import data, papers, reproduce, results
from fer_repro.campaign import Task, runner
from fer_repro.errors import FerReproError
from fer_repro.papers.resemotenet import leakage
from fer_repro.parameters import RunOptions
from fer_repro.training import epoch_weights, loop
from fer_repro.training.run import Interrupted, Run


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


QUICK = papers.get("mini-resemotenet-c-alone")
EPOCHS = 4  # of the small recipe, in one stage


@pytest.fixture
def small_epochs(monkeypatch, small_full):
    """`small_full` with `EPOCHS` epochs, in each of which the network learns: a small one, in small batches."""
    recipe = QUICK.recipe("official", "smoke").with_epochs(EPOCHS)
    recipe = dataclasses.replace(recipe, variant="vggnet", batch_size=8)
    variant = dataclasses.replace(QUICK, id="vggnet", recipe=lambda protocol, profile: recipe)
    monkeypatch.setattr(papers, "variants", lambda: {"vggnet": variant})
    return variant


@pytest.fixture
def stop_after(monkeypatch):
    """Call it with a number of epochs: the run is stopped when they have ended, None: it is not stopped any more."""
    ended, log_epoch = {"limit": None}, loop.log_epoch

    def counting(recipe, history, best):
        log_epoch(recipe, history, best)
        ended["now"] = len(history)

    monkeypatch.setattr(loop, "log_epoch", counting)
    monkeypatch.setattr(
        Run, "out_of_time", lambda run, ahead=0.0: ended["limit"] is not None and ended.get("now", 0) >= ended["limit"]
    )
    return lambda limit: ended.update(limit=limit)


def kept(tmp_path):
    return results.find("vggnet", "official", 0, tmp_path / "results", results.UNFINISHED)


def test_a_stopped_run_is_kept_and_goes_on_to_the_same_result(tmp_path, small_epochs, stop_after):
    stop_after(1)
    with pytest.raises(
        Interrupted, match=f"unfinished: epoch 1 of {EPOCHS}, .* % on PrivateTest, is stored in vggnet/"
    ):
        run(tmp_path, keep_unfinished=True)
    first = kept(tmp_path)
    assert first.record["unfinished"] == {"epochs_done": 1, "epochs": EPOCHS} and len(first.history) == 1
    assert first.status == "interrupted" and first.record["selected_epoch"] == 1
    checkpoint = next((tmp_path / "runs").rglob("checkpoint.pt")).read_bytes()
    with pytest.raises(Interrupted, match=f"has as many epochs .unfinished: epoch 1 of {EPOCHS}. and stays"):
        run(tmp_path, keep_unfinished=True, time_budget=0.0)
    assert next((tmp_path / "runs").rglob("checkpoint.pt")).read_bytes() == checkpoint
    stop_after(3)
    with pytest.raises(Interrupted, match=f"epoch 3 of {EPOCHS}"):
        run(tmp_path, keep_unfinished=True)
    best = kept(tmp_path)
    assert best.record["selected_epoch"] == 1 + int(best.history["select_accuracy"].argmax())
    [problem] = results.verify(tmp_path / "results")
    assert "images per class" in problem and "epochs" not in problem, "but for the few faces it is whole"
    assert results.read_all(tmp_path / "results") == []
    shown = run(tmp_path, profile="stored")
    assert shown.unfinished and "decides nothing" in shown.note and shown.remark in shown.note
    stop_after(None)
    resumed = run(tmp_path)
    assert kept(tmp_path) is None and [p.name for p in (tmp_path / "results/vggnet/official").iterdir()] == ["seed-0"]
    whole = run(tmp_path, results_dir=tmp_path / "other", runs_dir=tmp_path / "other-runs")
    for name, values in whole.predictions.items():
        assert (values == resumed.predictions[name]).all(), name
    measured = ["loss", "train_accuracy", "select_accuracy", "select_loss"]
    assert whole.history[measured].equals(resumed.history[measured])


def test_a_checkpoint_of_an_earlier_process_is_kept_without_training(tmp_path, small_epochs, stop_after):
    stop_after(2)
    with pytest.raises(Interrupted):
        run(tmp_path)
    assert kept(tmp_path) is None
    with pytest.raises(Interrupted, match=f"time budget used up.*unfinished: epoch 2 of {EPOCHS}"):
        run(tmp_path, keep_unfinished=True, time_budget=-1.0)
    assert kept(tmp_path).record["unfinished"]["epochs_done"] == 2


def test_what_no_epoch_of_has_ended_is_not_kept(tmp_path, small_epochs, stop_after):
    stop_after(0)
    with pytest.raises(Interrupted, match="no epoch of vggnet has ended, so there is nothing to keep"):
        run(tmp_path, keep_unfinished=True)
    assert results.all_folders(tmp_path / "results") == []


def test_a_second_ctrl_c_while_it_is_scored_leaves_the_checkpoint(tmp_path, small_epochs, stop_after, monkeypatch):
    def pressed(*arguments, **words):
        raise KeyboardInterrupt

    stop_after(2)
    with monkeypatch.context() as patch:
        patch.setattr(reproduce, "_score", pressed)
        [outcome] = runner.run([[Task("vggnet", 0)]], options(tmp_path))
    assert (outcome.state, kept(tmp_path)) == ("stopped", None) and "goes on from its last checkpoint" in outcome.text
    [outcome] = runner.run([[Task("vggnet", 0)]], options(tmp_path), budget=1e-9)
    assert outcome.state == "stopped" and f"unfinished: epoch 2 of {EPOCHS}" in outcome.text
    assert (
        runner.run([[Task("vggnet", 0)]], dataclasses.replace(options(tmp_path), keep_unfinished=False), budget=1e-9)[
            0
        ].state
        == "not started"
    )


def options(tmp_path):
    folders = {"results_dir": tmp_path / "results", "runs_dir": tmp_path / "runs"}
    return RunOptions(device="cpu", keep_unfinished=True, **folders)


def test_an_unfinished_result_of_another_recipe_is_refused_before_anything_runs(tmp_path, small_epochs, monkeypatch):
    other = made_unfinished()
    other.record["recipe_sha256"] = "0" * 64
    results.write(other, tmp_path / "results")
    monkeypatch.setattr(data, "load", None)
    with pytest.raises(FerReproError, match="unfinished/seed-0 holds a result of another recipe"):
        run(tmp_path, keep_unfinished=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"epochs": 1}, "goes with a full run"),
        ({"profile": "smoke"}, "goes with a full run"),
        ({"data": "synthetic"}, "goes with a full run"),
    ],
)
def test_only_a_full_run_can_be_kept(tmp_path, small_epochs, words, said):
    with pytest.raises(FerReproError, match=said):
        run(tmp_path, keep_unfinished=True, **words)


@pytest.mark.parametrize(
    "name", ["local-learning-bow", "cnn-hyperparameters-search", "sdafe-images", "residual-masking-ensemble"]
)
def test_a_method_without_epochs_is_refused_before_anything_runs(tmp_path, monkeypatch, name):
    monkeypatch.setattr(data, "load", None)
    with pytest.raises(FerReproError, match=f"{name} is not a network that is trained epoch by epoch"):
        reproduce.reproduce(name, profile="full", results_dir=tmp_path, device="cpu", keep_unfinished=True)


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


def by_epoch(tmp_path, name="results", **options):
    """The stored predictions of every epoch of a run that was asked for them."""
    folders = {"results_dir": tmp_path / name, "runs_dir": tmp_path / f"{name}-runs"}
    run(tmp_path, score_epochs=True, **folders, **options)
    return results.find("vggnet", "official", 0, tmp_path / name)


def test_every_epoch_is_scored_after_training(tmp_path, small_epochs):
    stored = by_epoch(tmp_path)
    labels, epochs = stored.predictions["PublicTest_labels"], stored.epochs
    assert epochs["epoch"].tolist() == list(range(1, EPOCHS + 1))
    assert np.allclose((epochs["PublicTest"] == labels).mean(axis=1), stored.history["select_accuracy"])
    chosen = epochs["PrivateTest"][stored.record["selected_epoch"] - 1]
    rows = stored.predictions["PrivateTest_plain"]
    assert (rows[np.arange(len(rows)), chosen] == rows.max(axis=1)).all()
    assert len(np.unique(epochs["PrivateTest"], axis=0)) > 1, "the epochs differ"
    assert not list((tmp_path / "results-runs").rglob("*.safetensors")), "what was kept is scored and gone"
    [problem] = results.verify(tmp_path / "results")
    assert "images per class" in problem and "epochs" not in problem, "but for the few faces it is whole"
    plain = run(tmp_path, results_dir=tmp_path / "plain", runs_dir=tmp_path / "plain-runs")
    assert plain.epochs == {} and plain.record["scores"] == stored.record["scores"], "nothing else changes"


def test_training_never_sees_private_test(tmp_path, small_epochs, monkeypatch):
    """With other pictures in PrivateTest nothing but their own predictions is another."""
    before = by_epoch(tmp_path)
    faces = data.load()
    images = faces.images.copy()
    noise = np.random.default_rng(0).integers(0, 256, images.shape, np.uint8)
    images[faces.usage == "PrivateTest"] = noise[faces.usage == "PrivateTest"]
    monkeypatch.setattr(data, "load", lambda *words, **options: dataclasses.replace(faces, images=images))
    after = by_epoch(tmp_path, "other")
    measured = ["loss", "train_accuracy", "select_accuracy", "select_loss"]
    assert before.history[measured].equals(after.history[measured])
    assert before.record["selected_epoch"] == after.record["selected_epoch"]
    assert (before.epochs["PublicTest"] == after.epochs["PublicTest"]).all()
    assert (before.epochs["PrivateTest"] != after.epochs["PrivateTest"]).any()


def test_epochs_of_a_run_that_was_stopped_and_went_on(tmp_path, small_epochs, stop_after):
    stop_after(2)
    with pytest.raises(Interrupted, match="is stored"):
        run(tmp_path, keep_unfinished=True, score_epochs=True)
    first = kept(tmp_path)
    assert first.epochs["epoch"].tolist() == [1, 2]
    stop_after(None)
    resumed = run(tmp_path, score_epochs=True)
    whole = by_epoch(tmp_path, "whole")
    for name, rows in whole.epochs.items():
        assert (resumed.epochs[name] == rows).all(), name
        assert (first.epochs[name] == rows[:2]).all(), name


def test_a_run_that_kept_no_epochs_says_so(tmp_path, small_epochs, stop_after, said):
    stop_after(EPOCHS - 1)
    with pytest.raises(Interrupted):
        run(tmp_path)
    stop_after(None)
    assert run(tmp_path, score_epochs=True).epochs["epoch"].tolist() == [EPOCHS], "those before were not kept"
    assert any(f"the weights of {EPOCHS - 1} of {EPOCHS - 1} epochs were not kept" in line for line in said)
    run(tmp_path, results_dir=tmp_path / "other", score_epochs=True)
    assert any("no weights of single epochs were kept" in line for line in said)


def test_a_damaged_epoch_is_one_sentence(tmp_path, small_epochs, stop_after):
    stop_after(2)
    with pytest.raises(Interrupted):
        run(tmp_path, score_epochs=True)
    next((tmp_path / "runs").rglob("00001.safetensors")).write_bytes(b"no weights")
    with pytest.raises(FerReproError, match="00001.safetensors does not hold the weights of an epoch"):
        run(tmp_path, keep_unfinished=True, score_epochs=True, time_budget=-1.0)


def test_epochs_of_a_history_that_is_gone_are_discarded(tmp_path):
    """A run that goes on from an earlier checkpoint makes its later epochs again, perhaps without keeping them."""
    for epoch in (1, 2, 3):
        epoch_weights.keep(tmp_path, epoch, {"weight": torch.zeros(1)})
    (tmp_path / epoch_weights.FOLDER / "other.safetensors").write_bytes(b"of somebody else")
    epoch_weights.resume(tmp_path, 2, wanted=True)
    assert list(epoch_weights.kept(tmp_path, 9)) == [1, 2]
    epoch_weights.discard(tmp_path)
    assert epoch_weights.kept(tmp_path, 9) == {} and len(list((tmp_path / epoch_weights.FOLDER).iterdir())) == 1


def test_a_stored_result_without_epochs_says_how_to_get_them(tmp_path, small_epochs, said):
    run(tmp_path)
    assert run(tmp_path, score_epochs=True).epochs == {}
    assert any("has no epochs.npz: move" in line for line in said)
