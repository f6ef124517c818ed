"""Durations as people type them."""

import pytest

from fer_repro import durations
from fer_repro.errors import FerReproError

RIGHT = {
    "90": 90,
    " 90 ": 90,
    "90s": 90,
    "45m": 2700,
    "45 min": 2700,
    "1.5h": 5400,
    "1.5 h": 5400,
    ".5h": 1800,
    "2H": 7200,
    "1h30m": 5400,
    "1h 30m": 5400,
    "1 hour 30 minutes": 5400,
    "2 hours": 7200,
    "1d12h": 129600,
    "2d": 172800,
    "1d2h3m4s": 93784,
    "90m10s": 5410,
    "01:30:00": 5400,
    "1:30:05": 5405,
    "100:00:00": 360000,
}
WRONG = [
    *("", " ", "soon", "-3", "-5m", "+5", "0", "0h", "00:00:00", "0d0h", "5 weeks", "1h30", "30m1h", "1h1h", "1:30"),
    *("1:99:00", "1:2:3", "inf", "nan", "infinity", "1e400", "1e3", "9" * 400, "1,5h", "1.h", "1..5h", "h", "\u0663h"),
    *("1h\n2", "1h;30m", "0x10", "None"),
]


@pytest.mark.parametrize(("text", "seconds"), RIGHT.items())
def test_durations(text, seconds):
    assert durations.parse(text) == seconds


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_duration_is_one_sentence(text):
    with pytest.raises(FerReproError, match=r"the turn '.*' is no duration: expected more than 0 as 90 \(seconds\)"):
        durations.parse(text, "turn")


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.21, 2.1, "0.21 to 2.1 s"),
        (9, 99.4, "9 to 99 s"),
        (12, 123, "0.2 to 2 min"),
        (720, 7190, "12 to 120 min"),
        (11160, 111600, "3.1 to 31 h"),
        (3.6e6, 36e6, "1,000 to 10,000 h"),
    ],
)
def test_a_span_has_one_unit(low, high, words):
    assert durations.span(low, high) == words


@pytest.mark.parametrize("seconds", [0.2, 5, 119.5, 120, 121, 5000, 90000.5])
def test_what_is_at_least_needed_can_be_typed(seconds):
    assert seconds <= durations.parse(durations.least(seconds)) < seconds + 60
