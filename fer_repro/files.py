"""Files that are either whole or not there, and locks that end with their process."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

from fer_repro.errors import FerReproError

# The disk, the user's share of it, or a file (`ulimit -f`) may not grow any more.
FULL = {errno.ENOSPC, errno.EFBIG, *([errno.EDQUOT] if hasattr(errno, "EDQUOT") else [])}

HOLDER = 20  # bytes that a lock file has for the number of its holder
AT_FDCWD, EXCHANGE = -100, 2  # of fcntl.h and of renameat2(2); RENAME_SWAP of renamex_np(2) on macOS is 2 as well


class NoSpaceLeft(FerReproError):
    """A disk is full, in a sentence that names the folder."""


@contextmanager
def space_in(folder: Path) -> Iterator[None]:
    """Make a write inside the block that finds no space left a `NoSpaceLeft` that names ``folder``."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error
        # torch hides the reason behind an error of its own ("unexpected pos").
        while cause is not None and not (isinstance(cause, OSError) and cause.errno in FULL):
            cause = cause.__context__
        if cause is None:
            raise
        raise NoSpaceLeft(
            f"no space left in {folder} ({cause.strerror}): free some space there, or choose another folder; what was "
            "written completely before is untouched"
        ) from error


@contextmanager
def writable(what: Path) -> Iterator[None]:
    """Make a failing write inside the block a `FerReproError` that names the file or folder."""
    try:
        with space_in(what.parent):
            yield
    except OSError as error:
        raise FerReproError(
            f"{what} cannot be written ({error.strerror}): correct its permissions, or choose another folder"
        ) from error


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` that takes its place only when the block ends without an error.

    Flushed and synced before the rename, and the folder synced after it, so that a power cut or kill -9 at any moment
    leaves the old file or the new one. Raises `NoSpaceLeft` where that is so, else `OSError` as the file
    system does.
    """
    path = Path(path)
    with space_in(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes private files; a published one gets what the umask allows.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def exchange(one: Path, other: Path) -> None:
    """Let two folders change names, on Linux and macOS at once: at every moment a whole one stands under each name.

    Elsewhere, and on file systems that cannot do it, for a moment none stands under the name ``other``.
    """
    names, libc = (os.fsencode(one), os.fsencode(other)), None if os.name == "nt" else ctypes.CDLL(None)
    status = -1
    if libc is not None and hasattr(libc, "renameat2"):
        status = libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], EXCHANGE)
    elif libc is not None and hasattr(libc, "renamex_np"):
        status = libc.renamex_np(*names, EXCHANGE)
    if status != 0:
        aside = one.with_name(f"{one.name}.aside")
        os.rename(other, aside)
        os.rename(one, other)
        os.rename(aside, one)
    _sync_folder(other.parent)


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows cannot open a folder, and records a rename by itself
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock(handle: int, wait: bool = False) -> bool:
    """Take the lock of an open file, which the system releases when the process ends; False where another one has it.

    Raises `OSError` where the file system offers no locks.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns when it is imported where there are none; the error says it all
        from filelock import lock_descriptor

    return lock_descriptor(handle, blocking=wait)


class InUse(Exception):
    """Another process holds a lock file; ``holder`` names it, and ``way_out`` says what to do if it has ended."""

    def __init__(self, holder: str, way_out: str = "") -> None:
        super().__init__(holder, way_out)
        self.holder, self.way_out = holder, way_out


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs; it is released when the process ends, however it ends.

    The file names its holder. On a file system without locks (some network folders) a file beside it, ".NAME.marker",
    stands for the lock; it too is taken over from a process that has ended, but only on the same machine. Raises
    `InUse` where another process holds it, `OSError` where the file cannot be written.
    """
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0) as file:
        marked: AbstractContextManager[None] = nullcontext()
        try:
            mine = lock(file.fileno())
        except OSError:
            mine, marked = True, _marked(path.with_name(f".{path.name}.marker"))
        if not mine:
            raise InUse(f"process {_holder(file)}")
        with marked:
            # On Windows nobody else can read the locked first byte, so the number begins at the second one. Nothing is
            # truncated: the line always has the same length.
            file.write(f" {os.getpid():<{HOLDER - 2}}\n".encode())
            yield


def _holder(file: BinaryIO) -> str:
    try:
        file.seek(1)
        text = file.read(HOLDER).decode().strip()
    except (OSError, UnicodeDecodeError):
        return "unknown"
    return text if text.isdigit() else "unknown"


@contextmanager
def _marked(marker: Path) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `lock`
        from filelock import SoftFileLock, Timeout

    try:
        held = SoftFileLock(marker).acquire(timeout=0)
    except Timeout as error:
        try:
            process, machine = marker.read_text(encoding="utf-8").split("\n")[:2]
        except (OSError, ValueError):  # released just now, or not whole yet
            process, machine = "unknown", "unknown"
        way_out = f" (if that has ended, delete {marker}: the file system offers no locks that end with their process)"
        raise InUse(f"process {process} on machine {machine}", way_out) from error
    with held:
        yield


def remove_stale_temporaries(folder: Path, name: str) -> None:
    """Delete what an `atomic_write` of ``folder/name`` left behind when it was killed; call it as the only writer."""
    for left in Path(folder).glob(f".{name}.*.tmp"):
        left.unlink(missing_ok=True)


def require_whole_zip(path: Path, stored: bool = True) -> None:
    """Raise an exception (of any kind) unless every checksum of a zip file is right; neither torch nor numpy looks.

    ``stored``: its entries must not be compressed, so that none is larger than the file.
    """
    with zipfile.ZipFile(path) as archive:
        if stored and any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("an entry is compressed")
        if (bad := archive.testzip()) is not None:
            raise ValueError(f"checksum of {bad}")


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
