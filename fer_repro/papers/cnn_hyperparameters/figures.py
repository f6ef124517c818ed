"""The sections of a random search inside a chapter: what was searched, every trial, and the selection gain."""

from __future__ import annotations

from fer_repro.markup import Html, details, facts, note, percent, remark_note, seconds, table, text, whole
from fer_repro.papers.cnn_hyperparameters import search, search_plots
from fer_repro.papers.cnn_hyperparameters.search_plots import Searched, columns, described
from fer_repro.plots.figure import Figure
from fer_repro.results import Result

ENOUGH = 20  # with fewer complete trials no setting's importance differs clearly from chance


def summary(result: Result) -> Html:
    """What was searched, how it went, what was chosen; every trial in a folded table."""
    searched, options = Searched.of(result), result.record["recipe"]["options"]
    states = [trial["state"] for trial in searched.trials]
    counts = ", ".join(f"{states.count(s)} {s}" for s in (search.COMPLETE, search.FAILED, search.DUPLICATE))
    first, chosen = searched.trials[0], searched.chosen
    first_value = percent(first.get("value"), missing=first["state"])
    run = f"{result.variant}, {result.protocol} protocol, {result.profile} profile, seed {result.seed}"
    pairs = [
        ("Search", text(run)),
        ("Space", f"{len(searched.space)} settings, {whole(search.size(searched.space))} configurations"),
        ("Trials", text(counts)),
        ("Epochs of a trial", text(f"at most {options['epochs']}, patience {options['patience']}")),
        ("Ranked by", text(f"{searched.select} accuracy, nothing else")),
        ("Trial 0", text(f"the published configuration{', shrunk' * (result.profile == 'smoke')}: {first_value}")),
        ("Chosen", text(f"trial {chosen['trial']}, {percent(chosen['value'])}: {described(chosen)}")),
        ("Trained in full", f"<strong>{percent(result.headline['accuracy'])}</strong> on {text(searched.test)}"),
        ("Time", seconds(result.record["cost"]["seconds"])),
    ]
    again = f"fer-repro run {result.variant} --protocol {result.protocol} --profile full"
    remark = note("Not run:", f"{text(result.note)} <code>{text(again)}</code> runs it.") if result.note else ""
    trials = details(f"All {len(searched.trials)} trials", _table(result.remark, searched))
    return Html(remark + remark_note(result.remark) + facts(pairs) + trials, f"{result.variant}: {counts}")


def _table(remark: str, searched: Searched) -> str:
    """Every trial: configuration, state, epochs, accuracies on both test sets, cost."""
    groups, rows = columns(list(searched.space)), []
    select, test = searched.select, searched.test
    for trial in searched.trials:
        settings = ["-".join(str(trial["configuration"][name]) for name in names) for names in groups.values()]
        state = trial["state"] + (f": {trial['reason']}" if trial["reason"] else "")
        scores = [percent(trial.get(usage, {}).get("accuracy"), missing="") for usage in (select, test)]
        cells = [text(trial["trial"]), *map(text, settings), text(state), text(trial.get("epochs"), ""), *scores]
        cells += [whole(trial.get("parameters"), ""), seconds(trial.get("seconds"), "")]
        rows.append([f"<strong>{cell}</strong>" for cell in cells] if trial is searched.chosen else cells)
    header = ["Trial", *groups, "State", "Epochs", select, test, "Parameters", "Time"]
    caption = f"Bold: chosen by {select}. {test} was scored after the last trial and ranked nothing."
    body = table(header, rows, caption, numeric=[0, *range(len(groups) + 2, len(header))])
    return remark_note(remark) + body


def best_so_far(result: Result) -> Figure:
    """The accuracy of each trial and the best of all up to it."""
    return search_plots.best_so_far(Searched.of(result))


def settings(result: Result) -> Html:
    """Every trial's settings and how much each setting explains, with a note where the trials are too few."""
    searched = Searched.of(result)
    count = len(searched.complete)
    figures = [search_plots.parallel_coordinates(searched)]
    if count >= search_plots.FEWEST:
        figures.append(search_plots.importance(searched))
    few = f"{count} are complete; with fewer than {ENOUGH} the order of the settings says nothing."
    remark = note("Too few trials:", text(few)) if count < ENOUGH else ""
    pictures = [figure.figure() for figure in figures]
    return Html(pictures[0] + remark + "".join(pictures[1:]), "\n".join(repr(figure) for figure in figures))


def oracle_choice(result: Result) -> Html:
    """The trial chosen by the selection set, the one that the test set would have chosen, and their gap."""
    searched = Searched.of(result)
    gain = searched.gain
    chosen, other, n = searched.chosen, searched.other, gain["n"]
    (low, high), points = (100 * end for end in gain["interval"]), f"{100 * gain['gap']:.2f} points"
    chance = search.chance_of_the_best(len(searched.complete), chosen[searched.test]["accuracy"], n)
    same = " Both test sets choose the same trial." if chosen is other else ""
    paired = f"interval {low:.2f} to {high:.2f}, paired over the {whole(n)} images of {text(searched.test)}.{same}"
    bias = f"<strong>{points}</strong>, {paired} The interval does not account for picking the better one."
    pairs = [("Selection bias", bias)]
    if chosen is not other:
        images = f"{whole(gain['only_other'])} that only trial {other['trial']} gets right, "
        images += f"{whole(gain['only_chosen'])} that only trial {chosen['trial']} does"
        pairs.append(("Images", images))
    equal = f"up to {100 * chance:.2f} points for the best of {len(searched.complete)} equally good configurations"
    pairs.append(("Chance alone", equal))
    figures = search_plots.choices(searched), search_plots.test_sets(searched)
    body = "".join(figure.figure() for figure in figures) + remark_note(result.remark) + facts(pairs)
    return Html(body, f"{figures[0]!r}\nselection bias {points}")
