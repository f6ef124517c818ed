"""What EfficientFER's chapter shows beyond the common sections.

The network's picture; which of its weights have a gradient at all; what the augmentation does to a face; the learning
rate that the schedule gives; what is left of a step when gradients are clipped before they are unscaled.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from fer_repro import data as data_sets
from fer_repro import papers, plots
from fer_repro.data import LABELS
from fer_repro.evaluation.cost import input_shape, weightless
from fer_repro.markup import Html, table, text, whole
from fer_repro.papers.efficientfer import EfficientFER, build
from fer_repro.plots.figure import Canvas, Figure, Theme, canvas
from fer_repro.recipe import Recipe
from fer_repro.training.optim import make_optimiser, make_schedule
from fer_repro.training.traces import BATCHES, clipped_steps
from fer_repro.transforms import geometry, photometric

IMAGES, SIDE, EDGE = 16, 64, 7  # of the batch of random images, and of the random maps, that are measured on
WHERE = {"pooled": "as released, behind the pool", "map": "before the pool"}


def _recipe(protocol: str) -> Recipe:
    return papers.get("efficientfer").recipe(protocol, "full")


def architecture() -> Figure:
    """The full network's blocks as they ran, the backbone's stages of one kind drawn as one."""
    recipe = _recipe("official")
    shape = input_shape(recipe)
    blocks = plots.trace(weightless(papers.get("efficientfer").build, recipe), shape)
    synthetic: list[plots.Block] = []
    for block in blocks:
        count, _, kind = block.content.partition(" × ")
        before = synthetic[-1] if synthetic else block
        if block.name.startswith("features.") and kind and before.content.endswith(f" × {kind}"):
            many = int(before.content.split()[0]) + int(count)
            synthetic[-1] = dataclasses.replace(
                block, content=f"{many} × {kind}", parameters=before.parameters + block.parameters
            )
        else:
            synthetic.append(block)
    caption = (
        "Height = edge in pixels, width = logarithm of the channels. Below: output shape (channels × height × width), "
        "content, parameters as counted. SelfAttention and Cbam stand side by side: both see what the global mean "
        "leaves, and their outputs are added."
    )
    return plots.architecture(synthetic, shape[1:], "EfficientFER", caption=caption)


@dataclass(frozen=True)
class Gradients:
    """Gradients of the full network, with the attention in either place.

    ``parts``: name -> number of parameters. ``zero``: for ``pooled`` and ``map``, part -> how many of them got exactly
    0; ``map`` has no backbone. ``released``: all gradients other than 0 as released, over their common norm, float32
    [N]. ``unchanged``: whether other queries and keys leave the answers as they are, bit for bit.
    """

    parts: dict[str, int]
    zero: dict[str, dict[str, int]]
    released: Tensor
    unchanged: dict[str, bool]


@cache
def gradients() -> Gradients:
    """Measure them: random weights, cross-entropy on random labels, no dropout.

    As released on random images of 64x64 pixels; before the pool the head alone, on random maps of 7x7 positions.
    """
    generator = torch.Generator().manual_seed(0)
    network = _network()
    labels = torch.randint(7, (IMAGES,), generator=generator)
    images = torch.rand(IMAGES, 1, SIDE, SIDE, generator=generator)
    with torch.random.fork_rng(devices=[]):  # which blocks are skipped
        torch.manual_seed(0)
        features = network.features(network.rgb(images))
    maps = {
        "pooled": features,
        "map": torch.randn(IMAGES, network.attention.out.out_features, EDGE, EDGE, generator=generator),
    }
    found, unchanged = {}, {}
    for attend, seen in maps.items():
        network.attend = attend
        network.zero_grad()
        F.cross_entropy(network.head(seen), labels).backward()
        found[attend] = _parts({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
        unchanged[attend] = _same_answers(network, seen.detach(), generator)
    released = torch.cat(list(found["pooled"].values()))
    return Gradients(
        {name: part.numel() for name, part in found["pooled"].items()},
        {attend: {name: int((part == 0).sum()) for name, part in parts.items()} for attend, parts in found.items()},
        released[released != 0] / released.norm(),
        unchanged,
    )


def _network() -> EfficientFER:
    """The full network with the same random weights every time, without its classifier's dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(_recipe("official"))
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return network


def _parts(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors (one per parameter) by the part of the network they belong to, flat; queries and keys apart."""
    qkv = [tensors["attention.qkv.weight"], tensors["attention.qkv.bias"][:, None]]
    cut = 2 * len(qkv[0]) // 3
    found = {
        "backbone": [value for name, value in tensors.items() if name.startswith("features.")],
        "self-attention: queries and keys": [value[:cut] for value in qkv],
        "self-attention: values": [value[cut:] for value in qkv],
        "self-attention: output": [value for name, value in tensors.items() if name.startswith("attention.out.")],
        "CBAM: channel gate": [value for name, value in tensors.items() if name.startswith("cbam.channel.")],
        "CBAM: spatial gate": [tensors["cbam.spatial.weight"]],
        "classifier": [value for name, value in tensors.items() if name.startswith("classifier.")],
    }
    return {name: torch.cat([value.flatten() for value in values]) for name, values in found.items() if values}


@torch.no_grad()
def _same_answers(network: EfficientFER, maps: Tensor, generator: torch.Generator) -> bool:
    """Whether the answers stay when queries and keys are drawn anew; puts the old ones back."""
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
    rows = [
        [text(name), whole(size), *(whole(found.zero[attend].get(name), "not measured") for attend in WHERE)]
        for name, size in found.parts.items()
    ]
    rows.append(["all", whole(sum(found.parts.values())), *(whole(sum(zero.values())) for zero in found.zero.values())])
    says = ["unchanged, bit for bit" if found.unchanged[attend] else "changed" for attend in WHERE]
    rows.append(["answers with other queries and keys", "", *says])
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
    """What is left of AdamW's first step where the gradient's norm is clipped while the loss scaler multiplies it."""
    return clipped_steps(_recipe("claimed").clip_norm, _recipe("official").clip_norm, gradients().released.abs())


def rates(protocol: str, per: str) -> list[tuple[float, float]]:
    """(learning rate, AdamW's beta 1) of every epoch in turn, from torch's own scheduler.

    ``per``: "epoch" (stepped once after each, as released) or "batch".
    """
    (stage,) = _recipe(protocol).stages
    optimiser = make_optimiser(stage.optimiser, [torch.nn.Parameter(torch.zeros(1))], fused=False)
    options = stage.schedule.kwargs() | {"per": per, "total_steps": stage.epochs * BATCHES}
    schedule = make_schedule(
        type(stage.schedule)(stage.schedule.name, tuple(options.items())), optimiser, stage.epochs, BATCHES
    )
    found = []
    for _ in range(stage.epochs):
        found.append((optimiser.param_groups[0]["lr"], optimiser.param_groups[0]["betas"][0]))
        for _ in range(BATCHES if per == "batch" else 1):
            optimiser.step()
            schedule.after_batch()
        schedule.after_epoch(None, None)
    return found


def schedule() -> Figure:
    """The learning rate as it was, as it was configured, and as it is mended here."""
    lines = {
        "released: one step per epoch": rates("claimed", "epoch"),
        "as configured: one per batch": rates("claimed", "batch"),
        "mended (official protocol)": rates("official", "batch"),
    }

    def draw(theme: Theme) -> Canvas:
        figure = canvas(8.2, 3.2)
        left, right = figure.subplots(1, 2)
        colours, dashes = (theme.claimed, theme.soft, theme.measured), ("-", ":", "--")
        for (name, line), colour, dash in zip(lines.items(), colours, dashes, strict=True):
            epochs = range(1, len(line) + 1)
            left.plot(epochs, [rate for rate, _ in line], dash, color=colour, lw=2, label=name)
            right.plot(epochs, [beta for _, beta in line], dash, color=colour, lw=2)
        left.set(yscale="log", xlabel="epoch", title="learning rate")
        right.set(xlabel="epoch", title="β₁ of AdamW")
        for axes in (left, right):
            axes.grid(axis="y")
        figure.legend(loc="outside lower center", ncols=3)
        return figure

    told = "; ".join(
        f"{name}, {line[0][0]:.3g} in the first epoch, at most {max(line)[0]:.3g}, {line[-1][0]:.3g} in the last"
        for name, line in lines.items()
    )
    caption = (
        f"Traces of torch's scheduler at the start of each epoch of {BATCHES} batches. Released: "
        f"{lines['released: one step per epoch'][0][0]:.6f} in the first epoch and "
        f"{lines['released: one step per epoch'][-1][0]:.6f} in the last."
    )
    return Figure(draw, alt=f"Learning rate by epoch: {told}.", caption=caption)


def augmented() -> Figure:
    """One synthetic face after each step of the released augmentation, most at the middle of its range."""
    faces = data_sets.load("synthetic", size=(70, 7, 7))
    face = torch.tensor(faces.images[list(faces.labels).index(LABELS.index("happy"))])[None, None].float() / 255
    large, generator = geometry.lanczos4(face, 224), torch.Generator().manual_seed(0)
    one = torch.ones(1)
    pictures = {
        "48 pixels": face,
        "Lanczos, 224": large,
        "mirror, affine": geometry.warp(large.flip(-1), 12 * one, 1.1 * one, 0.95 * one, 9 * one, -9 * one, "bilinear"),
        "contrast, light": (1.2 * large + 0.1).clamp(0, 1),
        "noise, σ 0.2": photometric.gaussian_noise(large, generator, (0.2, 0.2)),
        "noise, σ 0.44": photometric.gaussian_noise(large, generator, (0.44, 0.44)),
        "blur, σ 3": photometric.blur(large, 3 * one, 3 * one, 3),
        "CLAHE, limit 4": photometric.equalise(large, 4 * one),
    }

    alt = f"One face after each step of the augmentation: {', '.join(pictures)}; at σ 0.44 hardly any of it is left."
    return plots.eight_pictures(pictures, alt, "Each step alone, at a fixed strength.")
