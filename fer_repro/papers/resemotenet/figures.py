"""What the ResEmoteNet chapter shows beyond the common sections: the published confusion matrix, the random flip of
the released evaluation, the demonstration of leakage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fer_repro.claims import claim_of
from fer_repro.data import LABELS, USAGES
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.errors import FerReproError
from fer_repro.logs import quiet
from fer_repro.markup import SYNTHETIC, Html, interval, note, percent, synthetic_note, table, text, whole, with_interval
from fer_repro.papers.resemotenet import leakage
from fer_repro.papers.resemotenet.leakage import Leakage
from fer_repro.plots.figure import Figure
from fer_repro.plots.forest import Row, forest
from fer_repro.results import Result

PRIVATE_TEST = tuple(int(n) for n in OFFICIAL_COUNTS[USAGES.index("PrivateTest")])
# arXiv 2409.10545v2, in the order of LABELS: the diagonal of the FER2013 confusion matrix, printed with two decimals,
# and the number of test images that its table of data sets gives for each class.
PUBLISHED_RECALL = (0.71, 0.75, 0.70, 0.89, 0.71, 0.81, 0.82)
PUBLISHED_COUNTS = (491, 416, 626, 594, 879, 55, 528)
ROUNDING = 0.005
TITLE = leakage.LABEL[0].upper() + leakage.LABEL[1:]


def implied_accuracy(recall: Sequence[float], counts: Sequence[int]) -> tuple[float, float, float]:
    """The accuracy that class recalls give with ``counts`` images per class: (value, least, most); the bounds follow
    from the rounding of the printed recalls."""
    share = np.asarray(counts) / np.sum(counts)
    value = float(share @ np.asarray(recall))
    return value, value - ROUNDING, value + ROUNDING


def published_matrix() -> Html:
    """The published recalls beside PrivateTest's class counts and the paper's, and the accuracies that follow."""
    claimed = claim_of("resemotenet").accuracy / 100
    classes = zip(LABELS, PUBLISHED_RECALL, PRIVATE_TEST, PUBLISHED_COUNTS, strict=True)
    rows = [[text(name), f"{recall:.2f}", *map(whole, counts)] for name, recall, *counts in classes]
    implied = [implied_accuracy(PUBLISHED_RECALL, counts) for counts in (PRIVATE_TEST, PUBLISHED_COUNTS)]
    rows += [
        ["all", "", *(whole(sum(counts)) for counts in (PRIVATE_TEST, PUBLISHED_COUNTS))],
        ["accuracy that follows", percent(claimed) + " claimed", *(percent(value) for value, _, _ in implied)],
        ["bounds from rounding", "", *(interval(bounds) for _, *bounds in implied)],
    ]
    header = ["Class", "Recall, published", "Images in PrivateTest", "Images by the paper’s table"]
    plain = f"implied by the published recalls: {percent(implied[0][0])}, claimed: {percent(claimed)}"
    return Html(table(header, rows, "Recalls: arXiv 2409.10545v2, confusion matrix of FER2013.", (1, 2, 3)), plain)


def mirror(result: Result) -> Html:
    """The accuracy on the images, on the flipped images and on both, and the average of a random flip."""
    scores = result.record["facts"].get("mirror")
    if not scores:
        raise FerReproError(f"the result of {result.variant} records no scores of flipped images: run it again")
    rows = []
    for usage, score in scores.items():
        each = [score[key] / score["n"] for key in ("correct_plain", "correct_mirrored")]
        both = [score["accuracy_random_mirror"], score["accuracy_flip_average"]]
        rows.append([text(usage), whole(score["n"]), *map(percent, each + both)])
    header = ["Test set", "Images", "As it is", "Flipped", "Random flip, on average", "Mean logits of both"]
    body = table(header, rows, "The effect of the released evaluation’s random flip on the accuracy", range(1, 6))
    return Html(synthetic_note(result.synthetic) + body, f"{result.variant}: scores of images and flipped images")


def leakage_demonstration(profile: str, seed: int, device: str = "auto", results_dir: str | Path | None = None) -> Html:
    """The stored demonstration on FER2013; in a smoke profile, and where none is stored, one on synthetic faces."""
    full = None if profile == "smoke" else leakage.stored(seed, results_dir)
    with quiet():
        measured = full or leakage.demonstrate("smoke", seed, device)
    command = "<code>python -m fer_repro.papers.resemotenet.leakage</code> measures it there."
    missing = "" if full else note("Not run on FER2013:", command)
    picture = _leakage_figure(measured)
    return Html(missing + picture.figure() + _leakage_table(measured), repr(picture))


def _leakage_figure(measured: Leakage) -> Figure:
    """Every score of both arms with its interval."""
    rows = [
        Row(
            name,
            score["accuracy"],
            tuple(score["interval"]),
            "measured" if arm == leakage.ARMS[0] else "clean",
            (percent(score["accuracy"]), whole(score["n"])),
            arm,
        )
        for arm, facts in measured.arms.items()
        for name, score in facts["scores"].items()
    ]
    listed = "; ".join(f"{row.group}, {row.label}: {percent(row.value)}" for row in rows)
    return forest(
        rows,
        TITLE,
        alt=f"{leakage.LABEL}: {listed}.",
        synthetic=measured.synthetic,
        caption="One network and recipe, two orders of work. Bars: Wilson 95 % intervals; copies of one original are "
        "not independent, so the intervals of oversampled parts are too narrow.",
        columns=("accuracy", "images"),
    )


def _leakage_table(measured: Leakage) -> str:
    """Both arms in numbers, with the shares of test images that training has seen in another or the same form."""
    rows = []
    for arm, facts in measured.arms.items():
        score, counts = measured.reported(arm), [whole(facts[key]) for key in ("n_train", "n_test")]
        shares = [percent(facts[key], 1) for key in ("siblings", "equal")]
        accuracies = [percent(facts["train_accuracy"]), with_interval(score["accuracy"], score["interval"])]
        rows.append([text(arm), *counts, *shares, *accuracies])
    run = f"seed {measured.record['seed']}, {measured.record['data']['name']}"
    caption = (
        f"{TITLE} ({run}{f'; {SYNTHETIC}' if measured.synthetic else ''}). Sibling, equal: test "
        "images with a copy of the same original, or with the very same pixels, in the training part."
    )
    header = ["Order of work", "Training", "Test", "Sibling", "Equal", "Training accuracy", "Test accuracy"]
    return table(header, rows, caption, numeric=range(1, len(header)))
