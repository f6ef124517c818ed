"""Result files: what a run leaves behind, how it is written, read and checked.

``results/<variant>/<protocol>/seed-<n>/`` holds ``result.json`` (the record), ``predictions.npz`` (ids, labels and
probabilities of both test sets) and ``history.csv`` (one row per epoch). Every table of the book comes from
these. A run that was asked for it has ``epochs.npz`` as well: the class that the weights of every epoch give to every
image. ``result.json`` carries the sha256 of its own content and of the files beside it.

Evidence of other kinds lies in folders of its own (`schema.EVIDENCE`): ``results/<variant>/released/<name>/`` holds the
scores of weights that others published: no history, and predictions of those test sets only that may be scored;
``results/<variant>/<protocol>/unfinished/seed-<n>/`` a run that was stopped, by its best weights so far;
``results/packages/<name>-<version>/`` the model of an installable package;
``results/<variant>/<protocol>/modified/<digest>/seed-<n>/`` a run on a copy of FER2013 that was changed on purpose,
named by the first digits of the copy's digest. `read_all` and `survey` give one kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_repro.data import FER2013
from fer_repro.errors import FerReproError
from fer_repro.project import default_results_dir
from fer_repro.results import checks
from fer_repro.results.checks import check_predictions, compare_labels, score_all
from fer_repro.results.folder import load, read, read_record, remove_unfinished, require_none, write
from fer_repro.results.places import all_folders, folder_of, is_stored, require_writable, stored_as, stored_folders
from fer_repro.results.result import NotRecorded, Result
from fer_repro.results.schema import (
    EVIDENCE,
    FINISHED,
    FULL,
    HALVES,
    KEYS,
    MODIFIED,
    PACKAGE,
    RELEASED,
    SCHEMA,
    STATUSES,
    UNFINISHED,
)

__all__ = [
    "EVIDENCE",
    "FINISHED",
    "FULL",
    "HALVES",
    "KEYS",
    "MODIFIED",
    "PACKAGE",
    "RELEASED",
    "SCHEMA",
    "STATUSES",
    "UNFINISHED",
    "NotRecorded",
    "Result",
    "all_folders",
    "check_predictions",
    "compare_labels",
    "examined",
    "find",
    "folder_of",
    "is_stored",
    "merged_score",
    "paired_hits",
    "read",
    "read_all",
    "read_record",
    "remove_unfinished",
    "require_writable",
    "score_all",
    "stored_as",
    "stored_folders",
    "survey",
    "verify",
    "write",
]


def survey(
    results_dir: Path | None = None, kind: str = FULL, arrays: bool = True
) -> tuple[list[Result], dict[Path, str]]:
    """Every stored result of a ``kind`` that can be read, and of the others the folder with one sentence.

    ``arrays`` False: for whoever needs records alone; predictions and histories are compared with their digests and
    stay empty.
    """
    whole, damaged = [], {}
    for folder in stored_folders(results_dir, kind):
        try:
            whole.append(read(folder, arrays))
        except FerReproError as error:
            damaged[folder] = str(error)
    return whole, damaged


def read_all(results_dir: Path | None = None, kind: str = FULL, arrays: bool = True) -> list[Result]:
    """Every stored result of a ``kind`` below ``results_dir`` (the project's own by default). Raises `FerReproError`
    for a damaged one; `survey` goes on. ``arrays``: as in `survey`."""
    whole, damaged = survey(results_dir, kind, arrays)
    if damaged:
        more = f" (and {len(damaged) - 1} more, see `fer-repro verify`)" if len(damaged) > 1 else ""
        raise FerReproError(f"{next(iter(damaged.values()))}{more}")
    return whole


def find(
    variant: str, protocol: str, seed: int, results_dir: Path | None = None, kind: str = FULL, data_digest: str = ""
) -> Result | None:
    """The stored run, or None; see `folder_of`. Raises `FerReproError` for a damaged one."""
    where = Path(results_dir) if results_dir else default_results_dir()
    place = (where, variant, protocol, seed, kind, data_digest)
    return read(folder_of(*place)) if is_stored(*place) else None


def merged_score(result: Result) -> dict[str, Any]:
    """The metrics of PublicTest and PrivateTest as one set of images, from the plain predictions."""
    return score_all(result.predictions, HALVES)["+".join(HALVES)]["plain"]


def paired_hits(first: Result, second: Result, half: str = "PrivateTest") -> tuple[np.ndarray, np.ndarray]:
    """Which images of a test set each of two runs got right by one view, bool [N] each, image by image matched by id.

    Raises `FerReproError` where the runs were scored on different images.
    """
    orders = [np.argsort(run.predictions[f"{half}_ids"]) for run in (first, second)]
    ids = [run.predictions[f"{half}_ids"][order] for run, order in zip((first, second), orders, strict=True)]
    if not np.array_equal(ids[0], ids[1]):
        raise FerReproError(
            f"{first.variant} and {second.variant} were scored on different images of {half}: compare runs on one copy "
            "of the data"
        )
    hits = [
        (run.predictions[f"{half}_plain"].argmax(axis=1) == run.predictions[f"{half}_labels"])[order]
        for run, order in zip((first, second), orders, strict=True)
    ]
    return hits[0], hits[1]


def verify(
    results_dir: Path | None = None, faces: FER2013 | None = None, folders: Sequence[Path] | None = None
) -> list[str]:
    """Recompute every stored number from its predictions; one sentence per result that is not well, else an empty list.

    ``folders``: only these result folders. ``faces``: the data set at hand; results made from the same copy (equal
    digest) are then held to its ids and labels.
    """
    found = examined(all_folders(results_dir) if folders is None else folders, faces)
    return [problem for _, _, problem in found if problem]


def examined(folders: Sequence[Path], faces: FER2013 | None = None) -> Iterator[tuple[Path, dict[str, Any], str]]:
    """Each result folder with its record and what `verify` says of it: an empty record and a sentence where it is not
    well, else no sentence."""
    for folder in folders:
        try:
            result, problems = load(Path(folder), strict=True)
            problems += checks.problems(result.record, result.predictions, result.history, result.epochs)
            if faces is not None and not problems and result.record["data"]["digest"] == faces.digest:
                problems = compare_labels(result.predictions, faces)
            require_none(problems, folder)
        except FerReproError as error:
            yield folder, {}, str(error)
        else:
            yield folder, result.record, ""
