"""A long run tries the ways to compute its first batch, and goes on with the fastest that works here."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fer_repro.errors import FerReproError
from fer_repro.training.checkpoint import random_state, set_random_state
from fer_repro.training.execution import FORWARDS, ExecutionMode, first_mode, may_use_bf16
from fer_repro.training.step import TrainStep

log = logging.getLogger(__name__)

MANY_STEPS = 1000  # ahead: fewer would not repay the trials
TIMED = 8  # batches of which each way is timed, or as many as begin within `PATIENCE`
PATIENCE = 4.0  # seconds
COMPILING = 180.0  # seconds that compiling one way may take
CLEARLY = 0.97  # another way must take less than this share of the present one's time


def autotune(
    step: TrainStep, images: Tensor, labels: Tensor, in_time: Callable[[float], bool] = lambda seconds: True
) -> tuple[ExecutionMode, dict[str, float]]:
    """Choose how ``step`` computes by trying it on the first batch: (mode, seconds a batch of each way that ran).

    Only gradients are computed and thrown away: weights, buffers and random states are the same after it as before.
    Where a batch does not fit the device's memory, activations wait in host memory: the batch stays whole, because
    batch norm and some losses look at all of it. A way that fails or gives no finite loss is named and left out, and
    so is one that would take longer than ``in_time`` has (called with seconds).
    """
    execution = step.execution
    seconds: dict[str, float] = {}
    changes: list[tuple[str, dict[str, Any]]] = []
    with _undone(step):
        batch = step.first_batch(images, labels)
        mode = _fitting(step, batch, first_mode(execution, step.recipe, step.device))
        if mode.host_memory:
            return mode, seconds
        try:
            now = seconds["eager"] = _seconds_per_batch(step, batch)
        except ArithmeticError:
            return mode, seconds  # the run itself tells that it diverges
        if may_use_bf16(execution, step.recipe) and not mode.autocast:
            changes.append(("bf16", {"autocast": True}))
        if execution.channels_last:
            changes.append(("contiguous", {"channels_last": False}))
        ways = [execution.compile]
        if execution.compile == "auto":
            ways = [] if step.device.type == "cpu" else list(FORWARDS)
        changes += [(way, {"forward": way}) for way in ways if way != "eager"]
        for name, change in changes:
            if not in_time(COMPILING if "forward" in change else PATIENCE):
                log.info(f"autotune: no time left to try {name}")
                continue
            other = dataclasses.replace(mode, **change)
            took = _try(step, other, batch)
            if took is not None:
                seconds[name] = took
                mode, now = (other, took) if took < CLEARLY * now or name == execution.compile else (mode, now)
    if mode.forward == "eager" and any("forward" in change for _, change in changes):
        torch.compiler.reset()  # what was compiled for nothing gives its memory back
    listed = ", ".join(f"{way} {1000 * took:.1f} ms" for way, took in seconds.items())
    order, kind = "channels last" if mode.channels_last else "contiguous", "bf16" if mode.autocast else "fp32"
    log.info(f"autotune, per batch: {listed}; chosen: {kind}, {order}, {mode.forward}")
    return mode, seconds


def confirm(step: TrainStep, mode: ExecutionMode, images: Tensor, labels: Tensor) -> ExecutionMode:
    """The mode that an interrupted run had made, as far as it works here: on another machine, with less memory."""
    if mode.forward == "eager" and step.device.type == "cpu":
        return mode
    with _undone(step):
        batch = step.first_batch(images, labels)
        eager = _fitting(step, batch, dataclasses.replace(mode, forward="eager"))
        if mode.forward == "eager" or eager.host_memory:
            return eager
        return mode if _try(step, mode, batch) is not None else eager


def _fitting(step: TrainStep, batch: tuple, mode: ExecutionMode) -> ExecutionMode:
    """``mode``, with activations in host memory where the device's does not hold them.

    Raises `FerReproError` where even that does not fit.
    """
    if mode.host_memory or not _fits(step, batch, mode):
        if not mode.host_memory:
            log.info("the batch does not fit the device's memory: activations wait in host memory, which is slower")
        # Kept tensors come back from there with their rows in the usual order.
        mode = dataclasses.replace(mode, host_memory=True, channels_last=False)
        # Only now is the failed try's graph gone: inside its handler the exception still held it.
        torch.cuda.empty_cache()
        if not _fits(step, batch, mode):
            raise FerReproError(
                f"{step.device}: the network of {step.recipe.variant} and a batch of {len(batch[1])} inputs do not fit "
                "its memory, even with activations in host memory: use a larger device, or --device cpu"
            )
    return mode


def _fits(step: TrainStep, batch: tuple, mode: ExecutionMode) -> bool:
    """Whether one batch's gradients can be computed, with room left for what the first update and epoch will add."""
    step.set_mode(mode)
    try:
        # Two numbers of an optimiser's state for each weight, and two more copies of the best ones.
        later = 4 * sum(p.numel() * p.element_size() for p in step.model.parameters())
        room = torch.empty(later if step.device.type == "cuda" else 0, dtype=torch.uint8, device=step.device)
        step.gradients(batch[0].contiguous(memory_format=step.memory_format), *batch[1:])
        del room
    except torch.OutOfMemoryError:
        step.optimiser.zero_grad(set_to_none=True)
        return False
    return True


def _try(step: TrainStep, mode: ExecutionMode, batch: tuple) -> float | None:
    """Seconds a batch of one mode; None, with a line, where it does not work here."""
    try:
        step.set_mode(mode)
        return _seconds_per_batch(step, batch)
    # No compiler, an operator it does not know, its own bugs, too little memory: eager always works.
    except (RuntimeError, ArithmeticError, AssertionError, ImportError, OSError) as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
        log.info(f"{mode.forward} does not work here ({type(error).__name__}: {first[:160]}); going on without")
        return None


def _seconds_per_batch(step: TrainStep, batch: tuple) -> float:
    """Forward and backward of one batch, warmed up (and compiled) before; `ArithmeticError` for a loss not finite."""
    inputs = batch[0].contiguous(memory_format=step.memory_format)
    loss = step.gradients(inputs, *batch[1:])
    if not math.isfinite(loss.item()):
        raise ArithmeticError(f"the loss is {loss.item()}")
    began, done = 0.0, -2  # two more that do not count
    while done < 1 or (done < TIMED and time.perf_counter() - began < PATIENCE):
        if done == 0:
            _wait(step.device)
            began = time.perf_counter()
        step.gradients(inputs, *batch[1:])
        done += 1
    _wait(step.device)
    return (time.perf_counter() - began) / done


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _undone(step: TrainStep) -> Iterator[None]:
    """Whatever gradients leave behind inside the block is put back: buffers, random states, gradients."""
    modules = [step.model] + ([step.loss] if isinstance(step.loss, nn.Module) else [])
    buffers = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    generator, state = step.generator.get_state(), random_state(step.device)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        step.generator.set_state(generator)
        set_random_state(state, step.device)
        step.optimiser.zero_grad(set_to_none=True)
