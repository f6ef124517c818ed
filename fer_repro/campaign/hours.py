"""How many hours of a GPU a full run would take: its counted operations over an assumed speed. Nothing is measured."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from fer_repro import papers
from fer_repro.campaign.estimate import Work, work
from fer_repro.data import USAGES
from fer_repro.data.official import OFFICIAL_COUNTS


@dataclass(frozen=True)
class Hardware:
    """A device by its data sheet: ``peak`` operations per second by precision."""

    name: str
    peak: Mapping[str, float]


# Dense peaks of NVIDIA's data sheets; torch computes fp32 matrix products in fp32. A T4 has no bf16: what a recipe
# allows in bf16 is computed in fp16 there.
T4 = Hardware("NVIDIA T4", {"bf16": 65e12, "fp32": 8.1e12})
A100 = Hardware("NVIDIA A100", {"bf16": 312e12, "fp32": 19.5e12})
H200 = Hardware("NVIDIA H200", {"bf16": 989e12, "fp32": 67e12})
DEVICES = (T4, A100, H200)
ASSUMED = A100  # where one device stands for all: it is rented by the hour nearly everywhere
# Of that peak: small layers and batches reach the lower share or less, large convolutions the higher one.
SHARES = (0.02, 0.2)


@dataclass(frozen=True)
class Hours:
    """GPU hours of one full run and of the ``names`` it builds on, at the higher and the lower of `SHARES`.

    ``at_most``: early stopping may end it sooner. ``uncounted``: parts of it that have no network to count.
    """

    low: float
    high: float
    at_most: bool
    names: tuple[str, ...]
    uncounted: tuple[str, ...]


def gpu_hours(
    variant_id: str, protocol: str, fitted: frozenset[str] = frozenset(), hardware: Hardware = ASSUMED
) -> Hours:
    """What a full run of a variant and of all that it builds on would take; ``fitted``: what is there already."""
    names = tuple(sorted(papers.needs(variant_id) - fitted)) + (variant_id,)
    counted = {name: _work(name, protocol) for name in names}
    known = {name: one for name, one in counted.items() if one is not None}
    peak_hours = sum(
        _at_peak(one, hardware.peak[papers.get(name).recipe(protocol, "full").precision]) for name, one in known.items()
    )
    at_most = any(one.at_most for one in known.values())
    low, high = (peak_hours / share for share in reversed(SHARES))
    return Hours(low, high, at_most, names, tuple(name for name in names if name not in known))


def hours_of_all(names: Collection[str], protocols: Iterable[str], hardware: Hardware = ASSUMED) -> Hours:
    """One seed of each of ``names`` under each protocol, with what they build on, each network once."""
    whole = sorted(set(names).union(*map(papers.needs, names)))
    each = [
        gpu_hours(name, protocol, frozenset(papers.needs(name)), hardware) for protocol in protocols for name in whole
    ]
    uncounted = tuple(dict.fromkeys(name for one in each for name in one.uncounted))
    low, high = sum(one.low for one in each), sum(one.high for one in each)
    return Hours(low, high, any(one.at_most for one in each), tuple(whole), uncounted)


def _at_peak(counted: Work, peak: float) -> float:
    return (counted.left(None) + counted.scoring) / peak / 3600


@cache
def _work(name: str, protocol: str) -> Work | None:
    variant = papers.get(name)
    if variant.build is None:
        return None
    return work(variant, variant.recipe(protocol, "full"), dict(zip(USAGES, map(sum, OFFICIAL_COUNTS), strict=True)))
