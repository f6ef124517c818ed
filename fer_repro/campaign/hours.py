"""How many hours of a GPU a full run would take: its counted operations over an assumed speed. Nothing is measured."""

from __future__ import annotations

from collections.abc import Mapping
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


# Rented by the hour nearly everywhere. Dense peaks of NVIDIA's data sheet; torch computes fp32 matrix products in fp32.
ASSUMED = Hardware("NVIDIA A100", {"bf16": 312e12, "fp32": 19.5e12})
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


def gpu_hours(variant_id: str, protocol: str, fitted: frozenset[str] = frozenset()) -> Hours:
    """What a full run of a variant and of all that it builds on would take on `ASSUMED`; ``fitted``: what is there."""
    names = tuple(sorted(papers.needs(variant_id) - fitted)) + (variant_id,)
    counted = {name: _work(name, protocol) for name in names}
    known = {name: one for name, one in counted.items() if one is not None}
    peak_hours = sum(_at_peak(one, papers.get(name).recipe(protocol, "full").precision) for name, one in known.items())
    at_most = any(one.at_most for one in known.values())
    low, high = (peak_hours / share for share in reversed(SHARES))
    return Hours(low, high, at_most, names, tuple(name for name in names if name not in known))


def _at_peak(counted: Work, precision: str) -> float:
    return (counted.left(None) + counted.scoring) / ASSUMED.peak[precision] / 3600


@cache
def _work(name: str, protocol: str) -> Work | None:
    variant = papers.get(name)
    if variant.build is None:
        return None
    return work(variant, variant.recipe(protocol, "full"), dict(zip(USAGES, map(sum, OFFICIAL_COUNTS), strict=True)))
