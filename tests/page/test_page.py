"""What the cells of a chapter show: escaped words, the result's own numbers, and the sentence about synthetic faces."""

from __future__ import annotations

import dataclasses
import html
import inspect
import logging
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from fer_repro import claims as claims_of_book
from fer_repro import leaderboard, logs, page, papers, parameters, reproduce, results
from fer_repro.claims import Arithmetic, Total, claim_of, leaderboard_claims
from fer_repro.data import synthetic as synthetic_faces
from fer_repro.errors import FerReproError
from fer_repro.evaluation.statistics import wilson
from fer_repro.markup import SYNTHETIC, Html, is_web, link, percent, text
from fer_repro.page import cards, comparison, networks, recipe_table, runs
from fer_repro.papers import vggnet
from fer_repro.plots.figure import Figure
from fer_repro.recipe import Views
from fer_repro.results import Result

EVIL = "<script>alert(1)</script>\" onmouseover='x'"
SECTIONS = ("run", "curves", "scores", "confusion", "per_class", "beside_the_claim", "deviations", "others")


class Words(HTMLParser):
    """Text of a page outside style and script, tags seen, and attributes a browser would load or follow."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.text, self.tags, self.addresses, self.open = [], [], [], []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        named = dict(attrs)
        assert not any(name.startswith("on") for name in named), f"an event handler in <{tag}>"
        self.addresses += [named[name] for name in ("src", "href") if name in named]
        if tag == "img":
            assert named.get("alt"), "a picture without words"
        if tag not in ("img", "br", "input", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def __str__(self) -> str:
        return re.sub(r"[ \n]+", " ", "".join(self.text))


def shown(thing) -> Words:
    words = Words(thing._repr_html_())
    assert words.open == [], f"left open: {words.open}"
    return words


def made_up(
    variant="vggnet", protocol="official", *, profile="full", data="fer2013", n=3589, seed=0, right=0.6
) -> Result:
    """A whole result with made-up predictions, right about ``right`` of ``n`` images, scored by the library."""
    recipe = papers.get(variant).recipe(protocol, profile if profile == "full" else "smoke")
    random = np.random.default_rng(seed)
    predictions = {}
    for half in results.HALVES:
        labels = np.arange(n) % 7
        predictions[f"{half}_ids"] = np.array([f"{half}-{i}" for i in range(n)])
        predictions[f"{half}_labels"] = labels
        for kind in ("plain", "views") if recipe.views != recipe.plain else ("plain",):
            chosen = np.where(random.random(n) < right, labels, (labels + random.integers(1, 7, n)) % 7)
            predictions[f"{half}_{kind}"] = (np.eye(7)[chosen] * 0.65 + 0.05).astype(np.float16)
    network = papers.get(variant).build is not None
    rows = {"stage": ["train", "train"], "epoch": [1, 2], "lr": [0.1, 0.1], "loss": [1.75, 1.5], "seconds": [3.0, 3.0]}
    history = pd.DataFrame(rows | {"train_accuracy": [0.25, 0.5], "select_accuracy": [0.3, 0.4]})
    if not network:
        history = pd.DataFrame(
            {"stage": ["vocabulary", "local"], "seconds": [70.0, 200.0], "select_accuracy": [None, 0.625]}
        )
    ladder = [
        {"step": name, **{half: {"n": n, "correct": k, "accuracy": k / n} for half in results.HALVES}}
        for name, k in (("histogram-global", n // 2), ("pyramid-local", 5 * n // 8))
    ]
    record = {
        "schema": results.SCHEMA,
        "variant": variant,
        "protocol": protocol,
        "profile": profile,
        "seed": seed,
        "status": "done",
        "recipe": recipe.as_dict(),
        "recipe_sha256": recipe.sha256(),
        "code_version": "0.1.0 (feed)",
        "data": {"name": data, "source": "a made-up source", "digest": "c0ffee" * 11},
        "usages": {
            "train": list(recipe.protocol.train),
            "select": list(recipe.protocol.select),
            "test": list(recipe.protocol.test),
            "finetune": list(recipe.protocol.finetune or recipe.protocol.train),
        },
        "selection": recipe.selection.name(recipe.protocol),
        "selected_epoch": 2 if network else None,
        "parameters": 29890759 if network else None,
        "multiply_adds": 350519296 if network else None,
        "scores": results.score_all(predictions, recipe.protocol.test),
        "cost": {"seconds": 7560.0, "images_per_second": 9120.4, "peak_memory_bytes": 10**9, "device": "cuda"},
        "environment": {"gpu": "A GPU <of ours>", "cpu": "A CPU", "cores": 2},
        "started": "2026-01-02T03:04:05+00:00",
        "ended": "2026-01-02T05:10:05+00:00",
        "facts": {} if network else {"chosen": {"k": 200, "C": 1.0}, "ladder": ladder},
    }
    return Result(record, predictions, history)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A results folder with a VGGNet run under each protocol."""
    folder = tmp_path_factory.mktemp("stored")
    for protocol, right in (("official", 0.72), ("claimed", 0.735)):
        results.write(made_up(protocol=protocol, right=right), folder)
    return folder


def opened(slug="vggnet", **changes) -> page.Chapter:
    return page.open_chapter(slug, dataclasses.asdict(parameters.ChapterParameters(variant=slug)) | changes)


def finished(monkeypatch, result: Result, **changes) -> page.Chapter:
    """A chapter whose run gives ``result``."""
    monkeypatch.setattr(page, "reproduce", lambda *args, **options: result)
    chapter = opened(result.variant, **changes)
    chapter.run()
    return chapter


# ---- escaping ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "data:text/html,x", "ftp://a.org", "https:nowhere", "https://a b", None]
)
def test_only_web_addresses_become_links(url):
    assert link(url, "a <paper>") == "a &lt;paper&gt;"


def test_links_and_text_are_escaped():
    assert is_web("https://arxiv.org/abs/2105.03588v1?a=1&b=2")
    markup = link('https://a.org/"><script>', EVIL)
    assert "<script" not in markup and markup.startswith('<a href="https://a.org/&quot;&gt;&lt;script&gt;"')
    assert text(None) == text(float("nan")) == text("") == "unknown" and text(0) == "0" and text("", "") == ""


def test_a_script_in_the_claims_stays_text(monkeypatch):
    claims = leaderboard_claims()
    good = claims["vggnet"]
    audit = dataclasses.replace(
        good.audit,
        scored=EVIL,
        why=EVIL,
        views=EVIL,
        evidence=(dataclasses.replace(good.audit.evidence[0], fact=EVIL, source="javascript:alert(1)"),),
    )
    bad = dataclasses.replace(
        good,
        model=EVIL,
        paper=dataclasses.replace(good.paper, title=EVIL, authors=EVIL, url="javascript:alert(1)"),
        code=dataclasses.replace(good.code, note=EVIL),
        audit=audit,
        others=(dataclasses.replace(good.others[0], who=EVIL, protocol=EVIL, result=EVIL, source=EVIL),),
    )
    changed = dataclasses.replace(claims_of_book.book(), claims=claims | {"vggnet": bad})
    monkeypatch.setattr(claims_of_book, "book", lambda: changed)
    for thing in (page.claim_card("vggnet"), page.verdict("vggnet"), opened().others(), page.architecture("vggnet")):
        words = shown(thing)
        assert "script" not in words.tags and "a" not in words.tags[:6]
        assert all(a.startswith(("https://", "http://", "data:image/webp")) for a in words.addresses)
    assert str(shown(page.claim_card("vggnet"))).count("<script>alert(1)</script>") >= 7


# ---- the boxes -----------------------------------------------------------------------------------------------------


def test_the_claim_card_tells_the_whole_audit():
    claim = claim_of("vggnet")
    words = str(shown(page.claim_card("vggnet")))
    for told in (
        "73.28\u00a0%",
        claim.model,
        claim.paper.title,
        claim.paper.authors,
        claim.date,
        claim.audit.scored,
        claim.audit.selected_on,
        claim.audit.trained_on,
        claim.audit.views,
        claim.audit.why,
        "2,630 of 3,589 images prints as 73.28\u00a0%; the count is published",
    ):
        assert told.replace("\u00a0", " ") in words.replace("\u00a0", " ")
    assert all(e.fact in words and e.source in words for e in claim.audit.evidence)


@pytest.mark.parametrize("slug", sorted({claim.slug for claim in leaderboard_claims().values()}))
def test_every_paper_has_a_card_with_all_its_rows(slug):
    words = shown(page.claim_card(slug))
    rows = [claim for claim in leaderboard_claims().values() if claim.slug == slug]
    assert all(f"{claim.accuracy:.2f}\u00a0%{claim.model}" in str(words).replace("% ", "%") for claim in rows)
    assert str(words).count("Comparability") == len(rows)
    assert "script" not in words.tags


def test_an_unknown_slug_names_its_neighbour():
    with pytest.raises(FerReproError, match="no row of the leaderboard has the slug 'vgnet': did you mean vggnet"):
        page.claim_card("vgnet")


def test_arithmetic_says_what_the_printed_number_can_be():
    plain = Arithmetic(3589, None, (2500,), (), None, (), "")
    assert cards.arithmetic(69.66, plain) == "2,500 of 3,589 images would print as 69.66\u00a0%"
    none = dataclasses.replace(
        plain, matches=(), others=(Total(3588, "one less", (2499,), ()), Total(10, "few", (), ()))
    )
    told = cards.arithmetic(69.65, none)
    assert told.startswith("no count of 3,589 images prints as 69.65")
    assert "3,588 images (one less): 2,499 would fit" in told and "10 images (few): no count fits" in told
    assert "cut instead, 7 would" in cards.arithmetic(1.0, dataclasses.replace(plain, matches=(), cut=(7,)))


def test_the_verdict_without_results_says_not_run_and_how_to_run(tmp_path):
    (tmp_path / "empty").mkdir()
    words = str(shown(page.verdict("vggnet", tmp_path / "empty")))
    assert "not run" in words and "No finished full run on FER2013" in words
    assert "fer-repro run vggnet --protocol official --profile full" in words
    assert re.search(r"Last executed \d{4}-\d\d-\d\d \d\d:\d\d UTC", words)


def test_the_verdict_shows_where_its_number_comes_from(stored):
    result = results.find("vggnet", "official", 0, stored)
    score, record = result.headline, result.record
    found = leaderboard.verdict(claim_of("vggnet"), [result])
    words = str(shown(page.verdict("vggnet", stored)))
    low, high = score["interval"]
    for told in (
        found.name,
        found.reason,
        percent(score["accuracy"]),
        f"{100 * low:.2f} to {100 * high:.2f}",
        "2026-01-02",
        "A GPU <of ours>",
        record["data"]["digest"][:16],
        "0.1.0 (feed)",
        "results/vggnet/official/",
    ):
        assert told in words
    assert "under the claimed protocol" in words


def test_several_rows_of_one_paper_each_have_their_verdict(tmp_path):
    words = str(shown(page.verdict("residual-masking", tmp_path)))
    assert words.count("Verdict") == 2 and "Residual Masking Network" in words


# ---- tables --------------------------------------------------------------------------------------------------------


def test_verdicts_are_counted(stored):
    words = str(shown(page.verdict_summary(leaderboard.leaderboard(stored))))
    name = leaderboard.verdict(claim_of("vggnet"), results.read_all(stored)).name
    assert f"{name}1VGGNet" in words and "not run16" in words


# ---- a chapter -----------------------------------------------------------------------------------------------------


def test_a_wrong_parameter_stops_before_anything_runs():
    with pytest.raises(FerReproError, match="unknown parameter 'Seed'"):
        opened(Seed=1)
    with pytest.raises(FerReproError, match="belongs to the chapter 'resnet18-tricks'"):
        opened(variant="resnet18-tricks")


@pytest.mark.parametrize("section", SECTIONS[1:-1])
def test_a_section_before_the_run_says_what_is_missing(section):
    with pytest.raises(FerReproError, match=r"call chapter\.run\(\) first"):
        getattr(opened(), section)()


@pytest.mark.parametrize("section", ["data", *SECTIONS])
def test_every_section_from_synthetic_faces_says_so(monkeypatch, section):
    result = made_up(profile="smoke", data="synthetic", n=140)
    chapter = finished(monkeypatch, result)
    thing = getattr(chapter, section)()
    words = shown(thing)
    assert all(a.startswith(("data:image/webp", "https://", "http://")) for a in words.addresses)
    assert not [a for a in words.addresses if a.startswith("http") and "img" in words.tags]
    if section != "others":
        assert SYNTHETIC in str(words).lower()
        assert (
            SYNTHETIC in repr(thing)
            or section in ("run", "curves", "beside_the_claim", "deviations")
            or "data" in repr(thing)
        )


@pytest.mark.parametrize("section", SECTIONS)
def test_no_section_of_a_real_result_speaks_of_synthetic_faces(monkeypatch, stored, section):
    result = results.find("vggnet", "official", 0, stored)
    chapter = finished(monkeypatch, result, profile="stored", results_dir=str(stored))
    assert SYNTHETIC not in str(shown(getattr(chapter, section)())).lower()


def test_the_note_of_a_missing_result_is_seen(monkeypatch):
    result = made_up(profile="smoke", data="synthetic", n=140)
    result.note = "No full result of vggnet is stored & this is smoke."
    words = shown(finished(monkeypatch, result).run())
    assert "Not run: No full result of vggnet is stored & this is smoke." in str(words)


def test_scores_equal_those_of_the_result(monkeypatch, stored):
    result = results.find("vggnet", "official", 0, stored)
    chapter = finished(monkeypatch, result, profile="stored", results_dir=str(stored))
    markup = chapter.scores()._repr_html_()
    cells = [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", markup)]
    for half in results.HALVES:
        for views in (False, True):
            score = result.score(half, views)
            low, high = score["interval"]
            assert f"{100 * score['accuracy']:.2f}{100 * low:.2f} to {100 * high:.2f}" in cells
            assert f"{100 * score['macro_f1']:.2f}" in cells and f"{score['log_loss']:.3f}" in cells
            assert f"{100 * score['ece']:.2f}" in cells and f"{100 * score['balanced_accuracy']:.2f}" in cells
    bold = re.findall(r"<strong>([\d.]+)<br>", markup)
    assert bold == [f"{100 * result.headline['accuracy']:.2f}"]
    assert "PublicTestselects" in cells and "PrivateTestscored" in cells


def test_the_claimed_protocol_scores_the_other_half(monkeypatch, stored):
    result = results.find("vggnet", "claimed", 0, stored)
    chapter = finished(monkeypatch, result, profile="stored", protocol="claimed", results_dir=str(stored))
    accuracy = result.score("PublicTest")["accuracy"]
    assert f"{percent(accuracy)} on PublicTest" in str(shown(chapter.run()))
    assert "VGGNet, PublicTest, ten-crop, 40 pixels" in chapter.confusion().alt
    assert "PrivateTestfine-tunes, selects" in str(shown(chapter.scores()))


def test_two_halves_scored_as_one_set_have_a_row_together(monkeypatch, tmp_path):
    result = made_up("ad-corre", "claimed", right=0.7)
    results.write(result, tmp_path)
    chapter = finished(monkeypatch, result, profile="stored", protocol="claimed", results_dir=str(tmp_path))
    accuracy = percent(result.headline["accuracy"])
    assert f"{accuracy} on PublicTest+PrivateTest" in str(shown(chapter.run()))
    markup = chapter.scores()._repr_html_()
    assert re.findall(r"<strong>([\d.]+)<br>", markup) == [f"{100 * result.headline['accuracy']:.2f}"]
    assert "PublicTest+PrivateTestselects, scored" in str(shown(chapter.scores())) and "7,178" in markup
    assert "Ad-Corre, PublicTest+PrivateTest" in chapter.confusion().alt and "7,178 images" in chapter.confusion().alt
    assert f"seed 0 {accuracy}, both test sets" in chapter.beside_the_claim().plain


def test_the_run_says_what_it_was(monkeypatch, stored):
    result = results.find("vggnet", "official", 0, stored)
    words = str(shown(finished(monkeypatch, result, profile="stored", results_dir=str(stored)).run()))
    for told in (
        "official protocol, full profile, seed 0",
        "best epoch on PublicTest: epoch 2",
        "2.1 h on A GPU <of ours>",
        "9,120 images/s, mean of the whole run",
        "0.1.0 (feed)",
        "2026-01-02",
    ):
        assert told in words


@pytest.mark.parametrize(
    ("speed", "words"), [(9120.6, "9,121"), (99.98, "100"), (9.998, "10"), (9.96, "10"), (5.911, "5.9")]
)
def test_a_training_speed_is_rounded_not_cut(monkeypatch, stored, speed, words):
    result = results.find("vggnet", "official", 0, stored)
    result.record["cost"]["images_per_second"] = speed
    shown_run = str(shown(finished(monkeypatch, result, profile="stored", results_dir=str(stored)).run()))
    assert re.search(rf"(?<![\d.]){re.escape(words)} images/s", shown_run)


def test_what_a_method_recorded_is_read_value_by_value():
    """No line of run-together numbers: a value a row, a series of like records a table of its own."""
    result = made_up()
    result.record["facts"] = {
        "pool": 57418,
        "chosen": {"k": 400, "weights": [2, 1]},
        "nothing": {},
        "grid": [{"k": 100, "select_accuracy": 0.25}, {"k": 200, "C": True}],
        "mirror": {"PublicTest": {"n": 3589, "correct": 1459}, "PrivateTest": {"n": 3589, "correct": 1486}},
        "precision": "bf16",
    }
    markup = str(runs.run_box(result).body)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in markup.split("<tr>")]
    for row in (
        ["pool", "57418"],
        ["chosen: neighbours k", "400"],
        ["chosen: weights of the pyramid&#x27;s levels", "2, 1"],
        ["nothing", "none"],
        ["k", "select accuracy", "C"],
        ["100", "0.25", "none"],
        ["200", "none", "yes"],
        ["", "n", "correct"],
        ["PublicTest", "3589", "1459"],
        ["PrivateTest", "3589", "1486"],
    ):
        assert row in cells, row
    assert "<caption>grid</caption>" in markup and "<caption>mirror</caption>" in markup
    assert "precision" not in markup  # it has a line of its own above


def test_stored_data_are_told_from_the_record(stored):
    words = str(shown(opened(profile="stored", results_dir=str(stored)).data()))
    assert "a made-up source" in words and "c0ffeec0ffeec0ff" in words
    assert "PrivateTest5135135135135135125123,589" in words
    assert "Training, as published3,9954364,0977,2154,8303,1714,96528,709" in words


def test_beside_the_claim_draws_the_claim_every_run_and_the_neighbours(stored):
    claim = claim_of("vggnet")
    runs = results.read_all(stored)
    rows = comparison.claim_rows(claim, runs)
    assert [row.label for row in rows] == ["claimed", "official protocol, seed 0", "claimed protocol, seed 0"]
    assert rows[0].interval == pytest.approx(wilson(2630, 3589)) and rows[0].kind == "claimed"
    by_protocol = {run.protocol: run for run in runs}
    assert rows[1].value == by_protocol["official"].score("PrivateTest")["accuracy"]
    assert rows[2].value == by_protocol["claimed"].score("PublicTest")["accuracy"]
    near = [row.label for row in comparison.similar_rows(claim, runs)]
    assert near == ["Residual Masking Network", "ResNet18 With Tricks", "CNN Hyperparameter Optimisation", "Ad-Corre"]
    first = comparison.similar_rows(claim_of("efficientfer"), [])
    assert [row.label for row in first] == ["FERNeXt-SDAFE", "ResEmoteNet"]


def test_a_title_says_how_many_random_copies_were_scored():
    copies = [Views("random", count=count, size=24, average="probabilities") for count in (1, 3)]
    assert list(map(page._scored_as, copies)) == ["1 random copy", "3 random copies"]
    assert page._scored_as(Views("ten-crop", size=40)) == str(Views("ten-crop", size=40))


def test_a_shortened_run_is_told_from_a_full_one():
    short = made_up(n=70)
    short.record["recipe_sha256"] = papers.get("vggnet").recipe("official", "full").with_epochs(2).sha256()
    rows = comparison.claim_rows(claim_of("vggnet"), [short, made_up(n=70, seed=1)])
    assert [row.words[1] for row in rows[1:3]] == ["PrivateTest, another recipe", "PrivateTest"]


def test_synthetic_faces_never_stand_beside_a_claim(monkeypatch, tmp_path):
    synthetic = made_up(profile="smoke", data="synthetic", n=140, right=0.9)
    rows = comparison.claim_rows(claim_of("vggnet"), [synthetic])
    assert [row.words for row in rows[1:]] == [("not run",), ("not run",)]
    chapter = finished(monkeypatch, synthetic, results_dir=str(tmp_path))
    markup = chapter.beside_the_claim()._repr_html_()
    accuracy = percent(synthetic.headline["accuracy"])
    assert f"{accuracy}: {SYNTHETIC}." in markup
    assert accuracy not in "".join(re.findall(r'alt="([^"]*)"', markup))


def test_the_network_is_counted_and_held_against_the_declared_number():
    words = str(shown(opened().network()))
    assert (
        "Parameters, counted29,890,759" in words and "Parameters, declared29,890,759" in words and "Equalyes" in words
    )
    assert "350,519,296 for one image" in words and "a shrunk network, VGGNet (dropout 0.2, hidden units 64" in words
    assert "40 × 40 pixels, 1 channelParameters" in words


def test_a_network_for_colour_images_says_that_it_repeats_the_one_channel():
    colour = networks.network_summary(papers.get("resemotenet"), "official", smoke=False)
    assert "1 channel, which the network repeats to three" in str(shown(colour))


def test_the_source_of_network_and_loss_is_on_the_page_folded():
    markup = opened().network()._repr_html_()
    code = html.unescape(re.sub(r"<[^>]+>", "", markup[markup.index("<details>") :]))
    assert inspect.getsource(vggnet.VGGNet).rstrip() in code and "class VGGStage(nn.Sequential):" in code
    assert "# Four halvings: [B,1,40,40] -> [B,512,2,2]" in code, "the shapes as the code's comments have them"
    assert '<span class="k">class</span>' in markup and "fer_repro.papers.vggnet" in markup


def test_a_wrong_declaration_is_seen(monkeypatch):
    monkeypatch.setattr(networks, "declared_parameters", lambda name: 29890758)
    assert "Equalno" in str(shown(opened().network()))
    monkeypatch.setattr(networks, "declared_parameters", lambda name: None)
    words = str(shown(opened().network()))
    assert "declaredunknown" in words and "Equalunknown" in words


def test_the_picture_of_a_network_is_counted_from_it():
    assert "29,890,759 parameters in all" in page.architecture("vggnet").alt
    assert "512×2×2" in page.architecture("vggnet").alt


def test_a_method_without_a_network_shows_its_steps(monkeypatch):
    figure = page.architecture("local-learning-bow")
    assert figure.alt.startswith("Local Learning BOW, step by step. 1. ")
    bow = papers.get("local-learning-bow")
    words = str(shown(networks.network_summary(bow, "official", smoke=True)))
    assert "No network" in words and "def local_decisions(" in words
    monkeypatch.delattr("fer_repro.papers.local_learning_bow.pipeline")
    with pytest.raises(FerReproError, match=r"no function pipeline\(recipe\)"):
        page.architecture("local-learning-bow")


def test_a_method_without_epochs_shows_stages_choices_and_ladder(monkeypatch):
    result = made_up("local-learning-bow", n=3589)
    chapter = finished(monkeypatch, result)
    assert "vocabulary70.0 s" in str(shown(chapter.curves())) and "62.50" in str(shown(chapter.curves()))
    assert all(told in str(shown(chapter.run())) for told in ("chosen: neighbours k200", "chosen: SVM penalty C1"))
    ladder = chapter.ladder()
    assert len(re.findall("<figure>", ladder._repr_html_())) == 2
    assert "histogram, global 49.99" in repr(ladder) and "pyramid, local 62.50" in repr(ladder)
    rows = comparison.ladder_rows(result.record["facts"]["ladder"], "PrivateTest")
    assert rows[1].words == (percent(2243 / 3589), f"{100 * (2243 - 1794) / 3589:+.2f}")
    assert rows[0].interval == pytest.approx(wilson(1794, 3589))


def test_a_method_without_a_ladder_says_so(monkeypatch):
    with pytest.raises(FerReproError, match="holds no ladder"):
        finished(monkeypatch, made_up(profile="smoke", data="synthetic", n=70)).ladder()


def test_deviations_are_those_of_the_full_recipe_and_a_smoke_recipe_is_named_as_such(monkeypatch):
    result = made_up(profile="smoke", data="synthetic", n=70)
    markup = finished(monkeypatch, result).deviations()._repr_html_()
    words, full = str(Words(markup)), papers.get("vggnet").recipe("official", "full")
    assert all(d.what in words and d.why in words for d in full.deviations)
    assert (
        f"<summary>What the smoke run used instead of the full recipe, sha256 {result.record['recipe_sha256'][:16]}"
        in markup
    )
    assert "shrunk" not in words[: words.index("What the smoke run used")] and "Batch size, images16" in words
    assert recipe_table.deviations_table(dataclasses.replace(full, deviations=())) == "<p>None that we know of.</p>"


def test_a_run_of_the_full_recipe_adds_no_second_table(monkeypatch):
    assert "<details>" not in finished(monkeypatch, made_up()).deviations().body


def test_others_are_listed_with_their_source():
    claim = claim_of("vggnet")
    words = str(shown(opened().others()))
    assert all(other.who in words and other.source in words for other in claim.others)
    assert opened().others().body.count('<div class="fer-breaks">') == 3 * len(claim.others), "long names may break"
    assert all(f"{other.result}\u00a0%" in words and other.why in words for other in claim.others)
    assert "2 reports that can be compared with the claim: 71.52 to 72.39\u00a0%." in words


def test_nobody_has_measured_it_is_a_sentence():
    assert str(shown(opened("ad-corre").others())) == "No report on this model is known."
    both = str(shown(opened("mini-resemotenet", variant="mini-resemotenet-a").others()))
    assert both.count("No report on this model") == 2 and "Mini-ResEmoteNet (B): No report" in both
    related = str(shown(opened("lhc-net").others()))
    assert "No report on this model is known; 2 reports on other methods below, as context only." in related


def test_long_runs_print_few_lines(capsys):
    log = logging.getLogger("fer_repro.training.loop")
    with logs.shown(page.EpochLineHandler()):
        log.info("going on after epoch 3 of 47")
        for epoch in range(1, 48):
            log.info(f"epoch {epoch}/47 train: loss 1.0")
    with logs.shown():
        log.info("stored in vggnet/official/seed-0/")
    printed = capsys.readouterr().out.splitlines()
    assert [int(re.search(r"epoch (\d+)/", line)[1]) for line in printed[1:-1]] == [1, 2, 3, 4, 5, 10, 20, 30, 40, 47]
    assert printed[0].startswith("going on") and printed[-1].startswith("stored")


def test_a_real_smoke_run_walks_through_the_chapter(monkeypatch, tmp_path, capsys):
    """All steps once, with nothing but the number of faces changed: parameters, data, training, pages."""
    for module in (synthetic_faces, reproduce):
        monkeypatch.setattr(module, "SMOKE_SIZE", (70, 35, 35))
    chapter = opened(epochs=1, results_dir=str(tmp_path), device="cpu")
    for section in ("data", "network", *SECTIONS):
        thing = getattr(chapter, section)()
        assert isinstance(thing, (Html, Figure))
        shown(thing)
    accuracy = chapter.result.headline["accuracy"]
    assert percent(accuracy) in str(shown(chapter.scores())).replace(f"{100 * accuracy:.2f}", percent(accuracy))
    assert "epoch 1/1" in capsys.readouterr().out
    assert not list(tmp_path.iterdir()), "a smoke run stores nothing"


@pytest.mark.parametrize(
    ("facts", "environment", "words"),
    [
        ({"precision": "fp32"}, {"threads": 1}, "fp32, 1 thread"),
        ({"precision": "bf16", "threads": [2, 1]}, {"threads": 1}, "bf16, 2 threads then 1 thread"),
        ({"rehearsal": {"autocast": True}}, {}, "bf16"),  # a result from before precision had its own name
        ({}, {"threads": 4}, "4 threads"),
        ({}, {}, ""),
    ],
)
def test_what_a_run_was_computed_with(facts, environment, words):
    result = made_up()
    result.record |= {"facts": facts, "environment": environment}
    assert cards.computed_with(result) == words


def test_a_run_from_before_precision_was_recorded_was_fp32_on_a_cpu():
    """Those versions left float32 on CUDA only; of weights of others, and without a network, nothing is known."""
    result = made_up()
    result.record["cost"]["device"] = "cpu"
    assert result.precision == "fp32"
    result.record["kind"] = results.RELEASED
    assert result.precision == ""
    assert made_up("local-learning-bow").precision == ""
