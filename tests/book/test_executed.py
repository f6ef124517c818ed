"""What is kept between builds: a chapter runs again when something that it shows has changed, and only then."""

from __future__ import annotations

import os
import time
from pathlib import Path

import nbformat
import pytest

from fer_repro.book import build, executed, notebooks
from fer_repro.errors import FerReproError

# A chapter that counts its runs in a file beside the book, and shows only what stays the same.
COUNTED = "with open({count!r}, 'a') as file:\n    file.write('x')\nprint('{shown}')"


def counted(root: Path, shown: str = "one") -> Path:
    count, page = root.parent / "runs", root / "chapters" / "page.ipynb"
    notebook = notebooks.read(page)
    notebook.cells[-1].source = COUNTED.format(count=str(count), shown=shown)
    notebooks.write(notebook, page)
    return count


def files_of(html: Path) -> dict[str, bytes]:
    return {str(path.relative_to(html)): path.read_bytes() for path in html.rglob("*") if path.is_file()}


def text_of(html: Path, page: str) -> str:
    return (html / "chapters" / f"{page}.html").read_text()


def test_a_second_build_executes_nothing_and_equals_one_from_nothing(tiny):
    root = tiny()
    count, plain, index = counted(root), root / "chapters" / "plain.md", root / "chapters" / "index.md"
    build.build_book(root)
    plain.write_text(
        "# Another title\n\n## A heading\n\nA changed sentence, of {footcite}`a2020`.\n\n```{footbibliography}\n```\n"
    )
    index.write_text("# Front\n\n[A page](page.ipynb) and [a heading](plain.md#a-heading).\n")
    warm = build.build_book(root)
    assert count.read_text() == "x"
    assert "A changed sentence" in text_of(warm, "plain")
    assert "Another title" in text_of(warm, "page")  # in the list of pages beside it
    cold = build.build_book(root, out=root / "_build" / "other")
    assert count.read_text() == "xx"
    assert files_of(warm) == files_of(cold)
    counted(root, "two")
    assert "two" in text_of(build.build_book(root), "page")
    assert count.read_text() == "xxx"


def test_a_changed_sentence_of_a_chapter_executes_nothing_and_its_code_does(tiny):
    root = tiny()
    count, page = counted(root), root / "chapters" / "page.ipynb"
    build.build_book(root)
    notebook = notebooks.read(page)
    notebook.cells[0].source = "# A page\n\nA new sentence."
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell("A new cell.", id="new"))
    notebooks.write(notebook, page)
    html = text_of(build.build_book(root), "page")
    assert count.read_text() == "x" and "A new sentence." in html and "A new cell." in html
    assert "one" in html, "what the code showed stays"
    counted(root, "two")
    assert "two" in text_of(build.build_book(root), "page") and count.read_text() == "xx"


def test_a_page_that_was_removed_is_in_no_later_book(tiny):
    root = tiny()
    build.build_book(root)
    (root / "chapters" / "plain.md").unlink()
    toc = root / "_toc.yml"
    toc.write_text(toc.read_text().replace("- file: chapters/plain\n", ""))
    html = build.build_book(root)
    assert not (html / "chapters" / "plain.html").exists() and "plain" not in (html / "searchindex.js").read_text()


def test_a_warning_is_repeated_until_its_cause_is_gone(tiny):
    root = tiny()
    count, plain = counted(root), root / "chapters" / "plain.md"
    build.build_book(root)
    good = plain.read_text()
    plain.write_text(f"{good}\n$\\unknowntex$ and {{nosuchrole}}`x`.\n")
    for _ in range(2):
        with pytest.raises(FerReproError, match="nosuchrole"):
            build.build_book(root)
    plain.write_text(good)
    os.utime(plain, (0, 0))  # as a copy that keeps its old time has it
    assert "nosuchrole" not in text_of(build.build_book(root), "plain")
    assert count.read_text() == "x"


def test_only_executes_what_was_named_and_keeps_the_rest_as_it_was(tiny):
    root = tiny()
    count = counted(root, "before")
    html = build.build_book(root, only=[])
    assert not count.exists() and "cell_output" not in text_of(html, "page")
    build.build_book(root, only=["page"])
    counted(root, "after")
    html = build.build_book(root, only=[])
    assert "before" in text_of(html, "page") and count.read_text() == "x"
    with pytest.raises(FerReproError, match=r"there is no chapter 'paage': did you mean page\?"):
        build.build_book(root, only=["paage"])


def test_a_chapter_that_fails_leaves_no_copy_and_runs_again(tiny):
    root = tiny(code="raise ValueError('no')")
    for _ in range(2):
        with pytest.raises(FerReproError, match="ValueError: no"):
            build.build_book(root)
    copies = executed.Copies(root, root / "_build" / "html.book-source", "any")
    assert copies.last(Path("chapters/page.ipynb")) is None


@pytest.mark.parametrize("content", [b"", b"[]", b'{"cells": [1], "metadata": {}}', b'{"cells": [], "nbformat": 4}'])
def test_a_damaged_notebook_is_one_sentence(tmp_path, content):
    (tmp_path / "page.ipynb").write_bytes(content)
    with pytest.raises(FerReproError, match=r"page.ipynb is not a readable notebook"):
        executed.Copies(tmp_path, tmp_path / "html.book-source", "any").place(Path("page.ipynb"))


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project and a package with one file each of what chapters read."""
    for name in ("package/a.py", "results/v/result.json", *executed.READ):
        path = tmp_path / name if "." in Path(name).name else tmp_path / name / "x.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    monkeypatch.setattr(executed.fer_repro, "__file__", str(tmp_path / "package" / "__init__.py"))
    monkeypatch.setattr(executed, "default_results_dir", lambda: tmp_path / "results")
    monkeypatch.setattr(executed, "_data_set", lambda: ["none"])
    monkeypatch.setattr(executed, "_titles", lambda: ["a title"])
    return tmp_path


def test_the_state_follows_every_file_that_a_chapter_may_read(project):
    before = executed.state("stored", "")
    assert executed.state("stored", "") == before != executed.state("smoke", "")
    (project / "package" / "__pycache__").mkdir()
    (project / "package" / "__pycache__" / "a.pyc").write_text("compiled")
    (project / "chapters.md").write_text("prose")
    assert executed.state("stored", "") == before
    for path in sorted(path for path in project.rglob("*") if path.is_file() and path.suffix not in (".pyc", ".md")):
        path.write_text("2")
        assert executed.state("stored", "") != before, path
        path.write_text("1")
    assert executed.state("stored", "") == before
    (project / "results" / "v" / "result.json").rename(project / "results" / "v" / "other.json")
    assert executed.state("stored", "") != before


def test_the_state_follows_the_data_at_hand_and_the_packages(project, monkeypatch):
    before = executed.state("stored", "")
    monkeypatch.setattr(executed, "_titles", lambda: ["another title"])
    assert executed.state("stored", "") != before
    monkeypatch.setattr(executed, "_data_set", lambda: ["another"])
    other = executed.state("stored", "")
    monkeypatch.setenv("FER_REPRO_ANYTHING", "else")
    third = executed.state("stored", "")
    monkeypatch.setattr(executed, "distributions", lambda: [])
    assert len({before, other, third, executed.state("stored", "")}) == 4
    monkeypatch.setenv("FER_REPRO_CACHE", str(project))  # a place, not a content
    assert executed.state("stored", "") == executed.state("stored", "")


def test_the_data_set_is_known_by_its_content(monkeypatch, tmp_path, synthetic):
    monkeypatch.setenv(executed.VARIABLE, str(tmp_path / "nothing"))
    named, why = executed._data_set()
    assert named == "named" and "nothing" in why
    monkeypatch.setattr(executed.data, "load", lambda **_: synthetic)
    assert executed._data_set() == ["named", synthetic.name, synthetic.source, synthetic.digest]
    monkeypatch.delenv(executed.VARIABLE)
    assert executed._data_set()[0] == ""


def test_the_last_copy_is_the_newest_and_nothing_else_counts(tmp_path):
    page = Path("chapters/page.ipynb")
    (tmp_path / "chapters").mkdir()
    source = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(1)", id="one")])
    notebooks.write(source, tmp_path / page)
    copies = executed.Copies(tmp_path, tmp_path / "staging", "a state")
    place = copies.place(page)
    place.parent.mkdir(parents=True)
    for name in ("page.ipynb", "page.failed.ipynb", "page-two.0123456789abcdef.ipynb"):
        (place.parent / name).write_text("no copy of it")
    assert copies.last(page) is None and copies.missing([page]) == [page]
    older = place.with_name("page.0123456789abcdef.ipynb")
    older.write_text("older")
    time.sleep(0.01)
    place.write_text("newer")
    assert copies.last(page) == place and copies.missing([page]) == []
    source.cells[0].source = "print(2)"
    notebooks.write(source, tmp_path / page)
    assert copies.missing([page]) == [page] and copies.last(page) == place
