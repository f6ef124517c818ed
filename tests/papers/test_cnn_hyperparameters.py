"""The searched network and its search: Keras' conventions, ranking by PublicTest alone, resuming, failures."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from listening import listening
from safetensors.torch import load_file
from torch import nn

from fer_repro import data, page, papers, parameters, results
from fer_repro.evaluation import cost
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.papers import cnn_hyperparameters as paper
from fer_repro.papers.cnn_hyperparameters import figures, search
from fer_repro.recipe import Stage, step
from fer_repro.reproduce import reproduce
from fer_repro.training import loop
from fer_repro.training.optim import make_optimiser, make_schedule
from fer_repro.training.run import Interrupted, Run

ROW, SEARCH = papers.get("cnn-hyperparameters"), papers.get("cnn-hyperparameters-search")


def test_the_layers_stand_in_the_published_order():
    network = ROW.build(ROW.recipe("official", "full"))
    assert [type(part) for part in network.stem] == [nn.Conv2d, nn.ReLU]
    expected = [nn.Conv2d, nn.ReLU, nn.BatchNorm2d, nn.MaxPool2d, nn.Dropout]
    assert [[type(part) for part in block] for block in network.blocks] == [expected] * 4
    assert [type(part) for part in network.hidden] == [nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Dropout]
    assert [block[4].p for block in network.blocks] == [0.4] * 4 and network.hidden[3].p == 0.3
    norms = [part for part in network.modules() if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d))]
    assert len(norms) == 5 and {(part.eps, part.momentum) for part in norms} == {(1e-3, 0.01)}
    running = sum(buffer.numel() for name, buffer in network.named_buffers() if "running" in name)
    assert running == 3456, "the statistics that Keras counts as untrained parameters"


def test_without_padding_it_would_be_another_network():
    """4,384,071 parameters: what the re-implementation without padding has."""
    with torch.device("meta"):
        network = ROW.build(ROW.recipe("official", "full"))
        padded = cost.count_parameters(network)
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                part.padding = (0, 0)
        features = network.blocks(network.stem(torch.zeros(1, 1, 48, 48)))
    assert features.shape == (1, 384, 1, 1)
    assert padded - (3 * 3 - 1) * 384 * 256 == 4_384_071


def test_kernels_start_as_in_keras():
    network = ROW.build(ROW.recipe("official", "full"))
    conv, linear = network.blocks[1][0], network.hidden[0]
    for layer, fans in ((conv, 9 * (512 + 384)), (linear, 3456 + 256)):
        limit = (6 / fans) ** 0.5
        assert 0.98 * limit < layer.weight.abs().max() <= limit
        assert layer.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.01)
        assert (layer.bias == 0).all()


@pytest.mark.parametrize("profile", ["full", "smoke"])
def test_every_configuration_of_the_space_can_be_built(profile):
    options = SEARCH.recipe("official", profile).options.kwargs()
    space, first = dict(options["space"]), dict(options["first"])
    assert all(first[name] in values and len(set(values)) == len(values) for name, values in space.items())
    for configuration in itertools.islice(search.configurations(space, 1, first), 8):
        recipe = paper.trial_recipe(SEARCH.recipe("official", profile), configuration)
        with torch.device("meta"):
            network = paper.build(recipe)
            assert network(torch.zeros(2, 1, 48, 48)).shape == (2, 7)
        optimiser = make_optimiser(recipe.stages[0].optimiser, network.parameters())
        assert optimiser.param_groups[0]["lr"] == configuration["lr"]
    assert paper.network(first, 0.01)["channels"] == tuple(first[f"conv{index}"] for index in range(1, 6))


def test_the_published_configuration_gives_the_row_in_full():
    for protocol in papers.PROTOCOLS:
        row = ROW.recipe(protocol, "full")
        found = paper.configured(SEARCH.recipe(protocol, "full"), paper.PUBLISHED)
        for part in ("network", "stages", "selection", "augment", "loss", "batch_size", "protocol"):
            assert getattr(found, part) == getattr(row, part), part


def test_the_plateau_waits_as_long_as_in_keras():
    """Keras' patience of 4 halves the rate at the end of the fourth epoch without a lower loss."""
    stage = ROW.recipe("official", "full").stages[0]
    optimiser = make_optimiser(stage.optimiser, [nn.Parameter(torch.zeros(1))])
    schedule, rates = make_schedule(stage.schedule, optimiser, 200, 225), []
    for loss in (1.5, 1.4, 1.4, 1.39995, 1.41, 1.4, 1.4):
        schedule.after_epoch(0.5, loss)
        rates.append(optimiser.param_groups[0]["lr"])
    assert rates == [1e-3] * 5 + [5e-4] * 2
    assert optimiser.param_groups[0]["eps"] == 1e-7


def part(n, seed):
    """Labels that a dark band gives away, so that trials differ."""
    rng = np.random.default_rng(seed)
    labels, images = rng.integers(0, 7, n), rng.integers(100, 256, (n, 48, 48))
    for index, label in enumerate(labels):
        images[index, 6 * label : 6 * label + 6] //= 4
    faces = data.load("synthetic", size=(n, 7, 7)).subset(slice(0, n))
    return dataclasses.replace(faces, images=images.astype(np.uint8), labels=labels.astype(np.int64))


@pytest.fixture(scope="module")
def splits():
    return data.protocol.Splits(part(60, 1), part(40, 2), part(40, 3), part(60, 1))


def a_run(folder, trials=3, epochs=2, first=None, resume=True):
    recipe = SEARCH.recipe("official", "smoke")
    changes = {"trials": trials, "epochs": epochs} | ({"first": tuple(first.items())} if first else {})
    options = step(recipe.options.name, **(recipe.options.kwargs() | changes))
    return Run(dataclasses.replace(recipe, options=options), 0, "cpu", Path(folder), "digest", resume)


def outcome(run):
    """What a search gave, without what only the clock or the number of attempts decides."""
    passing = {"seconds", "peak_memory_bytes", "attempts"}
    return [{name: value for name, value in trial.items() if name not in passing} for trial in run.facts["trials"]]


def weights(classifier):
    return {name: tensor.numpy() for name, tensor in classifier.model.state_dict().items()}


@pytest.fixture(scope="module")
def searched(splits, tmp_path_factory):
    run = a_run(tmp_path_factory.mktemp("search"))
    return run, SEARCH.fit(splits, run)


def test_trials_are_recorded_and_the_best_by_public_test_is_trained_in_full(searched):
    run, classifier = searched
    trials = run.facts["trials"]
    assert [trial["trial"] for trial in trials] == [0, 1, 2] and {trial["state"] for trial in trials} == {"complete"}
    first = dict(run.recipe.options["first"])
    assert trials[0]["configuration"] == first and trials[1]["configuration"] != first
    for trial in trials:
        assert trial["value"] == trial["PublicTest"]["accuracy"] == trial["PublicTest"]["correct"] / 40
        with torch.device("meta"):
            network = paper.build(paper.trial_recipe(run.recipe, trial["configuration"]))
        assert trial["parameters"] == cost.count_parameters(network)
        assert trial["epochs"] == 2 and 1 <= trial["selected_epoch"] <= 2 and "PrivateTest" not in trial
    chosen = search.best(trials)
    assert classifier.recipe.network == paper.network(chosen["configuration"], paper.FAST)
    assert json.loads(json.dumps(run.facts)) == run.facts
    assert run.facts["seconds"] > sum(trial["seconds"] for trial in trials)
    assert run.facts["status"] == "done" and len(run.history) == run.recipe.epochs


def test_the_scored_weights_are_those_that_public_test_selected(searched, splits):
    run, classifier = searched
    extra = classifier.extra_scores(splits)
    for trial in extra["trials"]:
        recipe = paper.configured(classifier.recipe, trial["configuration"])
        model = paper.build(recipe)
        model.load_state_dict(load_file(run.folder / f"trial-{trial['trial']:02d}.safetensors"))
        network = NetworkClassifier(model, recipe, "cpu")
        for usage, images in (("PublicTest", splits.select), ("PrivateTest", splits.test)):
            right = (network.predict_proba(images.images).argmax(axis=1) == images.labels).mean()
            assert trial[usage]["accuracy"] == pytest.approx(right), usage
    best = max(extra["trials"], key=lambda trial: trial["PrivateTest"]["accuracy"])
    own = extra["trials"][extra["pretence"]["chosen"]]
    assert extra["pretence"]["other"] == best["trial"]
    assert extra["pretence"]["gap"] == pytest.approx(best["PrivateTest"]["accuracy"] - own["PrivateTest"]["accuracy"])
    assert not list(run.folder.glob("trial-*/")), "checkpoints of settled trials are gone"


class Sealed:
    """A test set that nobody may look at."""

    def __getattribute__(self, name):
        raise AssertionError(f"the search read the {name} of the scored images")


def test_nothing_of_the_scored_images_reaches_the_search(searched, splits, tmp_path):
    run, classifier = searched
    blind = a_run(tmp_path)
    again = SEARCH.fit(dataclasses.replace(splits, test=Sealed()), blind)
    assert outcome(blind) == outcome(run)
    for name, tensor in weights(classifier).items():
        assert np.array_equal(weights(again)[name], tensor), name
    images = splits.test
    honest = classifier.extra_scores(splits)
    # Labels under which the scored images would choose another trial: those that this trial happens to predict.
    target = next(trial for trial in run.facts["trials"] if trial["trial"] != honest["pretence"]["chosen"])
    recipe = paper.configured(classifier.recipe, target["configuration"])
    model = paper.build(recipe)
    model.load_state_dict(load_file(run.folder / f"trial-{target['trial']:02d}.safetensors"))
    answers = NetworkClassifier(model, recipe, "cpu").predict_proba(images.images).argmax(axis=1)
    poisoned = classifier.extra_scores(dataclasses.replace(splits, test=dataclasses.replace(images, labels=answers)))
    assert poisoned["pretence"]["chosen"] == honest["pretence"]["chosen"]
    assert poisoned["pretence"]["other"] == target["trial"] and poisoned["pretence"]["gap"] > 0


KILLED = """
import os, signal, sys
sys.path[:0] = {tests!r}
import torch
torch.set_num_threads({threads})
import test_cnn_hyperparameters as test
from listening import listening

def say(line):
    if line.startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

splits = test.data.protocol.Splits(test.part(60, 1), test.part(40, 2), test.part(40, 3), test.part(60, 1))
with listening(say):
    test.SEARCH.fit(splits, test.a_run(sys.argv[1]))
"""


def test_a_search_that_is_killed_inside_a_trial_ends_as_if_it_had_not_been(searched, splits, tmp_path):
    run, classifier = searched
    code = KILLED.format(tests=[str(folder) for folder in Path(__file__).parents[:2]], threads=torch.get_num_threads())
    command = [sys.executable, "-c", code, str(tmp_path), "trial 1 of 3: epoch 1/2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "trial-00.safetensors").exists() and not (tmp_path / "trial-01.safetensors").exists()
    resumed = a_run(tmp_path)
    again = SEARCH.fit(splits, resumed)
    assert outcome(resumed) == outcome(run)
    assert [trial["attempts"] for trial in resumed.facts["trials"]] == [1, 2, 1]
    for name, tensor in weights(classifier).items():
        assert np.array_equal(weights(again)[name], tensor), name


def test_ctrl_c_and_the_time_budget_stop_a_search_that_goes_on_later(searched, splits, tmp_path):
    run, _ = searched

    def say(line):
        if line.startswith("trial 0 of 3: epoch 1/2"):
            os.kill(os.getpid(), signal.SIGINT)

    with listening(say), pytest.raises(Interrupted, match="trial 0 of the search: Ctrl-C"):
        SEARCH.fit(splits, a_run(tmp_path))
    late = a_run(tmp_path)
    late.deadline = time.monotonic()
    with pytest.raises(Interrupted, match="time budget"):
        SEARCH.fit(splits, late)
    lines = []
    resumed = a_run(tmp_path)
    with listening(lines.append):
        SEARCH.fit(splits, resumed)
    assert any("trial 0 of 3: going on after epoch 1" in line for line in lines), "the trial went on at its checkpoint"
    assert outcome(resumed) == outcome(run)


def test_a_diverged_trial_fails_and_the_search_goes_on(splits, tmp_path):
    recipe = SEARCH.recipe("official", "smoke")
    space = dict(recipe.options["space"]) | {"lr": (1e-3, 1e30), "optimiser": ("sgd", "adam")}
    first = dict(recipe.options["first"]) | {"lr": 1e30, "optimiser": "sgd"}
    run = a_run(tmp_path, trials=3, epochs=1, first=first)
    options = step(recipe.options.name, **(run.recipe.options.kwargs() | {"space": tuple(space.items())}))
    run.recipe = dataclasses.replace(run.recipe, options=options)
    SEARCH.fit(splits, run)
    states = [(trial["state"], trial["reason"]) for trial in run.facts["trials"]]
    assert states[0][0] == "failed" and states[0][1].startswith("diverged in epoch 1")
    assert "complete" in [state for state, _ in states] and search.best(run.facts["trials"])["trial"] != 0
    assert not list(tmp_path.glob("trial-*/"))


def test_a_search_without_resume_begins_anew(searched, splits, tmp_path):
    first = a_run(tmp_path, trials=2, epochs=1)
    SEARCH.fit(splits, first)
    changed = a_run(tmp_path, trials=1, epochs=1, resume=False)
    SEARCH.fit(splits, changed)
    assert len(changed.facts["trials"]) == 1 and not (tmp_path / "trial-01.safetensors").exists()


@pytest.fixture(scope="module")
def smoke_result():
    return reproduce("cnn-hyperparameters-search", device="cpu")


def chapter_for(**chosen):
    names = {name: field.default for name, field in parameters.FIELDS.items()}
    return page.open_chapter("cnn-hyperparameters", names | {"variant": "cnn-hyperparameters"} | chosen)


def test_a_stored_search_is_shown_without_optuna_and_without_its_study(smoke_result, tmp_path, monkeypatch):
    full = SEARCH.recipe("official", "full")
    record = json.loads(json.dumps(smoke_result.record))
    record |= {"profile": "full", "recipe_sha256": full.sha256(), "data": record["data"] | {"name": "fer2013"}}
    results.write(dataclasses.replace(smoke_result, record=record), tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = chapter_for(profile="stored", results_dir=str(tmp_path)).companion(SEARCH.id)
    assert not result.synthetic
    table = figures.summary(result).body
    for trial in record["facts"]["trials"]:
        assert f"{100 * trial['PublicTest']['accuracy']:.2f}" in table and f"{trial['parameters']:,}" in table
    assert f"{100 * record['facts']['pretence']['gap']:.2f} points" in figures.oracle_choice(result).body
    settings = figures.settings(result).body
    assert "Too few trials" in settings and "not a result" not in settings


def test_where_no_search_is_stored_the_page_says_so_and_runs_a_small_one(tmp_path):
    result = chapter_for(profile="full", results_dir=str(tmp_path)).companion(SEARCH.id)
    body = figures.summary(result).body
    assert result.profile == "smoke" and result.synthetic
    assert "not run" in body and "fer-repro run cnn-hyperparameters-search" in body
    assert "not a result" in body and "All 4 trials" in body
    published = chapter_for(profile="stored", results_dir=str(tmp_path)).show(figures.summary, of=SEARCH.id)
    assert published.plain == "Summary: not run on real faces", "a published page shows no search of synthetic faces"


def test_the_claimed_row_stops_by_loss_and_scores_the_last_weights(splits, tmp_path):
    full = ROW.recipe("claimed", "full")
    assert full.stages[0] == Stage("train", 720, paper.optimiser(paper.PUBLISHED), patience=10)
    recipe = dataclasses.replace(
        ROW.recipe("claimed", "smoke"),
        stages=(dataclasses.replace(full.stages[0], epochs=40, patience=2, optimiser=step("adam", lr=0.03)),),
    )
    run = Run(recipe, 0, "cpu", tmp_path, "digest")
    loop.fit(paper.build, splits, run)
    losses = [row["select_loss"] for row in run.history]
    assert run.facts["status"] == "stopped early" and len(losses) < 40
    assert len(losses) - (1 + int(np.argmin(losses))) == 2, "two epochs after the lowest loss"
    assert run.facts["selected_epoch"] == len(losses), "the last weights are scored, not the best ones"
