"""One line per epoch, with an estimate of what is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fer_repro.training.recipe import Recipe


class Progress:
    """Says how each epoch went and how long the rest will take, judged by the last few epochs."""

    def __init__(self, recipe: Recipe, say: Callable[[str], None]) -> None:
        self.recipe, self.say = recipe, say

    def line(self, history: list[dict[str, Any]], best_epoch: int | None) -> None:
        """Print the last row of ``history``; an epoch that is the best so far gets a star."""
        row, epochs = history[-1], self.recipe.epochs
        recent = [earlier["seconds"] for earlier in history[-5:]]
        left = (epochs - row["epoch"]) * sum(recent) / len(recent)
        select = "+".join(self.recipe.protocol.select)
        score = "" if row["select_accuracy"] is None else f"  {select} {row['select_accuracy']:.2%}"
        star = "*" if best_epoch == row["epoch"] else ""
        self.say(
            f"epoch {row['epoch']}/{epochs} {row['stage']}: loss {row['loss']:.4f}  train {row['train_accuracy']:.2%}{score}{star}"
            f"  lr {row['lr']:.2g}  {duration(row['seconds'])}, {duration(left)} left"
        )


def duration(seconds: float) -> str:
    """For example "0.4 s", "45 s", "12 min", "3 h 05 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
