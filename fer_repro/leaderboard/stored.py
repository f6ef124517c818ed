"""The stored results that the leaderboard reads, by their kind."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_repro import results
from fer_repro.errors import FerReproError
from fer_repro.project import default_results_dir
from fer_repro.results import FULL, RELEASED, UNFINISHED, Result


@dataclass(frozen=True)
class Stored:
    """Full runs, scores of released weights, and unfinished runs: their records, without predictions."""

    runs: Sequence[Result] = ()
    released: Sequence[Result] = ()
    unfinished: Sequence[Result] = ()


def folder(results_dir: Path | str | None) -> Path:
    """The folder of results, the project's own where none is given. Raises `FerReproError` where it does not exist."""
    if results_dir and not os.path.isdir(results_dir):
        raise FerReproError(
            f"results folder '{results_dir}' does not exist: give the folder that holds <variant>/<protocol>"
        )
    return Path(results_dir) if results_dir else default_results_dir()


def read_stored(results_dir: Path | str | None = None) -> Stored:
    """Everything below a folder of results. Raises `FerReproError` for a damaged one; `survey_stored` goes on."""
    where = folder(results_dir)
    return Stored(*(results.read_all(where, kind, arrays=False) for kind in (FULL, RELEASED, UNFINISHED)))


def survey_stored(results_dir: Path | str | None = None) -> tuple[Stored, dict[Path, str], dict[Path, str]]:
    """Everything that can be read; of the full runs that cannot, the folder with one sentence; the same of the rest."""
    where = folder(results_dir)
    runs, damaged = results.survey(where, FULL, arrays=False)
    released, unread = results.survey(where, RELEASED, arrays=False)
    unfinished, also_unread = results.survey(where, UNFINISHED, arrays=False)
    return Stored(runs, released, unfinished), damaged, unread | also_unread
