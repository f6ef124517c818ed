"""Why a model was not run: what a full run would take, and what it needs that this project does not hold."""

from __future__ import annotations

from collections.abc import Iterable

from fer_repro import papers
from fer_repro.campaign.hours import ASSUMED, SHARES, gpu_hours
from fer_repro.claims import Claim
from fer_repro.markup import link, shell, small, text
from fer_repro.papers import SCRATCH
from fer_repro.pretrained.addresses import address
from fer_repro.recipe import Pretrained
from fer_repro.results import Result

NONE = ("none", "unknown")  # how the audit begins where no other data are known


HOW = (
    f"An estimate, not measured: counted operations at {100 * SHARES[0]:g} to {100 * SHARES[1]:g}\u00a0% of the peak "
    f"of one {ASSUMED.name} ({ASSUMED.peak['bf16'] / 1e12:g} TFLOP/s in bf16, {ASSUMED.peak['fp32'] / 1e12:g} in fp32 "
    "by its data sheet)."
)


def reasons(
    claim: Claim, runs: Iterable[Result], protocol: str = "official", how: bool = True
) -> list[tuple[str, str]]:
    """(term, markup) for everything that stands between this project and a full run of a claim's model; ``runs``: the
    full runs that are stored. With ``how`` the estimate is followed by how it was made (`HOW`)."""
    variant = papers.get(claim.variant)
    stored = frozenset(run.variant for run in runs if run.protocol == protocol and run.storable)
    missing = tuple(name for name in variant.requires if name not in stored)
    takes = _hours(claim.variant, protocol, stored)
    pairs = [("Would take", takes + (f"<br>{small(HOW)}" if how and "GPU hours" in takes else ""))]
    weights = {
        one: None for name in (claim.variant, *sorted(papers.needs(claim.variant))) if (one := _of(name, protocol))
    }
    if weights:
        pairs.append(("Needs weights", "<br>".join(map(_weights, weights))))
    elif not papers.needs(claim.variant) and not claim.audit.pretraining.startswith(NONE):
        start = f"the claim started from {claim.audit.pretraining}; a run here starts from random weights"
        pairs.append(("Other start", text(start)))
    if missing:
        names = ", ".join(f"<code>{text(name)}</code>" for name in missing)
        pairs.append(
            ("Builds on", f"{names}: not run either; the command runs {'it' if len(missing) == 1 else 'them'} first")
        )
    if not claim.audit.extra_data.startswith(NONE):
        here = getattr(papers.module_of(claim.slug), "RUNS_USE", {}).get(protocol, "FER2013 alone")
        pairs.append(("Other data", f"the claim used {text(claim.audit.extra_data)}; a run here uses {text(here)}"))
    pairs.append(("To run it", "<br>".join(_commands(claim.variant, protocol, bool(weights)))))
    return pairs


def _of(name: str, protocol: str) -> Pretrained | None:
    return papers.get(name).recipe(protocol, "full").pretrained


def _hours(variant_id: str, protocol: str, stored: frozenset[str]) -> str:
    found = gpu_hours(variant_id, protocol, stored)
    if not found.low:
        return "no GPU: the method has no network"
    amount = f"{_rounded(found.low)} to {_rounded(found.high)} GPU hours"
    if found.at_most:
        amount += " at most, as early stopping may end it sooner"
    others = len(found.names) - 1 - len(found.uncounted)
    with_others = f", the {others} networks it builds on included" if others > 1 else ""
    with_others = ", the network it builds on included" if others == 1 else with_others
    without = f"; {', '.join(found.uncounted)} comes on top, without an estimate" if found.uncounted else ""
    return text(amount + with_others + without)


def _rounded(hours: float) -> str:
    """Two significant digits; an estimate has no more."""
    return f"{float(f'{hours:.2g}'):g}"


def _weights(weights: Pretrained) -> str:
    """A file of weights: what it is, where it is to be had, its digest and licence."""
    found = address(weights)
    where = text(weights.source) + (f", {link(found, found.removeprefix('https://'))}" if found else "")
    digest = f"sha256 {weights.sha256[:16]}…" if weights.sha256 and len(weights.sha256) > 16 else ""
    digest = digest or (f"sha256 begins with {weights.sha256}" if weights.sha256 else "no digest is published")
    about = f"{weights.file}, {digest}, licence: {weights.licence}"
    return f"{text(weights.name)}, trained on {text(weights.data)}: {where}<br>{small(about)}"


def _commands(variant_id: str, protocol: str, needs_weights: bool) -> list[str]:
    command = f"fer-repro run {variant_id} --protocol {protocol} --profile full"
    shown = [shell(command)]
    if needs_weights and variant_id + SCRATCH in papers.variants():
        shown.append(f"{small('without the weights, an ablation:')} {shell(f'{command} --from-scratch')}")
    return shown
