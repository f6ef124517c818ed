"""Checkpoints: written whole or not at all, read back without trusting them, owned by one writer."""

from __future__ import annotations

import fcntl
import logging
import os
import pickle
import random
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fer_repro.errors import FerReproError
from fer_repro.files import atomic_write, remove_stale_temporaries

log = logging.getLogger(__name__)

NAME, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
FORMAT = 1
UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)


@contextmanager
def writer(folder: Path) -> Iterator[None]:
    """Own ``folder`` while the block runs; a second writer gets a `FerReproError`. The lock dies with the process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise FerReproError(f"run folder {folder} cannot be written ({error.strerror}): choose another one") from error
    with os.fdopen(handle, "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FerReproError(
                f"run folder {folder} is in use by process {lock.read().strip() or 'unknown'}: "
                "wait until it ends, stop it, or use another runs folder"
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        remove_stale_temporaries(folder, NAME)
        yield


def save(folder: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write ``state`` as the newest checkpoint of ``folder`` and keep the one before.

    ``identity`` says what the state belongs to (recipe, data, seed, device) and must be equal at `load`. Whenever this
    is killed, one complete checkpoint is on the disk.
    """
    newest, previous = folder / NAME, folder / PREVIOUS
    try:
        with atomic_write(newest) as file:
            torch.save({"format": FORMAT, "identity": dict(identity), "state": dict(state)}, file)
            file.flush()
            os.fsync(file.fileno())
            # Only now that the new one is safe in its temporary file may the newest become the previous.
            if newest.exists():
                os.replace(newest, previous)
    except (OSError, RuntimeError) as error:
        raise FerReproError(
            f"checkpoint {newest} cannot be written ({error}): free some space or use another runs folder; "
            "the last complete checkpoint is untouched"
        ) from error


def load(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The newest readable state of ``folder``, on the CPU, or None if there is none.

    A damaged newest file gives way to the previous one, with a warning. A checkpoint of another recipe, data
    set, seed or device is a `FerReproError`.
    """
    damaged = []
    for path in (folder / NAME, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            content = _read(path)
        except UNREADABLE as error:
            damaged.append(path)
            log.warning(f"checkpoint {path} is damaged ({type(error).__name__}), looking for the one before")
            continue
        _require_same(content["identity"], identity, path)
        return content["state"]
    if damaged:
        raise FerReproError(
            f"no readable checkpoint in {folder}: delete that folder, or run without resume, to start anew"
        )
    return None


@dataclass(frozen=True)
class CheckpointProgress:
    """How far a run has come, as its newest readable checkpoint ``path`` tells.

    ``identity`` as in `save`; ``status`` is ``running`` until the run has ended. ``epochs`` are all that were finished;
    ``stage`` is the one under way, ``epoch`` and ``batch`` what is finished of it and of its next epoch. ``seconds``:
    training and measuring so far.
    """

    path: Path
    identity: Mapping[str, Any]
    status: str
    epochs: int
    stage: int
    epoch: int
    batch: int
    seconds: float


def peek(folder: Path) -> CheckpointProgress | None:
    """The `CheckpointProgress` of a run folder without reading its tensors, or None where no checkpoint can be read."""
    # Where the newest is damaged the one before may be whole; a run that continues logs a warning.
    return progress_of(Path(folder) / NAME) or progress_of(Path(folder) / PREVIOUS)


def progress_of(path: Path) -> CheckpointProgress | None:
    """The `CheckpointProgress` that one checkpoint file tells, or None where it cannot be read."""
    try:
        # Mapped, not read: a checkpoint of a gigabyte tells its epoch in milliseconds.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        state = content["state"]
        part = state["batch"] if state["order"] is not None else 0
        place = len(state["history"]), state["stage"], state["epoch"], part
        return CheckpointProgress(path, content["identity"], state["status"], *place, state["seconds"]["total"])
    except UNREADABLE:
        return None


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint file of ``folder`` whose every checksum is right, or None."""
    for path in (Path(folder) / NAME, Path(folder) / PREVIOUS):
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is None:
                    return path
        except (OSError, zipfile.BadZipFile):
            continue  # damaged or not there: the one before may be whole
    return None


def discard(folder: Path) -> None:
    """Forget the checkpoints of ``folder``."""
    for name in (NAME, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        # torch does not compare the stored checksums; a flipped bit would come back as a weight.
        if (bad := archive.testzip()) is not None:
            raise ValueError(f"checksum of {bad}")
    content = torch.load(path, map_location="cpu", weights_only=True)
    if content["format"] != FORMAT:
        raise FerReproError(
            f"checkpoint {path} has format {content['format']}, this version reads {FORMAT}: "
            "finish the run with the version that began it, or run without resume"
        )
    return content


def _require_same(stored: Mapping[str, Any], expected: Mapping[str, Any], path: Path) -> None:
    for key, value in expected.items():
        if (other := stored.get(key)) != value:
            raise FerReproError(
                f"checkpoint {path} belongs to another {key} ({_short(other)}, this run has {_short(value)}): "
                "use another runs folder, or run without resume to overwrite it"
            )


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's global generators inside the block; the caller's states come back after it."""
    before = random_state(device)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        set_random_state(before, device)


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of every global random generator a network may use, in types that load without pickled code."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),  # type: ignore[attr-defined]
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Put back what `random_state` gave."""
    random.setstate(state["python"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
