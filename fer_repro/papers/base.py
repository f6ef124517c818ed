"""What a paper module provides: its variants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fer_repro.data.protocol import Splits
from fer_repro.recipe import Recipe
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
