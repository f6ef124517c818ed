"""Where results, runs and the checkout lie, and which code this is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import fer_repro
from fer_repro.errors import FerReproError


def default_results_dir() -> Path:
    """The project's ``results/`` folder; where the package stands alone, the one of the current folder."""
    beside = Path(__file__).resolve().parents[1]
    return (beside if (beside / "pyproject.toml").is_file() else Path.cwd()) / "results"


def default_runs_dir() -> Path:
    """``runs/`` beside ``results/``: checkpoints, never committed."""
    return default_results_dir().parent / "runs"


def code_version() -> str:
    """The package's version, and in a git checkout the commit; "+changed" where tracked files differ from it."""
    here = Path(__file__).resolve().parents[1]
    if not (here / ".git").exists() or shutil.which("git") is None:
        return fer_repro.__version__

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = "+changed" if git("status", "--porcelain", "--untracked-files=no") else ""
    return f"{fer_repro.__version__} ({git('rev-parse', '--short=12', 'HEAD') or 'no commit'}{changed})"


def project_root() -> Path:
    """The checkout with the chapters: the one this package lies in, or the current folder. Raises `FerReproError`."""
    for folder in (default_results_dir().parent, Path.cwd()):
        if (folder / "_toc.yml").is_file():
            return folder
    raise FerReproError(
        "no chapters found: they are not part of the installed package, so run this in a checkout of the book (a "
        "folder with _toc.yml and chapters/)"
    )
