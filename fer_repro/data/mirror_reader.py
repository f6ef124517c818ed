"""Mirrors of FER2013 in other forms of tables: Parquet, as Hugging Face has it, and arrays of NumPy in an .npz.

A row is read only where it carries its label and its usage: a column, or a file that is named for its usage. Which of
"test" and "valid" is PublicTest differs from mirror to mirror, so such a copy is refused with what to do.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import warnings
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from fer_repro.data.folder_reader import decode
from fer_repro.data.official import LABELS, PIXELS, SIDE, USAGES, Parsed, damaged, printable, way_out
from fer_repro.errors import FerReproError

LARGEST = 1 << 29  # bytes of a file: FER2013 as text has 300 MB, as pictures 60 MB
MOST_ARRAYS = 16
_NAMES = {
    "images": ("images", "image", "img", "pixels", "faces", "x"),
    "labels": ("labels", "label", "emotions", "emotion", "y"),
    "usage": ("usage", "usages", "split", "splits"),
}
_WORDS = dict(anger=0, disgusted=1, fearful=2, happiness=3, sadness=4, surprised=5) | {
    w: i for i, w in enumerate(LABELS)
}
_NUMBERS = re.compile(r"\s*(?:\d{1,3}\s+)*\d{1,3}\s*", re.ASCII)
_CSV = "or take fer2013.csv, which has all three"


@contextlib.contextmanager
def _guard(name: str, what: str) -> Iterator[None]:
    """Turns whatever the libraries raise about damaged bytes into one sentence."""
    try:
        yield
    except FerReproError:
        raise
    except Exception as error:
        # pyarrow's and NumPy's parsers raise a dozen kinds where a header is malformed, and the list depends on their
        # version; only parsing stands in such a block.
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise damaged(name, f"{what} is damaged or cut ({why})") from error


def read_parquet(stream: IO[bytes], name: str, capacity: int) -> Parsed:
    """Read a Parquet table from a binary stream: pixels as text, numbers or encoded pictures, label, usage.

    Without a column of usages the file's name must hold one of USAGES. Raises `FerReproError` for anything else, and
    where pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise FerReproError(
            f"{name} is a Parquet table, which needs pyarrow: pip install 'fer-repro[parquet]', or take fer2013.csv"
        ) from error
    with _guard(name, "the Parquet table"):
        table = parquet.ParquetFile(pa.BufferReader(content(stream, name)), page_checksum_verification=True)
        schema, total = table.schema_arrow, table.metadata.num_rows
        unpacked = sum(table.metadata.row_group(i).total_byte_size for i in range(table.metadata.num_row_groups))
        classes = _class_names(schema.metadata or {})
    if total > capacity or unpacked > LARGEST:
        limits = f"{capacity:,} of {LARGEST:,} ({way_out(capacity)})"
        raise damaged(name, f"{total:,} rows of {unpacked:,} bytes, expected at most {limits}")
    columns = _columns(name, schema.names)
    usage = None if "usage" in columns else _usage_of(name)
    pixels, labels, codes = list[np.ndarray](), list[int](), list[int]()
    with _guard(name, "the Parquet table"):
        for batch in table.iter_batches(1024, columns=list(columns.values())):
            rows = {
                what: batch.column(batch.schema.get_field_index(column)).to_pylist() for what, column in columns.items()
            }
            for at, (image, label) in enumerate(zip(rows["images"], rows["labels"], strict=True)):
                where = f"{name}, row {len(labels):,} (counted from 0)"
                pixels.append(_face(image, where))
                labels.append(_label(label, classes, where))
                codes.append(_usage(rows["usage"][at], where) if usage is None else usage)
    return _parsed(np.array(pixels).reshape(-1, SIDE, SIDE), labels, codes, "Parquet table")


def content(stream: IO[bytes], name: str) -> bytes:
    """All of a file of at most `LARGEST` bytes."""
    kept = io.BytesIO()
    while piece := stream.read(1 << 20):
        if kept.tell() + len(piece) > LARGEST:
            raise damaged(name, f"more than {LARGEST:,} bytes")
        kept.write(piece)
    return kept.getvalue()


def _columns(name: str, found: list[str]) -> dict[str, str]:
    """What -> the column or array that holds it; usages may be missing."""
    columns: dict[str, str] = {}
    for what, names in _NAMES.items():
        own = [column for column in found if column.strip().lower() in names]
        if len(own) > 1 or (not own and what != "usage"):
            there = ", ".join(found)[:120] or "none"
            raise FerReproError(
                printable(f"{name} holds {there}: expected one of {', '.join(names)} as the {what}, {_CSV}")
            )
        columns |= {what: own[0]} if own else {}
    return columns


def _usage_of(name: str) -> int:
    """The usage that a file's name says, where it says just one."""
    last = re.split(r"[/:]", name)[-1]
    found = [code for code, word in enumerate(USAGES) if re.search(rf"(?<![a-z]){word}(?![a-z])", last, re.IGNORECASE)]
    if len(found) != 1:
        raise FerReproError(
            printable(
                f"{name} has no column Usage, and a name like train, valid or test does not say which images are "
                "PublicTest and which PrivateTest (mirrors differ): add the column Usage, or name the files Training, "
                f"PublicTest and PrivateTest if you know it, {_CSV}"
            )
        )
    return found[0]


def _class_names(metadata: dict[bytes, bytes]) -> list[str] | None:
    """The names of the labels 0, 1, ... as Hugging Face's library writes them into a table; None where it did not."""
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return next((features[n].get("names") for n in features if n.lower() in _NAMES["labels"]), None)


def _label(value: Any, classes: list[str] | None, where: str) -> int:
    if classes and isinstance(value, int) and 0 <= value < len(classes):
        value = classes[value]
    word = str(value).strip().lower()
    if word in _WORDS:
        return _WORDS[word]
    if isinstance(value, bool) or word not in ("0", "1", "2", "3", "4", "5", "6"):
        raise damaged(where, f"the label is '{word[:20]}', expected 0 to 6 or one of {', '.join(LABELS)}")
    return int(word)


def _usage(value: Any, where: str) -> int:
    word = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if word.strip() not in USAGES:
        raise damaged(where, f"Usage is '{word[:20]}', expected one of {', '.join(USAGES)}")
    return USAGES.index(word.strip())


def _face(value: Any, where: str) -> np.ndarray:
    """One face uint8 [2304] from an encoded picture, a text of numbers, or numbers in lists."""
    if isinstance(value, dict):  # Hugging Face's Image: the bytes, or only a path on a machine that is not this one
        value = value.get("bytes")
    if isinstance(value, bytes):
        return decode(value, where).reshape(-1)
    if isinstance(value, str):
        if not _NUMBERS.fullmatch(value) or len(value) > 1 << 16:
            raise damaged(where, f"the pixels are '{value[:20]}...', expected {PIXELS:,} whole numbers from 0 to 255")
        value = np.fromstring(value, np.int64, sep=" ")
    if value is None:
        raise damaged(where, "no pixels, expected a face")
    return _grey(np.array(value)[None], where)[0].reshape(-1)


def _grey(values: np.ndarray, where: str) -> np.ndarray:
    """Whole grey values uint8 [n,48,48] from numbers [n,48,48], with a channel, or flat."""
    n = len(values) if values.ndim else 0
    if values.shape[1:] not in ((SIDE, SIDE), (SIDE, SIDE, 1), (1, SIDE, SIDE), (PIXELS,)):
        raise damaged(where, f"pixels of the shape {values.shape[1:]}, expected {PIXELS:,} (48 x 48)")
    if values.dtype.kind not in "iuf":
        raise damaged(where, f"pixels of the kind {values.dtype}, expected whole numbers from 0 to 255")
    with np.errstate(invalid="ignore"):
        bytes_ = values.astype(np.uint8)
    scaled = values.dtype.kind == "f" and n and not (values > 1).any()
    if scaled or not (bytes_ == values).all():
        raise damaged(where, "pixels that are no whole numbers from 0 to 255: they were scaled or changed")
    return bytes_.reshape(n, SIDE, SIDE)


def read_arrays(arrays: dict[str, bytes], where: str, capacity: int) -> Parsed:
    """Images, labels and usages from the contents of ``.npy`` files by name, as an ``.npz`` holds them.

    Pickled objects are refused unread. Raises `FerReproError` for everything that is not three arrays of one length.
    """
    stems = {name.rsplit("/", 1)[-1].removesuffix(".npy"): name for name in arrays}
    columns = _columns(where, list(stems))
    if "usage" not in columns:
        raise FerReproError(
            printable(
                f"{where} holds {', '.join(stems)[:120]} and no usages, so nobody can tell PublicTest from "
                f"PrivateTest: add an array 'usage' with the words {', '.join(USAGES)}, {_CSV}"
            )
        )
    found = {what: _array(arrays[stems[own]], f"{where}: {stems[own]}") for what, own in columns.items()}
    if len({len(array) if array.ndim else -1 for array in found.values()}) > 1 or found["images"].ndim == 0:
        shapes = ", ".join(f"{what} {array.shape}" for what, array in found.items())
        raise damaged(where, f"arrays of different lengths ({shapes}), expected one label and one usage for each image")
    n = len(found["images"])
    if n > capacity:
        raise damaged(where, f"{n:,} images, expected at most {capacity:,} ({way_out(capacity)})")
    for what in ("labels", "usage"):
        if found[what].size != n:
            raise damaged(where, f"{what} of the shape {found[what].shape}, expected one for each of {n:,} images")
    labels = [
        _label(v, None, f"{where}, row {i:,} (counted from 0)") for i, v in enumerate(found["labels"].ravel().tolist())
    ]
    codes = [_usage(v, f"{where}, row {i:,} (counted from 0)") for i, v in enumerate(found["usage"].ravel().tolist())]
    return _parsed(_grey(found["images"], where), labels, codes, "NumPy arrays")


def _array(content: bytes, where: str) -> np.ndarray:
    """The array of an ``.npy`` file whose header and size agree."""
    file = io.BytesIO(content)
    with _guard(where, "the array"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about headers of old Pythons
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if dtype.hasobject:
            raise FerReproError(
                printable(f"{where} holds pickled Python objects, which are never unpacked: save plain arrays, {_CSV}")
            )
        size = math.prod(shape) * dtype.itemsize
        if not dtype.itemsize or min(shape, default=0) < 0 or size != len(content) - file.tell():
            raise damaged(where, f"its header says {shape} of {dtype}, and {len(content) - file.tell():,} bytes follow")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def _parsed(pixels: np.ndarray, labels: list[int], codes: list[int], layout: str) -> Parsed:
    ids = np.array([f"row-{i:05d}" for i in range(len(labels))], dtype="<U16")
    return Parsed(pixels, np.array(labels, np.uint8), np.array(codes, np.uint8), ids, layout)
