"""What we found on the pages that show more than one paper: the leaderboard, and the chapter on pretraining."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from fer_repro.leaderboard import KINDS, VERDICTS, Band
from fer_repro.markup import Html, interval, percent, text
from fer_repro.page.findings import against, bullets

# What a model shows that has no full run, by the kind of its best evidence.
SHOWN = {
    "released": "released weights that were scored here",
    "unfinished": "an unfinished run",
    "ablation": "an ablation",
    "others": "what others report",
    "none": "no measurement at all",
}


def leaderboard_findings(board: pd.DataFrame, band: Band | None = None) -> Html:
    """Sentences on all rows of the pinned leaderboard. ``board``: `leaderboard`; ``band``: the plain baseline's."""
    rows = board[board["pinned"]]
    lines = [_verdicts(rows), *_measured(rows), _evidence(rows), _classes(rows), *_reports(rows)]
    lines += [_baseline(rows, band)] if band else []
    undecided = rows[rows["verdict"].isin(("not run", "not comparable"))]
    lines.append(
        f"Not decided: {_count(len(undecided), 'claim')} of {len(rows)}, those that were not run or are not comparable."
    )
    return bullets(lines)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def _names(models: Iterable[str]) -> str:
    return ", ".join(text(model) for model in models)


def _verdicts(rows: pd.DataFrame) -> str:
    counts = [(name, int((rows["verdict"] == name).sum())) for name in VERDICTS]
    listed = ", ".join(f"{n} {name}" for name, n in counts if n)
    return f"Of {_count(len(rows), 'claim')}, <strong>{listed}</strong>."


def _measured(rows: pd.DataFrame) -> list[str]:
    """A sentence for each model with full runs, the largest gap first."""
    known = rows[rows["measured"].notna()].assign(gap=lambda frame: frame["claimed"] - frame["measured"])
    return [
        f"{text(row.ModelName)} is claimed at {percent(row.claimed)} and measured at <strong>{percent(row.measured)}"
        f"</strong> ({interval((row.low, row.high))}). The claim is "
        f"{against(row.claimed, row.measured, 'the measurement')}."
        for row in known.sort_values("gap", ascending=False).itertuples()
    ]


def _evidence(rows: pd.DataFrame) -> str:
    counts = [(kind, int((rows["evidence"] == kind).sum())) for kind in KINDS if kind in SHOWN]
    stopped = int((rows["evidence"].eq("ablation") & rows["ablation_state"].notna()).sum())
    notes = {"ablation": f" ({stopped} of them unfinished)"} if stopped else {}
    listed = "; ".join(f"{SHOWN[kind]} for {n}{notes.get(kind, '')}" for kind, n in counts if n)
    full = int((rows["evidence"] == "full").sum())
    have = f"{_count(full, 'model')} {'have' if full != 1 else 'has'} a full run"
    return f"{have}. The best evidence of the others: {listed}." if listed else f"{have}."


def _classes(rows: pd.DataFrame) -> str:
    best, clean = rows.loc[rows["claimed"].idxmax()], rows[rows["comparability"] == "A"]
    if clean.empty:
        return "No claim was made on the official split with a clean selection (class A)."
    first = clean.loc[clean["claimed"].idxmax()]
    were = "were" if len(clean) != 1 else "was"
    return (
        f"{_count(len(clean), 'claim')} of {len(rows)} {were} made on the official split with a clean selection (class "
        f"A). The best of them is {text(first.ModelName)} with {percent(first.claimed)}; "
        f"the best claim of all, {text(best.ModelName)} with {percent(best.claimed)}, is of class {best.comparability}."
    )


def _reports(rows: pd.DataFrame) -> list[str]:
    """How the claims lie against what third parties report, where that can be compared."""
    known = rows[rows["others_comparable"].fillna(False).astype(bool) & rows["others_high"].notna()]
    if known.empty:
        return []
    above = known[known["claimed"] > known["others_high"]]
    who = f": {_names(above['ModelName'])}" if len(above) else ""
    some = f"for {len(above) or 'none'} of them"
    which = some if len(above) < len(known) else f"for all {len(known)}" if len(known) > 1 else "for it"
    return [
        f"Third parties report numbers that can be compared for {_count(len(known), 'model')}; {which} the claim lies "
        f"above every report{who}."
    ]


def _baseline(rows: pd.DataFrame, band: Band) -> str:
    near = rows[rows["claimed"] <= band.high]
    said = (
        f"{_count(len(near), 'claim')} of {len(rows)} {'do' if len(near) != 1 else 'does'} not lie above that interval"
    )
    return (
        f'A <a href="baseline.html">plain baseline</a> gives {percent(band.measured)} '
        f"({interval((band.low, band.high))}{'; ' + text(band.state) if band.state else ''}). {said}"
        f"{f': {_names(near.ModelName)}' if len(near) else ''}."
    )


def pair_findings(names: Sequence[str], gains: Sequence[tuple[str, float, float]]) -> Html:
    """Whether the run that starts from pretrained weights (first of ``names``) is better on every test set of
    ``gains``: (test set, difference, McNemar's p)."""
    if not gains:
        return bullets(["Nothing was found yet: the two runs of the pair are not both stored."])
    clear = [gain for _, gain, p in gains if p < 0.05 and gain > 0]
    lines = [
        f"On {text(usage)} the run {text(names[0])} gives {against(gain, 0, f'the run {text(names[1])}')}."
        for usage, gain, _ in gains
    ]
    both = "on every test set" if len(clear) == len(gains) else f"on {len(clear)} of {len(gains)} test sets"
    lines.append(f"The gain is more than chance {both} (McNemar’s test, p below 0.05).")
    lines.append(
        "Not decided: what longer training or another seed would leave of it. One pair of short runs is stored."
    )
    return bullets(lines)
