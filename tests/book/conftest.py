"""Built books for the tests: the real one with a few chapters executed, and tiny ones with the real settings."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest

from fer_repro.project import project_root

pytest.importorskip("jupyter_book", reason="the book extra is not installed")

from fer_repro.book.build import build_book, toc_pages
from fer_repro.book.executed import KEPT, Copies, state

ROOT = project_root()
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
EXECUTED = {"leaderboard", "packages", "baseline", "deep-emotion", "resnet18-tricks"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real book, built once: every page is there, the chapters in EXECUTED have outputs; the others too where
    ``make book`` has executed them. What it has just made is taken as it stands."""
    made = Copies(ROOT, ROOT / "_build" / "html.book-source", state("stored", ""))
    if not made.missing([page for page in toc_pages(ROOT) if page.suffix == ".ipynb"]):
        return build_book(ROOT)  # executes nothing, and lays out what has changed
    out = tmp_path_factory.mktemp("book") / "html"
    if made.folder.is_dir():
        shutil.copytree(made.folder, out.with_name("html.book-source") / KEPT)
    return build_book(ROOT, out=out, only=EXECUTED)


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Path]:
    """Makes the sources of a small book: the real settings and extensions, two Markdown pages, and notebooks."""

    def make(front: str = "", code: str = "print(profile, seed)", notebooks: int = 1) -> Path:
        root = tmp_path / "tiny"
        for name in ("_ext", "_static"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy2(ROOT / "_config.yml", root)
        (root / "references.bib").write_text(
            "@article{a2020, title={T}, author={Ann Author}, journal={J}, year={2020}}\n"
        )
        (root / "_toc.yml").write_text(
            "format: jb-book\nroot: chapters/index\nchapters:\n- file: chapters/page\n- file: chapters/plain\n"
            + "".join(f"- file: chapters/page-{number}\n" for number in range(2, notebooks + 1))
        )
        (root / "chapters").mkdir()
        (root / "chapters" / "plain.md").write_text("# Plain\n\nNo chart. [Front](index.md)\n")
        (root / "chapters" / "index.md").write_text(f"# Front\n\n[A page](page.ipynb), $x^2$.\n\n{front}\n")
        notebook = nbformat.v4.new_notebook(metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}})
        parameters = nbformat.v4.new_code_cell('profile: str = "smoke"  # smoke | stored\nseed: int = 0  # a number')
        parameters.metadata.tags = ["parameters"]
        notebook.cells = [nbformat.v4.new_markdown_cell("# A page"), parameters, nbformat.v4.new_code_cell(code)]
        nbformat.write(notebook, root / "chapters" / "page.ipynb")
        for number in range(2, notebooks + 1):
            shutil.copy(root / "chapters" / "page.ipynb", root / "chapters" / f"page-{number}.ipynb")
        return root

    return make


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """The system's Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: the pages were not looked at in a browser")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()
