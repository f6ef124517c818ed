"""Training: this library's loop against the one that tutorials write, network by network, and technique by technique.

    python benchmarks/train.py [--only vggnet,deep-emotion] [--seconds 3] [--turns 3] [--device auto]

Both train the same network by the same recipe with the same batch. The reference is a Dataset of PIL images from the
same bytes in memory, torchvision transforms made from the recipe's own steps, a DataLoader with the number of workers
that is fastest here, fp32 and bf16. Every side works in a process of its own; they take turns, and each keeps its best.
On a CPU the batch is halved until two steps fit into a turn; the batch used is reported.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from _cases import TRAINED, TRAINING_IMAGES, Case, chosen
from _command import command_line
from _goals import goal, rounded
from _loops import Hybrid, Ours, Reference
from _turns import Contestant, Failed, contestants, race

from fer_repro.evaluation.cost import environment
from fer_repro.training.execution import ExecutionOptions, resolve_device

SECONDS = {"cpu": 3.0, "cuda": 3.0}  # of a turn
TECHNIQUES_ON = {
    "cpu": ("deep-emotion", "mini-resemotenet-b-alone"),
    "cuda": ("deep-emotion", "vggnet", "cnn-hyperparameters"),
}
ALL_ON, WAITS, LOADER = "everything on", "a wait for the device each step", "PIL images in a DataLoader"
LARGE = 5e9  # FLOPs of a forward pass from which a network should fill the matrix units
SLOW_BF16 = 0.25  # of the fp32 rate of matrix products; below that a step in bf16 is not affordable


def run(
    only: str = "",
    seconds: float | None = None,
    turns: int = 3,
    device: str = "auto",
    small: bool = False,
    images: int = TRAINING_IMAGES,
) -> dict[str, Any]:
    """Measure and return everything, JSON-ready. ``only``: networks by name, separated by commas.

    ``seconds`` a turn, ``turns`` of each side. ``small`` and ``images`` (in memory) shrink all of it for tests.
    """
    device = resolve_device(device)
    seconds = seconds or SECONDS[device]
    names = chosen(only, TRAINED)
    studied = [name for name in TECHNIQUES_ON[device] if not only or name in names]
    networks, techniques = {}, {}
    for name in names:
        _say(f"{name}: against the reference")
        case = Case(name, small)
        try:
            networks[name] = case.facts() | measure(case, device, seconds, turns, images)
        except Failed as error:
            networks[name] = case.facts() | {"failed": {"ours": str(error)}}
    for name in studied:
        _say(f"{name}: technique by technique")
        case = Case(name, small)
        try:
            techniques[name] = case.facts() | ablation(case, device, seconds / 2, turns, images)
        except Failed as error:
            techniques[name] = case.facts() | {"failed": {ALL_ON: str(error)}}
    return rounded(
        {
            "what": "training, images per second",
            "device": device,
            "seconds_a_turn": seconds,
            "turns": turns,
            "training_images": TRAINING_IMAGES,
            "networks": networks,
            "techniques": techniques,
            "goals": goals(networks, device),
            "environment": environment(),
        }
    )


def measure(case: Case, device: str, seconds: float, turns: int, images: int) -> dict[str, Any]:
    """One network, this library and the reference side by side. Raises `Failed` where ours does not run."""
    with contestants(ours=(Ours, case, device, None, images, seconds)) as first:
        ours = first["ours"]
        ours.ask("turn", seconds)
        facts, matmul = ours.ask("facts"), ours.ask("matmul_rates")
        with contestants(reference=(Reference, case, device, facts["batch"], images)) as second:
            reference = second["reference"]
            ways: dict[str, Callable[[], float]] = {
                "ours": lambda: ours.ask("turn", seconds),
                "synthetic": lambda: ours.ask("synthetic", seconds),
                "reference_fp32": lambda: reference.ask("turn", seconds),
            }
            failed: dict[str, str] = {}
            workers = _or_reason(reference, "choose_workers", seconds / 2, failed, "reference_fp32")
            memory = _or_reason(reference, "peak_memory", None, failed, "reference_fp32")
            if matmul["bf16"] >= SLOW_BF16 * matmul["fp32"]:
                ways["reference_bf16"] = lambda: reference.ask("turn", seconds, bf16=True)
            else:
                share = matmul["bf16"] / matmul["fp32"]
                failed["reference_bf16"] = f"products in bf16 run at {share:.0%} of fp32's rate on this processor"
            best, lost = race(ways, turns)
            # A second time: the best of both, for something else may have run beside the first.
            again = ours.ask("matmul_rates")
            matmul = {name: max(one, again[name]) for name, one in matmul.items()}
            chosen_workers = None if workers is None else reference.ask("workers")
    if "ours" not in best:
        raise Failed(lost["ours"])
    return (
        facts
        | figures(facts, best, matmul)
        | {
            "workers": chosen_workers,
            "workers_tried": workers,
            "reference_peak_memory_bytes": memory,
            "matmul_flops_per_second": matmul,
            "failed": failed | lost,
        }
    )


def _or_reason(side: Contestant, method: str, argument: Any, failed: dict[str, str], name: str) -> Any:
    try:
        return side.ask(method) if argument is None else side.ask(method, argument)
    except Failed as error:
        failed[name] = str(error)
        return None


def figures(facts: dict[str, Any], best: dict[str, float], matmul: dict[str, float]) -> dict[str, Any]:
    """What follows from the rates (images per second) of one network; None where a side did not run."""
    ours, synthetic = best["ours"], best.get("synthetic")
    # Convolutions in fp32 may use the tensor cores' reduced format on a GPU, torch's default: that is their bound.
    bound = facts["precision"] if facts["precision"] in matmul and facts["precision"] != "fp32" else "fp32"
    bound = "tf32" if bound == "fp32" and "tf32" in matmul else bound
    flops = facts["training_flops_per_image"]
    sides = {name: best.get(name) for name in ("ours", "synthetic", "reference_fp32", "reference_bf16")}
    return sides | {
        "ratio_fp32": _ratio(ours, best.get("reference_fp32")),
        "ratio_bf16": _ratio(ours, best.get("reference_bf16")),
        "share_of_synthetic": _ratio(ours, synthetic),
        "utilisation": ours * flops / matmul[bound],
        "utilisation_of": bound,
        "seconds_per_epoch": TRAINING_IMAGES / ours,
        "recipe_seconds": facts["epochs"] * TRAINING_IMAGES / ours,
    }


def _ratio(ours: float, other: float | None) -> float | None:
    return None if not other else ours / other


def switches(engine: ExecutionOptions) -> dict[str, ExecutionOptions]:
    """Every switch of the engine turned off alone, by a name to print."""
    found = {}
    for field in dataclasses.fields(engine):
        off = False if isinstance(getattr(engine, field.name), bool) else "eager"
        found[f"without {field.name.replace('_', ' ')}"] = dataclasses.replace(engine, **{field.name: off})
    return found


def idle(switch: str, device: str, precision: str) -> str | None:
    """Why a switch changes nothing here, or None."""
    if switch == "without compile" and device == "cpu":
        return "compiling is tried on a GPU only"
    if switch == "without keep memory" and device == "cuda":
        return "torch keeps a GPU's memory by itself"
    if switch == "without autotune" and device == "cpu":
        return "cuDNN works on a GPU only"
    if switch == "without autocast" and precision == "fp32":
        return "this runs in fp32 already"
    return None


def ablation(case: Case, device: str, seconds: float, turns: int, images: int) -> dict[str, Any]:
    """Each technique off alone; images per second as a share of everything on."""
    with contestants(first=(Ours, case, device, None, images, seconds)) as first:
        facts = first["first"].ask("facts")
    makers: dict[str, tuple[Any, ...]] = {ALL_ON: (Ours, case, device, facts["batch"], images, seconds)}
    failed: dict[str, str] = {}
    for name, engine in switches(ExecutionOptions()).items():
        if (why := idle(name, device, facts["precision"])) is not None:
            failed[name] = why
        else:
            makers[name] = (*makers[ALL_ON], engine)
    makers[WAITS] = (*makers[ALL_ON], ExecutionOptions(), True)
    makers[LOADER] = (Hybrid, case, device, facts["batch"], images)
    with contestants(**makers) as sides:
        _or_reason(sides[LOADER], "choose_workers", seconds / 2, failed, LOADER)
        best, lost = race({n: lambda side=side: side.ask("turn", seconds) for n, side in sides.items()}, turns)
    if ALL_ON not in best:
        raise Failed(lost[ALL_ON])
    return {
        "batch": facts["batch"],
        "precision": facts["precision"],
        "images_per_second": best,
        "share": {name: rate / best[ALL_ON] for name, rate in best.items()},
        "failed": failed | lost,
    }


def goals(networks: dict[str, dict[str, Any]], device: str) -> list[dict[str, Any]]:
    """The goals of training with their states. A network that was not measured leaves its goal unmeasured."""

    def least(key: str, names: list[str]) -> float | None:
        found = [networks[name].get(key) for name in names if name in networks]
        return min(found) if names and len(found) == len(names) and None not in found else None

    every = list(TRAINED)
    large = [name for name, one in networks.items() if one.get("forward_flops_per_input", 0) > LARGE]
    complete = set(TRAINED) <= set(networks)
    vgg = networks.get("vggnet", {}).get("seconds_per_epoch")
    times = "times the fp32 reference loop"
    share = "share of the synthetic-input bound, the lowest of all networks"
    part = "share of the bf16 matrix rate, the lowest of the networks over 5 GFLOP a forward pass"
    in_bf16 = all(networks[name].get("utilisation_of") == "bf16" for name in large)
    return [
        goal(f"{times}, the lowest of all networks", "cpu", device, least("ratio_fp32", every), 1.0),
        goal(f"VGGNet: {times}", "cuda", device, least("ratio_fp32", ["vggnet"]), 20.0),
        goal(f"ResNet18: {times}", "cuda", device, least("ratio_fp32", ["resnet18-tricks"]), 20.0),
        goal(share, "cuda", device, least("share_of_synthetic", every), 0.9),
        goal(part, "cuda", device, least("utilisation", large) if complete and in_bf16 else None, 0.4),
        goal("VGGNet: minutes for 300 epochs", "cuda", device, vgg and 300 * vgg / 60, 20.0, at_least=False),
    ]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    command_line(run, __doc__)
