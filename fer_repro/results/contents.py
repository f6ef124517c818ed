"""Stored files as data: JSON, arrays, a table. Whatever is in a file, reading it costs little and runs nothing."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_repro.errors import FerReproError
from fer_repro.results.schema import HALVES

LARGEST = 16 * 2**20  # bytes of a file; the largest one stored so far has 160,000
LARGEST_UNPACKED = 64 * 2**20  # bytes of all arrays of a file; a few thousand compressed bytes can ask for gigabytes
MOST_ARRAYS = 64

# Broad on purpose: these are the ways in which the parsers of JSON, zip, deflate, npy headers and CSV, and numpy's
# allocation, fail on damaged bytes. None of them hides a defect elsewhere: only parsing is guarded.
FAILURES = (
    OSError,
    ValueError,  # JSON, Unicode, CSV, npy
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,  # OverflowError of absurd sizes
    RuntimeError,  # RecursionError of deep nesting; NotImplementedError and encryption of zip
    EOFError,
    MemoryError,
    SyntaxError,  # an npy header is a Python literal
    tokenize.TokenError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


@contextmanager
def reading(folder: Path, name: str) -> Iterator[None]:
    """Turn any failure to read the file ``name`` of a result's ``folder`` into one sentence, a `FerReproError`."""
    try:
        yield
    except FAILURES as error:
        known = isinstance(error, OSError) and error.strerror
        reason = known or f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": ")
        raise FerReproError(
            f"{folder} is not a readable result ({name}: {reason}): expected result.json, predictions.npz and "
            "history.csv as `fer-repro run` writes them; restore them or run the variant again"
        ) from error


def content(path: Path) -> bytes:
    """The bytes of a regular file of at most `LARGEST` bytes; `OSError` otherwise."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
        raise OSError(errno.EINVAL, "not a file, but a folder or a device")
    with open(path, "rb") as file:
        found = file.read(LARGEST + 1)
    if len(found) > LARGEST:
        raise OSError(errno.EFBIG, f"more than {LARGEST:,} bytes")
    return found


def unix_lines(text: bytes) -> bytes:
    """A text file as it was written: an editor, or git on Windows, may have changed the ends of its lines."""
    return text.replace(b"\r\n", b"\n")


def document(text: bytes) -> Any:
    """The JSON data in a file."""
    return json.loads(text.decode())


def table(text: bytes) -> pd.DataFrame:
    """The CSV table in a file; an empty one has no columns."""
    return pd.read_csv(io.StringIO(text.decode())) if text.strip() else pd.DataFrame()


def arrays(archive: bytes, halves: Sequence[str] = HALVES) -> dict[str, np.ndarray]:
    """The arrays in an npz file: ids [N], labels int [N], probabilities float [N,7] of the test sets ``halves``, and
    any others.

    Sizes are compared before anything is allocated; pickled objects are never unpacked.
    """
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        entries = packed.infolist()
        names = [entry.filename for entry in entries]
        if len(names) > MOST_ARRAYS or len(set(names)) < len(names):
            raise ValueError(f"{len(names)} entries, {len(set(names))} different, expected at most {MOST_ARRAYS}")
        if (total := sum(entry.file_size for entry in entries)) > LARGEST_UNPACKED:
            raise ValueError(f"{total:,} bytes unpacked, expected at most {LARGEST_UNPACKED:,}")
        found = {entry.filename.removesuffix(".npy"): _array(packed.read(entry), entry.filename) for entry in entries}
    _require_known(found, halves)
    return found


def _array(content: bytes, name: str) -> np.ndarray:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} has the npy version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds pickled objects, which are never unpacked")
    expected, left = math.prod(shape) * dtype.itemsize, len(content) - file.tell()
    if dtype.itemsize == 0 or min(shape, default=0) < 0 or expected != left:
        raise ValueError(f"{name} says {shape} of {dtype}, {expected:,} bytes, and holds {left:,}")
    return np.frombuffer(bytearray(content), dtype, offset=file.tell()).reshape(shape, order="F" if by_column else "C")


def _require_known(found: dict[str, np.ndarray], halves: Sequence[str]) -> None:
    """What everybody reads must be there, of the right kind and dimensions."""
    kinds = ["plain", *(["views"] if any(f"{half}_views" in found for half in halves) else [])]
    for half in halves:
        for name, types, dimensions in [("ids", "Uiu", 1), ("labels", "iu", 1), *((kind, "f", 2) for kind in kinds)]:
            array = found.get(f"{half}_{name}")
            if array is None:
                raise ValueError(f"no {half}_{name} in it")
            if array.dtype.kind not in types or array.ndim != dimensions:
                raise ValueError(f"{half}_{name} is {array.dtype} with {array.ndim} dimensions")
