"""Kaggle's CSV forms: what is read, and what every wrong row is called."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from _csv_writer import repeated, write_csv
from data_copies import SMALL

from fer_repro.data import USAGES, csv_reader, load
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.errors import FerReproError


def read(path: Path, capacity: int = 1000):
    with path.open("rb") as file:
        return csv_reader.read_csv(file, path.name, capacity)


def same(data, faces) -> None:
    np.testing.assert_array_equal(data.images, faces.images)
    np.testing.assert_array_equal(data.labels, faces.labels)
    np.testing.assert_array_equal(data.usage, faces.usage)


@pytest.mark.parametrize("layout", ["fer2013.csv", "icml_face_data.csv"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("quotes", [False, True])
def test_every_form_gives_the_same_faces(tmp_path, faces, small, layout, line_end, quotes):
    path = tmp_path / layout
    write_csv(faces, path, layout, line_end=line_end, quotes=quotes)
    data = small(path)
    same(data, faces)
    assert data.digest == faces.digest
    assert data.facts["layout"] == layout
    assert data.ids[0] == "row-00000" and len(set(data.ids)) == len(faces)


def test_the_fast_way_is_taken_for_every_usual_form(tmp_path, faces, monkeypatch):
    """The patient way would hide a broken fast one: both give the same values."""

    def never(*_):
        raise AssertionError("a usual row went the slow way")

    monkeypatch.setattr(csv_reader, "_line_by_line", never)
    for layout in ("fer2013.csv", "icml_face_data.csv"):
        for line_end in ("\n", "\r\n"):
            write_csv(faces, tmp_path / "x.csv", layout, line_end=line_end, quotes=True)
            np.testing.assert_array_equal(read(tmp_path / "x.csv").images, faces.images)


def test_both_ways_agree_on_all_values(tmp_path):
    """Every grey value at every width of its neighbours, read fast and line by line."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (40, 2304))
    rows[0] = np.arange(2304) % 256
    rows[1], rows[2] = 0, 255
    text = "".join(f"{i % 7},{' '.join(map(str, r))},{USAGES[i % 3]}\n" for i, r in enumerate(rows)).encode()
    columns = csv_reader._Columns(b"emotion,pixels,Usage", "x")
    fast = csv_reader._usual(np.frombuffer(text, np.uint8), columns)
    slow = csv_reader._line_by_line(text, columns, 2, "x", True)
    np.testing.assert_array_equal(fast[0], rows)
    for one, other in zip(fast, slow, strict=True):
        np.testing.assert_array_equal(one, other)


def test_blocks_cut_anywhere(small_csv, faces, monkeypatch):
    """Whatever the size of the pieces the file comes in, the rows are the same."""
    for size in (9_000, 10_007, 50_000, 1 << 22):
        monkeypatch.setattr(csv_reader, "BLOCK", size)
        np.testing.assert_array_equal(read(small_csv).images, faces.images)


def test_tolerated_oddities(tmp_path, small_csv, faces):
    """No line end behind the last row, blank lines behind it, a byte-order mark, doubled spaces."""
    text = small_csv.read_bytes()
    path = tmp_path / "odd.csv"
    for odd in (
        text.rstrip(b"\n"),
        text + b"\n\n",
        b"\xef\xbb\xbf" + text,
        text.replace(b" ", b"  ", 1),
        text.replace(b"emotion,pixels,Usage", b'"emotion","pixels","Usage"', 1),
    ):
        path.write_bytes(odd)
        np.testing.assert_array_equal(read(path).images, faces.images)


def spoil(path: Path, row: int, change) -> Path:
    """Change one data row (counted from 0), given and returned as its three fields."""
    lines = path.read_bytes().split(b"\n")
    lines[row + 1] = b",".join(change(*lines[row + 1].split(b",")))
    path.write_bytes(b"\n".join(lines))
    return path


def pixel(value: bytes, at: int = 99):
    def change(label, pixels, usage):
        words = pixels.split(b" ")
        words[at] = value
        return label, b" ".join(words), usage

    return change


BAD_ROWS = {
    "value 256": (pixel(b"256"), "pixel 100 is '256', expected a whole number from 0 to 255"),
    "first 256": (pixel(b"256", 0), "pixel 1 is '256'"),
    "last 256": (pixel(b"256", 2303), "pixel 2,304 is '256'"),
    "value 1000": (pixel(b"1000"), "pixel 100 is '1000'"),
    "abc": (pixel(b"abc"), "pixel 100 is 'abc'"),
    "negative": (pixel(b"-1"), "pixel 100 is '-1'"),
    "fraction": (pixel(b"1.5"), "pixel 100 is '1.5'"),
    "other digits": (pixel("１".encode()), "pixel 100 is '１'"),
    "2303 pixels": (lambda a, b, c: (a, b.rsplit(b" ", 1)[0], c), "2,303 pixels, expected 2,304"),
    "2305 pixels": (lambda a, b, c: (a, b + b" 7", c), "2,305 pixels, expected 2,304"),
    "no pixels": (lambda a, b, c: (a, b"", c), "0 pixels, expected 2,304"),
    "label 7": (lambda a, b, c: (b"7", b, c), "emotion is '7', expected a whole number from 0 to 6"),
    "label word": (lambda a, b, c: (b"happy", b, c), "emotion is 'happy'"),
    "no label": (lambda a, b, c: (b"", b, c), "emotion is ''"),
    "usage": (lambda a, b, c: (a, b, b"Validation"), "Usage is 'Validation', expected one of Training, PublicTest"),
    "usage of the same length": (lambda a, b, c: (a, b, b"Tra1ning"), "Usage is 'Tra1ning'"),
    "a field too many": (lambda a, b, c: (a, b, c, b"x"), "4 fields, expected 3"),
    "a field missing": (lambda a, b, c: (a, b), "2 fields, expected 3"),
    "empty row": (lambda a, b, c: (b"",), "an empty row"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_wrong_row_is_named(small_csv, name, small):
    change, words = BAD_ROWS[name]
    spoil(small_csv, 20, change)
    with pytest.raises(FerReproError) as caught:
        small(small_csv)
    message = str(caught.value)
    assert "fer2013.csv, line 22 (the header is line 1)" in message
    assert words in message and "fetch a fresh copy" in message
    assert "\n" not in message


def test_two_rows_that_cancel_each_other_are_still_wrong(small_csv, small):
    """One pixel moved from a row to the next leaves the totals right."""
    spoil(small_csv, 20, BAD_ROWS["2303 pixels"][0])
    spoil(small_csv, 21, BAD_ROWS["2305 pixels"][0])
    with pytest.raises(FerReproError, match=r"line 22 .*2,303 pixels"):
        small(small_csv)


def test_the_first_wrong_row_is_named_whatever_thread_finds_it(small_csv, monkeypatch, small):
    monkeypatch.setattr(csv_reader, "BLOCK", 10_000)
    for row in (50, 12, 30):
        spoil(small_csv, row, pixel(b"999"))
    with pytest.raises(FerReproError, match="line 14 "):
        small(small_csv)


def test_cut_in_the_middle_of_a_row(small_csv, small):
    text = small_csv.read_bytes()
    small_csv.write_bytes(text[: len(text) // 2])
    with pytest.raises(FerReproError, match=r"line \d+ .*seems cut here"):
        small(small_csv)
    small_csv.write_bytes(text[:-3])  # the last usage is 'PrivateTe'
    with pytest.raises(FerReproError, match=r"line 61 .*Usage is 'PrivateTe'.*seems cut here"):
        small(small_csv)


def test_a_missing_row_is_a_wrong_count(small_csv, faces, small):
    lines = small_csv.read_bytes().splitlines(keepends=True)
    small_csv.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(FerReproError, match=r"59 images where FER2013 has 60.*PrivateTest \w+ \d instead of \d"):
        small(small_csv)


def test_a_changed_label_and_a_changed_usage_are_wrong_counts(small_csv, small):
    spoil(small_csv, 0, lambda a, b, c: (b"1" if a != b"1" else b"2", b, c))
    with pytest.raises(FerReproError, match="60 images where FER2013 has 60, with wrong counts: Training"):
        small(small_csv)


def test_a_doubled_row_is_an_error(small_csv, small):
    lines = small_csv.read_bytes().splitlines(keepends=True)
    small_csv.write_bytes(b"".join([*lines, lines[-1]]))
    with pytest.raises(FerReproError, match=r"line 62 .*more rows than the 60"):
        small(small_csv)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"emotion,pixels", "only the training images"),
        (b"pixels", "holds no labels"),
        (b"a,b,c", "the header is 'a,b,c', expected the columns emotion, pixels, Usage"),
    ],
)
def test_a_wrong_header(small_csv, small, header, words):
    small_csv.write_bytes(small_csv.read_bytes().replace(b"emotion,pixels,Usage", header, 1))
    with pytest.raises(FerReproError, match=words):
        small(small_csv)


@pytest.mark.parametrize("content", [b"", b"\n", b"emotion,pixels,Usage", b"emotion,pixels,Usage\n", b"\x00" * 100_000])
def test_no_rows_at_all(tmp_path, small, content):
    path = tmp_path / "fer2013.csv"
    path.write_bytes(content)
    with pytest.raises(FerReproError, match="fer2013.csv"):
        small(path)


def test_an_endless_row_does_not_fill_the_memory():
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size=-1):
            piece = b"emotion,pixels,Usage\n" if not self.given else b"1 " * (size // 2)
            self.given += len(piece)
            assert self.given < 64 << 20, "the reader went on and on"
            return piece

    with pytest.raises(FerReproError, match="a row is longer than"):
        csv_reader.read_csv(Endless(), "fer2013.csv", 60)


def test_the_full_size_through_the_public_door(tmp_path):
    """35,887 rows in FER2013's own counts, by `load` itself; one row less is an error."""
    faces = repeated()
    path = tmp_path / "fer2013.csv"
    write_csv(faces, path)
    data = load(root=path, cache_dir=tmp_path / "cache")
    same(data, faces)
    assert data.digest == faces.digest
    np.testing.assert_array_equal(data.counts().to_numpy(), OFFICIAL_COUNTS)
    assert load(root=path, cache_dir=tmp_path / "cache").facts["from_cache"]

    with path.open("rb+") as file:
        file.seek(-20_000, 2)
        tail = file.read()
        last = tail.rstrip(b"\n").rfind(b"\n") + 1
        file.truncate(path.stat().st_size - len(tail) + last)
    with pytest.raises(FerReproError, match=r"35,886 images where FER2013 has 35,887"):
        load(root=path, cache_dir=tmp_path / "cache")


def test_writer_refuses_an_unknown_layout(tmp_path, faces):
    with pytest.raises(FerReproError, match="unknown CSV layout"):
        write_csv(faces, tmp_path / "x.csv", "mnist.csv")


def test_small_counts_add_up(faces):
    np.testing.assert_array_equal(faces.counts().to_numpy(), SMALL)
