"""Building: what is staged and cleaned, what stops a build, and that a failed one leaves the old book alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from fer_repro.book import build, cleaning, front, notebooks
from fer_repro.errors import FerReproError
from fer_repro.project import default_results_dir, project_root
from fer_repro.verification import pages

ROOT = project_root()


def executed(source: str, *outputs: nbformat.NotebookNode, tags: tuple[str, ...] = ()) -> nbformat.NotebookNode:
    cell = nbformat.v4.new_code_cell(
        source, outputs=list(outputs), metadata={"tags": list(tags), "papermill": {"a": 1}}
    )
    return nbformat.v4.new_notebook(cells=[cell], metadata={"papermill": {"input_path": "/x"}})


def test_a_small_book_is_built_executed_and_self_contained(tiny):
    root = tiny(front="See {footcite}`a2020`. $$\\sum_i x_i$$\n\n```{footbibliography}\n```")
    html = build.build_book(root)
    assert "<math" in (html / "chapters" / "index.html").read_text()
    for path in html.rglob("*.html"):
        text = path.read_text()
        assert (
            not re.search(r"<script[^>]*mathjax", text, re.I) and "THEBE_JS_URL" not in text and 'as="font"' not in text
        )
    assert "chapters/index.html" in (html / "index.html").read_text()
    published = json.loads((html / "_sources" / "chapters" / "page.ipynb").read_text())
    assert "papermill" not in json.dumps(published)
    assert str(root) not in json.dumps(published)
    assert not any(cell.get("outputs") for cell in notebooks.read(root / "chapters" / "page.ipynb").cells)


def test_warnings_stop_the_build_and_the_old_book_stays(tiny):
    noisy = "import sys; print('a warning', file=sys.stderr)"
    root = tiny(front="$\\unknowntex$ and [nowhere](#nowhere).", code=noisy)
    old = root / "_build" / "html"
    old.mkdir(parents=True)
    (old / "objects.inv").write_text("")
    (old / "index.html").write_text("the old book")
    with pytest.raises(FerReproError) as raised:
        build.build_book(root)
    for fault in (r"unknown command \unknowntex", "nowhere", "stderr was found"):
        assert fault in str(raised.value)
    assert (old / "index.html").read_text() == "the old book"


def test_a_page_that_would_load_something_from_elsewhere_stops_the_build(tiny):
    code = 'from IPython.display import HTML; HTML(\'<img src="https://example.org/a.png" alt="a">\')'
    with pytest.raises(FerReproError, match=r"page.html: loads https://example.org/a.png from another site"):
        build.build_book(tiny(code=code))


def test_chapters_that_fail_or_show_a_path_stop_the_build(tiny, monkeypatch):
    root = tiny(code="raise ValueError('no')")
    monkeypatch.chdir(root)
    second = notebooks.read(root / "chapters" / "page.ipynb")
    second.cells[-1].source = "import os; print(os.getcwd())"
    (root / "chapters" / "plain.md").unlink()
    notebooks.write(second, root / "chapters" / "plain.ipynb")
    with pytest.raises(FerReproError) as raised:
        build.build_book(root)
    for fault in (
        "2 of 2 chapters failed",
        "ValueError: no",
        "chapter plain: the output of cell",
        "a path of this machine",
    ):
        assert fault in str(raised.value)
    assert not (root / "_build" / "html").exists()


def test_plain_jupyter_book_builds_the_sources_without_running_them(tiny):
    root = tiny(code="raise SystemExit('executed')")
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", ".", "-W", "-n"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "executed" in (root / "_build" / "html" / "chapters" / "page.html").read_text()


def test_a_missing_page_and_a_wrong_profile_are_named(tiny):
    root = tiny()
    with pytest.raises(FerReproError, match="unknown profile 'ful'"):
        build.build_book(root, profile="ful")
    (root / "chapters" / "plain.md").unlink()
    with pytest.raises(FerReproError, match=r"_toc.yml names chapters/plain, but there is no"):
        build.build_book(root)


def test_a_folder_that_is_no_book_is_not_replaced(tiny, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(FerReproError, match="is not a built book and not empty"):
        build.build_book(tiny(), out=mine)
    assert (mine / "thesis.txt").exists()


def test_cleaning_drops_metadata_and_folds_the_parameters():
    notebook = executed("# Parameters\nseed = 1\n", tags=(cleaning.INJECTED_TAG,))
    cleaning.clean(notebook, "page")
    cell = notebook.cells[0]
    assert "papermill" not in notebook.metadata and "papermill" not in cell.metadata
    assert cell.source == "seed = 1\n" and "hide-input" in cell.metadata.tags
    assert cell.id == cleaning.INJECTED_TAG  # the same in every build
    assert cell.metadata.mystnb.code_prompt_show == "Parameters this page was built with"


@pytest.mark.parametrize(
    "text",
    [f"{Path.home()}/data/x", f"in {ROOT}/results", "/Users/ann/x", r"C:\Users\ann", f"File {sys.prefix}/lib/a.py"],
)
def test_paths_of_a_machine_are_found_in_every_kind_of_output(text):
    stream = nbformat.v4.new_output("stream", text=f"see {text}\n")
    shown = nbformat.v4.new_output("display_data", data={"text/html": f"<p>{text}</p>", "text/plain": "p"})
    for output in (stream, shown):
        with pytest.raises(FerReproError, match="a path of this machine"):
            cleaning.clean(executed("1", output), "page")


def test_pictures_and_addresses_are_no_paths():
    picture = f"<img src='data:image/png;base64,AAA{Path.home()}/BBB=' alt='x'> https://example.org{Path.home()}/x"
    output = nbformat.v4.new_output("display_data", data={"text/html": picture, "image/png": f"{Path.home()}"})
    cleaning.clean(executed("1", output), "page")


def test_the_tables_of_contents_and_the_chapters_agree():
    pages = {str(page) for page in build.toc_pages(ROOT)}
    there = {str(p.relative_to(ROOT)) for suffix in ("md", "ipynb") for p in (ROOT / "chapters").rglob(f"*.{suffix}")}
    there = {name for name in there if ".ipynb_checkpoints" not in name and not name.startswith(str(front.FOLDER))}
    assert pages == there


def test_the_pins_name_no_host_and_no_path():
    lines = (ROOT / "constraints.txt").read_text().split()
    assert len(lines) > 100
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+", line), line


def test_conda_and_pip_install_the_same_extras():
    import tomllib

    import yaml

    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    assert pip[0] == "-c constraints.txt"
    conda = set(re.search(r"\[(.*)\]", pip[1])[1].split(","))
    makefile = set(re.search(r"^EXTRAS := (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split(","))
    assert conda == makefile <= extras


def test_ci_is_executable_bash():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_built_pages_show_what_their_sources_give(html, monkeypatch):
    """The pages with outputs, made again from results and claims; a number that was changed on one of them is named."""
    built = {page: (html / page.with_suffix(".html")).read_text(encoding="utf-8") for page in build.toc_pages(ROOT)}
    executed = [page for page, text in built.items() if 'class="cell_output' in text or page.stem == "index"]
    assert len(executed) > 5
    monkeypatch.setattr(pages, "toc_pages", lambda root: executed)
    assert pages.compare(html, default_results_dir()) == (len(executed), [])
    page = html / "chapters" / "papers" / "deep-emotion.html"
    true = page.read_text(encoding="utf-8")
    [gap] = re.findall(r"[\d.]+ points more than measured", true)
    try:
        page.write_text(true.replace(gap, "9.54 points more than measured"), encoding="utf-8")
        [wrong] = pages.compare(html, default_results_dir())[1]
    finally:
        page.write_text(true, encoding="utf-8")
    assert "deep-emotion.html: shows" in wrong and "9.54 points more" in wrong
