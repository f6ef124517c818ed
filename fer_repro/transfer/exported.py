"""An exported network, ready to predict: what `fer_repro.transfer.export` wrote, checked and loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fer_repro import papers, pretrained
from fer_repro.data import LABELS
from fer_repro.errors import FerReproError
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.files import sha256_of
from fer_repro.parameters import check_values
from fer_repro.training.execution import resolve_device

WEIGHTS, CARD, CONFIG = "model.safetensors", "README.md", "config.json"


def load(folder: str | Path, device: str = "auto") -> NetworkClassifier:
    """The network in an exported ``folder``, by the recipe that it was trained with; bf16 weights compute in float32.

    Its ``predict_proba(images uint8 [N,48,48])`` gives float32 [N,7], one column per label in the order of
    `fer_repro.data.LABELS`. Raises `FerReproError` for a folder that is not one export, whole and unchanged, and for
    one whose recipe is not today's.
    """
    folder = Path(folder)
    config = _config(folder / CONFIG)
    asked = check_values({name: config.get(name) for name in ("variant", "protocol", "profile", "seed")})
    variant = papers.get(asked.variant)
    if variant.build is None or asked.profile == "stored":
        raise FerReproError(f"{folder / CONFIG} names no network of this package: export it again")
    recipe = variant.recipe(asked.protocol, asked.profile)
    if config.get("recipe_sha256") != recipe.sha256():
        raise FerReproError(
            f"{folder} was trained with another recipe of {variant.id} than this version's "
            f"({recipe.sha256()[:12]}): load it with the code that {CARD} names, or export it again"
        )
    if config.get("labels") != list(LABELS):
        raise FerReproError(f"{folder / CONFIG} has other labels than {', '.join(LABELS)}: export it again")
    path = folder / WEIGHTS
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise FerReproError(f"{path} cannot be read ({error.strerror}): copy the whole exported folder") from error
    if config.get("weights_sha256") != digest:
        raise FerReproError(f"{path} is not the file that {CONFIG} names: copy the whole exported folder again")
    network = variant.build(recipe)
    pretrained.fill_(network, pretrained.tensors_of(path), where=str(path))
    return NetworkClassifier(network, recipe, resolve_device(device))


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FerReproError(
            f"{path} cannot be read ({type(error).__name__}): name the folder that `fer-repro export` wrote"
        ) from error
    if not isinstance(config, dict):
        raise FerReproError(f"{path} holds a {type(config).__name__}, expected a mapping: export it again")
    return config
