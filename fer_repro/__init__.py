"""FER2013 reproducibility: every row of the leaderboard, audited and re-run under one protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_repro.loading import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`load`, when it is asked for: it brings torch, which takes seconds and which most commands do without."""
    if name == "load":
        from fer_repro.loading import load as found

        return found
    raise AttributeError(f"module 'fer_repro' has no attribute {name!r}")
