"""What the Mini-ResEmoteNet chapter shows beyond the common sections: teacher, students and controls side by side, how
often a student predicts the same as its teacher, and both test sets as one."""

from __future__ import annotations

from pathlib import Path

from fer_repro import papers, results
from fer_repro.claims import declared_parameters, leaderboard_claims
from fer_repro.evaluation.statistics import paired_comparison
from fer_repro.markup import Html, interval, percent, remark_note, small, table, text, whole, with_interval
from fer_repro.papers import model_name
from fer_repro.papers.mini_resemotenet import TEACHER
from fer_repro.results import HALVES, NotRecorded, Result, merged_score, paired_hits

BOTH = "both test sets, includes the selection set"


def students(protocol: str, results_dir: Path | None = None) -> Html:
    """Teacher, students and controls under ``protocol``: every stored run, also a stopped one, "not run" where there is
    none."""
    everything = (results.read_all(results_dir, kind) for kind in (results.FULL, results.UNFINISHED))
    stored, stopped = ([run for run in kind if run.protocol == protocol] for kind in everything)
    known, claims = papers.variants(), leaderboard_claims()
    rows = []
    for name in [TEACHER, *(v for v in known if known[v].slug == "mini-resemotenet")]:
        own = [run for run in (*stored, *stopped) if run.variant == name]
        training = f", distilled from {model_name(TEACHER)}" if known[name].requires else ", no teacher"
        sentence = small(f"{whole(declared_parameters(name))} parameters{training}")
        claimed = f"{claims[name].accuracy:.2f}\u00a0%" if name in claims else ""
        head = [f"{text(model_name(name))}<br>{sentence}", claimed]
        rows += [[*head, *_measured(run)] for run in own] or [[*head, "not run", "", "", ""]]
    header = ["Network", "Claimed", "Seed", "PublicTest", "PrivateTest", "Both test sets"]
    caption = (
        f"Stored runs under the {protocol} protocol, no test-time augmentation, Wilson 95 % intervals. Both test sets: "
        "includes the selection set."
    )
    body = table(header, rows, caption, numeric=range(1, len(header))) + _gain_of_distillation(stored)
    return Html(body, f"{len(stored)} stored runs under the {protocol} protocol")


def _measured(run: Result) -> list[str]:
    scores = [run.score(usage, views=False) for usage in HALVES] + [merged_score(run)]
    seed = f"{run.seed}" + (f"<br>{small(run.progress)}" if run.unfinished else "")
    return [seed, *(with_interval(score["accuracy"], score["interval"]) for score in scores)]


def _gain_of_distillation(stored: list[Result]) -> str:
    """Distilled minus alone on the same PrivateTest images, seed by seed; a sentence where no pair is stored."""
    rows = []
    by_name = {(run.variant, run.seed): run for run in stored}
    for (name, seed), distilled in by_name.items():
        alone = by_name.get((f"{name}-alone", seed))
        if alone is not None:
            difference, low, high, p = paired_comparison(*paired_hits(distilled, alone))
            points = f"{100 * difference:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
            rows.append([text(model_name(name)), f"{seed}", points, f"{p:.3f}"])
    if not rows:
        return (
            "<p>The effect of distillation: not run. It takes a stored student and its control (<code>-alone</code>) "
            "with the same protocol and seed.</p>"
        )
    header = ["Student", "Seed", "Distilled minus alone, points", "p (McNemar)"]
    return table(header, rows, "The effect of distillation, on the same PrivateTest images", range(1, 4))


def agreement(result: Result) -> Html:
    """How often the student of ``result`` predicts the same class as its teacher, on both test sets."""
    counts = result.record["facts"].get("agreement")
    if not counts:
        return Html(f"<p>{text(result.variant)} has no teacher to agree with.</p>", f"{result.variant}: no teacher")
    keys = ("teacher", "student", "both", "same", "same_mistake")
    rows = [[text(usage), whole(c["n"]), *(percent(c[key] / c["n"]) for key in keys)] for usage, c in counts.items()]
    header = ["Test set", "Images", "Teacher right", "Student right", "Both right", "Same answer", "Same mistake"]
    body = table(header, rows, f"{result.variant} beside its teacher", range(1, len(header)))
    same = ", ".join(f"{usage} {percent(c['same'] / c['n'])}" for usage, c in counts.items())
    return Html(remark_note(result.remark) + body, f"student and teacher give the same answer: {same}")


def merged(result: Result) -> Html:
    """The accuracy on PublicTest and PrivateTest as one set, the number of images that the claims fit."""
    if result.halves != HALVES:
        raise NotRecorded(f"the {result.remark} were scored on {' and '.join(result.halves)} only")
    score = merged_score(result)
    rows = [[BOTH, whole(score["n"]), percent(score["accuracy"]), interval(score["interval"])]]
    body = table(["Images", "Number", "Accuracy", "95 % interval"], rows, result.variant, (1, 2, 3))
    return Html(remark_note(result.remark) + body, f"{result.variant}, {BOTH}: {percent(score['accuracy'])}")
