"""The training loop: one device, the data resident on it, every random draw from a saved generator.

`fit` follows a `Recipe` through its stages and returns the classifier its selection rule chose. Inside an epoch nothing
waits for the device: loss and hits are summed there and read once at the end. Checkpoints after epochs and at every
stop, inside an epoch too, hold all state: a resumed run equals the uninterrupted one, bit for bit on the CPU.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_repro.data.protocol import Splits
from fer_repro.evaluation import cost
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.evaluation.tta import view_count
from fer_repro.recipe import Recipe, Stage
from fer_repro.training import checkpoint
from fer_repro.training.autotune import MANY_STEPS, confirm, rehearse
from fer_repro.training.execution import Choice, first_choice
from fer_repro.training.losses import Loss, make_loss
from fer_repro.training.optim import Ema, make_optimiser, make_schedule
from fer_repro.training.progress import Progress, StopRequest, stop_requests
from fer_repro.training.run import Interrupted, Run
from fer_repro.training.step import TrainStep
from fer_repro.training.weights import Best, Weights, all_finite, copied, has_batch_norm

log = logging.getLogger(__name__)

SAVE_EVERY = 600.0  # seconds between checkpoints inside a long epoch
SAVING_SHARE = 0.05  # an epoch's end is not saved while saving would take a larger share of the time since the last one


def fit(build: Callable[[Recipe], nn.Module], splits: Splits, run: Run, loss: Loss | None = None) -> NetworkClassifier:
    """Train ``build(recipe)`` as ``run.recipe`` says and return it with the weights that its selection rule chose.

    ``splits``: images uint8 [N,48,48] and labels int [N] of each role. ``loss(output, targets)`` replaces the recipe's
    loss: it gets the network's output (float32; a tuple stays one) and int64 [B] targets, or float [B,7] ones where the
    recipe mixes. If its ``wants_samples`` is true it also gets the samples' positions in the stage's images, int64 [B],
    and which were mirrored (see `Augmenter`). The buffers of a module are saved with the run. Fills ``run.history``
    (one dict per epoch) and ``run.facts``. A run folder with a checkpoint is continued (``run.resume``), a finished one
    answers at once. Raises `Interrupted` after a checkpoint (time budget, Ctrl-C, SIGTERM), `FerReproError` for a
    recipe that cannot be followed or a checkpoint of another run.
    """
    device = torch.device(run.device)
    with checkpoint.writer(run.folder), checkpoint.seeded(run.seed, device), stop_requests(run.stop) as stop:
        trainer = Trainer(build, splits, run, loss, stop)
        if not run.resume:
            checkpoint.discard(run.folder)
        elif (state := checkpoint.load(run.folder, trainer.identity)) is not None:
            trainer.load_state_dict(state)
        trainer.train()
        return trainer.finish()


class Trainer:
    """The state of a run and the steps that change it; `state_dict` holds all of it."""

    def __init__(
        self, build: Callable[[Recipe], nn.Module], splits: Splits, run: Run, loss: Loss | None, stop: StopRequest
    ) -> None:
        recipe = self.recipe = run.recipe
        self.build, self.splits, self.run, self.stop = build, splits, run, stop
        self.device = torch.device(run.device)
        self.identity = {"recipe": recipe.sha256(), "data set": run.data_digest, "seed": run.seed}
        self.identity["device"] = self.device.type
        recipe.require_sound({role: len(getattr(splits, role).labels) for role in ("train", "finetune", "select")})
        for views in (recipe.views, recipe.plain):
            view_count(views)
        self.loss = loss or make_loss(recipe.loss)
        # Permutation and augmentation draw from their own stream; initialisation and dropout from torch's global one.
        stream = int(np.random.SeedSequence([run.seed % 2**64, 1]).generate_state(1, np.uint64)[0])
        self.generator = torch.Generator(self.device).manual_seed(stream)
        self.model = self._fresh()
        self.history: list[dict[str, Any]] = []
        # The stage under way, its finished epochs, the epoch's finished batches.
        self.stage, self.epoch, self.batch = -1, 0, 0
        self.order: Tensor | None = None  # the epoch's permutation, while one is under way
        self.choice: Choice | None = None  # how the step computes; a resumed run goes on as it began
        self.rehearsed, self.ways = False, {}  # seconds a batch of each way that was tried
        self.best = self.stage_best = Best()
        self.good: Weights | None = None  # the last weights known to be finite
        self.status = "running"
        self.seconds = {"total": 0.0, "training": 0.0, "epoch": 0.0}
        self.images_seen = self.peak = 0
        cost.reset_peak_memory(self.device)

    def _fresh(self) -> nn.Module:
        return self.run.engine.to_device(self.build(self.recipe), self.device)

    @property
    def scored(self) -> nn.Module:
        """The network whose weights are kept and scored: the average where there is one and it is to be kept."""
        return self.ema.module if self.ema and self.ema.keep == "average" else self.model

    @property
    def measured(self) -> nn.Module:
        """The network that the select images see: the same one, unless the recipe's ema says otherwise."""
        return self.ema.module if self.ema and self.ema.measure == "average" else self.model

    def train(self) -> None:
        """Every stage from where the state stands."""
        if self.status != "running":
            return
        self.progress = Progress(self.recipe)
        self.mark = self.saved_at = time.monotonic()
        self.saving = 0.0  # seconds that the last checkpoint took
        for index in range(max(self.stage, 0), len(self.recipe.stages)):
            if index != self.stage:
                self._begin(index)
            stage = self.recipe.stages[index]
            images, labels = self._resident(getattr(self.splits, stage.images))
            select = self._resident(self.splits.select)
            self._rehearse(stage, images, labels)
            while not self._stage_over(stage):
                self._run_epoch(images, labels)
                if not self._end_epoch(stage, select):
                    return
        # A stage ended by its patience leaves epochs of the recipe undone.
        self.status = "done" if len(self.history) == self.recipe.epochs else "stopped early"
        self.save()

    def _begin(self, index: int) -> None:
        """Weights, average, optimiser and schedule of stage ``index``."""
        stage = self.recipe.stages[index]
        if index > 0 and stage.start == "fresh":
            self.model = self._fresh()
        elif index > 0 and stage.start == "best":
            self.model.load_state_dict(self.stage_best.weights)
        self.stage, self.epoch, self.batch, self.order = index, 0, 0, None
        self.stage_best = Best()
        self._make_optimiser(stage, fresh=True)
        self.good = copied(self.scored)

    def _make_optimiser(self, stage: Stage, fresh: bool) -> None:
        """For a stage that starts (``fresh``) or is taken up again; a network may have its own part in that."""
        if hasattr(self.model, "begin_stage"):
            self.model.begin_stage(stage, fresh)
        self.ema = None if self.recipe.ema is None else Ema(self.recipe.ema, self.model)
        engine, recipe = self.run.engine, self.recipe.at(stage)
        self.optimiser = make_optimiser(stage.optimiser, self.model.parameters(), engine.fused_optimiser)
        self.step = TrainStep(recipe, self.model, self.optimiser, self.generator, self.loss, engine)
        batches = math.ceil(len(getattr(self.splits, stage.images).labels) / recipe.batch_size)
        self.schedule = make_schedule(stage.schedule, self.optimiser, stage.epochs, batches)

    def _rehearse(self, stage: Stage, images: Tensor, labels: Tensor) -> None:
        """Let the device choose how this run computes; a run that goes on, or a later stage, keeps the choice."""
        left = stage.epochs * math.ceil(len(labels) / self.step.recipe.batch_size)
        if self.choice is not None and not self.rehearsed:
            self.choice = confirm(self.step, self.choice, images, labels)
        elif self.choice is None and (left >= MANY_STEPS or self.run.engine.compile not in ("auto", "eager")):
            in_time = lambda seconds: not (self.stop.reason or self.run.out_of_time(seconds))  # noqa: E731
            self.choice, self.ways = rehearse(self.step, images, labels, in_time)
        self.rehearsed = True
        self.step.choose(self.choice or self.step.choice)  # a resumed optimiser's state came after the step was made

    def _resident(self, part: Any) -> tuple[Tensor, Tensor]:
        """uint8 [N,48,48] and int64 [N] on the device (copied: the data set is a read-only memory map)."""
        images = torch.tensor(np.asarray(part.images), device=self.device)
        return images, torch.tensor(np.asarray(part.labels), dtype=torch.long, device=self.device)

    def _run_epoch(self, images: Tensor, labels: Tensor) -> None:
        if self.order is None:
            self._clock("total")
            self.order = torch.randperm(len(labels), generator=self.generator, device=self.device)
            self.step.totals.zero_()
            self.batch, self.seconds["epoch"] = 0, 0.0
        self.model.train()
        size, guard = self.step.recipe.batch_size, has_batch_norm(self.model)
        while self.batch * size < len(labels):
            if self.stop.reason or self.run.out_of_time():
                self._interrupt()
            if time.monotonic() - self.saved_at > SAVE_EVERY:
                self.save()
            chosen = self.order[self.batch * size : (self.batch + 1) * size]
            # A last batch of one sample has no variance that batch norm could divide by.
            if not (guard and len(chosen) * self.step.augment.copies == 1 and self.batch):
                self.step(images[chosen], labels[chosen], chosen)
                self._after_step(len(chosen))
            self.batch += 1
            if self.run.turn:
                self.run.turn.pass_on()
        self.order = None

    def _after_step(self, images: int) -> None:
        self.schedule.after_batch()
        if self.ema:
            self.ema.after_batch(self.model)
        self.images_seen += images

    def _end_epoch(self, stage: Stage, select: tuple[Tensor, Tensor]) -> bool:
        """Measure, remember, step the schedule, save; False if the run diverged."""
        loss, hits, samples = self.step.totals.tolist()
        self._clock("training")
        self.epoch += 1
        number = len(self.history) + 1
        if not math.isfinite(loss) or not all_finite(self.scored):
            return self._diverged(stage, number)
        accuracy, select_loss = self._measure(*select)
        measured = accuracy if self.recipe.selection.measure == "accuracy" else select_loss
        row = {
            "stage": stage.name,
            "epoch": number,
            "lr": self.optimiser.param_groups[0]["lr"],
            "loss": loss / samples,
            "train_accuracy": hits / samples,
            "select_accuracy": accuracy,
            "select_loss": select_loss,
        }
        self._remember(measured, number)
        self.schedule.after_epoch(accuracy, select_loss)
        self._clock("total")
        self.history.append(row | {"seconds": round(self.seconds["epoch"], 3)})
        self.run.history[:] = self.history
        self.progress.line(self.history, self.best.epoch)
        if self.saving <= SAVING_SHARE * (time.monotonic() - self.saved_at):
            self.save()
        return True

    def _measure(self, images: Tensor, labels: Tensor) -> tuple[float | None, float | None]:
        """Accuracy and cross-entropy of the scored weights on the images that select; None where there are none."""
        if len(labels) == 0:
            return None, None
        classifier = NetworkClassifier(self.measured, self.recipe, self.device, self.step.memory_format)
        scores = classifier.log_probabilities(images, with_views=self.recipe.selection.views)
        hits, loss = (scores.argmax(dim=1) == labels).double().mean(), nn.functional.nll_loss(scores, labels)
        return hits.item(), loss.item()

    def _remember(self, measured: float | None, number: int) -> None:
        """Keep the weights if they are the best of the stage or of the run; the first of equals stays."""
        self.good = copied(self.scored)
        sign = 1.0 if self.recipe.selection.measure == "accuracy" else -1.0
        value = -math.inf if measured is None else sign * measured
        if value > self.stage_best.value:
            self.stage_best = Best(value, number, self.good)
        if value > self.best.value:
            self.best = self.stage_best

    def _stage_over(self, stage: Stage) -> bool:
        if self.order is not None:
            return False
        waited = len(self.history) - (self.stage_best.epoch or 0)
        given_up = self.epoch > 0 and stage.patience is not None and waited >= stage.patience
        return self.epoch >= stage.epochs or given_up

    def _diverged(self, stage: Stage, number: int) -> bool:
        self.model.load_state_dict(self.good)
        self.status = "diverged"
        log.info(
            f"diverged: loss or weights of epoch {number} ({stage.name}) are not finite; the weights of epoch "
            f"{len(self.history)} are kept; try a smaller learning rate or clip_norm"
        )
        self.save()
        return False

    def _interrupt(self) -> None:
        self.save()
        self.run.facts["status"] = "interrupted"
        why = self.stop.reason or "time budget used up"
        stage = self.recipe.stages[self.stage]
        raise Interrupted(
            f"{why}: stopped in epoch {len(self.history) + 1} of {self.recipe.epochs} ({stage.name}); "
            "a checkpoint is saved and the same command goes on from there"
        )

    def _clock(self, kind: str) -> None:
        """Add the time since the last mark to the run, to the epoch, and to the training time if it was that."""
        now = time.monotonic()
        for key in {"total", "epoch", kind}:
            self.seconds[key] += now - self.mark
        self.mark = now

    def save(self) -> None:
        self._clock("training" if self.order is not None else "total")
        self.peak = max(self.peak, cost.peak_memory(self.device))
        before = self.mark
        checkpoint.save(self.run.folder, self.identity, self.state_dict())
        self._clock("total")
        self.saved_at, self.saving = self.mark, self.mark - before

    def state_dict(self) -> dict[str, Any]:
        # Between epochs the good weights are the scored ones, unless the run has just diverged.
        between_epochs = self.order is None and self.status != "diverged"
        return {
            "status": self.status,
            "stage": self.stage,
            "epoch": self.epoch,
            "batch": self.batch,
            "order": self.order,
            "totals": self.step.totals,
            "updates": self.step.done,
            "seconds": self.seconds,
            "images_seen": self.images_seen,
            "peak": self.peak,
            "history": self.history,
            "choice": vars(self.choice) if self.choice else None,
            "ways": self.ways,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "schedule": self.schedule.state_dict(),
            "loss": self.loss.state_dict() if isinstance(self.loss, nn.Module) else {},
            "best": vars(self.best),
            "stage_best": vars(self.stage_best),
            "good": None if between_epochs else self.good,
            "generator": self.generator.get_state(),
            "random": checkpoint.random_state(self.device),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up ``state`` (on the CPU); the random states come last, after everything that draws."""
        for name in ("status", "stage", "epoch", "batch", "seconds", "images_seen", "peak", "history"):
            setattr(self, name, state[name])
        self.order = None if state["order"] is None else state["order"].to(self.device)
        first = vars(first_choice(self.run.engine, self.recipe, self.device))
        # A run that was begun before there were rehearsals goes on as it was.
        kept, self.ways = state.get("choice", first), state.get("ways", {})
        self.choice = kept and Choice(**kept)
        self.model.load_state_dict(state["model"])
        self._make_optimiser(self.recipe.stages[self.stage], fresh=False)
        self.step.totals.copy_(state["totals"])
        self.step.done = state.get("updates", 0)
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        if isinstance(self.loss, nn.Module):
            self.loss.load_state_dict(state["loss"])
        self.good = state["good"] or copied(self.scored)
        self.best, self.stage_best = Best(**state["best"]), Best(**state["stage_best"])
        self.generator.set_state(state["generator"])
        checkpoint.set_random_state(state["random"], self.device)
        if self.status == "running":
            log.info(f"going on after epoch {len(self.history)} of {self.recipe.epochs}")

    def finish(self) -> NetworkClassifier:
        """Load what the selection rule chose and fill the run's facts."""
        by_best = self.recipe.selection.rule == "best" and self.best.weights is not None
        chosen = self.best if by_best else Best(epoch=len(self.history), weights=self.good)
        self.model.load_state_dict(chosen.weights)
        size = self.recipe.input_size
        self.run.history[:] = self.history
        self.run.facts |= {
            "status": self.status,
            "selected_epoch": chosen.epoch,
            "seconds": self.seconds["total"],
            "parameters": cost.count_parameters(self.model),
            "multiply_adds": cost.count_multiply_adds(self.model, (1, 1, size, size)),
            "images_per_second": self.images_seen / self.seconds["training"] if self.seconds["training"] else None,
            "peak_memory_bytes": self.peak,
        }
        if self.run.turn:  # the seconds are all runs' of this process; speed and memory of one cannot be told
            self.run.facts |= {"images_per_second": None, "peak_memory_bytes": None}
            self.run.facts["runs_in_one_process"] = self.run.turn.count
        if self.choice is not None:
            self.run.facts["rehearsal"] = vars(self.choice) | {"seconds_per_batch": self.ways}
        return NetworkClassifier(self.model, self.recipe, self.device)
