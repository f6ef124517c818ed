"""A campaign: many runs in a sensible order, as far as a time budget goes; the same command goes on from there.

Leaderboard rows come before ablations, all runs of a seed before the next seed, and of these the one that is nearest
to its end. A run never comes before one whose fitted model it needs. A run that does not fit into the budget is begun
and stopped at a checkpoint.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from fer_repro import papers, results
from fer_repro.campaign import Outcome, Task, runner
from fer_repro.campaign.estimate import Estimator, Remaining
from fer_repro.logs import shown
from fer_repro.parameters import RunOptions
from fer_repro.training.progress import duration

log = logging.getLogger(__name__)

STORED, TO_DO, UNKNOWN, STUCK = range(4)


@dataclass(frozen=True)
class Entry:
    """One run of a plan. ``seconds``: what it still needs (None: unknown), with the ``teachers`` (runs it builds on
    that nobody has fitted before it); ``at_most`` where patience may end it sooner; ``text``: how far all this is."""

    task: Task
    remaining: Remaining
    seconds: float | None
    at_most: bool
    teachers: tuple[Task, ...]
    text: str

    @property
    def group(self) -> int:
        """Stored runs, runs with an estimate, runs without one, runs that gain nothing: each before the next."""
        if self.remaining.state in ("stored", "stuck"):
            return STORED if self.remaining.state == "stored" else STUCK
        return UNKNOWN if self.seconds is None else TO_DO

    @property
    def estimate(self) -> str:
        """For example "at most 3 h 05 min"."""
        words = {STORED: "-", STUCK: "nothing to gain", UNKNOWN: "unknown"}
        return words.get(self.group) or f"{'at most' if self.at_most else 'about'} {duration(self.seconds)}"

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
    def cumulative(self) -> list[float]:
        """Seconds until each run has ended, one at a time, without those that have no estimate."""
        return list(accumulate(entry.seconds if entry.group == TO_DO else 0.0 for entry in self.entries))

    @property
    def seconds(self) -> float:
        """What all runs with an estimate need, one at a time."""
        return sum(entry.seconds for entry in self.in_group(TO_DO))

    @property
    def total(self) -> str:
        """`seconds` as a text, with the number of runs that it does not count."""
        left, unknown = self.in_group(TO_DO), len(self.in_group(UNKNOWN))
        word = "at most" if any(entry.at_most for entry in left) else "about"
        known = [f"{word} {duration(self.seconds)}"] if left else []
        return ", and ".join(known + ([f"{unknown} without an estimate"] if unknown else []))

    def rows(self) -> list[list[str]]:
        """Run, state, estimate, cumulative, how the estimate was made: a table's cells."""
        return [
            [str(e.task), e.text, e.estimate, duration(so_far) if e.group == TO_DO else "-", e.source]
            for e, so_far in zip(self.entries, self.cumulative, strict=True)
        ]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; seconds are None where unknown."""
        runs = [
            {
                "variant": entry.task.variant,
                "seed": entry.task.seed,
                "state": entry.remaining.state,
                "told": entry.text,
                "seconds": entry.seconds if entry.group in (TO_DO, UNKNOWN) else 0.0,
                "at_most": entry.at_most,
                "source": entry.source,
                "with": [vars(task) for task in entry.teachers],
                "cumulative_seconds": so_far,
            }
            for entry, so_far in zip(self.entries, self.cumulative, strict=True)
        ]
        return {"device": self.device, "seconds": self.seconds, "runs": runs}


def plan(tasks: Iterable[Task], estimator: Estimator) -> Plan:
    """Put ``tasks`` into the order of a campaign, each with what it still needs.

    Raises `FerReproError` where runs require each other.
    """
    places = {task: place for place, task in enumerate(dict.fromkeys(tasks))}
    remaining = {task: estimator.remaining(task) for task in places}
    needed = {task: estimator.required(task) if remaining[task].state != "stored" else [] for task in places}
    costs = {task: estimator.fitting(task) for teachers in needed.values() for task in teachers}
    entries: list[Entry] = []
    fitted: set[Task] = set()  # by what was planned so far; a stored run trains nothing

    def entry(task: Task) -> Entry:
        own = remaining[task]
        teachers = tuple(other for other in needed[task] if other not in fitted)
        parts = [own.fitting, own.scoring or 0.0, *(costs[other].fitting for other in teachers)]
        seconds = None if None in parts else sum(parts)
        at_most = own.at_most or any(costs[other].at_most for other in teachers)
        after = f"; needs {', '.join(f'{other} ({costs[other].text})' for other in teachers)}" if teachers else ""
        return Entry(task, own, seconds, at_most, teachers, own.text + after)

    def rank(entry: Entry) -> tuple[Any, ...]:
        ablation = papers.get(entry.task.variant).ablation_of is not None
        return entry.group, ablation, entry.task.seed, entry.seconds or 0.0, places[entry.task]

    sorter = runner.sorter({task: places.keys() & needed[task] for task in places})
    ready: list[Task] = []
    while sorter.is_active():
        ready += sorter.get_ready()
        entries.append(min(map(entry, ready), key=rank))
        task = entries[-1].task
        fitted |= {*entries[-1].teachers} | ({task} if entries[-1].group != STORED else set())
        ready.remove(task)
        sorter.done(task)
    return Plan(tuple(entries), estimator.speeds.name)


def time_to_reserve(estimator: Estimator) -> runner.Reserve:
    """How much of a budget must stay free when a run's training stops: the time to score it, or to save it.

    The function takes the run, the seconds left and whether they are the whole budget, and returns seconds.
    """

    def reserve(task: Task, left: float, whole: bool) -> float:
        if estimator.stored(task):
            return 0.0
        teachers = [estimator.tail(each, teacher=True) for each in estimator.builds_on(task)]
        tail = max([*teachers, estimator.tail(task)])
        if tail <= left / 2:
            return tail
        if not whole:
            return left  # the next command begins it with a whole budget
        log.info(
            f"{task}: scoring and saving may take {duration(tail)} and cannot stop in between; {duration(left)} of "
            "the time budget are left, so it may be overrun"
        )
        return left / 2  # a run with a long end could otherwise never continue

    return reserve


@shown()
def run(
    tasks: Iterable[Task],
    options: RunOptions,
    *,
    jobs: int = 1,
    budget: float | None = None,
    estimator: Estimator | None = None,
    together: bool = False,
) -> list[Outcome]:
    """Run ``tasks`` in the order of their plan; of stored ones the result is read. See `runner.run`.

    ``together``: all seeds of a variant at once, in this process.
    """
    began, estimator, tasks = time.monotonic(), estimator or Estimator(options), list(dict.fromkeys(tasks))
    order = [entry.task for entry in plan(tasks, estimator).entries] if len(tasks) > 1 else tasks
    stored = [task for task in order if estimator.stored(task)]
    rest = [task for task in order if task not in stored]
    # Reading what is stored trains nothing, so it needs no budget and no process of its own.
    outcomes = runner.run([stored], options) if stored else []
    if together:
        waves = runner.seeds_together(rest)
    else:
        waves = [[task] for task in rest] if jobs == 1 else runner.side_by_side(rest)
    reserve = time_to_reserve(estimator)
    budget = None if budget is None else budget - (time.monotonic() - began)  # planning takes of it too
    return outcomes + runner.run(waves, options, jobs=jobs, budget=budget, reserve=reserve, together=together)


def verify(outcomes: Iterable[Outcome], before: Iterable[Task], estimator: Estimator) -> tuple[int, list[str]]:
    """Check the result folders that were not there ``before``, and those of what was kept of stopped runs: how many of
    the former, and one sentence for each problem."""
    known, options, outcomes = set(before), estimator.options, list(outcomes)
    new = [o.task for o in outcomes if o.task not in known and estimator.stored(o.task)]
    stopped = [o.task for o in outcomes if o.state == "stopped" and options.keep_unfinished]
    places = [estimator.place(task) for task in new]
    where, protocol = estimator.results_dir, options.protocol
    kept = [(where, task.variant, protocol, task.seed, results.UNFINISHED) for task in stopped]
    folders = [results.folder_of(*place) for place in (*places, *kept) if results.is_stored(*place)]
    return len(new), results.verify(estimator.results_dir, folders=folders)


def next_runs(outcomes: Iterable[Outcome], estimator: Estimator) -> list[str]:
    """What the same command would do next, in lines; none where nothing is left."""
    left = [outcome.task for outcome in outcomes if outcome.state in ("stopped", "not started")]
    if not left:
        return []
    ahead = plan(left, estimator)
    first = ahead.entries[0]
    how = f" ({first.source})" if first.source else ""
    lines = [f"next: {first.task}, {first.text}, {first.estimate}{how}"]
    if (number := len(ahead.in_group(TO_DO, UNKNOWN))) > 1:
        lines.append(f"to do: {number} runs, {ahead.total} on {ahead.device}, one at a time")
    return lines
