"""What we found: every sentence follows from stored results and claims, and changes or goes with them."""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Sequence

import numpy as np
import pytest
from test_evidence import released, unfinished
from test_page import made_up, shown

from fer_repro import leaderboard, page, results
from fer_repro.claims import leaderboard_claims
from fer_repro.evaluation.statistics import mean_interval, separate_difference
from fer_repro.leaderboard import baseline_band
from fer_repro.leaderboard.stored import Stored
from fer_repro.markup import interval, percent
from fer_repro.page import findings
from fer_repro.page.pretraining import PretrainingPage
from fer_repro.papers import local_learning_bow
from fer_repro.papers.baseline import comparison
from fer_repro.papers.deep_emotion import figures as deep_emotion
from fer_repro.results import HALVES, Result


def claims_of(slug: str):
    return [claim for claim in leaderboard_claims().values() if claim.slug == slug]


def found(slug: str, *runs: Result, more=()) -> str:
    """The findings of a paper from made-up results, as a reader sees them."""
    kinds = {kind: [run for run in runs if run.kind == kind] for kind in results.EVIDENCE}
    stored = Stored(kinds[results.FULL], kinds[results.RELEASED], kinds[results.UNFINISHED])
    return str(shown(findings.chapter_findings(slug, claims_of(slug), stored, more)))


@pytest.fixture(scope="module")
def stored() -> Stored:
    return Stored(*(results.read_all(kind=kind) for kind in (results.FULL, results.RELEASED, results.UNFINISHED)))


def test_nothing_stored_is_one_sentence_with_what_others_report():
    words = found("vggnet")
    assert words.startswith("Nothing was measured on real faces yet. The claim of 73.28\u00a0% for VGGNet")
    assert "2 reports that can be compared" in words and "PrivateTest" not in words


def test_a_result_of_synthetic_faces_is_nothing():
    assert found("vggnet", made_up(profile="smoke", data="synthetic", n=140)) == found("vggnet")


def test_a_claim_against_its_runs():
    runs = [made_up(seed=seed, right=right) for seed, right in ((0, 0.70), (1, 0.71), (2, 0.72))]
    words, values = found("vggnet", *runs), [run.headline["accuracy"] for run in runs]
    mean = statistics.fmean(values)
    assert f"VGGNet recognises {percent(mean)} of PrivateTest (95 % interval" in words
    assert f"{interval(mean_interval(values, 3589))}, mean of 3 seeds)" in words
    assert f"The paper claims 73.28\u00a0%, {100 * (0.7328 - mean):.2f} points more than measured" in words
    assert f"between {percent(min(values))} and {percent(max(values))}" in words
    assert f"standard deviation {100 * statistics.stdev(values):.2f} points" in words
    public = statistics.fmean(run.score("PublicTest")["accuracy"] for run in runs)
    assert f"PublicTest, which selected what is scored, gives {percent(public)}" in words
    gain = mean - statistics.fmean(run.score(views=False)["accuracy"] for run in runs)
    assert f"changes the accuracy on PrivateTest by {100 * gain:+.2f} points" in words


def test_the_place_of_the_claim_and_the_verdict_follow_the_runs():
    high, low = found("vggnet", made_up(right=0.733)), found("vggnet", made_up(right=0.6))
    assert "lies inside the interval" in high and "verdict: reproduced" in high
    assert "lies outside the interval" in low and "verdict: below" in low and "points more than measured" in low
    assert "Only one seed of VGGNet is stored" in low and "Not decided: what another seed of VGGNet gives" in low


def test_classes_are_those_of_the_confusion_matrix():
    run = made_up()
    labels, rows = run.predictions["PrivateTest_labels"], run.predictions["PrivateTest_views"]
    rows[labels == 2] = np.eye(7)[4] * 0.65 + 0.05  # all fear is taken for sad
    rows[labels == 5] = np.eye(7)[5] * 0.65 + 0.05
    run.record["scores"] = results.score_all(run.predictions, ["PrivateTest"])
    words = found("vggnet", run)
    assert "The easiest class is surprise (recall 100.0\u00a0%), the hardest fear (0.0\u00a0% of" in words
    assert "largest share of a class that is taken for another: sad is the answer for 100.0\u00a0% of fear." in words


def test_the_baseline_stands_beside_a_paper_and_not_beside_itself():
    baseline = made_up("baseline", right=0.68)
    words = found("vggnet", made_up(right=0.70), baseline)
    shares = (made_up(right=0.70).headline["accuracy"], baseline.headline["accuracy"])
    gap = np.subtract(*(float(percent(share).rstrip("\u00a0%")) for share in shares))
    assert f"{gap:.2f} points less than VGGNet" in words
    own = found("baseline", baseline)
    assert own.startswith("The plain baseline recognises") and "of this book" not in own and "claim" not in own


def test_the_claimed_protocol_is_said_against_the_official_one():
    words = found("vggnet", made_up(right=0.70), made_up(protocol="claimed", right=0.73))
    assert re.search(r"Run as the claim was made, VGGNet gives [\d.]+.% on PublicTest, [\d.]+ points more than", words)


def test_ablations_unfinished_runs_and_released_weights_are_named_for_what_they_are():
    words = found("efficientfer", made_up("efficientfer-lite0", right=0.66), made_up("efficientfer-lite0-scratch"))
    assert words.startswith("efficientfer-lite0 recognises") and words.count("efficientfer-lite0 recognises") == 1
    assert re.search(
        r"efficientfer-lite0-scratch recognises .* points less than efficientfer-lite0; on the same", words
    )
    assert "Not decided: the claim of 82.47" in words
    words = found("vggnet", unfinished(done=7), released())
    assert "was stopped after 7 of 350 epochs" in words and "this decides nothing" in words
    assert "Released weights of VGGNet (of-theirs) give" in words and "; trained on words, selected on words." in words
    assert "Not decided: the claim of 73.28" in words


def test_a_run_that_has_learned_one_class_only_says_so():
    stuck = unfinished()
    assert "for every image" not in found("vggnet", stuck)
    for kind in ("plain", "views"):
        stuck.predictions[f"PrivateTest_{kind}"][:] = np.eye(7)[3] * 0.65 + 0.05
    stuck.record["scores"] = results.score_all(stuck.predictions, ["PrivateTest"])
    assert "and answers happy for every image; this decides nothing" in found("vggnet", stuck)


def test_a_difference_is_that_of_the_numbers_beside_it():
    assert findings.against(0.605745, 0.605454, "it") == "0.02 points more than it"  # 60.57 % against 60.55 %
    assert findings.against(0.60549, 0.60551, "it") == "as much as it"  # both are shown as 60.55 %
    assert findings.against(0.5, 0.7002, "it") == "20.02 points less than it"


def test_runs_of_another_recipe_are_not_mixed():
    other = made_up(seed=1, right=0.5)
    other.record["recipe_sha256"], other.record["ended"] = "0" * 64, "2020-01-01T00:00:00+00:00"
    groups = findings._groups([made_up(), other])
    assert [[run.seed for run in group] for group in groups] == [[0]]


@pytest.mark.parametrize("slug", sorted({claim.slug for claim in leaderboard_claims().values()} | {"baseline"}))
def test_every_chapter_says_something_of_what_is_stored(slug, stored):
    words = str(shown(findings.chapter_findings(slug, claims_of(slug), stored)))
    assert len(words) > 40 and "nan" not in words.lower() and "None" not in words


# ---- what only one paper can say -------------------------------------------------------------------------------------


def ladder(*correct: int) -> list[dict]:
    steps = zip(local_learning_bow.LADDER, correct, strict=True)
    return [{"step": s, **{half: {"n": 3589, "correct": k, "accuracy": k / 3589} for half in HALVES}} for s, k in steps]


def test_a_claim_is_named_by_its_model_and_released_weights_say_what_made_them():
    claim = next(claim for claim in leaderboard_claims().values() if claim.slug == "vggnet")
    proxy = dataclasses.replace(claim, variant="efficientfer-lite0", model="A <model>")
    name = "A &lt;model&gt;"
    assert f"% for {name} is not tested" in findings._nothing([proxy])
    [line] = findings._undecided(proxy, Stored([], [], []))
    assert f"% for {name}, because" in line
    weights = released()
    weights.record["released"] |= {"trained_on": "Training & more", "selected_on": "<nothing>"}
    said = findings._released(weights, [], [])
    assert said.endswith("; trained on Training &amp; more, selected on &lt;nothing&gt;.")


def test_no_effect_of_presence_vectors_alone_is_established_in_the_stored_run(stored):
    [run] = [one for one in stored.runs if one.variant == "local-learning-bow" and one.seed == 0]
    first, second, *_ = run.record["facts"]["ladder"]
    assert all(second[half]["correct"] < first[half]["correct"] for half in HALVES)
    alone, together = local_learning_bow.presence_against_counts([run])
    assert alone.startswith("Presence vectors alone, against the histogram: PublicTest -1.98 points")
    gap, low, high = (100 * x for x in separate_difference(2002, 3589, 2055, 3589))
    assert low < 0 < high
    assert f"PrivateTest {gap:+.2f} points ({low:+.2f} to {high:+.2f}; 55.78\u00a0% against 57.26\u00a0%)" in alone
    assert alone.endswith("On PublicTest and on PrivateTest the interval contains zero: no effect is established.")
    assert "below" not in alone and "abstract" not in alone, "the abstract's gain is of three parts together"
    assert "presence vectors, local learning and spatial information together: more than 5 points" in together
    assert "PrivateTest, +8.50 points (" in together and together.endswith(", which agrees.")


@pytest.mark.parametrize(
    ("correct", "effect", "gain"),
    [
        ((2000, 2200, 2300, 2400), "On PublicTest and on PrivateTest they are above the histogram.", "which agrees."),
        ((2000, 1800, 1900, 2010), "and on PrivateTest they are below the histogram.", "which does not agree."),
        ((2000, 2001, 2100, 2200), "no effect is established.", "and 5 lies in the interval."),
    ],
)
def test_the_steps_of_the_visual_words_are_read_with_their_intervals(correct, effect, gain):
    run = made_up()
    run.record["facts"]["ladder"] = ladder(*correct)
    alone, together = local_learning_bow.presence_against_counts([run])
    assert alone.endswith(effect) and together.endswith(gain)
    steps = run.record["facts"]["ladder"]
    steps[1] = steps[1] | {"PublicTest": steps[0]["PublicTest"]}
    alone = local_learning_bow.presence_against_counts([run])[0]
    assert "On PublicTest" in alone and "zero: no effect is established." in alone
    assert local_learning_bow.presence_against_counts([made_up()]) == []


def transformers(variant: str, dead: Sequence[float], alive: Sequence[float]) -> list[Result]:
    """Made-up runs of the accuracies ``dead`` and ``alive``, the windows of the first the same for every face."""
    runs = []
    for seed, accuracy in enumerate((*dead, *alive)):
        run = made_up(variant, seed=seed, right=0.5)
        run.record["facts"]["windows"] = {"deviation": [0.0 if seed < len(dead) else 0.1] * 6}
        run.record["scores"]["PrivateTest"]["plain"]["accuracy"] = accuracy
        runs.append(run)
    return runs


@pytest.mark.parametrize(
    ("dead", "alive", "words"),
    [
        (
            (0.49,),
            (0.46, 0.52, 0.51),
            "within the range of the runs where it did not, 46.00\u00a0% to 52.00\u00a0% (1 run ",
        ),
        ((0.53,), (0.46, 0.52), "higher than where it did not, 46.00"),
        ((0.45, 0.44), (0.46,), "lower than where it did not, 46.00\u00a0% (2 runs against 1)"),
        ((0.45, 0.48), (0.46, 0.47), "neither all lower nor all higher than where it did not, 46.00"),
    ],
)
def test_runs_whose_transformer_stopped_learning_are_compared_with_the_range_of_the_others(dead, alive, words):
    which, shown_by = deep_emotion.stopped_transformers(transformers("deep-emotion", dead, alive))
    assert which.startswith(f"In {len(dead)} of {len(dead) + len(alive)} runs") and words in shown_by
    assert "not lower there" not in shown_by


def test_a_run_that_answers_one_class_is_compared_with_no_other(stored):
    runs = [run for run in stored.runs if run.variant == "deep-emotion-input-stn" and run.seed < 2]
    assert [bool(run.one_class) for run in runs] == [False, True]
    which, left_out = deep_emotion.stopped_transformers(runs)
    assert which.startswith("In 1 of 2 runs") and which.endswith(": deep-emotion-input-stn seed 0.")
    assert (
        left_out == "deep-emotion-input-stn seed 1 answers happy for every image, so it is left out of the comparison."
    )
    assert deep_emotion.stopped_transformers([made_up()]) == []


def test_the_claims_beside_the_baseline():
    runs = [made_up("baseline", seed=seed, right=0.68) for seed in (0, 1)]
    ensemble, claims = comparison.claims_beside(runs)
    assert "The mean of the probabilities of 2 seeds gives" in ensemble
    numbers = [int(n) for n in re.findall(r"\d+", claims)]
    assert numbers[0] == sum(numbers[1:]) and comparison.claims_beside([]) == []


# ---- pages of more than one paper ------------------------------------------------------------------------------------


def test_the_leaderboards_findings_count_its_rows():
    board = leaderboard.leaderboard()
    words = str(shown(page.leaderboard_findings(board, baseline_band())))
    pinned = board[board["pinned"]]
    for name in pinned["verdict"].unique():
        assert f"{(pinned['verdict'] == name).sum()} {name}" in words
    for row in pinned[pinned["measured"].notna()].itertuples():
        assert f"{row.ModelName} is claimed at {percent(row.claimed)} and measured at {percent(row.measured)}" in words
    other = board.assign(verdict="reproduced", measured=board["claimed"], low=0.1, high=0.2)
    changed = str(shown(page.leaderboard_findings(other)))
    assert f"Of {len(pinned)} claims, {len(pinned)} reproduced" in changed and "plain baseline" not in changed
    every = other.assign(others_comparable=True, others_high=0.1)
    assert f"for all {len(pinned)} the claim lies above every" in str(shown(page.leaderboard_findings(every)))
    none = str(shown(page.leaderboard_findings(every.assign(others_high=1.0))))
    assert "for none of them the claim lies above every report." in none
    assert "as much as the measurement" in changed and "Not decided: 0 claims" in changed


def test_the_pair_of_the_chapter_on_pretraining(tmp_path):
    words = str(shown(PretrainingPage().findings()))
    assert "31.18 points more than the run from random weights" in words and "on every test set" in words
    assert "not both stored" in str(shown(PretrainingPage(str(tmp_path)).findings()))
