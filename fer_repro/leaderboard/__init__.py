"""Claims and results side by side: one table, a verdict on each claim, and the best evidence for each model.

``verdicts`` holds the rule of a verdict, ``evidence`` what else is known of a model, ``table`` the leaderboard as a
data frame, ``audit`` everything as one JSON document, ``stored`` reads the results for them.
"""

from __future__ import annotations

from fer_repro.evaluation.statistics import mean_interval
from fer_repro.leaderboard.audit import DAMAGED, audit_json
from fer_repro.leaderboard.evidence import KINDS, Band, Evidence, baseline_band, evidence_for, released_beside
from fer_repro.leaderboard.table import clean_subset, leaderboard, record_line
from fer_repro.leaderboard.verdicts import OFFICIAL_USAGES, VERDICTS, Verdict, verdict

__all__ = [
    "DAMAGED",
    "KINDS",
    "OFFICIAL_USAGES",
    "VERDICTS",
    "Band",
    "Evidence",
    "Verdict",
    "audit_json",
    "baseline_band",
    "clean_subset",
    "evidence_for",
    "leaderboard",
    "mean_interval",
    "record_line",
    "released_beside",
    "verdict",
]
