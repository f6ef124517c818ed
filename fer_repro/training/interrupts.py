"""Ctrl-C and SIGTERM as a wish that the loop grants at the next batch."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """``reason`` is set once somebody asked the process to stop, None until then."""

    def __init__(self) -> None:
        self.reason: str | None = None


@contextmanager
def stop_requests(say: Callable[[str], None]) -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM inside the block into a `StopRequest`; a second SIGINT raises `KeyboardInterrupt`.

    Outside the main thread Python delivers no signals, so nothing is installed there.
    """
    request = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        if request.reason is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.reason = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        say(f"{request.reason}: stopping at a checkpoint after this batch")

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
