"""Runs side by side, each a process of its own with its own GPU where there are several; their lines are logged."""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

from fer_repro.campaign import Outcome, Task
from fer_repro.errors import INTERRUPTED, UNREAD
from fer_repro.logs import DRIVEN, unread
from fer_repro.parameters import RunOptions

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "fer_repro.cli")


def run(wave: list[Task], options: RunOptions, jobs: int, deadline: float | None) -> list[Outcome]:
    """At most ``jobs`` processes at a time; none begins after the ``deadline`` (a `time.monotonic` value).

    Ctrl-C stops all of them at their checkpoints, and so does the end of this process, whatever ends it. Tasks that
    did not begin have no outcome.
    """
    stopping, lock, slots = threading.Event(), threading.Lock(), queue.SimpleQueue()
    running: list[subprocess.Popen] = []
    for slot in range(jobs):
        slots.put(slot)

    def attempt(task: Task) -> Outcome | None:
        slot, lines = slots.get(), []
        try:
            with lock:
                left = None if deadline is None else deadline - time.monotonic()
                if stopping.is_set() or (left is not None and left <= 0):
                    return None
                process = _start(task, options, jobs, left, slot)
                running.append(process)
            with process:  # its standard input stays open as long as this process lives
                for line in process.stdout:
                    lines.append(line.rstrip())
                    log.info(f"[{task}] {lines[-1]}")
                code = process.wait()
        finally:
            slots.put(slot)
        last = next(filter(None, reversed(lines)), "no output")  # the summary of the run
        state = "done" if code == 0 else "stopped" if code in (INTERRUPTED, UNREAD, -signal.SIGINT) else "failed"
        return Outcome(task, state, last.partition(": ")[2] or last)

    def stop() -> None:
        if stopping.is_set():
            return  # a second signal would end a run before its checkpoint
        log.info("stopping: each run writes its checkpoint first")
        with lock:
            stopping.set()
            for process in running:
                _interrupt(process)

    with unread.handled(stop), ThreadPoolExecutor(jobs) as pool:
        attempts = [pool.submit(attempt, task) for task in wave]
        try:
            wait(attempts)
        except KeyboardInterrupt:
            stop()
    return [outcome for attempt in attempts if (outcome := attempt.result()) is not None]


def _start(task: Task, options: RunOptions, jobs: int, left: float | None, slot: int) -> subprocess.Popen:
    """This same command for one task."""
    arguments = ["run", task.variant, "--seed", str(task.seed), *options.of(task.variant).as_arguments()]
    arguments += [] if left is None else ["--time-budget", f"{max(0.1, left):.1f}"]
    cores = max(1, (os.cpu_count() or 1) // jobs)
    return subprocess.Popen(
        [*COMMAND, *arguments],
        # A number of threads that the user chose stays: the last digits of a run depend on it.
        env={"OMP_NUM_THREADS": str(cores)}
        | os.environ
        | {"PYTHONUNBUFFERED": "1", DRIVEN: "1"}
        | _gpu(options.device, slot),
        stdin=subprocess.PIPE,  # see `end_with_the_driver`
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # Ctrl-C in a terminal reaches a whole session; a second one would end a run before its checkpoint.
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # what a session is on Windows
    )


def _interrupt(process: subprocess.Popen) -> None:
    """Ask a run to stop at its checkpoint."""
    if os.name == "nt":  # it has no signals between processes; see `end_with_the_driver`
        process.stdin.close()
    else:
        process.send_signal(signal.SIGINT)


def _gpu(device: str, slot: int) -> dict[str, str]:
    """One GPU for each slot in turn, out of those that this process may use."""
    import torch

    count = 0 if device not in ("auto", "cuda") else torch.cuda.device_count()
    if count < 2:
        return {}
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    return {"CUDA_VISIBLE_DEVICES": allowed.split(",")[slot % count]}
