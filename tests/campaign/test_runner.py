"""Several runs in one command: their order, what a failure, a budget and Ctrl-C do, and children side by side."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from listening import listening

from fer_repro import papers
from fer_repro.campaign import Task, runner
from fer_repro.errors import FerReproError
from fer_repro.parameters import RunOptions
from fer_repro.training.run import OUT_OF_TIME, Interrupted

CHILD = """
import sys, time
name = sys.argv[2]
print("begins", flush=True)
try:
    time.sleep(600 if name == "slow" else 0.1)
except KeyboardInterrupt:
    print(f"{name} seed 0: stopped: checkpoint saved")
    sys.exit(130)
print(f"{name} seed 0: " + ("failed: no luck" if name == "bad" else "70.00 % of 100"))
sys.exit(name == "bad")
"""


@pytest.fixture
def variants(monkeypatch):
    """vggnet's variant under other names that need each other: c needs b, b needs a."""

    def make(**requires: tuple[str, ...]) -> None:
        vggnet = papers.variants()["vggnet"]
        known = {name: dataclasses.replace(vggnet, id=name, requires=needed) for name, needed in requires.items()}
        monkeypatch.setattr(papers, "variants", lambda: known)
        monkeypatch.setattr(papers, "listed", lambda: known)

    return make


def test_circular_variants_are_an_error():
    a, b = Task("a", 0), Task("b", 0)
    with pytest.raises(FerReproError, match="b seed 0, a seed 0 require each other|a seed 0, b seed 0 require each"):
        runner.sorter({a: [b], b: [a]})


def test_a_wrong_option_is_refused_before_the_first_run(tmp_path):
    tasks = [Task("vggnet", 0)]
    with pytest.raises(FerReproError, match="protocol is 'oficial'"):
        runner.check(tasks, RunOptions(protocol="oficial"))
    with pytest.raises(FerReproError, match="unknown variant 'x'"):
        runner.check([*tasks, Task("x", 0)], RunOptions())
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(FerReproError, match="cannot be written"):
        runner.check(tasks, RunOptions(results_dir=str(blocked / "results")))
    runner.check(tasks, RunOptions(profile="smoke", results_dir=str(blocked / "results")))


@pytest.fixture
def reproduce(monkeypatch):
    """A stand-in that records its calls and behaves by the variant's name."""
    calls = []

    def stand_in(variant, **options):
        calls.append((variant, options["seed"], options["time_budget"]))
        if variant == "bad":
            raise FerReproError("no luck")
        if variant == "long":
            raise Interrupted("time budget used up: checkpoint saved")
        if variant == "ctrl-c":
            raise KeyboardInterrupt
        status = "diverged" if variant == "diverging" else "done"
        headline = {"accuracy": 0.7, "n": 100, "interval": [0.6, 0.8]}
        return SimpleNamespace(status=status, headline=headline, synthetic=variant == "synthetic", modified=False)

    monkeypatch.setattr("fer_repro.reproduce.reproduce", stand_in)
    return calls


def test_a_failure_does_not_stop_the_others(reproduce):
    waves = [[Task("bad", 0), Task("diverging", 0), Task("good", 0)], [Task("synthetic", 1)]]
    outcomes = runner.run(waves, RunOptions())
    assert [(o.task.variant, o.state) for o in outcomes] == [
        ("bad", "failed"),
        ("diverging", "failed"),
        ("good", "done"),
        ("synthetic", "done"),
    ]
    assert outcomes[0].text == "no luck" and outcomes[1].text.endswith("status diverged")
    assert outcomes[2].text == "70.00 % of 100 (60.00 to 80.00 %)"
    assert outcomes[3].text.endswith("synthetic faces - not a result")


@pytest.mark.parametrize("stopping", ["long", "ctrl-c"])
def test_a_stop_ends_everything_after_it(reproduce, stopping):
    outcomes = runner.run([[Task("good", 0), Task(stopping, 0), Task("good", 1)], [Task("good", 2)]], RunOptions())
    assert [o.state for o in outcomes] == ["done", "stopped", "not started", "not started"]
    assert [call[:2] for call in reproduce] == [("good", 0), (stopping, 0)]


def test_the_budget_is_shared(reproduce):
    runner.run([[Task("good", 0)], [Task("good", 1)]], RunOptions(), budget=100)
    assert all(0 < left <= 100 for _, _, left in reproduce)
    outcomes = runner.run([[Task("good", 0)]], RunOptions(), budget=1e-9)
    assert [o.state for o in outcomes] == ["not started"] and len(reproduce) == 2


@pytest.fixture
def children(monkeypatch, tmp_path):
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    monkeypatch.setattr("fer_repro.campaign.workers.COMMAND", (sys.executable, str(script)))


def test_children_run_side_by_side_and_report(children):
    lines: list[str] = []
    tasks = [Task("good", 0), Task("bad", 0), Task("good", 1)]
    with listening(lines.append):
        outcomes = runner.run([tasks], RunOptions(device="cpu"), jobs=2)
    states = {outcome.task: (outcome.state, outcome.text) for outcome in outcomes}
    assert states[Task("good", 0)] == states[Task("good", 1)] == ("done", "70.00 % of 100")
    assert states[Task("bad", 0)] == ("failed", "failed: no luck")
    assert lines.count("[bad seed 0] begins") == 1


@pytest.fixture(params=["as usual", "ignored"])
def sigint(request):
    """How this process meets SIGINT from its start; background jobs of a shell ignore it, and so would their children.

    "As usual" is set too: whoever runs the tests may have started them in the background.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if request.param == "ignored" else signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_child_once_and_waits_for_its_checkpoint(children, sigint, number):
    begun: list[str] = []

    def say(line: str) -> None:
        begun.append(line)
        if sum("begins" in earlier for earlier in begun) == 2 and "begins" in line:
            threading.Timer(0.2, os.kill, (os.getpid(), number)).start()

    tasks = [Task("slow", 0), Task("slow", 1), Task("good", 0)]
    with listening(say):
        outcomes = runner.run([tasks], RunOptions(device="cpu"), jobs=2)
    assert [o.state for o in outcomes] == ["stopped", "stopped", "not started"]
    assert all(o.text == "stopped: checkpoint saved" for o in outcomes[:2])


def test_a_campaign_keeps_what_it_can(monkeypatch):
    """Of a method without epochs a stopped run has nothing to keep; the first run begins also without time."""
    asked = []

    def stopped(variant, **options):
        asked.append((variant, options["keep_unfinished"], options["time_budget"] <= 0))
        raise Interrupted(f"{OUT_OF_TIME}: stopped")

    monkeypatch.setattr("fer_repro.reproduce.reproduce", stopped)
    for name in ("vggnet", "local-learning-bow"):
        outcomes = runner.run([[Task(name, 0)], [Task("x", 0)]], RunOptions(keep_unfinished=True), budget=-1.0)
        assert [outcome.state for outcome in outcomes] == ["stopped", "not started"]
    assert asked == [("vggnet", True, True), ("local-learning-bow", False, True)]


def test_options_as_arguments_of_the_command():
    both = RunOptions(keep_unfinished=True, score_epochs=True)
    assert both.of("vggnet") == both and both.of("local-learning-bow") == RunOptions(), "it has no epochs"
    for name in ("keep_unfinished", "score_epochs"):
        assert RunOptions(**{name: True}).as_arguments()[-1] == f"--{name.replace('_', '-')}"
    arguments = RunOptions(profile="smoke", device="cpu", epochs=2, resume=False, root="x y").as_arguments()
    assert arguments == [
        "--protocol",
        "official",
        "--profile",
        "smoke",
        "--device",
        "cpu",
        "--epochs",
        "2",
        "--root",
        "x y",
        "--no-resume",
    ]


def test_seeds_together_end_as_one_after_the_other(tmp_path):
    options = RunOptions(profile="smoke", epochs=2, device="cpu", runs_dir=str(tmp_path / "one"))
    tasks = [Task("deep-emotion-no-stn", seed) for seed in (0, 1)]
    said: list[str] = []
    alone = runner.run([tasks], options)
    both = dataclasses.replace(options, runs_dir=str(tmp_path / "both"))
    with listening(said.append):
        together = runner.run([tasks], both, together=True)
    assert together == alone and [outcome.state for outcome in together] == ["done", "done"]
    epochs = [line[: line.index(":")] for line in said if "epoch" in line]
    assert epochs == [f"[{task}] epoch {n}/2 train" for n in (1, 2) for task in tasks]


def test_one_failure_of_seeds_together_does_not_stop_the_others(variants, monkeypatch):
    def reproduce(variant, seed, turn, **options):
        turn.yield_turn()
        if seed == 1:
            raise FerReproError("no luck")
        return SimpleNamespace(
            status="done", synthetic=False, modified=False, headline={"accuracy": 0.5, "n": 10, "interval": (0.2, 0.8)}
        )

    variants(a=())
    monkeypatch.setattr("fer_repro.reproduce.reproduce", reproduce)
    outcomes = runner.run([[Task("a", seed) for seed in range(3)]], RunOptions(device="cpu"), together=True)
    assert [outcome.state for outcome in outcomes] == ["done", "failed", "done"] and outcomes[1].text == "no luck"


def test_seeds_of_a_variant_are_gathered():
    tasks = [Task("a", 0), Task("b", 0), Task("a", 1), Task("b", 1), Task("a", 0)]
    assert runner.seeds_together(tasks) == [[Task("a", 0), Task("a", 1)], [Task("b", 0), Task("b", 1)]]


def test_seeds_together_share_one_budget(variants, monkeypatch):
    lefts = []

    def reproduce(variant, seed, time_budget, turn, **options):
        lefts.append(time_budget)
        time.sleep(0.3)
        return SimpleNamespace(
            status="done", synthetic=False, modified=False, headline={"accuracy": 0.5, "n": 10, "interval": (0.2, 0.8)}
        )

    variants(a=())
    monkeypatch.setattr("fer_repro.reproduce.reproduce", reproduce)
    runner.run([[Task("a", seed) for seed in range(3)]], RunOptions(device="cpu"), budget=60, together=True)
    # Who begins later has less left: the end is the same for all.
    assert lefts[0] <= 60 and lefts[1] <= lefts[0] - 0.3 and lefts[2] <= lefts[1] - 0.3
