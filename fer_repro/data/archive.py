"""Archives read as a stream: nothing is unpacked to disk, and nothing in them is trusted.

Every member's name and kind is checked, wanted or not: a path that leaves the archive, a link, a device, an encrypted
or sparse member is an error, and so is a size beyond what any copy of FER2013 can have (checked on what really comes
out of the decompressor, not on what the headers promise).
"""

from __future__ import annotations

import gzip
import io
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from fer_repro.data.official import FRESH_COPY, damaged
from fer_repro.errors import FerReproError

SUFFIXES = (".zip", ".tar.xz", ".tar.gz", ".txz", ".tgz")
LARGEST_MEMBER = 512 << 20  # the CSV has 301 MB
LARGEST_TOTAL = 2 << 30  # Kaggle's archive holds four CSV files, 0.9 GB together
MOST_MEMBERS = 200_000
LARGEST_HEADER = 1 << 20  # a tar header with its extensions
LARGEST_DICTIONARY = 256 << 20  # memory an xz stream may ask for


def is_archive(path: Path) -> bool:
    """True where the name ends in one of `SUFFIXES`."""
    return path.name.lower().endswith(SUFFIXES)


def check_member(archive: str, name: str) -> None:
    """Raise where a member's name could leave the folder it would be unpacked to."""
    parts = re.split(r"[/\\]", name)
    unsafe = ".." in parts or name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or "\0" in name
    if unsafe or not name or len(name) > 1024:
        raise FerReproError(
            f"{archive}: the member '{name[:80]}' points outside the archive; expected plain relative paths, so do "
            f"not trust this file: {FRESH_COPY}"
        )


class _Members:
    """Counts members and bytes of one archive and stops where no FER2013 can be that large."""

    def __init__(self, archive: str) -> None:
        self.archive, self.members, self.total = archive, 0, 0

    def admit(self, name: str, size: int) -> None:
        check_member(self.archive, name)
        self.members += 1
        self.total += size
        if not 0 <= size <= LARGEST_MEMBER:
            self.refuse(f"the member '{name}' has {size:,} bytes, expected at most {LARGEST_MEMBER:,}")
        if self.total > LARGEST_TOTAL:
            self.refuse(f"its members hold more than {LARGEST_TOTAL:,} bytes")
        if self.members > MOST_MEMBERS:
            self.refuse(f"it has more than {MOST_MEMBERS:,} members")

    def refuse(self, what: str) -> None:
        raise FerReproError(f"{self.archive}: {what}; that is no copy of FER2013, so {FRESH_COPY}")


Visit = Callable[[str, int, IO[bytes]], None]


def walk(path: Path, wanted: Callable[[str], bool], visit: Visit) -> None:
    """Call ``visit(name, size in bytes, stream)`` for every wanted member of an archive, in the archive's order.

    Raises `FerReproError` for a damaged archive and for an unsafe one, whether or not the unsafe member was wanted.
    """
    try:
        (_walk_zip if path.name.lower().endswith(".zip") else _walk_tar)(path, wanted, visit)
    except (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise damaged(path.name, f"the archive is damaged or cut ({error})") from error


def _walk_zip(path: Path, wanted: Callable[[str], bool], visit: Visit) -> None:
    with zipfile.ZipFile(path) as archive:
        book = _Members(path.name)
        for info in archive.infolist():
            book.admit(info.orig_filename, info.file_size)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                book.refuse(f"the member '{info.filename}' is a link or a device, expected plain files")
            if info.flag_bits & 1:
                book.refuse(f"the member '{info.filename}' is encrypted")
        for info in archive.infolist():
            if not info.is_dir() and wanted(info.filename):
                # zipfile stops at the declared size and compares the checksum there, so a false size is an error.
                try:
                    stream = archive.open(info)
                except NotImplementedError as error:
                    raise damaged(path.name, f"'{info.filename}' cannot be read ({error})") from error
                with stream:
                    visit(info.filename, info.file_size, stream)


def _walk_tar(path: Path, wanted: Callable[[str], bool], visit: Visit) -> None:
    book = _Members(path.name)
    with path.open("rb") as file:
        zipped = path.name.lower().endswith("gz")
        meter = _Meter(gzip.GzipFile(fileobj=file) if zipped else _XzStream(file), path.name)
        meter.allow(LARGEST_HEADER)
        with tarfile.open(fileobj=meter, mode="r|") as archive:
            # What a header may cost is bounded; the members were read or are skipped by tarfile in `next`.
            while member := archive.next():
                book.admit(member.name, member.size)
                if member.issparse() or not (member.isreg() or member.isdir()):
                    book.refuse(f"the member '{member.name}' is a link, a device or sparse, expected plain files")
                meter.allow(member.size + LARGEST_HEADER)
                stream = archive.extractfile(member) if member.isreg() and wanted(member.name) else None
                if stream is not None:
                    visit(member.name, member.size, stream)
            # tarfile takes a damaged header for the end, and the checksums of gz and xz stand behind the last byte.
            meter.allow(LARGEST_HEADER)
            while piece := meter.read(1 << 16):
                if piece.strip(b"\0"):
                    raise tarfile.ReadError(f"a damaged header after member {book.members:,}")


class _Meter(io.RawIOBase):
    """A stream that gives out no more bytes than were allowed, so that no header can swell in memory."""

    def __init__(self, raw: io.BufferedIOBase | io.RawIOBase, archive: str) -> None:
        self.raw, self.archive, self.left = raw, archive, 0

    def allow(self, size: int) -> None:
        self.left = min(self.left, LARGEST_HEADER) + size

    def read(self, size: int = -1) -> bytes:
        piece = self.raw.read(size)
        self.left -= len(piece)
        if self.left < 0:
            raise FerReproError(
                f"{self.archive}: a header or a gap of more than {LARGEST_HEADER:,} bytes; that is no copy of "
                f"FER2013, so {FRESH_COPY}"
            )
        return piece


class _XzStream(io.RawIOBase):
    """xz decompression with a bound on memory, which `lzma.open` does not offer."""

    def __init__(self, file: io.BufferedReader) -> None:
        self.file, self.inner, self.started = file, self._fresh(), False

    @staticmethod
    def _fresh() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LARGEST_DICTIONARY)

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            raise io.UnsupportedOperation("this stream is read in pieces of a stated size")
        while True:
            if self.inner.eof:  # another stream, padding, or the end
                data = (self.inner.unused_data or self.file.read(1 << 16)).lstrip(b"\0")
                if not data:
                    if self.file.peek(1):
                        continue
                    return b""
                self.inner = self._fresh()
            else:
                data = self.file.read(1 << 16) if self.inner.needs_input else b""
                if not data and self.inner.needs_input:
                    raise EOFError("the compressed data ends before its end mark")
            piece = self.inner.decompress(data, size)
            if piece or size == 0:
                return piece
