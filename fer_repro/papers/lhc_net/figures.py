"""What the LHC-Net chapter shows beyond the common sections: who listens to whom, sixty views, the luck of a seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from scipy.integrate import quad
from scipy.stats import norm

from fer_repro import data as data_sets
from fer_repro import results
from fer_repro.data.synthetic import SMOKE_SIZE
from fer_repro.evaluation.tta import posed
from fer_repro.layers import as_input
from fer_repro.markup import Html, note, synthetic_note, table, text
from fer_repro.page import Chapter
from fer_repro.papers.lhc_net.scoring import LOOKED_AT, poses
from fer_repro.plots.figure import Figure, Theme, canvas
from fer_repro.results import Result
from fer_repro.transforms.geometry import resize

ACROSS = 5  # panels in a row
FACTOR = 8.0  # the colours end at this many times the even share, or its inverse
COUNTS = (1, 2, 5, 10, 20, 50)  # runs among which somebody may have picked
REPEATED = 3  # seeds of which a deviation can be told at all


# ---- attention -------------------------------------------------------------------------------------------------------


def attention(chapter: Chapter) -> Html:
    """Attention matrices of this page's network, where there is one, and what the result recorded of every block."""
    result = chapter.result
    recorded = result.record["facts"].get("attention")
    if not recorded:
        return Html(note("No blocks:", f"{text(result.variant)} has none, so nothing attends."), "no attention blocks")
    picture = ""
    if result.classifier is not None:
        picture = matrices(result.classifier.looks(scored_faces(result)), result.synthetic).figure()
    else:
        picture = "<p>The matrices need the network itself, and this result was loaded. The numbers it recorded:</p>"
    return Html(synthetic_note(result.synthetic) + picture + blocks_table(recorded), _told(recorded))


def scored_faces(result: Result) -> np.ndarray:
    """The first scored images of a run of this page: uint8 [N,48,48]."""
    faces = data_sets.load("synthetic", size=SMOKE_SIZE) if result.synthetic else data_sets.load("fer2013")
    scored = np.isin(faces.usage, result.record["usages"]["test"])
    return np.asarray(faces.images[np.flatnonzero(scored)[:LOOKED_AT]])


def blocks_table(recorded: Mapping[str, Any]) -> str:
    """A row for each block; figures of several heads as their range."""
    rows = [
        [
            f"LHC {place}",
            str(block["channels"]),
            str(block["heads"]),
            _range(block["evenness"]),
            _range(block["exponent"]),
            f"{block['share']:.3f}",
        ]
        for place, block in enumerate(recorded["blocks"], 1)
    ]
    caption = (
        f"Means over {recorded['n']:,} scored faces. Evenness: entropy of a row over its largest possible value, 1 = "
        "all channels alike. Added / input: norm of what the block adds over the norm of what it is added to."
    )
    header = ["Block", "Channels", "Heads", "Evenness, by head", "Exponent p, by head", "Added / input"]
    return table(header, rows, caption, numeric=range(1, 6))


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.2f}" if round(low, 2) == round(high, 2) else f"{low:.2f} to {high:.2f}"


def _told(recorded: Mapping[str, Any]) -> str:
    return "; ".join(
        f"LHC {place}: evenness {_range(block['evenness'])}, added/input {block['share']:.3f}"
        for place, block in enumerate(recorded["blocks"], 1)
    )


def matrices(looks: Sequence[Mapping[str, np.ndarray]], synthetic: bool) -> Figure:
    """Above: the first head of every block; below: the heads of the first block, from the top of the face down."""
    first = [(f"LHC {place}", look["attention"][0]) for place, look in enumerate(looks, 1)]
    heads = looks[0]["attention"]
    chosen = np.unique(np.linspace(0, len(heads) - 1, min(ACROSS, len(heads))).astype(int))
    strips = [(f"LHC 1, strip {head + 1} of {len(heads)}", heads[head]) for head in chosen]

    def draw(theme: Theme) -> Canvas:
        figure = canvas(9.2, 4.3)
        tint = LinearSegmentedColormap.from_list("tint", [theme.claimed, theme.page, theme.measured])
        grid = figure.subplots(2, ACROSS)
        limit = np.log2(FACTOR)
        for row, panels in zip(grid, (first, strips), strict=True):
            for axes, panel in zip(row, [*panels, *[None] * (ACROSS - len(panels))], strict=True):
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                if panel is None:
                    axes.set_axis_off()
                    continue
                title, weights = panel
                shown = axes.imshow(relative(weights), cmap=tint, vmin=-limit, vmax=limit, interpolation="nearest")
                axes.set_title(title, fontsize=8.6, loc="center", weight="normal")
                axes.set_xlabel(f"{len(weights)} channels", fontsize=8)
        for row in grid:
            row[0].set_ylabel("who listens", fontsize=8.6)
        ticks = [-limit, -limit / 3, 0, limit / 3, limit]
        bar = figure.colorbar(shown, ax=grid, shrink=0.75, ticks=ticks)
        bar.ax.set_yticklabels([f"{2.0**tick:.3g}" for tick in ticks])
        bar.outline.set_visible(False)
        bar.set_label("times the even share")
        return figure

    told = ", ".join(f"{title}: largest {len(w) * w.max():.1f} times" for title, w in first)
    return Figure(
        draw,
        alt=f"Channel-by-channel attention of the first head of {len(first)} blocks, and of {len(strips)} heads of the "
        f"first one. Against the even share of one over the number of channels, {told}.",
        caption="Mean attention weights over scored faces: row i tells which channels (columns) channel i takes its "
        "mixture from. White or black: the even share. Above: the first head of every block. Below: heads of the first "
        "block, each of which sees one strip of the face.",
        synthetic=synthetic,
    )


def relative(weights: np.ndarray) -> np.ndarray:
    """log2 of weights [C,C] over the even share 1/C."""
    return np.log2(np.maximum(weights * len(weights), 1e-6))


# ---- views -----------------------------------------------------------------------------------------------------------


def sixty_views() -> Figure:
    """All views of one synthetic face, in their order; the framed one counts three times."""
    faces = data_sets.load("synthetic", size=SMOKE_SIZE)
    face = torch.tensor(np.asarray(faces.images[:1]))
    views = poses()
    made = resize(posed(resize(as_input(face), 224), views), 72)[:, 0].numpy()
    across, gap = 12, 4
    down = -(-len(made) // across)
    tile = made.shape[1] + gap
    sheet = np.full((down * tile, across * tile), np.nan)
    for index, view in enumerate(made):
        top, left = divmod(index, across)
        sheet[top * tile : top * tile + len(view), left * tile : left * tile + len(view)] = view

    def draw(theme: Theme) -> Canvas:
        figure = canvas(9.0, 0.75 * down + 0.2)
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        frame = Rectangle((-3, -3), tile + 1, tile + 1, fill=False, edgecolor=theme.claimed, lw=2, clip_on=False)
        axes.add_patch(frame)
        return figure

    total = sum(pose[0] for pose in views)
    return Figure(
        draw,
        alt=f"{len(views)} copies of one face: turned, shifted, mirrored, and six of them enlarged.",
        caption=f"The {len(views)} views of one face; the framed one counts three times, so that the weights sum to "
        f"{total:.0f}. Outside the image the border is repeated.",
        synthetic=True,
        photo=True,
    )


# ---- luck ------------------------------------------------------------------------------------------------------------


def expected_best(count: int) -> float:
    """Mean of the largest of ``count`` independent standard normal numbers."""
    return quad(lambda x: x * count * norm.pdf(x) * norm.cdf(x) ** (count - 1), -12, 12)[0]


def repeated(runs: Sequence[Result]) -> dict[str, list[float]]:
    """Accuracies on PrivateTest of every variant and protocol of which enough seeds are stored."""
    found: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        found[f"{run.variant}, {run.protocol}"].append(run.score("PrivateTest")["accuracy"])
    return {name: values for name, values in found.items() if len(values) >= REPEATED}


def luck(chapter: Chapter) -> Html:
    """What picking the best of several equally good runs gains on average, for the scatter of the stored seeds."""
    known = {
        name: float(np.std(values, ddof=1)) for name, values in repeated(results.read_all(chapter.results_dir)).items()
    }
    gains = {count: expected_best(count) for count in COUNTS}
    rows = [
        [str(count), f"{gain:.2f}", *(f"{100 * gain * sd:.2f}" for sd in known.values())]
        for count, gain in gains.items()
    ]
    header = ["Runs to pick from", "Gain in σ", *(f"Points: {name}, σ = {100 * sd:.2f}" for name, sd in known.items())]
    caption = (
        "Mean gain of reporting the best of equally good runs instead of any of them, if it is picked by the number "
        "reported."
    )
    missing = "" if known else f"<p>No variant has {REPEATED} stored seeds, so no σ was measured here yet.</p>"
    told = ", ".join(f"best of {row[0]}: {row[1]} σ" for row in rows)
    return Html(table(header, rows, caption, numeric=range(len(header))) + missing, told)
