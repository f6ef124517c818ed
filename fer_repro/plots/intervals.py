"""Intervals on an axis of percent, and the axis itself: one interval that spans nearly all of it must not make every
other mark unreadable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.markers import CARETLEFT, CARETRIGHT

Interval = tuple[float, float]

OVERLONG = 0.5
"""An interval that is wider than this and than the span of all values does not set the axis: of two seeds, one of which
failed, the mean has an interval from 0 to 1."""
CONTINUES = "Arrow heads: the interval continues beyond the axis."


def limits(values: Sequence[float], intervals: Iterable[Interval | None]) -> Interval:
    """The ends of the axis, fractions: all ``values`` and all ordinary intervals, with some room beside them."""
    span = max(OVERLONG, max(values) - min(values))
    ends = [end for one in intervals if one and one[1] - one[0] <= span for end in one]
    low, high = min([*values, *ends]), max([*values, *ends])
    spare = max(0.006, 0.06 * (high - low))
    return low - spare, high + spare


def leave(intervals: Iterable[Interval | None], axis: Interval) -> bool:
    """Whether one of ``intervals`` continues beyond the axis."""
    return any(one[0] < axis[0] or one[1] > axis[1] for one in intervals if one)


def bar(axes: Axes, interval: Interval, place: float, axis: Interval, colour: str, line: object = "solid") -> None:
    """Draw an interval at the height ``place``, an arrow head at each end of the axis beyond which it continues."""
    low, high = max(interval[0], axis[0]), min(interval[1], axis[1])
    axes.plot([100 * low, 100 * high], [place] * 2, color=colour, lw=1.8, ls=line, solid_capstyle="butt")  # type: ignore[arg-type]
    for goes_on, end, head in ((interval[0] < low, low, CARETLEFT), (interval[1] > high, high, CARETRIGHT)):
        if goes_on:
            axes.plot(100 * end, place, marker=head, ms=7, mew=0, color=colour, clip_on=False)
