"""Whole results with made-up predictions and the real recipes, as `reproduce` builds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from fer_repro import papers, results
from fer_repro.data import LABELS, USAGES
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.results import HALVES, Result


def made_record(predictions: dict[str, np.ndarray], variant: str = "vggnet", **changes: Any) -> dict[str, Any]:
    """The record of a finished full run; ``changes`` replace its fields."""
    protocol = changes.get("protocol", "official")
    recipe = papers.get(variant).recipe(protocol, "full")
    own = recipe.protocol
    usages = {"train": own.train, "select": own.select, "test": own.test, "finetune": own.finetune or own.train}
    record = {
        "schema": results.SCHEMA,
        "variant": variant,
        "protocol": protocol,
        "profile": "full",
        "seed": 0,
        "status": "done",
        "selected_epoch": 7,
        "parameters": 12345,
        "multiply_adds": None,
        "recipe": recipe.as_dict(),
        "recipe_sha256": recipe.sha256(),
        "code_version": "0.1.0 (a test)",
        "data": {"name": "fer2013", "source": "test", "digest": "0" * 64},
        "usages": {role: list(names) for role, names in usages.items()},
        "selection": recipe.selection.name(own),
        "cost": {"seconds": 12.5, "images_per_second": None, "peak_memory_bytes": 10**9, "device": "cpu"},
        "environment": {"python": "3.11.7", "gpu": None, "cores": 2},
        "started": "2026-11-20T09:00:00+00:00",
        "ended": "2026-11-20T10:00:00+00:00",
        "facts": {"words": ["some", {"more": 1.5}], "nothing": None},
    } | changes
    return {"scores": results.score_all(predictions, record["usages"]["test"])} | record


def made_predictions() -> dict[str, np.ndarray]:
    """Random probabilities for test sets with FER2013's counts."""
    rng = np.random.default_rng(0)
    predictions = {}
    for half in HALVES:
        labels = np.repeat(np.arange(7), OFFICIAL_COUNTS[USAGES.index(half)])
        predictions[f"{half}_ids"] = np.array([f"{half}_{i}" for i in range(len(labels))])
        predictions[f"{half}_labels"] = labels
        for kind in ("plain", "views"):
            predictions[f"{half}_{kind}"] = rng.dirichlet(np.ones(7), len(labels)).astype(np.float16)
    return predictions


def made_result(**changes: Any) -> Result:
    """A result of VGGNet with random predictions."""
    predictions = made_predictions()
    history = pd.DataFrame({"epoch": [1, 2], "loss": [1.9, 1.5], "stage": ["train", None]})
    return Result(made_record(predictions, **changes), predictions, history)


def made_unfinished(done: int = 2, **changes: Any) -> Result:
    """A run of VGGNet that was stopped after ``done`` epochs, with random predictions."""
    result = made_result(status="interrupted", selected_epoch=1, **changes)
    rows = [{"epoch": epoch, "loss": 1 / epoch, "stage": "train"} for epoch in range(1, done + 1)]
    epochs = sum(stage["epochs"] for stage in result.record["recipe"]["stages"])
    result.record |= {"kind": "unfinished", "unfinished": {"epochs_done": done, "epochs": epochs}}
    result.history = pd.DataFrame(rows)
    return result


def made_modified(seed: int = 0, digest: str = "a" * 64) -> Result:
    """A run of VGGNet on a copy whose PrivateTest lacks every third image and all that are disgusted."""
    result = made_result(seed=seed, data={"name": "fer2013-modified", "source": "test", "digest": digest})
    labels = result.predictions["PrivateTest_labels"]
    keep = (np.arange(len(labels)) % 3 > 0) & (labels != LABELS.index("disgust"))
    for name in [name for name in result.predictions if name.startswith("PrivateTest")]:
        result.predictions[name] = result.predictions[name][keep]
    counts = OFFICIAL_COUNTS.copy()
    counts[2] = np.bincount(labels[keep], minlength=7)
    stated = {usage: dict(zip(LABELS, row, strict=True)) for usage, row in zip(USAGES, counts.tolist(), strict=True)}
    scores = results.score_all(result.predictions, result.record["usages"]["test"])
    result.record |= {"kind": "modified", "modified": {"counts": stated}, "scores": scores}
    return result
