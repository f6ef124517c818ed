"""Weights that Keras wrote as HDF5, as tensors for torch: read without running anything, transposed, renamed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fer_repro.errors import FerReproError

SUFFIXES = (".h5", ".hdf5")
UNPACKED = 100  # times its own size: no more numbers may a (compressed) file declare, which are reserved before read
NAMES = {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}
NAMES |= {"moving_mean": "running_mean", "moving_variance": "running_var"}


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that Keras 2 saved, float32, named ``layer/weight`` and laid out as Keras does.

    Raises `FerReproError` without h5py or for another kind of file.
    """
    try:
        import h5py
    except ImportError as error:
        raise FerReproError(
            f"{path} is HDF5, and h5py is not installed: pip install 'fer-repro[pretrained]'"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)  # a whole model keeps its weights in a group of that name
            found = {
                f"{_text(layer)}/{_text(name).split('/')[-1].split(':')[0]}": root[_text(layer)][_text(name)]
                for layer in root.attrs["layer_names"]
                for name in root[_text(layer)].attrs["weight_names"]
            }
            if sum(data.size * data.dtype.itemsize for data in found.values()) > UNPACKED * path.stat().st_size:
                raise ValueError("declares more numbers than it can hold")
            return {name: torch.from_numpy(np.asarray(data, dtype=np.float32)) for name, data in found.items()}
    except Exception as error:  # noqa: BLE001 - damaged bytes make h5py raise nearly anything
        raise FerReproError(
            f"{path} cannot be read as weights of Keras ({type(error).__name__}): expected an HDF5 file with "
            "layer_names and weight_names; fetch it again"
        ) from error


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def as_torch(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `read` gives, named ``layer.weight`` as in torch; kernels [h,w,in,out] become [out,in,h,w], those of linear
    layers [in,out] become [out,in].

    Raises `FerReproError` for a kind of weight that is not known here.
    """
    converted = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition("/")
        if kind not in NAMES:
            raise FerReproError(f"Keras weight '{name}' is of no known kind, expected one of {', '.join(NAMES)}")
        if kind == "kernel":
            tensor = tensor.permute(3, 2, 0, 1) if tensor.dim() == 4 else tensor.t()
        converted[f"{layer}.{NAMES[kind]}"] = tensor.contiguous()
    return converted
