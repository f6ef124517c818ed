"""A fit by steps: damaged states give way to the one before, and it ends where an undamaged one ends."""

from __future__ import annotations

import random

import pytest
import torch
from damage import VALUES
from torch import nn

from fer_repro.errors import FerReproError
from fer_repro.papers.sdafe.training import StepFit
from fer_repro.recipe import step
from fer_repro.training import checkpoint

STEPS = 6


class Stop(Exception):
    pass


def fitted(folder, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    """The weights of a small fit; it is stopped, and saved, before step ``stop_at``."""
    seen = []

    def pause(save) -> None:
        seen.append(1)
        if stop_at is not None and len(seen) > stop_at:
            save()
            raise Stop

    def loss_of(network: nn.Module, generator: torch.Generator) -> torch.Tensor:
        return network(torch.rand(4, 3, generator=generator)).square().mean()

    setup = StepFit(folder, {"seed": 0}, 0, torch.device("cpu"), pause)
    network, _ = setup.fit("part", lambda: nn.Linear(3, 2), loss_of, STEPS, step("adamw", lr=0.1), ema=0.9)
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_a_damaged_state_gives_way_to_the_one_before(tmp_path, said):
    expected = fitted(tmp_path / "whole")
    draw, keys = random.Random(3), ("network", "optimiser", "ema", "done", "seconds", "generator", "random")
    for number, key in enumerate(keys * 6):
        folder = tmp_path / str(number)
        for looks in (2, 2):
            with pytest.raises(Stop):
                fitted(folder, looks)
        path = folder / "part" / checkpoint.NAME
        content = torch.load(path, weights_only=True)
        before = torch.load(folder / "part" / checkpoint.PREVIOUS, weights_only=True)
        if (value := draw.choice((..., *VALUES))) is ...:
            del content["state"][key]
        else:
            content["state"][key] = value
        checkpoint.save(folder / "part", before["identity"], before["state"])  # becomes the previous one
        checkpoint.save(folder / "part", content["identity"], content["state"])
        del said[:]
        found = fitted(folder)
        # A whole number of steps, or a number of seconds, that this fit could have come to is one.
        damaged = any("is damaged" in line for line in said)
        assert damaged or key in ("done", "seconds")
        if damaged:
            assert all(torch.equal(found[name], expected[name]) for name in expected)
            assert (folder / "part" / checkpoint.DAMAGED).exists()


def test_two_damaged_states_are_one_sentence(tmp_path):
    with pytest.raises(Stop):
        fitted(tmp_path, 2)
    (tmp_path / "part" / checkpoint.NAME).write_bytes(b"hello")
    with pytest.raises(FerReproError, match="no readable checkpoint"):
        fitted(tmp_path)
