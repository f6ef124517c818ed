"""What has been run: every leaderboard row and every variant, with what is stored or begun of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fer_repro import leaderboard, papers, results


def states(results_dir: Path) -> list[dict[str, Any]]:
    """Every leaderboard row and every implemented variant, with its state under each protocol."""
    stored: dict[tuple[str, str], list[int]] = {}
    for folder in results.stored_folders(results_dir):
        variant, protocol, seed = folder.parts[-3:]
        stored.setdefault((variant, protocol), []).append(int(seed.removeprefix("seed-")))
    begun, known, claims = begun_runs(results_dir.parent / "runs"), papers.variants(), leaderboard.claims()
    entries = []
    for name in [*claims, *(v for v in known if v not in claims)]:
        variant = known.get(name)
        state = {}
        for protocol in papers.PROTOCOLS:
            seeds = sorted(stored.get((name, protocol), []))
            began = any(run.startswith(f"{protocol}/full/") for run in begun.get(name, []))
            state[protocol] = f"stored, seed {', '.join(map(str, seeds))}" if seeds else "begun" if began else "not run"
        entries.append(
            {
                "id": name,
                "slug": variant.slug if variant else claims[name].slug,
                "implemented": variant is not None,
                "ablation_of": variant.ablation_of if variant else None,
                "requires": list(variant.requires) if variant else [],
                "claimed": claims[name].accuracy if name in claims else None,
                "state": state if variant else dict.fromkeys(papers.PROTOCOLS, "no module yet"),
                "seeds": {protocol: sorted(stored.get((name, protocol), [])) for protocol in papers.PROTOCOLS},
            }
        )
    return entries


def begun_runs(runs_dir: Path) -> dict[str, list[str]]:
    """Variant -> its runs that have a checkpoint below ``runs_dir``, as protocol/kind/seed-n."""
    found: dict[str, list[str]] = {}
    for checkpoint in sorted(Path(runs_dir).glob("*/*/*/seed-*/checkpoint.pt")):
        variant, *rest = checkpoint.parent.relative_to(runs_dir).parts
        found.setdefault(variant, []).append("/".join(rest))
    return found
