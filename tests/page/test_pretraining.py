"""The chapter on pretraining: what is stored, what is not, and the difference computed from the predictions."""

import dataclasses

import numpy as np
import pytest

from fer_repro import papers, results
from fer_repro.errors import FerReproError
from fer_repro.markup import text
from fer_repro.page.pretraining import PAIR, PretrainingPage
from fer_repro.papers.efficientfer import lite0
from fer_repro.reproduce import reproduce


@pytest.fixture(scope="module")
def runs():
    return {name: reproduce(name, device="cpu") for name in PAIR}


def page_of(monkeypatch, found) -> PretrainingPage:
    monkeypatch.setattr(results, "find", lambda variant, protocol, seed, where: found.get(variant))
    return PretrainingPage()


def test_the_pair_differs_in_its_start_and_nothing_else():
    first, second = (papers.get(name).recipe("official", "full").as_dict() for name in PAIR)
    assert first.pop("pretrained")["name"] == lite0.WEIGHTS.name
    for part in ("variant", "deviations"):
        first.pop(part), second.pop(part)
    assert first == second


def test_nothing_stored_is_not_run(tmp_path):
    page = PretrainingPage(str(tmp_path))
    assert "not run" in repr(page.pair()) and "fer-repro run" in page.pair().body and "Not run" in page.curves().body


def test_one_run_of_the_pair_shows_no_difference(monkeypatch, runs):
    body = page_of(monkeypatch, {PAIR[0]: runs[PAIR[0]]}).pair().body
    assert "not run" in body and "no difference to show" in body and "McNemar" not in body


def test_the_difference_is_that_of_the_stored_predictions(monkeypatch, runs):
    page = page_of(monkeypatch, runs)
    right = results.paired_hits(*(runs[name] for name in PAIR))
    gain = 100 * (right[0].mean() - right[1].mean())
    assert f"<strong>{gain:.2f}</strong> points" in page.pair().body
    for name in PAIR:
        assert f"{100 * runs[name].score('PublicTest', views=False)['accuracy']:.2f}" in page.pair().body
        assert np.isclose(right[PAIR.index(name)].mean(), runs[name].score("PrivateTest", views=False)["accuracy"])
    assert "after the best epoch" in page.curves().alt


def test_the_caption_says_why_curve_and_table_differ(monkeypatch, runs):
    page = page_of(monkeypatch, runs)
    assert ("float16" in page.curves().caption) == any(
        not np.isclose(run.score("PublicTest", views=False)["accuracy"], run.history["select_accuracy"].max())
        for run in runs.values()
    )
    name = PAIR[0]
    history = runs[name].history.assign(select_accuracy=lambda rows: rows["select_accuracy"] + 0.01)
    moved = dataclasses.replace(runs[name], history=history)
    assert "float16" in page_of(monkeypatch, {name: moved}).curves().caption


def test_every_recipe_with_weights_is_in_the_table():
    body = PretrainingPage().weights().body
    used = {v.recipe(p, "full").pretrained for v in papers.variants().values() for p in papers.PROTOCOLS} - {None}
    assert "claimed protocol only: fernext-proxy" in body
    assert used and all(text(weights.file) in body and text(weights.licence) in body for weights in used)


@pytest.mark.parametrize(
    ("words", "said"),
    [({"results_dir": "nowhere"}, "no folder of results"), ({"seed": -1}, "is -1"), ({"seed": True}, "is True")],
)
def test_wrong_parameters_are_one_sentence(words, said):
    with pytest.raises(FerReproError, match=said):
        PretrainingPage(**words)
