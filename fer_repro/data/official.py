"""What FER2013 is known to hold: official counts, the digest of a copy, and the copies that are recognised."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fer_repro.errors import FerReproError

USAGES = ("Training", "PublicTest", "PrivateTest")
LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
SIDE = 48
PIXELS = SIDE * SIDE

# Rows follow USAGES, columns follow LABELS. The totals are 28,709, 3,589 and 3,589.
OFFICIAL_COUNTS = np.array(
    [[3995, 436, 4097, 7215, 4830, 3171, 4965], [467, 56, 496, 895, 653, 415, 607], [491, 55, 528, 879, 594, 416, 626]]
)
OFFICIAL_COUNTS.setflags(write=False)

# Digest of the decoded pixels (see `digest`) -> what the copy is called.
KNOWN_DIGESTS = {
    "130e438d67110c595563948ce0bfb63d3b49eaeee4cc31aa3546c359d12a9550": "the JPEG copy on Kaggle (msambare/fer2013)"
}

# md5 of the CSV's bytes, as torchvision publishes them for the files of the original Kaggle contest.
KNOWN_CSV = {
    "f8428a1edbd21e88f42c73edd2a14f95": "the original fer2013.csv of the Kaggle contest",
    "b114b9e04e6949e5fe8b6a98b3892b1d": "the original icml_face_data.csv of the Kaggle contest",
}

FRESH_COPY = "fetch a fresh copy (`fer-repro data --download`, or Kaggle's fer2013.csv)"
MODIFIED = "fer2013-modified"
"""`FER2013.name` of a copy whose counts are not the official ones, loaded because that was asked for."""
MOST_TIMES = 2  # how many times the images of FER2013 a modified copy may have
ON_PURPOSE = (
    "if it was cleaned on purpose, --accept-modified (accept_modified=True) takes it as a modified copy and stores its "
    "runs apart"
)


def damaged(where: str, what: str) -> FerReproError:
    """The error about a copy that is not what it should be; it says to fetch another one."""
    return FerReproError(printable(f"{where}: {what}; {FRESH_COPY}"))


def printable(text: str) -> str:
    """``text`` without what a stranger's file name may hold: line ends, control characters, halves of characters."""
    return "".join(c if c.isprintable() else "?" for c in text)


@dataclass(frozen=True)
class Parsed:
    """What a reader hands over, before it becomes a `FER2013`.

    images uint8 [N,48,48]; labels uint8 [N] in 0..6; usage uint8 [N], an index into USAGES; ids str [N], unique;
    layout ``fer2013.csv``, ``icml_face_data.csv`` or ``folder copy``.
    """

    images: np.ndarray
    labels: np.ndarray
    usage: np.ndarray
    ids: np.ndarray
    layout: str


def count(labels: np.ndarray, usage: np.ndarray) -> np.ndarray:
    """Images per usage and class, int64 [3,7]; ``labels`` and ``usage`` are integer codes [N]."""
    cells = usage.astype(np.int64) * len(LABELS) + labels
    return np.bincount(cells, minlength=len(USAGES) * len(LABELS)).reshape(len(USAGES), len(LABELS))


def check_counts(found: np.ndarray, expected: np.ndarray, name: str) -> None:
    """Raise `FerReproError` naming every usage and class (at most four) whose count differs from the official one."""
    wrong = np.argwhere(found != expected)
    if not len(wrong):
        return
    cells = [f"{USAGES[u]} {LABELS[c]} {found[u, c]:,} instead of {expected[u, c]:,}" for u, c in wrong[:4]]
    more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
    raise FerReproError(
        f"{name}: {found.sum():,} images where FER2013 has {expected.sum():,}, with wrong counts: "
        f"{', '.join(cells)}{more}; rows or files are missing, doubled or moved, so {FRESH_COPY}; {ON_PURPOSE}"
    )


def too_many(where: str, what: str, capacity: int) -> FerReproError:
    """The error about a copy with more than ``capacity`` images; ``what``: rows or pictures."""
    return damaged(where, f"more {what} than the {capacity:,} that are accepted ({way_out(capacity)})")


def way_out(capacity: int) -> str:
    """What to do about a copy with more images than ``capacity``: that of the official set, or of a modified copy."""
    official = capacity <= int(OFFICIAL_COUNTS.sum())
    return ON_PURPOSE if official else "a modified copy may have at most twice the official number"


@dataclass(frozen=True)
class Difference:
    """Where a copy has not the official number of images: usage, class, the images found and the official ones."""

    usage: str
    label: str
    found: int
    official: int

    def __str__(self) -> str:
        missing = self.official - self.found
        return f"{abs(missing):,} {self.label} {'missing' if missing > 0 else 'surplus'}"


def differences(found: np.ndarray, expected: np.ndarray) -> tuple[Difference, ...]:
    """Every usage and class whose count differs; ``found`` and ``expected`` int [3,7] as of `count`."""
    return tuple(
        Difference(USAGES[u], LABELS[c], int(found[u, c]), int(expected[u, c]))
        for u, c in np.argwhere(found != expected).tolist()
    )


def in_words(differing: Sequence[Difference]) -> str:
    """What is missing and what is surplus: "Training: 9 angry missing, 1 sad surplus; PublicTest: complete; ..."."""
    lines = {usage: ", ".join(str(one) for one in differing if one.usage == usage) for usage in USAGES}
    return "; ".join(f"{usage}: {line or 'complete'}" for usage, line in lines.items())


def digest(images: np.ndarray, labels: np.ndarray, usage: np.ndarray) -> str:
    """sha256 (hex) over the pixels uint8 [N,48,48], then the labels and the usage codes, one byte each.

    The order counts: rows of a CSV as they come, pictures by usage and numeric id. A folder, a zip and a tar of the
    same files therefore agree.
    """
    h = hashlib.sha256()
    for array in (images, labels, usage):
        h.update(np.ascontiguousarray(array, np.uint8).data)
    return h.hexdigest()
