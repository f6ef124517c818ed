"""The benchmarks run, in a setting that measures nothing; what they report has the promised form."""

from __future__ import annotations

import dataclasses
import json
import os
import signal

import evaluate
import numpy as np
import pytest
import seeds
import torch
import train
from _cases import TRAINED, TRAINING_IMAGES, Case, chosen
from _goals import goal, rounded
from _loops import Hybrid, Ours, Reference
from _turns import Contestant, Failed, Pace, contestants, race

from fer_repro import speed
from fer_repro.errors import FerReproError
from fer_repro.training.execution import ExecutionOptions, native_bf16

QUICK = {"seconds": 0.01, "turns": 1, "device": "cpu", "small": True}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def measured() -> dict[str, dict]:
    """Every benchmark of this library's speed, run on next to nothing."""
    return {
        "train": train.run(only="deep-emotion,resnet18-tricks", images=48, **QUICK),
        "evaluate": evaluate.run(only="resnet18-tricks,resemotenet", images=40, **QUICK),
        "seeds": seeds.run(only="deep-emotion", images=48, **QUICK),
    }


def test_training_is_measured_on_every_side(measured):
    found = measured["train"]
    assert found["device"] == "cpu" and found["training_images"] == TRAINING_IMAGES
    assert list(found["networks"]) == ["deep-emotion", "resnet18-tricks"]
    for one in found["networks"].values():
        # Where products in bf16 are slow, or other work makes them look slow, that side is left out with its reason.
        assert set(one["failed"]) <= {"reference_bf16"}
        for side in {"ours", "synthetic", "reference_fp32", "reference_bf16"} - set(one["failed"]):
            assert one[side] > 0
        assert one["ratio_fp32"] == pytest.approx(one["ours"] / one["reference_fp32"], rel=1e-2)
        assert one["recipe_seconds"] == pytest.approx(one["epochs"] * one["seconds_per_epoch"], rel=1e-2)
        assert one["seconds_per_epoch"] == pytest.approx(TRAINING_IMAGES / one["ours"], rel=1e-2)
        assert set(one["workers_tried"]) >= {"0", "2"} and str(one["workers"]) in one["workers_tried"]
        # Forward, and backward to inputs and to weights, for each crop.
        assert one["training_flops_per_image"] == 3 * one["copies"] * one["forward_flops_per_input"]
        assert one["batch"] <= one["recipe_batch"] and one["peak_memory_bytes"] > 1e6
    assert found["networks"]["resnet18-tricks"]["copies"] == 5


def test_every_technique_is_tried_or_says_why_not(measured):
    one = measured["train"]["techniques"]["deep-emotion"]
    switched = {f"without {field.name.replace('_', ' ')}" for field in dataclasses.fields(ExecutionOptions)}
    assert set(one["share"]) | set(one["failed"]) == switched | {train.ALL_ON, train.WAITS, train.LOADER}
    assert one["share"][train.ALL_ON] == 1.0
    fp32 = {} if native_bf16(torch.device("cpu")) else {"without autocast": "this runs in fp32 already"}
    assert one["failed"] == fp32 | {
        "without compile": "compiling is tried on a GPU only",
        "without autotune": "cuDNN works on a GPU only",
    }
    off = train.switches(ExecutionOptions())
    assert off["without channels last"] == ExecutionOptions(channels_last=False)
    assert off["without compile"] == ExecutionOptions(compile="eager")


def test_scoring_is_measured_and_both_ways_agree(measured):
    for name, one in measured["evaluate"]["networks"].items():
        assert one["ours"] > 0 and one["reference"] > 0 and one["agreement"] > 0.5, name
        assert one["largest_difference"] < evaluate.TOLERANCE_RESIZED


def test_scoring_that_disagrees_is_an_error():
    right = np.full((4, 7), 1 / 7, np.float32)
    wrong = right.copy()
    wrong[2, 3] += 0.01
    case = Case("vggnet")
    facts = {"input_size": 40}
    assert evaluate.compare(case, facts, right, right)["agreement"] == 1.0
    with pytest.raises(FerReproError, match="vggnet: the two ways differ by 0.01"):
        evaluate.compare(case, facts, right, wrong)
    with pytest.raises(FerReproError, match="differ by nan"):
        evaluate.compare(case, facts, right, wrong * np.nan)


def test_seeds_are_measured_every_way(measured):
    one = measured["seeds"]["networks"]["deep-emotion"]
    ways = {*seeds.IN_ONE_PROCESS, seeds.SIDE_BY_SIDE}
    assert set(one["times_of_one"]) == ways and one["failed"] == {}
    for way in ways:
        rates = one["images_per_second"]
        assert one["times_of_one"][way] == pytest.approx(seeds.SEEDS * rates["one"] / rates[way], rel=1e-2)
    assert one["best_ratio"] == min(one["times_of_one"].values())


def test_a_stacked_step_is_the_step_of_each_seed():
    case = Case("mini-resemotenet-b-alone", small=True)
    stacked, apart = seeds.Stacked(case, "cpu", 8, 32), seeds.InTurn(case, "cpu", 8, 32)
    for side in (stacked, apart):
        for module in (m for member in side.members for m in member.model.modules()):
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # the two draw their masks in another order
    before = {name: weight.detach().clone() for name, weight in stacked.weights.items()}
    stacked.train()
    for seed, member in enumerate(apart.members):
        member.train()
        for name, weight in member.model.named_parameters():
            torch.testing.assert_close(stacked.weights[name].grad[seed], weight.grad, rtol=1e-3, atol=1e-5)
    assert any(not torch.equal(before[name], weight) for name, weight in stacked.weights.items())
    assert not torch.equal(stacked.weights["head.0.weight"][0], stacked.weights["head.0.weight"][1])


def test_the_reference_trains_as_ours_does():
    """The same network, loss and optimiser: on the same batch both go the same way."""
    case = Case("deep-emotion", small=True)
    ours = Ours(case, "cpu", 8, 32, 0.0, ExecutionOptions(autocast=False))
    reference = Reference(case, "cpu", 8, 32)
    for model in (ours.model, reference.model):
        model.eval()  # dropout off: the two draw from one generator
    inputs, targets = torch.rand(8, 1, 48, 48), torch.arange(8) % 7
    for _ in range(2):
        ours.step.learn(inputs, targets)
        reference.learn((inputs, targets), bf16=False)
    for a, b in zip(ours.model.parameters(), reference.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    assert reference.running > 0


def test_the_batch_is_halved_until_two_steps_fit():
    case = Case("deep-emotion", small=True)
    assert Ours(case, "cpu", None, 48, 1000.0).recipe.batch_size == 16
    assert Ours(case, "cpu", None, 48, 1e-9).recipe.batch_size == 4
    assert Ours(case, "cpu", 8, 48, 1e-9).recipe.batch_size == 8


def test_a_step_behind_a_loader_gets_its_crops():
    hybrid = Hybrid(Case("vggnet", small=True), "cpu", 4, 16)
    assert hybrid.turn(0.0) > 0
    assert float(hybrid.ours.step.totals[2]) == 10 * 4 * 3  # one step that warms up, two that count


class Clock:
    """A contestant for tests: it does what a test asks for."""

    def __init__(self, name: str) -> None:
        if name == "broken":
            raise ValueError("cannot begin\nat all")

    def rate(self, value: float) -> float:
        if value < 0:
            raise RuntimeError("out of memory")
        return value

    def vanish(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_contestant_that_fails_says_why_and_the_others_go_on():
    with contestants(good=(Clock, "good"), broken=(Clock, "broken")) as sides:
        rates = iter([1.0, 3.0, 2.0])
        ways = {
            "good": lambda: sides["good"].ask("rate", next(rates)),
            "bad": lambda: sides["good"].ask("rate", -1.0),
            "broken": lambda: sides["broken"].ask("rate", 1.0),
        }
        best, failed = race(ways, 3)
        assert best == {"good": 3.0}
        assert failed == {"bad": "RuntimeError: out of memory", "broken": "ValueError: cannot begin"}
        with pytest.raises(Failed, match="its process ended with status -9"):
            sides["good"].ask("vanish")
        with pytest.raises(Failed, match="its process ended"):
            sides["good"].ask("rate", 1.0)


def test_an_error_outside_ends_the_contestants_at_once():
    side: list[Contestant] = []
    with pytest.raises(KeyboardInterrupt), contestants(one=(Clock, "good")) as sides:
        side.append(sides["one"])
        raise KeyboardInterrupt
    assert not side[0]._process.is_alive()


def test_the_pace_fills_a_turn():
    calls = []
    pace = Pace(CPU)
    pace.seconds["known"] = 0.5
    assert pace.steps("known", 4.0, lambda: calls.append(1)) == 8
    assert pace.steps("known", 0.1, lambda: calls.append(1)) == 2
    assert calls == []
    assert pace.steps("new", 0.0, lambda: calls.append(1), least=1) == 1
    assert calls == [1]


@pytest.mark.parametrize(
    ("on", "value", "at_least", "state"),
    [
        ("cpu", 2.0, True, "met"),
        ("cpu", 1.0, True, "met"),
        ("cpu", 0.9, True, "missed"),
        ("cpu", 0.9, False, "met"),
        ("cpu", 1.1, False, "missed"),
        ("cpu", None, True, "not measured"),
        ("cuda", 2.0, True, "not measured"),
    ],
)
def test_a_goal_is_met_missed_or_not_measured(on, value, at_least, state):
    found = goal("some", on, "cpu", value, 1.0, at_least)
    assert found["state"] == state
    assert (found["value"] is None) == (found["measured_on"] is None) == (state == "not measured")


def test_goals_need_every_network_that_they_speak_of():
    ok = {
        "ratio_fp32": 25.0,
        "share_of_synthetic": 0.95,
        "forward_flops_per_input": 1e9,
        "seconds_per_epoch": 3.0,
        "utilisation": 0.3,
        "utilisation_of": "bf16",
    }
    networks = {name: dict(ok) for name in TRAINED}
    networks["resnet34"] |= {"forward_flops_per_input": 7e9, "utilisation": 0.5}

    def states(networks: dict, device: str = "cuda") -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("torch.cuda.get_device_name", lambda: "a GPU")
            return [one["state"] for one in train.goals(networks, device)]

    assert states(networks) == ["not measured", *["met"] * 5]
    assert states(networks, "cpu") == ["met", *["not measured"] * 5]
    networks["resnet34"]["utilisation"] = 0.39
    networks["vggnet"] |= {"ratio_fp32": 19.9, "seconds_per_epoch": 4.1}
    networks["ad-corre"]["share_of_synthetic"] = 0.89
    assert states(networks) == ["not measured", "missed", "met", "missed", "missed", "missed"]
    networks["resnet34"]["utilisation_of"] = "tf32"
    networks["ad-corre"]["share_of_synthetic"] = None
    assert states(networks)[3:5] == ["not measured"] * 2
    del networks["vggnet"]
    assert states(networks) == ["not measured", "not measured", "met", *["not measured"] * 3]
    assert states({}) == ["not measured"] * 6


def test_a_network_that_fails_leaves_the_others(monkeypatch):
    def measure(case, *rest):
        if case.name == "vggnet":
            raise Failed("OutOfMemoryError: no")
        return {"ours": 1.23456, "failed": {}}

    monkeypatch.setattr(train, "measure", measure)
    found = train.run(only="vggnet,resemotenet", device="cpu")
    assert found["networks"]["vggnet"]["failed"] == {"ours": "OutOfMemoryError: no"}
    assert found["networks"]["resemotenet"]["ours"] == 1.235 and found["techniques"] == {}


def test_names_and_numbers():
    assert chosen("", ("a",)) == ("a",) and chosen(" vggnet, resnet34", ()) == ("vggnet", "resnet34")
    with pytest.raises(FerReproError, match="no network 'nobody'"):
        chosen("vggnet,nobody", ())
    assert rounded({"a": [1.23456, {"b": 123456.0}], "c": 3}) == {"a": [1.235, {"b": 123500.0}], "c": 3}


def test_figures_are_json_and_come_back(measured, tmp_path):
    paths = speed.store({name: one | {"date": "2026-01-01"} for name, one in measured.items()}, tmp_path)
    assert [path.name for path in paths] == ["train-cpu.json", "evaluate-cpu.json", "seeds-cpu.json"]
    found = speed.stored(tmp_path)
    assert set(found) == {(name, "cpu") for name in measured}
    for name, figures in measured.items():
        assert found[name, "cpu"] == json.loads(json.dumps(figures)) | {"benchmark": name, "date": "2026-01-01"}
