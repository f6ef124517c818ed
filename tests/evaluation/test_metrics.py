"""Scores against scikit-learn, and by hand where it has none."""

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from fer_repro.data import LABELS
from fer_repro.errors import FerReproError
from fer_repro.evaluation.metrics import evaluate, expected_calibration_error
from fer_repro.evaluation.statistics import wilson

RNG = np.random.default_rng(0)


def predictions(n: int = 400, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    labels = RNG.choice(7, n, p=[0.14, 0.03, 0.14, 0.25, 0.17, 0.1, 0.17])
    logits = RNG.normal(0, 1, (n, 7)) + sharpness * np.eye(7)[labels]
    exp = np.exp(logits)
    return (exp / exp.sum(1, keepdims=True)).astype(np.float32), labels


def test_scores_are_scikit_learns():
    scores, labels = predictions()
    predicted = scores.argmax(1)
    ours = evaluate(scores, labels)
    assert ours["n"] == 400 and ours["correct"] == (predicted == labels).sum()
    assert ours["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    assert ours["interval"] == pytest.approx(wilson(ours["correct"], 400))
    assert ours["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert ours["macro_f1"] == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    exact = scores.astype(np.float64) / scores.astype(np.float64).sum(1, keepdims=True)
    assert ours["log_loss"] == pytest.approx(reference.log_loss(labels, exact))
    assert ours["top2"] == pytest.approx(reference.top_k_accuracy_score(labels, scores, k=2))
    assert np.array_equal(ours["confusion"], reference.confusion_matrix(labels, predicted))
    precision, recall, f1, support = reference.precision_recall_fscore_support(labels, predicted)
    for index, label in enumerate(LABELS):
        row = ours["per_class"][label]
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx(
            (precision[index], recall[index], f1[index])
        )
        assert row["n"] == support[index] and row["interval"] == pytest.approx(wilson(row["correct"], row["n"]))


def test_it_is_json_and_survives_float16():
    scores, labels = predictions(300, 6.0)
    ours = evaluate(scores, labels)
    assert json.loads(json.dumps(ours, allow_nan=False)) == ours
    stored = evaluate(scores.astype(np.float16), labels)
    assert stored["correct"] == pytest.approx(ours["correct"], abs=1)
    assert stored["log_loss"] == pytest.approx(ours["log_loss"], rel=1e-2)


def test_calibration_error_by_hand():
    # Bins of 1/15: two in (0.4, 0.4667] one right; two in (0.8667, 0.9333] both right; 1.0 in the last, wrong.
    confidence, hit = np.array([0.41, 0.46, 0.87, 0.93, 1.0]), np.array([True, False, True, True, False])
    expected = (abs(0.41 + 0.46 - 1) + abs(0.87 + 0.93 - 2) + abs(1.0 - 0)) / 5
    assert expected_calibration_error(confidence, hit) == pytest.approx(expected)
    assert expected_calibration_error(np.full(4, 0.75), np.array([True, True, True, False])) == pytest.approx(0.0)
    # An edge belongs to the bin below it.
    assert expected_calibration_error(np.array([0.2, 0.19]), np.array([True, False])) == pytest.approx(0.61 / 2)


def test_absent_classes_are_undefined_not_zero():
    scores = np.eye(7)[[3, 3, 4]] * 0.94 + 0.06 / 7
    ours = evaluate(scores, np.array([3, 3, 3]))
    assert ours["per_class"]["angry"] == {
        "n": 0,
        "correct": 0,
        "recall": None,
        "interval": None,
        "precision": None,
        "f1": None,
    }
    assert ours["per_class"]["sad"]["f1"] == 0.0 and ours["per_class"]["sad"]["recall"] is None
    assert ours["balanced_accuracy"] == pytest.approx(2 / 3)
    assert ours["macro_f1"] == pytest.approx(reference.f1_score([3, 3, 3], [3, 3, 4], average="macro"))


def test_ties_go_to_the_first_class():
    even = np.full((2, 7), 1 / 7)
    ours = evaluate(even, np.array([0, 2]))
    assert ours["correct"] == 1 and ours["top2"] == 0.5 and ours["confusion"][2][0] == 1


def test_a_zero_for_the_true_class_costs_much_but_not_infinity():
    scores = np.eye(7)[[0, 1]]
    assert evaluate(scores, np.array([0, 2]))["log_loss"] == pytest.approx(25 * np.log(2) / 2)


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        (np.full((3, 7), 1 / 7), np.array([0, 1]), r"predictions \[3, 7\] and labels \[2\] do not match"),
        (np.full((3, 6), 1 / 6), np.array([0, 1, 2]), "do not match"),
        (np.empty((0, 7)), np.empty(0, int), "N > 0"),
        (np.full((1, 7), 1 / 7), np.array([7]), "labels must be whole numbers from 0 to 6"),
        (np.full((1, 7), 1 / 7), np.array([0.5]), "labels must be whole numbers"),
        (np.full((1, 7), 0.5), np.array([0]), "must be probabilities"),
        (np.full((1, 7), np.nan), np.array([0]), "must be probabilities"),
    ],
)
def test_wrong_input(scores, labels, words):
    with pytest.raises(FerReproError, match=words):
        evaluate(scores, labels)
