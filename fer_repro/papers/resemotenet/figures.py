"""What the chapters of ResEmoteNet and of its students show beyond the common sections.

The published confusion matrix against the class counts of PrivateTest; what the random mirror of the released
evaluation is worth; teacher, students and their controls side by side; how often a student answers like its teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_repro import papers, results
from fer_repro.claims import claim_of, declared_parameters, leaderboard_claims
from fer_repro.data import LABELS, USAGES
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.errors import FerReproError
from fer_repro.evaluation import metrics
from fer_repro.evaluation.statistics import mcnemar, paired_difference
from fer_repro.markup import Html, interval, percent, synthetic_note, table, text, whole
from fer_repro.page import Chapter
from fer_repro.papers import model_name
from fer_repro.papers.mini_resemotenet import TEACHER
from fer_repro.results import HALVES, Result, paired_hits

PRIVATE_TEST = tuple(int(n) for n in OFFICIAL_COUNTS[USAGES.index("PrivateTest")])
# arXiv 2409.10545v2, in the order of LABELS: the diagonal of the FER2013 confusion matrix, printed with two decimals,
# and the number of test images that its table of data sets gives for each class.
PUBLISHED_RECALL = (0.71, 0.75, 0.70, 0.89, 0.71, 0.81, 0.82)
PUBLISHED_COUNTS = (491, 416, 626, 594, 879, 55, 528)
ROUNDING = 0.005

BOTH = "both halves, includes the selection set"


def implied_accuracy(recall: Sequence[float], counts: Sequence[int]) -> tuple[float, float, float]:
    """The accuracy that class recalls give with ``counts`` images per class: (value, least, most), the bounds being
    what the rounding of the printed recalls leaves open."""
    share = np.asarray(counts) / np.sum(counts)
    value = float(share @ np.asarray(recall))
    return value, value - ROUNDING, value + ROUNDING


def published_matrix() -> Html:
    """The published recalls beside PrivateTest's class counts and the paper's, and the accuracies that follow."""
    claimed = claim_of(TEACHER).accuracy / 100
    rows = [
        [text(name), f"{recall:.2f}", whole(true), whole(told)]
        for name, recall, true, told in zip(LABELS, PUBLISHED_RECALL, PRIVATE_TEST, PUBLISHED_COUNTS, strict=True)
    ]
    implied = [implied_accuracy(PUBLISHED_RECALL, counts) for counts in (PRIVATE_TEST, PUBLISHED_COUNTS)]
    rows += [
        ["all", "", *(whole(sum(counts)) for counts in (PRIVATE_TEST, PUBLISHED_COUNTS))],
        ["accuracy that follows", percent(claimed) + " claimed", *(percent(value) for value, _, _ in implied)],
        ["bounds from rounding", "", *(interval(bounds) for _, *bounds in implied)],
    ]
    header = ["Class", "Recall, published", "Images in PrivateTest", "Images by the paper’s table"]
    told = f"implied by the published recalls: {percent(implied[0][0])}, claimed: {percent(claimed)}"
    return Html(table(header, rows, "Recalls: arXiv 2409.10545v2, confusion matrix of FER2013.", (1, 2, 3)), told)


def mirror(chapter: Chapter) -> Html:
    """This run's answers to each image, to its mirror and to both, and what a fair coin per image gives on average."""
    result = chapter.result
    found = result.record["facts"].get("mirror")
    if not found:
        raise FerReproError(f"the result of {result.variant} records no mirrored scores: run it again")
    rows = [
        [
            text(half),
            whole(told["n"]),
            percent(told["correct_plain"] / told["n"]),
            percent(told["correct_mirrored"] / told["n"]),
            percent(told["accuracy_random_mirror"]),
            percent(told["accuracy_flip_average"]),
        ]
        for half, told in found.items()
    ]
    header = ["Half", "Images", "As it is", "Mirrored", "Random mirror, on average", "Mean logits of both"]
    body = table(header, rows, "What the mirror of the released evaluation does to the accuracy", range(1, 6))
    return Html(synthetic_note(result.synthetic) + body, f"{result.variant}: plain and mirrored scores")


def both_halves(result: Result) -> dict[str, Any]:
    """The metrics of PublicTest and PrivateTest as one set of images, from the plain predictions."""
    rows, labels = (
        np.concatenate([result.predictions[f"{half}_{part}"] for half in HALVES]) for part in ("plain", "labels")
    )
    return metrics.evaluate(rows.astype(np.float32), labels.astype(np.int64))


def students(chapter: Chapter) -> Html:
    """Teacher, students and controls under the chapter's protocol: every stored run, "not run" where there is none."""
    protocol = chapter.parameters.protocol
    stored = [run for run in results.read_all(chapter.results_dir) if run.protocol == protocol]
    known, claims = papers.variants(), leaderboard_claims()
    rows = []
    for name in [TEACHER, *(v for v in known if known[v].slug == chapter.slug)]:
        own = [run for run in stored if run.variant == name]
        taught = f", taught by {model_name(TEACHER)}" if known[name].requires else ", no teacher"
        told = text(f"{whole(declared_parameters(name))} parameters{taught}")
        claimed = f"{claims[name].accuracy:.2f}\u00a0%" if name in claims else ""
        head = [f'{text(model_name(name))}<br><span class="fer-small">{told}</span>', claimed]
        rows += [[*head, *_measured(run)] for run in own] or [[*head, "not run", "", "", ""]]
    header = ["Network", "Claimed", "Seed", "PublicTest", "PrivateTest", "Both halves"]
    caption = (
        f"Stored runs under the {protocol} protocol, plain view, Wilson 95 % intervals. Both halves: includes the "
        "selection set."
    )
    body = table(header, rows, caption, numeric=range(1, len(header))) + _worth(stored)
    return Html(body, f"{len(stored)} stored runs under the {protocol} protocol")


def _measured(run: Result) -> list[str]:
    scores = [run.score(half, views=False) for half in HALVES] + [both_halves(run)]
    cells = [
        f'{percent(score["accuracy"])}<br><span class="fer-small">{interval(score["interval"])}</span>'
        for score in scores
    ]
    return [f"{run.seed}", *cells]


def _worth(stored: list[Result]) -> str:
    """Taught minus alone on the same PrivateTest images, seed by seed; a sentence where no pair is stored."""
    rows = []
    by_name = {(run.variant, run.seed): run for run in stored}
    for (name, seed), taught in by_name.items():
        alone = by_name.get((f"{name}-alone", seed))
        if alone is not None:
            difference, low, high, p = paired(taught, alone)
            words = f"{100 * difference:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
            rows.append([text(model_name(name)), f"{seed}", words, f"{p:.3f}"])
    if not rows:
        return (
            "<p>What distillation is worth: not run. It takes a stored student and its control (<code>-alone</code>) "
            "with the same protocol and seed.</p>"
        )
    header = ["Student", "Seed", "Taught minus alone, points", "p (McNemar)"]
    return table(header, rows, "What distillation is worth, on the same PrivateTest images", range(1, 4))


def paired(taught: Result, alone: Result) -> tuple[float, float, float, float]:
    """Accuracy difference on PrivateTest with its bootstrap interval, and McNemar's p. The images are matched by id."""
    hits = paired_hits(taught, alone)
    return *paired_difference(*hits), mcnemar(*hits)


def agreement(chapter: Chapter) -> Html:
    """How often this page's student answers like its teacher, on both held-out halves."""
    result = chapter.result
    found = result.record["facts"].get("agreement")
    if not found:
        return Html(f"<p>{text(result.variant)} has no teacher to agree with.</p>", f"{result.variant}: no teacher")
    keys = ("teacher", "student", "both", "same", "same_mistake")
    rows = [[text(half), whole(t["n"]), *(percent(t[key] / t["n"]) for key in keys)] for half, t in found.items()]
    header = ["Half", "Images", "Teacher right", "Student right", "Both right", "Same answer", "Same mistake"]
    body = table(header, rows, f"{result.variant} beside its teacher", range(1, len(header)))
    told = ", ".join(f"{half} {percent(t['same'] / t['n'])}" for half, t in found.items())
    return Html(synthetic_note(result.synthetic) + body, f"student and teacher give the same answer: {told}")


def merged(chapter: Chapter) -> Html:
    """This run on PublicTest and PrivateTest as one set, the number of images that the claims fit."""
    score, result = both_halves(chapter.result), chapter.result
    rows = [[BOTH, whole(score["n"]), percent(score["accuracy"]), interval(score["interval"])]]
    body = table(["Images", "Number", "Accuracy", "95 % interval"], rows, result.variant, (1, 2, 3))
    return Html(synthetic_note(result.synthetic) + body, f"{result.variant}, {BOTH}: {percent(score['accuracy'])}")
