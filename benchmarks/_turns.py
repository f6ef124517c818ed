"""Measuring side by side: every contestant is a process of its own, and they take turns.

A process of its own keeps one way of computing from changing another (the C library's memory, cuDNN's choices, the
precision of products), and gives each its own peak of memory. While one works the others wait on a pipe. Each keeps its
best turn: other work on the machine only ever makes a turn slower.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

import torch

from fer_repro.errors import FerReproError
from fer_repro.papers import MODULES

# Imported once in the server that all contestants are forked from; where that is not possible each imports for itself.
PRELOAD = [
    "torch",
    "torchvision",
    "torch._dynamo",
    "fer_repro.training.loop",
    *(f"fer_repro.papers.{m}" for m in MODULES),
]
REST = 0.05  # seconds between two turns: threads that still spin are asleep by then


class Failed(Exception):
    """A contestant could not do its work; the text says why in one line."""


class Contestant:
    """An object made by ``make(*arguments)`` in a process of its own; `ask` calls its methods there."""

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        ways = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in ways else "spawn")
        if "forkserver" in ways:
            context.set_forkserver_preload(PRELOAD)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments))
        self._process.start()
        theirs.close()

    def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """What the method returns. Raises `Failed` with the reason."""
        self.start(method, *arguments, **options)
        return self.finish()

    def start(self, method: str, *arguments: Any, **options: Any) -> None:
        """Begin what `finish` waits for, which also reports a process that has ended."""
        with suppress(OSError):
            self._pipe.send((method, arguments, options))

    def finish(self) -> Any:
        """What the method begun by `start` returns. Raises `Failed` with the reason."""
        try:
            done, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(10)
            raise Failed(f"its process ended with status {self._process.exitcode}") from error
        if not done:
            raise Failed(value)
        return value

    def close(self, patience: float = 20.0) -> None:
        """End the process: let it finish for ``patience`` seconds, then stop it."""
        self._pipe.close()
        self._process.join(patience)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


def _serve(pipe: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Make the object and call its methods until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's business, which then ends this one
    served = None
    while True:
        try:
            method, given, options = pipe.recv()
        except EOFError:
            return
        try:
            served = served or make(*arguments)
            answer = True, getattr(served, method)(*given, **options)
        except (FerReproError, RuntimeError, ValueError, TypeError, OSError, AssertionError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            answer = False, f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]
        try:
            pipe.send(answer)
        except OSError:
            return


@contextmanager
def contestants(**makers: tuple[Any, ...]) -> Iterator[dict[str, Contestant]]:
    """Contestants by name for the length of the block; each value is (make, *arguments)."""
    made: dict[str, Contestant] = {}
    try:
        for name, (make, *arguments) in makers.items():
            made[name] = Contestant(make, *arguments)
        yield made
    except BaseException:
        for contestant in made.values():
            contestant.close(patience=0.0)
        raise
    else:
        for contestant in made.values():
            contestant.close()


def race(ways: Mapping[str, Callable[[], float]], turns: int) -> tuple[dict[str, float], dict[str, str]]:
    """Let every way (a function that works for one turn and returns its rate) take ``turns`` turns.

    (best rate of each, reasons of those that failed); every second round runs backwards, so that none always follows
    the same neighbour.
    """
    best: dict[str, float] = {}
    failed: dict[str, str] = {}
    for turn in range(turns):
        for name in list(ways) if turn % 2 == 0 else list(reversed(ways)):
            if name in failed:
                continue
            time.sleep(REST)
            try:
                rate = ways[name]()
            except Failed as error:
                failed[name] = str(error)
                best.pop(name, None)
            else:
                best[name] = max(rate, best.get(name, 0.0))
    return best, failed


def wait(device: torch.device) -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Pace:
    """How many steps fill a turn, from what a step took before."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def steps(self, kind: str, seconds: float, step: Callable[[], Any], least: int = 2) -> int:
        """Steps of this kind that fill ``seconds``, at least ``least``; the first call warms up and takes the time."""
        if kind not in self.seconds:
            for _ in range(3 if self.device.type == "cuda" else 1):
                took = self.timed(step, 1)
            self.seconds[kind] = took
        return max(least, round(seconds / self.seconds[kind]))

    def timed(self, step: Callable[[], Any], steps: int) -> float:
        """Seconds that ``steps`` calls take, the device's work included."""
        wait(self.device)
        began = time.perf_counter()
        for _ in range(steps):
            step()
        wait(self.device)
        return time.perf_counter() - began

    def measured(self, kind: str, steps: int, seconds: float) -> None:
        """Remember what a turn took: the next one fills its time better."""
        self.seconds[kind] = seconds / steps
