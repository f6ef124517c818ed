"""Weights of any origin, scored on the official test sets: a paper's release, one of our exports, or a state dict.

A release is recognised by its tensors' names and scored by its paper's recipe; it may be stored as evidence of a kind
of its own, in ``results/<variant>/released/<name>/``, which no verdict counts.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from fer_repro import data as data_sets
from fer_repro import papers, pretrained, results
from fer_repro.claims import Claim, leaderboard_claims
from fer_repro.errors import FerReproError
from fer_repro.evaluation import cost, progress
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.files import sha256_of
from fer_repro.loading import CONFIG, WEIGHTS, load
from fer_repro.logs import shown
from fer_repro.papers.base import TEST_SETS, Variant, from_release
from fer_repro.project import code_version, default_results_dir
from fer_repro.results import RELEASED, SCHEMA, Result, schema
from fer_repro.training.execution import resolve_device

log = logging.getLogger(__name__)

EXPORT, OUR_NAMES = "export", "our names"
UNKNOWN = "unknown: the file does not say"


@dataclass(frozen=True)
class Weights:
    """A checkpoint in our network. ``origin``: `RELEASED`, `EXPORT` or `OUR_NAMES`; ``about``: what a stored result
    says of published weights, in words; ``test_sets``: those that may be scored, ``about["why"]`` why not both."""

    classifier: NetworkClassifier
    origin: str
    about: dict[str, Any]
    test_sets: tuple[str, ...] = TEST_SETS


def read(variant_id: str, checkpoint: str | Path, device: str = "auto") -> Weights:
    """The network of a file (of any kind that `pretrained.tensors_of` reads) or of an exported folder.

    Raises `FerReproError` for a variant without a network, and for a file that does not hold its weights.
    """
    variant, path = papers.get(variant_id), Path(checkpoint)
    if variant.build is None:
        raise FerReproError(f"{variant_id} has no network, so no weights can be scored: name a variant with one")
    if path.name == WEIGHTS and (path.parent / CONFIG).is_file():
        path = path.parent
    if path.is_dir():
        return _export(variant, path, device)
    release = variant.released
    state = pretrained.tensors_of(path, release.wrapper if release else "")
    about = {"file": path.name, "sha256": sha256_of(path)}
    try:
        if release and not _under_our_names(variant, state):
            network, recipe = from_release(variant, state, where=str(path))
            names = ("at", "url", "licence", "trained_on", "selected_on", "why", "differs")
            about |= {name: getattr(release, name) for name in names} | {"published_file": release.file}
            about["conversion"] = _conversion(variant, state)
            return Weights(
                NetworkClassifier(network, recipe, resolve_device(device)), RELEASED, about, release.test_sets
            )
        recipe = variant.recipe("official", "full")
        network = variant.build(recipe)
        pretrained.fill_(network, state, where=str(path))
    except FerReproError as error:
        other = _belongs_to(variant, state)
        raise FerReproError(f"{error}{f'; its names and shapes are those of {other}' if other else ''}") from error
    about |= dict.fromkeys(("at", "licence", "trained_on", "selected_on"), UNKNOWN)
    about |= {"url": None, "why": "", "differs": "", "published_file": "", "conversion": "none: the names are ours"}
    return Weights(NetworkClassifier(network, recipe, resolve_device(device)), OUR_NAMES, about)


def _export(variant: Variant, folder: Path, device: str) -> Weights:
    classifier = load(folder, device=device)
    recipe = classifier.recipe
    if recipe.variant != variant.id:
        raise FerReproError(f"{folder} is an export of {recipe.variant}, not of {variant.id}: score it as that")
    protocol = recipe.protocol
    seen = {*protocol.train, *(protocol.finetune or ())}
    about = {
        "file": WEIGHTS,
        "sha256": sha256_of(folder / WEIGHTS),
        "at": f"exported by this project, {protocol.name} protocol",
        "url": None,
        "licence": "MIT",
        "published_file": WEIGHTS,
        "conversion": "none: the names are ours",
        "trained_on": " + ".join(protocol.train),
        "selected_on": recipe.selection.name(protocol),
        "why": "".join(f"the training has seen {half}" for half in TEST_SETS if half in seen),
        "differs": "",
    }
    return Weights(classifier, EXPORT, about, tuple(half for half in TEST_SETS if half not in seen))


def _needed(network: nn.Module) -> set[str]:
    return {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}


def _under_our_names(variant: Variant, state: Mapping[str, Tensor]) -> bool:
    """Whether no more of our names are missing as they are than after the conversion of the release.

    Where the authors have the same names (a plain ResNet), it is the release.
    """
    if not variant.released.rename:
        return False
    needed = _needed(cost.weightless(variant.build, variant.recipe("official", "full")))
    missing = len(needed - state.keys())
    try:
        return missing <= len(needed - variant.released.convert(state).keys())
    except FerReproError:
        return missing < len(needed) / 2


def _conversion(variant: Variant, state: Mapping[str, Tensor]) -> str:
    """What was done to the release's tensors, in words."""
    release, ours = variant.released, variant.released.convert(state)
    words = [f"by fer_repro.papers, {variant.slug}: {len(ours)} tensors from {len(state)} of the file"]
    words.append(f"{len(ours.keys() - state.keys())} under other names")
    if release.head:
        words.append(f"the rows of {release.head} from the order {', '.join(release.classes)}")
    return "; ".join(words)


def _belongs_to(asked: Variant, state: Mapping[str, Tensor]) -> str:
    """The other variant whose release or whose own network has these names and shapes; empty where none has, and
    where it is the ``asked`` one (whose numbers are then damaged)."""
    shapes = {name: part.to("meta") for name, part in state.items()}
    for other in (asked, *papers.variants().values()):
        if other.build is None or other.id.endswith(papers.SCRATCH):
            continue
        network = cost.weightless(other.build, other.recipe("claimed", "full"))
        for convert in (dict, *([other.released.convert] if other.released else [])):
            try:
                pretrained.fill_(network, convert(shapes))
            except FerReproError:
                continue
            return "" if other is asked else other.id
    return ""


@shown()
def score(
    variant_id: str,
    checkpoint: str | Path,
    *,
    root: str | Path | None = None,
    data: str = "fer2013",
    device: str = "auto",
    store: bool = False,
    name: str = "",
    results_dir: str | Path | None = None,
) -> tuple[Weights, Result, Path | None]:
    """Score a checkpoint on the test sets that it may be scored on, plain and with the recipe's test-time augmentation.

    ``root``: where FER2013 is; ``data``: "synthetic" tries the code on synthetic faces. ``store``: write the result,
    under ``name`` (the file's by default); only a release on FER2013 is stored. Returns the weights, the result and
    the folder it is stored in. Raises `FerReproError`.
    """
    began, started = time.monotonic(), datetime.now(UTC)
    where = Path(results_dir) if results_dir else default_results_dir()
    weights = read(variant_id, checkpoint, device)
    name = name or re.sub(r"[^\w.-]+", "-", Path(checkpoint).stem, flags=re.ASCII).strip("-._") or "weights"
    if store:
        _require_storable(variant_id, weights, data, name, where)
    faces = data_sets.load(data, root if data != "synthetic" else None)
    classifier, recipe = weights.classifier, weights.classifier.recipe
    kinds = ("plain", *(["views"] if recipe.views != recipe.plain else []))
    parts = {half: faces.subset(np.flatnonzero(faces.usage == half)) for half in weights.test_sets}
    inputs = progress.inputs_of(recipe, sum(map(len, parts.values())))
    predictions: dict[str, np.ndarray] = {}
    with progress.scoring(classifier.model, inputs):
        for half, part in parts.items():
            predictions[f"{half}_ids"], predictions[f"{half}_labels"] = np.asarray(part.ids), np.asarray(part.labels)
            for kind in kinds:
                rows = classifier.predict_proba(part.images, with_views=kind == "views")
                predictions[f"{half}_{kind}"] = rows.astype(np.float16)  # as stored, so that scores follow from it
    if wrong := results.check_predictions(predictions, weights.test_sets):
        raise FerReproError(
            f"{checkpoint} gives no probabilities ({wrong[0]}): its numbers are damaged; fetch it again"
        )
    record = {
        "schema": SCHEMA,
        "kind": RELEASED,
        "variant": variant_id,
        "protocol": RELEASED,
        "profile": "full",
        "seed": None,
        "status": "done",
        "selected_epoch": None,
        "parameters": cost.count_parameters(classifier.model),
        "multiply_adds": cost.count_multiply_adds(classifier.model, cost.input_shape(recipe)),
        "recipe": recipe.as_dict(),
        "recipe_sha256": recipe.sha256(),
        "code_version": code_version(),
        "data": {"name": faces.name, "source": faces.source, "digest": faces.digest},
        "usages": {"test": list(weights.test_sets)},
        "selection": weights.about["selected_on"],
        "released": {"name": name} | weights.about,
        "scores": results.score_all(predictions, halves=weights.test_sets),
        "cost": {"seconds": time.monotonic() - began, "images_per_second": None, "device": str(classifier.device)},
        "environment": cost.environment(),
        "started": started.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "facts": {},
    }
    result = Result(record, predictions, pd.DataFrame(), classifier=classifier)
    return weights, result, results.write(result, where) if store else None


def _require_storable(variant: str, weights: Weights, data: str, name: str, where: Path) -> None:
    """Say before the scoring, not after it, that nothing can be stored."""
    if weights.origin != RELEASED or data == "synthetic":
        why = "synthetic faces are no result" if data == "synthetic" else "its origin is not known"
        if weights.origin == EXPORT:
            why = "`fer-repro run` stores the results of this project's own weights"
        raise FerReproError(f"only a paper's released weights, scored on FER2013, are stored: {why}; leave out --store")
    rule = schema.PUBLISHED["name"]
    if not rule.holds(name):
        raise FerReproError(f"the name '{name}' is none that a result can have, expected {rule.words}: give --name")
    folder = where / variant / RELEASED / name
    if (folder / "result.json").exists():
        raise FerReproError(f"{folder} already holds a result: choose another --name, or move it away")
    results.require_writable(where)


def claim_of(variant_id: str) -> Claim | None:
    """The claim that weights of a variant stand beside; an ablation has that of the model it belongs to."""
    return leaderboard_claims().get(papers.get(variant_id).ablation_of or variant_id)
