"""Tables of the book: the leaderboard that sorts and searches, verdict counts, scores, recipes, deviations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fer_repro.claims import CLASSES, Claim
from fer_repro.leaderboard import VERDICTS
from fer_repro.markup import Html, absent, interval, link, percent, seconds, small, table, text, whole
from fer_repro.page.cards import ADDED, verdict_mark
from fer_repro.plots.theme import CLASS_COLOURS
from fer_repro.recipe import Recipe, Views
from fer_repro.results import HALVES, Result

# The table is complete without it.
SORT_AND_SEARCH = (Path(__file__).parent / "leaderboard.js").read_text(encoding="utf-8")


def leaderboard_table(board: pd.DataFrame) -> Html:
    """The leaderboard's own columns beside ours, sortable and searchable, complete as plain HTML where no script runs.

    ``board``: `fer_repro.leaderboard.leaderboard`. Titles and names are escaped, only http(s) addresses become links.
    """
    right = {"Accuracy": " class=num", "Measured": " class=num"}
    head = "".join(f"<th scope=col{right.get(name, '')}>{text(name)}</th>" for name in _BOARD_HEAD)
    rows = "".join(f"<tr>{_board_row(row)}</tr>" for row in board.to_dict("records"))
    pinned = int(board["pinned"].sum())
    about = f"{pinned} rows" + (f", and {len(board) - pinned} not on the leaderboard" if pinned < len(board) else "")
    legend = "; ".join(f"{letter}: {words}" for letter, words in CLASSES.items())
    body = (
        '<div class="fer-board"><p class="fer-search" hidden><label>Search <input type="search" '
        'placeholder="model, paper, verdict, class"></label> <output class="fer-small"></output> '
        '<span class="fer-small">A click on a heading sorts.</span></p>'
        f'<p class="fer-small">{about}. ModelName, Accuracy, ReleaseDate, Paper and Code are the '
        "leaderboard’s columns, the others are ours. Accuracies in percent, measured ones with 95 % interval.</p>"
        f'<div class="fer-scroll" tabindex="0"><table aria-label="Leaderboard"><thead><tr>{head}</tr></thead>'
        f'<tbody>{rows}</tbody></table></div><p class="fer-small">Class of a claim. {text(legend)}.</p>'
        f"<script>{SORT_AND_SEARCH}</script></div>"
    )
    plain = "\n".join(f"{r.ModelName}: {r.Accuracy:.2f} claimed, {r.verdict}" for r in board.itertuples())
    return Html(body, plain)


_BOARD_HEAD = ("ModelName", "Accuracy", "Measured", "Verdict", "Class", "ReleaseDate", "Paper", "Code")


def _board_row(row: Mapping[str, Any]) -> str:
    """The cells of one row; ``data-sort`` holds what a column sorts by."""
    tint = CLASS_COLOURS[row["comparability"]]
    measured, key = "not run", ""
    if not absent(row["measured"]):
        key, bounds = row["measured"], small(f"{100 * row['low']:.2f} to {100 * row['high']:.2f}")
        measured = f"{100 * key:.2f}<br>{bounds}"
    if not absent(row["released"]):
        whose = text(f"of {row['released_variant']}, on {row['released_on']}")
        bounds = small(f"{100 * row['released_low']:.2f} to {100 * row['released_high']:.2f}")
        measured += f'<br><span title="{whose}">released weights<br>{100 * row["released"]:.2f}</span><br>{bounds}'
    no_code = absent(row["Code"])
    cells = [
        (row["ModelName"], text(row["ModelName"]) + ("" if row["pinned"] else f"<br>{small(ADDED)}")),
        (row["Accuracy"], f"{row['Accuracy']:.2f}"),
        (key, measured),
        (VERDICTS.index(row["verdict"]), verdict_mark(row["verdict"])),
        (row["comparability"], f'<span class="fer-badge" style="color:{tint}">{text(row["comparability"])}</span>'),
        (row["ReleaseDate"], f'<span class="fer-fixed">{text(row["ReleaseDate"])}</span>'),
        (row["Paper"], f'<div class="fer-wide">{link(row["PaperURL"], row["Paper"])}</div>'),
        (int(no_code), "none" if no_code else link(row["Code"], "code")),
    ]
    return "".join(
        f'<{tag} data-sort="{text(key, "")}">{value}</{tag.split()[0]}>'
        for (key, value), tag in zip(cells, ("th scope=row", "td class=num", "td class=num", *["td"] * 5), strict=True)
    )


def verdict_summary(board: pd.DataFrame) -> Html:
    """How many of the leaderboard's models have which verdict, and which ones; added models are named, not counted."""
    pinned = board["pinned"]
    models = {name: board.loc[pinned & (board["verdict"] == name), "ModelName"] for name in VERDICTS}
    rows = [[verdict_mark(name), f"{len(own)}", text(", ".join(own), "none")] for name, own in models.items()]
    counts = ", ".join(f"{name} {len(own)}" for name, own in models.items())
    more = ", ".join(f"{row.ModelName} ({row.verdict})" for row in board[~pinned].itertuples())
    caption = f"Not counted, because not on the leaderboard: {more}" if more else ""
    return Html(table(["Verdict", "Models", "Which"], rows, caption, numeric=(1,)), f"Verdicts: {counts}.")


def scores_table(result: Result) -> str:
    """PublicTest and PrivateTest, plain and with the paper's test-time augmentation; the score for the verdict in bold.

    Where the protocol scores both test sets as one, they have a row together.
    """
    usages, recipe = result.record["usages"], result.record["recipe"]
    kinds = [("plain", recipe["plain"])] + ([("views", recipe["views"])] if result.has_views else [])
    rows = []
    for usage in dict.fromkeys([*HALVES, result.scored]):
        for kind, views in kinds:
            score = result.score(usage, views=kind == "views")
            low, high = (f"{100 * end:.2f}" for end in score["interval"])
            cells = [
                f"{text(usage)}<br>{small(_role(usage, usages))}",
                text(Views(**views)),
                whole(score["n"]),
                f"{100 * score['accuracy']:.2f}<br>{small(f'{low} to {high}')}",
                *(f"{100 * score[name]:.2f}" for name in ("balanced_accuracy", "macro_f1", "top2", "ece")),
                f"{score['log_loss']:.3f}",
            ]
            headline = usage == result.scored and (kind == "views") == result.has_views
            rows.append([f"<strong>{cell}</strong>" for cell in cells] if headline else cells)
    percents = [f"{name}, %" for name in ("Accuracy", "Balanced", "Macro F1", "Top 2", "ECE")]
    header = ["Test set", "Test-time augmentation", "Images", *percents, "Log loss"]
    caption = "Bold: the number to compare with the claim. Accuracy with its Wilson 95 % interval; ECE over 15 bins; "
    caption += "loss in nats."
    return table(header, rows, caption, numeric=range(2, len(header)))


def _role(usage: str, usages: Mapping[str, list[str]]) -> str:
    names = {"train": "trains", "finetune": "fine-tunes", "select": "selects", "test": "scored"}
    roles = [name for key, name in names.items() if set(usage.split("+")) <= set(usages[key])]
    return ", ".join(dict.fromkeys(roles)) or "not used"


def per_class_table(score: Mapping[str, Any]) -> str:
    """Recall with interval, precision and F1 of every class."""
    rows = []
    for name, c in score["per_class"].items():
        shares = (percent(c["recall"]), interval(c["interval"]), percent(c["precision"]), percent(c["f1"]))
        rows.append([text(name), whole(c["n"]), whole(c["correct"]), *shares])
    header = ["Class", "Images", "Right", "Recall", "95 % interval", "Precision", "F1"]
    return table(header, rows, numeric=range(1, 7))


def stages_table(history: pd.DataFrame) -> str:
    """The stages of a method without epochs: name, seconds, accuracy on the selecting images where it was measured."""
    rows = [
        [text(row.get("stage")), seconds(row.get("seconds")), percent(row.get("select_accuracy"), missing="")]
        for row in history.to_dict("records")
    ]
    return table(["Stage", "Time", "Accuracy on the selecting images"], rows, numeric=(1, 2))


def deviations_table(recipe: Recipe) -> str:
    """Where the recipe differs from its paper; says so where it does not."""
    if not recipe.deviations:
        return "<p>None that we know of.</p>"
    rows = [[text(d.section), text(d.what), text(d.why)] for d in recipe.deviations]
    return table(["Place in the paper", "What is different", "Why"], rows)


def recipe_table(recipe: Mapping[str, Any]) -> str:
    """Every setting of a recipe (`Recipe.as_dict`), one row each, without the deviations."""
    rows = [[text(name), text(_on_one_line(value), "none")] for name, value in recipe.items() if name != "deviations"]
    return table(["Setting", "Value"], rows)


def _on_one_line(value: Any) -> str:
    """A nested setting on one line: "sgd (lr 0.01, momentum 0.9)"."""
    if isinstance(value, Mapping):
        rest = ", ".join(f"{k} {_on_one_line(v)}" for k, v in value.items() if k != "name" and not absent(v))
        return f"{value['name']} ({rest})" if value.get("name") and rest else str(value.get("name") or rest)
    if isinstance(value, (list, tuple)):
        items = [f"({_on_one_line(v)})" if isinstance(v, (list, tuple)) else _on_one_line(v) for v in value]
        return ("; " if any(isinstance(item, Mapping) for item in value) else ", ").join(items)
    return "none" if value is None else str(value)


def others_table(rows: Iterable[Claim]) -> str:
    """What others measured, with their protocol and where it can be looked up; nothing of it was re-run here."""
    measured = []
    for other in (other for claim in rows for other in claim.others):
        result = text(other.result) if isinstance(other.result, str) else f"{other.result:g}\u00a0%"
        measured.append([text(other.who), text(other.protocol), result, link(other.source, other.source)])
    if not measured:
        return "<p>No measurement by others is known to us.</p>"
    return table(["Who", "Protocol", "Result", "Source"], measured, numeric=(2,))
