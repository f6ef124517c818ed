"""Result files: what a run leaves behind, how it is written, read and checked.

``results/<variant>/<protocol>/seed-<n>/`` holds ``result.json`` (the record), ``predictions.npz`` (ids, labels and
probabilities of both test sets) and ``history.csv`` (one row per epoch). Every table of the book comes from
these. ``result.json`` carries the sha256 of its own content and of the two files beside it.

``results/<variant>/released/<name>/`` holds the same of weights that others published, scored here: no history, and
predictions of those test sets only that may be scored. `read_all` and `survey` give one kind or the other.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_repro.data import FER2013
from fer_repro.errors import FerReproError
from fer_repro.files import atomic_write
from fer_repro.project import default_results_dir
from fer_repro.results import checks, contents, schema
from fer_repro.results.checks import check_predictions, compare_labels, score_all
from fer_repro.results.result import Result
from fer_repro.results.schema import FINISHED, HALVES, KEYS, RELEASED, SCHEMA, STATUSES

__all__ = [
    "FINISHED",
    "HALVES",
    "KEYS",
    "RELEASED",
    "SCHEMA",
    "STATUSES",
    "Result",
    "check_predictions",
    "compare_labels",
    "find",
    "folder_of",
    "is_stored",
    "merged_score",
    "paired_hits",
    "read",
    "read_all",
    "read_record",
    "require_writable",
    "score_all",
    "stored_folders",
    "survey",
    "verify",
    "write",
]

RESTORE = "restore the files as they were, or move the folder away and run the variant again"


def folder_of(results_dir: Path, variant: str, protocol: str, seed: int) -> Path:
    return Path(results_dir) / variant / protocol / f"seed-{seed}"


def is_stored(results_dir: Path, variant: str, protocol: str, seed: int) -> bool:
    """Whether a ``result.json`` stands there, whole or not: `read` says what is wrong with one."""
    return _holds_result(folder_of(results_dir, variant, protocol, seed))


def _holds_result(folder: Path) -> bool:
    try:
        os.lstat(folder / "result.json")
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # no permission, a circle of links: something is there
        return True
    return True


def require_writable(results_dir: Path) -> None:
    """Say now, not after hours of training, that results cannot be written. Raises `FerReproError`."""
    probe = Path(results_dir) / ".writable"
    try:
        with atomic_write(probe) as file:
            file.write(b"")
        probe.unlink()
    except OSError as error:
        raise FerReproError(
            f"the results folder {results_dir} cannot be written ({error.strerror}): choose another with --results-dir "
            "or correct its permissions"
        ) from error


def write(result: Result, results_dir: Path) -> Path:
    """Write the files, ``result.json`` last; an existing result is never overwritten. Returns the folder.

    Raises `FerReproError` where there is one, where the record is not what `read` accepts, and where nothing can be
    written.
    """
    folder = Path(results_dir, *schema.place_of(result.record))
    if _holds_result(folder):
        raise FerReproError(f"{folder} already holds a result: move it away first if it should be replaced")
    archive = io.BytesIO()
    np.savez_compressed(archive, **result.predictions)  # type: ignore[arg-type]
    table = result.history.to_csv(index=False, lineterminator="\n")
    files = {"predictions.npz": archive.getvalue(), "history.csv": table.encode()}
    files = {name: files[name] for name in schema.beside(result.record)}
    digests = {name: sha256(content).hexdigest() for name, content in files.items()}
    record = json.loads(json.dumps(result.record | {"files": digests}))  # as it will be read: lists, and text for names
    with contents.reading(folder, "predictions.npz"):
        contents.arrays(files["predictions.npz"], result.halves)
    if wrong := schema.fault(record) or ". ".join(checks.disagreements(record, result.predictions)):
        raise FerReproError(f"the result of {result.variant} cannot be stored: {wrong}; its checkpoint is kept")
    files["result.json"] = _as_text({"sha256": schema.content_digest(record)} | record)
    try:
        for name, content in files.items():
            with atomic_write(folder / name) as file:
                file.write(content)
    except OSError as error:
        raise FerReproError(
            f"the result cannot be written to {folder} ({error.strerror}): choose another --results-dir; the "
            "checkpoint is kept, so the same command ends the run in seconds"
        ) from error
    return folder


def _as_text(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=1) + "\n").encode()


def read(folder: Path) -> Result:
    """Read one result folder. Raises `FerReproError` for files that are missing, damaged, of a foreign schema, or not
    those that were written."""
    result, problems = _load(Path(folder))
    _require_none(problems, folder)
    return result


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a result folder, checked, without its predictions. Raises `FerReproError` as `read` does."""
    record, problems = _load_record(Path(folder))
    _require_none(problems, folder)
    return record


def _require_none(problems: list[str], folder: Path) -> None:
    if problems:
        raise FerReproError(_one_sentence(problems, folder))


def _one_sentence(problems: Iterable[str], folder: Path) -> str:
    return f"{folder}: {'; '.join(dict.fromkeys(problems))}: {RESTORE}"


def _load_record(folder: Path, strict: bool = False) -> tuple[dict[str, Any], list[str]]:
    """A record, and what speaks against its being what was written; ``strict``: to the last blank."""
    path = folder / "result.json"
    with contents.reading(folder, path.name):
        text = contents.unix_lines(contents.content(path))
        record = contents.document(text)
        foreign = isinstance(record, dict) and record.get("schema") != SCHEMA
        wrong = "" if foreign else schema.fault(record)
        digest = schema.content_digest(record) if isinstance(record, dict) else ""
        same = not strict or _as_text(record) == text
    if foreign:
        raise FerReproError(
            f"{path} has schema version {schema.short(record.get('schema'))}, this fer_repro reads {SCHEMA}: run the "
            "variant again, or use the fer_repro release that wrote it"
        )
    if wrong:
        raise FerReproError(f"{path}: {wrong}: {RESTORE}")
    problems = checks.place_problems(record, folder)
    lacking = [name for name in ("sha256", "files") if name not in record]
    if lacking:
        problems.append(f"result.json lacks {' and '.join(lacking)}, so nothing says that it is as it was written")
    elif record.pop("sha256") != digest:
        problems.append("result.json is not as it was written: its content has another sha256 than the one in it")
    elif not same:
        problems.append("result.json is not laid out as it was written")
    return record, problems


def _load(folder: Path, strict: bool = False) -> tuple[Result, list[str]]:
    """A result, and what speaks against its being what was written."""
    record, problems = _load_record(folder, strict)
    found: dict[str, Any] = {}
    halves = schema.scored_halves(record)
    for name in schema.beside(record):
        with contents.reading(folder, name):
            content = contents.content(folder / name)
            found[name] = contents.arrays(content, halves) if name.endswith(".npz") else contents.table(content)
        forms = (content, contents.unix_lines(content)) if name.endswith(".csv") else (content,)
        known = record.get("files", {}).get(name)
        if known is not None and known not in [sha256(form).hexdigest() for form in forms]:
            problems.append(f"{name} is not the file that result.json was written with")
    predictions, history = (found.get(name, pd.DataFrame()) for name in schema.BESIDE)
    return Result(record, predictions, history), problems + checks.disagreements(record, predictions)


def stored_folders(results_dir: Path | None = None, released: bool = False) -> list[Path]:
    """Every ``<variant>/<protocol>/seed-<n>`` that holds a ``result.json``, sorted; ``released``: every
    ``<variant>/released/<name>`` instead.

    A folder that cannot be looked into stands in place of what it may hold: reading it says why.
    """
    root = Path(results_dir) if results_dir else default_results_dir()
    found, closed = [root] if os.path.lexists(root) else [], []
    for pattern in ("*", *((RELEASED, "*") if released else ("*", "seed-*")), "result.json"):
        below: list[Path] = []
        for folder in found:
            try:
                below += [folder / name for name in os.listdir(folder) if fnmatch(name, pattern)]
            except NotADirectoryError:
                continue  # other files may lie there
            except OSError:
                closed.append(folder)
        found = below
    return sorted([*(path.parent for path in found), *closed])


def survey(results_dir: Path | None = None, released: bool = False) -> tuple[list[Result], dict[Path, str]]:
    """Every stored result that can be read, and of the others the folder with one sentence; runs, or ``released``
    weights."""
    whole, damaged = [], {}
    for folder in stored_folders(results_dir, released):
        try:
            whole.append(read(folder))
        except FerReproError as error:
            damaged[folder] = str(error)
    return whole, damaged


def read_all(results_dir: Path | None = None, released: bool = False) -> list[Result]:
    """Every stored run below ``results_dir`` (the project's own by default), or all ``released`` weights. Raises
    `FerReproError` for a damaged one; `survey` goes on."""
    whole, damaged = survey(results_dir, released)
    if damaged:
        more = f" (and {len(damaged) - 1} more, see `fer-repro verify`)" if len(damaged) > 1 else ""
        raise FerReproError(f"{next(iter(damaged.values()))}{more}")
    return whole


def find(variant: str, protocol: str, seed: int, results_dir: Path | None = None) -> Result | None:
    """The stored result, or None. Raises `FerReproError` for a damaged one."""
    where = Path(results_dir) if results_dir else default_results_dir()
    return read(folder_of(where, variant, protocol, seed)) if is_stored(where, variant, protocol, seed) else None


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
    everything = []
    all_kinds = stored_folders(results_dir) + stored_folders(results_dir, released=True)
    for folder in dict.fromkeys(all_kinds) if folders is None else folders:
        try:
            result, problems = _load(Path(folder), strict=True)
            problems += checks.problems(result.record, result.predictions)
            if faces is not None and not problems and result.record["data"]["digest"] == faces.digest:
                problems = compare_labels(result.predictions, faces)
            _require_none(problems, folder)
        except FerReproError as error:
            everything.append(str(error))
    return everything
