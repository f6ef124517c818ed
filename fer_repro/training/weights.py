"""Copies of a network's weights, and what the loop asks about a network."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


def copied(model: nn.Module) -> Weights:
    """Parameters and buffers by name, in memory of their own."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def all_finite(model: nn.Module) -> bool:
    """Whether no parameter and no buffer holds a NaN or an infinity; waits for the device."""
    return bool(torch.stack([tensor.isfinite().all() for tensor in model.state_dict().values()]).all())


def has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def digest(model: nn.Module) -> str:
    """sha256 over the names and values of all parameters and buffers."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha256.update(name.encode() + tensor.contiguous().cpu().numpy().tobytes())
    return sha256.hexdigest()
