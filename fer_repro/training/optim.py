"""Optimisers, schedules and weight averaging by name: torch's own, with the options a recipe gives."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fer_repro.errors import FerReproError
from fer_repro.recipe import Step

OPTIMISERS: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
}

WARMUP_START = 0.01  # of the learning rate, where a warm-up begins


def make_optimiser(step: Step, parameters: Iterable[nn.Parameter], fused: bool = True) -> torch.optim.Optimizer:
    """The optimiser ``step`` names over the parameters that want a gradient; options as in torch (lr, ...).

    ``fused``: in one kernel, where torch has one for this optimiser.
    """
    if step.name not in OPTIMISERS:
        raise FerReproError(f"recipe: unknown optimiser '{step.name}', expected one of {', '.join(OPTIMISERS)}")
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise FerReproError("the network has no parameter that wants a gradient; unfreeze what this stage should train")
    kind = OPTIMISERS[step.name]
    options = step.kwargs()
    _check(f"optimiser '{step.name}'", options, list(inspect.signature(kind).parameters)[1:])
    if fused and "fused" in inspect.signature(kind).parameters:
        options["fused"] = True
    try:
        return kind(trained, **options)
    except (TypeError, ValueError) as error:
        raise FerReproError(f"recipe: optimiser {step} is refused by torch: {error}") from error


def _check(what: str, options: Iterable[str], known: Iterable[str]) -> None:
    known = sorted(known)
    for name in options:
        if name not in known:
            raise FerReproError(f"recipe: {what} has no option '{name}', expected some of {', '.join(known)}")


def _one_cycle(optimiser: torch.optim.Optimizer, steps: int, **options: Any) -> lr_scheduler.LRScheduler:
    options = {"max_lr": optimiser.param_groups[0]["lr"], "total_steps": steps} | options
    return lr_scheduler.OneCycleLR(optimiser, **options)


def _cosine(optimiser: torch.optim.Optimizer, steps: int, **options: Any) -> lr_scheduler.LRScheduler:
    options = {"T_max": steps} | {"T_max" if name == "t_max" else name: value for name, value in options.items()}
    return lr_scheduler.CosineAnnealingLR(optimiser, **options)


def _restarts(optimiser: torch.optim.Optimizer, steps: int, **options: Any) -> lr_scheduler.LRScheduler:
    renamed = {name.replace("t_", "T_", 1): value for name, value in options.items()}
    return lr_scheduler.CosineAnnealingWarmRestarts(optimiser, **renamed)


def _rising_restarts(optimiser: torch.optim.Optimizer, steps: int, rise: int, cycle: int) -> lr_scheduler.LRScheduler:
    """Cycles of a linear rise and a half cosine down to 0; the first step is number 1 (EmoNeXt, released train.py)."""

    def factor(done: int) -> float:
        place = (done + 1) % cycle
        return place / rise if place < rise else (1 + math.cos(math.pi * (place - rise) / (cycle - rise))) / 2

    return lr_scheduler.LambdaLR(optimiser, factor)


def _inverse_time(optimiser: torch.optim.Optimizer, steps: int, decay: float) -> lr_scheduler.LRScheduler:
    return lr_scheduler.LambdaLR(optimiser, lambda done: 1 / (1 + decay * done))


def _plateau(optimiser: torch.optim.Optimizer, steps: int, **options: Any) -> lr_scheduler.LRScheduler:
    return lr_scheduler.ReduceLROnPlateau(optimiser, **options)


def _from_torch(kind: type[lr_scheduler.LRScheduler]) -> Callable[..., lr_scheduler.LRScheduler]:
    return lambda optimiser, steps, **options: kind(optimiser, **options)


SCHEDULES: dict[str, tuple[Callable[..., lr_scheduler.LRScheduler], tuple[str, ...]]] = {
    "constant": (_from_torch(lr_scheduler.ConstantLR), ()),
    "reduce-on-plateau": (_plateau, ("factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr")),
    "step": (_from_torch(lr_scheduler.StepLR), ("step_size", "gamma")),
    "multi-step": (_from_torch(lr_scheduler.MultiStepLR), ("milestones", "gamma")),
    "exponential": (_from_torch(lr_scheduler.ExponentialLR), ("gamma",)),
    "cosine": (_cosine, ("t_max", "eta_min")),
    "cosine-warm-restarts": (_restarts, ("t_0", "t_mult", "eta_min")),
    "rising-restarts": (_rising_restarts, ("rise", "cycle")),
    "one-cycle": (
        _one_cycle,
        ("max_lr", "total_steps", "pct_start", "div_factor", "final_div_factor", "anneal_strategy"),
    ),
    "inverse-time": (_inverse_time, ("decay",)),
}
"""Name -> (maker, options). Lengths (t_max, step_size, ...) count epochs, or batches where per="batch"."""


@dataclass
class Schedule:
    """A learning-rate schedule that knows when to step; None inside for a constant rate.

    ``on``: what a plateau watches, ``accuracy`` (higher is better) or ``loss``.
    """

    scheduler: lr_scheduler.LRScheduler | None
    per_batch: bool
    on: str | None

    def after_batch(self) -> None:
        if self.scheduler is not None and self.per_batch:
            self.scheduler.step()

    def after_epoch(self, accuracy: float | None, loss: float | None) -> None:
        """``accuracy``, ``loss``: on the images that select."""
        if self.scheduler is None or self.per_batch:
            return
        if self.on is None:
            self.scheduler.step()
            return
        watched = accuracy if self.on == "accuracy" else loss
        if watched is None:
            raise FerReproError("recipe: schedule 'reduce-on-plateau' watches the select images, but there are none")
        self.scheduler.step(watched)  # type: ignore[arg-type]  # a plateau takes what it watches

    def state_dict(self) -> dict[str, Any]:
        return {} if self.scheduler is None else self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state)


def make_schedule(step: Step, optimiser: torch.optim.Optimizer, epochs: int, batches: int) -> Schedule:
    """The schedule ``step`` names for a stage of ``epochs`` of ``batches`` each.

    Beside its own options (see `SCHEDULES`) any but the plateau takes ``per`` ("epoch" or "batch": when it steps) and
    ``warmup`` (that many of its steps of linear rise first, from ``warmup_start`` times the rate, `WARMUP_START` by
    default); the plateau takes ``on`` ("accuracy" or "loss" of the select images).
    """
    if step.name not in SCHEDULES:
        raise FerReproError(f"recipe: unknown schedule '{step.name}', expected one of {', '.join(SCHEDULES)}")
    maker, names = SCHEDULES[step.name]
    plateau = step.name == "reduce-on-plateau"
    _check(
        f"schedule '{step.name}'", step.kwargs(), (*names, *(("on",) if plateau else ("per", "warmup", "warmup_start")))
    )
    options = {name: value for name, value in step.options if name in names}
    per, on = step.get("per", "epoch"), step.get("on", "accuracy")
    if per not in ("epoch", "batch") or on not in ("accuracy", "loss"):
        raise FerReproError(f"recipe: schedule {step}: expected per='epoch' or 'batch', and on='accuracy' or 'loss'")
    warmup = step.get("warmup", 0)
    steps = epochs * (batches if per == "batch" else 1)
    if step.name == "constant" and not warmup:
        return Schedule(None, False, None)
    try:
        if plateau:
            return Schedule(maker(optimiser, steps, mode="max" if on == "accuracy" else "min", **options), False, on)
        if not warmup:
            return Schedule(maker(optimiser, steps, **options), per == "batch", None)
        rise = lr_scheduler.LinearLR(optimiser, step.get("warmup_start", WARMUP_START), total_iters=warmup)
        if step.name == "constant":
            return Schedule(rise, per == "batch", None)
        then = maker(optimiser, max(1, steps - warmup), **options)
        return Schedule(lr_scheduler.SequentialLR(optimiser, [rise, then], [warmup]), per == "batch", None)
    except (TypeError, ValueError) as error:
        raise FerReproError(f"recipe: schedule {step} is refused by torch: {error}") from error


class Ema:
    """An exponential moving average of weights and buffers, updated after optimiser steps.

    ``decay``: of the average. ``every``: batches between updates. ``start``: batches during which the average is a
    plain copy. ``power``: if given, the decay starts at 0 and rises as 1 - n^-power with the n-th batch after
    ``start``, up to ``decay``. ``measure`` and ``keep``: whether the ``average`` or the ``online`` weights are what the
    select images see, and what is kept and scored. torch's `AveragedModel` asks the device for its counter at each
    update; this one never waits.
    """

    def __init__(self, setting: float | Step, model: nn.Module) -> None:
        options = setting.kwargs() if isinstance(setting, Step) else {"decay": setting}
        _check("ema", options, ("decay", "every", "start", "power", "measure", "keep"))
        self.measure, self.keep = options.get("measure", "average"), options.get("keep", "average")
        if not {self.measure, self.keep} <= {"average", "online"}:
            raise FerReproError(
                f"recipe: ema measures '{self.measure}' and keeps '{self.keep}', expected 'average' or 'online'"
            )
        self.decay: float = options.get("decay", 0.999)
        if not 0.0 <= self.decay < 1.0:
            raise FerReproError(
                f"recipe: ema decay is {self.decay}, expected a number from 0 up to but not including 1"
            )
        self.every, self.start, self.power = options.get("every", 1), options.get("start", 0), options.get("power")
        self.batches = 0
        self.module = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def after_batch(self, model: nn.Module) -> None:
        """Count one batch of training and move the average towards ``model`` when it is time."""
        self.batches += 1
        if self.batches % self.every:
            return
        decay = self.decay if self.batches > self.start else 0.0
        if decay and self.power is not None:
            decay = min(decay, 1 - (self.batches - self.start) ** -self.power)
        blended: tuple[list[Tensor], list[Tensor]] = ([], [])
        for averaged, current in zip(_tensors(self.module), _tensors(model), strict=True):
            if averaged.is_floating_point() and decay:
                blended[0].append(averaged)
                blended[1].append(current.detach())
            else:
                averaged.copy_(current)
        if blended[0]:
            get_ema_multi_avg_fn(decay)(*blended, None)

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.batches = state["batches"]


def _tensors(model: nn.Module) -> Iterable[Tensor]:
    return itertools.chain(model.parameters(), model.buffers())
