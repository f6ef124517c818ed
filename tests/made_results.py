"""Whole results with made-up predictions and the real recipes, as `reproduce` builds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from fer_repro import papers, results
from fer_repro.data import USAGES
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
