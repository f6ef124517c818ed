"""Damaged copies of a file, from a seed: what a full disk, a bad transfer, a text editor or a stranger makes of it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**80,
    1e999,
    float("nan"),
    "",
    "hello",
    "../../x",
    [],
    {},
    [[]],
    {"a": 1},
)
"""What stands in place of a value of a document that is read: other types, and numbers nobody expects."""


def damaged_bytes(content: bytes, seed: int, count: int) -> Iterator[bytes]:
    """``count`` copies of ``content``, each with one kind of damage; the same ones for the same seed."""
    draw = random.Random(seed)
    for number in range(count):
        at, end = (draw.randrange(max(1, len(content))) for _ in range(2))
        kinds = (
            lambda at=at: content[:at],
            lambda at=at: _flipped(content, at, draw.randrange(8)),
            lambda at=at, end=end: content[: min(at, end)] + content[max(at, end) :],
            lambda at=at: content[:at] + draw.randbytes(1 + draw.randrange(64)) + content[at:],
            lambda at=at: content[:at] + bytes(min(512, len(content) - at)) + content[at + 512 :],
            lambda at=at, end=end: content + content[min(at, end) : max(at, end)],
            lambda: b"",
            lambda: draw.choice((b"hello", b"\xff\xfe\x00", b"null", b"[]", b"{}", b"<html></html>", b"[" * 100_000)),
        )
        yield kinds[number % len(kinds)]()


def _flipped(content: bytes, at: int, bit: int) -> bytes:
    changed = bytearray(content or b"\0")
    changed[at] ^= 1 << bit
    return bytes(changed)


def damaged_documents(document: Any, seed: int, count: int) -> Iterator[tuple[str, Any]]:
    """``count`` copies of a JSON-like ``document`` with one value replaced, gone, or renamed: (where, copy).

    Every copy differs from the document.
    """
    draw = random.Random(seed)
    places = list(_places(document, ()))
    made = 0
    while made < count:
        copy, place = json.loads(json.dumps(document)), draw.choice(places)
        parent = copy
        for key in place[:-1]:
            parent = parent[key]
        kind, key = draw.randrange(4), place[-1]
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[f"{key}_"] = parent.pop(key)
        elif kind == 2 and isinstance(parent[key], (int, float)) and not isinstance(parent[key], bool):
            parent[key] += draw.choice((1, -1, 0.5))
        elif kind == 2 and isinstance(parent[key], str):
            parent[key] += draw.choice((" ", "x", "0", "\n"))
        else:
            parent[key] = draw.choice(VALUES)
        if not _same(copy, document):
            made += 1
            yield "/".join(map(str, place)), copy


def _places(document: Any, path: tuple) -> Iterator[tuple]:
    entries = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in entries:
        yield (*path, key)
        if isinstance(value, (dict, list)) and value:
            yield from _places(value, (*path, key))


def _same(a: Any, b: Any) -> bool:
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
