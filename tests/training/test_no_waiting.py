"""Inside an epoch nothing waits for the device."""

import dataclasses

import pytest
import small
import torch
from waiting import Watch

from fer_repro.training import loop


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw", "rmsprop"])
def test_a_batch_with_everything_in_it_waits_for_nothing(tmp_path, monkeypatch, optimiser):
    watch = Watch(monkeypatch)
    stage = dataclasses.replace(small.PLAIN.stages[0], epochs=1, optimiser=small.step(optimiser, lr=0.01))
    recipe = dataclasses.replace(small.RECIPE, stages=(stage,))
    loop.fit(small.build, small.splits(), small.run(tmp_path, recipe))
    assert watch.batches == 3 and watch.found == []


class Asks(small.Net):
    """Reads a value on the host in the middle of its forward pass."""

    def __init__(self, how) -> None:
        self.how = lambda logits: None  # while the lazy layer looks at sizes
        super().__init__()
        self.how = how

    def forward(self, images):
        logits = super().forward(images)
        self.how(logits)
        return logits


@pytest.mark.parametrize(
    ("how", "name"),
    [
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: bool((x > 0).all()), "_local_scalar_dense"),
        (lambda x: x[x > 0], "index by a mask"),
        (lambda x: (x > 0).nonzero(), "nonzero"),
        (lambda x: x + torch.tensor([1.0] * 7), "lift_fresh"),
    ],
    ids=["item", "branch", "mask", "nonzero", "copy"],
)
def test_the_count_notices_who_waits(tmp_path, monkeypatch, how, name):
    watch = Watch(monkeypatch)
    recipe = dataclasses.replace(small.PLAIN, stages=(dataclasses.replace(small.PLAIN.stages[0], epochs=1),))
    loop.fit(lambda recipe: Asks(how), small.splits(), small.run(tmp_path, recipe))
    assert name in watch.found
