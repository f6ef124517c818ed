"""Weights that Keras wrote as HDF5, as tensors for torch: read without running anything, transposed, renamed."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fer_repro.errors import FerReproError

PATIENCE = 60.0  # seconds; a file of 100 MB takes two
NAMES = {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}
NAMES |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
# The two kernels of a separable convolution are two layers in torch.
NAMES |= {"depthwise_kernel": "depthwise.weight", "pointwise_kernel": "pointwise.weight"}


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
    layers [in,out] become [out,in], those of a depthwise convolution [h,w,in,times] become [in*times,1,h,w].

    Raises `FerReproError` for a kind or a shape of weight that is not known here.
    """
    converted = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition("/")
        if kind not in NAMES:
            raise FerReproError(f"Keras weight '{name}' is of no known kind, expected one of {', '.join(NAMES)}")
        if kind.endswith("kernel"):
            tensor = _kernel(name, tensor)
        converted[f"{layer}.{NAMES[kind]}"] = tensor.contiguous()
    return converted


def _kernel(name: str, tensor: Tensor) -> Tensor:
    if name.endswith("/depthwise_kernel") and tensor.dim() == 4:
        return tensor.permute(2, 3, 0, 1).flatten(0, 1).unsqueeze(1)
    if tensor.dim() == 4:
        return tensor.permute(3, 2, 0, 1)
    if tensor.dim() == 2:
        return tensor.t()
    raise FerReproError(
        f"Keras weight '{name}' is {list(tensor.shape)}, expected a kernel with 2 axes (linear) or 4 (convolution)"
    )


def counted(state: Mapping[str, Tensor], kinds: Iterable[str]) -> dict[str, Tensor]:
    """Layers that Keras numbered by itself, numbered from 0: ``conv2d``, ``conv2d_2`` -> ``conv2d_0``, ``conv2d_1``.

    Keras counts every layer of a kind that a process makes, so the first one may have any number. ``kinds``: such as
    ``conv2d``; names are those of `as_torch`, and layers of other kinds keep theirs.
    """
    found: dict[str, dict[str, int]] = {kind: {} for kind in kinds}
    for layer in {name.split(".")[0] for name in state}:
        kind, _, number = layer.rpartition("_") if re.search(r"_\d+$", layer) else (layer, "", "0")
        if kind in found:
            found[kind][layer] = int(number)
    new = {
        layer: f"{kind}_{place}"
        for kind, layers in found.items()
        for place, layer in enumerate(sorted(layers, key=lambda layer: layers[layer]))
    }
    return {
        new.get(layer, layer) + dot + rest: t for name, t in state.items() for layer, dot, rest in [name.partition(".")]
    }
