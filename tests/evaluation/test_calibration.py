"""Calibration against scikit-learn's curves, closed forms, and a temperature that is known."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import calibration_curve

from fer_repro.errors import FerReproError
from fer_repro.evaluation.calibration import (
    RANGE,
    at_the_limit,
    calibration,
    equal_mass_error,
    fit_temperature,
    log_loss,
    mass_bins,
    scaled,
)
from fer_repro.evaluation.metrics import evaluate


def sampled(n: int = 6000, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are too sharp by ``temperature``, and labels by the true ones."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=1.5, size=(n, 7))
    true = softmax(logits, axis=1)
    labels = (true.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return softmax(logits * temperature, axis=1), labels


def test_equal_mass_bins_are_scikit_learns_quantiles():
    rng = np.random.default_rng(1)
    confidence = rng.permutation(np.linspace(0.15, 0.99, 1500))  # no two alike
    hit = rng.random(1500) < confidence
    right, mean = calibration_curve(hit, confidence, n_bins=15, strategy="quantile")
    bins = mass_bins(confidence, hit)
    assert [one.n for one in bins] == [100] * 15
    assert [one.accuracy for one in bins] == pytest.approx(right) and [one.confidence for one in bins] == pytest.approx(
        mean
    )
    assert equal_mass_error(confidence, hit) == pytest.approx(np.abs(right - mean).mean())


def test_a_model_that_is_always_wrong_and_sure_has_the_largest_error():
    rows, labels = np.eye(7)[np.zeros(70, int)], np.ones(70, int)
    found = calibration(rows, labels)
    assert (found.equal_width, found.equal_mass, found.accuracy, found.confidence) == (1.0, 1.0, 0.0, 1.0)
    # Ten images more than bins, and fewer than bins.
    bins = mass_bins(np.linspace(0.2, 0.9, 25), np.ones(25, bool))
    assert [one.n for one in bins] == [2] * 10 + [1] * 5
    assert len(mass_bins(np.linspace(0.2, 0.9, 4), np.ones(4, bool))) == 4


@pytest.mark.parametrize("order", [np.arange(70), np.random.default_rng(3).permutation(70)])
def test_images_of_equal_confidence_share_a_bin_so_their_order_has_no_effect(order):
    """A model that answers one class with one confidence: its only gap is that between confidence and accuracy."""
    labels = np.repeat(np.arange(7), 10)[order]  # by class, as a folder of images gives them
    found = calibration(np.tile(np.r_[0.4, np.full(6, 0.1)], (70, 1)), labels)
    assert found.equal_mass == pytest.approx(found.equal_width) == pytest.approx(0.4 - 1 / 7)
    # By hand, three bins of two, the tie at 0.5 over the edge of the first two: {0.3, 0.5, 0.5}, {0.7}, {0.8, 0.9}.
    confidence, hit = np.array([0.3, 0.5, 0.5, 0.7, 0.8, 0.9]), np.array([1, 0, 1, 1, 0, 1], bool)
    for places in ([0, 1, 2, 3, 4, 5], [0, 2, 1, 3, 4, 5], [5, 2, 4, 0, 1, 3]):
        bins = mass_bins(confidence[places], hit[places], 3)
        assert [(one.n, one.correct) for one in bins] == [(3, 2), (1, 1), (2, 1)]
        by_hand = (3 * (2 / 3 - 1.3 / 3) + (1 - 0.7) + 2 * (0.85 - 0.5)) / 6
        assert equal_mass_error(confidence[places], hit[places], 3) == pytest.approx(by_hand)


def test_the_numbers_are_those_of_the_stored_metrics():
    rows, labels = sampled(500)
    found, stored = calibration(rows, labels), evaluate(rows, labels)
    assert found.equal_width == pytest.approx(stored["ece"]) and found.log_loss == pytest.approx(stored["log_loss"])
    assert found.accuracy == stored["accuracy"]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_temperature_that_made_them_too_sharp_is_found(temperature):
    rows, labels = sampled(temperature=temperature)
    found = fit_temperature(rows, labels)
    assert found == pytest.approx(temperature, rel=0.05) and not at_the_limit(found)
    again = scaled(rows, found)
    assert (again.argmax(axis=1) == rows.argmax(axis=1)).all() and again.sum(axis=1) == pytest.approx(
        np.ones(len(rows))
    )
    assert log_loss(again, labels) <= log_loss(rows, labels)
    # At the least loss its derivative is 0: the mean logit of the labels is the mean expected logit.
    logits = np.log(rows)
    gap = logits[np.arange(len(labels)), labels].mean() - (again * logits).sum(axis=1).mean()
    assert abs(gap) < 2e-3
    assert calibration(again, labels).equal_width < 0.03


def test_without_scaling_nothing_changes_and_hopeless_fits_are_marked():
    rows, labels = sampled(200)
    assert scaled(rows, 1.0) == pytest.approx(rows)
    sure = np.eye(7)[np.random.default_rng(0).integers(0, 7, 500)]
    assert at_the_limit(fit_temperature(sure, np.random.default_rng(1).integers(0, 7, 500))) and RANGE[0] < 1 < RANGE[1]
    assert at_the_limit(
        fit_temperature(np.eye(7)[labels] * 0.1 + 0.9 / 7, labels)
    )  # always right: the sharper the better


def test_other_shapes_are_refused():
    with pytest.raises(FerReproError, match="expected \\[N, 7\\] and \\[N\\]"):
        calibration(np.ones((3, 7)), np.zeros(2, int))
    with pytest.raises(FerReproError, match="N > 0"):
        fit_temperature(np.ones((0, 7)), np.zeros(0, int))
