"""One module per paper; every module lists its `VARIANTS`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from fer_repro.claims import leaderboard_claims
from fer_repro.errors import FerReproError, nearest
from fer_repro.papers.base import PROFILES, PROTOCOLS, SCRATCH, Variant

MODULES = tuple(sorted(found.name for found in iter_modules(__path__) if found.name != "base"))
"""Every module of this folder is a paper."""

__all__ = ["MODULES", "PROFILES", "PROTOCOLS", "Variant", "get", "needs", "variants"]


@cache
def variants() -> dict[str, Variant]:
    """Every variant by id, papers in the order of their names."""
    found: dict[str, Variant] = {}
    for name in MODULES:
        for variant in import_module(f"fer_repro.papers.{name}").VARIANTS:
            if variant.id in found:
                raise FerReproError(f"fer_repro/papers/{name}.py: variant id '{variant.id}' is taken; give it another")
            found[variant.id] = variant
    return found


def get(variant_id: str) -> Variant:
    """The variant called ``variant_id``; an unknown one names its nearest neighbours."""
    known = variants()
    if variant_id in known:
        return known[variant_id]
    raise FerReproError(f"unknown variant '{variant_id}': {nearest(variant_id, known)}")


def needs(variant_id: str) -> set[str]:
    """All variants whose fitted models ``variant_id`` needs, also through others."""
    direct = set(get(variant_id).requires)
    return direct.union(*(needs(other) for other in direct))


def from_scratch(variant_ids: Iterable[str], lenient: bool = False) -> list[str]:
    """Each variant's twin that starts from random weights; one that does anyway is an error, or stays (``lenient``)."""
    twins = []
    for name in variant_ids:
        twin = name if name.endswith(SCRATCH) else name + SCRATCH
        if twin not in variants() and not lenient:
            known = get(name).id
            raise FerReproError(f"{known} has no twin {known}{SCRATCH}: its official recipe starts from random weights")
        twins.append(twin if twin in variants() else name)
    return list(dict.fromkeys(twins))


def model_name(variant_id: str) -> str:
    """The leaderboard's name of a row, unless another network stands in for it; an ablation goes by its id."""
    known, listed = leaderboard_claims(), variants().get(variant_id)
    if listed is not None and listed.called:
        return listed.called
    return known[variant_id].model if variant_id in known else variant_id
