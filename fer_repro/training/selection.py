"""Which epoch's weights are the result of a run: one small class per rule of `Selection`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from fer_repro.recipe import Selection
from fer_repro.training.weights import Weights


@dataclass
class Epoch:
    """An epoch's number (from 1), its value on the select images (higher is better) and a copy of its weights."""

    value: float = -math.inf
    epoch: int | None = None
    weights: Weights | None = None


class Rule(ABC):
    """A rule of selection; ``measure``: ``accuracy``, or ``loss`` (then the lowest is best)."""

    def __init__(self, measure: str) -> None:
        self.measure = measure

    def value(self, accuracy: float | None, loss: float | None) -> float:
        """What the select images gave, as a number of which the highest is best; -inf where there are none."""
        measured = accuracy if self.measure == "accuracy" else loss
        if measured is None:
            return -math.inf
        return measured if self.measure == "accuracy" else -measured

    @abstractmethod
    def winner(self, best: Epoch, last: Epoch) -> Epoch:
        """The epoch that is scored: out of the ``best`` on the select images (the first of equals) and the ``last``."""


class BestEpoch(Rule):
    def winner(self, best: Epoch, last: Epoch) -> Epoch:
        return last if best.weights is None else best  # a run may diverge before anything was measured


class LastEpoch(Rule):
    def winner(self, best: Epoch, last: Epoch) -> Epoch:
        return last


class BestOfGrid(BestEpoch):
    """A method without epochs: its settings take the place of the epochs."""


class Fixed(LastEpoch):
    """Nothing is left to choose."""


RULES: dict[str, type[Rule]] = {"best": BestEpoch, "last": LastEpoch, "grid": BestOfGrid, "fixed": Fixed}


def make_rule(selection: Selection) -> Rule:
    """The rule that a recipe names; `Recipe.require_sound` has checked it."""
    return RULES[selection.rule](selection.measure)
