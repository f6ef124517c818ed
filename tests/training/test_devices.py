"""What a device can do decides how a run computes on it; only the CPU is real here."""

from __future__ import annotations

import pytest
import small
import torch

from fer_repro.errors import FerReproError
from fer_repro.recipe import step as recipe_step
from fer_repro.training import autotune, checked_device, checkpoint, execution, loop
from fer_repro.training.execution import ExecutionMode, ExecutionOptions, enough_memory, precision, resolve_device
from fer_repro.training.run import Interrupted
from fer_repro.training.step import TrainStep

CPU = torch.device("cpu")
WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


@pytest.fixture
def gpu(monkeypatch):
    """``gpu(capability, kernels, count)`` puts such GPUs in the place of what is here."""

    def put(capability=(8, 0), kernels=WHEEL, count=1):
        answers = {"is_available": True, "device_count": count, "get_device_capability": capability}
        answers |= {"get_arch_list": kernels, "get_device_name": "NVIDIA Test"}
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
        execution._say_once.cache_clear()

    return put


@pytest.fixture
def half(monkeypatch):
    """The CPU counts as a device whose half precision is fp16."""
    monkeypatch.setattr(execution, "precision", lambda *_: "fp16")


@pytest.mark.parametrize(
    ("device", "capability", "recipe", "autocast", "expected"),
    [
        ("cuda", (9, 0), "bf16", True, "bf16"),
        ("cuda:1", (8, 0), "bf16", True, "bf16"),
        ("cuda", (7, 5), "bf16", True, "fp16"),  # a T4
        ("cuda", (6, 0), "bf16", True, "fp16"),  # a P100, with a torch that has kernels for it
        ("cuda", (7, 5), "fp32", True, "fp32"),
        ("cuda", (7, 5), "bf16", False, "fp32"),
        ("mps", (0, 0), "bf16", True, "fp32"),
    ],
)
def test_precision_follows_the_device(gpu, monkeypatch, device, capability, recipe, autocast, expected):
    gpu(capability, count=2)
    # What the processor beside a GPU can do does not matter.
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    changed = small.dataclasses.replace(small.PLAIN, precision=recipe)
    found = precision(ExecutionOptions(autocast=autocast), changed, small.Net(), torch.device(device))
    assert found == expected


@pytest.mark.parametrize(
    ("capability", "kernels", "runs"),
    [
        ((7, 5), WHEEL, True),
        ((8, 9), WHEEL, True),  # binaries of sm_86 run on all later devices of their major version
        ((6, 0), WHEEL, False),
        ((8, 0), ["sm_86"], False),
        ((12, 1), ["sm_90", "compute_90"], True),  # the driver compiles PTX code
        ((9, 0), ["sm_90a"], True),
        ((9, 0), ["gfx90a"], True),  # another vendor's: nothing is known
        ((9, 0), [], True),
    ],
)
def test_kernels_are_looked_for(gpu, capability, kernels, runs):
    gpu(capability, kernels)
    assert execution.has_kernels("cuda") is runs


def test_auto_leaves_a_gpu_without_kernels_and_says_so_once(gpu, said):
    gpu((6, 0))
    assert [resolve_device("auto"), resolve_device("auto")] == ["cpu", "cpu"]
    (line,) = said
    assert (
        line.startswith("warning: NVIDIA Test has compute capability 6.0, and torch ")
        and "this runs on the CPU" in line
    )
    with pytest.raises(FerReproError, match=r"6\.0, and torch .* kernels for sm_75, .*: use --device cpu, or install"):
        resolve_device("cuda")


def test_one_of_several_gpus(gpu):
    gpu(count=2)
    assert [resolve_device(name) for name in ("auto", "cuda", "cuda:1")] == ["cuda", "cuda", "cuda:1"]
    with pytest.raises(FerReproError, match=r"'cuda:2' was asked for, but torch sees 2 here.*: use cuda:1 or"):
        resolve_device("cuda:2")


@pytest.mark.parametrize(("here", "expected"), [(True, "mps"), (False, None)])
def test_apple(monkeypatch, here, expected):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: here)
    if expected:
        assert resolve_device("mps") == expected and execution.exact(torch.device("mps")) == torch.float32
    else:
        with pytest.raises(FerReproError, match="sees no GPU of Apple here: use --device cpu"):
            resolve_device("mps")


@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "cuda:-1", "cuda:1.0", "tpu", "", "CUDA:1", None, 0])
def test_other_names_are_refused(name):
    with pytest.raises(FerReproError, match="parameter device is .*expected one of 'auto', 'cpu', 'cuda', 'mps'"):
        checked_device(name)


def test_too_little_memory_on_the_device_is_one_sentence():
    with (
        pytest.raises(
            FerReproError, match=r"cuda: its memory is too small for vggnet.*\(CUDA out of memory\): end"
        ) as e,
        enough_memory("cuda", "vggnet"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has")
    assert "\n" not in str(e.value)


def test_memory_that_runs_out_in_a_run_is_one_sentence(monkeypatch, tmp_path):
    from fer_repro.reproduce import reproduce

    def hungry(step, *_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried")

    monkeypatch.setattr(TrainStep, "gradients", hungry)
    with pytest.raises(FerReproError, match="cpu: its memory is too small for deep-emotion"):
        reproduce("deep-emotion", epochs=1, device="cpu")


def trained(folder, stop_after: int | None = None, **changes):
    run, looks = small.run(folder, **changes), iter(range(10**6))
    if stop_after is not None:
        run.out_of_time = lambda ahead=0.0: next(looks) >= stop_after
        with pytest.raises(Interrupted):
            loop.fit(small.build, small.splits(), run)
        return run, None
    return run, loop.fit(small.build, small.splits(), run)


def test_fp16_scales_its_loss_and_learns_nearly_what_fp32_does(tmp_path, half, monkeypatch):
    run, fitted = trained(tmp_path / "half", recipe=small.PLAIN)
    assert run.facts["precision"] == "fp16" and all(p.dtype == torch.float32 for p in fitted.model.parameters())
    state = torch.load(tmp_path / "half" / checkpoint.NAME, weights_only=True)["state"]
    assert state["scaler"]["scale"] == 2.0**16 and state["scaler"]["_growth_tracker"] == 15, "15 updates"
    monkeypatch.setattr(execution, "precision", lambda *_: "fp32")
    single, _ = trained(tmp_path / "single", recipe=small.PLAIN)
    losses = [[row["loss"] for row in each.history] for each in (run, single)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05) and losses[0] != losses[1]


def test_fp16_goes_on_where_it_stopped(tmp_path, half):
    whole, fitted = trained(tmp_path / "whole")
    trained(tmp_path / "parts", stop_after=18)  # in the second stage
    run, again = trained(tmp_path / "parts")
    scalers = [torch.load(tmp_path / name / checkpoint.NAME)["state"]["scaler"] for name in ("whole", "parts")]
    assert scalers[0] == scalers[1] and scalers[0]["_growth_tracker"] == 10, "10 updates"
    assert [row["loss"] for row in run.history] == [row["loss"] for row in whole.history]
    states = [one.model.state_dict() for one in (fitted, again)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("mode", ["fp32", "fp16"])
def test_a_checkpoint_without_a_scaler(tmp_path, monkeypatch, mode):
    """Of earlier code it is one of fp32 or bf16; in fp16 it would be damaged."""
    monkeypatch.setattr(execution, "precision", lambda *_: mode)
    trained(tmp_path, stop_after=7)
    content = torch.load(tmp_path / checkpoint.NAME, weights_only=True)
    del content["state"]["scaler"], content["digest"]
    (tmp_path / checkpoint.PREVIOUS).unlink(missing_ok=True)  # a whole one would be taken instead
    if mode == "fp32":
        del content["state"]["choice"]["fp16"]
        torch.save(content, tmp_path / checkpoint.NAME)
        run, _ = trained(tmp_path)
        assert run.facts["status"] == "done" and run.facts["precision"] == "fp32"
    else:
        torch.save(content, tmp_path / checkpoint.NAME)
        with pytest.raises(FerReproError, match="no readable checkpoint .*scaler"):
            trained(tmp_path)


def test_an_update_whose_gradients_overflow_is_left_out(half):
    torch.manual_seed(0)
    model = small.Net()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    step = TrainStep(small.PLAIN, model, optimiser, torch.Generator().manual_seed(1))
    images, labels = torch.randint(0, 256, (16, 48, 48), dtype=torch.uint8), torch.arange(16) % 7
    step(images, labels)
    before = [p.clone() for p in model.parameters()]
    model.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    step(images, labels)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert step.scaler.get_scale() == 2.0**15


class Overflowing(small.Net):
    """In half precision its loss, or only its gradient, is not finite: so do some GPUs compute."""

    def __init__(self, where: str) -> None:
        self.wrong = lambda logits: logits
        super().__init__()
        self.wrong = {"loss": self._loss, "gradient": self._gradient, "nowhere": lambda logits: logits}[where]

    def _loss(self, logits):
        return logits * float("inf")

    def _gradient(self, logits):
        logits.register_hook(lambda gradient: gradient * float("nan"))
        return logits

    def forward(self, images):
        logits = super().forward(images)
        return self.wrong(logits) if logits.dtype == torch.float16 and logits.requires_grad else logits


@pytest.mark.parametrize(
    ("where", "taken", "line"),
    [
        ("loss", "fp32", "a first loss is nan in it"),
        ("gradient", "fp32", "its gradients overflow"),
        ("nowhere", "fp16", ""),
    ],
)
def test_fp16_that_does_not_agree_with_fp32_gives_way_to_it(tmp_path, half, said, where, taken, line):
    run = small.run(tmp_path, recipe=small.PLAIN)
    loop.fit(lambda recipe: Overflowing(where), small.splits(), run)
    assert run.facts["precision"] == taken and run.facts["status"] == "done"
    assert any(line in one for one in said if one.startswith("fp16 does not agree")) == (taken == "fp32")


def test_the_comparison_leaves_no_trace(half):
    torch.manual_seed(0)
    model = small.Net()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    step = TrainStep(small.RECIPE, model, optimiser, torch.Generator().manual_seed(1))
    images, labels = torch.randint(0, 256, (70, 48, 48), dtype=torch.uint8), torch.arange(70) % 7
    before = {name: part.clone() for name, part in model.state_dict().items()}
    states = torch.get_rng_state(), step.generator.get_state()
    assert autotune.agreeing(step, images, labels).precision == "fp16" == step.mode.precision
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0]) and torch.equal(step.generator.get_state(), states[1])
    assert step.scaler.is_enabled() and step.scaler.get_scale() == 2.0**16


def test_a_run_that_overflows_in_fp16_says_what_else_there_is(tmp_path, half, said):
    sudden = small.dataclasses.replace(small.PLAIN.stages[0], optimiser=recipe_step("sgd", lr=1e9))
    run = small.run(tmp_path, small.dataclasses.replace(small.PLAIN, stages=(sudden,), clip_norm=None))
    loop.fit(small.build, small.splits(), run)
    assert run.facts["status"] == "diverged"
    assert any("or a GPU with bf16: this one computed in fp16" in line for line in said)


def test_modes_have_names_and_types():
    modes = [ExecutionMode(), ExecutionMode(autocast=True), ExecutionMode(autocast=True, fp16=True)]
    assert [mode.precision for mode in modes] == ["fp32", "bf16", "fp16"]
    assert [mode.dtype for mode in modes[1:]] == [torch.bfloat16, torch.float16]
    assert [mode.scaler(CPU).is_enabled() for mode in modes] == [False, False, True]
