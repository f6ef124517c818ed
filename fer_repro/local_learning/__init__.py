"""Shared by the methods of local learning: a fit in stages with cached parts, the choice of k and C, the classifier."""

from __future__ import annotations

import hashlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.svm import LinearSVC

from fer_repro.data import FER2013
from fer_repro.local_learning import svm
from fer_repro.recipe import Deviation
from fer_repro.training.artifacts import ArtifactCache
from fer_repro.training.run import Pause, Run, pausable

log = logging.getLogger(__name__)

LEARNING_DEVIATIONS = (
    Deviation(
        "learning",
        "the one-against-all SVMs of one test image are solved together in the dual, not by LIBSVM",
        "same problem and decision values as LIBSVM's (tested), several times faster",
    ),
    Deviation(
        "learning",
        "probabilities are a softmax of the decision values at a temperature fitted on PublicTest",
        "the method gives answers only; this changes none of them",
    ),
)


def score(answers: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """{n, correct, accuracy} of predicted classes."""
    correct = int((answers == labels).sum())
    return {"n": len(labels), "correct": correct, "accuracy": correct / len(labels)}


def best(accuracies: Mapping[Any, float]) -> Any:
    """The key of the highest accuracy; on a tie the first one tried."""
    return max(accuracies, key=accuracies.__getitem__)


@contextmanager
def staged_fit(run: Run, select: FER2013) -> Iterator[StagedFit]:
    """A fit whose finished parts lie in the run's folder, where a resumed run finds them; see `pausable`."""
    identity = {"data": run.data_digest, "seed": run.seed, "train": run.recipe.protocol.train}
    with pausable(run) as pause:
        yield StagedFit(run, select, ArtifactCache(run.folder, identity, run.resume), pause)


class StagedFit:
    """A method is fitted stage by stage; every stage adds a row to the run's history."""

    def __init__(self, run: Run, select: FER2013, artifacts: ArtifactCache, pause: Pause) -> None:
        self.run, self.artifacts, self.pause = run, artifacts, pause
        self.labels = np.asarray(select.labels)
        self.begin = self.last = time.monotonic()

    def seconds(self) -> float:
        """Since the beginning, with the time that earlier runs took for the parts that were found on disk."""
        return time.monotonic() - self.begin + self.artifacts.saved

    def accuracy(self, answers: np.ndarray) -> float:
        """Of predicted classes, on the select images."""
        return score(answers, self.labels)["accuracy"]

    def note(self, stage: str, answers: np.ndarray | None = None) -> None:
        """End a stage: its seconds (without parts found on disk), and the select accuracy where it has answers."""
        now = time.monotonic()
        row: dict[str, Any] = {"stage": stage, "seconds": now - self.last, "select_accuracy": None, "n": None}
        line = f"{stage}: {row['seconds']:.1f} s"
        if answers is not None:
            row |= {"select_accuracy": self.accuracy(answers), "n": len(self.labels)}
            line += f", {'+'.join(self.run.recipe.protocol.select)} accuracy {row['select_accuracy']:.4f}"
        self.run.history.append(row)
        log.info(line)
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
                values = svm.local_decisions(similarity, gram, labels, k, costs, self.pause)
                return np.stack([values[cost] for cost in costs])

            cached = self.artifacts.get_or_compute(f"decisions-{k}", dict(settings) | {"k": k, "C": costs}, decide)
            decisions |= {(k, cost): values for cost, values in zip(costs, cached, strict=True)}
        return decisions, {key: self.accuracy(values.argmax(axis=1)) for key, values in decisions.items()}

    def linear(
        self,
        stage: str,
        rows: np.ndarray | sparse.csr_matrix,
        labels: np.ndarray,
        query: np.ndarray | sparse.csr_matrix,
        costs: tuple[float, ...],
    ) -> LinearSVC:
        """The stage of one linear SVM for all faces, its C chosen on the select images, which are ``query``."""
        accuracies = {}
        for cost in costs:
            machine = LinearSVC(C=cost, tol=1e-3, random_state=self.run.seed).fit(rows, labels)
            accuracies[machine] = self.accuracy(machine.predict(query))
            self.pause()
        self.note(stage, best(accuracies).predict(query))
        return best(accuracies)


class LocalClassifier(ABC):
    """For every image, an SVM on its nearest training images. ``chosen``: "k", "C", the softmax's "temperature", ..."""

    def __init__(self, chosen: dict[str, Any]) -> None:
        self.chosen = chosen
        self._known: dict[str, np.ndarray] = {}

    @abstractmethod
    def compute(self, images: np.ndarray) -> np.ndarray:
        """One-against-all decision values, float32 [N,7], of uint8 [N,48,48]."""

    def remember(self, images: np.ndarray, decisions: np.ndarray) -> None:
        """Decision values that are known already, so that they are not computed again."""
        self._known[_digest(images)] = decisions

    def decisions(self, images: np.ndarray) -> np.ndarray:
        """`compute`, once for the same images."""
        key = _digest(images)
        if key not in self._known:
            self._known[key] = self.compute(images)
        return self._known[key]

    def predict_proba(self, images: np.ndarray, with_views: bool = False) -> np.ndarray:
        """uint8 [N,48,48] -> float32 [N,7]: softmax of the decision values at the chosen temperature.

        ``with_views`` averages the decision values of the image and its mirror image.
        """
        decisions = self.decisions(images)
        if with_views:
            decisions = (decisions + self.decisions(images[:, :, ::-1])) / 2
        return svm.softmax(decisions, self.chosen["temperature"])


def _digest(images: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(images)).hexdigest()
