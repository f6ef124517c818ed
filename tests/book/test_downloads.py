"""The files that the leaderboard's page offers: read back, they are what `leaderboard()` and the results hold."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from fer_repro import results
from fer_repro.book.downloads import as_json, write_downloads
from fer_repro.errors import FerReproError
from fer_repro.leaderboard import leaderboard
from fer_repro.markup import absent
from fer_repro.page.board_files import FILES
from fer_repro.project import default_results_dir


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_downloads(tmp_path_factory.mktemp("staging"))


def test_the_csv_is_the_table(written):
    board = leaderboard()
    read = pd.read_csv(written / "fer2013-leaderboard.csv", dtype=str, keep_default_na=False)
    assert list(read) == list(board) and len(read) == len(board)
    assert read.equals(board.map(lambda value: "" if absent(value) else str(value)).astype(read.dtypes))
    assert [float(value) for value in read["claimed"]] == list(board["claimed"])


def test_the_json_is_the_table(written):
    board = leaderboard()
    read = json.loads((written / "fer2013-leaderboard.json").read_text(encoding="utf-8"))
    pd.testing.assert_frame_equal(pd.DataFrame(read, dtype=object).astype(board.dtypes), board, check_exact=True)
    assert all(value is None or value == value for row in read for value in row.values())


def test_a_number_keeps_its_digits():
    third = pd.DataFrame({"share": [1 / 3, float("nan")]})
    assert json.loads(as_json(third)) == [{"share": 1 / 3}, {"share": None}]


def test_every_stored_result_is_there_with_its_predictions_and_nothing_else(written):
    stored = default_results_dir()
    wanted = {folder.relative_to(stored) / name for folder in results.all_folders(stored) for name in FILES}
    copied = {path.relative_to(written / "results") for path in (written / "results").rglob("*") if path.is_file()}
    assert copied == wanted and len(wanted) > 20
    for path in wanted:
        assert (written / "results" / path).read_bytes() == (stored / path).read_bytes()


def test_another_folder_of_results_is_taken_or_refused(tmp_path):
    (tmp_path / "results").mkdir()
    out = write_downloads(tmp_path / "staging", tmp_path / "results")
    assert not (out / "results").exists() and "not run" in (out / "fer2013-leaderboard.csv").read_text(encoding="utf-8")
    with pytest.raises(FerReproError, match="nowhere' does not exist"):
        write_downloads(tmp_path / "staging", tmp_path / "nowhere")
