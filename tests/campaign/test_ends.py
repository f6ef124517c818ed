"""How a run ends when others end: the campaign that began it, whoever reads its lines, kill -9 at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import campaign_world
import pytest

from fer_repro.errors import UNREAD
from fer_repro.files import lock
from fer_repro.training import checkpoint

PROGRAM = str(Path(campaign_world.__file__))
SLOW = Path(__file__).with_name("slow_world.py")


def command(where: Path, *words: str, program: str = PROGRAM) -> list[str]:
    folders = ["--results-dir", str(where / "results"), "--runs-dir", str(where / "runs")]
    return [sys.executable, program, "run", *words, "--device", "cpu", *folders]


def wait_for(condition, seconds: float = 600.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def folder(where: Path, variant: str = "large", seed: int = 0) -> Path:
    return where / "runs" / variant / "official" / "full" / f"seed-{seed}"


def free(where: Path) -> bool:
    """Whether nobody writes a run's folder."""
    with open(where / "lock", "rb") as file:
        return lock(file.fileno())


@pytest.mark.parametrize("merged", [False, True], ids=["stdout", "stdout and stderr"])
def test_whoever_reads_the_first_line_only_loses_no_epoch(tmp_path, merged):
    process = subprocess.Popen(
        command(tmp_path, "large", program=str(SLOW)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
    )
    assert process.stdout.readline().startswith(b"epoch 1/")
    process.stdout.close()
    err = b"" if merged else process.stderr.read()
    assert process.wait(600) == UNREAD and b"Traceback" not in err and b"Broken" not in err
    stood = checkpoint.peek(folder(tmp_path))
    assert stood.status == "running" and stood.epochs == 2  # the second epoch's line was the one that nobody read


def test_a_closed_output_from_the_start_is_no_error(tmp_path):
    words = " ".join(command(tmp_path, "aside", program=PROGRAM))
    done = subprocess.run(["bash", "-c", f"{words} >&- 2>&-"], timeout=600)
    assert done.returncode == 0 and (tmp_path / "results/aside/official/seed-0/result.json").exists()


@pytest.mark.parametrize("end", ["kill -9", "its output is closed"])
def test_runs_side_by_side_stop_at_a_checkpoint_when_their_campaign_is_gone(tmp_path, end):
    program = command(tmp_path, "large", "--seed", "0", "--seed", "1", "--jobs", "2", program=str(SLOW))
    driver = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    folders = [folder(tmp_path, seed=seed) for seed in (0, 1)]
    wait_for(lambda: all((one / checkpoint.NAME).exists() for one in folders))
    if end == "kill -9":
        driver.send_signal(signal.SIGKILL)
        assert driver.wait() == -signal.SIGKILL
    else:
        driver.stdout.close()
        assert driver.wait(600) == UNREAD
    wait_for(lambda: all(free(one) for one in folders))
    stood = [checkpoint.peek(one) for one in folders]
    assert all(one.status == "running" and one.epochs < campaign_world.EPOCHS for one in stood)
    # Inside an epoch: not only the line at its end, which nobody reads, stops a run. One of the two may just end one.
    assert end != "kill -9" or any(one.batch > 0 for one in stood)


def test_an_epoch_is_printed_after_it_is_saved(tmp_path):
    process = subprocess.Popen(command(tmp_path, "large", program=str(SLOW)), stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait()
    assert checkpoint.peek(folder(tmp_path)).epochs == 2


def test_killed_twenty_times_at_random_moments_it_ends_as_if_nothing_had_happened(tmp_path):
    """kill -9 in training, saving, storing and packing; see `killed_world`."""
    words = [sys.executable, str(SLOW.with_name("killed_world.py")), str(tmp_path), "14", "20"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == dict.fromkeys(("training", "saving", "storing", "packing"), 5)
