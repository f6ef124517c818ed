"""How the sections of the comparisons write a model, a difference and a p-value."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from fer_repro.comparisons import Entry
from fer_repro.markup import Html, interval, note, percent, small, text
from fer_repro.plots.matrix import PRINTED
from fer_repro.results import UNFINISHED, Result

NOTHING = "no result is stored that was scored on PrivateTest. This scores a small one: fer-repro run baseline --seed 0"
ONE = "only one model that may decide is stored, so there is nothing to compare it with"
LETTERS = 34
"""Of a line beside a picture: as long as the longest names of variants."""
MARK = (
    "*: decides nothing, because the run is unfinished, was made under the claimed protocol, or its model was or may "
)
MARK += "have been trained or selected on test images."


def nothing(what: str = "") -> Html:
    """What a section shows where nothing is stored."""
    said = f"{what}: {NOTHING}" if what else NOTHING
    return Html(note("Nothing to show:", text(said)), said)


def one_only(what: str) -> Html:
    """What a section shows where a single model is stored."""
    return Html(note("Nothing to compare:", text(f"{what}: {ONE}.")), f"{what}: {ONE}")


def points(difference: float) -> str:
    """0.0123 -> "+1.23"."""
    return f"{100 * difference:+.2f}"


def points_with_interval(difference: float, low: float, high: float) -> str:
    """A difference in points, and its interval below in small text; markup."""
    return f"{points(difference)}<br>{small(f'{points(low)} to {points(high)}')}"


def p_value(p: float | None) -> str:
    """0.0123 -> "0.012"."""
    if p is None:
        return "not tested"
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def starred(entry: Entry) -> str:
    """The name of a model, with a star where it decides nothing."""
    return entry.name + ("" if entry.decides else "\u00a0*")


def tick_names(entries: Sequence[Entry]) -> list[str]:
    """Names for the side of a picture; where there is room, a long one has what is in brackets on a line of its own."""
    return [in_lines(starred(entry)) if len(entries) <= PRINTED else starred(entry) for entry in entries]


def in_lines(name: str) -> str:
    """A name in lines of at most `LETTERS`, of which the bracket begins one."""
    if len(name) <= LETTERS:
        return name
    parts = name.replace(" (", "\n(").split("\n")
    return "\n".join(textwrap.fill(part, LETTERS) for part in parts)


def named(entry: Entry) -> str:
    """Name and remark of a model as a cell; markup. Its name and the star say enough of an unfinished run."""
    why = "" if entry.decides or entry.kind == UNFINISHED else entry.why_not
    said = "; ".join(filter(None, (entry.remark or why, one_answer(entry))))
    return f"{text(starred(entry))}<br>{small(said)}" if said else text(starred(entry))


def one_answer(entry: Entry) -> str:
    """Which runs of a model predict one class for every image; empty where none does."""
    if len(entry.runs) == 1:
        return entry.runs[0].one_class
    return ", ".join(f"seed {run.seed} {run.one_class}" for run in entry.runs if run.one_class)


def one_class_runs(entries: Iterable[Entry]) -> list[tuple[Entry, Result]]:
    """The runs that answer one class for every image: no average has them, as it would be about a failed training."""
    return [(entry, run) for entry in entries for run in entry.runs if run.one_class]


def without(left_out: Iterable[tuple[Entry, Result]]) -> str:
    """What a sentence with an average ends with where it leaves runs out; empty where there are none."""
    each = [
        entry.name + ("" if run.record["seed"] is None else f" seed\u00a0{run.seed}") + f", which {run.one_class}"
        for entry, run in left_out
    ]
    return f", without {listed(each)}" if each else ""


def runs_of(entry: Entry) -> str:
    """ "3 seeds", "1 seed", "1 model"."""
    if entry.kind != "full":
        return "1 run" if entry.kind == "unfinished" else "1 model"
    return count(len(entry.runs), "seed")


def count(n: int, what: str, many: str = "") -> str:
    """2, "pair" -> "2 pairs"."""
    return f"{n:,} {what if n == 1 else many or what + 's'}"


def listed(names: Sequence[str], most: int = 8) -> str:
    """ "a, b and c"; of very many the first ones and how many more."""
    shown = list(names[:most])
    if len(names) > most:
        shown.append(f"{len(names) - most} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else "none"


def accuracy(entry: Entry) -> str:
    """Accuracy and interval of a model as a sentence has them."""
    return f"{percent(entry.accuracy)} ({interval(entry.interval)})"
