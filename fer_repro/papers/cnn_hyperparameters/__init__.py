"""CNN Hyperparameter Optimisation: a plain network whose sizes were found by random search.

A. Vulpe-Grigorasi, O. Grigore: "Convolutional Neural Network Hyperparameters Optimization for Facial Emotion
Recognition", ATEE 2021, doi:10.1109/ATEE52255.2021.9425073.

Idea: list a few values for every size and learning rate of a five-layer network, draw combinations at random, keep the
best. Claim: 72.16 %. Five facts (accuracy claimed and measured, parameters, cost, hardware) stand in the claim and in
``results/cnn-hyperparameters/``; the chapter prints them.

Sources. The paper could not be read. The network is the one on which three re-implementations agree; recipe and
augmentation are those of the linked one (jiantenggei, commit 85de89f), which holds no search. The search space and
the number of trials are ours.

Protocols. ``claimed`` trains as the linked code does: until PublicTest's loss has not fallen for ten epochs, then the
last weights are scored. ``official`` halves the learning rate on a plateau and scores the best epoch by PublicTest.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from fer_repro.data.protocol import OFFICIAL, Protocol, Splits
from fer_repro.errors import FerReproError
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.files import atomic_write, sha256_of, writable
from fer_repro.layers import keras_batch_norm, keras_init_
from fer_repro.logs import rewritten
from fer_repro.papers.base import Released, State, Variant, deviations
from fer_repro.papers.cnn_hyperparameters import search
from fer_repro.pretrained import keras
from fer_repro.recipe import Recipe, Selection, Stage, Step, step
from fer_repro.training import loop
from fer_repro.training.checkpoint import writer
from fer_repro.training.progress import stop_requests
from fer_repro.training.run import OUT_OF_TIME, Interrupted, Run
from fer_repro.training.soundness import require, require_like

log = logging.getLogger(__name__)

SLUG, SEARCH = "cnn-hyperparameters", "cnn-hyperparameters-search"
FOUND = step("found by the search")  # stands in a recipe for what only the search determines
# Which test set the paper scored is unknown; the linked code stops on PublicTest and scores PrivateTest.
CLAIMED = Protocol("claimed")

# The published configuration and, around it, the values to draw from: the space is our choice, the paper's is unknown.
CONVS = ("conv1", "conv2", "conv3", "conv4", "conv5")
PUBLISHED = dict(zip(CONVS, (256, 512, 384, 192, 384), strict=True)) | {
    "kernel": 3,
    "conv_dropout": 0.4,
    "dense": 256,
    "dense_dropout": 0.3,
    "optimiser": "adam",
    "lr": 1e-3,
}
DEEP, DROPOUT = (128, 192, 256, 384, 512), (0.2, 0.3, 0.4, 0.5)
SPACE = dict(zip(CONVS, ((64, 128, 192, 256), (128, 256, 384, 512), DEEP, DEEP, DEEP), strict=True)) | {
    "kernel": (3, 5),
    "conv_dropout": DROPOUT,
    "dense": (128, 256, 512, 1024),
    "dense_dropout": DROPOUT,
    "optimiser": ("adam", "sgd"),
    "lr": (1e-2, 1e-3, 1e-4),
}
# Momentum of batch norm: Keras', and one that settles within the few steps of a smoke run.
KERAS, FAST = 0.01, 0.1
# The divisors of a smoke run: a narrow network learns nothing under the dropout of a wide one.
NARROW = dict.fromkeys(CONVS, 32) | {"dense": 8, "conv_dropout": 4, "dense_dropout": 4}


class Block(nn.Sequential):
    """Convolution, ReLU, then batch norm, 2x2 max pooling, dropout of single values: [B,C,H,W] -> [B,C',H/2,W/2]."""

    def __init__(self, before: int, after: int, kernel: int, dropout: float) -> None:
        convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2)
        super().__init__(convolution, nn.ReLU(), keras_batch_norm(after), nn.MaxPool2d(2), nn.Dropout(dropout))


class SearchedCNN(nn.Module):
    """Five convolutions and two linear layers, Keras' conventions throughout (linked ``model.py``).

    Input [B,1,48,48] in [0, 1]; output logits [B,7]. ``channels``: of the five convolutions; ``dense``: hidden units;
    ``momentum``: of batch norm's running averages in torch's sense (Keras' default 0.99 is 0.01 here).
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (256, 512, 384, 192, 384),
        kernel: int = 3,
        conv_dropout: float = 0.4,
        dense: int = 256,
        dense_dropout: float = 0.3,
        momentum: float = 0.01,
    ) -> None:
        super().__init__()
        # The first convolution has neither batch norm nor pooling.
        self.stem = nn.Sequential(nn.Conv2d(1, channels[0], kernel, padding=kernel // 2), nn.ReLU())
        self.blocks = nn.Sequential(*(Block(*pair, kernel, conv_dropout) for pair in pairwise(channels)))
        linear = nn.Linear(channels[-1] * 3 * 3, dense)
        self.hidden = nn.Sequential(linear, nn.ReLU(), keras_batch_norm(dense, flat=True), nn.Dropout(dense_dropout))
        self.linear = nn.Linear(dense, 7)
        keras_init_(self)
        for module in self.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.momentum = momentum

    def forward(self, images: Tensor) -> Tensor:
        # First convolution at full resolution: [B,1,48,48] -> [B,256,48,48]
        features = self.stem(images)
        # Four halvings: [B,256,48,48] -> [B,384,3,3]
        features = self.blocks(features)
        # Two linear layers: [B,3456] -> [B,256] -> [B,7]
        return self.linear(self.hidden(features.flatten(1)))


def build(recipe: Recipe) -> nn.Module:
    return SearchedCNN(**recipe.network.kwargs())


def network(configuration: dict[str, Any], momentum: float) -> Step:
    """The network step of a configuration of `SPACE`; ``momentum`` of its batch norm."""
    channels = tuple(configuration[name] for name in CONVS)
    sizes = {name: configuration[name] for name in ("kernel", "conv_dropout", "dense", "dense_dropout")}
    return step("SearchedCNN", channels=channels, momentum=momentum, **sizes)


def optimiser(configuration: dict[str, Any]) -> Step:
    """Adam with Keras' epsilon, or SGD with momentum, at the configuration's learning rate."""
    if configuration["optimiser"] == "adam":
        return step("adam", lr=configuration["lr"], betas=(0.9, 0.999), eps=1e-7)
    return step("sgd", lr=configuration["lr"], momentum=0.9)


def configured(recipe: Recipe, configuration: dict[str, Any]) -> Recipe:
    """``recipe`` with the network and the optimiser of a configuration."""
    stages = tuple(dataclasses.replace(stage, optimiser=optimiser(configuration)) for stage in recipe.stages)
    return dataclasses.replace(recipe, network=network(configuration, recipe.network["momentum"]), stages=stages)


AUGMENT = (
    step("affine", degrees=10, scale=(0.9, 1.1), per_axis=True, interpolation="bilinear", fill="edge"),
    step("flip", p=0.5),
)

DEVIATIONS = deviations(__file__)


def recipe(protocol: str, profile: str) -> Recipe:
    """The published network: 200 epochs on a plateau schedule, or up to 720 at a constant rate with patience."""
    claimed = protocol == "claimed"
    # Keras counts the waiting epochs one fewer than torch, and an improvement in absolute terms.
    plateau = step("reduce-on-plateau", on="loss", factor=0.5, patience=3, threshold=1e-4, threshold_mode="abs")
    full = Recipe(
        variant=SLUG,
        network=network(PUBLISHED, momentum=KERAS),
        protocol=CLAIMED if claimed else OFFICIAL,
        stages=(
            Stage("train", 720, optimiser(PUBLISHED), patience=10)
            if claimed
            else Stage("train", 200, optimiser(PUBLISHED), plateau),
        ),
        augment=AUGMENT,
        loss=step("cross-entropy"),
        batch_size=128,
        # Where the last epoch is scored, the measure is what the patience watches.
        selection=Selection("last", measure="loss") if claimed else Selection("best"),
        deviations=DEVIATIONS["all"] + (() if claimed else DEVIATIONS["official"]),
    )
    return full if profile == "full" else smoke(full)


def narrow(configuration: dict[str, Any]) -> dict[str, Any]:
    """A configuration, or a space, divided by `NARROW`."""

    def divided(value: Any, by: int) -> Any:
        return tuple(divided(each, by) for each in value) if isinstance(value, tuple) else type(value)(value / by)

    return {name: divided(value, NARROW[name]) if name in NARROW else value for name, value in configuration.items()}


def smoke(full: Recipe) -> Recipe:
    """The same steps with a network and schedule that two cores finish in seconds."""
    return full.shrunk(
        network=network(narrow(PUBLISHED), momentum=FAST),
        batch_size=16,
        stages=tuple(stage.shortened(2) for stage in full.stages),
    )


def search_recipe(protocol: str, profile: str) -> Recipe:
    """The published network's recipe with what the search finds in its place; ``options`` hold the search."""
    base = recipe(protocol, profile)
    (stage,) = base.stages
    space, published, trials, epochs = SPACE, PUBLISHED, 30, 20
    if profile == "smoke":
        space, published, trials, epochs = narrow(SPACE), narrow(PUBLISHED), 4, 1
        stage = stage.shortened(1)
    given = {"space": tuple(space.items()), "first": tuple(published.items())}
    return dataclasses.replace(
        base,
        variant=SEARCH,
        network=step(FOUND.name, momentum=base.network["momentum"]),
        stages=(dataclasses.replace(stage, optimiser=FOUND),),
        options=step("random-search", trials=trials, epochs=epochs, patience=5, **given),
        deviations=base.deviations + DEVIATIONS["search"],
    )


def trial_recipe(recipe: Recipe, configuration: dict[str, Any]) -> Recipe:
    """The short training that ranks a configuration: constant learning rate, best epoch by the selection accuracy."""
    options = recipe.options.kwargs()
    stage = Stage("trial", options["epochs"], FOUND, patience=options["patience"])
    return configured(dataclasses.replace(recipe, stages=(stage,), selection=Selection("best")), configuration)


class SearchResult(NetworkClassifier):
    """The network that the search chose, trained in full, with the weights that every trial selected."""

    def __init__(self, final: NetworkClassifier, trials: list[dict[str, Any]], folder: Path) -> None:
        super().__init__(final.model, final.recipe, final.device)
        self.trials, self.folder = trials, folder

    def extra_scores(self, splits: Splits) -> dict[str, Any]:
        """Every trial on the test images, and the gain of choosing there; the search is closed by now."""
        usage, hits = "+".join(self.recipe.protocol.test), {}
        for trial in self.trials:
            if trial["state"] == search.COMPLETE:
                recipe = configured(self.recipe, trial["configuration"])
                model = build(recipe)
                fill(model, weights_of(self.folder, trial["trial"]), trial.get("weights_sha256"))
                answers = NetworkClassifier(model, recipe, self.device).predict_proba(splits.test.images).argmax(axis=1)
                hits[trial["trial"]] = answers == np.asarray(splits.test.labels)
        scored = {number: {usage: share(int(hit.sum()), len(hit))} for number, hit in hits.items()}
        trials = [trial | scored.get(trial["trial"], {}) for trial in self.trials]
        return {"trials": trials, "pretence": search.selection_gain(hits, search.best(self.trials)["trial"])}


def share(correct: int, n: int) -> dict[str, float]:
    return {"n": n, "correct": correct, "accuracy": correct / n}


def weights_of(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:02d}.safetensors"


def fill(model: nn.Module, path: Path, sha256: str | None) -> None:
    """Load what a trial selected into its network; ``sha256`` of the file, or None in a search of an earlier version.

    Raises `FerReproError` where the file is damaged or missing.
    """
    try:
        require(sha256 in (None, sha256_of(path)), "its checksum is not the one in the search's journal")
        weights = load_file(path)
        require_like(model.state_dict(), weights, "weights")
    except (OSError, ValueError, SafetensorError) as error:
        raise FerReproError(
            f"the weights {path} of a finished trial cannot be read ({error}): copy that file back, or run without "
            "resume to begin the search anew"
        ) from error
    model.load_state_dict(weights)


def fit_search(splits: Splits, run: Run) -> SearchResult:
    """Run the search, train the best configuration on the selection set in full, and return that network.

    Journal, trials and final training are in ``run.folder`` and go on from there. Fills ``run.facts`` with all trials.
    Raises `Interrupted` at a checkpoint (time budget, Ctrl-C) and `FerReproError` where no trial completed.
    """
    options = run.recipe.options.kwargs()
    space, first = dict(options["space"]), dict(options["first"])
    device = torch.device(run.device).type
    identity = {"recipe": run.recipe.sha256(), "data set": run.data_digest, "seed": run.seed, "device": device}
    with writer(run.folder), stop_requests(run.stop) as request:

        def pause() -> None:
            if request.reason or run.out_of_time():
                why = request.reason or OUT_OF_TIME
                raise Interrupted(f"{why}: stopped between two trials; the same command goes on with the search")

        if not run.resume:
            search.discard(run.folder)
        journal = search.Search(run.folder, space, run.seed, first, identity)
        journal.run(options["trials"], trainer(splits, run), pause)
        trials = journal.records()
        for left in run.folder.glob("trial-*/"):  # checkpoints of trials that failed
            shutil.rmtree(left)
        chosen = search.best(trials)
        log.info(f"chosen by {'+'.join(run.recipe.protocol.select)}: trial {chosen['trial']}, {chosen['value']:.2%}")
        final = configured(run.recipe, chosen["configuration"])
        classifier = loop.fit(build, splits, dataclasses.replace(run, recipe=final, folder=run.folder / "final"))
    run.facts["trials"] = trials
    run.facts["fanova"] = search.fanova(trials, space)
    run.facts["seconds"] += sum(record.get("seconds", 0.0) for record in trials)
    peaks = [facts.get("peak_memory_bytes") for facts in (run.facts, *trials)]
    run.facts["peak_memory_bytes"] = max((peak for peak in peaks if peak is not None), default=None)
    return SearchResult(classifier, trials, run.folder)


def trainer(splits: Splits, run: Run) -> Callable[[int, dict[str, Any]], dict[str, Any]]:
    """The function that trains one configuration briefly and returns its score on the selection set."""
    select, total = "+".join(run.recipe.protocol.select), run.recipe.options["trials"]

    def attempt(number: int, configuration: dict[str, Any]) -> dict[str, Any]:
        short, folder = trial_recipe(run.recipe, configuration), run.folder / f"trial-{number:02d}"
        inner = dataclasses.replace(run, recipe=short, folder=folder, resume=True, history=[], facts={})
        with rewritten(lambda line: f"trial {number} of {total}: {line}"):
            classifier = loop.fit(build, splits, inner)
        if (facts := inner.facts)["status"] == "diverged":
            raise search.TrialFailed(f"diverged in epoch {len(inner.history) + 1}: loss or weights are not finite")
        path = weights_of(run.folder, number)
        with writable(path), atomic_write(path) as file:
            file.write(save({name: part.contiguous() for name, part in classifier.model.state_dict().items()}))
        shutil.rmtree(inner.folder)
        value, n = inner.history[facts["selected_epoch"] - 1]["select_accuracy"], len(splits.select.labels)
        outcome = {"value": value, "epochs": len(inner.history), select: share(round(value * n), n)}
        outcome["weights_sha256"] = sha256_of(path)
        names = ("selected_epoch", "parameters", "multiply_adds", "seconds", "peak_memory_bytes")
        return outcome | {name: facts[name] for name in names}

    return attempt


def pipeline(recipe: Recipe) -> list[tuple[str, str]]:
    """The steps of the search as (name, what happens), with the recipe's own settings: the chapter draws them."""
    options, space = recipe.options.kwargs(), dict(recipe.options["space"])
    select, test = ("+".join(usages) for usages in (recipe.protocol.select, recipe.protocol.test))
    return [
        ("space", f"{len(space)} hyper-parameters, {search.size(space):,} configurations"),
        ("draw", f"{options['trials']} of them: first the published one, the others by Optuna's random sampler"),
        ("train", f"each for at most {options['epochs']} epochs, patience {options['patience']}"),
        ("rank", f"by the best {select} accuracy of each; failed trials stay in the record"),
        ("train in full", f"the first of the ranking, at most {recipe.epochs} epochs"),
        ("score", f"{test} once: the trained network, and every trial to measure the selection bias"),
    ]


def _arranged(state: State) -> State:
    """Keras flattens maps [3,3,C] position by position, torch channel by channel."""
    named = keras.counted(keras.as_torch(state), ("conv2d", "batch_normalization", "dense"))
    weight = named.get("dense_0.weight")
    if weight is not None and weight.dim() == 2 and weight.shape[1] % 9 == 0:
        named["dense_0.weight"] = weight.unflatten(1, (3, 3, -1)).permute(0, 3, 1, 2).flatten(1)
    return named


RELEASED = Released(
    at="nothing is published",
    published=False,
    url="https://github.com/jiantenggei/Convolutional-Neural-Network-Hyperparameters-Optimization-for-Facial-Emotion-Recognition",
    trained_on="Training",
    selected_on="PublicTest ends the training; the last epoch is scored",
    arrange=_arranged,
    rename=(
        (r"^conv2d_0\.", "stem.0."),
        (r"^conv2d_(\d+)\.", lambda found: f"blocks.{int(found[1]) - 1}.0."),
        (r"^batch_normalization_4\.", "hidden.2."),
        (r"^batch_normalization_(\d+)\.", r"blocks.\1.2."),
        (r"^dense_0\.", "hidden.0."),
        (r"^dense_1\.", "linear."),
    ),
)

# What the chapter shows of the source: network, loss, and what is special to the method.
SHOWN = (SearchedCNN, Block)

VARIANTS = (
    Variant(
        id=SLUG,
        slug=SLUG,
        recipe=recipe,
        build=build,
        fit=lambda splits, run: loop.fit(build, splits, run),
        released=RELEASED,
    ),
    Variant(id=SEARCH, slug=SLUG, recipe=search_recipe, fit=fit_search, ablation_of=SLUG),
)
