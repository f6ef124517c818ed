"""Scoring a model of one's own beside the packages: weights of a known package's network, or a whole program.

Weights (``like`` a package) are read as tensors only, and nothing in their file is run. A program, written by
`torch.export.save` or by TorchScript, is code: score only one that you trust.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fer_repro import data as data_sets
from fer_repro.data import LABELS
from fer_repro.errors import FerReproError
from fer_repro.files import sha256_of
from fer_repro.packages import score as scoring
from fer_repro.packages.networks.base import as_float
from fer_repro.packages.score import BATCH, Say, milliseconds, predict, sets_of, silent
from fer_repro.packages.table import chosen
from fer_repro.transforms.geometry import resize

CHANNELS = (1, 3)
EXPORTED, SCRIPT = "a program of torch.export", "a TorchScript program"


@dataclass(frozen=True)
class Own:
    """What a program wants: square inputs of ``size`` pixels in ``channels`` equal channels, levels in [0, 1] minus
    ``mean``, over ``std``; its outputs are logits (or log probabilities) of ``labels``, in this order."""

    size: int = 48
    channels: int = 1
    mean: float = 0.0
    std: float = 1.0
    labels: tuple[str, ...] = LABELS
    batch: int = BATCH

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 1024 or self.channels not in CHANNELS or not 1 <= self.batch <= 4096:
            raise FerReproError(
                f"size {self.size}, channels {self.channels}, batch {self.batch}: expected 8 to 1,024 pixels, 1 or 3 "
                "channels, 1 to 4,096 faces"
            )
        if not self.std > 0:
            raise FerReproError(f"the deviation is {self.std}, expected a number above 0")
        if unknown := [label for label in self.labels if label not in LABELS]:
            raise FerReproError(f"unknown class '{unknown[0]}', expected some of {', '.join(LABELS)}")
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise FerReproError(f"the classes {', '.join(self.labels)} are not different ones, expected each once")

    def inputs(self, images: np.ndarray) -> Tensor:
        """uint8 [N,48,48] -> float32 [N,channels,size,size], enlarged bilinearly."""
        made = resize(as_float(images) / 255, self.size)
        return ((made - self.mean) / self.std).expand(-1, self.channels, -1, -1).contiguous()


def score_file(
    files: Sequence[str | Path],
    like: str = "",
    own: Own | None = None,
    *,
    root: str | Path | None = None,
    data: str = "fer2013",
    say: Say = silent,
) -> dict[str, Any]:
    """The scores of one's own model on PublicTest, PrivateTest and the fixed sample of Training, and its speed.

    ``files``: of weights for the network of the package ``like``, as the package itself has them (TensorFlow.js has
    two); or one program, whose inputs ``own`` describes. Nothing is stored. Raises `FerReproError`.
    """
    own, paths = own or Own(), [Path(file) for file in files]
    for path in paths:
        if not path.is_file():
            raise FerReproError(f"there is no file {path}: name the file of weights, or a program")
    if like:
        (package,) = chosen([like])
        if len(paths) != len(package.files):
            raise FerReproError(
                f"{len(paths)} files, the network of {like} needs {len(package.files)}: give one --model for each, in "
                f"the order {', '.join(file.name for file in package.files)}"
            )
        module = scoring.network_of(package, paths)
        network: Callable[[Tensor], Any] = module
        model, labels, inputs = scoring.model_of(package, module), package.labels, package.network.inputs
        kind, batch = f"weights for the network of {package.name} ({package.family})", BATCH
    else:
        if len(paths) != 1:
            raise FerReproError(f"{len(paths)} files, expected one program: give --like for a package's own two files")
        program, kind = program_of(paths[0])
        network, labels, inputs, batch = program, own.labels, own.inputs, own.batch

        def model(images: np.ndarray) -> Tensor:
            return _probabilities(program, own.inputs(images), len(own.labels), paths[0])

    sets = sets_of(data_sets.load(data, root if data != "synthetic" else None))
    predictions = predict(model, labels, sets, batch, say)
    face = inputs(np.asarray(next(iter(sets.values())).images[:1]))
    return {
        "model": kind,
        "files": {path.name: sha256_of(path) for path in paths},
        "labels": list(labels),
        "synthetic": data == "synthetic",
        "scores": scoring.evaluated(predictions),
        "ms_per_face_alone": milliseconds(network, face, 1),
        "ms_per_face_in_batch": milliseconds(network, face, batch),
        "batch": batch,
    }


def program_of(path: Path) -> tuple[Callable[[Tensor], Any], str]:
    """A program from a file, on the CPU, and what it is in words; its content says, never its name.

    Raises `FerReproError` for anything else, for example for weights alone.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {name.partition("/")[2] for name in archive.namelist()}
        with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated, and widespread
            if "archive_format" in entries:
                return torch.export.load(path).module(), EXPORTED
            if "constants.pkl" in entries:
                return torch.jit.load(path, map_location="cpu").eval(), SCRIPT
    except Exception as error:  # noqa: BLE001 - of zipfile, of torch's readers: no common kind
        raise FerReproError(f"{path} cannot be read as a program ({type(error).__name__}): export it again") from error
    raise FerReproError(
        f"{path} is no program but other content of torch: give --like PACKAGE for weights of a package's network, or "
        "save the whole model with torch.export.save"
    )


def _probabilities(program: Callable[[Tensor], Any], inputs: Tensor, classes: int, path: Path) -> Tensor:
    try:
        outputs = program(inputs)
    except Exception as error:  # noqa: BLE001 - whatever the program does with inputs it does not want
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise FerReproError(
            f"{path} does not take inputs of {list(inputs.shape)} ({said}): say what it wants with --size, --channels "
            "and --batch"
        ) from error
    if not isinstance(outputs, Tensor) or outputs.shape != (len(inputs), classes):
        shape = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise FerReproError(
            f"{path} gives {shape}, expected logits [{len(inputs)}, {classes}]: name its classes with --labels"
        )
    return outputs.float().softmax(dim=1)
