"""FER2013 back to Kaggle's CSV, for programs that read nothing else and for measuring readers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fer_repro.data.dataset import FER2013
from fer_repro.data.official import PIXELS
from fer_repro.errors import FerReproError

_BLOCK = 1024
_HEADERS = {"fer2013.csv": b"emotion,pixels,Usage", "icml_face_data.csv": b"emotion, Usage, pixels"}


def _table() -> tuple[np.ndarray, np.ndarray]:
    """Each grey value as text with a space behind it: uint8 [256,4], zero-filled, and its length int64 [256]."""
    text, length = np.zeros((256, 4), np.uint8), np.zeros(256, np.int64)
    for value in range(256):
        word = f"{value} ".encode()
        text[value, : len(word)] = list(word)
        length[value] = len(word)
    return text, length


def write_csv(
    data: FER2013, path: str | os.PathLike, layout: str = "fer2013.csv", *, line_end: str = "\n", quotes: bool = False
) -> None:
    """Write ``data`` (all its rows, in its order) as ``layout`` ``fer2013.csv`` or ``icml_face_data.csv``.

    ``quotes`` puts the pixels between quotation marks, as some spreadsheets do. Raises `FerReproError` for another
    layout.
    """
    if layout not in _HEADERS:
        raise FerReproError(f"unknown CSV layout '{layout}', expected one of {', '.join(_HEADERS)}")
    text, length = _table()
    end, mark = line_end.encode(), b'"' if quotes else b""
    with Path(path).open("wb") as file:
        file.write(_HEADERS[layout] + end)
        for start in range(0, len(data), _BLOCK):
            pixels = data.images[start : start + _BLOCK].reshape(-1, PIXELS)
            stops = np.cumsum(length[pixels].sum(axis=1))
            flat = text[pixels.reshape(-1)].reshape(-1)
            joined = flat[flat != 0].tobytes()
            begin = 0
            for row, stop in enumerate(stops, start=start):
                field = mark + joined[begin : stop - 1] + mark
                label, usage = b"%d" % data.labels[row], str(data.usage[row]).encode()
                fields = (label, field, usage) if layout == "fer2013.csv" else (label, usage, field)
                file.write(b",".join(fields) + end)
                begin = stop
