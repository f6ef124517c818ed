"""Random search: Optuna draws the configurations, a JSON-lines journal keeps every trial, failed ones included.

The n-th configuration depends on the seed and on n alone, never on earlier trials, so an interrupted search tries what
an uninterrupted one would have tried. Only drawing and fANOVA need Optuna (``pip install 'fer-repro[search]'``); a
stored result can be shown without it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from scipy import integrate, stats

from fer_repro.errors import FerReproError
from fer_repro.evaluation.statistics import paired_difference
from fer_repro.files import atomic_write, space_in
from fer_repro.training.run import Interrupted
from fer_repro.training.soundness import require

log = logging.getLogger(__name__)

FILE = "search.jsonl"
OLD_FILE = "study.db"  # the database in which earlier versions stored a search
MOST_KILLS = 5  # a trial during which the process was killed so often (out of memory) counts as failed
COMPLETE, FAILED, DUPLICATE = "complete", "failed", "duplicate"

Configuration = dict[str, Any]
Space = Mapping[str, tuple[Any, ...]]
Attempt = Callable[[int, Configuration], dict[str, Any]]


class TrialFailed(Exception):
    """A trial ended without a value, for the reason in the message; the search goes on."""


@contextmanager
def _optuna() -> Iterator[ModuleType]:
    """Optuna, silent for the block. Raises `FerReproError`, which names the extra to install, where it is missing."""
    try:
        with warnings.catch_warnings():
            # Optuna's progress bar warns on the page where Jupyter widgets are missing; they are not needed here.
            warnings.filterwarnings("ignore", message="IProgress not found")
            import optuna
    except ImportError as error:
        raise FerReproError(
            "the hyper-parameter search needs the package optuna, which is not installed; run: "
            "pip install 'fer-repro[search]'"
        ) from error
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(before)


def size(space: Space) -> int:
    """How many configurations ``space`` holds."""
    return math.prod(len(values) for values in space.values())


def configurations(space: Space, seed: int, first: Configuration) -> Iterator[Configuration]:
    """``first``, then what `optuna.samplers.RandomSampler` draws with ``seed``: endless, and repeats may occur."""
    with _optuna() as optuna:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed % 2**32), direction="maximize")
        distributions = _distributions(optuna, space)
    yield dict(first)
    while True:
        yield dict(study.ask(distributions).params)


def _distributions(optuna: ModuleType, space: Space) -> dict[str, Any]:
    return {name: optuna.distributions.CategoricalDistribution(values) for name, values in space.items()}


@dataclass
class Search:
    """The search of a folder, read from its journal; `run` tries configurations, `records` lists the settled trials.

    Each line of the journal is an event: ``opened``, ``begun``, ``interrupted``, ``settled`` or ``closed``; its ``sum``
    is a digest of it and of all before it (earlier versions wrote none). The caller
    must be the folder's only writer. ``first``: the configuration of trial 0, a member of ``space``. ``identity``: what
    the search belongs to (recipe, data, seed, device). Raises `FerReproError` for another identity, a journal that
    cannot be read, a search of an earlier version, and a ``first`` outside the space.
    """

    folder: Path
    space: Space
    seed: int
    first: Configuration
    identity: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.path = self.folder / FILE
        outside = [name for name in {*self.space, *self.first} if self.first.get(name) not in self.space.get(name, ())]
        if outside:
            raise FerReproError(f"the first configuration is not in the search space: look at {', '.join(outside)}")
        if (self.folder / OLD_FILE).exists():
            raise FerReproError(
                f"the search in {self.folder} was begun by an earlier version, which stored it in {OLD_FILE}: go on "
                "with that version, or run without resume to begin the search anew"
            )
        try:
            if not self.path.exists():
                with atomic_write(self.path) as file:
                    file.write(_line({"event": "opened", "identity": dict(self.identity)}, "")[0])
            self._events, self._sum = _read(self.path, self.space)
        # RecursionError: brackets in brackets; the others are what a wrong type or a missing name raises.
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self._unusable(error) from error
        known = self._events[0]["identity"]
        for name, value in self.identity.items():
            if known.get(name) != value:
                raise FerReproError(
                    f"the search {self.path} belongs to another {name} ({str(known.get(name))[:12]}, this run has "
                    f"{str(value)[:12]}): use another runs folder, or run without resume to overwrite it"
                )

    @property
    def closed(self) -> bool:
        """True once every trial is settled; no trial can be added any more."""
        return self._events[-1]["event"] == "closed"

    def run(self, trials: int, attempt: Attempt, pause: Callable[[], None]) -> None:
        """Try ``trials`` different configurations, then close the search; settled trials are not repeated.

        ``attempt(number, configuration)`` returns JSON-ready facts with the objective as ``value`` (higher is better).
        `TrialFailed`, arithmetic errors and running out of memory fail the trial, with the reason recorded.
        `Interrupted` ends the search until it is opened again. ``pause()`` is called between trials and may raise
        `Interrupted`.
        """
        if self.closed:
            return
        if trials > size(self.space):
            raise FerReproError(
                f"{trials} trials were asked for, but the search space holds {size(self.space)} configurations: ask "
                "for fewer"
            )
        settled = {record["trial"] for record in self.records()}
        earlier: dict[tuple[Any, ...], int] = {}
        for number, configuration in enumerate(configurations(self.space, self.seed, self.first)):
            if len(earlier) == trials:
                break
            key = tuple(configuration[name] for name in self.space)
            repeats = earlier.setdefault(key, number)
            if number in settled:
                continue
            if repeats != number:
                self._settle(number, configuration, DUPLICATE, f"the configuration of trial {repeats}")
                log.info(f"trial {number}: the configuration of trial {repeats}, skipped")
                continue
            pause()
            self._try(number, configuration, attempt)
        self._write("closed")

    def records(self) -> list[dict[str, Any]]:
        """Every settled trial in order, JSON-ready: trial, state (complete, failed, duplicate), reason, attempts,
        configuration, and what the attempt returned."""
        settled = [event for event in self._events if event["event"] == "settled"]
        return [{name: content for name, content in event.items() if name != "event"} for event in settled]

    def _try(self, number: int, configuration: Configuration, attempt: Attempt) -> None:
        """One attempt; one that neither ended nor was interrupted before belongs to a process that was killed."""
        killed = self._count("begun", number) - self._count("interrupted", number)
        if killed >= MOST_KILLS:
            reason = f"the process was killed in this trial {killed} times"
            self._settle(number, configuration, FAILED, reason)
            log.info(f"trial {number}: {reason}")
            return
        if self._events[-1] == {"event": "begun", "trial": number}:
            log.info(f"trial {number}: the process was killed; it goes on now")
        self._write("begun", trial=number)
        try:
            outcome = attempt(number, configuration)
        except Interrupted as stopped:
            self._write("interrupted", trial=number)
            raise Interrupted(f"trial {number} of the search: {stopped}") from stopped
        except torch.AcceleratorError:
            # The device is lost to this process: later trials would fail for a reason that is not theirs.
            raise
        except (TrialFailed, RuntimeError, MemoryError, ArithmeticError) as error:
            message = (str(error).splitlines() or [""])[0][:200]
            reason = message if isinstance(error, TrialFailed) else f"{type(error).__name__}: {message}"
            self._settle(number, configuration, FAILED, reason)
            log.info(f"trial {number} failed, the search goes on: {reason}")
        else:
            self._settle(number, configuration, COMPLETE, "", **outcome)

    def _settle(self, number: int, configuration: Configuration, state: str, reason: str, **outcome: Any) -> None:
        attempts = max(1, self._count("begun", number))  # a duplicate was not tried
        ordered = {name: configuration[name] for name in self.space}
        record = {"trial": number, "state": state, "reason": reason, "attempts": attempts, "configuration": ordered}
        self._write("settled", **record, **outcome)

    def _count(self, event: str, number: int) -> int:
        return self._events.count({"event": event, "trial": number})

    def _write(self, event: str, **content: Any) -> None:
        """Append one event and wait until it is on the disk."""
        line, self._sum = _line({"event": event} | content, self._sum)
        try:
            with space_in(self.folder), open(self.path, "ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unusable(error) from error
        self._events.append(_parsed(line)[0])

    def _unusable(self, error: Exception) -> FerReproError:
        return FerReproError(
            f"the search {self.path} cannot be read or written ({type(error).__name__}: {error}): delete that file (or "
            "run without resume) to begin the search anew"
        )


def _line(event: Mapping[str, Any], before: str | None) -> tuple[bytes, str | None]:
    """A line of the journal and its sum; ``before``: the sum of the line before, None where the journal has none."""
    if before is None:
        return json.dumps(event).encode() + b"\n", None
    found = sha256(f"{before}{json.dumps(event)}".encode()).hexdigest()[:16]
    return json.dumps({**event, "sum": found}).encode() + b"\n", found


def _parsed(line: bytes) -> tuple[dict[str, Any], str | None]:
    event = json.loads(line)
    return event, event.pop("sum", None)


def _read(path: Path, space: Space) -> tuple[list[dict[str, Any]], str | None]:
    """The events of a journal and its last sum; a last line without its end was being written when the process died,
    and is removed. Raises `ValueError`, `KeyError`, `TypeError` or `AttributeError` where it is none."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    events, last = [], None
    for line in whole.splitlines():
        event, found = _parsed(line)
        if found is not None or last is not None:
            expected = _line(event, last or "")[1]
            require(found == expected and (last or not events), f"line {len(events) + 1} is not as it was written")
        last = found
        events.append(event)
        _require_event(event, len(events), space)
    require(events, "this is no journal of a search")
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return events, last


def _require_event(event: dict[str, Any], number: int, space: Space) -> None:
    """Raise an exception unless line ``number`` (from 1) of a journal may hold this event."""
    names = {"opened": {"identity"}, "begun": {"trial"}, "interrupted": {"trial"}, "closed": set(), "settled": None}
    kind = event["event"]
    require((kind == "opened") == (number == 1), f"line {number} is no event of a search")
    if kind != "settled":
        require(event.keys() == {"event"} | names[kind], f"line {number}")
        require(kind != "opened" or isinstance(event["identity"], dict), "identity")
    else:
        require(event["state"] in (COMPLETE, FAILED, DUPLICATE) and isinstance(event["reason"], str), f"line {number}")
        require(event["configuration"].keys() == space.keys(), f"the configuration in line {number}")
        for name, value in event["configuration"].items():
            require(value in space[name], f"{name} in line {number}")
        if event["state"] == COMPLETE:
            require(type(event["value"]) in (int, float) and math.isfinite(event["value"]), f"value in line {number}")
    if kind in ("begun", "interrupted", "settled"):
        require(type(event["trial"]) is int and event["trial"] >= 0, f"the trial in line {number}")


def discard(folder: Path) -> None:
    """Delete the search of ``folder`` and everything its trials left there."""
    for left in [folder / FILE, *folder.glob(f"{OLD_FILE}*"), *folder.glob("trial-*")]:
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def best(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The complete trial of the highest value, the earliest of equals; `FerReproError` where no trial completed."""
    complete = [record for record in records if record["state"] == COMPLETE]
    if not complete:
        reasons = "; ".join(dict.fromkeys(record["reason"] for record in records if record["state"] == FAILED))
        raise FerReproError(
            f"none of the {len(records)} trials of the search completed ({reasons}): remove the cause first"
        )
    return max(complete, key=lambda record: record["value"])


def fanova(records: list[dict[str, Any]], space: Space) -> dict[str, float] | None:
    """Importance of each hyper-parameter by Optuna's functional ANOVA (Hutter et al. 2014), from records alone.

    Shares of the variance that a random forest fitted to the trials explains; they sum to 1 even where there is nothing
    to explain. None for fewer than two complete trials or equal values.
    """
    complete = [record for record in records if record["state"] == COMPLETE]
    if len({record["value"] for record in complete}) < 2:
        return None
    with _optuna() as optuna:
        study, distributions = optuna.create_study(direction="maximize"), _distributions(optuna, space)
        for record in complete:
            trial = {"params": record["configuration"], "value": record["value"]}
            study.add_trial(optuna.trial.create_trial(distributions=distributions, **trial))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(shares.get(name, 0.0)) for name in space}


def selection_gain(hits: Mapping[int, np.ndarray], chosen: int) -> dict[str, Any]:
    """What choosing a trial on the scored images would have gained; ``hits``: trial -> bool [N], was image i right.

    ``other`` is the trial that these images would have chosen (the earliest of equals), ``gap`` its accuracy minus that
    of ``chosen``, which is never negative, with a paired bootstrap interval over the images.
    """
    other = max(hits, key=lambda number: hits[number].sum())
    gap, low, high = paired_difference(hits[other], hits[chosen])
    return {
        "chosen": chosen,
        "other": other,
        "n": len(hits[chosen]),
        "gap": gap,
        "interval": [low, high],
        "only_chosen": int((hits[chosen] & ~hits[other]).sum()),
        "only_other": int((hits[other] & ~hits[chosen]).sum()),
    }


def chance_of_the_best(trials: int, accuracy: float, n: int) -> float:
    """How far the best of ``trials`` equally good networks is expected to stand above them, by chance alone.

    Each is scored on ``n`` images of its own, its error normal with variance accuracy (1 - accuracy) / n. Networks
    scored on the same images err together, so for them this is an upper bound.
    """
    largest = integrate.quad(lambda z: z * trials * stats.norm.pdf(z) * stats.norm.cdf(z) ** (trials - 1), -9, 9)[0]
    return float(largest * math.sqrt(accuracy * (1 - accuracy) / n))
