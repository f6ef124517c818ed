"""Every stored result with predictions of PrivateTest, on the same images, named for what it is."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fer_repro import papers, results
from fer_repro.claims import leaderboard_claims
from fer_repro.comparisons.entries import SCORED, SELECTING, Comparison, Entry, in_order
from fer_repro.data import USAGES
from fer_repro.leaderboard.stored import folder
from fer_repro.packages import leakage
from fer_repro.papers import model_name
from fer_repro.results import FULL, HALVES, PACKAGE, RELEASED, UNFINISHED, Result

OTHER_IMAGES = "scored on other images than most results, or on another copy of the data"
UNDECIDED = "may have been trained on test images"
HELD_OUT = "held out by the rule on leakage; selection unknown"
NOT_RULED_OUT = "it may have been trained or selected on test images"
TRAINING_ALONE = re.compile(r"Training( without (\d,\d|[\w' ])+)?")
"""What released weights may have been trained on to decide anything: Training, or a part of it, and nothing else."""
NOT_EXCLUDED = (SCORED, "test images", "unknown", "not established")
"""Words about released weights that leave it open whether the scored images helped to make them."""


def gather(results_dir: str | Path | None = None) -> Comparison:
    """Everything below a folder of results (the project's own by default) that was scored on FER2013's PrivateTest.

    The images are those that most results have in common. Raises `FerReproError` for a folder that does not exist and
    for results that cannot be read.
    """
    where = folder(results_dir)
    return compared([one for kind in (FULL, RELEASED, PACKAGE, UNFINISHED) for one in results.read_all(where, kind)])


def compared(runs: Iterable[Result]) -> Comparison:
    """`gather` of results that were read already."""
    left_out: dict[str, str] = {}
    usable = []
    for run in runs:
        reason = _unusable(run)
        if reason:
            left_out[_title(run)] = reason
        else:
            usable.append(run)
    if not usable:
        return Comparison(np.empty(0, dtype=str), np.empty(0, dtype=np.int64), (), left_out)
    images = [_images(run) for run in usable]
    common = Counter(images).most_common(1)[0][0]
    left_out |= {_title(run): OTHER_IMAGES for run, own in zip(usable, images, strict=True) if own != common}
    shared = [run for run, own in zip(usable, images, strict=True) if own == common]
    ids, labels = np.array(common[0]), np.frombuffer(common[1], np.int64)
    entries = [_entry(group, labels) for group in _groups(shared)]
    return Comparison(ids, labels, in_order(_with_own_names(entries)), left_out, tuple(shared))


def _unusable(run: Result) -> str:
    """Why a result cannot be compared image by image; empty where it can."""
    if run.synthetic or run.profile != "full":
        return "not a full run on FER2013"
    if run.kind == FULL and not run.storable:
        return f"status {run.status}"
    return "" if SCORED in run.halves else f"no predictions of {SCORED}"


def _order(run: Result, usage: str = SCORED) -> np.ndarray:
    return np.argsort(run.predictions[f"{usage}_ids"])


def _images(run: Result) -> tuple[tuple[str, ...], bytes]:
    """The ids in ascending order and their labels, as something that can be counted."""
    order = _order(run)
    ids, labels = run.predictions[f"{SCORED}_ids"][order], run.predictions[f"{SCORED}_labels"][order]
    return tuple(ids.tolist()), labels.astype(np.int64).tobytes()


def _groups(runs: Sequence[Result]) -> list[tuple[Result, ...]]:
    """Full runs of one recipe stand together, by seed; everything else alone."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for run in runs:
        together = (
            (run.record.get("recipe_sha256", ""), run.record["data"]["digest"]) if run.kind == FULL else (run.name,)
        )
        groups.setdefault((run.kind, run.variant, run.protocol, *together, _package(run)), []).append(run)
    return [tuple(sorted(group, key=lambda run: run.record["seed"] or 0)) for group in groups.values()]


def _package(run: Result) -> str:
    return f"{run.record['package']['name']} {run.record['package']['version']}" if run.kind == PACKAGE else ""


def _entry(runs: tuple[Result, ...], labels: np.ndarray) -> Entry:
    first = runs[0]
    remark, why_not = standing(first)
    may_select = all(SELECTING in run.halves and not _selecting_seen(run) for run in runs)
    view = f"{SCORED}_{'views' if first.has_views else 'plain'}"
    rows = np.stack([run.predictions[view][_order(run)].astype(np.float32) for run in runs])
    return Entry(
        name=_title(first, with_seed=False),
        kind=first.kind,
        variant=first.variant,
        protocol=first.protocol,
        runs=runs,
        probabilities=rows,
        labels=labels,
        remark=remark,
        why_not=why_not,
        year=_year(first),
        may_select=may_select,
    )


def _title(run: Result, with_seed: bool = True, more: Sequence[str] = ()) -> str:
    """What a result is called: the model, and in brackets what kind of result it is where it is no official full run,
    with whatever ``more`` says of it."""
    if run.kind == PACKAGE:
        return f"package {run.record['package']['name']}"
    kinds = ["released weights"] if run.kind == RELEASED else ["as claimed"] * (run.protocol == "claimed")
    kinds += [run.progress] * run.unfinished
    kinds = [*kinds, *more]
    name = f"{model_name(run.variant)} ({', '.join(kinds)})" if kinds else model_name(run.variant)
    return f"{name}, seed {run.seed}" if with_seed and run.kind != RELEASED else name


def standing(run: Result) -> tuple[str, str]:
    """The remark on a result's numbers, and why it decides nothing (empty where it does)."""
    if run.unfinished:
        return "", "an unfinished run decides nothing"
    if run.kind == PACKAGE:
        return _of_package(run)
    if run.kind == RELEASED:
        said = run.record["released"]
        remark = f"trained on {said['trained_on']}, selected on {said['selected_on']}"
        return remark, "" if _made_without_the_scored(said) else NOT_RULED_OUT
    if run.protocol == "official":
        return "", ""
    usages = run.record["usages"]
    trained = "+".join(dict.fromkeys((*usages["train"], *usages["finetune"])))
    remark = f"trained on {trained}, selected on {'+'.join(usages['select']) or 'nothing'}"
    return remark, "it was made under the claimed protocol"


def _made_without_the_scored(said: Mapping[str, str]) -> bool:
    """Whether what is known of released weights says that they were trained on Training alone, and leaves no doubt that
    PrivateTest had no part in it. Anything that is not known to be harmless is not."""
    doubts = any(
        words.lower() in said[name].lower() for name in ("trained_on", "selected_on") for words in NOT_EXCLUDED
    )
    return _trained_on_training_alone(said["trained_on"]) and not doubts


def _trained_on_training_alone(words: str) -> bool:
    return bool(TRAINING_ALONE.fullmatch(words)) and not re.search(rf"\band\b|\bplus\b|{'|'.join(HALVES)}", words)


def _selecting_seen(run: Result) -> bool:
    """Whether a result's model was, or may have been, trained on PublicTest."""
    if run.kind == PACKAGE:
        return _judged(run)[SELECTING].verdict != leakage.HELD_OUT
    if run.kind == RELEASED:
        return not _trained_on_training_alone(run.record["released"]["trained_on"])
    usages = run.record["usages"]
    return SELECTING in (*usages["train"], *usages["finetune"])


def _judged(run: Result) -> dict[str, leakage.Judgement]:
    return {usage: leakage.judge(run.score(USAGES[0]), run.score(usage), usage) for usage in HALVES}


def _of_package(run: Result) -> tuple[str, str]:
    """What the rule of `packages.leakage` says about the images a package was trained on: it decides only if neither
    test set was among them."""
    found = _judged(run)
    if all(one.verdict == leakage.HELD_OUT for one in found.values()):
        return HELD_OUT, ""
    if found[SCORED].verdict == leakage.SEEN:
        return leakage.summary(found), "it was trained on test images, so its accuracy is no generalisation"
    if found[SELECTING].verdict == leakage.SEEN:
        return leakage.summary(found), NOT_RULED_OUT
    return UNDECIDED, f"it {UNDECIDED}, so its accuracy may be no generalisation"


def _year(run: Result) -> int | None:
    """Of a package's release, or of the paper that a variant belongs to."""
    if run.kind == PACKAGE:
        return int(run.record["package"]["released"][:4])
    listed = papers.variants().get(run.variant)
    claims = leaderboard_claims()
    claim = claims.get(run.variant) or (claims.get(listed.ablation_of or "") if listed else None)
    return int(claim.date[:4]) if claim else None


def _with_own_names(entries: Sequence[Entry]) -> list[Entry]:
    """The same entries; where two have one name, each gets what distinguishes them."""
    often = Counter(entry.name for entry in entries)
    named = [dataclasses.replace(one, name=_longer(one)) if often[one.name] > 1 else one for one in entries]
    again = Counter(entry.name for entry in named)
    places = {name: [one for one in named if one.name == name] for name, n in again.items() if n > 1}
    return [
        dataclasses.replace(one, name=f"{one.name} ({1 + places[one.name].index(one)})") if one.name in places else one
        for one in named
    ]


def _longer(entry: Entry) -> str:
    if entry.kind == PACKAGE:
        return f"{entry.name} {entry.record['package']['version']}"
    if entry.kind == RELEASED:
        return _title(entry.runs[0], False, [entry.record["released"]["name"]])
    seed = [f"seed {entry.runs[0].seed}"] if entry.kind == UNFINISHED else []
    return _title(entry.runs[0], False, [*seed, f"recipe {entry.record['recipe_sha256'][:8]}"])
