"""What a result's record holds: the type of every field that anything reads, and the digest of the whole."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from fer_repro.data import LABELS, USAGES

SCHEMA = 1
HALVES = ("PublicTest", "PrivateTest")
STATUSES = ("done", "stopped early", "diverged", "interrupted", "error")
FINISHED = ("done", "stopped early")
KEYS = frozenset(
    "schema variant protocol profile seed status recipe recipe_sha256 code_version data usages selection "
    "selected_epoch parameters multiply_adds scores cost environment started ended facts".split()
)
BESIDE = ("predictions.npz", "history.csv")
"""The files that ``result.json`` is stored with; its ``files`` holds the sha256 of each."""
RELEASED = "released"
"""The kind of a result that scores weights which others published; it was not trained here, so it has no history."""


@dataclass(frozen=True)
class Rule:
    """What a value must be, in words, by its types and by a test of a value of these types."""

    words: str
    types: tuple[type, ...]
    holds: Callable[[Any], Any] = lambda value: True


@dataclass(frozen=True)
class Both:
    """A shape whose value must also keep a rule."""

    shape: Shape
    rule: Rule


# A dict names the fields of an object ("name?" may be absent, ... is the shape of all others), a list of one shape is a
# list of such values, and a tuple holds alternatives.
Shape = Rule | Both | dict[Any, Any] | list[Any] | tuple[Any, ...]


def _pattern(pattern: str, words: str) -> Rule:
    return Rule(words, (str,), re.compile(pattern, re.ASCII).fullmatch)


def _one_of(*names: str) -> Rule:
    return Rule(f"one of {', '.join(names)}", (str,), names.__contains__)


def _seven(shape: Shape) -> Both:
    return Both([shape], Rule(f"{len(LABELS)} entries", (list,), lambda entries: len(entries) == len(LABELS)))


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _rises(pair: list[float]) -> bool:
    return len(pair) == 2 and pair[0] <= pair[1]


def _are_test_sets(names: list[str]) -> bool:
    return 0 < len(names) == len(set(names)) and set(names) <= set(HALVES)


ANY = Rule("anything", (object,))
TEXT, FLAG, NOTHING = Rule("a text", (str,)), Rule("true or false", (bool,)), Rule("null", (type(None),))
NAME = _pattern(r"[A-Za-z0-9][\w.-]*", "a name of letters, digits, '.', '-' and '_'")
DIGEST = _pattern(r"[0-9a-f]{64}", "64 hexadecimal digits")
TIME = Rule("a time like 2026-11-24T17:57:30+00:00", (str,), _is_time)
WHOLE = Rule("a whole number from 0 to 2**63 - 1", (int,), lambda n: 0 <= n < 2**63)
NUMBER = Rule("a number of 0 or more", (int, float), lambda x: x >= 0)
FRACTION = Rule("a number from 0 to 1", (int, float), lambda x: 0 <= x <= 1)
COUNT, SHARE = (NOTHING, WHOLE), (NOTHING, FRACTION)
USAGES_LIST = [_one_of(*USAGES)]
INTERVAL = Both([FRACTION], Rule("two numbers, the lower one first", (list,), _rises))
STEP = {"name": TEXT, ...: ANY}
VIEWS = {
    "kind": TEXT,
    "size": COUNT,
    "average": TEXT,
    "resize?": COUNT,
    "count?": COUNT,
    "steps?": [STEP],
    "seed?": COUNT,
    "poses?": [[ANY]],
}
RECIPE = {
    "variant": NAME,
    "network": STEP,
    "protocol": {"name": NAME, "finetune": (NOTHING, USAGES_LIST)}
    | dict.fromkeys(("train", "select", "test"), USAGES_LIST),
    "stages": [{"name": TEXT, "epochs": WHOLE, ...: ANY}],
    "augment": [STEP],
    "selection": {"rule": TEXT, "views": FLAG, "measure": _one_of("accuracy", "loss")},
    "views": VIEWS,
    "plain": VIEWS,
    "options": STEP,
    "deviations": [dict.fromkeys(("section", "what", "why"), TEXT)],
    ...: ANY,
}
PER_CLASS = {"n": WHOLE, "correct": WHOLE, "interval": (NOTHING, INTERVAL)}
METRICS = {
    "n": WHOLE,
    "correct": WHOLE,
    "interval": INTERVAL,
    "log_loss": NUMBER,
    "per_class": dict.fromkeys(LABELS, PER_CLASS | dict.fromkeys(("recall", "precision", "f1"), SHARE)),
    "confusion": _seven(_seven(WHOLE)),
} | dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "ece", "top2"), FRACTION)
KINDS = {"plain": METRICS, "views?": METRICS}
RECORD: dict[Any, Any] = {
    "schema": Rule(str(SCHEMA), (int,), SCHEMA.__eq__),
    "variant": NAME,
    "protocol": NAME,
    "profile": _one_of("smoke", "full"),
    "seed": WHOLE,
    "status": _one_of(*STATUSES),
    "recipe": RECIPE,
    "recipe_sha256": DIGEST,
    "code_version": TEXT,
    "data": {"name": TEXT, "source": TEXT, "digest": TEXT},
    "usages": dict.fromkeys(("train", "select", "finetune"), USAGES_LIST)
    | {"test": Both(USAGES_LIST, Rule(f"{' or '.join(HALVES)}, or both", (list,), _are_test_sets))},
    "selection": TEXT,
    "selected_epoch": COUNT,
    "parameters": COUNT,
    "multiply_adds": COUNT,
    "scores": dict.fromkeys(HALVES, KINDS)
    | dict.fromkeys(("+".join(HALVES) + "?", "+".join(HALVES[::-1]) + "?"), KINDS),
    "cost": {"seconds": (NOTHING, NUMBER), "images_per_second": (NOTHING, NUMBER), "device": TEXT, ...: ANY},
    "environment": {...: (NOTHING, TEXT, FLAG, NUMBER)},
    "started": TIME,
    "ended": TIME,
    "facts": {...: ANY},
    "files?": dict.fromkeys(BESIDE, DIGEST),
    "sha256?": DIGEST,
    ...: ANY,
}
PUBLISHED = {
    "name": _pattern(r"(?!seed-)[A-Za-z0-9][\w.-]*", "a name of letters, digits, '.', '-' and '_', not like seed-0"),
    "sha256": DIGEST,
    "url": (NOTHING, TEXT),
    ...: TEXT,
} | dict.fromkeys("at file published_file licence conversion trained_on selected_on why differs".split(), TEXT)
RELEASED_RECORD: dict[Any, Any] = RECORD | {
    "kind": _one_of(RELEASED),
    "released": PUBLISHED,
    "protocol": _one_of(RELEASED),
    "seed": NOTHING,
    "usages": {"test": RECORD["usages"]["test"]},
    "scores": {f"{half}?": KINDS for half in HALVES},
    "files?": {BESIDE[0]: DIGEST},
}


def is_released(record: Mapping[str, Any]) -> bool:
    """Whether a record is of weights that others published."""
    return record.get("kind") == RELEASED


def beside(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The files that a record is stored with."""
    return BESIDE[:1] if is_released(record) else BESIDE


def scored_halves(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The test sets that a record has predictions of: both, but of released weights only those that may be scored."""
    return tuple(record["usages"]["test"]) if is_released(record) else HALVES


def place_of(record: Mapping[str, Any]) -> tuple[str, str, str]:
    """The folder of a record below results/: its variant, its protocol or kind, its seed or name."""
    name = record["released"]["name"] if is_released(record) else f"seed-{record['seed']}"
    return record["variant"], record["protocol"], name


def fault(record: Any) -> str:
    """The first thing that is wrong with a record (JSON data), in words; empty where it is whole."""
    shape = RELEASED_RECORD if isinstance(record, dict) and is_released(record) else RECORD
    return " ".join((_fault(record, shape, "") or _not_finite(record, "")).split())


def _fault(value: Any, shape: Shape, where: str) -> str:
    if isinstance(shape, Both):
        return _fault(value, shape.shape, where) or _fault(value, shape.rule, where)
    if isinstance(shape, Rule):
        # To Python, true and false are whole numbers.
        fits = isinstance(value, shape.types) and (not isinstance(value, bool) or shape in (FLAG, ANY))
        return "" if fits and shape.holds(value) else f"{where} is {short(value)}, expected {shape.words}"
    if isinstance(shape, tuple):
        found = [_fault(value, one, where) for one in shape]
        return "" if "" in found else found[-1]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where} is {short(value)}, expected a list"
        return next(filter(None, (_fault(one, shape[0], f"{where}/{place}") for place, one in enumerate(value))), "")
    return _object_fault(value, shape, where)


def _object_fault(value: Any, shape: Mapping[Any, Shape], where: str) -> str:
    if not isinstance(value, dict):
        return f"{where or 'the content'} is {short(value)}, expected an object with named fields"
    known = {name.removesuffix("?"): one for name, one in shape.items() if name is not ...}
    missing = [name for name in known if name not in value and f"{name}?" not in shape]
    if missing:
        return f"{where or 'it'} lacks {', '.join(missing)}"
    foreign = [name for name in value if name not in known] if ... not in shape else []
    if foreign:
        return f"{where} has a field {short(foreign[0])}, expected {', '.join(known)}"
    parts = ((part, known.get(name) or shape[...], f"{where}/{name}".strip("/")) for name, part in value.items())
    return next(filter(None, (_fault(*part) for part in parts)), "")


def _not_finite(value: Any, where: str) -> str:
    """The first number in JSON data that is infinite or no number."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{where} is {value}, expected a finite number"
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return next(filter(None, (_not_finite(part, f"{where}/{name}".strip("/")) for name, part in parts)), "")


def short(value: Any) -> str:
    """A value as an error message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def content_digest(record: Mapping[str, Any]) -> str:
    """sha256 of a record's content, whatever the order of its fields; its own field ``sha256`` is left out.

    ``record``: JSON data, as `json.loads` gives it.
    """
    content = {name: value for name, value in record.items() if name != "sha256"}
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
