"""Executed copies of the chapters, kept between builds: a chapter runs again only when what it shows may have changed.

A copy lies beside the staged pages under a name that holds the digest of all it was made from: not of the chapter's
text, which is taken from its source. It appears with one rename when the chapter has run to its end, so a build that is
killed or fails leaves whole copies or none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from importlib.metadata import distributions
from multiprocessing import Pipe, get_context
from pathlib import Path
from typing import Any

import fer_repro
from fer_repro import data
from fer_repro.book import notebooks, pictures
from fer_repro.book.cleaning import INJECTED_TAG, clean
from fer_repro.claims import leaderboard_claims
from fer_repro.data.cache import VARIABLE as CACHE
from fer_repro.data.place import VARIABLE
from fer_repro.errors import FerReproError
from fer_repro.processes import begin_child
from fer_repro.project import default_results_dir

log = logging.getLogger(__name__)

KEPT = Path("_build", "executed")  # below the staging folder, where Sphinx does not look
# What chapters read of the project besides the package and the results.
READ = ("_config.yml", "CITATION.cff", "benchmarks/measured", "constraints.txt", "pyproject.toml", "references.bib")
DIGITS = 16  # of a digest in a file's name


def surroundings() -> list[str]:
    """Python, every installed package with its version, and the settings of this project in the environment."""
    packages = sorted(f"{one.name}=={one.version}" for one in distributions())
    settings = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("FER_REPRO_"))
    return [sys.version, *packages, *(one for one in settings if not one.startswith(CACHE))]


def digest_of(places: Iterable[Path], words: Iterable[str] = ()) -> str:
    """Hex digest over ``words`` and over names and contents of files and of all files in folders."""
    digest = hashlib.sha256(repr([*words]).encode())
    for place in places:
        found = [place] if place.is_file() else sorted(place.rglob("*"))
        digest.update(f"\0{place.name}\0".encode())
        for path in (path for path in found if path.is_file() and "__pycache__" not in path.parts):
            digest.update(f"{path.relative_to(place)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def package() -> Path:
    """The folder of this package's code."""
    return Path(fer_repro.__file__).parent


def sources(results_dir: str) -> list[Path]:
    """The files and folders that chapters show, besides the data set and their own notebooks."""
    project = default_results_dir().parent
    return [package(), Path(results_dir or default_results_dir()), *(project / name for name in READ)]


def state(profile: str, results_dir: str) -> str:
    """Hex digest over all that chapters show, besides their own notebooks.

    That is the package's code and claims, the stored results, the few `READ` files and the titles of the papers'
    chapters, the data set at hand (its content, not its place), the installed packages, and what the book gives every
    chapter.
    """
    return digest_of(sources(results_dir), [profile, results_dir, *_titles(), *_data_set(), *surroundings()])


def _titles() -> list[str]:
    from fer_repro.page.citing import (
        CitingPage,
    )  # here: it brings torch, which a process that runs a chapter never uses

    citing = CitingPage(default_results_dir().parent)
    return [citing.chapter_title(claim.slug) for claim in leaderboard_claims().values()]


def _data_set() -> list[str]:
    """What identifies the FER2013 at hand, or why none can be shown."""
    named = "named" if os.environ.get(VARIABLE) else ""  # some pages ask for it by this variable alone
    try:
        faces = data.load(accept_modified=True)
    except FerReproError as error:
        return [named, str(error)]
    return [named, faces.name, faces.source, faces.digest]


class Copies:
    """The kept copies below a staging folder. ``state``: see the function of that name."""

    def __init__(self, root: Path, staging: Path, state: str) -> None:
        self.root, self.folder, self.state = root, staging / KEPT, state

    def place(self, page: Path) -> Path:
        """Where the copy of a notebook (``page``, relative to the sources) lies that shows the present state."""
        source = _notebook(self.root / page)
        runs = [source["metadata"], *filter(_is_code, source["cells"])]
        digest = hashlib.sha256(f"{self.state}\0{json.dumps(runs)}".encode()).hexdigest()
        return self.folder / page.with_suffix(f".{digest[:DIGITS]}.ipynb")

    def present(self, page: Path) -> bytes:
        """The copy of the present state as a notebook file, its text as it stands in the source today."""
        copy = _notebook(self.place(page))
        ran, cells = deque(filter(_is_code, copy["cells"])), []
        for cell in _notebook(self.root / page)["cells"]:
            cells.append(ran.popleft() if _is_code(cell) else cell)
            while ran and INJECTED_TAG in ran[0]["metadata"].get("tags", []):  # a cell that the source has not
                cells.append(ran.popleft())
        return f"{json.dumps(copy | {'cells': cells}, indent=1, ensure_ascii=False)}\n".encode()

    def last(self, page: Path) -> Path | None:
        """The copy that was made last, of whatever state; None where there is none."""
        found = (self.folder / page.parent).glob(_copies_of(page))
        return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)

    @property
    def pictures(self) -> Path:
        """The folder of the pictures that the copies show."""
        return self.folder / "pictures"

    def forget_all_but(self, copies: Collection[Path]) -> None:
        """Remove the copies of chapters that the book has no more, and pictures that none of ``copies`` shows."""
        shown = {name for copy in copies for name in pictures.shown_in(copy)}
        for path in [*self.folder.rglob("*.ipynb"), *self.pictures.glob("*")]:
            if path not in copies and path.name not in shown:
                path.unlink()

    def missing(self, pages: Collection[Path]) -> list[Path]:
        return [page for page in pages if not self.place(page).is_file()]

    def execute(self, pages: Collection[Path], profile: str, results_dir: str, jobs: int, timeout: float) -> None:
        """Execute each notebook in a process of its own (papermill's memory grows from one to the next).

        Raises `FerReproError` with the reasons of all that failed.
        """
        from fer_repro.book import forked_kernel  # here: Jupyter belongs to an extra

        failures, cores = [], os.cpu_count() or 1
        jobs = max(1, min(jobs, len(pages)))
        threads, forks = max(1, cores // jobs), forked_kernel.pays(len(pages))
        context = forked_kernel.context() if forks else get_context("spawn")
        alive, ours = Pipe(duplex=False)  # the chapters' processes end when our end is closed, by us or by our death
        begin, given = (alive, threads, dict(os.environ)), (profile, results_dir, timeout, threads if forks else 0)
        with alive, ours, ProcessPoolExecutor(jobs, context, begin_child, begin, max_tasks_per_child=1) as pool:
            pages_of = {pool.submit(self._execute, page, *given): page for page in pages}
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
            raise FerReproError(listed(f"{len(failures)} of {len(pages)} chapters failed", failures))

    def _execute(self, page: Path, profile: str, results_dir: str, timeout: float, forked: int) -> float:
        """One chapter, executed, cleaned and lightened into its place; returns the seconds it took.

        ``forked``: the threads of its forked kernel; 0 for a kernel that is started.
        """
        from fer_repro.book.forked_kernel import forked_kernel  # here: Jupyter belongs to an extra

        started, source, place = time.monotonic(), self.root / page, self.place(page)
        wanted = {"profile": profile, "results_dir": results_dir}
        takes = notebooks.inspect(source).parameters
        given = {name: value for name, value in wanted.items() if name in takes and value != takes[name].default}
        with forked_kernel(forked) if forked else nullcontext():
            raw = notebooks.execute(source, place.parent / page.name, given, timeout=timeout)
        notebook = notebooks.read(raw)
        clean(notebook, page.stem)
        pictures.lighten(notebook, page, self.pictures)
        notebooks.write(notebook, place)
        for older in {raw, *place.parent.glob(_copies_of(page))} - {place}:
            older.unlink()
        return time.monotonic() - started


def _notebook(path: Path) -> Mapping[str, Any]:
    """A notebook as its file has it, fast. Raises `FerReproError` where it is none."""
    try:
        found = json.loads(path.read_bytes())
        if all("cell_type" in cell for cell in found["cells"]) and "metadata" in found:
            return found
    except (ValueError, KeyError, TypeError):
        pass
    return notebooks.read(path)  # of an older format, or one sentence


def _is_code(cell: Mapping[str, Any]) -> bool:
    return cell["cell_type"] == "code"


def _copies_of(page: Path) -> str:
    """The pattern of the names of a chapter's copies."""
    return f"{page.stem}.{'[0-9a-f]' * DIGITS}.ipynb"


def listed(what: str, items: Collection[str], most: int = 12) -> str:
    """``what`` and below it the items, each once, as the message of an error."""
    unique = list(dict.fromkeys(items))
    more = [f"... and {len(unique) - most} more"] if len(unique) > most else []
    return "\n  - ".join([f"{what}:", *unique[:most], *more])
