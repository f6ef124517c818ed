"""The sections of the chapter on speed: stored measurements of ``benchmarks/`` as tables and one figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter

from fer_repro import results, speed
from fer_repro.errors import FerReproError
from fer_repro.markup import Html, note, table, text
from fer_repro.plots.figure import Figure, Theme, canvas, headline
from fer_repro.speed import tables
from fer_repro.speed.tables import NOT_MEASURED, Grid, rate, times

DEVICES = {"cpu": "CPU", "cuda": "GPU"}
# Side of the training benchmark -> its label, its mark, and its colour's name in a theme.
SIDES = {
    "reference_fp32": ("reference, fp32", "D", "claimed"),
    "reference_bf16": ("reference, bf16", "s", "extra"),
    "synthetic": ("bound: augmented before", "|", "soft"),
    "ours": ("this library", "o", "measured"),
}


class SpeedPage:
    """Stored measurements by benchmark and device; what is not stored is shown as not measured.

    ``folder``: of measurements; ``results_dir``: of the stored runs beside them; empty for the project's own.
    """

    def __init__(self, folder: str = "", results_dir: str = "") -> None:
        if folder and not Path(folder).is_dir():
            raise FerReproError(
                f"there is no folder of measurements {folder}: `fer-repro bench all --out DIR` writes one"
            )
        stored = speed.stored(Path(folder) if folder else None)
        self.measured = {key: tables.in_words_of_today(figures) for key, figures in stored.items()}
        self.results_dir = Path(results_dir) if results_dir else None

    def machines(self) -> Html:
        """What was measured when, on what, by which code."""
        rows = []
        for (name, device), figures in self.measured.items():
            used = figures["environment"]
            machine = used["gpu"] or f"{used['cpu'] or 'unknown CPU'}, {used['cores']} cores"
            made = [f"torch {used['torch']}", figures["date"][:10], figures["code_version"]]
            rows.append([name, DEVICES.get(device, device), machine, *made])
        if not rows:
            return missing("any device")
        return shown([Grid(["Benchmark", "On", "Machine", "Software", "Date", "Code"], rows)])

    def _section(self, benchmark: str, device: str, *makers: Callable[[Mapping[str, Any]], Grid]) -> Html:
        """What ``makers`` make of a stored measurement, or the sentence that there is none."""
        figures = self.measured.get((benchmark, device))
        return missing(device) if figures is None else shown([make(figures) for make in makers])

    def training(self, device: str) -> Html:
        """Images per second of this library and of the reference, network by network; what a network costs."""
        return self._section("train", device, tables.training, tables.costs)

    def whole_runs(self, device: str) -> Html:
        """The measured speed beside that of stored full runs on such a device."""
        figures = self.measured.get(("train", device))
        if figures is None:
            return missing(device)
        grid = tables.whole_runs(figures, results.read_all(self.results_dir))
        if not grid.rows:
            why = "no full run of a measured network on such a device is stored."
            return Html(f'<p class="fer-small">{text(why.capitalize())}</p>', why)
        return shown([grid])

    def picture(self, device: str) -> Figure | Html:
        """The same as a figure."""
        figures = self.measured.get(("train", device))
        return missing(device) if figures is None else sides(figures, device)

    def techniques(self, device: str) -> Html:
        """The speed of training without one technique."""
        studied = self.measured.get(("train", device), {}).get("techniques")
        return self._section("train", device, tables.techniques) if studied else missing(device)

    def evaluation(self, device: str) -> Html:
        """Scoring, both ways."""
        return self._section("evaluate", device, tables.evaluation)

    def seeds(self, device: str) -> Html:
        """Several seeds at once."""
        return self._section("seeds", device, tables.several_seeds)

    def augmentation(self) -> Html:
        """Augmentation alone, on one thread."""
        figures = self.measured.get(("augment", "cpu"))
        if figures is None:
            return missing("cpu")
        ways = {
            "batched": "batched",
            "pil_built_once": "PIL, transforms built once",
            "pil_as_released": "PIL, as released",
        }
        rows = [[name, rate(figures[key]), times(figures["batched"] / figures[key])] for key, name in ways.items()]
        header = ["Way", "Images a second", "The batched steps, times as fast"]
        return shown([Grid(header, rows, (1, 2), f"{figures['what']}. {figures['threads']} thread.")])

    def memory(self) -> Html:
        """What a batch of each network needs, counted."""
        return shown([tables.memory()])

    def goals(self) -> Html:
        """Every goal with its state; what no stored measurement covers is not measured."""
        grid = tables.goals(list(self.measured.values()))
        if not grid.rows:
            return missing("any device")
        goals, augment = shown([grid]), self.measured.get(("augment", "cpu"))
        if augment is None:
            return goals
        built_once = times(augment["batched"] / augment["pil_built_once"])
        words = (
            "The goal of the augmentation counts against PIL as released, which builds its transforms anew for every "
            f"crop. Against transforms that are built once, the batched steps are {built_once} times as fast."
        )
        return Html(f"{goals.body}<p>{text(words)}</p>", f"{goals.plain}\n{words}")


def missing(device: str) -> Html:
    """The sentence that replaces a table where no measurement is stored."""
    where = DEVICES.get(device, device)
    sentence = f"no measurement on {'a ' if where in DEVICES.values() else ''}{where} is stored."
    return Html(note(f"{NOT_MEASURED.capitalize()}:", text(sentence)), f"{NOT_MEASURED}: {sentence}")


def shown(grids: list[Grid]) -> Html:
    """Tables of text as a piece of page."""
    body = "".join(
        table(grid.header, [[text(cell, "") for cell in row] for row in grid.rows], grid.caption, grid.numeric)
        for grid in grids
    )
    plain = "\n\n".join("\n".join(" | ".join(row) for row in [grid.header, *grid.rows]) for grid in grids)
    return Html(body, plain)


def sides(figures: Mapping[str, Any], device: str) -> Figure:
    """Images per second on a logarithmic axis, one line a network: reference, bound, this library."""
    measured = [one for one in figures["networks"].values() if one.get("ours")]
    if not measured:
        raise FerReproError("the stored measurement of training holds no network that ran: measure again with --store")

    def draw(theme: Theme) -> Canvas:
        figure = canvas(7.2, 1.1 + 0.36 * len(measured))
        axes = figure.add_subplot()
        axes.grid(axis="x")
        places = np.arange(len(measured))
        for place, one in zip(places, measured, strict=True):
            ends = [one[side] for side in SIDES if one.get(side)]
            axes.plot([min(ends), max(ends)], [place, place], color=theme.line, lw=2, zorder=1)
        for side, (label, mark, colour) in SIDES.items():
            points = [(one[side], place) for place, one in zip(places, measured, strict=True) if one.get(side)]
            if points:
                tint, filled = getattr(theme, colour), side == "ours"
                look = {"color": tint} if mark == "|" else {"mec": tint, "mfc": tint if filled else theme.page}
                axes.plot(
                    *zip(*points, strict=True), mark, ms=12 if mark == "|" else 7, mew=1.7, ls="", label=label, **look
                )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.margins(x=0.06)
        axes.set_yticks(places, [one["title"] for one in measured])
        axes.set_ylim(len(measured) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        right = axes.get_yaxis_transform()
        for place, one in zip(places, measured, strict=True):
            axes.text(1.01, place, f"× {times(one.get('ratio_fp32'))}", transform=right, va="center", fontsize=9)
        axes.set_xlabel("images a second, logarithmic")
        headline(figure, f"training on a {DEVICES[device]}")
        figure.legend(loc="outside lower center", ncols=4, fontsize=8.4, columnspacing=1.4, handletextpad=0.4)
        return figure

    texts = "; ".join(
        f"{one['title']}: {rate(one['ours'])} images a second, reference in fp32 {rate(one.get('reference_fp32'))}"
        for one in measured
    )
    return Figure(
        draw,
        alt=f"Speed of training on a {DEVICES[device]}, one line a network. {texts}.",
        caption="One line a network. Right: this library as times of the reference in fp32.",
        scrolls=f"speed of training on a {DEVICES[device]}",
    )
