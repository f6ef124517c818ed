"""From a variant's name to a result that can be stored and checked: the one function that everybody calls."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_repro import data as data_sets
from fer_repro import papers, pretrained, results
from fer_repro.data.synthetic import SMOKE_SIZE
from fer_repro.errors import FerReproError
from fer_repro.evaluation import cost
from fer_repro.logs import shown
from fer_repro.parameters import RunOptions
from fer_repro.project import code_version
from fer_repro.recipe import Recipe
from fer_repro.results import HALVES, Result
from fer_repro.training.execution import ExecutionOptions, one_thread, resolve_device
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
) -> Result:
    """Fit ``variant`` under ``protocol``, score both test sets, and store what may be stored.

    ``profile``: ``smoke`` (seconds, synthetic faces, never stored), ``full`` (the recipe on FER2013; a stored result of
    the same recipe is returned, not repeated) or ``stored`` (the stored result; where there is none, a smoke run
    whose ``note`` says so). ``epochs`` replaces the recipe's; such a run is never stored. ``root``: where FER2013 is
    (folder, CSV or archive). ``runs_dir``: checkpoints, ``runs/`` by default (a smoke run uses a temporary folder).
    ``time_budget``: seconds after which the run stops at a checkpoint. ``turn``: its place among the runs of this
    process, see `fer_repro.training.interleave`. Raises `FerReproError` for bad input and
    `Interrupted` at the end of the budget.
    """
    options = RunOptions(protocol, profile, data, device, epochs, results_dir, runs_dir, root, resume)
    checked = options.check(variant, seed)
    seed, options = checked.seed, dataclasses.replace(options, epochs=checked.epochs)
    where, note = options.results_path, ""
    if profile in ("stored", "full") and epochs is None and data != "synthetic":
        stored = results.find(variant, protocol, seed, where)
        if stored is not None:
            _require_same_recipe(stored, papers.get(variant).recipe(protocol, "full"), where)
            log.info(f"{variant} / {protocol} / seed {seed}: stored result of {stored.record['ended'][:10]}")
            return stored
    if profile == "stored":
        note = (
            f"No full result of {variant} under the {protocol} protocol with seed {seed} is stored: not run. What "
            "follows is a smoke run on synthetic faces; it says nothing about the paper."
        )
        options = dataclasses.replace(options, profile="smoke")
    require_weights(variant, protocol, options.profile)
    if options.profile == "full":
        results.require_writable(where)
    deadline = None if time_budget is None else time.monotonic() + time_budget
    result = _run(variant, seed, options, deadline, turn)
    result.note = note
    if result.storable and epochs is None:
        folder = results.write(result, where)
        log.info(f"stored in {folder.relative_to(where)}/: {result.headline['accuracy']:.4f} on {result.scored}")
    return result


def _run(variant: str, seed: int, options: RunOptions, deadline: float | None, turn: Turn | None) -> Result:
    """Fit and score, whatever is stored."""
    device, smoke = resolve_device(options.device), options.profile == "smoke"
    name = options.data or usual_data(options.profile)
    faces = data_sets.load("synthetic", size=SMOKE_SIZE) if name == "synthetic" else data_sets.load(name, options.root)
    started, version = datetime.now(UTC), code_version()
    temporary = smoke and not options.runs_dir
    with (
        tempfile.TemporaryDirectory() if temporary else nullcontext(options.runs_path) as runs,
        one_thread() if smoke else nullcontext(),
    ):

        def fit(variant_id: str) -> tuple[Run, Classifier]:
            """Fit a variant after what it requires; a finished run folder answers at once with its last state."""
            chosen = papers.get(variant_id)
            required = {needed: fit(needed)[1] for needed in chosen.requires}
            recipe = chosen.recipe(options.protocol, options.profile)
            if options.epochs is not None and recipe.stages:
                recipe = recipe.with_epochs(options.epochs)
            place = (variant_id, options.protocol, options.profile, seed, options.epochs, faces.name)
            run = Run(recipe, seed, device, run_folder(Path(runs), *place), faces.digest, options.resume)
            run.turn, run.deadline, run.required = turn, deadline, required
            # fp32 in a smoke run: it gives the same numbers on a processor with bf16 as on one without.
            run.execution = ExecutionOptions(autocast=not smoke)
            if deadline is not None and time.monotonic() >= deadline:
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
            raise
        return _score(variant, options.profile, run, classifier, faces, started, version)


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
    recipe, predictions = run.recipe, {}
    for half in HALVES:
        part = faces.subset(np.flatnonzero(faces.usage == half))
        predictions[f"{half}_ids"], predictions[f"{half}_labels"] = np.asarray(part.ids), np.asarray(part.labels)
        # float16 as stored, so that every number is the one that the stored file gives back.
        predictions[f"{half}_plain"] = classifier.predict_proba(part.images).astype(np.float16)
        if recipe.views != recipe.plain:
            predictions[f"{half}_views"] = classifier.predict_proba(part.images, with_views=True).astype(np.float16)
        if hasattr(classifier, "extra_predictions"):  # whatever else a method wants to be stored for every image
            more = classifier.extra_predictions(part.images)
            predictions |= {f"{half}_{name}": rows for name, rows in more.items()}
    facts: dict[str, Any] = (
        dict(run.facts) | weights_facts(recipe) | weights_facts_below(variant, recipe.protocol.name, profile)
    )
    if hasattr(classifier, "extra_scores"):
        facts |= classifier.extra_scores(recipe.protocol.split(faces))
    taken = {key: facts.pop(key, None) for key in ("status", "selected_epoch", "parameters", "multiply_adds")}
    costs = {key: facts.pop(key, None) for key in ("seconds", "images_per_second", "peak_memory_bytes")}
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
        "cost": costs | {"device": run.device},
        "environment": cost.environment(),
        "started": started.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "facts": facts,
    }
    return Result(record, predictions, pd.DataFrame(run.history), classifier=classifier)


def _require_same_recipe(stored: Result, recipe: Recipe, where: Path) -> None:
    if stored.record["recipe_sha256"] != recipe.sha256():
        folder = results.folder_of(where, stored.variant, stored.protocol, stored.seed)
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
