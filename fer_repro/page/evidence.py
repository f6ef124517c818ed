"""What a published chapter shows: the best evidence on real faces that is stored for its paper, named for what it is.

In this order: the run itself, the same run unfinished, another seed of it, released weights of its network; then the
same of the paper's other variants, where an ablation that came to its end comes first.
"""

from __future__ import annotations

from pathlib import Path

from fer_repro import papers, results
from fer_repro.evaluation import cost
from fer_repro.markup import Html, shell, text, whole
from fer_repro.project import default_results_dir
from fer_repro.results import FULL, RELEASED, UNFINISHED, Result

OWN = (FULL, UNFINISHED, RELEASED)
OTHERS = (FULL, RELEASED, UNFINISHED)


def stored_run(variant: str, protocol: str, seed: int, results_dir: Path | None) -> Result | None:
    """The stored result of just that run: the full one, else the unfinished one."""
    found = (results.find(variant, protocol, seed, results_dir, kind) for kind in (FULL, UNFINISHED))
    return next((one for one in found if one is not None), None)


def best_stored(variant: str, protocol: str, seed: int, results_dir: Path | None) -> Result | None:
    """The best evidence on FER2013 for a variant and its paper, or None. One that is of something else says so in its
    ``label``, and so do its pictures; its ``note`` is the sentence for the page."""
    own = stored_run(variant, protocol, seed, results_dir)
    if own is not None:
        return own
    other = _other(variant, protocol, results_dir)
    if other is not None:
        other.label = _label(other, variant)
        other.note = (
            f"No result of {variant} under the {protocol} protocol with seed {seed} is stored. What follows is other "
            f"evidence on FER2013 ({other.label}). {_other_network(other, variant)}It decides nothing about the claim."
        )
    return other


def _other_network(result: Result, variant: str) -> str:
    """A sentence where ``result`` is of another network than that of ``variant``, else nothing: a smaller network or
    one member of an ensemble may lack what the paper is about."""
    known = papers.variants()[variant]
    recipe, used = known.recipe("official", "full"), result.record["recipe"]["network"]
    own = recipe.as_dict()["network"]
    if known.build is None or used == own:
        return ""
    counted = cost.count_parameters(cost.weightless(known.build, recipe))
    theirs = f"{used['name']} with {whole(result.record['parameters'])} parameters"
    return f"Its network is {theirs}, that of {variant} is {own['name']} with {whole(counted)}. "


def _other(variant: str, protocol: str, results_dir: Path | None) -> Result | None:
    """The best of everything else that is stored of the paper."""
    known, where = papers.variants(), Path(results_dir) if results_dir else default_results_dir()
    model = known[variant].ablation_of or variant
    whole = [name for name, v in known.items() if v.slug == known[variant].slug and name != variant]
    family = [name for name in whole if model in (name, known[name].ablation_of)]
    folders = {kind: [path.relative_to(where).parts for path in results.stored_folders(where, kind)] for kind in OWN}
    for names, kinds in (([variant], OWN), (family, OTHERS), (whole, OTHERS)):
        for kind in kinds:
            above = [(name, RELEASED if kind == RELEASED else protocol) for name in names]
            places = [parts for parts in folders[kind] if parts[:2] in above]
            if places:
                return max((results.read(where.joinpath(*parts)) for parts in places), key=_rank)
    return None


def _rank(result: Result) -> tuple[float, ...]:
    """Of one kind: the run that came furthest, then what PublicTest prefers, as the leaderboard chooses an ablation."""
    done = result.record["unfinished"]["epochs_done"] if result.unfinished else 0
    selecting = result.score("PublicTest")["accuracy"] if "PublicTest" in result.halves else 0.0
    return done, selecting, -(result.record["seed"] or 0)


def _label(result: Result, variant: str) -> str:
    """What a result is that stands in place of a run of ``variant``."""
    whose = "" if result.variant == variant else f" of {result.variant}"
    if result.kind == RELEASED:
        return f"released weights{whose}"
    if not whose:
        return f"seed {result.seed}"
    ablation = papers.get(result.variant).ablation_of is not None
    return f"ablation {result.variant}" if ablation else result.variant


def nothing_of(what: str) -> Html:
    """The quiet line of a section for which there is no evidence on real faces."""
    return Html(f'<p class="fer-small">{text(what)}: not run on real faces.</p>', f"{what}: not run on real faces")


def nothing_stored(variant: str, protocol: str) -> str:
    """What a chapter without any evidence says, and what would make some; markup."""
    command, stopped = f"fer-repro run {variant} --protocol {protocol} --profile full", ""
    if papers.get(variant).has_epochs(protocol):
        command, stopped = f"{command} --keep-unfinished", ", also by a run that is stopped before its end"
    return (
        f"<p>No evidence on real faces is stored: no run of <code>{text(variant)}</code> or of another variant of the "
        f"paper under the {text(protocol)} protocol, and no released weights. To make some{stopped}: "
        f"{shell(command)}</p>"
    )
