"""FER+ votes join to the CSV by the order of the rows, and to nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from data_copies import make_zip

from fer_repro.data import ferplus
from fer_repro.errors import FerReproError


@pytest.fixture
def data(small_csv, small):
    return small(small_csv)


@pytest.fixture
def table(tmp_path, data):
    """A votes table like Microsoft's: rows without a name do not count in the numbers of the names behind them."""
    rng = np.random.default_rng(0)
    lines = ["Usage,Image name," + ",".join(ferplus.VOTES)]
    number = 0
    for row, usage in enumerate(data.usage):
        votes = np.bincount(rng.integers(0, 10, 10), minlength=10)
        if row % 11 == 5:
            votes = np.array([0] * 9 + [10])
        name = "" if row % 11 == 5 else f"fer{number:07d}.png"
        number += row % 11 != 5
        lines.append(f"{usage},{name}," + ",".join(map(str, votes)))
    path = tmp_path / "fer2013new.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def expected(table):
    return np.array([[int(v) for v in line.split(",")[2:]] for line in table.read_text().splitlines()[1:]])


def test_votes_follow_the_rows(table, data):
    votes = ferplus.votes(data, table)
    np.testing.assert_array_equal(votes.to_numpy(), expected(table))
    assert list(votes.columns) == list(ferplus.VOTES) and list(votes.index) == list(data.ids)


def test_votes_of_a_subset(table, data):
    at = [40, 3, 17]
    votes = ferplus.votes(data.subset(at), table)
    np.testing.assert_array_equal(votes.to_numpy(), expected(table)[at])


def test_other_copies_have_lost_the_order(tmp_path, table, pictures, small, few_synthetic):
    for other in (small(make_zip(tmp_path / "a.zip", pictures)), few_synthetic):
        with pytest.raises(FerReproError, match=r"follow the rows of fer2013.csv and cannot be joined"):
            ferplus.votes(other, table)


def change(table, row, column, value):
    lines = [line.split(",") for line in table.read_text().splitlines()]
    lines[row][column] = value
    table.write_text("\n".join(",".join(line) for line in lines) + "\n")


@pytest.mark.parametrize(
    ("row", "column", "value", "words"),
    [
        (0, 2, "joy", "line 1: the columns are"),
        (5, 2, "x", r"line 6 .*'neutral' is 'x', expected a number of votes"),
        (5, 2, "-1", r"line 6 .*'neutral' is '-1'"),
        (5, 2, "", r"line 6 .*'neutral' is ''"),
        (5, 2, "99", r"line 6 .*votes, expected 1 to 10"),
        (1, 0, "PublicTest", r"line 2 .*Usage is 'PublicTest', expected 'Training' as in fer2013.csv"),
    ],
)
def test_a_wrong_table(table, data, row, column, value, words):
    change(table, row, column, value)
    with pytest.raises(FerReproError, match=words):
        ferplus.votes(data, table)


def test_a_table_of_another_length(table, data):
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))
    with pytest.raises(FerReproError, match="59 rows, expected 60, one for each row of fer2013.csv"):
        ferplus.votes(data, table)


def test_a_missing_and_an_empty_table(tmp_path, data):
    with pytest.raises(FerReproError, match="do not exist"):
        ferplus.votes(data, tmp_path / "no.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(FerReproError, match="cannot be read"):
        ferplus.votes(data, tmp_path / "empty.csv")
