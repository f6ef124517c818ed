"""Cross-entropy with hard, smoothed and mixed targets, and its equality with the loss of the released code."""

import pytest
import torch
from torch.nn import functional

from fer_repro.errors import FerReproError
from fer_repro.recipe import step
from fer_repro.training.losses import make_loss, soft

LOGITS = torch.randn(12, 7, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 7


def gradient(function) -> torch.Tensor:
    logits = LOGITS.clone().requires_grad_()
    function(logits).backward()
    return logits.grad


def test_hard_and_soft_targets_agree():
    for options in ({}, {"label_smoothing": 0.1}):
        loss = make_loss(step("cross-entropy", **options))
        torch.testing.assert_close(loss(LOGITS, LABELS), loss(LOGITS, soft(LABELS)))
    assert soft(soft(LABELS)) is not None and torch.equal(soft(soft(LABELS)), soft(LABELS))


def test_the_logits_may_come_first_in_a_tuple():
    loss = make_loss(step("cross-entropy"))
    torch.testing.assert_close(loss((LOGITS, LOGITS.sum()), LABELS), functional.cross_entropy(LOGITS, LABELS))


def test_smoothing_spread_over_the_wrong_classes_is_seven_sixths_of_torchs():
    # The ResNet18 release: 0.9 on the true class, 0.1/6 on each other, KL divergence, mixed by lambda.
    target = torch.full((12, 7), 0.1 / 6)
    target[torch.arange(12), LABELS] = 0.9
    mixed, share = target.flip(0), 0.3
    released = gradient(
        lambda logits: (
            share * functional.kl_div(logits.log_softmax(1), target, reduction="batchmean")
            + (1 - share) * functional.kl_div(logits.log_softmax(1), mixed, reduction="batchmean")
        )
    )
    loss = make_loss(step("cross-entropy", label_smoothing=0.1 * 7 / 6))
    hard = soft(LABELS)
    ours = gradient(lambda logits: loss(logits, share * hard + (1 - share) * hard.flip(0)))
    torch.testing.assert_close(ours, released)


def test_class_weights_scale_their_samples():
    weights = (1.0, 9.4, 1.0, 0.6, 0.8, 1.3, 0.8)
    loss = make_loss(step("cross-entropy", class_weights=weights))
    each = functional.cross_entropy(LOGITS, LABELS, reduction="none")
    factor = torch.tensor(weights)[LABELS]
    torch.testing.assert_close(loss(LOGITS, LABELS), (each * factor).sum() / factor.sum())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (step("hinge"), "unknown loss 'hinge', expected one of cross-entropy"),
        (step("cross-entropy", smoothing=0.1), "has no option 'smoothing', expected one of label_smoothing"),
        (step("cross-entropy", label_smoothing=1.5), "label_smoothing is 1.5"),
        (step("cross-entropy", class_weights=(1.0, 2.0)), "class_weights has 2 numbers"),
    ],
)
def test_wrong_losses(wrong, words):
    with pytest.raises(FerReproError, match=words):
        make_loss(wrong)
