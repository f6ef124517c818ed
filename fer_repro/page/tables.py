"""Tables of the book: verdict counts, scores, what others measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from fer_repro.claims import Claim
from fer_repro.claims.others import nobody_measured, reported_range
from fer_repro.leaderboard import VERDICTS
from fer_repro.markup import Html, breaking, interval, percent, seconds, small, sourced, table, text, whole
from fer_repro.page.cards import verdict_mark
from fer_repro.recipe import Views
from fer_repro.results import RELEASED, Result


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
    main = result.halves[-1] if result.kind == RELEASED else result.scored
    for usage in dict.fromkeys([*result.halves, main]):
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
            headline = usage == main and (kind == "views") == result.has_views
            rows.append([f"<strong>{cell}</strong>" for cell in cells] if headline else cells)
    percents = [f"{name}, %" for name in ("Accuracy", "Balanced", "Macro F1", "Top 2", "ECE")]
    header = ["Test set", "Test-time augmentation", "Images", *percents, "Log loss"]
    bold = f"what is scored ({result.remark})" if result.remark else "what is compared with the claim"
    mean = "" if result.remark or result.kind == RELEASED else ", by a verdict as the mean of all seeds"
    seed = "" if result.kind == RELEASED else f"Seed {result.seed}. "
    caption = f"{seed}Bold: {bold}{mean}. Accuracy with its Wilson 95 % interval; ECE over 15 bins; "
    caption += "loss in nats."
    return table(header, rows, caption, numeric=range(2, len(header)))


def _role(usage: str, usages: Mapping[str, list[str]]) -> str:
    names = {"train": "trains", "finetune": "fine-tunes", "select": "selects", "test": "scored"}
    roles = [name for key, name in names.items() if set(usage.split("+")) <= set(usages.get(key, ()))]
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


def others_table(rows: Iterable[Claim]) -> str:
    """What others measured, how it relates to the claim, and where it can be looked up; nothing of it was run here.

    Says for each claim what its range is made of, or that none is known.
    """
    claims = list(rows)
    named = len(claims) > 1
    about, measured = [], []
    for claim in claims:
        about.append((f"{claim.model}: " if named else "") + others_sentence(claim))
        for other in claim.others:
            result = other.result if other.bounds is None else f"{other.result}\u00a0%"
            where = "not stated" if other.scored == "unknown" else other.scored
            who = breaking(f'{text(other.who)}<br><span class="fer-small">{sourced(other.source)}</span>')
            relation = f"{text(other.comparison)}<br>{small(other.why)}"
            cells = [who, breaking(text(other.protocol)), text(where).replace("+", "+<wbr>"), text(result)]
            measured.append([*cells, breaking(relation)])
    sentences = "".join(f"<p>{text(sentence)}</p>" for sentence in about)
    if not measured:
        return sentences
    return sentences + table(["Who", "What was run", "Scored on", "Result", "Against the claim"], measured)


def _wide(markup: str) -> str:
    return f'<div class="fer-wide">{markup}</div>'


def others_sentence(claim: Claim) -> str:
    """A sentence on what the reports on a claim's model say together."""
    found = reported_range(claim.others)
    if found is None:
        if not nobody_measured(claim.others):
            return "The reports below give no number for this model."
        context = f"{(n := len(claim.others))} report{'s' * (n > 1)} on other methods below, as context only"
        return "No report on this model is known" + (f"; {context}." if n else ".")
    reports = f"{found.n} report{'s' * (found.n > 1)}"
    if found.comparable:
        return f"{reports} that can be compared with the claim: {found.percent}."
    return f"No report can be compared with the claim directly; {reports} on its method: {found.percent}."
