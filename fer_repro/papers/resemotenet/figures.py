"""What the ResEmoteNet chapter shows beyond the common sections: the published confusion matrix, the random flip of
the released evaluation, the demonstration of leakage."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fer_repro.claims import arithmetic, claim_of
from fer_repro.claims.published import matrix_of
from fer_repro.data import LABELS, USAGES
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.logs import quiet
from fer_repro.markup import (
    SMOKE_TEST,
    SYNTHETIC,
    Html,
    details,
    interval,
    note,
    percent,
    remark_note,
    table,
    text,
    whole,
    with_interval,
)
from fer_repro.papers.resemotenet import leakage
from fer_repro.papers.resemotenet.leakage import Leakage
from fer_repro.plots.figure import Figure
from fer_repro.plots.forest import Row, forest
from fer_repro.results import NotRecorded, Result

PRIVATE_TEST = tuple(int(n) for n in OFFICIAL_COUNTS[USAGES.index("PrivateTest")])
TITLE = leakage.LABEL[0].upper() + leakage.LABEL[1:]


def published_matrix() -> Html:
    """The published recalls beside PrivateTest's class counts and the paper's, and the accuracies that follow."""
    matrix, claimed = matrix_of("resemotenet"), claim_of("resemotenet").accuracy / 100
    assert matrix.class_counts is not None, "the paper's table of classes stands beside its matrix"
    recalls, sets = np.diag(arithmetic.values(matrix)), (PRIVATE_TEST, matrix.class_counts)
    rows = [
        [text(name), f"{recall:.2f}", *map(whole, counts)]
        for name, recall, *counts in zip(LABELS, recalls, *sets, strict=True)
    ]
    implied = [arithmetic.implied(matrix, counts) for counts in sets]
    rows += [
        ["all", "", *(whole(sum(counts)) for counts in sets)],
        ["accuracy that follows", percent(claimed) + " claimed", *(percent(value) for _, value, _ in implied)],
        ["bounds from rounding", "", *(interval((low, high)) for low, _, high in implied)],
    ]
    header = ["Class", "Recall, published", "Images in PrivateTest", "Images by the paper’s table"]
    plain = f"implied by the published recalls: {percent(implied[0][1])}, claimed: {percent(claimed)}"
    return Html(table(header, rows, f"Recalls: {matrix.source}.", (1, 2, 3)), plain)


def mirror(result: Result) -> Html:
    """The accuracy on the images, on the flipped images and on both, and the average of a random flip."""
    scores = result.record["facts"].get("mirror")
    if not scores:
        raise NotRecorded(f"the result of {result.variant} records no scores of flipped images: run it again")
    rows = []
    for usage, score in scores.items():
        each = [score[key] / score["n"] for key in ("correct_plain", "correct_mirrored")]
        both = [score["accuracy_random_mirror"], score["accuracy_flip_average"]]
        rows.append([text(usage), whole(score["n"]), *map(percent, each + both)])
    header = ["Test set", "Images", "As it is", "Flipped", "Random flip, on average", "Mean logits of both"]
    body = table(header, rows, "The effect of the released evaluation’s random flip on the accuracy", range(1, 6))
    return Html(remark_note(result.remark) + body, f"{result.variant}: scores of images and flipped images")


def leakage_demonstration(profile: str, seed: int, device: str = "auto", results_dir: str | Path | None = None) -> Html:
    """The stored demonstration on FER2013; in a smoke profile, and where none is stored, one on synthetic faces, which
    a profile that shows what is stored folds away."""
    full = None if profile == "smoke" else leakage.stored(seed, results_dir)
    with quiet():
        measured = full or leakage.demonstrate("smoke", seed, device)
    command = "<code>python -m fer_repro.papers.resemotenet.leakage</code> measures it there."
    missing = "" if full else note("Not run on FER2013:", command)
    picture = _leakage_figure(measured)
    body = picture.figure() + _leakage_table(measured)
    if full is None and profile == "stored":
        body = details(SMOKE_TEST, body)
    return Html(missing + body, repr(picture))


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
        remark=SYNTHETIC if measured.synthetic else "",
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
