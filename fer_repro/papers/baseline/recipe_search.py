"""The search for the baseline's recipe: what was tried, on PublicTest only, and the results.

``python -m fer_repro.papers.baseline.recipe_search`` trains every recipe of `TRIED` that is not yet in
``results/baseline/search.csv`` and adds a line for it; PrivateTest is never read. All but the first change one thing,
so the table is also a ladder: what augmentation, smoothing, averaging, learning rate and width are worth. The recipe of
`fer_repro.papers.baseline` is the best of `EARLIER`, trained for longer.
"""

from __future__ import annotations

import typer

from fer_repro.papers import baseline
from fer_repro.papers.baseline import MILD, SIZE, plain
from fer_repro.recipe import step
from fer_repro.recipe_search import Search, Tried
from fer_repro.training import loop

EPOCHS = 6
ERASE = step("erase", p=0.5, area=(0.02, 0.2))
STRONG = (
    step("flip", p=0.5),
    step("affine", degrees=20, scale=(0.75, 1.25), shift=0.1, interpolation="bilinear"),
    step("crop", size=SIZE),
)
TRIED = (
    Tried("A", "the plain recipe", plain(EPOCHS)),
    Tried("B", "A, no augmentation", plain(EPOCHS, augment=(step("centre_crop", size=SIZE),))),
    Tried("C", "A, no label smoothing", plain(EPOCHS, smoothing=0.0)),
    Tried("D", "A, no averaged weights", plain(EPOCHS, ema=None)),
    Tried("E", "A, random erasing", plain(EPOCHS, augment=(*MILD, ERASE))),
    Tried("F", "A, twice the rotation, zoom and shift", plain(EPOCHS, augment=STRONG)),
    Tried("G", "A, learning rate 0.2", plain(EPOCHS, lr=0.2)),
    Tried("H", "A, learning rate 0.05", plain(EPOCHS, lr=0.05)),
    Tried("I", "A, batches of 64", plain(EPOCHS, batch_size=64)),
    Tried(
        "J",
        "A, twice the width, half the blocks",
        plain(EPOCHS, step("PlainResNet", widths=(64, 128, 256), blocks=(1, 1, 1))),
    ),
    Tried(
        "K",
        "A, twice the width after the first stage",
        plain(EPOCHS, step("PlainResNet", widths=(32, 128, 256), blocks=(1, 1, 2))),
    ),
)
EARLIER = ("A", "D", "E", "F", "G", "H")  # the first search; the others: after the seeds of the full recipe
SEARCH = Search("baseline", TRIED, lambda splits, run: loop.fit(baseline.build, splits, run), __spec__.name)


def main(root: str = "", only: str = "", device: str = "cpu") -> None:
    """Train the recipes that are not in the file yet (``--only A``: that one)."""
    SEARCH.run(root or None, device=device, only=only or None)


if __name__ == "__main__":
    typer.run(main)
