"""A campaign: its order, its estimates, what a budget and kill -9 leave behind, and that it ends where it should."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import campaign_world
import numpy as np
import pytest
import torch
from listening import listening

from fer_repro import cli, papers, results
from fer_repro.campaign import Task, estimate, plan, runner, throughput
from fer_repro.campaign.estimate import Estimator, work
from fer_repro.errors import FerReproError
from fer_repro.parameters import RunOptions
from fer_repro.recipe import step
from fer_repro.results import folder as result_folder
from fer_repro.training import checkpoint
from fer_repro.training.run import Interrupted, Run

EPOCHS = campaign_world.EPOCHS
JUPYTER = "papermill,nbformat,nbclient,ipykernel,IPython,jupyter_client,jupyter_book,sphinx,itables,optuna,cv2"


@pytest.fixture
def world(monkeypatch):
    campaign_world.install(monkeypatch.setattr)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # kill -9 is tested, power cuts are not


@pytest.fixture
def options(world, tmp_path) -> RunOptions:
    return RunOptions(device="cpu", results_dir=str(tmp_path / "results"), runs_dir=str(tmp_path / "runs"))


@pytest.fixture
def stop_after(monkeypatch):
    """Let the time be up at the n-th look of all runs together (one look per batch)."""

    def set_to(looks: int) -> None:
        left = [looks]

        def out_of_time(run: Run, ahead: float = 0.0) -> bool:
            left[0] -= 1
            return left[0] < 0

        monkeypatch.setattr(Run, "out_of_time", out_of_time)

    return set_to


def rates(monkeypatch, known: float = 1e9) -> None:
    """One speed for all, so that estimates can be reckoned by hand."""
    monkeypatch.setattr(throughput.Speeds, "of", lambda *_: throughput.Speed(known, "by hand"))


def names(made: plan.Plan) -> list[tuple[str, int]]:
    return [(entry.task.variant, entry.task.seed) for entry in made.entries]


def tasks(*variants: str, seeds: tuple[int, ...] = (0,)) -> list[Task]:
    return [Task(name, seed) for name in variants for seed in seeds]


def test_rows_by_seed_the_cheapest_first_and_ablations_last(options, monkeypatch):
    rates(monkeypatch)
    made = plan.plan(tasks("aside", "large", "pupil", "small", seeds=(0, 1)), Estimator(options))
    assert names(made) == [
        ("small", 0),
        ("large", 0),
        ("pupil", 0),
        ("small", 1),
        ("large", 1),
        ("pupil", 1),
        ("aside", 0),
        ("aside", 1),
    ]
    assert made.seconds == pytest.approx(sum(entry.seconds for entry in made.entries)) and made.total.startswith("at m")


def test_the_estimate_counts_a_teacher_only_where_no_other_run_fits_it(options, monkeypatch):
    rates(monkeypatch)
    estimator = Estimator(options)
    alone, with_teacher = (plan.plan(tasks(*asked), estimator).entries for asked in (["pupil"], ["pupil", "large"]))
    own = estimator.remaining(Task("pupil", 0))
    assert alone[0].teachers == (Task("large", 0),)
    assert alone[0].text == "not begun; needs large seed 0 (not begun)"
    assert alone[0].seconds == pytest.approx(own.fitting + own.scoring + estimator.fitting(Task("large", 0)).fitting)
    assert [entry.task.variant for entry in with_teacher] == ["large", "pupil"] and with_teacher[1].teachers == ()
    assert with_teacher[1].seconds == pytest.approx(own.fitting + own.scoring)


def test_operations_are_those_counted_by_hand(world):
    variant, counts = papers.get("small"), {"Training": 100, "PublicTest": 30, "PrivateTest": 20}
    counted = work(variant, variant.recipe("official", "full"), counts)
    adds = 48 * 48 * 16 + 16 * 7
    assert counted.training == (100 * adds * 2 * 3,) and counted.selecting == 30 * adds * 2
    assert counted.scoring == (30 + 20) * adds * 2 and counted.at_most
    assert counted.left(None) == EPOCHS * (counted.training[0] + counted.selecting)


def test_a_stage_with_its_own_batches_and_crops_counts_by_them(world):
    variant, counts = papers.get("small"), {"Training": 100, "PublicTest": 30, "PrivateTest": 20}
    recipe = variant.recipe("official", "full")
    own = dataclasses.replace(recipe.stages[0], augment=(step("five_crop", size=40),), batch_size=25)
    one, two = (work(variant, dataclasses.replace(recipe, stages=(s,)), counts) for s in (recipe.stages[0], own))
    assert two.training[0] == 5 * one.training[0] and (one.batch_sizes, two.batch_sizes) == ((16,), (25,))


@pytest.mark.parametrize("name", ["vggnet", "resnet18-tricks", "ad-corre", "cnn-hyperparameters"])
def test_copies_views_and_stages_of_real_recipes_count(name):
    variant = papers.get(name)
    recipe, counts = variant.recipe("official", "full"), {"Training": 1000, "PublicTest": 100, "PrivateTest": 100}
    one, two = (work(variant, recipe, {**counts, "Training": n}) for n in (1000, 2000))
    assert two.training[0] == 2 * one.training[0] and two.selecting == one.selecting and two.scoring == one.scoring
    assert sum(one.epochs) == recipe.epochs
    if name == "vggnet":  # ten crops of every image in training and scoring, the plain view besides
        assert one.training[0] / 1000 == 10 * 3 * (one.scoring / 200 / 11)


def test_what_is_done_and_what_is_left_make_the_whole(options, stop_after):
    stop_after(9)  # 7 batches an epoch: the second epoch is under way
    outcomes = plan.run(tasks("large"), options)
    assert outcomes[0].state == "stopped" and "epoch 2 of 4" in outcomes[0].text
    estimator = Estimator(options)
    standing, counted = estimator.standing(Task("large", 0)), estimator.work("large")
    assert (standing.epochs, standing.epoch, standing.batch) == (1, 1, 2)
    assert counted.done(standing) + counted.left(standing) == pytest.approx(counted.left(None))
    assert 0 < counted.done(standing) < counted.left(None)
    found = estimator.remaining(Task("large", 0))
    assert (found.state, found.text) == ("begun", "begun, epoch 1 of 4")
    fresh = Estimator(dataclasses.replace(options, resume=False)).remaining(Task("large", 0))
    assert fresh.state == "new" and fresh.fitting > found.fitting


def test_a_begun_run_comes_before_an_equal_one(options, stop_after, monkeypatch):
    stop_after(20)
    plan.run(tasks("large", seeds=(1,)), options)
    rates(monkeypatch)
    left = plan.plan(tasks("large", seeds=(0, 1)), Estimator(options)).entries
    assert [entry.task.seed for entry in left] == [0, 1]  # a seed is finished before the next one is
    assert left[1].seconds < left[0].seconds


def test_a_run_of_another_recipe_or_device_comes_last_and_says_why(options, stop_after, monkeypatch):
    stop_after(9)
    plan.run(tasks("small"), options)
    known = papers.variants()
    changed = dataclasses.replace(
        known["small"], recipe=lambda *a: dataclasses.replace(known["small"].recipe(*a), std=2)
    )
    monkeypatch.setattr(papers, "variants", lambda: known | {"small": changed})
    entries = plan.plan(tasks("small", "large"), Estimator(options)).entries
    assert [entry.task.variant for entry in entries] == ["large", "small"]
    assert entries[1].remaining.text == "begun, epoch 1 of 4, but with another recipe"
    assert entries[1].estimate == "nothing to gain"
    assert plan.run(tasks("small"), options)[0].state == "failed"


def test_a_whole_campaign_stores_verifies_and_is_never_repeated(options):
    lines: list[str] = []
    asked = tasks("large", "small", "pupil", "aside")
    with listening(lines.append):
        outcomes = plan.run(asked, options)
    assert [(o.task.variant, o.state) for o in outcomes] == [
        (name, "done") for name in ("small", "large", "pupil", "aside")
    ]
    estimator = Estimator(options)
    assert plan.verify(outcomes, [], estimator) == (4, []) and plan.next_runs(outcomes, estimator) == []
    assert results.verify(Path(options.results_dir)) == []
    with listening(lines.append):
        again = plan.run(asked, options, budget=1e-9)  # no budget is needed to read what is stored
    assert {o.task: o.text for o in again} == {o.task: o.text for o in outcomes}
    made = plan.plan(asked, estimator)
    assert {entry.remaining.text for entry in made.entries} == {"stored"} and made.total == ""
    assert plan.verify(again, asked, estimator) == (0, [])


def test_damage_in_a_new_result_is_reported(options):
    outcomes = plan.run(tasks("small"), options)
    (results.folder_of(Path(options.results_dir), "small", "official", 0) / "history.csv").write_text("epoch\n1\n")
    assert "history.csv is not the file" in plan.verify(outcomes, [], Estimator(options))[1][0]


def test_small_budgets_again_and_again_reach_the_uninterrupted_end(options, stop_after, tmp_path):
    """Every command stops after ten batches; what is stored at last is what one command without a budget stores."""
    asked, commands = tasks("small", "pupil"), 0
    while True:
        stop_after(10)
        outcomes = plan.run(asked, options)
        commands += 1
        assert results.verify(Path(options.results_dir)) == []
        if all(outcome.state == "done" for outcome in outcomes):
            break
        assert [o.state for o in outcomes if o.state != "done"][0] == "stopped" and commands < 12
        following = plan.next_runs(outcomes, Estimator(options))
        assert following[0].startswith("next: ") and "begun, epoch" in following[0]
    assert commands >= 8
    stop_after(10**9)
    whole = dataclasses.replace(options, results_dir=str(tmp_path / "whole"), runs_dir=str(tmp_path / "other"))
    plan.run(asked, whole)
    for task in asked:
        assert same_predictions(Path(options.results_dir), Path(whole.results_dir), task)


def same_predictions(one: Path, other: Path, task: Task) -> bool:
    found = [results.find(task.variant, "official", task.seed, where) for where in (one, other)]
    assert all(found), f"{task} is not stored twice"
    first, second = (result.predictions for result in found)
    return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


def test_a_failure_and_a_defect_do_not_stop_the_others(options, monkeypatch, capsys):
    known = papers.variants()

    def broken(splits, run):
        raise ZeroDivisionError("a defect")

    def refused(splits, run):
        raise FerReproError("no luck")

    changed = {"small": dataclasses.replace(known["small"], fit=broken)}
    changed |= {"large": dataclasses.replace(known["large"], fit=refused)}
    monkeypatch.setattr(papers, "variants", lambda: known | changed)
    outcomes = plan.run(tasks("small", "large", "aside"), options)
    states = {outcome.task.variant: (outcome.state, outcome.text) for outcome in outcomes}
    assert states["small"] == ("failed", "ZeroDivisionError: a defect") and states["large"] == ("failed", "no luck")
    assert states["aside"][0] == "done" and "Traceback" in capsys.readouterr().err


def test_a_kill_while_a_result_is_written_leaves_no_partial_result(options, monkeypatch):
    class Killed(BaseException):
        pass

    written = result_folder.atomic_write

    def killed_before_the_last(path):
        if path.name == "result.json":
            raise Killed
        return written(path)

    monkeypatch.setattr(result_folder, "atomic_write", killed_before_the_last)
    with pytest.raises(Killed):
        plan.run(tasks("small"), options)
    where = Path(options.results_dir)
    assert results.verify(where) == [] and results.stored_folders(where) == []
    assert Estimator(options).remaining(Task("small", 0)).text == f"trained, {EPOCHS} of {EPOCHS} epochs"
    monkeypatch.setattr(result_folder, "atomic_write", written)
    lines: list[str] = []
    with listening(lines.append):
        assert plan.run(tasks("small"), options)[0].state == "done"
    assert not any(line.startswith("epoch") for line in lines) and results.verify(where) == []


def test_the_end_of_the_budget_is_kept_for_scoring(said, options, monkeypatch):
    rates(monkeypatch)
    estimator, task = Estimator(options), Task("large", 0)
    reserve = plan.time_to_reserve(estimator)
    tail = estimator.tail(task)
    assert tail > 1.5 * estimator.work("large").scoring / 1e9
    assert reserve(task, 10 * tail, True) == tail and said == []
    assert reserve(task, tail, True) == tail / 2 and "cannot stop in between" in said[0]  # half is left to go on with
    assert reserve(task, tail, False) == tail  # the budget is no longer whole: the next command begins it
    assert reserve(Task("pupil", 0), 10 * tail, False) == tail  # its teacher may be what is saved at the end


@pytest.mark.parametrize("allowed, native, caution", [("bf16", True, 3.0), ("bf16", False, 1.5), ("fp32", True, 1.5)])
def test_more_time_is_kept_for_scoring_where_training_is_in_half_precision(
    options, monkeypatch, allowed, native, caution
):
    rates(monkeypatch)
    monkeypatch.setattr(estimate, "native_bf16", lambda device: native)
    task, estimator = Task("large", 0), Estimator(options)
    recipe = dataclasses.replace(estimator.recipe("large"), precision=allowed)
    monkeypatch.setattr(estimator, "recipe", lambda variant: recipe)
    counted = estimator.work("large")
    saving = estimate.BYTES_PER_PARAMETER * counted.parameters / estimate.DISK
    assert estimator.tail(task) == pytest.approx(caution * counted.scoring / 1e9 + saving)


def test_only_the_first_run_of_a_budget_may_overrun_it(options):
    asked: list[tuple[Task, bool]] = []

    def reserve(task: Task, left: float, whole: bool) -> float:
        asked.append((task, whole))
        return 0.0

    waves = [[task] for task in tasks("small", "aside")]
    runner.run(waves, options, budget=1000, reserve=reserve)
    assert asked == [(Task("small", 0), True), (Task("aside", 0), False)]


def test_speeds_are_measured_by_checkpoints_and_preferred(options):
    plan.run(tasks("small"), options)
    estimator = Estimator(options)
    standing = estimator.standing(Task("small", 0))
    measured = estimator.work("small").left(None) / standing.seconds
    assert estimator.speed("small") == throughput.Speed(pytest.approx(measured), "measured here")
    assert estimator.speed("large").source == "measured here by small, the nearest in size"
    shutil.rmtree(options.runs_dir)
    assert estimator.speed("small").source.startswith("stored results of small on ")
    assert estimator.speed("large").source.startswith("stored results of small, the nearest in size, on ")
    elsewhere = dataclasses.replace(options, results_dir=options.runs_dir)
    guess = Estimator(elsewhere).speed("small")
    assert guess.source.startswith("a guess: ") and guess.flops_per_second > 1e8


def test_a_speed_is_taken_from_the_network_nearest_in_size():
    here = {"tiny": throughput.Measured(2e9, 1_000_000), "huge": throughput.Measured(400e9, 350_000_000)}
    speeds = throughput.Speeds(None, "cpu")
    large = speeds.of("other", 300_000_000, here)
    assert large == throughput.Speed(400e9, "measured here by huge, the nearest in size")
    assert speeds.of("other", 3_000_000, here).flops_per_second == 2e9
    assert speeds.of("tiny", 300_000_000, here) == throughput.Speed(2e9, "measured here")


def test_a_checkpoint_of_another_device_or_a_damaged_one_gives_no_speed(options, stop_after):
    stop_after(9)
    plan.run(tasks("small"), options)
    elsewhere = Estimator(options)
    elsewhere.device = "cuda"
    assert "measured" not in elsewhere.speed("small").source
    for path in Path(options.runs_dir).rglob("*.pt"):
        path.write_bytes(b"damage")
        os.utime(path.parent)  # as a replaced file would
    assert "guess" in Estimator(options).speed("small").source


def test_a_checkpoint_in_a_stage_that_the_recipe_has_not_is_no_error(options, stop_after):
    stop_after(9)
    plan.run(tasks("large"), options)
    stop_after(10**9)
    folder = Path(options.runs_dir) / "large/official/full/seed-0"
    content = torch.load(folder / checkpoint.NAME, weights_only=True)
    content["state"]["stage"] = 7
    for _ in range(2):
        checkpoint.save(folder, content["identity"], content["state"])
    made = plan.plan(tasks("large"), Estimator(options))
    assert made.rows()
    [outcome] = plan.run(tasks("large"), options)
    assert outcome.state == "failed" and "no readable checkpoint" in outcome.text


def test_a_method_without_a_network_is_estimated_by_its_stored_run():
    known = Estimator(RunOptions(device="cpu", runs_dir="nowhere"))
    found = known.remaining(Task("local-learning-bow", 1))
    stored = results.find("local-learning-bow", "official", 0)
    assert found.fitting == stored.record["cost"]["seconds"] and "seed 0" in found.source
    made = plan.plan([Task("cnn-hyperparameters-search", 0), Task("deep-emotion-no-stn", 5)], known)
    assert [entry.estimate == "unknown" for entry in made.entries] == [False, True]
    assert made.total.endswith("and 1 without an estimate")


def test_side_by_side_no_two_runs_share_a_teacher(world):
    waves = runner.side_by_side(tasks("pupil", "large", "small", seeds=(0, 1)))
    assert waves == [tasks("large", "small", seeds=(0, 1)), tasks("pupil", seeds=(0, 1))]
    known = papers.variants()
    known.update({name: dataclasses.replace(known["pupil"], id=name) for name in ("one", "two")})
    assert runner.side_by_side(tasks("one", "two", seeds=(0,))) == [tasks("one"), tasks("two")]


def call(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def test_the_plan_is_printed_and_nothing_runs(capsys, options):
    words = [
        "run",
        "--all",
        "--ablations",
        "--plan",
        "--device",
        "cpu",
        "--results-dir",
        options.results_dir,
        "--runs-dir",
        options.runs_dir,
    ]
    status, out, err = call(capsys, *words)
    assert status == 0 and "a guess" in out and "small seed 0" in out and "to do: at most" in out, err
    status, out, _ = call(capsys, *words, "--json")
    document = json.loads(out)
    assert status == 0 and [run["variant"] for run in document["runs"]] == ["small", "large", "pupil", "aside"]
    assert document["runs"][-1]["cumulative_seconds"] == pytest.approx(document["seconds"])
    assert not Path(options.runs_dir).exists() and results.stored_folders(Path(options.results_dir)) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "small", "--ablations"], "--ablations goes with --all"),
        (["run", "--all", "--json"], "goes with --plan"),
    ],
)
def test_options_that_do_not_go_together(capsys, world, words, said):
    status, out, err = call(capsys, *words)
    assert status == 1 and out == "" and said in err


def test_a_campaign_prints_what_it_did_and_what_comes_next(capsys, options, stop_after):
    words = ["run", "--all", "--device", "cpu", "--results-dir", options.results_dir, "--runs-dir", options.runs_dir]
    stop_after(40)  # small takes 28
    status, out, err = call(capsys, *words)
    assert status == 130 and "give the same command again" in err
    lines = out.splitlines()
    assert any(line.startswith("small seed 0: ") and "% of 3,589" in line for line in lines)
    assert any(line.startswith("large seed 0: stopped: time budget used up") for line in lines)
    assert "pupil seed 0: not started" in lines and f"1 new result stored in {options.results_dir}, 0 problems" in lines
    assert any(line.startswith("next: large seed 0, begun, epoch 1 of 4, about ") for line in lines)
    stop_after(10**9)
    status, out, _ = call(capsys, *words)
    assert status == 0 and f"2 new results stored in {options.results_dir}, 0 problems" in out and "next" not in out


def test_killed_in_the_middle_then_ended_without_jupyter(world, tmp_path):
    """kill -9 of a real process; the next one lacks what a GPU machine may lack, and brings the campaign to its end."""
    program, where = Path(campaign_world.__file__), [tmp_path / "results", tmp_path / "runs"]
    words = [
        "run",
        "--all",
        "--seed",
        "3",
        "--device",
        "cpu",
        "--results-dir",
        str(where[0]),
        "--runs-dir",
        str(where[1]),
    ]
    first = subprocess.Popen([sys.executable, str(program), *words], stdout=subprocess.PIPE, text=True)
    stored = False
    for line in first.stdout:
        stored = stored or line.startswith("stored in")
        if stored and line.startswith("epoch 2/"):
            first.send_signal(signal.SIGKILL)
            break
    assert first.wait() == -signal.SIGKILL
    assert results.verify(where[0]) == [] and len(results.stored_folders(where[0])) == 1
    begun = checkpoint.peek(where[1] / "large" / "official" / "full" / "seed-3")
    assert begun is not None and begun.epochs >= 1 and begun.status == "running"
    command = [sys.executable, str(program), "--without", JUPYTER, *words]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert f"going on after epoch {begun.epochs} of {EPOCHS}" in second.stdout
    assert results.verify(where[0]) == [] and len(results.stored_folders(where[0])) == 3
    options = RunOptions(device="cpu", results_dir=str(tmp_path / "whole"), runs_dir=str(tmp_path / "other"))
    plan.run(tasks("large", "pupil", seeds=(3,)), options)
    for task in tasks("large", "pupil", seeds=(3,)):
        assert same_predictions(where[0], Path(options.results_dir), task)


def test_interrupted_is_what_a_stop_raises(options, stop_after):
    """The campaign catches it; whoever calls `reproduce` sees it."""
    from fer_repro.reproduce import reproduce

    stop_after(0)
    with pytest.raises(Interrupted):
        reproduce("small", profile="full", device="cpu", results_dir=options.results_dir, runs_dir=options.runs_dir)


def test_a_checkpoint_without_a_batch_has_no_speed_and_no_gain(options, stop_after):
    """It was a division by zero: the speed of the run is 0 operations a second."""
    stop_after(3)
    plan.run(tasks("small"), options)
    estimator = Estimator(options)
    (task,) = tasks("small")
    path = estimator.folder(task) / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    content["state"] |= {"batch": 0, "history": [], "epoch": 0}
    content["state"]["seconds"]["total"] = 5.0
    torch.save(content, path)
    assert Estimator(options).speed("small").flops_per_second > 0 and Estimator(options).gained(task) == set()
    content["state"] |= {"batch": 1, "order": torch.arange(9)}
    torch.save(content, path)
    assert Estimator(options).gained(task)
