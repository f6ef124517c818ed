"""What code meets on an Apple GPU that a CPU does not show: there are no numbers of 64 bits behind the point."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fer_repro.training.execution import exact


class WithoutFloat64(TorchDispatchMode):
    """Inside the block every operation that gives a float64 tensor fails, as on ``mps``."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.dtype == torch.float64:
            raise TypeError(f"{operation} gives float64, which the device lacks")
        return made


def exact_there(device: torch.device) -> torch.dtype:
    """In place of `execution.exact`: what it says of an Apple GPU."""
    return exact(torch.device("mps"))
