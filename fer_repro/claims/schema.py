"""Strict reading of a YAML file: exactly the expected fields, each through a reader, every error with its place.

A reader takes ``(value, where)``, returns the value it accepts and raises `FerReproError` naming ``where`` otherwise.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import yaml

from fer_repro.errors import FerReproError

UNKNOWN = "unknown"
Reader = Callable[[Any, str], Any]


if TYPE_CHECKING:
    _Base = yaml.SafeLoader
else:
    _Base = object

LARGEST_FILE = 4 << 20  # bytes; the project's largest has 80,000
MOST_NODES, DEEPEST, LONGEST_NUMBER = 100_000, 32, 20
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map")}


def load(path: Path) -> Any:
    """The file's content as plain data; unreadable files, bad YAML and doubled keys raise `FerReproError`.

    What it costs is bounded: by the size of the file, by how deep and (aliases written out) how long the document is.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise yaml.YAMLError(f"it has more than {LARGEST_FILE:,} bytes")
        return yaml.load(content.decode("utf-8-sig"), Loader=Loader)
    # Without the C library the parser is Python and recurses as deep as the text is nested.
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise FerReproError(
            f"{Path(path).name} cannot be read ({' '.join(str(error).split())}): correct the file"
        ) from error


class Plain(_Base):
    """Makes a safe loader one for plain values: texts, numbers, true, false, null, lists and mappings, each key once.

    YAML would keep the last of two equal keys without a word, make a date of what looks like one, and let a few lines
    of aliases stand for more than fits into memory.
    """

    _levels = 0  # of the nodes that are being read, one inside the other

    def descend_resolver(self, current_node: yaml.Node | None, current_index: Any) -> None:
        # The parser in C recurses for every level too, and Python 3.13 ends in a segmentation fault there.
        self._levels += 1
        if current_node is not None and self._levels > DEEPEST:
            line = f"line {current_node.start_mark.line + 1}"
            raise yaml.YAMLError(f"{line}: more than {DEEPEST} levels, one inside the other")
        super().descend_resolver(current_node, current_index)

    def ascend_resolver(self) -> None:
        self._levels -= 1
        super().ascend_resolver()

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            self._weigh(node, 1, {})
        return node

    def _weigh(self, node: yaml.Node, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
        """How many nodes ``node`` stands for and how many levels; refuses what is too much, and other than plain."""
        if id(node) in known:
            return known[id(node)]
        line = f"line {node.start_mark.line + 1}"
        below = []
        if depth <= DEEPEST and not isinstance(node, yaml.ScalarNode):
            pairs = node.value if isinstance(node, yaml.MappingNode) else [node.value]
            children = [child for pair in pairs for child in pair]
            below = [self._weigh(child, depth + 1, known) for child in children]
        size, height = 1 + sum(s for s, _ in below), 1 + max((h for _, h in below), default=0)
        if depth > DEEPEST or height > DEEPEST:  # an alias inside of what it stands for comes here, too
            raise yaml.YAMLError(f"{line}: more than {DEEPEST} levels, one inside the other")
        if size > MOST_NODES:
            raise yaml.YAMLError(f"{line}: more than {MOST_NODES:,} values, with all aliases written out")
        plain = isinstance(node, yaml.ScalarNode) and not node.style
        expected = self.resolve(type(node), node.value, (plain, True))
        if node.tag not in _PLAIN or node.tag != expected:
            kind = node.tag.rsplit(":", 1)[-1][:20]
            raise yaml.YAMLError(f"{line}: a value of the kind '{kind}', expected plain ones (a date stands in quotes)")
        if node.tag.endswith((":int", ":float")) and len(node.value) > LONGEST_NUMBER:
            raise yaml.YAMLError(f"{line}: a number of more than {LONGEST_NUMBER} characters")
        known[id(node)] = size, height
        return size, height

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        line = f"line {node.start_mark.line + 1}"
        if any(not isinstance(key, yaml.ScalarNode) for key, _ in node.value):
            raise yaml.YAMLError(f"{line}: a list or a mapping as a key, expected a text")
        keys = Counter(key.value for key, _ in node.value)
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            twice = [key for key, count in keys.items() if count > 1] or list(keys)  # or 1 and 0x1
            raise yaml.YAMLError(f"{line}: the key {', '.join(twice)[:80]} is written twice")
        return found


class Loader(Plain, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """`Plain` with the parser in C, where PyYAML was built with it."""


def wrong(where: str, value: Any, expected: str) -> FerReproError:
    shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
    return FerReproError(f"{where} is {shown}, expected {expected}")


def fields(value: Any, where: str, **readers: Reader) -> dict[str, Any]:
    """Exactly the named fields of a mapping, each through its reader."""
    if not isinstance(value, Mapping):
        raise wrong(where, value, f"a mapping with {', '.join(readers)}")
    for name in value:
        if name not in readers:
            shown = repr(name if isinstance(name, str) and len(name) <= 40 else str(name)[:40])
            raise FerReproError(f"{where}: unknown field {shown}, expected {', '.join(readers)}")
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
whole = partial(checked, lambda value: type(value) is int and 1 <= value < 10**15, "a whole number of 1 or more")
# Counts up to one for each 10,000th part of a total are listed, so that its size bounds what that costs.
images = partial(
    checked, lambda value: type(value) is int and 1 <= value <= 10**6, "a number of images, 1 to 1,000,000"
)
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


def one_of(allowed: tuple[str, ...]) -> Reader:
    return partial(checked, lambda value: value in allowed, f"one of {', '.join(allowed)}")


def list_of(reader: Reader) -> Reader:
    def read_list(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise wrong(where, value, "a list")
        return tuple(reader(item, f"{where} [{i}]") for i, item in enumerate(value))

    return read_list
