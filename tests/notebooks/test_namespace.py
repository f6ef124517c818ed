"""A chapter's globals: papermill's own names, a second Run All, what users call their own things."""

from __future__ import annotations

import ast
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from fer_repro import parameters
from fer_repro.book import notebooks
from fer_repro.project import project_root

ROOT = project_root()
SOURCES = sorted(p for p in (ROOT / "chapters").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
OWN = 'x = 1\nlr = 0.1\npath = "here"\nseeds = [0, 1]\nfor epoch in range(3):\n    pass'


def code_cells(path):
    return [cell for cell in notebooks.read(path).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", ["leaderboard", "speed", "local-learning-bow"])
def test_it_runs_twice_in_one_kernel_and_beside_a_users_own_names(name):
    cells = code_cells(notebooks.locate(name))
    again = [nbformat.v4.new_code_cell(source) for source in (OWN, *(cell.source for cell in cells))]
    notebook = nbformat.v4.new_notebook(cells=[*cells, *again])
    NotebookClient(notebook, timeout=900, kernel_name="python3").execute()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_cell_sets_a_name_that_a_second_run_all_would_refuse(path):
    taken = notebooks.inspect(path).parameters
    for cell in code_cells(path):
        if notebooks.PARAMETERS_TAG in cell.metadata.get("tags", []):
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                assert node.id not in taken, f"{node.id} would hide the parameter"
                assert parameters.set_in({node.id: 1}, list(taken)) == {}


def test_papermills_own_names_run(tmp_path):
    done = papermill("leaderboard", tmp_path, "--inject-paths", "--inject-input-path", "--inject-output-path")
    assert done.returncode == 0, done.stderr


def papermill(chapter, folder, *arguments):
    command = [sys.executable, "-m", "papermill", str(notebooks.locate(chapter)), str(folder / "o.ipynb")]
    return subprocess.run([*command, *arguments, "--no-progress-bar"], capture_output=True, text=True, check=False)
