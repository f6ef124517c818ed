"""How a recipe is computed, never what: switches of speed, and the rehearsal that chooses by measurement."""

from __future__ import annotations

import ctypes
import math
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fer_repro.errors import FerReproError

if TYPE_CHECKING:
    from fer_repro.training.step import TrainStep

FORWARDS: dict[str, str | None] = {"eager": None, "compiled": "default", "cuda-graphs": "reduce-overhead"}
"""Name -> the mode of `torch.compile`; eager is torch as it comes."""
REHEARSED = 8  # batches of which each way is timed
WORTH_COMPILING = 120.0  # seconds of eager training ahead; below that compiling could not pay
CLEARLY = 0.97  # another way must take less than this share of eager's time


@dataclass(frozen=True)
class Engine:
    """Switches that change the speed and the rounding of a run, not its recipe; all on is the way runs are made.

    ``compile``: ``auto`` (on CUDA, where much is ahead, the ways of `FORWARDS` are rehearsed and the fastest is used)
    or one of their names. ``keep_memory``: the C library keeps freed memory instead of giving it back to the system.
    """

    channels_last: bool = True
    fused_augmentation: bool = True
    fused_optimiser: bool = True
    autocast: bool = True
    compile: str = "auto"
    keep_memory: bool = True

    def __post_init__(self) -> None:
        if self.compile != "auto" and self.compile not in FORWARDS:
            raise FerReproError(f"engine: compile is '{self.compile}', expected auto or one of {', '.join(FORWARDS)}")

    @property
    def memory_format(self) -> torch.memory_format:
        """Of weights and inputs: tensor cores want channels last, and so does oneDNN on a CPU."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def to_device(self, model: nn.Module, device: torch.device) -> nn.Module:
        """``model`` on the device in this engine's memory format."""
        if self.keep_memory and device.type == "cpu":
            keep_freed_memory()
        return model.to(device, memory_format=self.memory_format)


@dataclass
class Choice:
    """What a rehearsal decided: the way forward, and whether activations wait for the backward pass in host memory."""

    forward: str = "eager"
    host_memory: bool = False


def rehearse(
    step: TrainStep, images: Tensor, labels: Tensor, steps_left: int, wanted: str, say: Callable[[str], None]
) -> tuple[Choice, dict[str, float]]:
    """Choose how ``step`` computes, by trying it on one batch; (choice, seconds a batch of each way that ran).

    ``wanted``: ``auto`` chooses by measurement, where ``steps_left`` make it pay; a name of `FORWARDS` is taken if it
    works.
    Only gradients are computed and thrown away: weights, buffers and random states are the same after it as before.
    Where a batch does not fit the device's memory, activations wait in host memory: the batch stays whole, because
    batch norm and some losses look at all of it. A way that fails or gives no finite loss is named and left out.
    """
    choice, seconds = Choice(), {}
    with _undone(step):
        inputs, targets, told = step.rehearsal_batch(images, labels)
        try:
            seconds["eager"] = _seconds_per_batch(step, inputs, targets, told)
        except torch.OutOfMemoryError:
            choice.host_memory = True
        if choice.host_memory:
            step.choose(choice)
            torch.cuda.empty_cache()
            say("the batch does not fit the device's memory: activations wait in host memory, which is slower")
            try:
                seconds["eager"] = _seconds_per_batch(step, inputs, targets, told)
            except torch.OutOfMemoryError as error:
                raise FerReproError(
                    f"{step.device}: the network of {step.recipe.variant} and a batch of {len(targets)} inputs do not "
                    "fit its memory, even with activations in host memory: use a larger device, or --device cpu"
                ) from error
            return choice, seconds
        if wanted == "auto":
            ahead = seconds["eager"] * steps_left
            tried = [way for way in FORWARDS if way != "eager"] if ahead > WORTH_COMPILING else []
        else:
            tried = [way for way in (wanted,) if way != "eager"]
        for way in tried:
            took = _try(step, way, inputs, targets, told, say)
            if took is not None:
                seconds[way] = took
        limit = math.inf if wanted != "auto" else CLEARLY * seconds["eager"]
        others = {way: took for way, took in seconds.items() if way != "eager" and took < limit}
        choice.forward = min(others, key=others.get) if others else "eager"
    if tried:
        listed = ", ".join(f"{way} {1000 * took:.1f} ms" for way, took in seconds.items())
        say(f"rehearsal, a batch: {listed}; chosen: {choice.forward}")
    return choice, seconds


def _try(
    step: TrainStep, way: str, inputs: Tensor, targets: Tensor, told: tuple, say: Callable[[str], None]
) -> float | None:
    """Seconds a batch of one way forward; None, with a line, where it does not work here."""
    try:
        step.choose(Choice(way))
        return _seconds_per_batch(step, inputs, targets, told)
    # No compiler, an operator it does not know, its own bugs, too little memory: eager always works.
    except (RuntimeError, ArithmeticError, AssertionError, ImportError, OSError) as error:
        say(f"{way} does not work here ({type(error).__name__}: {_first_line(error)}); going on without")
        return None
    finally:
        step.choose(Choice())


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")[:160]


def _seconds_per_batch(step: TrainStep, inputs: Tensor, targets: Tensor, told: tuple) -> float:
    """Forward and backward of one batch, warmed up (and compiled) before; `ArithmeticError` for a loss not finite."""
    for _ in range(3):
        loss = step.gradients(inputs, targets, told)
    if not math.isfinite(loss.item()):
        raise ArithmeticError(f"the loss is {loss.item()}")
    _wait(step.device)
    began = time.perf_counter()
    for _ in range(REHEARSED):
        step.gradients(inputs, targets, told)
    _wait(step.device)
    return (time.perf_counter() - began) / REHEARSED


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _undone(step: TrainStep) -> Iterator[None]:
    """Whatever gradients leave behind inside the block is put back: buffers, random states, sums, gradients."""
    from fer_repro.training.checkpoint import random_state, set_random_state

    modules = [step.model] + ([step.loss] if isinstance(step.loss, nn.Module) else [])
    buffers = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    generator, state = step.generator.get_state(), random_state(step.device)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, kept in buffers:
                buffer.copy_(kept)
        step.generator.set_state(generator)
        set_random_state(state, step.device)
        step.optimiser.zero_grad(set_to_none=True)


# mallopt's numbers in glibc's malloc.h
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed, up to 2 GB, for the next batch, which wants the same sizes again.

    By default each large activation is mapped and unmapped anew, and the system clears its pages every time. Returns
    whether that was possible (Linux with glibc).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {MMAP_THRESHOLD: 1_000_000_000, TRIM_THRESHOLD: 2_000_000_000, TOP_PAD: 64_000_000}
    return all(mallopt(what, value) == 1 for what, value in settings.items())
