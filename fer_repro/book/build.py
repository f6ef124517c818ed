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
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fer_repro.book import html_check, notebooks
from fer_repro.book.front import write_front
from fer_repro.errors import FerReproError
from fer_repro.logs import shown
from fer_repro.papers import PROFILES
from fer_repro.project import project_root

log = logging.getLogger(__name__)

COPIED = ("_config.yml", "_toc.yml", "_ext", "_static", "references.bib")
CELL_TIMEOUT = 1800.0  # seconds; a cell of a smoke chapter takes a few
INJECTED_TAG = "injected-parameters"
PROMPTS = {
    notebooks.PARAMETERS_TAG: "Parameters of this chapter and their defaults",
    INJECTED_TAG: "Parameters this page was built with",
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


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
    ``_build/html`` by default; the staging folder ``book-source`` lies beside it. ``only``: slugs to execute, the other
    notebooks stay without outputs (tests, previews). ``jobs``: chapters at a time. ``timeout``: seconds per cell.
    Raises `FerReproError` when a chapter fails, Sphinx warns, a link is dead or a page would load something from
    elsewhere; the previous book at ``out`` is then unchanged.
    """
    if profile not in PROFILES:
        raise FerReproError(f"unknown profile '{profile}', expected one of {', '.join(PROFILES)}")
    root = Path(root) if root else project_root()
    out = Path(out) if out else root / "_build" / "html"
    if out.name in ("", "book-source") or (out.exists() and not (out / "objects.inv").exists() and any(out.iterdir())):
        raise FerReproError(f"{out} is not a built book and not empty: name another folder for the book")
    staging = out.parent / "book-source"
    try:
        pages = stage(root, staging)
        write_front(staging, results_dir)
    except OSError as error:
        raise FerReproError(
            f"the book cannot be prepared in {staging} ({error.strerror}): choose another place"
        ) from error
    chosen = [page for page in pages if only is None or page.stem in only]
    execute_chapters(root, staging, chosen, profile, results_dir, jobs, timeout)
    log.info("building the pages")
    html = build_html(staging)
    problems = html_check.problems(html)
    if problems:
        raise FerReproError(_listed(f"the built pages in {html} have {len(problems)} faults", problems))
    publish(html, out)
    log.info(f"the book is in {out}: open {out / 'index.html'}")
    return out


def toc_pages(root: Path) -> list[Path]:
    """The pages of ``_toc.yml`` in order, relative to ``root``. Raises `FerReproError` for a page without a file."""
    try:
        from sphinx_external_toc.parsing import MalformedError, parse_toc_yaml
    except ImportError as error:
        raise FerReproError(notebooks.NO_BOOK.format(what="building the book", name="jupyter-book")) from error
    try:
        site = parse_toc_yaml(root / "_toc.yml")
    except (OSError, MalformedError) as error:
        raise FerReproError(f"{root / '_toc.yml'} is not a table of contents: {error}") from error
    pages = {name: [p for p in (f"{name}.ipynb", f"{name}.md") if (root / p).is_file()] for name in site}
    for name, found in pages.items():
        if not found:
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
    with ProcessPoolExecutor(jobs, spawn, _share_cores, (threads,), max_tasks_per_child=1) as pool:
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
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)  # otherwise the chapters still waiting would run first
            raise
    if failures:
        raise FerReproError(_listed(f"{len(failures)} of {len(pages)} chapters failed", failures))


def _share_cores(threads: int) -> None:
    for name in THREADS:
        os.environ.setdefault(name, str(threads))


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
    own = "|".join(re.escape(folder) for folder in sorted(folders, key=len, reverse=True))
    pattern = re.compile(
        rf"(?<![\w.:/-])(?:{own}|/home/{re.escape(getpass.getuser())}|/Users/\w+|[A-Z]:\\Users\\\w+)(?:/[\w./-]*)?\b"
    )
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
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command += ["build", str(staging), "-W", "-n", "--keep-going"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=staging)
    log = staging.parent / "book.log"
    log.write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in (done.stdout + done.stderr).splitlines()]
        problems = [line.replace(f"{staging}/", "") for line in lines if re.search(r"WARNING|ERROR|[Ee]xception", line)]
        raise FerReproError(_listed(f"jupyter-book failed (all of it: {log})", problems or lines[-5:]))
    return staging / "_build" / "html"


def publish(html: Path, out: Path) -> None:
    """Put the finished ``html`` in the place of ``out``; a reader sees the old book or the new one."""
    old = out.with_name(f".{out.name}.old")
    if old.exists():
        shutil.rmtree(old)
    if out.exists():
        out.replace(old)
    html.replace(out)
    if old.exists():
        shutil.rmtree(old)


def _listed(what: str, items: Collection[str], most: int = 12) -> str:
    unique = list(dict.fromkeys(items))
    more = [f"... and {len(unique) - most} more"] if len(unique) > most else []
    return "\n  - ".join([f"{what}:", *unique[:most], *more])
