"""The memory-mapped cache: a copy of FER2013 is parsed once and opened in milliseconds afterwards.

One file a copy, named by the sha256 of the copy's content, holds all arrays. It is written beside its place and
renamed, so that no reader ever sees an incomplete one. A *stamp* for each path records which content was there and
what the file system reported about it (and about the cache file) when both were last verified; while that has not
changed, nothing is hashed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_repro.data.official import Parsed, digest
from fer_repro.files import NoSpaceLeft, atomic_write, lock

VARIABLE = "FER_REPRO_CACHE"
_MAGIC = "fer-repro-cache-1"
_HEADER = 4096
_STALE_SECONDS = 24 * 3600


def default_dir() -> Path:
    """``$FER_REPRO_CACHE``, else ``~/.cache/fer_repro``; see `_expanded`."""
    return _expanded(os.environ.get(VARIABLE) or "~/.cache/fer_repro")


def _expanded(given: str | os.PathLike) -> Path:
    """``given`` with its ``~`` filled in; where there is no home folder for it, a private temporary folder.

    Containers run as users without an account and without ``HOME``. A warning says which folder is used.
    """
    path = Path(os.path.expanduser(given))
    if not path.parts or not path.parts[0].startswith("~"):
        return path
    try:
        user = getattr(os, "getuid", lambda: 0)()  # Windows has no numbers of users, and 0 as the owner of all files
        path = Path(tempfile.gettempdir()) / f"fer_repro-{user}"
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            s = path.lstat()  # another user may have made it, to plant a cache of his own
            if not stat.S_ISDIR(s.st_mode) or s.st_uid != user or s.st_mode & 0o022:
                path = Path(tempfile.mkdtemp(prefix="fer_repro-"))
    except OSError:  # nothing can be written anywhere, which `Cache.write` will find, too, and say
        return path
    warnings.warn(
        f"there is no home folder for the cache folder '{given}', so what is parsed of FER2013 is kept in {path}; set "
        f"${VARIABLE} to a folder of your choice",
        stacklevel=2,
    )
    return path


@dataclass(frozen=True)
class Entry:
    """An opened copy: the arrays of `Parsed`, their digest, and the cache file (None where it lives in memory)."""

    parsed: Parsed
    digest: str
    file: Path | None


def _status(path: Path) -> list[int]:
    s = path.stat()
    return [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino]


class Cache:
    """A folder of parsed copies. Every failure to write ends in memory and one warning, never in an error."""

    def __init__(self, folder: str | os.PathLike | None = None) -> None:
        self.folder = default_dir() if folder is None else _expanded(folder)

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.fer2013"

    def _stamp_file(self, path: Path) -> Path:
        return self.folder / "stamps" / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]}.json"

    def lookup(self, path: Path, stamp: list) -> Entry | None:
        """The verified entry for a path whose ``stamp`` is unchanged; None where anything has moved."""
        try:
            known = json.loads(self._stamp_file(path).read_text())
            if known["source"] != stamp or known["cache"] != _status(self._file(known["key"])):
                return None
            return self._open(self._file(known["key"]), verify=False)
        except (OSError, ValueError, KeyError, TypeError):
            return None  # no stamp, or a damaged one: the slow way will write a new one

    def open(self, key: str) -> Entry | None:
        """The entry of this content after hashing all of it; None where there is none or it is damaged."""
        try:
            return self._open(self._file(key), verify=True)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _open(self, path: Path, verify: bool) -> Entry:
        with path.open("rb") as file:
            head = file.read(_HEADER)
        magic, checksum, text = head.split(b"\n", 2)
        text = text.rstrip(b" ")
        if magic.decode() != _MAGIC or hashlib.sha256(text).hexdigest() != checksum.decode():
            raise ValueError("not a cache file of this version")
        header = json.loads(text)
        if path.stat().st_size != header["bytes"]:
            raise ValueError("the cache file is cut")
        body = np.memmap(path, np.uint8, "r")
        if verify and hashlib.sha256(body[_HEADER:].data).hexdigest() != header["sha256"]:
            raise ValueError("the cache file is damaged")
        arrays = {}
        for name, (dtype, shape, offset) in header["arrays"].items():
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            arrays[name] = np.asarray(body[offset : offset + size]).view(dtype).reshape(shape)
        parsed = Parsed(**arrays, layout=header["layout"])
        return Entry(parsed, header["digest"], path)

    def write(self, key: str, parsed: Parsed) -> Entry:
        """Store a parsed copy and open it memory-mapped; where the folder cannot be written, keep it in memory."""
        table, offset, h = {}, _HEADER, hashlib.sha256()
        parts: list[bytes | memoryview] = []
        for name in ("images", "labels", "usage", "ids"):
            array = np.ascontiguousarray(getattr(parsed, name))
            table[name] = (array.dtype.str, array.shape, offset)
            padding = -array.nbytes % 64
            parts += [array.reshape(-1).view(np.uint8).data, b"\0" * padding]
            offset += array.nbytes + padding
        for part in parts:
            h.update(part)
        value = digest(parsed.images, parsed.labels, parsed.usage)
        header = {"arrays": table, "bytes": offset, "sha256": h.hexdigest(), "digest": value, "layout": parsed.layout}
        text = json.dumps(header).encode()
        head = b"\n".join((_MAGIC.encode(), hashlib.sha256(text).hexdigest().encode(), text)).ljust(_HEADER)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._replace(self._file(key), [head, *parts])
            return self._open(self._file(key), verify=False)
        except (OSError, NoSpaceLeft) as error:
            why = getattr(error, "strerror", error)
            warnings.warn(
                f"the cache folder {self.folder} cannot be written ({why}), so FER2013 is kept in "
                f"memory and parsed again next time; set ${VARIABLE} to a folder that can be written",
                stacklevel=2,
            )
            for name in table:
                getattr(parsed, name).setflags(write=False)
            return Entry(parsed, value, None)

    def remember(self, path: Path, stamp: list, key: str, entry: Entry) -> None:
        """Write the stamp of a verified source and its cache file; without one the next opening hashes both again."""
        if entry.file is None:
            return
        text = json.dumps({"source": stamp, "key": key, "cache": _status(entry.file)})
        target = self._stamp_file(path)
        # A folder that is only readable still serves its entries.
        with contextlib.suppress(OSError, NoSpaceLeft):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._replace(target, [text.encode()])

    def _replace(self, target: Path, parts: list[bytes | memoryview]) -> None:
        for leftover in target.parent.glob(".*.tmp"):  # of killed writers, a day old
            with contextlib.suppress(OSError):
                if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
                    leftover.unlink()
        with atomic_write(target) as file:
            file.writelines(parts)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One process parses at a time, the others wait and find its work; where no lock can be had, all parse."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                self.folder.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context((self.folder / ".lock").open("w"))
                lock(file.fileno(), wait=True)
            yield
