"""What can be recomputed of a stored result, and what its parts must agree on; one sentence for each disagreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from fer_repro.data import FER2013, LABELS, USAGES
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.data.protocol import Protocol
from fer_repro.data.sample import SAMPLE, training_sample
from fer_repro.evaluation import metrics
from fer_repro.recipe import Selection, digest
from fer_repro.results.agreement import difference, measures_what_it_keeps, wrong_history, wrong_ladder, wrong_shares
from fer_repro.results.schema import (
    EVIDENCE,
    FULL,
    HALVES,
    MODIFIED,
    PACKAGE,
    RELEASED,
    UNFINISHED,
    kind_of,
    place_of,
    scored_halves,
)

OTHER_SCORES = "the scores in result.json are not those of predictions.npz"
Arrays = Mapping[str, np.ndarray]
EQUAL_BUT_FOR = 3  # images of a test set: the same weights, scored again, round otherwise in a tie of two classes


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
    """Whether a record lies in the folder that its kind, variant, protocol and seed (or name) say."""
    named = place_of(record)
    if folder.absolute().parts[-len(named) :] != named:
        return [f"the folder's name does not say what result.json does ({' / '.join(named)})"]
    return []


def _is_run(record: Mapping[str, Any]) -> bool:
    """Whether it was trained here, under a protocol that says what is scored."""
    return kind_of(record) in (FULL, UNFINISHED, MODIFIED)


def disagreements(record: Mapping[str, Any], predictions: Arrays | None) -> list[str]:
    """Whether a record has scores of just what its test sets and its predictions ask for; None: these were not read."""
    scores, halves = record["scores"], scored_halves(record)
    if predictions is None:
        kinds = set(scores.get(halves[0], ()))
    else:
        kinds = {kind for kind in ("plain", "views") if f"{halves[0]}_{kind}" in predictions}
    expected = {*halves, *(["+".join(record["usages"]["test"])] if _is_run(record) else [])}
    if scores.keys() != expected or any(scores[name].keys() != kinds for name in expected):
        return [OTHER_SCORES]
    return []


def epoch_faults(epochs: Arrays, predictions: Arrays) -> list[str]:
    """What is wrong with the form of the predictions of every epoch (`Result.epochs`); nothing where there are none."""
    if not epochs:
        return []
    expected = {"epoch", *HALVES}
    if epochs.keys() != expected:
        return [f"epochs.npz holds {', '.join(sorted(epochs))}, expected {', '.join(sorted(expected))}"]
    numbers = epochs["epoch"]
    whole = numbers.dtype.kind in "iu" and numbers.ndim == 1 and len(numbers) > 0
    if not whole or (np.diff(numbers, prepend=0) < 1).any():
        return ["epochs.npz: epoch is not a list of rising numbers from 1"]
    for half in HALVES:
        rows, shape = epochs[half], (len(numbers), len(predictions.get(f"{half}_labels", ())))
        if rows.dtype != np.uint8 or rows.shape != shape or (rows.size and rows.max() >= len(LABELS)):
            return [
                f"epochs.npz: {half} is {rows.dtype} {list(rows.shape)}, expected uint8 {list(shape)} with classes 0 "
                f"to {len(LABELS) - 1}"
            ]
    return []


def problems(
    record: Mapping[str, Any], predictions: Arrays, history: pd.DataFrame, epochs: Arrays = MappingProxyType({})
) -> list[str]:
    """What in a record does not follow from its recipe, predictions and history, or does not belong in results/."""
    found, kind = [], kind_of(record)
    right = record["status"] in EVIDENCE[kind].status
    if not right or record["profile"] != "full" or record["data"]["name"] != EVIDENCE[kind].data:
        only = "stopped" if kind == UNFINISHED else "finished"
        found.append(
            f"status '{record['status']}', profile '{record['profile']}', data '{record['data']['name']}': only "
            f"{only} full runs on {EVIDENCE[kind].data} belong there"
        )
    if kind != PACKAGE and digest(record["recipe"]) != record["recipe_sha256"]:
        found.append("recipe_sha256 is not the digest of the recipe beside it")
    found += [
        f"{name} in result.json is not what its recipe says ({said})"
        for name, said in _said_by_recipe(record).items()
        if record[name] != said
    ]
    if kind == UNFINISHED:
        found += _wrong_epochs(record, history)
    if kind == MODIFIED and np.array_equal(counts_of(record), OFFICIAL_COUNTS):
        found.append("its counts are the official ones: what was run on such a copy is a full run")
    found += wrong_shares(record["facts"], "facts")
    halves, test = scored_halves(record), record["usages"]["test"] if _is_run(record) else ()
    wrong = check_predictions(predictions, halves) or _wrong_counts(record, predictions, halves)
    if not wrong:
        first = difference(record["scores"], score_all(predictions, test, halves), "scores")
        wrong = [f"{OTHER_SCORES}: {first}"] if first else []
    if not wrong:
        found += _other_numbers(record, history)
    if epochs and not wrong:
        found += _other_epochs(record, predictions, history, epochs)
    return found + wrong


def _other_numbers(record: Mapping[str, Any], history: pd.DataFrame) -> list[str]:
    """Whether history and ladder of a run say the same as its scores."""
    return wrong_history(record, history) + wrong_ladder(record) if _is_run(record) else []


def _other_epochs(record: Mapping[str, Any], predictions: Arrays, history: pd.DataFrame, epochs: Arrays) -> list[str]:
    """Whether the predictions of every epoch are of this run: the selected epoch's are its predictions, and where one
    test set selected, its accuracy is that of the history."""
    numbers, found, recipe = epochs["epoch"], [], record["recipe"]
    # Random crops without a seed are other ones each time that an image is scored.
    repeatable = recipe["plain"]["kind"] != "random" or recipe["plain"].get("seed") is not None
    if numbers[-1] > len(history):
        found.append(f"epochs.npz has an epoch {numbers[-1]}, history.csv has {len(history)}")
    for at in np.flatnonzero(repeatable & (numbers == record["selected_epoch"])):
        for half in HALVES:
            rows = predictions[f"{half}_plain"]
            chosen = rows[np.arange(len(rows)), epochs[half][at]]
            # Stored in float16, in which two classes may have become equal.
            if (other := int((chosen < rows.max(axis=1)).sum())) > EQUAL_BUT_FOR:
                found.append(
                    f"epochs.npz: {half} of the selected epoch differs from predictions.npz for {other} images"
                )
    selecting = record["usages"]["select"]
    same = measures_what_it_keeps(recipe)
    plain = not recipe["selection"]["views"] or recipe["views"] == recipe["plain"]
    comparable = repeatable and same and plain and "select_accuracy" in history
    if found or not comparable or len(selecting) != 1 or selecting[0] not in HALVES:
        return found
    hits = (epochs[selecting[0]] == predictions[f"{selecting[0]}_labels"]).sum(axis=1)
    said = history["select_accuracy"].to_numpy(float)[numbers - 1] * len(predictions[f"{selecting[0]}_labels"])
    for number in numbers[np.abs(hits - said) > EQUAL_BUT_FOR]:
        found.append(f"epochs.npz: epoch {number} has another accuracy on {selecting[0]} than history.csv")
    return found[:1]


def _wrong_epochs(record: Mapping[str, Any], history: pd.DataFrame) -> list[str]:
    """Whether an unfinished run has as many epochs as its history, out of as many as its recipe."""
    said = record["unfinished"]
    true = {"epochs_done": len(history), "epochs": sum(stage["epochs"] for stage in record["recipe"]["stages"])}
    return [f"unfinished in result.json is {said}, its history and recipe say {true}"] if said != true else []


def _said_by_recipe(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a record that repeat what is in its recipe; by it released weights are only scored."""
    if kind_of(record) == PACKAGE:
        return {}
    recipe = record["recipe"]
    if kind_of(record) == RELEASED:
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
    """Ids and labels of stored predictions against the data set they name: one sentence per set that differs.

    Predictions of Training are those of its fixed sample.
    """
    found = []
    for half in (half for half in USAGES if f"{half}_ids" in predictions):
        part = faces.subset(np.flatnonzero(faces.usage == half))
        part = training_sample(part) if half == USAGES[0] else part
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


def counts_of(record: Mapping[str, Any]) -> np.ndarray:
    """Images per usage and class of the data of a record, int [3,7]: those of FER2013, or of a modified copy those that
    the record states."""
    if kind_of(record) != MODIFIED:
        return OFFICIAL_COUNTS
    stated = record["modified"]["counts"]
    return np.array([[stated[usage][label] for label in LABELS] for usage in USAGES])


def _wrong_counts(record: Mapping[str, Any], predictions: Arrays, halves: Sequence[str]) -> list[str]:
    """The test sets of FER2013 have known numbers of images per class; labels that were moved or edited change them.

    Of the sample of Training only its size is known without the data set.
    """
    whose = "its modified copy" if kind_of(record) == MODIFIED else "FER2013"
    counts = {half: np.bincount(predictions[f"{half}_labels"], minlength=len(LABELS)).tolist() for half in halves}
    expected = {half: counts_of(record)[USAGES.index(half)].tolist() for half in halves if half in HALVES}
    wrong = [
        f"{half}: images per class are {counts[half]}, {whose} has {expected[half]}"
        for half in expected
        if counts[half] != expected[half]
    ]
    if USAGES[0] in counts and (size := sum(counts[USAGES[0]])) != SAMPLE:
        wrong.append(f"{USAGES[0]}: {size:,} predictions, the sample has {SAMPLE:,}")
    return wrong


def check_predictions(predictions: Arrays, halves: Sequence[str] = HALVES) -> list[str]:
    """What is wrong with stored predictions: shapes, labels, probabilities, doubled ids."""
    found = []
    for half in halves:
        lacking = [n for n in (f"{half}_ids", f"{half}_labels", f"{half}_plain") if n not in predictions]
        if lacking:
            found.append(f"predictions.npz lacks {', '.join(lacking)}")
            continue
        ids, labels = predictions[f"{half}_ids"], predictions[f"{half}_labels"]
        different = len(set(ids.tolist()))  # np.unique takes five times as long for text
        if different != len(ids) or len(ids) != len(labels):
            found.append(f"{half}: {len(ids)} ids ({different} different) for {len(labels)} labels")
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
        columns = rows.T.astype(np.float64, order="C")
        near = np.abs(columns.sum(axis=0) - 1) <= 5e-3
    return bool(np.isfinite(columns).all() and (columns >= 0).all() and near.all())
