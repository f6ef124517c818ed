"""The leaderboard as a data frame: its own columns, then the verdicts and the evidence of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from fer_repro import papers
from fer_repro.claims import Claim, declared_parameters, leaderboard_claims
from fer_repro.leaderboard.evidence import Evidence, evidence_for
from fer_repro.leaderboard.stored import Stored, read_stored
from fer_repro.leaderboard.verdicts import Verdict, verdict

# The pinned leaderboard's own columns, and the fields of `LeaderboardRow` that hold them.
COLUMNS = dict(
    Paper="paper", Code="code", Accuracy="accuracy", ModelName="model", ReleaseDate="date", PaperURL="paper_url"
)
BOUNDED = ("released", "unfinished", "ablation")
NUMBERS = ("Accuracy", "claimed", "measured", "low", "high", "others_low", "others_high") + tuple(
    name + end for name in BOUNDED for end in ("", "_low", "_high")
)


def leaderboard(results_dir: Path | str | None = None) -> pd.DataFrame:
    """All claims in the leaderboard's order and columns, then our columns.

    The leaderboard's: Paper, Code, Accuracy (percent, as printed), ModelName, ReleaseDate. Ours: PaperURL, variant,
    slug, model, date, pinned (False for a paper that is not on the leaderboard), claimed (fraction 0..1),
    comparability, scored, parameters; extra_data and test_time_augmentation ("yes", "no" or "unknown"); code_remark and
    code_note, what is wrong with the link in Code and the audit's note on it (None where nothing is); for the official
    protocol measured, low, high (fractions), seeds, verdict, reason, run_date; for the claimed one the same with
    ``as_claimed_`` before the name (verdict and reason None where no such run is stored).

    The evidence beside a verdict, which changes none: ``evidence`` is the best of `evidence.KINDS` and
    ``evidence_text`` says whose number it is. released, released_low, released_high, released_on, released_variant for
    published weights scored here; unfinished, unfinished_low, unfinished_high, unfinished_epoch, unfinished_epochs for
    a run that was stopped; ablation, ablation_low, ablation_high, ablation_variant, ablation_state (None for full
    runs); others_low, others_high, others_n, others_comparable for what third parties report, by the rule of
    `claims.others.reported_range`: comparable reports where there are any.

    Missing numbers are NaN, missing texts and counts None. ``results_dir``: the project's own where empty. Raises
    `FerReproError` for a folder that does not exist and for results that cannot be read or do not belong together.
    """
    stored = read_stored(results_dir)
    table = pd.DataFrame([_row(claim, stored) for claim in leaderboard_claims().values()], dtype=object)
    numeric = [name for name in table if name.removeprefix("as_claimed_") in NUMBERS]
    whole = dict.fromkeys(("seeds", "as_claimed_seeds", "others_n"), int)
    return table.astype(dict.fromkeys(numeric, float) | whole | {"pinned": bool})


def _row(claim: Claim, stored: Stored) -> dict[str, Any]:
    official, claimed = verdict(claim, stored.runs), verdict(claim, stored.runs, "claimed")
    counted = official.parameters if official.parameters is not None else declared_parameters(claim.variant)
    variant = papers.variants().get(claim.variant)
    if variant is not None and variant.called:
        counted = None  # a stand-in was counted; the claim's own network is not published
    row = {name: getattr(claim.row, field) for name, field in COLUMNS.items()} | {
        **{name: getattr(claim, name) for name in ("variant", "slug", "model", "date", "pinned")},
        "claimed": claim.accuracy / 100,
        "comparability": claim.audit.comparability,
        "scored": claim.audit.scored,
        "parameters": counted,
        "extra_data": _answer(claim.audit.extra_data, "none"),
        "test_time_augmentation": _answer(claim.audit.views, "none"),
    }
    remark = _code_remark(claim)
    row |= {"code_remark": remark, "code_note": claim.code.note if remark else None}
    again = _measured(claimed) | ({} if claimed.n_seeds else {"verdict": None, "reason": None})
    row |= _evidence(evidence_for(claim, official, claimed, stored))
    return row | _measured(official) | {f"as_claimed_{name}": value for name, value in again.items()}


def _answer(words: str, no: str) -> str:
    """ "yes", "no" or "unknown" from an audit's words, which begin with ``no`` where there is none."""
    if words.startswith(("unknown", f"{no} known")):
        return "unknown"
    return "no" if words.startswith(no) else "yes"


def _code_remark(claim: Claim) -> str | None:
    """What is wrong with the leaderboard's link to code: it leads to another method, or to somebody else's code."""
    if claim.row.code is None:
        return None
    if claim.row.code != claim.code.url:
        return "wrong link"
    return None if claim.code.official else "not the authors’"


def _measured(found: Verdict) -> dict[str, Any]:
    low, high = found.interval or (None, None)
    row = {"measured": found.measured, "low": low, "high": high, "seeds": found.n_seeds, "verdict": found.name}
    return row | {"reason": found.reason, "run_date": found.run_date}


def _evidence(found: Evidence) -> dict[str, Any]:
    """The columns of each kind of evidence, None where it does not exist."""
    weights, own, other, reports = found.released, found.unfinished, found.ablation, found.others
    score = weights.headline if weights else None
    pairs = {
        "released": (score["accuracy"], score["interval"]) if score else None,
        "unfinished": (own.accuracy, own.interval) if own else None,
        "ablation": (other.accuracy, other.interval) if other else None,
    }
    row: dict[str, Any] = {"evidence": found.kind, "evidence_text": found.text}
    for name, pair in pairs.items():
        accuracy, bounds = pair or (None, (None, None))
        row |= {name: accuracy, f"{name}_low": bounds[0], f"{name}_high": bounds[1]}
    return row | {
        "released_on": weights.halves[-1] if weights else None,
        "released_variant": weights.variant if weights else None,
        "unfinished_epoch": own.epoch if own else None,
        "unfinished_epochs": own.epochs if own else None,
        "ablation_variant": other.variant if other else None,
        "ablation_state": (other.state or None) if other else None,
        "others_low": reports.low if reports else None,
        "others_high": reports.high if reports else None,
        "others_n": reports.n if reports else 0,
        "others_comparable": reports.comparable if reports else None,
    }


def record_line(table: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard's rows that raised the best claimed accuracy, by date (of one day, the best counts)."""
    by_day = table[table["pinned"]].sort_values(["ReleaseDate", "Accuracy"]).drop_duplicates("ReleaseDate", keep="last")
    best_before = by_day["Accuracy"].cummax().shift(fill_value=float("-inf"))
    return by_day[by_day["Accuracy"] > best_before].reset_index(drop=True)


def clean_subset(table: pd.DataFrame) -> pd.DataFrame:
    """The rows whose claims are comparable with the official protocol (class A)."""
    return table[table["comparability"] == "A"].reset_index(drop=True)
