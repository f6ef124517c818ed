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
DOUBT = "#E69F00"
# What is drawn once for both pages (charts by script, cards): a blue and two greys that read on light and dark.
MEASURED = "#2B8CCB"
QUIET = "#8A94A3"
SOFT = "#6B7684"
RULE = "rgba(128,138,150,.25)"

VERDICT_COLOURS = {"reproduced": CLEAN, "above": MEASURED, "below": CLAIMED, "not comparable": EXTRA, "not run": QUIET}
CLASS_COLOURS = {"A": CLEAN, "B": DOUBT, "C": CLAIMED, "D": QUIET}


@dataclass(frozen=True)
class Theme:
    """The colours of one page style by what they mean.

    ``ink`` writes, ``soft`` explains, ``line`` rules, ``page`` is what lies behind, ``card`` a box on it. Blue
    (``measured``) is the only hue that must be lighter on dark.
    """

    name: str
    ink: str
    soft: str
    line: str
    page: str
    card: str
    measured: str
    claimed: str = CLAIMED
    clean: str = CLEAN
    extra: str = EXTRA

    def rc(self) -> dict[str, Any]:
        """matplotlib settings of this theme."""
        return {
            "font.family": "DejaVu Sans",
            "font.size": 9.5,
            "axes.titlesize": 10.5,
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
LIGHT = Theme("light", "#222832", "#55616f", "#c9ced5", "#ffffff", "#f6f7f9", "#0072B2")
DARK = Theme("dark", "#ced6dd", "#9ca4af", "#48566b", "#121212", "#29313d", "#56B4E9")
THEMES = {"light": LIGHT, "dark": DARK}


def canvas(width: float, height: float) -> Canvas:
    """A figure of ``width`` x ``height`` inches that lays itself out; no global state of pyplot is touched."""
    figure = Canvas(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def readable_on(rgb: Sequence[float]) -> str:
    """Black or white, whichever contrasts more with a background (WCAG relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    luminance = float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"
