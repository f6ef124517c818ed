"""What a paper module provides: its variants."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from fer_repro import pretrained
from fer_repro.claims import schema as need
from fer_repro.data import LABELS
from fer_repro.data.protocol import Splits
from fer_repro.errors import FerReproError
from fer_repro.papers import SCRATCH
from fer_repro.pretrained import Rules, renamed
from fer_repro.recipe import Deviation, Pretrained, Recipe
from fer_repro.training.run import Classifier, Run

State = Mapping[str, Tensor]
TEST_SETS = ("PublicTest", "PrivateTest")


@dataclass(frozen=True)
class Released:
    """Weights that a paper's authors published, and how their tensors become those of our network.

    ``at``: where they are, in words (also that nothing is there, or lost); ``url``: that page, None without one.
    ``published``: whether there is a file to fetch.
    ``file``: its name, "" where unknown. ``licence``: as the publisher states it for file or repository. ``wrapper``:
    the name inside the file under which the tensors lie, "" for none (see `pretrained.tensors_of`).
    ``trained_on``, ``selected_on``: what the audit knows of the images. ``test_sets``: those that may be scored;
    ``why`` says why not both. ``differs``: where the authors' input still differs from what ``recipe`` gives.

    The conversion, in this order: names with ``drop`` (a pattern) in them are copies or bookkeeping and left out;
    ``arrange`` does what is more than renaming; ``rename`` has pairs of pattern and replacement; the rows of the last
    layer, ``head`` (our name), come from the order of the authors' ``classes`` into that of `LABELS`.
    ``recipe``: from the claimed recipe and the authors' tensors, the one that the weights are scored by.
    """

    at: str
    trained_on: str
    selected_on: str
    rename: Rules
    url: str | None = None
    file: str = ""
    licence: str = "none stated"
    wrapper: str = ""
    test_sets: tuple[str, ...] = TEST_SETS
    published: bool = True
    why: str = ""
    differs: str = ""
    arrange: Callable[[State], State] = dict
    drop: str | None = None
    head: str = ""
    classes: tuple[str, ...] = tuple(LABELS)
    recipe: Callable[[Recipe, State], Recipe] = lambda claimed, state: claimed

    def convert(self, state: State) -> dict[str, Tensor]:
        """The authors' tensors by their names -> ours by our names. Raises `FerReproError`; `from_release` checks that
        they fill the network."""
        kept = {name: part for name, part in state.items() if not (self.drop and re.search(self.drop, name))}
        ours = renamed(self.arrange(kept), self.rename)
        rows = [self.classes.index(label) for label in LABELS]
        for name in (f"{self.head}.weight", f"{self.head}.bias"):
            if name in ours and ours[name].shape[:1] == (len(rows),):
                ours[name] = ours[name][rows]
        return ours


@dataclass(frozen=True)
class Variant:
    """A model of the leaderboard, or an ablation of its paper.

    ``recipe(protocol, profile)`` gives the recipe for ``official`` or ``claimed`` and ``smoke`` or ``full``.
    ``build(recipe)`` gives the untrained network, or is None for a method without one.
    ``fit(splits, run)`` trains and returns the classifier.
    ``ablation_of`` is the id of the model, None where the variant is itself the model that the claim is about.
    ``requires`` names variants whose fitted models this one needs. ``called``: the name of its network where that is a
    stand-in for the claimed one, or where nothing is claimed; None otherwise. ``released``: the weights that its
    authors published, or whose names are known; None otherwise.
    """

    id: str
    slug: str
    recipe: Callable[[str, str], Recipe]
    fit: Callable[[Splits, Run], Classifier]
    build: Callable[[Recipe], nn.Module] | None = None
    ablation_of: str | None = None
    requires: tuple[str, ...] = ()
    called: str | None = None
    released: Released | None = None

    def has_epochs(self, protocol: str, profile: str = "full") -> bool:
        """Whether it is a network that is trained epoch by epoch, so that a stopped run has weights to be scored."""
        return self.build is not None and bool(self.recipe(protocol, profile).stages)


def from_release(variant: Variant, state: State, where: str = "the file") -> tuple[nn.Module, Recipe]:
    """Our network with the authors' tensors, in evaluation mode, and the recipe that it is to be scored by.

    ``state``: as `pretrained.tensors_of` gives it. Raises `FerReproError` where the variant has no release, and for
    missing, surplus or misshapen entries (``where`` names the file).
    """
    if variant.released is None or variant.build is None:
        raise FerReproError(f"{variant.id} has no release whose names are known; score an export of this project's own")
    recipe = variant.released.recipe(variant.recipe("claimed", "full"), state)
    network = variant.build(recipe)
    pretrained.fill_(network, variant.released.convert(state), where=where)
    return network.eval(), recipe


def family(
    slug: str,
    names: Iterable[str],
    recipe: Callable[[str, str, str], Recipe],
    released: Mapping[str, Released] = MappingProxyType({}),
    **shared: Any,
) -> Iterator[Variant]:
    """The variants ``names`` of one paper, which differ in ``recipe(name, protocol, profile)`` and ``released[name]``.

    All but the one that is called like the paper, ``slug``, are ablations of that one.
    """
    for name in names:
        belongs_to, own = None if name == slug else slug, released.get(name)
        yield Variant(name, slug, partial(recipe, name), ablation_of=belongs_to, released=own, **shared)


def torchvision_weights(name: str, file: str) -> Pretrained:
    """An entry of torchvision's weight enums; the file's name holds the leading digits of its sha256."""
    digits = file.split("-")[1].removesuffix(".pth")
    return Pretrained(f"{name}.IMAGENET1K_V1", "torchvision", "BSD-3-Clause", file, digits, "ImageNet-1k")


@dataclass(frozen=True)
class Source:
    """Where the value of a setting comes from: ``kind`` (see `SOURCE_KINDS`) and the ``place`` there, or the reason."""

    kind: str
    place: str


# The paper's text or figures; its authors' code or words about it; others' code or text; the challenge's own roles of
# its images; a choice of this project, with its reason.
SOURCE_KINDS = ("paper", "code", "third party", "challenge", "ours")
SOURCES, DETAILS = "sources", "details"  # the groups of a deviations file that are none

# Not stripped as in the claims: the digest of a recipe holds its deviations to the letter.
_text = partial(need.checked, lambda value: isinstance(value, str) and bool(value.strip()), "a text")


def deviations(module: str) -> dict[str, tuple[Deviation, ...]]:
    """The deviations of a paper, by the name that its module gives to a group of them.

    ``module``: its ``__file__``. They stand beside it, in ``deviations.yaml`` of its folder or in ``<module>.yaml``.
    Raises `FerReproError` for a file that is not groups of entries with section, what and why.
    """
    path = _beside(module)
    entry = need.list_of(
        lambda value, where: Deviation(**need.fields(value, where, section=_text, what=_text, why=_text))
    )
    try:
        groups = need.load(path)
        if not isinstance(groups, dict) or not groups:
            raise need.wrong(path.name, groups, "a mapping")
        return {
            name: entry(entries, f"{path.name}, {_text(name, path.name)[:40]!r}")
            for name, entries in groups.items()
            if name not in (SOURCES, DETAILS)
        }
    except FerReproError as error:
        raise FerReproError(
            f"{path} cannot be read as deviations ({error}): expected groups by name, each a list of entries with "
            "section, what and why"
        ) from error


def _beside(module: str) -> Path:
    """The YAML file of a paper's module."""
    path = Path(module)
    return path.with_suffix(".yaml") if path.parent.name == "papers" else path.with_name("deviations.yaml")


def sources(module: str) -> dict[str, dict[str, Source]]:
    """Where the values of a paper's full recipes come from: group -> setting -> source.

    ``module``: its ``__file__``. They stand in the same file as its deviations, as ``sources``. A group is ``all``, a
    protocol, a variant's id, or both ("<id> <protocol>"); a setting is a key of `fer_repro.page.recipe_table`; a source
    is a list of its kind and its place. Raises `FerReproError` for another form.
    """
    path = _beside(module)
    try:
        groups = _mapping(_mapping(need.load(path), path.name).get(SOURCES), SOURCES)
        return {
            group: {
                key: _source(value, f"{SOURCES}, {group}, {key}")
                for key, value in _mapping(named, f"{SOURCES}, {group}").items()
            }
            for group, named in groups.items()
        }
    except FerReproError as error:
        raise FerReproError(
            f"{path} cannot be read as sources ({error}): expected groups by name, each with settings and a list of a "
            f"kind ({', '.join(SOURCE_KINDS)}) and a place for each"
        ) from error


def details(module: str) -> dict[str, dict[str, tuple[str, Source]]]:
    """What a method's rebuilding needs and no setting of a recipe says: group -> name -> its text and source.

    ``module``: its ``__file__``. They stand in the same file as its deviations, as ``details``; none is fine. A group
    is ``all`` or a variant's id; an entry is a list of a text, the kind of its source and the place. Raises
    `FerReproError` for another form.
    """
    path = _beside(module)
    try:
        groups = _mapping(need.load(path), path.name).get(DETAILS)
        return {
            group: {
                name: _detail(value, f"{DETAILS}, {group}, {name}")
                for name, value in _mapping(named, f"{DETAILS}, {group}").items()
            }
            for group, named in ({} if groups is None else _mapping(groups, DETAILS)).items()
        }
    except FerReproError as error:
        raise FerReproError(
            f"{path} cannot be read as details ({error}): expected groups by name, each with names and a list of a "
            "text, a kind of source and a place for each"
        ) from error


def _detail(value: Any, where: str) -> tuple[str, Source]:
    if not isinstance(value, list) or len(value) != 3:
        raise need.wrong(where, value, "a text, a kind and a place")
    return _text(value[0], where), _source(value[1:], where)


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise need.wrong(where, value, "a mapping")
    return value


def _source(value: Any, where: str) -> Source:
    kind, place = need.list_of(_text)(value, where) if isinstance(value, list) and len(value) == 2 else (None, None)
    if kind not in SOURCE_KINDS:
        raise need.wrong(where, value, "a kind and a place")
    return Source(kind, place)


def with_scratch(
    *variants: Variant, scratch: Callable[[Recipe], Recipe] = lambda recipe: recipe
) -> tuple[Variant, ...]:
    """The variants, then a from-scratch ablation ``<id>-scratch`` of each that starts from pretrained weights.

    So does each that requires such a one. The ablation's recipe is the original without the weights, with a deviation
    that says so; ``scratch`` may change more.
    """
    known = {variant.id: variant for variant in variants}

    def needs(variant: Variant) -> bool:
        return variant.recipe("official", "full").pretrained is not None or any(
            needs(known[name]) for name in variant.requires if name in known
        )

    ablations = [
        dataclasses.replace(
            variant,
            id=variant.id + SCRATCH,
            recipe=_without_weights(variant, scratch),
            ablation_of=variant.ablation_of or variant.id,
            released=None,
            requires=tuple(
                name + SCRATCH if name in known and needs(known[name]) else name for name in variant.requires
            ),
        )
        for variant in variants
        if needs(variant)
    ]
    return (*variants, *ablations)


def _without_weights(variant: Variant, scratch: Callable[[Recipe], Recipe]) -> Callable[[str, str], Recipe]:
    def recipe(protocol: str, profile: str) -> Recipe:
        whole = variant.recipe(protocol, profile)
        weights = whole.pretrained
        what = f"random weights instead of {weights.name} ({weights.data})" if weights else "builds on random weights"
        note = Deviation("pretraining", what, "an ablation: the method without pretrained weights")
        changed = dataclasses.replace(
            whole, variant=variant.id + SCRATCH, pretrained=None, deviations=(*whole.deviations, note)
        )
        return scratch(changed)

    return recipe
