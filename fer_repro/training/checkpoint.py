"""Checkpoints: written whole or not at all, read back without trusting them, owned by one writer."""

from __future__ import annotations

import logging
import math
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fer_repro.errors import FerReproError
from fer_repro.files import InUse, atomic_write, owned, remove_stale_temporaries, require_whole_zip, space_in
from fer_repro.training.soundness import digest, require

log = logging.getLogger(__name__)

NAME, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
DAMAGED = f".{NAME}.damaged"  # where a damaged newest one is kept, out of the way of the whole one before it
FORMAT = 1
GENERATORS: dict[str, Any] = {"cuda": torch.cuda, "mps": torch.mps}  # devices with a global one of their own
STATUSES = ("running", "done", "stopped early", "diverged")


@contextmanager
def writer(folder: Path) -> Iterator[None]:
    """Own ``folder`` while the block runs; a second writer gets a `FerReproError`. The lock dies with the process."""
    with ExitStack() as stack:
        try:
            with space_in(folder):
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(owned(folder / "lock"))
        except InUse as other:
            raise FerReproError(
                f"run folder {folder} is in use by {other.holder}: wait until it ends, stop it, or use another runs "
                f"folder{other.way_out}"
            ) from other
        except OSError as error:
            raise FerReproError(
                f"run folder {folder} cannot be written ({error.strerror}): choose another one"
            ) from error
        remove_stale_temporaries(folder, NAME)
        yield


def save(folder: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write ``state`` as the newest checkpoint of ``folder`` and keep the one before.

    ``identity`` says what the state belongs to (recipe, data, seed, device) and must be equal at `load`. Whenever this
    is killed, one complete checkpoint is on the disk.
    """
    newest, previous = folder / NAME, folder / PREVIOUS
    content: dict[str, Any] = {"identity": dict(identity), "state": dict(state)}
    content |= {"format": FORMAT, "digest": digest(content["identity"], content["state"])}
    try:
        with atomic_write(newest) as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
            # Only now that the new one is safe in its temporary file may the newest become the previous.
            if newest.exists():
                os.replace(newest, previous)
    except (OSError, RuntimeError) as error:
        raise FerReproError(
            f"checkpoint {newest} cannot be written ({error}): correct its permissions or use another runs folder; "
            "the last complete checkpoint is untouched"
        ) from error


def load(
    folder: Path,
    identity: Mapping[str, Any],
    take_up: Callable[[dict[str, Any]], None] = lambda state: None,
    owner: bool = False,
) -> dict[str, Any] | None:
    """The newest whole state of ``folder``, on the CPU, or None if there is none.

    A newest file that is damaged, or whose state ``take_up`` refuses by an exception, gives way to the previous one,
    with a warning; ``owner``: the caller writes here, so a damaged one is moved aside, where it cannot become the
    previous one. A checkpoint of another recipe, data set, seed or device is a `FerReproError`.
    """
    damaged: dict[Path, str] = {}
    for path in (folder / NAME, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            content = _read(path)
            _require_same(content["identity"], identity, path)
            take_up(content["state"])
        except (FerReproError, torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except Exception as error:  # noqa: BLE001 - what torch and unpickling raise for damage has no common kind
            damaged[path] = f"{type(error).__name__}: {_short(' '.join(str(error).split())[:100])}"
            log.warning(f"checkpoint {path} is damaged ({damaged[path]}), looking for the one before")
            continue
        if damaged and owner:
            os.replace(folder / NAME, folder / DAMAGED)
        return content["state"]
    if damaged:
        raise FerReproError(
            f"no readable checkpoint in {folder} ({next(iter(damaged.values()))}): delete that folder, or run without "
            "resume, to start anew"
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

    def __post_init__(self) -> None:
        place = (self.epochs, self.stage, self.epoch, self.batch)
        require(self.status in STATUSES and all(type(one) is int and one >= 0 for one in place), "place")
        require(type(self.seconds) in (int, float) and 0 <= self.seconds < math.inf, "seconds")


def peek(folder: Path) -> CheckpointProgress | None:
    """The `CheckpointProgress` of a run folder without reading its tensors, or None where no checkpoint can be read."""
    # Where the newest is damaged the one before may be whole; a run that continues logs a warning.
    return progress_of(Path(folder) / NAME) or progress_of(Path(folder) / PREVIOUS)


def progress_of(path: Path) -> CheckpointProgress | None:
    """The `CheckpointProgress` that one checkpoint file tells, or None where it cannot be read."""
    try:
        # Mapped, not read: a checkpoint of a gigabyte tells its epoch in milliseconds.
        content = _content(path, mapped=True)
        state = content["state"]
        require(isinstance(state["history"], list) and isinstance(state["seconds"], dict), "history or seconds")
        part = state["batch"] if state["order"] is not None else 0
        place = len(state["history"]), state["stage"], state["epoch"], part
        return CheckpointProgress(path, content["identity"], state["status"], *place, state["seconds"]["total"])
    except Exception:  # noqa: BLE001 - as in `load`, which tells the user why
        return None


def newest_whole(folder: Path, accepts: Callable[[Path], Any] = lambda path: True) -> Path | None:
    """The newest checkpoint file of ``folder`` that is whole, and that ``accepts`` finds true, or None."""
    for path in (Path(folder) / NAME, Path(folder) / PREVIOUS):
        try:
            _read(path, mapped=True)
        except FerReproError:
            raise
        except Exception:  # noqa: BLE001, S112 - as in `load`: damaged or not there, the one before may be whole
            continue
        if accepts(path):
            return path
    return None


def discard(folder: Path) -> None:
    """Forget the checkpoints of ``folder``."""
    for name in (NAME, PREVIOUS, DAMAGED):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise FerReproError(f"{folder / name} cannot be deleted ({error.strerror}): delete it yourself") from error


def _read(path: Path, mapped: bool = False) -> dict[str, Any]:
    """The content of a checkpoint, every bit of it compared with its checksums; any exception means damage."""
    require_whole_zip(path)  # a flipped bit would come back as a weight
    content = _content(path, mapped)
    if "digest" in content:  # earlier versions wrote none
        require(content["digest"] == digest(content["identity"], content["state"]), "it was changed after it was made")
    return content


def _content(path: Path, mapped: bool) -> dict[str, Any]:
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    require(type(content["format"]) is int, "format")
    if content["format"] != FORMAT:
        raise FerReproError(
            f"checkpoint {path} has format {content['format']}, this version reads {FORMAT}: "
            "finish the run with the version that began it, or run without resume"
        )
    require(isinstance(content["identity"], dict) and isinstance(content["state"], dict), "identity or state")
    for name, value in content["identity"].items():
        require(type(name) is str and type(value) in (str, int, float), "identity")
    return content


def _require_same(stored: Mapping[str, Any], expected: Mapping[str, Any], path: Path) -> None:
    for key, value in expected.items():
        require(key in stored, f"its identity has no {key}")
        if (other := stored[key]) != value:
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
    if device.type in GENERATORS:
        state[device.type] = GENERATORS[device.type].get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Put back what `random_state` gave."""
    random.setstate(state["python"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if device.type in GENERATORS:
        GENERATORS[device.type].set_rng_state(state[device.type], device)
