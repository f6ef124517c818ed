"""Result files: what a run leaves behind, how it is written, read and checked.

``results/<variant>/<protocol>/seed-<n>/`` holds ``result.json`` (the record), ``predictions.npz`` (ids, labels and
probabilities of both test sets) and ``history.csv`` (one row per epoch). Every table of the book comes from
these.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_repro.data import FER2013, LABELS, USAGES
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.errors import FerReproError
from fer_repro.evaluation import metrics
from fer_repro.files import atomic_write, sha256_of
from fer_repro.project import default_results_dir
from fer_repro.recipe import digest

SCHEMA = 1
HALVES = ("PublicTest", "PrivateTest")
STATUSES = ("done", "stopped early", "diverged", "interrupted", "error")
FINISHED = ("done", "stopped early")
KEYS = frozenset(
    "schema variant protocol profile seed status recipe recipe_sha256 code_version data usages selection "
    "selected_epoch parameters multiply_adds scores cost environment started ended facts".split()
)
_FOLDER = re.compile(r"(?P<variant>[^/]+)/(?P<protocol>[^/]+)/seed-(?P<seed>\d+)$")


@dataclass
class Result:
    """One run's outcome. ``note`` is a sentence for the page (for example: nothing stored, so this is a smoke run)."""

    record: dict[str, Any]
    predictions: dict[str, np.ndarray]
    history: pd.DataFrame
    note: str = ""
    classifier: Any = field(default=None, repr=False)

    @property
    def variant(self) -> str:
        return self.record["variant"]

    @property
    def protocol(self) -> str:
        return self.record["protocol"]

    @property
    def profile(self) -> str:
        return self.record["profile"]

    @property
    def seed(self) -> int:
        return self.record["seed"]

    @property
    def status(self) -> str:
        return self.record["status"]

    @property
    def synthetic(self) -> bool:
        """True where the faces are synthetic: such a number says nothing about a paper."""
        return self.record["data"]["name"] == "synthetic"

    @property
    def has_views(self) -> bool:
        return "views" in self.record["scores"][HALVES[0]]

    @property
    def storable(self) -> bool:
        """Only full runs on FER2013 that ran to their end (or to the recipe's own patience) may stand in results/."""
        return self.profile == "full" and self.status in FINISHED and self.record["data"]["name"] == "fer2013"

    def score(self, usage: str = "PrivateTest", views: bool | None = None) -> dict[str, Any]:
        """The metrics on one test set, or on both as one where the protocol merges them (``PublicTest+PrivateTest``).

        ``views=None`` takes the paper's views where there are any, else the plain score.
        """
        views = self.has_views if views is None else views
        return self.record["scores"][usage]["views" if views else "plain"]

    @property
    def scored(self) -> str:
        """The name of what the protocol scores: a test set, or "PublicTest+PrivateTest" for both as one."""
        return "+".join(self.record["usages"]["test"])

    @property
    def headline(self) -> dict[str, Any]:
        """The score that stands beside the claim: on the protocol's test images, as the paper views an image."""
        return self.score(self.scored)


def folder_of(results_dir: Path, variant: str, protocol: str, seed: int) -> Path:
    return Path(results_dir) / variant / protocol / f"seed-{seed}"


def score_all(predictions: dict[str, np.ndarray], test: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """``scores`` of a record from stored predictions: test set -> plain/views -> metrics.

    ``test``: the test sets that the protocol scores; where these are two, their images as one set are scored as well.
    """
    scores: dict[str, dict[str, Any]] = {}
    for halves in [*((half,) for half in HALVES), *([tuple(test)] if len(test) > 1 else [])]:
        labels = np.concatenate([predictions[f"{half}_labels"].astype(np.int64) for half in halves])
        kinds = [kind for kind in ("plain", "views") if f"{halves[0]}_{kind}" in predictions]
        rows = {kind: np.concatenate([predictions[f"{half}_{kind}"] for half in halves]) for kind in kinds}
        scores["+".join(halves)] = {kind: metrics.evaluate(rows[kind].astype(np.float32), labels) for kind in kinds}
    return scores


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
    """Write the three files, ``result.json`` last; an existing result is never overwritten. Returns the folder."""
    folder = folder_of(results_dir, result.variant, result.protocol, result.seed)
    if (folder / "result.json").exists():
        raise FerReproError(f"{folder} already holds a result: move it away first if it should be replaced")
    archive = io.BytesIO()
    np.savez_compressed(archive, **result.predictions)  # type: ignore[arg-type]
    files = {"predictions.npz": archive.getvalue(), "history.csv": result.history.to_csv(index=False).encode()}
    record = result.record | {"files": {name: sha256(content).hexdigest() for name, content in files.items()}}
    files["result.json"] = (json.dumps(record, indent=1) + "\n").encode()
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


def read(folder: Path) -> Result:
    """Read one result folder. Raises `FerReproError` for missing, damaged or foreign-schema files."""
    folder = Path(folder)
    try:
        record = json.loads((folder / "result.json").read_text())
        schema = record.get("schema")
        if schema != SCHEMA:
            raise FerReproError(
                f"{folder / 'result.json'} has schema version {schema!r}, this fer_repro reads {SCHEMA}: run the "
                "variant again, or use the fer_repro release that wrote it"
            )
        missing = sorted(KEYS - record.keys())
        if missing:
            raise FerReproError(f"{folder / 'result.json'} lacks {', '.join(missing)}: run the variant again")
        with np.load(folder / "predictions.npz", allow_pickle=False) as archive:
            predictions = {name: archive[name] for name in archive.files}
        text = (folder / "history.csv").read_text()
        history = pd.read_csv(io.StringIO(text)) if text.strip() else pd.DataFrame()
    except FerReproError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise FerReproError(
            f"{folder} is not a readable result ({type(error).__name__}: {error}): expected result.json, "
            "predictions.npz and history.csv as `fer-repro run` writes them; restore them or run the variant again"
        ) from error
    return Result(record, predictions, history)


def stored_folders(results_dir: Path | None = None) -> list[Path]:
    """Every folder that holds a ``result.json``, sorted."""
    root = Path(results_dir) if results_dir else default_results_dir()
    return sorted(path.parent for path in root.glob("*/*/seed-*/result.json"))


def read_all(results_dir: Path | None = None) -> list[Result]:
    """Every stored result below ``results_dir`` (the project's own by default); an unreadable one is an error."""
    return [read(folder) for folder in stored_folders(results_dir)]


def find(variant: str, protocol: str, seed: int, results_dir: Path | None = None) -> Result | None:
    """The stored result, or None."""
    folder = folder_of(results_dir or default_results_dir(), variant, protocol, seed)
    return read(folder) if (folder / "result.json").exists() else None


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
    """Recompute every stored number from its predictions; one sentence per problem, an empty list when all is well.

    ``folders``: only these result folders. ``faces``: the data set at hand; results made from the same copy (equal
    digest) are then held to its ids and labels.
    """
    everything = []
    for folder in stored_folders(results_dir) if folders is None else folders:
        try:
            result = read(folder)
            problems = _problems(result, folder)
            if faces is not None and not problems and result.record["data"]["digest"] == faces.digest:
                problems = compare_labels(result.predictions, faces)
            everything += [f"{folder}: {problem}" for problem in problems]
        except FerReproError as error:
            everything.append(str(error))
    return everything


def compare_labels(predictions: dict[str, np.ndarray], faces: FER2013) -> list[str]:
    """Ids and labels of stored predictions against the data set they name: one sentence per test set that differs."""
    problems = []
    for half in HALVES:
        part = faces.subset(np.flatnonzero(faces.usage == half))
        known = dict(zip(part.ids.tolist(), part.labels.tolist(), strict=True))
        stored = dict(zip(predictions[f"{half}_ids"].tolist(), predictions[f"{half}_labels"].tolist(), strict=True))
        wrong = [name for name in known.keys() | stored.keys() if known.get(name) != stored.get(name)]
        if wrong:
            first = min(wrong)
            problems.append(
                f"{half}: {len(wrong)} predictions do not match the data set, first '{first}' with label "
                f"{stored.get(first, 'missing')} instead of {known.get(first, 'no such image')}: run the variant again"
            )
    return problems


def _problems(result: Result, folder: Path) -> list[str]:
    record, problems = result.record, []
    place = _FOLDER.search(folder.as_posix())
    named = (record["variant"], record["protocol"], str(record["seed"]))
    if place is None or place.groups() != named:
        problems.append(f"the folder's name does not say what result.json does ({' / '.join(named)})")
    if record["status"] not in STATUSES or not result.storable:
        problems.append(
            f"status '{record['status']}', profile '{record['profile']}', data '{record['data']['name']}': only "
            "finished full runs on fer2013 belong in results/"
        )
    if digest(record["recipe"]) != record["recipe_sha256"]:
        problems.append("recipe_sha256 is not the digest of the recipe beside it")
    changed = [name for name, known in record.get("files", {}).items() if sha256_of(folder / name) != known]
    problems += [f"{name} is not the file that result.json was written with" for name in changed]
    problems += check_predictions(result.predictions) or _wrong_counts(result.predictions)
    scores = {} if problems else score_all(result.predictions, record["usages"]["test"])
    if scores and json.loads(json.dumps(scores)) != record["scores"]:
        problems.append("the scores in result.json are not those of predictions.npz")
    return problems


def _wrong_counts(predictions: dict[str, np.ndarray]) -> list[str]:
    """The test sets of FER2013 have known numbers of images per class; labels that were moved or edited change them."""
    counts = {half: np.bincount(predictions[f"{half}_labels"], minlength=len(LABELS)).tolist() for half in HALVES}
    official = {half: OFFICIAL_COUNTS[USAGES.index(half)].tolist() for half in HALVES}
    return [
        f"{half}: images per class are {counts[half]}, FER2013 has {official[half]}"
        for half in HALVES
        if counts[half] != official[half]
    ]


def check_predictions(predictions: dict[str, np.ndarray]) -> list[str]:
    """What is wrong with stored predictions: shapes, labels, probabilities, doubled ids."""
    problems = []
    for half in HALVES:
        lacking = [n for n in (f"{half}_ids", f"{half}_labels", f"{half}_plain") if n not in predictions]
        if lacking:
            problems.append(f"predictions.npz lacks {', '.join(lacking)}")
            continue
        ids, labels = predictions[f"{half}_ids"], predictions[f"{half}_labels"]
        if len(np.unique(ids)) != len(ids) or len(ids) != len(labels):
            problems.append(f"{half}: {len(ids)} ids ({len(np.unique(ids))} different) for {len(labels)} labels")
        if labels.size and (labels.min() < 0 or labels.max() > 6):
            problems.append(f"{half}: labels outside 0..6")
        for kind in (kind for kind in ("plain", "views") if f"{half}_{kind}" in predictions):
            rows = predictions[f"{half}_{kind}"]
            if rows.shape != (len(labels), 7):
                problems.append(f"{half}_{kind} has shape {rows.shape}, expected ({len(labels)}, 7)")
            elif not (np.isfinite(rows).all() and np.allclose(rows.astype(np.float64).sum(1), 1, atol=5e-3)):
                problems.append(f"{half}_{kind}: rows are not probabilities that sum to 1")
    return problems
