"""What EfficientFER's chapter shows beyond the common sections.

The network's picture; which of its weights have a gradient at all; what the augmentation does to a face; the learning
rate that the schedule gives; what is left of a step when gradients are clipped before they are unscaled.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from fer_repro import data as data_sets
from fer_repro import plots
from fer_repro.data import LABELS
from fer_repro.evaluation.cost import input_shape, weightless
from fer_repro.markup import Html, table
from fer_repro.papers.efficientfer import EfficientFER, build, recipe
from fer_repro.plots import idea
from fer_repro.plots.figure import Canvas, Figure, Theme, canvas
from fer_repro.recipe import step
from fer_repro.training import traces
from fer_repro.training.traces import BATCHES
from fer_repro.transforms import geometry, photometric

IMAGES, SIDE, EDGE = 16, 64, 7  # of the batch of random images, and of the random maps, that are measured on
WHERE = {"pooled": "as released, behind the pool", "map": "before the pool"}
RELEASED, CORRECTED = (recipe(protocol, "full") for protocol in ("claimed", "official"))


def architecture() -> Figure:
    """The full network's blocks as they ran, the backbone's stages of one kind drawn as one."""
    shape = input_shape(CORRECTED)
    boxes: list[plots.Block] = []
    for block in plots.trace(weightless(build, CORRECTED), shape):
        count, _, kind = block.content.partition(" × ")
        if block.name.startswith("features.") and kind and boxes and boxes[-1].content.endswith(f" × {kind}"):
            before = boxes.pop()
            content = f"{int(before.content.split()[0]) + int(count)} × {kind}"
            block = dataclasses.replace(block, content=content, parameters=before.parameters + block.parameters)
        boxes.append(block)
    caption = (
        "Height = edge in pixels, width = logarithm of the channels. Below: output shape (channels × height × width), "
        "content, parameters as counted. SelfAttention and Cbam stand side by side: both take what the global mean "
        "leaves, and their outputs are added."
    )
    return idea.illustrated(
        plots.architecture(boxes, shape[1:], "EfficientFER", caption=caption), Path(__file__).with_name("idea.yaml")
    )


@dataclass(frozen=True)
class Gradients:
    """``parts``: name -> number of parameters; ``zero``: for ``pooled`` and ``map`` (without the backbone), how many of
    them have a gradient of 0; ``shares``: as released, see `traces.gradient_shares`; ``unchanged``: whether other
    queries and keys leave the outputs as they are, bit for bit."""

    parts: dict[str, int]
    zero: dict[str, dict[str, int]]
    shares: Tensor
    unchanged: dict[str, bool]


@cache
def gradients() -> Gradients:
    """Measure them: random weights, cross-entropy on random labels, no dropout.

    As released on random images of 64x64 pixels; before the pool the head alone, on random maps of 7x7 positions.
    """
    generator, network = torch.Generator().manual_seed(0), _network()
    labels = torch.randint(7, (IMAGES,), generator=generator)
    images = torch.rand(IMAGES, 1, SIDE, SIDE, generator=generator)
    with torch.random.fork_rng(devices=[]):  # which blocks are skipped
        torch.manual_seed(0)
        pooled = network.features(network.rgb(images))
    channels = network.attention.out.out_features
    maps = {"pooled": pooled, "map": torch.randn(IMAGES, channels, EDGE, EDGE, generator=generator)}
    parts, unchanged = {}, {}
    for attend, inputs in maps.items():
        network.attend = attend
        network.zero_grad()
        F.cross_entropy(network.head(inputs), labels).backward()
        parts[attend] = _by_part(network)
        unchanged[attend] = _same_outputs(network, inputs.detach(), generator)
    return Gradients(
        {name: part.numel() for name, part in parts["pooled"].items()},
        {attend: traces.zero_gradients(found) for attend, found in parts.items()},
        traces.gradient_shares(parts["pooled"]),
        unchanged,
    )


def _network() -> EfficientFER:
    """The full network with the same random weights every time, without its classifier's dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(CORRECTED)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return network


def _by_part(network: EfficientFER) -> dict[str, Tensor]:
    """Part -> the gradients of its parameters, flat, where it has some; queries and keys apart from the values."""
    found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    cut = 2 * network.attention.qkv.out_features // 3
    where = {
        "backbone": ("features.", slice(None)),
        "self-attention: queries and keys": ("attention.qkv.", slice(cut)),
        "self-attention: values": ("attention.qkv.", slice(cut, None)),
        "self-attention: output": ("attention.out.", slice(None)),
        "CBAM: channel gate": ("cbam.channel.", slice(None)),
        "CBAM: spatial gate": ("cbam.spatial.", slice(None)),
        "classifier": ("classifier.", slice(None)),
    }
    parts = {
        part: [gradient[rows].flatten() for name, gradient in found.items() if name.startswith(prefix)]
        for part, (prefix, rows) in where.items()
    }
    return {part: torch.cat(values) for part, values in parts.items() if values}


@torch.no_grad()
def _same_outputs(network: EfficientFER, maps: Tensor, generator: torch.Generator) -> bool:
    """Whether the outputs stay the same under new random queries and keys; puts the old ones back."""
    qkv = network.attention.qkv
    cut, before = 2 * qkv.out_features // 3, qkv.weight.clone()
    network.eval()
    first = network.head(maps)
    qkv.weight[:cut] = torch.randn(cut, qkv.in_features, generator=generator)
    second = network.head(maps)
    qkv.weight.copy_(before)
    network.train()
    return torch.equal(first, second)


def dead_weights() -> Html:
    """How many weights of each part get a gradient of exactly 0, with the attention behind and before the pool."""
    found = gradients()
    rows = traces.count_rows(found.parts, found.zero.values())
    outputs = ["unchanged, bit for bit" if found.unchanged[attend] else "changed" for attend in WHERE]
    rows.append(["outputs with other queries and keys", "", *outputs])
    caption = (
        f"Gradients of exactly 0 at full width, random weights, cross-entropy, dropout off. As released: the whole "
        f"network on {IMAGES} random images of {SIDE} × {SIDE} pixels. Before the pool: what follows the backbone, on "
        f"random maps of {EDGE} × {EDGE} positions"
    )
    header = ["Part", "Parameters", *(f"Zero, {where}" for where in WHERE.values())]
    dead = found.zero["pooled"]["self-attention: queries and keys"], found.zero["pooled"]["CBAM: spatial gate"]
    plain = f"zero gradients as released: {dead[0]:,} of queries and keys, {dead[1]} of the spatial gate"
    return Html(table(header, rows, caption, numeric=(1, 2, 3)), plain)


def clipping() -> Html:
    """What clipping before unscaling leaves of AdamW's first step, see `traces.clipping`."""
    return traces.clipping(RELEASED, CORRECTED, gradients().shares)


@cache
def rates() -> dict[str, list[tuple[float, float]]]:
    """(learning rate, AdamW's beta 1) at the start of every epoch: as released, as configured, corrected."""
    (released,), (corrected,) = RELEASED.stages, CORRECTED.stages
    by_batch = step(released.schedule.name, **(released.schedule.kwargs() | {"per": "batch"}))
    stages = {
        "released: one step per epoch": released,
        "as configured: one per batch": dataclasses.replace(released, schedule=by_batch),
        "corrected (official protocol)": corrected,
    }
    return {name: traces.rates(stage)[::BATCHES] for name, stage in stages.items()}


def schedule() -> Figure:
    """The learning rate as it was, as it was configured, and as it is corrected here."""
    lines = rates()

    def draw(theme: Theme) -> Canvas:
        figure = canvas(8.2, 3.2)
        left, right = figure.subplots(1, 2)
        colours, dashes = (theme.claimed, theme.soft, theme.measured), ("-", ":", "--")
        for (name, line), colour, dash in zip(lines.items(), colours, dashes, strict=True):
            for axes, values in zip((left, right), zip(*line, strict=True), strict=True):
                axes.plot(range(1, len(line) + 1), values, dash, color=colour, lw=2, label=name)
        left.set(yscale="log", xlabel="epoch", title="learning rate")
        right.set(xlabel="epoch", title="β₁ of AdamW")
        for axes in (left, right):
            axes.grid(axis="y")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return figure

    shown = "; ".join(
        f"{name}, {line[0][0]:.3g} in the first epoch, at most {max(line)[0]:.3g}, {line[-1][0]:.3g} in the last"
        for name, line in lines.items()
    )
    first, *_, last = next(iter(lines.values()))
    caption = (
        f"Traces of torch's scheduler at the start of each epoch of {BATCHES} batches. Released: {first[0]:.6f} in the "
        f"first epoch and {last[0]:.6f} in the last."
    )
    return Figure(draw, alt=f"Learning rate by epoch: {shown}.", caption=caption, scrolls="learning rate by epoch")


def augmented() -> Figure:
    """One synthetic face after each step of the released augmentation, most at the middle of its range."""
    faces = data_sets.load("synthetic", size=(70, 7, 7))
    face = torch.tensor(faces.images[list(faces.labels).index(LABELS.index("happy"))])[None, None].float() / 255
    large, generator, one = geometry.lanczos4(face, 224), torch.Generator().manual_seed(0), torch.ones(1)
    pictures = {
        "48 pixels": face,
        "Lanczos, 224": large,
        "mirror, affine": geometry.warp(large.flip(-1), 12 * one, 1.1 * one, 0.95 * one, 9 * one, -9 * one, "bilinear"),
        "contrast, brightness": (1.2 * large + 0.1).clamp(0, 1),
        "noise, σ 0.2": photometric.gaussian_noise(large, generator, (0.2, 0.2)),
        "noise, σ 0.44": photometric.gaussian_noise(large, generator, (0.44, 0.44)),
        "blur, σ 3": photometric.blur(large, 3 * one, 3 * one, 3),
        "CLAHE, limit 4": photometric.equalise(large, 4 * one),
    }
    alt = f"One face after each step of the augmentation: {', '.join(pictures)}; at σ 0.44 hardly any of it is left."
    return plots.eight_pictures(pictures, alt, "Each step alone, at a fixed strength.")
