"""What a checkpoint holds, and which epoch a rule selects from it."""

import dataclasses

import pytest
import small
import torch

from fer_repro.recipe import Selection
from fer_repro.training.loop import fit
from fer_repro.training.selection import RULES, Epoch, make_rule
from fer_repro.training.state import winner_of

# Checkpoints of earlier versions go on: these names do not change.
KEYS = {
    *("status", "stage", "epoch", "batch", "seconds", "images_seen", "peak", "history", "order", "totals", "updates"),
    *("choice", "ways", "model", "optimiser", "ema", "schedule", "loss", "best", "stage_best", "good"),
    *("generator", "random", "threads", "scaler"),
}


def test_the_names_in_a_checkpoint(tmp_path):
    fit(small.build, small.splits(), small.run(tmp_path))
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert content["state"].keys() == KEYS and content["identity"].keys() == {"recipe", "data set", "seed", "device"}
    assert content["state"]["best"].keys() == {"value", "epoch", "weights"}


@pytest.mark.parametrize(("rule", "number"), [("best", 2), ("last", 5), ("grid", 2), ("fixed", 5)])
def test_which_epoch_wins(rule, number):
    assert make_rule(Selection(rule)).winner(Epoch(0.7, 2, {}), Epoch(epoch=5, weights={})).epoch == number
    assert make_rule(Selection(rule)).winner(Epoch(), Epoch(epoch=1, weights={})).epoch == 1, "nothing was measured"
    assert set(RULES) == {"best", "last", "grid", "fixed"}


def test_a_rule_looks_for_the_highest_value():
    assert make_rule(Selection("best")).value(0.5, 2.0) == 0.5
    assert make_rule(Selection("best", measure="loss")).value(0.5, 2.0) == -2.0
    assert make_rule(Selection("best")).value(None, None) == -float("inf")


@pytest.mark.parametrize("rule", ["best", "last"])
def test_the_checkpoint_tells_the_same_winner_as_the_run(tmp_path, rule):
    recipe = dataclasses.replace(small.RECIPE, selection=Selection(rule))
    run = small.run(tmp_path, recipe)
    fitted = fit(small.build, small.splits(), run)
    winner = winner_of(recipe, torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"])
    assert winner.epoch == run.facts["selected_epoch"]
    assert all(torch.equal(value, winner.weights[name]) for name, value in fitted.model.state_dict().items())
