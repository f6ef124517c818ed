"""What every variant and every chapter must fulfil; a new paper gets all of this by being listed."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import statistics
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from listening import listening
from torch import nn
from waiting import Watch

from fer_repro import data, papers, parameters, results
from fer_repro.claims import declared_parameters, leaderboard_claims
from fer_repro.data.protocol import OFFICIAL, Splits
from fer_repro.evaluation import cost
from fer_repro.papers import SCRATCH
from fer_repro.recipe import Selection, Stage, step
from fer_repro.reproduce import reproduce
from fer_repro.results import schema
from fer_repro.training.run import Run

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = papers.variants()
NETWORKS = {name: variant for name, variant in VARIANTS.items() if variant.build}
# A twin runs the code of its original from random weights, as every smoke run of a shrunken network does anyway.
TWINS = {name for name in VARIANTS if name.endswith(SCRATCH)}
CLAIMED = {claim.slug for claim in leaderboard_claims().values()}


def chapter_of(slug: str) -> Path:
    """The notebook of a paper; a method for which nothing is claimed has its own among the other pages."""
    return ROOT / "chapters" / ("papers" if slug in CLAIMED else "") / f"{slug}.ipynb"


CHAPTERS = sorted({chapter_of(variant.slug) for variant in VARIANTS.values()})
each_variant = pytest.mark.parametrize("name", VARIANTS)
each_network = pytest.mark.parametrize("name", NETWORKS)


def test_claims_list_every_variant():
    """`fer-repro run` refuses an id that is not listed there before it imports the papers."""
    for name in VARIANTS:
        papers.require_listed(name)


def _run_once() -> list[str]:
    """The variants without the twins; of sizes that share one smoke recipe, the first."""
    seen: dict[object, str] = {}
    for name, variant in VARIANTS.items():
        smoke = [variant.recipe(protocol, "smoke") for protocol in papers.PROTOCOLS]
        kind = (variant.build, variant.fit, *(dataclasses.replace(one, variant="").sha256() for one in smoke))
        if name not in TWINS:
            seen.setdefault(kind, name)
    return list(seen.values())


def _smoke_runs() -> list[tuple[str, str]]:
    """Variant and protocol: the official one for every variant, each other one for the first of a paper that has it."""
    others: dict[object, tuple[str, str]] = {}
    for name in _run_once():
        protocol = VARIANTS[name].recipe("claimed", "smoke").protocol
        others.setdefault((VARIANTS[name].slug, VARIANTS[name].fit, protocol), (name, "claimed"))
    return [*((name, "official") for name in _run_once()), *others.values()]


def _networks_once() -> list[str]:
    """Of variants with one network that differ in the loss, the images or the schedule, the first."""
    seen: dict[object, str] = {}
    for name in _run_once():
        recipe, variant = VARIANTS[name].recipe("official", "smoke"), VARIANTS[name]
        if name in NETWORKS:
            seen.setdefault((variant.build, variant.fit, recipe.network, recipe.plain), name)
    return list(seen.values())


each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
both_protocols = pytest.mark.parametrize("protocol", papers.PROTOCOLS)


def test_every_paper_module_is_listed_and_every_chapter_has_a_paper():
    folder = ROOT / "fer_repro" / "papers"
    modules = {path.stem for path in [*folder.glob("*.py"), *(found.parent for found in folder.glob("*/__init__.py"))]}
    modules -= {"__init__", "base"}
    assert modules == set(papers.MODULES)
    assert all(path.is_file() for path in CHAPTERS)
    assert set((ROOT / "chapters" / "papers").glob("*.ipynb")) <= set(CHAPTERS)
    assert {path.stem for path in CHAPTERS} - CLAIMED == {"baseline"}


def test_every_paper_names_the_source_code_that_its_chapter_shows():
    """Network, loss and what is special: few enough lines to be read on a page."""
    for slug in {variant.slug for variant in VARIANTS.values()}:
        lines = sum(len(inspect.getsource(each).splitlines()) for each in papers.module_of(slug).SHOWN)
        assert 10 < lines <= 300, slug


@each_variant
def test_names_agree_between_module_notebook_and_claims(name):
    variant = VARIANTS[name]
    assert variant.slug.replace("-", "_") in papers.MODULES
    if variant.slug in CLAIMED:
        assert leaderboard_claims()[variant.ablation_of or name].slug == variant.slug
    assert all(needed in VARIANTS for needed in variant.requires)


@each_variant
@both_protocols
def test_recipes_are_whole_and_stable(name, protocol):
    for profile in ("smoke", "full"):
        recipe = VARIANTS[name].recipe(protocol, profile)
        again = VARIANTS[name].recipe(protocol, profile)
        assert recipe.variant == name and recipe.protocol.name == protocol
        assert recipe.sha256() == again.sha256()
        assert all(d.section and d.what and d.why for d in recipe.deviations)
    assert VARIANTS[name].recipe(protocol, "smoke").sha256() != VARIANTS[name].recipe(protocol, "full").sha256()


@each_variant
def test_official_protocol_is_the_official_one(name):
    recipe = VARIANTS[name].recipe("official", "full")
    assert recipe.protocol == OFFICIAL
    assert not recipe.protocol.selects_on_test and not recipe.protocol.trains_on_test


@each_network
@both_protocols
def test_parameter_count_equals_the_declared_one(name, protocol):
    variant = NETWORKS[name]
    with torch.device("meta"):
        network = variant.build(variant.recipe(protocol, "full"))
    declared = declared_parameters(name)
    assert declared is not None, f"claims.yaml declares no parameter count for {name}"
    assert cost.count_parameters(network) == declared


@pytest.mark.parametrize("name", sorted(TWINS))
@both_protocols
def test_a_twin_is_its_original_from_random_weights(name, protocol):
    twin, original = VARIANTS[name], VARIANTS[name.removesuffix(SCRATCH)]
    assert (twin.build, twin.fit, twin.slug) == (original.build, original.fit, original.slug)
    assert not any(VARIANTS[needed].recipe(protocol, "full").pretrained for needed in (name, *papers.needs(name)))
    assert any(VARIANTS[n].recipe(protocol, "full").pretrained for n in (original.id, *papers.needs(original.id)))
    recipe, same = twin.recipe(protocol, "full"), original.recipe(protocol, "full")
    assert recipe.deviations[: len(same.deviations)] == same.deviations and recipe.network == same.network


@pytest.mark.parametrize("name", _networks_once())
def test_the_network_overfits_one_batch(name, tmp_path, monkeypatch):
    """Through the variant's own `fit`, without augmentation and dropout: the batch is learnt by heart."""
    for dropout in (nn.Dropout, nn.Dropout2d):  # its noise would decide how small the last loss is
        monkeypatch.setattr(dropout, "forward", lambda self, features: features)
    variant = NETWORKS[name]
    smoke = variant.recipe("official", "smoke")
    crop = (step("resize", size=smoke.plain.resize),) if smoke.plain.resize else ()
    crop += (step("centre_crop", size=smoke.plain.size),) if smoke.plain.size else ()
    recipe = dataclasses.replace(
        smoke,
        augment=crop,
        mix=None,
        loss=step("cross-entropy"),
        batch_size=28,
        selection=Selection("last", views=False),
        stages=(Stage("overfit", 120, step("adam", lr=3e-3)),),
    )
    faces = data.load("synthetic", size=(64, 16, 16))
    batch = faces.subset(np.linspace(0, 63, 28).astype(int))
    run = Run(recipe, 0, "cpu", tmp_path, faces.digest)
    classifier = variant.fit(Splits(batch, batch, batch, batch), run)
    losses = [epoch["loss"] for epoch in run.history]
    assert losses[1] < losses[0] and losses[-1] < 0.02 * losses[0]
    assert (classifier.predict_proba(batch.images).argmax(axis=1) == batch.labels).all()


@pytest.mark.parametrize(("name", "protocol"), _smoke_runs())
def test_smoke_run_gives_a_whole_result(name, protocol, tmp_path, monkeypatch):
    """And its batches, the paper's own loss in them, wait for no device."""
    watch = Watch(monkeypatch)
    lines: list[str] = []
    with listening(lines.append):
        result = reproduce(name, protocol, "smoke", results_dir=tmp_path / "results", device="cpu")
    assert result.status == "done" and result.synthetic
    assert watch.found == [] and bool(watch.batches) == (name in NETWORKS or bool(result.record["recipe"]["stages"]))
    assert results.KEYS <= result.record.keys()
    assert results.check_predictions(result.predictions) == []
    assert schema.fault(json.loads(json.dumps(result.record))) == "", "it could not be stored"
    assert not (tmp_path / "results").exists(), "a smoke result must never be stored"
    assert len(result.history) >= 1 and lines
    for half in results.HALVES:
        low, high = result.score(half)["interval"]
        assert 0 <= low <= result.score(half)["accuracy"] <= high <= 1


def _code(book) -> list[nbformat.NotebookNode]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


@each_chapter
def test_chapter_has_the_parameters_cell_and_no_outputs(path):
    book = nbformat.read(path, 4)
    nbformat.validate(book)
    tagged = [cell for cell in _code(book) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    names = re.findall(r"^(\w+): .+ = .+  # .+$", tagged[0].source, re.MULTILINE)
    assert names == list(parameters.FIELDS)
    assert 'profile: str = "smoke"' in tagged[0].source
    for cell in _code(book):
        assert not cell.outputs and cell.execution_count is None


@each_chapter
def test_chapter_keeps_the_length_limits(path):
    book = nbformat.read(path, 4)
    lines = [len(cell.source.splitlines()) for cell in _code(book)]
    assert 25 <= len(book.cells) <= 40
    assert sum(lines) <= 120 and max(lines) <= 12 and statistics.median(lines) <= 3
    words = sum(len(re.findall(r"\w[\w'.,%-]*", cell.source)) for cell in book.cells if cell.cell_type == "markdown")
    assert 900 <= words <= 1500, words


@each_chapter
def test_chapter_says_what_was_found_after_the_comparison_with_the_claim(path):
    book = nbformat.read(path, 4)
    headings = [place for place, cell in enumerate(book.cells) if cell.source.startswith("## What we found")]
    assert len(headings) == 1, "one section of that name, made by chapter.findings()"
    before = "\n".join(cell.source for cell in book.cells[: headings[0]])
    assert "chapter.beside_the_claim(" in before or "comparison.claims(" in before
    assert "chapter.findings(" in book.cells[headings[0] + 1].source


def test_the_contract_notices_a_wrong_network():
    variant = NETWORKS["vggnet"]
    recipe = variant.recipe("official", "full")
    other = dataclasses.replace(recipe, network=dataclasses.replace(recipe.network, options=(("width", 65),)))
    with torch.device("meta"):
        assert cost.count_parameters(variant.build(other)) != declared_parameters("vggnet")
