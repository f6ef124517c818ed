"""The accuracy-over-time chart: every mark where its number is, links, legend and words; and the still picture."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_repro import leaderboard
from fer_repro.errors import FerReproError
from fer_repro.page import timeline
from fer_repro.page.drawing import narrow, wide
from fer_repro.page.marks import CLAIMS, KINDS
from fer_repro.plots.label_placement import CONTACT, overlap, place_names
from fer_repro.plots.theme import LIGHT

RELEASED = {"released": 0.5155, "released_low": 0.4991, "released_high": 0.5318}
UNFINISHED = {"unfinished": 0.6, "unfinished_low": 0.584, "unfinished_high": 0.616}
UNFINISHED |= {"unfinished_epoch": 3, "unfinished_epochs": 80}
ABLATION = {"ablation": 0.6, "ablation_low": 0.584, "ablation_high": 0.616}
ABLATION |= {"ablation_variant": "resemotenet-small", "ablation_state": None}
REPORTS = {"others_low": 0.58, "others_high": 0.66, "others_n": 6, "others_comparable": True}
BAND = leaderboard.Band(0.688, 0.715, 0.702, (0, 1, 2), "")
LAYOUTS = {"wide": wide, "narrow": narrow}


@pytest.fixture(scope="module")
def board() -> pd.DataFrame:
    """The leaderboard with two models measured."""
    table = leaderboard.leaderboard()
    table = table[table["pinned"]]  # added papers are not on the chart
    for variant, measured, low, high, verdict in (
        ("vggnet", 0.7214, 0.7065, 0.7358, "reproduced"),
        ("local-learning-bow", 0.6411, 0.6252, 0.6566, "below"),
    ):
        row = table["variant"] == variant
        table.loc[row, ["measured", "low", "high"]] = measured, low, high
        table.loc[row, "verdict"] = verdict
    table.loc[~table["variant"].isin(["vggnet", "local-learning-bow"]), ["measured", "low", "high"]] = np.nan
    return table


@pytest.fixture(scope="module")
def markup(board) -> str:
    return timeline.accuracy_over_time(board, BAND).body


def only(board: pd.DataFrame, **changes: dict[str, object]) -> pd.DataFrame:
    """The board with no evidence beside the claims but what two models measured and ``changes`` (by variant)."""
    gone = ["others_low", "others_high"]
    gone += [name + end for name in ("released", "unfinished", "ablation") for end in ("", "_low", "_high")]
    board = board.assign(**dict.fromkeys(gone, np.nan))
    for variant, values in changes.items():
        for name, value in values.items():
            board.loc[board["variant"] == variant.replace("_", "-"), name] = value
    return board


def drawing(markup: str, name: str) -> Element:
    return ElementTree.fromstring(re.search(rf'<svg class="{name}".*?</svg>', markup, re.S)[0])


def links(markup: str, name: str, css: str) -> list[Element]:
    """The links of a drawing by their class: "mark", "name", "k-measured"."""
    return [link for link in drawing(markup, name).iter("a") if css in link.attrib["class"].split()]


def legend(markup: str) -> list[str]:
    return re.findall(r'<input type="checkbox" value="(\w+)" checked>', markup)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_holds_every_claim_and_all_evidence(board, layout):
    found = LAYOUTS[layout](only(board, deep_emotion=RELEASED))
    claims = {mark.row.variant: mark for mark in found.marks if mark.kind in CLAIMS}
    assert {name: mark.low for name, mark in claims.items()} == dict(
        zip(board["variant"], board["claimed"], strict=True)
    )
    assert {name for name, mark in claims.items() if mark.kind == "clean"} == set(
        board.loc[board["comparability"] == "A", "variant"]
    )
    beside = {(mark.row.variant, mark.kind): (mark.value, mark.low, mark.high) for mark in found.marks}
    assert beside["vggnet", "measured"] == (0.7214, 0.7065, 0.7358)
    assert beside["deep-emotion", "released"] == (0.5155, 0.4991, 0.5318)
    assert len(beside) == len(board) + 3
    assert list(found.record) == list(leaderboard.record_line(board)["variant"])


def test_unfinished_runs_and_reports_of_others_have_marks_and_words_of_their_own(board):
    other = REPORTS | {"others_low": 0.72, "others_high": 0.72, "others_n": 1, "others_comparable": False}
    chart = timeline.accuracy_over_time(only(board, resemotenet=UNFINISHED | REPORTS, emonext=other)).body
    assert legend(chart) == ["record", "claimed", "clean", "measured", "unfinished", "others", "incomparable"]
    (words,) = (link.findtext("title") for link in links(chart, "wide", "k-others"))
    assert words.startswith("ResEmoteNet: measured by others\nclaimed 79.79\u00a0% (class D)\n")
    assert "unfinished: epoch 3 of 80, 60.00\u00a0% (58.40 to 61.60\u00a0%)" in words
    assert "others: 58 to 66\u00a0% (6 reports)" in words and "verdict: not run" in words
    (words,) = (link.findtext("title") for link in links(chart, "narrow", "k-incomparable"))
    assert "others: 72\u00a0% (1 report, not comparable)" in words


def test_an_ablation_has_a_mark_of_its_own_beside_other_evidence(board):
    stopped = {"ablation_state": "unfinished: epoch 2 of 9", "ablation_variant": "emonext-small"}
    changed = only(board, resemotenet=RELEASED | ABLATION, emonext=ABLATION | stopped)
    chart = timeline.accuracy_over_time(changed).body
    assert legend(chart) == ["record", "claimed", "clean", "measured", "released", "ablation"]
    for layout in LAYOUTS:
        words = [link.findtext("title") for link in links(chart, layout, "k-ablation")]
        assert [text.partition("\n")[0] for text in words] == ["ResEmoteNet: ablation", "EmoNeXt: ablation"]
        assert "\nablation emonext-small 60.00\u00a0% (58.40 to 61.60\u00a0%, unfinished: epoch 2 of 9)\n" in words[1]
        assert "\nablation resemotenet-small 60.00\u00a0% (58.40 to 61.60\u00a0%)\n" in words[0]
    assert "Pentagons" in timeline.accuracy_over_time_static(changed).caption
    none = timeline.accuracy_over_time_static(only(board))
    assert "Pentagons" not in none.caption
    shown = {artist.get_text() for artist in none.canvas("light").findobj(lambda one: hasattr(one, "get_text"))}
    assert "measured" in shown and "ablation" not in shown


@pytest.mark.parametrize("layout", LAYOUTS)
def test_marks_that_coincide_stand_apart(board, layout):
    """Two models of one day with equal ranges and claims, and one with every kind of mark at one height."""
    everything = RELEASED | UNFINISHED | ABLATION | REPORTS | {"measured": 0.6, "low": 0.58, "high": 0.62}
    same = {name: {**REPORTS, "claimed": 0.7} for name in ("mini_resemotenet_a", "mini_resemotenet_b")}
    changed = only(board, resemotenet=everything | {"released": 0.6, "released_high": 0.62}, **same)
    found = LAYOUTS[layout](changed).marks
    room = 55 if layout == "wide" else 7.5  # days; points
    for one, other in itertools.combinations(found, 2):
        apart = abs(one.at - other.at) >= room
        assert apart or one.high < other.low or other.high < one.low, (one.kind, other.kind, one.row.variant)
    assert len(found) == 17 + 2 + 5 + 2


def test_the_plain_baseline_is_a_band(board, markup):
    assert legend(markup)[-1] == "baseline" and "Band: plain baseline 70.20" in markup
    for name in LAYOUTS:
        (band,) = (group for group in drawing(markup, name).iter("g") if group.attrib.get("class") == "baseline")
        assert band.findtext("title") == "plain baseline 70.20\u00a0% (68.80 to 71.50\u00a0%, 3 seeds)"
        assert band.find(".//path") is not None
    assert "plain baseline" in timeline.accuracy_over_time_static(board, BAND).caption
    assert "plain baseline" not in timeline.accuracy_over_time_static(board).caption
    assert timeline.data_digest(board, BAND) != timeline.data_digest(board)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_mark_and_every_name_is_a_link_to_its_chapter(board, markup, layout):
    wanted = dict(zip(board["model"], board["slug"], strict=True))
    names = links(markup, layout, "name")
    assert {link.findtext(".//text").split(", ")[0] for link in names} == set(wanted)
    for link in [*names, *links(markup, layout, "mark")]:
        words = link.findtext("title")
        assert link.attrib["href"] == f"papers/{wanted[words.partition(':')[0].partition(chr(10))[0]]}.html"
    by_keyboard = [link for link in links(markup, layout, "mark") if "tabindex" not in link.attrib]
    assert len(by_keyboard) == len(LAYOUTS[layout](board).marks)
    reached = list(dict.fromkeys(link.attrib["href"] for link in by_keyboard))
    in_time = board.sort_values(["date", "claimed"], kind="stable")["slug"]
    assert reached == [f"papers/{slug}.html" for slug in dict.fromkeys(in_time)]


def test_a_mark_says_model_claim_and_verdict(markup):
    words = {link.findtext("title").partition(":")[0]: link.findtext("title") for link in links(markup, "wide", "mark")}
    assert "claimed 73.28\u00a0%" in words["VGGNet"] and "verdict: reproduced" in words["VGGNet"]
    assert "verdict: not run" in words["EmoNeXt"]


def test_the_chart_is_complete_without_anything_from_elsewhere(board, markup):
    assert re.findall(r"https?:|data:|\bsrc=|@import|url\((?!#)", markup) == []
    ids = re.findall(r'\bid="([^"]+)"', markup)
    assert len(ids) == len(set(ids)), "two drawings on one page"
    assert set(re.findall(r'href="#([^"]+)"', markup)) <= set(ids)
    label = "Accuracy on FER2013 over time, 17 claims from 2013 to 2025, 2 of them measured."
    assert f'<figure role="group" aria-label="{label}">' in markup
    assert len(markup.encode()) < 200_000
    rows = re.findall(r"<tr><th scope=row><a [^>]*>(.*?)</a></th>", markup)
    assert sorted(rows) == sorted(board["model"]), "the numbers can be read without the chart"


def test_one_drawing_serves_light_and_dark(markup):
    svgs = "".join(re.findall(r"<svg.*?</svg>", markup, re.S))
    assert re.findall(r"#[0-9a-fA-F]{6}\b", svgs) == []
    used = set(re.findall(r"var\((--chart-\w+)\)", svgs))
    assert {"--chart-ink", "--chart-measured", "--chart-claimed"} <= used
    assert all(markup.count(f"{name}:") == 3 for name in used), "light, dark, and light on paper"


def test_every_entry_of_the_legend_hides_its_marks(markup):
    for group in legend(markup):
        css = f"k-{group}" if group in KINDS else group
        assert f".fer-chart:has([value={group}]:not(:checked)) svg .{css}{{display:none}}" in markup
        assert any(css in element.attrib.get("class", "").split() for element in drawing(markup, "wide").iter()), css


def test_a_name_cannot_break_out_of_the_chart(board, markup):
    bad = board.copy()
    bad.loc[0, ["model", "ModelName"]] = "</script></title></svg><script>alert('x')</script>"
    broken = timeline.accuracy_over_time(bad, BAND).body
    assert "<script>alert" not in broken and broken.count("<script") == markup.count("<script")
    assert broken.count("</svg>") == markup.count("</svg>") and broken.count("</title>") == markup.count("</title>")


def test_a_chart_without_results_has_no_entry_for_them(board):
    none = only(board).assign(measured=np.nan, low=np.nan, high=np.nan)
    chart = timeline.accuracy_over_time(none).body
    assert legend(chart) == ["record", "claimed", "clean"]
    assert "0 of them measured" in chart


def test_a_foreign_table_is_refused(board):
    with pytest.raises(FerReproError, match="lacks verdict"):
        timeline.accuracy_over_time(board.drop(columns="verdict"))


def test_the_still_picture_names_every_model_and_carries_the_digest_of_its_data(board, tmp_path):
    figure = timeline.accuracy_over_time_static(board, BAND)
    canvas = figure.canvas("dark")
    shown = {artist.get_text() for artist in canvas.findobj(lambda artist: hasattr(artist, "get_text"))}
    assert set(board["model"]) <= shown and {"measured", "claimed", "plain baseline"} <= shown
    path = figure.save(tmp_path / "chart.png", background=LIGHT.page)
    assert timeline.picture_digest(path) == timeline.data_digest(board, BAND)
    changed = board.copy()
    changed.loc[changed["variant"] == "vggnet", "measured"] = 0.7215
    assert timeline.data_digest(changed, BAND) != timeline.picture_digest(path), "a new result makes the picture stale"
    Image.new("L", (2, 2)).save(tmp_path / "other.png")
    assert timeline.picture_digest(tmp_path / "other.png") == ""


def test_names_are_placed_apart_and_inside():
    random = np.random.default_rng(1)
    marks = [tuple(point) for point in random.uniform(60, 540, (12, 2))]
    sizes = [(60.0, 10.0)] * 12
    frame = (0.0, 0.0, 600.0, 600.0)
    boxes = []
    for (x, y), (dx, dy) in zip(marks, place_names(sizes, marks, [], frame, 1.0), strict=True):
        left = x + dx if dx > 1 else x + dx - 60 if dx < -1 else x - 30
        boxes.append((left, y + dy - 5, left + 60, y + dy + 5))
    assert all(0 <= b[0] and b[2] <= 600 and 0 <= b[1] and b[3] <= 600 for b in boxes)
    assert sum(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i]) == 0
    assert overlap((0, 0, 2, 2), (1, 1, 3, 3)) == 1 + CONTACT and overlap((0, 0, 1, 1), (1, 0, 2, 1)) == 0
