"""A run that was stopped, killed or resumed ends where an uninterrupted one ends, bit for bit."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from listening import listening
from worker import fingerprint

from fer_repro.errors import FerReproError
from fer_repro.recipe import Stage, step
from fer_repro.training import checkpoint, loop
from fer_repro.training.loop import fit
from fer_repro.training.run import Interrupted
from fer_repro.training.step import TrainStep

BATCHES = 5  # of the small training set in one epoch


class StopAfter:
    """A time budget that is used up after so many looks (one per batch)."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def __call__(self, ahead: float = 0.0) -> bool:
        self.left -= 1
        return self.left < 0


def stopped_after(batches: int, folder: Path, recipe=small.RECIPE):
    """A run whose time is up before batch ``batches`` (counted over all epochs)."""
    told = small.run(folder, recipe)
    told.out_of_time = StopAfter(batches)
    with pytest.raises(Interrupted, match="time budget used up: stopped in epoch"):
        fit(small.build, small.splits(), told)
    assert told.facts["status"] == "interrupted"
    return told


def final_state(folder: Path, recipe=small.RECIPE) -> dict:
    run = small.run(folder, recipe)
    identity = {"recipe": recipe.sha256(), "data set": run.data_digest, "seed": run.seed, "device": "cpu"}
    return checkpoint.load(folder, identity)


def equal(a, b, where="state") -> None:
    """Assert that two nested states are equal to the last bit."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if key not in ("seconds", "peak"):
                equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for index, pair in enumerate(zip(a, b, strict=True)):
            equal(*pair, f"{where}[{index}]")
    else:
        assert a == b or (a != a and b != b), f"{where}: {a} and {b}"


SCHEDULES = {
    "the recipe": small.RECIPE,
    "batch schedule with warm-up, last epoch, no average": dataclasses.replace(
        small.RECIPE,
        ema=None,
        selection=dataclasses.replace(small.RECIPE.selection, rule="last"),
        stages=(
            Stage("a", 2, step("adamw", lr=0.01), step("cosine", per="batch", warmup=4)),
            Stage(
                "b",
                3,
                small.SGD,
                step("one-cycle", per="batch", max_lr=0.1),
                images="finetune",
                start="best",
                patience=2,
            ),
        ),
    ),
}


@pytest.fixture(scope="module", params=SCHEDULES)
def uninterrupted(request, tmp_path_factory):
    torch.set_num_threads(1)
    recipe = SCHEDULES[request.param]
    folder = tmp_path_factory.mktemp("uninterrupted")
    told = small.run(folder, recipe)
    print_ = fingerprint(fit(small.build, small.splits(), told), told.history)
    return recipe, print_, final_state(folder, recipe)


# Inside an epoch, at its end, at the last batch, at the border of the stages, in the last batch of all, and twice.
@pytest.mark.parametrize("stops", [(0,), (3,), (5,), (9,), (10,), (15,), (17,), (24,), (4, 8), (12, 1, 3)])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, uninterrupted, stops):
    recipe, expected, expected_state = uninterrupted
    for batches in stops:
        random.seed(0), np.random.seed(0), torch.manual_seed(0)  # a resumed run must not lean on the process's state
        stopped_after(batches, tmp_path, recipe)
    told = small.run(tmp_path, recipe)
    classifier = fit(small.build, small.splits(), told)
    assert fingerprint(classifier, told.history) == expected
    equal(final_state(tmp_path, recipe), expected_state)


def test_the_comparison_notices_a_forgotten_generator(tmp_path, uninterrupted, monkeypatch):
    recipe, expected, _ = uninterrupted
    stopped_after(7, tmp_path, recipe)
    monkeypatch.setattr(checkpoint, "set_random_state", lambda state, device: None)
    told = small.run(tmp_path, recipe)
    assert fingerprint(fit(small.build, small.splits(), told), told.history) != expected


def test_a_finished_run_answers_without_training(tmp_path, monkeypatch):
    first = small.run(tmp_path)
    expected = fingerprint(fit(small.build, small.splits(), first), first.history)
    monkeypatch.setattr(TrainStep, "__call__", lambda *_: pytest.fail("trained again"))
    again = small.run(tmp_path)
    assert fingerprint(fit(small.build, small.splits(), again), again.history) == expected
    assert again.facts["selected_epoch"] == first.facts["selected_epoch"]
    assert again.facts["seconds"] == pytest.approx(first.facts["seconds"], abs=0.5)
    # Without resume it starts anew.
    monkeypatch.undo()
    anew = small.run(tmp_path, resume=False, seed=5)
    assert fingerprint(fit(small.build, small.splits(), anew), anew.history) != expected


def saves(monkeypatch, seconds: float = 0.0) -> list[str]:
    """The status in every checkpoint written from now on, each of which takes ``seconds`` longer."""
    written, original = [], checkpoint.save

    def slowly(folder, identity, state):
        original(folder, identity, state)
        written.append(state["status"])
        time.sleep(seconds)

    monkeypatch.setattr(checkpoint, "save", slowly)
    return written


def test_long_epochs_are_saved_inside(tmp_path, monkeypatch):
    reference = small.run(tmp_path / "a")
    expected = fingerprint(fit(small.build, small.splits(), reference), reference.history)
    written = saves(monkeypatch)
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    told = small.run(tmp_path / "b")
    assert fingerprint(fit(small.build, small.splits(), told), told.history) == expected
    assert len(written) >= BATCHES * 5


def test_slow_saving_does_not_slow_fast_epochs(tmp_path, monkeypatch):
    written = saves(monkeypatch, seconds=0.3)
    fit(small.build, small.splits(), small.run(tmp_path))
    # The first epoch's end shows how slow it is; after that only the end of the run is worth it.
    assert written == ["running", "done"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe": dataclasses.replace(small.RECIPE, batch_size=17)}, "another recipe"),
        ({"data_digest": "e" * 64}, r"another data set \(dddddddddddd, this run has eeeeeeeeeeee\)"),
        ({"seed": 4}, r"another seed \(3, this run has 4\)"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, changes, words):
    stopped_after(3, tmp_path)
    with pytest.raises(FerReproError, match=words):
        fit(small.build, small.splits(), small.run(tmp_path, **changes))


def test_a_signal_stops_at_a_checkpoint(tmp_path):
    reference = small.run(tmp_path / "whole")
    expected = fingerprint(fit(small.build, small.splits(), reference), reference.history)
    for number, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP"), (signal.SIGINT, "Ctrl-C")):
        folder, said = tmp_path / name, []
        before = signal.getsignal(number)

        def say(line, number=number, said=said):
            said.append(line)
            if line.startswith("epoch 2/"):
                os.kill(os.getpid(), number)

        with listening(say), pytest.raises(Interrupted, match=f"{name}: stopped in epoch 3 of 5"):
            fit(small.build, small.splits(), small.run(folder))
        assert f"{name}: stopping at a checkpoint after this batch" in said
        assert signal.getsignal(number) is before
        told = small.run(folder)
        assert fingerprint(fit(small.build, small.splits(), told), told.history) == expected


def test_fit_works_outside_the_main_thread(tmp_path):
    results = []
    told = small.run(tmp_path, small.PLAIN)
    thread = threading.Thread(target=lambda: results.append(fit(small.build, small.splits(), told)))
    thread.start()
    thread.join(600)
    assert len(results) == 1 and told.facts["status"] == "done"


def worker(folder: Path, pause: float = 0.0) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("worker.py")), str(folder), str(pause)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_killed_at_random_times_it_ends_as_if_nothing_had_happened(tmp_path, monkeypatch):
    reference = small.run(tmp_path / "whole")
    expected = fingerprint(fit(small.build, small.splits(), reference), reference.history)
    chance, folder, kills = random.Random(7), tmp_path / "killed", 0
    while True:
        process = worker(folder, pause=0.05)
        # The first line means that training is under way; then kill it somewhere in the next few epochs and saves.
        process.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.12))
        if kills < 3:
            process.kill()
            kills += process.wait() == -signal.SIGKILL
            process.stdout.close()
            if checkpoint.NAME in os.listdir(folder) or checkpoint.PREVIOUS in os.listdir(folder):
                final_state(folder)  # whatever is there can be read
            continue
        lines = process.communicate(timeout=600)[0].splitlines()
        assert lines[-1] == f"fingerprint {expected}", lines
        break
    assert not list(folder.glob(".*.tmp"))


def test_one_writer(tmp_path):
    with checkpoint.writer(tmp_path):
        with pytest.raises(FerReproError, match=f"is in use by process {os.getpid()}"):
            fit(small.build, small.splits(), small.run(tmp_path))
        process = worker(tmp_path)
        output = process.communicate(timeout=600)[0]
        assert process.returncode != 0 and "is in use by process" in output
    fit(small.build, small.splits(), small.run(tmp_path, small.PLAIN))
