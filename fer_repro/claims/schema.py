"""Strict reading of a YAML file: exactly the expected fields, each through a reader, every error with its place.

A reader takes ``(value, where)``, returns the value it accepts and raises `FerReproError` naming ``where`` otherwise.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from fer_repro.errors import FerReproError

UNKNOWN = "unknown"
Reader = Callable[[Any, str], Any]


def load(path: Path) -> Any:
    """The file's content as plain data; unreadable files, bad YAML and doubled keys raise `FerReproError`."""
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FerReproError(
            f"{Path(path).name} cannot be read ({' '.join(str(error).split())}): correct the file"
        ) from error


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A safe loader that refuses a key written twice, where YAML would keep the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: the key {', '.join(twice)} is written twice")
        return super().construct_mapping(node, deep)


def wrong(where: str, value: Any, expected: str) -> FerReproError:
    shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
    return FerReproError(f"{where} is {shown}, expected {expected}")


def fields(value: Any, where: str, **readers: Reader) -> dict[str, Any]:
    """Exactly the named fields of a mapping, each through its reader."""
    if not isinstance(value, Mapping):
        raise wrong(where, value, f"a mapping with {', '.join(readers)}")
    for name in value:
        if name not in readers:
            raise FerReproError(f"{where}: unknown field '{name}', expected {', '.join(readers)}")
    missing = [name for name in readers if name not in value]
    if missing:
        raise FerReproError(f"{where}: the field {', '.join(missing)} is missing")
    return {name: reader(value[name], f"{where}, field {name}") for name, reader in readers.items()}


def readers(kind: type, **nested: Reader) -> dict[str, Reader]:
    """The readers of a dataclass: of each field annotated ``Annotated[type, reader]``, and the ``nested`` ones.

    A third annotation is the field's name in the file.
    """
    found: dict[str, Reader] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if name in nested:
            found[name] = nested[name]
        elif hasattr(hint, "__metadata__"):
            reader, *alias = hint.__metadata__
            found[alias[0] if alias else name] = reader
    return found


def record(kind: type, **nested: Reader) -> Reader:
    """A reader that makes an instance of a dataclass out of exactly its `readers`, which are all of its fields."""
    return lambda value, where: kind(*fields(value, where, **readers(kind, **nested)).values())


def text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise wrong(where, value, "a text")
    return value.strip()


def note(value: Any, where: str) -> str:
    return "" if value == "" else text(value, where)


def maybe(reader: Reader) -> Reader:
    return lambda value, where: None if value is None else reader(value, where)


def checked(accepts: Callable[[Any], bool], expected: str, value: Any, where: str) -> Any:
    """A reader once its first two arguments are given: the value where ``accepts`` it, else what was expected."""
    if not accepts(value):
        raise wrong(where, value, expected)
    return value


def pattern(form: str, expected: str) -> Reader:
    return partial(checked, lambda value: isinstance(value, str) and bool(re.fullmatch(form, value)), expected)


as_is = partial(checked, lambda _: True, "anything")
boolean = partial(checked, lambda value: isinstance(value, bool), "true or false")
whole = partial(checked, lambda value: type(value) is int and value >= 1, "a whole number of 1 or more")
commit = pattern(r"[0-9a-f]{40}", "a commit of 40 hex digits")
url = pattern(r"https?://[^\s\"'<>]+", "a web address that begins with http:// or https://")
identifier = pattern(r"[a-z0-9]+(-[a-z0-9]+)*", "lower-case words joined by dashes")


def date(value: Any, where: str) -> str:
    try:
        return datetime.date.fromisoformat(value).isoformat()
    except (TypeError, ValueError) as error:
        raise wrong(where, value, 'a date like "2021-05-08", in quotes') from error


def percent(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 100:
        raise wrong(where, value, "a percent between 0 and 100")
    return float(value)


def whole_or_unknown(value: Any, where: str) -> int | str:
    return UNKNOWN if value == UNKNOWN else whole(value, where)


def percent_or_text(value: Any, where: str) -> float | str:
    return text(value, where) if isinstance(value, str) else percent(value, where)


def one_of(allowed: tuple[str, ...]) -> Reader:
    return partial(checked, lambda value: value in allowed, f"one of {', '.join(allowed)}")


def list_of(reader: Reader) -> Reader:
    def read_list(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise wrong(where, value, "a list")
        return tuple(reader(item, f"{where} [{i}]") for i, item in enumerate(value))

    return read_list
