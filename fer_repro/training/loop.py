"""The training loop: one device, the data resident on it, every random draw from a saved generator.

`fit` follows a `Recipe` through its stages and returns the classifier its selection rule chose. An epoch needs no
host-device synchronisation: loss and hits are summed on the device and read once at the end. Checkpoints after epochs
and at every stop, inside an epoch too, hold all state (`TrainState`): a resumed run equals the uninterrupted one, bit
for bit on the CPU.
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
from fer_repro.training import checkpoint, epoch_weights
from fer_repro.training.autotune import MANY_STEPS, agreeing, autotune, batch_seconds, untried
from fer_repro.training.execution import exact
from fer_repro.training.losses import Loss
from fer_repro.training.progress import StopRequest, duration, log_epoch, stop_requests
from fer_repro.training.run import OUT_OF_TIME, Interrupted, Run
from fer_repro.training.state import TrainState, winner_of
from fer_repro.training.weights import all_finite, has_batch_norm

log = logging.getLogger(__name__)

SAVE_EVERY = 600.0  # seconds between checkpoints inside a long epoch
SAVING_SHARE = 0.05  # an epoch's end is not saved while saving would take a larger share of the time since the last one

Part = tuple[Tensor, Tensor]
"""Images uint8 [N,48,48] and labels int64 [N], on the device."""


def fit(build: Callable[[Recipe], nn.Module], splits: Splits, run: Run, loss: Loss | None = None) -> NetworkClassifier:
    """Train ``build(recipe)`` as ``run.recipe`` says and return it with the weights that its selection rule chose.

    ``splits``: images uint8 [N,48,48] and labels int [N] of each role. ``loss(output, targets)`` replaces the recipe's
    loss: it gets the network's output (float32; a tuple stays one) and int64 [B] targets, or float [B,7] ones where the
    recipe mixes. If its ``wants_samples`` is true it also gets the samples' positions in the stage's images, int64 [B],
    and which were mirrored (see `Augmenter`). The buffers of a module are saved with the run. Fills ``run.history``
    (one dict per epoch) and ``run.facts``. A run folder with a checkpoint is continued (``run.resume``), a finished one
    answers at once. Raises `Interrupted` after a checkpoint (time budget, Ctrl-C, SIGTERM), unless what there is is to
    be kept (``run.keep_unfinished``); `FerReproError` for a recipe that cannot be followed or a checkpoint of another
    run.
    """
    device = torch.device(run.device)
    with checkpoint.writer(run.folder), checkpoint.seeded(run.seed, device), stop_requests(run.stop) as stop:
        trainer = Trainer(build, splits, run, loss, stop)
        if not run.resume:
            checkpoint.discard(run.folder)
            epoch_weights.discard(run.folder)
        else:
            trainer.resume()
            epoch_weights.resume(run.folder, len(trainer.state.history), run.keep_epochs)
        try:
            trainer.train()
        except Interrupted as stopped:
            if not (run.keep_unfinished and trainer.state.history):
                raise
            run.stops.append(stopped)
        return trainer.finish()


class Trainer:
    """Takes a `TrainState` through the stages of a recipe."""

    def __init__(
        self, build: Callable[[Recipe], nn.Module], splits: Splits, run: Run, loss: Loss | None, stop: StopRequest
    ) -> None:
        recipe = self.recipe = run.recipe
        self.splits, self.run, self.stop = splits, run, stop
        self.device = torch.device(run.device)
        self.identity = {"recipe": recipe.sha256(), "data set": run.data_digest, "seed": run.seed}
        self.identity["device"] = self.device.type
        images = {role: len(getattr(splits, role).labels) for role in ("train", "finetune", "select")}
        recipe.require_sound(images)
        for views in (recipe.views, recipe.plain):
            view_count(views)
        self.state = TrainState(build, run, images, loss)
        self.settled = False  # whether this process has settled how the step computes
        self.batch_seconds = 0.0  # of the last batch: one that would end after the time budget does not begin
        self.mark = self.saved_at = time.monotonic()
        self.seen_before = 0  # images trained on by earlier processes
        self.saving = 0.0  # seconds that the last checkpoint took
        cost.reset_peak_memory(self.device)

    def resume(self) -> None:
        """Go on from the newest checkpoint of the run's folder that is whole, if there is one."""
        found = checkpoint.load(self.run.folder, self.identity, self.state.load_state_dict, owner=True)
        self.seen_before = self.state.images_seen
        if found is not None and self.state.status == "running":
            mode, new = self.state.mode, self.state.step.mode
            assert mode is not None, "what is loaded has a mode"
            other = (
                "" if mode.precision == new.precision else f" as it began (a new run computes in {new.precision} here)"
            )
            log.info(
                f"going on after epoch {len(self.state.history)} of {self.recipe.epochs} in {mode.precision}{other}"
            )

    def train(self) -> None:
        """Every stage from where the state stands."""
        state = self.state
        if state.status != "running":
            return
        self.mark = self.saved_at = time.monotonic()
        threads = torch.get_num_threads()
        if state.threads[-1:] != [threads]:
            if state.threads:
                log.info(f"{state.threads[-1]} threads before, {threads} now: the last digits may differ")
            state.threads.append(threads)
        for index in range(max(state.stage, 0), len(self.recipe.stages)):
            if index != state.stage:
                state.begin_stage(index)
            stage = self.recipe.stages[index]
            images, labels = self._resident(getattr(self.splits, stage.images))
            select = self._resident(self.splits.select)
            self._settle(stage, images, labels)
            while not state.stage_over():
                self._run_epoch(images, labels)
                if not self._end_epoch(stage, select):
                    return
        # A stage ended by its patience leaves epochs of the recipe undone.
        state.status = "done" if len(state.history) == self.recipe.epochs else "stopped early"
        self.save()

    def _run_epoch(self, images: Tensor, labels: Tensor) -> None:
        """Every batch of a new permutation, or those that are left of one that was interrupted."""
        state, order = self.state, self.state.order
        if order is None:
            self._clock("total")
            order = state.begin_epoch()
        state.model.train()
        size, guard = state.step.recipe.batch_size, has_batch_norm(state.model)
        while state.batch * size < len(labels):
            if self.stop.reason or self.run.out_of_time(self.batch_seconds):
                self._interrupt()
            if time.monotonic() - self.saved_at > SAVE_EVERY:
                self.save()
            chosen = order[state.batch * size : (state.batch + 1) * size]
            # A last batch of one sample has no variance that batch norm could divide by.
            if not (guard and len(chosen) * state.step.augment.copies == 1 and state.batch):
                began = time.monotonic()
                state.step(images[chosen], labels[chosen], chosen)
                state.after_batch(len(chosen))
                self.batch_seconds = time.monotonic() - began
            state.batch += 1
            if self.run.turn:
                self.run.turn.yield_turn()
        state.order = None

    def _end_epoch(self, stage: Stage, select: Part) -> bool:
        """Measure, remember, step the schedule, save; False if the run diverged."""
        state = self.state
        loss, hits, samples = state.step.totals.tolist()
        self._clock("training")
        state.epoch += 1
        if not math.isfinite(loss) or not all_finite(state.scored):
            self._diverged(stage)
            return False
        accuracy, select_loss = self._measure(*select)
        row = {
            "stage": stage.name,
            "epoch": len(state.history) + 1,
            "lr": state.optimiser.param_groups[0]["lr"],
            "loss": loss / samples,
            "train_accuracy": hits / samples,
            "select_accuracy": accuracy,
            "select_loss": select_loss,
        }
        state.remember(accuracy, select_loss)
        state.schedule.after_epoch(accuracy, select_loss)
        self._clock("total")
        state.history.append(row | {"seconds": round(state.seconds["epoch"], 3)})
        self.run.history[:] = state.history
        if self.run.keep_epochs:  # before the checkpoint: what that says is done is never without its weights
            epoch_weights.keep(self.run.folder, row["epoch"], state.good)
        if self.saving <= SAVING_SHARE * (time.monotonic() - self.saved_at):
            self.save()
        # After saving: what was printed is not lost, whatever happens to whoever reads it.
        log_epoch(self.recipe, state.history, state.best.epoch)
        return True

    def _measure(self, images: Tensor, labels: Tensor) -> tuple[float | None, float | None]:
        """Accuracy and cross-entropy on the images that select; None where there are none."""
        if len(labels) == 0:
            return None, None
        classifier = NetworkClassifier(self.state.measured, self.recipe, self.device, self.state.step.memory_format)
        scores = classifier.log_probabilities(images, with_views=self.recipe.selection.views)
        hits, loss = (
            (scores.argmax(dim=1) == labels).to(exact(self.device)).mean(),
            nn.functional.nll_loss(scores, labels),
        )
        return hits.item(), loss.item()

    def _settle(self, stage: Stage, images: Tensor, labels: Tensor) -> None:
        """How this run computes: by rule at its start, then as it was begun; a long run times the rest on a GPU."""
        state, compile_ = self.state, self.run.execution.compile
        state.mode = state.mode or agreeing(state.step, images, labels)
        left = stage.epochs * math.ceil(len(labels) / state.step.recipe.batch_size)
        worth = left >= MANY_STEPS or compile_ not in ("auto", "eager")
        again = not self.settled and (worth or state.mode.forward != "eager")
        if again or (worth and untried(self.run.execution, self.device, state.ways)):
            in_time = lambda seconds: not (self.stop.reason or self.run.out_of_time(seconds))  # noqa: E731
            state.mode, state.ways = autotune(state.step, images, labels, state.mode, state.ways, in_time)
        self.settled = True
        state.step.set_mode(state.mode)  # a resumed optimiser's state came after the step was made
        if self.run.deadline is not None and self.device.type == "cpu" and not self.run.out_of_time():
            self.batch_seconds = batch_seconds(state.step, images, labels)

    def _resident(self, part: Any) -> Part:
        """The images of one role on the device (copied: the data set is a read-only memory map)."""
        images = torch.tensor(np.asarray(part.images), device=self.device)
        return images, torch.tensor(np.asarray(part.labels), dtype=torch.long, device=self.device)

    def _diverged(self, stage: Stage) -> None:
        state, done = self.state, len(self.state.history)
        state.model.load_state_dict(state.good)
        state.status = "diverged"
        fp16 = state.mode is not None and state.mode.precision == "fp16"
        beside = ", or a GPU with bf16: this one computed in fp16, whose numbers end at 65,504" if fp16 else ""
        log.info(
            f"diverged: loss or weights of epoch {done + 1} ({stage.name}) are not finite; the weights of epoch "
            f"{done} are kept; try a smaller learning rate or clip_norm{beside}"
        )
        self.save()

    def _interrupt(self) -> None:
        saved = self.state.images_seen > self.seen_before
        if saved:  # a network may be large: nothing new is not written
            self.save()
        self.run.facts["status"] = "interrupted"
        why, stage = self.stop.reason or OUT_OF_TIME, self.recipe.stages[self.state.stage]
        where = f"{why}: stopped in epoch {len(self.state.history) + 1} of {self.recipe.epochs} ({stage.name})"
        if saved:
            raise Interrupted(f"{where}; a checkpoint is saved and the same command goes on from there")
        stopped = Interrupted(f"{where}, before the first batch (about {duration(self.batch_seconds)})")
        stopped.needs = self.batch_seconds
        raise stopped

    def _clock(self, kind: str) -> None:
        """Add the time since the last mark to the run, to the epoch, and to the training time if it was that."""
        now = time.monotonic()
        for key in {"total", "epoch", kind}:
            self.state.seconds[key] += now - self.mark
        self.mark = now

    def save(self) -> None:
        """Write a checkpoint; measures how long that takes."""
        state = self.state
        self._clock("training" if state.order is not None else "total")
        state.peak = max(state.peak, cost.peak_memory(self.device))
        before = self.mark
        checkpoint.save(self.run.folder, self.identity, state.state_dict())
        self._clock("total")
        self.saved_at, self.saving = self.mark, self.mark - before

    def finish(self) -> NetworkClassifier:
        """Load what the selection rule chose, so far if the run was stopped, and fill the run's facts.

        After that the state is not the run's any more: its network has the chosen weights.
        """
        state, size = self.state, self.recipe.input_size
        winner = winner_of(self.recipe, state.state_dict())
        assert winner.weights is not None, "the last epoch always has weights"
        state.model.load_state_dict(winner.weights)
        self.run.history[:] = state.history
        alone = self.run.turn is None  # the seconds are all runs' of this process; speed and memory of one are unknown
        training = state.seconds["training"] if alone else 0.0
        self.run.facts |= {
            "status": "interrupted" if state.status == "running" else state.status,
            "selected_epoch": winner.epoch,
            "seconds": state.seconds["total"],
            "parameters": cost.count_parameters(state.model),
            "multiply_adds": cost.count_multiply_adds(state.model, (1, 1, size, size)),
            "images_per_second": state.images_seen / training if training else None,
            "peak_memory_bytes": state.peak if alone else None,
        }
        if self.run.turn:
            self.run.facts["runs_in_one_process"] = self.run.turn.count
        assert state.mode is not None, "a run that trained has a mode"
        self.run.facts["precision"] = state.mode.precision
        if len(state.threads) > 1:
            self.run.facts["threads"] = state.threads
        if state.ways or state.mode.host_memory:
            self.run.facts["rehearsal"] = vars(state.mode) | {"seconds_per_batch": state.ways}
        return NetworkClassifier(state.model, self.recipe, self.device)
