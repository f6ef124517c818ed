"""FER2013 as arrays: `load` finds, checks and opens it (or makes the synthetic faces), `describe` reports on it."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from fer_repro.data import source as source_module
from fer_repro.data import synthetic as synthetic_faces
from fer_repro.data.cache import Cache, Entry
from fer_repro.data.dataset import FER2013, SYNTHETIC_WORDS
from fer_repro.data.official import (
    KNOWN_CSV,
    KNOWN_DIGESTS,
    MODIFIED,
    MOST_TIMES,
    OFFICIAL_COUNTS,
    USAGES,
    check_counts,
    count,
    damaged,
    differences,
    digest,
)
from fer_repro.errors import FerReproError, nearest


def load(
    data: str = "fer2013",
    root: str | os.PathLike | None = None,
    *,
    seed: int = 0,
    size: tuple[int, int, int] | None = None,
    cache_dir: str | os.PathLike | None = None,
    accept_modified: bool = False,
) -> FER2013:
    """FER2013 from disk, or the synthetic faces.

    ``data="fer2013"``: ``root`` (else ``$FER2013_ROOT``, else ``data/fer2013/``) names a folder, a CSV or an archive.
    It is parsed once into a memory-mapped cache (``cache_dir``, else ``$FER_REPRO_CACHE``, else
    ``~/.cache/fer_repro``). Counts per usage and class are checked on every call. ``accept_modified``: a copy that was
    cleaned on purpose is no error; its name is then `MODIFIED` and ``differences`` says what is missing or surplus. A
    copy with the official counts stays what it is, and damaged files are refused as ever.
    ``data="synthetic"``: ``seed`` and ``size`` (images in Training, PublicTest, PrivateTest; default 1600, 200, 200)
    determine the faces.

    Raises `FerReproError` where nothing is found or anything in the data is wrong.
    """
    if data == "synthetic":
        if root is not None:
            raise FerReproError(
                "a root was given for the synthetic faces, which come from no file; leave it out or ask for data "
                "'fer2013'"
            )
        if accept_modified:
            raise FerReproError(
                "accept_modified was given for the synthetic faces, which have no copy; leave it out or ask for data "
                "'fer2013'"
            )
        return synthetic_faces.draw(seed, synthetic_faces.SIZE if size is None else size)
    if data != "fer2013":
        raise FerReproError(f"unknown data '{data}': {nearest(data, ('fer2013', 'synthetic'))}")
    if size is not None:
        raise FerReproError(
            "a size was given for FER2013, whose size is fixed; leave it out or ask for data 'synthetic'"
        )
    return _load(root, cache_dir, OFFICIAL_COUNTS, accept_modified)


def faces_of(synthetic: bool, root: str | os.PathLike | None = None) -> FER2013:
    """The images of a run (``faces_of(result.synthetic)``): a smoke run's synthetic faces, or FER2013."""
    return synthetic_faces.draw(size=synthetic_faces.SMOKE_SIZE) if synthetic else load("fer2013", root)


def _load(
    root: str | os.PathLike | None,
    cache_dir: str | os.PathLike | None,
    expected: np.ndarray,
    accept_modified: bool = False,
) -> FER2013:
    """`load` with the counts [3,7] to hold the copy to; tests use small ones."""
    began = time.perf_counter()
    place = source_module.find(root)
    entry, cached = _entry(place, Cache(cache_dir), expected, accept_modified)
    parsed = entry.parsed
    found = count(parsed.labels, parsed.usage)
    if not accept_modified:  # also of what the cache holds: it may have been accepted when it was written
        check_counts(found, expected, place.name)
    differing = differences(found, expected)
    labels, usage = parsed.labels.astype(np.int64), np.array(USAGES)[parsed.usage]
    for array in (labels, usage):
        array.setflags(write=False)
    facts = {
        "kind": place.kind,
        "layout": parsed.layout,
        "rows": len(parsed.labels),
        "labels": parsed.labels,  # of the whole set, uint8, and the usages' codes: a subset is checked with all of it
        "codes": parsed.usage,
        "differences": differing,
        "from_cache": cached,
        "in_memory": entry.file is None,
        "seconds_to_open": time.perf_counter() - began,
    }
    inside = place.kind in ("folder", "archive") and parsed.layout != place.name
    text = f"{parsed.layout} in {place.name}" if inside else place.name
    name = MODIFIED if differing else "fer2013"
    return FER2013(parsed.images, labels, usage, parsed.ids, name, text, entry.digest, facts, place)


def _entry(place: source_module.Place, cache: Cache, expected: np.ndarray, accept_modified: bool) -> tuple[Entry, bool]:
    """The opened copy and whether it came from the cache."""
    try:
        stamp = place.stamp()
        if entry := cache.lookup(place.path, stamp):
            return entry, True
        with cache.lock():
            if entry := cache.lookup(place.path, stamp):  # another process may have worked while this one waited
                return entry, True
            key = place.key()
            entry = cache.open(key)
            cached = entry is not None
            if entry is None:
                parsed = place.read(int(expected.sum()) * (MOST_TIMES if accept_modified else 1))
                # Before it is stored: the cache holds nothing that fails the checks, but for counts that were accepted.
                if not accept_modified:
                    check_counts(count(parsed.labels, parsed.usage), expected, place.name)
                elif not len(parsed.labels):
                    raise damaged(place.name, "no image in it, expected faces with labels and usages")
                if place.stamp() != stamp:
                    raise FerReproError(
                        f"'{place.name}' changed while it was read; wait until it is complete, then try again"
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

    None for an unknown copy, which is allowed: the counts of usages and classes hold for it, too; and for a modified
    one.
    """
    if data.modified:
        return None
    layout = str(data.facts.get("layout", ""))
    if data.digest in KNOWN_DIGESTS or data.place is None or not layout.endswith(".csv"):
        return KNOWN_DIGESTS.get(data.digest)
    return KNOWN_CSV.get(data.place.csv_md5(layout))


def copy_name(data: FER2013) -> str:
    """What a copy is called: `known_copy`, "modified copy" or "unknown copy"."""
    return known_copy(data) or ("modified copy" if data.modified else "unknown copy")


def describe(data: FER2013) -> dict[str, Any]:
    """What was found, JSON-ready: name, source, kind, images, counts, digest, copy, and how it was opened.

    ``digest_verified``: the digest was computed anew just now and agrees; null for a subset.

    ``known_copy`` names the copy, or is ``unknown copy`` where neither the digest nor the CSV's md5 is known: counts
    and classes are the official ones all the same, only the pixels could not be compared with anything. ``modified``:
    null, or of a modified copy every usage and class with another count, and all of them in ``words``.
    """
    facts = data.facts
    whole = len(data) == facts.get("rows")
    report = {
        "name": data.name,
        "source": data.source,
        "kind": facts.get("kind", "subset"),
        "images": len(data),
        "counts": {u: {c: int(n) for c, n in row.items()} for u, row in data.counts().iterrows()},
        "digest": data.digest,
        "digest_verified": digest(data.images, data.labels, data.codes()) == data.digest if whole else None,
        "known_copy": copy_name(data),
        "modified": {"words": data.difference, "differences": [vars(one) for one in data.differences]}
        if data.modified
        else None,
        "from_cache": facts.get("from_cache", False),
        "in_memory": facts.get("in_memory", True),
        "not_read": list(data.place.beside) if data.place else [],
        "seconds_to_open": round(facts.get("seconds_to_open", 0.0), 4),
    }
    if data.name == "synthetic":
        report["known_copy"] = "synthesised by the library"
        report["note"] = SYNTHETIC_WORDS
    return report
