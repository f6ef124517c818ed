"""A network, a data set and a recipe small enough to train in a fraction of a second."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from fer_repro.data.protocol import OFFICIAL, Splits
from fer_repro.recipe import Recipe, Selection, Stage, Views, step
from fer_repro.training.run import Run

SGD = step("sgd", lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)


def part(n: int, seed: int) -> SimpleNamespace:
    """Striped noise: the class is the dark band's place, learnable but not at once."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 7, n)
    images = rng.integers(60, 256, (n, 48, 48))
    for index, label in enumerate(labels):
        images[index, 6 * label : 6 * label + 6] //= 3
    images = images.astype(np.uint8)
    images.setflags(write=False)
    return SimpleNamespace(images=images, labels=labels)


def splits(train: int = 70, select: int = 35, finetune: int | None = None) -> Splits:
    base = part(train, 1)
    return Splits(base, part(select, 2), part(35, 3), base if finetune is None else part(finetune, 4))


class Net(nn.Module):
    """Convolution, batch norm, dropout, linear: everything that has state or draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 6, 5, stride=4), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2), nn.Flatten()
        )
        self.head = nn.LazyLinear(7)
        self(torch.zeros(2, 1, 40, 40))  # sizes the lazy layer for 40 pixels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images))


def build(recipe: Recipe) -> nn.Module:
    return Net()


RECIPE = Recipe(
    variant="small",
    network=step("Net"),
    protocol=OFFICIAL,
    stages=(
        Stage("train", 3, SGD, step("reduce-on-plateau", factor=0.5, patience=0)),
        Stage("fine-tune", 2, step("adam", lr=1e-3), step("cosine", t_max=4), images="finetune", start="last"),
    ),
    input_size=40,
    mean=0.1,
    std=0.5,
    augment=(
        step("random_resized_crop", size=48, scale=(0.8, 1.2), ratio=(3 / 4, 4 / 3)),
        step("jitter", brightness=0.3, contrast=0.3, p=0.5),
        step("translate", fraction=0.1, p=0.5),
        step("flip", p=0.5),
        step("rotate", degrees=10, p=0.5),
        step("five_crop", size=40),
        step("erase", p=0.5),
    ),
    mix=step("mixup", alpha=1.0),
    loss=step("cross-entropy", label_smoothing=0.1),
    batch_size=16,
    selection=Selection("best"),
    views=Views("ten-crop", 40, "logits"),
    plain=Views("centre-crop", 40),
    clip_norm=5.0,
    ema=0.9,
)

PLAIN = dataclasses.replace(
    RECIPE,
    stages=(Stage("train", 3, SGD),),
    augment=(step("centre_crop", size=40),),
    mix=None,
    views=Views("centre-crop", 40),
    ema=None,
)


def run(folder: Path, recipe: Recipe = RECIPE, **changes) -> Run:
    return Run(**{"recipe": recipe, "seed": 3, "device": "cpu", "folder": folder, "data_digest": "d" * 64} | changes)
