"""Gradients clipped while a loss scaler still multiplies them: what is left of an optimiser's step, as a table."""

from __future__ import annotations

from torch import Tensor

from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.markup import Html, percent, table, whole
from fer_repro.recipe import Step
from fer_repro.training.step import norm_limit

EPSILON = 1e-8  # AdamW's
BATCHES = -(-int(OFFICIAL_COUNTS[0].sum()) // 64)  # of an epoch over Training


def steps_left(shares: Tensor, limit: float) -> Tensor:
    """|g| / (|g| + epsilon): by which share of its rate AdamW's first step moves each weight, at a gradient norm.

    ``shares``: float32 [N], the sizes of the gradients over their common norm; ``limit``: that norm after clipping.
    """
    left = shares * limit
    return left / (left + EPSILON)


def clipped_steps(clip: Step, mended: float, shares: Tensor) -> Html:
    """The steps that are left under a recipe's "scaled" ``clip``, batch by batch, and under the norm ``mended``."""

    typical = float(shares.median())

    def row(start: str, epoch: str, limit: float) -> list[str]:
        mean, middle = float(steps_left(shares, limit).mean()), typical * limit
        size, median = f"{middle:.1e}", middle / (middle + EPSILON)
        return [start, epoch, f"{1 / limit:,.0f}", f"{limit:.2g}", size, percent(mean, 1), percent(median, 1)]

    starts = range(0, 4 * clip["every"], clip["every"])
    rows = [row(whole(done), f"{1 + done // BATCHES}", norm_limit(clip, done)) for done in starts]
    rows.append(row("mended", "", mended))
    header = ["From batch", "Epoch", "Scale S", "Norm left", "Median |g|", "Step, mean", "Step, median"]
    caption = (
        "|g| / (|g| + ε) over all weights with a gradient: the share of its learning rate by which AdamW's first step "
        "moves a weight. Direction of the gradient as measured above, norm as the clipping leaves it"
    )
    return Html(table(header, rows, caption, numeric=range(1, 7)), f"AdamW's step after clipping: {rows[0][5]} of it")
