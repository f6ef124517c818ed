"""Weights as TensorFlow.js keeps them: a manifest that names and measures tensors, and their bytes in a row."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fer_repro.errors import FerReproError
from fer_repro.packages.networks.base import State

MOST_NAMES = 1000


def read(description: Path, content: Path) -> dict[str, Tensor]:
    """The tensors of a manifest with one file of bytes, float32 as laid out there; constants of whole numbers stay out.

    ``description``: a weights manifest, or a graph's ``model.json`` that holds one. Weights stored as bytes with a
    scale and a smallest value (``quantization``) are ``scale * byte + min``. Raises `FerReproError` where the two files
    do not fit together.
    """
    try:
        held = json.loads(description.read_text(encoding="utf-8"))
        groups = held["weightsManifest"] if isinstance(held, dict) else held
        entries = [entry for group in groups for entry in group["weights"]]
        if len(groups) != 1 or not 0 < len(entries) <= MOST_NAMES:
            raise ValueError(f"{len(groups)} groups of {len(entries)} weights")
        return _tensors(entries, content.read_bytes())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise FerReproError(
            f"{description} and {content.name} are no weights of TensorFlow.js ({type(error).__name__}: {error}): "
            "fetch them again"
        ) from error


def _tensors(entries: list[dict[str, Any]], content: bytes) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    start = 0
    for entry in entries:
        packed = entry.get("quantization")
        stored = np.dtype({"uint8": "u1", "float32": "<f4", "int32": "<i4"}[(packed or entry)["dtype"]])
        count = math.prod(int(side) for side in entry["shape"])
        if not 0 <= count <= len(content):
            raise ValueError(f"{entry['name']} has {count:,} numbers")
        # The count is bounded by the file, so a manifest cannot ask for more memory than four times its size.
        numbers = np.frombuffer(content, stored, count, start).reshape(entry["shape"])
        start += numbers.nbytes
        if packed:
            numbers = numbers * np.float32(packed["scale"]) + np.float32(packed["min"])
        if entry["dtype"] == "float32":
            found[entry["name"]] = torch.from_numpy(numbers.astype(np.float32))
    if start != len(content):
        raise ValueError(f"{start:,} bytes are described, and there are {len(content):,}")
    return found


def renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str], where: Path) -> State:
    """``tensors`` under our ``names`` and laid out for torch: kernels [h,w,in,out] become [out,in,h,w], kernels of a
    depthwise convolution [h,w,in,1] become [in,1,h,w], those of linear layers are transposed.

    Raises `FerReproError` for a tensor without a name of ours.
    """
    if strange := sorted(tensors.keys() - names.keys()):
        raise FerReproError(f"{where} holds {strange[0]!r}, which has no place in this network: use the package's own")
    return {names[name]: _for_torch(names[name], tensor) for name, tensor in tensors.items()}


def _for_torch(name: str, tensor: Tensor) -> Tensor:
    if tensor.dim() == 4:
        tensor = tensor.permute(2, 3, 0, 1) if name.endswith("depthwise.weight") else tensor.permute(3, 2, 0, 1)
    elif tensor.dim() == 2:
        tensor = tensor.t()
    return tensor.contiguous()
