"""A recipe as a table: every setting that applies, by its standard term with its unit, and where its value comes from.

A setting has a key (`Row.key`), by which its source is named in the paper's YAML file; see `fer_repro.papers.base`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fer_repro import papers
from fer_repro.data.official import SIDE
from fer_repro.data.protocol import Protocol
from fer_repro.markup import absent, details, small, table, text
from fer_repro.page.setting_defaults import completed
from fer_repro.page.setting_names import RANGES, SAID_ELSEWHERE, STEPS, VALUES, setting
from fer_repro.papers import model_name
from fer_repro.papers.base import Source, Variant, sources
from fer_repro.papers.base import details as details_of
from fer_repro.recipe import Recipe, Selection, Views

KINDS = {
    "paper": "paper",
    "code": "authors’ code",
    "third party": "third party",
    "challenge": "the challenge",
    "ours": "our choice",
}
# A plain number stands for the usual form of these.
_number_of = {"clip_norm": "to a norm of {:g}".format, "ema": "exponential moving average (decay {:g})".format}
EVERY_EPOCH = (
    "In all trainings here an epoch takes every image once, in a new random order; its last batch may be smaller. Each "
    "stage has a new optimiser, weight decay acts on all trained parameters, and of equally good epochs the first is "
    "selected."
)
BF16 = "trained in bf16 autocast where the device has it, scored in fp32"
TRAINED = ("augment", "mix", "loss", "batch_size", "clip_norm", "ema")


@dataclass(frozen=True)
class Row:
    """One setting: ``key`` (of several stages "<stage>.<field>"), its readable name, its value as text."""

    key: str
    name: str
    value: str

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys under which a source may name it, the most specific one first."""
        return tuple(dict.fromkeys((self.key, self.key.rsplit(".", 1)[-1])))


def rows(recipe: Mapping[str, Any]) -> list[Row]:
    """The settings of a recipe (`Recipe.as_dict`) that apply to its method: what is not trained has no batch size, what
    has no network has no input size. Values that a recipe leaves to a default are there too (`setting_defaults`)."""
    return list(_rows(completed(recipe)))


def _rows(recipe: Mapping[str, Any]) -> Iterator[Row]:
    has_network, stages = papers.get(recipe["variant"]).build is not None, recipe["stages"]
    roles = recipe["protocol"]

    def row(key: str, value: str) -> Row:
        return Row(key, setting(key), value)

    yield row("protocol", _images(roles))
    if has_network:
        yield row("network", one_line(recipe["network"]))
        if stages:
            weights = recipe.get("pretrained")
            yield row("pretrained", one_line(weights) if weights else _own_start(recipe["variant"]))
        size, sized = recipe["input_size"], any("size" in step for step in recipe["augment"])
        after = "" if sized or size == SIDE or not stages else ", bilinear resize after the augmentation"
        yield row("input_size", f"{size} × {size} pixels{after}")
        yield row("normalisation", _normalisation(recipe["mean"], recipe["std"]))
    if stages:
        for stage in stages:
            yield from _stage(stage, recipe, several=len(stages) > 1)
        for key in TRAINED:
            if not absent(recipe[key]):
                yield row(
                    key, _number_of[key](recipe[key]) if isinstance(recipe[key], float) else one_line(recipe[key])
                )
    chooses = recipe["selection"]
    yield row("selection", Selection(**chooses).name(_protocol(roles)))
    if has_network:
        yield row("views", views(recipe["views"]))
        if recipe["plain"] not in (recipe["views"], _as_dict(Views())):
            yield row("plain", views(recipe["plain"]))
    if stages:
        yield row("precision", BF16 if recipe["precision"] == "bf16" else "fp32")
    options = recipe["options"]
    for key, value in options.items():
        if key != "name" and not absent(value):
            name = setting(key, options["name"])
            yield Row(f"options.{key}", name[0].upper() + name[1:], _option(key, value))


def _own_start(variant: str) -> str:
    """Initial weights without a pretrained file: random, unless the variant builds on fitted ones of this project."""
    required = papers.get(variant).requires
    return f"no pretrained file; builds on this book’s own run of {', '.join(required)}" if required else "random"


def _as_dict(views: Views) -> dict[str, Any]:
    return {"kind": views.kind, "size": views.size, "average": views.average}


def _protocol(roles: Mapping[str, Any]) -> Protocol:
    return Protocol(**{name: tuple(value) if isinstance(value, list) else value for name, value in roles.items()})


def _images(roles: Mapping[str, Any]) -> str:
    said = {"train": "{} trains", "select": "{} selects", "test": "{} is scored", "finetune": "{} fine-tunes"}
    return ", ".join(words.format(" + ".join(roles[role])) for role, words in said.items() if roles.get(role))


def _normalisation(mean: float, std: float) -> str:
    if (mean, std) == (0.0, 1.0):
        return "[0, 1]"
    if mean == 0.0:
        return f"0 to {1 / std:.3g}"
    return f"{-mean / std:g} to {(1 - mean) / std:g}"


def _stage(stage: Mapping[str, Any], recipe: Mapping[str, Any], several: bool) -> Iterator[Row]:
    before, after = (f"{stage['name']}.", f" ({stage['name']})") if several else ("", "")
    patience, roles = stage["patience"], recipe["protocol"]
    better = {"accuracy": "a higher accuracy", "loss": "a lower loss"}[recipe["selection"]["measure"]]
    values = {
        "epochs": f"{stage['epochs']}{'' if patience else ', without early stopping'}",
        "optimiser": one_line(stage["optimiser"]),
        "schedule": one_line(stage["schedule"]),
        "patience": f"after {patience} epochs in a row without {better}, by however little" if patience else "",
        "images": " + ".join(roles.get("finetune") or roles["train"]) if stage["images"] == "finetune" else "",
        "start": "" if stage["start"] == "fresh" else f"the {stage['start']} weights of the stage before",
        "augment": one_line(stage.get("augment")) if stage.get("augment") else "",
        "batch_size": str(stage["batch_size"]) if stage.get("batch_size") else "",
    }
    for key, value in values.items():
        if value:
            yield Row(before + key, setting(key) + after, value)


def views(recorded: Mapping[str, Any]) -> str:
    """What of a test image is scored, as a phrase; ``recorded``: `Views` as a recipe's data have it."""
    kind, size, resize, count = recorded["kind"], recorded["size"], recorded.get("resize"), recorded.get("count")
    mean = f", mean of {recorded['average']}"
    of = f" of {size} pixels" if size else ""
    of += f" from the image at {resize} pixels" if resize else ""
    known = {
        "plain": f"none, the image enlarged to {resize} pixels" if resize else f"none, the image{of} as it is",
        "centre-crop": f"one crop from the middle{of}",
        "lanczos4": f"none, the whole image enlarged to {size} pixels (Lanczos)",
        "flip": f"the image and its mirror image{mean}",
        "five-crop": f"five crops{of}{mean}",
        "ten-crop": f"ten crops{of}{mean}",
        "random": f"{count} random {'copy' if count == 1 else 'copies'} ({one_line(recorded.get('steps', ()))})"
        + ("" if count == 1 else mean)
        + (f", random seed {recorded['seed']}" if recorded.get("seed") is not None else ""),
        "poses": f"{len(recorded.get('poses', ()))} fixed copies (mirrored, shifted, rotated, enlarged), weighted"
        + mean.replace(",", ""),
    }
    return known[kind]


def _option(name: str, value: Any) -> str:
    """The value of an option of a method, where plain nesting would not be read."""
    nested = isinstance(value, (list, tuple)) and any(isinstance(each, (list, tuple)) for each in value)
    if name in ("members", "networks"):
        return ", ".join(member for member, _ in value)
    if name == "channels" and nested:
        return "; ".join(f"{grid}×{grid} fields: {n:,} words of {4 * cell}-pixel patches" for cell, grid, n in value)
    if name in ("first", "space") and nested:
        choices = ((option, values if name == "space" else [values]) for option, values in value)
        return "; ".join(
            f"{setting(option).format('').strip().lower()}: {one_line(values)}" for option, values in choices
        )
    if name == "blocks" and nested:
        every = dict.fromkeys(block for blocks in value for block in blocks)
        return " + ".join(every) if len(value) == 1 else f"the best of {len(value)} combinations of {', '.join(every)}"
    if name == "start" and nested:
        return ", ".join(f"{which} = {one_line(each)}" for which, each in zip(("k", "C"), value, strict=True))
    if name == "weights" and nested:
        return " or ".join(", ".join(map(str, each)) for each in value)
    return one_line(value, name)


def one_line(value: Any, name: str = "") -> str:
    """A setting on one line: "SGD (learning rate 0.01, momentum 0.9, Nesterov)"; ``name``: of an option of a step."""
    if isinstance(value, Mapping):
        return _step(value)
    if isinstance(value, (list, tuple)):
        if name in RANGES and len(value) == 2 and not isinstance(value[0], (list, tuple)):
            return f"{one_line(value[0])} to {one_line(value[1])}"
        items = [f"({one_line(v)})" if isinstance(v, (list, tuple)) else one_line(v) for v in value]
        return ("; " if any(isinstance(item, Mapping) for item in value) else ", ").join(items)
    if not isinstance(value, Mapping) and (name, value) in VALUES:
        return VALUES[name, value]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)


def _step(value: Mapping[str, Any]) -> str:
    known = str(value.get("name") or "")
    parts = []
    for key, inner in value.items():
        if key == "name" or key in SAID_ELSEWHERE or absent(inner):
            continue
        term = setting(key, known)
        if isinstance(inner, bool):
            parts.append(term if inner else f"not {term}")
        else:
            shown = one_line(inner, key)
            parts.append(term.format(shown) if "{}" in term else f"{term} {shown}")
    shown, rest = STEPS.get(known, known), ", ".join(parts)
    return f"{shown} ({rest})" if shown and rest else shown or rest


class Sources:
    """Where the values of a variant's full recipes come from, under one protocol.

    An ablation has the sources of the model it belongs to for all settings that it shares with it.
    """

    def __init__(self, variant: Variant, protocol: str) -> None:
        self.groups = sources(str(papers.module_of(variant.slug).__file__))
        self.order = (f"{variant.ablation_of or variant.id} {protocol}", variant.ablation_of or variant.id, protocol)
        self.order += ("all",)
        self.shared = None
        if variant.ablation_of is not None:
            self.shared = {
                row.key: row for row in rows(papers.get(variant.ablation_of).recipe(protocol, "full").as_dict())
            }

    def of(self, row: Row) -> Source | None:
        """The source of a setting, None where none is given: the most specific group and key that name it."""
        if self.shared is not None and self.shared.get(row.key) != row:
            return Source("ours", "this ablation")
        found = (self.groups.get(group, {}).get(key) for group in self.order for key in row.keys)
        return next((source for source in found if source is not None), None)


def deviations_table(recipe: Recipe) -> str:
    """Where the recipe differs from its paper; says so where it does not."""
    if not recipe.deviations:
        return "<p>None that we know of.</p>"
    rows = [[text(d.section), text(d.what), text(d.why)] for d in recipe.deviations]
    return _wrapped(table(["Place in the paper", "What is different", "Why"], rows))


def recipe_table(variant: Variant, protocol: str, profile: str = "full") -> str:
    """The recipe of a variant with the source of every value; markup. Raises `FerReproError` as the variant does."""
    entries = _entries(variant, protocol, profile)
    body = [[text(name), text(value), _source(source)] for name, value, source in entries]
    return _wrapped(table(["Setting", "Value", "Source"], body))


def _entries(variant: Variant, protocol: str, profile: str = "full") -> list[tuple[str, str, Source | None]]:
    """Every setting of a recipe, then the details that no setting says: name, value, source."""
    recipe, known = variant.recipe(protocol, profile), Sources(variant, protocol)
    groups = details_of(str(papers.module_of(variant.slug).__file__))
    more = groups.get("all", {}) | groups.get(variant.id, {})
    return [(row.name, row.value, known.of(row)) for row in rows(recipe.as_dict())] + [
        (name, value, source) for name, (value, source) in more.items()
    ]


def _source(source: Source | None) -> str:
    if source is None:
        return small("not recorded")
    return f"{text(KINDS[source.kind])}: {small(source.place)}"


def settings_table(recipe: Mapping[str, Any]) -> str:
    """The settings of a recipe as it was stored or shrunk, without sources; markup."""
    return _wrapped(table(["Setting", "Value"], [[text(row.name), text(row.value)] for row in rows(recipe)]))


def _wrapped(markup: str) -> str:
    """A table whose long names may break anywhere, so that it fits on a phone."""
    return f'<div class="fer-recipe">{markup}</div>'


def full_recipe(variant: Variant, protocol: str, others: tuple[Variant, ...] = ()) -> str:
    """The full recipe of a variant, folded below it what another protocol changes and the recipes of the paper's
    ``others``; markup."""
    recipe = variant.recipe(protocol, "full")
    title = f"Full recipe of {model_name(variant.id)}, {protocol} protocol, sha256 {recipe.sha256()[:16]}…"
    body = f"<p>{text(title)}</p><p>{text(_origins(variant, protocol))}</p>"
    body += recipe_table(variant, protocol)
    if variant.has_epochs(protocol):
        body += f"<p>{text(EVERY_EPOCH)}</p>"
    for other in (name for name in papers.PROTOCOLS if name != protocol):
        body += _differences(variant, recipe, other)
    for one in others:
        body += details(f"Full recipe of {model_name(one.id)}, {protocol} protocol", recipe_table(one, protocol))
    return body


def _origins(variant: Variant, protocol: str) -> str:
    """Whose recipe it is: how many of its values are our own choice."""
    origins = [source for _, _, source in _entries(variant, protocol)]
    ours = sum(source is not None and source.kind == "ours" for source in origins)
    return (
        f"This is the recipe of a full run here; it can differ from the paper's. Our choice: {ours} of "
        f"{len(origins)} values. The last column names the source of each value, or our reason."
    )


def _differences(variant: Variant, recipe: Recipe, protocol: str) -> str:
    """What ``protocol`` changes of a recipe, folded; says so where it changes nothing."""
    here, known = {row.key: row for row in rows(recipe.as_dict())}, Sources(variant, protocol)
    there = {row.key: row for row in rows(variant.recipe(protocol, "full").as_dict())}
    changed = [key for key in dict.fromkeys([*here, *there]) if here.get(key) != there.get(key)]
    if not changed:
        return f"<p>The {text(protocol)} protocol changes no setting.</p>"
    shown = [row for row in map(there.get, changed) if row is not None]
    body = [[text(row.name), text(row.value), _source(known.of(row))] for row in shown]
    gone = "; ".join(here[key].name for key in changed if key not in there)
    without = f"<p>Not used under the {text(protocol)} protocol: {text(gone)}.</p>" if gone else ""
    count = f"{len(changed)} setting{'s' * (len(changed) > 1)}"
    rows_there = _wrapped(table(["Setting", f"Value as {protocol}", "Source"], body)) if body else ""
    return details(f"What the {protocol} protocol changes: {count}", rows_there + without)
