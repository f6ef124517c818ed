"""Three seeds of one network: how long they take together, as times of one seed alone.

    python benchmarks/seeds.py [--only deep-emotion] [--seconds 2] [--turns 3] [--device auto]

Ways: one after another in a process; side by side as processes (on a CPU with one thread each); in one process,
alternating batch by batch, each on its own stream on a GPU; and as one network (`torch.vmap` over stacked weights).
Every seed has its own initial weights, order, augmentation and dropout in all of them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from _cases import TRAINING_IMAGES, Case, chosen
from _command import command_line
from _goals import goal, rounded
from _loops import Ours
from _turns import Failed, contestants, race, wait
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from fer_repro.evaluation.cost import environment
from fer_repro.training.execution import resolve_device
from fer_repro.training.interleave import Turn, interleave
from fer_repro.training.optim import make_optimiser

SEEDS = 3
WARM_UP = 3  # batches of each seed that do not count
SECONDS = {"cpu": 2.0, "cuda": 2.0}  # of a turn of one seed
NETWORKS = {"cpu": ("deep-emotion", "mini-resemotenet-c-alone"), "cuda": ("deep-emotion", "resemotenet")}
LIMIT = 1.5  # times one seed, for three of ResEmoteNet on a GPU


class InTurn:
    """Several seeds in one process, one whole stretch after the other."""

    def __init__(self, case: Case, device: str, batch: int, n: int) -> None:
        self.members = [Ours(case, device, batch, n, 0.0, seed=seed) for seed in range(SEEDS)]

    def work(self, steps: int) -> float:
        """Seconds until every seed has done ``steps`` steps."""
        return sum(member.work(steps) for member in self.members)


class BatchByBatch(InTurn):
    """Several seeds in one process, a batch each in turn, with a thread, a stream and random states of their own."""

    def __init__(self, case: Case, device: str, batch: int, n: int) -> None:
        # Made in their threads, as a run is: what works in the first thread alone must not be chosen.
        makers = [lambda turn, seed=seed: Ours(case, device, batch, n, 0.0, seed=seed) for seed in range(SEEDS)]
        self.members = _all(interleave(makers, device))

    def work(self, steps: int) -> float:
        """Seconds from the first seed's start to the last one's end; every thread warms up before."""
        began, ended = [], []

        def train(member: Ours, turn: Turn) -> None:
            for number in range(-WARM_UP, steps):
                if number == 0:
                    wait(member.device)
                    began.append(time.perf_counter())
                member.train()
                turn.yield_turn()
            wait(member.device)
            ended.append(time.perf_counter())

        device = self.members[0].device
        _all(interleave([partial(train, member) for member in self.members], str(device)))
        return max(ended) - min(began)


def _all(outcomes: list[Any]) -> list[Any]:
    """What all works returned; the first exception is raised."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


class Stacked(InTurn):
    """Several seeds as one network whose weights have one dimension more."""

    def __init__(self, case: Case, device: str, batch: int, n: int) -> None:
        super().__init__(case, device, batch, n)
        first = self.members[0]
        models = [member.model for member in self.members]
        weights, self.buffers = stack_module_state(models)
        self.weights = {name: nn.Parameter(weight.detach()) for name, weight in weights.items()}
        self.optimiser = make_optimiser(first.recipe.stages[0].optimiser, self.weights.values())
        self.loss, self.pace = case.loss(first.recipe), first.pace

        def forward(weights: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
            with torch.autocast(first.device.type, first.step.mode.dtype, enabled=first.step.mode.autocast):
                output = functional_call(models[0], (weights, buffers), (inputs,))
            output = output.float() if isinstance(output, Tensor) else tuple(part.float() for part in output)
            return self.loss(output, targets)

        self.losses = torch.vmap(forward, randomness="different")

    def train(self) -> None:
        batches = [member.step.prepare(*member.next()) for member in self.members]
        inputs, targets = (torch.stack(parts) for parts in zip(*batches, strict=True))
        self.optimiser.zero_grad(set_to_none=True)
        self.losses(self.weights, self.buffers, inputs, targets).sum().backward()
        self.optimiser.step()

    def work(self, steps: int) -> float:
        self.pace.steps("stacked", 0.0, self.train)
        return self.pace.timed(self.train, steps)


# Ways within one process: name -> class whose work(steps) does so many steps of every seed.
IN_ONE_PROCESS: dict[str, Callable[..., Any]] = {
    "one after another": InTurn,
    "a batch each in turn": BatchByBatch,
    "stacked with vmap": Stacked,
}
SIDE_BY_SIDE = "side by side as processes"


def run(
    only: str = "",
    seconds: float | None = None,
    turns: int = 3,
    device: str = "auto",
    small: bool = False,
    images: int = TRAINING_IMAGES,
) -> dict[str, Any]:
    """Measure and return everything, JSON-ready; the options are those of the benchmark ``train``."""
    device = resolve_device(device)
    seconds, networks = seconds or SECONDS[device], {}
    for name in chosen(only, NETWORKS[device]):
        print(f"{name}: {SEEDS} seeds", file=sys.stderr, flush=True)
        case = Case(name, small)
        try:
            networks[name] = case.facts() | measure(case, device, seconds, turns, images)
        except Failed as error:
            networks[name] = case.facts() | {"failed": {"one": str(error)}}
    best = networks.get("resemotenet", {}).get("best_ratio")
    what = f"ResEmoteNet: {SEEDS} seeds together, times one"
    return rounded(
        {
            "what": f"{SEEDS} seeds of one network, as times of one",
            "device": device,
            "seeds": SEEDS,
            "seconds_a_turn": seconds,
            "turns": turns,
            "networks": networks,
            "goals": [goal(what, "cuda", device, best, LIMIT, at_least=False)],
            "environment": environment(),
        }
    )


def measure(case: Case, device: str, seconds: float, turns: int, images: int) -> dict[str, Any]:
    """One network: images per second of one seed and, over all seeds, of each way; the time for all as times of one."""
    threads = 1 if device == "cpu" else None
    with contestants(one=(Ours, case, device, None, images, seconds)) as first:
        one = first["one"]
        facts = one.ask("facts")
        batch, steps = facts["batch"], one.ask("steps", seconds)
        makers = {name: (make, case, device, batch, images) for name, make in IN_ONE_PROCESS.items()}
        apart = {
            f"seed {seed}": (Ours, case, device, batch, images, 0.0, None, False, seed, threads)
            for seed in range(SEEDS)
        }
        with contestants(**makers, **apart) as sides:
            together = [sides[name] for name in apart]

            def at_once() -> float:
                for side in together:
                    side.start("work", steps)
                return SEEDS * steps * batch / max([side.finish() for side in together])

            ways: dict[str, Callable[[], float]] = {"one": lambda: steps * batch / one.ask("work", steps)}
            for name in makers:
                ways[name] = lambda side=sides[name]: SEEDS * steps * batch / side.ask("work", steps)
            ways[SIDE_BY_SIDE] = at_once
            for side in together:
                side.ask("work", 1)
            best, failed = race(ways, turns)
    if "one" not in best:
        raise Failed(failed["one"])
    ratios = {name: SEEDS * best["one"] / rate for name, rate in best.items() if name != "one"}
    return {
        "batch": batch,
        "steps_a_turn": steps,
        "images_per_second": best,
        "times_of_one": ratios,
        "best_way": min(ratios, key=ratios.get) if ratios else None,
        "best_ratio": min(ratios.values(), default=None),
        "threads_each_side_by_side": threads,
        "failed": failed,
    }


if __name__ == "__main__":
    command_line(run, __doc__)
