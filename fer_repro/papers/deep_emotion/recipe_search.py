"""The search for a fair DeepEmotion recipe: what was tried, on PublicTest only, and the results.

``python -m fer_repro.papers.deep_emotion.recipe_search`` trains every recipe of `TRIED` that is not yet in
``results/deep-emotion/search.csv`` and adds a line for it; PrivateTest is never read. The official recipe of
`fer_repro.papers.deep_emotion` is the best of them, trained for longer.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typer

from fer_repro import data as data_sets
from fer_repro import logs
from fer_repro.data.protocol import OFFICIAL
from fer_repro.errors import FerReproError
from fer_repro.evaluation.statistics import wilson
from fer_repro.files import atomic_write
from fer_repro.markup import percent
from fer_repro.papers import deep_emotion
from fer_repro.plots.figure import Figure
from fer_repro.plots.forest import Row, forest
from fer_repro.project import code_version, default_results_dir, default_runs_dir
from fer_repro.recipe import Recipe, Stage, Step, step
from fer_repro.training.run import Run

log = logging.getLogger("fer_repro.papers.deep_emotion.recipe_search")  # also under python -m

EPOCHS = 20
COLUMNS = ("recipe", "change", "recipe_sha256", "epochs", "seed", "train_accuracy", "n", "correct", "accuracy")
COLUMNS += ("epoch", "seconds", "device", "code_version")


@dataclass(frozen=True)
class Tried:
    """One recipe: its letter, what it changes in which earlier one, and its settings; the defaults are those recalled.

    Letters and changes are stored in the file, so they stay as they are.
    """

    recipe: str
    change: str
    lr: float = 0.005
    schedule: Step = Step("constant")
    augment: tuple[Step, ...] = deep_emotion.LIGHT
    weight_penalty: float = 1e-3
    network: tuple[tuple[str, Any], ...] = ()

    def whole(self) -> Recipe:
        """The recipe that was trained: official roles, `EPOCHS` epochs."""
        recalled = deep_emotion.recalled("deep-emotion", deep_emotion.FIGURE)
        return dataclasses.replace(
            recalled,
            protocol=OFFICIAL,
            network=deep_emotion.FIGURE.having(**dict(self.network)),
            stages=(Stage("train", EPOCHS, step("adam", lr=self.lr), self.schedule),),
            augment=self.augment,
            loss=step("penalised-cross-entropy", weight=self.weight_penalty),
        )


COSINE = step("cosine", per="batch")
SMALL, DEFAULT, HALF, LOW = ("gaussian", 0.05), ("gaussian", None), ("dropout", 0.5), ("dropout", 0.1)
TRIED = (
    Tried("A", "as recalled", network=(SMALL, HALF)),
    Tried("B", "A, cosine schedule", schedule=COSINE, network=(SMALL, HALF)),
    Tried("C", "B, torch's default initial weights", schedule=COSINE, network=(DEFAULT, HALF)),
    Tried("D", "C, dropout 0.1 instead of 0.5", schedule=COSINE, network=(DEFAULT, LOW)),
    Tried("E", "D, mirror only", schedule=COSINE, network=(DEFAULT, LOW), augment=deep_emotion.LIGHT[:1]),
    Tried("F", "D, no charge on the weights", schedule=COSINE, network=(DEFAULT, LOW), weight_penalty=0.0),
)


def path_of(results_dir: Path | None = None) -> Path:
    return (results_dir or default_results_dir()) / "deep-emotion" / "search.csv"


@logs.shown()
def search(
    root: str | None = None,
    results_dir: Path | None = None,
    runs_dir: Path | None = None,
    device: str = "cpu",
    only: str | None = None,
) -> Path:
    """Train what is missing (or ``only`` one recipe), adding a line after each, and return the file's path."""
    faces = data_sets.load("fer2013", root)
    faces = faces.subset(np.flatnonzero(faces.usage != "PrivateTest"))
    path = path_of(results_dir)
    for tried in TRIED:
        if only not in (None, tried.recipe) or tried.recipe in {row["recipe"] for row in read(path)}:
            continue
        log.info(f"recipe {tried.recipe}: {tried.change}")
        row = train(tried, faces, (runs_dir or default_runs_dir()) / "deep-emotion-search" / tried.recipe, device)
        rows = sorted([*read(path), row], key=lambda one: one["recipe"])
        with atomic_write(path) as file:
            pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(file, index=False, lineterminator="\n")
    return path


def train(tried: Tried, faces: data_sets.FER2013, folder: Path, device: str) -> dict:
    """Train one recipe and return its line of the file; ``faces`` need no PrivateTest."""
    version, recipe = code_version(), tried.whole()
    run = Run(recipe, 0, device, folder, faces.digest)
    deep_emotion.fit(OFFICIAL.split(faces), run)
    best = max(run.history, key=lambda epoch: epoch["select_accuracy"])
    n = int((faces.usage == "PublicTest").sum())
    return {
        "recipe": tried.recipe,
        "change": tried.change,
        "recipe_sha256": recipe.sha256(),
        "epochs": len(run.history),
        "seed": run.seed,
        "train_accuracy": round(run.history[-1]["train_accuracy"], 4),
        "n": n,
        "correct": round(best["select_accuracy"] * n),
        "accuracy": round(best["select_accuracy"], 4),
        "epoch": best["epoch"],
        "seconds": round(run.facts["seconds"]),
        "device": device,
        "code_version": version,
    }


def read(path: Path) -> list[dict[str, Any]]:
    """The lines so far; none where there is no file."""
    if not path.exists():
        return []
    table = pd.read_csv(path)
    if tuple(table.columns) != COLUMNS:
        raise FerReproError(f"{path.name} of deep-emotion has other columns than {', '.join(COLUMNS)}: move it away")
    return table.to_dict("records")


def shown(results_dir: Path | None = None) -> Figure:
    """The accuracy of every recipe on PublicTest with its interval, and on the training images."""
    rows = [
        Row(
            f"{one['recipe']}  {one['change']}",
            one["accuracy"],
            wilson(one["correct"], one["n"]),
            words=(percent(one["accuracy"]), percent(one["train_accuracy"])),
        )
        for one in read(path_of(results_dir))
    ]
    if not rows:
        raise FerReproError(
            "results/deep-emotion/search.csv has no line: run python -m fer_repro.papers.deep_emotion.recipe_search"
        )
    listed = "; ".join(f"{row.label} {percent(row.value)}" for row in rows)
    return forest(
        rows,
        f"{len(rows)} recipes, PublicTest",
        alt=f"Search for a recipe on PublicTest: {listed}.",
        caption=f"Best epoch of {EPOCHS} on PublicTest, seed 0; bars are 95 % intervals. Second column: accuracy "
        "on the augmented training images in the last epoch.",
        columns=("PublicTest", "training"),
    )


def main(root: str = "", only: str = "", device: str = "cpu") -> None:
    """Train the recipes that are not in the file yet (``--only A``: that one)."""
    search(root or None, device=device, only=only or None)


if __name__ == "__main__":
    typer.run(main)
