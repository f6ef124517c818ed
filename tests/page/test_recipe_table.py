"""The full recipe of every row of the leaderboard: readable, only what applies, each value with its source."""

from __future__ import annotations

import pytest

from fer_repro import page, papers, parameters
from fer_repro.claims import leaderboard_claims
from fer_repro.errors import FerReproError
from fer_repro.page import recipe_table
from fer_repro.page.setting_defaults import completed
from fer_repro.page.setting_names import SETTINGS
from fer_repro.papers.base import SOURCE_KINDS, details, deviations, sources

CLAIMS = leaderboard_claims()
SEG = "segmentation-vgg19"
each_model = pytest.mark.parametrize("name", CLAIMS)
each_paper = pytest.mark.parametrize("slug", dict.fromkeys(claim.slug for claim in CLAIMS.values()))


def rows_of(name: str, protocol: str, profile: str = "full") -> list[recipe_table.Row]:
    return recipe_table.rows(papers.get(name).recipe(protocol, profile).as_dict())


@each_model
@pytest.mark.parametrize("protocol", papers.PROTOCOLS)
def test_every_setting_of_every_full_recipe_has_a_source(name, protocol):
    known = recipe_table.Sources(papers.get(name), protocol)
    assert [row.key for row in rows_of(name, protocol) if known.of(row) is None] == []


@each_paper
def test_no_source_names_a_setting_that_no_recipe_has(slug):
    models = [claim.variant for claim in CLAIMS.values() if claim.slug == slug]
    groups = {"all": (models, papers.PROTOCOLS)}
    groups |= {protocol: (models, (protocol,)) for protocol in papers.PROTOCOLS}
    groups |= {model: ([model], papers.PROTOCOLS) for model in models}
    groups |= {f"{model} {protocol}": ([model], (protocol,)) for model in models for protocol in papers.PROTOCOLS}
    for group, named in sources(papers.module_of(slug).__file__).items():
        of, protocols = groups[group]
        keys = {key for model in of for protocol in protocols for row in rows_of(model, protocol) for key in row.keys}
        assert set(named) - keys == set(), f"{slug}, {group}"


def names_in(value) -> set[str]:
    """Every name of a field or an option in a recipe's data."""
    if isinstance(value, dict):
        return {name for key, inner in value.items() for name in {key} | names_in(inner)}
    return {name for inner in value for name in names_in(inner)} if isinstance(value, (list, tuple)) else set()


def test_every_option_of_every_recipe_has_a_readable_name():
    readable = {name.rsplit(".", 1)[-1] for name in SETTINGS}
    shown_otherwise = {
        "name",
        "variant",
        "options",
        "stages",
        "mean",
        "std",
        "deviations",
        "count",
        "average",
        "resize",
    }
    shown_otherwise |= {"train", "select", "test", "finetune", "rule", "seed", "poses", "section", "what"}
    for variant in papers.variants().values():
        for protocol in papers.PROTOCOLS:
            data = completed(variant.recipe(protocol, "full").as_dict())
            assert names_in(data) - readable - shown_otherwise == set(), variant.id


def test_values_are_on_one_line_in_standard_terms():
    found = {row.name: row.value for row in rows_of("vggnet", "claimed")}
    assert (
        found["Images"]
        == "Training trains, PrivateTest selects, PublicTest is scored, Training + PrivateTest fine-tunes"
    )
    assert found["Optimiser (train)"] == "SGD (learning rate 0.01, momentum 0.9, Nesterov, weight decay 0.0001)"
    assert found["Learning rate schedule (train)"] == (
        "reduce on plateau (factor 0.75, patience of 5 epochs, smallest improvement 0.0001, relative to the best, "
        "watches accuracy)"
    )
    assert found["Epochs, at most (train)"] == "300, without early stopping"
    assert found["Trains on (fine-tune)"] == "Training + PrivateTest"
    assert found["Test-time augmentation"] == "ten crops of 40 pixels, mean of logits"
    assert found["Input values"] == "[0, 1]" and found["Initial weights"] == "random"
    assert "share of the area 0.8 to 1.2" in found["Augmentation"]
    assert not any("\n" in row.value or "_" in row.name for row in rows_of("vggnet", "claimed"))


def test_values_that_a_recipe_leaves_to_a_default_are_shown():
    """Of the network, of torch's optimisers and of the augmentation; what is off in a network is left out."""
    found = {row.key: row.value for row in rows_of("lhc-net", "official")}
    assert "hidden units 4096, 1024, dropout 0.4" in found["network"]
    found = {row.key: row.value for row in rows_of("segmentation-vgg19", "claimed")}
    assert "activation of the mask softmax" in found["network"]
    assert found["optimiser"].endswith("betas 0.9, 0.999, epsilon 1e-08)")
    assert found["patience"] == "after 9 epochs in a row without a higher accuracy, by however little"
    assert "beyond the image black, blended with its outermost pixels" in found["augment"]
    found = {row.key: row.value for row in rows_of("cnn-hyperparameters", "claimed")}
    assert found["optimiser"].endswith("weight decay 0)") and "a lower loss" in found["patience"]
    assert "batch norm" not in {row.key: row.value for row in rows_of("deep-emotion", "official")}["network"]
    assert "beyond the image black" in {row.key: row.value for row in rows_of("emonext", "official")}["augment"]
    assert "aspect ratio 0.3 to 3.3" in {row.key: row.value for row in rows_of("sdafe", "official")}["augment"]
    assert {row.key: row.value for row in rows_of("ad-corre", "official")}["input_size"].endswith(
        "after the augmentation"
    )


def test_showing_defaults_leaves_the_recipe_as_it_is():
    data = papers.get("segmentation-vgg19").recipe("official", "full").as_dict()
    before = repr(data)
    assert completed(data) != data and repr(data) == before


def test_the_search_lists_the_values_that_it_draws_from():
    found = {row.key: row.value for row in rows_of("cnn-hyperparameters-search", "official")}
    assert found["options.space"].startswith("conv1: 64, 128, 192, 256; conv2: 128, 256, 384, 512; conv3: ")
    assert found["options.space"].endswith("optimiser: adam, sgd; learning rate: 0.01, 0.001, 0.0001")
    assert "conv2: 512; conv3: 384" in found["options.first"]


@each_paper
def test_details_of_a_method_belong_to_the_paper_or_to_one_of_its_variants(slug):
    known = {"all"} | {variant.id for variant in papers.variants().values() if variant.slug == slug}
    groups = details(papers.module_of(slug).__file__)
    assert set(groups) <= known and not {"details", "sources"} & set(deviations(papers.module_of(slug).__file__))


def test_details_of_a_method_stand_below_its_settings():
    gated, plain = (recipe_table.recipe_table(papers.get(name), "official") for name in (SEG, f"{SEG}-plain"))
    assert "<th scope=row>First weights of the head</th>" in gated and "First weights of the head" in plain
    assert "First weights of the gates" in gated and "First weights of the gates" not in plain
    assert "authors’ code: " in gated.partition("First weights of the gates")[2]


def test_a_recipe_says_that_it_is_ours_and_how_many_values_we_chose():
    body = recipe_table.full_recipe(papers.get("deep-emotion"), "official")
    own = recipe_table.recipe_table(papers.get("deep-emotion"), "official")
    ours, values = own.count("our choice: "), own.count("<tr>") - 1
    assert 0 < ours < values and f"Our choice: {ours} of {values} values." in body


def test_wrong_details_are_one_sentence(tmp_path):
    (tmp_path / "deviations.yaml").write_text("details:\n  all:\n    Order: [first this, paper]\n")
    with pytest.raises(FerReproError, match="cannot be read as details.*a text, a kind and a place"):
        details(str(tmp_path / "__init__.py"))
    (tmp_path / "deviations.yaml").write_text("details:\n  all:\n    Order: [first this, hearsay, page 3]\n")
    with pytest.raises(FerReproError, match="a kind and a place"):
        details(str(tmp_path / "__init__.py"))


def test_a_method_without_a_network_shows_only_what_applies():
    names = {row.name for row in rows_of("local-learning-bow", "official")}
    assert names.isdisjoint(
        {"Batch size, images", "Precision", "Loss", "Input size", "Network", "Test-time augmentation"}
    )
    assert {"Neighbours k", "SVM penalty C", "SIFT grid step, pixels", "Selection"} <= names
    words = next(row.value for row in rows_of("local-learning-bow", "claimed") if row.name == "Visual words")
    assert words.startswith("1×1 fields: 17,000 words of 16-pixel patches; 2×2 fields: 14,000")


def test_what_only_sums_fitted_networks_is_not_trained():
    keys = {row.key for row in rows_of("residual-masking-ensemble", "official")}
    assert keys.isdisjoint({"batch_size", "loss", "augment", "precision", "pretrained"}) and "options.members" in keys


def test_an_ablation_keeps_the_sources_of_what_it_does_not_change():
    known = recipe_table.Sources(papers.get("residual-masking-scratch"), "official")
    found = {row.key: known.of(row) for row in rows_of("residual-masking-scratch", "official")}
    assert found["pretrained"].kind == "ours" and found["pretrained"].place == "this ablation"
    assert found["augment"].place == "utils/augmenters/augment.py"


def test_the_chapter_shows_the_full_recipe_whatever_it_runs():
    opened = page.open_chapter("mini-resemotenet", vars(parameters.ChapterParameters(variant="mini-resemotenet-b")))
    assert opened.parameters.profile == "smoke"
    body = opened.recipe().body
    assert papers.get("mini-resemotenet-b").recipe("official", "full").sha256()[:16] in body
    assert "<td>80</td><td>our choice: " in body
    assert "What the claimed protocol changes: 1 setting</summary>" in body
    assert "Full recipe of Mini-ResEmoteNet (A), official protocol</summary>" in body


def test_what_a_protocol_does_without_is_one_line_and_no_row():
    body = recipe_table.full_recipe(papers.get("sdafe"), "official").split("What the claimed protocol changes")[1]
    assert "<td>none</td><td></td>" not in body and "<p>Not used under the claimed protocol: " in body


def test_the_official_protocol_that_changes_nothing_says_so():
    body = recipe_table.full_recipe(papers.get("residual-masking"), "official")
    assert "The claimed protocol changes no setting." in body


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("sources:\n  all:\n    loss: [paper]\n", "a kind and a place"),
        ("sources:\n  all:\n    loss: [hearsay, page 3]\n", "a kind and a place"),
        ("sources:\n  all:\n    loss: [paper, 3]\n", "a text"),
        ("all: []\n", "sources is None, expected a mapping"),
        ("sources: []\n", "sources is [], expected a mapping"),
        ("sources:\n  all: 3\n", "sources, all is 3, expected a mapping"),
    ],
)
def test_a_wrong_file_of_sources_is_one_sentence(tmp_path, content, told):
    (tmp_path / "deviations.yaml").write_text(content)
    with pytest.raises(FerReproError, match="cannot be read as sources") as error:
        sources(str(tmp_path / "__init__.py"))
    assert told in str(error.value)


def test_every_kind_of_source_has_its_words():
    assert set(recipe_table.KINDS) == set(SOURCE_KINDS)
