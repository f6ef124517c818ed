"""The search for a fair DeepEmotion recipe: what was tried, on PublicTest only, and the results.

``python -m fer_repro.papers.deep_emotion.recipe_search`` trains every recipe of `TRIED` that is not yet in
``results/deep-emotion/search.csv`` and adds a line for it; PrivateTest is never read. The official recipe of
`fer_repro.papers.deep_emotion` is the best of them, trained for longer.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import typer

from fer_repro.data.protocol import OFFICIAL
from fer_repro.papers import deep_emotion
from fer_repro.recipe import Recipe, Stage, Step, step
from fer_repro.recipe_search import Search, Tried

EPOCHS = 20
COSINE = step("cosine", per="batch")
SMALL, DEFAULT, HALF, LOW = ("gaussian", 0.05), ("gaussian", None), ("dropout", 0.5), ("dropout", 0.1)


def searched(
    *network: tuple[str, Any],
    schedule: Step = COSINE,
    augment: tuple[Step, ...] = deep_emotion.LIGHT,
    weight_penalty: float = 1e-3,
) -> Recipe:
    """The figure's network with these options of it, trained for `EPOCHS` epochs under the official roles."""
    return dataclasses.replace(
        deep_emotion.as_claimed("deep-emotion", deep_emotion.FIGURE),
        protocol=OFFICIAL,
        network=deep_emotion.FIGURE.having(**dict(network)),
        stages=(Stage("train", EPOCHS, step("adam", lr=0.005), schedule),),
        augment=augment,
        loss=step("penalised-cross-entropy", weight=weight_penalty),
    )


TRIED = (
    Tried("A", "as recalled", searched(SMALL, HALF, schedule=Step("constant")), "as under claimed"),
    Tried("B", "A, cosine schedule", searched(SMALL, HALF)),
    Tried("C", "B, torch's default initial weights", searched(DEFAULT, HALF)),
    Tried("D", "C, dropout 0.1 instead of 0.5", searched(DEFAULT, LOW)),
    Tried("E", "D, mirror only", searched(DEFAULT, LOW, augment=deep_emotion.LIGHT[:1]), "D, horizontal flip only"),
    Tried("F", "D, no charge on the weights", searched(DEFAULT, LOW, weight_penalty=0.0), "D, no weight penalty"),
)
SEARCH = Search("deep-emotion", TRIED, deep_emotion.fit, __spec__.name)
shown = SEARCH.shown


def main(root: str = "", only: str = "", device: str = "cpu") -> None:
    """Train the recipes that are not in the file yet (``--only A``: that one)."""
    SEARCH.run(root or None, device=device, only=only or None)


if __name__ == "__main__":
    typer.run(main)
