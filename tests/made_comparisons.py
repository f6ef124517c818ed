"""Results of all kinds with made-up predictions of chosen accuracies, to compare with each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from made_results import made_record

from fer_repro import papers, results
from fer_repro.data import USAGES
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.packages.score import described
from fer_repro.packages.table import table
from fer_repro.results import HALVES, Result

SOME = ("vggnet", "baseline", "deep-emotion", "deep-emotion-no-stn", "local-learning-bow")


def rows_with(right: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """float16 [N, 7] whose largest entry is the label where ``right`` says so, else another class."""
    n = len(labels)
    guess = np.where(right, labels, (labels + rng.integers(1, 7, n)) % 7)
    confidence = rng.uniform(0.3, 0.95, n)
    rows = np.repeat((1 - confidence)[:, None] / 6, 7, axis=1)
    rows[np.arange(n), guess] = confidence
    return rows.astype(np.float16)


def predictions_of(
    accuracy: float, seed: int = 0, usages: Sequence[str] = HALVES, views: float | None = None
) -> dict[str, np.ndarray]:
    """Predictions of whole test sets: images have a difficulty that is the same for all models, and chance on top.

    ``views``: the accuracy with test-time augmentation, None for none.
    """
    rng, predictions = np.random.default_rng(seed + 1), {}
    for usage in usages:
        counts = OFFICIAL_COUNTS[USAGES.index(usage)] if usage in HALVES else OFFICIAL_COUNTS[2]
        labels = np.repeat(np.arange(7), counts)
        difficulty = np.random.default_rng(len(usage)).normal(size=len(labels))
        predictions[f"{usage}_ids"] = np.array([f"{usage}_{i:05d}" for i in range(len(labels))])
        predictions[f"{usage}_labels"] = labels
        for kind, share in (("plain", accuracy), ("views", views)):
            if share is not None:
                value = difficulty + rng.normal(size=len(labels))
                right = value.argsort().argsort() < round(share * len(labels))
                predictions[f"{usage}_{kind}"] = rows_with(right, labels, rng)
    return predictions


def run_of(
    variant: str, accuracy: float, seed: int = 0, views: float | None = None, epochs: int = 0, **changes: Any
) -> Result:
    """A finished full run; ``epochs``: with the predictions of so many epochs, the best the third last."""
    predictions = predictions_of(accuracy, 100 * len(variant) + seed, views=views)
    record = made_record(predictions, variant, seed=seed, **changes)
    numbers = range(1, (epochs or 2) + 1)
    result = Result(record, predictions, pd.DataFrame({"epoch": numbers, "loss": [1.9 / k for k in numbers]}))
    if epochs:
        rng = np.random.default_rng(seed)
        result.epochs = {"epoch": np.arange(1, epochs + 1)}
        for usage in HALVES:
            labels = predictions[f"{usage}_labels"]
            best = epochs - 3 + 2 * (usage == HALVES[1])
            rows = [rng.random(len(labels)) < accuracy - 0.02 * abs(best - k) for k in range(epochs)]
            result.epochs[usage] = np.array([np.where(right, labels, (labels + 1) % 7) for right in rows], np.uint8)
    return result


def unfinished_of(variant: str, accuracy: float, done: int = 2) -> Result:
    """A run that was stopped."""
    result = run_of(variant, accuracy, status="interrupted", selected_epoch=1)
    total = sum(stage["epochs"] for stage in result.record["recipe"]["stages"])
    result.record |= {"kind": "unfinished", "unfinished": {"epochs_done": done, "epochs": total}}
    result.history = pd.DataFrame([{"epoch": k, "loss": 1 / k, "stage": "train"} for k in range(1, done + 1)])
    return result


def released_of(
    variant: str,
    accuracy: float,
    selected_on: str = "PublicTest",
    usages: Sequence[str] = HALVES,
    trained_on: str = "Training",
) -> Result:
    """Weights that others published."""
    predictions = predictions_of(accuracy, 7, usages)
    record = run_of(variant, accuracy).record | {"kind": "released", "protocol": "released", "seed": None}
    names = "at file published_file licence conversion why differs".split()
    record["released"] = dict.fromkeys(names, "a test") | {"name": "weights-of-others", "sha256": "0" * 64, "url": None}
    record["released"] |= {"trained_on": trained_on, "selected_on": selected_on}
    record["usages"] = {"test": list(usages)}
    record["scores"] = results.score_all(predictions, halves=usages)
    return Result(record, predictions, pd.DataFrame())


def package_of(name: str, training: float, test: float) -> Result:
    """The model of a package, with these accuracies on the sample of Training and on both test sets."""
    (package,) = (one for one in table().scored if one.name == name)
    predictions = predictions_of(training, 3, USAGES[:1]) | predictions_of(test, 3)
    record = {
        "schema": results.SCHEMA,
        **{"kind": results.PACKAGE, "variant": results.PACKAGE, "protocol": results.PACKAGE},
        **{"profile": "full", "seed": None, "status": "done", "package": described(package)},
        **{"parameters": 123_456, "multiply_adds": 10**6, "code_version": "0.1.0 (a test)"},
        "data": {"name": "fer2013", "source": "test", "digest": "0" * 64},
        "usages": {"test": list(HALVES)},
        "scores": results.score_all(predictions, halves=USAGES),
        "cost": {"ms_per_face_alone": 2.5, "ms_per_face_in_batch": 1.25, "batch": 64, "threads": 1}
        | {"seconds": 9.0, "images_per_second": None, "device": "cpu"},
        "environment": {"python": "3.11.7"},
        **{"started": "2026-11-30T09:00:00+00:00", "ended": "2026-11-30T10:00:00+00:00", "facts": {}},
    }
    return Result(record, predictions, pd.DataFrame())


def some() -> list[Result]:
    """Results of every kind: two models that differ clearly, two that hardly do, seeds, packages, an unfinished run."""
    return [
        *(run_of("vggnet", 0.70 + 0.002 * seed, seed, views=0.71 + 0.002 * seed) for seed in range(3)),
        run_of("baseline", 0.66, epochs=8),
        run_of("baseline", 0.661, 1, epochs=8),
        run_of("deep-emotion", 0.52, epochs=6),
        run_of("deep-emotion-no-stn", 0.521),
        run_of("vggnet", 0.73, protocol="claimed"),
        released_of("deep-emotion", 0.55),
        package_of("fer", 0.75, 0.65),
        package_of("facemood", 0.90, 0.88),
        unfinished_of("resnet18-tricks", 0.60),
    ]


def forty() -> list[Result]:
    """Forty more or less different models, each by one run."""
    names = [v.id for v in papers.variants().values() if v.has_epochs("official") or v.id == "local-learning-bow"]
    spread = np.linspace(0.45, 0.75, 38)
    found = [run_of(name, float(share)) for name, share in zip(names, spread, strict=False)]
    return [*found, package_of("fer", 0.75, 0.65), package_of("facemood", 0.90, 0.88)]
