"""Figures and tables of the SDAFE chapter.

How many faces are wanted; the generated ones and their sources; what passes which filter; the six training sets.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle

from fer_repro import results
from fer_repro.claims import claim_of, declared_parameters, leaderboard_claims
from fer_repro.data import LABELS, USAGES
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.errors import FerReproError
from fer_repro.markup import SYNTHETIC, Html, note, percent, remark_note, table, text, whole, with_interval
from fer_repro.papers.sdafe import IMAGES, generated
from fer_repro.papers.sdafe.generated import Generated
from fer_repro.plots.figure import Canvas, Figure, Theme, canvas
from fer_repro.results import HALVES, Result

EACH = 8  # faces of every class in the grid, and no more anywhere
GAP = 3  # pixels
TARGETS = {"neutral": "as many as neutral", "largest": "as many as the largest class"}
ARMS = {
    "real-only": "real images only, repeated in the data's own proportions",
    "oversampled": "rare classes repeated",
    "unfiltered": "generated faces, no filter",
    "psnr": "PSNR filter alone",
    "cosine": "label filter alone",
    "both": "both filters: SDAFE",
}


def wanted() -> Html:
    """How many faces each class lacks, for both targets, from the official counts of Training."""
    counts = np.asarray(OFFICIAL_COUNTS[USAGES.index(generated.SOURCE_USAGE)])
    lacking = {target: generated.needed(counts, target) for target in TARGETS}
    named = {"Training has": counts} | {TARGETS[target]: numbers for target, numbers in lacking.items()}
    rows = [[text(name), *map(whole, numbers), whole(numbers.sum())] for name, numbers in named.items()]
    shares = 100 * lacking["neutral"] / (counts + lacking["neutral"])
    rows.append(["generated share, as neutral", *(f"{share:.0f}\u00a0%" for share in shares), ""])
    body = table(["", *LABELS, "all"], rows, "Images in Training, and how many more are wanted", range(1, 9))
    totals = ", ".join(f"{target}: {numbers.sum():,}" for target, numbers in lacking.items())
    return Html(body, f"faces wanted: {totals}")


def _absent(result: Result) -> Html:
    without = result.record["recipe"]["options"].get("arm") in generated.WITHOUT_FACES
    elsewhere = f"a stored result keeps none; they stay in the run folder of {IMAGES}"
    why = "this arm uses no generated faces" if without else elsewhere
    return Html(f"<p>No generated faces to show: {text(why)}.</p>", f"no generated faces: {why}")


def faces(result: Result) -> Figure | Html:
    """The first candidates of every class, each below its source; a frame where both filters accept it."""
    made = getattr(result.classifier, "generated", None)
    if made is None:
        return _absent(result)
    train = result.classifier.sources
    position = {name: index for index, name in enumerate(np.asarray(train.ids).tolist())}
    classes = np.unique(made.classes)
    rows = [np.flatnonzero(made.classes == index)[:EACH] for index in classes]
    edge = made.images.shape[1]
    step, height = edge + GAP, 2 * edge + 3 * GAP
    sheet = np.zeros((height * len(rows) - 2 * GAP, step * EACH - GAP, 4), np.uint8)
    frames: list[tuple[int, int]] = []
    for row, chosen in enumerate(rows):
        for column, index in enumerate(chosen):
            source = train.images[position[str(made.source[index])]]
            left, top = column * step, row * height
            for y, face in ((top, source), (top + edge + 1, made.images[index])):
                cell = sheet[y : y + edge, left : left + edge]
                cell[..., :3], cell[..., 3] = np.asarray(face)[..., None], 255
            if made.accepted[index]:
                frames.append((left, top + edge + 1))

    def draw(theme: Theme) -> Canvas:
        figure = canvas(0.72 * EACH + 1.2, 1.42 * len(rows) + 0.05)
        axes = figure.add_subplot()
        axes.imshow(sheet, interpolation="bilinear")
        style = {"fill": False, "lw": 2.6, "edgecolor": theme.clean, "clip_on": False}
        for x, y in frames:
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), edge, edge, **style))
        ticks = [row * height + part * edge + edge / 2 for row in range(len(rows)) for part in (0, 1)]
        axes.set_yticks(ticks, [name for index in classes for name in ("source", f"as {LABELS[index]}")])
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return figure

    counts = ", ".join(
        f"{LABELS[index]} {len(chosen)}, {int(made.accepted[chosen].sum())} accepted"
        for index, chosen in zip(classes, rows, strict=True)
    )
    smoke = " The generator of this page was fitted for a few steps only." if result.profile == "smoke" else ""
    return Figure(
        draw,
        alt=f"Pairs of a neutral source face and the face generated from it, below it, by class: {counts}.",
        caption=f"The first {EACH} candidates of each class, without any choice: above the neutral source, below the "
        f"face generated from it. A frame: both filters accept it.{smoke}",
        remark=result.remark,
        photo=True,
    )


def filtered(result: Result) -> Html:
    """What passes which filter: the table, and the histograms where the faces are at hand."""
    counts, made = acceptance(result), getattr(result.classifier, "generated", None)
    if made is None:
        return counts
    figure = distributions(made, result.remark)
    return Html(counts.body + figure.figure(), f"{counts.plain}; {figure!r}")


def acceptance(result: Result) -> Html:
    """Candidates of every class, how many pass each filter and both, and how many the training set used."""
    facts = result.record["facts"]
    of_images = facts.get("images", facts)
    rates = of_images.get("acceptance")
    if rates is None:
        return _absent(result)
    added = {row["class"]: [whole(row["generated"]), whole(row["repeated"])] for row in facts.get("added", ())}
    total = {"class": "all"} | {key: sum(row[key] for row in rates) for key in ("candidates", "psnr", "cosine", "both")}
    rows = []
    for row in (*rates, total):
        shares = [percent(row[key] / row["candidates"], 1) for key in ("psnr", "cosine", "both")]
        rows.append([text(row["class"]), whole(row["candidates"]), *shares, *added.get(row["class"], ["", ""])])
    header = ["Class", "Candidates", "Pass PSNR", "Pass the label", "Pass both", "Used", "Repeats"]
    caption = (
        "Share of the candidates that each filter accepts. Used: different generated faces in the training set of "
        "this run; repeats: how many more images it took to fill the class up."
    )
    filters = of_images.get("filters", {})
    bound = f"<p>PSNR bound: {filters['psnr_lowest']:.2f} dB.</p>" if filters else ""
    body = remark_note(result.remark) + table(header, rows, caption, range(1, len(header))) + bound
    remark = f" ({result.remark})" if result.remark else ""
    return Html(body, f"accepted by both filters: {total['both']} of {total['candidates']}{remark}")


def distributions(made: Generated, remark: str) -> Figure:
    """Histograms of PSNR and of the similarity to the wanted label."""
    finite = made.psnr[np.isfinite(made.psnr)]

    def draw(theme: Theme) -> Canvas:
        figure = canvas(7.2, 2.7)
        panels = figure.subplots(1, 2)
        parts = (
            (made.psnr, made.near, "PSNR against the source, dB"),
            (made.cosine, made.fitting, "cosine with the wanted label"),
        )
        for axes, (values, passed, name) in zip(panels, parts, strict=True):
            known = np.isfinite(values)
            axes.hist(
                [values[known & passed], values[known & ~passed]],
                bins=np.histogram_bin_edges(values[known], bins=24),
                stacked=True,
                color=[theme.measured, theme.claimed],
                label=["passes", "fails"],
                edgecolor=theme.page,
                linewidth=0.4,
            )
            axes.set_xlabel(name)
            axes.grid(axis="y")
        panels[0].set_ylabel("candidates")
        panels[0].legend(fontsize=8.5)
        return figure

    return Figure(
        draw,
        scrolls="what the filters accept",
        alt=f"Histograms of {len(made.near)} candidates: PSNR from {finite.min():.1f} to {finite.max():.1f} dB, "
        f"{int(made.near.sum())} pass; cosine with the wanted label from {made.cosine.min():.2f} to "
        f"{made.cosine.max():.2f}, {int(made.fitting.sum())} pass.",
        caption="Left: the PSNR filter cuts at one bound. Right: the label filter also requires the label to be the "
        "most similar of the seven, so the two kinds overlap.",
        remark=remark,
    )


def arms(result: Result, results_dir: Path | None) -> Html:
    """The six arms under the protocol of ``result``: every stored run, "not run" where there is none."""
    variants = {("sdafe" if arm == "both" else f"sdafe-{arm}"): name for arm, name in ARMS.items()}
    stored = [run for run in results.read_all(results_dir) if run.protocol == result.protocol]
    rows, count = [], 0
    for variant, name in variants.items():
        head = f'{text(name)}<br><span class="fer-small"><code>{text(variant)}</code></span>'
        own = [run for run in stored if run.variant == variant]
        rows += [[head, *_scores(run)] for run in own] or [[head, "not run", "", "", "", ""]]
        count += len(own)
    header = ["Arm", "Seed", *HALVES, "Balanced accuracy", "Recall of disgust"]
    caption = (
        f"fernext-proxy ({whole(declared_parameters('sdafe'))} parameters) on six training sets, with equally many "
        f"steps on each; {result.protocol} protocol, without test-time augmentation, Wilson 95 % intervals; the last "
        "two columns on PrivateTest."
    )
    remark = f"the run of this page is not in the table: {text(SYNTHETIC)}."
    body = (note("Note:", remark) if result.synthetic else "") + table(header, rows, caption, range(1, len(header)))
    return Html(body, f"{count} stored runs of the six arms")


def _scores(run: Result) -> list[str]:
    scores = [run.score(half, views=False) for half in HALVES]
    disgust = scores[1]["per_class"]["disgust"]
    accuracies = [with_interval(score["accuracy"], score["interval"]) for score in scores]
    balanced = percent(scores[1]["balanced_accuracy"])
    return [f"{run.seed}", *accuracies, balanced, with_interval(disgust["recall"], disgust["interval"], 1)]


def distance() -> Html:
    """The claim in faces of PrivateTest, with all claims of class A, whose images are known to be PrivateTest."""
    claim = claim_of("sdafe")
    images = int(np.sum(OFFICIAL_COUNTS[USAGES.index("PrivateTest")]))
    known = [o for o in leaderboard_claims().values() if o.pinned and o.audit.comparability == "A"]
    if not known:
        raise FerReproError("no claim is of comparability class A: the claims file has changed")
    rows = []
    for other in sorted((claim, *known), key=lambda other: -other.accuracy):
        right, points = round(other.accuracy * images / 100), other.accuracy - claim.accuracy
        numbers = [f"{other.accuracy:.2f}\u00a0%", whole(right), f"{points:+.2f}"]
        rows.append([text(other.model), *numbers, text(other.audit.comparability)])
    header = ["Claim", "Accuracy", f"Right faces of {images:,}", "Points from this claim", "Class"]
    caption = "This claim, and all whose scored images and selection are known to be clean (class A)"
    above = claim.accuracy - max(other.accuracy for other in known)
    return Html(table(header, rows, caption, range(1, 4)), f"{above:.2f} points above the best clean claim")
