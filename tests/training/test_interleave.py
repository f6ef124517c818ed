"""Runs that take turns in one process end as they end alone."""

import os
import random
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import small
import torch
from listening import listening

from fer_repro.training import loop
from fer_repro.training.interleave import interleave
from fer_repro.training.run import Interrupted

SEEDS = (0, 1, 2)


def fitted(folder, seed, turn=None, recipe=small.RECIPE):
    run = small.run(folder / f"seed-{seed}", recipe, seed=seed, turn=turn)
    return loop.fit(small.build, small.splits(), run), run


def test_each_seed_ends_as_it_does_alone_bit_for_bit(tmp_path):
    alone = [fitted(tmp_path / "alone", seed)[0] for seed in SEEDS]
    torch.manual_seed(99)
    before = torch.get_rng_state()
    ended = interleave([lambda turn, s=seed: fitted(tmp_path / "both", s, turn) for seed in SEEDS], "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    for seed, single, (together, run) in zip(SEEDS, alone, ended, strict=True):
        assert run.facts["runs_in_one_process"] == len(SEEDS)
        assert run.facts["images_per_second"] is run.facts["peak_memory_bytes"] is None and run.facts["seconds"] > 0
        for name, tensor in single.model.state_dict().items():
            assert torch.equal(tensor, together.model.state_dict()[name]), (seed, name)
    first, second = (run.model.state_dict()["head.weight"] for run, _ in ended[:2])
    assert not torch.equal(first, second)


def test_they_take_turns_batch_by_batch():
    order = []

    def work(turn):
        for _ in range(3):
            order.append(turn.number)
            turn.yield_turn()
        return turn.number

    assert interleave([work] * 3, "cpu") == [0, 1, 2]
    assert order == [0, 1, 2] * 3


def test_random_states_are_each_runs_own():
    def draws(turn):
        torch.manual_seed(turn.number), np.random.seed(turn.number), random.seed(turn.number)
        found = []
        for _ in range(4):
            found.append((torch.rand(1).item(), np.random.rand(), random.random()))
            turn.yield_turn()
        return found

    alone = [draws(SimpleNamespace(number=number, yield_turn=lambda: None)) for number in range(2)]
    assert interleave([draws, draws], "cpu") == alone


def test_one_that_fails_ends_alone(tmp_path):
    def fails(turn):
        turn.yield_turn()
        raise ValueError("broken")

    ended = interleave([fails, lambda turn: fitted(tmp_path, 0, turn), fails], "cpu")
    assert str(ended[0]) == str(ended[2]) == "broken" and ended[1][1].facts["status"] == "done"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_at_a_checkpoint(tmp_path, number):
    began = threading.Event()

    def work(turn, seed):
        began.set()
        recipe = small.PLAIN.with_epochs(500)
        return fitted(tmp_path, seed, turn, recipe)

    def interrupt():
        began.wait()
        time.sleep(0.5)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt).start()
    said = []
    with listening(said.append):
        ended = interleave([lambda turn, s=seed: work(turn, s) for seed in SEEDS], "cpu")
    assert all(isinstance(end, Interrupted) for end in ended) and sum("stopping" in line for line in said) == 1
    assert all((tmp_path / f"seed-{seed}" / "checkpoint.pt").exists() for seed in SEEDS)
