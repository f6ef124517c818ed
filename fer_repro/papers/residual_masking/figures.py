"""What the Residual Masking chapter shows beyond the common sections: masks, random copies, members, subsets."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
from fer_repro.markup import SYNTHETIC, Html, interval, note, percent, remark_note, small, table, text, whole
from fer_repro.papers import model_name
from fer_repro.papers.residual_masking import ENSEMBLE, ResidualMaskingNetwork, build, recipe
from fer_repro.papers.residual_masking.recipes import KINDS, MEMBERS, ROW, SHORT
from fer_repro.plots import idea
from fer_repro.plots.architecture import Block
from fer_repro.plots.figure import Figure, Theme, canvas
from fer_repro.recipe import Pretrained
from fer_repro.results import HALVES, NotRecorded, Result
from fer_repro.training.execution import one_thread
from fer_repro.transforms.geometry import resize

LOST = ("residual-masking-resnet18", "residual-masking-resnet50-vggface2")  # released repository, issue #46


def members(protocol: str, results_dir: Path | None = None) -> Html:
    """The seven networks: size, dropout, initial weights and where they come from, what became of the paper's, stored
    runs."""
    stored, rows = [run for run in results.read_all(results_dir) if run.protocol == protocol], []
    for number, (name, short) in enumerate(SHORT.items()):
        weights = KINDS[name].pretrained
        lost = '<br><span class="fer-small">the claim’s trained weights are lost</span>' if name in LOST else ""
        network = f"{number}. {text(short)}<br><code>{text(name)}</code>{lost}"
        start = f"{text(weights.data)}<br>{_obtained(weights)}"
        scores = [percent(run.score("PrivateTest")["accuracy"]) for run in stored if run.variant == name]
        dropout = f"{KINDS[name].full['dropout']:g}"
        rows.append([network, whole(declared_parameters(name)), dropout, start, "<br>".join(scores) or "not run"])
    rows.append(["all seven", whole(declared_parameters(ENSEMBLE)), "", "", ""])
    header = ["Network", "Parameters", "Dropout", "Starts from", "PrivateTest"]
    caption = (
        "Dropout: before the last layer. PrivateTest: accuracy of stored runs under the "
        f"{protocol} protocol, ten random copies of each face, one line per seed."
    )
    return Html(table(header, rows, caption, numeric=(1, 2, 4)), f"{len(MEMBERS)} members")


def _obtained(weights: Pretrained) -> str:
    file = f'<code class="fer-fixed">{text(weights.file)}</code>'
    how = "torchvision fetches it" if weights.source == "torchvision" else f"no library fetches it: {weights.source}"
    return f"{file}<br>{small(f'{how} ({weights.licence})')}"


def architecture() -> Figure:
    """The full network, each stage drawn in one box with its mask."""
    full = recipe(ROW, "official", "full")
    shape = input_shape(full)
    boxes: list[Block] = []
    for block in plots.trace(weightless(build, full), shape):
        if block.name.startswith("masks."):
            stage, levels = boxes.pop(), full.network["depths"][int(block.name.split(".")[1])]
            content = f"{stage.content}, mask of {levels} level{'s' if levels > 1 else ''}"
            block = Block(stage.name, content, stage.shape, stage.parameters + block.parameters)
        if block.name != "rgb":  # it only repeats the grey channel
            boxes.append(block)
    return idea.illustrated(
        plots.architecture(boxes, shape[1:], model_name(ROW)), Path(__file__).with_name("idea.yaml")
    )


@dataclass(frozen=True)
class Masked:
    """What one stage's mask does to a batch: its channels, the mask's mean and largest value, and by which share each
    position's feature vector becomes longer, float32 [B,H,W] (0 where it is zero and stays so)."""

    channels: int
    mean: float
    largest: float
    gain: np.ndarray


@torch.no_grad()
def mask_statistics(network: ResidualMaskingNetwork, inputs: Tensor) -> list[Masked]:
    """Run float32 [B,1,S,S] through the network and record what every mask does."""
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


def masks(result: Result) -> Html:
    """A few faces, how much every stage amplifies every position, and the arithmetic of a softmax over channels."""
    network = getattr(result.classifier, "model", None)
    if not isinstance(network, ResidualMaskingNetwork):
        masked = result.record["recipe"]["network"]["name"] == ResidualMaskingNetwork.__name__
        why = "a stored result keeps no weights" if masked else f"the network of {result.variant} has none"
        return Html(f"<p>No masks to show: {text(why)}.</p>", f"no masks: {why}")
    own, full = result.classifier.recipe, papers.get(result.variant).recipe("official", "full").network
    faces = data_sets.load("synthetic", size=SMOKE_SIZE)
    chosen = [int(np.flatnonzero((faces.usage == "PrivateTest") & (faces.labels == c))[0]) for c in (0, 3, 5, 6)]
    images = np.asarray(faces.images[chosen])
    inputs = as_input(torch.tensor(images, device=result.classifier.device))
    with one_thread():
        found = mask_statistics(network, normalise_(resize(inputs, own.input_size), own.mean, own.std))
    rows = []
    for stage, depth in enumerate(full["depths"]):
        channels = full["width"] * 2**stage
        row = [f"{stage + 1}", f"{channels}", f"{1 / channels:.4f}", f"{depth}"]
        for here in found[stage : stage + 1]:
            row += [f"{here.channels}", f"{here.mean:.4f}", f"{here.largest:.3f}", percent(float(here.gain.mean()))]
        rows.append(row + [""] * (8 - len(row)))
    header = ["Stage", "Channels, full", "Mean of a mask, 1/C", "Levels of the U-Net"]
    header += ["Channels here", "Mean here", "Largest here", "Mean gain here"]
    caption = "Left: arithmetic of the full network. Right (here): this page's network on four synthetic faces."
    figure = _gains(images, found)
    body = figure.figure() + remark_note(SYNTHETIC) + table(header, rows, caption, numeric=range(1, 8))
    return Html(body, repr(figure))


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

    ranges = "; ".join(
        f"stage {stage + 1} between {percent(float(one.gain.min()))} and {percent(float(one.gain.max()))}"
        for stage, one in enumerate(found)
    )
    return Figure(
        draw,
        scrolls="masks of every stage",
        alt=f"{len(images)} faces and, beside each, how much the mask of every stage lengthens the feature vector at "
        f"each position: {ranges}.",
        caption="How much each position of a stage's maps is amplified by its mask. Where the softmax is even over C "
        "channels, every position gains 1/C; only a peaked mask on a strong channel gains more.",
        remark=SYNTHETIC,
    )


def views(result: Result) -> Html:
    """The face as it is against random copies (test-time augmentation), and how far the latter move with their seed."""
    found = result.record["facts"].get("views_by_seed")
    if not found:
        return Html(f"<p>{text(result.variant)} records one seed of its copies only.</p>", "one seed of the copies")
    count = result.record["recipe"]["views"]["count"]
    shares = {usage: [one[usage]["correct"] / one[usage]["n"] for one in found] for usage in HALVES}
    seeds = [f"{count} random copies, seed {one['seed']}" for one in found]
    rows = [
        ["the face as it is", *(percent(result.score(usage, views=False)["accuracy"]) for usage in HALVES)],
        *([name, *map(percent, pair)] for name, *pair in zip(seeds, *shares.values(), strict=True)),
        ["mean over the seeds", *(percent(statistics.fmean(one)) for one in shares.values())],
        ["standard deviation", *(f"{100 * statistics.stdev(one):.2f} points" for one in shares.values())],
    ]
    body = table(["Scored", *HALVES], rows, f"{result.variant}: the same weights, other seeds of the copies", (1, 2))
    return Html(remark_note(result.remark) + body, f"{result.variant}: {len(found)} seeds of {count} random copies")


def ensemble(result: Result) -> Html:
    """Each member's accuracy by its summed scores, and all of them added, on both test sets."""
    found = _with_votes(result).predictions
    # Was member m right about image n: bool [M,N]
    right = {usage: found[f"{usage}_votes"].argmax(axis=2) == found[f"{usage}_labels"] for usage in HALVES}
    added = {usage: _hits(result, usage, (1,) * len(MEMBERS)) for usage in HALVES}
    rows = [[text(short), *(right[usage][index] for usage in HALVES)] for index, short in enumerate(SHORT.values())]
    rows.append(["all seven added", *added.values()])
    rows.append(["at least one member right", *(hits.any(axis=0) for hits in right.values())])
    score, count = result.score("PrivateTest"), result.record["recipe"]["views"]["count"]
    caption = (
        f"{result.variant}, {result.protocol} protocol, seed {result.seed}, {count} random copies of each face for "
        f"each network. All seven on PrivateTest: {interval(score['interval'])} (Wilson, 95 %)."
    )
    shown = [[name, *(percent(float(hits.mean())) for hits in both)] for name, *both in rows]
    body = _source(result) + table(["Network", *HALVES], shown, caption, (1, 2))
    return Html(body, f"all seven added: {percent(score['accuracy'])} ({_origin(result)})")


def _with_votes(result: Result) -> Result:
    """The result of an ensemble; raises `NotRecorded` for one without its members' votes."""
    if f"{HALVES[0]}_votes" not in result.predictions:
        raise NotRecorded(f"the result of {result.variant} holds no votes of several networks")
    return result


def _source(result: Result) -> str:
    remark = f"no run of the ensemble is stored under this protocol; tiny networks, a smoke run on {text(SYNTHETIC)}."
    return note("Not run:", remark) if result.synthetic else ""


def _origin(result: Result) -> str:
    return SYNTHETIC if result.synthetic else "stored"


def _hits(result: Result, usage: str, subset: Sequence[int]) -> np.ndarray:
    """bool [N]: was the sum over a subset (0 or 1 for each member) right."""
    votes = result.predictions[f"{usage}_votes"][np.flatnonzero(subset)].sum(axis=0, dtype=np.int64)
    return votes.argmax(axis=1) == result.predictions[f"{usage}_labels"]


@dataclass(frozen=True)
class Subsets:
    """All subsets of the members, in the order in which the published search tries them, with their accuracies."""

    members: tuple[tuple[int, ...], ...]
    accuracies: dict[str, np.ndarray]

    def best(self, usage: str) -> int:
        """The subset that the search would print on this test set; the first of equals."""
        return int(self.accuracies[usage].argmax())


def every_subset(result: Result) -> Subsets:
    """Score all 127 from the stored votes."""
    chosen = tuple(itertools.product((0, 1), repeat=result.predictions[f"{HALVES[0]}_votes"].shape[0]))[1:]
    scores = {usage: np.array([_hits(result, usage, one).mean() for one in chosen]) for usage in HALVES}
    return Subsets(chosen, scores)


def subsets(result: Result) -> Html:
    """The effect of choosing the members on the scored images: all subsets, chosen on either test set."""
    found = every_subset(_with_votes(result))
    public, private = (found.best(usage) for usage in HALVES)
    rules = {
        "all seven, fixed in advance": len(found.members) - 1,
        "best on PublicTest": public,
        "best on PrivateTest (the scored images: an oracle)": private,
    }
    rows = []
    for rule, index in rules.items():
        names = ", ".join(short for short, taken in zip(SHORT.values(), found.members[index], strict=True) if taken)
        rows.append([text(rule), text(names), *(percent(float(found.accuracies[usage][index])) for usage in HALVES)])
    header = ["Members", "Which", *HALVES]
    body = table(header, rows, f"{result.variant}, seed {result.seed}: from the stored votes of each member", (2, 3))
    hits = [_hits(result, "PrivateTest", found.members[index]) for index in (private, public)]
    gain, low, high = (f"{100 * value:+.2f}" for value in paired_difference(*hits))
    effect = (
        f"Choosing on PrivateTest instead of PublicTest moves the PrivateTest accuracy by {gain} points "
        f"({low} to {high}, bootstrap over the same {whole(len(hits[0]))} images)"
    )
    figure = _scatter(found, rules, result.remark).figure()
    return Html(f"{_source(result)}{figure}{body}<p>{text(effect)}.</p>", f"{effect} ({_origin(result)})")


def _scatter(found: Subsets, rules: dict[str, int], remark: str) -> Figure:
    sizes = np.array([sum(one) for one in found.members])
    x, y = (100 * found.accuracies[usage] for usage in HALVES)

    def draw(theme: Theme) -> Canvas:
        figure = canvas(7.2, 4.3)
        axes = figure.add_subplot()
        axes.scatter(x, y, s=10 + 9 * sizes, color=theme.soft, alpha=0.35, lw=0, label="one subset (area: members)")
        marks = zip(rules.items(), ("s", "o", "D"), (theme.measured, theme.clean, theme.claimed), strict=True)
        for size, ((rule, index), mark, colour) in zip((190, 135, 80), marks, strict=True):
            style = {"s": size, "marker": mark, "facecolors": "none", "edgecolors": colour, "lw": 2}
            axes.scatter(x[index], y[index], label=rule, **style)
        axes.set(xlabel="accuracy on PublicTest, %", ylabel="accuracy on PrivateTest, %")
        axes.grid(True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8.5)
        return figure

    chosen = "; ".join(f"{rule}: {x[index]:.2f} % and {y[index]:.2f} %" for rule, index in rules.items())
    return Figure(
        draw,
        scrolls="accuracy of all subsets",
        alt=f"Accuracy of all {len(x)} subsets of the members on PublicTest and PrivateTest. {chosen}.",
        caption=f"All {len(x)} subsets of the seven members. The published search takes the highest point, a fair one "
        "the point farthest right.",
        remark=remark,
    )
