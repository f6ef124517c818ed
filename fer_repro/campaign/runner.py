"""Several runs, one after another or side by side: their order, what skips, what stops, and what is said at the end."""

from __future__ import annotations

import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from fer_repro import papers, parameters, results
from fer_repro.campaign import workers
from fer_repro.campaign.tasks import Options, Outcome, Task
from fer_repro.errors import FerReproError
from fer_repro.logs import rewritten, shown
from fer_repro.project import default_results_dir
from fer_repro.training.execution import resolve_device
from fer_repro.training.run import Interrupted

if TYPE_CHECKING:
    from fer_repro.training.interleave import Turn

UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def duration(text: str) -> float:
    """ "90", "90s", "45m", "1.5h", "2d" -> seconds. Raises `FerReproError`."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?\s*", text)
    if match is None or float(match[1]) == 0:
        raise FerReproError(f"the time budget {text!r} is no duration: write seconds, or 45m, 2h, 1.5h, 1d")
    return float(match[1]) * UNITS[match[2] or "s"]


def ordered(variants: Iterable[str], seeds: Iterable[int]) -> list[list[Task]]:
    """Waves of tasks: no task needs another of its own wave or a later one. Unknown variants raise `FerReproError`.

    What a variant requires and nobody named is fitted inside its own run.
    """
    left = list(dict.fromkeys(papers.get(name).id for name in variants))
    seeds = list(dict.fromkeys(seeds))
    waves = []
    while left:
        ready = [name for name in left if not papers.needs(name) & set(left)]
        if not ready:
            raise FerReproError(f"{', '.join(left)} require each other: mend `requires` in their paper modules")
        waves.append([Task(name, seed) for name in ready for seed in seeds])
        left = [name for name in left if name not in ready]
    return waves


def side_by_side(tasks: Iterable[Task]) -> list[list[Task]]:
    """Waves that keep the order of ``tasks`` as far as several at a time can.

    As in `ordered` no task needs another of its wave; and no two of a wave need the same run, which has one writer.
    """
    left, waves = list(dict.fromkeys(tasks)), []
    while left:
        wave: list[Task] = []
        busy: set[Task] = set()
        for task in left:
            needed = {Task(name, task.seed) for name in papers.needs(task.variant)}
            if not needed & busy and not needed & set(left):
                wave.append(task)
                busy |= needed
        if not wave:
            raise FerReproError(f"{', '.join(map(str, left))} require each other: mend `requires` in their modules")
        waves.append(wave)
        left = [task for task in left if task not in wave]
    return waves


def seeds_together(tasks: Iterable[Task]) -> list[list[Task]]:
    """Waves of one variant each, all its seeds at once, in the order in which variants first come."""
    found: dict[str, list[Task]] = {}
    for task in dict.fromkeys(tasks):
        found.setdefault(task.variant, []).append(task)
    return list(found.values())


def check(waves: list[list[Task]], options: Options) -> None:
    """Refuse a wrong word before the first run, not after it. Raises `FerReproError`."""
    for task in (task for wave in waves for task in wave):
        values = {name: getattr(options, name) for name in parameters.FIELDS if hasattr(options, name)}
        parameters.check(values | {"variant": task.variant, "seed": task.seed})
    if options.profile == "full" and options.epochs is None:
        results.require_writable(Path(options.results_dir) if options.results_dir else default_results_dir())


class Watch:
    """What somebody who follows the runs may want to do around each of them; this one does nothing."""

    def reserve(self, task: Task, left: float) -> float:
        """Seconds of the ``left`` ones that must stay free when the task's training stops."""
        return 0.0

    def around(self, task: Task) -> AbstractContextManager[None]:
        """Entered before and left after a run, however it ends."""
        return nullcontext()


@shown()
def run(
    waves: list[list[Task]],
    options: Options,
    *,
    jobs: int = 1,
    budget: float | None = None,
    watch: Watch | None = None,
    together: bool = False,
) -> list[Outcome]:
    """Run all tasks; a failure does not stop the others, the end of the ``budget`` (seconds) or Ctrl-C does.

    With ``jobs`` > 1 each task is a process of its own: they share the processor's cores, and GPUs are dealt out. With
    ``together`` the tasks of a wave share this process. ``watch`` follows the runs of this process.
    """
    deadline = None if budget is None else time.monotonic() + budget
    outcomes: list[Outcome] = []
    with _interrupting():
        for wave in waves:
            if together and len(wave) > 1:
                done = _together(wave, options, deadline, watch or Watch())
            elif jobs == 1 or len(wave) == 1:
                done = _serial(wave, options, deadline, watch or Watch())
            else:
                done = workers.run(wave, options, jobs, deadline)
            outcomes += done
            if len(done) < len(wave) or any(outcome.state == "stopped" for outcome in done):
                break
    told, why = {outcome.task for outcome in outcomes}, ""
    if (left := _left(deadline)) is not None and not any(outcome.state == "stopped" for outcome in outcomes):
        why = f"time budget used up ({max(0.0, left):.0f} s left)"
    return outcomes + [Outcome(task, "not started", why) for wave in waves for task in wave if task not in told]


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _interrupting() -> Iterator[None]:
    """SIGINT and SIGTERM are a `KeyboardInterrupt` inside the block, also where SIGINT was ignored from the start.

    A shell without job control lets its background processes ignore it, and children inherit that; with a handler here
    they start with the default one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _as_ctrl_c) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.monotonic()


def _serial(wave: list[Task], options: Options, deadline: float | None, watch: Watch) -> list[Outcome]:
    outcomes = []
    for task in wave:
        left = _budget(task, deadline, watch)
        if left is not None and left <= 0:
            break
        with watch.around(task):
            outcomes.append(_attempt(task, options, left))
        if outcomes[-1].state == "stopped":
            break
    return outcomes


def _budget(task: Task, deadline: float | None, watch: Watch) -> float | None:
    """Seconds that a task may train; None without a deadline."""
    left = _left(deadline)
    return left if left is None or left <= 0 else left - watch.reserve(task, left)


def _attempt(task: Task, options: Options, left: float | None, turn: Turn | None = None) -> Outcome:
    """One run in this process, and how it ended."""
    from fer_repro.reproduce import reproduce

    try:
        result = reproduce(task.variant, seed=task.seed, time_budget=left, turn=turn, **_keywords(options))
    except Interrupted as stop:
        return Outcome(task, "stopped", str(stop))
    except KeyboardInterrupt:
        return Outcome(task, "stopped", "interrupted; it goes on from its last checkpoint")
    except FerReproError as error:
        return Outcome(task, "failed", str(error))
    except Exception as error:  # noqa: BLE001 - told with its traceback; no defect of one run may cost the others
        traceback.print_exc()
        return Outcome(task, "failed", f"{type(error).__name__}: {error}")
    return Outcome(task, "done" if result.status in results.FINISHED else "failed", _headline(result))


def _together(wave: list[Task], options: Options, deadline: float | None, watch: Watch) -> list[Outcome]:
    """All tasks of the wave in this process, a batch each in turn; see `fer_repro.training.interleave`."""
    from fer_repro.training.execution import one_thread
    from fer_repro.training.interleave import take_turns

    left = _left(deadline)
    if left is not None and left > 0:  # they score one after the other
        left -= min(left / 2, sum(watch.reserve(task, left) for task in wave))
    if left is not None and left <= 0:
        return []
    end = None if left is None else time.monotonic() + left

    def work(task: Task) -> Callable[[Turn], Outcome]:
        def attempt(turn: Turn) -> Outcome:
            with rewritten(lambda line: f"[{task}] {line}"):
                return _attempt(task, options, _left(end), turn)

        return attempt

    with one_thread() if options.profile == "smoke" else nullcontext():
        return take_turns([work(task) for task in wave], resolve_device(options.device))


def _keywords(options: Options) -> dict[str, Any]:
    texts = {name: getattr(options, name) or None for name in ("results_dir", "runs_dir", "root")}
    return {name: value for name, value in vars(options).items() if name not in texts} | texts


def _headline(result: Any) -> str:
    score = result.headline
    low, high = score["interval"]
    words = f"{100 * score['accuracy']:.2f} % of {score['n']:,} ({100 * low:.2f} to {100 * high:.2f} %)"
    synthetic = "; synthetic faces - not a result" if result.synthetic else ""
    return words + synthetic + ("" if result.status == "done" else f"; status {result.status}")
