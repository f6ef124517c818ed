"""The notebooks for Colab and Kaggle: their cells, run here with stand-ins for what only those machines have."""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
from data_copies import jpeg
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from fer_repro import data, results
from fer_repro.book import notebooks
from fer_repro.data.download import HANDLE
from fer_repro.project import project_root

ROOT = project_root()
HOSTS = {"colab": "/content", "kaggle": "/kaggle"}
PREINSTALLED = ("torch", "torchvision", "numpy", "pandas")
SHOWN = {"claim-card", "scores", "beside"}  # of the chapter, in the notebook that ran it
VERSIONS = ROOT / "notebooks" / "colab-versions.txt"


def cells_of(host: str) -> dict[str, str]:
    """The code cells of a notebook by their id, in its order."""
    read = notebooks.read(ROOT / "notebooks" / f"{host}.ipynb")
    return {cell.id: cell.source for cell in read.cells if cell.cell_type == "code"}


class Session:
    """A session on one of the machines: its root folder is ``place``, and its set-up is done."""

    def __init__(self, host: str, place: Path) -> None:
        self.host, self.place, self.namespace = host, place, {"Path": Path}

    def run(self, *ids: str, **replaced: Any) -> None:
        """Execute cells; ``replaced``: parameters of the chapter in place of the notebook's."""
        for name in ids:
            source = cells_of(self.host)[name].replace(HOSTS[self.host], str(self.place))
            exec(compile(source, f"{self.host}:{name}", "exec"), self.namespace)  # noqa: S102 - our own notebook
            if name == "choice":
                self.namespace["PARAMETERS"] |= replaced


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """kagglehub and google.colab as those machines have them; yields what was asked of them."""
    asked: list[str] = []
    faces = data.load("synthetic", size=(7, 7, 7))
    for at, usage in enumerate(faces.usage):
        folder = tmp_path / "hub" / ("train" if usage == "Training" else "test") / data.LABELS[faces.labels[at]]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{usage}_{at}.jpg").write_bytes(jpeg(faces.images[at]))
    hub, colab = types.ModuleType("kagglehub"), types.ModuleType("google.colab")
    hub.dataset_download = lambda handle: asked.append(handle) or str(tmp_path / "hub")
    colab.drive = types.SimpleNamespace(mount=asked.append)
    monkeypatch.setitem(sys.modules, "kagglehub", hub)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setenv("FER2013_ROOT", "set by the notebook")
    return asked


@pytest.fixture
def short_chapter(tmp_path, monkeypatch):
    """The chapter that the notebooks run, without what only its readers need: the whole one has its own tests."""
    whole = notebooks.read(notebooks.locate("deep-emotion"))
    whole.cells = [cell for cell in whole.cells if cell.id in {*SHOWN, "parameters", "open", "run"}]
    path = tmp_path / "deep-emotion.ipynb"
    notebooks.write(whole, path)
    monkeypatch.setattr(notebooks, "locate", lambda chapter: {"deep-emotion": path}[chapter])


def test_a_session_on_kaggle_goes_on_where_one_on_colab_ended(tmp_path, outside, short_chapter, capsys):
    colab = Session("colab", tmp_path / "content")
    colab.run("kept", "choice", "data", "run")
    assert outside == [f"{colab.place}/drive", HANDLE]
    assert Path(os.environ["FER2013_ROOT"]) == colab.place / "fer2013"
    kept = colab.place / "drive" / "MyDrive" / "fer-repro"
    printed = capsys.readouterr().out
    assert "epoch 1/" in printed and re.search(r"cell \d+/\d+ chapter.run\(\)", printed)
    (checkpoint,) = (kept / "runs").glob("deep-emotion/official/smoke/seed-100/checkpoint.pt")

    colab.run("show", "pack")
    printed = capsys.readouterr().out
    assert "There is no result to send" in printed and "on PrivateTest" in printed
    assert sorted(path.name for path in kept.iterdir()) == ["deep-emotion.ipynb", "runs"]

    kaggle = Session("kaggle", tmp_path / "kaggle")
    (kaggle.place / "input" / "saved").mkdir(parents=True)
    kept.rename(kaggle.place / "input" / "saved" / "fer-repro")
    kaggle.run("kept", "choice", "data", "run")
    assert "epoch 1/" not in capsys.readouterr().out, "what is trained is not trained again"
    assert (kaggle.namespace["KEPT"] / checkpoint.relative_to(kept)).is_file()
    assert kaggle.namespace["KEPT"] == kaggle.place / "working" / "fer-repro"


@pytest.mark.parametrize("host", HOSTS)
def test_a_stored_result_is_packed_as_a_pull_request_wants_it(host, tmp_path, outside):
    session = Session(host, tmp_path)
    session.run("kept", "choice", seed=0)
    session.namespace["KEPT"].mkdir(parents=True)
    session.run("pack")
    stored = results.folder_of(ROOT / "results", "deep-emotion", "official", 0)
    (packed,) = session.namespace["KEPT"].glob("*.zip")
    assert packed.name == "results-deep-emotion-official-seed-0.zip"
    with zipfile.ZipFile(packed) as archive:
        files = {ROOT / name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    assert files == {path: path.read_bytes() for path in stored.iterdir()}


@pytest.mark.parametrize("host", HOSTS)
def test_the_set_up_keeps_what_is_installed_and_the_running_python_finds_the_checkout(host, tmp_path, monkeypatch):
    asked: list[tuple[str, ...]] = []
    shell = types.SimpleNamespace(
        system=lambda line: asked.append(("!", line)), run_line_magic=lambda *line: asked.append(line)
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    source = TransformerManager().transform_cell(cells_of(host)["set-up"])
    source = re.sub(r"(/content|/kaggle/temp)(?=/)", tmp_path.as_posix(), source)
    source = source.replace('REPOSITORY = ""', 'REPOSITORY = "https://host/owner/name"')
    namespace = {"get_ipython": lambda: shell}
    exec(compile(source, host, "exec"), namespace)  # noqa: S102 - our own notebook
    assert asked == [
        ("!", "git clone --quiet --depth 1 {REPOSITORY} {CHECKOUT}"),
        ("cd", "{CHECKOUT}"),
        ("pip", 'install --quiet --constraint {PREINSTALLED} --editable ".[chapter,download]"'),
    ]
    kept = [Requirement(line) for line in namespace["PREINSTALLED"].read_text(encoding="utf-8").splitlines()]
    assert tuple(pin.name for pin in kept) == PREINSTALLED
    assert sys.path[0] == str(namespace["CHECKOUT"]) == str(tmp_path / "fer-repro")
    assert [name for name, cell in cells_of(host).items() if "pip" in cell or "!" in cell] == ["set-up"]


def test_what_the_set_up_asks_for_replaces_nothing_of_colab():
    pins = [Requirement(line) for line in VERSIONS.read_text().splitlines() if not line.startswith("#")]
    there = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = map(Requirement, [*project["dependencies"], *extras["chapter"], *extras["download"]])
    bounds = {canonicalize_name(one.name): one.specifier for one in asked}
    assert bounds.keys() - there.keys() == {"papermill", "filelock"}
    assert [name for name, version in there.items() if version not in bounds.get(name, SpecifierSet())] == []
    assert "3.13" in SpecifierSet(project["requires-python"])


def test_the_two_notebooks_differ_only_in_their_places():
    colab, kaggle = (notebooks.read(ROOT / "notebooks" / f"{host}.ipynb") for host in HOSTS)
    assert [cell.id for cell in colab.cells] == [cell.id for cell in kaggle.cells]
    same = ("choice", "run", "show", "pack")
    assert [cells_of("colab")[name] for name in same] == [cells_of("kaggle")[name] for name in same]
    for notebook in (colab, kaggle):
        assert notebook.metadata.kernelspec.name == "python3"
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


def test_the_shown_cells_are_in_every_chapter_of_a_paper():
    for path in (ROOT / "chapters" / "papers").glob("*.ipynb"):
        cells = {cell["id"]: cell for cell in json.loads(path.read_text())["cells"]}
        assert SHOWN <= cells.keys(), path.name
