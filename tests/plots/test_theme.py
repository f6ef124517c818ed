"""Colours are readable: text at a contrast of 4.5 or more, marks of figures at 3, on light and on dark."""

from __future__ import annotations

import re

import pytest
from matplotlib.colors import to_rgb

from fer_repro.plots.theme import CLASS_COLOURS, THEMES, VERDICT_COLOURS, contrast, readable_on

STRIPES = {"light": "#f3f4f5", "dark": "#29313d"}  # every second row of the theme's tables, and rows under the mouse


def ratio(one: str, other: str) -> float:
    return contrast(to_rgb(one), to_rgb(other))


def test_contrast_is_that_of_wcag():
    assert ratio("#000000", "#ffffff") == pytest.approx(21)
    assert ratio("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert readable_on(to_rgb("#ffff00")) == "#000000" and readable_on(to_rgb("#000080")) == "#ffffff"


@pytest.mark.parametrize("name", THEMES)
def test_text_and_marks_are_readable(name):
    theme = THEMES[name]
    for words in (theme.ink, theme.soft, theme.warning):
        assert min(ratio(words, behind) for behind in (theme.page, theme.card)) >= 4.5, words
    for mark in (theme.measured, theme.claimed, theme.clean, theme.extra):
        assert ratio(mark, theme.page) >= 3, mark


@pytest.mark.parametrize("colour", {**VERDICT_COLOURS, **CLASS_COLOURS}.values())
def test_verdicts_and_classes_are_readable_as_text(colour):
    tones = re.fullmatch(r"light-dark\((#\w{6}),(#\w{6})\)", colour).groups()
    for tone, theme in zip(tones, THEMES.values(), strict=True):
        assert min(ratio(tone, behind) for behind in (theme.page, theme.card, STRIPES[theme.name])) >= 4.5, colour
