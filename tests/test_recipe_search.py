"""The search for a recipe: a line for each, several processes, nothing of PrivateTest, and the picture of the file."""

from __future__ import annotations

import dataclasses
import errno
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pandas as pd
import pytest

from fer_repro import data
from fer_repro.data.protocol import OFFICIAL
from fer_repro.errors import FerReproError
from fer_repro.markup import Html
from fer_repro.papers.baseline import recipe_search
from fer_repro.recipe import Recipe, Stage, step
from fer_repro.recipe_search import COLUMNS, Search, Tried

PUBLIC = 32


def recipe(lr: float) -> Recipe:
    return Recipe("made-up", step("none"), OFFICIAL, (Stage("train", 2, step("sgd", lr=lr)),))


TRIED = (Tried("A", "first", recipe(0.1)), Tried("B", "A, another learning rate", recipe(0.2)))


class SlowSearch(Search):
    """Leaves another process time to write between its reading and its writing."""

    def read(self, results_dir=None):
        rows = super().read(results_dir)
        time.sleep(0.05)
        return rows


@pytest.fixture
def faces(monkeypatch):
    faces = data.load("synthetic", size=(64, PUBLIC, 16))
    monkeypatch.setattr(data, "load", lambda name, root: faces)
    return faces


def recording(seen, barrier=None):
    """A ``fit`` that trains nothing: two epochs, the first one the better."""

    def fit(splits, run):
        seen.append((splits, run))
        run.history[:] = [
            {"epoch": 1, "train_accuracy": 0.25, "select_accuracy": 0.5},
            {"epoch": 2, "train_accuracy": 0.375, "select_accuracy": 0.25},
        ]
        run.facts["seconds"] = 1.6
        if barrier:
            barrier.wait(600)

    return fit


def test_it_trains_what_the_file_lacks_on_data_without_the_scored_images(faces, tmp_path):
    seen = []
    search = Search("made-up", TRIED, recording(seen), "a.module")
    for only in ("A", None, None):  # the second run trains B alone, the third nothing
        path = search.run(results_dir=tmp_path, runs_dir=tmp_path / "runs", only=only)
    assert path == tmp_path / "made-up" / "search.csv"
    assert [run.recipe for _, run in seen] == [one.recipe for one in TRIED]
    for splits, _ in seen:
        used = np.concatenate([part.usage for part in vars(splits).values()])
        assert set(used) == {"Training", "PublicTest"} and len(splits.test) == 0 and len(splits.select) == PUBLIC
    first, second = search.read(tmp_path)
    assert tuple(first) == COLUMNS and (first["recipe"], second["recipe"]) == ("A", "B")
    assert (first["n"], first["correct"], first["accuracy"], first["epoch"]) == (PUBLIC, 16, 0.5, 1)
    assert (first["train_accuracy"], first["epochs"], first["seconds"]) == (0.375, 2, 2)
    assert first["recipe_sha256"] == TRIED[0].recipe.sha256() != second["recipe_sha256"]


def without_locks(monkeypatch):
    def none(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
@pytest.mark.parametrize("letters", ["AB", "AA"], ids=["different", "the same"])
def test_two_processes_at_once_lose_and_repeat_no_line(faces, tmp_path, monkeypatch, letters, locks):
    if not locks:
        without_locks(monkeypatch)
    search = SlowSearch("made-up", TRIED, recording([], Barrier(2)), "a.module")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda only: search.run(results_dir=tmp_path, runs_dir=tmp_path / "runs", only=only), letters))
    assert [row["recipe"] for row in Search.read(search, tmp_path)] == sorted(set(letters))


def test_a_lock_that_is_not_released_is_named_with_the_way_out(faces, tmp_path, monkeypatch):
    without_locks(monkeypatch)
    monkeypatch.setattr("fer_repro.recipe_search.PATIENCE", 0.0)
    runs = tmp_path / "runs" / "made-up-search"
    runs.mkdir(parents=True)
    marker = runs / ".search.lock.marker"
    marker.write_text("1\nanother machine\n")
    search = Search("made-up", TRIED, recording([]), "a.module")
    said = f"in use by process 1 on machine another machine for 0 seconds, so the line of recipe A .*delete {marker}"
    with pytest.raises(FerReproError, match=said):
        search.run(results_dir=tmp_path, runs_dir=tmp_path / "runs")
    marker.unlink()
    search.run(results_dir=tmp_path, runs_dir=tmp_path / "runs", only="A")
    assert [row["recipe"] for row in search.read(tmp_path)] == ["A"] and not marker.exists()


def test_a_file_with_other_columns_is_refused(tmp_path):
    search = Search("made-up", TRIED, recording([]), "a.module")
    path = search.path(tmp_path)
    path.parent.mkdir()
    pd.DataFrame({"recipe": ["A"]}).to_csv(path, index=False)
    with pytest.raises(FerReproError, match="search.csv of made-up has other columns"):
        search.read(tmp_path)


def test_a_recipe_of_the_baseline_trains(tmp_path):
    """Through the paper's own ``fit``, shortened."""
    faces = data.load("synthetic", size=(64, PUBLIC, 16))
    seen = faces.subset(np.flatnonzero(faces.usage != "PrivateTest"))
    whole = recipe_search.TRIED[0].recipe
    small = step("PlainResNet", widths=(8, 16, 32), blocks=(1, 1, 1))
    short = dataclasses.replace(whole, network=small, stages=(whole.stages[0].shortened(1),), batch_size=16)
    row = recipe_search.SEARCH.train(Tried("A", "shortened", short), seen, tmp_path, "cpu")
    assert tuple(row) == COLUMNS and row["n"] == PUBLIC and row["epochs"] == 1
    assert row["correct"] == round(row["accuracy"] * PUBLIC)


def test_the_picture_has_the_differences_from_one_recipe(faces, tmp_path):
    search = Search("made-up", TRIED, recording([]), "a.module")
    nothing = search.shown(tmp_path)
    assert isinstance(nothing, Html) and "python -m a.module" in nothing.body
    search.run(results_dir=tmp_path, runs_dir=tmp_path / "runs")
    path = search.path(tmp_path)
    lines = pd.read_csv(path).assign(correct=[16, 20], accuracy=[0.5, 0.625])
    lines.to_csv(path, index=False)
    plain, beside = search.shown(tmp_path), search.shown(tmp_path, beside="A")
    assert "B  A, another learning rate 62.50" in plain.alt and "points" not in plain.caption
    assert "points more or less than A" in beside.caption
    said = dataclasses.replace(search, tried=(TRIED[0], dataclasses.replace(TRIED[1], term="A, faster")))
    assert "B  A, faster 62.50" in said.shown(tmp_path).alt and "another learning rate" in path.read_text()
    drawn = [text.get_text() for text in beside.canvas().axes[0].texts]
    assert "+12.50" in drawn and "against A" in drawn
