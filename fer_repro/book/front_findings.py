"""What was found, in a few Markdown sentences for the front page; every count and number from claims and results."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from fer_repro import papers, results
from fer_repro.claims import CLASSES
from fer_repro.leaderboard import VERDICTS, Band
from fer_repro.leaderboard.evidence import BASELINE
from fer_repro.markup import interval, percent
from fer_repro.packages import leakage
from fer_repro.packages.table import Package
from fer_repro.packages.table import table as package_table
from fer_repro.page.marks import reported
from fer_repro.results import HALVES, PACKAGE, Result

# "about 66 % test accuracy on FER2013 (the maintainer, 2019)": what its authors state, in our words, and who they are
STATED = re.compile(r"(\d+(?:\.\d+)?) % (?:test )?accuracy on FER2013")
SCORED = HALVES[-1]


def front_findings(board: pd.DataFrame, band: Band | None, results_dir: Path | None) -> str:
    """A Markdown list; sentences without anything stored behind them are left away. Paths from ``chapters/``."""
    rows = board[board["pinned"]]
    lines = [_classes(rows), *_measured(rows), *_others(rows), *_packages(results_dir), *_baseline(rows, band)]
    return "\n".join(f"- {line}" for line in lines) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is, in a cell of a table too."""
    return re.sub(r"([\\`*_{}\[\]<>|$#~])", r"\\\1", str(text))


def _classes(rows: pd.DataFrame) -> str:
    counts = {letter: int((rows["comparability"] == letter).sum()) for letter in "ABCD"}
    return (
        f"**{counts['A']} of {len(rows)} claims** are, by all that we could read, scored on the right test set, "
        f"{SCORED}, by a model selected without it. **{counts['D']}** cannot be established; {counts['B']} have "
        f"swapped test sets or a selection on the scored one, {counts['C']} used other data."
    )


def _measured(rows: pd.DataFrame) -> Iterator[str]:
    """How many models are measured, with their verdicts, and the claim that lies the furthest above our number."""
    counts = [f"{n} {name}" for name in VERDICTS if (n := int((rows["verdict"] == name).sum()))]
    full = rows[rows["measured"].notna()]
    found = f"**{len(full)} of {len(rows)} models** are measured here by full runs; verdicts: {', '.join(counts)}."
    if full.empty:
        yield found
        return
    row = full.loc[(full["claimed"] - full["measured"]).idxmax()]
    seeds = f"{row['seeds']} seed{'s' * int(row['seeds'] != 1)}"
    released = ""
    if pd.notna(row["released"]):
        other = (
            "" if row["released_variant"] == row["variant"] else f" for another network, `{row['released_variant']}`,"
        )
        released = f"; weights that others released{other} give {percent(row['released'])}"
    yield (
        f"{found} The largest difference between a claim and our measurement: {_link(row)}, claimed "
        f"{percent(row['claimed'])}, measured **{percent(row['measured'])}** ({interval((row['low'], row['high']))}, "
        f"{seeds}){released}. {_verdict(row)}"
    )


def _verdict(row: pd.Series) -> str:
    """The verdict of a measured model, and why its claim cannot be compared where that is so."""
    if row["verdict"] != "not comparable":
        return f"The verdict: {row['verdict']}."
    letter = row["comparability"]
    return (
        f"The verdict is *not comparable*, as the claim is of class {letter} ({CLASSES[letter]}): the measurement "
        "speaks neither for nor against it."
    )


def _others(rows: pd.DataFrame) -> Iterator[str]:
    """How many claims lie above every comparable report of third parties, and the furthest that we did not measure."""
    known = rows[rows["others_comparable"].fillna(False).astype(bool)]
    if known.empty:
        return
    above = known[known["claimed"] > known["others_high"]]
    start = (
        f"**{len(above)} of {len(known)} models** for which third parties report a comparable number are claimed above "
        "every report."
    )
    ours = above[above["measured"].isna()]
    if not ours.empty:
        row = ours.loc[(ours["claimed"] - ours["others_high"]).idxmax()]
        start += (
            f" The largest such difference of a model that we have not measured: {_link(row)}, claimed "
            f"{percent(row['claimed'])}, reported **{reported(row)}**."
        )
    yield start


def _packages(results_dir: Path | None) -> Iterator[str]:
    """What a package says of FER2013 and what it scores; and the score of one that was trained on the test images."""
    stored = {(one.record["package"]["name"], one.record["package"]["version"]): one for one in _stored(results_dir)}
    scored = [(p, stored[p.name, p.version]) for p in package_table().scored if (p.name, p.version) in stored]
    said = [(stated - one.score()["accuracy"], p, one, what) for p, one in scored for stated, what in _stated(p)]
    lines = []
    if said:
        _, package, one, what = max(said, key=lambda each: each[0])
        lines.append(
            f"For the package `{package.name}` its authors state {escape(what)}; on {SCORED} it scores "
            f"**{percent(one.score()['accuracy'])}** ({interval(one.score()['interval'])})."
        )
    seen = [(p, one) for p, one in scored if _has_seen(one)]
    if seen:
        package, one = max(seen, key=lambda each: each[1].score()["accuracy"])
        lines.append(
            f"`{package.name}` scores {percent(one.score()['accuracy'])} there, because it was trained on the test "
            "images."
        )
    if lines:
        yield f"{' '.join(lines)} More: [packages](packages.ipynb)."


def _stored(results_dir: Path | None) -> list[Result]:
    return results.read_all(results_dir, PACKAGE)


def _stated(package: Package) -> Iterator[tuple[float, str]]:
    for statement in package.says:
        if found := STATED.search(statement.what):
            yield float(found[1]) / 100, statement.what


def _has_seen(one: Result) -> bool:
    """Whether the rule finds that it was trained on images of a test set."""
    judged = (leakage.judge(one.score("Training"), one.score(usage), usage) for usage in HALVES)
    return any(one.verdict == leakage.SEEN for one in judged)


def _baseline(rows: pd.DataFrame, band: Band | None) -> Iterator[str]:
    if band is None:
        return
    runs = band.state or f"{len(band.seeds)} seed{'s' * (len(band.seeds) != 1)}"
    near = int((rows["claimed"] <= band.high).sum())
    recipe = papers.get(BASELINE).recipe("official", "full")
    scored = ", with test-time augmentation" if recipe.views != recipe.plain else ""
    yield (
        f"A [plain small network](baseline.ipynb) reaches **{percent(band.measured)}** on {SCORED}{scored} "
        f"({interval((band.low, band.high))}, {runs}). {near} of the {len(rows)} claims do not lie above that interval."
    )


def _link(row: pd.Series) -> str:
    return f"[{escape(row['model'])}](papers/{row['slug']}.ipynb)"
