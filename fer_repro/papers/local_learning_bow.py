"""Local Learning BOW: visual words, presence vectors, and one SVM per test image. No network.

Ionescu, Popescu, Grozea: "Local Learning to Improve Bag of Visual Words Model for Facial Expression Recognition",
ICML 2013 workshop Challenges in Representation Learning; fourth of the contest that FER2013 was made for. The
leaderboard files it under the contest's report (Goodfellow et al., arXiv 1307.0414).

Idea: describe a face by which small gradient patterns (words) occur where, as binary vectors; then, instead of one
classifier for all faces, train a small one-against-all SVM on the nearest training faces of each test face and apply
it to that face only.

Accuracy claimed: 67.484 % on PrivateTest, whose labels were hidden from the contestants.
Accuracy measured, seconds, memory and machine: ``results/local-learning-bow/official/seed-0/result.json``.
Parameters: none are learned by gradient; the recipe names the vocabulary sizes, the result counts support.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.svm import LinearSVC

from fer_repro.data import FER2013, Protocol, Splits
from fer_repro.evaluation.cost import peak_memory
from fer_repro.evaluation.statistics import separate_difference
from fer_repro.local_learning import (
    LEARNING_DEVIATIONS,
    LocalClassifier,
    StagedFit,
    best,
    score,
    staged_fit,
    svm,
    visual_words,
)
from fer_repro.local_learning.pyramid import ASSUMED, SEARCHED_WORDS, WordPyramid, channel_words, local_steps
from fer_repro.markup import percent
from fer_repro.papers.base import Variant, deviations
from fer_repro.recipe import Recipe, Selection, step
from fer_repro.results import HALVES, Result
from fer_repro.training.run import Run

LADDER = ("histogram-global", "presence-global", "pyramid-global", "pyramid-local")


class LocalWords(LocalClassifier):
    """The fitted method. ``machines``: the linear SVMs for all faces of the ladder's first steps, as baselines."""

    def __init__(
        self,
        words: WordPyramid,
        pool: sparse.csr_matrix,
        labels: np.ndarray,
        gram: np.ndarray,
        chosen: dict[str, Any],
        machines: dict[str, LinearSVC],
    ) -> None:
        super().__init__(chosen)
        self.words, self.pool, self.labels, self.gram, self.machines = words, pool, labels, gram, machines

    def compute(self, images: np.ndarray) -> np.ndarray:
        rows, cost = visual_words.weighted_sum(self.words.vectors(images), self.chosen["weights"]), self.chosen["C"]
        similarity, k = svm.kernel(rows, self.pool), self.chosen["k"]
        return svm.local_decisions(similarity, self.gram, self.labels, k, (cost,), pause=self.words.pause)[cost]

    def ladder_scores(self, images: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, float]]:
        """Every step of the ladder on the given images: {step: {n, correct, accuracy}}."""
        (counted,), present = self.words.vectors(images, counts=True), self.words.vectors(images)
        inputs = (counted, present[0], visual_words.weighted_sum(present, self.chosen["weights"]))
        answers = [self.machines[name].predict(rows) for name, rows in zip(LADDER, inputs, strict=False)]
        answers.append(self.decisions(images).argmax(axis=1))
        return {name: score(own, labels) for name, own in zip(LADDER, answers, strict=True)}

    def extra_scores(self, splits: Splits) -> dict[str, Any]:
        """The ladder on both test sets; called once, after every choice."""
        scores = {usage: self.ladder_scores(part.images, part.labels) for usage, part in splits.held_out().items()}
        return {"ladder": [{"step": name} | {usage: own[name] for usage, own in scores.items()} for name in LADDER]}


def fit(splits: Splits, run: Run) -> LocalWords:
    """Words, vectors, kernels; weights, C and k chosen on the select images; the ladder's linear SVMs.

    Parts that take long (vocabularies, words, decision values) are cached in ``run.folder`` for a resumed run.
    """
    with staged_fit(run, splits.select) as stages:
        return _Fit(splits.train, splits.select, stages).fitted()


class _Fit:
    """The stages in their order."""

    def __init__(self, train: FER2013, select: FER2013, stages: StagedFit) -> None:
        self.stages, self.run, self.artifacts, self.pause = stages, stages.run, stages.artifacts, stages.pause
        self.options = self.run.recipe.options.kwargs()
        self.words = WordPyramid(self.options, self.artifacts, self.run.seed, self.pause)
        self.images, self.select = np.asarray(train.images), np.asarray(select.images)
        self.mirrored = self.options["pool"] == "mirrored"
        self.labels = np.tile(train.labels, 2 if self.mirrored else 1)

    def vectors(self, counts: bool = False) -> list[sparse.csr_matrix]:
        """One matrix per channel for the pool of neighbours; with ``counts`` the first channel's histogram alone."""
        pool = self.words.vectors(self.images, "train", counts)
        if not self.mirrored:
            return pool
        more = self.words.vectors(self.images[:, :, ::-1], "train-mirrored", counts)
        return [sparse.vstack(both, format="csr") for both in zip(pool, more, strict=True)]

    def fitted(self) -> LocalWords:
        stages, words, labels = self.stages, self.words, self.labels
        words.fit(self.images)
        stages.note("vocabulary")
        pool = self.vectors()
        query = words.vectors(self.select, "select")
        stages.note("words and vectors")
        weights = self.choose_weights(pool, query)
        rows, joined = (visual_words.weighted_sum(part, weights) for part in (query, pool))
        machines = self.linear((pool[0], joined), (query[0], rows))
        del pool  # the kernel is the largest object in memory: 2 bytes for every pair of training images
        gram = svm.self_kernel(joined, pause=self.pause)
        stages.note("kernel")
        settings = words.settings | {"weights": weights, "pool": self.options["pool"]}
        ks, costs = self.options["k"], self.options["C"]
        decisions, grid = stages.machines(svm.kernel(rows, joined), gram, labels, ks, costs, settings)
        k, cost = best(grid)
        stages.note(LADDER[-1], decisions[k, cost].argmax(axis=1))
        temperature = svm.fit_temperature(decisions[k, cost], stages.labels)
        chosen = {"k": k, "C": cost, "weights": weights, "temperature": temperature}
        self.run.facts |= {
            "status": "done",
            "chosen": chosen,
            "grid": [{"k": k, "C": cost, "select_accuracy": accuracy} for (k, cost), accuracy in grid.items()],
            "vocabularies": {f"cell {cell}": words for cell, words in words.finders},
            "dimensions": int(joined.shape[1]),
            "entries_per_image": float(joined.nnz / joined.shape[0]),
            "pool": len(labels),
            "seconds": stages.seconds(),
            "peak_memory_bytes": peak_memory(torch.device("cpu")),
        }
        classifier = LocalWords(words, joined, labels, gram, chosen, machines)
        classifier.remember(self.select, decisions[k, cost])
        return classifier

    def linear(self, pool: tuple[sparse.csr_matrix, ...], query: tuple[sparse.csr_matrix, ...]) -> dict[str, LinearSVC]:
        """The ladder below local learning: one linear SVM for all faces on counts, on presence, and on the pyramid."""
        pool, query = (*self.vectors(counts=True), *pool), (*self.words.vectors(self.select, "select", True), *query)
        labels, costs = self.labels, self.options["global_C"]
        steps = zip(LADDER, pool, query, strict=False)
        return {name: self.stages.linear(name, rows, labels, select, costs) for name, rows, select in steps}

    def choose_weights(self, pool: list[sparse.csr_matrix], query: list[sparse.csr_matrix]) -> tuple[float, ...]:
        """The level weights that do best on the select images with a part of the pool (whose kernels fit in memory)."""
        tried = self.options["weights"]
        if len(tried) == 1:
            return tried[0]
        thin = np.arange(0, len(self.labels), -(-len(self.labels) // self.options["weight_pool"]))
        grams = [svm.self_kernel(part[thin], pause=self.pause) for part in pool]
        rows = [svm.kernel(own, part[thin]) for own, part in zip(query, pool, strict=True)]
        k, cost = self.options["k"][0], self.options["C"][0]

        def decide(weights: tuple[float, ...]) -> np.ndarray:
            shares = np.array(weights, np.float32) / sum(weights)
            gram, row = (sum(s * m for s, m in zip(shares, part, strict=True) if s) for part in (grams, rows))
            return svm.local_decisions(row, gram, self.labels[thin], min(k, len(thin)), (cost,), self.pause)[cost]

        accuracies = {}
        for weights in tried:
            settings = self.words.settings | {"weights": weights, "k": k, "C": cost, "thin": len(thin)}
            decisions = self.artifacts.get_or_compute("weights", settings, partial(decide, weights))
            accuracies[weights] = self.stages.accuracy(decisions.argmax(axis=1))
        self.run.facts["weights_tried"] = [
            {"weights": list(weights), "pool": len(thin), "select_accuracy": accuracy}
            for weights, accuracy in accuracies.items()
        ]
        self.stages.note("level weights")
        return best(accuracies)


# C as the authors re-used it in their next paper; weights and k ("large") are unknown.
PAPER = ASSUMED | {"pool": "plain", "weights": ((1, 1, 1, 1),), "weight_pool": 9600}
PAPER |= {"k": (1000,), "C": (100.0,), "global_C": (0.3,)}
SEARCHED = PAPER | SEARCHED_WORDS | {"pool": "mirrored", "k": (100, 200, 400), "C": (1.0, 10.0)}
SEARCHED["weights"] = ((1, 1, 1, 1), (0, 1, 1, 1), (1, 2, 2, 2), (1, 1, 2, 2), (2, 2, 1, 1))
SMOKE = {"step": 4, "channels": ((4, 1, 300), (4, 2, 300)), "points_per_word": 15, "iterations": 3}
SMOKE |= {"weights": ((1, 1), (1, 2)), "weight_pool": 240, "k": (50, 100), "C": (1.0,), "global_C": (0.3,)}

DEVIATIONS = deviations(__file__)


def recipe(protocol: str, profile: str) -> Recipe:
    """official: what the search on PublicTest settled on; claimed: the paper's settings as far as they are known."""
    full = Recipe(
        variant="local-learning-bow",
        network=step("none"),
        # The labels of PrivateTest were hidden during the contest: the claimed protocol is the official one.
        protocol=Protocol(protocol),
        selection=Selection("grid"),
        options=step("visual-words", **(PAPER if protocol == "claimed" else SEARCHED)),
        deviations=DEVIATIONS["all"] + LEARNING_DEVIATIONS + DEVIATIONS[protocol],
    )
    return full if profile == "full" else full.shrunk(options=full.options.having(**SMOKE))


def pipeline(recipe: Recipe) -> list[tuple[str, str]]:
    """The method's steps as (name, what happens), with the recipe's own settings, for the chapter's picture."""
    options = recipe.options.kwargs()
    cells, levels, words = channel_words(options["channels"])
    every = "pixel" if options["step"] == 1 else f"{options['step']} pixels"
    return [
        ("dense SIFT", f"every {every} a descriptor of 4×4 cells, each {cells} pixels wide: 128 numbers"),
        ("visual words", f"k-means on Training descriptors; {words} words per vocabulary"),
        ("presence", f"which words occur in which field of {levels} grids; unit length"),
        ("kernel", "weighted sum of the grids' dot products"),
        *local_steps("the k most similar training faces", options),
    ]


# What the chapter shows of the source: network, loss, and what is special to the method.
SHOWN = (
    visual_words.dense_sift,
    visual_words.spatial_words,
    visual_words.weighted_sum,
    svm.neighbours,
    svm.local_decisions,
    LocalWords,
)

VARIANTS = (Variant(id="local-learning-bow", slug="local-learning-bow", recipe=recipe, fit=fit),)


def presence_against_counts(runs: Sequence[Result]) -> list[str]:
    """Sentences on what the ladders of the full runs ``runs`` say of presence vectors alone, and of the abstract's
    statement: presence vectors, local learning and spatial information together gain more than 5 points."""
    lines = []
    for run in runs:
        steps = {one["step"]: one for one in run.record["facts"].get("ladder", ())}
        if not set(LADDER) <= set(steps):
            continue
        counts, presence, *_, method = ([steps[name][half] for half in HALVES] for name in LADDER)
        pairs = [f"{half} {_difference(new, old)}" for new, old, half in zip(presence, counts, HALVES, strict=True)]
        found: dict[str, list[str]] = {}
        for new, old, half in zip(presence, counts, HALVES, strict=True):
            found.setdefault(_effect(new, old), []).append(half)
        seen = " ".join(f"On {' and on '.join(halves)} {effect}." for effect, halves in found.items())
        lines.append(
            f"Presence vectors alone, against the histogram: {', '.join(pairs)}. (95 % intervals of two separate "
            f"proportions: of the steps only counts are stored, not which images were right.) {seen}"
        )
        low, high = (100 * x for x in _gain(method[1], counts[1])[1:])
        agrees = "which agrees" if low > 5 else "which does not agree" if high < 5 else "and 5 lies in the interval"
        lines.append(
            f"The abstract’s statement is of presence vectors, local learning and spatial information together: more "
            f"than 5 points. From the histogram to the whole method we measure, on {HALVES[1]}, "
            f"{_difference(method[1], counts[1])}, {agrees}."
        )
    return lines


def _gain(new: dict[str, float], old: dict[str, float]) -> tuple[float, float, float]:
    """The difference of two steps on one test set, and its interval: fractions."""
    return separate_difference(new["correct"], new["n"], old["correct"], old["n"])


def _effect(new: dict[str, float], old: dict[str, float]) -> str:
    _, low, high = _gain(new, old)
    if low <= 0 <= high:
        return "the interval contains zero: no effect is established"
    return f"they are {'above' if low > 0 else 'below'} the histogram"


def _difference(new: dict[str, float], old: dict[str, float]) -> str:
    """Two steps of a ladder on one test set: the difference in points with its interval, and both accuracies."""
    gap, low, high = (100 * x for x in _gain(new, old))
    accuracies = f"{percent(new['accuracy'])} against {percent(old['accuracy'])}"
    return f"{gap:+.2f} points ({low:+.2f} to {high:+.2f}; {accuracies})"
