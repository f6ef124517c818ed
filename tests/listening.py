"""The lines that the package logs, for tests that look at them or act on them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from fer_repro.logs import LineHandler, shown


class Listener(LineHandler):
    def __init__(self, do: Callable[[str], None]) -> None:
        super().__init__()
        self.write = do


def listening(do: Callable[[str], None]) -> AbstractContextManager[None]:
    """Call ``do`` with every line inside the block, in place of printing it; what ``do`` raises stops whoever logs."""
    return shown(Listener(do))
