"""A paper's own idea as a picture of boxes and arrows, read from a file beside the method, and put under its network.

The file (``idea.yaml`` in a paper's folder, ``<module>.idea.yaml`` beside a module) holds ``title``, ``caption``,
``boxes`` (``id``, ``text``, ``at`` [column, row], ``kind``) and ``links``: "first > second", at whose end "along 1.5"
(a column) or "down" (the way an elbow begins) may stand. The picture is narrow, so that it can be read on a phone.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from matplotlib.axes import Axes
from matplotlib.patches import Ellipse, FancyBboxPatch

from fer_repro.claims import schema as need
from fer_repro.errors import FerReproError
from fer_repro.plots.figure import Canvas, Figure, Theme, canvas, headline

# Kind of a box -> the colour's name in a theme and what it stands for.
KINDS = {
    "map": ("measured", "feature maps or images"),
    "vector": ("extra", "vectors"),
    "layer": ("soft", "layers and other operations"),
    "join": ("ink", "element by element"),
    "loss": ("claimed", "terms of the loss"),
}
COLUMN, ROW = 1.46, 0.72  # inches from one box to the next
WIDE, HIGH = 0.92, 0.7  # of a box, as shares of these
LETTERS = 18  # in a line of a box
Point = tuple[float, float]


def _place(value: Any, where: str) -> Point:
    numbers = need.list_of(partial(need.checked, lambda n: type(n) in (int, float) and 0 <= n < 20, "0 to 20"))(
        value, where
    )
    if len(numbers) != 2:
        raise need.wrong(where, value, "a column and a row")
    return float(numbers[0]), float(numbers[1])


@dataclass(frozen=True)
class Box:
    """One box: ``at`` is (column, row) from the upper left, ``kind`` one of `KINDS`."""

    id: Annotated[str, need.text]
    text: Annotated[str, need.text]
    at: Annotated[Point, _place]
    kind: Annotated[str, need.one_of(tuple(KINDS))]


@dataclass(frozen=True)
class Link:
    """An arrow between two boxes; ``along``: a column that it follows; ``down``: an elbow begins downwards."""

    start: str
    end: str
    along: float | None
    down: bool


def _link(value: Any, where: str) -> Link:
    found = re.fullmatch(r"(\w+) > (\w+)(?: along (-?[\d.]+)| (down))?", value if isinstance(value, str) else "")
    if not found:
        raise need.wrong(
            where, value, 'an arrow like "first > second", "first > second along 1.5" or "first > second down"'
        )
    return Link(found[1], found[2], float(found[3]) if found[3] else None, bool(found[4]))


@dataclass(frozen=True)
class Idea:
    title: Annotated[str, need.text]
    caption: Annotated[str, need.text]
    boxes: Annotated[tuple[Box, ...], need.list_of(need.record(Box))]
    links: Annotated[tuple[Link, ...], need.list_of(_link)]


def path_of(papers_file: str, slug: str) -> Path:
    """Where the idea of a paper lies: in its folder, or beside its module; ``papers_file``: ``papers.__file__``."""
    room = Path(papers_file).with_name(slug.replace("-", "_"))
    return room / "idea.yaml" if room.is_dir() else room.with_suffix(".idea.yaml")


def read(path: Path) -> Idea:
    """The idea that a file describes. Raises `FerReproError` for an unknown field, kind or box."""
    found: Idea = need.record(Idea)(need.load(path), path.name)
    names = [box.id for box in found.boxes]
    unknown = [end for link in found.links for end in (link.start, link.end) if end not in names]
    if unknown or len(set(names)) < len(names):
        what = f"a link names the box '{unknown[0]}'" if unknown else "a box is there twice"
        raise FerReproError(f"{path.name}: {what}, expected each of {', '.join(names)} once")
    return found


def idea(described: Idea) -> Figure:
    """The picture; its alt text names every arrow in order."""
    boxes = {box.id: box for box in described.boxes}
    along = [link.along for link in described.links if link.along is not None]
    right, down = max(box.at[0] for box in described.boxes), max(box.at[1] for box in described.boxes)
    low, high = min([-0.5, *(x - 0.06 for x in along)]), max([right + 0.5, *(x + 0.06 for x in along)])

    def draw(theme: Theme) -> Canvas:
        figure = canvas(COLUMN * (high - low), ROW * (down + 1) + 0.35)
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.set(xlim=(low, high), ylim=(down + 0.5, -0.5))
        for link in described.links:
            _arrow(axes, _route(boxes[link.start], boxes[link.end], link), theme)
        for box in described.boxes:
            _box(axes, box, theme)
        headline(figure, described.title)
        return figure

    words = {box.id: " ".join(box.text.split()) for box in described.boxes}
    arrows = "; ".join(f"{words[link.start]} → {words[link.end]}" for link in described.links)
    used = [kind for kind in KINDS if any(box.kind == kind for box in described.boxes)]
    names = {"measured": "blue", "extra": "pink", "soft": "grey", "claimed": "orange"}
    colours = "; ".join(f"{names[KINDS[kind][0]]}: {KINDS[kind][1]}" for kind in used if kind != "join")
    return Figure(
        draw,
        alt=f"{described.title}, as boxes and arrows: {arrows}.",
        caption=f"{described.caption} {colours.capitalize()}.",
    )


def _half(box: Box) -> Point:
    """Half a box's width and height, in columns and rows."""
    return (0.13, 0.13 * COLUMN / ROW) if box.kind == "join" else (WIDE / 2, HIGH / 2)


def _route(start: Box, end: Box, link: Link) -> list[Point]:
    """The corners of an arrow: straight where the boxes share a column or row, else with one corner, or two."""
    (x1, y1), (x2, y2) = start.at, end.at
    (w1, h1), (w2, h2) = _half(start), _half(end)
    if (x := link.along) is not None:
        return [(x1 + (w1 if x > x1 else -w1), y1), (x, y1), (x, y2), (x2 + (w2 if x > x2 else -w2), y2)]
    down, across = (1 if y2 > y1 else -1), (1 if x2 > x1 else -1)
    if abs(x1 - x2) < 1 and y1 != y2:
        return [(x1, y1 + down * h1), (x2, y2 - down * h2)]
    if y1 == y2:
        return [(x1 + across * w1, y1), (x2 - across * w2, y2)]
    if link.down:
        return [(x1, y1 + down * h1), (x1, y2), (x2 - across * w2, y2)]
    return [(x1 + across * w1, y1), (x2, y1), (x2, y2 - down * h2)]


def _arrow(axes: Axes, points: list[Point], theme: Theme) -> None:
    look = {"arrowstyle": "-|>", "color": theme.soft, "lw": 1.2, "shrinkA": 0, "shrinkB": 0, "joinstyle": "miter"}
    axes.plot(*zip(*points[:-1], strict=True), color=theme.soft, lw=1.2, solid_joinstyle="miter")
    axes.annotate("", points[-1], points[-2], arrowprops=look)


def _box(axes: Axes, box: Box, theme: Theme) -> None:
    (x, y), (half, tall) = box.at, _half(box)
    colour = getattr(theme, KINDS[box.kind][0])
    text = "\n".join(line for part in box.text.splitlines() for line in textwrap.wrap(part, LETTERS))
    if box.kind == "join":
        axes.add_patch(Ellipse((x, y), 2 * half, 2 * tall, fc=theme.page, ec=colour, lw=1.2, zorder=3))
        axes.text(x, y, text, ha="center", va="center_baseline", fontsize=11, zorder=4)
        return
    shape: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.05", "mutation_aspect": COLUMN / ROW, "zorder": 3}
    corner, size = (x - half, y - tall), (2 * half, 2 * tall)
    for fill, edge, alpha in ((theme.page, "none", 1.0), (colour, "none", 0.14), ("none", colour, 1.0)):
        axes.add_patch(FancyBboxPatch(corner, *size, fc=fill, ec=edge, alpha=alpha, lw=1.2, **shape))
    axes.text(x, y, text, ha="center", va="center", fontsize=9, color=theme.ink, linespacing=1.2, zorder=4)


def illustrated(network: Figure, path: Path) -> Figure:
    """``network`` with the idea that a file describes under it, if there is such a file."""
    return Illustrated(network, read(path)) if path.exists() else network


class Illustrated(Figure):
    """A network's blocks, and under them the paper's own idea: two pictures, each with its description and caption."""

    def __init__(self, network: Figure, described: Idea) -> None:
        super().__init__(network.draw, alt=network.alt, caption=network.caption, scrolls=network.scrolls)
        self.idea = idea(described)

    def figure(self) -> str:
        return super().figure() + self.idea.figure()

    def __repr__(self) -> str:
        return f"{super().__repr__()}\n{self.idea!r}"
