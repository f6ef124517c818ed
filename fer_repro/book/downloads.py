"""The files of the leaderboard's page: its table as CSV and JSON, every stored result with its predictions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd

from fer_repro import results
from fer_repro.leaderboard import leaderboard
from fer_repro.leaderboard.stored import folder
from fer_repro.markup import absent
from fer_repro.page.board_files import FILES, PLACE, RESULTS, TABLES


def write_downloads(staging: Path, results_dir: Path | str | None = None) -> Path:
    """Write the files below the book's ``staging`` folder, where its pages link to them; returns their folder.

    Raises `FerReproError` for results that cannot be read and `OSError` where the folder cannot be written.
    """
    board, stored, out = leaderboard(results_dir), folder(results_dir), staging / PLACE
    out.mkdir(parents=True, exist_ok=True)
    (out / TABLES["CSV"]).write_text(board.to_csv(index=False), encoding="utf-8")
    (out / TABLES["JSON"]).write_text(as_json(board), encoding="utf-8")
    for source in results.all_folders(stored):
        target = out / RESULTS / source.relative_to(stored)
        target.mkdir(parents=True)
        for name in FILES:
            shutil.copy2(source / name, target / name)
    return out


def as_json(board: pd.DataFrame) -> str:
    """The table as a JSON list of rows; every number in all its digits, null where a value is missing."""
    rows = [{name: None if absent(value) else value for name, value in row.items()} for row in board.to_dict("records")]
    return json.dumps(rows, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
