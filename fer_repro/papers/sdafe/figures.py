"""What the SDAFE chapter shows beyond the common sections.

How many faces are wanted; the generated ones beside their sources; who passes which filter; the six arms side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle

from fer_repro import papers, results
from fer_repro.claims import claim_of, declared_parameters, leaderboard_claims
from fer_repro.data import LABELS, USAGES
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.errors import FerReproError
from fer_repro.markup import SYNTHETIC, Html, interval, note, percent, synthetic_note, table, text, whole
from fer_repro.page import Chapter
from fer_repro.papers.sdafe import IMAGES, WITHOUT_FACES, generated
from fer_repro.papers.sdafe.generated import Generated
from fer_repro.plots.figure import Figure, Theme, canvas
from fer_repro.results import HALVES, Result

EACH = 8  # faces of every class in the grid, and no more anywhere
GAP = 3  # pixels
TARGET_WORDS = {"neutral": "as many as neutral", "largest": "as many as the largest class"}
ARM_WORDS = {
    "real-only": "real images only, repeated as they come",
    "oversampled": "rare classes repeated",
    "unfiltered": "generated faces, no filter",
    "psnr": "PSNR filter alone",
    "cosine": "label filter alone",
    "both": "both filters: SDAFE",
}


def wanted() -> Html:
    """How many faces each class lacks, for both targets, from the official counts of Training."""
    counts = np.asarray(OFFICIAL_COUNTS[USAGES.index(generated.SOURCE_USAGE)])
    lacking = {target: generated.needed(counts, target) for target in generated.TARGETS}
    rows = [["Training has", *(whole(n) for n in counts), whole(counts.sum())]]
    for target, numbers in lacking.items():
        rows.append([text(TARGET_WORDS[target]), *(whole(n) for n in numbers), whole(numbers.sum())])
    shares = 100 * lacking["neutral"] / (counts + lacking["neutral"])
    rows.append(["generated share, as neutral", *(f"{share:.0f}\u00a0%" for share in shares), ""])
    body = table(["", *LABELS, "all"], rows, "Images in Training, and how many are wanted more", range(1, 9))
    told = ", ".join(f"{target}: {numbers.sum():,}" for target, numbers in lacking.items())
    return Html(body, f"faces wanted: {told}")


def made_on_this_page(result: Result) -> tuple[Generated, Any] | None:
    """The candidates and the Training images of this page's run; None where it used none, or they are elsewhere."""
    made = getattr(result.classifier, "generated", None)
    return None if made is None else (made, result.classifier.sources)


def _absent(result: Result) -> Html:
    arm = result.record["recipe"]["options"].get("arm")
    why = (
        "this arm uses no generated faces"
        if arm in WITHOUT_FACES
        else f"a stored result keeps none; they stay in the run folder of {IMAGES}"
    )
    return Html(f"<p>No generated faces to show: {text(why)}.</p>", f"no generated faces: {why}")


# ---- the grid --------------------------------------------------------------------------------------------------------


def faces(chapter: Chapter) -> Figure | Html:
    """The first candidates of every class, each below its source; a frame where both filters let it pass."""
    found = made_on_this_page(chapter.result)
    if found is None:
        return _absent(chapter.result)
    made, train = found
    where = {name: index for index, name in enumerate(np.asarray(train.ids).tolist())}
    classes = np.unique(made.classes)
    rows = [np.flatnonzero(made.classes == index)[:EACH] for index in classes]
    edge = made.images.shape[1]
    step, tall = edge + GAP, 2 * edge + 3 * GAP
    sheet = np.zeros((tall * len(rows) - 2 * GAP, step * EACH - GAP, 4), np.uint8)
    frames: list[tuple[int, int]] = []
    for row, chosen in enumerate(rows):
        for column, index in enumerate(chosen):
            source = np.asarray(train.images[where[str(made.source[index])]])
            for below, face in enumerate((source, made.images[index])):
                top = row * tall + below * (edge + 1)
                cell = sheet[top : top + edge, column * step : column * step + edge]
                cell[..., :3], cell[..., 3] = face[..., None], 255
            if made.accepted[index]:
                frames.append((column * step, row * tall + edge + 1))

    def draw(theme: Theme) -> Canvas:
        figure = canvas(0.72 * EACH + 1.2, 1.42 * len(rows) + 0.05)
        axes = figure.add_subplot()
        axes.imshow(sheet, interpolation="bilinear")
        for x, y in frames:
            axes.add_patch(
                Rectangle((x - 0.5, y - 0.5), edge, edge, fill=False, lw=2.6, edgecolor=theme.clean, clip_on=False)
            )
        ticks = [row * tall + part * edge + edge / 2 for row in range(len(rows)) for part in (0, 1)]
        names = [name for index in classes for name in ("source", f"as {LABELS[index]}")]
        axes.set_yticks(ticks, names)
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return figure

    synthetic = chapter.result.synthetic
    told = ", ".join(
        f"{LABELS[index]} {len(chosen)}, {int(made.accepted[chosen].sum())} accepted"
        for index, chosen in zip(classes, rows, strict=True)
    )
    smoke = " The generator of this page was fitted for a few steps only." if chapter.result.profile == "smoke" else ""
    return Figure(
        draw,
        alt=f"Pairs of a neutral source face and the face generated from it, below it, by class: {told}.",
        caption=f"The first {EACH} candidates of each class, not chosen by anybody: above the neutral source, below "
        f"what became of it. A frame: both filters let it pass.{smoke}",
        synthetic=synthetic,
        photo=True,
    )


# ---- the filters -----------------------------------------------------------------------------------------------------


def filtered(chapter: Chapter) -> Html:
    """Who passes which filter: the table, and the histograms where the faces are at hand."""
    counts = acceptance(chapter)
    if made_on_this_page(chapter.result) is None:
        return counts
    figure = distributions(chapter)
    return Html(counts.body + figure.figure(), f"{counts.plain}; {figure!r}")


def acceptance(chapter: Chapter) -> Html:
    """Candidates of every class, how many pass each filter and both, and what the training set took."""
    result = chapter.result
    recorded = result.record["facts"]
    recorded_images = recorded.get("images", recorded)
    rates = recorded_images.get("acceptance")
    if rates is None:
        return _absent(result)
    added = {row["class"]: row for row in recorded.get("added", ())}
    rows = []
    total = {"class": "all"} | {key: sum(row[key] for row in rates) for key in ("candidates", "psnr", "cosine", "both")}
    for row in (*rates, total):
        cells = [text(row["class"]), whole(row["candidates"])]
        cells += [percent(row[key] / row["candidates"], 1) for key in ("psnr", "cosine", "both")]
        taken = added.get(row["class"])
        cells += [whole(taken["generated"]), whole(taken["repeated"])] if taken else ["", ""]
        rows.append(cells)
    header = ["Class", "Candidates", "Pass PSNR", "Pass the label", "Pass both", "Used", "Repeats"]
    caption = (
        "Share of the candidates that each filter lets pass. Used: different generated faces in the training set of "
        "this run; repeats: how many more images it took to fill the class up."
    )
    filters = recorded_images.get("filters", {})
    bound = f"<p>PSNR bound: {filters['psnr_lowest']:.2f} dB.</p>" if filters else ""
    body = synthetic_note(result.synthetic) + table(header, rows, caption, range(1, len(header))) + bound
    return Html(body, f"accepted by both filters: {total['both']} of {total['candidates']}{_synthetic(result)}")


def distributions(chapter: Chapter) -> Figure:
    """Histograms of PSNR and of the similarity to the wanted label; `FerReproError` where no faces are at hand."""
    found = made_on_this_page(chapter.result)
    if found is None:
        raise FerReproError(f"the result of {chapter.result.variant} holds no generated faces to look at")
    made, _ = found
    finite = np.isfinite(made.psnr)
    near, fitting = made.near, made.fitting

    def draw(theme: Theme) -> Canvas:
        figure = canvas(7.2, 2.7)
        left, right = figure.subplots(1, 2)
        parts = (
            (left, made.psnr, finite & near, finite & ~near, "PSNR against the source, dB"),
            (right, made.cosine, fitting, ~fitting, "cosine with the wanted label"),
        )
        for axes, values, passed, failed, name in parts:
            bins = np.histogram_bin_edges(values[passed | failed], bins=24)
            axes.hist(
                [values[passed], values[failed]],
                bins=bins,
                stacked=True,
                color=[theme.measured, theme.claimed],
                label=["passes", "fails"],
                edgecolor=theme.page,
                linewidth=0.4,
            )
            axes.set_xlabel(name)
            axes.grid(axis="y")
        left.set_ylabel("candidates")
        left.legend(fontsize=8.5)
        return figure

    return Figure(
        draw,
        alt=f"Histograms of {len(near)} candidates: PSNR from {made.psnr[finite].min():.1f} to "
        f"{made.psnr[finite].max():.1f} dB, {int(near.sum())} pass; cosine with the wanted label from "
        f"{made.cosine.min():.2f} to {made.cosine.max():.2f}, {int(fitting.sum())} pass.",
        caption="Left: the PSNR filter cuts at one bound. Right: the label filter also wants the label to be the most "
        "similar of the seven, so the two kinds overlap.",
        synthetic=chapter.result.synthetic,
    )


# ---- the comparison --------------------------------------------------------------------------------------------------


def arms(chapter: Chapter) -> Html:
    """The six arms under the chapter's protocol: every stored run, "not run" where there is none."""
    protocol = chapter.parameters.protocol
    stored = [run for run in results.read_all(chapter.results_dir) if run.protocol == protocol]
    rows = []
    for arm in generated.ARMS:
        variant = "sdafe" if arm == "both" else f"sdafe-{arm}"
        papers.get(variant)
        head = f'{text(ARM_WORDS[arm])}<br><span class="fer-small"><code>{text(variant)}</code></span>'
        own = [run for run in stored if run.variant == variant]
        rows += [[head, *_measured(run)] for run in own] or [[head, "not run", "", "", "", ""]]
    header = ["Arm", "Seed", *HALVES, "Balanced accuracy", "Recall of disgust"]
    size = whole(declared_parameters("sdafe"))
    caption = (
        f"fernext-proxy ({size} parameters) on six training sets, as many steps on each; {protocol} protocol, plain "
        "view, Wilson 95 % intervals; the last two columns on PrivateTest."
    )
    count = sum(run.variant.removeprefix("sdafe-") in generated.ARMS or run.variant == "sdafe" for run in stored)
    mind = (
        note("Mind:", f"the run of this page is not in the table: {text(SYNTHETIC)}.")
        if chapter.result.synthetic
        else ""
    )
    return Html(mind + table(header, rows, caption, range(1, len(header))), f"{count} stored runs of the six arms")


def _measured(run: Result) -> list[str]:
    scores = [run.score(half, views=False) for half in HALVES]
    cells = [
        f'{percent(score["accuracy"])}<br><span class="fer-small">{interval(score["interval"])}</span>'
        for score in scores
    ]
    disgust = scores[1]["per_class"]["disgust"]
    rare = f'{percent(disgust["recall"], 1)}<br><span class="fer-small">{interval(disgust["interval"])}</span>'
    return [f"{run.seed}", *cells, percent(scores[1]["balanced_accuracy"]), rare]


# ---- the claim -------------------------------------------------------------------------------------------------------


def how_far() -> Html:
    """The claim in faces of one half, beside the best claims of class A, whose images are known to be PrivateTest."""
    claim = claim_of("sdafe")
    half = int(np.sum(OFFICIAL_COUNTS[USAGES.index("PrivateTest")]))
    known = [other for other in leaderboard_claims().values() if other.audit.comparability == "A"]
    if not known:
        raise FerReproError("no claim is of comparability class A: the claims file has changed")
    shown = sorted((claim, *known), key=lambda other: -other.accuracy)
    rows = [
        [
            text(other.model),
            f"{other.accuracy:.2f}\u00a0%",
            whole(round(other.accuracy * half / 100)),
            f"{other.accuracy - claim.accuracy:+.2f}",
            text(other.audit.comparability),
        ]
        for other in shown
    ]
    header = ["Claim", "Accuracy", f"Right faces of {half:,}", "Points from this claim", "Class"]
    caption = "This claim beside all whose scored images and selection are known to be clean (class A)"
    best = max(other.accuracy for other in known)
    told = f"{claim.accuracy - best:.2f} points above the best clean claim"
    return Html(table(header, rows, caption, range(1, 4)), told)


def _synthetic(result: Result) -> str:
    return f" ({SYNTHETIC})" if result.synthetic else ""
