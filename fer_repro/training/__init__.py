"""Recipes and the loop that follows them. What may be asked of it stands here, so that asking needs no torch."""

from __future__ import annotations

import re
from numbers import Integral
from typing import Any

from fer_repro.errors import FerReproError, one_of

DEVICES = ("auto", "cpu", "cuda", "mps")
"""Where a run may be computed; one of several GPUs is ``cuda:1``."""
SEED_LIMIT = 2**31
"""Seeds are smaller than this, for all variants: faiss, which some of them use, takes an int32."""


def whole_number(name: str, value: Any, least: int, limit: int | None = None) -> int:
    """``value`` as an int, numpy's whole numbers too; the parameter ``name`` is ``least`` or more and below ``limit``.

    Raises `FerReproError` for a bool, a float, a text, or a number out of that range.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < least or (limit is not None and value >= limit):
        expected = f"of {least} or more" if limit is None else f"from {least} to {limit - 1:,}"
        raise FerReproError(f"parameter {name} is {value!r}, expected a whole number {expected}")
    return int(value)


def checked_device(value: Any) -> None:
    """Raise `FerReproError` unless ``value`` is one of `DEVICES` or ``cuda:N``; `resolve_device` asks whether it is
    here."""
    if not (isinstance(value, str) and re.fullmatch(r"cuda:[0-9]+", value)):
        one_of("device", value, DEVICES)


def checked_seed(value: Any) -> int:
    """The seed of a run as an int. Raises `FerReproError` where it is not one from 0 to 2,147,483,647."""
    return whole_number("seed", value, 0, SEED_LIMIT)
