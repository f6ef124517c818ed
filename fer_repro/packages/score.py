"""Scoring a package's model on PublicTest, PrivateTest and a fixed sample of Training; what is stored of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fer_repro import data as data_sets
from fer_repro import pretrained, results
from fer_repro.data import FER2013, LABELS, USAGES
from fer_repro.data.sample import RULE, training_sample
from fer_repro.errors import FerReproError
from fer_repro.evaluation import cost, metrics
from fer_repro.evaluation.statistics import wilson
from fer_repro.packages.table import Package
from fer_repro.project import code_version, default_results_dir
from fer_repro.results import HALVES, PACKAGE, SCHEMA, Result
from fer_repro.training.execution import one_thread

BATCH = 64
PASSES = {1: 100, BATCH: 5}  # that a face alone and a batch are timed, after one that is not
EVERY = 10.0  # seconds between two lines of progress

Say = Callable[[str], None]
Model = Callable[[np.ndarray], Tensor]


def silent(line: str) -> None:
    """Where progress goes that nobody reads."""


def network_of(package: Package, files: Sequence[Path]) -> nn.Module:
    """The package's network with its weights, ready to score. Raises `FerReproError` for files of another network."""
    network = package.network.build()
    pretrained.fill_(network, package.network.weights(files), where=str(files[0]))
    return network.eval()


def model_of(package: Package, network: nn.Module) -> Model:
    """The package's way from faces to classes: uint8 [N,48,48] -> probabilities [N, its classes]."""
    family = package.network
    return lambda images: family.probabilities(network(family.inputs(images)))


def in_order(outputs: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """float32 [N, classes], a column for each of ``labels``, as [N,7] in the order of LABELS; classes that the model
    lacks get 0."""
    found = np.zeros((len(outputs), len(LABELS)), np.float32)
    found[:, [LABELS.index(label) for label in labels]] = outputs
    return found


@torch.inference_mode()
def predict(
    model: Model, labels: Sequence[str], sets: dict[str, FER2013], batch: int = BATCH, say: Say = silent
) -> dict[str, np.ndarray]:
    """Predictions of named sets of faces, as results hold them: ``<name>_ids``, ``_labels``, ``_plain`` [N,7].

    Probabilities become float16, or stay float32 where that would change a predicted class.
    """
    predictions: dict[str, np.ndarray] = {}
    total, done, begin = sum(map(len, sets.values())), 0, time.monotonic()
    last = begin
    for name, faces in sets.items():
        parts = []
        for start in range(0, len(faces), batch):
            parts.append(model(np.asarray(faces.images[start : start + batch])).float().numpy())
            done, now = done + len(parts[-1]), time.monotonic()
            if now - last >= EVERY:
                last = now
                say(f"scored {done:,} of {total:,} faces, about {(now - begin) / done * (total - done):.0f} s left")
        rows = in_order(np.concatenate(parts), labels)
        short = rows.astype(np.float16)
        same = np.array_equal(short.argmax(axis=1), rows.argmax(axis=1))
        predictions[f"{name}_ids"], predictions[f"{name}_labels"] = np.asarray(faces.ids), np.asarray(faces.labels)
        predictions[f"{name}_plain"] = short if same else rows
    return predictions


def sets_of(faces: FER2013) -> dict[str, FER2013]:
    """The sample of Training and both test sets."""
    tests = {usage: faces.subset(np.flatnonzero(faces.usage == usage)) for usage in HALVES}
    return {USAGES[0]: training_sample(faces)} | tests


@torch.inference_mode()
def milliseconds(network: Callable[[Tensor], Any], face: Tensor, batch: int) -> float:
    """Processor time for one face in a batch of ``batch`` equal ones, in one thread, of the network alone.

    ``face``: one prepared input, float [1,C,H,W]. The median of several passes; processor time leaves out what other
    work on the machine takes.
    """
    inputs, times = face.expand(batch, -1, -1, -1).contiguous(), []
    with one_thread():
        network(inputs)
        for _ in range(PASSES.get(batch, min(PASSES.values()))):
            begin = time.process_time()
            network(inputs)
            times.append(time.process_time() - begin)
    return 1000 * statistics.median(times) / batch


def score(
    package: Package,
    files: Sequence[Path],
    *,
    root: str | Path | None = None,
    data: str = "fer2013",
    store: bool = False,
    results_dir: str | Path | None = None,
    say: Say = silent,
) -> tuple[Result, Path | None]:
    """Score a package by its own files; returns the result and, with ``store``, the folder it is stored in.

    ``root``: where FER2013 is; ``data``: "synthetic" tries the code on synthetic faces, whose scores are never stored.
    Raises `FerReproError`.
    """
    began, started = time.monotonic(), datetime.now(UTC)
    where = Path(results_dir) if results_dir else default_results_dir()
    if store:
        _require_storable(package, data, where)
    network = network_of(package, files)
    faces = data_sets.load(data, root if data != "synthetic" else None)
    sets = sets_of(faces)
    predictions = predict(model_of(package, network), package.labels, sets, say=say)
    face = package.network.inputs(np.asarray(sets[HALVES[0]].images[:1]))
    record = {
        "schema": SCHEMA,
        "kind": PACKAGE,
        "variant": PACKAGE,
        "protocol": PACKAGE,
        "profile": "full",
        "seed": None,
        "status": "done",
        "package": described(package),
        "parameters": cost.count_parameters(network),
        "multiply_adds": cost.count_multiply_adds(network, tuple(face.shape)),
        "code_version": code_version(),
        "data": {"name": faces.name, "source": faces.source, "digest": faces.digest},
        "usages": {"test": list(HALVES)},
        "scores": results.score_all(predictions, halves=USAGES),
        "cost": {
            "ms_per_face_alone": milliseconds(network, face, 1),
            "ms_per_face_in_batch": milliseconds(network, face, BATCH),
            "batch": BATCH,
            "threads": 1,
            "seconds": time.monotonic() - began,
            "images_per_second": None,
            "device": "cpu",
        },
        "environment": cost.environment(),
        "started": started.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "facts": {},
    }
    result = Result(record, predictions, pd.DataFrame())
    return result, results.write(result, where) if store else None


def described(package: Package) -> dict[str, Any]:
    """What a stored result says of its package."""
    names = ("name", "registry", "version", "released", "licence", "sha256", "family", "preprocessing")
    return {name: getattr(package, name) for name in names} | {
        "slug": package.slug,
        "files": [{"member": file.member, "sha256": file.sha256} for file in package.files],
        "labels": list(package.labels),
        "sample": {"usage": USAGES[0], "images": results.checks.SAMPLE, "rule": RULE},
    }


def _require_storable(package: Package, data: str, where: Path) -> None:
    """Say before the scoring, not after it, that nothing can be stored."""
    if data == "synthetic":
        raise FerReproError("synthetic faces are no result, so nothing is stored: leave out --store")
    folder = where / "packages" / package.folder
    if (folder / "result.json").exists():
        raise FerReproError(f"{folder} already holds a result: move it away first if it should be replaced")
    results.require_writable(where)


def on_own_classes(result: Result, usage: str) -> dict[str, Any] | None:
    """The score on those images only whose class the package knows (n, correct, accuracy, interval); None where it
    knows all seven."""
    labels = result.record["package"]["labels"]
    if len(labels) == len(LABELS):
        return None
    own = np.isin(result.predictions[f"{usage}_labels"], [LABELS.index(label) for label in labels])
    truth = result.predictions[f"{usage}_labels"][own]
    rows = result.predictions[f"{usage}_plain"][own]
    hit = rows.astype(np.float32).argmax(axis=1) == truth
    correct, n = int(hit.sum()), len(hit)
    return {"n": n, "correct": correct, "accuracy": correct / n, "interval": list(wilson(correct, n))}


def evaluated(predictions: dict[str, np.ndarray], names: Sequence[str] = USAGES) -> dict[str, dict[str, Any]]:
    """The metrics of each set (`fer_repro.evaluation.metrics.evaluate`)."""
    return {
        name: metrics.evaluate(predictions[f"{name}_plain"].astype(np.float32), predictions[f"{name}_labels"])
        for name in names
    }
