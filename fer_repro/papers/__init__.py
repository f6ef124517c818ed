"""The papers: every module and folder here is one, and lists its `VARIANTS`.

Importing this needs no torch; the modules, and torch with them, are imported when a variant is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING

from fer_repro.claims import book, leaderboard_claims
from fer_repro.errors import FerReproError, nearest

if TYPE_CHECKING:
    from fer_repro.papers.base import Variant

PROTOCOLS = ("official", "claimed")
PROFILES = ("smoke", "full", "stored")
SCRATCH = "-scratch"  # ends the id of an ablation that starts from random weights

MODULES = tuple(sorted(module.name for module in iter_modules(__path__) if module.name != "base"))
"""Every module of this folder is a paper."""

__all__ = [
    "MODULES",
    "PROFILES",
    "PROTOCOLS",
    "SCRATCH",
    "get",
    "listed",
    "module_of",
    "needs",
    "require_listed",
    "variants",
]


def listed() -> Collection[str]:
    """The ids that ``parameters`` of claims.yaml lists: every variant, but for ``<id>-scratch``."""
    return book().parameters


def require_listed(variant_id: str) -> None:
    """Refuse a misspelt id at once: `get` has to import every paper for that. Raises `FerReproError`."""
    if variant_id.removesuffix(SCRATCH) not in listed():
        raise FerReproError(f"unknown variant '{variant_id}': {nearest(variant_id, listed())}")


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
    """The variant called ``variant_id``; the error about an unknown one names the most similar ids."""
    known = variants()
    if variant_id in known:
        return known[variant_id]
    raise FerReproError(f"unknown variant '{variant_id}': {nearest(variant_id, known)}")


def module_of(slug: str) -> ModuleType:
    """The module of the paper whose chapter is called ``slug``."""
    return import_module(f"fer_repro.papers.{slug.replace('-', '_')}")


def needs(variant_id: str) -> set[str]:
    """All variants whose fitted models ``variant_id`` needs, also through others."""
    direct = set(get(variant_id).requires)
    return direct.union(*(needs(other) for other in direct))


def from_scratch(variant_ids: Iterable[str], lenient: bool = False) -> list[str]:
    """Each variant's from-scratch ablation; a variant without one is an error, or stays as it is (``lenient``)."""
    chosen = []
    for name in variant_ids:
        scratch = name if name.endswith(SCRATCH) else name + SCRATCH
        if scratch not in variants() and not lenient:
            known = get(name).id
            raise FerReproError(
                f"{known} has no from-scratch ablation {known}{SCRATCH}: its official recipe starts from random weights"
            )
        chosen.append(scratch if scratch in variants() else name)
    return list(dict.fromkeys(chosen))


def model_name(variant_id: str) -> str:
    """The leaderboard's name of a model, unless a stand-in has its own name; an ablation is called by its id."""
    known, listed = leaderboard_claims(), variants().get(variant_id)
    if listed is not None and listed.called:
        return listed.called
    return known[variant_id].model if variant_id in known else variant_id
