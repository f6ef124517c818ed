"""FER+ votes: the labels that ten people gave to every row of the original CSV (Barsoum et al., ICMI 2016).

The votes come in a table of their own (`fer2013new.csv`) whose rows follow the rows of fer2013.csv. Its image names
skip numbers, so that nothing but the order of the rows joins the two; the folder copies have lost that order. Whether a
join is the right one shows in the votes themselves: people see the expression that the label names far more often than
chance would have it, in every part of the table.
"""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from fer_repro.data.dataset import FER2013
from fer_repro.data.official import KNOWN_DIGESTS, LABELS, USAGES
from fer_repro.errors import FerReproError

VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
MOST_VOTES = 10
# The column of each label, in the order of LABELS.
OWN = np.array([VOTES.index(v) for v in ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")])
# The label is (one of) the most voted for about 65 % of the rows; the totals of the two tables allow 77 % at most and
# give 18 % for rows that do not belong together. A stretch of 200 rows varies by 3.4 points (one standard deviation):
# the limit for each stretch lies more than six of these from both, the one for all rows is closer to the truth.
STRETCH, LEAST_IN_A_STRETCH, LEAST = 200, 0.4, 0.5
_HEADER = ["Usage", "Image name", *VOTES]
_LARGEST = 16 << 20
_ORIGINAL = "take fer2013new.csv from Microsoft's FER+ project"
_UNCHANGED = f"{_ORIGINAL} and the original fer2013.csv or icml_face_data.csv of Kaggle, both unchanged"


def votes(data: FER2013, path: str | os.PathLike) -> pd.DataFrame:
    """The votes for every image of ``data``: int64 columns VOTES, indexed by ``data.ids`` and in its order.

    ``data`` must be FER2013 read from a CSV, whole or a subset of it; ``path`` names ``fer2013new.csv``.
    Raises `FerReproError` for another copy, a table of another shape, a usage that differs from the CSV's, impossible
    votes, or rows or columns in another order than the CSV's. All rows are checked, also for a subset. What nobody can
    see in the votes passes: a few rows that changed places with rows of like faces.
    """
    if data.name != "fer2013" or not str(data.facts.get("layout", "")).endswith(".csv"):
        raise FerReproError(
            f"FER+ votes follow the rows of fer2013.csv and cannot be joined to '{data.source}', whose order is "
            "another; load fer2013.csv or icml_face_data.csv instead"
        )
    if data.digest in KNOWN_DIGESTS:
        raise FerReproError(
            f"FER+ votes cannot be joined to '{data.source}': its row order is that of the folder copy "
            f"({KNOWN_DIGESTS[data.digest]}), from which it was written; load the original fer2013.csv or "
            "icml_face_data.csv instead"
        )
    labels, codes = data.facts["labels"], data.facts["codes"]
    name = Path(path).name
    usage, names, counts = _read(Path(path), name, data.source, len(labels))

    def wrong(row: int | np.integer, what: str) -> FerReproError:
        return FerReproError(f"{name}, line {row + 2:,} (the header is line 1): {what}; {_ORIGINAL}")

    expected = np.array(USAGES)[codes]
    for at in np.flatnonzero(usage != expected):
        raise wrong(
            at,
            f"Usage is {str(usage[at])[:20]!r}, expected '{expected[at]}' as in {data.source}; the rows of one of the "
            "two were moved",
        )
    sums = counts.sum(axis=1)
    for at in np.flatnonzero((sums < 1) | (sums > MOST_VOTES)):
        raise wrong(at, f"{sums[at]} votes, expected 1 to {MOST_VOTES}")
    before = ""
    for row, image in enumerate(names):
        if image and (not re.fullmatch(r"fer\d{7}\.png", image, re.ASCII) or image <= before):
            behind = f" behind {before}" if before else ""
            raise wrong(row, f"the image is {image[:20]!r}, expected a name like fer0000123.png{behind}")
        before = image or before
    _check_agreement(labels, counts, f"{name} and {data.source}")
    _check_columns(labels, counts, np.array(names) == "", f"{name} and {data.source}")
    rows = np.array([int(i.removeprefix("row-")) for i in data.ids], np.int64)
    return pd.DataFrame(counts[rows], index=pd.Index(data.ids, name="id"), columns=list(VOTES))


def _read(path: Path, name: str, source: str, total: int) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Usages str [total], image names and votes int64 [total,10] of the table at ``path``."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise ValueError(f"more than {_LARGEST:,} bytes")
        table = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except FileNotFoundError as error:
        raise FerReproError(f"the FER+ votes '{path}' do not exist; {_ORIGINAL}") from error
    except (OSError, ValueError, csv.Error) as error:
        raise FerReproError(f"the FER+ votes '{name}' cannot be read ({error}); {_ORIGINAL}") from error
    while table and not any(table[-1]):  # blank lines at the end
        table.pop()
    if not table or table[0] != _HEADER:
        found = " ".join(", ".join(table[0]).split())[:120] if table else "none"
        raise FerReproError(f"{name}, line 1: the columns are {found}, expected {', '.join(_HEADER)}; {_ORIGINAL}")
    if len(table) - 1 != total:
        raise FerReproError(
            f"{name}: {len(table) - 1:,} rows, expected {total:,}, one for each row of {source}; {_ORIGINAL}"
        )
    for line, row in enumerate(table[1:], start=2):
        where = f"{name}, line {line:,} (the header is line 1)"
        if len(row) != len(_HEADER):
            raise FerReproError(f"{where}: {len(row)} fields, expected {len(_HEADER)}; {_ORIGINAL}")
        for column, word in zip(VOTES, row[2:], strict=True):
            if not re.fullmatch(r"\d{1,2}", word, re.ASCII):
                raise FerReproError(f"{where}: '{column}' is {word[:20]!r}, expected a number of votes; {_ORIGINAL}")
    rows = table[1:]
    return np.array([r[0] for r in rows]), [r[1] for r in rows], np.array([r[2:] for r in rows], np.int64)


def _check_agreement(labels: np.ndarray, counts: np.ndarray, which: str) -> None:
    """Refuse votes int64 [N,10] that do not belong to the ``labels`` [N] row for row."""
    own = counts[np.arange(len(labels)), OWN[labels]]
    sums = np.concatenate(([0], np.cumsum((own == counts.max(axis=1)) & (own > 0))))
    whole, size = sums[-1] / len(labels), min(STRETCH, len(labels))
    stretches = (sums[size:] - sums[:-size]) / size
    at = int(stretches.argmin())
    if whole < LEAST or stretches[at] < LEAST_IN_A_STRETCH:
        raise FerReproError(
            f"{which} do not have the same row order: most votes go to the label in {whole:.0%} of all rows (at least "
            f"{LEAST:.0%} expected) and in {stretches[at]:.0%} of lines {at + 2:,} to {at + size + 1:,} (at least "
            f"{LEAST_IN_A_STRETCH:.0%} expected), where chance gives 18 %; {_UNCHANGED}"
        )


def _check_columns(labels: np.ndarray, counts: np.ndarray, nameless: np.ndarray, which: str) -> None:
    """Refuse votes int64 [N,10] whose columns changed places; ``nameless`` bool [N]: the rows without an image name."""
    mixed = f"the columns were mixed up; {_UNCHANGED}"
    # Mean votes by label: with each label's own column they add up to more than with any other choice of columns.
    present = np.unique(labels)
    best = linear_sum_assignment([counts[labels == c].mean(axis=0) for c in present], maximize=True)[1]
    for label, found in zip(present, best, strict=True):
        if found != OWN[label]:
            raise FerReproError(
                f"{which}: the images labelled {LABELS[label]} have their votes in the column '{VOTES[found]}', "
                f"expected '{VOTES[OWN[label]]}': {mixed}"
            )
    # No label speaks for the other three. Rows without a name were seen as no face; unknown got twice contempt's votes.
    contempt, unknown, no_face = counts[:, [VOTES.index(v) for v in ("contempt", "unknown", "NF")]].T
    if 2 * no_face[nameless].sum() < counts[nameless].sum() or contempt.sum() > 1.25 * unknown.sum() + MOST_VOTES:
        raise FerReproError(
            f"{which}: {no_face[nameless].sum():,} of the {counts[nameless].sum():,} votes of rows without a name are "
            f"for NF (most expected), {contempt.sum():,} votes in all for contempt and {unknown.sum():,} for unknown "
            f"(about half as many for contempt expected): {mixed}"
        )
