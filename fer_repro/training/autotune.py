"""A long run on a GPU times the ways to compute its first batch, and goes on with the fastest that works here.

Only compilation is timed: precision and memory format decide the numbers of a run, so they follow a rule
(`fer_repro.training.execution.first_mode`) and not a clock. Where the rule says fp16, its numbers are compared with
fp32's first.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fer_repro.errors import FerReproError
from fer_repro.training.checkpoint import random_state, set_random_state
from fer_repro.training.execution import FORWARDS, ExecutionMode, ExecutionOptions
from fer_repro.training.step import TrainStep

log = logging.getLogger(__name__)

MANY_STEPS = 1000  # ahead: fewer would not repay the trials
Seconds = dict[str, float | None]
"""Way forward -> seconds a batch, None where it does not work here; a way that was not tried yet is not in it."""
TIMED = 8  # batches of which each way is timed, or as many as begin within `PATIENCE`
PATIENCE = 4.0  # seconds
FEW = 4  # images that show how long a batch takes
TRIED = 32  # images on which fp16 is compared with fp32
ALIKE = 0.25  # two losses of one batch differ by less than this share: rounding and dropout explain no more
COMPILING = 180.0  # seconds that compiling one way may take
CLEARLY = 0.97  # another way must take less than this share of the present one's time


def untried(execution: ExecutionOptions, device: torch.device, seconds: Seconds) -> list[str]:
    """The ways forward that are still to be timed; on a CPU only one that was asked for."""
    if execution.compile == "auto":
        ways = [] if device.type == "cpu" else list(FORWARDS)
    else:
        ways = [execution.compile]
    return [way for way in ways if way != "eager" and way not in seconds]


def autotune(
    step: TrainStep,
    images: Tensor,
    labels: Tensor,
    mode: ExecutionMode | None = None,
    known: Seconds | None = None,
    in_time: Callable[[float], bool] = lambda seconds: True,
) -> tuple[ExecutionMode, Seconds]:
    """Choose how ``step`` computes by trying it on the first batch: (mode, seconds a batch of each way that was tried).

    ``mode`` (the step's own by default) and ``known`` are what an earlier process found: of it only the ways that it
    did not try are timed, and its own way is confirmed to work here. Only gradients are computed and thrown away:
    weights, buffers and random states are the same after it as before. Where a batch does not fit the device's memory,
    activations wait in host memory: the batch stays whole, because batch norm and some losses look at all of it. A way
    that fails or gives no finite loss is named and left out. One that would take longer than ``in_time`` has (called
    with seconds) is left for the next process.
    """
    mode, seconds = mode or step.mode, dict(known or {})
    ways = untried(step.execution, step.device, seconds)
    if (step.device.type == "cpu" and mode.forward == "eager" and not ways) or not in_time(0.0):
        return mode, seconds
    before, mode = mode.forward, dataclasses.replace(mode, forward="eager")
    with _undone(step):
        batch = step.first_batch(images, labels)
        mode = _fitting(step, batch, mode)
        if mode.host_memory:
            return mode, seconds
        if before != "eager":
            ways.insert(0, before)
            seconds.pop(before, None)
        if not ways or not in_time(PATIENCE):
            return mode, seconds
        try:
            now = seconds["eager"] = _seconds_per_batch(step, batch)
        except ArithmeticError:
            return mode, seconds  # the run itself tells that it diverges
        for way in ways:
            if not in_time(COMPILING):
                log.info(f"autotune: no time left to try {way}")
                continue
            other = dataclasses.replace(mode, forward=way)
            took = seconds[way] = _try(step, other, batch)
            if took is not None and (took < CLEARLY * now or way in (before, step.execution.compile)):
                mode, now = other, took
    if mode.forward == "eager":
        torch.compiler.reset()  # what was compiled for nothing gives its memory back
    listed = ", ".join(f"{way} {1000 * took:.1f} ms" for way, took in seconds.items() if took is not None)
    log.info(f"autotune, per batch: {listed}; chosen: {mode.forward}")
    return mode, seconds


def agreeing(step: TrainStep, images: Tensor, labels: Tensor) -> ExecutionMode:
    """The mode that ``step`` has by rule, but fp32 in place of an fp16 that does not agree with it on a first batch.

    Few images, so that it fits in both: the losses must be alike and no gradient of fp16 may overflow at every scale.
    Some GPUs give numbers in fp16 that are not finite. Weights, buffers and random states are the same after it.
    """
    mode = step.mode
    if mode.precision != "fp16":
        return mode
    single = dataclasses.replace(mode, autocast=False, fp16=False)
    with _undone(step):
        batch, state, losses = step.first_batch(images, labels, TRIED), random_state(step.device), []
        for each in (single, mode):
            set_random_state(state, step.device)  # the same dropout, as far as kernels of two precisions draw alike
            step.set_mode(each)
            losses.append(step.gradients(*batch).item())
        overflow = _always_overflows(step, batch)
    alike = abs(losses[0] - losses[1]) <= ALIKE * max(1.0, abs(losses[0]))
    if alike and not overflow:
        return mode
    why = "its gradients overflow" if alike else f"a first loss is {losses[1]:.4g} in it and {losses[0]:.4g} in fp32"
    log.info(f"fp16 does not agree with fp32 here ({why}): going on in fp32")
    return single


def _always_overflows(step: TrainStep, batch: tuple) -> bool:
    """Whether a gradient is not finite at the scaler's factor and at any smaller one down to 1."""
    scaler = step.scaler
    try:
        for power in range(16, -1, -4):
            step.scaler = torch.amp.GradScaler(step.device.type, init_scale=2.0**power)
            step.gradients(*batch)
            gradients = [one.grad for one in step.model.parameters() if one.grad is not None]
            if all(bool(one.isfinite().all()) for one in gradients):
                return False
    finally:
        step.scaler = scaler
    return True


def batch_seconds(step: TrainStep, images: Tensor, labels: Tensor) -> float:
    """Seconds that a batch will take, from a few of its images: for a large network even the first one is long."""
    with _undone(step):
        few = step.first_batch(images, labels, FEW)
        return min(_timed(step, few) for _ in range(2)) * len(images[: step.recipe.batch_size]) / len(images[:FEW])


def _timed(step: TrainStep, batch: tuple) -> float:
    began = time.perf_counter()
    step.gradients(*batch)
    return time.perf_counter() - began


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
