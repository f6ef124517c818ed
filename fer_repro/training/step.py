"""One batch of training: augment, normalise, mix, forward, backward, update; no host-device synchronisation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fer_repro.layers import as_input, logits_of, normalise_
from fer_repro.recipe import Recipe, Step, bind
from fer_repro.training.execution import FORWARDS, ExecutionMode, ExecutionOptions, exact, first_mode, memory_format
from fer_repro.training.losses import Loss, make_loss, soft
from fer_repro.transforms import Augmenter, mixer
from fer_repro.transforms.geometry import resize


def norm_limit(clip: float | Step, done: int) -> float:
    """The gradient norm that update number ``done`` (from 0) is clipped to.

    A number is that limit. ``step("scaled", norm, start, every)`` is the limit that a loop sets which clips before it
    takes the loss scaler's factor off again: ``norm`` over the factor, which begins at ``start`` and doubles after
    ``every`` updates without an overflow (torch's `GradScaler`; bf16 and fp32 never overflow here, and in fp16 the
    real scaler's factor is off before the clipping).
    """
    if not isinstance(clip, Step):
        return clip
    limits = {"scaled": lambda norm, start=65536.0, every=2000: norm / (start * 2.0 ** (done // every))}
    return bind(clip, limits, "clip_norm")()


class TrainStep:
    """A recipe's batch on one device, as `ExecutionOptions` say.

    ``model`` and ``optimiser`` belong together, ``generator`` lies on their device and feeds the augmentation.
    ``loss`` replaces the recipe's, see `fer_repro.training.loop.fit`. ``totals`` float64 [3] sums loss, hits and
    samples until somebody clears it. ``done`` counts the updates. ``scaler`` scales the loss in fp16: an update whose
    gradients overflow is left out.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        generator: torch.Generator,
        loss: Loss | None = None,
        execution: ExecutionOptions | None = None,
    ) -> None:
        self.recipe, self.model, self.optimiser, self.generator = recipe, model, optimiser, generator
        self.execution = execution = execution or ExecutionOptions()
        self.device = generator.device
        self.augment = Augmenter(recipe.augment, fused=execution.fused_augmentation)
        self.mix = mixer(recipe.mix)
        self.loss = loss or make_loss(recipe.loss)
        if isinstance(self.loss, nn.Module):
            self.loss.to(self.device)
        self.totals = torch.zeros(3, dtype=exact(self.device), device=self.device)
        self.done = 0
        self.compiled_size = recipe.batch_size * self.augment.copies
        self._compiled: dict[str, Callable[[Tensor], Any]] = {}
        mode = first_mode(execution, recipe, model, self.device)
        self.scaler = mode.scaler(self.device)
        self.set_mode(mode)

    def set_mode(self, mode: ExecutionMode) -> None:
        """Compute in ``mode`` from now on."""
        self.mode = mode
        if self.scaler.is_enabled() != (mode.precision == "fp16"):
            self.scaler = mode.scaler(self.device)
        self.memory_format = memory_format(mode.channels_last)
        self.model.to(memory_format=self.memory_format)
        # A fused optimiser walks through memory: its state must lie in the order in which its parameter lies.
        for parameter, state in self.optimiser.state.items():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.dim() == 4 and value.shape == parameter.shape:
                    state[name] = value.contiguous(memory_format=self.memory_format)
        compile_mode = FORWARDS[mode.forward]
        if compile_mode is not None and mode.forward not in self._compiled:
            self._compiled[mode.forward] = torch.compile(self.model, mode=compile_mode)

    def __call__(self, images: Tensor, labels: Tensor, chosen: Tensor | None = None) -> None:
        """Train on uint8 [B,48,48] and int64 [B]; ``chosen`` int64 [B]: their positions in the stage's images."""
        inputs, targets = self.prepare(images, labels)
        self.learn(inputs, targets, self._extras(chosen))

    def _extras(self, chosen: Tensor | None) -> tuple[Tensor | None, ...]:
        """The extra arguments of a loss that asks for them: which samples these are, and which were mirrored."""
        return (chosen, self.augment.mirrored) if getattr(self.loss, "wants_samples", False) else ()

    def prepare(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Augmented, normalised, mixed: float32 [B*copies,1,s,s]; targets int64 [B*copies] or soft [B*copies,7]."""
        recipe = self.recipe
        inputs = resize(self.augment(as_input(images), self.generator), recipe.input_size)
        inputs = normalise_(inputs, recipe.mean, recipe.std)
        targets = labels[:, None].expand(-1, self.augment.copies).reshape(-1)
        if self.mix is not None:
            inputs, targets = self.mix(inputs, soft(targets), self.generator)
        return inputs.contiguous(memory_format=self.memory_format), targets

    def learn(self, inputs: Tensor, targets: Tensor, extras: tuple[Tensor | None, ...] = ()) -> None:
        """Forward, backward and update on what `prepare` gave."""
        self.gradients(inputs, targets, extras, counted=True)
        if self.recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.model.parameters(), norm_limit(self.recipe.clip_norm, self.done))
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.done += 1

    def gradients(
        self, inputs: Tensor, targets: Tensor, extras: tuple[Tensor | None, ...] = (), counted: bool = False
    ) -> Tensor:
        """The loss (a scalar on the device), with its gradients left in the parameters, in fp16 times a factor."""
        # A last batch of another size would be compiled for itself.
        compiled = self._compiled.get(self.mode.forward) if len(inputs) == self.compiled_size else None
        if compiled is not None and self.mode.forward == "cuda-graphs":
            torch.compiler.cudagraph_mark_step_begin()
        held = (
            torch.autograd.graph.save_on_cpu(pin_memory=self.device.type == "cuda")
            if self.mode.host_memory
            else nullcontext()
        )
        with held:
            with torch.autocast(self.device.type, self.mode.dtype, enabled=self.mode.autocast):
                output = (self.model if compiled is None else compiled)(inputs)
            output = output.float() if isinstance(output, Tensor) else tuple(part.float() for part in output)
            loss = self.loss(output, targets, *extras)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if counted:
            self._count(loss.detach(), logits_of(output).detach(), targets)
        return loss.detach()

    def _count(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add the batch to the sums, on the device."""
        true = targets.argmax(dim=1) if targets.is_floating_point() else targets
        hits, n = (logits.argmax(dim=1) == true).sum(), len(targets)
        self.totals += torch.stack(
            (loss.to(self.totals.dtype) * n, hits.to(self.totals.dtype), torch.ones_like(hits) * n)
        )

    def first_batch(
        self, images: Tensor, labels: Tensor, most: int | None = None
    ) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
        """What `prepare` gives of the stage's first batch, and the loss's extra arguments; draws from the generator.

        ``most``: only so many of its images.
        """
        chosen = torch.arange(min(most or self.recipe.batch_size, self.recipe.batch_size, len(labels)))
        chosen = chosen.to(self.device)
        inputs, targets = self.prepare(images[chosen], labels[chosen])
        return inputs, targets, self._extras(chosen)
