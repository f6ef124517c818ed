"""Generated faces: how many, from which sources, which filter accepts them, how they are stored and used.

All images that come in here are Training images; anything else is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer_repro.data import FER2013, LABELS
from fer_repro.errors import FerReproError
from fer_repro.files import atomic_write, writable

SOURCE_USAGE = "Training"
CLASSES = len(LABELS)
NEUTRAL = LABELS.index("neutral")
ARMS = ("real-only", "oversampled", "unfiltered", "psnr", "cosine", "both")
WITHOUT_FACES = ("real-only", "oversampled")
TARGETS = ("neutral", "largest")


def require_training_only(part: FER2013, what: str) -> None:
    """Raise `FerReproError` unless every image of ``part`` is a Training image."""
    others = sorted(set(np.asarray(part.usage).tolist()) - {SOURCE_USAGE})
    if others:
        raise FerReproError(
            f"{what} may see Training images only, got images of {' and '.join(others)}: use a protocol that trains "
            "on Training alone"
        )


def needed(counts: np.ndarray, target: str) -> np.ndarray:
    """How many images every class lacks, int64 [7]: up to ``neutral``'s number or the ``largest`` class'.

    Neutral faces cannot be made from neutral ones: that class gets none.
    """
    if target not in TARGETS:
        raise FerReproError(f"generation: unknown target '{target}', expected one of {', '.join(TARGETS)}")
    goal = counts[NEUTRAL] if target == "neutral" else counts.max()
    lacking = np.maximum(goal - counts, 0)
    lacking[NEUTRAL] = 0
    return lacking.astype(np.int64)


@dataclass(frozen=True)
class Plan:
    """Which source becomes which class with which seed: positions in the Training part, classes, seeds, int64 [N]."""

    sources: np.ndarray
    classes: np.ndarray
    seeds: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)


def plan(labels: np.ndarray, target: str, surplus: float, seed: int, most: int | None = None) -> Plan:
    """``surplus`` times the images that lack, each class from the neutral faces in an order of its own.

    A class that lacks more than there are neutral faces uses them again with new seeds. ``most`` caps a class.
    """
    neutral = np.flatnonzero(labels == NEUTRAL)
    lacking = needed(np.bincount(labels, minlength=CLASSES), target)
    if not len(neutral):
        raise FerReproError("generation: no neutral face among the Training images, expected some to start from")
    if not lacking.any():
        raise FerReproError("generation: every class has as many images as it should; there is nothing to generate")
    sources, classes, seeds = [], [], []
    for index in np.flatnonzero(lacking):
        generator = np.random.default_rng([seed, int(index)])
        number = int(np.ceil(lacking[index] * surplus))
        number = number if most is None else min(number, most)
        rounds = [generator.permutation(neutral) for _ in range(-(-number // len(neutral)))]
        sources.append(np.concatenate(rounds)[:number])
        classes.append(np.full(number, index))
        seeds.append(generator.integers(2**31, size=number))
    return Plan(*(np.concatenate(parts).astype(np.int64) for parts in (sources, classes, seeds)))


def psnr(made: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of uint8 [N,48,48] against their sources, float32 [N]; equal images: inf."""
    error = ((made.astype(np.float32) - sources.astype(np.float32)) ** 2).mean(axis=(1, 2), dtype=np.float64)
    with np.errstate(divide="ignore"):
        return (10 * np.log10(255.0**2 / error)).astype(np.float32)


def lowest_psnr(values: np.ndarray, percentile: float, pilot: int) -> float:
    """The bound of the PSNR filter: a percentile of ``pilot`` candidates spread evenly over all of them."""
    spread = np.linspace(0, len(values) - 1, min(pilot, len(values))).round().astype(int)
    finite = values[spread][np.isfinite(values[spread])]  # an unchanged face has an infinite value, and always passes
    return float(np.percentile(finite, percentile)) if len(finite) else -np.inf


def passes_psnr(values: np.ndarray, lowest: float, highest: float | None = None) -> np.ndarray:
    """bool [N]: near enough to the source to be the same face, and (``highest``) not so near as to be unchanged."""
    return (values >= lowest) & (True if highest is None else values <= highest)


def thresholds(cosines: np.ndarray, labels: np.ndarray, percentile: float) -> np.ndarray:
    """float32 [7]: that percentile of the similarity of real images to their own label; cosines [N,7], labels [N].

    A class without images has no bound of its own: 1, which nothing reaches.
    """
    own = cosines[np.arange(len(labels)), labels]
    each = [own[labels == index] for index in range(CLASSES)]
    return np.array([np.percentile(values, percentile) if len(values) else 1.0 for values in each], np.float32)


def passes_cosine(cosines: np.ndarray, classes: np.ndarray, lowest: np.ndarray) -> np.ndarray:
    """bool [N]: the wanted label is the most similar of the seven, and similar enough. ``lowest`` [7] or [N,7]."""
    rows = np.arange(len(classes))
    bound = np.broadcast_to(lowest, cosines.shape)[rows, classes]
    return (cosines.argmax(axis=1) == classes) & (cosines[rows, classes] >= bound)


def ids_digest(ids: Iterable[str]) -> str:
    """sha256 (hex) over the sorted ids, one a line: anybody who has the data set can compute it again."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


@dataclass(frozen=True)
class Generated:
    """The candidates with the filters' decisions; arrays of one length N but for the last.

    images uint8 [N,48,48]; source str [N], the source's id; classes int64 [N], the class it became; seed int64 [N];
    psnr float32 [N] in dB, against the source; cosine float32 [N], to the wanted label; guess int64 [N], the most
    similar label; near, fitting, accepted bool [N]: passes the PSNR filter, the label filter, both. seen str [M]: ids
    of the images that the generator and the encoders were fitted on.
    """

    images: np.ndarray
    source: np.ndarray
    classes: np.ndarray
    seed: np.ndarray
    psnr: np.ndarray
    cosine: np.ndarray
    guess: np.ndarray
    near: np.ndarray
    fitting: np.ndarray
    accepted: np.ndarray
    seen: np.ndarray

    def passing(self, arm: str) -> np.ndarray:
        """bool [N]: which candidates an arm of the comparison may use."""
        masks = {"unfiltered": np.ones(len(self.classes), bool), "psnr": self.near, "cosine": self.fitting}
        return (masks | {"both": self.accepted})[arm]

    def digest(self) -> str:
        """sha256 (hex) over pixels, classes and acceptance."""
        parts = (self.images, self.classes, self.near, self.fitting)
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()

    def rates(self) -> list[dict[str, Any]]:
        """Per class that was generated: candidates, and how many pass the PSNR filter, the label filter, both."""
        arms = ("psnr", "cosine", "both")
        return [
            {"class": LABELS[index], "candidates": int(own.sum())} | {a: int(self.passing(a)[own].sum()) for a in arms}
            for index in range(CLASSES)
            if (own := self.classes == index).any()
        ]

    def save(self, path: Path) -> None:
        """One ``.npz`` file with an array for each field."""
        with writable(path), atomic_write(path) as file:
            np.savez(file, **{f.name: np.asarray(getattr(self, f.name)) for f in dataclasses.fields(self)})


def training_set(
    train: FER2013, generated: Generated | None, arm: str, target: str, seed: int
) -> tuple[FER2013, list[dict[str, int | str]]]:
    """The Training images of an arm, and what was added to each class.

    All arms have equally many images, so that equal epochs are equal steps. ``real-only`` repeats images in the data's
    own proportions. ``oversampled`` repeats images of each class up to the ``target``. The others add generated faces
    up to it, in the order in which they were made, and repeat them (or, where none passed, real ones) if too few
    passed.
    """
    if arm not in ARMS:
        raise FerReproError(f"comparison: unknown arm '{arm}', expected one of {', '.join(ARMS)}")
    if generated is None and arm not in WITHOUT_FACES:
        raise FerReproError(f"comparison: the arm '{arm}' adds generated faces, but none were given")
    labels = np.asarray(train.labels)
    lacking = needed(np.bincount(labels, minlength=CLASSES), target)
    generator = np.random.default_rng([seed, 7])
    # Positions among the real and the generated images; np.resize takes an order from its start as often as needed.
    real, made, added = [np.arange(len(labels))], [np.empty(0, np.int64)], []
    if arm == "real-only":
        real.append(np.resize(generator.permutation(len(labels)), lacking.sum()))
        repeats = np.bincount(labels[real[1]], minlength=CLASSES)
        return train.subset(np.concatenate(real)), [
            {"class": name, "generated": 0, "repeated": int(n)} for name, n in zip(LABELS, repeats, strict=True)
        ]
    for index in np.flatnonzero(lacking):
        number, originals = int(lacking[index]), np.flatnonzero(labels == index)
        passing = np.zeros(0, bool) if arm == "oversampled" else generated.passing(arm) & (generated.classes == index)
        own = np.flatnonzero(passing)
        if len(own):
            made.append(np.resize(own, number))
        elif len(originals):
            real.append(np.resize(generator.permutation(originals), number))
        else:
            raise FerReproError(f"comparison: no image of the class '{LABELS[index]}', neither real nor generated")
        used = min(number, len(own))
        added.append({"class": LABELS[index], "generated": used, "repeated": number - used})
    return _joined(train.subset(np.concatenate(real)), generated, np.concatenate(made)), added


def _joined(real: FER2013, generated: Generated | None, chosen: np.ndarray) -> FER2013:
    """``real`` images, then the ``chosen`` generated ones."""
    if not len(chosen):
        return real
    columns = (generated.source[chosen], generated.classes[chosen], generated.seed[chosen])
    names = [f"generated from {s} as {LABELS[c]}, seed {n}" for s, c, n in zip(*columns, strict=True)]
    usages = np.full(len(chosen), SOURCE_USAGE)
    more = {"images": generated.images[chosen], "labels": columns[1], "usage": usages, "ids": np.array(names)}
    joined = {name: np.concatenate([getattr(real, name), part]) for name, part in more.items()}
    return dataclasses.replace(real, **joined)
