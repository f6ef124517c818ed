"""The pages of a random search inside a chapter: what was searched, every trial, what the choice was worth."""

from __future__ import annotations

from dataclasses import dataclass

from fer_repro.logs import shown
from fer_repro.markup import Html, details, facts, note, percent, seconds, synthetic_note, table, text, whole
from fer_repro.page import Chapter, EpochLineHandler
from fer_repro.papers.cnn_hyperparameters import search, search_plots
from fer_repro.papers.cnn_hyperparameters.search_plots import Searched, columns, told
from fer_repro.plots.figure import Figure
from fer_repro.results import Result

ENOUGH = 20  # below so many complete trials no setting's importance can be told from chance


def open_search(chapter: Chapter, variant: str) -> SearchPage:
    """The search ``variant`` under the chapter's parameters: its stored result, or else a smoke run (synthetic faces)."""
    from fer_repro.reproduce import reproduce

    p = chapter.parameters
    if p.variant == variant:
        return SearchPage(chapter.result)
    small = p.profile == "smoke" or p.data == "synthetic"
    with shown(EpochLineHandler()):
        result = reproduce(
            variant,
            protocol=p.protocol,
            profile="smoke" if small else "stored",
            seed=p.seed,
            data=p.data if small else "",
            device=p.device,
            results_dir=p.results_dir or None,
            resume=p.resume,
        )
    return SearchPage(result)


@dataclass
class SearchPage:
    """Sections of a chapter about one search; every number comes from the result's record."""

    result: Result

    def __post_init__(self) -> None:
        self.searched = Searched.of(self.result)

    def summary(self) -> Html:
        """What was searched, how it went, what was chosen; every trial in a folded table."""
        result, found, options = self.result, self.searched, self.result.record["recipe"]["options"]
        states = [trial["state"] for trial in found.trials]
        counts = ", ".join(f"{states.count(s)} {s}" for s in (search.COMPLETE, search.FAILED, search.DUPLICATE))
        first, chosen = found.trials[0], found.chosen
        came_out = percent(first.get("value"), missing=first["state"])
        run = f"{result.variant}, {result.protocol} protocol, {result.profile} profile, seed {result.seed}"
        pairs = [
            ("Search", text(run)),
            ("Space", f"{len(found.space)} settings, {whole(search.size(found.space))} configurations"),
            ("Trials", text(counts)),
            ("Epochs of a trial", text(f"at most {options['epochs']}, patience {options['patience']}")),
            ("Ranked by", text(f"{found.select} accuracy, nothing else")),
            ("Trial 0", text(f"the published configuration{', shrunk' * (result.profile == 'smoke')}: {came_out}")),
            ("Chosen", text(f"trial {chosen['trial']}, {percent(chosen['value'])}: {told(chosen)}")),
            ("Trained in full", f"<strong>{percent(result.headline['accuracy'])}</strong> on {text(found.test)}"),
            ("Time", seconds(result.record["cost"]["seconds"])),
        ]
        again = f"fer-repro run {result.variant} --protocol {result.protocol} --profile full"
        remark = note("Not run:", f"{text(result.note)} <code>{text(again)}</code> runs it.") if result.note else ""
        trials = details(f"All {len(found.trials)} trials", self._table())
        return Html(remark + synthetic_note(result.synthetic) + facts(pairs) + trials, f"{result.variant}: {counts}")

    def _table(self) -> str:
        """Every trial: configuration, state, epochs, accuracies on both halves, cost."""
        found, groups, rows = self.searched, columns(list(self.searched.space)), []
        for trial in found.trials:
            settings = ["-".join(str(trial["configuration"][name]) for name in names) for names in groups.values()]
            state = trial["state"] + (f": {trial['reason']}" if trial["reason"] else "")
            scores = [percent(trial.get(half, {}).get("accuracy"), missing="") for half in (found.select, found.test)]
            cost = [whole(trial.get("parameters"), ""), seconds(trial.get("seconds"), "")]
            cells = [text(trial["trial"]), *map(text, settings), text(state), text(trial.get("epochs"), "")]
            cells += [*scores, *cost]
            rows.append([f"<strong>{cell}</strong>" for cell in cells] if trial is found.chosen else cells)
        header = ["Trial", *groups, "State", "Epochs", found.select, found.test, "Parameters", "Time"]
        caption = f"Bold: chosen by {found.select}. {found.test} was scored after the last trial and ranked nothing."
        body = table(header, rows, caption, numeric=[0, *range(len(groups) + 2, len(header))])
        return synthetic_note(self.result.synthetic) + body

    def best_so_far(self) -> Figure:
        """The accuracy of each trial and the best of all up to it."""
        return search_plots.best_so_far(self.searched)

    def settings(self) -> Html:
        """Every trial through its settings, and how much each setting explains; says so where that cannot be told."""
        count = len(self.searched.complete)
        figures = [search_plots.parallel_coordinates(self.searched)]
        if count >= 3:
            figures.append(search_plots.importance(self.searched))
        few = f"{count} are complete; with fewer than {ENOUGH} the order of the settings says nothing."
        remark = note("Too few trials:", text(few)) if count < ENOUGH else ""
        pictures = [figure.figure() for figure in figures]
        return Html(pictures[0] + remark + "".join(pictures[1:]), "\n".join(repr(figure) for figure in figures))

    def pretended(self) -> Html:
        """The trial chosen by the select half, the one that the test half would have chosen, and their gap."""
        found, result = self.searched, self.searched.pretence
        chosen, other, n = found.chosen, found.other, found.pretence["n"]
        (low, high), points = (100 * end for end in result["interval"]), f"{100 * result['gap']:.2f} points"
        chance = search.chance_of_the_best(len(found.complete), chosen[found.test]["accuracy"], n)
        same = " Both halves choose the same trial." if chosen is other else ""
        pairs = [
            (
                "Selection optimism",
                f"<strong>{points}</strong>, interval {low:.2f} to {high:.2f}, paired over the {whole(n)} images of "
                f"{text(found.test)}.{same} The interval does not know that the better one was picked.",
            ),
            (
                "Chance alone",
                f"up to {100 * chance:.2f} points for the best of {len(found.complete)} equally good configurations",
            ),
        ]
        if chosen is not other:
            images = f"{whole(result['only_other'])} that only trial {other['trial']} gets right, "
            images += f"{whole(result['only_chosen'])} that only trial {chosen['trial']} does"
            pairs.insert(1, ("Images", images))
        figures = search_plots.choices(found), search_plots.halves(found)
        body = "".join(figure.figure() for figure in figures) + synthetic_note(self.result.synthetic) + facts(pairs)
        return Html(body, f"{figures[0]!r}\nselection optimism {points}")
