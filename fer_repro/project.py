"""Where results, runs and the checkout lie, and which code this is."""

from __future__ import annotations

import os
import re
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
    """The package's version, and in a git checkout the commit; "+changed" where tracked files differ from it.

    Where git cannot say, its reason stands in place of the commit, without the paths in it: the text is published.
    """
    here = Path(__file__).resolve().parents[1]
    if not (here / ".git").exists():
        return fer_repro.__version__
    # Named outright, the repository is the one of this code: git neither looks for another one further up, nor asks who
    # owns it, and no variable of a hook or a shell points elsewhere.
    git = ["git", "--no-optional-locks", f"--git-dir={here / '.git'}", f"--work-tree={here}", "-c", "core.fsmonitor="]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {"LC_ALL": "C"}
    status = [*git, "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        done = subprocess.run(
            status, capture_output=True, text=True, errors="replace", check=False, cwd=here, env=plain, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{fer_repro.__version__} (git did not run: {getattr(error, 'strerror', None) or 'no answer in 60 s'})"
    commit = re.search(r"^# branch\.oid (\S+)", done.stdout, re.MULTILINE)
    if done.returncode or commit is None:
        said = done.stderr.strip().partition("\n")[0].removeprefix("fatal: ").removeprefix("error: ")
        reason = re.split(r"""['"/\\]""", said)[0].strip(" :") or f"exit status {done.returncode}"
        return f"{fer_repro.__version__} (git refused: {reason})"
    named = "no commit" if commit[1] == "(initial)" else commit[1][:12]
    changed = any(not line.startswith("#") for line in done.stdout.splitlines())
    return f"{fer_repro.__version__} ({named}{'+changed' if changed else ''})"


def project_root() -> Path:
    """The checkout with the chapters: the one this package lies in, or the current folder. Raises `FerReproError`."""
    for folder in (default_results_dir().parent, Path.cwd()):
        if (folder / "_toc.yml").is_file():
            return folder
    raise FerReproError(
        "chapters, benchmarks and the book's settings are not part of the installed package: run this in a checkout of "
        "the book (a folder with _toc.yml and chapters/)"
    )
