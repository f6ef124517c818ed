"""What can be recomputed of a stored result, and what its parts must agree on; one sentence for each disagreement."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_repro.data import FER2013, LABELS, USAGES
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.data.protocol import Protocol
from fer_repro.evaluation import metrics
from fer_repro.recipe import Selection, digest
from fer_repro.results.schema import FINISHED, HALVES, is_released, place_of, scored_halves

OTHER_SCORES = "the scores in result.json are not those of predictions.npz"
Arrays = Mapping[str, np.ndarray]


def score_all(
    predictions: Arrays, test: Sequence[str] = (), halves: Sequence[str] = HALVES
) -> dict[str, dict[str, Any]]:
    """``scores`` of a record from stored predictions of the test sets ``halves``: test set -> plain/views -> metrics.

    ``test``: the test sets that the protocol scores; where these are two, their images as one set are scored as well.
    """
    scores: dict[str, dict[str, Any]] = {}
    for group in [*((half,) for half in halves), *([tuple(test)] if len(test) > 1 else [])]:
        labels = np.concatenate([predictions[f"{half}_labels"].astype(np.int64) for half in group])
        kinds = [kind for kind in ("plain", "views") if f"{group[0]}_{kind}" in predictions]
        rows = {kind: np.concatenate([predictions[f"{half}_{kind}"] for half in group]) for kind in kinds}
        scores["+".join(group)] = {kind: metrics.evaluate(rows[kind].astype(np.float32), labels) for kind in kinds}
    return scores


def place_problems(record: Mapping[str, Any], folder: Path) -> list[str]:
    """Whether a record lies in the folder of its variant, protocol and seed, or of its variant and its name."""
    named = place_of(record)
    if folder.absolute().parts[-3:] != named:
        return [f"the folder's name does not say what result.json does ({' / '.join(named)})"]
    return []


def disagreements(record: Mapping[str, Any], predictions: Arrays) -> list[str]:
    """Whether a record has scores of just what its test sets and its predictions ask for."""
    scores, halves = record["scores"], scored_halves(record)
    kinds = {kind for kind in ("plain", "views") if f"{halves[0]}_{kind}" in predictions}
    expected = {*halves} if is_released(record) else {*halves, "+".join(record["usages"]["test"])}
    if scores.keys() != expected or any(scores[name].keys() != kinds for name in expected):
        return [OTHER_SCORES]
    return []


def problems(record: Mapping[str, Any], predictions: Arrays) -> list[str]:
    """What in a record does not follow from its recipe and its predictions, or does not belong in results/."""
    found = []
    whole = record["status"] in FINISHED and record["profile"] == "full" and record["data"]["name"] == "fer2013"
    if not whole:
        found.append(
            f"status '{record['status']}', profile '{record['profile']}', data '{record['data']['name']}': only "
            "finished full runs on fer2013 belong in results/"
        )
    if digest(record["recipe"]) != record["recipe_sha256"]:
        found.append("recipe_sha256 is not the digest of the recipe beside it")
    found += [
        f"{name} in result.json is not what its recipe says ({said})"
        for name, said in _said_by_recipe(record).items()
        if record[name] != said
    ]
    halves, test = scored_halves(record), () if is_released(record) else record["usages"]["test"]
    wrong = check_predictions(predictions, halves) or _wrong_counts(predictions, halves)
    if not wrong and json.loads(json.dumps(score_all(predictions, test, halves))) != record["scores"]:
        wrong = [OTHER_SCORES]
    return found + wrong


def _said_by_recipe(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a record that repeat what is in its recipe; by it released weights are only scored."""
    recipe = record["recipe"]
    if is_released(record):
        return {"variant": recipe["variant"], "selection": record["released"]["selected_on"]}
    own: dict[str, Any] = recipe["protocol"]
    roles = {role: own[role] and tuple(own[role]) for role in ("train", "select", "test", "finetune")}
    protocol = Protocol(own["name"], **roles)
    usages = {role: list(own[role]) for role in ("train", "select", "test")}
    return {
        "variant": recipe["variant"],
        "protocol": protocol.name,
        "usages": usages | {"finetune": list(own["finetune"] or own["train"])},
        "selection": Selection(**recipe["selection"]).name(protocol),
    }


def compare_labels(predictions: Arrays, faces: FER2013) -> list[str]:
    """Ids and labels of stored predictions against the data set they name: one sentence per test set that differs."""
    found = []
    for half in (half for half in HALVES if f"{half}_ids" in predictions):
        part = faces.subset(np.flatnonzero(faces.usage == half))
        known = dict(zip(part.ids.tolist(), part.labels.tolist(), strict=True))
        stored = dict(zip(predictions[f"{half}_ids"].tolist(), predictions[f"{half}_labels"].tolist(), strict=True))
        wrong = [name for name in known.keys() | stored.keys() if known.get(name) != stored.get(name)]
        if wrong:
            first = min(wrong, key=str)
            found.append(
                f"{half}: {len(wrong)} predictions do not match the data set, first '{first}' with label "
                f"{stored.get(first, 'missing')} instead of {known.get(first, 'no such image')}: run the variant again"
            )
    return found


def _wrong_counts(predictions: Arrays, halves: Sequence[str]) -> list[str]:
    """The test sets of FER2013 have known numbers of images per class; labels that were moved or edited change them."""
    counts = {half: np.bincount(predictions[f"{half}_labels"], minlength=len(LABELS)).tolist() for half in halves}
    official = {half: OFFICIAL_COUNTS[USAGES.index(half)].tolist() for half in halves}
    return [
        f"{half}: images per class are {counts[half]}, FER2013 has {official[half]}"
        for half in halves
        if counts[half] != official[half]
    ]


def check_predictions(predictions: Arrays, halves: Sequence[str] = HALVES) -> list[str]:
    """What is wrong with stored predictions: shapes, labels, probabilities, doubled ids."""
    found = []
    for half in halves:
        lacking = [n for n in (f"{half}_ids", f"{half}_labels", f"{half}_plain") if n not in predictions]
        if lacking:
            found.append(f"predictions.npz lacks {', '.join(lacking)}")
            continue
        ids, labels = predictions[f"{half}_ids"], predictions[f"{half}_labels"]
        if len(np.unique(ids)) != len(ids) or len(ids) != len(labels):
            found.append(f"{half}: {len(ids)} ids ({len(np.unique(ids))} different) for {len(labels)} labels")
        if labels.size and (labels.min() < 0 or labels.max() > 6):
            found.append(f"{half}: labels outside 0..6")
        for kind in (kind for kind in ("plain", "views") if f"{half}_{kind}" in predictions):
            rows = predictions[f"{half}_{kind}"]
            if rows.shape != (len(labels), 7):
                found.append(f"{half}_{kind} has shape {rows.shape}, expected ({len(labels)}, 7)")
            elif not _are_probabilities(rows):
                found.append(f"{half}_{kind}: rows are not probabilities that sum to 1")
    return found


def _are_probabilities(rows: np.ndarray) -> bool:
    with np.errstate(all="ignore"):  # infinities and the like are what is looked for
        near = np.abs(rows.astype(np.float64).sum(axis=1) - 1) <= 5e-3
    return bool(np.isfinite(rows).all() and (rows >= 0).all() and near.all())
