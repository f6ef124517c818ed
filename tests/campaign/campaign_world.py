"""A book of four tiny variants on noise with FER2013's counts, so that full runs end in moments and may be stored.

In a test: `install` with pytest's monkeypatch. As a program it is ``fer-repro`` in that world:
``python tests/campaign_world.py run --all ...``; with ``--without NAME,NAME`` first, those packages cannot be imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn

TRAINING = 96  # images; the halves are as large as FER2013's, because stored results are held to its counts
EPOCHS = 4


@cache
def faces() -> Any:
    """Noise whose class is a dark band's place, called fer2013."""
    from fer_repro.data import FER2013, USAGES
    from fer_repro.data.official import OFFICIAL_COUNTS, digest

    rng = np.random.default_rng(0)
    sizes = [np.full(7, TRAINING // 7 + 1), *OFFICIAL_COUNTS[1:]]
    labels = np.concatenate([rng.permutation(np.repeat(np.arange(7), size)) for size in sizes])
    usage = np.repeat(USAGES, [size.sum() for size in sizes])
    images = rng.integers(60, 256, (len(labels), 48, 48), dtype=np.uint8)
    for label in range(7):
        images[labels == label, 6 * label : 6 * label + 6] //= 2
    codes = np.repeat(np.arange(3), [size.sum() for size in sizes])
    ids = np.array([f"noise-{index}" for index in range(len(labels))])
    return FER2013(images, labels, usage, ids, "fer2013", "noise", digest(images, labels, codes))


def build(recipe: Any) -> nn.Module:
    width = recipe.network["width"]
    return nn.Sequential(nn.Flatten(), nn.Linear(48 * 48, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 7))


def recipe(protocol: str, profile: str, name: str, width: int, patience: int | None = None) -> Any:
    from fer_repro.data.protocol import Protocol
    from fer_repro.recipe import Recipe, Stage, step

    return Recipe(
        variant=name,
        network=step("tiny", width=width),
        protocol=Protocol(protocol),
        batch_size=16,
        stages=(Stage("train", EPOCHS, step("sgd", lr=0.01), patience=patience),),
        augment=(step("flip", p=0.5),),
    )


def fit(splits: Any, run: Any) -> Any:
    from fer_repro.training import loop

    torch.set_num_threads(1)
    return loop.fit(build, splits, run)


def variants() -> dict[str, Any]:
    """``large`` and ``small`` are rows, ``pupil`` is a row that needs ``large``, ``aside`` is an ablation."""
    from fer_repro.papers.base import Variant

    def variant(name: str, width: int, patience: int | None = None, **more: Any) -> Variant:
        made = partial(recipe, name=name, width=width, patience=patience)
        return Variant(name, "vggnet", made, fit, build, **more)

    made = (
        variant("large", 64),
        variant("small", 16, patience=EPOCHS),
        variant("pupil", 8, requires=("large",)),
        variant("aside", 4, ablation_of="small"),
    )
    return {each.id: each for each in made}


def install(set_attribute: Callable[[Any, str, Any], None]) -> None:
    """Put the four variants and the noise in place of the real ones; ``set_attribute`` as monkeypatch.setattr."""
    from fer_repro import data, papers, reproduce
    from fer_repro.campaign import throughput

    known, noise, measure = variants(), faces(), throughput.matmul_speed
    set_attribute(reproduce, "code_version", lambda: "a test")
    set_attribute(throughput, "matmul_speed", lambda device: measure(device, seconds=0.01))
    set_attribute(papers, "variants", lambda: known)
    set_attribute(papers, "listed", lambda: known)
    set_attribute(data, "load", lambda *_, **__: noise)


class Absent:
    """An importer for which some packages are not installed."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[0] == "--without":
        sys.meta_path.insert(0, Absent(words[1].split(",")))
        words = words[2:]
    install(setattr)
    from fer_repro.cli import main

    main(words)
