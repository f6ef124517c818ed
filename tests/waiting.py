"""Counts what would make the host wait for a device, on a machine that has none."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fer_repro.training.step import TrainStep

# Each reads values on the host, or needs them there to know a shape: on a GPU the host waits for all work before it.
READS = {
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "unique_dim",
    "_unique2",
    "item",
    "unique_consecutive",
    "repeat_interleave",
    "bincount",
    "allclose",
}
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


class Watch:
    """Batches of runs under a count of what would wait: ``batches`` seen, ``found`` operators.

    An optimiser makes its state in its first step, so a stage's first batch is not counted; of the rest, the first
    ``most`` are.
    """

    def __init__(self, monkeypatch, most: int = 3) -> None:
        self.batches, self.found = 0, []
        call = TrainStep.__call__

        def watched(step, images, labels, chosen=None):
            seen = step.__dict__.setdefault("watched", 0)
            step.watched += 1
            if not 0 < seen <= most:
                call(step, images, labels, chosen)
                return
            with counted(step.optimiser) as waits:
                call(step, images, labels, chosen)
            self.found += list(waits.found)
            self.batches += 1

        monkeypatch.setattr(TrainStep, "__call__", watched)
