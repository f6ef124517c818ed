"""One module per paper; every module lists its `VARIANTS`."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from fer_repro.errors import FerReproError, nearest
from fer_repro.papers.base import PROFILES, PROTOCOLS, Variant

MODULES = (
    "vggnet", "resnet18_tricks", "local_learning_bow", "resemotenet", "mini_resemotenet",
    "deep_emotion", "ad_corre", "cnn_hyperparameters", "efficientfer", "segmentation_vgg19",
    "residual_masking", "sdafe", "lhc_net", "deep_and_handcrafted", "emonext",
)  # fmt: skip

__all__ = ["MODULES", "PROFILES", "PROTOCOLS", "Variant", "get", "needs", "variants"]


@cache
def variants() -> dict[str, Variant]:
    """Every variant by id, in the order of `MODULES`."""
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
