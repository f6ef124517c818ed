"""Training by steps, for networks that are parts of a method: a generator, an encoder. Classifiers use `loop`.

A fit has a folder of its own. Its state is saved there every two minutes and at a stop, and a later fit continues from
it: a resumed fit equals the uninterrupted one, bit for bit on the CPU.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_repro.errors import FerReproError
from fer_repro.files import remove_stale_temporaries
from fer_repro.recipe import Step
from fer_repro.training import checkpoint
from fer_repro.training.execution import exact
from fer_repro.training.optim import Ema, make_optimiser
from fer_repro.training.run import Pause
from fer_repro.training.soundness import require, require_like, require_optimiser
from fer_repro.training.weights import all_finite

log = logging.getLogger(__name__)

SAVE_EVERY = 120.0  # seconds between checkpoints
REPORTS = 5  # lines about the loss in a whole fit
LossOf = Callable[[nn.Module, torch.Generator], Tensor]


class ClassSampler:
    """Samples batches: the share ``balanced`` with equal class probabilities, the rest with the data's own.

    ``labels`` int64 [N] on the device. Inverse transform sampling, without host-device synchronisation; in float64, on
    Apple's GPUs in float32, which still tells 28,709 images apart.
    """

    def __init__(self, labels: Tensor, batch: int, balanced: float) -> None:
        self.batch = batch
        counts = labels.bincount().to(exact(labels.device))
        equal = 1 / (counts[labels] * (counts > 0).sum())
        self.cumulative = ((1 - balanced) / len(labels) + balanced * equal).cumsum(dim=0)

    def __call__(self, generator: torch.Generator) -> Tensor:
        """Positions int64 [batch]."""
        points = torch.rand(self.batch, generator=generator, device=generator.device, dtype=self.cumulative.dtype)
        return torch.searchsorted(self.cumulative, points).clamp_(max=len(self.cumulative) - 1)


@dataclass(frozen=True)
class StepFit:
    """Where and how networks are trained by steps, each with its own seed and its own folder inside ``folder``.

    ``identity`` says what a state belongs to (settings, data, seed, device); a checkpoint of another one is an error,
    unless ``resume`` is false: then it is deleted. ``pause(save)`` is called before every step: if the run is to stop,
    it saves and raises. ``autocast``: forward passes in bf16.
    """

    folder: Path
    identity: Mapping[str, Any]
    seed: int
    device: torch.device
    pause: Pause
    resume: bool = True
    autocast: bool = False

    def fit(
        self,
        name: str,
        build: Callable[[], nn.Module],
        loss_of: LossOf,
        steps: int,
        optimiser: Step,
        ema: float | None = None,
    ) -> tuple[nn.Module, float]:
        """Train ``build()`` for ``steps`` updates; returns it (its average, with ``ema``) and the seconds that it took.

        ``loss_of(network, generator)`` draws a batch from the generator (on the device) and returns its loss. Raises
        `FerReproError` where the weights are no longer finite.
        """
        seed = int(np.random.SeedSequence([self.seed, *name.encode()]).generate_state(1)[0])
        own = dataclasses.replace(self, folder=self.folder / name, seed=seed)
        with checkpoint.seeded(seed, self.device):
            state = _State(own, build(), optimiser, ema)
            state.restore()
            state.run(loss_of, steps)
        network = state.ema.module if state.ema else state.network
        return network.eval().requires_grad_(False), state.seconds


class _State:
    """The state of one fit by steps."""

    def __init__(self, setup: StepFit, network: nn.Module, optimiser: Step, ema: float | None) -> None:
        self.setup, self.network = setup, network.to(setup.device)
        self.optimiser = make_optimiser(optimiser, self.network.parameters())
        self.ema = None if ema is None else Ema(ema, self.network)
        self.parts = {"network": self.network, "optimiser": self.optimiser} | ({"ema": self.ema} if self.ema else {})
        # Batches and noise have a generator of their own; initialisation and dropout use torch's global one.
        self.generator = torch.Generator(setup.device).manual_seed(setup.seed)
        self.done, self.seconds = 0, 0.0

    def restore(self) -> None:
        """Continue from the folder's checkpoint, if there is one."""
        setup = self.setup
        setup.folder.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(setup.folder, checkpoint.NAME)
        if not setup.resume:
            checkpoint.discard(setup.folder)
        checkpoint.load(setup.folder, setup.identity, self._take_up, owner=True)

    def _take_up(self, state: dict[str, Any]) -> None:
        """Take up a state; raises an exception of any kind where it is none of this fit."""
        require(type(state["done"]) is int and state["done"] >= 0, "done")
        require(type(state["seconds"]) in (int, float) and 0 <= state["seconds"] < math.inf, "seconds")
        for name, part in self.parts.items():
            if name == "optimiser":
                require_optimiser(self.optimiser, state[name])
            else:
                require_like(part.state_dict(), state[name], name)
            part.load_state_dict(state[name])
        self.done, self.seconds = state["done"], state["seconds"]
        self.generator.set_state(state["generator"])
        checkpoint.set_random_state(state["random"], self.setup.device)

    def save(self) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"done": self.done, "seconds": self.seconds, "generator": self.generator.get_state()}
        state["random"] = checkpoint.random_state(self.setup.device)
        checkpoint.save(self.setup.folder, self.setup.identity, state)

    def run(self, loss_of: LossOf, steps: int) -> None:
        """The steps that are left; the loss is read by the host only for a report."""
        if self.done >= steps:
            return
        setup, name, device = self.setup, self.setup.folder.name, self.setup.device
        mark = saved = time.monotonic()
        total, since = torch.zeros((), device=device), 0

        def save() -> None:
            nonlocal mark
            now = time.monotonic()
            self.seconds, mark = self.seconds + now - mark, now
            self.save()

        self.network.train()
        while self.done < steps:
            setup.pause(save)
            if time.monotonic() - saved > SAVE_EVERY:
                save()
                saved = time.monotonic()
            with torch.autocast(device.type, torch.bfloat16, enabled=setup.autocast):
                loss = loss_of(self.network, self.generator)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            if self.ema:
                self.ema.after_batch(self.network)
            self.done, since = self.done + 1, since + 1
            total += loss.detach()
            if self.done % max(1, steps // REPORTS) == 0:
                log.info(f"{name}: step {self.done} of {steps}, loss {total.item() / since:.4f}")
                total.zero_()
                since = 0
        if not all_finite(self.network):
            raise FerReproError(f"{name}: the weights are not finite after {steps} steps; try a smaller learning rate")
        save()
