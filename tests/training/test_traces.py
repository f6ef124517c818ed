"""The numbers that a recipe implies before training: learning rates, zero gradients, steps left after clipping."""

from __future__ import annotations

import pytest
import torch

from fer_repro.recipe import Stage, step
from fer_repro.training import traces
from fer_repro.training.traces import BATCHES, EPSILON


def test_a_schedule_by_epoch_stays_for_all_its_batches_and_one_by_batch_moves_in_each():
    halving = {"step_size": 1, "gamma": 0.5}
    adamw = step("adamw", lr=1.0)
    by_epoch = traces.rates(Stage("a", 3, adamw, step("step", **halving)))
    assert [rate for rate, _ in by_epoch] == [1.0] * BATCHES + [0.5] * BATCHES + [0.25] * BATCHES
    by_batch = traces.rates(Stage("b", 3, adamw, step("step", per="batch", **halving)), epochs=1)
    assert len(by_batch) == BATCHES and [rate for rate, _ in by_batch[:3]] == [1.0, 0.5, 0.25]
    assert {beta for _, beta in by_batch} == {0.9}


def test_zero_gradients_are_counted_by_part_and_left_out_of_the_shares():
    parts = {"a": torch.tensor([0.0, -3.0]), "b": torch.tensor([4.0, 0.0, 0.0])}
    assert traces.zero_gradients(parts) == {"a": 1, "b": 2}
    assert traces.gradient_shares(parts).tolist() == pytest.approx([0.6, 0.8])


def test_a_clipped_step_is_the_share_of_the_learning_rate_that_is_left():
    clip, shares = step("scaled", norm=1.0, start=1 / EPSILON, every=2000), torch.tensor([0.6, 0.8])
    first, *_, last, corrected = traces.clipped_steps(clip, 1.0, shares)
    assert (first.batch, last.batch, corrected.batch) == (0, 6000, None)
    assert first.limit == pytest.approx(EPSILON) and last.limit == pytest.approx(EPSILON / 8)
    assert first.mean == pytest.approx((0.6 / 1.6 + 0.8 / 1.8) / 2) and corrected.mean == pytest.approx(1)
    assert first.gradient == pytest.approx(0.6 * EPSILON) and first.median == pytest.approx(0.6 / 1.6)
    assert last.cells()[:3] == ["6,000", "14", "800,000,000"] and corrected.cells()[:2] == ["corrected", ""]
    assert len(first.cells()) == len(traces.CLIPPED_COLUMNS)
