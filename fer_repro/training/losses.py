"""Losses by name: functions of the network's output and the targets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from fer_repro.errors import FerReproError
from fer_repro.layers import logits_of
from fer_repro.recipe import Step, bind

CLASSES = 7

Loss = Callable[[Tensor | tuple[Tensor, ...], Tensor], Tensor]
"""(output, targets) -> scalar; targets are int64 [B], or float [B,7] where the batch was mixed."""


def soft(targets: Tensor) -> Tensor:
    """int64 [B] -> float32 one-hot [B,7]; soft targets stay."""
    if targets.is_floating_point():
        return targets
    return torch.eye(CLASSES, device=targets.device)[targets]


class CrossEntropy(nn.Module):
    """Mean cross-entropy over the batch, hard or soft targets.

    ``label_smoothing`` s in torch's sense: the target becomes (1 - s) y + s/7. A paper that gives s' to the six wrong
    classes means s = 7 s'/6. ``class_weights``: one factor per class, normalised over the batch as torch does.
    """

    weight: Tensor | None

    def __init__(self, label_smoothing: float = 0.0, class_weights: tuple[float, ...] | None = None) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing < 1.0:
            raise FerReproError(
                f"label_smoothing is {label_smoothing}, expected a number from 0 up to but not including 1"
            )
        if class_weights is not None and len(class_weights) != CLASSES:
            raise FerReproError(
                f"class_weights has {len(class_weights)} numbers, expected one for each of {CLASSES} classes"
            )
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", None if class_weights is None else torch.tensor(class_weights))

    def forward(self, output: Tensor | tuple[Tensor, ...], targets: Tensor) -> Tensor:
        logits = logits_of(output)
        return functional.cross_entropy(logits, targets, weight=self.weight, label_smoothing=self.label_smoothing)


class Focal(nn.Module):
    """w_y (1 - p_y)^gamma (-log p_y), its plain mean over the batch (Lin et al. 2017); hard targets.

    ``class_weights``: one factor w per class; the mean is not divided by their sum.
    """

    weight: Tensor

    def __init__(self, gamma: float = 2.0, class_weights: tuple[float, ...] = (1.0,) * CLASSES) -> None:
        super().__init__()
        if len(class_weights) != CLASSES:
            raise FerReproError(
                f"class_weights has {len(class_weights)} numbers, expected one for each of {CLASSES} classes"
            )
        self.gamma = gamma
        self.register_buffer("weight", torch.tensor(class_weights))

    def forward(self, output: Tensor | tuple[Tensor, ...], targets: Tensor) -> Tensor:
        log_p = logits_of(output).log_softmax(dim=1).gather(1, targets[:, None]).squeeze(1)
        return -(self.weight[targets] * (1 - log_p.exp()).pow(self.gamma) * log_p).mean()


def spread(weights: Tensor) -> Tensor:
    """Variance of all attention weights [N,N] about their mean, which is 1/N: from 0 to (1/N)(1 - 1/N)."""
    return (weights - weights.mean()).square().mean()


class SmoothedWithSpread(nn.Module):
    """Cross-entropy with smoothed labels plus ``weight`` times the `spread` of the attention (EmoNeXt, models.py).

    The network's output is (logits [B,7], attention weights [B,B]).
    """

    def __init__(self, label_smoothing: float = 0.2, weight: float = 1.0) -> None:
        super().__init__()
        self.label_smoothing, self.weight = label_smoothing, weight

    def forward(self, output: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        smoothed, spread_of_weights = self.parts(output, targets).values()
        return smoothed + spread_of_weights

    def parts(self, output: tuple[Tensor, ...], targets: Tensor) -> dict[str, Tensor]:
        """The two summands: ``cross-entropy`` and ``spread`` (with its weight)."""
        logits, weights = output
        return {
            "cross-entropy": functional.cross_entropy(logits, targets, label_smoothing=self.label_smoothing),
            "spread": self.weight * spread(weights),
        }


LOSSES: dict[str, type[nn.Module]] = {
    "cross-entropy": CrossEntropy,
    "focal": Focal,
    "cross-entropy-and-spread": SmoothedWithSpread,
}


def make_loss(step: Step) -> Loss:
    """The loss a recipe names, with its options."""
    return bind(step, LOSSES, "loss")()
