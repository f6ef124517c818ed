"""Whether what a file holds is what was written there, and fits what is to take it up."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def digest(*values: Any) -> str:
    """sha256 (hex) over nested mappings, sequences, tensors and plain values: types, shapes and every bit of them."""
    found = hashlib.sha256()
    for value in values:
        _feed(found, value)
    return found.hexdigest()


def _feed(found: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        found.update(f"{value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        found.update(f"{len(value)} entries".encode())
        for key, part in value.items():
            found.update(repr(key).encode())
            _feed(found, part)
    elif isinstance(value, (list, tuple)):
        found.update(f"{len(value)} {'listed' if isinstance(value, list) else 'grouped'}".encode())
        for part in value:
            _feed(found, part)
    else:
        found.update(f"{type(value).__name__} {value!r};".encode())


def require(true: Any, what: str) -> None:
    """Raise `ValueError` saying ``what`` is wrong, unless it is ``true``."""
    if not true:
        raise ValueError(what)


def require_like(expected: Any, found: Any, what: str) -> None:
    """Raise `ValueError` unless ``found`` is built as ``expected``: keys, lengths, types, shapes and dtypes.

    Where None is expected a number may stand too. Names that begin with "_" may come and go: torch's schedules
    change theirs with its versions.
    """
    if isinstance(expected, Tensor):
        same = isinstance(found, Tensor) and found.shape == expected.shape and found.dtype == expected.dtype
        require(same, f"{what} is no {expected.dtype} of shape {tuple(expected.shape)}")
    elif isinstance(expected, Mapping):
        require(isinstance(found, Mapping), f"{what} is no mapping")
        other = [key for key in expected.keys() ^ found.keys() if not str(key).startswith("_")]
        require(not other, f"{what}: missing or unknown {', '.join(map(str, other[:3]))}")
        for key in expected.keys() & found.keys():
            require_like(expected[key], found[key], f"{what} {key}")
    elif isinstance(expected, (list, tuple)):
        same = isinstance(found, (list, tuple)) and len(found) == len(expected)
        require(same, f"{what} is no list of {len(expected)}")
        for number, pair in enumerate(zip(expected, found, strict=True)):
            require_like(*pair, f"{what} {number}")
    elif isinstance(expected, (bool, str)):
        require(type(found) is type(expected), f"{what} is no {type(expected).__name__}")
    else:
        require(type(found) in (int, float) or found is expected is None, f"{what} is no number")


def require_optimiser(optimiser: torch.optim.Optimizer, found: Any) -> None:
    """Raise `ValueError` unless ``found`` is a state that ``optimiser`` can have come to."""
    groups = optimiser.state_dict()["param_groups"]
    require(isinstance(found, Mapping) and found.keys() == {"state", "param_groups"}, "the optimiser's state")
    require_like(groups, found["param_groups"], "optimiser group")
    for own, other in zip(groups, found["param_groups"], strict=True):
        require(own["params"] == other["params"], "the optimiser's parameters")
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    names = set()
    for index, entry in found["state"].items():
        require(type(index) is int and 0 <= index < len(parameters), f"optimiser state {index}")
        names.add(frozenset((name, type(value)) for name, value in entry.items()))
        for name, value in entry.items():
            if isinstance(value, Tensor):  # of the parameter's shape, or a count of steps
                same = value.shape == parameters[index].shape and value.dtype == parameters[index].dtype
                require(same or value.numel() == 1, f"optimiser state {index} {name}")
            else:
                require(value is None or type(value) in (int, float), f"optimiser state {index} {name}")
    require(len(names) <= 1, "the optimiser's state of some parameters")
