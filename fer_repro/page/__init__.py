"""What the cells of a chapter call: cards, figures and tables of one paper, all from claims and results.

`open_chapter` checks the notebook's parameters and returns a `Chapter`; its methods are the chapter's sections. Numbers
come from the claims or from a `Result`; a missing one is shown as "unknown" or "not run".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_repro import data as data_sets
from fer_repro import papers, parameters, plots, results
from fer_repro.claims import Claim
from fer_repro.data import LABELS, USAGES
from fer_repro.errors import FerReproError
from fer_repro.logs import LineHandler, quiet, shown
from fer_repro.markup import (
    SYNTHETIC,
    Html,
    absent,
    details,
    facts,
    note,
    percent,
    seconds,
    synthetic_note,
    table,
    text,
    whole,
)
from fer_repro.page.cards import claim_card, claims_of, computed_with, hardware, verdict
from fer_repro.page.comparison import ablation_rows, claim_rows, ladder_rows, similar_rows
from fer_repro.page.networks import architecture, network_summary
from fer_repro.page.tables import (
    deviations_table,
    leaderboard_table,
    others_table,
    per_class_table,
    recipe_table,
    scores_table,
    stages_table,
    verdict_summary,
)
from fer_repro.papers import SCRATCH, model_name
from fer_repro.papers.base import Variant
from fer_repro.parameters import ChapterParameters
from fer_repro.plots.figure import Figure
from fer_repro.recipe import Views
from fer_repro.reproduce import reproduce
from fer_repro.results import Result

__all__ = ["Chapter", "architecture", "claim_card", "leaderboard_table", "open_chapter", "verdict", "verdict_summary"]

# Facts that the chapters show in a section of their own.
SHOWN_APART = ("ladder", "windows", "trials", "attention", "blocks", "precision", "threads")
COLUMNS = ("accuracy", "gain")
RELEASED = " Squares: weights that others published, scored here."
EPOCH_LINE = re.compile(r"\bepoch \d+/\d+")


def open_chapter(slug: str, namespace: Mapping[str, Any]) -> Chapter:
    """Check the notebook's parameters (``globals()``) before anything runs; a wrong one raises `FerReproError`."""
    chosen = parameters.from_namespace(namespace, slug)
    return Chapter(slug, chosen, claims_of(slug))


class EpochLineHandler(LineHandler):
    """Prints a run's lines, but of the epochs only the first five, every tenth and the last."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs, self.held = 0, ""

    def write(self, line: str) -> None:
        if EPOCH_LINE.search(line):
            self.epochs += 1
            self.held = line if self.epochs > 5 and self.epochs % 10 else ""
            if self.held:
                return
        print(line)

    def close(self) -> None:
        """Print the last epoch if it was held back."""
        if self.held:
            print(self.held)
            self.held = ""
        super().close()


@dataclass
class Chapter:
    """One paper's chapter under its parameters; `run` first, then the sections that show its result."""

    slug: str
    parameters: ChapterParameters
    claims: list[Claim]
    _result: Result | None = field(default=None, repr=False)
    _companions: dict[str, Result] = field(default_factory=dict, repr=False)

    @property
    def variant(self) -> Variant:
        return papers.get(self.parameters.variant)

    @property
    def claim(self) -> Claim:
        """The claim of the chapter's variant; an ablation has the claim of the model it belongs to."""
        wanted = self.variant.ablation_of or self.variant.id
        return next(claim for claim in self.claims if claim.variant == wanted)

    @property
    def result(self) -> Result:
        if self._result is None:
            raise FerReproError(f"the chapter '{self.slug}' has no result yet: call chapter.run() first")
        return self._result

    @property
    def results_dir(self) -> Path | None:
        return Path(self.parameters.results_dir) if self.parameters.results_dir else None

    def companion(self, variant: str) -> Result:
        """A sibling variant's result under this chapter's parameters: stored, or else a smoke run that says so.

        The chapter's own result where it is that variant, or its from-scratch ablation, that the chapter runs.
        """
        p = self.parameters
        if p.variant in (variant, variant + SCRATCH):
            return self.result
        if variant not in self._companions:
            small = p.profile == "smoke" or p.data == "synthetic"
            known = [name for name in (variant, variant + SCRATCH) if name in papers.variants()]
            kept = [] if small else [results.find(name, p.protocol, p.seed, self.results_dir) for name in known]
            profile, data = ("smoke", p.data) if small else ("stored", "")
            other = replace(p, variant=variant, profile=profile, data=data, epochs=None)
            with quiet():
                found = next((result for result in kept if result is not None), None)
                self._companions[variant] = found or reproduce(**vars(other))
        return self._companions[variant]

    def _stored(self) -> Result | None:
        """The stored result that `run` shows instead of training, if there is one."""
        p = self.parameters
        if p.profile == "smoke" or p.epochs is not None or p.data == "synthetic":
            return None
        return results.find(p.variant, p.protocol, p.seed, self.results_dir)

    def data(self) -> Html:
        """Which images this run uses: source, digest, counts by usage and class, and a contact sheet.

        A stored result shows what its record holds: no images, and the counts of the two test sets.
        """
        stored = self._stored()
        if stored is not None:
            record = stored.record["data"]
            counts = {u: np.bincount(stored.predictions[f"{u}_labels"], minlength=len(LABELS)) for u in results.HALVES}
            name = f"{record['name']}, as recorded with the stored result"
            about = _about_data(name, record["source"], record["digest"])
            return Html(about + _counts_table(pd.DataFrame(counts, LABELS).T), f"{record['name']}, stored result")
        wanted = self.parameters.data or self.parameters.profile
        faces = data_sets.faces_of(synthetic=wanted not in ("fer2013", "full"))
        synthetic = faces.name == "synthetic"
        train = faces.subset(np.flatnonzero(faces.usage == USAGES[0]))
        sheet = plots.samples(train.images, train.labels, LABELS, each=8, synthetic=synthetic)
        about = _about_data(faces.name, faces.source, faces.digest, [("Images", whole(len(faces)))])
        body = synthetic_note(synthetic) + about + _counts_table(faces.counts()) + sheet.figure()
        return Html(body, f"{faces.name}: {len(faces)} images{f' ({SYNTHETIC})' if synthetic else ''}")

    def network(self) -> Html:
        """Parameters counted in the network against the declared number, and what one image costs."""
        smoke = self.parameters.profile != "full" and self._stored() is None
        return network_summary(self.variant, self.parameters.protocol, smoke=smoke)

    def run(self) -> Html:
        """Train, or load the stored result; shows in one box what was done and what it cost."""
        with shown(EpochLineHandler()):
            self._result = result = reproduce(**vars(self.parameters))
        record = result.record
        costs, epoch = record["cost"], record["selected_epoch"]
        remark = note("Not run:", text(result.note)) if result.note else ""
        run = f"{result.variant}, {result.protocol} protocol, {result.profile} profile, seed {result.seed}"
        speed = costs.get("images_per_second")
        pairs = [
            ("Run", text(run)),
            ("Status", text(result.status)),
            ("Selected", text(record["selection"] + ("" if absent(epoch) else f": epoch {epoch}"))),
            ("Accuracy", f"<strong>{percent(result.headline['accuracy'])}</strong> on {text(result.scored)}"),
            ("Time", f"{seconds(costs.get('seconds'))} on {text(hardware(result))}"),
            *([] if absent(speed) else [("Training speed", f"{whole(speed)} images/s")]),
            *([("Computed with", text(computed))] if (computed := computed_with(result)) else []),
            ("Data", text(f"{record['data']['name']}, sha256 {record['data']['digest'][:16]}…")),
            ("Code", text(record["code_version"])),
            ("Run date", text(record["ended"][:10])),
        ]
        recorded = {name: value for name, value in record["facts"].items() if name not in SHOWN_APART}
        more = details("What the method recorded", recipe_table(recorded)) if recorded else ""
        body = remark + synthetic_note(result.synthetic) + facts(pairs) + more
        return Html(body, f"{result.variant}: {result.status}")

    def curves(self) -> Figure | Html:
        """Loss and accuracy by epoch; for a method without epochs, its stages with their time and accuracy."""
        result = self.result
        if "epoch" not in result.history:
            body = "<p>This method has no epochs. Its stages, in order:</p>" + stages_table(result.history)
            return Html(synthetic_note(result.synthetic) + body, f"{len(result.history)} stages")
        usages = "+".join(result.record["usages"]["select"])
        selected = result.record["selected_epoch"]
        return plots.learning_curves(result.history, selected=selected, select_name=usages, synthetic=result.synthetic)

    def scores(self) -> Html:
        """PublicTest and PrivateTest, plain and with the paper's test-time augmentation."""
        result = self.result
        plain = f"{result.variant}: {percent(result.headline['accuracy'])} on {result.scored}"
        plain += f" ({SYNTHETIC})" if result.synthetic else ""
        return Html(synthetic_note(result.synthetic) + scores_table(result), plain)

    def confusion(self) -> Figure:
        """Label against prediction on the scored images."""
        return plots.confusion_matrix(self.result.headline, self._scored(), synthetic=self.result.synthetic)

    def per_class(self) -> Html:
        """Recall of each class with its interval, as a picture and as numbers."""
        result = self.result
        title = f"Recall by class: {self._scored()}"
        figure = plots.per_class(result.headline, title=title, synthetic=result.synthetic)
        numbers = synthetic_note(result.synthetic) + per_class_table(result.headline)
        return Html(figure.figure() + details("The numbers", numbers), repr(figure))

    def _scored(self) -> str:
        """For example "VGGNet, PublicTest, ten-crop 40, mean of logits"."""
        record = self.result.record
        views = record["recipe"]["views" if self.result.has_views else "plain"]
        return f"{model_name(self.result.variant)}, {self.result.scored}, {Views(**views)}"

    def beside_the_claim(self) -> Html:
        """The claim, every stored run of this paper and what its released weights score, and the models next to it on
        the leaderboard."""
        stored, own = results.read_all(self.results_dir), self.result
        released = results.read_all(self.results_dir, released=True)
        known = any((r.variant, r.protocol, r.seed) == (own.variant, own.protocol, own.seed) for r in stored)
        shown = stored if own.synthetic or known else [*stored, own]
        rows = claim_rows(self.claim, shown, released) + ablation_rows(self.claim, shown, released)
        rows += similar_rows(self.claim, stored)
        figure = plots.forest(
            rows,
            "Comparison with the claim and similar models",
            alt=f"{self.claim.model}: " + "; ".join(f"{row.label} {', '.join(row.words)}" for row in rows) + ".",
            caption="Hollow: claimed by a paper; dashed: the interval that follows from its number of images. Filled: "
            "measured here, with 95 % intervals." + (RELEASED if any(row.kind == "released" for row in rows) else ""),
            line=self.claim.accuracy / 100,
            line_label=f"the claim, {self.claim.accuracy:.2f}\u00a0%",
            columns=("accuracy", "scored on"),
        )
        remark = ""
        if own.synthetic:
            accuracy = percent(own.headline["accuracy"])
            remark = note("Not in the picture:", f"the run of this page, {accuracy}: {text(SYNTHETIC)}.")
        return Html(remark + figure.figure(), repr(figure))

    def deviations(self) -> Html:
        """Where this run differs from the paper, and the whole recipe."""
        result = self.result
        profile = "smoke" if result.profile == "smoke" else "full"
        recipe = papers.get(result.variant).recipe(result.protocol, profile)
        title = f"The recipe of this run, sha256 {result.record['recipe_sha256'][:16]}…"
        body = deviations_table(recipe) + details(title, recipe_table(result.record["recipe"]))
        return Html(synthetic_note(result.synthetic) + body, f"{len(recipe.deviations)} deviations")

    def others(self) -> Html:
        """What others measured for the models of this paper."""
        count = sum(len(claim.others) for claim in self.claims)
        return Html(others_table(self.claims), f"{count} measurements by others")

    def ladder(self) -> Html:
        """The ablation ladder of a method that records one: each step's accuracy on PublicTest and PrivateTest."""
        result = self.result
        steps = result.record["facts"].get("ladder")
        if not steps:
            raise FerReproError(f"the result of {result.variant} holds no ladder: its method records none")
        figures = [
            plots.ladder(ladder_rows(steps, u), f"Step by step, {u}", columns=COLUMNS, synthetic=result.synthetic)
            for u in results.HALVES
            if u in steps[0]
        ]
        return Html("".join(figure.figure() for figure in figures), "\n".join(repr(figure) for figure in figures))


def _about_data(name: str, source: str, digest: str, more: list[tuple[str, str]] | None = None) -> str:
    short = f"sha256 <code>{text(digest[:16])}…</code> over pixels, labels and usages"
    return facts([("Data", text(name)), ("Source", text(source)), *(more or []), ("Digest", short)])


def _counts_table(counts: pd.DataFrame) -> str:
    rows = [[text(usage), *map(whole, row), whole(row.sum())] for usage, row in counts.iterrows()]
    header = ["Usage", *counts.columns, "all"]
    return table(header, rows, "Images by usage and class", numeric=range(1, len(header)))
