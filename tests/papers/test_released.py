"""The authors' state dicts, converted: our networks give the logits that the authors' modules give."""

from __future__ import annotations

import dataclasses
import random
import warnings

import pytest
import torch
from authors import NETWORKS, documents, picture, state_of

from fer_repro import papers
from fer_repro.data import LABELS
from fer_repro.errors import FerReproError
from fer_repro.papers.base import SCRATCH, TEST_SETS, Released, from_release

DOCUMENTS = documents()
RELEASED = {name: variant for name, variant in papers.variants().items() if variant.released}
# Which of the authors' outputs is ours, by the notes that came with the golden files.
ROWS = {
    "resemotenet": [3, 4, 5, 0, 2, 1, 6],
    "emonext": [0, 1, 2, 3, 5, 6, 4],
    "efficientfer": [0, 1, 2, 3, 5, 6, 4],
    "ad-corre": [6, 5, 4, 1, 2, 3, 0],
}
HEADS = {"resemotenet": "fc4", "emonext": "head", "efficientfer": "classifier.8", "vggnet": "lin3"}


def rows_of(variant: papers.Variant) -> list[int]:
    return ROWS.get(variant.slug, list(range(7)))


def variant_of(name: str) -> papers.Variant:
    return papers.get(name.removesuffix("-64"))


@torch.no_grad()
def difference(name: str, expected, state=None, released: Released | None = None) -> float:
    """Largest difference between our logits and the authors' ``expected`` ones, relative to the largest of them."""
    variant, grey = variant_of(name), picture(DOCUMENTS[name])
    variant = dataclasses.replace(variant, released=released or variant.released)
    network, recipe = from_release(variant, state_of(DOCUMENTS[name]) if state is None else state)
    output = network((grey - recipe.mean) / recipe.std if name == "deep-emotion-input-stn" else grey)
    logits = output if isinstance(output, torch.Tensor) else output[0]
    expected = torch.as_tensor(expected)[:, rows_of(variant)]
    return ((logits - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("name", [name for name, document in DOCUMENTS.items() if document["logits"]])
def test_golden(name):
    assert difference(name, DOCUMENTS[name]["logits"]) < 1e-4


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_networks_written_by_the_authors_names_agree(name):
    """Above all those whose logits are withheld; the one that is not shows that such a network is the authors'."""
    document = DOCUMENTS[name]
    state = state_of(document)
    logits = NETWORKS[name](state, picture(document))
    if document["logits"]:
        torch.testing.assert_close(logits, torch.tensor(document["logits"]), rtol=1e-4, atol=1e-4)
    assert difference(name, logits, state) < 1e-4


def test_every_golden_file_is_compared():
    withheld = [name for name, document in DOCUMENTS.items() if not document["logits"]]
    assert len(DOCUMENTS) - len(withheld) == 12 and len(withheld) == 5 and set(withheld) < set(NETWORKS)


def test_the_comparison_notices_a_wrong_mapping():
    """Two layers of one shape exchanged, a bias forgotten by its neighbour, the authors' class order taken for ours."""
    for name, first, second in (
        ("deep-emotion-input-stn", "conv2", "conv3"),
        ("deep-emotion-wide-localisation", "feat_extraction.2", "feat_extraction.7"),
        ("vggnet", "bn3a", "bn3b"),
    ):
        released = variant_of(name).released
        swap = ((rf"^{first}\.", "middle."), (rf"^{second}\.", f"{first}."), (r"^middle\.", f"{second}."))
        broken = dataclasses.replace(released, rename=(*swap, *released.rename))
        assert difference(name, DOCUMENTS[name]["logits"], released=broken) > 1e-2, name
    ours = dataclasses.replace(variant_of("resemotenet").released, classes=tuple(LABELS))
    assert difference("resemotenet", DOCUMENTS["resemotenet"]["logits"], released=ours) > 1e-2


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("index", range(7))
def test_a_head_for_one_class_answers_with_that_class(name, index):
    """In the authors' order; `ROWS` says which of theirs each of ours is."""
    variant, theirs = papers.get(name), rows_of(papers.get(name))[index]
    bias = torch.zeros(7)
    bias[theirs] = 1
    weight = bias[:, None].repeat(1, 3)
    ours = variant.released.convert({f"{HEADS[name]}.weight": weight, f"{HEADS[name]}.bias": bias})
    assert len(ours) == 2
    for part in ours.values():
        assert part.reshape(7, -1)[:, 0].argmax() == index
    assert variant.released.classes[theirs] == LABELS[index]


# ---- what does not fit -----------------------------------------------------------------------------------------------


def test_missing_surplus_and_misshapen_entries_are_listed_by_name():
    variant, state = papers.get("vggnet"), state_of(DOCUMENTS["vggnet"])
    left = {name: part for name, part in state.items() if not name.startswith("bn1")}
    left |= {f"extra{n}": torch.ones(1) for n in range(8)} | {"lin3.bias": torch.ones(8), "lin3.weight": torch.ones(8)}
    with pytest.raises(FerReproError) as told:
        from_release(variant, left, where="weights.pth")
    words = str(told.value)
    assert "weights.pth" in words and "8 missing (stages.0.1.weight, " in words
    assert "8 without a place (extra0, extra1, extra2, extra3, extra4)" in words and "extra5" not in words
    assert "head.6.bias is [8], expected [7]" in words and "head.6.weight is [8]" in words and "\n" not in words
    with pytest.raises(FerReproError, match="both conv1a.weight and stages.0.0.weight belong at stages.0.0.weight"):
        from_release(variant, state | {"stages.0.0.weight": torch.ones(1)})
    with pytest.raises(FerReproError, match="deep-emotion has no release"):
        from_release(papers.get("deep-emotion"), state)


def shapes(name: str) -> dict[str, torch.Tensor]:
    counters = {"num_batches_tracked": torch.int64}
    return {
        key: torch.empty(shape, dtype=counters.get(key.split(".")[-1]), device="meta")
        for key, shape, _ in DOCUMENTS[name]["keys"]
    }


@pytest.mark.parametrize("name", DOCUMENTS)
def test_damaged_states_are_refused(name):
    """An entry that is lost, renamed, of another shape or there twice, or another network's file."""
    variant, whole, draw = variant_of(name), shapes(name), random.Random(0)
    others = [other for other in DOCUMENTS if variant_of(other).slug != variant.slug]
    needed = [key for key in whole if not key.endswith("num_batches_tracked") and ".downsample" not in key]
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing is copied on this device
        network, _ = from_release(variant, whole)
        variant = dataclasses.replace(variant, build=lambda recipe: network)
        for _ in range(12):
            key = draw.choice(needed)
            part, rest = whole[key], {k: v for k, v in whole.items() if k != key}
            wrong = part.new_empty((*part.shape, 2)), part.new_empty(part.shape[1:]), part.new_empty(0)
            for state in (rest, rest | {f"{key}2": part}, rest | {f"x{key}": part}, *(rest | {key: w} for w in wrong)):
                with pytest.raises(FerReproError, match="do not fit|belong at"):
                    from_release(variant, state)
        for state in ({}, {"": torch.empty(1)}, shapes(draw.choice(others))):
            with pytest.raises(FerReproError, match="do not fit|belong at"):
                from_release(variant, state)


def test_other_sizes_of_a_network_need_no_names_of_their_own():
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("emonext", "emonext-base"):
            network = papers.get(name).build(papers.get(name).recipe("claimed", "full"))
            back = {key.replace("transformer.look", "localization"): part for key, part in network.state_dict().items()}
            from_release(papers.get(name), back)  # the rest is torchvision's names, which are taken as well
        resnet101 = papers.get("residual-masking-resnet101")
        from_release(resnet101, resnet101.build(resnet101.recipe("claimed", "full")).state_dict())


# ---- the declarations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RELEASED)
def test_a_declaration_says_what_a_reader_needs(name):
    variant = RELEASED[name]
    released = variant.released
    assert released.at and released.trained_on and released.selected_on and released.licence
    assert released.url.startswith("https://") and set(released.test_sets) <= set(TEST_SETS)
    assert bool(released.why) == (released.test_sets != TEST_SETS)
    assert sorted(released.classes) == sorted(LABELS)
    assert (released.classes != tuple(LABELS)) <= bool(released.head)
    assert [released.classes.index(label) for label in LABELS] == rows_of(variant)
    recipe = released.recipe(variant.recipe("claimed", "full"), {})
    assert recipe.views.kind != "random" or recipe.views.seed is not None, "a score that nobody could repeat"
    assert recipe.plain.kind != "random"


def test_what_may_not_be_scored_and_what_is_given_otherwise():
    assert papers.get("vggnet").released.test_sets == ("PublicTest",)
    scored = {name: v.released.recipe(v.recipe("claimed", "full"), {}) for name, v in RELEASED.items()}
    assert (scored["ad-corre"].mean, scored["ad-corre"].std) == (0.0, 1.0)
    assert not scored["emonext"].network["normalise"] and scored["emonext"].views.kind == "ten-crop"
    assert scored["deep-emotion-input-stn"].mean == 0.5
    assert scored["residual-masking"].views.count == 10


def test_every_file_has_a_variant_and_no_ablation_from_scratch_has_a_release():
    assert {variant_of(name).id for name in DOCUMENTS} <= set(RELEASED)
    assert not [name for name in RELEASED if name.endswith(SCRATCH)]
