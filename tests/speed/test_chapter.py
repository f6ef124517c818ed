"""The chapter on speed shows what is stored, says "not measured" of everything else, and types no number itself."""

from __future__ import annotations

import copy
import json
import re

import pytest

from fer_repro import papers, results, speed
from fer_repro.errors import FerReproError
from fer_repro.markup import Html
from fer_repro.plots.figure import Figure
from fer_repro.project import project_root
from fer_repro.speed import tables
from fer_repro.speed.chapter import SpeedPage

MACHINE = {"gpu": None, "cpu": "a <processor>", "cores": 2, "torch": "2.15.0"}
STAMP = {"date": "2026-02-03T04:05:06+00:00", "code_version": "0.1.0 (abc)", "environment": MACHINE, "device": "cpu"}
ONE = {
    "network": "vggnet",
    "title": "VGGNet",
    "batch": 16,
    "recipe_batch": 64,
    "ours": 20.0,
    "synthetic": 21.0,
    "reference_fp32": 8.0,
    "reference_bf16": None,
    "ratio_fp32": 2.5,
    "ratio_bf16": None,
    "share_of_synthetic": 0.952,
    "workers": 2,
    "utilisation": 0.61,
    "utilisation_of": "fp32",
    "forward_flops_per_input": 1.9e9,
    "training_flops_per_image": 5.7e10,
    "epochs": 350,
    "seconds_per_epoch": 1435.0,
    "recipe_seconds": 502250.0,
    "peak_memory_bytes": 900 * 1024**2,
    "reference_peak_memory_bytes": None,
    "failed": {"reference_bf16": "too slow <here>"},
}
GOAL = {
    "goal": "times",
    "on": "cpu",
    "limit": 1.0,
    "at_least": True,
    "value": 2.5,
    "state": "met",
    "measured_on": "CPU",
}
OPEN = {
    "goal": "minutes",
    "on": "cuda",
    "limit": 20.0,
    "at_least": False,
    "value": None,
    "state": "not measured",
    "measured_on": None,
}
TECHNIQUES = {
    "deep-emotion": {
        "title": "DeepEmotion",
        "batch": 128,
        "precision": "fp32",
        "images_per_second": {"everything on": 900.0, "without fused optimiser": 450.0, "without novelty": 990.0},
        "share": {"everything on": 1.0, "without fused optimiser": 0.5, "without novelty": 1.1},
        "failed": {"without autocast": "this runs in fp32 already"},
    }
}
MEASURED = {
    "train": STAMP
    | {
        "turns": 3,
        "seconds_a_turn": 4.0,
        "training_images": 28709,
        "techniques": TECHNIQUES,
        "goals": [GOAL, OPEN],
        "networks": {"vggnet": ONE, "resnet34": {"title": "ResNet34", "failed": {"ours": "no memory"}}},
    },
    "evaluate": STAMP
    | {
        "goals": [],
        "networks": {
            "vggnet": {
                "title": "VGGNet",
                "views": "ten-crop 40",
                "images": 128,
                "ours": 30.0,
                "reference": 10.0,
                "ratio": 3.0,
                "agreement": 0.9922,
                "largest_difference": 1e-6,
                "public_test_seconds": 120.0,
                "public_test_seconds_reference": 359.0,
                "failed": {},
            }
        },
    },
    "seeds": STAMP
    | {
        "seeds": 3,
        "goals": [OPEN | {"goal": "seeds"}],
        "networks": {
            "deep-emotion": {
                "title": "DeepEmotion",
                "times_of_one": {"one after another": 3.01, "stacked with vmap": 3.6},
                "failed": {"side by side as processes": "no memory"},
            }
        },
    },
    "augment": STAMP
    | {
        "what": "VGGNet training augmentation",
        "threads": 1,
        "batched": 3000.0,
        "pil_built_once": 150.0,
        "pil_as_released": 100.0,
        "goals": [],
    },
}
SECTIONS = ("training", "whole_runs", "picture", "techniques", "evaluation", "seeds")


@pytest.fixture
def page(tmp_path):
    speed.store(copy.deepcopy(MEASURED), tmp_path)
    return SpeedPage(str(tmp_path))


def words(piece: Html) -> str:
    return re.sub(r"<[^>]+>", " ", piece._repr_html_().partition("</style>")[2]).replace("\u00a0", " ")


def test_without_any_measurement_everything_is_not_measured(tmp_path):
    page = SpeedPage(str(tmp_path))
    for device, name in (("cpu", "CPU"), ("cuda", "GPU")):
        for section in SECTIONS:
            shown = getattr(page, section)(device)
            assert f"Not measured: no measurement on a {name} is stored." in " ".join(words(shown).split())
            assert repr(shown).startswith("not measured")
    for shown in (page.goals(), page.machines(), page.augmentation()):
        assert "Not measured:" in words(shown)


def test_stored_runs_stand_beside_the_measurement_with_their_machine(tmp_path):
    measured = {
        "train": MEASURED["train"] | {"networks": {"vggnet": ONE, "deep-emotion": ONE | {"network": "deep-emotion"}}}
    }
    speed.store(measured, tmp_path)
    runs = [run for run in results.read_all() if run.variant == "deep-emotion"]
    shown = SpeedPage(str(tmp_path)).whole_runs("cpu")
    assert len(runs) > 1 and shown.body.count("<tr>") == len(runs) + 1
    for run in runs:
        assert f"{run.record['cost']['images_per_second']:,.0f}" in words(shown)
        assert run.record["environment"]["cpu"] in words(shown)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no full run" in words(SpeedPage(str(tmp_path), str(empty)).whole_runs("cpu")).lower()


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(FerReproError, match="there is no folder of measurements .*nowhere"):
        SpeedPage(str(tmp_path / "nowhere"))


def test_training_shows_both_sides_and_what_is_missing(page):
    shown = words(page.training("cpu"))
    for part in (
        "VGGNet",
        "16 of 64",
        "20",
        "2.5",
        "95.2 %",
        "61.0 %, fp32",
        "24 min",
        "139.5 h",
        "900",
        "reference bf16: too slow &lt;here&gt;",
        "ours: no memory",
        "not measured",
    ):
        assert part in shown, part
    assert "Not measured" in words(page.training("cuda"))
    assert "<here>" not in page.training("cpu")._repr_html_()


def test_the_picture_describes_in_its_alt_text_what_it_shows(page):
    picture = page.picture("cpu")
    assert isinstance(picture, Figure)
    assert "VGGNet: 20 images a second, reference in fp32 8" in picture.alt and "ResNet34" not in picture.alt
    axes = picture.canvas("dark").axes[0]
    assert axes.get_xscale() == "log" and [label.get_text() for label in axes.get_yticklabels()] == ["VGGNet"]
    marks = {line.get_label(): line.get_xdata()[0] for line in axes.lines if not line.get_label().startswith("_")}
    assert marks == {"reference, fp32": 8.0, "bound: augmented before": 21.0, "this library": 20.0}
    assert [text.get_text() for text in axes.texts] == ["× 2.5"]


def test_a_picture_of_nothing_is_refused(tmp_path):
    speed.store({"train": STAMP | {"networks": {"resnet34": MEASURED["train"]["networks"]["resnet34"]}}}, tmp_path)
    with pytest.raises(FerReproError, match="holds no network that ran"):
        SpeedPage(str(tmp_path)).picture("cpu")


def test_techniques_are_in_the_chapters_order_with_reasons(page):
    grid = tables.techniques(MEASURED["train"])
    assert [row[0] for row in grid.rows] == ["fused optimiser", "bf16", "without novelty"]
    assert [row[1] for row in grid.rows] == ["50 %", "this runs in fp32 already", "110 %"]
    assert "DeepEmotion, batch 128, fp32" in words(page.techniques("cpu"))


def test_scoring_seeds_and_augmentation(page):
    shown = words(page.evaluation("cpu"))
    assert "99.22 %" in shown and "ten-crop 40" in shown and "1e-06" in shown and "2 min" in shown
    grid = tables.several_seeds(MEASURED["seeds"])
    assert grid.rows == [
        ["one after another", "3.01"],
        ["stacked with vmap", "3.60"],
        ["side by side as processes", "no memory"],
    ]
    shown = words(page.augmentation())
    assert "3,000" in shown and "30" in shown and "20" in shown


def test_goals_come_from_the_measurement_that_knows_more(page, tmp_path):
    shown = words(page.goals())
    assert "met" in shown and "not measured" in shown and "at most 20" in shown
    assert "Against transforms that are built once, the batched steps are 20 times as fast." in shown
    on_gpu = copy.deepcopy(MEASURED["train"]) | {"device": "cuda"}
    on_gpu["goals"] = [GOAL | {"value": None, "state": "not measured"}, OPEN | {"value": 25.0, "state": "missed"}]
    for order in (["cpu", "cuda"], ["cuda", "cpu"]):
        both = {"cpu": MEASURED["train"], "cuda": on_gpu}
        rows = tables.goals([both[device] for device in order]).rows
        assert {row[1]: row[4] for row in rows} == {"times": "met", "minutes": "missed"}


def test_stored_words_are_shown_in_the_words_of_today():
    stored = {"title": "A, untaught", "goals": [{"goal": "times the PIL pipeline", "value": 3.0}]}
    shown = {"title": "A, without a teacher", "goals": [{"goal": "times the PIL pipeline as released", "value": 3.0}]}
    assert tables.in_words_of_today(stored) == tables.in_words_of_today(shown) == shown


def test_machines_are_named_with_date_and_code(page):
    shown = words(page.machines())
    assert "a &lt;processor&gt;, 2 cores" in shown and "2026-02-03" in shown and "0.1.0 (abc)" in shown


def test_every_benchmark_becomes_tables(page):
    for name, figures in MEASURED.items():
        for grid in tables.grids(name, figures):
            assert grid.rows and all(len(row) == len(grid.header) for row in grid.rows), name
            assert all(isinstance(cell, str) for row in grid.rows for cell in row)


def test_the_chapter_types_no_measured_number():
    cells = json.loads((project_root() / "chapters/speed.ipynb").read_text(encoding="utf-8"))["cells"]
    prose = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert not re.search(r"\d\s?(%|x\b|×|times|images a second|ms\b|minutes)", prose)
    shown = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    for section in (*SECTIONS, "goals", "machines", "augmentation"):
        assert f"speed.{section}(" in shown


def test_memory_is_counted_for_every_row_with_a_network():
    rows = tables.memory().rows
    rows_of = [v for v in papers.variants().values() if v.build is not None and v.ablation_of is None]
    networks = [v for v in rows_of if v.recipe("official", "full").stages]  # an ensemble trains nothing of its own
    assert len(rows) == len(networks) and not any(tables.UNKNOWN in row for row in rows)
    for _, inputs, _, activations, states, whole in rows:
        assert int(inputs.replace(",", "")) >= 8 and float(activations) > 0
        assert float(whole) == pytest.approx(float(activations) + float(states), abs=0.011)
