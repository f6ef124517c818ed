"""What a network and a run cost: counted and measured, never typed."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fer_repro.markup import UNKNOWN
from fer_repro.recipe import Recipe


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters (a shared one counts once)."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_multiply_adds(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-adds of one forward pass: convolutions, linear layers, attention; norms and activations are left out.

    ``input_shape``: with the batch, for example (1, 1, 40, 40).
    """
    parameter = next(model.parameters())
    inputs = torch.zeros(input_shape, device=parameter.device, dtype=parameter.dtype)
    was_training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(inputs)
    model.train(was_training)
    return counter.get_total_flops() // 2


def count_activation_bytes(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Bytes that the forward pass of one training batch keeps for the backward pass, in the model's own precision.

    Weights are not counted, and what several operations keep counts once. ``model`` may lie on the meta device, where
    no memory is used; ``input_shape`` is the whole batch, for example (64, 1, 48, 48).
    """
    parameter = next(model.parameters())
    own = {weight.untyped_storage()._cdata for weight in (*model.parameters(), *model.buffers())}
    stored: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        stored[tensor.untyped_storage()._cdata] = tensor
        return tensor

    was_training = model.training
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.zeros(input_shape, device=parameter.device, dtype=parameter.dtype))
    model.train(was_training)
    return sum(tensor.untyped_storage().nbytes() for storage, tensor in stored.items() if storage not in own)


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement where that is possible (CUDA)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most torch held on a GPU since `reset_peak_memory`; on a CPU the process's largest resident size.

    0 where the system does not tell (Windows).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return 0
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def environment(device: str = "auto") -> dict[str, Any]:
    """Versions and hardware (python, torch, torchvision, cuda, driver, gpu, cpu, cores, system), no host name.

    ``threads``: those that torch computes with in this process. ``device``: names one of several GPUs, ``cuda:1``.
    """
    available = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cuda": torch.version.cuda if available else None,
        "driver": _driver() if available else None,
        "gpu": torch.cuda.get_device_name(device if device.startswith("cuda:") else None) if available else None,
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def hardware(record: Mapping[str, Any]) -> str:
    """The device of a stored run: the GPU's name, or the CPU's with its cores. ``record``: of a result."""
    environment = record["environment"]
    if record["cost"].get("device", "").startswith("cuda"):
        return environment.get("gpu") or UNKNOWN
    cores = environment.get("cores")
    return f"{environment.get('cpu') or UNKNOWN}{f', {cores} cores' if cores else ''}"


def _driver() -> str | None:
    return _first(Path("/proc/driver/nvidia/version"), r"Kernel Module\s+(?:for \S+\s+)?([\d.]+)")


def _cpu() -> str | None:
    return _first(Path("/proc/cpuinfo"), r"^model name\s*:\s*(.+)$") or platform.processor() or None


def _first(path: Path, pattern: str) -> str | None:
    """The first group of the first match in a file of the proc file system; None where there is no such file."""
    if not path.exists():
        return None
    found = re.search(pattern, path.read_text(), re.MULTILINE)
    return found.group(1).strip() if found else None


def input_shape(recipe: Recipe) -> tuple[int, int, int, int]:
    """One image as the training loop feeds it: [1, 1, input_size, input_size]."""
    return 1, 1, recipe.input_size, recipe.input_size


def weightless(build: Callable[[Recipe], torch.nn.Module], recipe: Recipe) -> torch.nn.Module:
    """The network with shapes but without memory: counting and tracing need no values."""
    with torch.device("meta"):
        return build(recipe)
