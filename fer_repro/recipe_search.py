"""A documented search for a recipe, by PublicTest only: what was tried, one line of ``search.csv`` for each.

A paper's module lists the recipes; this trains those that the file lacks, and draws the file. PrivateTest is taken out
of the data before anything is trained.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_repro import data as data_sets
from fer_repro import logs
from fer_repro.data.protocol import OFFICIAL, Splits
from fer_repro.errors import FerReproError
from fer_repro.evaluation.statistics import wilson
from fer_repro.files import InUse, atomic_write, owned, writable
from fer_repro.markup import Html, note, percent, text
from fer_repro.plots.figure import Figure
from fer_repro.plots.forest import Row, forest
from fer_repro.project import code_version, default_results_dir, default_runs_dir
from fer_repro.recipe import Recipe
from fer_repro.training.run import Classifier, Run

log = logging.getLogger(__name__)

COLUMNS = ("recipe", "change", "recipe_sha256", "epochs", "seed", "train_accuracy", "n", "correct", "accuracy")
COLUMNS += ("epoch", "seconds", "device", "code_version")
PATIENCE = 60.0  # seconds; adding a line takes milliseconds


@contextmanager
def _alone(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file ``path``, waiting up to `PATIENCE` for others that add their line. Raises `FerReproError`."""
    deadline = time.monotonic() + PATIENCE
    with ExitStack() as stack:
        while True:
            try:
                with writable(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(owned(path))
                break
            except InUse as other:
                if time.monotonic() > deadline:
                    raise FerReproError(
                        f"{path} has been in use by {other.holder} for {PATIENCE:.0f} seconds, so the line of {what} "
                        f"is not added: stop it, then the same command adds the line from the checkpoint{other.way_out}"
                    ) from other
                time.sleep(0.1)
        yield


@dataclass(frozen=True)
class Tried:
    """One recipe: its letter, what it changes in which earlier one, in words, and the recipe itself.

    Letters and changes are stored in the file, so they stay as they are; ``term``: how a page says the change, where
    the stored words are not the standard ones.
    """

    letter: str
    change: str
    recipe: Recipe
    term: str = ""


@dataclass(frozen=True)
class Search:
    """The recipes of one paper that were ``tried``, each trained by ``fit``; ``module`` is run to repeat the search."""

    slug: str
    tried: tuple[Tried, ...]
    fit: Callable[[Splits, Run], Classifier]
    module: str

    def path(self, results_dir: Path | None = None) -> Path:
        return (results_dir or default_results_dir()) / self.slug / "search.csv"

    def read(self, results_dir: Path | None = None) -> list[dict[str, Any]]:
        """The lines so far, by letter; none where there is no file. Raises `FerReproError` for another table."""
        path = self.path(results_dir)
        if not path.exists():
            return []
        table = pd.read_csv(path)
        if tuple(table.columns) != COLUMNS:
            raise FerReproError(f"{path.name} of {self.slug} has other columns than {', '.join(COLUMNS)}: move it away")
        return table.to_dict("records")

    @logs.shown()
    def run(
        self,
        root: str | None = None,
        results_dir: Path | None = None,
        runs_dir: Path | None = None,
        device: str = "cpu",
        only: str | None = None,
    ) -> Path:
        """Train what is missing (or ``only`` one recipe), adding a line after each, and return the file's path.

        Several processes may search at once, each for another recipe; of one that two of them trained, the first line
        stays.
        """
        faces = data_sets.load("fer2013", root)
        faces = faces.subset(np.flatnonzero(faces.usage != "PrivateTest"))
        runs = (runs_dir or default_runs_dir()) / f"{self.slug}-search"
        for tried in self.tried:
            letter = tried.letter
            if only not in (None, letter) or letter in {row["recipe"] for row in self.read(results_dir)}:
                continue
            log.info(f"recipe {letter}: {tried.change}")
            row = self.train(tried, faces, runs / letter, device)
            with _alone(runs / "search.lock", f"recipe {letter}"):
                self._add(row, self.path(results_dir), self.read(results_dir))
        return self.path(results_dir)

    def _add(self, row: dict[str, Any], path: Path, known: list[dict[str, Any]]) -> None:
        if row["recipe"] in {one["recipe"] for one in known}:
            return
        rows = sorted([*known, row], key=lambda one: one["recipe"])
        with atomic_write(path) as file:
            pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(file, index=False, lineterminator="\n")

    def train(self, tried: Tried, faces: data_sets.FER2013, folder: Path, device: str) -> dict[str, Any]:
        """Train one recipe and return its line of the file; ``faces`` need no PrivateTest."""
        version, recipe = code_version(), tried.recipe
        run = Run(recipe, 0, device, folder, faces.digest)
        self.fit(OFFICIAL.split(faces), run)
        best = max(run.history, key=lambda epoch: epoch["select_accuracy"])
        n = int((faces.usage == "PublicTest").sum())
        return {
            "recipe": tried.letter,
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

    def shown(self, results_dir: Path | None = None, beside: str = "") -> Figure | Html:
        """The accuracy of every recipe on PublicTest with its interval, and on the training images; a remark where the
        file has no line.

        ``beside``: the letter of the recipe that all others change in one thing; a line is drawn through it, and a
        column has the differences in points.
        """
        lines = self.read(results_dir)
        if not lines:
            command = f"python -m {self.module}"
            body = f"no recipe of the search is stored; <code>{text(command)}</code> trains them."
            return Html(note("Not run:", body), f"not run: no recipe of the search is stored, {command} trains them")
        terms = {tried.letter: tried.term for tried in self.tried if tried.term}
        first = next((one["accuracy"] for one in lines if one["recipe"] == beside), None)

        def words(one: dict[str, Any]) -> tuple[str, ...]:
            shares = percent(one["accuracy"]), percent(one["train_accuracy"])
            if first is None:
                return shares
            return (*shares, "" if one["recipe"] == beside else f"{100 * (one['accuracy'] - first):+.2f}")

        rows = [
            Row(
                f"{one['recipe']}  {terms.get(one['recipe'], one['change'])}",
                one["accuracy"],
                wilson(one["correct"], one["n"]),
                words=words(one),
            )
            for one in lines
        ]
        listed = "; ".join(f"{row.label} {percent(row.value)}" for row in rows)
        epochs = max(one["epochs"] for one in lines)
        more = "" if first is None else f" Third column: points more or less than {beside}."
        return forest(
            rows,
            f"{len(rows)} recipes, PublicTest",
            alt=f"Search for a recipe on PublicTest: {listed}.",
            caption=f"Best epoch of {epochs} on PublicTest, seed 0; bars are 95 % intervals. Second column: accuracy "
            f"on the augmented training images in the last epoch.{more}",
            line=first,
            line_label="" if first is None else f"recipe {beside}, {percent(first)}",
            columns=("PublicTest", "training", *([] if first is None else [f"against {beside}"])),
        )
