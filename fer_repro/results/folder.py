"""The folder of one result: written, read as it was written, and removed."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_repro.errors import FerReproError
from fer_repro.files import atomic_write, exchange
from fer_repro.results import checks, contents, schema, shapes
from fer_repro.results.places import folder_of, holds_result, is_stored
from fer_repro.results.result import Result
from fer_repro.results.schema import SCHEMA, UNFINISHED

RESTORE = "restore the files as they were, or move the folder away and run the variant again"


def write(result: Result, results_dir: Path) -> Path:
    """Write the files, ``result.json`` last; an existing result is never overwritten, but that of an unfinished run is
    replaced by a later one of the same run, both at once. Returns the folder.

    Raises `FerReproError` where there is one, where the record is not what `read` accepts, and where nothing can be
    written.
    """
    folder = Path(results_dir, *schema.place_of(result.record))
    if longer := holds_result(folder):
        if not result.unfinished:
            raise FerReproError(f"{folder} already holds a result: move it away first if it should be replaced")
        _require_longer(result, read(folder), folder)
    table = result.history.to_csv(index=False, lineterminator="\n")
    files = {"predictions.npz": _packed(result.predictions), "history.csv": table.encode()}
    files = {name: files[name] for name in schema.beside(result.record)}
    if result.epochs:
        files[schema.EPOCHS] = _packed(result.epochs)
    digests = {name: sha256(content).hexdigest() for name, content in files.items()}
    record = json.loads(json.dumps(result.record | {"files": digests}))  # as it will be read: lists, and text for names
    with contents.reading(folder, "predictions.npz"):
        contents.arrays(files["predictions.npz"], result.halves)
    faults = checks.disagreements(record, result.predictions)
    faults += checks.epoch_faults(result.epochs, result.predictions)
    if wrong := schema.fault(record) or ". ".join(faults):
        raise FerReproError(f"the result of {result.variant} cannot be stored: {wrong}; its checkpoint is kept")
    files["result.json"] = _as_text({"sha256": schema.content_digest(record)} | record)
    new = folder.with_name(f".{folder.name}.new") if longer else folder
    try:
        if longer:
            shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
        for name, content in files.items():
            with atomic_write(new / name) as file:
                file.write(content)
        if longer:
            exchange(new, folder)
            shutil.rmtree(new)
    except OSError as error:
        raise FerReproError(
            f"the result cannot be written to {folder} ({error.strerror}): choose another --results-dir; the "
            "checkpoint is kept, so the same command ends the run in seconds"
        ) from error
    return folder


def _require_longer(result: Result, stored: Result, folder: Path) -> None:
    """Raise `FerReproError` unless an unfinished run has come further than the ``stored`` one, by the same recipe."""
    if stored.record["recipe_sha256"] != result.record["recipe_sha256"]:
        raise FerReproError(f"{folder} holds a result of another recipe: move it away first if it should be replaced")
    done, before = (one.record["unfinished"]["epochs_done"] for one in (result, stored))
    if done <= before:
        raise FerReproError(f"{folder} holds a result of {before} epochs, which one of {done} does not replace")


def remove_unfinished(results_dir: Path, variant: str, protocol: str, seed: int) -> None:
    """Delete what an unfinished run left, where its full result is stored. Raises `FerReproError`."""
    folder = folder_of(results_dir, variant, protocol, seed, UNFINISHED)
    if not (holds_result(folder) and is_stored(results_dir, variant, protocol, seed)):
        return
    try:
        (folder / "result.json").unlink()  # first: what is left after a kill is then no result, not a damaged one
        shutil.rmtree(folder)
        if not os.listdir(folder.parent):
            folder.parent.rmdir()
    except OSError as error:
        raise FerReproError(
            f"{folder} cannot be deleted ({error.strerror}): delete it, the full result of its run is stored"
        ) from error


def _packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    archive = io.BytesIO()
    np.savez_compressed(archive, **arrays)  # type: ignore[arg-type]
    return archive.getvalue()


def _as_text(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=1) + "\n").encode()


def read(folder: Path, arrays: bool = True) -> Result:
    """Read one result folder. Raises `FerReproError` for files that are missing, damaged, of a foreign schema, or not
    those that were written. ``arrays`` False: as `load` says."""
    result, problems = load(Path(folder), arrays=arrays)
    require_none(problems, folder)
    return result


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a result folder, checked, without its predictions. Raises `FerReproError` as `read` does."""
    record, problems = _load_record(Path(folder))
    require_none(problems, folder)
    return record


def require_none(problems: list[str], folder: Path) -> None:
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
            f"{path} has schema version {shapes.short(record.get('schema'))}, this fer_repro reads {SCHEMA}: run the "
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


def load(folder: Path, strict: bool = False, arrays: bool = True) -> tuple[Result, list[str]]:
    """A result, and what speaks against its being what was written.

    ``arrays`` False: predictions and history are held to their digests and stay empty. That is enough for whoever needs
    scores alone, and nothing is held in memory but the record.
    """
    record, problems = _load_record(folder, strict)
    found: dict[str, Any] = {}
    halves = schema.scored_halves(record)
    for name in schema.beside(record):
        with contents.reading(folder, name):
            content = contents.content(folder / name)
            if not arrays:
                pass
            elif name.endswith(".csv"):
                found[name] = contents.table(content)
            else:
                found[name] = contents.arrays(content, halves if name == schema.BESIDE[0] else ())
        forms = (content, contents.unix_lines(content)) if name.endswith(".csv") else (content,)
        known = record.get("files", {}).get(name)
        if known is not None and known not in [sha256(form).hexdigest() for form in forms]:
            problems.append(f"{name} is not the file that result.json was written with")
    if not arrays:
        return Result(record, {}, pd.DataFrame()), problems + checks.disagreements(record, None)
    predictions, epochs = found[schema.BESIDE[0]], found.get(schema.EPOCHS, {})
    history = found[schema.BESIDE[1]] if schema.BESIDE[1] in found else pd.DataFrame()
    problems += checks.disagreements(record, predictions) + checks.epoch_faults(epochs, predictions)
    return Result(record, predictions, history, epochs), problems
