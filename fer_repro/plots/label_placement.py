"""Where to write names beside the points of a crowded plot: plain geometry, no drawing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Box = tuple[float, float, float, float]  # left, low, right, high
Point = tuple[float, float]

REACHES = (9, 13, 18, 26, 38, 52, 70, 90)
ANGLES = (0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200)
ROUNDS = 4
ORDERS = 24  # in which the names take their turns, besides the one given; the cheapest end counts
MISREAD = 120.0  # cost of a name that ends beside the point of another
FAR = 20  # points; a name further away than this is tied to its point by a line
CROSSING = 200.0  # cost of a line through a name
COVERED = 1000.0  # cost of a name on a point, beside the area that it covers
CONTACT = 300.0  # cost of a name that touches a point, an obstacle or a name, beside the area that it covers


def place_names(
    sizes: Sequence[tuple[float, float]],
    marks: Sequence[Point],
    obstacles: Sequence[Box],
    frame: Box,
    unit: float,
    more_orders: int = ORDERS,
) -> list[Point]:
    """An offset for each name: it covers no point, obstacle or other name, and is read as its own point's.

    ``sizes`` (width, height) and ``marks`` in pixels; ``unit``: pixels per typographic point; names stay in ``frame``.
    Offsets are in points from the mark: to the right of it a name starts there, to the left it ends there, straight
    above or below it is centred. Each name takes its best place in turn, for several rounds, in the order given and in
    ``more_orders`` others, which take as much time each.
    """
    # N names, S places for each, M marks; boxes end in [4], points in [2].
    steps = np.round([(r * np.cos(a), r * np.sin(a)) for r in REACHES for a in np.radians(ANGLES)], 3)
    lengths, points = np.hypot(*steps.T), np.array(marks)
    size, before = np.array(sizes)[:, None], np.select([steps[:, 0] > 1, steps[:, 0] < -1], [0.0, 1.0], 0.5)
    low = points[:, None] + steps * unit - size * np.stack([before, np.full_like(before, 0.5)], -1)
    room = np.array((4.0, 1.5)) * unit  # two names that touch would be read as one
    boxes = np.concatenate([low - room, low + size + room], -1)  # [N,S,4]
    lines = points[:, None, None] + np.linspace(0.1, 0.95, 12)[:, None] * steps[:, None] * unit  # [N,S,12,2]
    lines[:, lengths <= FAR] = np.nan  # a near name needs no line

    # The cost of a place without the other names is computed once.
    dots = np.concatenate([points - 6 * unit, points + 6 * unit], -1)
    fixed = np.array([*obstacles, *dots])
    outside = (boxes[..., :2] < frame[:2]).any(-1) | (boxes[..., 2:] > frame[2:]).any(-1)
    gaps = np.maximum(boxes[:, :, None, :2] - points, points - boxes[:, :, None, 2:])
    distance = np.hypot(*np.moveaxis(np.maximum(gaps, 0), -1, 0))  # [N,S,M], from a name to each mark
    # A name that ends beside another point would be read as that point's.
    misread = (distance < np.einsum("nsn->ns", distance)[..., None] + 8 * unit).sum(-1) - 1
    covered = (overlap(boxes[:, :, None], dots) > 0).sum(-1)
    alone = overlap(boxes[:, :, None], fixed).sum(-1) + COVERED * covered + 1e4 * outside + MISREAD * misread + lengths

    def descent(order: Sequence[int]) -> tuple[float, dict[int, int]]:
        """Total cost and the places chosen where the names take their turns in this order."""
        chosen: dict[int, int] = {}
        for _ in range(ROUNDS):
            costs = []
            for own in order:
                others = [i for i in chosen if i != own], [c for i, c in chosen.items() if i != own]
                names, places = boxes[others], boxes[own][:, None]
                crossings = crosses(lines[others], places).sum(-1) + crosses(lines[own][:, None], names).sum(-1)
                cost = alone[own] + overlap(places, names).sum(-1) + CROSSING * crossings
                chosen[own] = int(np.argmin(cost))
                costs.append(cost[chosen[own]])
        return float(sum(costs)), chosen

    draw = np.random.default_rng(0)
    orders = [np.arange(len(points)), *(draw.permutation(len(points)) for _ in range(more_orders))]
    _, chosen = min((descent([int(own) for own in order]) for order in orders), key=lambda found: found[0])
    return [(float(x), float(y)) for x, y in steps[[chosen[own] for own in range(len(points))]]]


def crosses(line: np.ndarray, box: np.ndarray) -> np.ndarray:
    """True where any point of a line [...,K,2] lies in a box [...,4]."""
    return ((box[..., None, :2] < line) & (line < box[..., None, 2:])).all(-1).any(-1)


def overlap(one: Box | np.ndarray, other: Box | np.ndarray) -> np.ndarray:
    """Shared area of boxes [...,4] in square pixels, and a fixed cost for any contact."""
    one, other = np.asarray(one), np.asarray(other)
    shared = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    return np.where((shared > 0).all(-1), shared.prod(-1) + CONTACT, 0.0)
