"""Runs on a copy that was cleaned on purpose: stored apart, verified by what they state, never a model's result."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from _csv_writer import repeated, write_csv
from data_copies import SMALL
from made_results import made_modified, made_result

from fer_repro import data, leaderboard, papers, reproduce, results
from fer_repro.campaign import Task, estimate, plan, runner, status
from fer_repro.claims import claim_of
from fer_repro.cli import main
from fer_repro.comparisons.gather import gather
from fer_repro.data import FER2013
from fer_repro.data.official import MODIFIED, OFFICIAL_COUNTS, count, differences
from fer_repro.errors import FerReproError
from fer_repro.leaderboard.stored import read_stored
from fer_repro.parameters import RunOptions

DIGEST = "a" * 64


# ---- what is stored ----------------------------------------------------------------


def test_it_lies_apart_and_verifies_by_the_counts_that_it_states(tmp_path):
    folder = results.write(made_modified(), tmp_path)
    assert folder == tmp_path / "vggnet/official/modified" / DIGEST[:12] / "seed-0"
    assert folder == results.folder_of(tmp_path, "vggnet", "official", 0, results.MODIFIED, DIGEST)
    assert results.verify(tmp_path) == [] and results.all_folders(tmp_path) == [folder]
    one = results.find("vggnet", "official", 0, tmp_path, results.MODIFIED, DIGEST)
    assert one.modified and not one.storable and one.storable_apart and one.name == "seed-0"
    assert one.headline["n"] == sum(one.record["modified"]["counts"]["PrivateTest"].values()) < 3589
    assert one.headline["per_class"]["disgust"] == {
        "n": 0, "correct": 0, "recall": None, "interval": None, "precision": 0.0, "f1": 0.0,
    }  # fmt: skip
    images = 35887 - 3589 + one.headline["n"]
    assert one.remark == f"on a modified copy of FER2013 ({images:,} images): no result of the model"
    with pytest.raises(FerReproError, match="already holds a result"):
        results.write(made_modified(), tmp_path)
    results.write(made_modified(digest="b" * 64), tmp_path)  # another copy has a place of its own
    assert len(results.read_all(tmp_path, results.MODIFIED)) == 2


def edit(folder, change):
    record = json.loads((folder / "result.json").read_text())
    change(record)
    (folder / "result.json").write_text(json.dumps(record))


def as_official(record):
    rows = OFFICIAL_COUNTS.tolist()
    stated = record["modified"]["counts"]
    for usage, row in zip(data.USAGES, rows, strict=True):
        stated[usage] = dict(zip(data.LABELS, row, strict=True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda r: r["modified"]["counts"]["PrivateTest"].update(happy=1),
            "PrivateTest: images per class are .*its mod",
        ),
        (lambda r: r["modified"]["counts"]["PublicTest"].pop("fear"), "modified/counts/PublicTest lacks fear"),
        (as_official, "its counts are the official ones"),
        (lambda r: r["scores"]["PrivateTest"]["plain"].update(accuracy=0.9), "the scores in result.json are not those"),
        (lambda r: r["data"].update(name="fer2013"), "data/name is 'fer2013', expected one of fer2013-modified"),
        (lambda r: r["data"].update(digest="c" * 64), "the folder's name does not say"),
        (lambda r: r.update(status="interrupted"), "only finished full runs on fer2013-modified belong there"),
        (lambda r: r["recipe"].update(batch_size=1), "recipe_sha256 is not the digest"),
        (lambda r: r.pop("kind"), "the folder's name does not say"),
        (lambda r: r.pop("modified"), "lacks modified"),
    ],
)
def test_verify_names_each_damage(tmp_path, change, words):
    edit(results.write(made_modified(), tmp_path), change)
    [problem] = results.verify(tmp_path)
    assert re.search(words, problem), problem


def test_a_modified_copy_in_the_place_of_a_full_run_is_a_problem(tmp_path):
    result = made_modified()
    for name in ("kind", "modified"):
        del result.record[name]
    [problem] = results.verify(results.write(result, tmp_path).parents[2])
    assert "only finished full runs on fer2013 belong there" in problem and "images per class" in problem


def test_ids_and_labels_are_held_to_the_copy_at_hand(tmp_path):
    result = made_modified()
    results.write(result, tmp_path)
    parts = [
        np.concatenate([result.predictions[f"{half}_{of}"] for half in results.HALVES]) for of in ("labels", "ids")
    ]
    usage = np.repeat(results.HALVES, [len(result.predictions[f"{half}_ids"]) for half in results.HALVES])

    def faces(labels):
        return FER2013(np.zeros((len(usage), 48, 48), np.uint8), labels, usage, parts[1], MODIFIED, "test", DIGEST)

    assert results.verify(tmp_path, faces(parts[0])) == []
    moved = parts[0].copy()
    moved[0] = (moved[0] + 1) % 7
    assert "1 predictions do not match" in " ".join(results.verify(tmp_path, faces(moved)))


def test_nothing_else_of_the_book_counts_it(tmp_path):
    """With and without it: the leaderboard, its verdicts and evidence, the list, the audit, what a chapter finds."""

    def seen():
        stored = read_stored(tmp_path)
        table = leaderboard.leaderboard(tmp_path)
        verdict = leaderboard.verdict(claim_of("vggnet"), stored.runs)
        audit = json.dumps(leaderboard.audit_json(tmp_path), default=str)
        states = [(entry["id"], entry["state"], entry["damaged"]) for entry in status.states(tmp_path)]
        compared = [entry.name for entry in gather(tmp_path).entries]
        return stored, compared, table.to_csv(), verdict, audit, states, results.find("vggnet", "official", 0, tmp_path)

    (tmp_path / "vggnet").mkdir()
    without = seen()
    results.write(made_modified(), tmp_path)
    assert seen() == without and without[-1] is None
    # Also where it is handed to them.
    [one] = results.read_all(tmp_path, results.MODIFIED)
    assert leaderboard.verdict(claim_of("vggnet"), [one]).name == "not run"
    assert leaderboard.evidence.full_runs("vggnet", [one]) is None
    results.write(made_result(), tmp_path)
    assert len(results.read_all(tmp_path)) == 1 and results.verify(tmp_path) == []


# ---- how it is run ----------------------------------------------------------------


@pytest.fixture
def copy(monkeypatch):
    """`full` takes seconds, by the smoke recipe, and the faces at hand lack what ``copy["lacks"]`` says: a function of
    the data that returns the mask of what is left."""
    whole = dataclasses.replace(data.load("synthetic", size=(96, 40, 40)), name="fer2013")
    variant = papers.get("vggnet")
    small = dataclasses.replace(variant, recipe=lambda protocol, profile: variant.recipe(protocol, "smoke"))
    monkeypatch.setattr(papers, "variants", lambda: {"vggnet": small})
    state = {"lacks": None, "asked": []}

    def load(name="fer2013", root=None, *, accept_modified=False, **more):
        state["asked"].append(accept_modified)
        if state["lacks"] is None:
            return whole
        if not accept_modified:
            raise FerReproError("wrong counts")
        left = whole.subset(state["lacks"](whole))
        official, found = (count(one.labels, one.codes()) for one in (whole, left))
        facts = {"differences": differences(found, official)}
        return dataclasses.replace(left, name=MODIFIED, digest=f"{len(left):064x}", facts=facts)

    monkeypatch.setattr(data, "load", load)
    return state


def no_disgust(faces):
    return faces.labels != 1


def run(tmp_path, **options):
    folders = {"results_dir": tmp_path / "results", "runs_dir": tmp_path / "runs", "device": "cpu"}
    return reproduce.reproduce("vggnet", **({"profile": "full"} | folders | options))


def test_a_run_on_a_modified_copy_is_stored_apart_and_read_again(tmp_path, copy, capsys):
    run(tmp_path)  # the official one
    copy["lacks"] = no_disgust
    with pytest.raises(FerReproError, match="wrong counts"):
        run(tmp_path, seed=1)
    first = run(tmp_path, accept_modified=True)
    assert first.modified and first.record["data"]["name"] == MODIFIED
    digest = first.record["data"]["digest"]
    folder = results.folder_of(tmp_path / "results", "vggnet", "official", 0, results.MODIFIED, digest)
    assert sorted(path.name for path in folder.iterdir()) == ["history.csv", "predictions.npz", "result.json"]
    assert first.score("PrivateTest")["per_class"]["disgust"]["recall"] is None
    stated = first.record["modified"]["counts"]
    assert {stated[usage]["disgust"] for usage in data.USAGES} == {0} and sum(stated["Training"].values()) < 96
    official = results.find("vggnet", "official", 0, tmp_path / "results")
    assert not official.modified and official.record["scores"] != first.record["scores"]
    kinds = sorted(path.parent.name for path in (tmp_path / "runs").rglob("seed-*"))
    assert kinds == ["full", f"full-fer2013-modified-{digest[:12]}"]
    assert results.verify(tmp_path / "results", folders=[folder]) == []
    changed = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = run(tmp_path, accept_modified=True)
    assert again.record["scores"] == first.record["scores"] and again.classifier is None
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == changed
    assert "is a modified copy of FER2013 (Training: 3 disgust missing; " in capsys.readouterr().out


def test_a_complete_copy_is_run_as_the_official_data(tmp_path, copy):
    first = run(tmp_path, accept_modified=True)
    assert not first.modified and "modified" not in first.record and first.storable
    assert results.all_folders(tmp_path / "results") == [
        results.folder_of(tmp_path / "results", "vggnet", "official", 0)
    ]
    assert run(tmp_path).record["scores"] == first.record["scores"]


@pytest.mark.parametrize(("usage", "use"), [("PrivateTest", "score"), ("PublicTest", "select by")])
def test_an_empty_test_set_is_one_sentence_before_anything_runs(tmp_path, copy, usage, use):
    copy["lacks"] = lambda faces: faces.usage != usage
    with pytest.raises(FerReproError, match=f"has no image of {usage}, so there is nothing to {use}"):
        run(tmp_path, accept_modified=True)
    assert not (tmp_path / "runs").exists()


def test_other_epochs_are_never_stored(tmp_path, copy):
    copy["lacks"] = no_disgust
    assert run(tmp_path, accept_modified=True, epochs=1).modified
    assert results.all_folders(tmp_path / "results") == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"profile": "smoke"}, "goes with a run on FER2013"),
        ({"profile": "stored"}, "goes with a run on FER2013"),
        ({"data": "synthetic"}, "goes with a run on FER2013"),
        ({"keep_unfinished": True}, "goes without --keep-unfinished"),
        ({"score_epochs": True}, "goes without --score-epochs"),
    ],
)
def test_what_the_option_does_not_go_with(tmp_path, copy, options, words):
    with pytest.raises(FerReproError, match=words):
        run(tmp_path, accept_modified=True, **options)
    assert copy["asked"] == []


def test_a_campaign_plans_runs_and_checks_it_apart(tmp_path, copy):
    folders = {"results_dir": tmp_path / "results", "runs_dir": tmp_path / "runs"}
    options = RunOptions(device="cpu", accept_modified=True, **folders)
    assert options.as_arguments()[-1] == "--accept-modified"
    tasks = [Task("vggnet", 0)]
    run(tmp_path)
    copy["lacks"] = no_disgust
    runner.check(tasks, options)
    estimator = estimate.Estimator(options)
    assert not estimator.stored(tasks[0]), "the official result does not answer for it"
    assert estimator.work("vggnet").images[0] < 96
    outcomes = plan.run(tasks, options, estimator=estimator)
    assert outcomes[0].state == "done" and "modified copy" in outcomes[0].text
    assert estimator.stored(tasks[0]) and estimator.remaining(tasks[0]).text == "stored"
    assert estimator.standing(tasks[0]).status == "done"
    assert plan.verify(outcomes, [], estimator) == (1, [])
    assert not estimate.Estimator(dataclasses.replace(options, accept_modified=False)).stored(Task("vggnet", 1))


def test_the_command_names_the_way_and_says_what_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FER_REPRO_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "fer2013.csv"
    write_csv(repeated(SMALL), path)
    with pytest.raises(SystemExit) as stop:
        main(["data", "check", "--root", str(path)])
    assert stop.value.code == 1 and "if it was cleaned on purpose, --accept-modified" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["data", "--root", str(path), "--accept-modified"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and "60 images, modified copy" in shown
    assert "not the official FER2013: Training: 3,990 angry missing, 433 disgust missing" in shown
    with pytest.raises(SystemExit) as stop:
        main(["data", "--root", str(path), "--accept-modified", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["name"] == MODIFIED and len(document["modified"]["differences"]) == 21
    with pytest.raises(SystemExit) as stop:
        main(["run", "vggnet", "--accept-modified", "--profile", "smoke"])
    assert stop.value.code == 1 and "goes with a run on FER2013" in capsys.readouterr().err
