"""A disk on which files cannot grow, as a user without rights over the machine can have it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    """No file of this process may be larger than ``size`` bytes inside the block: writing more is an `OSError`."""
    resource = pytest.importorskip("resource", reason="such a limit needs POSIX")
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
        signal.signal(signal.SIGXFSZ, before)
