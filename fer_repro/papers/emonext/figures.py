"""What EmoNeXt's chapter shows beyond the common sections.

What each size is made of; how large the term on attention is against the cross-entropy; which weights have a gradient;
the learning rate as released, as flagged and as corrected; what clipping leaves of a step; crops in training and test.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fer_repro import data as data_sets
from fer_repro import plots
from fer_repro.data import LABELS
from fer_repro.evaluation import cost
from fer_repro.evaluation.cost import input_shape, weightless
from fer_repro.layers import SqueezeExcite
from fer_repro.markup import SYNTHETIC, Html, percent, remark_note, table, text, whole
from fer_repro.papers.emonext import RESIZED, SIZE, SIZES, BatchAttention, EmoNeXt, build, recipe
from fer_repro.plots import idea
from fer_repro.plots.figure import Canvas, Figure, Theme, canvas
from fer_repro.recipe import step
from fer_repro.results import HALVES, NotRecorded, Result
from fer_repro.training import traces
from fer_repro.training.losses import make_loss, spread
from fer_repro.training.optim import make_optimiser
from fer_repro.training.traces import BATCHES
from fer_repro.transforms import crops, geometry

BATCH_SIZES = (10, 32, 64)
FLAG = 1e-4  # the released command's learning rate, and the paper's
FACES, SIDE = 4, 128  # that gradients are measured on: at 128 pixels every tap of the last stage's kernels meets a map
SCALES = {0.25: "released: D to the power of 1/4", 0.5: "usual: D to the power of 1/2"}
PARTS = ("transformer: convolutions", "transformer: linear layers", "stages", "channel weights")
PARTS += ("attention: query", "attention: key", "attention: value", "attention: norm", "norm", "head")
RELEASED, CORRECTED = (recipe(protocol, "full", "emonext-tiny", "tiny") for protocol in ("claimed", "official"))


@cache
def architecture() -> Figure:
    """The largest size's blocks as they ran, each halving drawn with the stage behind it."""
    full = recipe("official", "full")
    shape = input_shape(full)
    boxes: list[plots.Block] = []
    for block in plots.trace(weightless(build, full), shape):
        if boxes and boxes[-1].name.startswith("features.") and "CNBlock" in block.content:
            before = boxes.pop()
            content = f"{before.content.removesuffix(', stride 2, SqueezeExcite')}, {block.content}"
            content = content.replace("conv 2×2,", "conv 2×2, SqueezeExcite,")
            # The trace lists the last stage with the mean and the norm behind it.
            size = block.shape if len(block.shape) == 3 else before.shape
            block = plots.Block(before.name, content, size, before.parameters + block.parameters)
        if block.parameters:
            boxes.append(block)
    caption = (
        "Height = edge in pixels, width = logarithm of the channels. Below: output shape (channels × height × width), "
        "content, parameters as counted; the last stage's with the norm behind the mean over all positions. "
        "BatchAttention is a side branch: only the loss uses its weights."
    )
    return idea.illustrated(
        plots.architecture(boxes, shape[1:], "EmoNeXt", caption=caption), Path(__file__).with_name("idea.yaml")
    )


@cache
def sizes() -> Html:
    """The five sizes: blocks, widths, parameters of the parts as counted, and what a test image costs."""
    rows = []
    for size, (depths, dims) in SIZES.items():
        full = recipe("official", "full", size=size)
        network = weightless(build, full)
        gates = sum(cost.count_parameters(m) for m in network.modules() if isinstance(m, SqueezeExcite))
        parts = (network, network.attention, network.attention.value)
        total, attention, values = (whole(cost.count_parameters(part)) for part in parts)
        adds = 10 * cost.count_multiply_adds(network, input_shape(full)) / 1e9
        shape = (" ".join(map(str, depths)), f"{dims[0]} to {dims[-1]}")
        rows.append([text(size), *shape, total, whole(gates), attention, values, f"{adds:.0f}"])
    parts_of = ["Channel weights", "Attention", "Attention’s unused values"]
    header = ["Size", "Blocks", "Channels", "Parameters", *parts_of, "Multiply-adds, 10⁹"]
    caption = (
        "Counted on the built networks; the leaderboard lists the last one. Parameters in all, then those of the "
        "squeeze-and-excitation blocks, of the attention, and of its layer of values, which nothing uses. "
        "Multiply-adds of one test image with ten crops"
    )
    return Html(table(header, rows, caption, numeric=range(3, 8)), f"{len(rows)} sizes, the last {rows[-1][3]}")


def _network(side: int, **options: Any) -> EmoNeXt:
    """The tiny size at full width for images of ``side`` pixels, with the same random weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return EmoNeXt(**(CORRECTED.network.kwargs() | {"input_size": side, "depth_drop": 0.0} | options))


def _faces(count: int, side: int) -> tuple[Tensor, Tensor]:
    """Synthetic faces, float32 [count,1,side,side], and their labels."""
    faces = data_sets.load("synthetic", size=(max(BATCH_SIZES), 7, 7))
    images = geometry.resize(torch.tensor(faces.images[:count])[:, None].float() / 255, side)
    return images, torch.tensor(faces.labels[:count].astype("int64"))


@dataclass(frozen=True)
class Start:
    """The parts of an untrained network's loss on 64 faces; ``pull``: the norms of the gradients that they send to the
    features; ``spreads``: (power, N) -> spread of the attention between the first N faces."""

    loss: dict[str, float]
    pull: dict[str, float]
    spreads: dict[tuple[float, int], float]


@cache
def start() -> Start:
    """Measure it, on images of 64 pixels."""
    network, (images, labels) = _network(64), _faces(max(BATCH_SIZES), 64)
    caught: list[Tensor] = []
    network.norm.register_forward_hook(lambda _, __, output: caught.append(output.detach()))
    with torch.no_grad():
        network(images)
    features = caught[0].requires_grad_()
    output = network.head(features), network.attention(features)[1]
    parts = make_loss(CORRECTED.loss).parts(output, labels)
    pull = {name: torch.autograd.grad(part, features, retain_graph=True)[0].norm() for name, part in parts.items()}
    spreads = {(power, n): _spread(network.attention, features[:n], power) for power in SCALES for n in BATCH_SIZES}
    return Start({k: part.item() for k, part in parts.items()}, {k: size.item() for k, size in pull.items()}, spreads)


@dataclass(frozen=True)
class Gradients:
    """``counts``: part -> parameters; ``idle``: how many of them have no gradient or one of 0, in the first batch and
    one step later; ``shares``: see `traces.gradient_shares`."""

    counts: dict[str, int]
    idle: list[dict[str, int]]
    shares: Tensor


@cache
def gradients() -> Gradients:
    """Measure them on four synthetic faces of 128 pixels, no block skipped, the blocks' layer scales at 1."""
    network, (images, labels) = _network(SIDE, layer_scale=1.0), _faces(FACES, SIDE)
    loss = make_loss(CORRECTED.loss)
    optimiser = make_optimiser(CORRECTED.stages[0].optimiser, network.parameters())
    both = []
    for _ in range(2):
        optimiser.zero_grad()
        loss(network(images), labels).backward()
        both.append(_by_part(network))
        optimiser.step()
    counts = {name: part.numel() for name, part in both[0].items()}
    return Gradients(counts, [traces.zero_gradients(parts) for parts in both], traces.gradient_shares(both[0]))


@torch.no_grad()
def _spread(attention: BatchAttention, features: Tensor, power: float) -> float:
    """The attention's spread between these features, its scores divided by D ** power."""
    before, attention.scale = attention.scale, features.shape[1] ** -power
    _, weights = attention(features)
    attention.scale = before
    return spread(weights).item()


def _by_part(network: EmoNeXt) -> dict[str, Tensor]:
    """Part -> the gradients of its parameters, flat; 0 where autograd gives a parameter none."""
    found: dict[str, list[Tensor]] = {name: [] for name in PARTS}
    gates = {id(p) for m in network.modules() if isinstance(m, SqueezeExcite) for p in m.parameters()}
    for name, parameter in network.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        module, layer, *_ = name.split(".")
        layer = {"look": "convolutions", "answer": "linear layers"}.get(layer, layer)
        part = f"{module}: {layer}" if module in ("transformer", "attention") else module
        part = "channel weights" if id(parameter) in gates else "stages" if part == "features" else part
        found[part].append(gradient.detach().flatten().clone())
    return {name: torch.cat(values) for name, values in found.items()}


def idle_weights() -> Html:
    """How many weights of each part get no gradient, from the first batch and after one step of AdamW."""
    found = gradients()
    rows = traces.count_rows(found.counts, found.idle)
    caption = (
        f"Weights without a gradient, or with one of exactly 0: tiny size at full width, random weights with layer "
        f"scales of 1, {FACES} faces of {SIDE} × {SIDE} pixels, no block skipped ({SYNTHETIC})"
    )
    header = ["Part", "Parameters", "Idle, first batch", "Idle, after one step"]
    never = "attention: value"
    plain = f"without a gradient: {found.idle[1][never]:,} of {found.counts[never]:,} weights of the values"
    return Html(table(header, rows, caption, numeric=(1, 2, 3)), plain)


def floor(label_smoothing: float) -> float:
    """The lowest cross-entropy (nats) that smoothed labels of seven classes allow: their entropy."""
    smoothed = torch.full((len(LABELS),), label_smoothing / len(LABELS), dtype=torch.float64)
    smoothed[0] += 1 - label_smoothing
    return float(-(smoothed * smoothed.log()).sum())


def ceiling(n: int) -> float:
    """The largest spread of an N x N attention: every image attends to a single one."""
    return (1 - 1 / n) / n


def regulariser() -> Html:
    """The spread of the attention against the cross-entropy: measured at the start, and its largest possible share."""
    found, lowest = start(), floor(CORRECTED.loss["label_smoothing"])
    rows = []
    for n in BATCH_SIZES:
        values = [found.spreads[power, n] for power in SCALES]
        share = percent(values[0] / (values[0] + found.loss["cross-entropy"]), 3)
        largest = f"{ceiling(n):.4f}", percent(ceiling(n) / (ceiling(n) + lowest), 1)
        rows.append([whole(n), *(f"{value:.1e}" for value in values), share, *largest])
    ratio = found.pull["spread"] / found.pull["cross-entropy"]
    caption = (
        f"Tiny size at full width, random weights, cross-entropy {found.loss['cross-entropy']:.2f} ({SYNTHETIC}). The "
        f"gradient that the spread sends to the features is {ratio:.1e} of the cross-entropy's. Largest share: at the "
        f"lowest cross-entropy that the smoothed labels allow, {lowest:.3f}"
    )
    spreads = [f"Spread, {name}" for name in SCALES.values()]
    header = ["Images N", *spreads, "Share of the loss", "Largest spread", "Largest share"]
    plain = f"share of the loss: {rows[-1][3]} at the start, {rows[-1][5]} at most, with {rows[-1][0]} images"
    return Html(table(header, rows, caption, numeric=range(6)), plain)


def loss_parts(result: Result) -> Html:
    """What a trained network has of both parts of the loss on the two test sets."""
    recorded = result.record["facts"].get("loss_parts")
    if not recorded:
        raise NotRecorded(f"the result of {result.variant} holds no parts of its loss: train with the recipe's loss")
    rows = []
    for usage in HALVES:
        part = recorded[usage]
        cross_entropy, spread_, size = part["cross_entropy"], part["spread"], part["batch_size"]
        parts = [f"{cross_entropy:.4f}", f"{spread_:.1e}", f"{spread_ / (spread_ + cross_entropy):.1e}"]
        rows.append([text(usage), f"{part['batches']} × {size}", *parts, f"{ceiling(size):.4f}"])
    header = ["Test set", "Batches × images", "Cross-entropy", "Spread", "Its share", "Largest spread"]
    caption = (
        "The two parts of the loss after training: middle crops, the weights that are scored; smoothed labels, the "
        "spread with its weight in the loss"
    )
    body = remark_note(result.remark) + table(header, rows, caption, numeric=range(1, 6))
    return Html(body, f"spread {rows[-1][3]} beside a cross-entropy of {rows[-1][2]}")


@cache
def rates() -> dict[str, list[float]]:
    """The learning rate of each batch of 30 epochs: as released, as the released command's flag says, corrected."""
    (released,), (corrected,) = RELEASED.stages, CORRECTED.stages
    stages = {
        "released: the flag is ignored": released,
        f"as flagged: {FLAG:g}": dataclasses.replace(released, optimiser=step("adamw", lr=FLAG)),
        "corrected (official protocol)": corrected,
    }
    return {name: [rate for rate, _ in traces.rates(stage, epochs=30)] for name, stage in stages.items()}


@cache
def schedule() -> Figure:
    """The learning rate as released, as the released command's flag says, and as corrected."""
    lines = rates()
    epochs = [done / BATCHES for done in range(30 * BATCHES)]

    def draw(theme: Theme) -> Canvas:
        figure = canvas(8.2, 3.2)
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        colours, dashes = (theme.claimed, theme.soft, theme.measured), ("-", "-", "--")
        for (name, line), colour, dash in zip(lines.items(), colours, dashes, strict=True):
            scaled = [1e3 * rate for rate in line]
            left.plot(epochs[: 8 * BATCHES], scaled[: 8 * BATCHES], dash, color=colour, label=name)
            right.plot(epochs, scaled, dash, color=colour, lw=1)
        left.set(xlabel="epoch", title="learning rate × 1000, eight epochs", ylim=(0, None))
        right.set(xlabel="epoch", title="all 30, logarithmic", yscale="log", ylim=(1e-3, 2))
        for axes in (left, right):
            axes.grid(axis="y")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return figure

    shown = "; ".join(
        f"{name}, {line[0]:.2g} at the first batch, at most {max(line):.2g}, {sum(line) / len(line):.2g} on average"
        for name, line in lines.items()
    )
    first = next(iter(lines.values()))
    caption = (
        f"Traces of the schedules, {BATCHES} batches to an epoch. Released: {first[0]:.2g} at the first batch, "
        f"{max(first):.2g} at batch {1 + first.index(max(first))}, {min(first):.2g} at batch "
        f"{1 + first.index(min(first))} and every {RELEASED.stages[0].schedule['cycle']} later."
    )
    return Figure(draw, alt=f"Learning rate by batch: {shown}.", caption=caption, scrolls="learning rate by batch")


def clipping() -> Html:
    """What clipping before unscaling leaves of AdamW's first step, see `traces.clipping`."""
    return traces.clipping(RELEASED, CORRECTED, gradients().shares)


def crops_of_a_face() -> Figure:
    """One synthetic face as training as released shows it, and three of the ten crops of the test."""
    faces = data_sets.load("synthetic", size=(70, 7, 7))
    face = torch.tensor(faces.images[list(faces.labels).index(LABELS.index("happy"))])[None, None].float() / 255
    large, one, zero = geometry.resize(face, RESIZED), torch.ones(1), torch.zeros(1)
    turned, upside_down = (
        geometry.warp(image, degrees * one, one, one, zero, zero)
        for image, degrees in ((large, 20), (large.flip(-2), -15))
    )
    ten = crops.ten_crop(large, SIZE)
    pictures = {
        "48 pixels": face,
        f"enlarged, {RESIZED}": large,
        "rotated by 20°": turned,
        "upside down, a crop": crops.crop(upside_down, torch.Generator().manual_seed(0), SIZE),
        "test: top left": ten[:1],
        "test: bottom right": ten[3:4],
        "test: middle": ten[4:5],
        "test: middle, mirrored": ten[9:],
    }
    alt = f"One face in training and test: {', '.join(pictures)}; the test's crops differ by a few pixels only."
    caption = "Above: what training as released does, each step alone or together. Below: crops of the test."
    return plots.eight_pictures(pictures, alt, caption)
