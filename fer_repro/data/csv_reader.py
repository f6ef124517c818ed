"""Kaggle's CSV forms of FER2013, parsed at byte level.

Both forms hold one face a row: ``emotion,pixels,Usage`` (fer2013.csv) and ``emotion, Usage, pixels``
(icml_face_data.csv, whose names have leading spaces). The file is read in blocks of whole lines. A block in which every
row has the usual shape is parsed by a few numpy passes; any other block goes line by line through plain Python, which
either understands the row (doubled spaces, say) or names the line and what is wrong with it.
"""

from __future__ import annotations

import csv
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO

import numpy as np

from fer_repro.data import kinds
from fer_repro.data.official import LABELS, PIXELS, SIDE, USAGES, Parsed, damaged, printable, too_many
from fer_repro.errors import FerReproError

BLOCK = 1 << 20
LONGEST_ROW = 1 << 20
_COMMA, _NEWLINE, _RETURN, _QUOTE, _SPACE, _ZERO = (np.uint8(ord(c)) for c in ',\n\r" 0')
_USAGE_BYTES = [np.frombuffer(u.encode(), np.uint8) for u in USAGES]


class _Columns:
    """Where a header puts the three columns."""

    def __init__(self, header: bytes, name: str) -> None:
        text = header.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").rstrip("\r\n")
        names = [n.strip().lower() for n in _fields(text.encode(), f"{name}, line 1")]
        self.total = len(names)
        hint = "put icml_face_data.csv beside it or use fer2013.csv"
        if names == ["pixels"]:
            raise FerReproError(f"{name} holds no labels (its only column is 'pixels'); {hint}")
        if "pixels" not in names and "pixels" in kinds.columns(header):
            raise FerReproError(
                f"{name}, line 1: the columns are there, but not in UTF-8 with commas between them; save it so, or "
                "point at fer2013.csv or icml_face_data.csv"
            )
        if "pixels" not in names or "emotion" not in names:
            raise FerReproError(
                f"{name}, line 1: the header is '{printable(text[:60])}', expected the columns emotion, pixels, Usage; "
                "point at fer2013.csv or icml_face_data.csv"
            )
        if "usage" not in names:
            raise FerReproError(f"{name} holds only the training images (no column 'Usage'); {hint}")
        self.emotion, self.pixels, self.usage = (names.index(n) for n in ("emotion", "pixels", "usage"))
        self.layout = "icml_face_data.csv" if self.usage < self.pixels else "fer2013.csv"


def _blocks(stream: IO[bytes], name: str, first: bytes) -> Iterator[bytes]:
    """Blocks of whole lines, the first without the header; only the last may lack its line end."""
    rest = first
    while piece := stream.read(BLOCK):
        cut = piece.rfind(b"\n") + 1
        if cut:
            yield rest + piece[:cut]
        rest = piece[cut:] if cut else rest + piece
        if len(rest) > LONGEST_ROW:
            raise damaged(name, f"a row is longer than {LONGEST_ROW:,} bytes, expected {PIXELS:,} pixels a row")
    if rest:
        yield rest


def _usual(b: np.ndarray, columns: _Columns) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Parse a block (uint8 [bytes], ends with a line end) of rows in the usual shape; None where any row is unusual.

    Returns pixels uint8 [n,2304], labels uint8 [n], usage codes uint8 [n].
    """
    line_end = np.flatnonzero(b == _NEWLINE)
    n = line_end.size
    line_start = np.concatenate(([0], line_end[:-1] + 1))
    commas = np.flatnonzero(b == _COMMA)
    if columns.total != 3 or commas.size != 2 * n:
        return None
    pairs = commas.reshape(n, -1)
    starts = np.concatenate((line_start[:, None], pairs + 1), axis=1)
    ends = np.concatenate((pairs, (line_end - (b[line_end - 1] == _RETURN))[:, None]), axis=1)
    if (ends <= starts).any():  # an empty field, or commas that belong to another line
        return None
    quoted = (b[starts] == _QUOTE) & (b[ends - 1] == _QUOTE)
    starts, ends = starts + quoted, ends - quoted

    at = starts[:, columns.emotion]
    labels = b[at] - _ZERO
    if (ends[:, columns.emotion] - at != 1).any() or (labels >= len(LABELS)).any():
        return None

    usage = np.full(n, 255, np.uint8)
    at, length = starts[:, columns.usage], ends[:, columns.usage] - starts[:, columns.usage]
    for code, word in enumerate(_USAGE_BYTES):
        rows = np.flatnonzero(length == word.size)
        same = (b[at[rows, None] + np.arange(word.size)] == word).all(axis=1)
        usage[rows[same]] = code
    if (usage == 255).any():
        return None

    # Every number ends where a space is, the last one of a row where the field ends.
    first, last = starts[:, columns.pixels], ends[:, columns.pixels]
    spaces = np.flatnonzero(b == _SPACE)
    if spaces.size != n * (PIXELS - 1):
        return None
    by_row = spaces.reshape(n, -1)
    if (by_row[:, 0] <= first).any() or (by_row[:, -1] >= last - 1).any():
        return None
    # Nothing but digits between the spaces, and no run of four of them.
    digit = (b - _ZERO) < 10
    if np.count_nonzero(digit) != (last - first).sum() - spaces.size + n:
        return None
    pair = digit[:-1] & digit[1:]
    if (pair[:-2] & pair[2:]).any():
        return None
    pixels = np.empty((n, PIXELS), np.uint8)
    # Shifted numpy views instead of shifted indices save a pass over 83 million int64 for each digit.
    padded = np.concatenate((np.full(3, _SPACE), b))
    inner, outer = _values(padded, spaces), _values(padded, last)
    if inner is None or outer is None:
        return None
    pixels[:, :-1], pixels[:, -1] = inner.reshape(n, -1), outer
    return pixels, labels, usage


def _values(padded: np.ndarray, stop: np.ndarray) -> np.ndarray | None:
    """The number that ends before each ``stop`` [k] of the block behind three spaces: uint8 [k]; None for no pixel."""
    units, tens, hundreds = (padded[3 - back :].take(stop) - _ZERO for back in (1, 2, 3))
    has_tens = tens < 10
    hundreds *= has_tens & (hundreds < 10)
    low = tens * has_tens * np.uint8(10) + units
    if ((units > 9) | (hundreds > 2) | ((hundreds == 2) & (low > 55))).any():
        return None
    hundreds *= np.uint8(100)
    return hundreds + low


def _line_by_line(block: bytes, columns: _Columns, first_line: int, name: str, is_last: bool):
    """The same, line by line, with an error for the first wrong row that says what is wrong with it."""
    lines = block.split(b"\n")
    whole = lines[-1] == b""  # the block ends with a line end
    if whole:
        lines.pop()
    if is_last:
        while lines and not lines[-1].strip():
            lines.pop()
    pixels = np.empty((len(lines), PIXELS), np.uint8)
    labels, usage = np.empty(len(lines), np.uint8), np.empty(len(lines), np.uint8)
    for row, line in enumerate(lines):
        where = f"{name}, line {first_line + row:,} (the header is line 1)"
        cut = " (the file seems cut here)" if is_last and row == len(lines) - 1 and not whole else ""
        fields = _fields(line, where)
        if not any(f.strip() for f in fields):
            raise damaged(where, "an empty row, expected emotion, pixels and Usage")
        if len(fields) > columns.pixels:
            pixels[row] = _numbers(fields[columns.pixels], where, cut)
        if len(fields) != columns.total:
            raise damaged(where, f"{len(fields)} fields, expected {columns.total}{cut}")
        label = fields[columns.emotion].strip()
        if label not in ("0", "1", "2", "3", "4", "5", "6"):
            raise damaged(where, f"emotion is '{label[:20]}', expected a whole number from 0 to 6")
        labels[row] = int(label)
        word = fields[columns.usage].strip()
        if word not in USAGES:
            raise damaged(where, f"Usage is '{word[:20]}', expected one of {', '.join(USAGES)}{cut}")
        usage[row] = USAGES.index(word)
    return pixels, labels, usage


def _fields(line: bytes, where: str) -> list[str]:
    try:
        return next(csv.reader([line.decode("utf-8", "replace").rstrip("\r")]), [])
    except csv.Error as error:  # a carriage return inside the row, or a field without end
        raise damaged(where, f"the row cannot be parsed ({error})") from error


def _numbers(field: str, where: str, cut: str) -> np.ndarray:
    words = field.split()
    for at, word in enumerate(words, start=1):
        if not (word.isascii() and word.isdigit() and len(word) <= 3 and int(word) <= 255):
            raise damaged(where, f"pixel {at:,} is '{word[:20]}', expected a whole number from 0 to 255")
    if len(words) != PIXELS:
        raise damaged(where, f"{len(words):,} pixels, expected {PIXELS:,} (48 x 48){cut}")
    return np.array(words, np.uint8)


def _parse(block: bytes, columns: _Columns, first_line: int, name: str, is_last: bool):
    found = _usual(np.frombuffer(block, np.uint8), columns) if block.endswith(b"\n") else None
    return _line_by_line(block, columns, first_line, name, is_last) if found is None else found


def read_csv(stream: IO[bytes], name: str, capacity: int) -> Parsed:
    """Read a CSV of FER2013 from a binary stream; ``name`` stands in the errors.

    At most ``capacity`` rows are accepted, so that a wrong file cannot fill the memory. The ids are ``row-00000`` and
    so on, counting data rows from 0. Raises `FerReproError` for the first wrong row, named by its line.
    """
    opening = stream.read(BLOCK)
    head, newline, rest = opening.partition(b"\n")
    if len(head) > 4096 or not newline:
        raise FerReproError(f"{name}: no header line 'emotion,pixels,Usage' followed by rows; point at fer2013.csv")
    columns = _Columns(head, name)
    images = np.empty((capacity, PIXELS), np.uint8)
    labels, usage = np.empty(capacity, np.uint8), np.empty(capacity, np.uint8)
    filled = 0

    def settle(future: Future) -> None:
        nonlocal filled
        some_pixels, some_labels, some_usage = future.result()
        after = filled + len(some_labels)
        if after > capacity:
            raise too_many(f"{name}, line {capacity + 2:,} (the header is line 1)", "rows", capacity)
        images[filled:after], labels[filled:after], usage[filled:after] = some_pixels, some_labels, some_usage
        filled = after

    workers = max(1, min(4, os.cpu_count() or 1))
    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(workers) as pool:  # numpy lets go of the interpreter while it works
        try:
            line = 2
            for block, is_last in _with_last(_blocks(stream, name, rest)):
                waiting.append(pool.submit(_parse, block, columns, line, name, is_last))
                line += block.count(b"\n")
                if len(waiting) > 2 * workers:
                    settle(waiting.popleft())
            while waiting:
                settle(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()
    ids = np.array([f"row-{i:05d}" for i in range(filled)], dtype="<U16")
    pixels = images[:filled].reshape(-1, SIDE, SIDE)
    return Parsed(pixels, labels[:filled], usage[:filled], ids, columns.layout)


def _with_last(blocks: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Each block with whether it is the last one, which may be cut or end in blank lines."""
    held = next(blocks, b"")
    for block in blocks:
        yield held, False
        held = block
    yield held, True
