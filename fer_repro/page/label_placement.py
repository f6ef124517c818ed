"""Where to write names beside the points of a crowded plot: plain geometry, no drawing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Box = tuple[float, float, float, float]  # left, low, right, high
Point = tuple[float, float]

REACHES = (9, 13, 18, 26, 38, 52)
ANGLES = (0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200)
ROUNDS = 4
MISREAD = 120.0  # cost of a name that ends beside the point of another
FAR = 20  # points; a name further away than this is tied to its point by a line
CROSSING = 150.0  # cost of a line through a name


def place_names(
    sizes: Sequence[tuple[float, float]], marks: Sequence[Point], obstacles: Sequence[Box], frame: Box, unit: float
) -> list[Point]:
    """An offset for each name: it covers no point, obstacle or other name, and is read as its own point's.

    ``sizes`` (width, height) and ``marks`` in pixels; ``unit``: pixels per typographic point; names stay in ``frame``.
    Offsets are in points from the mark: to the right of it a name starts there, to the left it ends there, straight
    above or below it is centred. Each name takes its best place in turn, for several rounds.
    """
    steps = [
        (round(reach * np.cos(np.radians(angle)), 3), round(reach * np.sin(np.radians(angle)), 3))
        for reach in REACHES
        for angle in ANGLES
    ]
    fixed = [*obstacles, *((x - 6 * unit, y - 6 * unit, x + 6 * unit, y + 6 * unit) for x, y in marks)]
    # The cost of a place without the other names is computed once.
    boxes = [[_box(mark, step, size, unit) for step in steps] for mark, size in zip(marks, sizes, strict=True)]
    alone = [
        [_alone(box, step, own, marks, fixed, frame, unit) for box, step in zip(row, steps, strict=True)]
        for own, row in enumerate(boxes)
    ]
    lines = [[_line(mark, step, unit) for step in steps] for mark in marks]
    chosen: list[int | None] = [None] * len(marks)
    for _ in range(ROUNDS):
        for own, row in enumerate(boxes):
            others = [(i, c) for i, c in enumerate(chosen) if i != own and c is not None]
            names = [boxes[i][c] for i, c in others]
            tied = [lines[i][c] for i, c in others]
            costs = [
                alone[own][place]
                + sum(overlap(box, name) for name in names)
                + CROSSING * sum(crosses(line, box) for line in tied)
                + CROSSING * sum(crosses(lines[own][place], name) for name in names)
                for place, box in enumerate(row)
            ]
            chosen[own] = int(np.argmin(costs))
    return [steps[c] for c in chosen if c is not None]


def _box(mark: Point, step: Point, size: tuple[float, float], unit: float) -> Box:
    (dx, dy), (wide, high), air = step, size, 1.5 * unit
    x, y = mark[0] + dx * unit, mark[1] + dy * unit
    left = x if dx > 1 else x - wide if dx < -1 else x - wide / 2
    return left - air, y - high / 2 - air, left + wide + air, y + high / 2 + air


def _line(mark: Point, step: Point, unit: float) -> list[Point]:
    """Points along the line that ties a far name to its mark; none for a near one."""
    if np.hypot(*step) <= FAR:
        return []
    return [(mark[0] + t * step[0] * unit, mark[1] + t * step[1] * unit) for t in np.linspace(0.1, 0.95, 12)]


def crosses(line: Sequence[Point], box: Box) -> bool:
    """True where any point of a line lies in a box."""
    return any(box[0] < x < box[2] and box[1] < y < box[3] for x, y in line)


def _alone(
    box: Box, step: Point, own: int, marks: Sequence[Point], fixed: Sequence[Box], frame: Box, unit: float
) -> float:
    outside = box[0] < frame[0] or box[1] < frame[1] or box[2] > frame[2] or box[3] > frame[3]
    reach = [distance(box, mark) for mark in marks]
    # A name that ends beside another point would be read as that point's.
    misread = sum(other < reach[own] + 8 * unit for i, other in enumerate(reach) if i != own)
    return sum(overlap(box, other) for other in fixed) + 1e4 * outside + MISREAD * misread + float(np.hypot(*step))


def distance(box: Box, mark: Point) -> float:
    """From a point to the nearest edge of a box, 0 inside."""
    left, low, right, high = box
    x, y = mark
    return float(np.hypot(max(left - x, 0, x - right), max(low - y, 0, y - high)))


def overlap(one: Box, other: Box) -> float:
    """Shared area in square pixels, and a fixed cost for any contact."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return wide * high + 60 if wide > 0 and high > 0 else 0.0
