"""Training by steps, for networks that are parts of a method: a generator, an encoder. The classifiers have `loop`.

The state lies in a folder of its own, is saved every two minutes and at a stop, and is taken up again: a resumed fit
equals the uninterrupted one, bit for bit on the CPU.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fer_repro.errors import FerReproError
from fer_repro.files import remove_stale_temporaries
from fer_repro.recipe import Step
from fer_repro.training import checkpoint
from fer_repro.training.optim import Ema, make_optimiser
from fer_repro.training.weights import all_finite

log = logging.getLogger(__name__)

SAVE_EVERY = 120.0  # seconds between checkpoints
REPORTS = 5  # lines about the loss in a whole fit
Pause = Callable[[Callable[[], None]], None]
LossOf = Callable[[nn.Module, torch.Generator], Tensor]


class ClassDraw:
    """Draws batches in which the share ``alike`` of the samples favours no class, the rest come as the classes do.

    ``labels`` int64 [N] on the device. Nothing waits for it: a point of [0, 1) is drawn, and who lies there is taken.
    """

    def __init__(self, labels: Tensor, batch: int, alike: float) -> None:
        self.batch = batch
        counts = labels.bincount().double()
        equal = 1 / (counts[labels] * (counts > 0).sum())
        self.reach = ((1 - alike) / len(labels) + alike * equal).cumsum(dim=0)

    def __call__(self, generator: torch.Generator) -> Tensor:
        """Positions int64 [batch]."""
        points = torch.rand(self.batch, generator=generator, device=generator.device, dtype=torch.float64)
        return torch.searchsorted(self.reach, points).clamp_(max=len(self.reach) - 1)


@dataclass(frozen=True)
class StepFit:
    """What a fit by steps is told.

    ``folder`` is the fit's own, ``identity`` says what the state belongs to (settings, data, seed, device); a
    checkpoint of another one is an error, unless ``resume`` is false: then it is thrown away. ``pause(save)`` is called
    before every step: if the run is to stop it saves and raises. ``autocast``: forward passes in bf16, on CUDA only.
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

        ``loss_of(network, generator)`` draws a batch from the generator (on the device) and gives its loss. Raises
        `FerReproError` where the weights are no longer finite.
        """
        with checkpoint.seeded(self.seed, self.device):
            fit = _Fit(self, build(), optimiser, ema)
            fit.take_up()
            fit.run(name, loss_of, steps)
        network = fit.ema.module if fit.ema else fit.network
        return network.eval().requires_grad_(False), fit.seconds


class _Fit:
    """The state of one fit by steps."""

    def __init__(self, told: StepFit, network: nn.Module, optimiser: Step, ema: float | None) -> None:
        self.told, self.network = told, network.to(told.device)
        self.optimiser = make_optimiser(optimiser, self.network.parameters())
        self.ema = None if ema is None else Ema(ema, self.network)
        # Batches and noise draw from their own stream; initialisation and dropout from torch's global one.
        self.generator = torch.Generator(told.device).manual_seed(told.seed)
        self.done, self.seconds = 0, 0.0

    def take_up(self) -> None:
        """Go on from the folder's checkpoint, if there is one."""
        told = self.told
        told.folder.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(told.folder, checkpoint.NAME)
        if not told.resume:
            checkpoint.discard(told.folder)
        state = checkpoint.load(told.folder, told.identity)
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        self.done, self.seconds = state["done"], state["seconds"]
        self.generator.set_state(state["generator"])
        checkpoint.set_random_state(state["random"], told.device)

    def save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "done": self.done,
            "seconds": self.seconds,
            "generator": self.generator.get_state(),
            "random": checkpoint.random_state(self.told.device),
        }
        checkpoint.save(self.told.folder, self.told.identity, state)

    def run(self, name: str, loss_of: LossOf, steps: int) -> None:
        """The steps that are left; the loss is read by the host only for a report."""
        if self.done >= steps:
            return
        device, mark = self.told.device, time.monotonic()
        saved, total, since = mark, torch.zeros((), device=device), 0
        every = max(1, steps // REPORTS)

        def save() -> None:
            nonlocal mark
            now = time.monotonic()
            self.seconds, mark = self.seconds + now - mark, now
            self.save()

        self.network.train()
        while self.done < steps:
            self.told.pause(save)
            if time.monotonic() - saved > SAVE_EVERY:
                save()
                saved = time.monotonic()
            with torch.autocast(device.type, torch.bfloat16, enabled=self.told.autocast and device.type == "cuda"):
                loss = loss_of(self.network, self.generator)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            if self.ema:
                self.ema.after_batch(self.network)
            self.done, since = self.done + 1, since + 1
            total += loss.detach()
            if self.done % every == 0:
                log.info(f"{name}: step {self.done} of {steps}, loss {total.item() / since:.4f}")
                total.zero_()
                since = 0
        if not all_finite(self.network):
            raise FerReproError(f"{name}: the weights are not finite after {steps} steps; try a smaller learning rate")
        save()
