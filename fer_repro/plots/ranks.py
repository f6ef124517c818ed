"""Between which ranks things lie, and the groups of those that do not differ."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from fer_repro.errors import FerReproError
from fer_repro.plots.figure import Figure, Theme, canvas, headline


def rank_intervals(
    names: Sequence[str],
    bounds: Sequence[tuple[int, int]],
    groups: Sequence[Sequence[int]],
    title: str,
    *,
    alt: str,
    caption: str = "",
) -> Figure:
    """``names``: the best first, so that the rank of a thing is its place, from 1; ``bounds``: the ranks between which
    each lies. ``groups``: places (from 0) of things that stand next to each other and do not differ, each a line to the
    right. Raises `FerReproError` where there is nothing to draw."""
    if not names or len(names) != len(bounds):
        raise FerReproError(f"nothing to draw for '{title}': {len(names)} names and {len(bounds)} rank intervals")

    levels: list[int] = []
    for number, group in enumerate(groups):
        taken = {levels[k] for k, other in enumerate(groups[:number]) if set(other) & set(group)}
        levels.append(next(level for level in range(len(groups)) if level not in taken))

    def draw(theme: Theme) -> Canvas:
        figure = canvas(7.2, 0.95 + (0.37 if any("\n" in name for name in names) else 0.29) * len(names))
        axes = figure.add_subplot()
        axes.grid(axis="x")
        for place, (low, high) in enumerate(bounds):
            axes.plot([low, high], [place, place], color=theme.measured, lw=5, solid_capstyle="round", alpha=0.55)
            axes.plot(place + 1, place, "o", ms=6, color=theme.measured)
        for level, group in zip(levels, groups, strict=True):
            across = 1.02 + 0.022 * level
            ends = (group[0] - 0.28, group[-1] + 0.28)
            axes.plot([across] * 2, ends, color=theme.ink, lw=2, transform=axes.get_yaxis_transform(), clip_on=False)
        axes.set_yticks(range(len(names)), list(names))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set(ylim=(len(names) - 0.5, -0.5), xlim=(0.5, len(names) + 0.5), xlabel="rank")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
        headline(figure, title)
        return figure

    return Figure(draw, alt=alt, caption=caption, scrolls=title)
