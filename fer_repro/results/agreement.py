"""Numbers of a stored result that must agree with other numbers of it: recomputed scores, counts, history, ladder.

Each function names the first place that does not agree, in words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from fer_repro.results.schema import HALVES

# Sums of logarithms differ between processors in their last digits; a number that a page shows differs much earlier.
LAST_DIGITS = 1e-9
# By how much the accuracy of a history, and of a ladder, may differ from that of the stored probabilities, which are
# rounded to half precision: 18 of 3,589 images. Of the results so far the largest difference is two images.
ROUNDING = 0.005


def difference(said: Any, true: Any, where: str) -> str:
    """The first place where JSON data is not what was recomputed, in words; empty where there is none.

    Whole numbers and texts must be equal, other numbers up to `LAST_DIGITS`.
    """
    if isinstance(said, dict) and isinstance(true, dict):
        if said.keys() != true.keys():
            odd = sorted(said.keys() ^ true.keys())[0]
            return f"{where} {'has' if odd in said else 'lacks'} {odd}"
        return next(filter(None, (difference(said[name], true[name], f"{where}/{name}") for name in true)), "")
    if isinstance(said, list) and isinstance(true, list):
        if len(said) != len(true):
            return f"{where} has {len(said)} entries instead of {len(true)}"
        pairs = enumerate(zip(said, true, strict=True))
        return next(filter(None, (difference(*pair, f"{where}/{place}") for place, pair in pairs)), "")
    numbers = isinstance(said, (int, float)) and isinstance(true, float)
    same = math.isclose(said, true, rel_tol=LAST_DIGITS, abs_tol=1e-12) if numbers else said == true
    same = same and isinstance(said, bool) == isinstance(true, bool)  # to Python, true equals 1
    return "" if same else f"{where} is {said}, recomputed {true}"


def wrong_shares(facts: Any, where: str) -> list[str]:
    """The first place in what a method recorded where an accuracy is not its ``correct`` of ``n``."""
    return list(_shares(facts, where))[:1]


def _shares(facts: Any, where: str) -> Iterator[str]:
    if isinstance(facts, dict):
        n, correct, share = (facts.get(name) for name in ("n", "correct", "accuracy"))
        numbers = [one for one in (n, correct, share) if isinstance(one, (int, float))]
        if len(numbers) == 3 and n and not math.isclose(numbers[2], numbers[1] / numbers[0], rel_tol=LAST_DIGITS):
            yield f"{where}/accuracy is {share}, but {correct} of {n} are {numbers[1] / numbers[0]}"
    inner = facts.items() if isinstance(facts, dict) else enumerate(facts) if isinstance(facts, list) else ()
    for name, value in inner:
        yield from _shares(value, f"{where}/{name}")


def wrong_ladder(record: Mapping[str, Any]) -> list[str]:
    """Whether the last step of an ablation ladder is the method that was scored."""
    steps = record["facts"].get("ladder")
    last = steps[-1] if isinstance(steps, list) and steps else {}
    for half in HALVES:
        said = last.get(half, {}).get("accuracy") if isinstance(last, dict) else None
        scores = [score["accuracy"] for score in record["scores"].get(half, {}).values()]
        if said is not None and all(abs(said - one) > ROUNDING for one in scores):
            return [f"facts/ladder/{len(steps) - 1}/{half} ends at {said}, the scores have {scores[-1]}"]
    return []


def wrong_history(record: Mapping[str, Any], history: pd.DataFrame) -> list[str]:
    """Whether the selected epoch is the one that the recipe's rule selects from the history of one stage, and has the
    accuracy of the stored predictions. A method whose stages have no epochs is passed over."""
    selected = record["selected_epoch"]
    if selected is None or not {"epoch", "select_accuracy"} <= set(history):
        return []
    epochs, accuracies = (pd.to_numeric(history[name], errors="coerce") for name in ("epoch", "select_accuracy"))
    if len(record["recipe"]["stages"]) != 1 or epochs.isna().any() or accuracies.isna().any():
        return []
    if epochs.tolist() != list(range(1, len(epochs) + 1)) or not 1 <= selected <= len(epochs):
        return [f"selected_epoch is {selected}, the epochs of history.csv are not 1 to {len(epochs)}, or lack it"]
    measured, rule = float(accuracies[selected - 1]), record["recipe"]["selection"]
    if rule["rule"] == "best" and rule["measure"] == "accuracy" and measured < accuracies.max():
        best = accuracies.idxmax() + 1
        return [f"selected_epoch is {selected}, but history.csv has the best accuracy on the select images in {best}"]
    if rule["rule"] == "last" and selected != len(epochs):
        return [f"selected_epoch is {selected}, but the last epoch of history.csv is {len(epochs)}"]
    names = "+".join(record["usages"]["select"])
    scores = record["scores"].get(names, {}) if measures_what_it_keeps(record["recipe"]) else {}
    if scores and all(abs(measured - score["accuracy"]) > ROUNDING for score in scores.values()):
        return [
            f"history.csv has an accuracy of {measured} on {names} in epoch {selected}, the predictions have "
            f"{scores['plain']['accuracy']}"
        ]
    return []


def measures_what_it_keeps(recipe: Mapping[str, Any]) -> bool:
    """Whether the accuracies of a history are of the weights that a run keeps, and not of others of the same epoch."""
    ema = recipe.get("ema")
    averages = ema if isinstance(ema, dict) else {}
    return averages.get("keep", "average") == averages.get("measure", "average")
