"""Residual Masking Network: a ResNet34 whose stages are weighted by small U-Nets, and an ensemble of it with six other
CNNs (Pham, Vu, Tran, ICPR 2020; code phamquiluan/ResidualMaskingNetwork, read at commit 9141618).

Idea: after each stage a U-Net takes the feature maps and gives a mask of their shape; the maps are multiplied by one
plus the mask, so that the network can amplify features and never has to suppress any. Claims: 74.14 % for one network,
76.82 % for the sum of seven networks. Five facts (accuracy claimed and measured, parameters, cost, hardware) stand in
the claims and in ``results/residual-masking*/``; the chapter prints them.

Protocols. Both train on Training, select each network's epoch on PublicTest by a single view, and score PrivateTest.
For one network ``claimed`` and ``official`` are the same recipe under two names: every run records the score of one
view and that of ten random views, which claim and verdict take. The ensemble adds its seven members under both; the
effect of choosing them by PrivateTest, as the published search did, is computed on the page from the members' stored
votes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_repro import pretrained
from fer_repro.data.protocol import OFFICIAL, Protocol, Splits
from fer_repro.errors import FerReproError
from fer_repro.evaluation import cost
from fer_repro.evaluation.predict import NetworkClassifier, require_network
from fer_repro.evaluation.tta import TURNS, turned_views
from fer_repro.layers import MaskingBlock, ResidualBlock
from fer_repro.papers import SCRATCH
from fer_repro.papers.base import Variant, with_scratch
from fer_repro.papers.residual_masking.members import EfficientNet, ResNet
from fer_repro.papers.residual_masking.recipes import DEVIATIONS, KINDS, MEMBERS, ROW, SMOKE_SIZE, TTA_SEED
from fer_repro.papers.residual_masking.released import RELEASED
from fer_repro.recipe import Recipe, Selection, Stage, Step, bind, step
from fer_repro.training import loop
from fer_repro.training.run import Run

log = logging.getLogger(__name__)

CLAIMED = Protocol("claimed")  # the splits of the official one, under the paper's name
ENSEMBLE = "residual-masking-ensemble"
DECIMALS = 4  # to which the release rounds a network's summed probabilities


class ResidualMaskingNetwork(ResNet):
    """ResNet34 with a masking block after each stage (released ``models/resmasking.py``): 137,796,423 parameters.

    Input [B,1,224,224] in [0, 1] (grey; repeated to three channels inside); output logits [B,7]. ``depths``: levels of
    each stage's U-Net; ``gate``: ``softmax`` over the channels, as released, or ``sigmoid``.
    """

    def __init__(
        self,
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        width: int = 64,
        depths: tuple[int, ...] = (4, 3, 2, 1),
        dropout: float = 0.4,
        gate: str = "softmax",
    ) -> None:
        super().__init__("basic", blocks, width, dropout)
        self.masks = nn.ModuleList(MaskingBlock(width * 2**i, depth, gate) for i, depth in enumerate(depths))

    def forward(self, images: Tensor) -> Tensor:
        # 7x7 convolution and pool: [B,1,224,224] -> [B,64,56,56]
        maps = self.stem(images)
        for name, mask in zip(self.stages, self.masks, strict=True):
            # A stage of basic blocks: -> [B,64,56,56], [B,128,28,28], [B,256,14,14], [B,512,7,7]
            maps = getattr(self, name)(maps)
            # Amplified by the mask, same shape; in fp32, because bf16 would round most of 1 + mask to 1
            maps = maps * (1 + mask(maps).float())
        # Mean, dropout, linear layer: -> [B,512] -> [B,7]
        return self.classify(maps)


class Ensemble(nn.Module):
    """Several networks side by side: [B,1,S,S] -> [B,7], the logarithm of their mean probabilities."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        # Each network's log probabilities: [B,1,S,S] -> [M,B,7]
        each = torch.stack([network(images).log_softmax(dim=1) for network in self.networks])
        # Their mean as probabilities: -> [B,7]
        return each.logsumexp(dim=0) - float(np.log(len(self.networks)))


NETWORKS = {"ResidualMaskingNetwork": ResidualMaskingNetwork, "ResNet": ResNet, "EfficientNet": EfficientNet}


def network(described: Step) -> nn.Module:
    return bind(described, NETWORKS, "network")()


def build(recipe: Recipe) -> nn.Module:
    return network(recipe.network)


def build_ensemble(recipe: Recipe) -> nn.Module:
    """The seven networks in the order of `MEMBERS`, ``full`` or ``smoke``."""
    return Ensemble([network(getattr(KINDS[name], recipe.network["size"])) for name in MEMBERS])


# ---- one network -----------------------------------------------------------------------------------------------------


def recipe(variant: str, protocol: str, profile: str) -> Recipe:
    """RAdam in batches of 48, up to 51 epochs, a lower learning rate when PublicTest no longer improves (released
    ``configs/fer2013_config.json`` and ``trainers/tta_trainer.py``: the same for all networks)."""
    kind = KINDS[variant]
    radam = step("radam", lr=1e-4, weight_decay=1e-3, decoupled_weight_decay=True)
    plateau = step("reduce-on-plateau", factor=0.1, patience=2, threshold=1e-4, min_lr=1e-6)
    full = Recipe(
        variant=variant,
        network=kind.full,
        protocol=CLAIMED if protocol == "claimed" else OFFICIAL,
        # The release counts from 0 to 50, and stops at the ninth epoch in a row that is not better.
        stages=(Stage("train", 51, radam, plateau, patience=9),),
        input_size=224,
        augment=(step("resize", size=224), *TURNS),
        loss=step("cross-entropy"),
        batch_size=48,
        selection=Selection("best", views=False),
        views=turned_views(224, seed=TTA_SEED),
        options=step("views", seeds=kind.seeds),
        pretrained=kind.pretrained,
        deviations=(*DEVIATIONS["all"], *kind.deviations),
    )
    return full if profile == "full" else smoke(full)


def smoke(full: Recipe) -> Recipe:
    """The same steps with a network, an image size and a schedule that one core finishes in a second."""
    size, kind = SMOKE_SIZE, KINDS[full.variant]
    return full.shrunk(
        network=kind.smoke,
        input_size=size,
        augment=(step("resize", size=size), *TURNS),
        views=turned_views(size, 3, TTA_SEED),
        options=step("views", seeds=kind.seeds[:1]),
        batch_size=28,
        stages=(Stage("train", 3, step("adam", lr=2e-3)),),
    )


class RandomViews(NetworkClassifier):
    """A trained network that also records how far its score depends on the seed of the random views."""

    def extra_scores(self, splits: Splits) -> dict[str, Any]:
        """``views_by_seed``: for the recipe's seed and each seed in its options, correct answers on both test sets."""
        seeds, own = self.recipe.options.get("seeds", ()), self.recipe.views.seed
        return {"views_by_seed": [self.scored_with(seed, splits) for seed in (own, *seeds)]} if seeds else {}

    def scored_with(self, seed: int, splits: Splits) -> dict[str, Any]:
        """{seed, test set: {n, correct}} with the random views of another seed."""
        views = dataclasses.replace(self.recipe.views, seed=seed)
        other = NetworkClassifier(self.model, dataclasses.replace(self.recipe, views=views), self.device)
        counts = {}
        for part in (splits.select, splits.test):
            # float16 as stored, so that the count of the recipe's own seed is that of the stored predictions.
            scores = other.predict_proba(np.asarray(part.images), with_views=True).astype(np.float16)
            correct = int((scores.argmax(axis=1) == np.asarray(part.labels)).sum())
            counts["+".join(sorted(set(part.usage)))] = {"n": len(part.labels), "correct": correct}
        return {"seed": seed} | counts


def fit(splits: Splits, run: Run) -> RandomViews:
    """Train one network as ``run.recipe`` says, from its pretrained weights."""
    fitted = loop.fit(pretrained.loaded(build), splits, run)
    return RandomViews(fitted.model, fitted.recipe, fitted.device)


# ---- the ensemble ----------------------------------------------------------------------------------------------------


def ensemble_recipe(protocol: str, profile: str, suffix: str = "") -> Recipe:
    """Nothing is trained: eight random views of each network, probabilities summed and rounded, then all added
    (released ``script/gen_results.py`` and ``script/gen_ensemble.py``).

    The options hold the digest of every member's recipe: with another member's recipe it is another ensemble.
    ``suffix``: of the members' ids, for those that start from random weights.
    """
    size = 224 if profile == "full" else SMOKE_SIZE
    recipes = {variant.id: variant.recipe for variant in NETWORK_VARIANTS}
    names = [member + suffix for member in MEMBERS]
    members = tuple((name, recipes[name](protocol, profile).sha256()[:16]) for name in names)
    full = Recipe(
        variant=ENSEMBLE + suffix,
        network=step("Ensemble", size="full"),
        protocol=CLAIMED if protocol == "claimed" else OFFICIAL,
        input_size=size,
        selection=Selection("fixed"),
        views=turned_views(size, 8 if profile == "full" else 3, TTA_SEED),
        options=step("sum", decimals=DECIMALS, members=members),
        deviations=DEVIATIONS["ensemble"] + (DEVIATIONS["scratch"] if suffix else ()),
    )
    return full if profile == "full" else full.shrunk(network=step("Ensemble", size="smoke"))


class Sum:
    """The members' probabilities, added without weights; ``members``: fitted networks by variant id, in order.

    Each member has its own random views: the first from the recipe's seed, the second from the next seed, and so on.
    """

    def __init__(self, members: Mapping[str, NetworkClassifier], recipe: Recipe) -> None:
        self.recipe, self.names = recipe, tuple(members)
        self.members = []
        for seed, member in enumerate(members.values(), recipe.views.seed):
            own = dataclasses.replace(member.recipe, views=dataclasses.replace(recipe.views, seed=seed))
            self.members.append(NetworkClassifier(member.model, own, member.device))
        self._cached: dict[tuple[str, bool], np.ndarray] = {}

    def votes(self, images: np.ndarray, with_views: bool = True) -> np.ndarray:
        """int32 [M,N,7]: each network's probabilities summed over its views and rounded, in units of 1e-4.

        The seven votes sum to the number of views times 10,000, up to rounding. Votes are cached by image content.
        """
        key = hashlib.sha256(np.ascontiguousarray(images)).hexdigest(), with_views
        if key not in self._cached:
            scale = (self.recipe.views.count if with_views else 1) * 10**DECIMALS
            scores = [member.predict_proba(images, with_views).astype(np.float64) for member in self.members]
            self._cached[key] = np.stack([np.rint(scale * part).astype(np.int32) for part in scores])
        return self._cached[key]

    def predict_proba(self, images: np.ndarray, with_views: bool = False) -> np.ndarray:
        """uint8 [N,48,48] -> float32 [N,7]: the sum of the votes, scaled to 1."""
        total = self.votes(images, with_views).sum(axis=0, dtype=np.int64)
        return (total / total.sum(axis=1, keepdims=True)).astype(np.float32)

    def extra_predictions(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Stored beside the sum: ``votes`` with the random views, so that any subset of the members can be summed."""
        return {"votes": self.votes(images)}


def fit_ensemble(splits: Splits, run: Run) -> Sum | NetworkClassifier:
    """Sum the fitted members; a recipe with stages trains all networks at once on their mean instead.

    Raises `FerReproError` for a missing or foreign member.
    """
    if run.recipe.stages:
        return loop.fit(build_ensemble, splits, run)
    begin, recipe = time.monotonic(), run.recipe
    added = Sum(require_members(run), recipe)
    labels, held_out = np.asarray(splits.select.labels), np.asarray(splits.select.images)
    votes, where = added.votes(held_out), "+".join(recipe.protocol.select)
    for name, one in (*zip(added.names, votes, strict=True), ("all added", votes.sum(axis=0))):
        accuracy = float((one.argmax(axis=1) == labels).mean())
        now = time.monotonic()
        run.history.append({"stage": name, "seconds": now - begin, "select_accuracy": accuracy, "n": len(labels)})
        log.info(f"{name}: {accuracy:.4f} on {where}, {recipe.views.count} random views")
    models, shape = [member.model for member in added.members], (1, 1, recipe.input_size, recipe.input_size)
    run.facts |= {
        "status": "done",
        "selected_epoch": None,
        "members": list(added.names),
        "seconds": time.monotonic() - begin,
        "parameters": sum(cost.count_parameters(model) for model in models),
        "multiply_adds": sum(cost.count_multiply_adds(model, shape) for model in models),
        "peak_memory_bytes": cost.peak_memory(torch.device(run.device)),
    }
    return added


def require_members(run: Run) -> dict[str, NetworkClassifier]:
    """The seven fitted networks in the order of `MEMBERS`, or a `FerReproError` that says which is missing or wrong."""
    given, variant = {name.removesuffix(SCRATCH): name for name in run.required}, run.recipe.variant
    missing = [name for name in MEMBERS if name not in given]
    if missing or len(given) != len(MEMBERS):
        verb = "is missing" if len(missing) == 1 else "are missing" if missing else "was given"
        raise FerReproError(
            f"{variant} adds up {len(MEMBERS)} fitted networks, but {', '.join(missing) or 'one too many'} {verb}: run "
            f"`fer-repro run {variant}`, which fits or finds its members first"
        )
    members = {given[name]: run.required[given[name]] for name in MEMBERS}
    for name, member in members.items():
        require_network(member, name, run.recipe.protocol.name, variant)
    return members


def _variant(name: str) -> Variant:
    belongs_to = None if name == ROW else ROW if KINDS[name].of_row else ENSEMBLE
    return Variant(
        name, ROW, partial(recipe, name), fit=fit, build=build, ablation_of=belongs_to, released=RELEASED.get(name)
    )


def _ensemble(suffix: str) -> Variant:
    return Variant(
        id=ENSEMBLE + suffix,
        slug=ROW,
        recipe=partial(ensemble_recipe, suffix=suffix),
        build=build_ensemble,
        fit=fit_ensemble,
        ablation_of=ENSEMBLE if suffix else None,
        requires=tuple(name + suffix for name in MEMBERS),
    )


NETWORK_VARIANTS = with_scratch(*(_variant(name) for name in KINDS))
# What the chapter shows of the source: network, loss, and what is special to the method.
SHOWN = (ResidualMaskingNetwork, MaskingBlock, ResNet, ResidualBlock, Sum)

VARIANTS = (*NETWORK_VARIANTS, _ensemble(""), _ensemble(SCRATCH))
