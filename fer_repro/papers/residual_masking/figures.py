"""What the Residual Masking chapter shows beyond the common sections: masks, random views, members, subsets."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from fer_repro import data as data_sets
from fer_repro import papers, plots, results
from fer_repro.claims import declared_parameters
from fer_repro.data.synthetic import SMOKE_SIZE
from fer_repro.evaluation.cost import input_shape, weightless
from fer_repro.evaluation.statistics import paired_difference
from fer_repro.layers import as_input, normalise_
from fer_repro.logs import quiet
from fer_repro.markup import SYNTHETIC, Html, interval, note, percent, synthetic_note, table, text, whole
from fer_repro.page import Chapter
from fer_repro.papers import model_name
from fer_repro.papers.base import SCRATCH
from fer_repro.papers.residual_masking import ENSEMBLE, ResidualMaskingNetwork
from fer_repro.papers.residual_masking.recipes import KINDS, MEMBERS
from fer_repro.plots.architecture import Block
from fer_repro.plots.figure import Figure, Theme, canvas
from fer_repro.recipe import Pretrained
from fer_repro.reproduce import reproduce
from fer_repro.results import HALVES, Result
from fer_repro.training.execution import one_thread
from fer_repro.transforms.geometry import resize

# Short names for figures and tables, in the order of `MEMBERS`.
SHORT = (
    "RMN",
    "ResNet18",
    "ResNet50 of VGGFace2",
    "ResNet101",
    "CBAM-ResNet50",
    "EfficientNet-B2",
    "RMN without dropout",
)
LOST = ("residual-masking-resnet18", "residual-masking-resnet50-vggface2")  # released repository, issue #46


# ---- members ---------------------------------------------------------------------------------------------------------


def members(chapter: Chapter) -> Html:
    """The seven networks: size, initial weights and where they come from, what became of the paper's, stored runs."""
    protocol, stored = chapter.parameters.protocol, results.read_all(chapter.results_dir)
    rows = []
    for number, (name, short) in enumerate(zip(MEMBERS, SHORT, strict=True)):
        weights = KINDS[name].pretrained
        own = [run for run in stored if run.variant == name and run.protocol == protocol]
        lost = '<br><span class="fer-small">the claim’s trained weights are lost</span>' if name in LOST else ""
        scored = "<br>".join(percent(run.score("PrivateTest")["accuracy"]) for run in own) or "not run"
        rows.append(
            [
                f"{number}. {text(short)}<br><code>{text(name)}</code>{lost}",
                whole(declared_parameters(name)),
                f"{text(weights.data)}<br>{_obtained(weights)}",
                scored,
            ]
        )
    rows.append(["all seven", whole(declared_parameters(ENSEMBLE)), "", ""])
    header = ["Network", "Parameters", "Starts from", "PrivateTest"]
    caption = f"Accuracy: stored runs under the {protocol} protocol, ten views, one line per seed."
    return Html(table(header, rows, caption, numeric=(1, 3)), f"{len(MEMBERS)} members")


def _obtained(weights: Pretrained) -> str:
    file = f'<code class="fer-fixed">{text(weights.file)}</code>'
    if weights.source == "torchvision":
        how = f"torchvision fetches it ({weights.licence})"
    else:
        how = f"no library fetches it: {weights.source} ({weights.licence})"
    return f'{file}<br><span class="fer-small">{text(how)}</span>'


def architecture() -> Figure:
    """The full network, each stage drawn in one box with its mask."""
    variant = papers.get("residual-masking")
    recipe = variant.recipe("official", "full")
    shape = input_shape(recipe)
    blocks: list[Block] = []
    for block in plots.trace(weightless(variant.build, recipe), shape):
        if block.name == "rgb":  # it only repeats the grey channel
            continue
        if block.name.startswith("masks."):
            stage, levels = blocks.pop(), recipe.network["depths"][int(block.name.split(".")[1])]
            told = f"{stage.content}, mask of {levels} level{'s' if levels > 1 else ''}"
            block = Block(stage.name, told, stage.shape, stage.parameters + block.parameters)
        blocks.append(block)
    return plots.architecture(blocks, shape[1:], model_name(variant.id))


# ---- masks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Masked:
    """What one stage's mask does to a batch: its channels, the mask's mean and largest value, and how much longer each
    place's feature vector becomes, float32 [B,H,W] (0.01: by one percent; 0 where it is zero and stays so)."""

    channels: int
    mean: float
    largest: float
    gain: np.ndarray


@torch.no_grad()
def look(network: ResidualMaskingNetwork, inputs: Tensor) -> list[Masked]:
    """Run float32 [B,1,S,S] through the network and keep what every mask did."""
    network.eval()
    maps, found = network.stem(inputs), []
    for name, mask in zip(network.stages, network.masks, strict=True):
        maps = getattr(network, name)(maps)
        weights = mask(maps)
        after = maps * (1 + weights)
        before = maps.norm(dim=1)
        gain = (after.norm(dim=1) - before) / before.clamp_min(1e-12)
        found.append(Masked(maps.shape[1], weights.mean().item(), weights.max().item(), gain.cpu().numpy()))
        maps = after
    return found


def masks(chapter: Chapter) -> Html:
    """A few faces, how much every place of every stage is turned up, and the arithmetic of a softmax over channels."""
    result = chapter.result
    network = getattr(result.classifier, "model", None)
    if not isinstance(network, ResidualMaskingNetwork):
        why = "the stored result keeps no weights" if result.classifier is None else "this network has no masks"
        return Html(f"<p>No masks to look at: {text(why)}.</p>", f"no masks: {why}")
    recipe = result.classifier.recipe
    faces = data_sets.load("synthetic", size=SMOKE_SIZE)
    chosen = [int(np.flatnonzero((faces.usage == "PrivateTest") & (faces.labels == c))[0]) for c in (0, 3, 5, 6)]
    images = torch.tensor(np.asarray(faces.images[chosen]), device=result.classifier.device)
    inputs = normalise_(resize(as_input(images), recipe.input_size), recipe.mean, recipe.std)
    with one_thread():
        found = look(network, inputs)
    full = papers.get(result.variant).recipe("official", "full").network
    widths = [full["width"] * 2**stage for stage in range(len(full["blocks"]))]
    rows = []
    for stage, channels in enumerate(widths):
        here = found[stage] if stage < len(found) else None
        cells = (
            [""] * 4
            if here is None
            else [f"{here.channels}", f"{here.mean:.4f}", f"{here.largest:.3f}", percent(float(here.gain.mean()))]
        )
        rows.append([f"{stage + 1}", f"{channels}", f"{1 / channels:.4f}", f"{full['depths'][stage]}", *cells])
    header = [
        "Stage",
        "Channels, full",
        "Mean of a mask, 1/C",
        "Levels of the U-Net",
        "Channels here",
        "Mean here",
        "Largest here",
        "Mean gain here",
    ]
    caption = "Left: arithmetic of the full network. Right (here): this page's network on four synthetic faces."
    figure = _gains(np.asarray(faces.images[chosen]), found)
    mind = note("Mind:", f"{text(SYNTHETIC)}.")
    return Html(figure.figure() + mind + table(header, rows, caption, numeric=range(1, 8)), repr(figure))


def _gains(images: np.ndarray, found: Sequence[Masked]) -> Figure:
    top = max(float(one.gain.max()) for one in found)

    def draw(theme: Theme) -> Canvas:
        figure = canvas(1.55 * (1 + len(found)) + 1.6, 1.5 * len(images))
        grid = figure.subplots(len(images), 1 + len(found), squeeze=False)
        for row, image in enumerate(images):
            grid[row, 0].imshow(image, cmap="gray", vmin=0, vmax=255)
            for column, one in enumerate(found, 1):
                shown = grid[row, column].imshow(one.gain[row], cmap="viridis", vmin=0, vmax=top)
        titles = ["face", *(f"stage {stage + 1}" for stage in range(len(found)))]
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title, fontsize=9.5)
        for axes in grid.flat:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
        bar = figure.colorbar(shown, ax=grid, shrink=0.7, format=lambda value, _: f"{100 * value:.0f}\u00a0%")
        bar.outline.set_visible(False)
        bar.set_label("feature vector longer by", color=theme.ink)
        return figure

    told = "; ".join(
        f"stage {stage + 1} between {percent(float(one.gain.min()))} and {percent(float(one.gain.max()))}"
        for stage, one in enumerate(found)
    )
    return Figure(
        draw,
        alt=f"{len(images)} faces and, beside each, how much the mask of every stage lengthens the feature vector at "
        f"each place: {told}.",
        caption="How much each place of a stage's maps is turned up by its mask. Where the softmax spreads evenly over "
        "C channels, every place gains 1/C; only a peaked mask on a strong channel gains more.",
        synthetic=True,
    )


# ---- random views ----------------------------------------------------------------------------------------------------


def views(chapter: Chapter) -> Html:
    """One view against random views, and how far the latter move with the seed that draws them."""
    result = chapter.result
    found = result.record["facts"].get("views_by_seed")
    if not found:
        return Html(f"<p>{text(result.variant)} records one draw of its views only.</p>", "one draw of views")
    count = result.record["recipe"]["views"]["count"]
    single = [percent(result.score(half, views=False)["accuracy"]) for half in HALVES]
    rows = [["one view, the face as it is", *single]]
    for one in found:
        cells = [percent(one[half]["correct"] / one[half]["n"]) for half in HALVES]
        rows.append([f"{count} random views, seed {one['seed']}", *cells])
    means, spreads = [], []
    for half in HALVES:
        shares = [one[half]["correct"] / one[half]["n"] for one in found]
        means.append(percent(statistics.fmean(shares)))
        spreads.append(f"{100 * statistics.stdev(shares):.2f} points")
    rows += [["mean over the seeds", *means], ["standard deviation", *spreads]]
    body = table(["Views", *HALVES], rows, f"{result.variant}: the same network, other draws", (1, 2))
    return Html(synthetic_note(result.synthetic) + body, f"{result.variant}: {len(found)} draws of {count} views")


# ---- the ensemble ----------------------------------------------------------------------------------------------------


def ensemble_result(chapter: Chapter) -> Result:
    """The ensemble's run that belongs to this page: its own, a stored one, else a smoke run on synthetic faces."""
    p = chapter.parameters
    if p.variant.removesuffix(SCRATCH) == ENSEMBLE:
        return chapter.result
    for name in (ENSEMBLE, ENSEMBLE + SCRATCH):
        stored = results.find(name, p.protocol, p.seed, chapter.results_dir)
        if stored is not None:
            return stored
    return _smoke(p.protocol, p.seed)


@cache
def _smoke(protocol: str, seed: int) -> Result:
    with quiet():
        return reproduce(ENSEMBLE, protocol, "smoke", seed, device="cpu")


def ensemble(chapter: Chapter) -> Html:
    """Each member's accuracy by its summed views, and all of them added, on both halves."""
    result = ensemble_result(chapter)
    rows, right = [], {half: _right(result, half) for half in HALVES}
    for index, short in enumerate(SHORT):
        rows.append([text(short), *(percent(float(right[half][index].mean())) for half in HALVES)])
    added = {half: _hits(result, half, (1,) * len(MEMBERS)) for half in HALVES}
    rows.append(["all seven added", *(percent(float(added[half].mean())) for half in HALVES)])
    some = {half: right[half].any(axis=0).mean() for half in HALVES}
    rows.append(["at least one member right", *(percent(float(some[half])) for half in HALVES)])
    score = result.score("PrivateTest")
    count = result.record["recipe"]["views"]["count"]
    caption = (
        f"{result.variant}, {result.protocol} protocol, seed {result.seed}, {count} random views of each network. All "
        f"seven on PrivateTest: {interval(score['interval'])} (Wilson, 95 %)."
    )
    body = table(["Network", *HALVES], rows, caption, (1, 2))
    return Html(_source(result) + body, f"all seven added: {percent(score['accuracy'])} ({_words(result)})")


def _source(result: Result) -> str:
    if not result.synthetic:
        return ""
    remark = f"no run of the ensemble is stored under this protocol; tiny networks, a smoke run on {text(SYNTHETIC)}."
    return note("Not run:", remark)


def _words(result: Result) -> str:
    return SYNTHETIC if result.synthetic else "stored"


def _right(result: Result, half: str) -> np.ndarray:
    """bool [M,N]: was member m right about image n."""
    return result.predictions[f"{half}_votes"].argmax(axis=2) == result.predictions[f"{half}_labels"]


def _hits(result: Result, half: str, subset: Sequence[int]) -> np.ndarray:
    """bool [N]: was the sum over a subset (0 or 1 for each member) right."""
    votes = result.predictions[f"{half}_votes"][np.flatnonzero(subset)].sum(axis=0, dtype=np.int64)
    return votes.argmax(axis=1) == result.predictions[f"{half}_labels"]


@dataclass(frozen=True)
class Subsets:
    """All subsets of the members, in the order in which the published search tries them, with their accuracies."""

    members: tuple[tuple[int, ...], ...]
    accuracies: dict[str, np.ndarray]

    def best(self, half: str) -> int:
        """The subset that the search would print on this half; the first of equals."""
        return int(self.accuracies[half].argmax())


def every_subset(result: Result) -> Subsets:
    """Score all 127 from the stored votes."""
    chosen = tuple(itertools.product((0, 1), repeat=result.predictions[f"{HALVES[0]}_votes"].shape[0]))[1:]
    scores = {half: np.array([_hits(result, half, one).mean() for one in chosen]) for half in HALVES}
    return Subsets(chosen, scores)


def subsets(chapter: Chapter) -> Html:
    """What it is worth to choose the members on the images that are scored: all subsets, chosen on either half."""
    result = ensemble_result(chapter)
    found = every_subset(result)
    public, private = (found.best(half) for half in HALVES)
    rules = {
        "all seven, fixed in advance": len(found.members) - 1,
        "best on PublicTest": public,
        "best on PrivateTest (the scored images: an oracle)": private,
    }
    rows = []
    for rule, index in rules.items():
        names = ", ".join(short for short, taken in zip(SHORT, found.members[index], strict=True) if taken)
        rows.append([text(rule), text(names), *(percent(float(found.accuracies[half][index])) for half in HALVES)])
    header = ["Members", "Which", *HALVES]
    body = table(header, rows, f"{result.variant}, seed {result.seed}: from the stored votes of each member", (2, 3))
    hits = [_hits(result, "PrivateTest", found.members[index]) for index in (private, public)]
    gain, low, high = paired_difference(*hits)
    told = (
        f"Choosing on PrivateTest instead of PublicTest moves the PrivateTest accuracy by {100 * gain:+.2f} points "
        f"({100 * low:+.2f} to {100 * high:+.2f}, bootstrap over the same {whole(len(hits[0]))} images)"
    )
    figure = _scatter(found, rules, result.synthetic)
    return Html(_source(result) + figure.figure() + body + f"<p>{text(told)}.</p>", f"{told} ({_words(result)})")


def _scatter(found: Subsets, rules: dict[str, int], synthetic: bool) -> Figure:
    sizes = np.array([sum(one) for one in found.members])
    x, y = (100 * found.accuracies[half] for half in HALVES)

    def draw(theme: Theme) -> Canvas:
        figure = canvas(7.2, 4.3)
        axes = figure.add_subplot()
        axes.scatter(x, y, s=10 + 9 * sizes, color=theme.soft, alpha=0.35, lw=0, label="one subset (area: members)")
        marks = zip(rules.items(), ("s", "o", "D"), (theme.measured, theme.clean, theme.claimed), strict=True)
        for step, ((rule, index), mark, colour) in enumerate(marks):
            axes.scatter(
                x[index],
                y[index],
                s=190 - 55 * step,
                marker=mark,
                facecolors="none",
                edgecolors=colour,
                lw=2,
                label=rule,
            )
        axes.set_xlabel("accuracy on PublicTest, %")
        axes.set_ylabel("accuracy on PrivateTest, %")
        axes.grid(True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8.5)
        return figure

    told = "; ".join(f"{rule}: {x[index]:.2f} % and {y[index]:.2f} %" for rule, index in rules.items())
    return Figure(
        draw,
        alt=f"Accuracy of all {len(x)} subsets of the members on PublicTest and PrivateTest. {told}.",
        caption=f"All {len(x)} subsets of the seven members. The published search takes the highest point, a fair one "
        "the point farthest right.",
        synthetic=synthetic,
    )
