"""What is compared with what: the kinds, their names, what decides, and what cannot be compared."""

from __future__ import annotations

import numpy as np
import pytest
from made_comparisons import package_of, predictions_of, released_of, run_of, some, unfinished_of

from fer_repro import papers, results
from fer_repro.comparisons import gather
from fer_repro.comparisons.gather import HELD_OUT, OTHER_IMAGES, UNDECIDED, compared
from fer_repro.data import USAGES
from fer_repro.errors import FerReproError
from fer_repro.score import UNKNOWN


@pytest.fixture(scope="module")
def comparison():
    return compared(some())


def test_every_kind_takes_part_as_what_it_is(comparison):
    names = {entry.name: entry for entry in comparison.entries}
    assert list(names) == [
        *(
            "VGGNet",
            "plain baseline",
            "package fer",
            "DeepEmotion (released weights)",
            "deep-emotion-no-stn",
            "DeepEmotion",
        ),
        *("package facemood", "VGGNet (as claimed)"),
        next(name for name in names if "unfinished: epoch 2 of" in name),
    ]
    assert [entry.decides for entry in comparison.entries] == [True] * 6 + [False] * 3
    assert (
        names["package facemood"].remark == "trained on test images"
        and "no generalisation" in names["package facemood"].why_not
    )
    assert "trained on Training" in names["DeepEmotion (released weights)"].remark
    assert "selected on" in names["VGGNet (as claimed)"].remark
    assert (names["VGGNet"].year, names["plain baseline"].year, names["deep-emotion-no-stn"].year) == (2021, None, 2019)
    assert comparison.left_out == {} and len(comparison.labels) == 3589


def test_seeds_stand_together_and_are_scored_as_their_recipe_scores(comparison):
    vggnet = comparison.entries[0]
    assert [run.seed for run in vggnet.runs] == [0, 1, 2] and vggnet.probabilities.shape == (3, 3589, 7)
    for run, accuracy in zip(vggnet.runs, vggnet.accuracies, strict=True):
        assert accuracy == run.score("PrivateTest", views=True)["accuracy"]
    assert vggnet.accuracy == pytest.approx(np.mean(vggnet.accuracies))
    assert vggnet.seconds == 12.5 and vggnet.device == "CPU"
    assert next(one for one in comparison.entries if one.kind == "package").seconds is None


def test_another_order_of_the_images_changes_nothing(comparison):
    shuffled = some()
    order = np.random.default_rng(0).permutation(3589)
    for name in ("ids", "labels", "plain", "views"):
        shuffled[0].predictions[f"PrivateTest_{name}"] = shuffled[0].predictions[f"PrivateTest_{name}"][order]
    assert np.array_equal(compared(shuffled).entries[0].probabilities, comparison.entries[0].probabilities)


def test_other_images_or_labels_are_left_out_with_the_reason():
    other, relabelled = run_of("vggnet", 0.7), run_of("deep-emotion", 0.7)
    other.predictions["PrivateTest_ids"] = np.char.add("x", other.predictions["PrivateTest_ids"])
    relabelled.predictions["PrivateTest_labels"] = relabelled.predictions["PrivateTest_labels"][::-1].copy()
    found = compared([run_of("baseline", 0.6), run_of("baseline", 0.61, 1), other, relabelled])
    assert [entry.name for entry in found.entries] == ["plain baseline"]
    assert found.left_out == {"VGGNet, seed 0": OTHER_IMAGES, "DeepEmotion, seed 0": OTHER_IMAGES}


def test_what_has_no_predictions_of_privatetest_is_left_out():
    found = compared([run_of("baseline", 0.6), released_of("deep-emotion", 0.5, usages=("PublicTest",))])
    assert found.left_out == {"DeepEmotion (released weights)": "no predictions of PrivateTest"}
    assert len(found.entries) == 1


@pytest.mark.parametrize(
    ("trained_on", "selected_on", "decides"),
    [
        ("Training", "PublicTest, each image as it is", True),
        ("Training without its first 3,589 images", "nothing: the last epoch's weights are kept", True),
        ("Training", "PrivateTest, the best of all epochs", False),
        ("Training", "PublicTest; its backbone is one of an unknown number", False),
        ("Training", "the validation images; whether they are PublicTest is not established", False),
        ("Training", UNKNOWN, False),
        (UNKNOWN, "PublicTest", False),
        ("Training and, in the last 50 epochs, PrivateTest", "PublicTest", False),
        ("Training and private images", "PublicTest", False),
        ("Training + PublicTest", "PublicTest", False),
        ("Training without its first images plus other faces", "PublicTest", False),
        ("by the paper Training; a user reports Test images among them", "PublicTest", False),
        ("an augmented copy of Training, which is not published", "PublicTest", False),
    ],
)
def test_released_weights_decide_only_if_test_images_are_ruled_out(trained_on, selected_on, decides):
    (entry,) = compared([released_of("deep-emotion", 0.7, selected_on, trained_on=trained_on)]).entries
    assert entry.decides == decides
    assert entry.why_not == ("" if decides else "it may have been trained or selected on test images")


def test_of_the_published_weights_in_doubt_none_decides():
    said = {variant.id: one for variant in papers.variants().values() for one in [variant.released] if one}
    clear = {
        name
        for name, one in said.items()
        if compared([released_of("baseline", 0.7, one.selected_on, trained_on=one.trained_on)]).deciding
    }
    assert {"deep-emotion-wide-localisation"} <= clear
    assert not clear & {"vggnet", "resnet18-tricks", "resemotenet", "lhc-net", "ad-corre", "efficientfer"}
    assert {"vggnet", "resnet18-tricks", "resemotenet"} <= said.keys()


def test_a_package_decides_only_if_both_test_sets_were_held_out():
    package = package_of("fer", 0.75, 0.65)
    (held_out,) = compared([package]).entries
    assert held_out.decides and held_out.remark == HELD_OUT and held_out.may_select
    for public, remark in ((0.90, "trained on PublicTest"), (0.75, UNDECIDED)):
        seen = package_of("fer", 0.75, 0.65)
        seen.predictions |= {
            name: rows for name, rows in predictions_of(public, 3).items() if name.startswith("PublicTest")
        }
        seen.record["scores"] = results.score_all(seen.predictions, halves=USAGES)
        (entry,) = compared([seen]).entries
        assert not entry.decides and entry.remark == remark and not entry.may_select


def test_publictest_chooses_no_model_that_was_trained_on_it():
    run = run_of("baseline", 0.6, 1)
    run.record["usages"] = run.record["usages"] | {"finetune": ["Training", "PublicTest"]}
    found = compared([run_of("baseline", 0.6), run]).entries
    assert [entry.may_select for entry in found] == [False]
    assert not compared([released_of("deep-emotion", 0.7, trained_on="Training + PublicTest")]).entries[0].may_select
    assert not compared([released_of("deep-emotion", 0.7, usages=("PrivateTest",))]).entries[0].may_select
    assert compared([run_of("baseline", 0.6), run_of("baseline", 0.6, 1)]).entries[0].may_select


def test_a_package_that_knows_no_set_better_is_undecided():
    (entry,) = compared([package_of("fer", 0.60, 0.60)]).entries
    assert not entry.decides and entry.remark == UNDECIDED


def test_two_recipes_of_one_variant_are_two_models_with_two_names():
    other = run_of("vggnet", 0.72, 1)
    other.record["recipe_sha256"] = "ab" * 32
    first, second = compared([run_of("vggnet", 0.7), other]).entries
    assert (
        first.name == "VGGNet (recipe abababab)"
        and second.name.startswith("VGGNet (recipe ")
        and first.name != second.name
    )


def test_a_stopped_run_of_a_variant_does_not_join_its_full_runs():
    found = compared([run_of("baseline", 0.6), unfinished_of("baseline", 0.5)])
    assert [len(entry.runs) for entry in found.entries] == [1, 1] and found.others[0].kind == "unfinished"


def test_it_reads_a_folder_of_results(tmp_path):
    for one in (run_of("baseline", 0.6), package_of("fer", 0.75, 0.65)):
        results.write(one, tmp_path)
    assert results.verify(tmp_path) == []
    found = gather(tmp_path)
    assert [entry.name for entry in found.entries] == ["package fer", "plain baseline"]
    with pytest.raises(FerReproError, match="does not exist"):
        gather(tmp_path / "missing")


def test_nothing_stored_is_an_empty_comparison(tmp_path):
    assert not gather(tmp_path) and gather(tmp_path).deciding == ()
