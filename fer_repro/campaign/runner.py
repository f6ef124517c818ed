"""Several runs, one after another or side by side: their order, and how each ended."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from fer_repro import papers, results
from fer_repro.campaign import Outcome, Task, workers
from fer_repro.durations import parse as duration  # noqa: F401 - who plans a campaign finds it here
from fer_repro.errors import FerReproError
from fer_repro.logs import rewritten, shown
from fer_repro.parameters import RunOptions
from fer_repro.processes import interrupting
from fer_repro.training.execution import resolve_device
from fer_repro.training.run import Interrupted

if TYPE_CHECKING:
    from fer_repro.training.interleave import Turn

LeftFor = Callable[..., float | None]
Reserve = Callable[[Task, float, bool], float]


def sorter(needed: Mapping[Task, Iterable[Task]]) -> TopologicalSorter[Task]:
    """Gives out each task after those it needs. Raises `FerReproError` where tasks need each other."""
    found = TopologicalSorter(needed)
    try:
        found.prepare()
    except CycleError as error:
        names = ", ".join(map(str, error.args[1][1:]))
        raise FerReproError(f"{names} require each other: correct `requires` in their paper modules") from error
    return found


def side_by_side(tasks: Iterable[Task]) -> list[list[Task]]:
    """Waves of runs that may go on at the same time, in the order of ``tasks`` (each after what it needs).

    No task needs another of its wave; and no two of a wave need the same run, which has one writer.
    """
    tasks, waves = list(dict.fromkeys(tasks)), []
    needed = {task: {Task(name, task.seed) for name in papers.needs(task.variant)} for task in tasks}
    sharing = {task: {other for other in tasks[:i] if needed[other] & needed[task]} for i, task in enumerate(tasks)}
    waiting = sorter({task: (needed[task] & set(tasks)) | sharing[task] for task in tasks})
    while waiting.is_active():
        waves.append(sorted(waiting.get_ready(), key=tasks.index))
        waiting.done(*waves[-1])
    return waves


def seeds_together(tasks: Iterable[Task]) -> list[list[Task]]:
    """Waves of one variant each, all its seeds at once, in the order in which variants first come."""
    found: dict[str, list[Task]] = {}
    for task in dict.fromkeys(tasks):
        found.setdefault(task.variant, []).append(task)
    return list(found.values())


def check(tasks: Iterable[Task], options: RunOptions, writes: bool = True) -> None:
    """Refuse a wrong value before the first run, not after it. Raises `FerReproError`.

    Where not all tasks are stored, ``results`` must be writable, unless nothing is to be run (``writes`` is False).
    """
    where = options.results_path
    for task in (tasks := list(tasks)):
        options.check(task.variant, task.seed)
    if writes and options.profile == "full" and options.epochs is None:
        kind = results.stored_as(options.modified_copy())
        if not all(results.is_stored(where, task.variant, options.protocol, task.seed, *kind) for task in tasks):
            results.require_writable(where)


@shown()
def run(
    waves: list[list[Task]],
    options: RunOptions,
    *,
    jobs: int = 1,
    budget: float | None = None,
    reserve: Reserve = lambda task, left, whole: 0.0,
    together: bool = False,
) -> list[Outcome]:
    """Run all tasks; a failure does not stop the others, the end of the ``budget`` (seconds) or Ctrl-C does.

    With ``jobs`` > 1 each task is a process of its own: they share the processor's cores, and each has its own GPU.
    With ``together`` the tasks of a wave share this process. ``reserve(task, left, whole)``: seconds of the ``left``
    ones that must stay free when the task's training stops; ``whole``: nothing of the budget was used before it.
    """
    deadline = None if budget is None else time.monotonic() + budget
    outcomes: list[Outcome] = []
    whole = True

    def left_for(*tasks: Task) -> float | None:
        """Seconds that the next tasks may train; None without a budget."""
        nonlocal whole
        left = _left(deadline)
        if left is None or left <= 0:
            return left
        kept = sum(reserve(task, left, whole) for task in tasks)  # they are scored one after the other
        whole = False
        return left - (kept if len(tasks) == 1 else min(left / 2, kept))

    stopped = False
    with interrupting():
        for wave in waves:
            if jobs > 1 and len(wave) > 1:
                done = workers.run(wave, options, jobs, deadline)
            else:
                done = (_together if together and len(wave) > 1 else _one_by_one)(wave, options, left_for)
            outcomes += done
            stopped = any(outcome.state == "stopped" for outcome in done)
            if stopped or len(done) < len(wave):
                break
    ended, left = {outcome.task for outcome in outcomes}, _left(deadline)
    why = "" if left is None or stopped else f"time budget used up ({max(0.0, left):.0f} s left)"
    return outcomes + [Outcome(task, "not started", why) for wave in waves for task in wave if task not in ended]


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.monotonic()


def _one_by_one(wave: list[Task], options: RunOptions, left_for: LeftFor) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for task in wave:
        left = left_for(task)
        # The first one may have something to keep, which takes no training.
        if left is not None and left <= 0 and (outcomes or not options.keep_unfinished):
            break
        outcomes.append(_attempt(task, options, left))
        if outcomes[-1].state == "stopped":
            break
    return outcomes


def _attempt(task: Task, options: RunOptions, left: float | None, turn: Turn | None = None) -> Outcome:
    """One run in this process, and how it ended."""
    from fer_repro.reproduce import reproduce

    options = options.of(task.variant)
    try:
        result = reproduce(task.variant, seed=task.seed, time_budget=left, turn=turn, **vars(options))
    except Interrupted as stop:
        return Outcome(task, "stopped", str(stop), stop.needs)
    except KeyboardInterrupt:
        return Outcome(task, "stopped", "interrupted; it goes on from its last checkpoint")
    except FerReproError as error:
        return Outcome(task, "failed", str(error))
    except Exception as error:  # noqa: BLE001 - shown with its traceback; a defect of one run must not stop the others
        traceback.print_exc()
        return Outcome(task, "failed", f"{type(error).__name__}: {error}")
    return Outcome(task, "done" if result.status in results.FINISHED else "failed", _headline(result))


def _together(wave: list[Task], options: RunOptions, left_for: LeftFor) -> list[Outcome]:
    """All tasks of the wave in this process, a batch each in turn; see `fer_repro.training.interleave`."""
    from fer_repro.training.execution import one_thread
    from fer_repro.training.interleave import interleave

    left = left_for(*wave)
    if left is not None and left <= 0:
        return []
    end = None if left is None else time.monotonic() + left

    def work(task: Task) -> Callable[[Turn], Outcome]:
        def attempt(turn: Turn) -> Outcome:
            with rewritten(lambda line: f"[{task}] {line}"):
                return _attempt(task, options, _left(end), turn)

        return attempt

    with one_thread() if options.profile == "smoke" else nullcontext():
        return interleave([work(task) for task in wave], resolve_device(options.device))


def _headline(result: Any) -> str:
    score = result.headline
    low, high = score["interval"]
    text = f"{100 * score['accuracy']:.2f} % of {score['n']:,} ({100 * low:.2f} to {100 * high:.2f} %)"
    remarks = ["synthetic faces - not a result"] if result.synthetic else []
    remarks += [result.changed_data] if result.modified else []
    remarks += [] if result.status == "done" else [f"status {result.status}"]
    return "; ".join([text, *remarks])
