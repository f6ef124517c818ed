"""Two recipes have one digest exactly where they are the same data."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fer_repro.data.protocol import Protocol
from fer_repro.recipe import Deviation, Recipe, Stage, Step, Views, digest, step

steady = settings(derandomize=True, max_examples=150, deadline=1000)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=6)
NAMES = st.from_regex(r"[a-z]{1,6}", fullmatch=True).filter(lambda name: name != "name")
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple))
STEPS = st.builds(lambda name, options: step(name, **options), NAMES, st.dictionaries(NAMES, VALUES, max_size=3))
VIEWS = st.builds(Views, NAMES, st.none() | st.integers(0, 99), count=st.none() | st.integers(1, 9))
RECIPES = st.builds(
    Recipe,
    variant=NAMES,
    network=STEPS,
    protocol=st.sampled_from((Protocol("official"), Protocol("claimed", test=("PublicTest", "PrivateTest")))),
    stages=st.lists(st.builds(Stage, NAMES, st.integers(1, 9), STEPS), max_size=2).map(tuple),
    mean=st.floats(allow_nan=False) | st.integers(-3, 3),
    augment=st.lists(STEPS, max_size=2).map(tuple),
    views=VIEWS,
    ema=st.none() | st.floats(0, 1) | STEPS,
    deviations=st.lists(st.builds(Deviation, TEXTS, TEXTS, TEXTS), max_size=2).map(tuple),
)


def data(recipe: Recipe) -> dict:
    """The recipe as JSON data, without the words of its deviations."""
    return json.loads(json.dumps({k: v for k, v in recipe.as_dict().items() if k != "deviations"}))


def same(one, other) -> bool:
    """Equal, and of one type at every place: 1, 1.0 and true are three values."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other and str(one) == str(other)  # -0.0 is not 0.0


@steady
@given(RECIPES)
def test_a_digest_survives_json_and_any_order_of_fields(recipe):
    def turned(value):
        if isinstance(value, dict):
            return {name: turned(value[name]) for name in reversed(value)}
        return [turned(part) for part in value] if isinstance(value, list) else value

    known = recipe.sha256()
    stored = json.loads(json.dumps(recipe.as_dict(), indent=1))
    assert digest(stored) == digest(turned(stored)) == digest(recipe.as_dict()) == known
    assert same(data(recipe), {k: v for k, v in stored.items() if k != "deviations"})


@steady
@given(RECIPES, RECIPES)
def test_digests_are_equal_exactly_where_the_data_are(one, other):
    assert (one.sha256() == other.sha256()) == same(data(one), data(other))


@steady
@given(RECIPES, st.data())
def test_any_other_value_at_any_place_is_another_digest(recipe, draw):
    document = data(recipe)
    before = json.loads(json.dumps(document))
    place, key = document, draw.draw(st.sampled_from(sorted(document)))
    while isinstance(place[key], (dict, list)) and place[key] and draw.draw(st.booleans()):
        place = place[key]
        key = draw.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    place[key] = draw.draw(VALUES)
    document = json.loads(json.dumps(document))
    assume(not same(document, before))
    assert digest(document) != recipe.sha256()


@steady
@given(RECIPES, st.lists(st.builds(Deviation, TEXTS, TEXTS, TEXTS), max_size=2))
def test_the_words_of_deviations_change_no_digest(recipe, deviations):
    assert dataclasses.replace(recipe, deviations=tuple(deviations)).sha256() == recipe.sha256()


@steady
@given(NAMES, st.dictionaries(NAMES, VALUES, min_size=1, max_size=4))
def test_a_step_does_not_depend_on_the_order_of_its_options(name, options):
    turned = dict(reversed(options.items()))
    assert step(name, **options) == step(name, **turned) == Step(name, tuple(sorted(step(name, **turned).options)))


@pytest.mark.parametrize("kind", [Views, Stage, Recipe])
def test_a_field_that_came_later_is_left_out_while_it_says_nothing_and_counts_when_it_does(kind):
    recipe = Recipe("a", step("b"), Protocol("official"), (Stage("c", 1, step("sgd")),))
    owner = {Views: recipe.views, Stage: recipe.stages[0], Recipe: recipe}[kind]
    later = [field for field in dataclasses.fields(kind) if field.metadata]
    assert later
    for field in later:
        assert field.name not in owner_data(recipe, kind)
        changed = dataclasses.replace(owner, **{field.name: 7})
        wholes = {
            Views: dataclasses.replace(recipe, views=changed),
            Stage: dataclasses.replace(recipe, stages=(changed,)),
            Recipe: changed,
        }
        assert wholes[kind].sha256() != recipe.sha256()
        assert f'"{field.name}": 7' in json.dumps(wholes[kind].as_dict())


def test_an_empty_list_says_as_little_as_an_empty_tuple():
    recipe = Recipe("a", step("b"), Protocol("official"))
    assert dataclasses.replace(recipe, views=Views(steps=[], poses=[])).sha256() == recipe.sha256()


def owner_data(recipe: Recipe, kind: type) -> dict:
    """The part of the printed recipe that a dataclass is printed as."""
    whole = recipe.as_dict()
    return {Views: whole["views"], Stage: whole["stages"][0], Recipe: whole}[kind]
