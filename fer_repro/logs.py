"""What a person sees of the package's log: one plain line per record, on standard output.

Every module logs to ``logging.getLogger(__name__)``. The functions that people call (`reproduce`, a campaign, packing,
the book) show those lines with `shown`, unless the caller has configured logging: then the lines go where that says.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

PACKAGE = logging.getLogger("fer_repro")
DRIVEN = "FER_REPRO_DRIVEN"  # set for a process whose standard input closes when the process that began it ends
_changes: ContextVar[tuple[Callable[[str], str], ...]] = ContextVar("changes", default=())


class LineFormatter(logging.Formatter):
    """The message as `rewritten` asks for; "warning: " or "error: " before it where it is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        line = line if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {line}"
        for change in _changes.get():
            line = change(line)
        return line


class Unread:
    """What happens where nobody can read the lines any more: a closed pipe, a closed terminal, a full disk.

    Long work registers with `handled` what is to be done then, and is not stopped by an exception in its middle.
    ``happened``: whether it has happened in this process, for its exit status.
    """

    def __init__(self) -> None:
        self.happened = False
        self._handlers: list[Callable[[], None]] = []

    @contextmanager
    def handled(self, by: Callable[[], None]) -> Iterator[None]:
        """Call ``by`` instead of raising `OSError` from a line that cannot be written inside the block."""
        self._handlers.append(by)
        try:
            yield
        finally:
            self._handlers.remove(by)

    def tell(self, stream: str) -> bool:
        """Lead what else is written to ``stream`` nowhere, and call who is registered; False where nobody is."""
        if not self._handlers:
            return False
        self.happened = True
        nowhere(stream)
        for handler in list(self._handlers):
            handler()
        return True


unread = Unread()


def nowhere(stream: str) -> None:
    """Let all that is still written to ``stdout`` or ``stderr`` vanish, also what its buffer holds at the exit."""
    try:
        with open(os.devnull, "wb") as file:
            os.dup2(file.fileno(), getattr(sys, stream).fileno())
    except (OSError, ValueError):  # a stream of Python's own, without a file
        setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115 - it stays open as long as the process lives


class LineHandler(logging.Handler):
    """Prints each line to ``stdout`` or ``stderr`` as they are at that moment: notebooks and tests replace them."""

    def __init__(self, stream: str = "stdout") -> None:
        super().__init__()
        self.stream = stream
        self.setFormatter(LineFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.write(self.format(record))
        except OSError:
            if not unread.tell(self.stream):
                raise

    def write(self, line: str) -> None:
        print(line, file=getattr(sys, self.stream), flush=True)


def terminal_handler() -> logging.Handler:
    """Lines with rich's colours."""
    from rich.console import Console
    from rich.logging import RichHandler

    handler = RichHandler(console=Console(), show_time=False, show_level=False, show_path=False, keywords=[])
    handler.setFormatter(LineFormatter())
    return handler


class _Display:
    """How often `shown` and `quiet` are entered at this moment, by all threads; the logger follows.

    Without the count, of two threads that enter and leave at once the later one would restore what the other had set.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.shown = 0
        self.quiet = 0
        self.handler: logging.Handler | None = None
        self.before = (logging.NOTSET, True)

    def change(self, shown: int = 0, quiet: int = 0) -> None:
        """Add to the counts and set the logger's level and propagation; the caller's own come back with the last."""
        if not (self.shown or self.quiet):
            self.before = PACKAGE.level, PACKAGE.propagate
        self.shown += shown
        self.quiet += quiet
        level, propagate = self.before
        PACKAGE.setLevel(logging.CRITICAL if self.quiet else logging.INFO if self.shown else level)
        PACKAGE.propagate = propagate and not self.shown  # a handler of the root logger would show every line again

    def enter(self, handler: logging.Handler | None) -> bool:
        """Show the lines, by ``handler`` where nobody does yet; False where the caller has configured logging."""
        with self.lock:
            if not self.shown:
                if PACKAGE.handlers or PACKAGE.level or (PACKAGE.hasHandlers() and PACKAGE.isEnabledFor(logging.INFO)):
                    return False
                self.handler = handler or (terminal_handler() if sys.stdout.isatty() else LineHandler())
                PACKAGE.addHandler(self.handler)
            self.change(shown=1)
            return True

    def leave(self) -> None:
        """Undo one `enter`."""
        with self.lock:
            self.change(shown=-1)
            if not self.shown and self.handler is not None:
                PACKAGE.removeHandler(self.handler)
                self.handler.close()
                self.handler = None


_display = _Display()


@contextmanager
def shown(handler: logging.Handler | None = None) -> Iterator[None]:
    """Show the package's lines inside the block: on a terminal with rich, else plain, or by ``handler``.

    Where the lines are shown already, in another such block of this or another thread, nothing changes until the last
    of these blocks ends; nor where the caller has configured the logger ``fer_repro``, or the root logger for lines of
    level INFO.
    """
    entered = _display.enter(handler)
    try:
        yield
    finally:
        if entered:
            _display.leave()


@contextmanager
def quiet() -> Iterator[None]:
    """Show none of the package's lines inside the block."""
    with _display.lock:
        _display.change(quiet=1)
    try:
        yield
    finally:
        with _display.lock:
            _display.change(quiet=-1)


@contextmanager
def rewritten(change: Callable[[str], str]) -> Iterator[None]:
    """Lines of this thread go through ``change`` before they are shown; of nested blocks the inner one comes first."""
    token = _changes.set((change, *_changes.get()))
    try:
        yield
    finally:
        _changes.reset(token)
