"""Goals and whether a measurement meets them: met, missed, or not measured, which is an answer too."""

from __future__ import annotations

from typing import Any

import torch


def goal(what: str, on: str, device: str, value: float | None, limit: float, at_least: bool = True) -> dict[str, Any]:
    """A goal with its state. ``on``: the kind of device it is for, ``cpu`` or ``cuda``; ``device``: where this ran.

    ``value`` None: not measured. On another kind of device than the goal's nothing is measured either.
    """
    value = value if on == device else None
    if value is None:
        state = "not measured"
    else:
        state = "met" if (value >= limit if at_least else value <= limit) else "missed"
    return {
        "goal": what,
        "on": on,
        "limit": limit,
        "at_least": at_least,
        "value": value,
        "state": state,
        "measured_on": None if value is None else machine(device),
    }


def machine(device: str) -> str:
    """The GPU's name, or "CPU"."""
    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


def rounded(value: Any) -> Any:
    """Floats of a result to four digits that count, nested ones too."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
