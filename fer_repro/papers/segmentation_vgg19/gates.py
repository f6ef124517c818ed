"""How far the gates of a network move its feature maps: x becomes x (1 + m), and the mask m is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fer_repro.training.execution import exact


@dataclass(frozen=True)
class GateFacts:
    """One gate's mask m on a batch: its mean, median, 99th percentile and largest value.

    ``channels`` C: a softmax over the channels has the mean 1/C. ``change`` is |x m| / |x|, how far the maps move;
    ``shaped`` is the part that no common factor explains: min over c of |x (1 + m) - c x| / |x| (norms over the batch).
    """

    name: str
    channels: int
    mean: float
    median: float
    high: float
    largest: float
    change: float
    shaped: float


@torch.no_grad()
def gate_statistics(network: nn.Module, gates: Mapping[str, nn.Module], inputs: Tensor) -> list[GateFacts]:
    """Run ``network`` on ``inputs`` as it stands (its mode included) and measure each of its ``gates`` by name.

    A gate is a module that takes maps [B,C,H,W] and gives masks of that shape. In training mode batch statistics move.
    """
    found: list[GateFacts] = []
    hooks = [
        gate.register_forward_hook(lambda _, given, mask, name=name: found.append(describe(name, given[0], mask)))
        for name, gate in gates.items()
    ]
    try:
        network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def describe(name: str, maps: Tensor, mask: Tensor) -> GateFacts:
    """The statistics of one mask [B,C,H,W] and of the maps x that it multiplies."""
    longest = exact(maps.device)
    maps, mask = maps.detach().to(longest), mask.detach().to(longest)
    values = mask.flatten().sort().values
    moved, squared = maps * mask, maps.square().sum()
    along = (moved * maps).sum()  # the best common factor is 1 + along / squared
    change = moved.square().sum() / squared
    shaped = (change - (along / squared).square()).clamp(min=0)
    high, median, largest = (values[round(share * (len(values) - 1))].item() for share in (0.99, 0.5, 1.0))
    sizes = change.sqrt().item(), shaped.sqrt().item()
    return GateFacts(name, mask.shape[1], mask.mean().item(), median, high, largest, *sizes)
