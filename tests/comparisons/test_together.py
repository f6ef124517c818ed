"""Agreement, ensembles, the hardest images, calibration and the protocol, from results whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from made_comparisons import released_of, run_of, some

from fer_repro.comparisons import ensembles, protocols
from fer_repro.comparisons.calibrated import calibrated, mean_of
from fer_repro.comparisons.gather import compared
from fer_repro.evaluation import calibration
from fer_repro.evaluation.statistics import kappa


@pytest.fixture(scope="module")
def comparison():
    return compared(some())


def test_agreement_is_the_mean_kappa_of_all_pairs_of_runs(comparison):
    vggnet, baseline, *_ = comparison.entries
    table = ensembles.agreement(comparison.entries)
    assert np.array_equal(table, table.T, equal_nan=True)
    assert table[0, 1] == pytest.approx(np.mean([kappa(a, b) for a in vggnet.predicted for b in baseline.predicted]))
    assert table[1, 1] == pytest.approx(kappa(*baseline.predicted)) and np.isnan(table[2, 2])
    assert (table[~np.isnan(table)] < 1).all()


def test_the_oracle_is_right_where_one_is_and_the_others_follow_their_rules(comparison):
    entries = comparison.deciding
    single, majority, mean, oracle = ensembles.ensembles(entries)
    first = np.array([entry.hits[0] for entry in entries])
    assert single.name.endswith(": VGGNet") and single.difference is None
    assert single.accuracy == entries[0].accuracies[0]
    assert oracle.accuracy == pytest.approx(first.any(axis=0).mean()) and oracle.difference[0] > 0
    expected = np.mean([entry.probabilities[0] for entry in entries], axis=0).argmax(axis=1) == comparison.labels
    assert mean.accuracy == pytest.approx(expected.mean())
    # Where more than half of the models are right, so is the majority.
    certain = (first.sum(axis=0) > len(entries) / 2).mean()
    assert certain <= majority.accuracy <= oracle.accuracy


def test_a_tie_of_the_majority_goes_to_the_more_probable_class():
    two = compared([run_of("baseline", 0.6), run_of("deep-emotion", 0.55)]).deciding
    _, majority, mean, _ = ensembles.ensembles(two)
    assert majority.accuracy == pytest.approx(mean.accuracy, abs=1e-12)


def test_the_hardest_images_are_those_that_nobody_recognises(comparison):
    found = ensembles.hardest(comparison, 10)
    right = dict(zip(comparison.ids, ensembles.right_counts(comparison.deciding), strict=True))
    assert [one.right for one in found] == sorted(right.values())[:10] and found[0].right == 0
    assert all(right[one.id] == one.right and one.said != one.label and one.times > 0 for one in found)


def test_recall_of_a_class_and_the_hardest_one(comparison):
    entry = comparison.entries[1]
    own = ensembles.recalls(entry)
    assert own[3] == pytest.approx(np.mean([run.score()["per_class"]["happy"]["recall"] for run in entry.runs]))
    label, times = ensembles.hardest_class(comparison.deciding)
    assert 1 <= times <= 6 and label in ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def test_a_temperature_is_fitted_on_publictest_and_never_sees_privatetest(comparison):
    models = calibrated(comparison.entries)
    run = comparison.entries[1].runs[1]
    rows, labels = run.predictions["PublicTest_plain"].astype(np.float32), run.predictions["PublicTest_labels"]
    assert models[1].temperatures[1] == calibration.fit_temperature(rows, labels)
    assert mean_of(models[1].before, "accuracy") == pytest.approx(mean_of(models[1].after, "accuracy"))
    changed = some()
    for one in changed:  # other labels and predictions of PrivateTest: the same temperatures
        one.predictions["PrivateTest_labels"] = one.predictions["PrivateTest_labels"][::-1].copy()
    again = {one.entry.name: one.temperatures for one in calibrated(compared(changed).entries)}
    assert again == {one.entry.name: one.temperatures for one in models}


def test_what_was_trained_on_publictest_gets_no_temperature_and_is_not_the_best_by_it():
    seen = released_of("deep-emotion", 0.7, trained_on="Training + PublicTest")
    found = compared([seen, run_of("baseline", 0.6)]).entries
    fitted = {one.entry.kind: bool(one.after) for one in calibrated(found)}
    assert fitted == {"released": False, "full": True}
    assert ensembles.best_by_selecting(found).kind == "full"
    assert ensembles.best_by_selecting([one for one in found if one.kind == "released"]).kind == "released"


def test_both_test_sets_of_a_model(comparison):
    found = {one.entry.name: one for one in protocols.both_sets(comparison)}
    assert len(found) == len(comparison.entries)
    vggnet = found["VGGNet"]
    values = [run.score("PublicTest")["accuracy"] for run in vggnet.entry.runs]
    assert vggnet.public[0] == pytest.approx(np.mean(values)) and vggnet.private == (
        vggnet.entry.accuracy,
        vggnet.entry.interval,
    )
    gap, low, high = vggnet.gap
    assert gap == pytest.approx(vggnet.public[0] - vggnet.private[0]) and low < gap < high


def test_the_three_epochs_of_a_run(comparison):
    runs = protocols.by_epoch(comparison)
    runs_with_epochs = (("plain baseline", 0), ("plain baseline", 1), ("DeepEmotion", 0))
    assert [one.name for one in runs] == [f"{name}, seed\u00a0{seed}" for name, seed in runs_with_epochs]
    for one in runs:
        last, public, oracle = one.choices
        assert last.epoch == one.numbers[-1] and public.epoch == one.numbers[one.public.argmax()]
        assert oracle.private == one.private.max() >= public.private and public.against[:3] == (0.0, 0.0, 0.0)
        assert oracle.against[0] == pytest.approx(oracle.private - public.private)
        labels = one.run.predictions["PrivateTest_labels"]
        assert last.private == pytest.approx((one.run.epochs["PrivateTest"][-1] == labels).mean())
        assert "oracle" in oracle.rule
    gains = protocols.oracle_gains(runs)
    assert len(gains) == 2 and gains[0] == pytest.approx(np.mean([one.choices[2].against[0] for one in runs[:2]]))


def test_a_run_that_lacks_epochs_is_left_out_and_equal_ones_go_to_the_first(comparison):
    run = run_of("baseline", 0.6, epochs=6)
    run.epochs = {name: rows[[1, 3, 4, 4]] for name, rows in run.epochs.items()}
    run.epochs["epoch"] = np.array([2, 4, 5, 6])
    assert protocols.by_epoch(compared([run])) == []  # the best of those that are left may not be the best
    run.history = run.history.iloc[[1, 3, 4, 5]]
    (one,) = protocols.by_epoch(compared([run]))
    assert one.choices[0].epoch == 6 and one.choices[2].epoch in (4, 5) and one.choices[1].epoch in (2, 4, 5)
    assert protocols.by_epoch(compared([run_of("baseline", 0.6)])) == []


def test_test_time_augmentation_on_the_same_images(comparison):
    found = protocols.augmented(comparison)
    assert [(one.run.seed, one.usage) for one in found] == [
        (s, u) for s in range(3) for u in ("PublicTest", "PrivateTest")
    ]
    for one in found:
        assert one.plain == one.run.score(one.usage, views=False)["accuracy"]
        assert one.gain[0] == pytest.approx(one.augmented - one.plain)


def test_both_protocols_of_a_variant(comparison):
    (one,) = protocols.both_protocols(comparison)
    assert (one.official.name, one.claimed.name) == ("VGGNet", "VGGNet (as claimed)") and one.usage == one.claimed.runs[
        0
    ].scored
    assert one.difference[0] == pytest.approx(one.accuracies[1] - one.accuracies[0])
    assert one.accuracies[1] == one.claimed.runs[0].headline["accuracy"]
