"""Signals as one exception, children that end with their parent, and a home folder where there is none."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from fer_repro.errors import INTERRUPTED

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


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
    with handling_stops(_as_ctrl_c):
        yield


@contextmanager
def handling_stops(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call ``handler`` for the signals that ask a process to stop; only in the main thread, to which they are sent."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def end_with(pipe: int | Connection, number: int | None = None) -> None:
    """End this process when nobody holds the writing end of ``pipe``: a file descriptor, or a connection.

    The parent holds it, so this sees kill -9 too, on every system. ``number``: a signal that the process gets then;
    None ends it at once.
    """

    def watch() -> None:
        # Not a file of Python's, whose lock this thread would hold when Python ends.
        with suppress(EOFError):
            while os.read(pipe, 1) if isinstance(pipe, int) else pipe.recv_bytes():
                pass
        os._exit(INTERRUPTED) if number is None else signal.raise_signal(number)

    threading.Thread(target=watch, daemon=True).start()


def begin_child(alive: Connection, threads: int, environment: Mapping[str, str]) -> None:
    """How a process of a pool starts that ends with its parent: see `end_with`; it has ``threads`` for itself.

    ``environment``: of the parent; a process that is forked from a server has that of the server.

    Here, because the module of a pool's first function is all that is imported before SIGINT is ignored: Ctrl-C in a
    terminal reaches every process of it, and the parent decides.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(alive)
    os.environ.clear()
    os.environ.update(environment)
    for name in THREADS:
        os.environ.setdefault(name, str(threads))


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
