"""A campaign: many runs in a sensible order, as far as a time budget goes, and the same command goes on from there.

Leaderboard rows come before ablations, all runs of a seed before the next seed, and of these the one that is nearest
to its end. A run never comes before one whose fitted model it needs. What does not fit the budget is begun all the
same and stopped at a checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fer_repro import papers, results
from fer_repro.campaign import runner
from fer_repro.campaign.estimate import Estimator, Remaining
from fer_repro.campaign.tasks import Options, Outcome, Task
from fer_repro.errors import FerReproError
from fer_repro.logs import shown
from fer_repro.training.progress import duration

log = logging.getLogger(__name__)

STORED, TO_DO, UNKNOWN, STUCK = range(4)


@dataclass(frozen=True)
class Entry:
    """One run of a plan. ``seconds``: what it still needs (None: unknown), with the ``teachers`` (runs it builds on
    that nobody has fitted before it); ``at_most`` where patience may end it sooner."""

    task: Task
    remaining: Remaining
    seconds: float | None
    at_most: bool
    teachers: tuple[Task, ...] = ()
    first: str = ""  # how far the teachers have come, in words

    @property
    def told(self) -> str:
        """How far the run has come, and what must be fitted before it."""
        return self.remaining.told + self.first

    @property
    def group(self) -> int:
        """Stored runs, runs with an estimate, runs without one, runs that gain nothing: each before the next."""
        if self.remaining.state == "stored":
            return STORED
        if self.remaining.state == "stuck":
            return STUCK
        return UNKNOWN if self.seconds is None else TO_DO

    @property
    def estimate(self) -> str:
        """For example "at most 3 h 05 min"."""
        if self.group in (STORED, STUCK):
            return "-" if self.group == STORED else "nothing to gain"
        if self.seconds is None:
            return "unknown"
        return f"{'at most' if self.at_most else 'about'} {duration(self.seconds)}"

    @property
    def source(self) -> str:
        """How the estimate was made."""
        return self.remaining.source if self.group in (TO_DO, UNKNOWN) else ""


@dataclass(frozen=True)
class Plan:
    """Runs in the order in which they are taken up."""

    entries: tuple[Entry, ...]
    device: str

    def in_group(self, *groups: int) -> list[Entry]:
        return [entry for entry in self.entries if entry.group in groups]

    @property
    def seconds(self) -> float:
        """What all runs with an estimate need, one at a time."""
        return sum(entry.seconds or 0.0 for entry in self.in_group(TO_DO))

    @property
    def total(self) -> str:
        """That in words, with what is not in it."""
        left, unknown = self.in_group(TO_DO), len(self.in_group(UNKNOWN))
        word = "at most" if any(entry.at_most for entry in left) else "about"
        known = [f"{word} {duration(self.seconds)}"] if left else []
        return ", and ".join(known + ([f"{unknown} without an estimate"] if unknown else []))

    def rows(self) -> list[list[str]]:
        """Run, state, estimate, cumulative, how the estimate was made: a table's cells."""
        rows, so_far = [], 0.0
        for entry in self.entries:
            so_far += (entry.seconds or 0.0) if entry.group == TO_DO else 0.0
            cumulative = duration(so_far) if entry.group == TO_DO else "-"
            rows.append([str(entry.task), entry.told, entry.estimate, cumulative, entry.source])
        return rows

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; seconds are None where unknown."""
        runs, so_far = [], 0.0
        for entry in self.entries:
            needed = entry.seconds if entry.group in (TO_DO, UNKNOWN) else 0.0
            so_far += needed or 0.0
            runs.append(
                {
                    "variant": entry.task.variant,
                    "seed": entry.task.seed,
                    "state": entry.remaining.state,
                    "told": entry.told,
                    "seconds": needed,
                    "at_most": entry.at_most,
                    "source": entry.source,
                    "with": [vars(task) for task in entry.teachers],
                    "cumulative_seconds": so_far,
                }
            )
        return {"device": self.device, "seconds": self.seconds, "runs": runs}


def plan(tasks: Iterable[Task], estimator: Estimator) -> Plan:
    """Put ``tasks`` into the order of a campaign, each with what it still needs.

    Raises `FerReproError` where runs require each other.
    """
    left = list(dict.fromkeys(tasks))
    remaining = {task: estimator.remaining(task) for task in left}
    needed = {task: estimator.required(task) if remaining[task].state != "stored" else [] for task in left}
    costs = {task: estimator.fitting(task) for teachers in needed.values() for task in teachers}
    entries: list[Entry] = []
    fitted: set[Task] = set()  # by what was planned so far; a stored run trains nothing
    while left:
        ready = [task for task in left if not set(needed[task]) & set(left)]
        if not ready:
            raise FerReproError(f"{', '.join(map(str, left))} require each other: mend `requires` in their modules")
        first = min((_entry(task, remaining, needed, costs, fitted) for task in ready), key=_rank)
        entries.append(first)
        fitted |= {*first.teachers} | ({first.task} if first.group != STORED else set())
        left.remove(first.task)
    return Plan(tuple(entries), estimator.speeds.name)


def _entry(
    task: Task,
    remaining: dict[Task, Remaining],
    needed: dict[Task, list[Task]],
    costs: dict[Task, Remaining],
    fitted: set[Task],
) -> Entry:
    own = remaining[task]
    teachers = [other for other in needed[task] if other not in fitted]
    parts = [own.fitting, own.scoring or 0.0, *(costs[other].fitting for other in teachers)]
    seconds = None if any(part is None for part in parts) else sum(parts)
    first = f"; needs {', '.join(f'{other} ({costs[other].told})' for other in teachers)}" if teachers else ""
    at_most = own.at_most or any(costs[other].at_most for other in teachers)
    return Entry(task, own, seconds, at_most, tuple(teachers), first)


def _rank(entry: Entry) -> tuple[Any, ...]:
    ablation = papers.get(entry.task.variant).ablation_of is not None
    return entry.group, ablation, entry.task.seed, entry.seconds or 0.0


class _Watch(runner.Watch):
    """Keeps the end of the budget free for scoring, and notes how fast each run was."""

    def __init__(self, estimator: Estimator) -> None:
        self.estimator, self.fresh = estimator, True

    def reserve(self, task: Task, left: float) -> float:
        if self.estimator.stored(task):
            return 0.0
        tail = max(self.estimator.tail(each) for each in [*self.estimator.builds_on(task), task])
        if tail <= left / 2:
            return tail
        if not self.fresh:
            return left  # the next command begins it with a whole budget
        log.info(
            f"{task}: scoring and saving may take {duration(tail)} and cannot stop in between; {duration(left)} of "
            "the time budget are left, so it may be overrun"
        )
        return left / 2  # else a run with a long end would never get on

    @contextmanager
    def around(self, task: Task) -> Iterator[None]:
        estimator, self.fresh = self.estimator, False
        followed = [*estimator.builds_on(task), task] if estimator.keeps and not estimator.stored(task) else []
        followed = [each for each in followed if estimator.work(each.variant) is not None]
        before = {each: estimator.standing(each) for each in followed}
        try:
            yield
        finally:
            for each in followed:
                was, now, counted = before[each], estimator.now(each), estimator.work(each.variant)
                if now is not None:
                    flops, seconds = counted.done(now) - counted.done(was), now.seconds - (was.seconds if was else 0.0)
                    estimator.speeds.remember(each.variant, flops, seconds)


@shown()
def run(
    tasks: Iterable[Task],
    options: Options,
    *,
    jobs: int = 1,
    budget: float | None = None,
    estimator: Estimator | None = None,
    together: bool = False,
) -> list[Outcome]:
    """Run ``tasks`` in the order of their plan; what is stored is only told. See `schedule.run`.

    ``together``: all seeds of a variant at once, in this process.
    """
    estimator, tasks = estimator or Estimator(options), list(dict.fromkeys(tasks))
    order = [entry.task for entry in plan(tasks, estimator).entries] if len(tasks) > 1 else tasks
    stored = [task for task in order if estimator.stored(task)]
    rest = [task for task in order if task not in stored]
    # Telling what is stored trains nothing, so no budget stands in its way and no process of its own is started.
    outcomes = runner.run([stored], options) if stored else []
    if together:
        waves = runner.seeds_together(rest)
    else:
        waves = [[task] for task in rest] if jobs == 1 else runner.side_by_side(rest)
    watch = _Watch(estimator)
    return outcomes + runner.run(waves, options, jobs=jobs, budget=budget, watch=watch, together=together)


def verify(outcomes: Iterable[Outcome], before: Iterable[Task], estimator: Estimator) -> tuple[int, list[str]]:
    """Check the result folders that were not there ``before``: how many, and one sentence for each problem."""
    known, where = set(before), estimator.results_dir
    new = [o.task for o in outcomes if o.task not in known and estimator.stored(o.task)]
    folders = [results.folder_of(where, task.variant, estimator.options.protocol, task.seed) for task in new]
    return len(folders), results.verify(where, folders=folders)


def coming(outcomes: Iterable[Outcome], estimator: Estimator) -> list[str]:
    """What the same command would do next, in lines; none where nothing is left."""
    left = [outcome.task for outcome in outcomes if outcome.state in ("stopped", "not started")]
    if not left:
        return []
    ahead = plan(left, estimator)
    first = ahead.entries[0]
    how = f" ({first.source})" if first.source else ""
    lines = [f"next: {first.task}, {first.told}, {first.estimate}{how}"]
    if (number := len(ahead.in_group(TO_DO, UNKNOWN))) > 1:
        lines.append(f"to do: {number} runs, {ahead.total} on {ahead.device}, one at a time")
    return lines
