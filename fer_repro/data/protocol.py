"""Which images train, select and are scored: the splits of FER2013 by their usage names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fer_repro.data.official import USAGES
from fer_repro.errors import FerReproError

if TYPE_CHECKING:
    from fer_repro.data.dataset import FER2013


@dataclass(frozen=True)
class Splits:
    """Three (or four) parts of one data set: what trains, what selects, what is scored.

    ``finetune`` is what a second training stage sees; it equals ``train`` unless a paper adds a test set there.
    """

    train: FER2013
    select: FER2013
    test: FER2013
    finetune: FER2013

    def held_out(self) -> dict[str, FER2013]:
        """The part that selects and the part that is scored, by the names of their usages."""
        return {"+".join(sorted(set(part.usage))): part for part in (self.select, self.test)}


@dataclass(frozen=True)
class Protocol:
    """Which usages train, select and are scored.

    ``name`` is ``official`` (train on Training, select on PublicTest, score PrivateTest once) or ``claimed``
    (as the paper's number was really made). Each role is a tuple of usage names; several names mean the merged images.
    """

    name: str
    train: tuple[str, ...] = ("Training",)
    select: tuple[str, ...] = ("PublicTest",)
    test: tuple[str, ...] = ("PrivateTest",)
    finetune: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for role in (self.train, self.select, self.test, self.finetune or ()):
            for usage in role:
                if usage not in USAGES:
                    raise FerReproError(f"protocol '{self.name}': unknown usage '{usage}', expected one of {USAGES}")

    @property
    def selects_on_test(self) -> bool:
        """True where the scored images also chose the model."""
        return bool(set(self.select) & set(self.test))

    @property
    def trains_on_test(self) -> bool:
        """True where scored images were trained on."""
        return bool(set(self.train + (self.finetune or ())) & set(self.test))

    def split(self, data: FER2013) -> Splits:
        """Cut ``data`` by usage; every role is a `FER2013` of its own, in the order of the source."""
        roles = (self.train, self.select, self.test, self.finetune or self.train)
        return Splits(*(data.subset(np.flatnonzero(np.isin(data.usage, usages))) for usages in roles))


def require_all_usages(data: FER2013) -> None:
    """Raise `FerReproError` where a modified copy has no image to train on, to select by or to score."""
    for usage, use in zip(USAGES, ("train on", "select by", "score"), strict=True):
        if not (data.usage == usage).any():
            raise FerReproError(
                f"{data.source} has no image of {usage}, so there is nothing to {use}: a run needs images of "
                f"{', '.join(USAGES)}"
            )


OFFICIAL = Protocol("official")
