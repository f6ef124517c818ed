"""Generated faces: how many, from which sources, which filter lets them pass, where they are kept, how they are used.

All images that come in here are Training images; anything else is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer_repro.data.dataset import FER2013
from fer_repro.data.official import LABELS
from fer_repro.errors import FerReproError
from fer_repro.files import atomic_write

SOURCE_USAGE = "Training"
CLASSES = len(LABELS)
NEUTRAL = LABELS.index("neutral")
ARMS = ("real-only", "oversampled", "unfiltered", "psnr", "cosine", "both")
TARGETS = ("neutral", "largest")


# ---- how many, from whom ---------------------------------------------------------------------------------------------


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

    A class that lacks more than there are neutral faces goes round again with new seeds. ``most`` caps a class.
    """
    neutral = np.flatnonzero(labels == NEUTRAL)
    lacking = needed(np.bincount(labels, minlength=CLASSES), target)
    if not len(neutral):
        raise FerReproError("generation: no neutral face among the Training images, expected some to start from")
    sources, classes, seeds = [], [], []
    for index in np.flatnonzero(lacking):
        draws = np.random.default_rng([seed, int(index)])
        number = int(np.ceil(lacking[index] * surplus))
        number = number if most is None else min(number, most)
        rounds = [draws.permutation(neutral) for _ in range(-(-number // len(neutral)))]
        sources.append(np.concatenate(rounds)[:number])
        classes.append(np.full(number, index))
        seeds.append(draws.integers(2**31, size=number))
    if not classes:
        raise FerReproError("generation: every class has as many images as it should; there is nothing to generate")
    return Plan(*(np.concatenate(parts).astype(np.int64) for parts in (sources, classes, seeds)))


# ---- the two filters -------------------------------------------------------------------------------------------------


def psnr(made: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of uint8 [N,48,48] against their sources, float32 [N]; equal images: inf."""
    error = ((made.astype(np.float32) - sources.astype(np.float32)) ** 2).mean(axis=(1, 2), dtype=np.float64)
    with np.errstate(divide="ignore"):
        return (10 * np.log10(255.0**2 / error)).astype(np.float32)


def lowest_psnr(values: np.ndarray, percentile: float, pilot: int) -> float:
    """The bound of the PSNR filter: a percentile of ``pilot`` candidates spread evenly over all of them."""
    spread = np.linspace(0, len(values) - 1, min(pilot, len(values))).round().astype(int)
    finite = values[spread][np.isfinite(values[spread])]  # an unchanged face is infinitely near, and passes any bound
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


# ---- the store -------------------------------------------------------------------------------------------------------


def ids_digest(ids: Iterable[str]) -> str:
    """sha256 (hex) over the sorted ids, one a line: anybody who has the data set can compute it again."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


@dataclass(frozen=True)
class Generated:
    """The candidates with what the filters said; arrays of one length N but for the last.

    images uint8 [N,48,48]; source str [N], the source's id; classes int64 [N], what it became; seed int64 [N];
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
        found = hashlib.sha256(np.ascontiguousarray(self.images))
        for part in (self.classes, self.near, self.fitting):
            found.update(np.ascontiguousarray(part))
        return found.hexdigest()

    def rates(self) -> list[dict[str, Any]]:
        """Per class that was generated: candidates, and how many pass the PSNR filter, the label filter, both."""
        return [
            {
                "class": LABELS[index],
                "candidates": int(own.sum()),
                "psnr": int(self.near[own].sum()),
                "cosine": int(self.fitting[own].sum()),
                "both": int(self.accepted[own].sum()),
            }
            for index in range(CLASSES)
            if (own := self.classes == index).any()
        ]

    def save(self, path: Path) -> None:
        with atomic_write(path) as file:
            np.savez(file, **{f.name: np.asarray(getattr(self, f.name)) for f in dataclasses.fields(self)})


def load(path: Path) -> Generated | None:
    """The store at ``path``, or None where there is none or a damaged one."""
    try:
        content = io.BytesIO(path.read_bytes())
        with np.load(content, allow_pickle=False) as kept:
            found = {f.name: kept[f.name] for f in dataclasses.fields(Generated)}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    return Generated(**found)


# ---- use -------------------------------------------------------------------------------------------------------------


def training_set(
    train: FER2013, generated: Generated | None, arm: str, target: str, seed: int
) -> tuple[FER2013, list[dict[str, int | str]]]:
    """The Training images of an arm, and what was added to each class.

    All arms have equally many images, so that equal epochs are equal steps. ``real-only`` repeats images as the classes
    come. ``oversampled`` repeats images of each class up to the ``target``. The others add generated faces up to it, in
    the order in which they were made, and repeat them (or, where none passed, real ones) if too few passed.
    """
    if arm not in ARMS:
        raise FerReproError(f"comparison: unknown arm '{arm}', expected one of {', '.join(ARMS)}")
    labels = np.asarray(train.labels)
    lacking = needed(np.bincount(labels, minlength=CLASSES), target)
    draws = np.random.default_rng([seed, 7])
    real: list[np.ndarray] = [np.arange(len(labels))]
    made: list[np.ndarray] = []
    told: list[dict[str, int | str]] = []
    if arm == "real-only":
        extra = _repeated(draws.permutation(len(labels)), int(lacking.sum()))
        real.append(extra)
        told = [
            {"class": LABELS[c], "generated": 0, "repeated": int((labels[extra] == c).sum())} for c in range(CLASSES)
        ]
    else:
        if generated is None and arm != "oversampled":
            raise FerReproError(f"comparison: the arm '{arm}' adds generated faces, but none were given")
        for index in np.flatnonzero(lacking):
            number, real_ones = int(lacking[index]), np.flatnonzero(labels == index)
            own = np.flatnonzero(generated.passing(arm) & (generated.classes == index)) if arm != "oversampled" else []
            if len(own):
                made.append(_repeated(own, number))
            elif len(real_ones):
                real.append(_repeated(draws.permutation(real_ones), number))
            else:
                raise FerReproError(f"comparison: no image of the class '{LABELS[index]}', neither real nor generated")
            used = min(number, len(own))
            told.append({"class": LABELS[index], "generated": used, "repeated": number - used})
    return _joined(train, generated, np.concatenate(real), made), told


def _repeated(order: np.ndarray, number: int) -> np.ndarray:
    """The first ``number`` of ``order``, going round as often as it takes."""
    return np.resize(order, number)


def _joined(train: FER2013, generated: Generated | None, real: np.ndarray, made: list[np.ndarray]) -> FER2013:
    parts: Mapping[str, list[np.ndarray]] = {
        name: [np.asarray(getattr(train, name))[real]] for name in ("images", "labels", "usage", "ids")
    }
    if made:
        chosen = np.concatenate(made)
        names = [
            f"generated from {source} as {LABELS[kind]}, seed {seed}"
            for source, kind, seed in zip(
                generated.source[chosen], generated.classes[chosen], generated.seed[chosen], strict=True
            )
        ]
        parts["images"].append(generated.images[chosen])
        parts["labels"].append(generated.classes[chosen])
        parts["usage"].append(np.full(len(chosen), SOURCE_USAGE))
        parts["ids"].append(np.array(names))
    return dataclasses.replace(train, **{name: np.concatenate(arrays) for name, arrays in parts.items()})
