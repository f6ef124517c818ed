"""What a method looks like and how large it is: its picture, its parameters against the declared number, its cost."""

from __future__ import annotations

from importlib import import_module

from fer_repro import papers, plots
from fer_repro.claims import declared_parameters
from fer_repro.errors import FerReproError
from fer_repro.evaluation import cost
from fer_repro.evaluation.cost import input_shape, weightless
from fer_repro.markup import Html, facts, text, whole
from fer_repro.page.tables import recipe_table
from fer_repro.papers import model_name
from fer_repro.papers.base import Variant
from fer_repro.plots.figure import Figure


def architecture(variant_id: str) -> Figure:
    """The network of a variant's full recipe as it ran on one input, or the steps of a method without a network.

    A paper module without ``build`` describes its steps in ``pipeline(recipe) -> [(name, what happens), ...]``.
    """
    variant = papers.get(variant_id)
    recipe = variant.recipe("official", "full")
    if variant.build is not None:
        shape = input_shape(recipe)
        blocks = plots.trace(weightless(variant.build, recipe), shape)
        return plots.architecture(blocks, shape[1:], model_name(variant_id))
    module = import_module(f"fer_repro.papers.{variant.slug.replace('-', '_')}")
    if not hasattr(module, "pipeline"):
        name = module.__name__
        raise FerReproError(
            f"{variant_id} has no network, and {name} has no function pipeline(recipe) that names its steps: add one"
        )
    return plots.pipeline(module.pipeline(recipe), model_name(variant_id))


def network_summary(variant: Variant, protocol: str, *, smoke: bool) -> Html:
    """Parameters counted in the full network against the declared number; ``smoke`` adds the shrunk network's."""
    full = variant.recipe(protocol, "full")
    if variant.build is None:
        body = "<p>No network that could be counted before the run. The settings:</p>"
        return Html(body + recipe_table(full.options.kwargs()), f"{variant.id}: no network to count")
    model = weightless(variant.build, full)
    counted, adds = cost.count_parameters(model), cost.count_multiply_adds(model, input_shape(full))
    declared = declared_parameters(variant.id)
    agree = "unknown" if declared is None else "yes" if declared == counted else "no"
    pairs = [
        ("Network", text(full.network)),
        ("Input", f"{full.input_size} × {full.input_size} pixels, 1 channel"),
        ("Parameters, counted", f"<strong>{whole(counted)}</strong>"),
        ("Parameters, declared", whole(declared)),
        ("Equal", agree),
        ("Multiply-adds", f"{whole(adds)} for one image (convolutions, linear layers, attention)"),
        ("Test-time augmentation", text(full.views)),
    ]
    if smoke:
        small = variant.recipe(protocol, "smoke")
        size = cost.count_parameters(weightless(variant.build, small))
        pairs.append(("In this smoke run", f"a shrunk network, {text(small.network)}: {whole(size)} parameters"))
    return Html(facts(pairs), f"{variant.id}: {counted:,} parameters, equal to the declared number: {agree}")
