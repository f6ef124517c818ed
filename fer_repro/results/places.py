"""Where results lie: the folder of each, by its kind, and the folders that hold one."""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path

from fer_repro.data import FER2013
from fer_repro.errors import FerReproError
from fer_repro.files import atomic_write
from fer_repro.project import default_results_dir
from fer_repro.results import schema
from fer_repro.results.schema import EVIDENCE, FULL, MODIFIED


def folder_of(
    results_dir: Path, variant: str, protocol: str, seed: int, kind: str = FULL, data_digest: str = ""
) -> Path:
    """Where a run lies; ``kind``: `FULL`, `UNFINISHED` or `MODIFIED`, the last with the digest of its data."""
    run = {"kind": kind, "variant": variant, "protocol": protocol, "seed": seed, "data": {"digest": data_digest}}
    return Path(results_dir, *schema.place_of(run))


def stored_as(modified: FER2013 | None) -> tuple[str, str]:
    """The kind of a full run's result and the digest of its data, as `folder_of` takes them; ``modified``: the modified
    copy that it is a run on, None for the official data."""
    return (FULL, "") if modified is None else (MODIFIED, modified.digest)


def is_stored(
    results_dir: Path, variant: str, protocol: str, seed: int, kind: str = FULL, data_digest: str = ""
) -> bool:
    """Whether a ``result.json`` stands there, whole or not: `read` says what is wrong with one."""
    return holds_result(folder_of(results_dir, variant, protocol, seed, kind, data_digest))


def holds_result(folder: Path) -> bool:
    """Whether a folder has a ``result.json``, whole or not."""
    try:
        os.lstat(folder / "result.json")
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # no permission, a circle of links: something is there
        return True
    return True


def stored_folders(results_dir: Path | None = None, kind: str = FULL) -> list[Path]:
    """Every folder for results of a ``kind`` that holds a ``result.json``, sorted.

    A folder that cannot be looked into stands in place of what it may hold: reading it says why.
    """
    root = Path(results_dir) if results_dir else default_results_dir()
    found, closed = [root] if os.path.lexists(root) else [], []
    for pattern in (*EVIDENCE[kind].folders, "result.json"):
        below: list[Path] = []
        for folder in found:
            try:
                below += [folder / name for name in os.listdir(folder) if fnmatch(name, pattern)]
            except NotADirectoryError:
                continue  # other files may lie there
            except OSError:
                closed.append(folder)
        found = below
    return sorted([*(path.parent for path in found), *closed])


def all_folders(results_dir: Path | None = None) -> list[Path]:
    """`stored_folders` of every kind, one kind after the other."""
    return list(dict.fromkeys(folder for kind in EVIDENCE for folder in stored_folders(results_dir, kind)))


def require_writable(results_dir: Path) -> None:
    """Say now, not after hours of training, that results cannot be written. Raises `FerReproError`."""
    probe = Path(results_dir) / ".writable"
    try:
        with atomic_write(probe) as file:
            file.write(b"")
        probe.unlink(missing_ok=True)  # another run that begins at the same moment may have been faster
    except OSError as error:
        raise FerReproError(
            f"the results folder {results_dir} cannot be written ({error.strerror}): choose another with --results-dir "
            "or correct its permissions"
        ) from error
