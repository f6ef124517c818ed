"""What the cells of a chapter call: cards, figures and tables of one paper, all from claims and results.

`open_chapter` checks the notebook's parameters and returns a `Chapter`; its methods are the chapter's sections. Numbers
come from the claims or from a `Result`; a missing one is shown as "unknown" or "not run".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_repro import data as data_sets
from fer_repro import papers, parameters, plots, results
from fer_repro.claims import Claim, leaderboard_claims
from fer_repro.data import LABELS, USAGES
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.errors import FerReproError
from fer_repro.leaderboard.stored import Stored
from fer_repro.logs import quiet, shown
from fer_repro.markup import SYNTHETIC, Html, details, facts, note, percent, remark_note, table, text, whole
from fer_repro.page import evidence
from fer_repro.page.board_findings import leaderboard_findings
from fer_repro.page.board_table import leaderboard_table
from fer_repro.page.cards import claim_card, verdict
from fer_repro.page.comparison import ablation_rows, claim_rows, ladder_rows, similar_rows
from fer_repro.page.findings import More, chapter_findings
from fer_repro.page.networks import architecture, network_summary
from fer_repro.page.recipe_table import deviations_table, full_recipe, settings_table
from fer_repro.page.runs import EpochLineHandler, curves, run_box, smoke_block
from fer_repro.page.tables import others_table, per_class_table, scores_table, verdict_summary
from fer_repro.page.timeline import accuracy_over_time
from fer_repro.papers import SCRATCH, model_name
from fer_repro.papers.base import Variant
from fer_repro.parameters import ChapterParameters
from fer_repro.plots.figure import Figure
from fer_repro.recipe import Views
from fer_repro.reproduce import reproduce
from fer_repro.results import Result

__all__ = [
    "Chapter",
    "accuracy_over_time",
    "architecture",
    "claim_card",
    "leaderboard_findings",
    "leaderboard_table",
    "open_chapter",
    "verdict",
    "verdict_summary",
]

COLUMNS = ("accuracy", "gain")
# Of the marks in a comparison, what each kind is; added to the caption where it is there.
MARKS = {
    "unfinished": " Hollow circles: runs that were stopped, which decide nothing.",
    "released": " Squares: weights that others published, scored here.",
}


def open_chapter(slug: str, namespace: Mapping[str, Any]) -> Chapter:
    """Check the notebook's parameters (``globals()``) before anything runs; a wrong one raises `FerReproError`."""
    chosen = parameters.from_namespace(namespace, slug)
    return Chapter(slug, chosen, [claim for claim in leaderboard_claims().values() if claim.slug == slug])


@dataclass
class Chapter:
    """One paper's chapter under its parameters; `run` first, then the sections that show its result.

    With profile ``stored`` the result is the best evidence on real faces (`fer_repro.page.evidence`); where there is
    none, a smoke run is folded away and the sections say so.
    """

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
        found = next((claim for claim in self.claims if claim.variant == wanted), None)
        if found is None:
            raise FerReproError(f"nothing is claimed for {self.variant.id}, so there is no claim to compare it with")
        return found

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
            profile, data = ("smoke", p.data) if small else ("stored", "")
            other = replace(p, variant=variant, profile=profile, data=data, epochs=None)
            found = None if small else self._stored_companion(variant)
            with quiet():
                self._companions[variant] = found or reproduce(**vars(other))
        return self._companions[variant]

    def _stored_companion(self, variant: str) -> Result | None:
        p = self.parameters
        known = [name for name in (variant, variant + SCRATCH) if name in papers.variants()]
        kept = (evidence.stored_run(name, p.protocol, p.seed, self.results_dir) for name in known)
        return next((result for result in kept if result is not None), None)

    @property
    def _published(self) -> bool:
        """Whether the chapter shows what is stored, and never a smoke run as if it were evidence."""
        p = self.parameters
        return p.profile == "stored" and p.epochs is None and p.data != "synthetic"

    @cached_property
    def _evidence(self) -> Result | None:
        """The stored result that the chapter shows instead of training, if there is one."""
        p = self.parameters
        if self._published:
            return evidence.best_stored(p.variant, p.protocol, p.seed, self.results_dir)
        if p.profile == "smoke" or p.epochs is not None or p.data == "synthetic":
            return None
        return results.find(p.variant, p.protocol, p.seed, self.results_dir)

    def _folded(self, companion: str = "") -> bool:
        """Whether there is no evidence to show, of the chapter's paper or of a ``companion`` variant."""
        if not self._published:
            return False
        own = not companion or self.parameters.variant in (companion, companion + SCRATCH)
        return (self._evidence if own else self._stored_companion(companion)) is None

    def show(self, figure: Callable[..., Any], *more: Any, of: str = "", title: str = "") -> Any:
        """A picture or table that only this paper has: ``figure(result, *more)`` of the chapter's result, or of that of
        the variant ``of``. One quiet line where there is no evidence, or where the result does not hold it; ``title``:
        what that line calls the picture, else the name of the function."""
        if self._folded(of):
            return evidence.nothing_of(title or figure.__name__.replace("_", " ").capitalize())
        try:
            return figure(self.companion(of) if of else self.result, *more)
        except results.NotRecorded as missing:
            return Html(f'<p class="fer-small">{text(missing)}.</p>', str(missing))

    def data(self) -> Html:
        """Which images this run uses: source, digest, counts by usage and class, and a contact sheet.

        A stored result shows what its record holds: no images, and the counts of the two test sets; those of Training
        are the published ones, which every load of FER2013 checks. Where a chapter has no evidence, all are published.
        """
        stored = self._evidence
        if stored is not None:
            record = stored.record["data"]
            counts = {u: np.bincount(stored.predictions[f"{u}_labels"], minlength=len(LABELS)) for u in stored.halves}
            name = f"{record['name']}, as recorded with the stored result"
            about = _about_data(name, record["source"], record["digest"])
            usages = () if stored.kind == results.RELEASED else stored.record["usages"]["train"]
            trained = _published_counts([usage for usage in usages if usage not in counts])
            rows = pd.concat([trained, pd.DataFrame(counts, LABELS).T])
            return Html(about + _counts_table(rows), f"{record['name']}, stored result")
        if self._folded():
            about = "<p>FER2013, as the challenge published it.</p>"
            return Html(about + _counts_table(pd.DataFrame(OFFICIAL_COUNTS, USAGES, LABELS)), "FER2013")
        wanted = self.parameters.data or self.parameters.profile
        faces = data_sets.faces_of(synthetic=wanted not in ("fer2013", "full"))
        remark = SYNTHETIC if faces.name == "synthetic" else ""
        train = faces.subset(np.flatnonzero(faces.usage == USAGES[0]))
        sheet = plots.samples(train.images, train.labels, LABELS, each=8, remark=remark)
        about = _about_data(faces.name, faces.source, faces.digest, [("Images", whole(len(faces)))])
        body = remark_note(remark) + about + _counts_table(faces.counts()) + sheet.figure()
        return Html(body, f"{faces.name}: {len(faces)} images{f' ({remark})' if remark else ''}")

    def network(self) -> Html:
        """Parameters counted in the network against the declared number, and what one image costs."""
        smoke = self.parameters.profile != "full" and not self._published
        return network_summary(self.variant, self.parameters.protocol, smoke=smoke)

    def recipe(self) -> Html:
        """The full recipe of the chapter's model with the source of every value, whatever was run here; folded below
        it what the other protocol changes, and the full recipes of the paper's other models and of its search."""
        p, own = self.parameters, self.variant.ablation_of or self.variant.id
        others = [papers.get(claim.variant) for claim in self.claims if claim.variant != own]
        family = [one for one in papers.variants().values() if one.slug == self.variant.slug and one.ablation_of]
        others += [one for one in family if one.recipe(p.protocol, "full").options.get("space")]
        return Html(
            full_recipe(self.variant, p.protocol, tuple(others)), f"{p.variant}: full recipe, {p.protocol} protocol"
        )

    def run(self) -> Html:
        """Train, or load what is stored; shows in one box what was done and what it cost.

        Where a published chapter has no evidence on real faces: how to make some, and a smoke test in a closed block.
        """
        p, lines = self.parameters, []
        if self._folded():
            with shown(EpochLineHandler(lines.append)):
                self._result = reproduce(**vars(p))
            block = smoke_block(self.result, lines, self._scored())
            return Html(evidence.nothing_stored(p.variant, p.protocol) + block, f"{p.variant}: not run on real faces")
        if self._evidence is not None and self._evidence.label:
            self._result = self._evidence
        else:
            with shown(EpochLineHandler()):
                self._result = reproduce(**vars(p))
        return run_box(self.result)

    def curves(self) -> Figure | Html:
        """Loss and accuracy by epoch; for a method without epochs, its stages with their time and accuracy."""
        return evidence.nothing_of("Learning curves") if self._folded() else curves(self.result)

    def scores(self) -> Html:
        """PublicTest and PrivateTest, plain and with the paper's test-time augmentation."""
        if self._folded():
            return evidence.nothing_of("PublicTest and PrivateTest")
        result = self.result
        plain = f"{result.variant}: {percent(result.headline['accuracy'])} on {result.scored}"
        plain += f" ({result.remark})" if result.remark else ""
        return Html(remark_note(result.remark) + scores_table(result), plain)

    def confusion(self) -> Figure | Html:
        """Label against prediction on the scored images."""
        if self._folded():
            return evidence.nothing_of("Confusion matrix")
        return plots.confusion_matrix(self.result.headline, self._scored(), remark=self.result.remark)

    def per_class(self) -> Html:
        """Recall of each class with its interval, as a picture and as numbers."""
        if self._folded():
            return evidence.nothing_of("Recall by class")
        result = self.result
        title = f"Recall by class: {self._scored()}"
        figure = plots.per_class(result.headline, title=title, remark=result.remark)
        numbers = remark_note(result.remark) + per_class_table(result.headline)
        return Html(figure.figure() + details("The numbers", numbers), repr(figure))

    def _scored(self) -> str:
        """For example "VGGNet, PublicTest, ten-crop, 40 pixels, mean of logits"."""
        result = self.result
        views = result.record["recipe"]["views" if result.has_views else "plain"]
        usage = result.halves[-1] if result.kind == results.RELEASED else result.scored
        return f"{model_name(result.variant)}, {usage}, {_scored_as(Views(**views))}"

    def beside_the_claim(self) -> Html:
        """For each claim of the paper, that of the chapter's variant first: the claim, every stored run of its model,
        unfinished ones too, what its released weights score, and the models next to it on the leaderboard."""
        stored, own = results.read_all(self.results_dir), self.result
        released, unfinished = (
            results.read_all(self.results_dir, kind) for kind in (results.RELEASED, results.UNFINISHED)
        )
        known = own.kind != results.FULL or any(
            (r.variant, r.protocol, r.seed) == (own.variant, own.protocol, own.seed) for r in stored
        )
        shown = [*stored, *([] if own.synthetic or known else [own]), *unfinished]
        claims = [self.claim, *(claim for claim in self.claims if claim.variant != self.claim.variant)]
        figures = [_beside(claim, stored, shown, released, len(claims) > 1) for claim in claims]
        remark = ""
        if own.synthetic and not self._folded():
            accuracy = percent(own.headline["accuracy"])
            remark = note("Not in the picture:", f"the run of this page, {accuracy}: {text(SYNTHETIC)}.")
        return Html(remark + "".join(figure.figure() for figure in figures), "\n".join(map(repr, figures)))

    def findings(self, *more: More) -> Html:
        """What the stored results of this paper say, in sentences; ``more``: functions of the paper's own that make
        sentences of its full runs. The run of this page changes nothing here."""
        kinds = (results.FULL, results.RELEASED, results.UNFINISHED)
        stored = Stored(*(results.read_all(self.results_dir, kind) for kind in kinds))
        return chapter_findings(self.slug, self.claims, stored, more)

    def deviations(self) -> Html:
        """Where the chapter's full recipe differs from the paper. Folded below it, those of the variant whose run the
        chapter shows where it is another one, and the settings of a run that are not the chapter's full recipe: a smoke
        run's, an ablation's, a shortened run's."""
        result, p = self.result, self.parameters
        ours = not self._folded() and result.kind != results.RELEASED
        recipe, remark = self.variant.recipe(p.protocol, "full"), remark_note(result.remark if ours else "")
        if ours and result.variant != p.variant:
            other = papers.get(result.variant).recipe(p.protocol, "full")
            body = deviations_table(recipe)
            body += details(f"Deviations of {result.variant}, whose run is shown", remark + deviations_table(other))
        else:
            body = remark + deviations_table(recipe)
        digest = result.record["recipe_sha256"]
        if ours and digest != self.variant.recipe(p.protocol, "full").sha256():
            of = "the smoke run" if result.profile == "smoke" else f"the run of {model_name(result.variant)} shown here"
            title = f"What {of} used instead of the full recipe, sha256 {digest[:16]}…"
            body += details(title, settings_table(result.record["recipe"]))
        return Html(body, f"{len(recipe.deviations)} deviations")

    def others(self) -> Html:
        """What others measured for the models of this paper."""
        count = sum(len(claim.others) for claim in self.claims)
        return Html(others_table(self.claims), f"{count} measurements by others")

    def ladder(self) -> Html:
        """The ablation ladder of a method that records one: each step's accuracy on PublicTest and PrivateTest."""
        if self._folded():
            return evidence.nothing_of("Ablation ladder")
        result = self.result
        steps = result.record["facts"].get("ladder")
        if not steps:
            raise FerReproError(f"the result of {result.variant} holds no ladder: its method records none")
        figures = [
            plots.ladder(ladder_rows(steps, u), f"Step by step, {u}", columns=COLUMNS, remark=result.remark)
            for u in results.HALVES
            if u in steps[0]
        ]
        return Html("".join(figure.figure() for figure in figures), "\n".join(repr(figure) for figure in figures))


def _scored_as(views: Views) -> str:
    """What a title calls them: random copies by their number, others as they are written in a recipe."""
    if views.kind != "random":
        return str(views)
    return f"{views.count} random {'copy' if views.count == 1 else 'copies'}"


def _beside(claim: Claim, stored: list[Result], runs: list[Result], released: list[Result], named: bool) -> Figure:
    """A claim beside the ``runs`` of its model and its ``released`` weights, and beside similar models; ``named``:
    the title says which model."""
    rows = claim_rows(claim, runs, released) + ablation_rows(claim, runs, released) + similar_rows(claim, stored)
    kinds = {row.kind for row in rows}
    title = "Comparison with the claim and similar models"
    return plots.forest(
        rows,
        f"{claim.model}: c{title[1:]}" if named else title,
        alt=f"{claim.model}: " + "; ".join(f"{row.label} {', '.join(row.words)}" for row in rows) + ".",
        caption="Hollow: claimed by a paper; dashed: the interval that follows from its number of images. Filled: "
        "measured here, with 95 % intervals." + "".join(words for kind, words in MARKS.items() if kind in kinds),
        line=claim.accuracy / 100,
        line_label=f"the claim, {claim.accuracy:.2f}\u00a0%",
        columns=("accuracy", "scored on"),
    )


def _about_data(name: str, source: str, digest: str, more: list[tuple[str, str]] | None = None) -> str:
    short = f"sha256 <code>{text(digest[:16])}…</code> over pixels, labels and usages"
    return facts([("Data", text(name)), ("Source", text(source)), *(more or []), ("Digest", short)])


def _published_counts(usages: Sequence[str]) -> pd.DataFrame:
    """The challenge's counts by class, named as such: a stored record has labels of test sets only."""
    counts = pd.DataFrame(OFFICIAL_COUNTS, USAGES, LABELS).loc[list(usages)]
    return counts.rename(index="{}, as published".format)


def _counts_table(counts: pd.DataFrame) -> str:
    rows = [[text(usage), *map(whole, row), whole(row.sum())] for usage, row in counts.iterrows()]
    header = ["Usage", *counts.columns, "all"]
    return table(header, rows, "Images by usage and class", numeric=range(1, len(header)))
