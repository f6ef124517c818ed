"""What a running chapter shows, a line per cell and the lines that its kernel prints, and how it is stopped."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

from fer_repro.errors import FerReproError
from fer_repro.training.progress import duration

log = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds in which an interrupted cell may write its checkpoint


class Follower:
    """Hooks for papermill and nbclient, which call them in the thread that runs a notebook of ``cells`` cells."""

    def __init__(self, cells: int) -> None:
        self.cells, self.began, self.stopping = cells, time.monotonic(), False
        self.kernels: list[Any] = []

    def kernel_manager_class(self) -> type:
        """nbclient makes its kernel's manager itself, from a class; this one is remembered here."""
        from jupyter_client.manager import AsyncKernelManager

        kernels = self.kernels

        class Remembered(AsyncKernelManager):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                kernels.append(self)

        return Remembered

    def on_cell_execute(self, cell: Any, cell_index: int) -> None:
        if self.stopping:
            raise FerReproError("stopped")
        past = duration(time.monotonic() - self.began)
        log.info(f"{past}: cell {cell_index + 1}/{self.cells} {first_line(cell.source)}")

    def write(self, text: str) -> None:
        """What a cell prints, as papermill passes it on."""
        for line in filter(str.strip, text.splitlines()):
            log.info(f"    {line}")

    def flush(self) -> None:
        """papermill asks for it; lines are not held back."""

    def stop(self, running: Future) -> None:
        """Interrupt the cell, so that a run in it stops at a checkpoint; kill the kernel where that takes too long.

        A second Ctrl-C kills it at once.
        """
        self.stopping = True
        for number in (signal.SIGINT, getattr(signal, "SIGKILL", signal.SIGTERM)):  # Windows has no SIGKILL
            self._signal(number)
            try:
                if wait([running], PATIENCE).done:
                    return
            except KeyboardInterrupt:
                continue

    def _signal(self, number: int) -> None:
        for kernel in self.kernels:
            process = getattr(kernel.provisioner, "process", None)
            if process is None or process.poll() is not None:
                continue
            # It reaches the group that a kernel leads, and knows the interrupt of Windows. In a thread, because an
            # event loop may be running in this one.
            with suppress(ProcessLookupError), ThreadPoolExecutor(1) as thread:  # the kernel may have ended just now
                thread.submit(asyncio.run, kernel.provisioner.send_signal(number)).result()


def first_line(source: str) -> str:
    """The first line of a cell that is no comment, shortened."""
    lines = (line.strip() for line in str(source).splitlines())
    return next((line[:60] for line in lines if line and not line.startswith("#")), "empty")
