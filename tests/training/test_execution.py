"""How a run is computed is chosen by trying, changes nothing else, and is kept."""

import dataclasses
import io
import time

import pytest
import small
import torch
from torch import nn

from fer_repro.errors import FerReproError
from fer_repro.recipe import step as recipe_step
from fer_repro.training import autotune, execution, loop
from fer_repro.training.execution import ExecutionMode, ExecutionOptions
from fer_repro.training.optim import make_optimiser
from fer_repro.training.run import Interrupted
from fer_repro.training.step import TrainStep


class Deep(nn.Sequential):
    """Two convolutions: the second one's weights lie differently in the two memory formats."""

    def __init__(self) -> None:
        # A bias before batch norm has no gradient but rounding, which Adam would make large.
        body = nn.Conv2d(1, 6, 5, 4, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, 2)
        super().__init__(*body, nn.Flatten(), nn.Linear(128, 7))


def deep(recipe) -> nn.Module:
    return Deep()


def one_step(optimiser, seed=0, images=16, **options) -> TrainStep:
    torch.manual_seed(seed)
    model = ExecutionOptions().to_device(Deep(), torch.device("cpu"))
    made = make_optimiser(optimiser, model.parameters(), options.pop("fused", True))
    options = {"execution": ExecutionOptions(autocast=False)} | options  # a processor with bf16 rounds differently
    return TrainStep(small.PLAIN, model, made, torch.Generator().manual_seed(1), **options)


def batches(n=6):
    source = torch.Generator().manual_seed(7)
    for _ in range(n):
        yield torch.randint(0, 256, (16, 48, 48), dtype=torch.uint8, generator=source), torch.arange(16) % 7


def weights(step: TrainStep) -> torch.Tensor:
    return torch.cat([p.detach().contiguous().flatten() for p in step.model.parameters()])


OPTIMISERS = [small.SGD, *(recipe_step(name, lr=0.01) for name in ("adam", "adamw", "adagrad"))]


@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=lambda step: step.name)
def test_no_switch_changes_what_is_learnt(optimiser):
    reference = one_step(
        optimiser,
        fused=False,
        execution=ExecutionOptions(channels_last=False, fused_augmentation=False, autocast=False),
    )
    default, turned = one_step(optimiser), one_step(optimiser)
    for number, (images, labels) in enumerate(batches()):
        if number == 3:  # in the middle, when the optimiser has a state
            turned.set_mode(ExecutionMode(channels_last=False))
        for step in (reference, default, turned):
            step(images, labels)
    torch.testing.assert_close(weights(default), weights(reference), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights(turned), weights(reference), rtol=1e-4, atol=1e-5)


def test_a_state_in_the_other_memory_format_is_put_right():
    here = one_step(small.SGD)
    for images, labels in batches(3):
        here(images, labels)
    file = io.BytesIO()
    torch.save({"model": here.model.state_dict(), "optimiser": here.optimiser.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    there = one_step(small.SGD, execution=ExecutionOptions(channels_last=False, autocast=False))
    there.model.load_state_dict(saved["model"])
    there.optimiser.load_state_dict(saved["optimiser"])
    there.set_mode(there.mode)
    for step in (here, there):
        for images, labels in batches(3):
            step(images, labels)
    torch.testing.assert_close(weights(there), weights(here), rtol=1e-4, atol=1e-5)


COMPILED = ExecutionOptions(compile="compiled")


@pytest.fixture
def compiler(monkeypatch):
    """`torch.compile` as one that changes nothing; the batch sizes of its calls."""
    sizes = []

    def compile_(model, mode):
        def call(inputs):
            sizes.append(len(inputs))
            return model(inputs)

        return call

    monkeypatch.setattr(torch, "compile", compile_)
    return sizes


def same(one, other) -> None:
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name


def test_tuning_leaves_no_trace(said, tmp_path, monkeypatch, compiler):
    plain = loop.fit(small.build, small.splits(), small.run(tmp_path / "a"))
    monkeypatch.setattr(loop, "MANY_STEPS", 1)
    for module in (loop, autotune):  # as on a GPU
        monkeypatch.setattr(module, "untried", lambda execution, device, seconds: list({"compiled"} - set(seconds)))
    monkeypatch.setattr(autotune, "CLEARLY", 0.0)  # tried, but nothing is ever clearly faster
    tuned = small.run(tmp_path / "b")
    fitted = loop.fit(small.build, small.splits(), tuned)
    assert any(line.startswith("autotune, per batch: eager") for line in said) and compiler
    assert set(tuned.facts["rehearsal"]["seconds_per_batch"]) == {"eager", "compiled"}
    safe = execution.channels_last_is_safe(torch.device("cpu"))
    assert (tuned.facts["rehearsal"]["channels_last"], tuned.facts["rehearsal"]["forward"]) == (safe, "eager")
    same(plain, fitted)


def stopped(folder, batches, **changes):
    """A run that is stopped before batch ``batches``; returns with its checkpoint written."""
    run, looks = small.run(folder, **changes), iter(range(1000))
    run.out_of_time = lambda ahead=0.0: next(looks) >= batches if ahead < 1 else changes.get("deadline") is not None
    with pytest.raises(Interrupted):
        loop.fit(deep, small.splits(), run)


def test_a_resumed_run_keeps_the_choice(tmp_path, monkeypatch, compiler):
    whole = loop.fit(deep, small.splits(), small.run(tmp_path / "a", execution=COMPILED))
    stopped(tmp_path / "b", 8, execution=COMPILED)
    resumed = small.run(tmp_path / "b", execution=COMPILED)
    fitted = loop.fit(deep, small.splits(), resumed)
    found = resumed.facts["rehearsal"]
    assert found["forward"] == "compiled" and set(found["seconds_per_batch"]) == {"eager", "compiled"}
    same(whole, fitted)


def test_trials_that_were_left_out_are_made_when_the_run_goes_on(said, tmp_path, compiler):
    """A short budget may not lock a run into the slow way."""
    stopped(tmp_path, 8, execution=COMPILED, deadline=1.0)
    assert not compiler
    resumed = small.run(tmp_path, execution=COMPILED)
    loop.fit(deep, small.splits(), resumed)
    assert resumed.facts["rehearsal"]["forward"] == "compiled" and compiler


def test_a_choice_that_there_is_no_time_to_confirm_comes_back(tmp_path, compiler):
    stopped(tmp_path, 8, execution=COMPILED)
    compiler.clear()
    stopped(tmp_path, 3, execution=COMPILED, deadline=1.0)
    assert not compiler, "compiled without the time for it"
    resumed = small.run(tmp_path, execution=COMPILED)
    loop.fit(deep, small.splits(), resumed)
    assert resumed.facts["rehearsal"]["forward"] == "compiled" and compiler


def test_nothing_is_timed_without_time(tmp_path, monkeypatch):
    """At the end of a budget not even the first batch is tried."""
    monkeypatch.setattr(TrainStep, "gradients", lambda *_, **__: pytest.fail("computed"))
    run = small.run(tmp_path, execution=COMPILED, deadline=time.monotonic())
    with pytest.raises(Interrupted):
        loop.fit(small.build, small.splits(), run)


def test_on_a_cpu_nothing_is_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "MANY_STEPS", 1)
    monkeypatch.setattr(autotune, "_seconds_per_batch", lambda *_: pytest.fail("timed"))
    run = small.run(tmp_path)
    loop.fit(small.build, small.splits(), run)
    assert "rehearsal" not in run.facts and run.facts["precision"] in ("fp32", "bf16")


def test_short_runs_are_not_tuned(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "autotune", lambda *_: pytest.fail("tuned"))
    run = small.run(tmp_path)
    loop.fit(small.build, small.splits(), run)
    assert "rehearsal" not in run.facts


@pytest.mark.parametrize("way", ["compiled", "cuda-graphs"])
def test_a_way_that_fails_is_named_and_left_out(said, tmp_path, monkeypatch, way):
    def no_compiler(model, mode):
        def call(inputs):
            raise RuntimeError("no C compiler found\nand more")

        return call

    monkeypatch.setattr(torch, "compile", no_compiler)
    run = small.run(tmp_path, execution=ExecutionOptions(compile=way))
    loop.fit(small.build, small.splits(), run)
    assert any(f"{way} does not work here (RuntimeError: no C compiler found)" in line for line in said)
    assert run.facts["rehearsal"]["forward"] == "eager" and run.facts["status"] == "done"


def test_a_compiled_way_is_used_for_whole_batches_only(tmp_path, compiler):
    run = small.run(tmp_path, recipe=small.PLAIN, execution=COMPILED)
    loop.fit(small.build, small.splits(), run)
    assert run.facts["rehearsal"]["forward"] == "compiled" and set(compiler) == {small.PLAIN.batch_size}
    assert 70 % small.PLAIN.batch_size, "every batch is a whole one: the test shows nothing"


class Hungry(small.Net):
    """Runs out of memory unless activations are handed over."""

    def __init__(self) -> None:
        self.sized = False
        super().__init__()
        self.sized = True

    def __setattr__(self, name, value):
        object.__setattr__(self, name, value) if name == "sized" else super().__setattr__(name, value)

    def forward(self, images):
        if self.sized and torch.is_grad_enabled() and not torch._C._autograd._top_saved_tensors_default_hooks(False):
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(images)


def test_a_batch_that_does_not_fit_keeps_its_activations_in_host_memory(said, tmp_path):
    run = small.run(tmp_path / "a", recipe=small.PLAIN, execution=COMPILED)
    fitted = loop.fit(lambda recipe: Hungry(), small.splits(), run)
    assert any("activations wait in host memory" in line for line in said)
    assert run.facts["rehearsal"]["host_memory"] is True
    # Where dropout's draws fall depends on the memory format, and what comes back from the host is contiguous.
    plain = small.run(tmp_path / "b", recipe=small.PLAIN, execution=ExecutionOptions(channels_last=False))
    for name, tensor in loop.fit(small.build, small.splits(), plain).model.state_dict().items():
        assert torch.equal(tensor, fitted.model.state_dict()[name]), name


class Starving(small.Net):
    def forward(self, images):
        if len(images) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(images)


def test_too_little_memory_is_one_sentence(tmp_path):
    with pytest.raises(FerReproError, match=r"network of small and a batch of 16 inputs do not fit .* larger device"):
        run = small.run(tmp_path, recipe=small.PLAIN, execution=COMPILED)
        loop.fit(lambda recipe: Starving(), small.splits(), run)


def test_an_unknown_way_is_refused():
    with pytest.raises(FerReproError, match="compile is 'fast', expected auto or one of eager, compiled, cuda-graphs"):
        ExecutionOptions(compile="fast")


def test_the_allocator_can_be_told_to_keep_memory():
    import platform

    assert execution.keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


def test_no_way_is_tried_that_there_is_no_time_for(said, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled"))
    run = small.run(tmp_path, execution=ExecutionOptions(compile="compiled"), deadline=time.monotonic() + 100)
    loop.fit(small.build, small.splits(), run)
    assert any("no time left to try compiled" in line for line in said)
    assert set(run.facts["rehearsal"]["seconds_per_batch"]) == {"eager"}


def test_a_run_from_before_autotuning_goes_on_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "native_bf16", lambda device: False)
    stopped(tmp_path, 8)
    file = tmp_path / "checkpoint.pt"
    content = torch.load(file, weights_only=True)
    del content["state"]["choice"], content["state"]["ways"], content["state"]["threads"]
    torch.save(content, file)
    monkeypatch.setattr(execution, "native_bf16", lambda device: True)
    resumed = small.run(tmp_path)
    loop.fit(deep, small.splits(), resumed)
    assert resumed.facts["status"] == "done" and resumed.facts["precision"] == "fp32"


def test_bf16_keeps_weights_in_float32(tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "native_bf16", lambda device: True)
    run = small.run(tmp_path)
    fitted = loop.fit(small.build, small.splits(), run)
    assert run.facts["precision"] == "bf16" and run.facts["status"] == "done"
    assert all(p.dtype == torch.float32 for p in fitted.model.parameters())


@pytest.mark.parametrize("change", [{"host_memory": True}, {"channels_last": False}, {"autocast": True}])
def test_choices_are_whole_data(change):
    choice = dataclasses.replace(ExecutionMode(), **change)
    assert ExecutionMode(**vars(choice)) == choice != ExecutionMode()


def test_a_loss_that_is_not_finite_is_left_to_the_run(tmp_path):
    run = small.run(tmp_path, recipe=small.PLAIN, execution=COMPILED)
    loop.fit(small.build, small.splits(), run, loss=lambda output, targets: (output * float("nan")).mean())
    assert run.facts["status"] == "diverged"


@pytest.mark.parametrize(("capability", "safe"), [("AVX2", False), ("AVX512", True)])
def test_a_cpu_without_avx512_trains_in_contiguous_memory(monkeypatch, capability, safe):
    """Its backward pass in channels-last layout writes beyond its memory for some convolutions."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    cpu, network = torch.device("cpu"), torch.nn.Conv2d(8, 16, 3, stride=2)
    mode = execution.first_mode(ExecutionOptions(), small.PLAIN, network, cpu)
    moved = ExecutionOptions().to_device(network, cpu).weight
    assert mode.channels_last == safe == (not moved.is_contiguous())
    assert execution.channels_last_is_safe(torch.device("cuda"))
