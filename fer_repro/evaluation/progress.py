"""How far the scoring of a network has come, as lines of the log: a large one takes minutes on a processor."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from fer_repro.evaluation.tta import view_count
from fer_repro.markup import seconds
from fer_repro.recipe import Recipe

log = logging.getLogger(__name__)

EVERY = 10.0  # seconds between two lines


def inputs_of(recipe: Recipe, images: int) -> int:
    """The network's inputs when so many ``images`` are scored plain and with the recipe's test-time augmentation."""
    more = view_count(recipe.views) if recipe.views != recipe.plain else 0
    return images * (view_count(recipe.plain) + more)


@contextmanager
def scoring(model: nn.Module, total: int) -> Iterator[None]:
    """Log every `EVERY` seconds how many of the ``total`` network inputs are scored."""
    begin = last = time.monotonic()
    done = 0

    def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        nonlocal done, last
        done, now = done + len(inputs[0]), time.monotonic()
        if now - last >= EVERY and done < total:
            last = now
            left = (now - begin) / done * (total - done)
            log.info(f"scored {done:,} of {total:,} inputs, about {seconds(left)} left")

    hook = model.register_forward_hook(note)
    try:
        yield
    finally:
        hook.remove()
