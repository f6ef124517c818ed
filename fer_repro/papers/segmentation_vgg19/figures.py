"""What the Segmentation VGG-19 chapter shows beyond the common sections.

Which counts of images print as the claim; one run scored in every way that could be meant; the effect of chance in the
random copies; how far the gates move the maps, before and after training; cost and effect of gates and second training.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure as Canvas

from fer_repro import data as data_sets
from fer_repro import results
from fer_repro.claims import HALF, claim_of, counts_that_print
from fer_repro.data.synthetic import SMOKE_SIZE
from fer_repro.evaluation import cost
from fer_repro.evaluation.cost import input_shape, weightless
from fer_repro.evaluation.statistics import mcnemar, paired_difference, wilson
from fer_repro.layers import as_input
from fer_repro.markup import SYNTHETIC, Html, interval, percent, remark_note, table, text, whole
from fer_repro.papers import model_name
from fer_repro.papers.segmentation_vgg19 import PLAIN, ROW, SegmentationVgg19, build, recipe
from fer_repro.papers.segmentation_vgg19.gates import GateFacts, gate_statistics
from fer_repro.plots.figure import Figure, Theme, canvas, headline
from fer_repro.results import HALVES, NotRecorded, Result
from fer_repro.training import checkpoint
from fer_repro.training.execution import one_thread

CUT = "Cut: further digits are dropped, not rounded."
BATCH = 8  # images in a batch of the released validation
FACES = 4  # synthetic faces that the untrained network is measured on


def batch_means_that_print(accuracy: float, n: int = HALF, batch: int = BATCH) -> tuple[int, ...]:
    """Every number of correct answers among ``n`` for which a mean of batch accuracies can print as ``accuracy``.

    The last batch holds the n modulo ``batch`` images that are left and weighs as much as a full one.
    """
    full, rest = divmod(n, batch)
    target, rounding = Fraction(str(accuracy)) / 100, Fraction(1, 20_000)
    found = set()
    for last in range(rest + 1):
        tail = Fraction(last, rest) if rest else Fraction(0)
        low, high = ((target + sign * rounding) * (full + (rest > 0)) - tail for sign in (-1, 1))
        first, after = -(-low * batch // 1), -(-high * batch // 1)
        found |= {int(k) + last for k in range(max(0, int(first)), min(full * batch + 1, int(after)))}
    return tuple(sorted(found))


def arithmetic() -> Html:
    """Which numbers of correct answers print as the claim, for the sets of images that could be meant."""
    accuracy = claim_of(ROW).accuracy
    sets = {
        "PublicTest, or PrivateTest": HALF,
        "one image short": HALF - 1,
        "two images short": HALF - 2,
        "PublicTest and PrivateTest together": 2 * HALF,
    }

    def listed(counts: Sequence[int]) -> str:
        return " or ".join(whole(count) for count in counts) or "none"

    rows = [
        [text(name), whole(n), *(listed(counts_that_print(accuracy, n, cut=cut)) for cut in (False, True))]
        for name, n in sets.items()
    ]
    means = listed(batch_means_that_print(accuracy))
    rows.append([f"PublicTest, mean of the accuracies of batches of {BATCH}", whole(HALF), means, ""])
    header = ["Images", "Number", "Correct answers, rounded", "Correct answers, cut"]
    body = table(header, rows, f"What prints as {accuracy:.2f}\u00a0%. {CUT}", (1, 2, 3))
    both = listed(counts_that_print(accuracy, 2 * HALF))
    return Html(body, f"{accuracy:.2f} %: none of {HALF}, {both} of {2 * HALF}")


def batch_mean(hits: np.ndarray, batch: int = BATCH) -> float:
    """The mean of batch accuracies of bool [N] in their order; the last batch may be smaller and counts as much."""
    return statistics.fmean(float(hits[start : start + batch].mean()) for start in range(0, len(hits), batch))


def readings(result: Result) -> Html:
    """A run's accuracy in every way that the claim could have been formed, from its predictions."""
    if result.halves != HALVES:
        raise NotRecorded(f"the {result.remark} were scored on {' and '.join(result.halves)} only")
    kinds = {"plain": "as it is"} | ({"views": "random copies"} if result.has_views else {})
    rows, shown = [], []
    for kind, views in kinds.items():
        public, private = (
            result.predictions[f"{usage}_{kind}"].argmax(axis=1) == result.predictions[f"{usage}_labels"]
            for usage in HALVES
        )
        both = np.concatenate([public, private])
        sets = {"PrivateTest": private, "PublicTest": public, "both test sets, as one set": both}
        for name, hits in sets.items():
            right, n, share = int(hits.sum()), len(hits), percent(hits.mean())
            rows.append([name, views, whole(n), whole(right), share, interval(wilson(right, n))])
            shown.append(f"{name}, {views}: {share}")
        if kind == "plain":
            mean = percent(batch_mean(public))
            rows.append([f"PublicTest, mean over batches of {BATCH}", views, whole(len(public)), "", mean, ""])
    header = ["Images", "Test-time augmentation", "Number", "Correct", "Accuracy", "95 % interval"]
    caption = "PublicTest selected the epoch: a score that contains it is not a test score. Only PrivateTest is scored."
    return Html(remark_note(result.remark) + table(header, rows, caption, range(2, 6)), "; ".join(shown))


def views(result: Result) -> Html:
    """The same network on the same test images with several seeds of the random copies."""
    found = result.record["facts"].get("random_views")
    if not found:
        raise NotRecorded(f"the result of {result.variant} records no random copies: run it again")
    n, count, scores = found["n"], found["count"], [right / found["n"] for right in found["views"]]
    names = ["the image as it is", *(f"{count} random copies, seed {seed}" for seed in range(len(scores)))]
    counts = [found["plain"], *found["views"]]
    rows = [[name, whole(right), percent(right / n)] for name, right in zip(names, counts, strict=True)]
    spread = f"{100 * statistics.fmean(scores):.2f} ± {100 * statistics.stdev(scores):.2f}\u00a0%"
    rows.append(["their mean ± standard deviation", "", spread])
    header = ["Test-time augmentation", f"Correct of {n:,}", "Accuracy"]
    body = table(header, rows, f"{result.variant} on {result.scored}", (1, 2))
    return Html(remark_note(result.remark) + body, f"plain {percent(found['plain'] / n)}, random copies {spread}")


@one_thread()
def measure_start(seed: int) -> list[GateFacts]:
    """The four gates at their real widths in an untrained network, on a few synthetic faces of 48x48 pixels.

    The head, which comes after all gates, is small; batch norm uses the batch's statistics, as there are no others yet.
    """
    with checkpoint.seeded(seed, torch.device("cpu")):
        network = SegmentationVgg19(hidden=16).train()
    faces = data_sets.load("synthetic", size=SMOKE_SIZE)
    return gate_statistics(network, network.gates, as_input(torch.tensor(np.asarray(faces.images[:FACES]))))


def gates_at_start(seed: int) -> Html:
    """How far the gates are from the identity before training, at full width."""
    return _gates(measure_start(seed), "Before training, at full width", remark=SYNTHETIC)


def gates_of_run(result: Result) -> Html:
    """The same of a trained network, on its first test images."""
    found = [GateFacts(**gate) for gate in result.record["facts"].get("gates", [])]
    if not found:
        return Html(f"<p>{text(result.variant)} has no gates to measure.</p>", f"{result.variant}: no gates")
    shown = _gates(found, f"After training: {result.variant}", remark=result.remark)
    few = "<p>A smoke run has few channels, so 1/C is large.</p>" if result.profile == "smoke" else ""
    return Html(shown.body + few, shown.plain)


def _gates(gates: Sequence[GateFacts], title: str, remark: str) -> Html:
    figure, rows = _ranges(gates, title, remark), []
    for g in gates:
        values = [f"{1 / g.channels:.5f}", f"{g.mean:.5f}", f"{g.median:.5f}", f"{g.high:.4f}", f"{g.largest:.4f}"]
        rows.append([f"after stage {text(g.name)}", whole(g.channels), *values, percent(g.change), percent(g.shaped)])
    header = ["Gate", "C", "1/C", "Mean of m", "Median", "99th percentile", "Largest", "Maps move by"]
    header.append("No common factor")
    caption = "Maps move by: |x m| / |x|. No common factor: what is left of it when one factor for all of x is allowed."
    return Html(figure.figure() + remark_note(remark) + table(header, rows, caption, range(1, 9)), repr(figure))


def _ranges(gates: Sequence[GateFacts], title: str, remark: str) -> Figure:
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
        headline(figure, title)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=8.5, borderaxespad=0.2)
        return figure

    values = "; ".join(
        f"after stage {g.name} mean {g.mean:.4f}, 99th percentile {g.high:.3f}, largest {g.largest:.3f}, the maps move "
        f"by {percent(g.change)}"
        for g in gates
    )
    return Figure(
        draw,
        scrolls=title,
        alt=f"{title}. Values of the masks: {values}.",
        caption="Values of the masks over all channels, positions and faces, on a logarithmic axis. A gate that is the "
        "identity has m = 0 everywhere, one that doubles the maps has m = 1.",
        remark=remark,
    )


def effect(protocol: str, results_dir: Path | None = None) -> Html:
    """Plain and gated network side by side: their cost, counted, and every stored pair on the same images."""
    rows = []
    for name in (PLAIN, ROW):
        full = recipe(protocol, "full", name)
        network = weightless(build, full)
        adds = cost.count_multiply_adds(network, input_shape(full))
        own = sum(cost.count_parameters(gate) for gate in network.gates.values())
        rows.append([text(name), whole(cost.count_parameters(network)), whole(own), f"{adds / 1e9:.1f}"])
    header = ["Network", "Parameters", "of these in gates", "Multiply-adds, 10⁹"]
    body = table(header, rows, "One image of 224×224 pixels, counted", range(1, 4))
    costs = "; ".join(f"{row[0]}: {row[3]} billion multiply-adds" for row in rows)
    return Html(body + _pairs(protocol, results_dir), costs)


def _pairs(protocol: str, results_dir: Path | None) -> str:
    """Gated minus plain on the same PrivateTest images, as they are, by seed and by the weights of the first start."""
    stored = {(run.variant, run.seed): run for run in results.read_all(results_dir) if run.protocol == protocol}
    rows = []
    for (name, seed), gated in sorted(stored.items()):
        plain = stored.get((name.replace(ROW, PLAIN), seed)) if name in (ROW, f"{ROW}-scratch") else None
        if plain is not None:
            hits = results.paired_hits(gated, plain)
            difference, low, high = (f"{100 * value:+.2f}" for value in paired_difference(*hits))
            rows.append([text(model_name(name)), f"{seed}", f"{difference} ({low} to {high})", f"{mcnemar(*hits):.3f}"])
    if not rows:
        return (
            "<p>The effect of gates and second training: not run. It takes a stored run of both networks with the same "
            "protocol and seed.</p>"
        )
    header = ["Gated network", "Seed", "Gated minus plain, points", "p (McNemar)"]
    return table(header, rows, "On the same PrivateTest images, as they are", range(1, 4))
