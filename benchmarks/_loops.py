"""The training loops that are compared: this library's step, and the loop that tutorials write."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from _cases import Case, random_faces
from _pil import Faces, loader_options, training_transform, worker_counts
from _turns import Pace
from torch import Tensor
from torch.utils.data import DataLoader

from fer_repro.campaign.throughput import TRAINING
from fer_repro.evaluation import cost
from fer_repro.recipe import Recipe
from fer_repro.training.autotune import MANY_STEPS, autotune
from fer_repro.training.execution import ExecutionOptions
from fer_repro.training.losses import soft
from fer_repro.training.optim import OPTIMISERS, make_optimiser
from fer_repro.training.step import TrainStep
from fer_repro.transforms import mixer

FEW = 4  # images: the smallest batch that is tried where the recipe's does not fit a turn


def endless(faces: Faces, batch: int, device: torch.device, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches as a shuffled DataLoader gives them, epoch after epoch: float [B*K,1,s,s] and int64 [B*K] on the CPU."""
    loader = DataLoader(faces, batch, shuffle=True, drop_last=True, **loader_options(workers, device))
    while True:
        for images, labels in loader:
            copies = images.shape[1] if images.ndim == 5 else 1
            yield images.flatten(0, 1) if copies > 1 else images, labels.repeat_interleave(copies)


class FromLoader(ABC):
    """Turns of a loop that is fed by a DataLoader; ``best`` is the number of workers it is fed fastest with."""

    def __init__(self, case: Case, device: str, batch: int, n: int) -> None:
        self.case, self.device, self.best = case, torch.device(device), 0
        self.recipe = dataclasses.replace(case.recipe(), batch_size=batch)
        self.faces = Faces(*random_faces(n), training_transform(self.recipe))
        self.pace = Pace(self.device)

    @abstractmethod
    def learn(self, batch: tuple[Tensor, Tensor], bf16: bool) -> None:
        """Train on one batch of the loader."""

    def choose_workers(self, seconds: float) -> dict[str, float]:
        """Images per second with each number of workers that is worth a try; the best one is used from now on."""
        rates = {count: self.turn(seconds, workers=count) for count in worker_counts()}
        self.best = max(rates, key=rates.get)
        return {str(count): rate for count, rate in rates.items()}

    def workers(self) -> int:
        return self.best

    def turn(self, seconds: float, bf16: bool = False, workers: int | None = None) -> float:
        """Images per second of one turn: as many batches are fetched as are learnt from.

        Starting the workers and the first batch is not timed, which favours this loop a little.
        """
        workers = self.best if workers is None else workers
        batches = endless(self.faces, self.recipe.batch_size, self.device, workers)
        waiting = [next(batches)]

        def step() -> None:
            self.learn(waiting[0], bf16)
            waiting[0] = next(batches)

        kind = f"{workers} workers, {'bf16' if bf16 else 'fp32'}"
        steps = self.pace.steps(kind, seconds, step)
        took = self.pace.timed(step, steps)
        self.pace.measured(kind, steps, took)
        batches.close()
        return steps * self.recipe.batch_size / took

    def peak_memory(self) -> int:
        return cost.peak_memory(self.device)


class Reference(FromLoader):
    """The ordinary loop: model and batch to the device, forward, loss, backward, update, ``loss.item()``."""

    def __init__(self, case: Case, device: str, batch: int, n: int) -> None:
        super().__init__(case, device, batch, n)
        torch.manual_seed(0)
        self.model = case.build(self.recipe).to(self.device).train()
        optimiser = self.recipe.stages[0].optimiser
        self.optimiser = OPTIMISERS[optimiser.name](self.model.parameters(), **optimiser.kwargs())
        self.loss, self.mix = case.loss(self.recipe), mixer(self.recipe.mix)
        if isinstance(self.loss, torch.nn.Module):
            self.loss.to(self.device)
        self.generator = torch.Generator(self.device).manual_seed(1)
        self.running = 0.0
        cost.reset_peak_memory(self.device)

    def learn(self, batch: tuple[Tensor, Tensor], bf16: bool) -> None:
        inputs, targets = (part.to(self.device, non_blocking=True) for part in batch)
        if self.mix is not None:
            inputs, targets = self.mix(inputs, soft(targets), self.generator)
        self.optimiser.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            output = self.model(inputs)
        output = output.float() if isinstance(output, Tensor) else tuple(part.float() for part in output)
        loss = self.loss(output, targets)
        loss.backward()
        self.optimiser.step()
        self.running += loss.item()


class Ours:
    """`TrainStep` on images that lie on the device as bytes; ``engine`` says how it computes.

    ``batch`` None: the recipe's batch, or its half, quarter, ... so that two steps fit into ``seconds`` on a CPU.
    ``waits``: read the loss after every step, as tutorials do. ``threads``: of torch, None for its own choice.
    """

    def __init__(
        self,
        case: Case,
        device: str,
        batch: int | None,
        n: int,
        seconds: float,
        engine: ExecutionOptions | None = None,
        waits: bool = False,
        seed: int = 0,
        threads: int | None = None,
    ) -> None:
        self.case, self.device, self.waits, self.seed = case, torch.device(device), waits, seed
        self.place = 0
        if threads is not None:
            torch.set_num_threads(threads)
        self.engine = engine or ExecutionOptions()
        self.pace = Pace(self.device)
        images, labels = random_faces(n)
        self.images, self.labels = torch.from_numpy(images).to(self.device), torch.from_numpy(labels).to(self.device)
        torch.manual_seed(seed)
        self.order = torch.randperm(n, device=self.device)
        recipe = case.recipe()
        self._make(recipe)
        if batch is None and self.device.type == "cpu":
            batch = self._fitting(recipe.batch_size, seconds)
        if batch is not None and batch != recipe.batch_size:
            self._make(dataclasses.replace(recipe, batch_size=batch))
        self.rehearsal: dict[str, float] = {}
        self._rehearse()
        self.kept: tuple[Tensor, Tensor] | None = None
        cost.reset_peak_memory(self.device)

    def _make(self, recipe: Recipe) -> None:
        torch.manual_seed(self.seed)
        self.recipe = recipe
        self.model = self.engine.to_device(self.case.build(recipe), self.device).train()
        optimiser = make_optimiser(
            recipe.stages[0].optimiser, self.model.parameters(), fused=self.engine.fused_optimiser
        )
        generator = torch.Generator(self.device).manual_seed(self.seed + 1)
        self.step = TrainStep(recipe, self.model, optimiser, generator, self.case.loss(recipe), self.engine)

    def _fitting(self, whole: int, seconds: float) -> int:
        """The recipe's batch, or its half, quarter, ...: the largest of which two steps take at most ``seconds``."""
        sizes = [whole]
        while sizes[0] // 2 >= FEW:
            sizes.insert(0, sizes[0] // 2)
        fits = sizes[0]
        self.step(self.images[:fits], self.labels[:fits])
        for size, larger in zip(sizes, [*sizes[1:], 0], strict=True):
            images, labels = self.images[:size], self.labels[:size]
            step = self.pace.timed(lambda i=images, j=labels: self.step(i, j), 1)
            fits = size
            if not larger or 2 * step * larger / size > seconds:
                break
        return fits

    def _rehearse(self) -> None:
        """What a long run does at its start: choose by measurement how to compute."""
        steps = self.recipe.stages[0].epochs * math.ceil(len(self.labels) / self.recipe.batch_size)
        if steps >= MANY_STEPS:
            mode, self.rehearsal = autotune(self.step, self.images, self.labels)
            self.step.set_mode(mode)

    def next(self) -> tuple[Tensor, Tensor]:
        """The next batch of a shuffled epoch; the last, smaller one is left out here as in the reference."""
        size = self.recipe.batch_size
        if (self.place + 1) * size > len(self.order):
            self.order, self.place = self.order[torch.randperm(len(self.order), device=self.device)], 0
        chosen = self.order[self.place * size : (self.place + 1) * size]
        self.place += 1
        return self.images[chosen], self.labels[chosen]

    def train(self) -> None:
        self.step(*self.next())
        if self.waits:
            self.step.totals[0].item()

    def turn(self, seconds: float) -> float:
        """Images per second of one turn."""
        return self._turn("train", seconds, self.train)

    def work(self, steps: int) -> float:
        """Seconds that so many steps take, after one that warms up where none ran before."""
        self.pace.steps("train", 0.0, self.train)
        return self.pace.timed(self.train, steps)

    def steps(self, seconds: float) -> int:
        """How many steps fill a turn of ``seconds``."""
        return self.pace.steps("train", seconds, self.train)

    def synthetic(self, seconds: float) -> float:
        """Images per second of the same step on one batch that was augmented before and lies on the device."""
        self.kept = kept = self.kept or self.step.prepare(*self.next())
        return self._turn("synthetic", seconds, lambda: self.step.learn(*kept))

    def _turn(self, kind: str, seconds: float, step: Any) -> float:
        steps = self.pace.steps(kind, seconds, step)
        took = self.pace.timed(step, steps)
        self.pace.measured(kind, steps, took)
        return steps * self.recipe.batch_size / took

    def facts(self) -> dict[str, Any]:
        """Counted and measured about this loop; call it after its turns and before `synthetic`."""
        size, copies = self.recipe.input_size, self.step.augment.copies
        adds = cost.count_multiply_adds(self.model, (1, 1, size, size))
        return {
            "batch": self.recipe.batch_size,
            "recipe_batch": self.case.recipe().batch_size,
            "copies": copies,
            "input_size": size,
            "epochs": self.case.recipe().epochs,
            "parameters": cost.count_parameters(self.model),
            "precision": self.step.mode.precision,
            "forward": self.step.mode.forward,
            "channels_last": self.step.mode.channels_last,
            "rehearsal": self.rehearsal,
            "peak_memory_bytes": cost.peak_memory(self.device),
            "forward_flops_per_input": 2 * adds,
            # The usual count; torch's counter takes the backward pass of grouped convolutions for that of full ones.
            "training_flops_per_image": TRAINING * adds * copies,
        }

    def matmul_rates(self) -> dict[str, float]:
        """Floating-point operations per second of large matrix products here, the best of several, by precision."""
        n = 256 if self.case.small else 8192 if self.device.type == "cuda" else 2048
        rates = {}
        kinds = [("fp32", torch.float32, False), ("bf16", torch.bfloat16, False)]
        kinds += [("tf32", torch.float32, True)] if self.device.type == "cuda" else []
        before = torch.backends.cuda.matmul.allow_tf32
        for name, dtype, tf32 in kinds:
            torch.backends.cuda.matmul.allow_tf32 = tf32
            a, b = (torch.randn(n, n, device=self.device).to(dtype) for _ in range(2))
            self.pace.timed(lambda a=a, b=b: a @ b, 2)
            rates[name] = 2 * n**3 / min(self.pace.timed(lambda a=a, b=b: a @ b, 1) for _ in range(6))
        torch.backends.cuda.matmul.allow_tf32 = before
        return rates


class Hybrid(FromLoader):
    """This library's step behind a DataLoader of PIL images: what the augmentation alone costs."""

    def __init__(self, case: Case, device: str, batch: int, n: int) -> None:
        super().__init__(case, device, batch, n)
        self.ours = Ours(case, device, batch, n, 0.0)

    def learn(self, batch: tuple[Tensor, Tensor], bf16: bool) -> None:
        step = self.ours.step
        inputs, targets = (part.to(self.device, non_blocking=True) for part in batch)
        if step.mix is not None:
            inputs, targets = step.mix(inputs, soft(targets), step.generator)
        step.learn(inputs.contiguous(memory_format=step.memory_format), targets)
