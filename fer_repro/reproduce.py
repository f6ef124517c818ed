"""From a variant's name to a result that can be stored and checked: the one function that everybody calls."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from fer_repro import data as data_sets
from fer_repro import papers, pretrained, results
from fer_repro.data.synthetic import SMOKE_SIZE
from fer_repro.errors import FerReproError
from fer_repro.evaluation import cost, progress
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.logs import shown
from fer_repro.parameters import FLAGS, RunOptions
from fer_repro.project import code_version
from fer_repro.recipe import Recipe
from fer_repro.results import HALVES, Result
from fer_repro.training import epoch_weights
from fer_repro.training.execution import ExecutionOptions, enough_memory, one_thread, resolve_device
from fer_repro.training.interleave import Turn
from fer_repro.training.run import OUT_OF_TIME, Classifier, Interrupted, Run

log = logging.getLogger(__name__)


@shown()
def reproduce(
    variant: str,
    protocol: str = "official",
    profile: str = "smoke",
    seed: int = 0,
    data: str = "",
    device: str = "auto",
    epochs: int | None = None,
    results_dir: str | Path | None = None,
    resume: bool = True,
    root: str | Path | None = None,
    runs_dir: str | Path | None = None,
    time_budget: float | None = None,
    turn: Turn | None = None,
    keep_unfinished: bool = False,
    score_epochs: bool = False,
    accept_modified: bool = False,
) -> Result:
    """Fit ``variant`` under ``protocol``, score both test sets, and store what may be stored.

    ``profile``: ``smoke`` (seconds, synthetic faces, never stored), ``full`` (the recipe on FER2013; a stored result of
    the same recipe is returned, not repeated) or ``stored`` (the stored result; where there is none, that of the
    unfinished run; where there is none either, a smoke run; ``note`` says so). ``epochs`` replaces the recipe's; such a
    run is never stored. ``root``: where FER2013 is (folder, CSV or archive). ``runs_dir``: checkpoints, ``runs/`` by
    default (a smoke run uses a temporary folder). ``time_budget``: seconds after which the run stops at a checkpoint.
    ``turn``: its place among the runs of this process, see `fer_repro.training.interleave`. ``keep_unfinished``: where
    a full run is stopped after at least one epoch, its best weights so far are scored and stored as an unfinished
    result, which the full one will replace. ``score_epochs``: the weights of every epoch are kept in the run's folder
    and, when training has ended, score both test sets (`Result.epochs`). ``accept_modified``: a copy of FER2013 that
    was cleaned on purpose is no error; its run is stored apart and is no result of the model (`results.MODIFIED`).
    Raises `FerReproError` for bad input and `Interrupted` at the end of the budget.
    """
    given = (protocol, profile, data, device, epochs, results_dir, runs_dir, root, resume)
    options = RunOptions(*given, keep_unfinished, score_epochs, accept_modified)
    checked = options.check(variant, seed)
    seed, options = checked.seed, dataclasses.replace(options, epochs=checked.epochs)
    where, note = options.results_path, ""
    modified = options.modified_copy()
    if modified is not None:
        log.info(f"{modified.source} is a modified copy of FER2013 ({modified.difference}): no result of {variant}")
    if profile in ("stored", "full") and epochs is None and data != "synthetic":
        stored = results.find(variant, protocol, seed, where, *results.stored_as(modified))
        if stored is not None:
            _require_same_recipe(stored, papers.get(variant).recipe(protocol, "full"), where)
            log.info(f"{variant} / {protocol} / seed {seed}: stored result of {stored.record['ended'][:10]}")
            if profile == "full" and modified is None:  # a run that was killed just after it was stored
                results.remove_unfinished(where, variant, protocol, seed)
                epoch_weights.discard(run_folder(options.runs_path, variant, protocol, profile, seed))
            if score_epochs and not stored.epochs:
                folder = results.folder_of(where, variant, protocol, seed)
                log.warning(
                    f"the stored result has no epochs.npz: move {folder} away and run again with --score-epochs "
                    "--no-resume"
                )
            return stored
    unfinished = None
    if profile == "stored" or keep_unfinished:
        unfinished = results.find(variant, protocol, seed, where, results.UNFINISHED)
        if unfinished is not None:
            _require_same_recipe(unfinished, papers.get(variant).recipe(protocol, "full"), where)
    if profile == "stored":
        if unfinished is not None and epochs is None and data != "synthetic":
            unfinished.note = (
                f"The run of {variant} under the {protocol} protocol with seed {seed} was stopped ("
                f"{unfinished.progress}). What follows shows its best weights so far; it decides nothing."
            )
            return unfinished
        note = (
            f"No full result of {variant} under the {protocol} protocol with seed {seed} is stored: not run. What "
            "follows is a smoke run on synthetic faces; it says nothing about the paper."
        )
        options = dataclasses.replace(options, profile="smoke")
    require_epochs(variant, protocol, keep_unfinished, score_epochs)
    require_weights(variant, protocol, options.profile)
    if options.profile == "full":
        results.require_writable(where)
    deadline = None if time_budget is None else time.monotonic() + time_budget
    result = _run(variant, seed, options, deadline, turn, unfinished)
    result.note = note
    if (result.storable or result.storable_apart) and epochs is None:
        folder = results.write(result, where)
        log.info(f"stored in {folder.relative_to(where)}/: {result.headline['accuracy']:.4f} on {result.scored}")
        if not result.modified:
            results.remove_unfinished(where, variant, protocol, seed)
            epoch_weights.discard(run_folder(options.runs_path, variant, protocol, profile, seed))
    return result


def _run(
    variant: str, seed: int, options: RunOptions, deadline: float | None, turn: Turn | None, before: Result | None
) -> Result:
    """Fit and score, whatever full result is stored; ``before``: the unfinished one, to which only a longer run is
    preferred."""
    device, smoke = resolve_device(options.device), options.profile == "smoke"
    name = options.data or usual_data(options.profile)
    if name == "synthetic":
        faces = data_sets.load("synthetic", size=SMOKE_SIZE)
    else:
        faces = data_sets.load(name, options.root, accept_modified=options.accept_modified)
    started, version = datetime.now(UTC), code_version()
    temporary = smoke and not options.runs_dir
    with (
        tempfile.TemporaryDirectory() if temporary else nullcontext(options.runs_path) as runs,
        one_thread() if smoke else nullcontext(),
        enough_memory(device, variant),
    ):

        def fit(variant_id: str) -> tuple[Run, Classifier]:
            """Fit a variant after what it requires; a finished run folder answers at once with its last state."""
            chosen = papers.get(variant_id)
            required = {needed: fit(needed)[1] for needed in chosen.requires}
            recipe = chosen.recipe(options.protocol, options.profile)
            if options.epochs is not None and recipe.stages:
                recipe = recipe.with_epochs(options.epochs)
            place = (variant_id, options.protocol, options.profile, seed, options.epochs, faces.folder_name)
            run = Run(recipe, seed, device, run_folder(Path(runs), *place), faces.digest, options.resume)
            run.turn, run.deadline, run.required = turn, deadline, required
            run.keep_unfinished = options.keep_unfinished and variant_id == variant
            run.keep_epochs = options.score_epochs and variant_id == variant
            # fp32 in a smoke run: it gives the same numbers on a processor with bf16 as on one without.
            run.execution = ExecutionOptions(autocast=not smoke)
            # What is to be kept may lie there from an earlier process: then no batch is trained, and it is scored.
            late = deadline is not None and time.monotonic() >= deadline
            if late and not options.keep_unfinished:
                raise Interrupted(f"{OUT_OF_TIME} before {variant_id} began")
            return run, chosen.fit(recipe.protocol.split(faces), run)

        try:
            run, classifier = fit(variant)
        except Interrupted as stopped:
            if temporary:
                raise Interrupted(
                    f"{stopped.why}: {variant} stopped; a smoke run keeps no checkpoint without a runs folder: start "
                    "it again, with enough time"
                ) from stopped
            if options.keep_unfinished:
                raise stopped.saying(f"no epoch of {variant} has ended, so there is nothing to keep") from stopped
            raise
        score = partial(_score, variant, options.profile, run, classifier, faces, started, version)
        if run.stops:
            _keep(run, score, options.results_path, before)
        return score()


def _keep(run: Run, score: Callable[[], Result], where: Path, before: Result | None) -> NoReturn:
    """Score what a stopped run has and store it as unfinished; raises the `Interrupted` that the run was stopped by."""
    [stopped], counts = run.stops, {"epochs_done": len(run.history), "epochs": run.recipe.epochs}
    if before is not None and counts["epochs_done"] <= before.record["unfinished"]["epochs_done"]:
        raise stopped.saying(f"the unfinished result that is stored has as many epochs ({before.progress}) and stays")
    log.info(
        f"{stopped.why}: scoring the best weights of {counts['epochs_done']} of {counts['epochs']} epochs; Ctrl-C ends "
        "that at once, and the checkpoint is safe"
    )
    result = score()
    result.record |= {"kind": results.UNFINISHED, "unfinished": counts}
    place = results.write(result, where).relative_to(where)
    accuracy = f"{100 * result.headline['accuracy']:.2f} % on {result.scored}"
    raise stopped.saying(f"{result.progress}, {accuracy}, is stored in {place}/")


def run_folder(
    runs: Path, variant: str, protocol: str, profile: str, seed: int, epochs: int | None = None, data: str = ""
) -> Path:
    """Where a run keeps its checkpoints: ``VARIANT/PROTOCOL/KIND/seed-N``, KIND being the profile with what differs
    from it (``full-3-epochs``, ``full-synthetic``)."""
    kind = profile if epochs is None else f"{profile}-{epochs}-epochs"
    kind += "" if data in ("", usual_data(profile)) else f"-{data}"
    return runs / variant / protocol / kind / f"seed-{seed}"


def usual_data(profile: str) -> str:
    """The data set that a profile needs."""
    return "synthetic" if profile == "smoke" else "fer2013"


def _score(
    variant: str,
    profile: str,
    run: Run,
    classifier: Classifier,
    faces: data_sets.FER2013,
    started: datetime,
    version: str,
) -> Result:
    """Score both test sets once, plain and with the paper's test-time augmentation, and make the record."""
    recipe = run.recipe
    predictions = _predictions(classifier, recipe, faces)
    facts: dict[str, Any] = (
        dict(run.facts) | weights_facts(recipe) | weights_facts_below(variant, recipe.protocol.name, profile)
    )
    if hasattr(classifier, "extra_scores"):
        facts |= classifier.extra_scores(recipe.protocol.split(faces))
    taken = {key: facts.pop(key, None) for key in ("status", "selected_epoch", "parameters", "multiply_adds")}
    costs = {key: facts.pop(key, None) for key in ("seconds", "images_per_second", "peak_memory_bytes")}
    costs["peak_memory_bytes"] = costs["peak_memory_bytes"] or None  # 0: the system does not tell
    protocol = recipe.protocol
    record: dict[str, Any] = {
        "schema": results.SCHEMA,
        "variant": variant,
        "protocol": protocol.name,
        "profile": profile,
        "seed": run.seed,
        **taken,
        "recipe": recipe.as_dict(),
        "recipe_sha256": recipe.sha256(),
        "code_version": version,
        "data": {"name": faces.name, "source": faces.source, "digest": faces.digest},
        "usages": {
            "train": list(protocol.train),
            "select": list(protocol.select),
            "test": list(protocol.test),
            "finetune": list(protocol.finetune or protocol.train),
        },
        "selection": recipe.selection.name(protocol),
        "scores": results.score_all(predictions, protocol.test),
        "cost": costs | {"device": run.device.partition(":")[0]},
        "environment": cost.environment(run.device),
        "started": started.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "facts": facts,
    }
    if faces.modified:
        record |= {"kind": results.MODIFIED, "modified": {"counts": faces.counts().T.to_dict()}}
    result = Result(record, predictions, pd.DataFrame(run.history), classifier=classifier)
    if run.keep_epochs and (run.stops or result.status in results.FINISHED):
        parts = {half: faces.images[faces.usage == half] for half in HALVES}
        result.epochs = epoch_weights.predicted(run.folder, len(run.history), classifier, parts)
    return result


def _predictions(classifier: Classifier, recipe: Recipe, faces: data_sets.FER2013) -> dict[str, np.ndarray]:
    """Ids, labels and probabilities of both test sets; of a network, with its progress."""
    parts = {half: faces.subset(np.flatnonzero(faces.usage == half)) for half in HALVES}
    inputs = progress.inputs_of(recipe, sum(map(len, parts.values())))
    predictions: dict[str, np.ndarray] = {}
    with progress.scoring(classifier.model, inputs) if isinstance(classifier, NetworkClassifier) else nullcontext():
        for half, part in parts.items():
            predictions[f"{half}_ids"], predictions[f"{half}_labels"] = np.asarray(part.ids), np.asarray(part.labels)
            # float16 as stored, so that every number is the one that the stored file gives back.
            predictions[f"{half}_plain"] = classifier.predict_proba(part.images).astype(np.float16)
            if recipe.views != recipe.plain:
                rows = classifier.predict_proba(part.images, with_views=True)
                predictions[f"{half}_views"] = rows.astype(np.float16)
            if hasattr(classifier, "extra_predictions"):  # whatever else a method wants to be stored for every image
                more = classifier.extra_predictions(part.images)
                predictions |= {f"{half}_{name}": rows for name, rows in more.items()}
    return predictions


def require_epochs(variant_id: str, protocol: str, keep_unfinished: bool = True, score_epochs: bool = False) -> None:
    """Raise `FerReproError` if an option asks for the weights of epochs of a variant that has none."""
    asked = [name for name, on in (("keep_unfinished", keep_unfinished), ("score_epochs", score_epochs)) if on]
    if asked and not papers.get(variant_id).has_epochs(protocol):
        raise FerReproError(
            f"{variant_id} is not a network that is trained epoch by epoch, so no epoch has weights that could be "
            f"scored: leave out {' and '.join(f'{FLAGS[name]} ({name})' for name in asked)}"
        )


def _require_same_recipe(stored: Result, recipe: Recipe, where: Path) -> None:
    if stored.record["recipe_sha256"] != recipe.sha256():
        digest = stored.record["data"]["digest"]
        folder = results.folder_of(where, stored.variant, stored.protocol, stored.seed, stored.kind, digest)
        raise FerReproError(
            f"{folder} holds a result of another recipe ({stored.record['recipe_sha256'][:12]}, today's is "
            f"{recipe.sha256()[:12]}): move it away to run the present recipe, or check out the code that made it"
        )


def require_weights(variant_id: str, protocol: str, profile: str, fetch: bool = True) -> None:
    """Raise `FerReproError` if the variant, or one that it needs, starts from weights that are not to be had.

    ``fetch``: download them where that is possible; otherwise only look at what is on this machine.
    """
    for name in (variant_id, *sorted(papers.needs(variant_id))):
        weights = papers.get(name).recipe(protocol, profile).pretrained
        if weights is not None and not pretrained.is_here(weights):
            if not fetch:
                raise pretrained.absent(weights, "have not been fetched")
            pretrained.fetch(weights)


def weights_facts(recipe: Recipe) -> dict[str, str]:
    """For a result: the file's name and whole digest; empty for random weights."""
    path = None if recipe.pretrained is None else pretrained.locate(recipe.pretrained)
    return {} if path is None else {"pretrained_file": path.name, "pretrained_sha256": pretrained.file_digest(path)}


def weights_facts_below(variant_id: str, protocol: str, profile: str) -> dict[str, dict[str, dict[str, str]]]:
    """The same for the variants it builds on, by id; empty where none of them starts from a file."""
    needed = {
        name: weights_facts(papers.get(name).recipe(protocol, profile)) for name in sorted(papers.needs(variant_id))
    }
    known = {name: facts for name, facts in needed.items() if facts}
    return {"pretrained_below": known} if known else {}
