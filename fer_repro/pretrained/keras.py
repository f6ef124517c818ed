"""Weights that Keras wrote as HDF5, as tensors for torch: read without running anything, transposed, renamed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fer_repro.errors import FerReproError

SUFFIXES = (".h5", ".hdf5")
PATIENCE = 60.0  # seconds; a file of 100 MB takes two
NAMES = {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}
NAMES |= {"moving_mean": "running_mean", "moving_variance": "running_var"}


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that Keras 2 saved, float32, named ``layer/weight`` and laid out as Keras does.

    Raises `FerReproError` without h5py or for another kind of file.
    """
    if importlib.util.find_spec("h5py") is None:
        raise FerReproError(f"{path} is HDF5, and h5py is not installed: pip install 'fer-repro[pretrained]'")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "weights.npz"
        command = [sys.executable, str(Path(__file__).with_name("hdf5.py")), str(path), str(target)]
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE)
            with np.load(target, allow_pickle=False) as archive:
                names = archive["names"].tolist()
                return {name: torch.from_numpy(archive[str(number)]) for number, name in enumerate(names)}
        except subprocess.SubprocessError as error:
            why = "no end" if isinstance(error, subprocess.TimeoutExpired) else "damaged, or of another kind"
            raise FerReproError(
                f"{path} cannot be read as weights of Keras ({why}): expected an HDF5 file with layer_names and "
                "weight_names; fetch it again"
            ) from error


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
