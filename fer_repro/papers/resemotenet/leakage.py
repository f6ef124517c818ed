"""What a random split after offline augmentation does to an accuracy: a demonstration of leakage, not a result.

All usages of FER2013 are pooled, and every class is oversampled to the size of the largest by the operations that the
authors of ResEmoteNet released (``data_preprocessing/data_augmentation.py``: a new image is a rotated, flipped or
trimmed copy of an original). In the first arm the oversampled pool is split at random, so that copies of one original
land in training and test. In the second arm the originals are split first and only the training part is oversampled.
Network, recipe, shares and seed are equal.

``python -m fer_repro.papers.resemotenet.leakage`` measures both arms on FER2013 and stores
``results/leakage/seed-<n>.json``, a kind of file that neither the leaderboard nor `results.read_all` nor
`results.verify` reads.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import typer

from fer_repro import data as data_sets
from fer_repro.data import FER2013, USAGES, Splits
from fer_repro.data.official import digest
from fer_repro.errors import FerReproError
from fer_repro.evaluation import cost, metrics
from fer_repro.files import atomic_write
from fer_repro.logs import rewritten, shown
from fer_repro.markup import SYNTHETIC, percent
from fer_repro.papers import resemotenet
from fer_repro.project import code_version, default_results_dir, default_runs_dir
from fer_repro.recipe import Recipe, Stage, step
from fer_repro.training import checked_seed
from fer_repro.training.execution import one_thread, resolve_device
from fer_repro.training.run import Run
from fer_repro.transforms import geometry

log = logging.getLogger("fer_repro.papers.resemotenet.leakage")  # also under python -m

LABEL = "demonstration of leakage, not a result"
SCHEMA = 1
ARMS = ("augmented, then split", "split, then augmented")
SHARES = {"full": (0.8, 0.1, 0.1), "smoke": (0.6, 0.1, 0.3)}  # of training, selection, test
OPERATIONS = ("original", "rotated", "flipped", "trimmed")
DEGREES, BORDER = 30, 10
CHUNK = 2048  # images augmented at once
SMOKE_SIZE = (210, 70, 70)  # synthetic faces: few enough to overfit in seconds


class Pool(NamedTuple):
    """Originals and copies: images uint8 [N,48,48], labels int64 [N], and for each image the position of its original
    (``origin`` int64 [N]) and what was done to it (``operation`` int64 [N], an index into OPERATIONS)."""

    images: np.ndarray
    labels: np.ndarray
    origin: np.ndarray
    operation: np.ndarray

    def at(self, index: np.ndarray) -> Pool:
        return Pool(*(part[index] for part in self))


def augmented(images: np.ndarray, operation: np.ndarray, angle: np.ndarray, border: np.ndarray) -> np.ndarray:
    """One released operation for each image: rotated by ``angle`` degrees (nearest pixel, black corners), flipped, or
    trimmed by ``border`` pixels on every side and resized back; uint8 [N,48,48] in and out, int [N] each."""
    parts = []
    for start in range(0, len(images), CHUNK):
        chunk = slice(start, start + CHUNK)
        faces = torch.from_numpy(np.array(images[chunk]))[:, None].float()
        n, side = len(faces), faces.shape[-1]
        kind, trim = (torch.from_numpy(np.asarray(v[chunk], np.int64)) for v in (operation, border))
        turn, one, zero = torch.from_numpy(np.asarray(angle[chunk], np.float32)), torch.ones(n), torch.zeros(n)
        copies = [
            faces,
            geometry.warp(faces, turn, one, one, zero, zero, "nearest"),
            faces.flip(-1),
            geometry.crop_and_resize(faces, trim, trim, side - 2 * trim, side - 2 * trim, side),
        ]
        parts.append(torch.stack(copies)[kind, torch.arange(n)][:, 0].round().clamp(0, 255).byte().numpy())
    return np.concatenate(parts) if parts else np.empty((0, *images.shape[1:]), np.uint8)


def originals(images: np.ndarray, labels: np.ndarray, index: np.ndarray) -> Pool:
    """The originals at ``index`` as they are; their origin is their position."""
    return Pool(np.asarray(images)[index], np.asarray(labels)[index], index, np.zeros(len(index), np.int64))


def oversampled(pool: Pool, rng: np.random.Generator) -> Pool:
    """``pool`` and copies of its images in turn, as released, so that every class is as large as the largest."""
    target = np.bincount(pool.labels).max()
    classes = (np.flatnonzero(pool.labels == label) for label in np.unique(pool.labels))
    source = np.concatenate([own[np.arange(target - len(own)) % len(own)] for own in classes])
    operation = rng.integers(1, len(OPERATIONS), len(source))
    angle = rng.integers(-DEGREES, DEGREES + 1, len(source))
    border = rng.integers(0, BORDER + 1, len(source))
    images = augmented(pool.images[source], operation, angle, border)
    copies = Pool(images, pool.labels[source], pool.origin[source], operation)
    return Pool(*map(np.concatenate, zip(pool, copies, strict=True)))


def cut(n: int, shares: tuple[float, ...], rng: np.random.Generator) -> list[np.ndarray]:
    """Positions 0..n-1 shuffled and cut into parts of the given shares, which sum to 1."""
    ends = np.round(np.cumsum(shares)[:-1] * n).astype(int)
    return np.split(rng.permutation(n), ends)


def with_sibling(part: Pool, train: Pool) -> np.ndarray:
    """bool [N]: which images of ``part`` have their original, or another copy of it, in ``train``."""
    return np.isin(part.origin, train.origin)


def with_equal(part: Pool, train: Pool) -> np.ndarray:
    """bool [N]: which images of ``part`` are in ``train`` with the same pixels."""
    seen = {image.tobytes() for image in train.images}
    return np.array([image.tobytes() in seen for image in part.images], bool)


def recipe(profile: str) -> Recipe:
    """ResEmoteNet's official recipe; in a smoke run a small network and enough epochs to overfit."""
    base = dataclasses.replace(resemotenet.recipe("official", profile), variant="leakage")
    if profile == "full":
        return base
    network = step("ResEmoteNet", divisor=12, scale_fc=True, dropout=0.0, fc_dropout=0.0)
    return dataclasses.replace(base, network=network, augment=(), stages=(Stage("train", 12, step("adam", lr=3e-3)),))


@dataclass
class Leakage:
    """Both arms, measured: ``record`` is what the file holds. ``arms``: arm -> n_train, n_select, n_test, siblings and
    equal (shares of the test images), selected_epoch, epochs, seconds and ``scores`` {images: {n, correct, accuracy,
    interval, balanced_accuracy}}; the first score is the one that such a study would report."""

    record: dict[str, Any]

    @property
    def arms(self) -> dict[str, dict[str, Any]]:
        return self.record["arms"]

    @property
    def synthetic(self) -> bool:
        return self.record["data"]["name"] == "synthetic"

    def reported(self, arm: str) -> dict[str, Any]:
        return next(iter(self.arms[arm]["scores"].values()))


@shown()
def demonstrate(
    profile: str = "smoke",
    seed: int = 0,
    device: str = "auto",
    *,
    root: str | None = None,
    runs_dir: str | Path | None = None,
    resume: bool = True,
    time_budget: float | None = None,
) -> Leakage:
    """Train and score both arms: ``smoke`` on synthetic faces in seconds, ``full`` on FER2013.

    A full run saves checkpoints in ``runs_dir`` (``runs/leakage/`` by default) and goes on from them. Raises
    `FerReproError` for bad input and `Interrupted` when ``time_budget`` seconds are over.
    """
    if profile not in SHARES:
        raise FerReproError(f"leakage: unknown profile '{profile}', expected {' or '.join(SHARES)}")
    smoke, device, seed = profile == "smoke", resolve_device(device), checked_seed(seed)
    faces = data_sets.load("synthetic", size=SMOKE_SIZE) if smoke else data_sets.load("fer2013", root)
    deadline = None if time_budget is None else time.monotonic() + time_budget
    followed, version, arms = recipe(profile), code_version(), {}

    temporary = smoke and runs_dir is None
    with (
        tempfile.TemporaryDirectory() if temporary else nullcontext(runs_dir or default_runs_dir() / "leakage") as runs,
        one_thread() if smoke else nullcontext(),
    ):
        for arm, parts in zip(ARMS, (leaky(faces, profile, seed), clean(faces, profile, seed)), strict=True):
            folder = Path(runs) / f"{profile}-{arm.replace(', ', '-').replace(' ', '-')}-seed-{seed}"
            log.info(f"{LABEL}: {arm}, {len(parts[0].labels):,} training and {len(parts[2].labels):,} test images")
            train, select, test = (_as_data(*pair, faces) for pair in zip(parts, USAGES, strict=True))
            codes = np.concatenate([np.full(len(part.labels), code) for code, part in enumerate(parts)])
            content = digest(*(np.concatenate([getattr(p, k) for p in parts]) for k in ("images", "labels")), codes)
            run = Run(followed, seed, device, folder, content, resume=resume, deadline=deadline)
            with rewritten(lambda line: line.replace(USAGES[1], "selection part")):  # the loop's name for what selects
                classifier = resemotenet.fit(Splits(train, select, test, train), run)
            arms[arm] = _score(parts, classifier, run, seed)
    return Leakage(
        {
            "schema": SCHEMA,
            "kind": LABEL,
            "profile": profile,
            "seed": seed,
            "shares": list(SHARES[profile]),
            "data": {"name": faces.name, "source": faces.source, "digest": faces.digest},
            "arms": arms,
            "recipe": followed.as_dict(),
            "recipe_sha256": followed.sha256(),
            "code_version": version,
            "device": device,
            "environment": cost.environment(),
        }
    )


def leaky(faces: FER2013, profile: str, seed: int) -> list[Pool]:
    """Training, selection and test part of the pool that was oversampled before it was split."""
    rng = np.random.default_rng([seed, 1])
    pool = oversampled(originals(faces.images, faces.labels, np.arange(len(faces))), rng)
    return [pool.at(index) for index in cut(len(pool.labels), SHARES[profile], rng)]


def clean(faces: FER2013, profile: str, seed: int) -> list[Pool]:
    """Training, selection and test part of the originals, split first; only the training part is oversampled."""
    rng = np.random.default_rng([seed, 2])
    train, *rest = (originals(faces.images, faces.labels, i) for i in cut(len(faces), SHARES[profile], rng))
    return [oversampled(train, rng), *rest]


def _as_data(part: Pool, usage: str, faces: FER2013) -> FER2013:
    ids = np.array([f"{i}-{OPERATIONS[kind]}" for i, kind in zip(part.origin, part.operation, strict=True)])
    about = (faces.name, f"{faces.source} ({LABEL})", faces.digest)
    return FER2013(part.images, part.labels, np.full(len(ids), usage), ids, *about)


def _score(parts: list[Pool], classifier: Any, run: Run, seed: int) -> dict[str, Any]:
    """The scores of one arm: its test part, the images with and without a sibling in training, the originals alone, and
    where the test part holds no copies, the same part oversampled like a training part (so that both arms compare)."""
    train, select, test = parts
    siblings = with_sibling(test, train)
    scored = {"its test part": test}
    if siblings.any():
        scored |= {"images with a sibling in training": test.at(siblings), "images without one": test.at(~siblings)}
    if test.operation.any():
        scored["originals of the test part"] = test.at(test.operation == 0)
    else:
        scored["test part, oversampled alike"] = oversampled(test, np.random.default_rng([seed, 3]))
    scores = {}
    for name, part in scored.items():
        if len(part.labels):
            score = metrics.evaluate(classifier.predict_proba(part.images), part.labels)
            scores[name] = {key: score[key] for key in ("n", "correct", "accuracy", "interval", "balanced_accuracy")}
    return {
        "n_train": len(train.labels),
        "n_select": len(select.labels),
        "n_test": len(test.labels),
        "siblings": float(siblings.mean()),
        "equal": float(with_equal(test, train).mean()),
        "train_accuracy": run.history[-1]["train_accuracy"],
        "epochs": len(run.history),
        **{name: run.facts[name] for name in ("selected_epoch", "status", "seconds")},
        "scores": scores,
    }


def path_of(seed: int, results_dir: str | Path | None = None) -> Path:
    return Path(results_dir or default_results_dir()) / "leakage" / f"seed-{seed}.json"


def store(leakage: Leakage, results_dir: str | Path | None = None) -> Path:
    """Write a full measurement on FER2013; anything else, and an existing file, is a `FerReproError`."""
    path = path_of(leakage.record["seed"], results_dir)
    if leakage.record["profile"] != "full" or leakage.synthetic:
        raise FerReproError("only a full demonstration on FER2013 is stored; this one can only be shown")
    if path.exists():
        raise FerReproError(f"{path} is there already: move it away first if it should be replaced")
    with atomic_write(path) as file:
        file.write((json.dumps(leakage.record, indent=1) + "\n").encode())
    return path


def stored(seed: int, results_dir: str | Path | None = None) -> Leakage | None:
    """The stored demonstration, or None. Raises `FerReproError` for a file that is none."""
    path = path_of(seed, results_dir)
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FerReproError(f"{path} cannot be read ({error}): restore it or measure it again") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or record.get("kind") != LABEL:
        raise FerReproError(f"{path} is no {LABEL} of schema {SCHEMA}: restore it or measure it again")
    return Leakage(record)


def main(
    profile: str = "full",
    seed: int = 0,
    device: str = "auto",
    root: str = "",
    results_dir: str = "",
    runs_dir: str = "",
    time_budget: float | None = None,
    resume: bool = True,
) -> None:
    """Measure both orders of work; a full run is stored. Stops at a checkpoint after ``time_budget`` seconds."""
    options = {"root": root or None, "runs_dir": runs_dir or None, "resume": resume, "time_budget": time_budget}
    leakage = demonstrate(profile, seed, device, **options)
    for arm in ARMS:
        score, remark = leakage.reported(arm), SYNTHETIC if leakage.synthetic else LABEL
        siblings = f"{percent(leakage.arms[arm]['siblings'], 1)} of the test images with a sibling in training"
        print(f"{arm}: {percent(score['accuracy'])} of {score['n']:,}, {siblings} ({remark})")
    if profile == "full":
        print(f"stored as {store(leakage, results_dir or None).name} ({LABEL})")


if __name__ == "__main__":
    typer.run(main)
