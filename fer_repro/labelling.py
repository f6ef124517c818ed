"""Where to write names beside the points of a crowded plot: plain geometry, no drawing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Box = tuple[float, float, float, float]  # left, low, right, high
Point = tuple[float, float]

REACHES = (9, 13, 18, 26, 38, 52)
ANGLES = (0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200)
ROUNDS = 4


def place_names(
    sizes: Sequence[tuple[float, float]], marks: Sequence[Point], obstacles: Sequence[Box], frame: Box, unit: float
) -> list[Point]:
    """An offset for each name: it covers no point, obstacle or other name, and is read as its own point's.

    ``sizes`` (width, height) and ``marks`` in pixels; ``unit``: pixels per typographic point; names stay in ``frame``.
    Offsets are in points from the mark: to the right of it a name starts there, to the left it ends there, straight
    above or below it is centred. Each name takes its best place in turn; in later rounds early names
    give way to late ones.
    """
    steps = [
        (round(reach * np.cos(np.radians(angle)), 3), round(reach * np.sin(np.radians(angle)), 3))
        for reach in REACHES for angle in ANGLES
    ]  # fmt: skip
    fixed = [*obstacles, *((x - 6 * unit, y - 6 * unit, x + 6 * unit, y + 6 * unit) for x, y in marks)]
    # What a place costs whatever the other names do is computed once.
    boxes = [[_box(mark, step, size, unit) for step in steps] for mark, size in zip(marks, sizes, strict=True)]
    alone = [
        [_alone(box, step, own, marks, fixed, frame, unit) for box, step in zip(row, steps, strict=True)]
        for own, row in enumerate(boxes)
    ]
    chosen: list[int | None] = [None] * len(marks)
    for _ in range(ROUNDS):
        for own, row in enumerate(boxes):
            names = [boxes[i][c] for i, c in enumerate(chosen) if i != own and c is not None]
            costs = [
                base + sum(overlap(box, name) for name in names) for base, box in zip(alone[own], row, strict=True)
            ]
            chosen[own] = int(np.argmin(costs))
    return [steps[c] for c in chosen if c is not None]


def _box(mark: Point, step: Point, size: tuple[float, float], unit: float) -> Box:
    (dx, dy), (wide, high), air = step, size, 1.5 * unit
    x, y = mark[0] + dx * unit, mark[1] + dy * unit
    left = x if dx > 1 else x - wide if dx < -1 else x - wide / 2
    return left - air, y - high / 2 - air, left + wide + air, y + high / 2 + air


def _alone(
    box: Box, step: Point, own: int, marks: Sequence[Point], fixed: Sequence[Box], frame: Box, unit: float
) -> float:
    outside = box[0] < frame[0] or box[1] < frame[1] or box[2] > frame[2] or box[3] > frame[3]
    reach = [distance(box, mark) for mark in marks]
    # A name that ends beside another point would be read as that point's.
    misread = sum(other < reach[own] + 8 * unit for i, other in enumerate(reach) if i != own)
    return sum(overlap(box, other) for other in fixed) + 1e4 * outside + 40 * misread + float(np.hypot(*step))


def distance(box: Box, mark: Point) -> float:
    """From a point to the nearest edge of a box, 0 inside."""
    left, low, right, high = box
    x, y = mark
    return float(np.hypot(max(left - x, 0, x - right), max(low - y, 0, y - high)))


def overlap(one: Box, other: Box) -> float:
    """Shared area in square pixels, and a fixed price for touching at all."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return wide * high + 60 if wide > 0 and high > 0 else 0.0
