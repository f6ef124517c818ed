"""The figures of the benchmarks as tables of words, for a terminal and for the chapter on speed alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fer_repro import papers
from fer_repro.evaluation import cost
from fer_repro.evaluation.cost import input_shape, weightless
from fer_repro.markup import seconds
from fer_repro.papers import model_name
from fer_repro.transforms import Augmenter

NOT_MEASURED, UNKNOWN = "not measured", "unknown"
KEPT = 5  # float32 numbers a parameter: itself, its gradient, and three copies
# Optimiser -> numbers of state a parameter (SGD's with momentum).
MOMENTS = {"sgd": 1, "adam": 2, "adamw": 2, "radam": 2}
ALL_ON = "everything on"
# What is turned off -> what that is, in the chapter's words. What is not named here is shown by its own name.
TECHNIQUES = {
    "without channels last": "channels-last memory",
    "without fused augmentation": "augmentation steps in one resampling",
    "without fused optimiser": "fused optimiser",
    "without autocast": "bf16",
    "without autotune": "convolutions timed by cuDNN",
    "without compile": "compiling, or CUDA graphs, by rehearsal",
    "without keep memory": "freed memory kept",
    "a wait for the device each step": "no wait for the device",
    "PIL images in a DataLoader": "augmentation in batches on the device",
}


@dataclass(frozen=True)
class Grid:
    """A table of plain words: ``header``, ``rows``, indices of ``numeric`` columns, and a ``caption``."""

    header: list[str]
    rows: list[list[str]]
    numeric: tuple[int, ...] = ()
    caption: str = ""


def grids(name: str, figures: Mapping[str, Any]) -> list[Grid]:
    """Every table of one benchmark; a benchmark not known here becomes one of names and values."""
    if name == "train":
        return [training(figures), costs(figures), techniques(figures), goals([figures])]
    if name == "evaluate":
        return [evaluation(figures)]
    if name == "seeds":
        return [several_seeds(figures), goals([figures])]
    rows = [[key, _words(value)] for key, value in _flat(figures)]
    return [Grid([name, ""], rows)]


def training(figures: Mapping[str, Any]) -> Grid:
    """Images per second of this library, of the reference and of the bound, network by network."""
    rows = []
    for one in _networks(figures):
        batch = str(one.get("batch", ""))
        if one.get("batch") != one.get("recipe_batch"):
            batch += f" of {one['recipe_batch']}"
        rows.append(
            [
                one["title"],
                batch,
                rate(one.get("ours")),
                rate(one.get("reference_fp32")),
                times(one.get("ratio_fp32")),
                rate(one.get("reference_bf16")),
                times(one.get("ratio_bf16")),
                _words(one.get("workers")),
                share(one.get("share_of_synthetic")),
                *_reasons(one),
            ]
        )
    header = [
        "Network",
        "Batch",
        "This library",
        "Reference, fp32",
        "Times",
        "Reference, bf16",
        "Times",
        "Workers",
        "Share of the bound",
    ]
    caption = (
        f"Images a second, each side's best turn; turns: {figures['turns']}, of about {figures['seconds_a_turn']:g} s. "
        "Batch: “of” names the recipe's where that does not fit into a turn. Workers: of the reference's DataLoader, "
        "the fastest number. Bound: the same loop on one batch that was augmented before; above 100 % is noise."
    )
    return _with_reasons(header, rows, caption, range(1, 9))


def costs(figures: Mapping[str, Any]) -> Grid:
    """What a network costs here: operations, how well the processor is used, time, memory."""
    rows = []
    for one in _networks(figures):
        rows.append(
            [
                one["title"],
                giga(one.get("forward_flops_per_input")),
                giga(one.get("training_flops_per_image")),
                share(one.get("utilisation")) + (f", {one['utilisation_of']}" if "utilisation_of" in one else ""),
                _seconds(one.get("seconds_per_epoch")),
                _seconds(one.get("recipe_seconds")),
                mebibytes(one.get("peak_memory_bytes")),
                mebibytes(one.get("reference_peak_memory_bytes")),
            ]
        )
    header = ["Network", "Forward", "Training", "Utilisation", "An epoch", "The recipe", "MiB", "MiB, reference"]
    caption = (
        "Forward: GFLOP of one pass of one input, counted. Training: GFLOP of an image with all its crops, three "
        "forward passes each. Utilisation: of the rate of large matrix products in the named precision, measured "
        f"in the same run. Epoch: {figures['training_images']:,} images. Recipe: an estimate from it for all epochs, "
        "without scoring. MiB: the peak of the training process, workers not counted."
    )
    return Grid(header, rows, tuple(range(1, 8)), caption)


def memory() -> Grid:
    """What a batch of each leaderboard row's network needs of a device's memory, counted without running it."""
    rows = []
    for variant in papers.variants().values():
        if variant.build is None or variant.ablation_of or not variant.recipe("official", "full").stages:
            continue
        recipe = variant.recipe("official", "full")
        network, copies = weightless(variant.build, recipe), Augmenter(recipe.augment).copies
        inputs = recipe.batch_size * copies
        activations = cost.count_activation_bytes(network, (inputs, *input_shape(recipe)[1:]))
        moments = MOMENTS.get(recipe.stages[0].optimiser.name)
        states = None if moments is None else 4 * (KEPT + moments) * cost.count_parameters(network)
        whole = None if states is None else activations + states
        sizes = [UNKNOWN if size is None else f"{size / 1e9:.2f}" for size in (activations, states, whole)]
        rows.append([model_name(variant.id), f"{inputs:,}", recipe.precision, *sizes])
    caption = (
        "GB, counted in fp32; a network that runs in bf16 keeps less. Activations: what the forward pass of a batch "
        "keeps for the backward pass. Weights: with gradients, the optimiser's state, and the copies that the loop "
        "keeps (last good, best of the stage, best of the run). Working memory of single operations comes on top."
    )
    header = ["Network", "Inputs a batch", "Precision", "Activations", "Weights and copies", "Together"]
    return Grid(header, rows, (1, 3, 4, 5), caption)


def techniques(figures: Mapping[str, Any]) -> Grid:
    """How fast training is without one technique, as a share of its speed with all of them."""
    studied = list(figures.get("techniques", {}).values())
    names = list(dict.fromkeys(name for one in studied for name in [*one.get("share", {}), *one["failed"]]))
    rows = []
    for name in sorted((n for n in names if n != ALL_ON), key=_order):
        cells = [
            share(one["share"][name], 0) if name in one.get("share", {}) else one["failed"].get(name, NOT_MEASURED)
            for one in studied
        ]
        rows.append([TECHNIQUES.get(name, name), *cells])
    with_all = [rate(one.get("images_per_second", {}).get(ALL_ON)) for one in studied]
    header = ["Technique left out", *(f"{one['title']}, {_precision(one)}" for one in studied)]
    caption = (
        "Speed without one technique in percent of the speed with all of them, measured in turns; below 100 the "
        f"technique pays. With all of them, images a second: {', '.join(with_all) or NOT_MEASURED}."
    )
    return Grid(header, rows, tuple(range(1, len(header))), caption)


def _order(name: str) -> int:
    return list(TECHNIQUES).index(name) if name in TECHNIQUES else len(TECHNIQUES)


def _precision(one: Mapping[str, Any]) -> str:
    return f"batch {one['batch']}, {one['precision']}" if "batch" in one else NOT_MEASURED


def evaluation(figures: Mapping[str, Any]) -> Grid:
    """Scoring: images per second of both ways, and whether they agree."""
    rows = [
        [
            one["title"],
            _words(one.get("views")).partition(",")[0],
            _words(one.get("images")),
            rate(one.get("ours")),
            rate(one.get("reference")),
            times(one.get("ratio")),
            share(one.get("agreement"), 2),
            small(one.get("largest_difference")),
            _seconds(one.get("public_test_seconds")),
            *_reasons(one),
        ]
        for one in _networks(figures)
    ]
    header = [
        "Network",
        "Views",
        "Images",
        "This library",
        "Reference",
        "Times",
        "Same answer",
        "Differ by",
        "PublicTest",
    ]
    caption = (
        "Images a second, each with all its views. Same answer: of both ways. Differ by: the largest difference of one "
        "probability. PublicTest: time for all its images at this library's rate."
    )
    return _with_reasons(header, rows, caption, range(2, 9))


def several_seeds(figures: Mapping[str, Any]) -> Grid:
    """The time for all seeds as times of one seed, way by way."""
    measured = _networks(figures)
    ways = list(dict.fromkeys(way for one in measured for way in [*one.get("times_of_one", {}), *one["failed"]]))
    rows = [[way, *(_way(one, way) for one in measured)] for way in ways if way != "one" or len(ways) == 1]
    header = [f"{figures['seeds']} seeds", *(one["title"] for one in measured)]
    caption = (
        f"Time for {figures['seeds']} seeds as times of one seed alone on the same machine; {figures['seeds']} is "
        "what waiting for one after the other costs, less is a gain."
    )
    return Grid(header, rows, tuple(range(1, len(header))), caption)


def _way(one: Mapping[str, Any], way: str) -> str:
    found = one.get("times_of_one", {}).get(way)
    return f"{found:.2f}" if found is not None else one["failed"].get(way, NOT_MEASURED)


def goals(measured: Iterable[Mapping[str, Any]]) -> Grid:
    """Every goal once, from whichever measurement says more than "not measured"."""
    known: dict[tuple[str, str], Mapping[str, Any]] = {}
    for figures in measured:
        for goal in figures.get("goals", []):
            key = goal["goal"], goal["on"]
            if key not in known or known[key]["state"] == NOT_MEASURED:
                known[key] = goal
    rows = [
        [
            "GPU" if goal["on"] == "cuda" else "CPU",
            goal["goal"],
            f"at {'least' if goal['at_least'] else 'most'} {goal['limit']:g}",
            "" if goal["value"] is None else f"{goal['value']:.3g}",
            goal["state"],
            goal["measured_on"] or "",
        ]
        for goal in known.values()
    ]
    return Grid(["On", "Goal", "Wanted", "Measured", "State", "By"], rows, (2, 3))


def _networks(figures: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(figures.get("networks", {}).values())


def _reasons(one: Mapping[str, Any]) -> list[str]:
    """Why something is missing in this row, as one cell."""
    return ["; ".join(f"{side.replace('_', ' ')}: {why}" for side, why in one.get("failed", {}).items())]


def _with_reasons(header: list[str], rows: list[list[str]], caption: str, numeric: Iterable[int]) -> Grid:
    """A table whose last cells hold reasons; the column is there only where there is one."""
    if any(row[-1] for row in rows):
        return Grid([*header, "Missing"], rows, tuple(numeric), caption)
    return Grid(header, [row[:-1] for row in rows], tuple(numeric), caption)


def rate(value: float | None) -> str:
    """Images per second: three digits that count."""
    return NOT_MEASURED if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def times(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.3g}"


def share(value: float | None, digits: int = 1) -> str:
    return NOT_MEASURED if value is None else f"{100 * value:.{digits}f} %"


def giga(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value / 1e9:.3g}"


def small(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.0e}"


def mebibytes(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value / 1024**2:,.0f}"


def _seconds(value: float | None) -> str:
    return NOT_MEASURED if value is None else seconds(value)


def _words(value: Any) -> str:
    if value is None:
        return NOT_MEASURED
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _flat(figures: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in figures.items():
        name = f"{before}{key.replace('_', ' ')}"
        found += _flat(value, f"{name}: ") if isinstance(value, Mapping) else [(name, value)]
    return found
