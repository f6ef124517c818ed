"""What `fit` promises: determinism, stages, selection, patience, divergence, and what it tells."""

import dataclasses
import math

import numpy as np
import pytest
import small
import torch
from torch import nn

from fer_repro.errors import FerReproError
from fer_repro.recipe import Selection, Stage, Views, step
from fer_repro.training import loop
from fer_repro.training.autotune import batch_seconds
from fer_repro.training.loop import fit
from fer_repro.training.run import Interrupted
from fer_repro.training.state import TrainState
from fer_repro.training.step import TrainStep, norm_limit
from fer_repro.training.weights import copied


def weights(classifier) -> dict[str, torch.Tensor]:
    return classifier.model.state_dict()


def same(a, b) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def without_time(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def test_equal_seeds_give_equal_runs_and_others_do_not(tmp_path):
    first, again, other = (small.run(tmp_path / name, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    torch.manual_seed(99)
    before = torch.get_rng_state()
    one = fit(small.build, small.splits(), first)
    assert torch.equal(torch.get_rng_state(), before), "the caller's random state must come back"
    torch.manual_seed(11)
    two, three = fit(small.build, small.splits(), again), fit(small.build, small.splits(), other)
    assert same(weights(one), weights(two)) and without_time(first.history) == without_time(again.history)
    assert not same(weights(one), weights(three))
    images = small.splits().test.images
    assert np.array_equal(one.predict_proba(images, with_views=True), two.predict_proba(images, with_views=True))


def test_it_learns(tmp_path):
    recipe = dataclasses.replace(small.PLAIN, stages=(Stage("train", 12, small.SGD),))
    data, told = small.splits(train=280), small.run(tmp_path, recipe)
    classifier = fit(small.build, data, told)
    assert told.history[-1]["loss"] < 0.6 * told.history[0]["loss"]
    hits = classifier.predict_proba(data.test.images).argmax(1) == data.test.labels
    assert hits.mean() > 0.5  # chance is 1/7


def test_history_facts_and_lines(said, tmp_path):
    told = small.run(tmp_path)
    data = small.splits()
    classifier = fit(small.build, data, told)
    assert [row["epoch"] for row in told.history] == [1, 2, 3, 4, 5]
    assert [row["stage"] for row in told.history] == ["train"] * 3 + ["fine-tune"] * 2
    assert set(told.history[0]) == {
        "stage",
        "epoch",
        "lr",
        "loss",
        "train_accuracy",
        "select_accuracy",
        "select_loss",
        "seconds",
    }
    facts = told.facts
    assert facts["status"] == "done"
    assert facts["parameters"] == sum(p.numel() for p in small.Net().parameters())
    assert facts["multiply_adds"] == 6 * 25 * 9 * 9 + 6 * 81 * 7
    assert facts["seconds"] >= sum(row["seconds"] for row in told.history) * 0.5 > 0
    assert facts["images_per_second"] > 0 and facts["peak_memory_bytes"] > 10**7
    # The selected epoch is the first of the best ones, and its weights are those returned.
    accuracies = [row["select_accuracy"] for row in told.history]
    assert facts["selected_epoch"] == 1 + accuracies.index(max(accuracies))
    hits = classifier.predict_proba(data.select.images, with_views=True).argmax(1) == data.select.labels
    assert hits.mean() == pytest.approx(max(accuracies))
    lines = [line for line in said if line.startswith("epoch ")]
    assert len(lines) == 5 and lines[0].startswith("epoch 1/5 train: loss ") and lines[-1].endswith("0.0 s left")
    assert "PublicTest" in lines[0] and "*" in lines[facts["selected_epoch"] - 1]


def scripted(monkeypatch, values: list[float]) -> list[dict[str, torch.Tensor]]:
    """Let epoch i measure ``values[i]``; returns the weights of every epoch."""
    seen: list[dict[str, torch.Tensor]] = []

    def measure(self, images, labels):
        seen.append(copied(self.state.scored))
        return values[len(seen) - 1], -values[len(seen) - 1]

    monkeypatch.setattr(loop.Trainer, "_measure", measure)
    return seen


FIVE = (Stage("a", 3, small.SGD), Stage("b", 2, small.SGD, start="last"))


@pytest.mark.parametrize(
    ("selection", "values", "chosen"),
    [
        (Selection("best"), [0.2, 0.5, 0.4, 0.5, 0.3], 2),  # the first of equals, across stages
        (Selection("best"), [0.2, 0.5, 0.4, 0.6, 0.3], 4),
        (Selection("best", measure="loss"), [0.2, 0.5, 0.7, 0.6, 0.3], 3),
        (Selection("last"), [0.2, 0.5, 0.4, 0.6, 0.3], 5),
    ],
)
def test_selection(tmp_path, monkeypatch, selection, values, chosen):
    seen = scripted(monkeypatch, values)
    told = small.run(tmp_path, dataclasses.replace(small.PLAIN, stages=FIVE, selection=selection))
    classifier = fit(small.build, small.splits(), told)
    assert told.facts["selected_epoch"] == chosen
    assert same(weights(classifier), seen[chosen - 1])


@pytest.mark.parametrize("start", ["fresh", "last", "best"])
def test_a_stage_starts_where_it_says(tmp_path, monkeypatch, start):
    seen = scripted(monkeypatch, [0.9, 0.1, 0.2, 0.3])
    begun = []
    begin = TrainState.begin_stage

    def record(self, index):
        begin(self, index)
        begun.append(copied(self.model))

    monkeypatch.setattr(TrainState, "begin_stage", record)
    stages = (Stage("a", 2, small.SGD), Stage("b", 1, small.SGD, start="last"), Stage("c", 1, small.SGD, start=start))
    fit(small.build, small.splits(), small.run(tmp_path, dataclasses.replace(small.PLAIN, stages=stages)))
    assert same(begun[1], seen[1])
    # "best" is the previous stage's best (epoch 3), not the run's (epoch 1).
    assert same(begun[2], seen[2]) is (start != "fresh")
    assert not same(begun[2], begun[0])


def test_best_start_takes_the_best_of_the_stage_before(tmp_path, monkeypatch):
    seen = scripted(monkeypatch, [0.3, 0.8, 0.4, 0.1])
    stages = (Stage("a", 3, small.SGD), Stage("b", 1, step("sgd", lr=0.0), start="best"))
    recipe = dataclasses.replace(small.PLAIN, stages=stages, selection=Selection("last"))
    classifier = fit(small.build, small.splits(), small.run(tmp_path, recipe))
    assert torch.equal(weights(classifier)["head.weight"], seen[1]["head.weight"])
    assert not torch.equal(weights(classifier)["head.weight"], seen[2]["head.weight"])


def test_patience_ends_a_stage(tmp_path, monkeypatch):
    scripted(monkeypatch, [0.1, 0.5, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    stages = (Stage("a", 9, small.SGD, patience=3), Stage("b", 2, small.SGD, start="best"))
    told = small.run(tmp_path, dataclasses.replace(small.PLAIN, stages=stages))
    fit(small.build, small.splits(), told)
    assert [row["stage"] for row in told.history] == ["a"] * 5 + ["b"] * 2
    assert told.facts["status"] == "stopped early"


def test_plateau_follows_the_select_accuracy(tmp_path, monkeypatch):
    scripted(monkeypatch, [0.5, 0.4, 0.4, 0.6, 0.5, 0.5])
    stages = (Stage("a", 6, small.SGD, step("reduce-on-plateau", factor=0.5, patience=1)),)
    told = small.run(tmp_path, dataclasses.replace(small.PLAIN, stages=stages))
    fit(small.build, small.splits(), told)
    assert [row["lr"] for row in told.history] == pytest.approx([0.05, 0.05, 0.05, 0.025, 0.025, 0.025])


def test_finetune_images_train_the_second_stage(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(TrainStep, "__call__", lambda self, images, labels, chosen: sizes.append(len(images)))
    monkeypatch.setattr(
        loop.Trainer,
        "_end_epoch",
        lambda self, stage, select: setattr(self.state, "epoch", self.state.epoch + 1) or True,
    )
    stages = (Stage("a", 1, small.SGD), Stage("b", 1, small.SGD, images="finetune", start="last"))
    monkeypatch.setattr(loop.Trainer, "finish", lambda self: None)
    fit(
        small.build, small.splits(70, finetune=90), small.run(tmp_path, dataclasses.replace(small.PLAIN, stages=stages))
    )
    assert sizes == [16] * 4 + [6] + [16] * 5 + [10]


def test_a_stage_may_have_its_own_augmentation_and_batch(tmp_path, monkeypatch):
    own = Stage("own", 1, small.SGD, start="last", augment=(step("resize", size=20),), batch_size=10)
    recipe = dataclasses.replace(small.PLAIN, stages=(Stage("first", 1, small.SGD), own))
    seen, apply = [], TrainStep.__call__

    def noted(self, images, labels, chosen=None):
        seen.append((len(labels), [one.name for one in self.recipe.augment]))
        return apply(self, images, labels, chosen)

    monkeypatch.setattr(TrainStep, "__call__", noted)
    fit(small.build, small.splits(train=70), small.run(tmp_path, recipe))
    assert seen == [(16, ["centre_crop"])] * 4 + [(6, ["centre_crop"])] + [(10, ["resize"])] * 7
    assert "batch_size" not in recipe.as_dict()["stages"][0] and recipe.as_dict()["stages"][1]["batch_size"] == 10
    assert recipe.sha256() != dataclasses.replace(recipe, stages=(recipe.stages[0], small.PLAIN.stages[0])).sha256()


def test_a_stopped_stage_goes_on_with_its_own_batches(tmp_path):
    stages = (Stage("first", 1, small.SGD), Stage("own", 2, small.SGD, start="last", augment=(), batch_size=10))
    recipe, data = dataclasses.replace(small.PLAIN, stages=stages), small.splits(train=70)
    straight = fit(small.build, data, small.run(tmp_path / "a", recipe))
    left = iter(range(9))  # five batches of the first stage, then into the second
    stopped = small.run(tmp_path / "b", recipe)
    stopped.out_of_time = lambda ahead=0.0: next(left, None) is None
    with pytest.raises(Interrupted, match="epoch 2 of 3 .own."):
        fit(small.build, data, stopped)
    assert same(weights(straight), weights(fit(small.build, data, small.run(tmp_path / "b", recipe))))


def test_average_weights_are_the_scored_ones(tmp_path):
    recipe = dataclasses.replace(small.PLAIN, selection=Selection("last"))
    plain = fit(small.build, small.splits(), small.run(tmp_path / "a", recipe))
    averaged = fit(small.build, small.splits(), small.run(tmp_path / "b", dataclasses.replace(recipe, ema=0.99)))
    copied = fit(small.build, small.splits(), small.run(tmp_path / "c", dataclasses.replace(recipe, ema=0.0)))
    assert same(weights(copied), weights(plain))
    assert not torch.equal(weights(averaged)["head.weight"], weights(plain)["head.weight"])


@pytest.mark.parametrize(("measure", "keep"), [("average", "online"), ("online", "average"), ("online", "online")])
def test_what_is_measured_and_what_is_kept_may_differ(tmp_path, measure, keep):
    last = dataclasses.replace(small.PLAIN, selection=Selection("last"))
    mixed = dataclasses.replace(last, ema=step("ema", decay=0.99, measure=measure, keep=keep))
    recipes = {"online": last, "average": dataclasses.replace(last, ema=0.99), "mixed": mixed}
    runs = {name: small.run(tmp_path / name, recipe) for name, recipe in recipes.items()}
    fitted = {name: fit(small.build, small.splits(), run) for name, run in runs.items()}
    assert same(weights(fitted["mixed"]), weights(fitted[keep]))
    seen = {name: [row["select_loss"] for row in run.history] for name, run in runs.items()}
    assert seen["mixed"] == seen[measure] and seen["online"] != seen["average"]


class Staged(small.Net):
    """Freezes its body in the second stage and remembers what it was told."""

    told: list[tuple[str, bool]] = []

    def begin_stage(self, stage, fresh):
        self.told.append((stage.name, fresh))
        self.body.requires_grad_(stage.name != "b")


def test_a_network_has_a_part_in_the_start_of_a_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(Staged, "told", [])
    recipe = dataclasses.replace(small.PLAIN, stages=FIVE, selection=Selection("last"))
    after_a = scripted(monkeypatch, [0.1] * 5)
    classifier = fit(lambda recipe: Staged(), small.splits(), small.run(tmp_path / "a", recipe))
    assert Staged.told == [("a", True), ("b", True)]
    assert torch.equal(weights(classifier)["body.0.weight"], after_a[2]["body.0.weight"])
    assert not torch.equal(weights(classifier)["head.weight"], after_a[2]["head.weight"])


class Exploding(small.Net):
    """Its loss is infinite from the ``after``-th training batch on."""

    after = 7

    def __init__(self) -> None:
        self.calls = -1
        super().__init__()

    def forward(self, images):
        self.calls += self.training
        return super().forward(images) * (math.inf if self.training and self.calls >= self.after else 1.0)


def test_divergence_keeps_the_last_good_weights(said, tmp_path, monkeypatch):
    told = small.run(tmp_path, dataclasses.replace(small.PLAIN, selection=Selection("last")))
    classifier = fit(lambda recipe: Exploding(), small.splits(), told)  # five batches an epoch: the second one explodes
    assert told.facts["status"] == "diverged" and told.facts["selected_epoch"] == 1 and len(told.history) == 1
    assert "diverged: loss or weights of epoch 2 (train) are not finite; the weights of epoch 1 are kept" in said[-1]
    reference = small.run(
        tmp_path / "one", dataclasses.replace(small.PLAIN.with_epochs(1), selection=Selection("last"))
    )
    assert same(weights(classifier), weights(fit(small.build, small.splits(), reference)))
    assert np.isfinite(classifier.predict_proba(small.splits().test.images)).all()
    # The finished folder answers the same without training.
    again = small.run(tmp_path, told.recipe)
    assert same(weights(fit(lambda recipe: Exploding(), small.splits(), again)), weights(classifier))
    assert again.facts["status"] == "diverged"


def test_divergence_in_the_first_epoch_leaves_the_initial_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(Exploding, "after", 0)
    told = small.run(tmp_path, small.PLAIN)
    classifier = fit(lambda recipe: Exploding(), small.splits(), told)
    assert told.facts["status"] == "diverged" and told.facts["selected_epoch"] == 0 and told.history == []
    assert np.isfinite(classifier.predict_proba(small.splits().test.images)).all()


@pytest.mark.parametrize(("copies", "steps"), [(1, 4), (5, 5)])
def test_a_single_last_sample_does_not_break_batch_norm(tmp_path, copies, steps):
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(1600, 4), nn.BatchNorm1d(4), nn.Linear(4, 7))

        def forward(self, images):
            seen.append(len(images)) if self.training else None
            return self.layers(images)

    seen: list[int] = []
    crop = "five_crop" if copies == 5 else "centre_crop"
    recipe = dataclasses.replace(small.PLAIN.with_epochs(1), augment=(step(crop, size=40),))
    fit(lambda _: Dense(), small.splits(train=65), small.run(tmp_path, recipe))
    assert seen == [16 * copies] * 4 + [copies] * (steps - 4)


def test_tuple_outputs_and_a_loss_of_ones_own(tmp_path):
    class Pair(small.Net):
        def forward(self, images):
            logits = super().forward(images)
            return logits, logits.square().mean(1)

    told, calls = small.run(tmp_path), []

    def loss(output, targets):
        logits, extra = output
        calls.append((logits.dtype, tuple(targets.shape), targets.dtype))
        return nn.functional.cross_entropy(logits, targets) + 0.1 * extra.mean()

    classifier = fit(lambda recipe: Pair(), small.splits(), told, loss=loss)
    assert calls[0] == (torch.float32, (80, 7), torch.float32)
    assert classifier.predict_proba(small.splits().test.images).shape == (35, 7)
    # Without a hook the recipe's loss takes the logits of the tuple.
    fit(lambda recipe: Pair(), small.splits(), small.run(tmp_path / "plain"))


def test_hard_targets_reach_the_hook_without_mixing(tmp_path):
    kinds = set()

    def loss(output, targets):
        kinds.add((targets.dtype, targets.ndim))
        return nn.functional.cross_entropy(output, targets)

    fit(small.build, small.splits(), small.run(tmp_path, small.PLAIN), loss=loss)
    assert kinds == {(torch.int64, 1)}


def test_gradients_are_clipped(tmp_path, monkeypatch):
    norms = []
    original = torch.optim.SGD.step

    def watched(self, *args, **kwargs):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(torch.stack([g.norm() for g in grads]).norm().item())
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    fit(small.build, small.splits(), small.run(tmp_path, dataclasses.replace(small.PLAIN, clip_norm=0.01)))
    assert max(norms) <= 0.01 + 1e-6 and min(norms) > 0.005


def test_the_limit_of_scaled_gradients_halves_with_every_block():
    scaled = step("scaled", norm=1.0, start=4.0, every=3)
    assert [norm_limit(scaled, done) for done in range(7)] == [0.25] * 3 + [0.125] * 3 + [0.0625]
    assert norm_limit(0.5, 10**6) == 0.5
    with pytest.raises(FerReproError, match="unknown clip_norm 'scale', expected one of scaled"):
        norm_limit(step("scale", norm=1.0), 0)


def test_gradients_are_clipped_as_the_scaler_would(tmp_path, monkeypatch):
    """Also after a stop: the factor goes on from the updates done."""
    seen = []

    def note(parameters, limit):
        seen.append(limit)
        return torch.zeros(())

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", note)
    recipe = dataclasses.replace(small.PLAIN, clip_norm=step("scaled", norm=1.0, start=1.0, every=6))
    told = small.run(tmp_path, recipe)
    looks = iter([False] * 8 + [True])
    told.out_of_time = lambda ahead=0.0: next(looks)
    with pytest.raises(Interrupted):
        fit(small.build, small.splits(), told)
    fit(small.build, small.splits(), small.run(tmp_path, recipe))
    assert seen == [1.0] * 6 + [0.5] * 6 + [0.25] * 3


def test_images_of_another_size_are_resized_to_the_input(tmp_path):
    recipe = dataclasses.replace(small.PLAIN.with_epochs(1), augment=(), views=Views("flip"), plain=Views())
    shapes = set()

    class Watching(small.Net):
        def forward(self, images):
            shapes.add(tuple(images.shape[1:]))
            return super().forward(images)

    classifier = fit(lambda _: Watching(), small.splits(), small.run(tmp_path, recipe))
    classifier.predict_proba(small.splits().test.images, with_views=True)
    assert shapes == {(1, 40, 40)}


def change(**changes):
    return dataclasses.replace(small.PLAIN, **changes)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (change(stages=()), "no stages"),
        (change(precision="fp8"), "unknown precision 'fp8'"),
        (change(selection=Selection("median")), "expected rule 'best' or 'last'"),
        (change(views=Views("nine-crop")), "unknown views 'nine-crop'"),
        (change(views=Views("flip", None, "ranks")), "views average 'ranks'"),
        (change(stages=(Stage("a", 1, small.SGD, start="best"),)), "is the first and starts from 'best'"),
        (change(stages=(Stage("a", 0, small.SGD),)), "epochs 0"),
        (change(stages=(Stage("a", 1, small.SGD, images="all"),)), "images 'all'"),
        (change(stages=(Stage("a", 1, step("sgdd", lr=1)),)), "unknown optimiser 'sgdd'"),
        (change(stages=(Stage("a", 1, small.SGD, step("linear")),)), "unknown schedule 'linear'"),
        (change(loss=step("hinge")), "unknown loss 'hinge'"),
        (change(augment=(step("flip", q=1),)), "has no option 'q'"),
    ],
)
def test_recipes_that_cannot_be_followed(tmp_path, recipe, words):
    with pytest.raises(FerReproError, match=words):
        fit(small.build, small.splits(), small.run(tmp_path, recipe))
    assert not list(tmp_path.glob("*.pt"))


def test_nothing_to_select_on(tmp_path):
    with pytest.raises(FerReproError, match="leaves none"):
        fit(small.build, small.splits(select=0), small.run(tmp_path, small.PLAIN))
    told = small.run(tmp_path, change(selection=Selection("last")))
    fit(small.build, small.splits(select=0), told)
    assert told.history[-1]["select_accuracy"] is None and told.facts["selected_epoch"] == 3
    with pytest.raises(FerReproError, match="holds no images"):
        fit(small.build, small.splits(train=0), small.run(tmp_path / "x", small.PLAIN))


def test_a_batch_that_would_end_after_the_budget_does_not_begin(tmp_path, monkeypatch):
    """Not even the first one: how long it takes is known from a few of its images."""
    monkeypatch.setattr(loop, "batch_seconds", lambda *_: 100.0)
    monkeypatch.setattr(TrainStep, "__call__", lambda *_: pytest.fail("trained"))
    late = small.run(tmp_path, small.PLAIN, deadline=loop.time.monotonic() + 50)
    with pytest.raises(
        Interrupted, match=r"used up: stopped in epoch 1 of 3 \(train\), before the first .*100 s"
    ) as stop:
        fit(small.build, small.splits(), late)
    assert stop.value.needs == 100 and not (tmp_path / "checkpoint.pt").exists()


def test_asking_how_long_a_batch_takes_leaves_no_trace(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(loop, "batch_seconds", lambda *a: asked.append(batch_seconds(*a)) or 0.0)
    plain, limited = small.run(tmp_path / "a"), small.run(tmp_path / "b", deadline=loop.time.monotonic() + 500)
    one, two = (fit(small.build, small.splits(), run) for run in (plain, limited))
    assert same(weights(one), weights(two)) and without_time(plain.history) == without_time(limited.history)
    assert len(asked) == 2 and all(seconds > 0 for seconds in asked)  # once a stage
