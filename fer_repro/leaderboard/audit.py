"""Everything the leaderboard knows as one JSON document; damaged results are named in it and stop nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from fer_repro import papers
from fer_repro.claims import CLASSES, Claim, book, declared_parameters
from fer_repro.claims.others import COMPARISONS
from fer_repro.errors import FerReproError
from fer_repro.leaderboard.evidence import evidence_for
from fer_repro.leaderboard.stored import folder, survey_stored
from fer_repro.leaderboard.verdicts import Verdict, verdict

DAMAGED = "damaged"  # no verdict: what is stored cannot be read


def audit_json(results_dir: Path | str | None = None) -> dict[str, Any]:
    """All claims and audits, JSON-ready: the pinned leaderboard, the classes, per claim its audit and verdicts.

    Of a row, ``others`` are the reports of third parties and ``others_range`` what is shown of them; ``released``:
    published weights of any of its networks that were scored here; ``unfinished``: runs that were stopped, of the same
    networks; ``evidence``: the best kind that exists. ``comparisons`` explains how a report can relate to a claim.
    ``problems``: one sentence for each stored result that cannot be read; the verdict on it is `DAMAGED`.
    """
    where, whole = folder(results_dir), book()
    stored, damaged, unread = survey_stored(where)
    problems = list((damaged | unread).values())
    lying = {path.relative_to(where).parts[:2]: problem for path, problem in damaged.items()}

    def judged(claim: Claim, protocol: str) -> Verdict:
        """The verdict; where a run of it is damaged or does not belong to the others, "damaged" with the reason."""
        problem = lying.get((claim.variant, protocol)) or lying.get((claim.variant,)) or lying.get(())
        found = Verdict(DAMAGED, problem or "", protocol, ())
        if problem is None:
            try:
                found = verdict(claim, stored.runs, protocol)
            except FerReproError as error:
                problems.append(str(error))
                found = dataclasses.replace(found, reason=str(error))
        return found

    pinned = {name: value for name, value in vars(whole).items() if name not in ("claims", "parameters")}
    rows = []
    for claim in whole.claims.values():
        official, claimed = judged(claim, "official"), judged(claim, "claimed")
        found = evidence_for(claim, official, claimed, stored)
        scored = [
            one.record["released"] | {"variant": one.variant, "scores": one.record["scores"]}
            for one in stored.released
            if claim.variant in _models(one.variant)
        ]
        stopped = [
            one.record["unfinished"]
            | {"variant": one.variant, "protocol": one.protocol, "seed": one.seed, "scores": one.record["scores"]}
            for one in stored.unfinished
            if claim.variant in _models(one.variant)
        ]
        more = {
            "parameters": declared_parameters(claim.variant),
            "verdicts": {one.protocol: dataclasses.asdict(one) for one in (official, claimed)},
            "released": scored,
            "unfinished": stopped,
            "others_range": dataclasses.asdict(found.others) if found.others else None,
            "evidence": {"kind": found.kind, "text": found.text},
        }
        rows.append(dataclasses.asdict(claim) | more)
    head = {"leaderboard": pinned, "classes": CLASSES, "comparisons": COMPARISONS}
    return head | {"rows": rows, "problems": problems}


def _models(variant: str) -> tuple[str, ...]:
    """A variant and the model it is an ablation of."""
    known = papers.variants().get(variant)
    return (variant, known.ablation_of) if known and known.ablation_of else (variant,)
