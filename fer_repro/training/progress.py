"""Progress output and stop requests: a log line per epoch, Ctrl-C and SIGTERM."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from fer_repro.logs import unread
from fer_repro.processes import handling_stops
from fer_repro.recipe import Recipe

log = logging.getLogger(__name__)


def log_epoch(recipe: Recipe, history: list[dict[str, Any]], best_epoch: int | None) -> None:
    """One line on the last row of ``history``, with how long the rest will take, judged by the last five epochs.

    An epoch that is the best so far gets a star.
    """
    row, epochs = history[-1], recipe.epochs
    recent = [earlier["seconds"] for earlier in history[-5:]]
    left = (epochs - row["epoch"]) * sum(recent) / len(recent)
    select = "+".join(recipe.protocol.select)
    score = "" if row["select_accuracy"] is None else f"  {select} {row['select_accuracy']:.2%}"
    star = "*" if best_epoch == row["epoch"] else ""
    measured = f"loss {row['loss']:.4f}  train {row['train_accuracy']:.2%}{score}{star}  lr {row['lr']:.2g}"
    times = f"{duration(row['seconds'])}, {duration(left)} left"
    log.info(f"epoch {row['epoch']}/{epochs} {row['stage']}: {measured}  {times}")


def duration(seconds: float) -> str:
    """For example "0.4 s", "45 s", "12 min", "3 h 05 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


class StopRequest:
    """``reason`` is set once somebody asked the process to stop, None until then."""

    def __init__(self) -> None:
        self.reason: str | None = None


@contextmanager
def stop_requests(request: StopRequest | None = None) -> Iterator[StopRequest]:
    """Make the first SIGINT, SIGTERM or SIGHUP a `StopRequest`; a second SIGINT raises `KeyboardInterrupt`.

    It is one too that nobody can read the log's lines any more (``... | head``). ``request``: one that somebody else
    looks at too. Outside the main thread Python delivers no signals, so nothing is installed there.
    """
    request = request or StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        if request.reason is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.reason = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        log.info(f"{request.reason}: stopping at a checkpoint after this batch")

    def closed() -> None:
        request.reason = request.reason or "the output cannot be written"

    if unread.happened:
        closed()
    with unread.handled(closed):
        if threading.current_thread() is not threading.main_thread():
            yield request
            return
        with handling_stops(ask):
            yield request
