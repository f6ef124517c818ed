"""The first thing to run on a machine with a GPU: every variant trains on it, in every way that a run may compute.

`pytest tests/cuda -n 8` takes a minute: most of it is compiling, which runs side by side. `FER_REPRO_TEST_DEVICE=cpu`
tries these tests themselves without a GPU, eager only.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import os

import numpy as np
import pytest
import small
import torch
from torchvision.ops import StochasticDepth

from fer_repro import data, papers
from fer_repro.evaluation import cost
from fer_repro.training import autotune, execution, loop
from fer_repro.training.execution import FORWARDS, ExecutionOptions, native_bf16, precision, resolve_device
from fer_repro.training.interleave import interleave
from fer_repro.training.run import Interrupted, Run
from fer_repro.training.step import TrainStep

pytestmark = pytest.mark.cuda
# pytest shows the thousands of lines that torch.compile writes there, and the reason of a failed test is lost in them.
logging.getLogger("torch.__trace").disabled = True
DEVICE = os.environ.get("FER_REPRO_TEST_DEVICE", "cuda")
if DEVICE == "cuda" and not torch.cuda.is_available():
    pytest.skip("torch sees no CUDA GPU here: nothing of this was tried on one", allow_module_level=True)

WAYS = list(FORWARDS) if DEVICE == "cuda" else ["eager"]
VARIANTS = papers.variants()
NETWORKS = {name: one for name, one in VARIANTS.items() if one.build and not name.endswith(papers.SCRATCH)}


def _distinct() -> list[str]:
    """Of variants that a GPU sees as one, same network, loss and way to fit, the first."""
    seen: dict[object, str] = {}
    for name, variant in NETWORKS.items():
        recipe = variant.recipe("official", "smoke")
        kind = variant.build, variant.fit, recipe.network, recipe.loss, recipe.mix, bool(recipe.stages)
        seen.setdefault(kind, name)
    return list(seen.values())


each_variant = pytest.mark.parametrize("name", _distinct())
each_trained = pytest.mark.parametrize(
    "name", [n for n in _distinct() if NETWORKS[n].recipe("official", "smoke").stages]
)


class Caught(Exception):
    """Ends a run at its first batch."""


@pytest.fixture(scope="module")
def faces():
    return data.load("synthetic", size=(210, 70, 70))


@pytest.fixture(autouse=True)
def nothing_compiled():
    """torch stops compiling a function, here every network's, after a few versions of it."""
    torch.compiler.reset()


def run_of(name: str, device: str, folder, faces, **options) -> tuple[Run, object]:
    """A run of a variant's smoke recipe, one epoch of every stage, and its splits; teachers are fitted in `fitted`."""
    recipe = VARIANTS[name].recipe("official", "smoke")
    stages = tuple(dataclasses.replace(stage, epochs=1) for stage in recipe.stages)
    # Whole batches: what is compiled is used, and the CUDA graph is replayed.
    recipe = dataclasses.replace(recipe, stages=stages, batch_size=min(recipe.batch_size, 64))
    run = Run(recipe, 0, device, folder / name, faces.digest, execution=ExecutionOptions(**options))
    return run, recipe.protocol.split(faces)


def fitted(name: str, device: str, folder, faces, **options):
    """The run and the classifier of a variant, after what it requires (eager: only its own way is asked for)."""
    run, splits = run_of(name, device, folder, faces, **options)
    run.required = {other: fitted(other, device, folder, faces)[1] for other in VARIANTS[name].requires}
    return run, VARIANTS[name].fit(splits, run)


@each_variant
@pytest.mark.parametrize("way", WAYS)
def test_every_variant_trains(name, way, tmp_path, faces):
    run, classifier = fitted(name, DEVICE, tmp_path, faces, compile=way)
    shares = classifier.predict_proba(faces.images[:8])
    assert np.isfinite(shares).all() and np.allclose(shares.sum(axis=1), 1, atol=1e-3)
    if run.recipe.stages:
        assert run.facts["status"] == "done" and all(np.isfinite(row["loss"]) for row in run.history)
        network, place = NETWORKS[name].build(run.recipe), torch.device(DEVICE)
        assert run.facts["precision"] == precision(run.execution, run.recipe, network, place)
        # A way that failed is named in the log, which pytest shows, and the run went on without it.
        assert way == "eager" or run.facts["rehearsal"]["forward"] == way


def first_batch(name: str, folder, faces, monkeypatch):
    """The step of a run on the CPU and what it is about to learn first."""

    def catch(step, inputs, targets, extras=()):
        raise Caught(step, inputs, targets, extras)

    run, splits = run_of(name, "cpu", folder, faces, autocast=False)
    run.required = {other: fitted(other, "cpu", folder, faces, autocast=False)[1] for other in VARIANTS[name].requires}
    with monkeypatch.context() as patch, pytest.raises(Caught) as caught:
        patch.setattr(TrainStep, "learn", catch)
        NETWORKS[name].fit(splits, run)
    return caught.value.args


@each_trained
def test_losses_and_gradients_agree_with_the_cpu(name, tmp_path, faces, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    step, inputs, targets, extras = first_batch(name, tmp_path, faces, monkeypatch)
    for part in step.model.modules():
        if "drop" in type(part).__name__.lower() or isinstance(part, StochasticDepth):
            part.eval()  # the devices draw differently
        if hasattr(part, "drop_rate"):
            part.drop_rate = 0.0  # timm's networks call dropout as a function
    model, place = copy.deepcopy(step.model).to(DEVICE), torch.device(DEVICE)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    options = ExecutionOptions(autocast=False)
    other = TrainStep(step.recipe, model, optimiser, torch.Generator(place), copy.deepcopy(step.loss), options)
    moved = [part if part is None else part.to(place) for part in (inputs, targets, *extras)]
    here, there = step.gradients(inputs, targets, extras), other.gradients(moved[0], moved[1], tuple(moved[2:]))
    assert there.item() == pytest.approx(here.item(), rel=1e-3)
    sizes = [
        torch.stack([p.grad.norm() for p in m.parameters() if p.grad is not None]).norm() for m in (step.model, model)
    ]
    assert sizes[1].item() == pytest.approx(sizes[0].item(), rel=0.02)


def stopped_and_resumed(folder, batches: int, **changes) -> Run:
    run, looks = small.run(folder, device=DEVICE, **changes), iter(range(10**6))
    run.out_of_time = lambda ahead=0.0: next(looks) >= batches
    with pytest.raises(Interrupted):
        loop.fit(small.build, small.splits(), run)
    run = small.run(folder, device=DEVICE, **changes)
    loop.fit(small.build, small.splits(), run)
    return run


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in run.history]


@pytest.mark.parametrize("kind", ["bf16", "fp16", "fp32"])
def test_a_run_resumes_in_its_precision(tmp_path, monkeypatch, kind):
    if kind == "bf16" and not native_bf16(torch.device(DEVICE)):
        pytest.skip("this device has no bf16")
    monkeypatch.setattr(execution, "precision", lambda *_: kind)
    whole = small.run(tmp_path / "whole", device=DEVICE)
    loop.fit(small.build, small.splits(), whole)
    assert whole.facts["precision"] == kind and whole.facts["status"] == "done"
    resumed = stopped_and_resumed(tmp_path / "parts", 7)
    assert resumed.facts["precision"] == kind
    # Nearly: two runs on one GPU are not promised to be equal.
    assert losses(resumed) == pytest.approx(losses(whole), rel=0.02)


def test_seeds_side_by_side_learn_what_they_learn_alone(tmp_path):
    def do(folder, seed, turn=None):
        run = small.run(
            folder / str(seed), device=DEVICE, seed=seed, turn=turn, execution=ExecutionOptions(autocast=False)
        )
        loop.fit(small.build, small.splits(), run)
        return losses(run)

    alone = [do(tmp_path / "alone", seed) for seed in (3, 4)]
    ended = interleave([lambda turn, s=seed: do(tmp_path / "together", s, turn) for seed in (3, 4)], DEVICE)
    failed = [one for one in ended if isinstance(one, BaseException)]
    assert not failed, failed
    for one, other in zip(alone, ended, strict=True):
        assert other == pytest.approx(one, rel=0.02)
    assert alone[0] != pytest.approx(alone[1], rel=0.02), "both seeds are one run: the comparison shows nothing"


def test_a_long_run_takes_the_fastest_way(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "MANY_STEPS", 1)
    monkeypatch.setattr(autotune, "TIMED", 2)
    run = small.run(tmp_path, recipe=small.PLAIN, device=DEVICE)
    loop.fit(small.build, small.splits(), run)
    assert run.facts["status"] == "done"
    if DEVICE == "cuda":
        tried = run.facts["rehearsal"]["seconds_per_batch"]
        assert set(tried) == set(FORWARDS) and None not in tried.values(), tried


def test_the_device_is_known(tmp_path):
    place = resolve_device(DEVICE)
    assert place == DEVICE
    if DEVICE == "cuda":
        assert resolve_device("auto") == "cuda" and resolve_device("cuda:0") == "cuda:0"
        assert cost.environment("cuda:0")["gpu"] == torch.cuda.get_device_name(0)
        run = small.run(tmp_path, device="cuda:0")
        loop.fit(small.build, small.splits(), run)
        assert run.facts["peak_memory_bytes"] > 0


@pytest.mark.skipif(DEVICE != "cuda", reason="only CUDA says where the host waits for it")
@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_no_batch_waits_for_the_device(tmp_path, monkeypatch, kind):
    call = TrainStep.__call__

    def strict(step, images, labels, chosen=None):
        torch.cuda.set_sync_debug_mode("error")
        try:
            call(step, images, labels, chosen)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(execution, "precision", lambda *_: kind)
    monkeypatch.setattr(TrainStep, "__call__", strict)
    run = small.run(tmp_path, small.PLAIN, device=DEVICE)
    loop.fit(small.build, small.splits(), run)
    assert run.facts["precision"] == kind
