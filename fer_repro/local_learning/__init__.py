"""What the methods of local learning share: stages whose pieces stay on disk, the choice of k and C, the classifier."""

from __future__ import annotations

import hashlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from fer_repro.data.dataset import FER2013
from fer_repro.local_learning import svm
from fer_repro.training.artifacts import ArtifactCache
from fer_repro.training.checkpoint import writer
from fer_repro.training.progress import stop_requests
from fer_repro.training.run import Interrupted, Run

log = logging.getLogger(__name__)

Pause = Callable[[], None]


def score(answers: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """{n, correct, accuracy} of predicted classes."""
    correct = int((answers == labels).sum())
    return {"n": len(labels), "correct": correct, "accuracy": correct / len(labels)}


def best(accuracies: Mapping[Any, float]) -> Any:
    """The key of the highest accuracy; on a tie the first one tried."""
    return max(accuracies, key=accuracies.__getitem__)


@contextmanager
def workshop(run: Run, select: FER2013) -> Iterator[Workshop]:
    """The run's folder with its one writer, and the wish to stop, while the block runs.

    Finished pieces lie in the folder and are found again by a resumed run. ``pause`` raises `Interrupted` between two
    pieces when the time budget ends or somebody presses Ctrl-C.
    """
    with writer(run.folder), stop_requests(run.stop) as request:

        def pause() -> None:
            if request.reason or run.out_of_time():
                why = request.reason or "the time budget ended"
                raise Interrupted(f"{run.recipe.variant}: stopped ({why}); the same command goes on from what is kept")

        identity = {"data": run.data_digest, "seed": run.seed, "train": run.recipe.protocol.train}
        yield Workshop(run, select, ArtifactCache(run.folder, identity, run.resume), pause)


class Workshop:
    """Where a method is fitted stage by stage; every stage adds a row to the run's history."""

    def __init__(self, run: Run, select: FER2013, artifacts: ArtifactCache, pause: Pause) -> None:
        self.run, self.artifacts, self.pause = run, artifacts, pause
        self.labels = np.asarray(select.labels)
        self.begin = self.last = time.monotonic()

    def seconds(self) -> float:
        """Since the beginning, with what earlier runs paid for the pieces that were found on disk."""
        return time.monotonic() - self.begin + self.artifacts.saved

    def accuracy(self, answers: np.ndarray) -> float:
        """Of predicted classes, on the select images."""
        return score(answers, self.labels)["accuracy"]

    def note(self, stage: str, answers: np.ndarray | None = None) -> None:
        """End a stage: its seconds (without what was found on disk), and the select accuracy where it has answers."""
        now = time.monotonic()
        row: dict[str, Any] = {"stage": stage, "seconds": now - self.last, "select_accuracy": None, "n": None}
        told = f"{stage}: {row['seconds']:.1f} s"
        if answers is not None:
            found = score(answers, self.labels)
            row |= {"select_accuracy": found["accuracy"], "n": found["n"]}
            told += f", {'+'.join(self.run.recipe.protocol.select)} accuracy {found['accuracy']:.4f}"
        self.run.history.append(row)
        log.info(told)
        self.last = now

    def machines(
        self,
        similarity: np.ndarray,
        gram: svm.Gram,
        labels: np.ndarray,
        ks: tuple[int, ...],
        costs: tuple[float, ...],
        settings: Mapping[str, Any],
    ) -> tuple[dict[Any, np.ndarray], dict[Any, float]]:
        """Decision values and accuracy on the select images for every (k, C); ``settings`` decide the kernel."""
        decisions = {}
        for k in ks:

            def decide(k: int = k) -> np.ndarray:
                found = svm.local_decisions(similarity, gram, labels, k, costs, self.pause)
                return np.stack([found[cost] for cost in costs])

            kept = self.artifacts.get_or_compute(f"decisions-{k}", dict(settings) | {"k": k, "C": costs}, decide)
            for cost, values in zip(costs, kept, strict=True):
                decisions[k, cost] = values
        return decisions, {key: self.accuracy(values.argmax(axis=1)) for key, values in decisions.items()}


class LocalClassifier(ABC):
    """For every image, a machine on its nearest training images; ``temperature`` makes its answers probabilities."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self._known: dict[str, np.ndarray] = {}

    @abstractmethod
    def work_out(self, images: np.ndarray) -> np.ndarray:
        """One-against-all decision values, float32 [N,7], of uint8 [N,48,48]."""

    def remember(self, images: np.ndarray, decisions: np.ndarray) -> None:
        """Decision values that are known already, so that nobody works them out again."""
        self._known[digest(images)] = decisions

    def decisions(self, images: np.ndarray) -> np.ndarray:
        """`work_out`, once for the same images."""
        key = digest(images)
        if key not in self._known:
            self._known[key] = self.work_out(images)
        return self._known[key]

    def predict_proba(self, images: np.ndarray, with_views: bool = False) -> np.ndarray:
        """uint8 [N,48,48] -> float32 [N,7]: softmax of the decision values at the temperature fitted on the select
        images.

        ``with_views`` averages the decision values of the image and its mirror image.
        """
        decisions = self.decisions(images)
        if with_views:
            decisions = (decisions + self.decisions(images[:, :, ::-1])) / 2
        return svm.softmax(decisions, self.temperature)


def digest(images: np.ndarray) -> str:
    """sha256 of the pixels."""
    return hashlib.sha256(np.ascontiguousarray(images)).hexdigest()
