"""The section of the chapter on the data set that re-scores every stored result without the faulty test images."""

from __future__ import annotations

from functools import cached_property
from itertools import combinations
from pathlib import Path

from fer_repro.comparisons import Comparison
from fer_repro.comparisons.gather import compared
from fer_repro.errors import FerReproError
from fer_repro.markup import Html, details, note, percent, small, table, text, whole, with_interval
from fer_repro.papers import model_name
from fer_repro.plots.dots import Point, dots
from fer_repro.plots.figure import Figure
from fer_repro.results import FULL, HALVES, PACKAGE, RELEASED, UNFINISHED, Result
from fer_repro.results import clean_subset as clean
from fer_repro.results.clean_subset import CleanScore

NOTHING = "no result is stored. This makes one: fer-repro run baseline --profile full"
NOTHING_DECIDES = "no result that decides is stored. This makes one: fer-repro run baseline --profile full"
MARK = "decides nothing"
SERIES = ("clean subset", "identical image in Training")


class CleanSubsets:
    """``results_dir``: folder of stored results, empty for the project's own. Raises `FerReproError` for a missing
    one."""

    def __init__(self, results_dir: str = "") -> None:
        if results_dir and not Path(results_dir).is_dir():
            raise FerReproError(f"there is no folder of results {results_dir}: `fer-repro run --results-dir` makes one")
        stored = clean.every(Path(results_dir) if results_dir else None)
        self.results: list[Result] = sorted(stored, key=lambda one: (one.kind == PACKAGE, -self._accuracy(one)))
        """Every stored result: the best on PrivateTest first, packages last."""

    @cached_property
    def _deciding(self) -> set[int]:
        """Which of ``results`` decide, by `id`: the rule is that of the comparisons (`fer_repro.comparisons`)."""
        return {id(run) for entry in self._compared.deciding for run in entry.runs}

    @cached_property
    def _compared(self) -> Comparison:
        return compared(self.results)

    def _marked(self, result: Result) -> str:
        """What a result is, whether it takes no part in the sentences, and the class of a model that knows but one."""
        mark = "" if id(result) in self._deciding else f", {MARK}"
        return _detail(result) + mark + (f"; {result.one_class}" if result.one_class else "")

    @staticmethod
    def _accuracy(result: Result) -> float:
        usage = HALVES[-1]
        return result.score(usage)["accuracy"] if usage in result.halves else 0.0

    def scores(self, usage: str = "PrivateTest", folded: bool = False) -> Html:
        """Every stored result on a whole test set, on its clean part, and without near-duplicates too; ``folded``: in a
        block that opens with a click."""
        rows, plain, other = [], [], []
        for result in self.results:
            scored, strict = (clean.of_result(result, usage, findings) for findings in clean.SUBSETS.values())
            if scored is None or strict is None:
                other.append(f"{_name(result)} {_detail(result)}")
                continue
            first = f"{text(_name(result))}<br>{small(self._marked(result))}"
            cells = [
                with_interval(scored.whole.accuracy, scored.whole.interval),
                with_interval(scored.clean.accuracy, scored.clean.interval),
                _points(scored),
                _points(strict),
            ]
            rows.append([first, *cells])
            plain.append(f"{_name(result)}: {percent(scored.clean.accuracy)} of the clean subset")
        if not rows:
            return Html(note("Not run:", text(NOTHING)), NOTHING)
        sizes = self._sizes(usage)
        header = ["Result", usage, f"Clean, {sizes[0]:,} images", "Difference, points", "Strict: difference, points"]
        caption = (
            f"Strict: without near-duplicates in Training too, {sizes[1]:,} images. Differences are the subset minus "
            f"the whole test set, with 95 % intervals. What {MARK} was not finished, was made under the claimed "
            "protocol, or has or may have seen test images; What we found leaves it out."
        )
        left = f" Not scored on {usage}, or on a copy with other ids: {', '.join(other)}." if other else ""
        body = table(header, rows, caption + left, numeric=(1, 2, 3, 4))
        return Html(details(f"The same for {usage}", body) if folded else body, "; ".join(plain))

    def _sizes(self, usage: str) -> tuple[int, ...]:
        """The images of the clean and of the strict subset."""
        return tuple(
            next(score.clean.n for one in self.results if (score := clean.of_result(one, usage, findings)))
            for findings in clean.SUBSETS.values()
        )

    def remembered(self, usage: str = "PrivateTest") -> Figure | Html:
        """One result of each model: its accuracy on images that Training holds too, and on the clean subset."""
        values: dict[str, dict[str, Point]] = {}
        for name, result in self._one_of_each.items():
            scored, part = clean.of_result(result, usage), clean.identical_only(result, usage)
            if scored is None or part is None or scored.clean.accuracy is None or part.accuracy is None:
                continue
            points = ((one.accuracy, one.interval) for one in (scored.clean, part))
            values[name] = dict(zip(SERIES, points, strict=True))
        if not values:
            return Html(note("Not run:", text(NOTHING)), NOTHING)
        words = "; ".join(
            f"{name} {percent(points[SERIES[0]][0], 1)} and {percent(points[SERIES[1]][0], 1)}"
            for name, points in values.items()
        )
        return dots(
            values,
            f"Clean subset against duplicates, {usage}",
            alt=f"Dot plot of accuracies, on the clean subset and on images that Training holds too: {words}.",
            caption="One run of each model. Bars: Wilson 95 % intervals. A method that remembers its training images "
            "has its second dot far to the right.",
        )

    @property
    def _one_of_each(self) -> dict[str, Result]:
        """The lowest seed of each model of each kind under its name, in the order of ``results``."""
        found: dict[str, Result] = {}
        for result in self.results:
            kinds = [result.kind] if result.kind in (RELEASED, UNFINISHED) else []
            kinds += [f"{result.protocol} protocol"] if result.kind != PACKAGE and _unofficial(result) else []
            kinds += [MARK] if not kinds and id(result) not in self._deciding else []
            name = f"{_name(result)} ({', '.join(kinds)})" if kinds else _name(result)
            before = found.setdefault(name, result)
            if (result.record["seed"] or 0) < (before.record["seed"] or 0):
                found[name] = result
        return found

    @cached_property
    def _private(self) -> list[tuple[Result, CleanScore]]:
        """The results that decide, with their scores on PrivateTest."""
        pairs = ((result, clean.of_result(result)) for result in self.results if id(result) in self._deciding)
        return [(result, score) for result, score in pairs if score is not None]

    def conclusions(self) -> Html:
        """What the clean subset changes, in sentences made from the results that decide."""
        if not self._private:
            return Html(note("Not run:", text(NOTHING_DECIDES)), NOTHING_DECIDES)
        below = sum(score.interval[1] < 0 for _, score in self._private)
        least, most = (pick(self._private, key=lambda pair: -pair[1].difference) for pick in (min, max))
        part = clean.identical_only(most[0])
        assert part is not None
        low, high = (f"{100 * end:.1f}" for end in part.interval)
        lines = [
            f"{below} of {len(self._private)} results that decide are less accurate on the clean subset of PrivateTest "
            f"than on the whole, beyond the 95 % interval of the difference. The differences lie between "
            f"{100 * most[1].difference:+.2f} and {100 * least[1].difference:+.2f} points.",
            f"The largest loss is that of {_name(most[0])} ({_detail(most[0])}): it is right on "
            f"{percent(part.accuracy, 1)} ({low} to {high}\u00a0%) of the {whole(part.n)} images that are in Training "
            f"too, and on {percent(most[1].clean.accuracy, 1)} of the clean ones.",
            *self._order(),
        ]
        return Html("<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>", " ".join(lines))

    def _order(self) -> list[str]:
        """How many pairs of official runs of different variants change their order on the clean and on the strict
        subset; nothing where there is no such pair."""
        runs = [(one, score) for one, score in self._private if one.kind == FULL and not _unofficial(one)]
        strict = {id(one): clean.of_result(one, findings=clean.STRICT) for one, _ in runs}
        swaps, pairs = [0, 0], 0
        for (one, first), (other, second) in combinations(runs, 2):
            if one.variant == other.variant:
                continue
            pairs += 1
            parts = (first.clean, second.clean), (strict[id(one)].clean, strict[id(other)].clean)
            gap = first.whole.accuracy - second.whole.accuracy
            for at, (a, b) in enumerate(parts):
                swaps[at] += gap * (a.accuracy - b.accuracy) < 0
        if not pairs:
            return []
        return [
            f"Of the {pairs:,} pairs of official full runs of different variants, {swaps[0]:,} change their order on "
            f"the clean subset and {swaps[1]:,} on the strict one."
        ]


def _name(result: Result) -> str:
    return result.record["package"]["name"] if result.kind == PACKAGE else model_name(result.variant)


def _detail(result: Result) -> str:
    """What a result is, in a few words."""
    if result.kind == PACKAGE:
        return f"package, {result.record['package']['version']}"
    if result.kind == RELEASED:
        return f"released weights, {result.name}"
    kinds = [result.progress] if result.kind == UNFINISHED else []
    kinds += [f"{result.protocol} protocol"] if _unofficial(result) else []
    return ", ".join([f"seed {result.seed}", *kinds])


def _unofficial(result: Result) -> bool:
    return result.kind != RELEASED and result.protocol != "official"


def _points(scored: CleanScore) -> str:
    low, high = scored.interval
    return f"{100 * scored.difference:+.2f}<br>{small(f'{100 * low:+.2f} to {100 * high:+.2f}')}"
