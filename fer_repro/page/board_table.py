"""The leaderboard's table: plain HTML that is complete without a script, and filters, search and sorting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fer_repro.claims import CLASSES
from fer_repro.leaderboard import KINDS, VERDICTS
from fer_repro.markup import Html, absent, link, small, text
from fer_repro.page.board_files import anchor, stored_by_model, stored_lists, table_links
from fer_repro.page.cards import ADDED, verdict_mark
from fer_repro.page.marks import reported
from fer_repro.plots.theme import CLASS_COLOURS

SCRIPT, STYLE = (Path(__file__).with_name(f"board_table.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))

HEAD = ("ModelName", "Accuracy", "Measured", "Verdict", "Best evidence", "Class", "ReleaseDate", "Paper", "Code")
NUMERIC = ("Accuracy", "Measured")
EVIDENCE = {
    "full": "full run of ours",
    "released": "released weights",
    "unfinished": "unfinished run of ours",
    "ablation": "ablation of ours",
    "others": "reports by others",
    "none": "no measurement known",
}
USED = {"yes": "yes", "no": "no", "unknown": "not known"}
MARKED = {"yes": "", "unknown": "?"}
# Each filter: its name in the script and the address, its label, the column of the board, and the words of its values
# in their order.
FILTERS: tuple[tuple[str, str, str, Mapping[str, str]], ...] = (
    ("verdict", "Verdict", "verdict", {name: name for name in VERDICTS}),
    ("class", "Class", "comparability", {letter: f"{letter}: {words}" for letter, words in CLASSES.items()}),
    ("evidence", "Best evidence", "evidence", {kind: EVIDENCE[kind] for kind in KINDS}),
    ("year", "Year", "year", {}),
    ("extra", "Extra data", "extra_data", USED),
    ("tta", "Test-time augmentation", "test_time_augmentation", USED),
)


def leaderboard_table(board: pd.DataFrame, results_dir: Path | str | None = None) -> Html:
    """The leaderboard's own columns beside ours, complete as plain HTML where no script runs; below it every stored
    result with its files.

    ``board``: `fer_repro.leaderboard.leaderboard` of ``results_dir``. Titles and names are escaped, only http(s)
    addresses become links. Raises `FerReproError` for results that cannot be read.
    """
    board = board.assign(year=board["date"].str[:4])
    stored = stored_by_model(results_dir)
    right = dict.fromkeys(NUMERIC, " class=num")
    head = "".join(f"<th scope=col{right.get(name, '')}>{name}</th>" for name in HEAD)
    rows = "".join(_row(row, len(stored.get(row["variant"], ()))) for row in board.to_dict("records"))
    pinned = int(board["pinned"].sum())
    about = f"{pinned} models" + (f", and {len(board) - pinned} not on the leaderboard" if pinned < len(board) else "")
    legend = "; ".join(f"{letter}: {words}" for letter, words in CLASSES.items())
    body = (
        f'<style>{STYLE}</style><div class="fer-board">{_filters(board)}{table_links()}'
        '<div class="fer-scroll" role="region" aria-labelledby="fer-board-caption" tabindex="0"><table>'
        f'<caption id="fer-board-caption">The FER2013 leaderboard: {about}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        "<p class=fer-small>Accuracies in percent, ours with 95 % interval. Best evidence: the first that exists of a "
        "full run of ours, a release that we scored, an unfinished run of ours, an ablation of ours, reports by "
        "others. Only a full run decides a verdict.</p>"
        f'<p class="fer-small">Class of a claim. {text(legend)}. Below it: whether extra data and test-time '
        "augmentation (TTA) went into the claim; a question mark where that is not known.</p>"
        f"{stored_lists(stored, results_dir)}<script>{SCRIPT}</script></div>"
    )
    plain = "\n".join(
        f"{r.ModelName}: {r.Accuracy:.2f} claimed, {r.verdict}; {r.evidence_text}" for r in board.itertuples()
    )
    return Html(body, plain)


def _filters(board: pd.DataFrame) -> str:
    """The form of the filters, which the script shows; each offers the values that some model has."""
    fields = "".join(
        f"<label>{label} <select name={name}><option value=''>any</option>{_options(board[column], words)}"
        "</select></label>"
        for name, label, column, words in FILTERS
    )
    return (
        '<form class="fer-filters" aria-label="Filter the table" autocomplete="off" hidden>'
        '<label>Search <input type="search" name="search" placeholder="model, paper, class A"></label>'
        f'{fields}<button type="reset">Show all</button><output aria-live="polite"></output></form>'
    )


def _options(column: pd.Series, words: Mapping[str, str]) -> str:
    present = set(column)
    ordered = [value for value in words if value in present] or sorted(present)
    return "".join(f'<option value="{text(value)}">{text(words.get(value, value))}</option>' for value in ordered)


def _row(row: Mapping[str, Any], stored: int) -> str:
    """One model: what the filters and the search know of it, and its cells; ``data-sort`` is what a column sorts by."""
    known = "".join(f' data-{name}="{text(row[column])}"' for name, _, column, _ in FILTERS)
    searched = f"class-{row['comparability']} {EVIDENCE[row['evidence']]}"
    chapter = f'<a href="papers/{text(row["slug"])}.html">{text(row["ModelName"])}</a>'
    cells = [
        (row["ModelName"], chapter + ("" if row["pinned"] else f"<br>{small(ADDED)}")),
        (row["Accuracy"], f"{row['Accuracy']:.2f}"),
        _measured(row),
        (VERDICTS.index(row["verdict"]), verdict_mark(row["verdict"])),
        _evidence(row, stored),
        (row["comparability"], _class(row)),
        (row["ReleaseDate"], text(row["ReleaseDate"])),
        (row["Paper"], link(row["PaperURL"], row["Paper"])),
        _code(row),
    ]
    tags = ("th scope=row", "td class=num", "td class=num", *["td"] * (len(HEAD) - 3))
    return (
        f'<tr{known} data-words="{text(searched)}">'
        + "".join(
            f'<{tag} data-sort="{text(key, "")}">{value}</{tag.split()[0]}>'
            for (key, value), tag in zip(cells, tags, strict=True)
        )
        + "</tr>"
    )


def _measured(row: Mapping[str, Any]) -> tuple[Any, str]:
    if absent(row["measured"]):
        return "", "not run"
    return row["measured"], f"{100 * row['measured']:.2f}<br>{_bounds(row, '')}"


def _class(row: Mapping[str, Any]) -> str:
    """The class, and below it what went into the claim; a question mark where the audit could not establish it."""
    letter = row["comparability"]
    badge = f'<span class="fer-badge" style="color:{CLASS_COLOURS[letter]}">{text(letter)}</span>'
    used = {"extra data": row["extra_data"], "TTA": row["test_time_augmentation"]}
    return "<br>".join([badge, *(small(name + MARKED[answer]) for name, answer in used.items() if answer in MARKED)])


def _evidence(row: Mapping[str, Any], stored: int) -> tuple[float, str]:
    """What the column sorts by (the kind, then the accuracy), and its cell: whose number it is, with its interval where
    the number is one of ours and stands in no other column; the range of reports; a link to what is stored."""
    kind = row["evidence"]
    number = {"full": "measured", "others": "others_high"}.get(kind, kind)
    accuracy = row.get(number)
    key = KINDS.index(kind) + 1 - (0 if absent(accuracy) else accuracy)
    parts = [text(row["evidence_text"])]
    ours = "released" if kind == "full" else kind
    if kind != "others" and not absent(row.get(f"{ours}_low")):
        parts.append(_bounds(row, f"{ours}_"))
    if kind != "others" and (found := reported(row)) is not None:
        parts.append(small(f"others: {found}"))
    if stored:
        words = f"{stored} stored result{'s' * (stored > 1)}"
        parts.append(f'<a class="fer-small" href="#{text(anchor(row["variant"]))}">{words}</a>')
    return key, "<br>".join(parts)


def _code(row: Mapping[str, Any]) -> tuple[int, str]:
    """What the column sorts by (right links, wrong ones, none), and its cell: the leaderboard's link, marked where it
    leads to something else than the authors' code."""
    if absent(row["Code"]):
        return 2, "none"
    if absent(row["code_remark"]):
        return 0, link(row["Code"], "code")
    mark = f'<span class="fer-flag" title="{text(row["code_note"], "")}">{text(row["code_remark"])}</span>'
    return 1, f"{link(row['Code'], 'code')}<br>{mark}"


def _bounds(row: Mapping[str, Any], name: str) -> str:
    return small(f"{100 * row[f'{name}low']:.2f} to {100 * row[f'{name}high']:.2f}")
