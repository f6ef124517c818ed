"""Tables of the book: the leaderboard that sorts and searches, verdict counts, scores, recipes, deviations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from fer_repro.cards import CLASS_TONES, LOOKS
from fer_repro.claims import CLASSES, Claim
from fer_repro.leaderboard import VERDICTS
from fer_repro.markup import DRAWN, Html, absent, interval, link, note, percent, table, text, whole
from fer_repro.results import HALVES, Result
from fer_repro.training.recipe import Recipe, Views

# Sorts by a column's data-sort values (numbers as numbers) and hides rows without the words searched for. The table is complete
# without it; it belongs to the table before it and touches nothing else.
SORT_AND_SEARCH = """
(function (box) {
  var table = box.querySelector('table'), body = table.tBodies[0], rows = Array.from(body.rows);
  var search = box.querySelector('input'), status = box.querySelector('output');
  Array.from(table.tHead.rows[0].cells).forEach(function (head, column) {
    var button = document.createElement('button');
    button.type = 'button';
    button.append.apply(button, Array.from(head.childNodes));
    head.append(button);
    head.setAttribute('aria-sort', 'none');
    button.addEventListener('click', function () {
      var up = head.getAttribute('aria-sort') !== 'ascending';
      Array.from(head.parentNode.cells).forEach(function (other) { other.setAttribute('aria-sort', 'none'); });
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      var key = function (row) { return row.cells[column].dataset.sort; };
      rows.slice().sort(function (a, b) {
        var x = key(a), y = key(b), empty = (x === '') - (y === '');
        if (empty) { return empty; }
        var order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return up ? order : -order;
      }).forEach(function (row) { body.append(row); });
    });
  });
  function filter() {
    var wanted = search.value.toLowerCase().split(/\\s+/), shown = 0;
    rows.forEach(function (row) {
      var words = row.textContent.toLowerCase();
      row.hidden = !wanted.every(function (word) { return words.includes(word); });
      shown += !row.hidden;
    });
    status.textContent = shown + ' of ' + rows.length + ' rows';
  }
  search.addEventListener('input', filter);
  box.querySelector('.fer-search').hidden = false;
  filter();
})(document.currentScript.parentNode);
"""


def leaderboard_table(board: pd.DataFrame) -> Html:
    """The leaderboard's own columns beside ours, sortable and searchable, complete as plain HTML where no script runs.

    ``board``: `fer_repro.leaderboard.leaderboard`. Titles and names are escaped, only http(s) addresses become links.
    """
    header = [
        "Rank",
        "ModelName",
        "Accuracy",
        "Reproduced",
        "95 % interval",
        "Verdict",
        "Class",
        "ReleaseDate",
        "Paper",
        "Code",
    ]
    head = "".join(f"<th scope=col{' class=num' if name in _NUMERIC else ''}>{text(name)}</th>" for name in header)
    rows = "".join(f"<tr>{_board_row(rank, row)}</tr>" for rank, row in enumerate(board.to_dict("records"), 1))
    legend = "; ".join(f"{letter}: {words}" for letter, words in CLASSES.items())
    body = (
        '<div class="fer-board"><p class="fer-search" hidden><label>Search <input type="search" '
        'placeholder="model, paper, verdict, class"></label> <output class="fer-small"></output></p>'
        f'<div class="fer-scroll" tabindex="0"><table><caption>{len(board)} rows. Rank, ModelName, Accuracy, ReleaseDate, Paper and '
        "Code are the leaderboard’s; the other columns are ours. Accuracies in percent.</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        f'<p class="fer-small">Class of a claim. {text(legend)}.</p><script>{SORT_AND_SEARCH}</script></div>'
    )
    told = "\n".join(f"{r.ModelName}: {r.Accuracy:.2f} claimed, {r.verdict}" for r in board.itertuples())
    return Html(body, told)


_NUMERIC = ("Rank", "Accuracy", "Reproduced", "95 % interval")


def _board_row(rank: int, row: Mapping[str, Any]) -> str:
    mark, tone = LOOKS[row["verdict"]]
    measured = not absent(row["measured"])
    tint = CLASS_TONES[row["comparability"]]
    cells = [
        ("td", rank, f"{rank}"),
        ("th", row["ModelName"], text(row["ModelName"])),
        ("td", row["Accuracy"], f"{row['Accuracy']:.2f}"),
        ("td", row["measured"] if measured else "", f"{100 * row['measured']:.2f}" if measured else "not run"),
        (
            "td",
            row["low"] if measured else "",
            f"{100 * row['low']:.2f} to {100 * row['high']:.2f}" if measured else "",
        ),
        (
            "td",
            VERDICTS.index(row["verdict"]),
            f'<span style="color:{tone}" aria-hidden="true">{mark}</span> {text(row["verdict"])}',
        ),
        (
            "td",
            row["comparability"],
            f'<span class="fer-badge" style="color:{tint}">{text(row["comparability"])}</span>',
        ),
        ("td", row["ReleaseDate"], text(row["ReleaseDate"]).replace("-", "\u2011")),
        ("td", row["Paper"], link(row["PaperURL"], row["Paper"])),
        ("td", 0 if absent(row["Code"]) else 1, "none" if absent(row["Code"]) else link(row["Code"], "code")),
    ]
    right = (0, 2, 3, 4)
    return "".join(
        f'<{tag}{" scope=row" if tag == "th" else ""}{" class=num" if i in right else ""} data-sort="{text(key, "")}">'
        f"{value}</{tag}>"
        for i, (tag, key, value) in enumerate(cells)
    )


def verdict_summary(board: pd.DataFrame) -> Html:
    """How many rows have which verdict, and which ones."""
    rows = []
    for name in VERDICTS:
        mark, tone = LOOKS[name]
        models = board.loc[board["verdict"] == name, "ModelName"]
        label = f'<span style="color:{tone}" aria-hidden="true">{mark}</span> {text(name)}'
        rows.append([label, f"{len(models)}", text(", ".join(models), "none")])
    counts = ", ".join(f"{name} {int((board['verdict'] == name).sum())}" for name in VERDICTS)
    return Html(table(["Verdict", "Rows", "Which"], rows, numeric=(1,)), f"Verdicts: {counts}.")


def drawn_note(result: Result) -> str:
    """The sentence that every number from drawn faces carries, as a visible remark; empty for real data."""
    return note("Mind:", f"{text(DRAWN)}.") if result.drawn else ""


def scores_table(result: Result) -> str:
    """PublicTest and PrivateTest, plain and with the paper's views; the score beside the claim is set in bold."""
    usages, recipe = result.record["usages"], result.record["recipe"]
    kinds = [("plain", recipe["plain"])] + ([("views", recipe["views"])] if result.has_views else [])
    rows = []
    for half in HALVES:
        for kind, views in kinds:
            score = result.score(half, views=kind == "views")
            cells = [
                text(half), text(_role(half, usages)), text(Views(**views)), whole(score["n"]), percent(score["accuracy"]),
                interval(score["interval"]), percent(score["balanced_accuracy"]), percent(score["macro_f1"]),
                f"{score['log_loss']:.3f}", percent(score["ece"]), percent(score["top2"]),
            ]  # fmt: skip
            beside = half == usages["test"][0] and (kind == "views") == result.has_views
            rows.append([f"<strong>{cell}</strong>" for cell in cells] if beside else cells)
    header = [
        "Half", "Role", "Views", "Images", "Accuracy", "95 % interval", "Balanced acc.", "Macro F1", "Log loss", "ECE", "Top 2",
    ]  # fmt: skip
    caption = "Scores of this run. Bold: the number that stands beside the claim. Intervals: Wilson; log loss in nats; ECE over 15 bins."
    return table(header, rows, caption, numeric=range(3, len(header)))


def _role(half: str, usages: Mapping[str, list[str]]) -> str:
    roles = [word for word, key in (("trained on", "train"), ("fine-tuned on", "finetune"), ("selects", "select"), ("scored", "test"))
             if half in usages[key]]  # fmt: skip
    return ", ".join(dict.fromkeys(roles)) or "not used"


def per_class_table(score: Mapping[str, Any]) -> str:
    """Recall with interval, precision and F1 of every class."""
    rows = [
        [text(name), whole(c["n"]), whole(c["correct"]), percent(c["recall"]), interval(c["interval"]), percent(c["precision"]), percent(c["f1"])]
        for name, c in score["per_class"].items()
    ]  # fmt: skip
    return table(["Class", "Images", "Right", "Recall", "95 % interval", "Precision", "F1"], rows, numeric=range(1, 7))


def deviations_table(recipe: Recipe) -> str:
    """Where the recipe leaves its paper; says so where it does not."""
    if not recipe.deviations:
        return "<p>None that we know of.</p>"
    return table(
        ["Place in the paper", "What is different", "Why"],
        [[text(d.section), text(d.what), text(d.why)] for d in recipe.deviations],
    )


def recipe_table(recipe: Mapping[str, Any]) -> str:
    """Every setting of a recipe (`Recipe.as_dict`), one row each, without the deviations."""
    rows = [[text(name), text(_told(value), "none")] for name, value in recipe.items() if name != "deviations"]
    return table(["Setting", "Value"], rows)


def _told(value: Any) -> str:
    """A nested setting on one line: "sgd (lr 0.01, momentum 0.9)"."""
    if isinstance(value, Mapping):
        rest = ", ".join(f"{k} {_told(v)}" for k, v in value.items() if k != "name" and not absent(v))
        return f"{value['name']} ({rest})" if value.get("name") and rest else str(value.get("name") or rest)
    if isinstance(value, (list, tuple)):
        nested = any(isinstance(item, Mapping) for item in value)
        return ("; " if nested else " ").join(_told(item) for item in value)
    return "none" if value is None else str(value)


def others_table(rows: Iterable[Claim]) -> str:
    """What others measured, with their protocol and where it can be looked up; nothing of it was re-run here."""
    told = [
        [text(o.who), text(o.protocol), f"{o.result:.2f}\u00a0%" if isinstance(o.result, float) else _result(o.result), link(o.source, o.source)]
        for claim in rows for o in claim.others
    ]  # fmt: skip
    if not told:
        return "<p>No measurement by others is known to us.</p>"
    return table(["Who", "Protocol", "Result", "Source"], told, numeric=(2,))


def _result(value: Any) -> str:
    return f"{value}\u00a0%" if isinstance(value, int) else text(value)
