"""What a recipe leaves to the defaults of network, optimiser, schedule and augmentation, written out for a reader.

A recipe's data stay as they are, because digests hang on them. A page shows the values that apply all the same, so that
nobody has to know the defaults of torch or of this library to build a method again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import lr_scheduler

from fer_repro import papers
from fer_repro.training.optim import OPTIMISERS, WARMUP_START
from fer_repro.transforms import AUGMENTATIONS

# Of the many options of torch's classes, those that decide a result.
OF_OPTIMISERS = ("betas", "eps", "weight_decay")
OF_SCHEDULES: Mapping[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "reduce-on-plateau": (lr_scheduler.ReduceLROnPlateau, ("threshold", "threshold_mode")),
    "one-cycle": (lr_scheduler.OneCycleLR, ("pct_start", "div_factor", "final_div_factor")),
    "cosine": (lr_scheduler.CosineAnnealingLR, ("eta_min",)),
}
OF_AUGMENTATIONS = ("interpolation", "fill", "area", "aspect", "ratio")


def completed(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's data (`Recipe.as_dict`) with the defaults of its steps beside what it names itself."""
    steps = [_augmentation(step) for step in recipe["augment"]]
    network = _with(recipe["network"], _network(recipe))
    return {**recipe, "network": network, "augment": steps, "stages": [_stage(stage) for stage in recipe["stages"]]}


def _defaults(called: Callable[..., Any]) -> dict[str, Any]:
    """The options of a class or function that have a default."""
    options = inspect.signature(called).parameters.values()
    return {option.name: option.default for option in options if option.default is not option.empty}


def _with(step: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return dict(step) | {name: value for name, value in defaults.items() if name not in step}


def _network(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What the network's class has by default, where the paper's own module has one of that name; not what is off."""
    found = getattr(papers.module_of(papers.get(recipe["variant"]).slug), recipe["network"]["name"], None)
    own = inspect.isclass(found) and issubclass(found, nn.Module) and found.__module__.startswith("fer_repro.")
    return {name: value for name, value in _defaults(found).items() if value} if own else {}


def _augmentation(step: Mapping[str, Any]) -> dict[str, Any]:
    known = _defaults(AUGMENTATIONS[step["name"]])
    return _with(step, {name: known[name] for name in OF_AUGMENTATIONS if name in known})


def _stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    optimiser, schedule = stage["optimiser"], stage["schedule"]
    if kind := OPTIMISERS.get(optimiser["name"]):  # a search has none before it has chosen
        known = _defaults(kind)
        optimiser = _with(optimiser, {name: known[name] for name in OF_OPTIMISERS if name in known})
    if schedule["name"] in OF_SCHEDULES:
        kind, names = OF_SCHEDULES[schedule["name"]]
        schedule = _with(schedule, {name: _defaults(kind)[name] for name in names})
    if schedule["name"] == "reduce-on-plateau":
        schedule = _with(schedule, {"on": "accuracy"})
    if schedule.get("warmup"):
        schedule = _with(schedule, {"warmup_start": WARMUP_START})
    own = {"augment": [_augmentation(step) for step in stage["augment"]]} if stage.get("augment") else {}
    return {**stage, "optimiser": optimiser, "schedule": schedule, **own}
