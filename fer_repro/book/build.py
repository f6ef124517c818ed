"""The book: execute every chapter into a staging folder, build the HTML there, check it, and only then publish it.

The staging folder stays between builds: chapters that have not changed are not executed again, and Sphinx reads only
the sources that have. Every page is written anew each time, so a build that found everything done and one that began
with nothing give the same book.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from fer_repro.book import executed, html_check, notebooks, pictures
from fer_repro.book.downloads import write_downloads
from fer_repro.book.executed import listed
from fer_repro.book.front import FOLDER, write_front
from fer_repro.book.repository import configured
from fer_repro.errors import FerReproError, nearest
from fer_repro.files import InUse, atomic_write, owned
from fer_repro.logs import shown
from fer_repro.papers import PROFILES
from fer_repro.processes import home_folder
from fer_repro.project import project_root

log = logging.getLogger(__name__)

COPIED = ("_config.yml", "_toc.yml", "_ext", "_static", "references.bib", "CHANGELOG.md", "CONTRIBUTING.md")
IGNORED = ("__pycache__", ".ipynb_checkpoints")
CELL_TIMEOUT = 1800.0  # seconds; a cell of a smoke chapter takes a few
BUILT = Path("_build")  # below the staging folder: what Sphinx reads (doctrees) and writes, and the executed chapters
GENERATED = (BUILT, FOLDER, pictures.PLACE)
READING, READ = BUILT / ".doctrees", BUILT / "read"  # of the build that runs now, of the last one that had no warning
SETTINGS = "settings"  # file in READ: digest of what Sphinx read the sources with


@shown()
def build_book(
    root: Path | None = None,
    *,
    profile: str = "stored",
    out: Path | None = None,
    results_dir: str = "",
    only: Collection[str] | None = None,
    jobs: int = 2,
    timeout: float = CELL_TIMEOUT,
) -> Path:
    """Execute the notebooks of ``_toc.yml`` and build the book; returns the folder of finished HTML.

    ``profile``: what chapters run (``stored`` falls back to smoke, on the page). ``out``: where the finished book goes,
    ``_build/html`` by default; its staging folder ``html.book-source`` lies beside it. A chapter whose code has not
    changed is not executed again, see `executed.state`. ``only``: slugs to execute where they have changed; each other
    notebook stays as it was executed last, or without outputs. ``jobs``: chapters at a time. ``timeout``: seconds per
    cell.
    Raises `FerReproError` when a chapter fails, Sphinx warns, a link is dead, a page would load something from
    elsewhere, or another process builds the book at ``out``; the previous book there is then unchanged.
    """
    if profile not in PROFILES:
        raise FerReproError(f"unknown profile '{profile}', expected one of {', '.join(PROFILES)}")
    root = Path(root) if root else project_root()
    root, out = root.resolve(), Path(out or root / "_build" / "html").absolute()
    if results_dir and not Path(results_dir).is_dir():
        raise FerReproError(f"there is no results folder {results_dir}: give one with --results-dir")
    staging = out.with_name(f"{out.name}.book-source")
    try:
        configured(root)  # a bad address is said now, not after every chapter ran
        _require_place(root, out)
        with home_folder(), _alone(out):
            _finish_publishing(out)
            pages = [page for page in toc_pages(root) if page.suffix == ".ipynb"]
            chosen = _chosen(pages, only)
            stage(root, staging, pages)
            copies = executed.Copies(root, staging, executed.state(profile, results_dir))
            todo = copies.missing(chosen)
            log.info(f"{len(chosen) - len(todo)} of {len(chosen)} chapters are as they were executed last")
            if todo:
                copies.execute(todo, profile, results_dir, jobs, timeout)
            placed = place_notebooks(staging, copies, pages, chosen)
            write_front(staging, results_dir)  # its table links to the chapters that are there
            write_downloads(staging, results_dir)
            log.info("building the pages")
            html = build_html(staging)
            if problems := html_check.problems(html):
                raise FerReproError(listed(f"the built pages in {html} have {len(problems)} faults", problems))
            publish(html, out)
            copies.forget_all_but(placed)
    except OSError as error:
        why = f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}"
        raise FerReproError(
            f"the book cannot be built in {out.parent}: {why}; correct that or name another folder with --out"
        ) from error
    log.info(f"the book is in {out}: open {out / 'index.html'}")
    return out


def _require_place(root: Path, out: Path) -> None:
    """Raises `FerReproError` where a book at ``out`` would replace something else, or be copied into itself."""
    sources = [root / name for name in (*COPIED, "chapters")]
    inside = next((source for source in sources if out.resolve().is_relative_to(source)), None)
    if inside:
        raise FerReproError(f"{out} lies in {inside}, a source of the book: name another folder for the book")
    other = out.exists() and not (out.is_dir() and ((out / "objects.inv").exists() or not any(out.iterdir())))
    if other or not out.name:
        raise FerReproError(f"{out} is not a built book and not empty: name another folder for the book")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the lock of the book at ``out``. Raises `FerReproError` where another process builds it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.with_name(f".{out.name}.lock")
    try:
        with owned(path):
            yield
    except InUse as other:
        raise FerReproError(
            f"the book in {out} is being built by {other.holder}: wait until that ends, or name another folder with "
            f"--out{other.way_out}"
        ) from other


def toc_pages(root: Path) -> list[Path]:
    """The pages of ``_toc.yml`` in order, relative to ``root``. Raises `FerReproError` for a page without a file."""
    try:
        from sphinx_external_toc.parsing import parse_toc_yaml
    except ImportError as error:
        raise FerReproError(notebooks.NO_BOOK.format(what="building the book", name="jupyter-book")) from error
    try:
        site = parse_toc_yaml(root / "_toc.yml")
    except Exception as error:  # a damaged file is read as if it were whole, and fails in any way at all
        why = " ".join(str(error).split())
        raise FerReproError(f"{root / '_toc.yml'} is not a table of contents ({why}): correct it") from error
    pages = {name: [p for p in (f"{name}.ipynb", f"{name}.md") if (root / p).is_file()] for name in site}
    for name, found in pages.items():
        if not found:
            name = " ".join(name.split())  # one sentence is one line, whatever a damaged file names
            raise FerReproError(f"_toc.yml names {name}, but there is no {name}.ipynb or {name}.md below {root}")
    return [Path(found[0]) for found in pages.values()]


def _chosen(pages: Collection[Path], only: Collection[str] | None) -> list[Path]:
    """The notebooks to execute. Raises `FerReproError` for a slug that no notebook has."""
    known = {page.stem: page for page in pages}
    for slug in only or ():
        if slug not in known:
            raise FerReproError(f"there is no chapter '{slug}': {nearest(slug, known, 'the chapters are', most=2)}")
    return [page for page in pages if only is None or page.stem in only]


def sources_of(results_dir: str = "") -> list[Path]:
    """The files and folders that the project's book is made from."""
    root = project_root()
    return [root / "chapters", *(root / name for name in COPIED), *executed.sources(results_dir)]


def stage(root: Path, staging: Path, pages: Collection[Path] = ()) -> None:
    """Make ``staging`` hold what the pages need, without touching a file that is right already.

    ``pages``: notebooks that `place_notebooks` puts there. What is generated or built there stays.
    """
    wanted = {}
    for name in (*COPIED, "chapters"):
        for source in [root / name] if (root / name).is_file() else sorted((root / name).rglob("*")):
            place = source.relative_to(root)
            left = source.name.endswith((".failed.ipynb", ".partial.ipynb")) or set(IGNORED) & set(place.parts)
            if source.is_file() and not left and not _generated(place):
                wanted[place] = source
    for path in sorted(staging.rglob("*"), reverse=True):
        place = path.relative_to(staging)
        if _generated(place):
            continue
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif place not in wanted:
            path.unlink()
    for place, source in wanted.items():
        if place not in pages:
            _place(source.read_bytes(), staging / place)


def _generated(place: Path) -> bool:
    return any(place.is_relative_to(folder) for folder in GENERATED)


def place_notebooks(
    staging: Path, copies: executed.Copies, pages: Collection[Path], chosen: Collection[Path]
) -> list[Path]:
    """Put each notebook's executed copy with its pictures into ``staging``, or the source of one that has none.

    Of the ``chosen`` pages it is the copy of the present state, with the text of today. Returns the copies.
    """
    shown = {page: copies.place(page) if page in chosen else copies.last(page) for page in pages}
    for page, copy in shown.items():
        _place(copies.present(page) if page in chosen else (copy or copies.root / page).read_bytes(), staging / page)
    placed = [copy for copy in shown.values() if copy]
    names = (name for copy in placed for name in pictures.shown_in(copy))
    pictures.place(names, copies.pictures, staging / pictures.PLACE)
    return placed


def _place(content: bytes, target: Path) -> None:
    """Write a file whose content differs; its new time tells Sphinx to read it again."""
    if not (target.is_file() and target.read_bytes() == content):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def build_html(staging: Path) -> Path:
    """jupyter-book on the staged pages, warnings as errors; returns the HTML folder. Raises `FerReproError`.

    Sphinx goes on from what the last build without a warning read: it would not repeat the warnings of a page that it
    need not read again, and a build that was killed leaves nothing that another one uses.
    """
    html, reading, read = staging / BUILT / "html", staging / READING, staging / READ
    for left in (folder for folder in (html, reading) if folder.exists()):
        shutil.rmtree(left)
    settings = _settings(staging)
    if (read / SETTINGS).is_file() and (read / SETTINGS).read_text() == settings:
        shutil.copytree(read, reading)
    begin = "from fer_repro.processes import end_with; end_with(0)"
    command = [sys.executable, "-c", f"{begin}; from jupyter_book.cli.main import main; main()"]
    command += ["build", str(staging), "-W", "-n", "--keep-going"]
    alive, ours = os.pipe()  # its standard input stays open as long as this process lives
    with os.fdopen(alive), os.fdopen(ours, "wb"):
        done = subprocess.run(command, stdin=alive, capture_output=True, text=True, check=False, cwd=staging)
    log = staging / BUILT / "book.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in (done.stdout + done.stderr).splitlines()]
        problems = [line.replace(f"{staging}/", "") for line in lines if re.search(r"WARNING|ERROR|[Ee]xception", line)]
        raise FerReproError(listed(f"jupyter-book failed (all of it: {log})", problems or lines[-5:]))
    with atomic_write(reading / SETTINGS) as file:
        file.write(settings.encode())
    if read.exists():
        (read / SETTINGS).unlink(missing_ok=True)  # first: without it nothing here is used again
        shutil.rmtree(read)
    reading.replace(read)
    return html


def _settings(staging: Path) -> str:
    """Hex digest over what Sphinx reads every source with: after a change of it, it reads all of them again."""
    places = [staging / name for name in ("_config.yml", "_toc.yml", "_ext", "references.bib")]
    return executed.digest_of([executed.package(), *places], executed.surroundings())


def publish(html: Path, out: Path) -> None:
    """Put the finished ``html`` in the place of ``out``; a reader sees the old book or the new one."""
    try:
        if out.exists():
            out.replace(_former(out))
        html.replace(out)
    finally:
        _finish_publishing(out)


def _finish_publishing(out: Path) -> None:
    """Where a build ended, or was killed, between the two renames of `publish`, the former book is put back."""
    old = _former(out)
    if old.exists() and not out.exists():
        old.replace(out)
    elif old.exists():
        shutil.rmtree(old)


def _former(out: Path) -> Path:
    return out.with_name(f".{out.name}.old")
