"""Figures and tables of the LHC-Net chapter: channel attention, sixty copies of a test image, the selection gain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from scipy.integrate import quad
from scipy.stats import norm
from torchvision.utils import make_grid

from fer_repro import data as data_sets
from fer_repro import results
from fer_repro.data.synthetic import SMOKE_SIZE
from fer_repro.evaluation.tta import posed
from fer_repro.layers import as_input
from fer_repro.markup import SYNTHETIC, Html, note, remark_note, table, text
from fer_repro.papers.lhc_net.scoring import ATTENTION_IMAGES, poses
from fer_repro.plots.figure import Canvas, Figure, Theme, canvas
from fer_repro.results import Result
from fer_repro.transforms.geometry import resize

COLUMNS = 5  # panels in a row
FACTOR = 8.0  # the colours end at this many times the even share, or its inverse
COUNTS = (1, 2, 5, 10, 20, 50)  # runs of which somebody reports the best
ENOUGH_SEEDS = 3  # for a standard deviation


def attention(result: Result) -> Html:
    """Attention matrices of this page's network, where there is one, and the numbers recorded for each block."""
    recorded = result.record["facts"].get("attention")
    if not recorded:
        return Html(note("No blocks:", f"{text(result.variant)} has no attention blocks."), "no attention blocks")
    picture = "<p>The matrices need the network itself, and this result was loaded. The numbers it recorded:</p>"
    if result.classifier is not None:
        picture = matrices(result.classifier.attention(scored_faces(result)), result.remark).figure()
    summary = "; ".join(
        f"LHC {place}: evenness {_range(block['evenness'])}, added/input {block['share']:.3f}"
        for place, block in enumerate(recorded["blocks"], 1)
    )
    return Html(remark_note(result.remark) + picture + blocks_table(recorded), summary)


def scored_faces(result: Result) -> np.ndarray:
    """The first scored images of a run of this page: uint8 [N,48,48]."""
    faces = data_sets.load("synthetic", size=SMOKE_SIZE) if result.synthetic else data_sets.load("fer2013")
    scored = np.isin(faces.usage, result.record["usages"]["test"])
    return np.asarray(faces.images[np.flatnonzero(scored)[:ATTENTION_IMAGES]])


def blocks_table(recorded: Mapping[str, Any]) -> str:
    """A row for each block; numbers of several heads as their range."""
    rows = []
    for place, block in enumerate(recorded["blocks"], 1):
        sizes, ranges = (block["channels"], block["heads"]), (block["evenness"], block["exponent"])
        rows.append([f"LHC {place}", *map(str, sizes), *map(_range, ranges), f"{block['share']:.3f}"])
    caption = (
        f"Means over {recorded['n']:,} scored faces. Evenness: entropy of a row over its largest possible value, 1 = "
        "all channels alike. Exponent p: near 1 the divisor is near m². Added / input: norm of the block's addition "
        "over the norm of its input."
    )
    header = ["Block", "Channels", "Heads", "Evenness, by head", "Exponent p, by head", "Added / input"]
    return table(header, rows, caption, numeric=range(1, 6))


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.2f}" if round(low, 2) == round(high, 2) else f"{low:.2f} to {high:.2f}"


def matrices(blocks: Sequence[Mapping[str, np.ndarray]], remark: str) -> Figure:
    """Above: the first head of every block; below: the heads of the first block, from the top of the face down."""
    first = [(f"LHC {place}", block["attention"][0]) for place, block in enumerate(blocks, 1)]
    heads = blocks[0]["attention"]
    chosen = np.unique(np.linspace(0, len(heads) - 1, min(COLUMNS, len(heads))).astype(int))
    strips = [(f"LHC 1, strip {head + 1} of {len(heads)}", heads[head]) for head in chosen]

    def draw(theme: Theme) -> Canvas:
        figure = canvas(9.2, 4.3)
        tint = LinearSegmentedColormap.from_list("tint", [theme.claimed, theme.page, theme.measured])
        grid, limit = figure.subplots(2, COLUMNS), np.log2(FACTOR)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        for row, panels in zip(grid, (first, strips), strict=True):
            row[0].set_ylabel("receiving channel", fontsize=8.6)
            for axes in row[len(panels) :]:
                axes.set_axis_off()
            for axes, (title, weights) in zip(row, panels, strict=False):
                shown = axes.imshow(relative(weights), cmap=tint, vmin=-limit, vmax=limit, interpolation="nearest")
                axes.set_title(title, fontsize=8.6, loc="center", weight="normal")
                axes.set_xlabel(f"{len(weights)} channels", fontsize=8)
        ticks = [-limit, -limit / 3, 0, limit / 3, limit]
        bar = figure.colorbar(shown, ax=grid, shrink=0.75, ticks=ticks)
        bar.ax.set_yticklabels([f"{2.0**tick:.3g}" for tick in ticks])
        bar.outline.set_visible(False)
        bar.set_label("times the even share")
        return figure

    largest = ", ".join(f"{title}: largest {len(w) * w.max():.1f} times" for title, w in first)
    return Figure(
        draw,
        scrolls="attention between channels",
        alt=f"Channel-by-channel attention of the first head of {len(first)} blocks, and of {len(strips)} heads of the "
        f"first one. Relative to the even share of one over the number of channels, {largest}.",
        caption="Mean attention weights over scored faces: row i shows from which channels (columns) channel i takes "
        "its mixture. White or black: the even share; a vertical line: a channel from which all others take a large "
        "share. Above: the first head of every block. Below: heads of the first "
        "block, each of which sees one strip of the face.",
        remark=remark,
    )


def relative(weights: np.ndarray) -> np.ndarray:
    """log2 of weights [C,C] over the even share 1/C."""
    return np.log2(np.maximum(weights * len(weights), 1e-6))


def sixty_copies() -> Figure:
    """All copies of a synthetic face for test-time augmentation, in their order; the framed one counts three times."""
    faces = data_sets.load("synthetic", size=SMOKE_SIZE)
    face = torch.tensor(np.asarray(faces.images[:1]))
    copies, edge, gap, across = poses(), 72, 4, 12
    made = resize(posed(resize(as_input(face), 224), copies), edge)
    # make_grid begins with a margin, which is cut off: a copy, a gap, a copy, ...
    sheet = make_grid(made, across, gap, pad_value=float("nan"))[0, gap:, gap:].numpy()

    def draw(theme: Theme) -> Canvas:
        figure = canvas(9.0, 0.75 * len(sheet) / (edge + gap) + 0.2)
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        style = {"fill": False, "edgecolor": theme.claimed, "lw": 2, "clip_on": False}
        axes.add_patch(Rectangle((-3, -3), edge + gap + 1, edge + gap + 1, **style))
        return figure

    total = sum(pose[0] for pose in copies)
    return Figure(
        draw,
        alt=f"{len(copies)} copies of one face: rotated, shifted, mirrored, and six of them enlarged.",
        caption=f"The {len(copies)} copies of one face; the framed one counts three times, so that the weights sum to "
        f"{total:.0f}. Outside the image the border is repeated.",
        remark=SYNTHETIC,
        photo=True,
    )


def expected_best(count: int) -> float:
    """Mean of the largest of ``count`` independent standard normal numbers."""
    return quad(lambda x: x * count * norm.pdf(x) * norm.cdf(x) ** (count - 1), -12, 12)[0]


def scatter(runs: Sequence[Result]) -> dict[str, float]:
    """Standard deviation over seeds of the PrivateTest accuracy, for every variant and protocol with enough seeds."""
    accuracies: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        accuracies[f"{run.variant}, {run.protocol}"].append(run.score("PrivateTest")["accuracy"])
    return {name: float(np.std(a, ddof=1)) for name, a in accuracies.items() if len(a) >= ENOUGH_SEEDS}


def selection_gain(results_dir: Path | None) -> Html:
    """The mean gain of reporting the best of several equally good runs, for the scatter of the stored seeds."""
    known = scatter(results.read_all(results_dir))
    gains = {count: expected_best(count) for count in COUNTS}
    rows = [[f"{n}", f"{gain:.2f}", *(f"{100 * gain * sd:.2f}" for sd in known.values())] for n, gain in gains.items()]
    header = ["Number of runs", "Gain in σ", *(f"Points: {name}, σ = {100 * sd:.2f}" for name, sd in known.items())]
    caption = (
        "Mean gain of reporting the best of equally good runs instead of any of them, if the reported number itself "
        "selects the run."
    )
    missing = "" if known else f"<p>No variant has {ENOUGH_SEEDS} stored seeds, so no σ was measured here yet.</p>"
    summary = ", ".join(f"best of {row[0]}: {row[1]} σ" for row in rows)
    return Html(table(header, rows, caption, numeric=range(len(header))) + missing, summary)
