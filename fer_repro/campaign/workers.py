"""Runs side by side, each a process of its own with its own GPU where there are several; their lines are logged."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time

from fer_repro.campaign import Options, Outcome, Task
from fer_repro.errors import INTERRUPTED

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "fer_repro.cli")


class _Child:
    """A process of this same command for one task; its lines are logged with the task's name."""

    def __init__(self, task: Task, slot: int, arguments: list[str], environment: dict[str, str]) -> None:
        self.task, self.slot, self.lines = task, slot, []
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C in a terminal reaches a whole session; a second one would end a run before its checkpoint.
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._log_lines, daemon=True)
        self.reader.start()

    def _log_lines(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            log.info(f"[{self.task}] {line.rstrip()}")

    def outcome(self) -> Outcome:
        """Waits for the end; the child's last line is its summary."""
        code = self.process.wait()
        self.reader.join()
        last = next((line for line in reversed(self.lines) if line), "no output")
        text = last.partition(": ")[2] or last
        stopped = code in (INTERRUPTED, -signal.SIGINT)
        return Outcome(self.task, "done" if code == 0 else "stopped" if stopped else "failed", text)


def run(wave: list[Task], options: Options, jobs: int, deadline: float | None) -> list[Outcome]:
    """At most ``jobs`` children at a time; none begins after the ``deadline`` (a `time.monotonic` value).

    Ctrl-C stops all of them at their checkpoints.
    """
    waiting, running, outcomes, slots = list(wave), [], [], list(range(jobs))
    try:
        while waiting or running:
            left = None if deadline is None else deadline - time.monotonic()
            while waiting and slots and (left is None or left > 0):
                running.append(_start(waiting.pop(0), slots.pop(0), options, jobs, left))
            if not running:  # the budget is spent
                break
            for child in [child for child in running if child.process.poll() is not None]:
                running.remove(child)
                slots.append(child.slot)
                outcomes.append(child.outcome())
            time.sleep(0.1)
    except KeyboardInterrupt:
        log.info("stopping: each run writes its checkpoint first")
        for child in running:
            child.process.send_signal(signal.SIGINT)
        outcomes += [child.outcome() for child in running]
    return outcomes


def _start(task: Task, slot: int, options: Options, jobs: int, left: float | None) -> _Child:
    arguments = ["run", task.variant, "--seed", str(task.seed), *options.as_arguments()]
    arguments += [] if left is None else ["--time-budget", f"{left:.1f}"]
    cores = max(1, (os.cpu_count() or 1) // jobs)
    environment = os.environ | {"OMP_NUM_THREADS": str(cores), "PYTHONUNBUFFERED": "1"} | _gpu(options.device, slot)
    return _Child(task, slot, arguments, environment)


def _gpu(device: str, slot: int) -> dict[str, str]:
    """One GPU for each slot in turn, out of those that this process may use."""
    import torch

    count = 0 if device == "cpu" else torch.cuda.device_count()
    if count < 2:
        return {}
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    return {"CUDA_VISIBLE_DEVICES": allowed.split(",")[slot % count]}
