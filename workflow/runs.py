"""The runs of the workflow as one JSON document: which are to do, after which others, and the GPU hours of each.

    python workflow/runs.py '{"protocols": ["official"], "seeds": [0], "profile": "full"}'

`Snakefile` runs it in the project's environment, because Snakemake has one of its own. A run comes after those that fit
the models it needs, as in `fer-repro run --plan`. The models are those of the leaderboard,
or ``variants``; what they need is added and marked ``needed``. GPU hours are counted operations over an assumed speed
(`fer_repro.campaign.hours`), of the run alone, and None for a method without a network and for smoke runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from fer_repro import papers, results
from fer_repro.campaign import Task
from fer_repro.campaign.estimate import Estimator
from fer_repro.campaign.hours import gpu_hours
from fer_repro.claims import leaderboard_claims
from fer_repro.errors import FerReproError
from fer_repro.parameters import RunOptions

Row = dict[str, Any]


def table(
    variants: Sequence[str] = (),
    protocols: Sequence[str] = papers.PROTOCOLS,
    seeds: Sequence[int] = (0, 1, 2),
    profile: str = "full",
    results_dir: str = "",
    runs_dir: str = "",
) -> list[Row]:
    """Every run: variant, protocol, seed, chapter, whether it is ``stored`` or only ``needed``, the runs it comes
    ``after`` (of the same protocol), ``hours``, and ``folder``, where its result is stored.

    Raises `FerReproError` for unknown names.
    """
    names = list(variants) or [name for name, claim in leaderboard_claims().items() if claim.pinned]
    needed = sorted({other for name in names for other in papers.needs(name)} - set(names))
    rows = []
    for protocol in protocols:
        options = RunOptions(protocol, profile, results_dir=results_dir or None, runs_dir=runs_dir or None)
        tasks = [Task(name, seed) for name in [*names, *needed] for seed in seeds]
        for task in tasks:
            options.check_values(task.variant, task.seed)
        rows += _of_protocol(tasks, options, needed)
    return rows


def _of_protocol(tasks: Sequence[Task], options: RunOptions, needed: Sequence[str]) -> list[Row]:
    estimator, rows = Estimator(options), []
    fitted_by: dict[Task, Task] = {}  # a stored teacher without weights here is fitted by the first run that needs it
    for task in sorted(tasks, key=lambda task: len(estimator.builds_on(task))):
        stored, after = estimator.stored(task), []
        if not stored:
            after = [fitted_by[each] for each in estimator.builds_on(task) if each in fitted_by]
            new = [each for each in estimator.required(task) if each not in fitted_by]
            fitted_by |= dict.fromkeys([*new, task], task)
        rows.append(
            vars(task)
            | {
                "protocol": options.protocol,
                "slug": papers.get(task.variant).slug,
                "stored": stored,
                "needed": task.variant in needed,
                "after": [vars(other) for other in dict.fromkeys(after)],
                "hours": _hours(task.variant, options),
                "folder": str(results.folder_of(*estimator.place(task))),
            }
        )
    return rows


def _hours(variant: str, options: RunOptions) -> list[float] | None:
    """The fewest and the most GPU hours of a full run by itself."""
    if options.profile != "full":
        return None
    found = gpu_hours(variant, options.protocol, frozenset(papers.needs(variant)))
    return None if found.uncounted else [found.low, found.high]


def main(settings: Mapping[str, Any]) -> int:
    try:
        print(json.dumps(table(**settings)))
    except FerReproError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
