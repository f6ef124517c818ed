"""One command gives one result: no clock, budget, interruption or neighbour decides what is computed."""

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small
import torch
from torch import nn
from worker import fingerprint

from fer_repro.training import autotune, checkpoint, execution, loop
from fer_repro.training.execution import ExecutionOptions, native_bf16, precision
from fer_repro.training.interleave import interleave
from fer_repro.training.run import Interrupted

CPU = torch.device("cpu")
SEEDS = (3, 4)

# A clock that shows anything; every run counts as a long one, on a processor that has bf16.
CHANCE = """
import itertools, random
from fer_repro.training import autotune, execution, loop
loop.MANY_STEPS = 1
execution.native_bf16 = lambda device: True
timed = autotune._seconds_per_batch
def by_chance(step, batch):
    timed(step, batch)
    return random.SystemRandom().random()
autotune._seconds_per_batch = by_chance
"""


@pytest.fixture
def any_clock(monkeypatch):
    """Each call gives the next of all orders in which three ways can come out of a trial."""
    monkeypatch.setattr(loop, "MANY_STEPS", 1)
    monkeypatch.setattr(execution, "native_bf16", lambda device: True, raising=False)
    shown = itertools.cycle([3.0, 1.0, 2.0, 1.0, 3.0, 2.0, 2.0, 3.0, 1.0, 1.0])
    monkeypatch.setattr(autotune, "_seconds_per_batch", lambda step, batch: next(shown))


def finished(folder, seed=3, turn=None, **changes) -> str:
    run = small.run(folder, seed=seed, turn=turn, **changes)
    return fingerprint(loop.fit(small.build, small.splits(), run), run.history)


def interrupted(folder, batches: int, seed=3) -> None:
    """Stop before batch ``batches``, with no time left for anything that is asked for ahead of it."""
    run, looks = small.run(folder, seed=seed), iter(range(10**6))
    run.out_of_time = lambda ahead=0.0: ahead > 1 or next(looks) >= batches
    with pytest.raises(Interrupted):
        loop.fit(small.build, small.splits(), run)


def test_budgets_and_interruptions_change_nothing(tmp_path, any_clock):
    expected = finished(tmp_path / "whole")
    assert finished(tmp_path / "again") == expected
    assert finished(tmp_path / "budget", deadline=loop.time.monotonic() + 1000) == expected
    for stops in [(0,), (3,), (7, 4), (1, 1, 9)]:
        folder = tmp_path / "-".join(map(str, stops))
        for batches in stops:
            interrupted(folder, batches)
        assert finished(folder) == expected, stops


def test_a_killed_run_ends_as_one_that_was_not(tmp_path, any_clock):
    expected = finished(tmp_path / "whole")
    script = f"{CHANCE}\nimport sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    script += f"import worker; worker.main({str(tmp_path / 'killed')!r}, float(sys.argv[1]))"
    for pause in (0.1, 0.1, 0.0):
        process = subprocess.Popen([sys.executable, "-c", script, str(pause)], stdout=subprocess.PIPE, text=True)
        if not pause:
            assert process.communicate(timeout=600)[0].splitlines()[-1] == f"fingerprint {expected}"
            break
        for line in process.stdout:
            if line.startswith("epoch"):
                break
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()


def test_runs_in_one_process_equal_single_ones(tmp_path, any_clock):
    alone = [finished(tmp_path / "alone" / str(seed), seed) for seed in SEEDS]
    works = [lambda turn, s=seed: finished(tmp_path / "together" / str(s), s, turn) for seed in SEEDS]
    assert interleave(works, "cpu") == alone and alone[0] != alone[1]


def weights(runs: Path, seed: int) -> dict[str, torch.Tensor]:
    (path,) = runs.glob(f"deep-emotion/official/smoke-3-epochs/seed-{seed}/{checkpoint.NAME}")
    return torch.load(path, weights_only=True)["state"]["model"]


def test_one_command_gives_one_result_with_jobs_together_and_budgets(tmp_path):
    """Whole commands, each with a clock of its own, give the same weights to the last bit."""
    script = tmp_path / "command.py"
    # The children of --jobs are this same script.
    script.write_text(
        f"import sys\n{CHANCE}\nfrom fer_repro.campaign import workers\nfrom fer_repro import cli\n"
        "workers.COMMAND = (sys.executable, __file__)\ncli.main()\n"
    )
    common = [*(word for seed in SEEDS for word in ("--seed", str(seed))), "--profile", "smoke", "--epochs", "3"]
    ways = {"single": [], "jobs": ["--jobs", "2"], "together": ["--together"], "budget": ["--time-budget", "500"]}
    for name, words in ways.items():
        command = [sys.executable, script, "run", "deep-emotion", *common, "--runs-dir", tmp_path / name, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        for seed in SEEDS:
            first, other = weights(tmp_path / "single", seed), weights(tmp_path / name, seed)
            assert all(torch.equal(first[key], other[key]) for key in first), (name, seed)
    first, other = (
        torch.cat([part.flatten() for part in weights(tmp_path / "single", seed).values()]) for seed in SEEDS
    )
    assert not torch.equal(first, other), "both seeds are one run: the comparison shows nothing"


def test_two_smoke_runs_are_equal_but_for_times():
    from fer_repro.reproduce import reproduce

    first, again = (reproduce("deep-emotion", epochs=2) for _ in range(2))
    records = [json.loads(json.dumps(result.record)) for result in (first, again)]
    for record in records:
        assert record["facts"]["precision"] == "fp32" and record["environment"]["threads"] == 1
        del record["started"], record["ended"]
        del record["cost"]["seconds"], record["cost"]["images_per_second"], record["cost"]["peak_memory_bytes"]
    assert records[0] == records[1]
    assert all((first.predictions[name] == again.predictions[name]).all() for name in first.predictions)
    assert first.history.drop(columns="seconds").equals(again.history.drop(columns="seconds"))


class Depthwise(nn.Sequential):
    def __init__(self, wide: int) -> None:
        super().__init__(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.LazyLinear(wide))
        self(torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("native", "wide", "recipe", "allowed", "expected"),
    [
        (True, 100, "bf16", True, "bf16"),
        (True, 1, "bf16", True, "fp32"),  # nearly all of it is depthwise
        (False, 100, "bf16", True, "fp32"),
        (True, 100, "fp32", True, "fp32"),
        (True, 100, "bf16", False, "fp32"),
    ],
)
def test_precision_is_a_rule(monkeypatch, native, wide, recipe, allowed, expected):
    monkeypatch.setattr(execution, "native_bf16", lambda device: native)
    changed = small.dataclasses.replace(small.PLAIN, precision=recipe)
    assert precision(ExecutionOptions(autocast=allowed), changed, Depthwise(wide), CPU) == expected


@pytest.mark.parametrize(("found", "native"), [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({}, False)])
def test_what_the_processor_has_decides(monkeypatch, found, native):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert native_bf16(CPU) is native
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert native_bf16(CPU) is False  # an older torch


@pytest.mark.parametrize(("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_has_bf16_from_ampere_on(monkeypatch, capability, native):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert native_bf16(torch.device("cuda")) is native


def resumed_in(tmp_path, monkeypatch, before: dict | None, native: bool):
    """Facts of a run that goes on from a checkpoint whose stored choice was ``before``."""
    monkeypatch.setattr(execution, "native_bf16", lambda device: False)
    interrupted(tmp_path, 7)
    file = tmp_path / checkpoint.NAME
    content = torch.load(file, weights_only=True)
    content["state"]["choice"] = before
    del content["state"]["threads"], content["digest"]
    torch.save(content, file)
    monkeypatch.setattr(execution, "native_bf16", lambda device: native)
    run = small.run(tmp_path)
    loop.fit(small.build, small.splits(), run)
    return run.facts


BF16 = {"channels_last": True, "autocast": True, "forward": "eager", "host_memory": False}


@pytest.mark.parametrize(
    ("before", "native", "kept"), [(BF16, False, "bf16"), (BF16, True, "bf16"), (None, True, "fp32")]
)
def test_a_checkpoint_of_earlier_code_keeps_its_precision_and_says_so(
    said, tmp_path, monkeypatch, before, native, kept
):
    assert resumed_in(tmp_path, monkeypatch, before, native)["precision"] == kept
    line = next(line for line in said if line.startswith("going on after epoch 1 of 5"))
    other = {"bf16": "fp32", "fp32": "bf16"}[kept]
    differs = (kept == "bf16") != native
    assert line.endswith(f"in {kept}" + (f" as it began (a new run computes in {other} here)" if differs else ""))


def test_another_number_of_threads_is_said_and_recorded(said, tmp_path):
    interrupted(tmp_path, 7)
    torch.set_num_threads(2)
    run = small.run(tmp_path)
    loop.fit(small.build, small.splits(), run)
    assert run.facts["threads"] == [1, 2]
    assert "1 threads before, 2 now: the last digits may differ" in "\n".join(said)
