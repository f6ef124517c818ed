"""The chapters as they are committed: valid, without outputs, runnable with their defaults."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import nbformat
import pytest
from click.testing import CliRunner
from papermill.cli import papermill

from fer_repro import papers
from fer_repro.book import notebooks
from fer_repro.project import project_root

ROOT = project_root()
SOURCES = sorted((ROOT / "chapters").rglob("*.ipynb"))
SOURCES = [path for path in SOURCES if ".ipynb_checkpoints" not in path.parts]
SLUGS = {variant.slug for name, variant in papers.variants().items() if (ROOT / "results" / name).is_dir()}
# `make book` executes every chapter from the stored results, and runs smoke where there are none. So nbval runs here
# those whose smoke run it passes over, and one page that has no such run.
BY_NBVAL = [path for path in SOURCES if path.stem in SLUGS | {"leaderboard"}]
CELL_LIMIT = 900  # seconds; a smoke chapter takes seconds, but a loaded machine may take minutes


@pytest.fixture(params=SOURCES, ids=lambda path: path.stem)
def source(request):
    return request.param


def test_there_are_chapters():
    assert {"leaderboard", "vggnet", "resnet18-tricks", "local-learning-bow"} <= {path.stem for path in SOURCES}


def test_it_is_valid_and_carries_no_outputs(source):
    notebook = notebooks.read(source)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "papermill" not in notebook.metadata
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
        assert "papermill" not in cell.metadata and "injected-parameters" not in cell.metadata.get("tags", [])


def test_its_parameters_are_typed_and_explained(source):
    found = notebooks.inspect(source).parameters
    assert found
    for parameter in found.values():
        assert parameter.type in notebooks.TYPES and parameter.help, parameter
    if "variant" in found:
        assert found["profile"].default == "smoke" and found["variant"].default


def test_papermill_lists_every_parameter_with_type_and_help(source):
    listed = CliRunner().invoke(papermill, ["--help-notebook", str(source)])
    assert listed.exit_code == 0 and "Unable to parse" not in listed.output
    for parameter in notebooks.inspect(source).parameters.values():
        line = rf"{parameter.name}: {parameter.type} \(default "
        assert re.search(line, listed.output), listed.output


def test_no_path_of_a_machine_in_its_cells(source):
    for cell in nbformat.read(source, as_version=4).cells:
        assert not re.search(r"/home/|/root/|/Users/|[A-Z]:\\\\", cell.source)


@pytest.mark.parametrize("source", BY_NBVAL, ids=lambda path: path.stem)
def test_it_runs_under_nbval_with_its_defaults(source):
    """What somebody gets who checks the notebooks with nbval alone; the defaults are the smoke profile."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax",
        f"--nbval-cell-timeout={CELL_LIMIT}",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(ROOT),
        "-c",
        os.devnull,
        str(source),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
