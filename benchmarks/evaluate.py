"""Scoring the test images: `NetworkClassifier` against PIL crops in a DataLoader, batches of 64, one copy back each.

    python benchmarks/evaluate.py [--only vggnet] [--seconds 3] [--turns 3] [--device auto]

Both score the same noise with the same weights and the recipe's own test-time augmentation, and must agree. On a CPU
fewer images are scored than PublicTest has where those would not fit into a turn; the number is reported.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from _cases import PUBLIC_IMAGES, Case, chosen, random_faces
from _command import command_line
from _goals import rounded
from _pil import predict, worker_counts
from _turns import Failed, Pace, contestants, race
from torch import nn

from fer_repro.errors import FerReproError
from fer_repro.evaluation.cost import environment
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.evaluation.tta import view_batch
from fer_repro.layers import as_input, normalise_
from fer_repro.recipe import Recipe
from fer_repro.training.execution import ExecutionOptions, resolve_device

NETWORKS = ("vggnet", "resnet18-tricks", "resemotenet", "deep-emotion")
SECONDS = {"cpu": 3.0, "cuda": 2.0}  # of a turn
SETTLED, FEW = 32, 16  # images for batch norm's averages, and to find how many fit into a turn
# Largest difference of two probabilities: arithmetic in another order; 8-bit rounding where PIL resizes the image.
TOLERANCE, TOLERANCE_RESIZED = 1e-3, 3e-2


def settled(case: Case, recipe: Recipe) -> nn.Module:
    """The untrained network with batch norm's averages of some noise, the same in every process."""
    torch.manual_seed(0)
    model = case.build(recipe)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the plain mean of what it sees
    whole = normalise_(as_input(torch.from_numpy(random_faces(SETTLED, 1)[0])), recipe.mean, recipe.std)
    with torch.no_grad():
        model.train()(view_batch(whole, recipe.plain, recipe.input_size))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


class Library:
    """`NetworkClassifier.predict_proba` with the recipe's test-time augmentation."""

    def __init__(self, case: Case, device: str, n: int, seconds: float) -> None:
        self.recipe, self.device = case.recipe(), torch.device(device)
        self.pace = Pace(self.device)
        model = ExecutionOptions().to_device(settled(case, self.recipe), self.device)  # as at the end of a run
        self.classifier = NetworkClassifier(model, self.recipe, self.device)
        self.images = random_faces(n)[0]
        if self.device.type == "cpu":
            self.predict(FEW)
            an_image = self.pace.timed(lambda: self.predict(FEW), 1) / FEW
            self.images = self.images[: max(FEW, min(n, int(seconds / an_image)))]

    def predict(self, n: int) -> np.ndarray:
        return self.classifier.predict_proba(self.images[:n], with_views=True)

    def facts(self) -> dict[str, Any]:
        return {"images": len(self.images), "views": str(self.recipe.views), "input_size": self.recipe.input_size}

    def turn(self) -> float:
        """Images per second, all of them scored once."""
        self.pace.steps("score", 0.0, lambda: self.predict(len(self.images)), least=1)
        return len(self.images) / self.pace.timed(lambda: self.predict(len(self.images)), 1)

    def probabilities(self) -> np.ndarray:
        return self.predict(len(self.images))


class Habit(Library):
    """What a user would write: PIL crops of each image, a DataLoader, the predictions copied back batch by batch."""

    def __init__(self, case: Case, device: str, n: int) -> None:
        self.recipe, self.device = case.recipe(), torch.device(device)
        self.pace, self.workers = Pace(self.device), 0
        self.model, self.images = settled(case, self.recipe).to(self.device), random_faces(n)[0]

    def predict(self, n: int) -> np.ndarray:
        return predict(self.model, self.recipe, self.recipe.views, self.images[:n], self.device, self.workers)

    def choose_workers(self) -> dict[str, float]:
        """Images per second with each number of workers; the best one is used from now on."""
        rates = {}
        for self.workers in worker_counts():
            rates[self.workers] = self.turn()
        self.workers = max(rates, key=rates.get)
        return {str(count): rate for count, rate in rates.items()}


def run(
    only: str = "",
    seconds: float | None = None,
    turns: int = 3,
    device: str = "auto",
    small: bool = False,
    images: int = PUBLIC_IMAGES,
) -> dict[str, Any]:
    """Measure and return everything, JSON-ready; the options are those of the benchmark ``train``."""
    device = resolve_device(device)
    seconds, networks = seconds or SECONDS[device], {}
    for name in chosen(only, NETWORKS):
        print(f"{name}: scoring", file=sys.stderr, flush=True)
        case = Case(name, small)
        try:
            networks[name] = case.facts() | measure(case, device, seconds, turns, images)
        except Failed as error:
            networks[name] = case.facts() | {"failed": {"ours": str(error)}}
    return rounded(
        {
            "what": "scoring with the recipe's views, images per second",
            "device": device,
            "seconds_a_turn": seconds,
            "turns": turns,
            "networks": networks,
            "goals": [],
            "environment": environment(),
        }
    )


def measure(case: Case, device: str, seconds: float, turns: int, images: int) -> dict[str, Any]:
    """One network, both ways side by side. Raises `Failed`, and `FerReproError` where the two disagree."""
    with contestants(ours=(Library, case, device, images, seconds)) as first:
        ours = first["ours"]
        facts = ours.ask("facts")
        with contestants(reference=(Habit, case, device, facts["images"])) as second:
            reference = second["reference"]
            workers = reference.ask("choose_workers")
            chosen_workers = max(workers, key=workers.get)
            best, failed = race({"ours": lambda: ours.ask("turn"), "reference": lambda: reference.ask("turn")}, turns)
            if failed:
                raise Failed(next(iter(failed.values())))
            agreement = compare(case, facts, ours.ask("probabilities"), reference.ask("probabilities"))
    return (
        facts
        | best
        | agreement
        | {
            "ratio": best["ours"] / best["reference"],
            "workers": int(chosen_workers),
            "workers_tried": workers,
            "public_test_seconds": PUBLIC_IMAGES / best["ours"],
            "public_test_seconds_reference": PUBLIC_IMAGES / best["reference"],
            "failed": {},
        }
    )


def compare(case: Case, facts: dict[str, Any], ours: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Share of equal answers and the largest difference of a probability; both float32 [N,7]."""
    apart = float(np.abs(ours - reference).max())
    resized = facts["input_size"] not in (case.recipe().views.size, 48)
    if not apart <= (TOLERANCE_RESIZED if resized else TOLERANCE):
        raise FerReproError(f"benchmark evaluate: {case.name}: the two ways differ by {apart:.2g} in a probability")
    return {"agreement": float((ours.argmax(1) == reference.argmax(1)).mean()), "largest_difference": apart}


if __name__ == "__main__":
    command_line(run, __doc__)
