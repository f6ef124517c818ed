"""Many runs in one time budget: a run, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One run: a variant with a seed."""

    variant: str
    seed: int

    def __str__(self) -> str:
        return f"{self.variant} seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """How a task ended: ``done``, ``failed``, ``stopped`` (at a checkpoint) or ``not started``; ``text``: details.

    ``needs``: seconds that the next step of a stopped one takes, where that is known.
    """

    task: Task
    state: str
    text: str
    needs: float = 0.0
