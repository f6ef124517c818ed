"""What the Segmentation VGG-19 chapter shows beyond the common sections.

Which counts of images print as the claim; one run read in every way that could be meant; what chance does in the random
views; how far the gates move the maps, before and after training; what gates and second training cost and bring.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from matplotlib.figure import Figure as Canvas

from fer_repro import data as data_sets
from fer_repro import papers, results
from fer_repro.claims import HALF, claim_of, counts_that_print
from fer_repro.data.synthetic import SMOKE_SIZE
from fer_repro.errors import FerReproError
from fer_repro.evaluation import cost
from fer_repro.evaluation.cost import input_shape, weightless
from fer_repro.evaluation.statistics import paired_comparison, wilson
from fer_repro.layers import as_input
from fer_repro.markup import SYNTHETIC, Html, interval, note, percent, synthetic_note, table, text, whole
from fer_repro.page import Chapter
from fer_repro.papers import model_name
from fer_repro.papers.segmentation_vgg19 import PLAIN, ROW, SegmentationVgg19
from fer_repro.papers.segmentation_vgg19.gates import GateFacts, gate_statistics
from fer_repro.plots.figure import Figure, Theme, canvas
from fer_repro.results import HALVES, paired_hits
from fer_repro.training import checkpoint
from fer_repro.training.execution import one_thread

CUT = "Cut: further digits are dropped, not rounded."
BATCH = 8  # images in a batch of the released validation
FACES = 4  # synthetic faces that the untrained network sees


# ---- the number ------------------------------------------------------------------------------------------------------


def batch_means_that_print(accuracy: float, n: int = HALF, batch: int = BATCH) -> tuple[int, ...]:
    """Every number of right answers among ``n`` for which a mean of batch accuracies can print as ``accuracy``.

    The last batch holds the n modulo ``batch`` images that are left and weighs as much as a full one.
    """
    full, rest = divmod(n, batch)
    found = set()
    for last in range(rest + 1) if rest else (0,):
        tail = Fraction(last, rest) if rest else Fraction(0)
        target, half = Fraction(str(accuracy)) / 100, Fraction(1, 20_000)
        batches = full + (rest > 0)
        low, high = ((target + sign * half) * batches - tail for sign in (-1, 1))
        first, after = -(-low * batch // 1), -(-high * batch // 1)
        found |= {int(k) + last for k in range(max(0, int(first)), min(full * batch + 1, int(after)))}
    return tuple(sorted(found))


def arithmetic() -> Html:
    """Which numbers of right answers print as the claim, for the sets of images that could be meant."""
    accuracy = claim_of(ROW).accuracy
    sets = {
        "PublicTest, or PrivateTest": HALF,
        "one image short": HALF - 1,
        "two images short": HALF - 2,
        "PublicTest and PrivateTest together": 2 * HALF,
    }

    def told(counts: Sequence[int]) -> str:
        return " or ".join(whole(count) for count in counts) or "none"

    rows = [
        [text(what), whole(n), told(counts_that_print(accuracy, n)), told(counts_that_print(accuracy, n, cut=True))]
        for what, n in sets.items()
    ]
    means = batch_means_that_print(accuracy)
    rows.append([f"PublicTest, mean of the accuracies of batches of {BATCH}", whole(HALF), told(means), ""])
    header = ["Images", "Number", "Right answers, rounded", "Right answers, cut"]
    body = table(header, rows, f"What prints as {accuracy:.2f}\u00a0%. {CUT}", (1, 2, 3))
    return Html(body, f"{accuracy:.2f} %: none of {HALF}, {told(counts_that_print(accuracy, 2 * HALF))} of {2 * HALF}")


def batch_mean(hits: np.ndarray, batch: int = BATCH) -> float:
    """The mean of batch accuracies of bool [N] in their order; the last batch may be smaller and counts as much."""
    return statistics.fmean(float(hits[start : start + batch].mean()) for start in range(0, len(hits), batch))


def readings(chapter: Chapter) -> Html:
    """This run's accuracy in every way that the claim could have been formed, from its predictions."""
    result = chapter.result
    kinds = {"plain": "as it is"} | ({"views": "random views"} if result.has_views else {})
    rows, told = [], []
    for kind, views in kinds.items():
        hits = {
            half: result.predictions[f"{half}_{kind}"].argmax(axis=1) == result.predictions[f"{half}_labels"]
            for half in HALVES
        }
        both = np.concatenate([hits[half] for half in HALVES])
        for name, right in (*reversed(hits.items()), ("both halves, as one set", both)):
            low_high = wilson(int(right.sum()), len(right))
            cells = [whole(len(right)), whole(int(right.sum())), percent(right.mean()), interval(low_high)]
            rows.append([text(name), views, *cells])
            told.append(f"{name}, {views}: {percent(right.mean())}")
        if kind == "plain":
            public = hits["PublicTest"]
            mean = [whole(len(public)), "", percent(batch_mean(public)), ""]
            rows.append([f"PublicTest, mean over batches of {BATCH}", views, *mean])
    header = ["Images", "Views", "Number", "Right", "Accuracy", "95 % interval"]
    caption = "PublicTest selected the epoch: what contains it is no test. Only PrivateTest is scored."
    return Html(synthetic_note(result.synthetic) + table(header, rows, caption, range(2, 6)), "; ".join(told))


def views(chapter: Chapter) -> Html:
    """The same network on the same test images with several draws of the random views."""
    result = chapter.result
    found = result.record["facts"].get("random_views")
    if not found:
        raise FerReproError(f"the result of {result.variant} records no random views: run it again")
    n, scores = found["n"], [right / found["n"] for right in found["views"]]
    rows = [["the image as it is", whole(found["plain"]), percent(found["plain"] / n)]]
    rows += [
        [f"{found['count']} random views, seed {seed}", whole(right), percent(right / n)]
        for seed, right in enumerate(found["views"])
    ]
    spread = f"{100 * statistics.fmean(scores):.2f} ± {100 * statistics.stdev(scores):.2f}\u00a0%"
    rows.append(["their mean ± standard deviation", "", spread])
    body = table(["View", f"Right of {n:,}", "Accuracy"], rows, f"{result.variant} on {result.scored}", (1, 2))
    return Html(synthetic_note(result.synthetic) + body, f"plain {percent(found['plain'] / n)}, random views {spread}")


# ---- the gates -------------------------------------------------------------------------------------------------------


@one_thread()
def measure_start(seed: int) -> list[GateFacts]:
    """The four gates at their real widths in an untrained network, on a few synthetic faces of 48x48 pixels.

    The head, which no gate sees, is left small; batch norm uses the batch's statistics, as there are no others yet.
    """
    with checkpoint.seeded(seed, torch.device("cpu")):
        network = SegmentationVgg19(hidden=16).train()
    faces = data_sets.load("synthetic", size=SMOKE_SIZE)
    return gate_statistics(network, network.gates, as_input(torch.tensor(np.asarray(faces.images[:FACES]))))


def gates_at_start(chapter: Chapter) -> Html:
    """How far the gates are from doing nothing before training, at full width."""
    return _gates(measure_start(chapter.parameters.seed), "Before training, at full width", synthetic=True)


def gates_of_run(chapter: Chapter) -> Html:
    """The same of this page's network, on its first test images."""
    result = chapter.result
    found = result.record["facts"].get("gates")
    if not found:
        return Html(f"<p>{text(result.variant)} has no gates to look at.</p>", f"{result.variant}: no gates")
    return _gates(
        [GateFacts(**gate) for gate in found], f"After training: {result.variant}", synthetic=result.synthetic
    )


def _gates(gates: Sequence[GateFacts], title: str, synthetic: bool) -> Html:
    figure = _ranges(gates, title, synthetic)
    rows = [
        [
            f"after stage {text(g.name)}",
            whole(g.channels),
            f"{1 / g.channels:.5f}",
            f"{g.mean:.5f}",
            f"{g.median:.5f}",
            f"{g.high:.4f}",
            f"{g.largest:.4f}",
            percent(g.change),
            percent(g.shaped),
        ]
        for g in gates
    ]
    header = [
        "Gate",
        "C",
        "1/C",
        "Mean of m",
        "Median",
        "99th percentile",
        "Largest",
        "Maps move by",
        "No common factor",
    ]
    caption = "Maps move by: |x m| / |x|. No common factor: what is left of it when one factor for all of x is allowed."
    mind = note("Mind:", f"{text(SYNTHETIC)}.") if synthetic else ""
    return Html(figure.figure() + mind + table(header, rows, caption, range(1, 9)), repr(figure))


def _ranges(gates: Sequence[GateFacts], title: str, synthetic: bool) -> Figure:
    def draw(theme: Theme) -> Canvas:
        figure = canvas(7.2, 0.9 + 0.42 * len(gates))
        axes = figure.add_subplot()
        places = range(len(gates), 0, -1)
        for place, gate in zip(places, gates, strict=True):
            axes.plot([gate.median, gate.largest], [place, place], color=theme.soft, lw=1)
            axes.plot([gate.median, gate.high], [place, place], color=theme.measured, lw=7, solid_capstyle="butt")
            axes.plot([gate.largest], [place], "|", color=theme.soft, ms=9)
            axes.plot([gate.mean], [place], "d", color=theme.claimed, ms=6)
        axes.plot([], [], "d", color=theme.claimed, label="mean")
        axes.plot([], [], color=theme.measured, lw=7, label="median to 99th percentile")
        axes.plot([], [], color=theme.soft, lw=1, marker="|", label="up to the largest")
        axes.set(xscale="log", xlim=(5e-4, 1.05), ylim=(0.4, len(gates) + 0.6))
        axes.set_xlabel("mask m; the maps become x (1 + m)")
        axes.set_yticks(places, [f"stage {gate.name}, C = {gate.channels}" for gate in gates])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_title(title, pad=24)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=8.5, borderaxespad=0.2)
        return figure

    told = "; ".join(
        f"after stage {g.name} mean {g.mean:.4f}, 99th percentile {g.high:.3f}, largest {g.largest:.3f}, the maps move "
        f"by {percent(g.change)}"
        for g in gates
    )
    return Figure(
        draw,
        alt=f"{title}. Values of the masks: {told}.",
        caption="Values of the masks over all channels, places and faces, on a logarithmic axis. A gate that does "
        "nothing has m = 0 everywhere, one that doubles the maps has m = 1.",
        synthetic=synthetic,
    )


# ---- what they are worth ---------------------------------------------------------------------------------------------


def worth(chapter: Chapter) -> Html:
    """Plain and gated network side by side: what they cost, counted, and every stored pair on the same images."""
    protocol = chapter.parameters.protocol
    rows = []
    for name in (PLAIN, ROW):
        variant = papers.get(name)
        recipe = variant.recipe(protocol, "full")
        network = weightless(variant.build, recipe)
        adds = cost.count_multiply_adds(network, input_shape(recipe))
        own = sum(cost.count_parameters(gate) for gate in network.gates.values())
        rows.append([text(name), whole(cost.count_parameters(network)), whole(own), f"{adds / 1e9:.1f}"])
    header = ["Network", "Parameters", "of these in gates", "Multiply-adds, 10⁹"]
    body = table(header, rows, "One image of 224×224 pixels, counted", range(1, 4))
    told = "; ".join(f"{row[0]}: {row[3]} billion multiply-adds" for row in rows)
    return Html(body + _pairs(chapter, protocol), told)


def _pairs(chapter: Chapter, protocol: str) -> str:
    """Gated minus plain on the same PrivateTest images, as they are, by seed and by where the first training began."""
    stored = {(run.variant, run.seed): run for run in results.read_all(chapter.results_dir) if run.protocol == protocol}
    rows = []
    for (name, seed), gated in sorted(stored.items()):
        plain = stored.get((name.replace(ROW, PLAIN), seed)) if name in (ROW, f"{ROW}-scratch") else None
        if plain is not None:
            difference, low, high, p = paired_comparison(*paired_hits(gated, plain))
            words = f"{100 * difference:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
            rows.append([text(model_name(name)), f"{seed}", words, f"{p:.3f}"])
    if not rows:
        return (
            "<p>What gates and second training are worth: not run. It takes a stored run of both networks with the "
            "same protocol and seed.</p>"
        )
    header = ["Gated network", "Seed", "Gated minus plain, points", "p (McNemar)"]
    return table(header, rows, "On the same PrivateTest images, as they are", range(1, 4))
