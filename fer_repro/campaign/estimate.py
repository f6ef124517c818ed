"""What is left of a run: its floating-point operations, counted, over a speed that was measured wherever possible.

Counted are convolutions, linear layers and attention of training (three forward passes' worth), of measuring every
epoch on the select images, and of scoring at the end. Stages with patience count in full, so theirs is an upper bound.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from fer_repro import papers, results
from fer_repro.campaign import status
from fer_repro.campaign.tasks import Options, Task
from fer_repro.campaign.throughput import TRAINING, Speeds, records
from fer_repro.data import USAGES
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.data.synthetic import SMOKE_SIZE
from fer_repro.evaluation import cost
from fer_repro.evaluation.cost import input_shape, weightless
from fer_repro.evaluation.tta import view_count
from fer_repro.papers.base import Variant
from fer_repro.project import default_results_dir, default_runs_dir
from fer_repro.recipe import Recipe
from fer_repro.reproduce import run_folder, usual_data
from fer_repro.results import FINISHED, HALVES
from fer_repro.training import checkpoint
from fer_repro.training.checkpoint import Standing
from fer_repro.training.execution import resolve_device
from fer_repro.transforms import Augmenter

FORWARD = 2  # operations per multiply-add
# A checkpoint holds weights, optimiser, and the weights of the best epochs: about five float32 numbers a parameter.
BYTES_PER_PARAMETER = 5 * 4
DISK = 200e6  # bytes per second that any disk can write
# Scoring is float32: after training in bf16 on a GPU it may be this much slower than the speed measured there.
CAUTION, CAUTION_BF16 = 1.5, 6.0


@dataclass(frozen=True)
class Work:
    """Floating-point operations of a run: one epoch's ``training`` and ``selecting`` in each stage, and ``scoring``.

    ``epochs``, ``images`` and images per batch of each stage, the network's parameters; ``at_most`` where patience may
    end a stage sooner.
    """

    epochs: tuple[int, ...]
    images: tuple[int, ...]
    training: tuple[float, ...]
    selecting: float
    scoring: float
    batch_sizes: tuple[int, ...]
    parameters: int
    at_most: bool

    def done(self, standing: Standing | None) -> float:
        """Operations of training and selecting that a checkpoint has behind it."""
        if standing is None:
            return 0.0
        total, before = 0.0, standing.epochs - standing.epoch
        for index, epochs in enumerate(self.epochs[: standing.stage]):
            taken = min(epochs, before)
            total += taken * (self.training[index] + self.selecting)
            before -= taken
        part = min(1.0, standing.batch * self.batch_sizes[standing.stage] / self.images[standing.stage])
        per_epoch = self.training[standing.stage] + self.selecting
        return total + standing.epoch * per_epoch + part * self.training[standing.stage]

    def left(self, standing: Standing | None) -> float:
        """Operations of training and selecting that are still to do, if no stage ends early."""
        if standing is None:
            return sum(n * (one + self.selecting) for n, one in zip(self.epochs, self.training, strict=True))
        if standing.status != "running":
            return 0.0
        stage = standing.stage
        later = sum(self.epochs[i] * (self.training[i] + self.selecting) for i in range(stage + 1, len(self.epochs)))
        part = min(1.0, standing.batch * self.batch_sizes[stage] / self.images[stage])
        here = (self.epochs[stage] - standing.epoch) * (self.training[stage] + self.selecting)
        return later + max(0.0, here - part * self.training[stage])


def work(variant: Variant, recipe: Recipe, counts: Mapping[str, int]) -> Work:
    """Count a network's run; ``counts``: images of every usage. The network is built without memory."""
    network = weightless(variant.build, recipe)
    adds = cost.count_multiply_adds(network, input_shape(recipe))
    protocol = recipe.protocol
    roles = {"train": protocol.train, "finetune": protocol.finetune or protocol.train}
    images = tuple(sum(counts[usage] for usage in roles[stage.images]) for stage in recipe.stages)
    staged = [recipe.at(stage) for stage in recipe.stages]
    copies = [Augmenter(each.augment).copies for each in staged]
    plain, viewed = view_count(recipe.plain), view_count(recipe.views)
    select = sum(counts[usage] for usage in protocol.select) * (viewed if recipe.selection.views else plain)
    views = plain + (viewed if recipe.views != recipe.plain else 0)
    return Work(
        epochs=tuple(stage.epochs for stage in recipe.stages),
        images=images,
        training=tuple(float(n * c * adds * TRAINING) for n, c in zip(images, copies, strict=True)),
        selecting=float(select * adds * FORWARD),
        scoring=float(sum(counts[half] for half in HALVES) * views * adds * FORWARD),
        batch_sizes=tuple(each.batch_size for each in staged),
        parameters=cost.count_parameters(network),
        at_most=any(stage.patience is not None for stage in recipe.stages),
    )


@dataclass(frozen=True)
class Remaining:
    """What one run still needs: ``fitting`` and ``scoring`` in seconds (None: unknown) and ``source`` in words.

    ``state``: stored, trained, begun, new, or stuck (repeating the command gains nothing); ``told`` says it in words.
    """

    state: str
    told: str
    fitting: float | None
    scoring: float | None
    at_most: bool
    source: str


class Estimator:
    """Estimates for all runs that share ``options``; reads checkpoints and results anew at every question."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.profile = "full" if options.profile == "full" else "smoke"
        self.results_dir = Path(options.results_dir) if options.results_dir else default_results_dir()
        self.runs_dir = Path(options.runs_dir) if options.runs_dir else default_runs_dir()
        # A smoke run without a folder of its own leaves no checkpoint behind.
        self.keeps = self.profile == "full" or bool(options.runs_dir)
        self.data = options.data or usual_data(self.profile)
        self.stores = self.profile == "full" and options.epochs is None and self.data == "fer2013"
        self.device = resolve_device(options.device)
        self.speeds = Speeds(self.runs_dir, self.results_dir, self.device, self.profile)
        self.work = cache(self._work)

    def recipe(self, variant: str) -> Recipe:
        recipe = papers.get(variant).recipe(self.options.protocol, self.profile)
        return recipe.with_epochs(self.options.epochs) if self.options.epochs and recipe.stages else recipe

    def _work(self, variant: str) -> Work | None:
        """None for a method without a network."""
        if papers.get(variant).build is None:
            return None
        sizes = SMOKE_SIZE if self.data == "synthetic" else OFFICIAL_COUNTS.sum(axis=1).tolist()
        return work(papers.get(variant), self.recipe(variant), dict(zip(USAGES, sizes, strict=True)))

    def folder(self, task: Task) -> Path:
        o = self.options
        return run_folder(self.runs_dir, task.variant, o.protocol, self.profile, task.seed, o.epochs, self.data)

    def standing(self, task: Task) -> Standing | None:
        """How far the run's checkpoint has come; None where there is none that this command would go on from."""
        return self.now(task) if self.options.resume else None

    def now(self, task: Task) -> Standing | None:
        """How far the run's checkpoint has come, whether or not a command would go on from it."""
        return checkpoint.peek(self.folder(task)) if self.keeps else None

    def stored(self, task: Task) -> bool:
        """Whether a stored result answers for this run."""
        if self.options.profile == "smoke" or self.options.epochs is not None or self.options.data == "synthetic":
            return False
        where = results.folder_of(self.results_dir, task.variant, self.options.protocol, task.seed)
        return (where / "result.json").exists()

    def remaining(self, task: Task) -> Remaining:
        """What this run needs by itself; see `required` for the runs it builds on."""
        if self.stored(task):
            return Remaining("stored", "stored", 0.0, 0.0, False, "")
        counted = self.work(task.variant)
        if counted is None:
            return self._without_network(task)
        standing, speed = self.standing(task), self.speeds.of(task.variant)
        state, told = self._state(task, standing)
        fitting = 0.0 if state == "stuck" else counted.left(standing) / speed.flops_per_second
        scoring = counted.scoring / speed.flops_per_second
        return Remaining(state, told, fitting, scoring, counted.at_most and fitting > 0, speed.source)

    def _state(self, task: Task, standing: Standing | None) -> tuple[str, str]:
        if standing is None:
            return "new", "not begun"
        told = status.words(standing, self.recipe(task.variant).epochs)
        identity = {"recipe": self.recipe(task.variant).sha256(), "device": self.device}
        other = [key for key, value in identity.items() if standing.identity.get(key) != value]
        if other:
            return "stuck", f"{told}, but with another {' and '.join(other)}"
        if standing.status == "running":
            return "begun", told
        # Whoever trains what is never stored has nothing new from scoring it again.
        return ("trained" if standing.status in FINISHED and self.stores else "stuck"), told

    def _without_network(self, task: Task) -> Remaining:
        folder = self.folder(task)
        pieces = [path for path in folder.glob("**/*") if path.is_file() and path.name != "lock"] if self.keeps else []
        state = ("begun", "begun") if pieces and self.options.resume else ("new", "not begun")
        known = [r for r in records(self.results_dir) if r["variant"] == task.variant and r["cost"]["seconds"]]
        if self.profile != "full" or not known:
            return Remaining(*state, None, None, False, "no network to count, and no stored run to compare with")
        known.sort(key=lambda record: (record["protocol"] != self.options.protocol, record["seed"]))
        saved = sum(_seconds_of(path) for path in pieces if path.suffix == ".npz") if state[0] == "begun" else 0.0
        source = f"stored result, {known[0]['protocol']}, seed {known[0]['seed']}"
        return Remaining(*state, max(0.0, known[0]["cost"]["seconds"] - saved), None, False, source)

    def required(self, task: Task) -> list[Task]:
        """The runs of the same seed that this one builds on and that are not fitted yet."""
        return [other for other in self.builds_on(task) if not self._fitted(other)]

    def builds_on(self, task: Task) -> list[Task]:
        """All runs of the same seed whose fitted models this one needs, nearest last."""
        direct = [Task(name, task.seed) for name in papers.get(task.variant).requires]
        return list(dict.fromkeys(each for other in direct for each in [*self.builds_on(other), other]))

    def _fitted(self, task: Task) -> bool:
        standing = self.standing(task)
        return standing is not None and standing.status in FINISHED

    def fitting(self, task: Task) -> Remaining:
        """What fitting this run takes, whether or not its result is stored: another run needs its weights here."""
        counted = self.work(task.variant)
        if counted is None:
            return self._without_network(task)
        speed, standing = self.speeds.of(task.variant), self.standing(task)
        seconds = counted.left(standing) / speed.flops_per_second
        return Remaining(*self._state(task, standing), seconds, None, counted.at_most, speed.source)

    def tail(self, task: Task) -> float:
        """Seconds to keep free at the end of a budget, cautiously: one checkpoint, or scoring, neither of which stops.

        A method without a network looks at the clock itself: 0.
        """
        counted = self.work(task.variant)
        if counted is None:
            return 0.0
        faster = self.device == "cuda" and self.recipe(task.variant).precision == "bf16"
        caution = CAUTION_BF16 if faster else CAUTION
        scoring = caution * counted.scoring / self.speeds.of(task.variant).flops_per_second
        standing = self.standing(task)
        size = standing.path.stat().st_size if standing else BYTES_PER_PARAMETER * counted.parameters
        return scoring + size / DISK


def _seconds_of(path: Path) -> float:
    """What a piece on a `Shelf` took to make; 0 for one that cannot be read, which will be made anew."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return float(kept["seconds"])
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return 0.0
