"""The chapter that compares: every section from stored results alone, with none, one, two, some and forty of them."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from made_comparisons import forty, package_of, run_of, some, unfinished_of

from fer_repro import results
from fer_repro.claims import leaderboard_claims
from fer_repro.comparisons.gather import compared
from fer_repro.comparisons.pairs import SeedPairs
from fer_repro.comparisons.protocols import Choice
from fer_repro.data.dataset import FER2013
from fer_repro.errors import FerReproError
from fer_repro.page import comparisons
from fer_repro.page.comparisons import ComparisonsPage, accuracy, cost, protocol, together
from fer_repro.page.comparisons.words import count, in_lines, listed, p_value, points
from fer_repro.plots.figure import Figure
from fer_repro.plots.panels import Cloud, clouds

SECTIONS = (
    *("findings", "forest", "overview", "pair_picture", "pairs", "ranks", "test_sets", "epochs", "epoch_curves"),
    *("augmentation", "claimed", "agreement", "ensembles", "calibration", "reliability", "recalls", "hardest", "cost"),
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Every picture is laid out once and not encoded; few draws; no data at hand."""

    def drawn(figure: Figure) -> str:
        assert figure.canvas("dark").axes
        return "<div></div>"

    monkeypatch.setattr(Figure, "images", drawn)
    monkeypatch.setattr(comparisons, "DRAWS", 300)
    monkeypatch.delenv("FER2013_ROOT", raising=False)


def page_of(monkeypatch, found) -> ComparisonsPage:
    monkeypatch.setattr(comparisons, "gather", lambda where: compared(found))
    return ComparisonsPage()


def everything(page: ComparisonsPage) -> dict[str, str]:
    """Section -> its markup."""
    return {name: getattr(page, name)()._repr_html_().split("</style>")[1] for name in SECTIONS}


@pytest.fixture
def page(monkeypatch) -> ComparisonsPage:
    return page_of(monkeypatch, some())


def test_every_section_stands_with_results_of_every_kind(page):
    shown = everything(page)
    assert not [name for name, body in shown.items() if "fer-note" in body]
    assert all("nan" not in re.sub(r"<[^>]*>", "", body).lower().split() for body in shown.values())
    for name in ("overview", "pairs", "epochs", "augmentation", "claimed", "ensembles", "calibration"):
        assert "<caption>" in shown[name], name
    assert all(f"{entry.name}" in shown["overview"] for entry in page.comparison.entries)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (lambda: [], "Nothing to show"),
        (lambda: [run_of("baseline", 0.6)], "Nothing to compare"),
        (lambda: [unfinished_of("baseline", 0.6), package_of("facemood", 0.9, 0.88)], "Nothing to compare"),
        (lambda: [run_of("baseline", 0.6), run_of("deep-emotion", 0.5)], "Not stored"),
        (forty, "Not run"),
    ],
    ids=["none", "one", "none that decides", "two", "forty"],
)
def test_it_is_right_with_few_results_and_with_many(monkeypatch, found, said):
    made = found()
    page = page_of(monkeypatch, made)
    shown = everything(page)
    assert any(said in body for body in shown.values())
    if len(made) > 30:
        assert shown["overview"].count("<tr>") == 41 and "720 pairs" not in shown["findings"]
        deciding = len(page.comparison.deciding)
        assert f"{count(deciding * (deciding - 1) // 2, 'pair')}" in shown["findings"]
        assert "<details><summary>The other" in shown["pairs"]
        # Shown at once: the neighbours only.
        assert shown["pairs"].split("<details>")[0].count("<tr>") == deciding


def test_the_numbers_of_the_tables_are_those_of_the_stored_scores(page):
    body = page.overview().body
    for entry in page.comparison.entries:
        scores = [run.score("PrivateTest") for run in entry.runs]
        assert f"{100 * np.mean([score['accuracy'] for score in scores]):.2f}\u00a0%" in body
        assert f"{100 * np.mean([score['balanced_accuracy'] for score in scores]):.2f}\u00a0%" in body
    sets = page.test_sets().body
    for run in page.comparison.entries[1].runs[:1]:
        assert "Newcombe" in sets and f"{100 * page.comparison.entries[1].accuracy:.2f}" in sets and run.seed == 0


def test_what_was_found_follows_from_the_sections(page):
    words = page.findings().plain
    pairs = page._pairs
    apart = len(pairs.different)
    assert (
        f"For {apart} of 15 pairs the test finds a difference after Holm's correction; for {15 - apart} it finds none, "
        f"which does not show that they are equal. In {pairs.with_single_runs} of these {apart} pairs at least one of "
        "the two has a single run." in words
    )
    assert "highest accuracy is that of VGGNet" in words and "package facemood (87.99" in words
    gains = [one.choices[2].against[0] for one in page._epochs]
    baseline, other = np.mean(gains[:2]), gains[2]
    said = f"by {50 * (baseline + other):.2f} points on average over 2 variants (from "
    assert f"{said}{100 * min(baseline, other):.2f} to {100 * max(baseline, other):.2f})" in words
    mean = np.mean([one.gain[0] for one in page._augmented if one.usage == "PrivateTest"])
    assert f"changes the accuracy by {points(mean)} points on average over 3 seeds of VGGNet; " in words
    assert re.search(r"The hardest class is \w+: \d of 6 models recognise it worst", words)
    assert "The claimed protocol changes the accuracy of 1 variant by" in words
    assert "temperature" in words and "No model is right on" in words


def test_no_test_says_that_two_are_equal(page):
    said = page.findings().plain + page.ranks()._repr_html_() + page.pairs().body
    assert "no difference between any two of" in said and "no two differ" not in said and "do not." not in said


def test_the_seed_is_blamed_only_where_chance_is_unlikely(monkeypatch):
    far = [run_of("baseline", 0.6 + 0.05 * seed, seed) for seed in range(3)]
    few = page_of(monkeypatch, [*far, run_of("deep-emotion", 0.5)])
    assert (
        "Of 3 pairs of runs of one model in the same precision with different seeds, 3 differ by the same test with p "
        f"below 0.05, where {3 * 0.05:.1f} would by chance: plain baseline. So for these models the seed moves"
        in few.findings().plain
    )
    assert "version of our code" not in few.findings().plain
    far[0].record["code_version"] = "0.1.0 (another)"
    moved = page_of(monkeypatch, [*far, run_of("deep-emotion", 0.5)]).findings().plain
    assert "explains; in 2 of the pairs the machine or the version of our code differs too." in moved
    many = [run_of("baseline", 0.6, seed) for seed in range(6)] + [run_of("deep-emotion", 0.5)]
    monkeypatch.setattr(accuracy, "seed_pairs", lambda entries: SeedPairs(2, 15, ("plain baseline",)))
    words = page_of(monkeypatch, many).findings().plain
    assert "2 differ by the same test with p below 0.05, where 0.8 would by chance: plain baseline." in words
    assert "the seed moves" not in words


def test_seeds_of_what_decides_nothing_are_not_counted(monkeypatch):
    claimed = [run_of("vggnet", 0.5 + 0.2 * seed, seed, protocol="claimed") for seed in range(2)]
    page = page_of(monkeypatch, [run_of("baseline", 0.6), run_of("deep-emotion", 0.5), *claimed])
    assert "No model that decides has two runs" in page.pairs().plain and "the seed" not in page.findings().plain


def test_test_time_augmentation_is_judged_by_the_runs_that_decide(monkeypatch):
    others = [run_of("baseline", 0.6), run_of("deep-emotion", 0.5)]
    page = page_of(monkeypatch, [run_of("vggnet", 0.70, views=0.60, protocol="claimed"), *others])
    assert page.augmentation().plain == "no run that decides" and "test-time" not in page.findings().plain
    made = [run_of("vggnet", 0.70, seed, views=views) for seed, views in enumerate((0.75, 0.74, 0.60))]
    page = page_of(monkeypatch, [*made, *others])
    assert "on average over 3 seeds of VGGNet; 2 gain and 1 loses with p below 0.05." in page.findings().plain


def test_claims_are_hollow_and_seeds_are_ticks(page):
    figure = page.forest()
    axes = figure.canvas().axes[0]
    hollow = [line for line in axes.lines if line.get_marker() == "D"]
    assert len(hollow) == len(leaderboard_claims())
    ticks = sorted(len(line.get_xdata()) for line in axes.lines if line.get_marker() == "|")
    assert ticks == [2, 3]  # the baseline's two seeds and VGGNet's three
    assert "test images seen" in figure.alt and "epoch 2 of" in figure.alt
    assert all(claim.model in figure.alt for claim in leaderboard_claims().values())


def test_the_oracle_epoch_is_called_one(page):
    body = page.epochs().body
    assert "Best on PrivateTest (an oracle)" in body and "measures no method" in body and body.count("<tr>") == 1 + 3
    for one in page._epochs:
        for choice in one.choices:
            assert f"{100 * choice.private:.2f}" in body and f"epoch {choice.epoch}<" in body
    assert "oracle" in page.epoch_curves().body


def test_of_many_runs_with_epochs_the_other_seeds_are_folded(monkeypatch):
    made = [run_of("baseline", 0.6, seed, epochs=4) for seed in range(13)]
    body = page_of(monkeypatch, made).epochs().body
    assert body.split("<details>")[0].count("<tr>") == 2 and body.count("<tr>") == 2 + 13


def test_a_pair_that_does_not_differ_has_no_shade(page):
    axes = page.pair_picture().canvas().axes[0]
    shaded = axes.collections[1].get_array()
    assert shaded.count() == len(page._pairs.different)
    numbers = [text.get_text() for text in axes.texts]
    assert len(numbers) == len(page._pairs.all)


def test_models_that_decide_nothing_are_marked_and_named_with_the_reason(page):
    body = page.overview().body
    rows = re.findall(r"<tr>.*?</tr>", body, re.S)
    assert sum("\u00a0*<" in row for row in rows) == 3 and "trained on test images" in body
    (stopped,) = (row for row in rows if "unfinished" in row)
    assert stopped.count("unfinished") == 1, "its name says so, and nothing says it again"
    assert "VGGNet (as claimed)\u00a0*" in page.test_sets().plain
    assert all(name not in page.ranks().plain for name in ("facemood", "as claimed", "unfinished"))


def one_class(run: results.Result) -> results.Result:
    """The same run, which now answers happy for every image of both test sets."""
    for usage in results.HALVES:
        shape = run.predictions[f"{usage}_plain"].shape
        run.predictions[f"{usage}_plain"] = np.tile(np.eye(7, dtype=np.float16)[3], (shape[0], 1))
        if run.has_views:
            run.predictions[f"{usage}_views"] = run.predictions[f"{usage}_plain"]
    run.record["scores"] = results.score_all(run.predictions)
    return run


def test_no_average_has_a_run_that_answers_one_class(monkeypatch):
    def runs() -> list[results.Result]:
        return [
            *(run_of("vggnet", 0.70 + 0.01 * seed, seed, views=0.72, epochs=4) for seed in range(3)),
            *(run_of("baseline", 0.66 + 0.01 * seed, seed, epochs=6) for seed in range(2)),
            run_of("deep-emotion", 0.5, epochs=5),
            run_of("vggnet", 0.73, protocol="claimed"),
        ]

    failed = runs()
    kept = [run for place, run in enumerate(runs()) if place not in (2, 5)]
    one_class(failed[2]), one_class(failed[5])
    words, expected = (page_of(monkeypatch, found).findings().plain for found in (failed, kept))
    both = "without VGGNet seed\u00a02, which answers happy for every image"
    assert f"{both} and DeepEmotion seed\u00a00, which answers happy for every image" in words
    for pattern in (
        r"PublicTest minus PrivateTest is (\S+) points on average",
        r"instead of PublicTest raises the accuracy on PrivateTest by (.*? variants \(from .*?\))",
        r"selects by (\S+ points on average over the same 4 runs; .*?)\.",
        r"test-time augmentation changes the accuracy by (\S+ points on average over 2 seeds of VGGNet)",
        r"claimed protocol changes the accuracy of 1 variant by (\S+ points on average)",
        r"the mean calibration error on PrivateTest from (\S+ to \S+) points",
        r"Of (2 pairs) of runs of one model in the same precision",
    ):
        assert re.search(pattern, words)[1] == re.search(pattern, expected)[1], pattern
    for sentence in ("on average", "no predicted class", "in the same precision", "with p below 0.05"):
        assert re.search(rf"{sentence}[^.]*(\.\d[^.]*)*, {both}", words), sentence
    assert "which answers" not in expected


def test_intervals_that_all_contain_zero_are_said_to(monkeypatch):
    made = [run_of("vggnet", 0.7, epochs=4), run_of("baseline", 0.6, epochs=4)]
    page = page_of(monkeypatch, made)
    assert "Every interval of the difference contains zero." in page.findings().plain
    flat = [dataclasses.replace(one, choices=[flattened(choice) for choice in one.choices]) for one in page._epochs]
    assert "; every interval contains zero. The predictions" in protocol.epochs(flat).plain
    clear = [dataclasses.replace(one, choices=[flattened(choice, 0.02) for choice in one.choices]) for one in flat]
    assert "; in 2 of them the interval does not contain zero. The" in protocol.epochs(clear).plain


def flattened(choice: Choice, by: float = 0.0) -> Choice:
    """The choice with that difference, whose interval is a point wide on both sides."""
    return dataclasses.replace(choice, against=(by, by - 0.01, by + 0.01, 0.5))


def test_packages_that_saw_test_images_are_starred_beside_what_they_cost(page):
    cloud = cost._points(page.comparison, "parameters")
    stars = {label for *_, label, _ in cloud if label.endswith("*")}
    others = {f"{place}*" for place, one in enumerate(page.comparison.entries, start=1) if not one.decides}
    assert stars == others and len(stars) == 3 and "*: decides nothing" in page.cost().body


def test_what_was_trained_on_test_images_is_not_counted(page):
    said = "Not counted, because the model was or may have been trained on test images: package facemood (87.99"
    assert said in page.findings().plain and "is no generalisation" not in page.findings().plain + page.forest().caption


def test_a_pair_has_its_difference_beside_both_names(page):
    head, *rows = re.findall(r"<tr>(.*?)</tr>", page.pairs().body, re.S)
    assert re.sub(r"<[^>]*>", "|", head).strip("|").split("||") == [
        *("Higher, and below it the other", "Difference, points", "p, Holm", "p, McNemar")
    ]
    pair = next(one for one in page._pairs.family if (one.first, one.second) == (0, 1))
    names = [page.comparison.entries[place].name for place in (0, 1)]
    assert all(name in rows[0].split("</th>")[0] for name in names)
    assert rows[0].split("<td class=num>")[1].startswith(points(pair.difference))


def test_a_run_that_answers_one_class_is_named(monkeypatch):
    runs = [run_of("baseline", 0.6), run_of("deep-emotion", 0.5), run_of("deep-emotion", 0.5, 1)]
    assert "for every image" not in page_of(monkeypatch, runs).overview().body
    for run in (runs[0], runs[2]):
        run.predictions["PrivateTest_plain"] = np.tile(np.eye(7, dtype=np.float16)[3], (3589, 1))
        run.record["scores"] = results.score_all(run.predictions)
    page = page_of(monkeypatch, runs)
    assert [run.one_class for run in runs] == ["answers happy for every image", "", "answers happy for every image"]
    body = page.overview().body
    assert body.count("answers happy for every image") == 2 and "seed 1 answers happy for every image" in body


def test_a_seed_that_failed_leaves_the_other_models_their_room(monkeypatch):
    failed = run_of("deep-emotion", 0.5, 1)
    for name in ("PublicTest_plain", "PrivateTest_plain"):
        failed.predictions[name] = np.tile(np.eye(7, dtype=np.float16)[3], (3589, 1))
    failed.record["scores"] = results.score_all(failed.predictions)
    page = page_of(monkeypatch, [run_of("baseline", 0.6), run_of("vggnet", 0.7), run_of("deep-emotion", 0.5), failed])
    entry = page.comparison.entries[-1]
    assert entry.interval == (0.0, 1.0)
    low, high = page.forest().canvas().axes[0].get_xlim()
    assert low > 15 and high < 90
    for body in (page.forest().figure(), page.test_sets().body):
        assert "Arrow heads: the interval continues beyond the axis." in body
    assert "0.00 to 100.00" in page.overview().body, "the table has the interval"


def test_kappa_is_in_hundredths_without_a_sign_before_zero(page):
    numbers = [one.get_text() for one in page.agreement().canvas().axes[0].texts]
    assert all(re.fullmatch(r"-?[1-9]\d*|0", number) for number in numbers)
    assert "83: a kappa of 0.83" in page.agreement().caption


def test_long_names_break_before_the_bracket():
    assert in_lines("package fer") == "package fer"
    assert in_lines("VGGNet (unfinished: epoch 1 of 350)\u00a0*") == "VGGNet\n(unfinished: epoch 1 of 350)\u00a0*"
    long = in_lines("residual-masking-resnet18-scratch (unfinished: epoch 1 of 51)\u00a0*")
    assert long.split("\n") == ["residual-masking-resnet18-scratch", "(unfinished: epoch 1 of 51)\u00a0*"]


def test_training_takes_minutes_in_the_picture_of_costs(page):
    found = page.cost()
    assert "minutes of training" in found.plain and "Minutes: of training one seed" in found.body


def test_the_sentence_about_epochs_names_the_kinds_of_runs(page, monkeypatch):
    assert "stored for 3 full runs under the official protocol." in page.epochs().plain
    made = [run_of("baseline", 0.6, epochs=4), run_of("vggnet", 0.7, epochs=4, protocol="claimed")]
    stopped = unfinished_of("deep-emotion", 0.5, done=4)
    stopped.epochs = run_of("deep-emotion", 0.5, epochs=4).epochs
    said = page_of(monkeypatch, [*made, stopped]).epochs().plain
    assert said.endswith(
        "1 full run under the official protocol, 1 full run under the claimed protocol and 1 unfinished run, which "
        "decides nothing."
    )
    said = page_of(monkeypatch, [stopped, stopped, run_of("vggnet", 0.7)]).epochs().plain
    assert said.startswith("How much the choice of the epoch changes is open: the predictions of all epochs are")
    assert said.endswith("stored for 2 unfinished runs, which decide nothing.")


def test_numbers_of_a_crowded_picture_do_not_cover_one_another():
    """Twelve points beside one another: each label is clear of the others."""
    points = [(10.0 ** (5 + 0.05 * place), 0.5 + 0.001 * (place % 3), str(place), "full run") for place in range(12)]
    axes = clouds([Cloud("parameters", True, points)], "Title", alt="x").canvas().axes[0]
    labels = [one for one in axes.texts if one.get_text()]
    boxes = [label.get_window_extent() for label in labels]
    assert len(boxes) == 12 and not any(
        one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place]
    )


def test_what_cannot_be_compared_is_listed(monkeypatch):
    other = run_of("deep-emotion", 0.5)
    other.predictions["PrivateTest_ids"] = np.char.add("x", other.predictions["PrivateTest_ids"])
    page = page_of(monkeypatch, [run_of("baseline", 0.6), run_of("baseline", 0.6, 1), other])
    body = page.overview().body
    assert "Stored, but not compared here" in body and "DeepEmotion, seed 0" in body


def test_the_hardest_images_are_pictures_only_where_the_data_are_at_hand(page, monkeypatch):
    without = page.hardest()
    assert "shown only where FER2013 is at hand" in without.body and "<figure>" not in without.body
    ids = page.comparison.ids
    faces = FER2013(
        images=np.zeros((len(ids), 48, 48), np.uint8),
        labels=np.zeros(len(ids), np.int64),
        usage=np.full(len(ids), "PrivateTest"),
        ids=ids,
        name="fer2013",
        source="a test",
        digest="0" * 64,
    )
    monkeypatch.setenv("FER2013_ROOT", "somewhere")
    monkeypatch.setattr(together.data, "load", lambda: faces)
    with_data = page.hardest()
    assert "<figure>" in with_data.body and with_data.plain == without.plain
    monkeypatch.setattr(together.data, "load", lambda: FER2013(*vars(faces).values()).subset(np.arange(10)))
    assert "other ids than the stored results" in page.hardest().body


def test_it_reads_the_folder_it_is_given(tmp_path):
    for one in (run_of("baseline", 0.6), run_of("deep-emotion", 0.5)):
        results.write(one, tmp_path)
    assert [entry.name for entry in ComparisonsPage(str(tmp_path)).comparison.entries] == [
        "plain baseline",
        "DeepEmotion",
    ]
    with pytest.raises(FerReproError, match="does not exist"):
        ComparisonsPage(str(tmp_path / "missing"))


def test_words():
    assert (points(0.01234), points(-0.00001), p_value(0.0004), p_value(0.2)) == (
        "+1.23",
        "-0.00",
        "below 0.001",
        "0.200",
    )
    assert (p_value(None), count(1, "pair"), count(2, "pair"), count(1200, "pair")) == (
        "not tested",
        "1 pair",
        "2 pairs",
        "1,200 pairs",
    )
    assert (listed([]), listed(["a"]), listed(["a", "b"]), listed("abcdefghij")) == (
        "none",
        "a",
        "a and b",
        "a, b, c, d, e, f, g, h and 2 more",
    )
