"""The book: execute every chapter into a staging folder, build the HTML there, check it, and only then publish it."""

from __future__ import annotations

import getpass
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from multiprocessing import Pipe, get_context
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fer_repro.book import html_check, notebooks
from fer_repro.book.front import write_front
from fer_repro.errors import FerReproError
from fer_repro.logs import shown
from fer_repro.papers import PROFILES
from fer_repro.processes import begin_child, home_folder
from fer_repro.project import project_root

log = logging.getLogger(__name__)

COPIED = ("_config.yml", "_toc.yml", "_ext", "_static", "references.bib")
CELL_TIMEOUT = 1800.0  # seconds; a cell of a smoke chapter takes a few
INJECTED_TAG = "injected-parameters"
PROMPTS = {
    notebooks.PARAMETERS_TAG: "Parameters of this chapter and their defaults",
    INJECTED_TAG: "Parameters this page was built with",
}


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
    ``_build/html`` by default; its staging folder ``html.book-source`` lies beside it. ``only``: slugs to execute, the
    other notebooks stay without outputs (tests, previews). ``jobs``: chapters at a time. ``timeout``: seconds per cell.
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
        _require_place(root, out)
        with home_folder(), _alone(out):
            _finish_publishing(out)
            pages = stage(root, staging)
            write_front(staging, results_dir)
            chosen = [page for page in pages if only is None or page.stem in only]
            execute_chapters(root, staging, chosen, profile, results_dir, jobs, timeout)
            log.info("building the pages")
            html = build_html(staging)
            if problems := html_check.problems(html):
                raise FerReproError(_listed(f"the built pages in {html} have {len(problems)} faults", problems))
            publish(html, out)
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
        with FileLock(path, timeout=0):
            path.write_text(str(os.getpid()))
            yield
    except Timeout as error:
        raise FerReproError(
            f"the book in {out} is being built by process {path.read_text() or 'unknown'}: wait until that ends, or "
            "name another folder with --out"
        ) from error


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


def stage(root: Path, staging: Path) -> list[Path]:
    """Copy what the pages need into an empty ``staging`` folder; returns the notebooks to execute, relative to both."""
    pages = toc_pages(root)
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "*.failed.ipynb", "*.partial.ipynb")
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, staging / name, ignore=ignore)
        elif source.is_file():
            shutil.copy2(source, staging / name)
    shutil.copytree(root / "chapters", staging / "chapters", ignore=ignore)
    return [page for page in pages if page.suffix == ".ipynb"]


def execute_chapters(
    root: Path, staging: Path, pages: list[Path], profile: str, results_dir: str, jobs: int, timeout: float
) -> None:
    """Execute each notebook in a process of its own (papermill's memory grows from one to the next)."""
    failures, cores = [], os.cpu_count() or 1
    jobs = max(1, min(jobs, len(pages)))
    spawn, threads = get_context("spawn"), max(1, cores // jobs)
    alive, ours = Pipe(duplex=False)  # the chapters' processes end when our end is closed, by us or by our death
    with alive, ours, ProcessPoolExecutor(jobs, spawn, begin_child, (alive, threads), max_tasks_per_child=1) as pool:
        pages_of = {pool.submit(_execute_page, root, staging, p, profile, results_dir, timeout): p for p in pages}
        try:
            for count, future in enumerate(as_completed(pages_of), 1):
                page = pages_of[future]
                try:
                    log.info(f"[{count}/{len(pages)}] {page.stem}: {future.result():.0f} s")
                except FerReproError as error:
                    log.info(f"[{count}/{len(pages)}] {page.stem}: failed")
                    failures.append(str(error))
        except BrokenExecutor as error:
            raise FerReproError(
                "a process that ran a chapter died, most often for lack of memory: try --jobs 1"
            ) from error
        except BaseException:
            ours.close()
            pool.shutdown(cancel_futures=True)  # otherwise the chapters still waiting would run first
            raise
    if failures:
        raise FerReproError(_listed(f"{len(failures)} of {len(pages)} chapters failed", failures))


def _execute_page(root: Path, staging: Path, page: Path, profile: str, results_dir: str, timeout: float) -> float:
    """One chapter, executed and cleaned into its place; returns the seconds it took."""
    started = time.monotonic()
    wanted = {"profile": profile, "results_dir": results_dir}
    takes = notebooks.inspect(root / page).parameters
    given = {name: value for name, value in wanted.items() if name in takes and value != takes[name].default}
    done = notebooks.execute(root / page, staging / page, given, timeout=timeout)
    notebook = notebooks.read(done)
    clean(notebook, page.stem)
    notebooks.write(notebook, done)
    return time.monotonic() - started


def clean(notebook: Any, name: str) -> None:
    """Prepare an executed notebook for publishing, in place.

    Drops papermill's metadata (paths, times) and folds the parameter cells. Raises `FerReproError` where an output
    shows this machine's folders or user.
    """
    for part in (notebook, *notebook.cells):
        part.metadata.pop("papermill", None)
        part.metadata.pop("execution", None)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        for tag, prompt in PROMPTS.items():
            if tag in tags:
                cell.metadata.tags = [*tags, "hide-input"]
                cell.metadata.mystnb = {"code_prompt_show": prompt, "code_prompt_hide": prompt}
                cell.source = re.sub(r"\A# Parameters\n", "", cell.source)
    for number, text in private_text(notebook):
        raise FerReproError(
            f"chapter {name}: the output of cell {number} shows {text!r}, a path of this machine: do not print it"
        )


def private_text(notebook: Any) -> Iterator[tuple[int, str]]:
    """(cell number, text) for each output that shows a home folder or another absolute path of this machine."""
    folders = {str(p) for p in (Path.home(), project_root(), Path.cwd(), Path(sys.prefix))} - {"/"}
    with suppress(KeyError, OSError):  # a container's user id needs no account
        folders.add(f"/home/{getpass.getuser()}")
    own = "|".join(re.escape(folder) for folder in sorted(folders, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w.:/-])(?:{own}|/Users/\w+|[A-Z]:\\Users\\\w+)(?:/[\w./-]*)?\b")
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            for text in _texts(output):
                if found := pattern.search(text):
                    yield number, found.group()[:80]


def _texts(output: Any) -> Iterator[str]:
    yield str(output.get("text", ""))
    yield "\n".join(output.get("traceback", []))
    for kind, value in output.get("data", {}).items():
        if not kind.startswith("image/"):
            # Pictures inside HTML are base64, whose alphabet has slashes: not a path.
            yield re.sub(r"base64,[\w+/=]+", "", value if isinstance(value, str) else str(value))


def build_html(staging: Path) -> Path:
    """jupyter-book on the staged pages, warnings as errors; returns the HTML folder. Raises `FerReproError`."""
    alive, ours = Pipe(duplex=False)
    with alive, ours:
        begin = f"from fer_repro.processes import end_with; end_with({alive.fileno()})"
        command = [sys.executable, "-c", f"{begin}; from jupyter_book.cli.main import main; main()"]
        command += ["build", str(staging), "-W", "-n", "--keep-going"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=staging, pass_fds=[alive.fileno()]
        )
    log = staging / "book.log"
    log.write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in (done.stdout + done.stderr).splitlines()]
        problems = [line.replace(f"{staging}/", "") for line in lines if re.search(r"WARNING|ERROR|[Ee]xception", line)]
        raise FerReproError(_listed(f"jupyter-book failed (all of it: {log})", problems or lines[-5:]))
    return staging / "_build" / "html"


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


def _listed(what: str, items: Collection[str], most: int = 12) -> str:
    unique = list(dict.fromkeys(items))
    more = [f"... and {len(unique) - most} more"] if len(unique) > most else []
    return "\n  - ".join([f"{what}:", *unique[:most], *more])
