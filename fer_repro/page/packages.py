"""The sections of the chapter on installable packages: what their models score, and what they were trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_repro import results
from fer_repro.data import LABELS, USAGES
from fer_repro.data.sample import WORDS
from fer_repro.errors import FerReproError
from fer_repro.evaluation.statistics import paired_comparison
from fer_repro.markup import (
    Html,
    interval,
    is_web,
    link,
    note,
    percent,
    small,
    table,
    text,
    whole,
    with_code,
    with_interval,
)
from fer_repro.packages import leakage
from fer_repro.packages.leakage import HELD_OUT, SEEN, Judgement
from fer_repro.packages.score import on_own_classes
from fer_repro.packages.table import Package
from fer_repro.packages.table import table as package_table
from fer_repro.plots.dots import dots, shares
from fer_repro.plots.figure import Figure
from fer_repro.results import HALVES, PACKAGE, Result

SAMPLE = "Training sample"
SHOWN = dict(zip(USAGES, (SAMPLE, *HALVES), strict=True))
NOTHING = "no package is scored yet. This fetches and scores them: fer-repro packages score --store"


class PackagesPage:
    """``results_dir``: folder of stored results, empty for the project's own."""

    def __init__(self, results_dir: str = "") -> None:
        if results_dir and not Path(results_dir).is_dir():
            raise FerReproError(f"there is no folder of results {results_dir}: `--results-dir` makes one")
        stored = results.read_all(Path(results_dir) if results_dir else None, PACKAGE)
        found = {(one.record["package"]["name"], one.record["package"]["version"]): one for one in stored}
        self.packages = package_table().scored
        """Those of the table: the best on PrivateTest first, last those that have seen test images and the unscored."""
        self.results: dict[str, Result] = {
            p.name: found[p.name, p.version] for p in self.packages if (p.name, p.version) in found
        }
        self.packages = tuple(sorted(self.packages, key=self._rank))

    def _rank(self, package: Package) -> tuple[bool, bool, float]:
        one = self.results.get(package.name)
        return one is None, one is not None and self._has_seen(one), -one.score()["accuracy"] if one else 0.0

    def _has_seen(self, one: Result) -> bool:
        """Whether the rule finds that it was trained on test images."""
        return any(judgement.verdict == SEEN for judgement in self._judged(one).values())

    def _scored(self) -> dict[str, Result]:
        return {package.name: self.results[package.name] for package in self.packages if package.name in self.results}

    def _judged(self, one: Result) -> dict[str, Judgement]:
        return {usage: leakage.judge(one.score(USAGES[0]), one.score(usage), usage) for usage in HALVES}

    def overview(self) -> Html:
        """Every package of the table: what it is, what it says, what it scores, and the names it is also sold under."""
        rows = [self._row(package) for package in self.packages]
        header = ["Package", *HALVES, SAMPLE, "Parameters, time"]
        plain = "; ".join(f"{name} {percent(one.score()['accuracy'])}" for name, one in self._scored().items())
        says = [
            [text(p.name), "<br>".join(f"{text(say.what)} {_source(say.source)}" for say in p.says)]
            for p in self.packages
        ]
        body = table(header, rows, self._floor(), numeric=(1, 2, 3, 4)) + table(
            ["Package", "What it says of its accuracy or its data"], says
        )
        return Html(body, plain or "nothing is scored yet")

    def _floor(self) -> str:
        """What the commonest class of each test set scores as the answer for every face, from stored labels."""
        if not (scored := self._scored()):
            return ""
        one, parts = next(iter(scored.values())), []
        for usage in HALVES:
            counts = np.bincount(one.predictions[f"{usage}_labels"], minlength=len(LABELS))
            parts.append(f"{percent(counts.max() / counts.sum())} on {usage} ({LABELS[counts.argmax()]})")
        return f"For comparison: the commonest class as the answer for every face scores {' and '.join(parts)}."

    def _row(self, package: Package) -> list[str]:
        about = f"{package.version}, {package.released[:4]}, {package.registry}"
        also = [f"also sold as {name}" for name in package.also_sold_as]
        first = "<br>".join([text(package.name), *map(small, (about, package.licence, *also))])
        one = self.results.get(package.name)
        if one is None:
            return [first, *["not scored yet"] * 3, ""]
        cost = one.record["cost"]
        times = (f"{cost['ms_per_face_alone']:.2f} ms a face", f"{cost['ms_per_face_in_batch']:.2f} ms in a batch")
        size = "<br>".join((whole(one.record["parameters"]), *map(small, times)))
        return [first, *(self._cell(one, usage) for usage in (*HALVES, USAGES[0])), size]

    def _cell(self, one: Result, usage: str) -> str:
        """An accuracy, that of PrivateTest with its interval (the chart has the others)."""
        score, own = one.score(usage), on_own_classes(one, usage)
        headline = usage == HALVES[-1]
        cell = with_interval(score["accuracy"], score["interval"]) if headline else percent(score["accuracy"])
        cell += f"<br>{small('test images seen')}" if headline and self._has_seen(one) else ""
        return cell if own is None else f"{cell}<br>{small(percent(own['accuracy']))}<br>{small('own classes')}"

    def accuracies(self) -> Figure | Html:
        """Accuracy on the sample of Training and on both test sets, with intervals."""
        scored = self._scored()
        if not scored:
            return Html(note("Not scored:", text(NOTHING)), NOTHING)
        values = {name: {SHOWN[usage]: _point(one.score(usage)) for usage in USAGES} for name, one in scored.items()}
        described = "; ".join(
            f"{name} " + ", ".join(f"{percent(point[0], 1)} on {where}" for where, point in points.items())
            for name, points in values.items()
        )
        return dots(
            values,
            "Accuracy of packages on FER2013",
            alt=f"Dot plot of accuracies with 95 % intervals: {described}.",
            caption="Dots: share of images that were recognised; bars: Wilson 95 % intervals. A model whose Training "
            "sample lies far to the right of both test sets was trained on Training.",
            line=leakage.CEILING,
            line_label=f"{percent(leakage.CEILING, 0)}, the limit of the rule",
        )

    def recalls(self, usage: str = "PrivateTest") -> Html:
        """Which share of each class a package recognises, as a picture, and with intervals as numbers."""
        scored = self._scored()
        if not scored:
            return Html(note("Not scored:", text(NOTHING)), NOTHING)
        known = {name: one.score(usage)["per_class"] for name, one in scored.items()}
        own = {name: one.record["package"]["labels"] for name, one in scored.items()}
        recall = {
            name: [classes[label]["recall"] if label in own[name] else None for label in LABELS]
            for name, classes in known.items()
        }
        words = "; ".join(
            f"{name} "
            + ", ".join(f"{label} {percent(share, 0, 'not a class')}" for label, share in zip(LABELS, row, strict=True))
            for name, row in recall.items()
        )
        figure = shares(
            recall,
            LABELS,
            f"Recall by class on {usage}, %",
            alt=f"Share of each class that a package recognises on {usage}: {words}.",
            caption="Each cell: the share of a class's images that were recognised. none: not a class of this package.",
        )
        rows = [
            [text(name), *(_recall(classes[label]) if label in own[name] else "none" for label in LABELS)]
            for name, classes in known.items()
        ]
        numbers = table(["Package", *LABELS], rows, numeric=range(1, 8))
        return Html(figure.figure() + f"<details><summary>With 95 % intervals</summary>{numbers}</details>", words)

    def leakage(self) -> Html:
        """What the rule says of each package: the Training sample against both test sets."""
        rows, plain = [], []
        for name, one in self._scored().items():
            judged = self._judged(one)
            cells = [
                f"{100 * j.gap:+.2f}<br>{small(f'{100 * j.interval[0]:+.2f} to {100 * j.interval[1]:+.2f}')}"
                f"<br>{text(j.verdict)}"
                for j in judged.values()
            ]
            said = leakage.summary(judged)
            rows.append([text(name), *cells, f"<strong>{text(said)}</strong>"])
            plain.append(f"{name}: {said}")
        if not rows:
            return Html(note("Not scored:", text(NOTHING)), NOTHING)
        header = ["Package", *(f"{SAMPLE} minus {usage}, points" for usage in HALVES), "What follows"]
        return Html(table(header, rows, f"The sample: {WORDS}.", numeric=(1, 2)), "; ".join(plain))

    def conclusions(self) -> Html:
        """What the numbers say to somebody who chooses a package: the best, what it is not distinguishable from,
        the fastest, and which numbers mean nothing."""
        scored = self._scored()
        if not scored:
            return Html(note("Not scored:", text(NOTHING)), NOTHING)
        verdicts = {name: self._judged(one) for name, one in scored.items()}
        leaked = [name for name, one in scored.items() if self._has_seen(one)]
        clean = {name: one for name, one in scored.items() if name not in leaked}
        lines = []
        if clean:
            best, *others = clean
            score = clean[best].score()
            lines.append(
                f"{_strong(best)} recognises {percent(score['accuracy'])} of PrivateTest "
                f"({interval(score['interval'])}), the most of all packages that by the rule above have not "
                "seen the test images."
            )
            lines += [self._against(clean, best, other) for other in others[:1]]
            speed = {name: one.record["cost"]["ms_per_face_alone"] for name, one in clean.items()}
            fastest = min(speed, key=lambda name: speed[name])
            lines.append(
                f"{_strong(fastest)} is the fastest of them here, {speed[fastest]:.2f} ms for one face in one thread; "
                f"it recognises {percent(clean[fastest].score()['accuracy'])} of PrivateTest."
            )
        for name in leaked:
            score = scored[name].score()
            lines.append(
                f"{_strong(name)} recognises {percent(score['accuracy'])} of PrivateTest, which says nothing of other "
                f"faces: it was {text(leakage.summary(verdicts[name]))}."
            )
        held = [name for name in clean if all(j.verdict == HELD_OUT for j in verdicts[name].values())]
        if held:
            lines.append(
                f"{', '.join(map(_strong, held))}: the accuracies on the test sets are those on faces that the weights "
                "were not trained on."
            )
        body = "<ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"
        return Html(body, f"{len(clean)} packages have not seen test images, by the rule, and {len(leaked)} have")

    @staticmethod
    def _against(clean: Mapping[str, Result], best: str, other: str) -> str:
        difference, low, high, p = paired_comparison(*results.paired_hits(clean[best], clean[other]))
        chance = "below 0.001" if p < 0.001 else f"{p:.3f}"
        reading = "which is more than chance" if p < 0.05 else "so these images do not distinguish the two"
        return (
            f"On the same images it is {100 * difference:.2f} points above {_strong(other)} (95 % interval "
            f"{100 * low:.2f} to {100 * high:.2f}; McNemar's exact test: p {chance}), {reading}."
        )

    def files(self) -> Html:
        """What was read of each package, and the way of a face into its network."""
        rows = []
        for package in self.packages:
            files = "<br>".join(
                f"<code>{text(file.member)}</code> {small(f'sha256 {file.sha256[:16]}')}" for file in package.files
            )
            remark = package.remark and f'<span class="fer-small">{with_code(package.remark)}</span>'
            way = "<br>".join(filter(None, (with_code(package.preprocessing), remark)))
            rows.append([text(package.name), text(package.family), files, way])
        return Html(table(["Package", "Our network", "File inside", "Preprocessing"], rows), f"{len(rows)} packages")

    def not_scored(self) -> Html:
        """The packages that are not scored, and why."""
        rows = [
            [f"{text(package.name)}<br>{small(f'{package.version} {package.registry}'.strip())}", text(package.because)]
            for package in package_table().not_scored
        ]
        return Html(table(["Package", "Not scored, because"], rows), f"{len(rows)} packages are not scored")


def _point(score: Mapping[str, Any]) -> tuple[float, tuple[float, float]]:
    low, high = score["interval"]
    return score["accuracy"], (low, high)


def _recall(one: Mapping[str, Any]) -> str:
    return with_interval(one["recall"], one["interval"], 1)


def _strong(name: str) -> str:
    return f"<strong>{text(name)}</strong>"


def _source(source: str) -> str:
    """Where a statement stands: a link in brackets, or a place inside the archive in small text."""
    return f"({link(source, 'source')})" if is_web(source) else small(f"({source})")
