"""The colours of every figure and card by what they mean, for light and dark pages; cards' boxes are in style.css.

The hues are Okabe and Ito's, which colour-blind readers can tell apart. Change a colour here and every figure follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

CLAIMED = "#D55E00"
CLEAN = "#009E73"
EXTRA = "#CC79A7"
# What is drawn once for both pages (charts by script, cards): a blue and two greys that read on light and dark.
MEASURED = "#2B8CCB"
QUIET = "#8A94A3"
SOFT = "#6B7684"
RULE = "rgba(128,138,150,.25)"


TITLE = 10.5
"""Size of a title in points."""


def _tone(light: str, dark: str) -> str:
    """A CSS colour that follows the page's theme; a browser too old for it writes in the colour of the text around."""
    return f"light-dark({light},{dark})"


# The same hues for words and badges: as text they need a contrast of 4.5 on pages, cards and striped rows of a theme,
# which no colour reaches on both.
_GREEN, _BLUE = _tone("#007a59", "#00b886"), _tone("#2070a3", "#56a8dd")
_ORANGE, _PINK = _tone("#b14e00", "#f5853f"), _tone("#b24481", "#d48cb4")
_YELLOW, _GREY = _tone("#8a6000", "#e69f00"), _tone("#626c7c", "#98a1ae")
VERDICT_COLOURS = {"reproduced": _GREEN, "above": _BLUE, "below": _ORANGE, "not comparable": _PINK, "not run": _GREY}
CLASS_COLOURS = {"A": _GREEN, "B": _YELLOW, "C": _ORANGE, "D": _GREY}


@dataclass(frozen=True)
class Theme:
    """The colours of one page style by what they mean.

    ``ink`` writes, ``soft`` explains, ``warning`` says what numbers are not, ``line`` rules, ``page`` is what lies
    behind, ``card`` a box on it. The hues are for marks, which need a contrast of 3; blue (``measured``) is the only
    one that must be lighter on dark.
    """

    name: str
    ink: str
    soft: str
    line: str
    page: str
    card: str
    warning: str
    measured: str
    claimed: str = CLAIMED
    clean: str = CLEAN
    extra: str = EXTRA

    def rc(self) -> dict[str, Any]:
        """matplotlib settings of this theme."""
        return {
            "font.family": "DejaVu Sans",
            "font.size": 9.5,
            "figure.titlesize": TITLE,
            "figure.titleweight": "bold",
            "axes.titlesize": TITLE,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.edgecolor": self.line,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "grid.color": self.line,
            "grid.linewidth": 0.7,
            "xtick.color": self.line,
            "ytick.color": self.line,
            "legend.frameon": False,
            "hatch.color": self.line,
            **dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), "none"),
            **dict.fromkeys(("axes.labelcolor", "axes.titlecolor", "text.color", "legend.labelcolor"), self.ink),
            **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), self.ink),
        }


# Ink, rules, pages and cards are those of the book's theme, so that figures sit in its pages.
LIGHT = Theme("light", "#222832", "#55616f", "#c9ced5", "#ffffff", "#f6f7f9", "#b14e00", "#0072B2")
DARK = Theme("dark", "#ced6dd", "#9ca4af", "#48566b", "#121212", "#29313d", "#f5853f", "#56B4E9")
THEMES = {"light": LIGHT, "dark": DARK}


def canvas(width: float, height: float) -> Canvas:
    """A figure of ``width`` x ``height`` inches that lays itself out; no global state of pyplot is touched."""
    figure = Canvas(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def headline(figure: Canvas, title: str) -> None:
    """The title of a whole figure from its left edge, in as many lines as its width needs; the figure grows by those
    after the first. A title of axes would begin behind their labels, and what does not fit there would be cut."""
    words = figure.suptitle(title, x=0.01, ha="left", wrap=True)
    height = words.get_window_extent().height / figure.dpi
    figure.set_figheight(figure.get_figheight() + max(0.0, height - 1.5 * TITLE / 72))


def contrast(one: Sequence[float], other: Sequence[float]) -> float:
    """The contrast of two colours (r, g, b in 0..1), 1 to 21 (WCAG)."""
    dark, light = sorted(map(_luminance, (one[:3], other[:3])))
    return (light + 0.05) / (dark + 0.05)


def _luminance(rgb: Sequence[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def readable_on(rgb: Sequence[float]) -> str:
    """Black or white, whichever contrasts more with a background."""
    return "#000000" if contrast(rgb, (0, 0, 0)) > contrast(rgb, (1, 1, 1)) else "#ffffff"
