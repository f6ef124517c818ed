"""Archives read as a stream: no member is unpacked to a file of its own, and nothing in them is trusted.

What a file is, its first bytes say: a zip, a tar, something compressed with gzip, bzip2 or xz, or one of these inside
another, up to `MOST_LAYERS`. Every member's name and kind is checked, wanted or not: a path that leaves the archive, a
link, a device, an encrypted or sparse member is an error, and so is a size beyond what any copy of FER2013 can have
(checked on what really comes out of the decompressor, not on what the headers promise).
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from fer_repro.data.kinds import COMPRESSED, HEAD, TAR, Kind, sniff
from fer_repro.data.official import FRESH_COPY, damaged, printable
from fer_repro.errors import FerReproError

LARGEST_MEMBER = 512 << 20  # the CSV has 301 MB
LARGEST_TOTAL = 2 << 30  # Kaggle's archive holds four CSV files, 0.9 GB together
MOST_MEMBERS = 200_000
MOST_LAYERS = 6  # a .tar.gz has two, and so has each archive inside another
LARGEST_HEADER = 1 << 20  # a tar header with its extensions
LARGEST_DIRECTORY = 24 << 20  # a zip's list of members, which zipfile holds in memory
LARGEST_DICTIONARY = 256 << 20  # memory an xz stream may ask for
_IN_MEMORY = 64 << 20  # a larger zip inside an archive waits in an unnamed temporary file: it cannot be read in one go
_SUFFIX = re.compile(r"\.(zip|npz|tar|gz|bz2|xz|tgz|tbz2?|txz)$", re.IGNORECASE)

Visit = Callable[[str, Kind | None, IO[bytes]], None]


def is_archive_name(name: str) -> bool:
    """True where the name promises an archive or something compressed."""
    return bool(_SUFFIX.search(name))


def without_suffix(name: str) -> str:
    """What is inside: ``a.csv`` for ``a.csv.gz``, ``a.tar`` for ``a.tgz``, ``a`` for ``a.zip``."""
    return _SUFFIX.sub(lambda found: ".tar" if found[1].lower().startswith("t") and found[1] != "tar" else "", name)


def _stem(name: str) -> str:
    """The name without any suffix of an archive."""
    return without_suffix(without_suffix(name))


def is_litter(name: str) -> bool:
    """True for what file managers leave behind: names in the path that are hidden, and macOS' resource forks."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/") if part != ".")


def check_member(archive: str, name: str) -> None:
    """Raise where a member's name could leave the folder it would be unpacked to."""
    parts = re.split(r"[/\\]", name)
    unsafe = ".." in parts or name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or "\0" in name
    if unsafe or not name or len(name) > 1024:
        raise FerReproError(
            printable(
                f"{archive}: the member '{name[:80]}' points outside the archive; expected plain relative paths, so do "
                f"not trust this file: {FRESH_COPY}"
            )
        )


def walk(path: Path, visit: Visit) -> None:
    """Call ``visit(name, kind, stream)`` for every file in an archive but litter, in the archive's order.

    ``name`` has ``/`` between folders, whatever the archive has; an archive inside stands for a folder of its name. The
    stream begins at the file's first byte and need not be read. ``kind`` is what `sniff` says.
    Raises `FerReproError` for a damaged archive and for an unsafe one, whether or not the unsafe member was wanted.
    """
    with path.open("rb") as file:
        _Walk(path.name, visit).file(path.name, file, 0)


class _Walk:
    """One walk through an archive and the archives inside it; counts, and stops where no FER2013 can be that large."""

    def __init__(self, archive: str, visit: Visit) -> None:
        self.archive, self.visit, self.members, self.total = archive, visit, 0, 0

    def admit(self, name: str, size: int) -> None:
        check_member(self.archive, name)
        self.members += 1
        if not 0 <= size <= LARGEST_MEMBER:
            self.refuse(f"the member '{name}' has {size:,} bytes, expected at most {LARGEST_MEMBER:,}")
        self.charge(size)
        if self.members > MOST_MEMBERS:
            self.refuse(f"it has more than {MOST_MEMBERS:,} members")

    def charge(self, size: int) -> None:
        self.total += size
        if self.total > LARGEST_TOTAL:
            self.refuse(f"its members hold more than {LARGEST_TOTAL:,} bytes")

    def refuse(self, what: str) -> None:
        raise FerReproError(printable(f"{self.archive}: {what}; that is no copy of FER2013, so {FRESH_COPY}"))

    @contextlib.contextmanager
    def guard(self, what: str = "the archive is damaged or cut") -> Iterator[None]:
        """Turns whatever the libraries below raise into one sentence; a disk that fails keeps its own."""
        try:
            yield
        except FerReproError:
            raise
        except Exception as error:
            # zipfile, tarfile and the decompressors document a few errors and let many more through where a header is
            # malformed (ValueError, KeyError, struct.error, RecursionError, ...): the list depends on their version.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            why = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise damaged(self.archive, f"{what} ({why})") from error

    def file(self, name: str, raw: Any, layer: int) -> None:
        """Visit a file, or walk through it where it is an archive; ``raw`` is seekable in layer 0."""
        stream = _Stream(raw, self)
        kind = sniff(stream.peek())
        role = kind.role if kind else ""
        if role in ("zip", "tar", *COMPRESSED) and layer >= MOST_LAYERS:
            self.refuse(f"'{name}' is one of more than {MOST_LAYERS} archives, each inside the next")
        if role == "zip":
            if layer == 0:
                self.zip(name, raw, layer)
                return
            with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
                try:
                    shutil.copyfileobj(stream, spool)
                except OSError as error:
                    raise FerReproError(
                        f"{self.archive}: there is no room for the archive inside it in {tempfile.gettempdir()} "
                        f"({error.strerror or error}); unpack it, or set TMPDIR to a folder with room"
                    ) from error
                self.zip(name, spool, layer)
        elif role == "tar":
            self.tar(name, stream, layer)
        elif role in COMPRESSED:
            with self.guard():
                inner = _Stream(_DECOMPRESSORS[role](stream), self)
            inside = sniff(inner.peek())
            # By the name where the bytes say nothing: the first header may be damaged.
            if inside == TAR or (inside is None and without_suffix(name).lower().endswith(".tar")):
                self.tar(without_suffix(name), inner, layer + 1)
            else:
                self.file(without_suffix(name), _Counted(inner, self), layer + 1)
        elif layer == 0:
            raise damaged(self.archive, "it is no archive, or its beginning is damaged")
        else:
            self.visit(name, kind, cast(IO[bytes], stream))

    def member(self, within: str, name: str, stream: Any, layer: int) -> None:
        """A file inside the archive ``within``."""
        folder = _stem(within)
        self.file(name if folder == _stem(self.archive) else f"{folder}/{name}", stream, layer + 1)

    def zip(self, within: str, file: Any, layer: int) -> None:
        file.seek(0)
        with self.guard():
            archive = zipfile.ZipFile(_Careful(file, self))
            infos = archive.infolist()
            for info in infos:
                self.admit(info.orig_filename, info.file_size)
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    self.refuse(f"the member '{info.filename}' is a link or a device, expected plain files")
                if info.flag_bits & 1:
                    self.refuse(f"the member '{info.filename}' is encrypted")
        for info in infos:
            name = info.filename.replace("\\", "/")  # PowerShell 5 and older programs write \ between folders
            if not name.endswith("/") and not is_litter(name):
                # zipfile stops at the declared size and compares the checksum there, so a false size is an error.
                with self.guard(f"'{info.filename}' cannot be read"):
                    stream = archive.open(info)
                with stream:
                    self.member(within, name, stream, layer)

    def tar(self, within: str, stream: Any, layer: int) -> None:
        meter = _Meter(stream, self)
        meter.allow(LARGEST_HEADER)
        with self.guard():
            archive = tarfile.open(fileobj=meter, mode="r|")  # noqa: SIM115 - it holds no file of its own
        # What a header may cost is bounded; the members were read or are skipped by tarfile in `next`.
        while True:
            with self.guard():
                member = archive.next()
            if member is None:
                break
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all
            self.admit(member.name, member.size)
            if member.issparse() or not (member.isreg() or member.isdir()):
                self.refuse(f"the member '{member.name}' is a link, a device or sparse, expected plain files")
            meter.allow(member.size + LARGEST_HEADER)
            name = member.name.replace("\\", "/")
            if member.isreg() and not is_litter(name):
                with self.guard():
                    content = archive.extractfile(member)
                self.member(within, name, content, layer)
        # tarfile takes a damaged header for the end, and the checksums of gz and xz stand behind the last byte.
        meter.allow(LARGEST_HEADER)
        while piece := meter.read(1 << 16):
            if piece.strip(b"\0"):
                raise damaged(
                    self.archive, f"the archive is damaged or cut (a damaged header after member {self.members:,})"
                )


class _Stream(io.RawIOBase):
    """A file from its first byte, with its head looked at before; what the libraries raise becomes one sentence."""

    def __init__(self, raw: Any, walk: _Walk) -> None:
        self.raw, self.walk, self.head = raw, walk, b""

    def peek(self) -> bytes:
        """The first `HEAD` bytes (fewer where the file is shorter), which `read` gives again."""
        with self.walk.guard():
            while len(self.head) < HEAD and (piece := self.raw.read(HEAD - len(self.head))):
                self.head += piece
        return self.head

    def read(self, size: int = -1) -> bytes:
        """``size`` bytes, fewer only at the end; all of them for a negative size."""
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        pieces, self.head = [self.head[:size]], self.head[size:]
        missing = size - len(pieces[0])
        with self.walk.guard():
            while missing and (piece := self.raw.read(missing)):
                pieces.append(piece)
                missing -= len(piece)
        return b"".join(pieces)


class _Counted(io.RawIOBase):
    """What comes out of a decompressor, whose size no header tells."""

    def __init__(self, raw: Any, walk: _Walk) -> None:
        self.raw, self.walk, self.size = raw, walk, 0

    def read(self, size: int = -1) -> bytes:
        piece = self.raw.read(size)
        self.size += len(piece)
        self.walk.charge(len(piece))
        if self.size > LARGEST_MEMBER:
            self.walk.refuse(f"it holds more than {LARGEST_MEMBER:,} bytes in one file")
        return piece


class _Careful(io.RawIOBase):
    """A seekable file for `zipfile.ZipFile`, which reads its list of members at once and keeps it."""

    def __init__(self, file: Any, walk: _Walk) -> None:
        self.file, self.walk = file, walk

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def read(self, size: int = -1) -> bytes:
        if size > LARGEST_DIRECTORY:
            self.walk.refuse(f"its list of members has {size:,} bytes, expected at most {LARGEST_DIRECTORY:,}")
        return self.file.read(size)


class _Meter(io.RawIOBase):
    """A stream that gives out no more bytes than were allowed, so that no header can swell in memory."""

    def __init__(self, raw: Any, walk: _Walk) -> None:
        self.raw, self.walk, self.left = raw, walk, 0

    def allow(self, size: int) -> None:
        self.left = min(self.left, LARGEST_HEADER) + size

    def read(self, size: int = -1) -> bytes:
        piece = self.raw.read(size)
        self.left -= len(piece)
        if self.left < 0:
            self.walk.refuse(f"a header or a gap of more than {LARGEST_HEADER:,} bytes")
        return piece


class _XzStream(io.RawIOBase):
    """xz decompression with a bound on memory, which `lzma.open` does not offer."""

    def __init__(self, file: Any) -> None:
        self.file, self.inner = file, self._fresh()

    @staticmethod
    def _fresh() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LARGEST_DICTIONARY)

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            raise io.UnsupportedOperation("this stream is read in pieces of a stated size")
        while True:
            if self.inner.eof:  # another stream, padding, or the end
                data = self.inner.unused_data.lstrip(b"\0")
                while not data:
                    piece = self.file.read(1 << 16)
                    if not piece:
                        return b""
                    data = piece.lstrip(b"\0")
                self.inner = self._fresh()
            else:
                data = self.file.read(1 << 16) if self.inner.needs_input else b""
                if not data and self.inner.needs_input:
                    raise EOFError("the compressed data ends before its end mark")
            piece = self.inner.decompress(data, size)
            if piece or size == 0:
                return piece


_DECOMPRESSORS: dict[str, Callable[[Any], Any]] = {
    "gz": lambda stream: gzip.GzipFile(fileobj=stream),
    "bz2": bz2.BZ2File,
    "xz": _XzStream,
}
