"""The program that reads a Keras file in a process of its own: the HDF5 library may hang or crash on a damaged one.

``python hdf5.py WEIGHTS.h5 TARGET.npz`` imports nothing of this package, and so starts at once.
"""

import os
import sys

import h5py
import numpy as np

UNPACKED = 100  # times its own size: no more numbers may a (compressed) file declare, which are reserved before read


def arrays(path: str) -> dict[str, np.ndarray]:
    """float32 arrays named ``layer/weight``. Raises what h5py raises, and ValueError for absurd sizes."""
    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)  # a whole model keeps its weights in a group of that name
        if "layer_names" not in root.attrs and "layers" in root:
            return _keras3(root["layers"], UNPACKED * os.path.getsize(path))
        names = [
            (_text(layer), _text(name))
            for layer in root.attrs["layer_names"]
            for name in root[_text(layer)].attrs["weight_names"]
        ]
        found = {f"{layer}/{name.split('/')[-1].split(':')[0]}": root[layer][name] for layer, name in names}
        if len(found) != len(names):  # a model inside a model
            raise ValueError("two weights of a layer have one name")
        if sum(data.size * data.dtype.itemsize for data in found.values()) > UNPACKED * os.path.getsize(path):
            raise ValueError("declares more numbers than it can hold")
        return {name: np.asarray(data, dtype=np.float32) for name, data in found.items()}


def _keras3(layers: h5py.Group, most: int) -> dict[str, np.ndarray]:
    """The layers of a weights file of Keras 3 that have a kernel and a bias; it numbers weights and names none."""
    found: dict[str, h5py.Dataset] = {}
    for layer in layers:
        held = layers[layer].get("vars", {})
        if len(held) not in (0, 2):
            raise ValueError(f"{layer} has {len(held)} weights, expected a kernel and a bias")
        found |= {f"{layer}/{kind}": held[number] for kind, number in (("kernel", "0"), ("bias", "1")) if len(held)}
    if sum(data.size * data.dtype.itemsize for data in found.values()) > most:
        raise ValueError("declares more numbers than it can hold")
    return {name: np.asarray(data, np.float32) for name, data in found.items()}


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


if __name__ == "__main__":
    read = arrays(sys.argv[1])
    with open(sys.argv[2], "wb") as target:
        # By number: a name may hold what the name of an archive's entry must not.
        numbered = {str(number): array for number, array in enumerate(read.values())}
        np.savez(target, names=np.array(list(read)), **numbered)  # type: ignore[arg-type]
