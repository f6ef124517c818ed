"""The box of a run: what was done, what it cost, what it recorded; and the closed one of a smoke test."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fer_repro import plots
from fer_repro.logs import LineHandler
from fer_repro.markup import (
    SMOKE_TEST,
    Html,
    absent,
    details,
    facts,
    note,
    per_second,
    percent,
    remark_note,
    seconds,
    table,
    text,
    whole,
)
from fer_repro.page.cards import computed_with, hardware
from fer_repro.page.recipe_table import one_line, settings_table
from fer_repro.page.setting_names import setting
from fer_repro.page.tables import stages_table
from fer_repro.plots.figure import Figure
from fer_repro.results import RELEASED, Result

# Facts that the chapters show in a section of their own.
SHOWN_APART = ("ladder", "windows", "trials", "attention", "blocks", "precision", "threads")
# The chapter on speed shows higher ones: the best of short turns, for which the other sides of the benchmark waited.
MEAN_SPEED = "mean of the whole run, with whatever else the machine did"
EPOCH_LINE = re.compile(r"\bepoch \d+/\d+")


class EpochLineHandler(LineHandler):
    """Prints a run's lines, or gives them to ``out``, but of the epochs only the first five, every tenth and the
    last."""

    def __init__(self, out: Callable[[str], None] = print) -> None:
        super().__init__()
        self.out = out
        self.epochs, self.held = 0, ""

    def write(self, line: str) -> None:
        if EPOCH_LINE.search(line):
            self.epochs += 1
            self.held = line if self.epochs > 5 and self.epochs % 10 else ""
            if self.held:
                return
        self.out(line)

    def close(self) -> None:
        """Print the last epoch if it was held back."""
        if self.held:
            self.out(self.held)
            self.held = ""
        super().close()


def run_box(result: Result) -> Html:
    """What was run, what it cost, where it comes from."""
    title = "Unfinished:" if result.unfinished and not result.label else "Not run:"
    notes = note(title, text(result.note)) if result.note else ""
    notes += "" if result.remark in result.note else remark_note(result.remark)
    body = notes + facts(_pairs(result, strong=True)) + _recorded(result)
    return Html(body, f"{result.variant}: {result.status}{f' ({result.remark})' if result.remark else ''}")


def _pairs(result: Result, strong: bool) -> list[tuple[str, str]]:
    record, accuracy = result.record, percent(result.headline["accuracy"])
    costs, epoch, speed = record["cost"], record["selected_epoch"], record["cost"].get("images_per_second")
    run = f"{result.variant}, {result.protocol} protocol, {result.profile} profile, seed {result.seed}"
    if result.kind == RELEASED:
        run = f"{result.variant}, released weights {result.name}"
    status = f"{result.status}, {result.progress}; decides nothing" if result.unfinished else result.status
    scored = result.halves[-1] if result.kind == RELEASED else result.scored
    if result.synthetic:
        scored = f"{whole(result.headline['n'])} synthetic faces in the place of {scored}"
    return [
        ("Run", text(run)),
        ("Status", text(status)),
        ("Selected", text(record["selection"] + ("" if absent(epoch) else f": epoch {epoch}"))),
        ("Accuracy", f"{f'<strong>{accuracy}</strong>' if strong else accuracy} on {text(scored)}"),
        ("Time", f"{seconds(costs.get('seconds'))} on {text(hardware(result))}"),
        *([] if absent(speed) else [("Training speed", f"{per_second(speed)} images/s, {MEAN_SPEED}")]),
        *([("Computed with", text(computed))] if (computed := computed_with(result)) else []),
        ("Data", text(f"{record['data']['name']}, sha256 {record['data']['digest'][:16]}…")),
        ("Code", text(record["code_version"])),
        ("Run date", text(record["ended"][:10])),
    ]


def _recorded(result: Result) -> str:
    """What the method recorded beside the scores: single values in one table, a series of like records in its own."""
    recorded = {name: value for name, value in result.record["facts"].items() if name not in SHOWN_APART}
    rows, series = [], ""
    for name, value in _named(recorded):
        if records := _series(value):
            series += _records(name, records)
        else:
            rows.append([text(name), text(one_line(value), "none")])
    body = (table(["Fact", "Value"], rows) if rows else "") + series
    return details("What the method recorded", body) if body else ""


def _named(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The values below a mapping, each with the names of the keys that lead to it."""
    for key, inner in value.items():
        name = f"{path}{setting(key)}" if path else key.replace("_", " ")  # below a fact, settings that it found
        if inner and isinstance(inner, Mapping) and not _series(inner):
            yield from _named(inner, f"{name}: ")
        else:
            yield name, inner


def _series(value: Any) -> list[dict[str, Any]]:
    """The records of a list of mappings, or of a mapping of mappings, whose key comes first; else none."""
    if isinstance(value, Mapping):
        value = [{"": key, **inner} if isinstance(inner, Mapping) else inner for key, inner in value.items()]
    of_records = isinstance(value, (list, tuple)) and all(isinstance(each, Mapping) for each in value)
    return list(value) if of_records else []


def _records(name: str, records: Sequence[Mapping[str, Any]]) -> str:
    """One row per record, one column per key that any of them has."""
    keys = list(dict.fromkeys(key for record in records for key in record))
    rows = [[text(one_line(record.get(key)), "none") for key in keys] for record in records]
    numeric = [
        at for at, key in enumerate(keys) if all(isinstance(record.get(key), (int, float)) for record in records)
    ]
    return table([key.replace("_", " ") for key in keys], rows, name, numeric)


def curves(result: Result) -> Figure | Html:
    """Loss and accuracy by epoch; for a method without epochs, its stages with their time and accuracy."""
    if result.kind == RELEASED:
        why = "Others trained these weights: no history of it is known."
        return Html(f'<p class="fer-small">{why}</p>', why)
    if "epoch" not in result.history:
        body = "<p>This method has no epochs. Its stages, in order:</p>" + stages_table(result.history)
        return Html(remark_note(result.remark) + body, f"{len(result.history)} stages")
    usages, selected = "+".join(result.record["usages"]["select"]), result.record["selected_epoch"]
    return plots.learning_curves(result.history, selected=selected, select_name=usages, remark=result.remark)


def smoke_block(result: Result, lines: Sequence[str], title: str) -> str:
    """Everything of a smoke run in one closed block, without a number that could be read as a result; markup.

    ``lines``: its log; ``title``: of its confusion matrix.
    """
    kinds = {False: "plain", True: "with test-time augmentation"} if result.has_views else {False: "plain"}
    scores = [
        (f"{usage}, {words}", percent(result.score(usage, views)["accuracy"]))
        for usage in result.halves
        for views, words in kinds.items()
    ]
    trained = curves(result)
    picture = trained.figure() if isinstance(trained, Figure) else trained.body
    matrix = plots.confusion_matrix(result.headline, title, remark=result.remark).figure()
    log = f"<pre>{text(chr(10).join(lines), '')}</pre>"
    more = facts([*_pairs(result, strong=False), *scores])
    used = "<p>What the smoke run used instead of the full recipe:</p>" + settings_table(result.record["recipe"])
    return details(SMOKE_TEST, remark_note(result.remark) + log + more + picture + matrix + used)
