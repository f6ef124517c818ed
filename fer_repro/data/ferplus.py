"""FER+ votes: the labels that ten people gave to every row of the original CSV (Barsoum et al., ICMI 2016).

The votes come in a table of their own (`fer2013new.csv`) whose rows follow the rows of fer2013.csv. Its image names
skip numbers, so that nothing but the order of the rows joins the two; the folder copies have lost that order.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from fer_repro.data.dataset import FER2013
from fer_repro.errors import FerReproError

VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
MOST_VOTES = 10
_HEADER = ["Usage", "Image name", *VOTES]
_ORIGINAL = "take fer2013new.csv from Microsoft's FER+ project"


def votes(data: FER2013, path: str | os.PathLike) -> pd.DataFrame:
    """The votes for every image of ``data``: int64 columns VOTES, indexed by ``data.ids`` and in its order.

    ``data`` must be FER2013 read from a CSV, whole or a subset of it; ``path`` names ``fer2013new.csv``.
    Raises `FerReproError` for another copy, a table of another shape, a usage that differs from the CSV's, or
    impossible votes.
    """
    if data.name != "fer2013" or not str(data.facts.get("layout", "")).endswith(".csv"):
        raise FerReproError(
            f"FER+ votes follow the rows of fer2013.csv and cannot be joined to '{data.source}', whose order is "
            "another; load fer2013.csv or icml_face_data.csv instead"
        )
    name = Path(path).name
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise FerReproError(f"the FER+ votes '{path}' do not exist; {_ORIGINAL}") from error
    except (OSError, ValueError) as error:
        raise FerReproError(f"the FER+ votes '{name}' cannot be read ({error}); {_ORIGINAL}") from error
    if list(table.columns) != _HEADER:
        found = ", ".join(table.columns)[:120]
        raise FerReproError(f"{name}, line 1: the columns are {found}, expected {', '.join(_HEADER)}; {_ORIGINAL}")
    total = data.facts["rows"]
    if len(table) != total:
        raise FerReproError(
            f"{name}: {len(table):,} rows, expected {total:,}, one for each row of {data.source}; {_ORIGINAL}"
        )

    def wrong(row: np.integer, what: str) -> FerReproError:
        return FerReproError(f"{name}, line {row + 2:,} (the header is line 1): {what}; {_ORIGINAL}")

    text = table[list(VOTES)]
    cells = np.argwhere(~text.apply(lambda column: column.str.fullmatch(r"\d{1,2}")).to_numpy())
    if len(cells):
        row, column = cells[0]
        raise wrong(row, f"'{VOTES[column]}' is '{text.iat[row, column][:20]}', expected a number of votes")
    counts = text.astype(np.int64)
    sums = counts.sum(axis=1).to_numpy()
    for row in np.flatnonzero((sums < 1) | (sums > MOST_VOTES)):
        raise wrong(row, f"{sums[row]} votes, expected 1 to {MOST_VOTES}")
    rows = np.array([int(i.removeprefix("row-")) for i in data.ids], np.int64)
    theirs = table["Usage"].to_numpy()[rows].astype(str)
    for at in np.flatnonzero(theirs != data.usage):
        raise wrong(
            rows[at],
            f"Usage is '{theirs[at]}', expected '{data.usage[at]}' as in {data.source}; the rows of one of the two "
            "were moved",
        )
    joined = counts.iloc[rows]
    joined.index = pd.Index(data.ids, name="id")
    return joined
