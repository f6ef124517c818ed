"""The state of the book: every model with its evidence and what a run of it costs, and every result that is stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from fer_repro import results
from fer_repro.claims import claim_of
from fer_repro.comparisons.gather import standing
from fer_repro.errors import FerReproError
from fer_repro.leaderboard import KINDS, leaderboard
from fer_repro.markup import Html, facts, percent, seconds, shell, small, table, text
from fer_repro.page.board_findings import SHOWN
from fer_repro.page.cards import hardware, verdict_mark
from fer_repro.page.not_run import HOW, reasons
from fer_repro.results import EVIDENCE, FULL, MODIFIED, PACKAGE, RELEASED, UNFINISHED, Result

KIND_NAMES = {
    FULL: "full run",
    UNFINISHED: "unfinished run",
    RELEASED: "score of released weights",
    PACKAGE: "package",
    MODIFIED: "run on a modified copy",
}


class StatusPage:
    """``results_dir``: folder of stored results, empty for the project's own. Raises `FerReproError` for a folder that
    does not exist and for results that cannot be read."""

    def __init__(self, results_dir: str = "") -> None:
        if results_dir and not Path(results_dir).is_dir():
            raise FerReproError(f"there is no folder of results {results_dir}: `fer-repro run --results-dir` makes one")
        self.results_dir = Path(results_dir) if results_dir else None
        self.stored: list[Result] = [
            one for kind in EVIDENCE for one in results.read_all(self.results_dir, kind, arrays=False)
        ]

    @cached_property
    def board(self) -> list[dict[str, Any]]:
        """The rows of `leaderboard`, in its order."""
        return leaderboard(self.results_dir).to_dict("records")

    def summary(self) -> Html:
        """How many models have which evidence, and how many results of which kind are stored."""
        names = {"full": "a full run", **SHOWN}
        rows = [row for row in self.board if row["pinned"]]
        counts = [(names[kind], sum(row["evidence"] == kind for row in rows)) for kind in KINDS]
        models = "; ".join(f"{name} for {n}" for name, n in counts if n)
        kinds = [(name.split(), sum(one.kind == kind for one in self.stored)) for kind, name in KIND_NAMES.items()]
        stored = ", ".join(_counted(n, words) for words, n in kinds if n) or "none"
        body = f"<p>Best evidence of the {len(rows)} models: {text(models)}.</p><p>Stored results: {text(stored)}.</p>"
        return Html(body, f"{len(rows)} models: {models}; {len(self.stored)} stored results")

    def models(self) -> Html:
        """Every model of the leaderboard: verdict, best evidence, what a full run takes and needs, its command."""
        header = ["Model", "Verdict, evidence", "A full run"]
        rows = f'<div class="fer-stack">{table(header, map(self._model, self.board))}</div>'
        body = rows + f'<p class="fer-small">GPU hours. {text(HOW)}</p>'
        return Html(body, "; ".join(f"{row['ModelName']}: {row['evidence_text']}" for row in self.board))

    def _model(self, row: Mapping[str, Any]) -> list[str]:
        variant = row["variant"]
        own = [one for one in self.stored if one.kind == FULL and one.variant == variant and one.storable]
        full = [one for one in self.stored if one.kind == FULL]
        if own:
            pairs = [("Took", "<br>".join(map(_measured, own)))]
            pairs.append(("To run it again", shell(f"fer-repro run {variant} --profile full")))
        else:
            pairs = reasons(claim_of(variant), full, how=False)
        return [
            f'<a href="papers/{text(row["slug"])}.html">{text(row["ModelName"])}</a><br><code>{text(variant)}</code>',
            f"{verdict_mark(row['verdict'])}<br>{small(row['evidence_text'])}",
            facts(pairs),
        ]

    def runs(self) -> Html:
        """Every stored result: kind, accuracy, cost, hardware, code version, and the command that makes it again."""
        header = ["Result, command", "PrivateTest", "Kind", "Cost", "Hardware, version"]
        body = table(header, map(_run, self.stored), numeric=(1,))
        return Html(body, f"{len(self.stored)} stored results")


def _counted(n: int, words: list[str]) -> str:
    """For example "2 scores of released weights": the first noun of the words has the plural."""
    noun = next(index for index, word in enumerate(words) if word in ("run", "score", "package"))
    return " ".join([str(n), *words[:noun], words[noun] + "s" * (n != 1), *words[noun + 1 :]])


def _run(one: Result) -> list[str]:
    record = one.record
    score = percent(one.score()["accuracy"]) if "PrivateTest" in one.halves else "may not be scored"
    return [
        _head(_place(one), command(one)),
        text(score),
        _kind(one),
        text(seconds(record["cost"].get("seconds"))),
        f"{text(hardware(one))}<br>{text(record['code_version'])}<br>{small(record['ended'][:10])}",
    ]


def _kind(one: Result) -> str:
    """The kind of a result, how far it came, and what helped to make it where that may be why its accuracy is high."""
    remark, why_not = standing(one)
    marks = (one.progress, remark if why_not else "", one.one_class)
    return "<br>".join([text(KIND_NAMES[one.kind]), *map(small, filter(None, marks))])


def _place(one: Result) -> str:
    """The folder of a result below ``results/``."""
    return "/".join(results.schema.place_of(one.record))


def command(one: Result) -> str:
    """What makes a stored result again."""
    if one.kind == RELEASED:
        return f"fer-repro score {one.variant} --checkpoint {one.record['released']['file']} --store"
    if one.kind == PACKAGE:
        return f"fer-repro packages score {one.record['package']['name']} --store"
    more = {UNFINISHED: " --keep-unfinished", MODIFIED: " --accept-modified"}.get(one.kind, "")
    epochs = " --score-epochs" if results.schema.EPOCHS in one.record.get("files", {}) else ""
    return f"fer-repro run {one.variant} --protocol {one.protocol} --profile full --seed {one.seed}{more}{epochs}"


def _measured(one: Result) -> str:
    return f"{text(seconds(one.record['cost'].get('seconds')))} {small(f'measured, seed {one.seed}')}"


def _head(place: str, command_line: str) -> str:
    """A result's folder, which breaks after a slash only, and on a line below it the command that makes it again."""
    folder = re.sub(r"seed-\d+$", r'<span class="fer-fixed">\g<0></span>', text(place).replace("/", "/<wbr>"))
    return f'<div class="fer-run"><div><code>{folder}</code></div><div>{shell(command_line)}</div></div>'
