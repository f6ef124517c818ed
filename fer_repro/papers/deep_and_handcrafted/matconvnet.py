"""Weights of MatConvNet (a MATLAB library whose authors published VGG-f in its format) as tensors by layer name.

``python -m fer_repro.papers.deep_and_handcrafted.matconvnet imagenet-vgg-f.mat FOLDER/imagenet-vgg-f.safetensors``
writes the file that the recipe looks for. Reading a .mat file runs no code.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from scipy.io import loadmat
from torch import Tensor

from fer_repro.errors import FerReproError


def tensors(path: Path | str) -> dict[str, Tensor]:
    """``<layer>.weight`` and ``<layer>.bias`` of every layer with weights, float32, in torch's order.

    MatConvNet's filters are [height, width, in, out] and its linear layers are convolutions over the whole map; here
    they become [out, in, height, width], and [out, in * height * width] where the name begins with "fc".
    Raises `FerReproError` for a file that is no network of MatConvNet.
    """
    try:
        found = _found(loadmat(path, struct_as_record=False))
    except Exception as error:  # noqa: BLE001 - damaged bytes make scipy raise nearly anything
        raise FerReproError(f"{path} cannot be read as a .mat file ({type(error).__name__}): fetch it again") from error
    if not found:
        raise FerReproError(f"{path} holds no layers with weights: expected a network of MatConvNet")
    return found


def _found(content: dict[str, Any]) -> dict[str, Tensor]:
    network = _only(content.get("net", content))
    layers = network.get("layers", ()) if isinstance(network, dict) else getattr(network, "layers", ())
    found: dict[str, Tensor] = {}
    for layer in map(_only, np.ravel(layers)):
        pair = _pair(layer)
        if pair is not None:
            name, (filters, bias) = str(_only(layer.name)), (np.asarray(part, np.float32) for part in pair)
            # MATLAB drops trailing dimensions of one, and no others.
            filters = filters.reshape(*filters.shape, *(1,) * (4 - filters.ndim))
            weight = torch.from_numpy(np.ascontiguousarray(filters.transpose(3, 2, 0, 1)))
            found[f"{name}.weight"] = weight.flatten(1) if name.startswith("fc") else weight
            found[f"{name}.bias"] = torch.from_numpy(np.ascontiguousarray(bias.reshape(-1)))
    return found


def _pair(layer: Any) -> tuple[Any, Any] | None:
    """Filters and biases: in ``weights`` of newer files, by their names in older ones; None for other layers."""
    if hasattr(layer, "filters"):
        return layer.filters, layer.biases
    weights = np.ravel(getattr(layer, "weights", ()))
    return tuple(weights) if len(weights) == 2 else None


def _only(value: Any) -> Any:
    """The content of a MATLAB array of one; anything else as it is."""
    while isinstance(value, np.ndarray) and value.size == 1:
        value = value.flat[0]
    return value


def main(arguments: list[str]) -> int:
    """Convert the first file into the second one; the exit status."""
    if len(arguments) != 2:
        name = "fer_repro.papers.deep_and_handcrafted.matconvnet"
        print(f"usage: python -m {name} NETWORK.mat TARGET.safetensors", file=sys.stderr)
        return 2
    try:
        found = tensors(arguments[0])
        safetensors.torch.save_file({name: value.contiguous() for name, value in found.items()}, arguments[1])
    except FerReproError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{arguments[1]}: {len(found)} tensors, {sum(value.numel() for value in found.values()):,} numbers")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
