"""Figures of a random search, drawn from its result alone, without Optuna and without the search's journal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from fer_repro.errors import FerReproError
from fer_repro.evaluation.statistics import wilson
from fer_repro.markup import percent, whole
from fer_repro.papers.cnn_hyperparameters import search
from fer_repro.plots.figure import Figure, Theme, canvas, headline
from fer_repro.plots.forest import Row, forest
from fer_repro.results import NotRecorded, Result

SHUFFLES = 2000
FEWEST = 3  # complete trials below which no importance is computed


@dataclass(frozen=True)
class Searched:
    """A finished search as its result recorded it.

    ``trials`` are the records of `search.Search`, each complete one scored on ``select`` (the usages that ranked them)
    and ``test``; ``space`` the values of every setting; ``gain`` what `search.selection_gain` gave.
    """

    trials: list[dict[str, Any]]
    space: dict[str, tuple[Any, ...]]
    select: str
    test: str
    gain: dict[str, Any]
    fanova: dict[str, float]
    remark: str

    @classmethod
    def of(cls, result: Result) -> Searched:
        """Raises `FerReproError` for a result without trials."""
        record = result.record
        facts = record["facts"]
        if "trials" not in facts:
            raise NotRecorded(f"the result of {result.variant} holds no trials: its method searches nothing")
        space = {name: tuple(values) for name, values in record["recipe"]["options"]["space"]}
        select, test = ("+".join(record["usages"][role]) for role in ("select", "test"))
        return cls(facts["trials"], space, select, test, facts["pretence"], facts.get("fanova") or {}, result.remark)

    @property
    def complete(self) -> list[dict[str, Any]]:
        return [trial for trial in self.trials if trial["state"] == search.COMPLETE]

    @property
    def chosen(self) -> dict[str, Any]:
        """The trial chosen by the selection set."""
        return self.trials[self.gain["chosen"]]

    @property
    def other(self) -> dict[str, Any]:
        """The trial that the test set would have chosen."""
        return self.trials[self.gain["other"]]


def parallel_coordinates(searched: Searched) -> Figure:
    """One line per complete trial through its settings to its accuracy on the selection set."""
    names, trials = list(searched.space), sorted(searched.complete, key=lambda trial: trial["value"])
    values, chosen = [trial["value"] for trial in trials], searched.chosen
    low, spread = min(values), max(values) - min(values)
    ends = [(value - low) / spread if spread else 0.5 for value in values]

    def height(name: str, value: Any) -> float:
        choices = searched.space[name]
        return choices.index(value) / max(1, len(choices) - 1)

    def draw(theme: Theme) -> Canvas:
        figure = canvas(8.2, 3.9)
        axes = figure.add_subplot()
        tint = LinearSegmentedColormap.from_list("tint", [theme.line, theme.measured])
        for index, (trial, end) in enumerate(zip(trials, ends, strict=True)):
            # Equal settings would lie on one another: every trial has a small offset of its own.
            aside = 0.05 * (index / max(1, len(trials) - 1) - 0.5)
            style = {"color": to_hex(tint(0.15 + 0.85 * end)), "lw": 1.2, "zorder": 1 + end}
            if trial is chosen:
                first = ", published" if trial["trial"] == 0 else ""
                label = f"trial {trial['trial']}{first}, chosen"
                style = {"color": theme.clean, "lw": 2.6, "zorder": 4, "label": label}
            elif trial["trial"] == 0:
                style = {"color": theme.claimed, "lw": 2, "ls": "--", "zorder": 3, "label": "trial 0, published"}
            heights = [height(name, trial["configuration"][name]) + aside for name in names]
            axes.plot(range(len(names) + 1), [*heights, end], **style)
        beside = {"textcoords": "offset points", "va": "center"}
        box = {"facecolor": theme.page, "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
        for place, name in enumerate(names):
            axes.axvline(place, color=theme.line, lw=0.8, zorder=0)
            for value in searched.space[name]:
                style = {"fontsize": 7.2, "zorder": 5, "bbox": box}
                axes.annotate(f"{value}", (place, height(name, value)), (3, 0), **style, **beside)
        last = len(names)
        axes.axvline(last, color=theme.ink, lw=1)
        for end in (0.0, 1.0) if spread else (0.5,):
            axes.annotate(percent(low + end * spread), (last, end), (4, 0), fontsize=8, **beside)
        heads = [*(name.replace("_", "\n") for name in names), f"{searched.select}\naccuracy"]
        axes.set_xticks(range(last + 1), heads, fontsize=7.6)
        axes.set(xlim=(-0.1, last + 0.6), ylim=(-0.08, 1.08), yticks=[])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        headline(figure, "Every trial, from its settings to its accuracy")
        figure.legend(fontsize=8.2, loc="outside lower left", ncols=2)
        return figure

    return Figure(
        draw,
        scrolls="every trial",
        alt=f"Parallel coordinates of {len(trials)} trials over {', '.join(names)}; accuracy on {searched.select} from "
        f"{percent(low)} to {percent(low + spread)}. Chosen: trial {chosen['trial']}, {described(chosen)}.",
        caption=f"The stronger the blue, the higher the {searched.select} accuracy. Failed trials have no line.",
        remark=searched.remark,
    )


def importance(searched: Searched) -> Figure:
    """How much of the variance between trials each setting alone explains, and how much it would by chance.

    Raises `FerReproError` for fewer than `FEWEST` complete trials.
    """
    if len(searched.complete) < FEWEST:
        raise FerReproError(f"{len(searched.complete)} complete trials: importance needs at least {FEWEST}")
    shares = explained(searched.complete, searched.space)
    order = sorted(shares, key=lambda name: -shares[name][0])

    def draw(theme: Theme) -> Canvas:
        figure = canvas(7.2, 0.9 + 0.29 * len(order))
        axes = figure.add_subplot()
        beside = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "va": "center"}
        axes.barh(range(len(order)), [100 * shares[name][1] for name in order], 0.62, color=theme.line)
        for place, name in enumerate(order):
            share, chance = shares[name]
            fill = theme.measured if share > chance else theme.page
            axes.plot(100 * share, place, "o", ms=6.5, mew=1.6, color=theme.measured, mfc=fill)
            fitted = percent(searched.fanova.get(name), 0)
            axes.annotate(fitted, (1, place), (12, 0), fontsize=8.6, **beside)
        axes.annotate("fANOVA", (1, -0.95), (12, 0), fontsize=8.6, color=theme.soft, **beside)
        axes.set_yticks(range(len(order)), [name.replace("_", " ") for name in order])
        axes.set(xlim=(0, 102), ylim=(len(order) - 0.4, -1.3), xlabel="share of the variance between trials, %")
        axes.tick_params(axis="y", length=0)
        headline(figure, "Which settings mattered?")
        return figure

    listed = "; ".join(f"{n} {percent(shares[n][0], 0)} against {percent(shares[n][1], 0)}" for n in order)
    return Figure(
        draw,
        scrolls="importance of the settings",
        alt="Importance: the share of the variance between trials that each setting explains, against what 95 % of "
        f"random reorderings stay below: {listed}.",
        caption="Dots: variance between the mean accuracies of a setting's values, as a share of the whole. Grey: what "
        f"95 % of {whole(SHUFFLES)} random reorderings of the accuracies stay below. Filled dots lie beyond it; among "
        f"{len(order)} settings without any effect {0.05 * len(order):.2g} would be expected to. At the right: "
        "Optuna's fANOVA, whose shares sum to 100 % whether or not there is an effect.",
        remark=searched.remark,
    )


def best_so_far(searched: Searched) -> Figure:
    """The accuracy of each trial on the selection set, and the best of all up to it."""
    complete, last = searched.complete, searched.trials[-1]["trial"]
    numbers, values = ([trial[key] for trial in complete] for key in ("trial", "value"))
    failed = [trial["trial"] for trial in searched.trials if trial["state"] == search.FAILED]
    heights = np.maximum.accumulate(values)

    def draw(theme: Theme) -> Canvas:
        figure = canvas(7.2, 3.0)
        axes = figure.add_subplot()
        axes.grid(axis="y")
        curve = 100 * np.append(heights, heights[-1])
        axes.step([*numbers, last], curve, where="post", color=theme.clean, lw=1.8, label="best so far")
        axes.plot(numbers, 100 * np.array(values), "o", ms=5, color=theme.measured, label="trial")
        if 0 in numbers:
            mark = {"ms": 9, "mew": 1.6, "mfc": "none", "label": "the published\nconfiguration"}
            axes.plot(0, 100 * values[0], "D", color=theme.claimed, **mark)
        if failed:
            low = [0.03] * len(failed)
            mark = {"ms": 6, "mew": 1.6, "label": "failed", "transform": axes.get_xaxis_transform()}
            axes.plot(failed, low, "x", color=theme.soft, **mark)
        axes.set(xlabel="trial", xlim=(-0.5, last + 0.5), title=f"{searched.select} accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
        axes.legend(fontsize=8.2, loc="center left", bbox_to_anchor=(1, 0.5))
        return figure

    ending = f" Failed: {len(failed)} trials." if failed else ""
    return Figure(
        draw,
        scrolls="best accuracy so far",
        alt=f"Best {searched.select} accuracy so far over {len(numbers)} complete trials: {percent(values[0])} after "
        f"the first, {percent(heights[-1])} after the last, reached by trial {searched.chosen['trial']}.{ending}",
        caption="Where the curve is flat, more trials gave no gain.",
        remark=searched.remark,
    )


def choices(searched: Searched) -> Figure:
    """The trial chosen by the selection set beside the one that the test set would have chosen, with intervals."""
    rows = []
    for trial, usage, ranked_by, kind in (
        (searched.chosen, searched.select, searched.select, "context"),
        (searched.chosen, searched.test, searched.select, "clean"),
        (searched.other, searched.test, searched.test, "claimed"),
    ):
        score = trial[usage]
        label = f"{usage}, " + ("the number that ranked it" if usage == ranked_by else "scored afterwards")
        cells = (percent(score["accuracy"]), f"{trial['trial']}")
        bounds = wilson(score["correct"], score["n"])
        rows.append(Row(label, score["accuracy"], bounds, kind, cells, f"chosen by {ranked_by}"))
    return forest(
        rows,
        f"Test-set selection bias: choosing on {searched.test}",
        alt="; ".join(f"{row.group}, trial {row.words[1]}, on {row.label}: {row.words[0]}" for row in rows)
        + f". Selection bias: {100 * searched.gain['gap']:.2f} points.",
        caption="Short trainings of the search, before the chosen configuration is trained in full. Hollow: what a "
        f"report would claim that had ranked its trials on {searched.test}. Bars: Wilson 95 %.",
        columns=("accuracy", "trial"),
        remark=searched.remark,
    )


def test_sets(searched: Searched) -> Figure:
    """The accuracies of every trial on both test sets, with the two choices marked."""
    pair = (searched.select, searched.test)
    both = 100 * np.array([[trial[usage]["accuracy"] for usage in pair] for trial in searched.complete])
    known = len(both) > 2 and both.std(axis=0).all()
    correlation = f"{np.corrcoef(both.T)[0, 1]:.2f}" if known else "unknown"

    def mark(axes: Axes, trial: Mapping[str, Any], shape: str, size: float, colour: str, chosen_by: str) -> None:
        x, y = (100 * trial[usage]["accuracy"] for usage in pair)
        axes.plot(x, y, shape, ms=size, mew=1.8, mfc="none", color=colour, label=f"chosen by {chosen_by}")

    def draw(theme: Theme) -> Canvas:
        figure = canvas(7.2, 3.4)
        axes = figure.add_subplot()
        axes.grid()
        ends = [both.min() - 0.5, both.max() + 0.5]
        axes.plot(ends, ends, color=theme.line, lw=1.4, label="equal on both")
        axes.plot(both[:, 0], both[:, 1], "o", ms=5, color=theme.measured, label="trial")
        mark(axes, searched.chosen, "o", 12, theme.clean, searched.select)
        mark(axes, searched.other, "D", 9, theme.claimed, searched.test)
        axes.set(xlabel=f"{searched.select} accuracy, %", ylabel=f"{searched.test} accuracy, %")
        axes.legend(fontsize=8.2, loc="center left", bbox_to_anchor=(1, 0.5))
        return figure

    return Figure(
        draw,
        scrolls="accuracies of all trials",
        alt=f"{pair[1]} against {pair[0]} accuracy of {len(both)} trials; correlation {correlation}.",
        caption=f"Each dot is a trial. Correlation of the two accuracies over the trials: {correlation}.",
        remark=searched.remark,
    )


def described(trial: Mapping[str, Any]) -> str:
    """A configuration as text: "conv 256-512-384-192-384, kernel 3, ..."."""
    configuration = trial["configuration"]
    groups = columns(list(configuration))
    return ", ".join(f"{head} {'-'.join(str(configuration[n]) for n in names)}" for head, names in groups.items())


def columns(names: Sequence[str]) -> dict[str, list[str]]:
    """Names that differ in their last digits share a column: conv1 to conv5 become "conv"."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"\d+$", "", name).replace("_", " "), []).append(name)
    return groups


def explained(trials: Sequence[Mapping[str, Any]], space: Mapping[str, tuple]) -> dict[str, tuple[float, float]]:
    """For each setting: the share of the trials' variance that lies between its values, and what 95 % of random
    reorderings of the accuracies stay below (the share that a setting without effect reaches by chance)."""
    values = np.array([trial["value"] for trial in trials])
    rng = np.random.default_rng(0)
    orders = np.stack([values, *(rng.permutation(values) for _ in range(SHUFFLES))])
    centred = orders - values.mean()
    total = float((centred[0] ** 2).sum())
    shares_of = {}
    for name, choices in space.items():
        member = np.array([[trial["configuration"][name] == choice for trial in trials] for choice in choices], float)
        member = member[member.sum(axis=1) > 0]
        between = ((centred @ member.T) ** 2 / member.sum(axis=1)).sum(axis=1)
        shares = between / total if total else np.zeros(len(orders))
        shares_of[name] = float(shares[0]), float(np.quantile(shares[1:], 0.95))
    return shares_of
