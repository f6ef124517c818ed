"""What the Ad-Corre chapter shows beyond the common sections: do the losses have a gradient, and what is their effect.

Both parts train or probe the shrunken network on a few synthetic faces while the page is made, so they run anywhere.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor, nn

from fer_repro import data as data_sets
from fer_repro import papers
from fer_repro.data import FER2013, LABELS, Splits
from fer_repro.data.synthetic import SMOKE_SIZE
from fer_repro.layers import as_input, normalise_
from fer_repro.markup import SYNTHETIC, Html, remark_note, table, text
from fer_repro.papers.ad_corre import losses
from fer_repro.papers.ad_corre.losses import AdCorreLoss, correlation, floor, floor_of_features
from fer_repro.plots.figure import Canvas, Figure, Theme, canvas
from fer_repro.recipe import Recipe, Selection, Stage, step
from fer_repro.training import checkpoint
from fer_repro.training.execution import one_thread
from fer_repro.training.losses import CLASSES
from fer_repro.training.run import Run

EACH = 5  # faces of every class in the batch, where there are so many synthetic training faces
EPOCHS = 40  # of one batch each
WITHOUT, WITH = "ad-corre-cross-entropy", "ad-corre"


def batch_of_faces() -> FER2013:
    """A few synthetic training faces of every class, sorted by class."""
    faces = data_sets.load("synthetic", size=SMOKE_SIZE)
    train = faces.usage == "Training"
    chosen = [np.flatnonzero(train & (faces.labels == index))[:EACH] for index in range(CLASSES)]
    return faces.subset(np.concatenate(chosen))


def inputs(faces: FER2013, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """float32 [B,1,48,48] as the network gets them, and int64 [B]."""
    images = normalise_(as_input(torch.tensor(np.asarray(faces.images))), recipe.mean, recipe.std)
    return images, torch.tensor(np.asarray(faces.labels), dtype=torch.long)


def untrained(recipe: Recipe, seed: int) -> nn.Module:
    with checkpoint.seeded(seed, torch.device("cpu")):
        return papers.get(recipe.variant).build(recipe)


def overfit(variant: str, faces: FER2013, seed: int) -> nn.Module:
    """The shrunken network after overfitting one batch without augmentation, with the variant's own loss."""
    recipe = dataclasses.replace(
        papers.get(variant).recipe("official", "smoke"),
        augment=(),
        batch_size=len(faces),
        selection=Selection("last"),
        stages=(Stage("overfit", EPOCHS, step("adam", lr=3e-3)),),
    )
    nothing = faces.subset(np.arange(0))
    with tempfile.TemporaryDirectory() as folder:
        run = Run(recipe, seed, "cpu", Path(folder), faces.digest)
        return papers.get(variant).fit(Splits(faces, nothing, nothing, faces), run).model


# ---- gradients -------------------------------------------------------------------------------------------------------


def released_terms(embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """ED, FD and MD of [B,k,D] and [B] by the released formulas: with NumPy, so no gradient leads to the network."""
    values, classes = embeddings.detach().double().numpy(), labels.numpy()
    count, k = len(classes), values.shape[1]
    within = np.array([np.corrcoef(own) for own in values])
    between = np.array([np.corrcoef(values[:, j]) for j in range(k)])
    target = np.where(classes[:, None] == classes, 1, -1)
    shares = [np.where(classes == c, 1.0, losses.EPSILON) for c in range(CLASSES)]
    means = [[np.average(values[:, j], axis=0, weights=share) for share in shares] for j in range(k)]
    apart = np.array([np.corrcoef(mean) for mean in means])
    terms = {
        "ED": ((1 - np.eye(k)) * (1 + within)).sum() / (count * k * k),
        "FD": np.abs(target - between).mean(),
        "MD": ((1 - np.eye(CLASSES)) * (1 + apart)).mean(),
    }
    return {name: torch.tensor(value, dtype=torch.float32) for name, value in terms.items()}


def gradient_norm(loss: Tensor, embeddings: Tensor) -> float | None:
    """Norm of the gradient of ``loss`` at the embeddings; None where the loss does not depend on them."""
    if not loss.requires_grad:
        return None
    (gradient,) = torch.autograd.grad(loss, embeddings, retain_graph=True, allow_unused=True)
    return None if gradient is None else gradient.norm().item()


@dataclass(frozen=True)
class Term:
    """One line of the gradient table: values and gradient norms, ours and by the released formulas."""

    name: str
    value: float
    lowest: float | None
    norm: float | None
    released: float | None = None
    released_norm: float | None = None


@one_thread()
def measure_gradients(variant: str, seed: int) -> list[Term]:
    """Each term of the loss at an untrained shrunken network's embeddings of one batch of synthetic faces."""
    recipe = papers.get(variant).recipe("official", "smoke")
    images, labels = inputs(batch_of_faces(), recipe)
    network = untrained(recipe, seed)
    with checkpoint.seeded(seed, torch.device("cpu")):  # the dropout mask
        logits, embeddings = network(images)

    def term(name: str, here: Tensor, released: Tensor | None = None, lowest: float | None = None) -> Term:
        theirs = () if released is None else (released.item(), gradient_norm(released, embeddings))
        return Term(name, here.item(), lowest, gradient_norm(here, embeddings), *theirs)

    loss = AdCorreLoss()
    ours = AdCorreLoss(adaptive=False).parts((logits, embeddings), labels)
    theirs = {"CE": ours["CE"]} | released_terms(embeddings, labels)
    weights = losses.pair_weights(loss.recall(logits, labels), labels)
    lowest = {"CE": 0.0, "ED": floor(embeddings.shape[1]), "FD": floor_of_features(labels), "MD": floor(CLASSES)}
    terms = [term(name, part, theirs[name], lowest[name]) for name, part in ours.items()]
    terms.insert(3, term("FD, adaptive", losses.feature_discriminator(embeddings, labels, weights)))
    return [*terms, term("CE + ED + FD + MD", sum(ours.values()), sum(theirs.values()))]


def gradients(variant: str, seed: int) -> Html:
    """The table: every term of the loss with its gradient here and as released."""
    terms = measure_gradients(variant, seed)

    def number(value: float | None, missing: str = "") -> str:
        return missing if value is None else f"{value:.4f}"

    rows = []
    for term in terms:
        values = [number(term.value), number(term.released, "not called"), number(term.lowest)]
        missing = "not called" if term.released is None else "none"
        rows.append([text(term.name), *values, number(term.norm, "none"), number(term.released_norm, missing)])
    header = ["Term", "Value", "Value, NumPy", "Lowest possible", "Gradient norm", "Gradient norm, released way"]
    caption = (
        "At the embeddings of one batch, untrained shrunken network. CE includes its weight of 50/7. none: the value "
        "does not depend on the network. The release has FD's adaptive weights, but does not call them."
    )
    norms = "; ".join(
        f"{t.name} {number(t.norm, 'none')} here, {number(t.released_norm, 'none')} released" for t in terms
    )
    body = remark_note(SYNTHETIC) + table(header, rows, caption, numeric=range(1, 6))
    return Html(body, f"Gradient norms: {norms} ({SYNTHETIC})")


# ---- correlations ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Panel:
    """The correlations of one network's embeddings of a batch: float32 [B,B] between faces, [k,k] between embeddings.

    ``within``, ``between``: mean correlation of faces of one class and of different classes; ``across``: of a face's
    embeddings. ``terms``: ED, FD and MD, without adaptive weights.
    """

    title: str
    faces: np.ndarray
    embeddings: np.ndarray
    within: float
    between: float
    across: float
    terms: tuple[float, ...]


@torch.no_grad()
def panel(title: str, network: nn.Module, images: Tensor, labels: Tensor) -> Panel:
    """The correlations of ``network`` with the batch's own statistics, as an untrained one has no running ones."""
    logits, embeddings = network.train()(images)
    faces = correlation(embeddings.transpose(0, 1)).mean(dim=0)
    inside = correlation(embeddings).mean(dim=0)
    same, other = labels[:, None] == labels, ~torch.eye(len(labels), dtype=torch.bool)
    parts = AdCorreLoss(adaptive=False).parts((logits, embeddings), labels)
    pairs = (faces[same & other], faces[~same], inside[~torch.eye(len(inside), dtype=torch.bool)])
    terms = tuple(parts[name].item() for name in losses.TERMS)
    return Panel(title, faces.numpy(), inside.numpy(), *(part.mean().item() for part in pairs), terms)


@one_thread()
def measure_correlations(seed: int) -> tuple[list[Panel], Tensor]:
    """The batch before training, overfitted with cross-entropy alone, and with the whole loss; int64 labels."""
    faces = batch_of_faces()
    recipe = papers.get(WITH).recipe("official", "smoke")
    images, labels = inputs(faces, recipe)
    networks = {"untrained": untrained(recipe, seed), "cross-entropy alone": overfit(WITHOUT, faces, seed)}
    networks["with ED, FD and MD"] = overfit(WITH, faces, seed)
    return [panel(title, network, images, labels) for title, network in networks.items()], labels


def correlations(seed: int) -> Html:
    """Correlation matrices of one batch, sorted by class, before and after training with and without the losses."""
    panels, labels = measure_correlations(seed)
    figure = _matrices(panels, labels.numpy())
    k = len(panels[0].embeddings)
    best = (1.0, -1 / (CLASSES - 1), -1 / (k - 1), floor(k), floor_of_features(labels), floor(CLASSES))
    numbers = {p.title: (p.within, p.between, p.across, *p.terms) for p in panels}
    numbers["best possible, each by itself"] = best
    rows = [[text(title), *(f"{value:.3f}" for value in values)] for title, values in numbers.items()]
    header = ["Network", "r, same class", "r, other class", "r, embeddings of a face", "ED", "FD", "MD"]
    caption = "Mean correlations of the batch, and the three terms of the loss (FD without adaptive weights)."
    return Html(figure.figure() + remark_note(SYNTHETIC) + table(header, rows, caption, range(1, 7)), repr(figure))


def _matrices(panels: Sequence[Panel], labels: np.ndarray) -> Figure:
    borders = np.flatnonzero(np.diff(labels)) + 0.5
    middles = [float(np.flatnonzero(labels == index).mean()) for index in range(CLASSES)]

    def draw(theme: Theme) -> Canvas:
        figure = canvas(7.4, 5.1)
        tint = LinearSegmentedColormap.from_list("tint", [theme.claimed, theme.page, theme.measured])
        grid = figure.subplots(2, len(panels), height_ratios=[1.05, 1])
        for column, one in enumerate(panels):
            top, below = grid[:, column]
            shown = top.imshow(one.faces, cmap=tint, vmin=-1, vmax=1)
            below.imshow(one.embeddings, cmap=tint, vmin=-1, vmax=1)
            top.set_title(one.title, fontsize=9.5)
            for border in borders:
                top.axhline(border, color=theme.soft, lw=0.5)
                top.axvline(border, color=theme.soft, lw=0.5)
            top.set_yticks(middles, LABELS if column == 0 else [""] * CLASSES)
            top.set_xticks([])
            numbers = range(len(one.embeddings))
            below.set_yticks(numbers, [str(n + 1) if column == 0 else "" for n in numbers], fontsize=8)
            below.set_xticks(numbers, [str(n + 1) for n in numbers], fontsize=8)
            for axes in (top, below):
                axes.tick_params(length=0, labelsize=8.5)
                axes.spines[:].set_visible(False)
        grid[0, 0].set_ylabel("faces, by class")
        grid[1, 0].set_ylabel("embeddings of a face")
        bar = figure.colorbar(shown, ax=grid, shrink=0.6, ticks=[-1, -0.5, 0, 0.5, 1])
        bar.outline.set_visible(False)
        bar.set_label("Pearson correlation")
        return figure

    means = "; ".join(
        f"{p.title}: same class {p.within:.2f}, other class {p.between:.2f}, embeddings of one face {p.across:.2f}"
        for p in panels
    )
    return Figure(
        draw,
        scrolls="correlation of embeddings",
        alt=f"Correlation matrices of the embeddings of {len(labels)} faces sorted by class, and below them of the "
        f"embeddings of one face. Mean correlation, {means}.",
        caption=f"One batch of {len(labels)} synthetic faces. Above: correlation of every pair of faces, mean over the "
        "embeddings; below: of every pair of embeddings, mean over the faces. The trained networks overfit these very "
        "faces.",
        remark=SYNTHETIC,
    )
