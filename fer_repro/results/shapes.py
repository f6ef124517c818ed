"""The shape of JSON data: what a value must be, in words, and the first thing in one that is not so."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What a value must be, in words, by its types and by a test of a value of these types; ``json``: the same test in
    the keywords of JSON Schema, as far as these can say it."""

    words: str
    types: tuple[type, ...]
    holds: Callable[[Any], Any] = lambda value: True
    json: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Both:
    """A shape whose value must also keep a rule."""

    shape: Shape
    rule: Rule


# A dict names the fields of an object ("name?" may be absent, ... is the shape of all others), a list of one shape is a
# list of such values, and a tuple holds alternatives.
Path = tuple[Any, ...]  # of a value: the path of what holds it and its own name there; empty for the whole
Shape = Rule | Both | dict[Any, Any] | list[Any] | tuple[Any, ...]


def pattern_of(pattern: str, words: str) -> Rule:
    """A text that the whole of ``pattern`` matches."""
    return Rule(words, (str,), re.compile(pattern, re.ASCII).fullmatch, {"pattern": f"^(?:{pattern})$"})


def one_of(*names: str) -> Rule:
    """One of these texts."""
    return Rule(f"one of {', '.join(names)}", (str,), names.__contains__, {"enum": [*names]})


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


ANY = Rule("anything", (object,))
TEXT, FLAG, NOTHING = Rule("a text", (str,)), Rule("true or false", (bool,)), Rule("null", (type(None),))
NAME = pattern_of(r"[A-Za-z0-9][\w.-]*", "a name of letters, digits, '.', '-' and '_'")
DIGEST = pattern_of(r"[0-9a-f]{64}", "64 hexadecimal digits")
TIME = Rule("a time like 2026-11-24T17:57:30+00:00", (str,), _is_time, {"pattern": r"^\d{4}-\d{2}-\d{2}"})
WHOLE = Rule(
    "a whole number from 0 to 2**63 - 1", (int,), lambda n: 0 <= n < 2**63, {"minimum": 0, "maximum": 2**63 - 1}
)
NUMBER = Rule("a number of 0 or more", (int, float), lambda x: x >= 0, {"minimum": 0})
FRACTION = Rule("a number from 0 to 1", (int, float), lambda x: 0 <= x <= 1, {"minimum": 0, "maximum": 1})
COUNT, SHARE = (NOTHING, WHOLE), (NOTHING, FRACTION)


def fault(value: Any, shape: Shape, path: Path = ()) -> str:
    """The first thing in JSON data that is not of the ``shape``, in words; empty where there is nothing.

    ``path``: the names that lead to the value. They are joined only for the sentence: a record has a thousand values.
    """
    if isinstance(shape, Rule):
        return "" if _keeps(value, shape) else f"{_joined(path)} is {short(value)}, expected {shape.words}"
    if isinstance(shape, dict):
        return _object_fault(value, shape, path)
    if isinstance(shape, Both):
        return fault(value, shape.shape, path) or fault(value, shape.rule, path)
    if isinstance(shape, tuple):
        if any(_keeps(value, one) for one in shape if isinstance(one, Rule)):
            return ""
        found = [fault(value, one, path) for one in shape]
        return "" if "" in found else found[-1]
    if not isinstance(value, list):
        return f"{_joined(path)} is {short(value)}, expected a list"
    for place, one in enumerate(value):
        if wrong := fault(one, shape[0], (path, place)):
            return wrong
    return ""


def _keeps(value: Any, rule: Rule) -> bool:
    # To Python, true and false are whole numbers.
    fits = isinstance(value, rule.types) and (not isinstance(value, bool) or rule in (FLAG, ANY))
    return fits and bool(rule.holds(value))


def _object_fault(value: Any, shape: Mapping[Any, Shape], path: Path) -> str:
    if not isinstance(value, dict):
        return f"{_joined(path) or 'the content'} is {short(value)}, expected an object with named fields"
    known = {name.removesuffix("?"): one for name, one in shape.items() if name is not ...}
    missing = [name for name in known if name not in value and f"{name}?" not in shape]
    if missing:
        return f"{_joined(path) or 'it'} lacks {', '.join(missing)}"
    foreign = [name for name in value if name not in known] if ... not in shape else []
    if foreign:
        return f"{_joined(path)} has a field {short(foreign[0])}, expected {', '.join(known)}"
    for name, part in value.items():
        if wrong := fault(part, known.get(name) or shape[...], (path, name)):
            return wrong
    return ""


def not_finite(value: Any, path: Path = ()) -> str:
    """The first number in JSON data that is infinite or no number."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{_joined(path)} is {value}, expected a finite number"
    if isinstance(value, (dict, list)):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            if wrong := not_finite(part, (path, name)):
                return wrong
    return ""


def _joined(path: Path) -> str:
    """The names as a text: "a/0/b" for (((), "a"), 0), "b")."""
    return f"{_joined(path[0])}/{path[1]}".strip("/") if path else ""


def short(value: Any) -> str:
    """A value as an error message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
