"""The verdict rule of chapters/protocol.md on constructed runs, and the table of 17 rows."""

from __future__ import annotations

import json
import math
import re
import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_results import made_record
from scipy import stats

from fer_repro import leaderboard as board
from fer_repro import results
from fer_repro.claims import claim_of, declared_parameters, leaderboard_claims
from fer_repro.claims.others import COMPARABLE, COMPARISONS
from fer_repro.errors import FerReproError
from fer_repro.evaluation.statistics import wilson
from fer_repro.recipe import Views

HALF = 3589
PROTOCOL_PAGE = Path(__file__).parents[1] / "chapters" / "protocol.md"
TEN_CROP = {"kind": "ten-crop", "size": 40, "average": "logits"}


def score(correct, n=HALF):
    return {"n": n, "correct": correct, "accuracy": correct / n}


def run(
    variant="local-learning-bow",
    correct=2422,
    *,
    public=2300,
    seed=0,
    protocol="official",
    profile="full",
    status="done",
    data="fer2013",
    data_digest="d" * 64,
    recipe="r" * 64,
    n=HALF,
    viewed=None,
):
    """A stand-in for a stored run: ``correct`` of ``n`` PrivateTest images right; ``viewed``: so many with views."""
    scores = {"PublicTest": {"plain": score(public)}, "PrivateTest": {"plain": score(correct, n)}}
    if viewed is not None:
        scores["PublicTest"]["views"], scores["PrivateTest"]["views"] = score(public), score(viewed)
    record = {
        "variant": variant,
        "protocol": protocol,
        "profile": profile,
        "seed": seed,
        "status": status,
        "recipe": {"views": TEN_CROP},
        "recipe_sha256": recipe,
        "usages": {"test": ["PrivateTest"]},
        "scores": scores,
        "data": {"name": data, "source": "", "digest": data_digest},
        "parameters": None,
        "ended": "2026-11-20T10:00:00",
    }
    return results.Result(record, {}, pd.DataFrame())


def judge(*runs, variant="local-learning-bow", protocol="official"):
    return board.verdict(claim_of(variant), runs, protocol)


# ---- the interval ----------------------------------------------------------------------------------------------------


def test_with_one_seed_the_interval_is_wilsons():
    assert board.mean_interval([2422 / HALF], HALF) == pytest.approx(wilson(2422, HALF), abs=1e-12)


def test_seeds_widen_it_in_quadrature():
    values = [0.66, 0.67, 0.69]
    mean = statistics.fmean(values)
    plain = stats.binomtest(round(mean * 300_000), 300_000).proportion_ci(method="wilson")
    half = stats.sem(values) * stats.t.ppf(0.975, 2)
    low, high = board.mean_interval(values, 300_000)
    assert low == pytest.approx(mean - math.hypot(mean - plain.low, half), abs=1e-7)
    assert high == pytest.approx(mean + math.hypot(plain.high - mean, half), abs=1e-7)


def test_equal_seeds_add_nothing_and_the_ends_stay_inside_0_and_1():
    assert board.mean_interval([0.7, 0.7], HALF) == pytest.approx(board.mean_interval([0.7], HALF))
    assert board.mean_interval([0.02, 0.98], 10) == (0.0, 1.0)


# ---- the rule --------------------------------------------------------------------------------------------------------


def test_a_claim_inside_is_reproduced():
    found = judge(run(correct=2400))
    assert (found.name, found.n_seeds, found.seeds, found.views) == ("reproduced", 1, (0,), "no test-time augmentation")
    assert found.measured == 2400 / HALF and found.interval == pytest.approx(wilson(2400, HALF))
    assert "66.87 % on PrivateTest" in found.reason and "67.48 % lies inside" in found.reason
    assert "one seed, so the spread between runs is not in it" in found.reason


@pytest.mark.parametrize(("shift", "name"), [(-1, "below"), (0, "reproduced")])
def test_the_border_below(shift, name):
    """The largest count whose interval ends under the claim, and its neighbour."""
    border = next(k for k in range(HALF) if wilson(k, HALF)[1] >= 0.6748)
    assert judge(run(correct=border + shift)).name == name


@pytest.mark.parametrize(("shift", "name"), [(0, "above"), (-1, "reproduced")])
def test_the_border_above(shift, name):
    border = next(k for k in range(HALF) if wilson(k, HALF)[0] > 0.6748)
    assert judge(run(correct=border + shift)).name == name


def test_below_and_above_name_the_gap():
    assert "67.48 % lies 3.40 points above the mean" in judge(run(correct=2300)).reason
    assert "67.48 % lies 2.18 points below the mean" in judge(run(correct=2500)).reason


def test_a_wide_spread_of_seeds_can_turn_below_into_reproduced():
    assert judge(run(correct=2300)).name == "below"
    found = judge(run(correct=2250, seed=0), run(correct=2350, seed=1))
    assert found.name == "reproduced" and found.measured == pytest.approx(2300 / HALF)
    assert found.spread == pytest.approx(statistics.stdev([2250 / HALF, 2350 / HALF]))
    assert "mean of 2 seeds" in found.reason


def test_no_result_is_not_run():
    found = judge()
    assert (found.name, found.measured, found.interval, found.n_seeds) == ("not run", None, None, 0)
    assert found.reason == "No finished full run on FER2013 under the official protocol is stored."


@pytest.mark.parametrize(
    "other", [{"profile": "smoke"}, {"status": "diverged"}, {"status": "interrupted"}, {"data": "synthetic"}]
)
def test_what_does_not_count_is_told_and_not_counted(other):
    found = judge(run(**other))
    assert found.name == "not run" and "does not count (seed 0:" in found.reason
    assert judge(run(correct=2400), run(correct=10, seed=1, **other)).seeds == (0,)


def test_a_run_that_its_own_recipe_stopped_early_counts():
    assert judge(run(status="stopped early")).seeds == (0,)


def test_runs_of_other_variants_and_protocols_are_passed_over():
    assert judge(run("vggnet"), run(protocol="claimed")).name == "not run"


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"recipe": "q" * 64}, "2 different recipe digests"),
        ({"data_digest": "e" * 64}, "2 different data digests"),
        ({"seed": 0}, "a seed occurs twice"),
        ({"n": 3500}, "scored on 3500 images, expected all 3589"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(second, words):
    with pytest.raises(FerReproError, match=words) as caught:
        judge(run(), run(**{"seed": 1} | second))
    assert "local-learning-bow" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("variant", "letter"), [("efficientfer", "C"), ("resemotenet", "D")])
def test_class_c_and_d_are_not_comparable_but_show_the_measurement(variant, letter):
    assert judge(variant=variant).name == "not run"
    for correct in (100, 2860, 3588):
        found = judge(run(variant, correct), variant=variant)
        assert found.name == "not comparable" and found.measured == correct / HALF and found.interval
        assert f"is of class {letter}" in found.reason and f"{100 * correct / HALF:.2f} %" in found.reason


def test_the_papers_views_are_scored_where_there_are_any():
    found = judge(run("vggnet", 10, viewed=2630), variant="vggnet")
    assert found.measured == 2630 / HALF and found.views == str(Views(**TEN_CROP))


def test_class_b_says_what_was_different_and_gets_a_verdict_on_its_own_half():
    official = judge(run("vggnet", 2500), variant="vggnet")
    assert (official.name, official.usages) == ("below", ("PrivateTest",))
    for words in ("class B", "scored on PublicTest", "selected on PrivateTest", "trained on Training and PrivateTest"):
        assert words in official.reason
    claimed = judge(run("vggnet", 3500, public=2620, protocol="claimed"), variant="vggnet", protocol="claimed")
    assert (claimed.name, claimed.usages, claimed.measured) == ("reproduced", ("PublicTest",), 2620 / HALF)
    assert "class B" not in claimed.reason and "on PublicTest under the claimed protocol" in claimed.reason


def test_a_claim_on_both_halves_is_measured_on_both():
    found = judge(run("ad-corre", 2600, public=2500, protocol="claimed"), variant="ad-corre", protocol="claimed")
    assert found.measured == 5100 / (2 * HALF) and found.interval == pytest.approx(wilson(5100, 2 * HALF))
    assert found.name == "not comparable" and "PublicTest and PrivateTest" in found.reason


def test_the_verdict_on_both_halves_is_the_headline_of_the_run(empty):
    halves = ("PublicTest", "PrivateTest")
    stored_run(empty, "ad-corre", {"PublicTest": 2400, "PrivateTest": 2700}, protocol="claimed", test=halves)
    (found,) = results.read_all(empty)
    judged = board.verdict(claim_of("ad-corre"), [found], "claimed")
    assert found.headline["n"] == 2 * HALF and judged.measured == found.headline["accuracy"] == 5100 / (2 * HALF)
    assert judged.interval == pytest.approx(found.headline["interval"]) and judged.usages == halves
    table = board.leaderboard(empty).set_index("variant")
    assert table.loc["ad-corre", "as_claimed_measured"] == 5100 / (2 * HALF)


# ---- the table -------------------------------------------------------------------------------------------------------


@pytest.fixture
def empty(tmp_path):
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def stored_run(root, variant, correct, seed=0, protocol="official", test=("PrivateTest",), done=None):
    """Write a complete result with exactly ``correct`` images right on both test sets (or so many on each by name);
    ``done``: of a run that was stopped after so many epochs."""
    labels = np.resize(np.arange(7), HALF).astype(np.int64)
    predictions = {}
    for half in results.HALVES:
        right = correct[half] if isinstance(correct, dict) else correct
        guess = np.where(np.arange(HALF) < right, labels, (labels + 1) % 7)
        rows = np.full((HALF, 7), 0.02, np.float16)
        rows[np.arange(HALF), guess] = 0.88
        predictions |= {f"{half}_ids": np.arange(HALF).astype(str), f"{half}_labels": labels, f"{half}_plain": rows}
    usages = {"train": ["Training"], "select": [], "finetune": ["Training"], "test": list(test)}
    times = {"started": "2026-11-20T09:00:00", "ended": f"2026-11-2{seed}T10:00:00"}
    record = made_record(predictions, variant, protocol=protocol, seed=seed, usages=usages, **times)
    history = pd.DataFrame()
    if done is not None:
        epochs = sum(stage["epochs"] for stage in record["recipe"]["stages"])
        stopped = {"epochs_done": done, "epochs": epochs}
        record |= {"kind": "unfinished", "status": "interrupted", "selected_epoch": 1, "unfinished": stopped}
        history = pd.DataFrame({"epoch": range(1, done + 1), "loss": 1.5, "stage": "train"})
    results.write(results.Result(record, predictions, history), root)


def test_an_empty_table_has_all_claims_and_no_measurement(empty):
    table = board.leaderboard(empty)
    assert list(table["variant"]) == list(leaderboard_claims())
    assert list(table.columns[:5]) == ["Paper", "Code", "Accuracy", "ModelName", "ReleaseDate"]
    assert set(table["verdict"]) == {"not run"} and table["measured"].isna().all() and (table["seeds"] == 0).all()
    assert table["as_claimed_verdict"].isna().all()
    vggnet = table.set_index("variant").loc["vggnet"]
    assert (vggnet["Accuracy"], vggnet["claimed"], vggnet["parameters"]) == (73.28, 0.7328, 29_890_759)


def test_stored_results_fill_their_row_only(empty):
    for seed, correct in enumerate((2400, 2410, 2420)):
        stored_run(empty, "local-learning-bow", correct, seed)
    stored_run(empty, "vggnet", 2625, protocol="claimed")
    table = board.leaderboard(str(empty)).set_index("variant")
    bow = table.loc["local-learning-bow"]
    assert (bow["verdict"], bow["seeds"], bow["run_date"]) == ("reproduced", 3, "2026-11-22")
    assert bow["measured"] == pytest.approx(2410 / HALF) and bow["low"] < bow["measured"] < bow["high"]
    assert bow["parameters"] == 12345, "counted by the run, where there is one"
    assert (table.loc["vggnet"]["verdict"], table.loc["vggnet"]["as_claimed_verdict"]) == ("not run", "reproduced")
    assert (table.drop(index="local-learning-bow")["verdict"] == "not run").all()


def test_extra_data_and_test_time_augmentation_are_answers(empty):
    table = board.leaderboard(empty).set_index("variant")
    yes, no = (set(table.index[table["extra_data"] == answer]) for answer in ("yes", "no"))
    assert {"efficientfer", "sdafe"} <= yes and {"vggnet", "emonext", "residual-masking-ensemble"} <= no
    assert table.loc["ad-corre", "extra_data"] == "unknown", "none known is no answer"
    yes, no = (set(table.index[table["test_time_augmentation"] == answer]) for answer in ("yes", "no"))
    assert {"vggnet", "emonext"} <= yes and {"efficientfer", "local-learning-bow"} <= no
    assert table.loc["cnn-hyperparameters", "test_time_augmentation"] == "unknown"
    for name in ("extra_data", "test_time_augmentation"):
        assert set(table[name]) == {"yes", "no", "unknown"}


def test_a_code_link_that_is_not_the_authors_own_has_a_remark(empty):
    table = board.leaderboard(empty).set_index("variant")
    marked = table["code_remark"].dropna().to_dict()
    assert marked["local-learning-bow"] == "wrong link", "the leaderboard links another method"
    assert marked["deep-emotion"] == marked["cnn-hyperparameters"] == "not the authors’"
    for variant, claim in leaderboard_claims().items():
        own = claim.row.code is None or (claim.code.official is True and claim.code.url == claim.row.code)
        assert (variant not in marked) == own
        assert table.loc[variant, "code_note"] == (None if own else claim.code.note)


def test_an_ablation_stored_beside_them_changes_nothing(empty):
    stored_run(empty, "deep-emotion-no-stn", 2000)
    assert set(board.leaderboard(empty)["verdict"]) == {"not run"}


def test_a_results_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FerReproError, match="nowhere' does not exist"):
        board.leaderboard(tmp_path / "nowhere")


def test_a_result_of_another_schema_is_an_error(empty):
    stored_run(empty, "vggnet", 2600)
    path = empty / "vggnet/official/seed-0/result.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 0'))
    with pytest.raises(FerReproError, match="schema version 0"):
        board.leaderboard(empty)


def test_the_record_line_only_rises_and_counts_a_day_once(empty):
    table = board.leaderboard(empty)
    line = board.record_line(table)
    assert line["Accuracy"].is_monotonic_increasing and line["ReleaseDate"].is_monotonic_increasing
    assert line["variant"].iloc[0] == "local-learning-bow" and line["Accuracy"].iloc[-1] == table["Accuracy"].max()
    assert "residual-masking" not in set(line["variant"]), "its ensemble came out the same day with more"
    for row in line.itertuples():
        assert (table.loc[table["ReleaseDate"] < row.ReleaseDate, "Accuracy"] < row.Accuracy).all()


def test_the_clean_subset_is_class_a(empty):
    clean = board.clean_subset(board.leaderboard(empty))
    assert set(clean["comparability"]) == {"A"}
    assert set(clean["variant"]) == {v for v, c in leaderboard_claims().items() if c.audit.comparability == "A"}


def test_the_audit_is_one_json_document(empty):
    stored_run(empty, "vggnet", 2600)
    document = json.loads(json.dumps(board.audit_json(empty)))
    assert document["leaderboard"]["commit"] and len(document["rows"]) == len(leaderboard_claims())
    vggnet = next(row for row in document["rows"] if row["variant"] == "vggnet")
    assert vggnet["audit"]["comparability"] == "B" and vggnet["verdicts"]["official"]["measured"] == 2600 / HALF
    assert vggnet["verdicts"]["claimed"]["name"] == "not run" and vggnet["parameters"] == 29_890_759
    assert vggnet["evidence"] == {"kind": "full", "text": "full run, 1 seed"} and vggnet["unfinished"] == []
    assert vggnet["others_range"] == {"low": 0.7152, "high": 0.7239, "n": 2, "comparable": True}
    assert {one["comparison"] for one in vggnet["others"]} <= set(document["comparisons"])


def test_the_audit_shows_unfinished_runs_and_names_damaged_ones(empty):
    stored_run(empty, "resemotenet", 2000, done=2)
    stored_run(empty, "vggnet", 2000, done=2)
    (empty / "vggnet/official/unfinished/seed-0/history.csv").write_text("epoch\n")
    document = board.audit_json(empty)
    rows = {row["variant"]: row for row in document["rows"]}
    (stopped,) = rows["resemotenet"]["unfinished"]
    assert (stopped["epochs_done"], stopped["epochs"], stopped["variant"]) == (2, 80, "resemotenet")
    assert stopped["scores"]["PrivateTest"]["plain"]["correct"] == 2000
    assert rows["vggnet"]["unfinished"] == [] and rows["vggnet"]["verdicts"]["official"]["name"] == "not run"
    assert len(document["problems"]) == 1 and "vggnet/official/unfinished/seed-0" in document["problems"][0]


# ---- the evidence beside a verdict -----------------------------------------------------------------------------------


def evidence(root, variant):
    return board.leaderboard(root).set_index("variant").loc[variant]


def test_without_results_the_evidence_is_what_others_report(empty):
    table = board.leaderboard(empty).set_index("variant")
    assert set(table["evidence"]) == {"others", "none"} and table["evidence_text"].str.len().min() > 10
    row = table.loc["resemotenet"]
    assert (row["others_low"], row["others_high"], row["others_n"]) == (0.58, 0.66, 6) and row["others_comparable"]
    assert row["evidence_text"] == "others: 58 to 66\u00a0% (6 reports)"
    assert table.loc["resnet18-tricks", "evidence_text"] == "others: 72.2\u00a0% (1 report, not comparable)"
    nobody = table.loc["ad-corre"]
    assert (nobody["evidence"], nobody["others_n"]) == ("none", 0) and pd.isna(nobody["others_low"])
    assert nobody["evidence_text"] == "no measurement known"


def test_each_kind_of_evidence_gives_way_to_a_better_one(empty):
    """Ablation, then our unfinished run, then the full one; the verdict waits for the last."""
    stored_run(empty, "mini-resemotenet-b-alone", 2100)
    row = evidence(empty, "mini-resemotenet-b")
    assert (row["evidence"], row["ablation_variant"], row["ablation"]) == (
        "ablation",
        "mini-resemotenet-b-alone",
        2100 / HALF,
    )
    assert row["evidence_text"] == "ablation mini-resemotenet-b-alone: 58.51\u00a0%"
    stored_run(empty, "mini-resemotenet-b", 2000, done=3)
    row = evidence(empty, "mini-resemotenet-b")
    assert (row["evidence"], row["unfinished_epoch"], row["unfinished_epochs"]) == ("unfinished", 3, 80)
    assert row["evidence_text"] == "unfinished: epoch 3 of 80, 55.73\u00a0%" and row["verdict"] == "not run"
    assert (row["unfinished_low"], row["unfinished_high"]) == pytest.approx(wilson(2000, HALF)) and row["ablation"] > 0
    stored_run(empty, "mini-resemotenet-b", 2200)
    row = evidence(empty, "mini-resemotenet-b")
    assert (row["evidence"], row["evidence_text"]) == ("full", "full run, 1 seed")


def test_publictest_decides_which_ablation_is_the_best(empty):
    stored_run(empty, "deep-emotion-no-stn", {"PublicTest": 1900, "PrivateTest": 1700})
    stored_run(empty, "deep-emotion-input-stn", {"PublicTest": 1800, "PrivateTest": 2000})
    assert evidence(empty, "deep-emotion")["ablation_variant"] == "deep-emotion-no-stn"


def test_an_unfinished_ablation_counts_where_no_full_one_is_stored(empty):
    stored_run(empty, "deep-emotion-no-stn", 1900, done=2)
    row = evidence(empty, "deep-emotion")
    assert re.fullmatch(r"ablation deep-emotion-no-stn, unfinished: epoch 2 of \d+: 52.94\u00a0%", row["evidence_text"])
    stored_run(empty, "deep-emotion-input-stn", 1500)
    assert evidence(empty, "deep-emotion")["ablation_variant"] == "deep-emotion-input-stn"


def test_of_several_unfinished_seeds_the_furthest_is_shown(empty):
    for seed, done in enumerate((2, 5, 4)):
        stored_run(empty, "resemotenet", 2000 + seed, seed, done=done)
    row = evidence(empty, "resemotenet")
    assert (row["unfinished_epoch"], row["unfinished"]) == (5, 2001 / HALF)


def test_a_run_as_claimed_is_evidence_and_says_where_it_was_scored(empty):
    stored_run(empty, "vggnet", 2600, protocol="claimed")
    row = evidence(empty, "vggnet")
    assert (row["evidence"], row["verdict"]) == ("full", "not run")
    assert row["evidence_text"] == f"full run as claimed, 1 seed: {260000 / HALF:.2f}\u00a0% on PublicTest"


def test_the_baseline_is_a_band_of_its_full_runs_or_of_an_unfinished_one(empty, monkeypatch):
    monkeypatch.setattr(board.evidence, "BASELINE", "vggnet")
    assert board.baseline_band(empty) is None
    stored_run(empty, "vggnet", 2400, done=4)
    band = board.baseline_band(empty)
    assert band.state.startswith("unfinished: epoch 4 of") and (band.low, band.high) == pytest.approx(
        wilson(2400, HALF)
    )
    for seed in range(3):
        stored_run(empty, "vggnet", 2500 + 10 * seed, seed)
    band = board.baseline_band(empty)
    assert (band.measured, band.seeds, band.state) == (pytest.approx(2510 / HALF), (0, 1, 2), "")
    assert band.low < wilson(2510, HALF)[0], "the seeds' spread is in it"
    assert str(band).startswith("plain baseline 69.94") and str(band).endswith("3 seeds)")


def test_lookups():
    assert claim_of("vggnet").accuracy == 73.28
    assert declared_parameters("resnet18-tricks") == 11_171_271 and declared_parameters("no-such-ablation") is None
    with pytest.raises(FerReproError, match="'vgnet' is no row of the leaderboard: did you mean vggnet"):
        claim_of("vgnet")


# ---- the protocol page says what the code does -----------------------------------------------------------------------


def test_the_page_lists_every_row_under_its_class():
    told = {}
    for letter, rows in re.findall(r"^\| ([ABCD]) \|.*\| ([^|]+) \|$", PROTOCOL_PAGE.read_text(encoding="utf-8"), re.M):
        told |= dict.fromkeys(rows.split("; "), letter)
    claims = leaderboard_claims().values()
    assert told == {c.model: c.audit.comparability for c in claims if c.pinned or c.model in told}


def test_the_pages_figures_follow_from_the_formulas():
    text = PROTOCOL_PAGE.read_text(encoding="utf-8")
    low, high = wilson(round(0.73 * HALF), HALF)
    assert f"about {100 * (high - low) / 2:.2f} points to either side" in text
    assert f"factor $t$ is {stats.t.ppf(0.975, 1):.1f}" in text
    gap = 100 * stats.norm.ppf(0.975) * math.sqrt(2 * 0.74 * 0.26 / HALF)
    assert round(gap) == 2 and "about two points" in re.sub(r"\s+", " ", text)
    for name in board.VERDICTS:
        assert f"**{name}**" in text
    assert 700 <= len(text.split()) <= 1300


def test_the_page_states_what_is_comparable_as_the_claims_do_and_no_difficulty_of_a_test_set():
    words = " ".join(PROTOCOL_PAGE.read_text(encoding="utf-8").split())
    assert (
        "where the claim names none, on PrivateTest or on images that the report does not name"
        in (COMPARISONS[COMPARABLE])
    )
    assert "the claim's test set; where the claim names none, PrivateTest or images not named)" in words
    assert "differ in difficulty" not in words, "no comparison of runs here finds one"
