"""What a recipe does to the first gradients and steps, as numbers: learning rates, zero gradients, clipping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.markup import Html, percent, table, text, whole
from fer_repro.recipe import Recipe, Stage, Step
from fer_repro.training.optim import make_optimiser, make_schedule
from fer_repro.training.step import norm_limit

EPSILON = 1e-8  # AdamW's
BATCHES = -(-int(OFFICIAL_COUNTS[0].sum()) // 64)  # of an epoch over Training, 64 images each

CLIPPED_COLUMNS = ("From batch", "Epoch", "Scale S", "Norm left", "Median |g|", "Step, mean", "Step, median")
CLIPPED_CAPTION = (
    "|g| / (|g| + ε) over all weights with a gradient: the share of its learning rate by which AdamW's first step "
    "moves a weight. Direction of the gradient as measured above, norm as the clipping leaves it"
)


def rates(stage: Stage, epochs: int | None = None) -> list[tuple[float, float]]:
    """(learning rate, AdamW's beta 1) of every batch of a stage in turn, from the stage's own schedule.

    ``epochs``: how many of them, of `BATCHES` each; None = all.
    """
    optimiser = make_optimiser(stage.optimiser, [nn.Parameter(torch.zeros(1))], fused=False)
    schedule = make_schedule(stage.schedule, optimiser, stage.epochs, BATCHES)
    optimiser.step()  # without a gradient it changes nothing; a scheduler warns where it is missing
    found, group = [], optimiser.param_groups[0]
    for batch in range(1, BATCHES * (epochs or stage.epochs) + 1):
        found.append((group["lr"], group["betas"][0]))
        schedule.after_batch()
        if batch % BATCHES == 0:
            schedule.after_epoch(None, None)
    return found


def zero_gradients(parts: Mapping[str, Tensor]) -> dict[str, int]:
    """How many gradients of each part are exactly 0."""
    return {name: int((gradients == 0).sum()) for name, gradients in parts.items()}


def count_rows(sizes: Mapping[str, int], zeros: Iterable[Mapping[str, int]]) -> list[list[str]]:
    """Table rows: each part's size and its numbers in ``zeros`` ("not measured" where one lacks it), then the sums."""
    columns = [sizes, *zeros]
    rows = [[text(part), *(whole(column.get(part), "not measured") for column in columns)] for part in sizes]
    return [*rows, ["all", *(whole(sum(column.values())) for column in columns)]]


def gradient_shares(parts: Mapping[str, Tensor]) -> Tensor:
    """The sizes of all gradients other than 0 over their common norm, float32 [N]."""
    gradients = torch.cat(list(parts.values()))
    return gradients[gradients != 0].abs() / gradients.norm()


def steps_left(shares: Tensor, limit: float) -> Tensor:
    """|g| / (|g| + epsilon): by which share of its learning rate AdamW's first step moves each weight.

    ``shares``: see `gradient_shares`; ``limit``: the gradients' norm after clipping.
    """
    left = shares * limit
    return left / (left + EPSILON)


@dataclass(frozen=True)
class ClippedStep:
    """AdamW's first step where gradients are clipped to the norm ``limit``.

    ``batch``: the number of updates before it, None where the limit is corrected and always the same. ``gradient``: the
    median size of a gradient. ``mean``, ``median``: of `steps_left`.
    """

    batch: int | None
    limit: float
    gradient: float
    mean: float
    median: float

    def cells(self) -> list[str]:
        """As text, in the order of `CLIPPED_COLUMNS`."""
        start = ["corrected", ""] if self.batch is None else [whole(self.batch), f"{1 + self.batch // BATCHES}"]
        left = [f"{1 / self.limit:,.0f}", f"{self.limit:.2g}", f"{self.gradient:.1e}"]
        return [*start, *left, percent(self.mean, 1), percent(self.median, 1)]


def clipped_steps(clip: Step, corrected: float, shares: Tensor) -> list[ClippedStep]:
    """The steps that are left under a recipe's "scaled" ``clip`` at its first four scales, and under ``corrected``."""

    typical = float(shares.median())

    def clipped(batch: int | None, limit: float) -> ClippedStep:
        gradient = typical * limit
        return ClippedStep(
            batch, limit, gradient, float(steps_left(shares, limit).mean()), gradient / (gradient + EPSILON)
        )

    batches = range(0, 4 * clip["every"], clip["every"])
    return [*(clipped(batch, norm_limit(clip, batch)) for batch in batches), clipped(None, corrected)]


def clipping(released: Recipe, corrected: Recipe, shares: Tensor) -> Html:
    """What is left of AdamW's first step where the gradient's norm is clipped while the loss scaler multiplies it."""
    scaled, plain = released.clip_norm, corrected.clip_norm
    assert isinstance(scaled, Step) and isinstance(plain, float), "the released recipe clips scaled gradients"
    steps = clipped_steps(scaled, plain, shares)
    body = table(CLIPPED_COLUMNS, [clipped.cells() for clipped in steps], CLIPPED_CAPTION, numeric=range(1, 7))
    return Html(body, f"AdamW's step after clipping: {percent(steps[0].mean, 1)} of it")
