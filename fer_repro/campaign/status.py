"""What has been run: every leaderboard row and every variant, with what is stored or begun of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fer_repro import papers, results
from fer_repro.claims import leaderboard_claims
from fer_repro.training import checkpoint
from fer_repro.training.checkpoint import CheckpointProgress


def states(
    results_dir: Path, found: tuple[list[results.Result], dict[Path, str]] | None = None
) -> list[dict[str, Any]]:
    """Every leaderboard row and every implemented variant, with its state under each protocol.

    ``found``: the `results.survey` of ``results_dir``, where it is at hand. ``damaged`` in an entry: one sentence for
    each stored result of it that cannot be read. ``released``: the names of published weights scored here.
    """
    stored: dict[tuple[str, str], list[int]] = {}
    whole, unreadable = found or results.survey(results_dir)
    released, unread = results.survey(results_dir, results.RELEASED)
    kept, torn = results.survey(results_dir, results.UNFINISHED)
    unreadable = unreadable | unread | torn
    for result in whole:
        stored.setdefault((result.variant, result.protocol), []).append(result.seed)
    lying = {folder.relative_to(results_dir).parts: problem for folder, problem in unreadable.items()}
    runs, known, claims = results_dir.parent / "runs", papers.variants(), leaderboard_claims()
    begun = begun_runs(runs)

    def state(name: str, protocol: str) -> str:
        if name not in known:
            return "no module yet"
        seeds = sorted(stored.get((name, protocol), []))
        texts = [f"stored, seed {', '.join(map(str, seeds))}"] if seeds else []
        texts += [f"{one.progress}, seed {one.seed}" for one in kept if (one.variant, one.protocol) == (name, protocol)]
        places = [place for place in lying if place[:2] in ((name, protocol), (name,), ())]
        if places:
            texts.append(
                ", ".join(["damaged", *(" ".join(place[2:]).replace("-", " ", 1) for place in places if place[2:])])
            )
        if texts:
            return "; ".join(texts)
        folders = [runs / name / run for run in begun.get(name, []) if run.startswith(f"{protocol}/full/")]
        return furthest(folders, known[name].recipe(protocol, "full").epochs) if folders else "not run"

    entries = []
    for name in dict.fromkeys([*claims, *known]):
        variant = known.get(name)
        entries.append(
            {
                "id": name,
                "slug": variant.slug if variant else claims[name].slug,
                "implemented": variant is not None,
                "ablation_of": variant.ablation_of if variant else None,
                "requires": list(variant.requires) if variant else [],
                "added": name in claims and not claims[name].pinned,
                "claimed": claims[name].accuracy if name in claims else None,
                "state": {protocol: state(name, protocol) for protocol in papers.PROTOCOLS},
                "damaged": [problem for place, problem in lying.items() if place[:1] in ((name,), ())],
                "released": [one.name for one in released if one.variant == name],
                "seeds": {protocol: sorted(stored.get((name, protocol), [])) for protocol in papers.PROTOCOLS},
            }
        )
    return entries


def furthest(folders: list[Path], epochs: int) -> str:
    """The run among ``folders`` that has finished most of its ``epochs``, as a text; "begun" where none can be read."""
    standings = [standing for folder in folders if (standing := checkpoint.peek(folder)) is not None]
    return progress(max(standings, key=lambda standing: standing.epochs), epochs) if standings else "begun"


def progress(standing: CheckpointProgress, epochs: int) -> str:
    """How far a run of ``epochs`` has come."""
    if standing.status == "running":
        return f"begun, epoch {standing.epochs} of {epochs}"
    if standing.status == "diverged":
        return f"diverged after epoch {standing.epochs} of {epochs}"
    return f"trained, {standing.epochs} of {epochs} epochs"


def begun_runs(runs_dir: Path) -> dict[str, list[str]]:
    """Variant -> its runs that have a checkpoint below ``runs_dir``, as protocol/kind/seed-n."""
    found: dict[str, list[str]] = {}
    for path in sorted(Path(runs_dir).glob("*/*/*/seed-*/checkpoint.pt")):
        variant, *rest = path.parent.relative_to(runs_dir).parts
        found.setdefault(variant, []).append("/".join(rest))
    return found
