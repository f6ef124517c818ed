"""What a paper module provides: its variants."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fer_repro.data.protocol import Splits
from fer_repro.recipe import Deviation, Recipe
from fer_repro.training.run import Classifier, Run

PROTOCOLS = ("official", "claimed")
PROFILES = ("smoke", "full", "stored")


@dataclass(frozen=True)
class Variant:
    """One leaderboard row, or a paper's ablation.

    ``recipe(protocol, profile)`` gives the recipe for ``official`` or ``claimed`` and ``smoke`` or ``full``.
    ``build(recipe)`` gives the untrained network, or is None for a method without one.
    ``fit(splits, run)`` trains and returns the classifier.
    ``ablation_of`` is None for a leaderboard row. ``requires`` names variants whose fitted models this one needs.
    ``called``: what its network is called where that is a stand-in for the leaderboard's, None otherwise.
    """

    id: str
    slug: str
    recipe: Callable[[str, str], Recipe]
    fit: Callable[[Splits, Run], Classifier]
    build: Callable[[Recipe], nn.Module] | None = None
    ablation_of: str | None = None
    requires: tuple[str, ...] = ()
    called: str | None = None


SCRATCH = "-scratch"


def with_scratch(
    *variants: Variant, scratch: Callable[[Recipe], Recipe] = lambda recipe: recipe
) -> tuple[Variant, ...]:
    """The variants, then a twin ``<id>-scratch`` of each that starts from pretrained weights or builds on such a one.

    A twin's recipe is its original's without the weights, with a deviation that says so; ``scratch`` may change more.
    """
    known = {variant.id: variant for variant in variants}

    def needs(variant: Variant) -> bool:
        return variant.recipe("official", "full").pretrained is not None or any(
            needs(known[name]) for name in variant.requires if name in known
        )

    twins = [
        dataclasses.replace(
            variant,
            id=variant.id + SCRATCH,
            recipe=_without_weights(variant, scratch),
            ablation_of=variant.ablation_of or variant.id,
            requires=tuple(
                name + SCRATCH if name in known and needs(known[name]) else name for name in variant.requires
            ),
        )
        for variant in variants
        if needs(variant)
    ]
    return (*variants, *twins)


def _without_weights(variant: Variant, scratch: Callable[[Recipe], Recipe]) -> Callable[[str, str], Recipe]:
    def recipe(protocol: str, profile: str) -> Recipe:
        whole = variant.recipe(protocol, profile)
        weights = whole.pretrained
        what = f"random weights instead of {weights.name} ({weights.data})" if weights else "builds on random weights"
        note = Deviation("pretraining", what, "an ablation: what the method is worth without them")
        changed = dataclasses.replace(
            whole, variant=variant.id + SCRATCH, pretrained=None, deviations=(*whole.deviations, note)
        )
        return scratch(changed)

    return recipe
