"""How a recipe is computed: switches of speed, and the one rule for its precision."""

from __future__ import annotations

import ctypes
import logging
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from fer_repro.errors import FerReproError
from fer_repro.recipe import Recipe
from fer_repro.training import checked_device

log = logging.getLogger(__name__)

FORWARDS: dict[str, str | None] = {"eager": None, "compiled": "default", "cuda-graphs": "reduce-overhead"}
"""Name -> the mode of `torch.compile`; eager is torch as it comes."""
DEPTHWISE_SHARE = 0.02
"""Of a network's parameters in depthwise convolutions: with more, a CPU computes in fp32 (see `precision`)."""


@dataclass(frozen=True)
class ExecutionOptions:
    """Switches that change the speed of a run, not its recipe; all on is the way runs are made.

    With them change the rounding, and with the memory format the units on which dropout's draws fall.

    ``autocast``: bf16 or fp16 where `precision` says so. ``compile``: ``auto`` (on CUDA a long run tries the ways of
    `FORWARDS` and takes the fastest) or one of their names. ``keep_memory``: the C library keeps freed memory instead
    of giving it back. ``autotune``: cuDNN times its algorithms for each new shape.
    """

    channels_last: bool = True
    fused_augmentation: bool = True
    fused_optimiser: bool = True
    autocast: bool = True
    compile: str = "auto"
    keep_memory: bool = True
    autotune: bool = True

    def __post_init__(self) -> None:
        if self.compile != "auto" and self.compile not in FORWARDS:
            raise FerReproError(
                f"execution: compile is '{self.compile}', expected auto or one of {', '.join(FORWARDS)}"
            )

    def to_device(self, model: nn.Module, device: torch.device) -> nn.Module:
        """``model`` on the device, in the memory format that most networks are fastest in."""
        if self.keep_memory and device.type == "cpu":
            keep_freed_memory()
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = self.autotune
        layout = memory_format(self.channels_last and channels_last_is_safe(device))
        return model.to(device, memory_format=layout)  # type: ignore[call-overload]


def channels_last_is_safe(device: torch.device) -> bool:
    """Whether a network may be trained in that format: not on a CPU without AVX-512.

    There, with torch 2.15, the backward pass of a convolution from 8 to 16 channels with stride 2 writes beyond its
    memory (a batch of 16 maps of 20 pixels ends in a segmentation fault); the contiguous format is sound.
    """
    return device.type != "cpu" or torch.backends.cpu.get_cpu_capability() != "AVX2"


def exact(device: torch.device) -> torch.dtype:
    """The longest floating-point number that the device has: Apple's GPUs have none of 64 bits."""
    return torch.float32 if device.type == "mps" else torch.float64


def memory_format(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


@dataclass
class ExecutionMode:
    """How a step computes: memory format, autocast, way forward, and whether activations wait in host memory.

    ``fp16``: autocast is to fp16, with loss scaling, instead of bf16.
    """

    channels_last: bool = True
    autocast: bool = False
    forward: str = "eager"
    host_memory: bool = False
    fp16: bool = False

    @property
    def precision(self) -> str:
        """``bf16`` or ``fp16`` (autocast; losses, weights and optimiser in float32), or ``fp32``."""
        return ("fp16" if self.fp16 else "bf16") if self.autocast else "fp32"

    @property
    def dtype(self) -> torch.dtype:
        """What autocast computes in, where it is on."""
        return torch.float16 if self.fp16 else torch.bfloat16

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """A new loss scaler: in fp16 small gradients would become 0. In any other precision it changes nothing."""
        return torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")


def first_mode(execution: ExecutionOptions, recipe: Recipe, model: nn.Module, device: torch.device) -> ExecutionMode:
    """How a step computes before anything was timed."""
    channels_last = execution.channels_last and channels_last_is_safe(device)
    taken = precision(execution, recipe, model, device)
    return ExecutionMode(channels_last, taken != "fp32", fp16=taken == "fp16")


def precision(execution: ExecutionOptions, recipe: Recipe, model: nn.Module, device: torch.device) -> str:
    """``bf16``, ``fp16`` or ``fp32`` for training ``model``: a rule, because precision decides the numbers of a run.

    bf16 where the recipe allows it and the device has bf16 natively; on a CPU not for a network with more than
    `DEPTHWISE_SHARE` of its parameters in depthwise convolutions. On a processor with AVX512-BF16 a batch of every
    recipe's network took 0.35 to 0.86 of fp32's time where that share is at most 0.013, and 1.26 and 2.34 times as long
    where it is 0.036 and 0.054 (EfficientNet-B2 and Lite0). Another CUDA GPU computes in fp16 with loss scaling, unless
    that disagrees with fp32 on the first batch (`fer_repro.training.autotune.agreeing`).
    """
    if not execution.autocast or recipe.precision != "bf16":
        return "fp32"
    if native_bf16(device):
        return "fp32" if device.type == "cpu" and depthwise_share(model) > DEPTHWISE_SHARE else "bf16"
    return "fp16" if device.type == "cuda" else "fp32"


def native_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16; others compute it by way of float32, which is slower."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    # A torch without this function names no instructions: fp32.
    capabilities: dict = dict(getattr(torch.cpu, "get_capabilities", dict)())
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def depthwise_share(model: nn.Module) -> float:
    """Of the network's parameters, those of convolutions in which each output channel sees one input channel."""
    convolutions = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    depthwise = sum(part.weight.numel() for part in convolutions if part.groups == part.in_channels > 1)
    return depthwise / max(1, sum(parameter.numel() for parameter in model.parameters()))


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
    # Older versions refuse a threshold of more than 32 MB.
    mapped = mallopt(MMAP_THRESHOLD, 1_000_000_000) or mallopt(MMAP_THRESHOLD, 32 << 20)
    taken = [mapped, mallopt(TRIM_THRESHOLD, 2_000_000_000), mallopt(TOP_PAD, 64_000_000)]
    return all(taken)


@contextmanager
def one_thread() -> Iterator[None]:
    """A shrunken network gains nothing from a second thread, and several smoke runs side by side lose much by it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def has_kernels(device: torch.device | str) -> bool:
    """Whether this build of torch has code for a CUDA device: binaries of its architecture's major version that are no
    newer than it, or PTX code, which its driver compiles."""
    major, minor = torch.cuda.get_device_capability(device)
    built = [re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", name) for name in torch.cuda.get_arch_list()]
    known = [(found[1], int(found[2]), int(found[3])) for found in built if found]
    if not known:  # another vendor's names: nothing is known against it
        return True
    return any((major, minor) >= (x, y) if kind == "compute" else major == x and minor >= y for kind, x, y in known)


def resolve_device(device: str) -> str:
    """``auto`` becomes ``cuda`` where there is one that this torch has kernels for, else ``cpu``.

    That a GPU is there and not used is logged once. Raises `FerReproError` for an unknown word, and for a GPU that is
    not here or cannot be used.
    """
    checked_device(device)
    if device == "auto":
        if not torch.cuda.is_available():
            return "cpu"
        if not has_kernels("cuda"):
            _say_once(f"{_without_kernels('cuda')}: this runs on the CPU")
            return "cpu"
        return "cuda"
    if device == "mps" and not torch.backends.mps.is_available():
        raise FerReproError(
            f"device 'mps' was asked for, but torch {torch.__version__} sees no GPU of Apple here: use --device cpu"
        )
    if device.startswith("cuda"):
        _require_cuda(device)
    return device


def _require_cuda(device: str) -> None:
    asked = f"device '{device}' was asked for, but"
    if not torch.cuda.is_available():
        raise FerReproError(
            f"{asked} torch {torch.__version__} sees no CUDA device here: use --device cpu, or install a CUDA build of "
            "torch and its driver"
        )
    count = torch.cuda.device_count()
    if (torch.device(device).index or 0) >= count:
        raise FerReproError(f"{asked} torch sees {count} here, numbered from 0: use cuda:{count - 1} or --device auto")
    if not has_kernels(device):
        raise FerReproError(
            f"{_without_kernels(device)}: use --device cpu, or install a build of torch for this architecture"
        )


def _without_kernels(device: str) -> str:
    major, minor = torch.cuda.get_device_capability(device)
    return (
        f"{torch.cuda.get_device_name(device)} has compute capability {major}.{minor}, and torch {torch.__version__} "
        f"has kernels for {', '.join(torch.cuda.get_arch_list())} only"
    )


@cache
def _say_once(line: str) -> None:
    log.warning(line)


@contextmanager
def enough_memory(device: str, what: str) -> Iterator[None]:
    """Turns the device's running out of memory inside the block into a `FerReproError`; ``what`` needs it."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise FerReproError(
            f"{device}: its memory is too small for {what}, or other programs hold it ({_first_sentence(error)}): end "
            "those, use a larger GPU, or --device cpu in a runs folder of its own; a run goes on from its checkpoint"
        ) from error


def _first_sentence(error: Exception) -> str:
    return str(error).strip().split(". ")[0].split("\n")[0][:100]
