"""The built book on this machine, built again when a source changes and shown anew by the browser, for its writers."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from fer_repro.book.notebooks import NO_BOOK
from fer_repro.errors import FerReproError
from fer_repro.logs import DRIVEN

log = logging.getLogger(__name__)

PORT = 8000
HOST = "127.0.0.1"  # this machine alone
LOOK = 1000  # milliseconds between two looks at the sources
PATIENCE = 30.0  # seconds in which a stopped build ends by itself


class Builder:
    """Runs ``command`` in a process of its own, which then has today's code, when a file of ``sources`` has changed."""

    def __init__(self, command: Sequence[str], sources: Iterable[Path]) -> None:
        self.command, self.sources = list(command), list(sources)
        self.seen: dict[Path, tuple[int, int]] = {}
        self.process: subprocess.Popen | None = None

    def check(self) -> None:
        """Begin a build where one is due and none is running; a change during a build is built after it."""
        if self.process and self.process.poll() is None:
            return
        now = stamps(self.sources)
        if now != self.seen:
            self.seen = now
            # Its standard input closes when this process ends, however that happens; see `fer_repro.logs.DRIVEN`.
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, env=os.environ | {DRIVEN: "1"})

    def wait(self) -> int:
        """Wait for the build that is running; its exit status."""
        return self.process.wait() if self.process else 0

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
        if self.process and self.process.stdin:
            self.process.stdin.close()


def stamps(sources: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Size and time in ns of every file of ``sources``, files or folders, without hidden and compiled ones."""
    found = {}
    for source in sources:
        for path in [source] if source.is_file() else sorted(source.rglob("*")):
            parts = path.relative_to(source.parent).parts
            if path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in parts):
                status = path.stat()
                found[path] = status.st_size, status.st_mtime_ns
    return found


def serve(command: Sequence[str], out: Path, sources: Iterable[Path], port: int = PORT) -> None:
    """Build the book with ``command``, serve the folder ``out`` where it appears, and go on until Ctrl-C.

    A build that fails says why and leaves the book that is shown. Raises `FerReproError` where there is no book at all,
    or ``port`` is taken.
    """
    try:
        from livereload import Server
        from tornado.ioloop import PeriodicCallback
    except ImportError as error:
        raise FerReproError(NO_BOOK.format(what="serving the book", name="livereload")) from error
    builder = Builder(command, sources)
    try:
        builder.check()
        if builder.wait() and not (out / "index.html").is_file():
            raise FerReproError("the book was not built, so there is nothing to serve: correct what is named above")
        server = Server()
        server.watch(str(out / "searchindex.js"))  # new in every book
        PeriodicCallback(builder.check, LOOK).start()
        server.serve(port=port, host=HOST, root=str(out))
    except OSError as error:
        raise FerReproError(f"port {port} cannot be used ({error.strerror}): name another with --port") from error
    finally:
        builder.stop()
