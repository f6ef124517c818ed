"""Counts what would make the host wait for a device, on a machine that has none."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Each reads values on the host, or needs them there to know a shape: on a GPU the host waits for all work before it.
READS = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique_dim", "_unique2", "item",
    "unique_consecutive", "repeat_interleave", "bincount", "allclose",
}  # fmt: skip
# A tensor made of Python numbers is copied to the device from memory that is not pinned, and that copy waits too.
COPIES = {"lift_fresh"}


class Waits(TorchDispatchMode):
    """Counts, by name, the operators inside the block that would wait on a GPU; tensors in ``host`` may be read."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.host: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket._qualified_op_name.split("::")[1]
        booleans = name.startswith("index") and _boolean_index(args)
        if (name in READS | COPIES or booleans) and id(args[0]) not in self.host:
            self.found[f"{name} by a mask" if booleans else name] += 1
        return function(*args, **(kwargs or {}))


def _boolean_index(args) -> bool:
    indices = [index for arg in args[1:2] if isinstance(arg, (tuple, list)) for index in arg]
    return any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in indices)


@contextmanager
def counted(optimiser: torch.optim.Optimizer | None = None):
    """A `Waits` for the block. An optimiser's step counters stay on the CPU, where reading them waits for nothing."""
    waits = Waits()
    for state in (optimiser.state if optimiser else {}).values():
        waits.host |= {id(value) for key, value in state.items() if key == "step"}
    with waits:
        yield waits
