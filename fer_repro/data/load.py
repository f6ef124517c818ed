"""FER2013 as arrays: `load` finds, checks and opens it (or draws it), `describe` tells what was found."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from fer_repro.data import source as source_module
from fer_repro.data.cache import Cache, Entry
from fer_repro.data.official import KNOWN_CSV, KNOWN_DIGESTS, LABELS, OFFICIAL_COUNTS, check_counts, count, digest
from fer_repro.data.protocol import USAGES
from fer_repro.errors import FerReproError

DRAWN_WORDS = "drawn faces - says nothing about the paper"


@dataclass(frozen=True, eq=False)
class FER2013:
    """Grey faces with labels and usages; all arrays are read-only and in the order of the source.

    images uint8 [N,48,48] (memory-mapped where the cache can be written); labels int64 [N], an index into LABELS;
    usage str [N], one of USAGES; ids str [N], unique (``angry/Training_10118481`` in the folder copies, ``row-00000``
    counting data rows from 0 in the CSV, ``drawn-<seed>-...`` in the drawn faces); name ``fer2013`` or ``drawn``;
    source says where it came from, without a path; digest is the sha256 (hex) over pixels, labels and usages of the
    whole set, which a subset keeps; facts hold how it was opened (see `describe`).
    """

    images: np.ndarray
    labels: np.ndarray
    usage: np.ndarray
    ids: np.ndarray
    name: str
    source: str
    digest: str
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    place: source_module.Place | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: np.ndarray | slice | list) -> FER2013:
        """The images at ``index`` (positions, a slice or a boolean mask [N]) as a `FER2013` of their own.

        Neighbouring positions are returned as a view, so that cutting a set by usage copies nothing.
        """
        if not isinstance(index, slice):
            index = np.asarray(index)
            index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
            if len(index) and index[0] >= 0 and (np.diff(index) == 1).all() and index[-1] < len(self):
                index = slice(int(index[0]), int(index[-1]) + 1)
        parts = {name: getattr(self, name)[index] for name in ("images", "labels", "usage", "ids")}
        for array in parts.values():
            array.setflags(write=False)
        return replace(self, **parts)

    def counts(self) -> pd.DataFrame:
        """Images per usage (rows) and class (columns)."""
        usage = np.zeros(len(self), np.int64)
        for code, word in enumerate(USAGES):
            usage[self.usage == word] = code
        return pd.DataFrame(count(self.labels, usage), index=list(USAGES), columns=list(LABELS))

    def _repr_html_(self) -> str:
        words = f"<p>{DRAWN_WORDS}</p>" if self.name == "drawn" else ""
        return f"{words}{self.counts().to_html()}"


def load(
    data: str = "fer2013",
    root: str | os.PathLike | None = None,
    *,
    seed: int = 0,
    size: tuple[int, int, int] | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> FER2013:
    """FER2013 from disk, or the drawn faces.

    ``data="fer2013"``: ``root`` (else ``$FER2013_ROOT``, else ``data/fer2013/``) names a folder, a CSV or an archive.
    It is parsed once into a memory-mapped cache (``cache_dir``, else ``$FER_REPRO_CACHE``, else
    ``~/.cache/fer_repro``). Counts per usage and class are checked on every call.
    ``data="drawn"``: ``seed`` and ``size`` (images in Training, PublicTest, PrivateTest; default 1600, 200, 200) decide
    the faces.

    Raises `FerReproError` where nothing is found or anything in the data is wrong.
    """
    if data == "drawn":
        from fer_repro.data import drawn

        if root is not None:
            raise FerReproError(
                "a root was given for the drawn faces, which come from no file; leave it out or ask for data 'fer2013'"
            )
        return drawn.draw(seed, drawn.SIZE if size is None else size)
    if data != "fer2013":
        raise FerReproError(f"unknown data '{data}', expected 'fer2013' or 'drawn'")
    if size is not None:
        raise FerReproError("a size was given for FER2013, whose size is fixed; leave it out or ask for data 'drawn'")
    return _load(root, cache_dir, OFFICIAL_COUNTS)


def _load(root: str | os.PathLike | None, cache_dir: str | os.PathLike | None, expected: np.ndarray) -> FER2013:
    """`load` with the counts [3,7] to hold the copy to; tests use small ones."""
    began = time.perf_counter()
    place = source_module.find(root)
    entry, cached = _entry(place, Cache(cache_dir), expected)
    parsed = entry.parsed
    found = count(parsed.labels, parsed.usage)
    check_counts(found, expected, place.path.name)
    labels = parsed.labels.astype(np.int64)
    usage = np.array(USAGES)[parsed.usage]
    labels.setflags(write=False)
    usage.setflags(write=False)
    facts = {
        "kind": place.kind,
        "layout": parsed.layout,
        "rows": len(parsed.labels),
        "from_cache": cached,
        "in_memory": entry.file is None,
        "seconds_to_open": time.perf_counter() - began,
    }
    text = place.path.name if parsed.layout == place.path.name else f"{parsed.layout} in {place.path.name}"
    return FER2013(parsed.images, labels, usage, parsed.ids, "fer2013", text, entry.digest, facts, place)


def _entry(place: source_module.Place, cache: Cache, expected: np.ndarray) -> tuple[Entry, bool]:
    """The opened copy and whether it came from the cache."""
    try:
        stamp = place.stamp()
        entry = cache.lookup(place.path, stamp)
        if entry:
            return entry, True
        with cache.lock():
            entry = cache.lookup(place.path, stamp)  # another process may have worked while this one waited
            if entry:
                return entry, True
            key = place.key()
            entry = cache.open(key)
            cached = entry is not None
            if entry is None:
                parsed = place.read(int(expected.sum()))
                # Before it is stored: the cache holds nothing that fails the checks.
                check_counts(count(parsed.labels, parsed.usage), expected, place.path.name)
                if place.stamp() != stamp:
                    raise FerReproError(
                        f"'{place.path.name}' changed while it was read; wait until it is complete, then try again"
                    )
                entry = cache.write(key, parsed)
            cache.remember(place.path, stamp, key, entry)
            return entry, cached
    except OSError as error:
        raise FerReproError(
            f"'{error.filename or place.path}' cannot be read ({error.strerror or error}); check that the file is "
            "there and that you may read it"
        ) from error


def known_copy(data: FER2013) -> str | None:
    """The name of a recognised copy: by the digest of its pixels, or by the md5 of the CSV, which is read for this.

    None for an unknown copy, which is allowed: the counts of usages and classes hold for it, too.
    """
    layout = str(data.facts.get("layout", ""))
    if data.digest in KNOWN_DIGESTS or data.place is None or not layout.endswith(".csv"):
        return KNOWN_DIGESTS.get(data.digest)
    return KNOWN_CSV.get(data.place.csv_md5(layout))


def describe(data: FER2013) -> dict[str, Any]:
    """What was found, JSON-ready: name, source, kind, images, counts, digest, copy, and how it was opened.

    ``digest_verified``: the digest was computed anew just now and agrees; null for a subset.

    ``known_copy`` names the copy, or is ``unknown copy`` where neither the digest nor the CSV's md5 is known: counts
    and classes are the official ones all the same, only the pixels could not be compared with anything.
    """
    codes = np.zeros(len(data), np.uint8)
    for code, word in enumerate(USAGES):
        codes[data.usage == word] = code
    facts = data.facts
    whole = len(data) == facts.get("rows")
    report = {
        "name": data.name,
        "source": data.source,
        "kind": facts.get("kind", "subset"),
        "images": len(data),
        "counts": {u: {c: int(n) for c, n in row.items()} for u, row in data.counts().iterrows()},
        "digest": data.digest,
        "digest_verified": digest(data.images, data.labels, codes) == data.digest if whole else None,
        "known_copy": known_copy(data) or "unknown copy",
        "from_cache": facts.get("from_cache", False),
        "in_memory": facts.get("in_memory", True),
        "seconds_to_open": round(facts.get("seconds_to_open", 0.0), 4),
    }
    if data.name == "drawn":
        report["known_copy"] = "drawn by the library"
        report["note"] = DRAWN_WORDS
    return report
