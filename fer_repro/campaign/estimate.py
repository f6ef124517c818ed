"""What is left of a run: its floating-point operations, counted, divided by a speed that is measured where possible.

Counted are convolutions, linear layers and attention of training (three forward passes' worth), of measuring every
epoch on the select images, and of scoring at the end. Stages with patience count in full, so theirs is an upper bound.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from fer_repro import papers, results
from fer_repro.campaign import Task, status
from fer_repro.campaign.throughput import TRAINING, Measured, Speed, Speeds, records
from fer_repro.data import USAGES
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.data.synthetic import SMOKE_SIZE
from fer_repro.errors import FerReproError
from fer_repro.evaluation import cost
from fer_repro.evaluation.tta import view_count
from fer_repro.papers.base import Variant
from fer_repro.parameters import RunOptions
from fer_repro.recipe import Recipe
from fer_repro.reproduce import run_folder, usual_data
from fer_repro.results import FINISHED, HALVES
from fer_repro.training import artifacts, checkpoint
from fer_repro.training.checkpoint import CheckpointProgress
from fer_repro.training.execution import native_bf16, resolve_device
from fer_repro.transforms import Augmenter

FORWARD = 2  # operations per multiply-add
# A checkpoint holds weights, optimiser, and the weights of the best epochs: about five float32 numbers a parameter.
BYTES_PER_PARAMETER = 5 * 4
DISK = 200e6  # bytes per second that any disk can write
# Scoring is float32: after training in half precision an operation may take this many times as long as it did there.
# Measured once, beside other work: 1.8 for ResNet18 at 224 pixels on a CPU with AVX512-BF16.
CAUTION, CAUTION_HALF = 1.5, {"cuda": 6.0, "cpu": 3.0}


@dataclass(frozen=True)
class Work:
    """Floating-point operations of a run: one epoch's ``training`` and ``selecting`` in each stage, ``scoring``, and
    ``scoring_plain`` by the weights of one epoch.

    ``epochs``, ``images`` and images per batch of each stage, the network's parameters and multiply-adds for one image;
    ``at_most`` where patience may end a stage sooner.
    """

    epochs: tuple[int, ...]
    images: tuple[int, ...]
    training: tuple[float, ...]
    selecting: float
    scoring: float
    scoring_plain: float
    batch_sizes: tuple[int, ...]
    parameters: int
    multiply_adds: int
    at_most: bool

    @property
    def per_epoch(self) -> tuple[float, ...]:
        """Operations of an epoch in each stage."""
        return tuple(one + self.selecting for one in self.training)

    def _stage(self, standing: CheckpointProgress) -> int:
        """The stage under way; a checkpoint of another recipe may be in one that this recipe has not."""
        return min(standing.stage, len(self.epochs) - 1)

    def _in_stage(self, standing: CheckpointProgress) -> float:
        """Operations that a checkpoint has behind it in the stage under way."""
        stage = self._stage(standing)
        part = min(1.0, standing.batch * self.batch_sizes[stage] / self.images[stage])
        return standing.epoch * self.per_epoch[stage] + part * self.training[stage]

    def done(self, standing: CheckpointProgress) -> float:
        """Operations of training and selecting that a checkpoint has behind it."""
        total, before = self._in_stage(standing), standing.epochs - standing.epoch
        for epochs, one in zip(self.epochs[: standing.stage], self.per_epoch, strict=False):
            taken = min(epochs, before)
            total, before = total + taken * one, before - taken
        return total

    def left(self, standing: CheckpointProgress | None) -> float:
        """Operations of training and selecting that are still to do, if no stage ends early."""
        whole = [epochs * one for epochs, one in zip(self.epochs, self.per_epoch, strict=True)]
        if standing is None:
            return sum(whole)
        if standing.status != "running":
            return 0.0
        stage = self._stage(standing)
        return sum(whole[stage + 1 :]) + max(0.0, whole[stage] - self._in_stage(standing))


def work(variant: Variant, recipe: Recipe, counts: Mapping[str, int]) -> Work:
    """Count a network's run; ``counts``: images of every usage. The network is built without memory."""
    network = cost.weightless(variant.build, recipe)
    adds = cost.count_multiply_adds(network, cost.input_shape(recipe))
    protocol = recipe.protocol
    roles = {"train": protocol.train, "finetune": protocol.finetune or protocol.train}
    images = tuple(sum(counts[usage] for usage in roles[stage.images]) for stage in recipe.stages)
    staged = [recipe.at(stage) for stage in recipe.stages]
    copies = [Augmenter(each.augment).copies for each in staged]
    plain, viewed = view_count(recipe.plain), view_count(recipe.views)
    select = sum(counts[usage] for usage in protocol.select) * (viewed if recipe.selection.views else plain)
    views = plain + (viewed if recipe.views != recipe.plain else 0)
    tested = sum(counts[half] for half in HALVES)
    return Work(
        epochs=tuple(stage.epochs for stage in recipe.stages),
        images=images,
        training=tuple(float(n * c * adds * TRAINING) for n, c in zip(images, copies, strict=True)),
        selecting=float(select * adds * FORWARD),
        scoring=float(tested * views * adds * FORWARD),
        scoring_plain=float(tested * plain * adds * FORWARD),
        batch_sizes=tuple(each.batch_size for each in staged),
        parameters=cost.count_parameters(network),
        multiply_adds=adds,
        at_most=any(stage.patience is not None for stage in recipe.stages),
    )


@dataclass(frozen=True)
class Remaining:
    """What one run still needs: ``fitting`` and ``scoring`` in seconds (None: unknown), and how that is known.

    ``state``: stored, trained, begun, new, or stuck (repeating the command gains nothing); ``text``: how far it is.
    """

    state: str
    text: str
    fitting: float | None = None
    scoring: float | None = None
    at_most: bool = False
    source: str = ""


def peek(folder: Path) -> CheckpointProgress | None:
    """As `checkpoint.peek`, which reads a folder again only after something in it was replaced."""
    return _peek(folder, folder.stat().st_mtime_ns) if folder.is_dir() else None


@cache
def _peek(folder: Path, changed: int) -> CheckpointProgress | None:
    return checkpoint.peek(folder)


class Estimator:
    """Estimates for all runs that share ``options``; reads checkpoints and results again at every call."""

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        self.profile = "full" if options.profile == "full" else "smoke"
        self.results_dir = options.results_path
        self.runs_dir = options.runs_path
        # A smoke run without a folder of its own leaves no checkpoint behind.
        self.keeps = self.profile == "full" or bool(options.runs_dir)
        self.data = options.data or usual_data(self.profile)
        self.stores = self.profile == "full" and options.epochs is None and self.data == "fer2013"
        self.modified = options.modified_copy()
        place = resolve_device(options.device)
        self.where = torch.device(place)
        self.device = self.where.type  # as in a run's identity
        self.speeds = Speeds(self.results_dir if self.profile == "full" else None, place)
        self.work = cache(self._work)

    def recipe(self, variant: str) -> Recipe:
        recipe = papers.get(variant).recipe(self.options.protocol, self.profile)
        return recipe.with_epochs(self.options.epochs) if self.options.epochs and recipe.stages else recipe

    def _work(self, variant: str) -> Work | None:
        """None for a method without a network."""
        if papers.get(variant).build is None:
            return None
        counts = OFFICIAL_COUNTS if self.modified is None else self.modified.counts().to_numpy()
        sizes = SMOKE_SIZE if self.data == "synthetic" else counts.sum(axis=1).tolist()
        return work(papers.get(variant), self.recipe(variant), dict(zip(USAGES, sizes, strict=True)))

    def _scoring(self, counted: Work) -> float:
        """Operations of scoring a run that was asked for, by the weights of every epoch too if that was."""
        return counted.scoring + (sum(counted.epochs) * counted.scoring_plain if self.options.score_epochs else 0.0)

    def folder(self, task: Task) -> Path:
        o, data = self.options, self.data if self.modified is None else self.modified.folder_name
        return run_folder(self.runs_dir, task.variant, o.protocol, self.profile, task.seed, o.epochs, data)

    def place(self, task: Task) -> tuple[Path, str, str, int, str, str]:
        """Where the result of a run is stored, as `results.folder_of` takes it."""
        return self.results_dir, task.variant, self.options.protocol, task.seed, *results.stored_as(self.modified)

    def standing(self, task: Task) -> CheckpointProgress | None:
        """How far the run's checkpoint has come; None where there is none that this command would resume."""
        return peek(self.folder(task)) if self.keeps and self.options.resume else None

    def speed(self, variant: str) -> Speed:
        """How fast this device works through ``variant``, by the checkpoints of all runs with these options."""
        measured = {}
        for name in papers.variants() if self.keeps else ():
            begun = map(peek, self.folder(Task(name, 0)).parent.glob("seed-*"))
            here = [one for one in begun if one is not None and one.identity.get("device") == self.device]
            seconds = sum(one.seconds for one in here)
            if seconds and (counted := self.work(name)) is not None:
                done = sum(counted.done(one) for one in here)
                # A run that was stopped before its first batch has no speed.
                measured |= {name: Measured(done / seconds, counted.multiply_adds)} if done else {}
        counted = self.work(variant)
        assert counted is not None, "a method without a network has no speed"
        return self.speeds.of(variant, counted.multiply_adds, measured)

    def stored(self, task: Task) -> bool:
        """Whether a stored result answers for this run."""
        if self.options.profile == "smoke" or self.options.epochs is not None or self.options.data == "synthetic":
            return False
        return results.is_stored(*self.place(task))

    def remaining(self, task: Task) -> Remaining:
        """What this run needs by itself; see `required` for the runs it builds on."""
        if self.stored(task):
            return Remaining("stored", self._stored_text(task), 0.0, 0.0)
        own, counted = self.fitting(task), self.work(task.variant)
        if counted is None:
            return own
        scoring = self._scoring(counted) / self.speed(task.variant).flops_per_second
        stuck = {"fitting": 0.0, "at_most": False} if own.state == "stuck" else {}
        return dataclasses.replace(own, scoring=scoring, **stuck)

    def _stored_text(self, task: Task) -> str:
        try:
            results.read(results.folder_of(*self.place(task)))
        except FerReproError:
            return "stored, but damaged: see fer-repro verify"
        return "stored"

    def whole(self, variant: str) -> tuple[float, str] | None:
        """Seconds of a run from its beginning and of all runs that it builds on, whatever of them is done, and how the
        speed of ``variant`` is known; None where a part of it has no network to count and no stored run."""
        total, source = 0.0, ""
        for name in [*sorted(papers.needs(variant)), variant]:
            if (counted := self.work(name)) is not None:
                speed = self.speed(name)
                total += (counted.left(None) + counted.scoring) / speed.flops_per_second
                source = speed.source
            elif (known := self._stored_run(name)) is not None:
                total, source = total + known["cost"]["seconds"], _source(known)
            else:
                return None
        return total, source

    def _stored_run(self, variant: str) -> dict[str, Any] | None:
        """The record of a stored run of a method without a network that says most about the one that is asked for."""
        known = [r for r in records(self.results_dir) if r["variant"] == variant and r["cost"]["seconds"]]
        return min(known, key=lambda r: (r["protocol"] != self.options.protocol, r["seed"]), default=None)

    def fitting(self, task: Task) -> Remaining:
        """What fitting this run takes, whether or not its result is stored: another run needs its weights here."""
        counted, standing = self.work(task.variant), self.standing(task)
        if counted is None:
            return self._without_network(task)
        speed, left = self.speed(task.variant), counted.left(standing)
        at_most = counted.at_most and left > 0
        return Remaining(*self._state(task, standing), left / speed.flops_per_second, None, at_most, speed.source)

    def _state(self, task: Task, standing: CheckpointProgress | None) -> tuple[str, str]:
        if standing is None:
            return "new", "not begun"
        recipe = self.recipe(task.variant)
        text = status.progress(standing, recipe.epochs)
        identity = {"recipe": recipe.sha256(), "device": self.device}
        other = [key for key, value in identity.items() if standing.identity.get(key) != value]
        if other:
            return "stuck", f"{text}, but with another {' and '.join(other)}"
        if standing.status == "running":
            return "begun", text
        # Scoring again what is never stored gives nothing new.
        return ("trained" if standing.status in FINISHED and self.stores else "stuck"), text

    def _without_network(self, task: Task) -> Remaining:
        folder = self.folder(task)
        files = [path for path in folder.glob("**/*") if path.is_file() and path.name != "lock"] if self.keeps else []
        state = ("begun", "begun") if files and self.options.resume else ("new", "not begun")
        record = self._stored_run(task.variant) if self.profile == "full" else None
        if record is None:
            return Remaining(*state, source="no network to count, and no stored run to compare with")
        saved = sum(_seconds_of(path) for path in files if path.suffix == ".npz") if state[0] == "begun" else 0.0
        return Remaining(*state, max(0.0, record["cost"]["seconds"] - saved), source=_source(record))

    def required(self, task: Task) -> list[Task]:
        """The runs of the same seed that this one builds on and that are not fitted yet."""
        standings = {other: self.standing(other) for other in self.builds_on(task)}
        return [other for other, found in standings.items() if found is None or found.status not in FINISHED]

    def builds_on(self, task: Task) -> list[Task]:
        """All runs of the same seed whose fitted models this one needs, nearest last."""
        direct = [Task(name, task.seed) for name in papers.get(task.variant).requires]
        return list(dict.fromkeys(each for other in direct for each in [*self.builds_on(other), other]))

    def tail(self, task: Task, teacher: bool = False) -> float:
        """Seconds to keep free at the end of a budget, cautiously: one checkpoint, or scoring, neither of which stops.

        A method without a network checks the time itself: 0. Of a ``teacher`` of the run that was asked for no single
        epochs are scored.
        """
        counted = self.work(task.variant)
        if counted is None:
            return 0.0
        half = self.recipe(task.variant).precision == "bf16" and (self.device == "cuda" or native_bf16(self.where))
        caution = CAUTION_HALF[self.device] if half else CAUTION
        operations = counted.scoring if teacher else self._scoring(counted)
        scoring = caution * operations / self.speed(task.variant).flops_per_second
        standing = self.standing(task)
        size = standing.path.stat().st_size if standing else BYTES_PER_PARAMETER * counted.parameters
        return scoring + size / DISK

    def gained(self, task: Task) -> set[tuple]:
        """What a run, those it builds on and its unfinished result have on disk: the same before and after a command
        that gained nothing."""
        found: set[tuple] = set()
        for each in [*self.builds_on(task), task] if self.keeps else ():
            for path in self.folder(each).glob("**/*"):
                standing = checkpoint.progress_of(path) if path.name == checkpoint.NAME else None
                if standing is not None:
                    # A checkpoint is written at every stop, also where no batch was trained.
                    done = standing.status, standing.epochs, standing.batch
                    found |= {(path, *done)} if any(done[1:]) else set()
                elif path.is_file() and path.name not in ("lock", checkpoint.PREVIOUS):
                    found.add((path, path.stat().st_mtime_ns))
        place = (self.results_dir, task.variant, self.options.protocol, task.seed, results.UNFINISHED)
        if self.options.keep_unfinished and results.is_stored(*place):
            path = results.folder_of(*place) / "result.json"
            found.add((path, path.stat().st_mtime_ns))
        return found


def _source(record: Mapping[str, Any]) -> str:
    return f"stored result, {record['protocol']}, seed {record['seed']}"


def _seconds_of(path: Path) -> float:
    """What a file of an `ArtifactCache` took to make; 0 for one that cannot be read, which will be made anew."""
    try:
        return artifacts.read(path)[1]
    except Exception:  # noqa: BLE001 - as `ArtifactCache` does, which warns
        return 0.0
