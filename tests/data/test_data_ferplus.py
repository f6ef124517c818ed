"""FER+ votes join to the CSV by the order of the rows, and to nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from _csv_writer import repeated, write_csv
from damage import damaged_bytes
from data_copies import make_zip

from fer_repro.data import ferplus, official
from fer_repro.data.load import _load
from fer_repro.errors import FerReproError

HEADER = "Usage,Image name," + ",".join(ferplus.VOTES)
# Share of a label's images whose label has the most votes, and the votes of the others: as far apart as in FER+.
SEEN = np.array([0.48, 0.4, 0.2, 0.93, 0.55, 0.83, 0.86])
OTHERS = np.array([0.4, 0.15, 0.1, 0.15, 0.08, 0.01, 0.03, 0.02, 0.05, 0.01])


def lines_for(labels, usage, seed=0):
    """Rows like Microsoft's: names that skip numbers, rows without a name whose votes are all for NF."""
    rng, rows, number = np.random.default_rng(seed), [], -1
    for row, (label, word) in enumerate(zip(labels, usage, strict=True)):
        own = rng.integers(5, 11) if rng.random() < SEEN[label] else rng.integers(0, 3)
        votes = rng.multinomial(10 - own, OTHERS)
        votes[ferplus.OWN[label]] += own
        nameless = row % 31 == 5
        number += not nameless or row % 2
        if nameless:
            votes = np.array([0] * 9 + [10])
        rows.append([word, "" if nameless else f"fer{number:07d}.png", *map(str, votes)])
    return rows


def write(path, rows, header=HEADER):
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


@pytest.fixture
def data(small_csv, small):
    return small(small_csv)


@pytest.fixture
def table(tmp_path, data):
    return write(tmp_path / "fer2013new.csv", lines_for(data.labels, data.usage))


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


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.rstrip(b"\n"),
        lambda text: text + b"\n\n",
    ],
)
def test_another_editor_changes_nothing(table, data, change):
    votes = expected(table)
    table.write_bytes(change(table.read_bytes()))
    np.testing.assert_array_equal(ferplus.votes(data, table).to_numpy(), votes)


def test_other_copies_have_lost_the_order(tmp_path, table, pictures, small, few_synthetic):
    for other in (small(make_zip(tmp_path / "a.zip", pictures)), few_synthetic):
        with pytest.raises(FerReproError, match=r"follow the rows of fer2013.csv and cannot be joined"):
            ferplus.votes(other, table)


def test_a_csv_written_from_the_folder_copy_is_refused(table, data, monkeypatch):
    """Its digest is that of the pictures: pixels, labels and usages in the order of the folder."""
    monkeypatch.setitem(official.KNOWN_DIGESTS, data.digest, "the JPEG copy")
    for part in (data, data.subset([3])):
        with pytest.raises(FerReproError, match="its row order is that of the folder copy"):
            ferplus.votes(part, table)


# ---- the order of rows and columns, on 2,000 rows --------------------------------------------------------------------

COUNTS = np.array([[220, 24, 229, 402, 270, 177, 278], [28, 3, 29, 50, 34, 22, 34], [28, 3, 29, 50, 34, 22, 34]])


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Faces read from a CSV, and the rows of their votes."""
    folder = tmp_path_factory.mktemp("large")
    write_csv(repeated(COUNTS), folder / "fer2013.csv")
    data = _load(folder / "fer2013.csv", folder / "cache", COUNTS)
    return data, lines_for(data.labels, data.usage, seed=1)


def joined(rows, permuted, columns=slice(2, None)):
    """``rows`` whose ``columns`` come from the rows at ``permuted``."""
    moved = [list(row) for row in rows]
    for at, source in enumerate(permuted):
        moved[at][columns] = rows[source][columns]
    return moved


def shuffled(begin, end, step=1):
    order = np.arange(2000)
    order[begin:end:step] = np.random.default_rng(3).permutation(order[begin:end:step])
    return order


ORDERS = {
    "all rows of Training": shuffled(0, 1600),
    "all rows of PublicTest": shuffled(1600, 1800),
    "a stretch of Training": shuffled(700, 950),
    "every second row of Training": shuffled(0, 1600, 2),
    "the last rows": shuffled(1800, 2000),
    "reversed in Training": np.concatenate((np.arange(1600)[::-1], np.arange(1600, 2000))),
    "down by one": np.roll(np.arange(2000), 1),
    "up by one": np.roll(np.arange(2000), -1),
    "down by one from row 1,000": np.concatenate((np.arange(1000), np.arange(999, 1999))),
    "every second row with its neighbour": np.arange(2000) ^ 1,
}


def test_votes_like_the_real_ones_are_accepted(large, tmp_path):
    data, rows = large
    votes = ferplus.votes(data, write(tmp_path / "fer2013new.csv", rows))
    own = votes.to_numpy()[np.arange(2000), ferplus.OWN[data.labels]]
    assert 0.6 < (own == votes.max(axis=1)).mean() < 0.72, "about as many as in FER+"
    part = ferplus.votes(data.subset([1999, 5]), tmp_path / "fer2013new.csv")
    np.testing.assert_array_equal(part.to_numpy(), votes.to_numpy()[[1999, 5]])


@pytest.mark.parametrize("name", ORDERS)
def test_votes_in_another_row_order_are_refused(large, tmp_path, name):
    """Whether whole rows moved (their names tell) or the votes alone (the labels tell), also for a part of the rows."""
    data, rows = large
    votes_moved = write(tmp_path / "fer2013new.csv", joined(rows, ORDERS[name]))
    for part in (data, data.subset([2, 3])):
        with pytest.raises(
            FerReproError, match=r"fer2013new.csv and fer2013.csv do not have the same row order"
        ) as caught:
            ferplus.votes(part, votes_moved)
    assert "\n" not in str(caught.value)
    with pytest.raises(FerReproError, match=r"expected a name like fer0000123.png behind|Usage is"):
        ferplus.votes(data, write(tmp_path / "fer2013new.csv", joined(rows, ORDERS[name], slice(0, None))))


@pytest.mark.parametrize("name", ORDERS)
def test_a_csv_in_another_row_order_is_refused(large, tmp_path, name):
    data, rows = large
    write_csv(data.subset(ORDERS[name]), tmp_path / "fer2013.csv")
    other = data.subset(ORDERS[name])
    other = _load(tmp_path / "fer2013.csv", tmp_path / "cache", other.counts().to_numpy())
    with pytest.raises(FerReproError, match=r"do not have the same row order|Usage is '\w+', expected"):
        ferplus.votes(other, write(tmp_path / "fer2013new.csv", rows))


@pytest.mark.parametrize("pair", list(itertools.combinations(range(10), 2)))
def test_two_columns_that_changed_places_are_refused(large, tmp_path, pair):
    data, rows = large
    order = np.arange(10)
    order[list(pair)] = order[list(pair)[::-1]]
    moved = [row[:2] + [row[2 + at] for at in order] for row in rows]
    with pytest.raises(FerReproError, match=r"the columns were mixed up|do not have the same row order"):
        ferplus.votes(data, write(tmp_path / "fer2013new.csv", moved))
    header = ",".join(HEADER.split(",")[:2] + [ferplus.VOTES[at] for at in order])
    with pytest.raises(FerReproError, match=r"line 1: the columns are"):
        ferplus.votes(data, write(tmp_path / "fer2013new.csv", moved, header))


# ---- damage ----------------------------------------------------------------------------------------------------------


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
        (5, 2, "１", r"line 6 .*'neutral' is '１'"),
        (5, 2, "99", r"line 6 .*votes, expected 1 to 10"),
        (5, 2, "1,1", r"line 6 .*13 fields, expected 12"),
        (5, 1, "x.png", r"line 6 .*the image is 'x.png', expected a name like fer0000123.png behind fer0000003.png"),
        (5, 1, "fer0000003.png", r"line 6 .*the image is 'fer0000003.png'"),
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
    with pytest.raises(FerReproError, match="cannot be read"):
        ferplus.votes(data, tmp_path)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(FerReproError, match="the columns are none"):
        ferplus.votes(data, tmp_path / "empty.csv")


def test_a_damaged_table_is_refused_or_gives_the_same_votes(table, data):
    """Or votes that differ in a single digit of one row, which no rule can tell from what people voted."""
    whole = expected(table)
    refused = 0
    for content in damaged_bytes(table.read_bytes(), seed=4, count=400):
        table.write_bytes(content)
        try:
            votes = ferplus.votes(data, table).to_numpy()
        except FerReproError as error:
            assert "\n" not in str(error), error
            refused += 1
        else:
            assert (votes != whole).sum() <= 1
    assert refused > 300
