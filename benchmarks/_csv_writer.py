"""FER2013 back to Kaggle's CSV, and synthetic faces in its full size: for measuring and testing readers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fer_repro.data.dataset import FER2013
from fer_repro.data.official import OFFICIAL_COUNTS, PIXELS, USAGES, digest
from fer_repro.data.synthetic import draw
from fer_repro.errors import FerReproError

_BLOCK = 1024
_HEADERS = {"fer2013.csv": b"emotion,pixels,Usage", "icml_face_data.csv": b"emotion, Usage, pixels"}


def repeated(counts: np.ndarray = OFFICIAL_COUNTS, seed: int = 0) -> FER2013:
    """Synthetic faces in exactly ``counts`` [3,7] (usage x class; default FER2013's own), each face used many times.

    For measuring readers and for fixtures of the full size, where 35,887 different faces would only take time. The rows
    are in usage order, the classes mixed.
    """
    pool = draw(seed)
    rng = np.random.default_rng([seed, 7])
    parts = []
    for row in counts:
        part = np.concatenate([rng.choice(np.flatnonzero(pool.labels == c), n) for c, n in enumerate(row)])
        rng.shuffle(part)
        parts.append(part)
    at = np.concatenate(parts)
    codes = np.repeat(np.arange(len(USAGES), dtype=np.uint8), [len(p) for p in parts])
    images, labels = pool.images[at], pool.labels[at]
    ids = np.array([f"repeated-{seed}-{i:05d}" for i in range(len(at))])
    source = f"synthetic faces repeated, seed {seed}"
    words, value = np.array(USAGES)[codes], digest(images, labels, codes)
    facts = {**pool.facts, "rows": len(at)}
    return FER2013(images, labels, words, ids, "synthetic", source, value, facts)


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
