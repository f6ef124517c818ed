"""The sections of the chapter on pretraining: which weights models start from, and a pair of runs with and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure as Canvas

from fer_repro import papers, results
from fer_repro.claims import leaderboard_claims
from fer_repro.errors import FerReproError
from fer_repro.evaluation.statistics import mcnemar, paired_difference
from fer_repro.markup import Html, breaking, interval, note, percent, seconds, table, text
from fer_repro.page.board_findings import pair_findings
from fer_repro.papers import model_name
from fer_repro.papers.efficientfer import lite0
from fer_repro.plots.figure import Figure, Theme, canvas
from fer_repro.recipe import Pretrained
from fer_repro.results import HALVES, Result

PAIR = tuple(variant.id for variant in lite0.VARIANTS)  # with ImageNet's weights, without
NAMES = dict(zip(PAIR, ("from ImageNet's weights", "from random weights"), strict=True))


class PretrainingPage:
    """``results_dir``: folder of stored results, empty for the project's own; ``seed``: of the pair of runs."""

    def __init__(self, results_dir: str = "", seed: int = 0) -> None:
        if results_dir and not Path(results_dir).is_dir():
            raise FerReproError(f"there is no folder of results {results_dir}: `fer-repro run --results-dir` makes one")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise FerReproError(f"parameter seed is {seed!r}, expected a whole number from 0")
        where = Path(results_dir) if results_dir else None
        self.seed = seed
        found = {name: results.find(name, "official", seed, where) for name in PAIR}
        self.runs: dict[str, Result] = {name: run for name, run in found.items() if run is not None}

    def weights(self) -> Html:
        """Every variant that starts from pretrained weights, and which; names the protocol where it is one of them."""
        users: dict[Pretrained, dict[str, list[str]]] = {}
        for variant in papers.variants().values():
            for name in (variant.id, *sorted(papers.needs(variant.id))):
                for protocol in papers.PROTOCOLS:
                    weights = papers.get(name).recipe(protocol, "full").pretrained
                    if weights is not None:
                        users.setdefault(weights, {}).setdefault(variant.id, []).append(protocol)
        rows = [
            [
                breaking(_users(names)),
                breaking(f"{text(weights.name)}<br>{text(weights.data)}"),
                breaking(f"{text(weights.source)}<br>licence: {text(weights.licence)}"),
                breaking(f"<code>{text(weights.file)}</code><br>{text((weights.sha256 or '')[:16], 'none published')}"),
            ]
            for weights, names in users.items()
        ]
        header = ["Used by", "Weights, trained on", "Offered by", "File, sha256 begins"]
        return Html(table(header, rows), f"{len(rows)} sets of pretrained weights")

    def pair(self) -> Html:
        """Both runs of the pair on PublicTest and PrivateTest, and their difference on the same images."""
        if not self.runs:
            command = f"fer-repro run {' '.join(PAIR)} --seed {self.seed}"
            reason = f"neither run with seed {self.seed} is stored. This makes both: {command}"
            return Html(note("Not run:", text(reason)), f"not run: {reason}")
        rows = [self._row(name, usage) for usage in HALVES for name in PAIR]
        header = ["Test set", "Start", "Accuracy", "95 % interval", "Epoch selected", "Time"]
        plain = "; ".join(f"{NAMES[name]}: {percent(run.headline['accuracy'])}" for name, run in self.runs.items())
        return Html(table(header, rows, numeric=(2, 4, 5)) + self._difference(), plain)

    def _row(self, name: str, usage: str) -> list[str]:
        run = self.runs.get(name)
        if run is None:
            return [text(usage), text(NAMES[name]), "not run", "", "", ""]
        score = run.score(usage, views=False)
        made = [text(run.record["selected_epoch"]), seconds(run.record["cost"]["seconds"])]
        return [text(usage), text(NAMES[name]), percent(score["accuracy"]), interval(score["interval"]), *made]

    def _difference(self) -> str:
        if len(self.runs) < len(PAIR):
            return note("One run only:", "the other run is not stored, so there is no difference to show.")
        right = results.paired_hits(*(self.runs[name] for name in PAIR))
        (gain, low, high), p = paired_difference(*right), mcnemar(*right)
        chance = "below 0.001" if p < 0.001 else f"{p:.3f}"
        return (
            f"<p>On the same PrivateTest images the run that starts from ImageNet is better by "
            f"<strong>{100 * gain:.2f}</strong> points (95 % interval of the paired difference: {100 * low:.2f} to "
            f"{100 * high:.2f}; McNemar's exact test: p {chance}).</p>"
        )

    def findings(self) -> Html:
        """What the pair says, in sentences: the difference on both test sets, and what it leaves open."""
        gains = []
        for usage in HALVES if len(self.runs) == len(PAIR) else ():
            right = results.paired_hits(*(self.runs[name] for name in PAIR), usage)
            gains.append((usage, paired_difference(*right)[0], mcnemar(*right)))
        return pair_findings([NAMES[name] for name in PAIR], gains)

    def curves(self) -> Figure | Html:
        """Accuracy on PublicTest after every epoch of both runs."""
        if not self.runs:
            return Html(note("Not run:", "no curves."), "not run: no curves")
        runs = self.runs

        def draw(theme: Theme) -> Canvas:
            figure = canvas(6.4, 3.4)
            axes = figure.add_subplot()
            axes.grid(axis="y")
            for name, run in runs.items():
                mark, colour = ("o", theme.measured) if name == PAIR[0] else ("s", theme.claimed)
                style = {"ls": "-", "marker": mark, "ms": 4.5, "color": colour, "label": NAMES[name]}
                axes.plot(run.history["epoch"], 100 * run.history["select_accuracy"], **style)
            axes.set_xlabel("epoch")
            axes.set_ylabel("accuracy on PublicTest, %")
            figure.legend(loc="outside upper left", ncols=2)
            return figure

        ends = "; ".join(
            f"{NAMES[name]} {percent(run.history['select_accuracy'].iloc[0])} after the first and "
            f"{percent(run.history['select_accuracy'].max())} after the best epoch"
            for name, run in runs.items()
        )
        return Figure(
            draw,
            scrolls="accuracy by epoch",
            alt=f"Accuracy on PublicTest by epoch, EfficientNet-Lite0: {ends}.",
            caption=f"EfficientNet-Lite0 under one recipe, seed {self.seed}.{_stored_otherwise(runs)}",
        )


def _users(found: Mapping[str, Sequence[str]]) -> str:
    """The variants (id -> protocols) that start from the same weights; those under one protocol only after the others;
    markup."""
    groups: dict[tuple[str, ...], list[str]] = {papers.PROTOCOLS: []}
    for variant_id, protocols in found.items():
        under = tuple(name for name in papers.PROTOCOLS if name in protocols)
        name = model_name(variant_id) if variant_id in leaderboard_claims() else variant_id
        groups.setdefault(under, []).append(name)
    both = [text(", ".join(groups.pop(papers.PROTOCOLS)))] if groups[papers.PROTOCOLS] else []
    only = (f"{text(under[0])} protocol only: {text(', '.join(names))}" for under, names in groups.items() if names)
    return "<br>".join([*both, *only])


def _stored_otherwise(runs: Mapping[str, Result]) -> str:
    """What a caption says where a curve at the selected epoch is not the accuracy of the stored predictions."""
    for run in runs.values():
        epochs = run.history.dropna(subset="select_accuracy").set_index("epoch")["select_accuracy"]
        stored = run.score("PublicTest", views=False)["accuracy"]
        if not np.isclose(epochs[run.record["selected_epoch"]], stored):
            return (
                " The curves count the network's own outputs during training. The table counts the stored "
                "predictions: they are rounded to float16, in which two classes can become equal, so single images "
                "may differ."
            )
    return ""
