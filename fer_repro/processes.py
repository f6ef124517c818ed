"""Signals as one exception, children that end with their parent, and a home folder where there is none."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from fer_repro.errors import INTERRUPTED


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def interrupting() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP are a `KeyboardInterrupt` inside the block, also where SIGINT was ignored before.

    A shell without job control lets its background processes ignore SIGINT, and children inherit that; with a handler
    here they start with the default one. SIGHUP stays ignored where it was: that is what nohup is for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, _as_ctrl_c) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with(pipe: int) -> None:
    """End this process at once when nobody holds the writing end of ``pipe``, a file descriptor open for reading.

    The parent holds it, so this sees kill -9 too, on every system; nothing is ever written to it.
    """

    def watch() -> None:
        os.read(pipe, 1)
        os._exit(INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def home_folder() -> Iterator[None]:
    """HOME is a private temporary folder inside the block where this account has none that it can write to.

    Jupyter, IPython and Sphinx need one; a container that runs under any user id has none.
    """
    try:
        missing = not os.access(Path.home(), os.W_OK | os.X_OK)
    except RuntimeError:  # neither the environment nor the list of accounts names one
        missing = True
    if not missing:
        yield
        return
    before = os.environ.get("HOME")
    with tempfile.TemporaryDirectory(prefix="fer-repro-home-", ignore_cleanup_errors=True) as folder:
        os.environ["HOME"] = folder
        try:
            yield
        finally:
            os.environ.pop("HOME")
            if before is not None:
                os.environ["HOME"] = before
