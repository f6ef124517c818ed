"""Figures and tables of the chapter of "Local Learning with Deep and Handcrafted Features".

The steps; the three networks; the effects of a mask with a sign error, of a second vocabulary on the words, and of
unequal lengths on the kernel; every block alone and together, by every machine.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from scipy import sparse

from fer_repro import data as data_sets
from fer_repro import papers, plots
from fer_repro.claims import declared_parameters
from fer_repro.evaluation import cost
from fer_repro.evaluation.cost import input_shape, weightless
from fer_repro.evaluation.statistics import wilson
from fer_repro.local_learning import visual_words
from fer_repro.markup import Html, note, percent, table, text, whole
from fer_repro.papers import deep_and_handcrafted as paper
from fer_repro.papers import model_name
from fer_repro.papers.deep_and_handcrafted.fusion import WORDS
from fer_repro.papers.deep_and_handcrafted.networks import smallest
from fer_repro.plots.figure import Canvas, Figure, Theme, canvas
from fer_repro.plots.forest import Row, forest
from fer_repro.results import Result

# Third-party code (Dylan-H-Wang, handcraft_model.py): columns of its visual-word block, which it standardises.
COLUMNS = 17_000 + 4 * 14_000 + 16 * 8_000
MACHINES = {"softmax": "its own softmax", "global": "one SVM for all faces", "local": "one SVM for each face"}


def steps() -> Figure:
    """The method's steps with the settings of the official protocol's full recipe."""
    recipe = papers.get(paper.ROW).recipe("official", "full")
    return plots.pipeline(paper.pipeline(recipe), model_name(paper.ROW))


def networks() -> Html:
    """The three networks of the full recipe: counted, what learns, what is pruned, how long; one column for each."""
    columns, total = [], 0
    for name in paper.NAMES:
        variant = papers.get(f"{paper.ROW}-{name}")
        recipe = variant.recipe("official", "full")
        network = weightless(variant.build, recipe)
        counted, convolutions = cost.count_parameters(network), cost.count_parameters(network.convolutions)
        pruned = ", ".join(layer for layer, _ in network.masked())
        total += counted
        columns.append(
            {
                "Input": f"{recipe.input_size}×{recipe.input_size}",
                "Pretrained on": text(recipe.pretrained and recipe.pretrained.data, "nothing"),
                "Parameters, counted": f"<strong>{whole(counted)}</strong>",
                "Parameters, declared": whole(declared_parameters(variant.id)),
                "Of these trained": whole(counted - convolutions if network.frozen else counted),
                "Multiply-adds": whole(cost.count_multiply_adds(network, input_shape(recipe))),
                "Pruned in sparse stages": f"{percent(network.sparsity, 0)} of {text(pruned)}" if pruned else "nothing",
                "Epochs, dense and sparse alternately": " + ".join(str(stage.epochs) for stage in recipe.stages),
                "Length of the description": whole(network.fc7.out_features),
            }
        )
    rows = [[text(fact), *(column[fact] for column in columns)] for fact in columns[0]]
    caption = f"Counted on the networks of the full recipe: {whole(total)} parameters together"
    return Html(table(["", *paper.NAMES], rows, caption), f"three networks, {total:,} parameters")


def sign_error(weight: torch.Tensor, share: float) -> torch.Tensor:
    """The weights that third-party code sets to 0 (Dylan-H-Wang, deep_model.py): True where w, not |w|, is below the
    threshold, and that is the (1 - share) quantile of |w|."""
    limit = weight.abs().flatten().kthvalue(int(weight.numel() * (1 - share))).values
    return weight < limit


def masks() -> Figure:
    """Normal weights under both masks at the sparsity of VGG-face: which are kept, which are set to 0."""
    share = papers.get(f"{paper.ROW}-vgg-face").recipe("official", "full").options["sparsity"]
    weight = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    removed = {"by |w|, as it should be": smallest(weight, share), "by w, without |.|": sign_error(weight, share)}
    large = weight.abs() >= weight.abs().quantile(0.9)
    shares = {n: [percent(float(m.float().mean()), 0) for m in (mask, mask[large])] for n, mask in removed.items()}
    effects = {name: f"{all_} set to 0, of the largest tenth {top}" for name, (all_, top) in shares.items()}

    def draw(theme: Theme) -> Canvas:
        figure = canvas(8.2, 2.9)
        edges = np.linspace(-3.2, 3.2, 81)
        for axes, (name, mask) in zip(figure.subplots(1, 2, sharey=True), removed.items(), strict=True):
            parts = [weight[~mask].numpy(), weight[mask].numpy()]
            axes.hist(parts, edges, stacked=True, color=[theme.measured, theme.claimed], label=["kept", "set to 0"])
            axes.set(xlabel="weight, in standard deviations", yticks=[])
            axes.set_title(f"{name}\n{effects[name]}", fontsize=9.5)
            axes.spines["left"].set_visible(False)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return figure

    alt = "Histograms of normal weights, kept and set to 0. " + "; ".join(f"{name}: {e}" for name, e in effects.items())
    caption = f"{len(weight):,} normal random numbers in place of a layer, sparsity {percent(share, 0)}."
    return Figure(draw, alt=f"{alt}.", caption=caption, scrolls="weights set to 0")


@cache
def _faces_as_words() -> dict[str, np.ndarray]:
    """Cosines of 60 synthetic faces with themselves, encoded once by the pool's words and once by each vocabulary."""
    faces = np.asarray(data_sets.load("synthetic", size=(120, 7, 7)).images)
    grid = visual_words.SiftGrid(step=3, cell=4)

    def encoded(trained_on: np.ndarray, seed: int, images: np.ndarray) -> sparse.csr_matrix:
        words = visual_words.train_vocabulary(visual_words.sample_descriptors(trained_on, grid, 6000, seed), 300, seed)
        indices = np.concatenate(list(visual_words.words_of(images, grid, visual_words.WordFinder(words), 1)))
        return visual_words.spatial_words(indices, grid.centres(), 300, 2)

    pool = encoded(faces[:60], 0, faces[:60])
    return {
        "one vocabulary": (pool @ encoded(faces[:60], 0, faces[:60]).T).toarray(),
        "one for each set": (pool @ encoded(faces[60:], 1, faces[:60]).T).toarray(),
    }


def vocabularies() -> Html:
    """The same faces as pool and as test images: is each its own nearest face, by its words?"""
    rows = []
    for name, cosines in _faces_as_words().items():
        others = cosines[~np.eye(len(cosines), dtype=bool)].mean()
        itself = float((cosines.argmax(axis=0) == np.arange(len(cosines))).mean())
        rows.append([text(name), f"{np.diag(cosines).mean():.2f}", f"{others:.2f}", percent(itself, 0)])
    header = ["Words", "Cosine with itself", "Cosine with other faces", "Nearest face is itself"]
    caption = (
        "60 synthetic faces are the pool, and the same faces are the test images. The second vocabulary was made of 60 "
        "others, with another seed. Synthetic faces - says nothing about the paper"
    )
    return Html(table(header, rows, caption, numeric=(1, 2, 3)), f"nearest face is itself: {rows[0][3]}, {rows[1][3]}")


def lengths() -> Html:
    """Each block's share of the cosine when the words are standardised and the networks' blocks scaled to 1."""
    third = {name: 1.0 for name in paper.NAMES} | {WORDS: float(COLUMNS)}
    total = sum(third.values())
    here = percent(1 / len(third), 0)
    rows = [[text(name), whole(square), percent(square / total, 4), here] for name, square in third.items()]
    header = ["Block", "Squared length, third-party code", "Its share", "Share here"]
    caption = (
        f"Standardising a vector of n numbers to mean 0 and deviation 1 gives it the squared length n; here n = "
        f"{COLUMNS:,}"
    )
    return Html(table(header, rows, caption, numeric=(1, 2, 3)), f"the share of the words: {rows[-1][2]}")


def blocks(result: Result) -> Html:
    """Each block alone and the groups together, by softmax, one SVM for all faces, and one for each face."""
    facts = result.record["facts"]
    scores = facts.get("blocks")
    if not scores:
        why = f"{text(result.variant)} is one network; the run of {paper.ROW} compares the blocks."
        return Html(note("Not here:", why), "no blocks to compare")
    chosen, several = facts["chosen"], len(facts["blocks_tried"]) > 1

    def group(names: list[str]) -> str:
        name = "all four" if len(names) == len(paper.BLOCKS) else " + ".join(names)
        return name + (", chosen" if several and names == chosen["blocks"] else "")

    def place(row: dict[str, Any]) -> tuple[int, int, int]:
        """Single blocks in their order, then groups by size."""
        return len(row["blocks"]), paper.BLOCKS.index(row["blocks"][0]), list(MACHINES).index(row["machine"])

    figures = []
    for usage in (name for name in scores[0] if name not in ("blocks", "machine")):
        rows = [
            Row(
                MACHINES[row["machine"]],
                row[usage]["accuracy"],
                wilson(row[usage]["correct"], row[usage]["n"]),
                "clean" if row["machine"] == "local" else "measured",
                (percent(row[usage]["accuracy"]),),
                group(row["blocks"]),
            )
            for row in sorted(scores, key=place)
        ]
        figures.append(
            forest(
                rows,
                f"Every block, alone and together: {usage}",
                alt="; ".join(f"{row.group}, {row.label} {row.words[0]}" for row in rows) + ".",
                caption=f"Wilson 95 % intervals. Local machines: k = {chosen['k']}, C = {chosen['C']:g}.",
                columns=("accuracy",),
                remark=result.remark,
            )
        )
    return Html("".join(figure.figure() for figure in figures), "\n".join(map(repr, figures)))
