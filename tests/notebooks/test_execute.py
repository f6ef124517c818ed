"""papermill made strict: each way in which a notebook can fail is an error with a sentence, and is never published."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import nbformat
import pytest
from notebook_builder import texts, write_notebook

from fer_repro.book import notebooks
from fer_repro.errors import FerReproError


def test_parameters_reach_the_notebook_and_the_output_is_whole(tmp_path):
    source = write_notebook(tmp_path / "page.ipynb", "print(profile, seed, epochs)")
    out = notebooks.execute(source, tmp_path / "deep" / "out.ipynb", {"seed": 7, "profile": "full", "epochs": 3})
    assert texts(out) == "full 7 3\n"
    notebook = nbformat.read(out, as_version=4)
    assert notebook.metadata.papermill.output_path == "out.ipynb"  # not a path of this machine
    assert [path.name for path in out.parent.iterdir()] == ["out.ipynb"]
    assert not any(cell.get("outputs") for cell in nbformat.read(source, as_version=4).cells)


def test_inspect_gives_type_default_and_help(tmp_path):
    found = notebooks.inspect(write_notebook(tmp_path / "page.ipynb")).parameters
    assert list(found) == ["profile", "seed", "epochs"]
    assert (found["seed"].type, found["seed"].default, found["seed"].help) == ("int", 0, "any whole number")
    assert found["epochs"].default is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sed": 1}, r"no parameter 'sed': did you mean 'seed'\?"),
        ({"zzz": 1}, "no parameter 'zzz': its parameters are profile, seed, epochs"),
        ({"seed": "abc"}, "seed is 'abc', expected a whole number"),
        ({"seed": True}, "seed is True, expected a whole number"),
        ({"seed": None}, "seed is None, expected a whole number"),
        ({"seed": 1.5}, "seed is 1.5, expected a whole number"),
        ({"profile": 3}, "profile is 3, expected a text"),
        ({"epochs": "all"}, "epochs is 'all', expected a whole number or None"),
    ],
)
def test_a_wrong_parameter_is_an_error_before_anything_runs(tmp_path, given, said):
    trace = tmp_path / "ran"
    source = write_notebook(tmp_path / "page.ipynb", f"open({str(trace)!r}, 'w').close()")
    with pytest.raises(FerReproError, match=said):
        notebooks.execute(source, tmp_path / "out.ipynb", given)
    assert not trace.exists() and not (tmp_path / "out.ipynb").exists()


def test_a_chapter_of_a_paper_gets_its_values_checked_too():
    chapter = notebooks.inspect("vggnet")
    chapter.check({"profile": "stored", "seed": 3})
    with pytest.raises(FerReproError, match="profile is 'smok'"):
        chapter.check({"profile": "smok"})
    with pytest.raises(FerReproError, match="belongs to the chapter 'resnet18-tricks'"):
        chapter.check({"variant": "resnet18-tricks"})


@pytest.mark.parametrize(
    ("name", "text", "value"), [("seed", "12", 12), ("epochs", "None", None), ("epochs", "2", 2), ("profile", "7", "7")]
)
def test_words_of_the_command_line_become_values_of_the_declared_type(tmp_path, name, text, value):
    found = notebooks.inspect(write_notebook(tmp_path / "page.ipynb")).parameters
    parsed = found[name].parse(text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(("name", "text"), [("seed", "1.5"), ("seed", "None"), ("epochs", "few"), ("seed", "")])
def test_words_of_the_wrong_type_are_errors(tmp_path, name, text):
    found = notebooks.inspect(write_notebook(tmp_path / "page.ipynb")).parameters
    with pytest.raises(FerReproError, match=f"parameter {name} is"):
        found[name].parse(text)


def test_no_parameters_cell_is_an_error_even_without_parameters(tmp_path):
    source = write_notebook(tmp_path / "page.ipynb", "seed = 0", parameters=None)
    with pytest.raises(FerReproError, match="has no cell tagged 'parameters', expected exactly one"):
        notebooks.execute(source, tmp_path / "out.ipynb")


def test_a_notebook_without_a_kernel_is_an_error(tmp_path):
    source = write_notebook(tmp_path / "page.ipynb", "1")
    notebook = nbformat.read(source, as_version=4)
    del notebook.metadata["kernelspec"]
    nbformat.write(notebook, source)
    with pytest.raises(FerReproError, match="names no kernel"):
        notebooks.inspect(source)


def test_a_parameter_that_papermill_cannot_read_is_an_error(tmp_path):
    source = write_notebook(tmp_path / "page.ipynb", parameters='mode: str = ""  # empty = all')
    with pytest.raises(FerReproError, match="cannot read mode"):
        notebooks.inspect(source)


def test_a_raising_cell_is_an_error_and_its_output_is_kept_aside(tmp_path):
    source = write_notebook(tmp_path / "page.ipynb", "print('so far')", "# why\nraise ValueError('bad\\nluck')")
    out = tmp_path / "out.ipynb"
    with pytest.raises(FerReproError, match=r"page: cell 4 \(raise ValueError.*raised ValueError: bad luck"):
        notebooks.execute(source, out)
    assert not out.exists() and "so far" in texts(tmp_path / "out.failed.ipynb")


def test_a_failure_leaves_the_former_output_alone(tmp_path):
    out = tmp_path / "out.ipynb"
    good = write_notebook(tmp_path / "good.ipynb", "print('good')")
    notebooks.execute(good, out)
    before = out.read_bytes()
    bad = write_notebook(tmp_path / "bad.ipynb", "1 / 0")
    with pytest.raises(FerReproError, match="ZeroDivisionError"):
        notebooks.execute(bad, out)
    assert out.read_bytes() == before and (tmp_path / "out.failed.ipynb").exists()
    notebooks.execute(good, out)
    assert not (tmp_path / "out.failed.ipynb").exists()


def test_a_cell_that_runs_out_of_time_is_an_error(tmp_path):
    source = write_notebook(tmp_path / "page.ipynb", "import time; time.sleep(60)", "print('after')")
    with pytest.raises(FerReproError, match=r"ran longer than 2 s.*--timeout"):
        notebooks.execute(source, tmp_path / "out.ipynb", timeout=2)
    assert not (tmp_path / "out.ipynb").exists()


def test_a_dead_kernel_is_an_error(tmp_path):
    source = write_notebook(tmp_path / "page.ipynb", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(FerReproError, match="its kernel died"):
        notebooks.execute(source, tmp_path / "out.ipynb")
    assert not (tmp_path / "out.ipynb").exists()


def test_an_unknown_kernel_is_an_error(tmp_path):
    source = write_notebook(tmp_path / "page.ipynb", "1")
    with pytest.raises(FerReproError, match="no Jupyter kernel 'fortran'"):
        notebooks.execute(source, tmp_path / "out.ipynb", kernel="fortran")


def test_the_chapter_itself_is_never_overwritten(tmp_path):
    source = write_notebook(tmp_path / "page.ipynb", "1")
    before = source.read_bytes()
    with pytest.raises(FerReproError, match="is the chapter itself"):
        notebooks.execute(source, source)
    with pytest.raises(FerReproError, match="ends in .ipynb"):
        notebooks.execute(source, tmp_path / "out.txt")
    assert source.read_bytes() == before


def test_an_unwritable_place_is_an_error_before_anything_runs(tmp_path):
    source = write_notebook(tmp_path / "page.ipynb", "1")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FerReproError, match="cannot be written"):
        notebooks.execute(source, tmp_path / "file" / "out.ipynb")


def test_unknown_chapters_and_broken_notebooks_are_named(tmp_path):
    with pytest.raises(FerReproError, match=r"no chapter 'vgnet': did you mean vggnet"):
        notebooks.inspect("vgnet")
    with pytest.raises(FerReproError, match="there is no notebook"):
        notebooks.inspect(tmp_path / "missing.ipynb")
    for name, content in (("cut", '{"cells": ['), ("foreign", json.dumps({"a": 1})), ("empty", "")):
        path = tmp_path / f"{name}.ipynb"
        path.write_text(content)
        with pytest.raises(FerReproError, match="is not a readable notebook"):
            notebooks.inspect(path)


def test_without_papermill_the_extra_is_named(tmp_path, monkeypatch):
    source = write_notebook(tmp_path / "page.ipynb", "1")
    monkeypatch.setitem(sys.modules, "papermill", None)
    with pytest.raises(FerReproError, match=r"pip install 'fer-repro\[book\]'"):
        notebooks.inspect(source)


def test_the_outputs_permissions_follow_the_umask(tmp_path):
    source = write_notebook(tmp_path / "page.ipynb", "1")
    before = os.umask(0o022)
    try:
        out = notebooks.execute(source, tmp_path / "out.ipynb")
    finally:
        os.umask(before)
    assert stat.S_IMODE(out.stat().st_mode) == 0o644


def test_plain_papermill_refuses_a_misspelt_parameter_of_a_chapter(tmp_path):
    """papermill itself only logs a line; the chapter's own check must stop it."""
    out = tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", str(notebooks.locate("vggnet")), str(out), "-p", "sed", "1"]
    done = subprocess.run([*command, "--no-progress-bar"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "unknown parameter 'sed'" in done.stderr
