"""Local Learning Deep+BOW: three networks and a bag of visual words describe a face, one SVM per face names it
(Georgescu, Ionescu, Popescu, IEEE Access 2019; arXiv 1804.10892, 2018).

Idea: the group's method of 2013 (``local-learning-bow``), where the descriptions of three fine-tuned networks are added
to the visual words. Claim: 75.42 %, a system of three networks, two of them pretrained on other images. Five facts
(accuracy claimed and measured, parameters, cost, hardware) stand in the claim and in ``results/deep-and-handcrafted/``;
the chapter prints them.

Protocols. The scored test set, and what chose k, C and the blocks, could not be read. ``claimed``: all blocks, k = 200
and C = 100 as third-party code has them, training faces and their mirrors as neighbours. ``official``: blocks, k and C
chosen on PublicTest, Training alone as neighbours, PrivateTest scored once.

The networks are ablations of their own, ``deep-and-handcrafted-vgg-face``, ``-vgg-f`` and ``-vgg-13``, which the model
requires. Their from-scratch ablations ``-scratch`` start from random weights.
"""

from __future__ import annotations

import dataclasses
import logging
from functools import partial
from itertools import combinations

from torch import nn

from fer_repro import pretrained
from fer_repro.data.protocol import Protocol, Splits
from fer_repro.errors import FerReproError
from fer_repro.evaluation import cost
from fer_repro.evaluation.predict import NetworkClassifier, require_network
from fer_repro.local_learning import LEARNING_DEVIATIONS, staged_fit
from fer_repro.local_learning.pyramid import ASSUMED, SEARCHED_WORDS, channel_words, local_steps
from fer_repro.local_learning.svm import local_decisions, neighbours
from fer_repro.papers import SCRATCH
from fer_repro.papers.base import Variant, deviations, with_scratch
from fer_repro.papers.deep_and_handcrafted.fusion import WORDS, Fused, fuse
from fer_repro.papers.deep_and_handcrafted.kernels import Pool, unit_rows
from fer_repro.papers.deep_and_handcrafted.networks import Masked, Three, Vgg, Vgg13, VggF, VggFace, smallest
from fer_repro.recipe import Deviation, Pretrained, Recipe, Selection, Stage, step
from fer_repro.training import loop
from fer_repro.training.execution import exact
from fer_repro.training.run import Run

log = logging.getLogger(__name__)

ROW = "deep-and-handcrafted"
NAMES = ("vgg-face", "vgg-f", "vgg-13")
BLOCKS = (*NAMES, WORDS)
KINDS = {"VggFace": VggFace, "VggF": VggF, "Vgg13": Vgg13}

FACES = Pretrained(
    "VGG-Face",
    source="Visual Geometry Group, Oxford; as tensors of torch from S. Albanie's page",
    licence="for research, CC BY-NC 4.0 by the word of third parties",
    file="vgg_face_dag.pth",
    sha256=None,
    data="2.6 million faces of 2,622 people",
)
# The converter is `matconvnet` beside this file. The recipe's digest covers the words of ``source``: they stay.
PHOTOS = Pretrained(
    "imagenet-vgg-f",
    source="MatConvNet's page; converted by fer_repro.matconvnet",
    licence="unknown",
    file="imagenet-vgg-f.safetensors",
    sha256=None,
    data="ImageNet-1k",
)


def build(recipe: Recipe) -> nn.Module:
    """One network; `Recipe.options` hold its input's scale and what is frozen and pruned."""
    return KINDS[recipe.network.name](**recipe.network.kwargs(), **recipe.options.kwargs())


def fit(splits: Splits, run: Run) -> NetworkClassifier:
    """Train one network; the facts get the count of all its parameters, frozen or not, and the share of zeros."""
    log.info(f"{run.recipe.variant}: {', '.join(f'{s.epochs} {s.name}' for s in run.recipe.stages)} (epochs, stage)")
    fitted = loop.fit(pretrained.loaded(build), splits, run)
    layers = dict(fitted.model.masked())
    zeros = {name: float((one.weight == 0).to(exact(one.weight.device)).mean()) for name, one in layers.items()}
    trained = cost.count_parameters(fitted.model)
    fitted.model.requires_grad_(True)
    run.facts |= {"parameters": cost.count_parameters(fitted.model), "trained_parameters": trained}
    run.facts |= {"share_of_zero_weights": zeros} if zeros else {}
    return fitted


def build_three(recipe: Recipe) -> nn.Module:
    """The three networks that the model needs, in one module."""
    recipes = {name: network_recipe(name, recipe.protocol.name, recipe.network["size"]) for name in NAMES}
    sizes = {name: each.input_size for name, each in recipes.items()}
    return Three({name: build(each) for name, each in recipes.items()}, sizes)


def fit_fusion(splits: Splits, run: Run) -> Fused | NetworkClassifier:
    """Join the fitted networks' descriptions with the visual words and learn locally.

    A recipe with stages trains the three networks at once, on their mean, instead. Raises `FerReproError` for a
    missing network and for one of another protocol.
    """
    if run.recipe.stages:
        return loop.fit(build_three, splits, run)
    networks = require_networks(run)
    with staged_fit(run, splits.select) as stages:
        return fuse(splits, stages, networks)


def require_networks(run: Run) -> dict[str, NetworkClassifier]:
    """The three fitted networks in the order of `NAMES`, or a `FerReproError` that says which is missing or wrong."""
    given = {name.removesuffix(SCRATCH): network for name, network in run.required.items()}
    networks = {name: given.get(f"{ROW}-{name}") for name in NAMES}
    missing = [f"{ROW}-{name}" for name, network in networks.items() if network is None]
    if missing:
        raise FerReproError(
            f"{run.recipe.variant} joins the descriptions of three fitted networks, but {', '.join(missing)} was not "
            f"given: run `fer-repro run {run.recipe.variant}`, which fits or finds them first"
        )
    for name, network in networks.items():
        require_network(network, f"{ROW}-{name}", run.recipe.protocol.name, run.recipe.variant)
    return networks


# ---- recipes ---------------------------------------------------------------------------------------------------------

SGD = {"momentum": 0.9}
PLATEAU = step("reduce-on-plateau", factor=0.1, patience=10, on="loss")


def stages(first: int, rate: float, pairs: int, length: int = 50) -> tuple[Stage, ...]:
    """A dense stage of ``first`` epochs, then ``pairs`` of a sparse and a dense one, at a tenth of the learning rate.

    Each starts from the best weights of the one before.
    """
    later = [
        Stage(f"{kind} {n}", length, step("sgd", lr=rate / 10, **SGD), PLATEAU, start="best")
        for pair in range(1, pairs + 1)
        for kind, n in (("sparse", pair), ("dense", pair + 1))
    ]
    return (Stage("dense 1" if pairs else "train", first, step("sgd", lr=rate, **SGD), PLATEAU), *later)


DEVIATIONS = deviations(__file__)
# Network, input, batch, stages, what is pruned and frozen, weights, deviations.
FULL: dict[str, dict] = {
    "vgg-face": {
        "network": step("VggFace"),
        "input_size": 224,
        "batch_size": 128,
        "stages": stages(200, 1e-4, 2),
        "options": step("dense-sparse-dense", scale=255.0, frozen=True, pruned=("fc6", "fc7", "fc8"), sparsity=0.6),
        "pretrained": FACES,
        "deviations": (*DEVIATIONS["common"], *DEVIATIONS["sparse"], *DEVIATIONS["pretrained face"]),
    },
    "vgg-f": {
        "network": step("VggF"),
        "input_size": 224,
        "batch_size": 256,
        "stages": stages(300, 1e-3, 3),
        "options": step(
            "dense-sparse-dense", scale=255.0, sparsity=0.4, pruned=("conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
        ),
        "pretrained": PHOTOS,
        "deviations": (*DEVIATIONS["common"], *DEVIATIONS["sparse"], *DEVIATIONS["pretrained f"]),
    },
    "vgg-13": {
        "network": step("Vgg13"),
        "input_size": 64,
        "batch_size": 512,
        "stages": stages(300, 1e-2, 0),
        "options": step("dense"),
        "deviations": DEVIATIONS["common"],
    },
}
SMALL = {"hidden": 32, "dropout": (0.1, 0.1)}
SMOKE = {
    "vgg-face": step("VggFace", widths=(8, 16, 16), depths=(1, 1, 1), grid=3, **SMALL),
    "vgg-f": step("VggF", widths=(16, 24, 24, 24, 24), grid=1, inner_dropout=0.0, **SMALL),
    "vgg-13": step("Vgg13", widths=(8, 16, 16), depths=(1, 1, 1), grid=3, inner_dropout=0.0, **SMALL),
}


def network_recipe(name: str, protocol: str, profile: str) -> Recipe:
    """SGD with momentum, the learning rate divided by ten when PublicTest's loss stops falling, flipped faces."""
    full = Recipe(
        variant=f"{ROW}-{name}",
        protocol=Protocol(protocol),
        augment=(step("flip", p=0.5),),
        selection=Selection("best"),
        **FULL[name],
    )
    if profile == "full":
        return full
    small = tuple(
        dataclasses.replace(stage, epochs=1 if stage.start == "best" else 4, optimiser=step("adam", lr=5e-3))
        for stage in full.stages[:3]
    )
    options = full.options.having(scale=4.0, spread=0.2)
    size = 48 if name == "vgg-f" else 24
    return full.shrunk(network=SMOKE[name], input_size=size, batch_size=20, stages=small, options=options)


CLAIMED_MACHINE = ASSUMED | {"weights": (1, 1, 1, 1), "pool": "mirrored", "blocks": (BLOCKS,)}
CLAIMED_MACHINE |= {"start": ((200,), (100.0,)), "k": (200,), "C": (100.0,), "global_C": (1.0,)}
OFFICIAL_MACHINE = SEARCHED_WORDS | {
    "weights": (2, 2, 1, 1),  # the level weights that the run of the 2013 method chose
    "pool": "plain",
    "start": ((200,), (100.0,)),
    "blocks": tuple(group for size in (4, 3, 2, 1) for group in combinations(BLOCKS, size)),
    "k": (50, 100, 200, 500, 1000),
    "C": (1.0, 10.0, 100.0),
    "global_C": (0.1, 1.0, 10.0),
}
SMOKE_MACHINE = {"step": 4, "channels": ((4, 1, 300), (4, 2, 300)), "points_per_word": 15, "iterations": 3}
SMOKE_MACHINE |= {"weights": (1, 1), "start": ((30,), (10.0,)), "global_C": (1.0,)}
SMOKE_CLAIMED = {"k": (30,), "C": (10.0,)}
SMOKE_OFFICIAL = {"k": (15, 30), "C": (1.0, 10.0), "blocks": (BLOCKS, NAMES, (WORDS,))}


def fusion_recipe(protocol: str, profile: str, scratch: bool = False) -> Recipe:
    """No training by gradient: four blocks, the nearest faces by the sum of their cosines, an SVM on these.

    The options hold the digests of the networks' recipes: with another network it is another method. ``scratch``: with
    the networks that start from random weights.
    """
    claimed = protocol == "claimed"
    machine = CLAIMED_MACHINE if claimed else OFFICIAL_MACHINE
    if profile != "full":
        machine = machine | SMOKE_MACHINE | (SMOKE_CLAIMED if claimed else SMOKE_OFFICIAL)
    own = DEVIATIONS["fusion"] + LEARNING_DEVIATIONS + DEVIATIONS[f"{protocol} fusion"]
    of_networks = DEVIATIONS["common"] + DEVIATIONS["sparse"] + (DEVIATIONS["random"] if scratch else ())
    members = {variant.id: variant for variant in NETWORK_VARIANTS}
    networks = tuple((name, members[name].recipe(protocol, profile).sha256()[:16]) for name in required(scratch))
    full = Recipe(
        variant=ROW + (SCRATCH if scratch else ""),
        network=step("Three", size="full"),
        protocol=Protocol(protocol),  # for "claimed", nothing that could be read says that it was another
        input_size=224,
        selection=Selection("fixed" if claimed else "grid"),
        options=step("fusion", networks=networks, **machine),
        deviations=own + of_networks,
    )
    return full if profile == "full" else full.shrunk(network=step("Three", size="smoke"), input_size=48)


def without_weights(recipe: Recipe) -> Recipe:
    """From scratch, all layers learn, on inputs of [0, 1], at the learning rate of third-party code for this case."""
    note = Deviation(
        "third-party implementation",
        "no layer is frozen, a learning rate of 0.01, inputs of [0, 1]",
        "random convolutions would stay random; the rate is that implementation's for layers that start anew",
    )
    options = recipe.options.having(scale=1.0, frozen=False)
    first = recipe.stages[0].optimiser["lr"]
    stages = tuple(
        dataclasses.replace(s, optimiser=s.optimiser.having(lr=max(0.01, first) * s.optimiser["lr"] / first))
        for s in recipe.stages
    )
    return dataclasses.replace(recipe, options=options, stages=stages, deviations=(*recipe.deviations, note))


def pipeline(recipe: Recipe) -> list[tuple[str, str]]:
    """The method's steps as (name, what happens), with the recipe's own settings, for the chapter's picture."""
    options = recipe.options.kwargs()
    _, levels, words = channel_words(options["channels"])
    return [
        ("three networks", "VGG-face and VGG-f pretrained, VGG-13 from random weights; each fine-tuned by itself"),
        ("descriptions", "the last hidden layers: 4,096, 4,096 and 1,024 numbers, each of length 1"),
        ("visual words", f"dense SIFT, vocabularies of {words} words from Training; presence in {levels} fields"),
        ("kernel", "the sum of the blocks' dot products"),
        *local_steps("the k training faces nearest by cosine", options),
    ]


def required(scratch: bool) -> tuple[str, ...]:
    """The ids of the three networks; with ``scratch`` of their from-scratch ablations, where there are some."""
    known = {variant.id for variant in NETWORK_VARIANTS}
    ids = [f"{ROW}-{name}" for name in NAMES]
    return tuple(name + SCRATCH if scratch and name + SCRATCH in known else name for name in ids)


def _row(scratch: bool) -> Variant:
    return Variant(
        id=ROW + (SCRATCH if scratch else ""),
        slug=ROW,
        recipe=partial(fusion_recipe, scratch=scratch),
        build=build_three,
        fit=fit_fusion,
        ablation_of=ROW if scratch else None,
        requires=required(scratch),
    )


NETWORK_VARIANTS = with_scratch(
    *(Variant(f"{ROW}-{name}", ROW, partial(network_recipe, name), fit, build, ablation_of=ROW) for name in NAMES),
    scratch=without_weights,
)
# What the chapter shows of the source: network, loss, and what is special to the method.
SHOWN = (Vgg, VggFace, VggF, Vgg13, Masked, smallest, unit_rows, Pool, neighbours, local_decisions)

VARIANTS = (_row(scratch=False), *NETWORK_VARIANTS, _row(scratch=True))
