"""The sections of the chapter on the data set: what FER2013 holds, what is wrong with it, and what that is worth.

With FER2013 at hand everything is computed when the page is made, and pictures are shown; without it the numbers are
those of the committed index.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import chi2_contingency

from fer_repro import plots
from fer_repro.data import FER2013, LABELS, USAGES, load, source
from fer_repro.data.audit import NEAR, Audit, audit, precision
from fer_repro.data.audit.index import committed
from fer_repro.data.audit.lookup import IDENTICAL, WITH_NEAR
from fer_repro.data.sample import WORDS, training_sample
from fer_repro.errors import FerReproError
from fer_repro.evaluation.statistics import wilson
from fer_repro.markup import Html, note, percent, small, table, text, whole, with_interval
from fer_repro.plots.dots import shares
from fer_repro.plots.figure import Figure
from fer_repro.plots.pairs import Pair, pairs_sheet

TESTS = USAGES[1:]
NO_PICTURES = "No picture is shown: FER2013 was not at hand when this page was built."
OTHER_IDS = "The committed pairs are not shown: this copy of FER2013 has other ids than the one that they name."
NAMES = {
    "identical_in_training": "with an identical image in Training",
    "near_in_training": "with no identical image but a near-duplicate in Training",
    "conflicting": "identical with an image of another label",
    "blank": "blank or almost blank",
}
DASH = "\N{EN DASH}"
OF_TEST_IMAGES = ("identical_in_training", "near_in_training")  # counted for the two test sets only
FACES, PAIRS, CONFLICTS = 6, 6, 12  # pictures for each class, pairs for each band, pairs with two labels


class DatasetPage:
    """``ferplus``: the file ``fer2013new.csv`` of FER+, empty for none; it joins to the original CSV only.

    Raises `FerReproError` where FER2013 is named and something is wrong with it, or the votes do not belong to it.
    """

    def __init__(self, ferplus: str = "") -> None:
        self.index = committed()
        self.faces: FER2013 | None = load() if source.at_hand() else None
        if ferplus and self.faces is None:
            raise FerReproError(
                f"the FER+ votes '{Path(ferplus).name}' need FER2013 itself: set ${source.VARIABLE} to the original "
                "fer2013.csv"
            )
        self.audit: Audit | None = None if self.faces is None else audit(self.faces, ferplus or None)

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """Everything in numbers: computed now, or the committed ones."""
        return dict(self.index.numbers) if self.audit is None else self.audit.numbers()

    @cached_property
    def _bands(self) -> list[dict[str, Any]]:
        if self.audit is None:
            return [dict(band) for band in self.index.bands]
        return precision.bands(self.audit.data, self.audit.alike)

    def origin(self) -> Html:
        """Where the numbers of this page come from."""
        if self.faces is None:
            words = (
                f"FER2013 was not at hand when this page was built. The counts are the committed ones of "
                f"{self.index.copy}, and no picture is shown."
            )
        elif self.index.holds_for(self.faces.digest, self.faces.ids):
            known = {name: value for name, value in self.numbers.items() if name != "ferplus"}
            same = "the same as" if known == self.index.numbers else "others than"
            words = f"Computed for this page from {self.index.copy}; the counts are {same} the committed ones."
        else:
            words = (
                f"Computed for this page from {self.faces.source}. The committed index names the images of "
                f"{self.index.copy} and is used for the clean subsets only."
            )
        return Html(note("Where the numbers come from:", text(words)), words)

    @cached_property
    def _counts(self) -> pd.DataFrame:
        return pd.DataFrame(self.numbers["counts"]).T.reindex(index=list(USAGES), columns=list(LABELS))

    def balance(self) -> Html:
        """Images by usage and class, and whether the three splits have the same mix of classes."""
        counts = self._counts
        total = counts.sum()
        rows = [[text(usage), *map(whole, row), whole(row.sum())] for usage, row in counts.iterrows()]
        rows.append(["all", *map(whole, total), whole(total.sum())])
        p = chi2_contingency(counts.to_numpy()).pvalue
        most, least = str(total.idxmax()), str(total.idxmin())
        largest = counts.loc[TESTS[1], most] / counts.loc[TESTS[1]].sum()
        mix = "do not differ more than chance would have it" if p >= 0.05 else "differ more than chance would have it"
        said = (
            f"{most} is the largest class and has {total.max() / total.min():.0f} times as many images as {least}, the "
            f"smallest. Always answering {most} is right for {percent(largest)} of {TESTS[1]}. The "
            f"mixes of classes in the three splits {mix} (chi-squared test: p {p:.2f})."
        )
        header = ["Split", *LABELS, "all"]
        return Html(table(header, rows, numeric=range(1, len(header))) + f"<p>{text(said)}</p>", said)

    def classes(self) -> Figure:
        """The share of each class in each split, as a picture."""
        mix = self._counts.div(self._counts.sum(axis=1), axis=0)
        words = "; ".join(
            f"{usage} " + ", ".join(f"{label} {percent(share, 0)}" for label, share in row.items())
            for usage, row in mix.iterrows()
        )
        return shares(
            {str(usage): [float(share) for share in row] for usage, row in mix.iterrows()},
            LABELS,
            "Share of each class by split, %",
            alt=f"Share of each class in each split: {words}.",
            caption="Each row adds up to 100 %.",
        )

    def samples(self) -> Figure | Html:
        """A few dozen faces of Training, chosen by a rule and not by hand."""
        if self.faces is None:
            return _quiet(NO_PICTURES)
        sample = training_sample(self.faces)
        figure = plots.samples(sample.images, sample.labels, LABELS, each=FACES)
        figure.caption = f"One row per class: the first of {WORDS}."
        return figure

    def findings(self) -> Html:
        """Exact findings: groups of identical images, then how many images of each split have which fault."""
        n = self.numbers
        groups = (
            f"{n['images']:,} images have at least one other image with exactly the same pixels. They form "
            f"{n['groups']:,} groups; {n['across']:,} groups reach across splits, where {n['across_by_chance']:.0f} "
            f"would if every image had been put into a split at random. In {n['conflict']:,} groups the labels "
            f"contradict each other. {n['constant']:,} images show one grey value and nothing else, "
            f"{n['almost_constant'] - n['constant']:,} more almost."
        )
        sizes = self._counts.sum(axis=1)
        rows = [
            [
                text(name),
                *(
                    DASH if key in OF_TEST_IMAGES and usage not in TESTS else _of(n["by_usage"][key][usage], size)
                    for usage, size in sizes.items()
                ),
            ]
            for key, name in NAMES.items()
        ]
        return Html(f"<p>{text(groups)}</p>" + table(["Images", *USAGES], rows, numeric=(1, 2, 3)), groups)

    def conflicts(self) -> Figure | Html:
        """Identical images that carry two labels."""
        if self.audit is None:
            return _quiet(NO_PICTURES)
        frame = self.audit.duplicates
        frame = frame[frame["conflict"] & ~frame["id"].isin(self.audit.findings()["blank"])]
        twice = [(int(m["position"].iloc[0]), " / ".join(dict.fromkeys(m["label"]))) for _, m in frame.groupby("group")]
        columns = min(6, len(twice)) or 1
        shown = twice[: min(CONFLICTS, len(twice) // columns * columns)]
        if not shown:
            return _quiet("No image with something on it carries several labels.")
        labels = [words for _, words in shown]
        return plots.image_grid(
            {
                f"{n}: " + words.replace(" / ", "\nand "): self.audit.data.images[at] / 255
                for n, (at, words) in enumerate(shown, start=1)
            },
            alt=f"{len(shown)} faces, each of which is in FER2013 with several labels: {', '.join(labels)}.",
            caption="Each picture is in FER2013 at least twice, pixel by pixel the same, with the labels above it.",
            size=(7.4, 1.6 * -(-len(shown) // columns)),
            columns=columns,
            interpolation="bilinear",
        )

    def near(self) -> Html:
        """Near-duplicates: pairs and images, across splits, and how often their labels differ."""
        near, n = self.numbers["near"], self.numbers
        if not near["pairs"]:
            return _quiet("No near-duplicates were found.")
        differ = near["pairs"] - near["same_label"]
        linked = (self.index if self.audit is None else self.audit).same_answer()
        said = (
            f"{near['pairs']:,} pairs of different images, with {near['images']:,} images in all, show the same "
            f"photograph by this rule; {near['across']:,} pairs reach across splits. In {differ:,} pairs "
            f"({percent(differ / near['pairs'], 1)}) the two labels differ. A method that answers the same for all "
            "pictures that are linked by such pairs, or identical with one of them, is right on at most "
            f"{linked['right']:,} of these {linked['images']:,} images "
            f"({percent(linked['right'] / linked['images'], 1)}). {_list(near['in_training'])} have no identical "
            "image in Training, but a near-duplicate there. Two images chosen at random have the same label in "
            f"{percent(n['chance'], 1)} of all cases."
        )
        return Html(f"<p>{text(said)}</p>", said)

    def threshold(self) -> Html:
        """Bands of correlation: the pairs in each, how often labels agree, and how many of a sample are the same
        photograph."""
        rows, plain = [], []
        for band, judged in zip(self._bands, precision.judged()["bands"], strict=True):
            same, looked = sum(pair[2] for pair in judged["pairs"]), len(judged["pairs"])
            name = f"{band['low']:.2f} to {band['high']:.2f}"
            cells = [
                f"{same} of {looked}<br>{small(_range(same, looked))}",
                _rate(band["same_label"], band["pairs"]),
                "near-duplicates" if band["low"] >= NEAR else "not counted",
            ]
            rows.append([text(name), whole(band["pairs"]), *cells])
            plain.append(f"{name}: {same} of {looked} of the sample are the same photograph")
        caption = f"The sample: {precision.RULE}. {precision.judged()['how']}"
        header = ["Correlation", "Pairs", "Same photograph, in the sample", "Pairs with equal labels", "Taken as"]
        left = self._left_out()
        body = table(header, rows, caption, numeric=(1, 2, 3)) + (f"<p>{text(left)}</p>" if left else "")
        return Html(body, "; ".join(plain) + (f". {left}" if left else ""))

    def _left_out(self) -> str:
        """What the threshold leaves out: the pairs of each band below it, and how many of its sample are the same
        photograph."""
        parts = []
        for band, judged in zip(self._bands, precision.judged()["bands"], strict=True):
            same = sum(pair[2] for pair in judged["pairs"])
            if band["high"] <= NEAR and band["pairs"] and same:
                parts.append(
                    f"{band['pairs']:,} pairs from {band['low']:.2f} to {band['high']:.2f} ({same} of "
                    f"{len(judged['pairs'])} of the sample are the same photograph)"
                )
        if not parts:
            return ""
        return f"The threshold is conservative. It does not count {', '.join(reversed(parts))}."

    def pair_samples(self) -> Figure | Html:
        """The first pairs of each band of the sample, side by side."""
        if self.faces is None:
            return _quiet(NO_PICTURES)
        if not self.index.holds_for(self.faces.digest, self.faces.ids):
            return _quiet(OTHER_IDS)
        place = {name: at for at, name in enumerate(self.faces.ids.tolist())}
        rows: dict[str, list[Pair]] = {}
        for band in reversed(precision.judged()["bands"]):
            shown = [[self.faces.images[place[name]] for name in pair[:2]] for pair in band["pairs"][:PAIRS]]
            rows[f"{band['low']:.2f} to {band['high']:.2f}"] = [(first, second) for first, second in shown]
        return pairs_sheet(
            rows,
            alt=f"Pairs of faces by correlation: from {NEAR} on the two of a pair are the same photograph with other "
            "crops, brightness or watermarks; in the lowest row most are different people in a similar pose.",
            caption=f"The first {PAIRS} pairs of the sample of each band; the number is the correlation.",
        )

    def lookup(self) -> Html:
        """What labels copied from duplicates in Training score, without any model."""
        names = {IDENTICAL: "an identical image", WITH_NEAR: "an identical image or a near-duplicate"}
        rows, plain = [], []
        for usage, kinds in self.numbers["lookup"].items():
            for kind, one in kinds.items():
                row = [text(usage), text(names[kind]), whole(one["n"]), _rate(one["correct"], one["n"])]
                rows.append([*row, percent(one["of_test_set"])])
                plain.append(f"{usage}, {names[kind]}: {percent(one['of_test_set'])} of the test set")
        header = ["Test set", "Training has", "Images", "Right, of these", "Right, of the whole test set"]
        return Html(table(header, rows, numeric=(2, 3, 4)), "; ".join(plain))

    def votes(self) -> Html:
        """The labels against the votes of FER+, where they were given."""
        found = self.numbers.get("ferplus")
        if not found:
            return _quiet(
                "The votes were not at hand when this page was built. With them this section counts, for each split, "
                "the images for which another answer got more votes than the label, those for which “no face” or "
                "“unknown” got the most, and those without a majority, and it sets each label against what got the "
                "most votes. The file is fer2013new.csv of github.com/ebarsoum/FERPlus, and it joins to the original "
                "CSV only. The parameter ferplus of this page names it, or the command: fer-repro data audit --root "
                "fer2013.csv --ferplus fer2013new.csv"
            )
        kinds = {
            "disagree": "another answer got more votes than the label",
            "non_face": "“no face” got the most votes",
            "unknown": "“unknown” got the most votes",
            "unclear": "no answer got more than half of the votes",
        }
        parts = ("all", *USAGES)
        rows = [
            [text(name), *(_of(found[part][kind], found[part]["images"]) for part in parts)]
            for kind, name in kinds.items()
        ]
        columns = list(found["by_label"][LABELS[0]])
        most = [[text(label), *map(whole, found["by_label"][label].values())] for label in LABELS]
        body = table(["Images where", *parts], rows, numeric=range(1, 5)) + table(
            ["Label", *columns], most, "Images of each label by what got the most votes", numeric=range(1, 11)
        )
        share = found["all"]["disagree"] / found["all"]["images"]
        return Html(body, f"another answer got more votes than the label for {percent(share, 1)} of all images")

    def conclusions(self) -> Html:
        """What the findings say, in sentences made from the numbers."""
        n, near = self.numbers, self.numbers["near"]
        usage = TESTS[1]
        size = int(self._counts.loc[usage].sum())
        identical, alike = n["by_usage"]["identical_in_training"][usage], n["by_usage"]["near_in_training"][usage]
        found = n["lookup"][usage][WITH_NEAR]
        differ = percent((near["pairs"] - near["same_label"]) / max(1, near["pairs"]), 1)
        alone = (self.index if self.audit is None else self.audit).contradictions(usage)
        lines = [
            f"Of the {size:,} images of {usage}, {identical:,} ({percent(identical / size, 1)}) are in Training pixel "
            f"by pixel, and {alike:,} more ({percent(alike / size, 1)}) as a near-duplicate.",
            f"Copying the labels of these from Training is right for {percent(found['of_test_set'], 1)} of {usage}, "
            "without looking at an expression.",
            f"The same pixels carry different labels in {n['conflict']:,} of {n['groups']:,} groups, the same "
            f"photograph in {differ} of the {near['pairs']:,} near-duplicate pairs.",
            f"In {usage} alone, {alone['groups']:,} groups of identical images have two labels or more, and "
            f"{alone['differ']:,} of {alone['pairs']:,} near-duplicate pairs have two.",
            f"{n['almost_constant']:,} images show nothing.",
        ]
        return Html("<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>", " ".join(lines))


def _quiet(words: str) -> Html:
    return Html(f'<p class="fer-small">{text(words)}</p>', words)


def _of(count: int, size: int) -> str:
    """A count, and its share of a split below."""
    return f"{whole(count)}<br>{small(percent(count / size if size else None, 2, 'none'))}"


def _rate(count: int, n: int) -> str:
    """A share with its Wilson interval."""
    return with_interval(count / n, wilson(count, n), 1) if n else "none"


def _range(count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"{100 * low:.0f} to {100 * high:.0f}\u00a0%"


def _list(counts: dict[str, int]) -> str:
    return " and ".join(f"{count:,} images of {usage}" for usage, count in counts.items())
