"""Durations as people type them: for time budgets and timeouts."""

from __future__ import annotations

import math
import re

from fer_repro.errors import FerReproError

_NUMBER = r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*"
_UNITS = {"d(?:ays?)?": 86400, "h(?:(?:ou)?rs?)?": 3600, "m(?:in(?:ute)?s?)?": 60, "s(?:ec(?:ond)?s?)?": 1}
_PARTS = re.compile(r"\s*".join(f"(?:{_NUMBER}{unit})?" for unit in _UNITS))
_CLOCK = re.compile(r"([0-9]+):([0-5][0-9]):([0-5][0-9])")


def parse(text: str, what: str = "time budget") -> float:
    """Seconds of "90", "45m", "1h30m", "1.5 h", "1d12h", "2 hours" or "01:30:00" (hours, minutes, seconds).

    Raises `FerReproError`, naming ``what``, for anything else, for zero and for more than a float holds.
    """
    given, seconds = text.strip().lower(), math.nan
    if re.fullmatch(_NUMBER, given):
        seconds = float(given)
    elif clock := _CLOCK.fullmatch(given):
        seconds = sum(unit * float(part) for unit, part in zip((3600, 60, 1), clock.groups(), strict=True))
    elif given and (parts := _PARTS.fullmatch(given)):
        seconds = sum(unit * float(part) for unit, part in zip(_UNITS.values(), parts.groups(), strict=True) if part)
    if not 0 < seconds < math.inf:
        raise FerReproError(
            f"the {what} {text!r} is no duration: expected more than 0 as 90 (seconds), 45m, 1h30m, 1.5h, 1d12h or "
            "01:30:00"
        )
    return seconds


def span(low: float, high: float) -> str:
    """Two numbers of seconds in one unit with two digits each: "0.21 to 2.1 s", "12 to 120 min", "3.1 to 31 h"."""
    size, unit = (1, "s") if high < 100 else (60, "min") if high < 7200 else (3600, "h")
    return f"{float(f'{low / size:.2g}'):,g} to {float(f'{high / size:.2g}'):,g} {unit}"


def least(seconds: float) -> str:
    """``seconds``, rounded up, as a text that `parse` reads: "45s", "12m"."""
    return f"{math.ceil(seconds)}s" if seconds < 120 else f"{math.ceil(seconds / 60)}m"
