"""Many runs in one time budget: a run, how it ended, and what all runs of one command share."""

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
    """How a task ended: ``done``, ``failed``, ``stopped`` (at a checkpoint) or ``not started``; ``text``: details."""

    task: Task
    state: str
    text: str


@dataclass(frozen=True)
class Options:
    """What all runs of one command share; see `fer_repro.reproduce.reproduce`."""

    protocol: str = "official"
    profile: str = "full"
    data: str = ""
    device: str = "auto"
    epochs: int | None = None
    results_dir: str | None = None
    runs_dir: str | None = None
    root: str | None = None
    resume: bool = True

    def as_arguments(self) -> list[str]:
        """The same as options of ``fer-repro run``."""
        given = {name: value for name, value in vars(self).items() if name != "resume" and value not in ("", None)}
        arguments = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        return arguments + ([] if self.resume else ["--no-resume"])
