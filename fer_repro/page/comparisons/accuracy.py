"""Accuracies of everything that is stored beside the claims, all pairs, ranks and groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fer_repro.claims import Claim, leaderboard_claims
from fer_repro.comparisons import Comparison, Entry
from fer_repro.comparisons.entries import KINDS, SCORED
from fer_repro.comparisons.gather import UNDECIDED
from fer_repro.comparisons.pairs import LEVEL, Pair, Pairs, SeedPairs, seed_pairs
from fer_repro.evaluation.statistics import wilson
from fer_repro.markup import Html, details, percent, small, table, text, whole, with_interval
from fer_repro.packages import leakage
from fer_repro.page.comparisons.words import (
    MARK,
    accuracy,
    count,
    listed,
    named,
    one_class_runs,
    p_value,
    points_with_interval,
    runs_of,
    starred,
    tick_names,
    without,
)
from fer_repro.papers import model_name
from fer_repro.plots.figure import Figure
from fer_repro.plots.forest import Row, forest
from fer_repro.plots.matrix import pair_matrix
from fer_repro.plots.ranks import rank_intervals
from fer_repro.results import FULL, PACKAGE, RELEASED, UNFINISHED

BOARD = "models of the leaderboard"
GROUPS = {
    FULL: "baseline and ablations",
    RELEASED: "weights that others released",
    PACKAGE: "packages",
    UNFINISHED: "unfinished runs",
}
"""Headings of the forest plot for what is no model of the leaderboard."""


def forest_plot(comparison: Comparison) -> Figure:
    """Every claim of the leaderboard and every stored model: claims hollow, measurements with intervals and ticks."""
    claims = sorted(leaderboard_claims().values(), key=lambda claim: -claim.accuracy)
    rows = []
    for claim in claims:
        rows.append(_claimed(claim))
        rows += [
            _measured(one, BOARD) for one in comparison.entries if one.kind == FULL and one.variant == claim.variant
        ]
    known = {claim.variant for claim in claims}
    for kind, heading in GROUPS.items():
        own = [one for one in comparison.entries if one.kind == kind and not (kind == FULL and one.variant in known)]
        rows += [_measured(one, heading) for one in sorted(own, key=lambda one: -one.accuracy)]
    words = "; ".join(" ".join((row.label, *filter(None, row.words))) for row in rows)
    return forest(
        rows,
        "Claims and measurements",
        alt=f"Claimed and measured accuracies: {words}.",
        caption=f"Hollow diamonds: claimed by a paper, on the images that it used; dashed: the interval that follows "
        f"from their number, where it is known. Filled: measured here on {SCORED}, the mean over the seeds with its 95 "
        "% interval; each seed is a tick. Squares: weights of others. Hollow circles: unfinished runs. Grey: the model "
        "was or may have been trained or selected on test images, or was made under the claimed protocol. "
        "Letters: the class of a claim.",
        columns=("accuracy", "class or runs"),
    )


def _claimed(claim: Claim) -> Row:
    n = claim.audit.n
    bounds = wilson(claim.accuracy / 100 * n, n) if isinstance(n, int) else None
    words = (f"{claim.accuracy:.2f}\u00a0%", f"class {claim.audit.comparability}")
    return Row(claim.model, claim.accuracy / 100, bounds, "claimed", words, BOARD)


def _measured(entry: Entry, group: str) -> Row:
    marks = {UNFINISHED: "unfinished", RELEASED: "released", PACKAGE: "released"}
    kind = marks.get(entry.kind, "measured")
    if not entry.decides and entry.kind != UNFINISHED:
        kind = "context"
    ticks = entry.accuracies if len(entry.runs) > 1 else ()
    what = "measured" if entry.protocol == "official" else "measured as claimed"
    label = (
        what
        if group == BOARD
        else model_name(entry.variant)
        if entry.kind != PACKAGE
        else entry.name[len("package ") :]
    )
    return Row(label, entry.accuracy, entry.interval, kind, (percent(entry.accuracy), _short(entry)), group, ticks)


def _short(entry: Entry) -> str:
    """What a line of the forest plot says beside the number, in few words."""
    if entry.kind == UNFINISHED:
        return entry.runs[0].progress.removeprefix("unfinished: ")
    if entry.kind == PACKAGE and not entry.decides:
        return leakage.UNDECIDED if entry.remark == UNDECIDED else "test images seen"
    return runs_of(entry)


def overview(comparison: Comparison) -> Html:
    """Every model with its number, what it is, its accuracy, balanced accuracy and what it costs."""
    rows = [
        [
            f"{place}  {named(entry)}{_what(entry)}",
            with_interval(entry.accuracy, entry.interval),
            percent(_mean(entry, "balanced_accuracy")),
            percent(_mean(entry, "macro_f1")),
            whole(entry.parameters, "no network"),
        ]
        for place, entry in enumerate(comparison.entries, start=1)
    ]
    header = ["Model", "Accuracy", "Balanced", "Macro F1", "Parameters"]
    caption = (
        f"Accuracy on {len(comparison.labels):,} images of {SCORED}, the mean over the seeds, with the 95 % interval "
        "of the protocol page below it. Balanced: the mean recall of the classes. The numbers before the names are "
        f"those of the pictures below. {MARK}"
    )
    body = table(header, rows, caption, range(1, 5))
    if comparison.left_out:
        lines = [[text(name), text(why)] for name, why in comparison.left_out.items()]
        body += details("Stored, but not compared here", table(["Result", "Why not"], lines))
    return Html(body, "; ".join(f"{entry.label} {percent(entry.accuracy)}" for entry in comparison.entries))


def _what(entry: Entry) -> str:
    """Below the name: of full runs that they are, and how many; the other kinds are part of the name. Markup."""
    return f"<br>{small(f'{KINDS[FULL]}, {runs_of(entry)}')}" if entry.kind == FULL else ""


def _mean(entry: Entry, name: str) -> float:
    return float(np.mean([run.score(SCORED)[name] for run in entry.runs]))


def pair_picture(pairs: Pairs) -> Figure:
    """By how many points the higher of two models is ahead, for every pair; shaded where the test finds a
    difference."""
    names, size = tick_names(pairs.entries), len(pairs.entries)
    gaps, quiet = np.full((size, size), np.nan), np.ones((size, size), dtype=bool)
    for pair in pairs.all:
        row, column = max(pair.first, pair.second), min(pair.first, pair.second)
        gaps[row, column] = 100 * pair.difference
        quiet[row, column] = not pair.different
    same = [pair for pair in pairs.family if not pair.different]
    not_apart = "; ".join(f"{_name(pairs, pair.first)} and {_name(pairs, pair.second)}" for pair in same[:12])
    more = f"; and {len(same) - 12} more" if len(same) > 12 else ""
    return pair_matrix(
        gaps,
        names,
        "Difference of accuracies in points",
        alt=f"Heat map of {count(len(pairs.all), 'pair')} of models: in {len(pairs.different)} of the "
        f"{len(pairs.family)} pairs of models that decide the test finds a difference after Holm's correction. No "
        f"difference found: {not_apart or 'none'}{more}.",
        caption=f"Each cell: how many points the higher of two models is ahead on {SCORED}. Shaded: the test finds a "
        f"difference (McNemar's exact test, every run against every run, Holm's correction, p below {LEVEL}). "
        f"Without a shade: these images do not distinguish the two, or one of them decides nothing. {MARK}",
        quiet=quiet,
    )


def pair_tables(pairs: Pairs) -> Html:
    """The test of every model against the next one by accuracy; all other pairs folded away."""
    places = [place for place, entry in enumerate(pairs.entries) if entry.decides]
    neighbours = set(zip(places, places[1:], strict=False))
    family = sorted(pairs.family, key=lambda pair: (min(pair.first, pair.second), max(pair.first, pair.second)))
    near = [pair for pair in family if (pair.first, pair.second) in neighbours]
    header = ["Higher, and below it the other", "Difference, points", "p, Holm", "p, McNemar"]
    caption = (
        f"Each model that decides and the next one by accuracy on {SCORED}: the difference of the means over the seeds "
        f"with its 95 % bootstrap interval ({pairs.draws:,} draws of images and seeds), and the largest p over all "
        f"pairs of their runs (1 where these do not agree which model is higher), after Holm's correction over "
        f"{count(len(family), 'pair')} and before it."
    )
    far = [_row(pairs, pair) for pair in family if pair not in near]
    body = table(header, [_row(pairs, pair) for pair in near], caption, (1, 2, 3))
    body += details(f"The other {count(len(far), 'pair')}", table(header, far, numeric=(1, 2, 3))) if far else ""
    said = seeds_sentence(seed_pairs(deciding := [entry for entry in pairs.entries if entry.decides]), deciding)
    return Html(body + f"<p>{text(said)}</p>", f"{pairs_sentence(pairs)} {said}")


def pairs_sentence(pairs: Pairs) -> str:
    """In how many pairs the test finds a difference, and what finding none does not show."""
    apart, family = len(pairs.different), len(pairs.family)
    lines = [f"For {apart or 'none'} of {count(family, 'pair')} the test finds a difference after Holm's correction"]
    if rest := family - apart:
        lines[0] += f"; for {rest} it finds none, which does not show that they are equal"
    if apart:
        these = f"these {apart} pairs" if apart > 1 else "1 such pair"
        lines.append(f"In {pairs.with_single_runs or 'none'} of {these} at least one of the two has a single run")
    return "".join(f"{line}. " for line in lines).strip()


def seeds_sentence(seeds: SeedPairs, entries: Sequence[Entry]) -> str:
    """What the same test says about runs of one model with different seeds."""
    if not seeds.tried:
        return "No model that decides has two runs in the same precision whose seeds differ."
    pairs = f"{seeds.found} of {count(seeds.tried, 'pair')}{_left_out(entries)}"
    return (
        "The same test between two runs of one model, trained in the same precision with different seeds, gives, "
        f"uncorrected, p below {LEVEL} in {pairs}. So a test of one run against one run compares runs, not methods; "
        "here every run of one model has to be better than every run of the other, where it has several."
    )


def _row(pairs: Pairs, pair: Pair) -> list[str]:
    adjusted = p_value(pair.adjusted)
    higher, other = (text(_name(pairs, place)).replace("/", "/<wbr>") for place in (pair.first, pair.second))
    return [
        f'{higher}<br><span class="fer-small">{other}</span>',
        points_with_interval(pair.difference, *pair.interval),
        f"<strong>{adjusted}</strong>" if pair.different else adjusted,
        p_value(pair.p),
    ]


def _name(pairs: Pairs, place: int) -> str:
    return starred(pairs.entries[place])


def ranks(pairs: Pairs) -> Html:
    """Rank intervals and groups: a picture, and the groups in words."""
    deciding = [entry for entry in pairs.entries if entry.decides]
    # Those that decide come first, so that their places are those of the picture.
    bounds = [pairs.ranks[place] for place in range(len(deciding))]
    said = "; ".join(f"{entry.name} {low} to {high}" for entry, (low, high) in zip(deciding, bounds, strict=True))
    groups = [group for group in pairs.groups if len(group) > 1]
    figure = rank_intervals(
        [f"{name}  {place}" for place, name in enumerate(tick_names(deciding), start=1)],
        bounds,
        groups,
        f"Ranks on {SCORED}",
        alt=f"Rank intervals of {count(len(deciding), 'model')}: {said}.",
        caption=f"Dots: the rank by accuracy; bars: the ranks between which a model lies in 95 % of {pairs.draws:,} "
        "draws of images and seeds. Each line on the right joins models next to each other between which "
        "the test finds no difference after Holm's correction.",
    )
    rows = [
        [str(number), text(", ".join(pairs.entries[place].name for place in group)), _range(pairs, group)]
        for number, group in enumerate(pairs.groups, start=1)
    ]
    caption = (
        "The models of a group are next to each other by accuracy, and the test finds no difference between any two of "
        "them after Holm's correction, which does not show that they are equal. A model may be in two groups."
    )
    listing = table(["Group", "Models", "Accuracies"], rows, caption)
    body = figure.figure() + (listing if len(rows) <= 12 else details(f"The {count(len(rows), 'group')}", listing))
    return Html(body, f"{count(len(pairs.groups), 'group')}: {said}")


def _range(pairs: Pairs, group: tuple[int, ...]) -> str:
    values = [pairs.entries[place].accuracy for place in group]
    return percent(values[0]) if len(values) == 1 else f"{100 * min(values):.2f} to {percent(max(values))}"


def found(comparison: Comparison, pairs: Pairs) -> list[str]:
    """Sentences for the top of the page."""
    deciding = comparison.deciding
    if len(deciding) < 2:
        return (
            [f"One model is stored that may decide: {deciding[0].name}, {accuracy(deciding[0])}."] if deciding else []
        )
    largest = max(pairs.groups, key=len)
    first = [pairs.entries[place].name for place in pairs.groups[0]]
    lines = [
        f"{count(len(deciding), 'model')} are compared on the same {len(comparison.labels):,} images of {SCORED}. "
        + pairs_sentence(pairs),
        f"The highest accuracy is that of {deciding[0].name}, {accuracy(deciding[0])}. "
        + (
            f"The test finds a difference to the next one, {deciding[1].name}."
            if len(first) == 1
            else f"The test finds no difference between any two of these {len(first)} models: {listed(first)}."
        )
        + (
            f" The largest group without such a difference has {count(len(largest), 'model')}."
            if len(largest) > len(first)
            else ""
        ),
    ]
    if line := _seeds_found(seed_pairs(deciding), deciding):
        lines.append(line)
    leaked = [one for one in comparison.others if one.kind == PACKAGE and one.remark]
    if leaked:
        said = "; ".join(f"{one.name} ({percent(one.accuracy)}, {one.remark})" for one in leaked)
        lines.append(f"Not counted, because the model was or may have been trained on test images: {said}.")
    return lines


def _left_out(entries: Sequence[Entry]) -> str:
    """The runs that `seed_pairs` leaves out, where their model has another seed to pair them with."""
    return without(one_class_runs([entry for entry in entries if len(entry.runs) > 1]))


def _seeds_found(seeds: SeedPairs, entries: Sequence[Entry]) -> str:
    """What the seeds alone change, beside what chance would; empty where no model has two runs."""
    if not seeds.tried:
        return ""
    pairs = f"{count(seeds.tried, 'pair')} of runs of one model in the same precision with different seeds"
    pairs += _left_out(entries)
    if not seeds.found:
        return f"Of {pairs}, in none the same test finds a difference with p below {LEVEL}."
    line = (
        f"Of {pairs}, {seeds.found} {'differs' if seeds.found == 1 else 'differ'} by the same test with p below "
        f"{LEVEL}, where {seeds.by_chance:.1f} would by chance: {listed(seeds.names)}."
    )
    if seeds.more_than_chance:
        line += " So for these models the seed moves an accuracy by more than the choice of the test images explains"
        also = f"; in {seeds.moved} of the pairs the machine or the version of our code differs too"
        line += f"{also if seeds.moved else ''}."
    return line
