"""The numbers of the benchmarks as tables of text, for a terminal and for the chapter on speed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fer_repro import markup, papers
from fer_repro.evaluation import cost
from fer_repro.papers import model_name
from fer_repro.results import Result
from fer_repro.transforms import Augmenter

NOT_MEASURED, UNKNOWN = "not measured", "unknown"
KEPT = 5  # float32 numbers a parameter: itself, its gradient, and three copies
# Optimiser -> numbers of state a parameter (SGD's with momentum).
MOMENTS = {"sgd": 1, "adam": 2, "adamw": 2, "radam": 2}
ALL_ON = "everything on"
# What is turned off -> the technique's name in the chapter; others are shown by their own name.
TECHNIQUES = {
    "without channels last": "channels-last memory",
    "without fused augmentation": "augmentation steps in one resampling",
    "without fused optimiser": "fused optimiser",
    "without autocast": "bf16",
    "without autotune": "convolutions timed by cuDNN",
    "without compile": "compiling, or CUDA graphs, by autotuning",
    "without keep memory": "freed memory kept",
    "a wait for the device each step": "no host-device synchronisation",
    "PIL images in a DataLoader": "augmentation in batches on the device",
}


# What measurements were stored with -> the words of today.
STORED_WORDS = {
    ", untaught": ", without a teacher",
    "compiling is rehearsed on": "compiling is tried on",
    "times the PIL pipeline": "times the PIL pipeline as released",
}


@dataclass(frozen=True)
class Grid:
    """A table of plain text: ``header``, ``rows``, indices of ``numeric`` columns, and a ``caption``."""

    header: list[str]
    rows: list[list[str]]
    numeric: tuple[int, ...] = ()
    caption: str = ""


def in_words_of_today(value: Any) -> Any:
    """A stored measurement, or a part of it, with the texts of `STORED_WORDS` replaced; numbers and names stay."""
    if isinstance(value, Mapping):
        return {key: in_words_of_today(part) for key, part in value.items()}
    if isinstance(value, list):
        return [in_words_of_today(part) for part in value]
    if isinstance(value, str):
        for stored, shown in STORED_WORDS.items():
            value = value if shown in value else value.replace(stored, shown)
    return value


def _measured(form: Callable[[Any], str]) -> Callable[[Any], str]:
    """``form`` for a value that may be missing."""
    return lambda value: NOT_MEASURED if value is None else form(value)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


rate = _measured(lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.3g}")  # images per second
times = _measured("{:.3g}".format)
seconds = _measured(markup.seconds)
_words = _measured(_plain)
_giga = _measured(lambda value: f"{value / 1e9:.3g}")
_mebibytes = _measured(lambda value: f"{value / 1024**2:,.0f}")


def share(digits: int = 1) -> Callable[[Any], str]:
    """A fraction in percent."""
    return _measured(lambda value: f"{100 * value:.{digits}f} %")


def _batch(one: Mapping[str, Any]) -> str:
    whole = "" if one.get("batch") == one.get("recipe_batch") else f" of {one['recipe_batch']}"
    return f"{one.get('batch', '')}{whole}"


def _utilisation(one: Mapping[str, Any]) -> str:
    return share()(one.get("utilisation")) + (f", {one['utilisation_of']}" if "utilisation_of" in one else "")


Column = tuple[str, str, Callable[[Any], str]]
# Header, key of a network's measurement (empty: all of it), and how the value is written.
TRAINING: list[Column] = [
    ("Network", "title", str),
    ("Batch", "", _batch),
    ("This library", "ours", rate),
    ("Reference, fp32", "reference_fp32", rate),
    ("Times", "ratio_fp32", times),
    ("Reference, bf16", "reference_bf16", rate),
    ("Times", "ratio_bf16", times),
    ("Workers", "workers", _words),
    ("Share of the bound", "share_of_synthetic", share()),
]
COSTS: list[Column] = [
    ("Network", "title", str),
    ("Forward", "forward_flops_per_input", _giga),
    ("Training", "training_flops_per_image", _giga),
    ("Utilisation", "", _utilisation),
    ("An epoch", "seconds_per_epoch", seconds),
    ("The recipe", "recipe_seconds", seconds),
    ("MiB", "peak_memory_bytes", _mebibytes),
    ("MiB, reference", "reference_peak_memory_bytes", _mebibytes),
]
EVALUATION: list[Column] = [
    ("Network", "title", str),
    ("Test-time augmentation", "views", lambda value: _words(value).partition(",")[0]),
    ("Images", "images", _words),
    ("This library", "ours", rate),
    ("Reference", "reference", rate),
    ("Times", "ratio", times),
    ("Same answer", "agreement", share(2)),
    ("Differ by", "largest_difference", _measured("{:.0e}".format)),
    ("PublicTest", "public_test_seconds", seconds),
]


def grids(name: str, figures: Mapping[str, Any]) -> list[Grid]:
    """Every table of one benchmark; a benchmark not known here becomes one of names and values."""
    known = {
        "train": [training, costs, techniques, _own_goals],
        "evaluate": [evaluation],
        "seeds": [several_seeds, _own_goals],
    }
    if name in known:
        return [make(figures) for make in known[name]]
    return [Grid([name, ""], [[key, _words(value)] for key, value in _flat(figures)])]


def _by_network(
    figures: Mapping[str, Any], columns: list[Column], caption: str, texts: int = 1, reasons: bool = True
) -> Grid:
    """A row for each network, ``texts`` columns of text before the numbers; with ``reasons`` for what is missing."""
    networks = _networks(figures)
    rows = [[form(one.get(key) if key else one) for _, key, form in columns] for one in networks]
    header = [name for name, _, _ in columns]
    if reasons and any(one["failed"] for one in networks):
        header.append("Missing")
        for row, one in zip(rows, networks, strict=True):
            row.append("; ".join(f"{side.replace('_', ' ')}: {why}" for side, why in one["failed"].items()))
    return Grid(header, rows, tuple(range(texts, len(columns))), caption)


def _networks(figures: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [{"failed": {}} | one for one in figures.get("networks", {}).values()]


def training(figures: Mapping[str, Any]) -> Grid:
    """Images per second of this library, of the reference and of the bound, network by network."""
    caption = (
        f"Images a second, each side's best turn; turns: {figures['turns']}, of about {figures['seconds_a_turn']:g} s. "
        "Batch: “of” names the recipe's where that does not fit into a turn. Workers: of the reference's DataLoader, "
        "the fastest number. Bound: the same loop on one batch that was augmented before; above 100 % is noise."
    )
    return _by_network(figures, TRAINING, caption)


def costs(figures: Mapping[str, Any]) -> Grid:
    """What a network costs here: operations, how well the processor is used, time, memory."""
    caption = (
        "Forward: GFLOP of one pass of one input, counted. Training: GFLOP of an image with all its crops, three "
        "forward passes each. Utilisation: of the rate of large matrix products in the named precision, measured "
        f"in the same run. Epoch: {figures['training_images']:,} images. Recipe: an estimate from it for all epochs, "
        "without scoring. MiB: the peak of the training process, workers not counted."
    )
    return _by_network(figures, COSTS, caption, reasons=False)


def whole_runs(figures: Mapping[str, Any], runs: Iterable[Result]) -> Grid:
    """Stored full runs of the measured networks on such a device, beside the estimate; chapters show their numbers."""
    kept: dict[str, list[Result]] = {}
    for run in runs:
        if run.record["cost"].get("images_per_second") and run.record["cost"]["device"] == figures["device"]:
            kept.setdefault(run.variant, []).append(run)
    rows = []
    for one in _networks(figures):
        for run in sorted(kept.get(one.get("network", ""), []), key=lambda run: (run.protocol, run.seed)):
            costs = run.record["cost"]
            own = [f"{run.protocol}, seed {run.seed}", cost.hardware(run.record)]
            spent = [rate(costs["images_per_second"]), seconds(costs["seconds"])]
            rows.append([one["title"], rate(one.get("ours")), seconds(one.get("recipe_seconds")), *own, *spent])
    caption = (
        "Measured: the best of short turns, for which the other sides waited. Run: the mean of a whole training as the "
        "chapter shows it, with whatever else the machine did then; its time includes selection and scoring."
    )
    header = ["Network", "Measured", "Estimated", "Run", "Machine", "Images a second", "Time"]
    return Grid(header, rows, (1, 2, 5, 6), caption)


def memory() -> Grid:
    """What a batch of each model's network needs of a device's memory, counted without running it."""
    rows = []
    for variant in papers.variants().values():
        if variant.build is None or variant.ablation_of or not variant.recipe("official", "full").stages:
            continue
        recipe = variant.recipe("official", "full")
        network, copies = cost.weightless(variant.build, recipe), Augmenter(recipe.augment).copies
        inputs = recipe.batch_size * copies
        activations = cost.count_activation_bytes(network, (inputs, *cost.input_shape(recipe)[1:]))
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
    rows = [
        [TECHNIQUES.get(name, name), *(_or_reason(one, "share", name, share(0)) for one in studied)]
        for name in sorted((n for n in names if n != ALL_ON), key=_order)
    ]
    with_all = [f"{one['title']} {rate(one.get('images_per_second', {}).get(ALL_ON))}" for one in studied]
    header = ["Technique left out", *(f"{one['title']}, {_precision(one)}" for one in studied)]
    caption = (
        "Speed without one technique in percent of the speed with all of them, measured in turns; below 100 the "
        f"technique pays. With all of them, images a second: {'; '.join(with_all) or NOT_MEASURED}."
    )
    return Grid(header, rows, tuple(range(1, len(header))), caption)


def _order(name: str) -> int:
    return list(TECHNIQUES).index(name) if name in TECHNIQUES else len(TECHNIQUES)


def _precision(one: Mapping[str, Any]) -> str:
    return f"batch {one['batch']}, {one['precision']}" if "batch" in one else NOT_MEASURED


def evaluation(figures: Mapping[str, Any]) -> Grid:
    """Scoring: images per second of both ways, and whether they agree."""
    caption = (
        "Images a second, each with all its test-time augmentations. Same answer: of both ways. Differ by: the largest "
        "difference of one probability. PublicTest: time for all its images at this library's rate."
    )
    return _by_network(figures, EVALUATION, caption, texts=2)


def several_seeds(figures: Mapping[str, Any]) -> Grid:
    """The time for all seeds as times of one seed, way by way."""
    measured = _networks(figures)
    ways = list(dict.fromkeys(way for one in measured for way in [*one.get("times_of_one", {}), *one["failed"]]))
    rows = [
        [way, *(_or_reason(one, "times_of_one", way, "{:.2f}".format) for one in measured)]
        for way in ways
        if way != "one" or len(ways) == 1
    ]
    header = [f"{figures['seeds']} seeds", *(one["title"] for one in measured)]
    caption = (
        f"Time for {figures['seeds']} seeds as times of one seed alone on the same machine. A way gains where it takes "
        f"less than one after another, which was measured too and so need not be exactly {figures['seeds']}."
    )
    return Grid(header, rows, tuple(range(1, len(header))), caption)


def _or_reason(one: Mapping[str, Any], key: str, name: str, form: Callable[[Any], str]) -> str:
    """The value called ``name`` under ``key``, or why there is none."""
    value = one.get(key, {}).get(name)
    return one["failed"].get(name, NOT_MEASURED) if value is None else form(value)


def _own_goals(figures: Mapping[str, Any]) -> Grid:
    return goals([figures])


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


def _flat(figures: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in figures.items():
        name = f"{before}{key.replace('_', ' ')}"
        found += _flat(value, f"{name}: ") if isinstance(value, Mapping) else [(name, value)]
    return found
