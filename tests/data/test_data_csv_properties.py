"""Properties of the CSV reader: any table of valid rows comes back as it was written, any single damage is refused.

The examples are the same in every run (derandomized), few and small: one row has 2,304 numbers.
"""

from __future__ import annotations

import io
import re

import numpy as np
import pytest

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fer_repro.data import USAGES, csv_reader
from fer_repro.errors import FerReproError

PIXELS = 2304
few = settings(max_examples=60, deadline=2000, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

ORDERS = st.permutations(["emotion", "pixels", "Usage"])
SPACES = st.sampled_from(["", " ", "  ", "\t"])
ENDS = st.sampled_from(["\n", "\r\n"])
# What stands between two pixels and around them, and how a field is quoted.
BETWEEN = st.sampled_from([" ", "  ", "\t", " \t "])
QUOTES = st.lists(st.booleans(), min_size=3, max_size=3)
PADDED = st.sampled_from(["{}", " {}", "{} ", "{:03d}", "{:02d}"])


@st.composite
def tables(draw, most=5):
    """Rows as values: labels [n], pixels uint8 [n,2304], usages [n]; pixels from a drawn seed and range."""
    n = draw(st.integers(1, most))
    labels = draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    usages = draw(st.lists(st.sampled_from(USAGES), min_size=n, max_size=n))
    pixels = []
    for _ in range(n):
        low, high = sorted(draw(st.tuples(st.integers(0, 255), st.integers(0, 255))))
        row = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(low, high + 1, PIXELS)
        for at, value in draw(st.dictionaries(st.integers(0, PIXELS - 1), st.integers(0, 255), max_size=4)).items():
            row[at] = value
        pixels.append(row.astype(np.uint8))
    return np.array(labels, np.uint8), np.stack(pixels), usages


def write(table, order, *, between=" ", quotes=(False, False, False), end="\n", around="", head="", padded="{}"):
    """The table as text, its columns in ``order``."""
    lines = [",".join(head + name for name in order)]
    for label, pixels, usage in zip(*table, strict=True):
        values = {
            "emotion": str(label),
            "Usage": usage,
            "pixels": between.join(padded.format(v).strip() for v in pixels),
        }
        fields = [values[name] for name in order]
        lines.append(
            ",".join(
                f'"{around}{f}{around}"' if q else f"{around}{f}{around}" for f, q in zip(fields, quotes, strict=True)
            )
        )
    return lines, end


def joined(lines, end, last=True):
    return (end.join(lines) + (end if last else "")).encode()


def read(content: bytes, capacity=8):
    return csv_reader.read_csv(io.BytesIO(content), "x.csv", capacity)


@few
@given(
    table=tables(),
    order=ORDERS,
    between=BETWEEN,
    quotes=QUOTES,
    end=ENDS,
    around=SPACES,
    head=SPACES,
    padded=PADDED,
    mark=st.booleans(),
    last=st.booleans(),
    blank=st.integers(0, 2),
)
def test_any_table_comes_back(table, order, between, quotes, end, around, head, padded, mark, last, blank):
    lines, end = write(table, order, between=between, quotes=quotes, end=end, around=around, head=head, padded=padded)
    content = (b"\xef\xbb\xbf" if mark else b"") + joined(lines + [""] * blank, end, last)
    found = read(content)
    np.testing.assert_array_equal(found.labels, table[0])
    np.testing.assert_array_equal(found.images.reshape(-1, PIXELS), table[1])
    assert [USAGES[code] for code in found.usage] == table[2]
    assert found.layout == ("icml_face_data.csv" if order.index("Usage") < order.index("pixels") else "fer2013.csv")
    assert list(found.ids) == [f"row-{i:05d}" for i in range(len(table[2]))]


BAD_PIXEL = st.one_of(
    st.integers(256, 10**6).map(str),
    st.integers(-999, -1).map(str),
    st.sampled_from(["", "x", "1.0", "1e2", "٣", "0x1"]),
)
BAD_LABEL = st.one_of(
    st.integers(7, 10**6).map(str), st.integers(-99, -1).map(str), st.sampled_from(["", "1.0", "happy", "٣", "00"])
)
BAD_USAGE = st.text(st.characters(codec="utf-8", exclude_characters='",\r\n'), max_size=20)


@few
@given(table=tables(), order=ORDERS, end=ENDS, row=st.integers(0, 4), data=st.data())
def test_any_single_damage_names_its_line(table, order, end, row, data):
    """One field of one row is wrong, missing or doubled: the error names that line, and no other."""
    lines, end = write(table, order, end=end)
    row %= len(table[2])
    fields = lines[row + 1].split(",")
    kind = data.draw(st.sampled_from(["pixel", "label", "usage", "field missing", "field doubled", "pixels count"]))
    at = {name: order.index(name) for name in order}
    if kind == "pixel":
        words = fields[at["pixels"]].split(" ")
        words[data.draw(st.integers(0, PIXELS - 1))] = data.draw(BAD_PIXEL)
        fields[at["pixels"]] = " ".join(words)
    elif kind == "pixels count":
        words = fields[at["pixels"]].split(" ")
        count = data.draw(st.integers(0, 2 * PIXELS).filter(lambda n: n != PIXELS))
        fields[at["pixels"]] = " ".join((words * 2)[:count])
    elif kind == "label":
        fields[at["emotion"]] = data.draw(BAD_LABEL)
    elif kind == "usage":
        fields[at["Usage"]] = data.draw(BAD_USAGE)
        assume(fields[at["Usage"]].strip() not in USAGES)
    elif kind == "field missing":
        del fields[data.draw(st.integers(0, 2))]
    else:
        fields.insert(data.draw(st.integers(0, 3)), data.draw(st.sampled_from(fields)))
    lines[row + 1] = ",".join(fields)
    with pytest.raises(FerReproError) as caught:
        read(joined(lines, end))
    message = str(caught.value)
    assert re.match(rf"x\.csv, line {row + 2} \(the header is line 1\): ", message), message
    assert message.isprintable() and "fetch a fresh copy" in message


@few
@given(table=tables(), order=ORDERS, data=st.data())
def test_any_cut_is_refused_or_ends_between_two_rows(table, order, data):
    """A file that ends anywhere: the rows that are whole are the first ones, and a row that is not whole is refused."""
    content = joined(*write(table, order))
    at = data.draw(st.integers(0, len(content) - 1))
    try:
        found = read(content[:at])
    except FerReproError as error:
        assert str(error).isprintable()
        return
    n = len(found.labels)
    np.testing.assert_array_equal(found.labels, table[0][:n])
    cut = found.images.reshape(-1, PIXELS) != table[1][:n]
    # Where pixels are the last column, a number may lose its last digits and still be one: only the counts tell.
    assert not cut[:, :-1].any() and not cut[:-1].any()
