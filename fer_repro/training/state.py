"""The state of a run of training: everything that a checkpoint holds, and nothing else that changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_repro.recipe import Recipe, Stage, Step
from fer_repro.training import checkpoint
from fer_repro.training.autotune import Seconds
from fer_repro.training.execution import FORWARDS, ExecutionMode
from fer_repro.training.losses import Loss, make_loss
from fer_repro.training.optim import Ema, make_optimiser, make_schedule
from fer_repro.training.run import Run
from fer_repro.training.selection import Epoch, make_rule
from fer_repro.training.soundness import require, require_like, require_optimiser
from fer_repro.training.step import TrainStep
from fer_repro.training.weights import Weights, copied

ROW: dict[str, Any] = {"stage": "", "epoch": 0, "lr": 0.0, "loss": 0.0, "train_accuracy": 0.0}
ROW |= {"select_accuracy": None, "select_loss": None, "seconds": 0.0}  # of the history, one for each epoch
COUNTERS = ("status", "stage", "epoch", "batch", "seconds", "images_seen", "peak", "history")


class TrainState:
    """Network, average, optimiser, schedule, loss, random generators, and where the run stands.

    ``images``: how many images ``train`` and ``finetune`` hold. ``loss`` replaces the recipe's.
    """

    def __init__(
        self, build: Callable[[Recipe], nn.Module], run: Run, images: Mapping[str, int], loss: Loss | None
    ) -> None:
        self.recipe, self.execution, self.device = run.recipe, run.execution, torch.device(run.device)
        self.build, self.images = build, images
        self.loss = loss or make_loss(run.recipe.loss)
        self.rule = make_rule(run.recipe.selection)
        # Permutation and augmentation draw from their own stream; initialisation and dropout from torch's global one.
        stream = int(np.random.SeedSequence([run.seed % 2**64, 1]).generate_state(1, np.uint64)[0])
        self.generator = torch.Generator(self.device).manual_seed(stream)
        self.model = self._fresh()
        self.status = "running"
        self.history: list[dict[str, Any]] = []
        # The stage under way, its finished epochs, the epoch's finished batches.
        self.stage, self.epoch, self.batch = -1, 0, 0
        self.order: Tensor | None = None  # int64 [N], the epoch's permutation, while one is under way
        self.mode: ExecutionMode | None = None  # how the step computes; a resumed run goes on as it began
        self.ways: Seconds = {}  # what autotuning measured
        self.threads: list[int] = []  # torch's threads of each process in turn, where they changed
        self.best = self.stage_best = Epoch()
        self.good: Weights = {}  # the last weights known to be finite
        self.seconds = {"total": 0.0, "training": 0.0, "epoch": 0.0}
        self.images_seen = self.peak = 0

    def _fresh(self) -> nn.Module:
        return self.execution.to_device(self.build(self.recipe), self.device)

    @property
    def scored(self) -> nn.Module:
        """The network whose weights are kept and scored: the average where there is one and it is to be kept."""
        return self.ema.module if self.ema and self.ema.keep == "average" else self.model

    @property
    def measured(self) -> nn.Module:
        """The network that the select images see: the same one, unless the recipe's ema says otherwise."""
        return self.ema.module if self.ema and self.ema.measure == "average" else self.model

    def begin_stage(self, index: int) -> None:
        """Weights, average, optimiser and schedule of stage ``index``."""
        stage = self.recipe.stages[index]
        if index > 0 and stage.start == "fresh":
            self.model = self._fresh()
        elif index > 0 and stage.start == "best":
            assert self.stage_best.weights is not None, "there are select images: see `Recipe.require_sound`"
            self.model.load_state_dict(self.stage_best.weights)
        self.stage, self.epoch, self.batch, self.order = index, 0, 0, None
        self.stage_best = Epoch()
        self._make_optimiser(stage, fresh=True)
        self.good = copied(self.scored)

    def _make_optimiser(self, stage: Stage, fresh: bool) -> None:
        """For a stage that starts (``fresh``) or is taken up again; a network may have its own part in that."""
        if (prepare := getattr(self.model, "begin_stage", None)) is not None:
            prepare(stage, fresh)
        self.ema = None if self.recipe.ema is None else Ema(self.recipe.ema, self.model)
        recipe = self.recipe.at(stage)
        self.optimiser = make_optimiser(stage.optimiser, self.model.parameters(), self.execution.fused_optimiser)
        self.step = TrainStep(recipe, self.model, self.optimiser, self.generator, self.loss, self.execution)
        batches = math.ceil(self.images[stage.images] / recipe.batch_size)
        self.schedule = make_schedule(stage.schedule, self.optimiser, stage.epochs, batches)

    def begin_epoch(self) -> Tensor:
        """A new permutation of the stage's images, int64 [N]."""
        count = self.images[self.recipe.stages[self.stage].images]
        self.order = torch.randperm(count, generator=self.generator, device=self.device)
        self.step.totals.zero_()
        self.batch, self.seconds["epoch"] = 0, 0.0
        return self.order

    def after_batch(self, images: int) -> None:
        """Step the schedule and the average."""
        self.schedule.after_batch()
        if self.ema:
            self.ema.after_batch(self.model)
        self.images_seen += images

    def remember(self, accuracy: float | None, loss: float | None) -> None:
        """Keep the epoch's weights if they are the best of the stage or of the run; the first of equals stays."""
        self.good = copied(self.scored)
        epoch = Epoch(self.rule.value(accuracy, loss), len(self.history) + 1, self.good)
        if epoch.value > self.stage_best.value:
            self.stage_best = epoch
        if epoch.value > self.best.value:
            self.best = epoch

    def stage_over(self) -> bool:
        """Whether the stage has all its epochs, or its patience is over."""
        stage = self.recipe.stages[self.stage]
        waited = len(self.history) - (self.stage_best.epoch or 0)
        given_up = self.epoch > 0 and stage.patience is not None and waited >= stage.patience
        return self.order is None and (self.epoch >= stage.epochs or given_up)

    def state_dict(self) -> dict[str, Any]:
        # Between epochs the good weights are the scored ones, unless the run has just diverged.
        between_epochs = self.order is None and self.status != "diverged"
        return {name: getattr(self, name) for name in COUNTERS} | {
            "order": self.order,
            "totals": self.step.totals,
            "updates": self.step.done,
            "scaler": self.step.scaler.state_dict(),
            "choice": vars(self.mode) if self.mode else None,
            "ways": self.ways,
            "threads": self.threads,
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
        """Take up ``state`` (on the CPU); the random states come last, after everything that draws.

        Raises an exception of any kind, and must not be used then, where ``state`` is none that this recipe leads to.
        """
        self._require_sound(state)
        for name in COUNTERS:
            setattr(self, name, state[name])
        self.order = None if state["order"] is None else state["order"].to(self.device)
        # Where nothing had been timed, earlier code wrote no choice, and computed in bf16 on every GPU and on no CPU.
        bf16 = self.recipe.precision == "bf16" and self.device.type == "cuda"
        before = ExecutionMode(self.execution.channels_last, bf16)
        written = vars(before) if state.get("choice") is None else state["choice"]
        choice = {"fp16": False} | written  # an earlier one knew no fp16
        require_like(vars(ExecutionMode()), choice, "choice")
        require(choice["forward"] in FORWARDS, "choice")
        self.mode, self.ways, self.threads = ExecutionMode(**choice), state.get("ways", {}), state.get("threads", [])
        measured = {way: 0.0 if seconds is None else seconds for way, seconds in self.ways.items()}
        require_like(dict.fromkeys(measured, 0.0), measured, "ways")
        require_like([1] * len(self.threads), self.threads, "threads")
        require_like(self.model.state_dict(), state["model"], "model")
        self.model.load_state_dict(state["model"])
        self._make_optimiser(self.recipe.stages[self.stage], fresh=False)
        own = self.state_dict()
        own["random"]["python"] = (*own["random"]["python"][:2], None)  # a normal draw may be waiting there, or not
        for name in ("totals", "ema", "schedule", "loss", "generator", "random"):
            require_like(own[name], state[name], name)
        require_optimiser(self.optimiser, state["optimiser"])
        self.step.scaler = self.mode.scaler(self.device)
        require_like(self.step.scaler.state_dict(), state.get("scaler", {}), "scaler")  # earlier code had none
        self.step.scaler.load_state_dict(state.get("scaler", {}))
        self.step.totals.copy_(state["totals"])
        self.step.done = state.get("updates", 0)
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        if isinstance(self.loss, nn.Module):
            self.loss.load_state_dict(state["loss"])
        self.good = state["good"] or copied(self.scored)
        self.best, self.stage_best = Epoch(**state["best"]), Epoch(**state["stage_best"])
        self.generator.set_state(state["generator"])
        checkpoint.set_random_state(state["random"], self.device)

    def _require_sound(self, state: dict[str, Any]) -> None:
        """Raise an exception where what ``state`` says of itself cannot be so; `require_like` looks at the rest."""
        require(state["status"] in checkpoint.STATUSES, "status")
        counts = [state[name] for name in ("stage", "epoch", "batch", "images_seen", "peak")]
        require(all(type(count) is int and count >= 0 for count in [*counts, state.get("updates", 0)]), "a count")
        index, epoch, batch = counts[:3]
        stage, history, order = self.recipe.stages[index], state["history"], state["order"]
        count = self.images[stage.images]
        require(epoch <= stage.epochs and (order is None or epoch < stage.epochs), f"epoch {epoch} of {stage.epochs}")
        require(batch <= math.ceil(count / self.recipe.at(stage).batch_size), f"batch {batch}")
        if order is not None:
            require_like(torch.empty(count, dtype=torch.int64), order, "order")
            require(order.sort().values.equal(torch.arange(count)), "order")
        require(isinstance(history, list), "history")
        for number, row in enumerate(history, 1):
            require_like(ROW, row, f"epoch {number}")
            require(row["epoch"] == number, f"epoch {number}")
        ended = epoch - (state["status"] == "diverged")
        most = [each.epochs for each in self.recipe.stages[:index]]
        least = [each.epochs if each.patience is None else 1 for each in self.recipe.stages[:index]]
        require(sum(least) <= len(history) - ended <= sum(most), f"{len(history)} epochs in the history")
        require(all(row["stage"] == stage.name for row in history[len(history) - ended :]), "the stage of an epoch")
        require_like(self.seconds, state["seconds"], "seconds")
        require(all(0 <= value < math.inf for value in state["seconds"].values()), "seconds")
        for name in ("best", "stage_best"):
            best = state[name]
            require_like({"value": 0.0, "epoch": None, "weights": best["weights"]}, best, name)
            require((best["epoch"] is None) == (best["weights"] is None), name)
            if best["weights"] is not None:
                require(1 <= best["epoch"] <= len(history), name)
                require_like(state["model"], best["weights"], name)
        if state["good"] is not None:
            require_like(state["model"], state["good"], "good")


def winner_of(recipe: Recipe, state: Mapping[str, Any]) -> Epoch:
    """The epoch whose weights are the result of a run that has ended, or of what a stopped one has so far (at least one
    epoch); ``state`` as `TrainState.state_dict` gives it."""
    weights = state["good"]
    if weights is None:  # between epochs these are the average's, or the network's own
        online = isinstance(recipe.ema, Step) and recipe.ema.get("keep") == "online"
        weights = state["ema"]["module"] if state["ema"] and not online else state["model"]
    return make_rule(recipe.selection).winner(
        Epoch(**state["best"]), Epoch(epoch=len(state["history"]), weights=weights)
    )
