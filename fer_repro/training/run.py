"""What a method gets of the run that it belongs to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fer_repro.recipe import Recipe
from fer_repro.training.checkpoint import writer
from fer_repro.training.execution import ExecutionOptions
from fer_repro.training.interleave import Turn
from fer_repro.training.progress import StopRequest, stop_requests

Pause = Callable[..., None]
"""``pause(save)``: where the run is to stop, call ``save`` (nothing by default) and raise `Interrupted`."""


OUT_OF_TIME = "time budget used up"


class Interrupted(Exception):
    """A run stopped at a checkpoint (time budget or Ctrl-C); the same command goes on from there.

    ``needs``: seconds that its next step takes, where that is known.
    """

    needs = 0.0

    def saying(self, more: str) -> Interrupted:
        """The same stop, with ``more`` at the end of what it says."""
        other = Interrupted(f"{self}; {more}")
        other.needs = self.needs
        return other

    @property
    def why(self) -> str:
        """`OUT_OF_TIME`, or "stopped" where somebody asked for it."""
        return OUT_OF_TIME if OUT_OF_TIME in str(self) else "stopped"


class Classifier(Protocol):
    """A fitted method."""

    def predict_proba(self, images: np.ndarray, with_views: bool = False) -> np.ndarray:
        """uint8 [N,48,48] -> float32 [N,7], rows sum to 1; ``with_views`` uses the recipe's views."""
        ...


@dataclass
class Run:
    """One run: its recipe, seed, device and folder.

    ``execution`` says how it is computed, ``turn`` is its place among runs that share this process. ``folder`` holds
    checkpoints (git-ignored) and is locked by one writer. ``deadline`` is a `time.monotonic` value after which the
    method saves a checkpoint and raises `Interrupted`. ``history`` gets one dict per epoch. ``required`` holds the
    fitted classifiers of the variants named in `Variant.requires`.

    ``keep_unfinished``: where the run is stopped after an epoch, the training loop does not raise `Interrupted`, but
    puts it into ``stops`` and returns the network with its best weights so far. ``keep_epochs``: the weights of every
    epoch stay in the folder, see `fer_repro.training.epoch_weights`.
    """

    recipe: Recipe
    seed: int
    device: str
    folder: Path
    data_digest: str
    resume: bool = True
    execution: ExecutionOptions = field(default_factory=ExecutionOptions)
    turn: Turn | None = None
    deadline: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    required: dict[str, Classifier] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    keep_unfinished: bool = False
    keep_epochs: bool = False
    stops: list[Interrupted] = field(default_factory=list)

    @property
    def stop(self) -> StopRequest | None:
        """The stop request that is shared with the other runs of this process, or None where there are none."""
        return self.turn.stop if self.turn else None

    def out_of_time(self, ahead: float = 0.0) -> bool:
        """Whether the deadline is less than ``ahead`` seconds away."""
        return self.deadline is not None and time.monotonic() + ahead >= self.deadline


@contextmanager
def pausable(run: Run) -> Iterator[Pause]:
    """The run's folder with its one writer while the block runs; yields the pause to call between two of its parts.

    The run is to stop when its time budget ends or somebody presses Ctrl-C; what it saved is found again.
    """
    with writer(run.folder), stop_requests(run.stop) as request:

        def pause(save: Callable[[], None] = lambda: None) -> None:
            if request.reason or run.out_of_time():
                save()
                why = request.reason or OUT_OF_TIME
                raise Interrupted(f"{run.recipe.variant}: stopped ({why}); the same command goes on from what is kept")

        yield pause
