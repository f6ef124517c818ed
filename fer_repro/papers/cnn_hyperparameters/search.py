"""Random search with Optuna: a study in SQLite that survives kill -9 and keeps its failures.

The n-th configuration depends on the seed and on n alone, never on what happened before it, so an interrupted study
tries what an uninterrupted one would have tried. Only this module needs Optuna (``pip install 'fer-repro[search]'``);
what it leaves in a result can be shown without it.
"""

from __future__ import annotations

import logging
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from scipy import integrate, stats

from fer_repro.errors import FerReproError
from fer_repro.evaluation.statistics import paired_difference
from fer_repro.training.run import Interrupted

log = logging.getLogger(__name__)

FILE = "study.db"
MOST_KILLS = 5  # a trial that ended the whole process so often (no memory left) counts as failed
COMPLETE, FAILED, DUPLICATE = "complete", "failed", "duplicate"

Configuration = dict[str, Any]
Space = Mapping[str, tuple[Any, ...]]


class TrialFailed(Exception):
    """A trial that ended without a value, for the reason told; the study goes on."""


def require_optuna() -> ModuleType:
    """Optuna, or a `FerReproError` that names the extra to install."""
    try:
        with warnings.catch_warnings():
            # Its progress bar looks for Jupyter widgets, which nobody needs here, and says so on the page.
            warnings.filterwarnings("ignore", message="IProgress not found")
            import optuna
    except ImportError as error:
        raise FerReproError(
            "the hyper-parameter search needs the package optuna, which is not installed; run: "
            "pip install 'fer-repro[search]'"
        ) from error
    return optuna


@contextmanager
def _quiet() -> Iterator[ModuleType]:
    """Optuna without its own lines on the terminal; the caller's verbosity comes back."""
    optuna = require_optuna()
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
    with _quiet() as optuna:
        sampler = optuna.samplers.RandomSampler(seed=seed % 2**32)
        drawing = optuna.create_study(sampler=sampler, direction="maximize")
    yield dict(first)
    while True:
        yield dict(drawing.ask(_distributions(space)).params)


def _distributions(space: Space) -> dict[str, Any]:
    choice = require_optuna().distributions.CategoricalDistribution
    return {name: choice(values) for name, values in space.items()}


class Study:
    """An open study; make one with `opened`, try its configurations with `run`, read `records`."""

    def __init__(self, study: Any, space: Space, seed: int, first: Configuration) -> None:
        self._study, self._space, self._seed, self._first = study, space, seed, first
        self._states = require_optuna().trial.TrialState

    @property
    def closed(self) -> bool:
        """True once every trial is settled; nothing can join the study any more."""
        return bool(self._study.user_attrs.get("closed"))

    def run(
        self, trials: int, attempt: Callable[[int, Configuration], dict[str, Any]], pause: Callable[[], None]
    ) -> None:
        """Try ``trials`` different configurations, then close the study; what is settled already is not repeated.

        ``attempt(number, configuration)`` returns JSON-ready facts with the objective as ``value`` (higher is better).
        `TrialFailed`, arithmetic errors and running out of memory fail the trial, with the reason kept. `Interrupted`
        ends the study until it is opened again. ``pause()`` is called between trials and may raise `Interrupted`.
        """
        if self.closed:
            return
        if trials > size(self._space):
            raise FerReproError(
                f"{trials} trials were asked for, but the search space holds {size(self._space)} configurations: ask "
                "for fewer"
            )
        self._mark_killed()
        first: dict[tuple, int] = {}
        for number, configuration in enumerate(configurations(self._space, self._seed, self._first)):
            if len(first) == trials:
                break
            key, settled = tuple(configuration[name] for name in self._space), self._settled()
            if key in first:
                if number not in settled:
                    self._settle_duplicate(number, configuration, first[key])
                continue
            first[key] = number
            if number not in settled:
                pause()
                self._try(number, configuration, attempt)
        self._study.set_user_attr("closed", True)

    def records(self) -> list[dict[str, Any]]:
        """Every settled trial in order, JSON-ready: trial, state (complete, failed, duplicate), reason, attempts,
        configuration, and what the attempt returned."""
        attempts: dict[int, int] = {}
        for trial in self._trials():
            attempts[trial.user_attrs["number"]] = attempts.get(trial.user_attrs["number"], 0) + 1
        names = {self._states.COMPLETE: COMPLETE, self._states.FAIL: FAILED, self._states.PRUNED: DUPLICATE}
        return [
            {
                "trial": number,
                "state": names[trial.state],
                "reason": trial.user_attrs.get("reason", ""),
                "attempts": attempts[number],
                "configuration": {name: trial.params[name] for name in self._space},
            }
            | trial.user_attrs.get("outcome", {})
            for number, trial in sorted(self._settled().items())
        ]

    def _trials(self) -> list[Any]:
        return self._study.get_trials(deepcopy=False)

    def _settled(self) -> dict[int, Any]:
        """The trials that need no further attempt, by number."""
        return {
            trial.user_attrs["number"]: trial
            for trial in self._trials()
            if trial.state.is_finished() and not trial.user_attrs.get("again")
        }

    def _mark_killed(self) -> None:
        """A trial found running belongs to a process that is gone: failed, and its configuration comes again."""
        for trial in self._trials():
            if trial.state.is_finished():
                continue
            number = trial.user_attrs["number"]
            killed = 1 + sum(
                t.user_attrs["number"] == number and t.user_attrs.get("again") == "killed" for t in self._trials()
            )
            for_good = killed >= MOST_KILLS
            reason = f"the process was killed in this trial {killed} times" if for_good else "the process was killed"
            self._end(trial, self._states.FAIL, reason=reason, **({} if for_good else {"again": "killed"}))
            log.info(f"trial {number}: {reason}" + ("" if for_good else "; it goes on now"))

    def _settle_duplicate(self, number: int, configuration: Configuration, earlier: int) -> None:
        trial = self._begin(number, configuration)
        self._end(trial, self._states.PRUNED, reason=f"the configuration of trial {earlier}")
        log.info(f"trial {number}: the configuration of trial {earlier}, skipped")

    def _try(
        self, number: int, configuration: Configuration, attempt: Callable[[int, Configuration], dict[str, Any]]
    ) -> None:
        trial = self._begin(number, configuration)
        try:
            outcome = attempt(number, configuration)
        except Interrupted as stopped:
            self._end(trial, self._states.FAIL, reason="interrupted", again="interrupted")
            raise Interrupted(f"trial {number} of the search: {stopped}") from stopped
        except torch.AcceleratorError:
            # The device is lost to this process: later trials would fail for a reason that is not theirs.
            raise
        except (TrialFailed, RuntimeError, MemoryError, ArithmeticError) as error:
            told = (str(error).splitlines() or [""])[0][:200]
            reason = told if isinstance(error, TrialFailed) else f"{type(error).__name__}: {told}"
            self._end(trial, self._states.FAIL, reason=reason)
            log.info(f"trial {number} failed, the search goes on: {reason}")
        else:
            self._end(trial, self._states.COMPLETE, outcome["value"], outcome=outcome)

    def _begin(self, number: int, configuration: Configuration) -> Any:
        """Write a running trial with all its parameters in one transaction."""
        optuna = require_optuna()
        self._study.add_trial(
            optuna.trial.create_trial(
                state=self._states.RUNNING,
                params=configuration,
                distributions=_distributions(self._space),
                user_attrs={"number": number},
            )
        )
        return self._trials()[-1]

    def _end(self, trial: Any, state: Any, value: float | None = None, **attributes: Any) -> None:
        """The attributes first: a trial whose state is final has all of them."""
        live = require_optuna().trial.Trial(self._study, trial._trial_id)
        for name, content in attributes.items():
            live.set_user_attr(name, content)
        self._study.tell(trial.number, value, state)


@contextmanager
def opened(folder: Path, space: Space, seed: int, first: Configuration, identity: Mapping[str, Any]) -> Iterator[Study]:
    """The study kept in ``folder``, made if there is none; the caller must be the folder's only writer.

    ``first``: the configuration of trial 0, a member of ``space``. ``identity``: what the study belongs to (recipe,
    data, seed, device). Raises `FerReproError` for another identity, an unreadable file and a ``first`` outside.
    """
    outside = [name for name in {*space, *first} if first.get(name) not in space.get(name, ())]
    if outside:
        raise FerReproError(f"the first configuration does not lie in the search space: look at {', '.join(outside)}")
    with _quiet() as optuna:
        from sqlalchemy.exc import SQLAlchemyError

        folder.mkdir(parents=True, exist_ok=True)
        path, storage = folder / FILE, None
        try:
            storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
            study = optuna.create_study(
                storage=storage,
                study_name="random-search",
                direction="maximize",
                load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(seed=seed % 2**32),
            )
            _require_same(study, dict(identity), path)
            yield Study(study, space, seed, first)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise FerReproError(
                f"the study {path} cannot be read or written ({type(error).__name__}): free some space, or delete that "
                "file (or run without resume) to begin the search anew"
            ) from error
        finally:
            if storage is not None:
                storage.remove_session()
                storage.engine.dispose()


def _require_same(study: Any, identity: dict[str, Any], path: Path) -> None:
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", identity)
        return
    for name, value in identity.items():
        if known.get(name) != value:
            raise FerReproError(
                f"the study {path} belongs to another {name} ({str(known.get(name))[:12]}, this run has "
                f"{str(value)[:12]}): use another runs folder, or run without resume to overwrite it"
            )


def discard(folder: Path) -> None:
    """Forget the study of ``folder`` and everything its trials left there."""
    for left in folder.glob(f"{FILE}*"):
        left.unlink(missing_ok=True)
    for left in folder.glob("trial-*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def best(records: list[dict[str, Any]], value: Callable[[dict[str, Any]], float] | None = None) -> dict[str, Any]:
    """The complete trial of the highest value, the earliest of equals; `FerReproError` where no trial completed."""
    complete = [record for record in records if record["state"] == COMPLETE]
    if not complete:
        reasons = "; ".join(dict.fromkeys(record["reason"] for record in records if record["state"] == FAILED))
        raise FerReproError(f"none of the {len(records)} trials of the search completed ({reasons}): mend that first")
    return max(complete, key=value or (lambda record: record["value"]))


def fanova(records: list[dict[str, Any]], space: Space) -> dict[str, float] | None:
    """Importance of each hyper-parameter by Optuna's functional ANOVA (Hutter et al. 2014), from records alone.

    Shares of the variance that a random forest fitted to the trials explains; they sum to 1 even where there is nothing
    to explain. None for fewer than two complete trials or equal values.
    """
    complete = [record for record in records if record["state"] == COMPLETE]
    if len({record["value"] for record in complete}) < 2:
        return None
    with _quiet() as optuna:
        study = optuna.create_study(direction="maximize")
        for record in complete:
            study.add_trial(
                optuna.trial.create_trial(
                    params=record["configuration"], distributions=_distributions(space), value=record["value"]
                )
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(found.get(name, 0.0)) for name in space}


def pretence(hits: Mapping[int, np.ndarray], chosen: int) -> dict[str, Any]:
    """What choosing on the scored images would have pretended; ``hits``: trial -> bool [N], was image i right.

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
