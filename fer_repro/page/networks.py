"""What a method looks like and how large it is: its picture, its parameters against the declared number, its cost."""

from __future__ import annotations

from torch import nn

from fer_repro import papers, plots
from fer_repro.claims import declared_parameters
from fer_repro.errors import FerReproError
from fer_repro.evaluation import cost
from fer_repro.evaluation.cost import input_shape, weightless
from fer_repro.layers import GreyAsRgb
from fer_repro.markup import Html, facts, text, whole
from fer_repro.page.recipe_table import one_line, views
from fer_repro.page.source import shown, source_block
from fer_repro.papers import model_name
from fer_repro.papers.base import Variant
from fer_repro.plots import idea
from fer_repro.plots.figure import Figure


def architecture(variant_id: str) -> Figure:
    """`blocks_or_steps` of a variant, and under it the paper's own idea, where a file in its room describes one."""
    path = idea.path_of(str(papers.__file__), papers.get(variant_id).slug)
    return idea.illustrated(blocks_or_steps(variant_id), path)


def blocks_or_steps(variant_id: str) -> Figure:
    """The network of a variant's full recipe as it ran on one input, or the steps of a method without a network.

    A paper module without ``build`` describes its steps in ``pipeline(recipe) -> [(name, what happens), ...]``.
    """
    variant = papers.get(variant_id)
    recipe = variant.recipe("official", "full")
    if variant.build is not None:
        shape = input_shape(recipe)
        blocks = plots.trace(weightless(variant.build, recipe), shape)
        return plots.architecture(blocks, shape[1:], model_name(variant_id))
    module = papers.module_of(variant.slug)
    if not hasattr(module, "pipeline"):
        name = module.__name__
        raise FerReproError(
            f"{variant_id} has no network, and {name} has no function pipeline(recipe) that names its steps: add one"
        )
    return plots.pipeline(module.pipeline(recipe), model_name(variant_id))


def network_summary(variant: Variant, protocol: str, *, smoke: bool) -> Html:
    """Parameters counted in the full network against the declared number, and its source code, folded; ``smoke`` adds
    the shrunk network's parameters. Of a method without a network, its source code."""
    full = variant.recipe(protocol, "full")
    if variant.build is None:
        body = "<p>No network, so there are no parameters to count.</p>"
        return Html(body + source_block(shown(variant), "Source code of the method"), f"{variant.id}: no network")
    model = weightless(variant.build, full)
    counted, adds = cost.count_parameters(model), cost.count_multiply_adds(model, input_shape(full))
    declared = declared_parameters(variant.id)
    agree = "unknown" if declared is None else "yes" if declared == counted else "no"
    pairs = [
        ("Network", text(one_line(full.as_dict()["network"]))),
        ("Input", f"{full.input_size} × {full.input_size} pixels, {_channels(model)}"),
        ("Parameters, counted", f"<strong>{whole(counted)}</strong>"),
        ("Parameters, declared", whole(declared)),
        ("Equal", agree),
        ("Multiply-adds", f"{whole(adds)} for one image (convolutions, linear layers, attention)"),
        ("Test-time augmentation", text(views(full.as_dict()["views"]))),
        *([("Loss", text(one_line(full.as_dict()["loss"])))] if full.stages else []),
    ]
    if smoke:
        small = variant.recipe(protocol, "smoke")
        size = cost.count_parameters(weightless(variant.build, small))
        pairs.append(
            (
                "In this smoke run",
                f"a shrunk network, {text(one_line(small.as_dict()['network']))}: {whole(size)} parameters",
            )
        )
    body = facts(pairs) + source_block(shown(variant), "Source code of the network and the loss")
    return Html(body, f"{variant.id}: {counted:,} parameters, equal to the declared number: {agree}")


def _channels(model: nn.Module) -> str:
    """The channels of the input, and that a network made for colour images repeats the one it is given."""
    repeats = any(isinstance(part, GreyAsRgb) for part in model.modules())
    return "1 channel, which the network repeats to three" if repeats else "1 channel"
