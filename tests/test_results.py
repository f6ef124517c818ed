import json
import re
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from made_results import made_result, made_unfinished

from fer_repro import files, results
from fer_repro.data import FER2013
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.errors import FerReproError
from fer_repro.evaluation import metrics
from fer_repro.files import sha256_of
from fer_repro.recipe import digest
from fer_repro.results import HALVES, SCHEMA, Result, places
from fer_repro.results import folder as result_folder


def test_written_results_read_back_equal_and_verify(tmp_path):
    result = made_result()
    folder = results.write(result, tmp_path)
    assert folder == tmp_path / "vggnet" / "official" / "seed-0"
    again = results.read(folder)
    assert again.record == json.loads(json.dumps(result.record | {"files": again.record["files"]}))
    assert all((again.predictions[k] == v).all() for k, v in result.predictions.items())
    pd.testing.assert_frame_equal(again.history, result.history)
    assert again.headline == again.score("PrivateTest", views=True) != again.score("PrivateTest", views=False)
    assert results.verify(tmp_path) == []
    assert [r.variant for r in results.read_all(tmp_path)] == ["vggnet"]


def test_a_stored_result_is_never_overwritten(tmp_path):
    results.write(made_result(), tmp_path)
    with pytest.raises(FerReproError, match="already holds a result"):
        results.write(made_result(), tmp_path)


def test_an_unfinished_run_lies_apart_and_is_no_full_one(tmp_path):
    folder = results.write(made_unfinished(), tmp_path)
    assert folder == results.folder_of(tmp_path, "vggnet", "official", 0, results.UNFINISHED)
    assert folder == tmp_path / "vggnet/official/unfinished/seed-0"
    assert results.read_all(tmp_path) == [] and results.find("vggnet", "official", 0, tmp_path) is None
    [one] = results.read_all(tmp_path, results.UNFINISHED)
    assert one.unfinished and not one.storable and one.name == "seed-0" and len(one.history) == 2
    assert results.verify(tmp_path) == [] and results.all_folders(tmp_path) == [folder]
    results.write(made_result(), tmp_path)
    assert len(results.all_folders(tmp_path)) == 2 and not results.find("vggnet", "official", 0, tmp_path).unfinished


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(kind="full"), "status 'interrupted'"),
        (lambda r: r.update(kind="other"), "kind is 'other', expected one of full, released, unfinished, package"),
        (lambda r: r.update(kind=[]), r"kind is \[\], expected one of"),
        (lambda r: r.update(status="done"), "status is 'done', expected one of interrupted"),
        (
            lambda r: r["unfinished"].update(epochs_done=3),
            "its history and recipe say {'epochs_done': 2, 'epochs': 350",
        ),
        (lambda r: r["unfinished"].update(epochs=349), "its history and recipe say"),
        (lambda r: r["unfinished"].update(epochs_done=350), "expected some epochs of a recipe, but not all"),
        (lambda r: r["data"].update(name="synthetic"), "only stopped full runs on fer2013"),
    ],
)
def test_verify_checks_how_far_an_unfinished_run_came(tmp_path, change, words):
    _edit(results.write(made_unfinished(), tmp_path), change)
    [problem] = results.verify(tmp_path)
    assert re.search(words, problem)


def test_an_unfinished_run_is_replaced_at_once_and_only_by_a_longer_one(tmp_path, monkeypatch):
    folder = results.write(made_unfinished(2), tmp_path)
    with pytest.raises(FerReproError, match="holds a result of 2 epochs, which one of 1 does not replace"):
        results.write(made_unfinished(1), tmp_path)
    exchange, seen = result_folder.exchange, []

    def watched(new, old):
        seen.append(new)
        assert results.read(old).record["unfinished"]["epochs_done"] == 2, "the old one stands until the last moment"
        assert sorted(path.name for path in new.iterdir()) == sorted(path.name for path in old.iterdir())
        exchange(new, old)
        assert results.read(old).record["unfinished"]["epochs_done"] == 3

    monkeypatch.setattr(result_folder, "exchange", watched)
    assert results.write(made_unfinished(3), tmp_path) == folder and results.verify(tmp_path) == []
    assert seen and [path.name for path in folder.parent.iterdir()] == ["seed-0"]
    other = made_unfinished(4)
    other.record["recipe"]["batch_size"] += 1
    other.record["recipe_sha256"] = digest(other.record["recipe"])
    with pytest.raises(FerReproError, match="another recipe"):
        results.write(other, tmp_path)


def test_where_two_folders_cannot_change_names_at_once_they_do_it_in_turn(tmp_path, monkeypatch):
    for native in (True, False):
        for name in ("one", "other"):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "file").write_text(name)
        if not native:
            monkeypatch.setattr(files.ctypes, "CDLL", lambda name: object())
        files.exchange(tmp_path / "one", tmp_path / "other")
        assert [(tmp_path / name / "file").read_text() for name in ("one", "other")] == ["other", "one"]
        assert len(list(tmp_path.iterdir())) == 2


def test_another_schema_version_is_one_sentence(tmp_path):
    _edit(results.write(made_result(), tmp_path), lambda r: r.update(schema=SCHEMA + 1))
    with pytest.raises(FerReproError, match=f"schema version {SCHEMA + 1}.*reads {SCHEMA}"):
        results.read_all(tmp_path)


def _edit(folder, change):
    record = json.loads((folder / "result.json").read_text())
    change(record)
    (folder / "result.json").write_text(json.dumps(record))


def _rescore(folder, **predictions):
    """Replace predictions and keep the file digest right, so that only the content is wrong."""
    result = results.read(folder)
    np.savez_compressed(folder / "predictions.npz", **(result.predictions | predictions))
    _edit(folder, lambda r: r["files"].update({"predictions.npz": sha256_of(folder / "predictions.npz")}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: _edit(f, lambda r: r["scores"]["PrivateTest"]["views"].update(accuracy=0.9)), "scores"),
        (lambda f: _edit(f, lambda r: r["recipe"].update(batch_size=1)), "recipe_sha256"),
        (lambda f: _edit(f, lambda r: r.update(seed=3)), "folder's name"),
        (lambda f: _edit(f, lambda r: r.update(profile="smoke")), "only finished full runs"),
        (lambda f: (f / "history.csv").write_text("epoch\n1\n"), "history.csv is not the file"),
        (lambda f: _rescore(f, PublicTest_labels=np.zeros(3589, int)), "images per class"),
        (lambda f: _rescore(f, PublicTest_labels=np.repeat(range(7), OFFICIAL_COUNTS[1])[::-1]), "scores"),
        (lambda f: _rescore(f, PublicTest_labels=np.zeros(10, int)), "3589 ids"),
        (lambda f: _rescore(f, PublicTest_plain=np.ones((3589, 7), np.float16)), "sum to 1"),
        (lambda f: _rescore(f, PublicTest_ids=np.zeros(3589, int)), "1 different"),
        (lambda f: (f / "predictions.npz").write_bytes(b"PK"), "not a readable result"),
        (lambda f: (f / "result.json").write_text("{"), "not a readable result"),
    ],
)
def test_verify_names_each_damage(tmp_path, damage, words):
    folder = results.write(made_result(), tmp_path)
    damage(folder)
    problems = results.verify(tmp_path)
    assert len(problems) >= 1 and words in " ".join(problems)


def test_a_folder_that_cannot_be_written_is_told_before_the_run(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FerReproError, match="cannot be written"):
        results.require_writable(tmp_path / "file")
    with pytest.raises(FerReproError, match="cannot be written"):
        results.write(made_result(), tmp_path / "file")


def merged_result(**changes) -> Result:
    """A run whose protocol scores the two halves as one set, with different accuracies on them."""
    result = made_result()
    rows = result.predictions["PublicTest_views"].astype(np.float32)
    rows[:2000] = np.eye(7)[result.predictions["PublicTest_labels"][:2000]]
    result.predictions["PublicTest_views"] = rows.astype(np.float16)
    usages = result.record["usages"] | {"test": ["PublicTest", "PrivateTest"]}
    result.record["recipe"]["protocol"]["test"] = usages["test"]
    result.record["recipe_sha256"] = digest(result.record["recipe"])
    result.record["selection"] = "best epoch on PublicTest (the scored images: an oracle)"
    scores = results.score_all(result.predictions, usages["test"])
    result.record |= {"usages": usages, "scores": scores} | changes
    return result


def test_two_halves_scored_as_one_set_have_one_headline(tmp_path):
    folder = results.write(merged_result(), tmp_path)
    assert results.verify(tmp_path) == []
    result = results.read(folder)
    parts = [result.score(half) for half in HALVES]
    assert result.scored == "PublicTest+PrivateTest" and parts[0]["accuracy"] > parts[1]["accuracy"] + 0.4
    assert result.headline["n"] == 7178 and result.headline["correct"] == sum(part["correct"] for part in parts)
    assert np.array_equal(result.headline["confusion"], np.add(*(part["confusion"] for part in parts)))
    assert result.headline["per_class"]["disgust"]["n"] == 111
    everything = [
        np.concatenate([result.predictions[f"{half}_{kind}"] for half in HALVES]) for kind in ("views", "labels")
    ]
    assert result.headline["log_loss"] == metrics.evaluate(*everything)["log_loss"]
    assert result.headline != result.score("PublicTest+PrivateTest", views=False)


def test_one_scored_half_is_stored_as_ever():
    assert set(made_result().record["scores"]) == set(HALVES) and made_result().scored == "PrivateTest"


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: r["scores"]["PublicTest+PrivateTest"]["views"].update(accuracy=0.7203),
        lambda r: r["scores"].pop("PublicTest+PrivateTest"),
        lambda r: r["usages"].update(test=["PublicTest"]),
    ],
)
def test_verify_recomputes_the_score_of_both_halves(tmp_path, damage):
    _edit(results.write(merged_result(), tmp_path), damage)
    assert "the scores in result.json are not those of predictions.npz" in " ".join(results.verify(tmp_path))


def test_labels_are_held_to_the_data_set_at_hand(tmp_path):
    result = made_result()
    results.write(result, tmp_path)
    ids = np.concatenate([result.predictions[f"{half}_ids"] for half in HALVES])
    labels = np.concatenate([result.predictions[f"{half}_labels"] for half in HALVES])
    usage = np.repeat(HALVES, 3589)
    faces = FER2013(np.zeros((len(ids), 48, 48), np.uint8), labels, usage, ids, "fer2013", "test", "0" * 64)
    assert results.verify(tmp_path, faces) == []
    moved = labels.copy()
    moved[[0, 3588]] = moved[[3588, 0]]
    other = FER2013(faces.images, moved, usage, ids, "fer2013", "test", "0" * 64)
    assert "2 predictions do not match" in " ".join(results.verify(tmp_path, other))


def with_epochs(selected: int = 2, variant: str = "mini-resemotenet-c-alone", **changes):
    """A result with predictions of two epochs, of which the ``selected`` one agrees with its own."""
    result = made_result(variant=variant, selected_epoch=selected, **changes)
    rng = np.random.default_rng(0)
    for half in HALVES:
        labels = result.predictions[f"{half}_labels"]
        rows = ((labels + rng.integers(1, 7, (2, len(labels)))) % 7).astype(
            np.uint8
        )  # wrong, so that it is not the best
        rows[selected - 1] = result.predictions[f"{half}_plain"].argmax(axis=1)
        result.epochs[half] = rows
    result.epochs["epoch"] = np.array([1, 2])
    labels = result.predictions["PublicTest_labels"]
    result.history["select_accuracy"] = (result.epochs["PublicTest"] == labels).mean(axis=1)
    return result


def test_predictions_of_every_epoch_are_stored_and_verified(tmp_path):
    result = with_epochs()
    folder = results.write(result, tmp_path)
    again = results.read(folder)
    assert again.epochs.keys() == result.epochs.keys()
    assert all((again.epochs[name] == rows).all() for name, rows in result.epochs.items())
    assert results.verify(tmp_path) == []
    (folder / "epochs.npz").unlink()
    [problem] = results.verify(tmp_path)
    assert "epochs.npz" in problem


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (lambda e, h: e["PrivateTest"].__setitem__((1, slice(0, 9)), 6), "PrivateTest of the selected epoch differs"),
        (lambda e, h: e["PublicTest"].__setitem__(0, e["PublicTest"][1]), "epoch 1 has another accuracy on PublicTest"),
        (lambda e, h: h.__setitem__("select_accuracy", [0.5, 0.5]), "epoch 1 has another accuracy on PublicTest"),
        (lambda e, h: e.update(epoch=np.array([2, 3])), "has an epoch 3, history.csv has 2"),
    ],
)
def test_planted_predictions_of_an_epoch_are_found(tmp_path, plant, said):
    result = with_epochs()
    plant(result.epochs, result.history)
    results.write(result, tmp_path)
    [problem] = results.verify(tmp_path)
    assert said in problem


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda e: e.pop("PublicTest"), "holds PrivateTest, epoch, expected"),
        (lambda e: e.update(epoch=np.array([2, 1])), "epoch is not a list of rising numbers"),
        (lambda e: e.update(epoch=np.array([0, 1])), "epoch is not a list of rising numbers"),
        (lambda e: e.update(PublicTest=e["PublicTest"][:, 1:]), "PublicTest is uint8"),
        (lambda e: e.update(PublicTest=e["PublicTest"] + np.uint8(7)), "with classes 0 to 6"),
    ],
)
def test_predictions_of_epochs_of_another_form_are_refused(tmp_path, change, said):
    result = with_epochs()
    change(result.epochs)
    with pytest.raises(FerReproError, match=said):
        results.write(result, tmp_path)


def test_two_runs_that_begin_at_once_may_both_try_the_folder(tmp_path, monkeypatch):
    """The other one deletes the file first with which both try whether the folder can be written."""

    @contextmanager
    def deleted_by_the_other(path):
        with files.atomic_write(path) as file:
            yield file
        path.unlink()

    monkeypatch.setattr(places, "atomic_write", deleted_by_the_other)
    results.require_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_random_crops_without_a_seed_are_other_ones_each_time(tmp_path):
    """Then the selected epoch, scored again, need not give what is stored; everything else must hold."""
    result = with_epochs(variant="emonext-tiny", protocol="claimed")
    assert result.record["recipe"]["plain"]["kind"] == "random"
    for half in HALVES:
        rows = result.epochs[half]
        rows[:] = (rows + 1) % 7
    results.write(result, tmp_path)
    assert results.verify(tmp_path) == []
