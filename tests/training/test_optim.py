"""Optimisers, schedules and averages: torch's, at the moments and with the options a recipe gives."""

import math

import pytest
import torch
from torch import nn

from fer_repro.errors import FerReproError
from fer_repro.recipe import step
from fer_repro.training.optim import OPTIMISERS, Ema, make_optimiser, make_schedule


def one_weight() -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor([1.0]))]


def rates(schedule_step, epochs=8, batches=3, accuracies=None, lr=1.0) -> list[float]:
    """The learning rate of every batch of a stage."""
    optimiser = make_optimiser(step("sgd", lr=lr), one_weight())
    schedule, seen = make_schedule(schedule_step, optimiser, epochs, batches), []
    for epoch in range(epochs):
        for _ in range(batches):
            seen.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            schedule.after_batch()
        accuracy = accuracies[epoch] if accuracies else 0.5
        schedule.after_epoch(accuracy, 1 - accuracy)
    return seen


def per_epoch(seen: list[float], batches=3) -> list[float]:
    assert all(seen[i] == seen[i - i % batches] for i in range(len(seen))), "the rate changed inside an epoch"
    return seen[::batches]


def cosine(at: int, length: int, low: float = 0.0) -> float:
    return low + (1 - low) * (1 + math.cos(math.pi * at / length)) / 2


def test_rates_by_the_epoch():
    assert per_epoch(rates(step("constant"))) == [1.0] * 8
    expected = [cosine(at, 4, 0.1) for at in range(8)]  # torch's cosine rises again after t_max
    assert per_epoch(rates(step("cosine", t_max=4, eta_min=0.1))) == pytest.approx(expected)
    assert per_epoch(rates(step("cosine"))) == pytest.approx([cosine(at, 8) for at in range(8)])
    expected = [cosine(at % 4, 4) for at in range(8)]
    assert per_epoch(rates(step("cosine-warm-restarts", t_0=4))) == pytest.approx(expected)
    assert per_epoch(rates(step("step", step_size=3, gamma=0.1))) == pytest.approx([1] * 3 + [0.1] * 3 + [0.01] * 2)
    expected = [1] * 2 + [0.5] * 3 + [0.25] * 3
    assert per_epoch(rates(step("multi-step", milestones=(2, 5), gamma=0.5))) == pytest.approx(expected)
    assert per_epoch(rates(step("exponential", gamma=0.9))) == pytest.approx([0.9**at for at in range(8)])


def test_rates_by_the_batch():
    assert rates(step("inverse-time", decay=0.5, per="batch")) == pytest.approx(
        [1 / (1 + 0.5 * at) for at in range(24)]
    )
    assert rates(step("cosine", per="batch")) == pytest.approx([cosine(at, 24) for at in range(24)])
    seen = rates(step("one-cycle", per="batch", pct_start=0.25), lr=0.4)
    assert len(seen) == 24 and max(seen) == pytest.approx(0.4) and seen.index(max(seen)) == 5
    assert seen[0] == pytest.approx(0.4 / 25) and seen[-1] < 1e-4


def test_plateau_watches_accuracy_or_loss():
    accuracies = [0.3, 0.2, 0.1, 0.4, 0.4, 0.4, 0.5, 0.5]
    watching = step("reduce-on-plateau", factor=0.5, patience=1)
    expected = [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert per_epoch(rates(watching, accuracies=accuracies)) == pytest.approx(expected)
    watching = step("reduce-on-plateau", factor=0.5, patience=1, on="loss", threshold=0.0)
    assert per_epoch(rates(watching, accuracies=accuracies)) == pytest.approx(expected)


def test_warmup_rises_linearly_and_hands_over():
    seen = per_epoch(rates(step("cosine", warmup=4, warmup_start=0.2)))
    assert seen == pytest.approx([0.2, 0.4, 0.6, 0.8] + [cosine(at, 4) for at in range(4)])
    seen = rates(step("constant", warmup=5, per="batch", warmup_start=0.5))
    assert seen == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9] + [1.0] * 19)


def test_optimisers_are_torchs():
    made = make_optimiser(step("sgd", lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4), one_weight())
    group = made.param_groups[0]
    assert isinstance(made, torch.optim.SGD)
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (0.01, 0.9, True, 1e-4)
    for name in OPTIMISERS:
        parameters = one_weight()
        optimiser = make_optimiser(step(name, lr=0.1), parameters)
        (parameters[0] ** 2).backward()
        optimiser.step()
        assert parameters[0].item() < 1.0, name
    decoupled = make_optimiser(step("radam", lr=1e-4, weight_decay=1e-3, decoupled_weight_decay=True), one_weight())
    assert decoupled.param_groups[0]["decoupled_weight_decay"]


def test_only_trained_parameters_are_optimised():
    layer = nn.Linear(3, 3)
    layer.weight.requires_grad_(False)
    assert make_optimiser(step("sgd", lr=0.1), layer.parameters()).param_groups[0]["params"] == [layer.bias]
    layer.bias.requires_grad_(False)
    with pytest.raises(FerReproError, match="no parameter that wants a gradient"):
        make_optimiser(step("sgd", lr=0.1), layer.parameters())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (step("lion", lr=0.1), "unknown optimiser 'lion', expected one of sgd"),
        (step("sgd", lr=0.1, momentun=0.9), "optimiser 'sgd' has no option 'momentun'"),
        (step("sgd", lr=-0.1), "refused by torch: Invalid learning rate"),
        (step("sgd", lr=0.1, nesterov=True), "refused by torch: Nesterov momentum requires"),
    ],
)
def test_wrong_optimisers(wrong, words):
    with pytest.raises(FerReproError, match=words):
        make_optimiser(wrong, one_weight())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (step("poly"), "unknown schedule 'poly', expected one of constant"),
        (step("cosine", tmax=10), "schedule 'cosine' has no option 'tmax'"),
        (step("cosine", per="step"), "expected per='epoch' or 'batch'"),
        (step("reduce-on-plateau", on="f1"), "on='accuracy' or 'loss'"),
        (step("reduce-on-plateau", warmup=3), "has no option 'warmup'"),
        (step("step", gamma=0.1), "refused by torch"),
    ],
)
def test_wrong_schedules(wrong, words):
    with pytest.raises(FerReproError, match=words):
        make_schedule(wrong, make_optimiser(step("sgd", lr=0.1), one_weight()), 3, 3)


class Weight(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor([value]))
        self.register_buffer("statistic", torch.tensor([value]))
        self.register_buffer("count", torch.tensor(0))


def averages(setting, values) -> list[float]:
    model = Weight(0.0)
    ema, seen = Ema(setting, model), []
    for value in values:
        model.value.data.fill_(value)
        model.statistic.fill_(2 * value)
        model.count += 1
        ema.after_batch(model)
        assert ema.module.statistic.item() == pytest.approx(2 * ema.module.value.item())
        seen.append(ema.module.value.item())
    return seen


def test_average_of_weights_and_buffers():
    expected, average = [], 0.0
    for value in (1.0, 2.0, 3.0, 4.0):
        average = 0.9 * average + 0.1 * value
        expected.append(average)
    assert averages(0.9, (1.0, 2.0, 3.0, 4.0)) == pytest.approx(expected)
    assert averages(step("ema", decay=0.9, every=2), (1.0, 2.0, 3.0, 4.0)) == pytest.approx([0, 0.2, 0.2, 0.58])
    assert averages(step("ema", decay=0.9, start=3), (1.0, 2.0, 3.0, 4.0)) == pytest.approx([1, 2, 3, 3.1])
    # 1 - n^(-2/3): 0, 0.370, 0.519, ... as the ema_pytorch library warms up
    decays = [1 - n ** (-2 / 3) for n in (1, 2, 3)]
    expected = [1.0, 1 * decays[1] + 2 * (1 - decays[1])]
    expected.append(expected[1] * decays[2] + 3 * (1 - decays[2]))
    assert averages(step("ema", decay=0.999, power=2 / 3), (1.0, 2.0, 3.0)) == pytest.approx(expected)


def test_average_copies_counts_and_wants_no_gradient():
    model = Weight(1.0)
    ema = Ema(0.9, model)
    model.count += 5
    ema.after_batch(model)
    assert ema.module.count.item() == 5 and not ema.module.value.requires_grad and model.value.requires_grad
    with pytest.raises(FerReproError, match="ema decay is 1.0"):
        Ema(1.0, model)
    with pytest.raises(FerReproError, match="ema has no option 'beta'"):
        Ema(step("ema", beta=0.9), model)
