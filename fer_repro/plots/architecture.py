"""Pictures of methods: a network's blocks as they really ran, or the steps of a method without a network."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import FancyBboxPatch, Polygon
from torch import Tensor, nn

from fer_repro.errors import FerReproError
from fer_repro.markup import whole
from fer_repro.plots.figure import Figure, Theme, canvas, headline

# What only normalises, activates or reshapes belongs to the block of the layer before it.
QUIET = tuple(
    "BatchNorm LayerNorm GroupNorm Dropout ReLU GELU SiLU ELU Tanh Sigmoid Identity Flatten Softmax DropPath "
    "StochasticDepth".split()
)
MOST_BLOCKS = 14


@dataclass(frozen=True)
class Block:
    """One box of a drawing: its name, what is in it, its output shape (without the batch) and its parameters."""

    name: str
    content: str
    shape: tuple[int, ...]
    parameters: int


def trace(model: nn.Module, input_shape: Sequence[int]) -> list[Block]:
    """Run one batch of zeros through ``model`` and list its blocks in the order in which they ran.

    ``input_shape`` includes the batch. Shapes come from forward hooks, parameters from the modules that ran; those
    outside any block are listed as a block of their own, so that the sum is always the model's. Raises `FerReproError`
    when the network cannot run on that shape.
    """
    names = {module: name for name, module in model.named_modules()}
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, _: object, output: object) -> None:
        first = output[0] if isinstance(output, (tuple, list)) else output
        if module not in shapes and isinstance(first, Tensor):
            shapes[module] = tuple(first.shape[1:])

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(*input_shape, device=next(model.parameters()).device))
    except RuntimeError as error:
        raise FerReproError(
            f"{type(model).__name__} does not run on an input of shape {tuple(input_shape)} ({error}): check the "
            "recipe's input_size against the network"
        ) from error
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()

    blocks: list[Block] = []
    counted: set[int] = set()
    for part in _parts(model, shapes):
        own = [p for p in part.parameters() if id(p) not in counted]
        counted |= {id(p) for p in own}
        size = sum(p.numel() for p in own)
        if not _quiet(part):
            blocks.append(Block(names[part], content(part), shapes[part], size))
        elif blocks:
            before = blocks[-1]
            blocks[-1] = Block(before.name, before.content, shapes[part], before.parameters + size)
    if rest := sum(p.numel() for p in model.parameters() if id(p) not in counted):
        blocks.append(Block("outside the blocks", "single parameters", (), rest))
    return blocks


def _quiet(module: nn.Module) -> bool:
    return type(module).__name__.startswith(QUIET)


def _parts(model: nn.Module, shapes: dict[nn.Module, tuple[int, ...]]) -> list[nn.Module]:
    """The modules to draw, in running order: the model's children, with plain containers and lone wrappers opened."""

    def ran(module: nn.Module) -> list[nn.Module]:
        order = list(shapes)
        children = [child for child in module.children() if child in shapes or isinstance(child, nn.ModuleList)]
        opened = [part for child in children for part in (ran(child) if isinstance(child, nn.ModuleList) else [child])]
        return sorted(opened, key=order.index)

    parts = ran(model)
    while len(parts) == 1 and ran(parts[0]):
        parts = ran(parts[0])
    opened = [inner for part in parts for inner in (ran(part) if type(part) is nn.Sequential else [part])]
    return opened if sum(not _quiet(part) for part in opened) <= MOST_BLOCKS else parts


def content(module: nn.Module) -> str:
    """A description of what a module holds, equal neighbours counted: "2 × conv 3×3, max pool 2×2"."""
    kind = type(module).__name__
    if _layer(module) or not isinstance(module, (nn.Sequential, nn.ModuleList)):
        return _layer(module) or kind
    inner = [_layer(child) or type(child).__name__ for child in module.children() if not _quiet(child)]
    runs = [(name, len(list(same))) for name, same in groupby(inner)]
    return ", ".join(name if count == 1 else f"{count} × {name}" for name, count in runs) or kind


def _layer(module: nn.Module) -> str:
    """The description of one layer of torch, empty for a module that holds others."""
    kind = type(module).__name__
    size = getattr(module, "kernel_size", ())
    edge = _times(size if isinstance(size, tuple) else (size, size))
    if isinstance(module, nn.Conv2d):
        depthwise = module.groups > 1 and module.groups == module.in_channels
        stride = f", stride {module.stride[0]}" if module.stride[0] > 1 else ""
        return f"{'depthwise ' if depthwise else ''}conv {edge}{stride}"
    if isinstance(module, nn.Linear):
        return "linear"
    if "Pool" in kind:
        how = "max" if "Max" in kind else "mean"
        if not kind.startswith("Adaptive"):
            return f"{how} pool {edge}"
        to = module.output_size if isinstance(module.output_size, tuple) else (module.output_size,) * 2
        return f"global {how} pool" if set(to) == {1} else f"{how} pool to {_times(to)}"
    return "" if any(True for _ in module.children()) else kind


def architecture(blocks: Sequence[Block], input_shape: Sequence[int], title: str, *, caption: str = "") -> Figure:
    """The blocks of a network from left to right, as `trace` gives them.

    A map is a box as high as its edge (in pixels, to scale) and as wide as the logarithm of its channels; a vector is a
    narrow bar. Under each stand its content, output shape and parameters. ``input_shape`` is [C,H,W].
    """
    if not blocks:
        raise FerReproError(f"nothing to draw for '{title}': the network has no blocks that ran")
    total = sum(block.parameters for block in blocks)
    boxes = [Block("input", "image", tuple(input_shape), 0), *blocks]
    tallest = max(_edge(box.shape) for box in boxes)
    shapes = [_times(box.shape) for box in boxes]
    # So wide that neighbouring shapes do not touch.
    inches = max(7.2, min(10.5, max(0.9, 0.1 * max(map(len, shapes))) * len(boxes)))
    contents = [textwrap.wrap(box.content, 15, break_long_words=False) for box in boxes]
    lines = max(map(len, contents))

    def draw(theme: Theme) -> Canvas:
        figure = canvas(inches, 2.45 + 0.155 * lines)
        axes = figure.add_subplot()
        axes.set_axis_off()
        low = -0.42 - 0.125 * lines
        axes.set(xlim=(-0.55, len(boxes) - 0.45), ylim=(low - 0.16, 1.2))
        arrow = {"arrowstyle": "-|>", "color": theme.soft, "lw": 1}
        middle = {"ha": "center", "va": "top"}
        for place, box in enumerate(boxes):
            if len(box.shape) < 2:  # a vector
                height = 0.5 * np.log2(1 + (box.shape[0] if box.shape else 1)) / 12 + 0.1
                width, depth, colour = 0.1, 0, theme.extra
            else:
                height = _edge(box.shape) / tallest
                width, depth, colour = 0.08 + 0.4 * np.log2(box.shape[0]) / 11, 0.16 * height, theme.measured
            _solid(axes, place, 0.5, width, height, depth, colour if place else theme.soft)
            if place + 1 < len(boxes):
                axes.annotate("", (place + 0.7, 0.5), (place + 0.37, 0.5), arrowprops=arrow)
            axes.text(place, -0.12, shapes[place], fontsize=8.6, weight="bold", **middle)
            axes.text(place, -0.31, "\n".join(contents[place]), fontsize=7.9, **middle)
            count = whole(box.parameters) if place else "parameters"
            style = "normal" if place else "italic"
            axes.text(place, low, count, fontsize=7.9, color=theme.soft, style=style, **middle)
        headline(figure, f"{title}: {whole(total)} parameters")
        return figure

    steps = "; ".join(f"{box.content} to {'×'.join(str(n) for n in box.shape)}" for box in blocks)
    return Figure(
        draw,
        alt=f"{title}, blocks from left to right: input {_times(input_shape)}; {steps}. "
        f"{whole(total)} parameters in all.",
        caption=caption
        or "Blocks in the order in which they ran. Boxes: feature maps, height = edge in pixels, width = logarithm of "
        "the channels; bars: vectors. Below: output shape (channels × height × width), content, parameters as counted.",
        scrolls=title,
    )


def _times(shape: Sequence[int]) -> str:
    return "×".join(str(n) for n in shape) or "-"


def _solid(axes: Axes, x: float, y: float, width: float, height: float, depth: float, colour: str) -> None:
    """A box in oblique projection around (x, y): the front, and the top and right sides ``depth`` behind it."""
    left, right = x - width / 2 - depth / 4, x + width / 2 - depth / 4
    low, high, back = y - height / 2, y + height / 2, depth / 2
    front = [(left, low), (right, low), (right, high), (left, high)]
    top = [(left, high), (right, high), (right + back, high + back), (left + back, high + back)]
    side = [(right, low), (right + back, low + back), (right + back, high + back), (right, high)]
    for corners, alpha in ((front, 0.3), *(((top, 0.16), (side, 0.5)) if depth else ())):
        axes.add_patch(Polygon(corners, closed=True, facecolor=colour, alpha=alpha, edgecolor="none"))
        axes.add_patch(Polygon(corners, closed=True, facecolor="none", edgecolor=colour, lw=1.1, joinstyle="round"))


def _edge(shape: tuple[int, ...]) -> int:
    return shape[1] if len(shape) > 2 else 1


def pipeline(steps: Sequence[tuple[str, str]], title: str) -> Figure:
    """A method without a network: boxes (name, what happens) joined by arrows, in rows of at most five."""
    if not steps:
        raise FerReproError(f"nothing to draw for '{title}': the pipeline has no steps")
    across = min(5, len(steps)) if len(steps) != 6 else 3
    down = -(-len(steps) // across)

    def draw(theme: Theme) -> Canvas:
        figure = canvas(max(7.2, 1.75 * across), 0.45 + 1.3 * down)
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.set(xlim=(-0.05, across), ylim=(-down + 0.02, 0.02))
        arrow = {"arrowstyle": "-|>", "color": theme.soft, "lw": 1.2}
        corners = {"boxstyle": "round,pad=0,rounding_size=0.05", "mutation_aspect": 1.3, "lw": 1.2}
        wide, high = 0.84, 0.8
        for index, (name, what) in enumerate(steps):
            row, column = divmod(index, across)
            left, low = column + 0.03, -row - 0.9
            middle = left + wide / 2
            for fill, edge, alpha in ((theme.measured, "none", 0.14), ("none", theme.measured, 1.0)):
                box = FancyBboxPatch((left, low), wide, high, fc=fill, ec=edge, alpha=alpha, **corners)
                axes.add_patch(box)
            text = {"ha": "center", "va": "top"}
            axes.text(middle, low + high - 0.1, f"{index + 1}  {name}", fontsize=9, weight="bold", **text)
            content = "\n".join(textwrap.wrap(what, 27)[:4])
            axes.text(middle, low + high - 0.3, content, fontsize=7.9, color=theme.ink, linespacing=1.25, **text)
            if index + 1 < len(steps) and column + 1 < across:
                axes.annotate("", (column + 1.03, low + high / 2), (left + wide, low + high / 2), arrowprops=arrow)
            elif index + 1 < len(steps):  # the next row starts at the left again
                axes.plot([middle, middle, 0.45], [low, low - 0.1, low - 0.1], color=theme.soft, lw=1.2)
                axes.annotate("", (0.45, low - 0.2), (0.45, low - 0.1), arrowprops=arrow)
        headline(figure, title)
        return figure

    order = "; ".join(f"{index}. {name}: {what}" for index, (name, what) in enumerate(steps, 1))
    return Figure(draw, alt=f"{title}, step by step. {order}", scrolls=title)
