"""The leaderboard's table in a real browser: sorted, filtered, searched, downloaded, at a desk and on a phone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest

from fer_repro.book.downloads import as_json
from fer_repro.leaderboard import leaderboard
from fer_repro.results import read_all

REGION = ".fer-board .fer-scroll"
ROWS = ".fer-board tbody tr"
FILTERS = {
    "Verdict": "verdict",
    "Class": "comparability",
    "Best evidence": "evidence",
    "Year": "year",
    "Extra data": "extra_data",
    "Test-time augmentation": "test_time_augmentation",
}
# As wide as letters come: what fits with the first that is there fits with the reader's own.
FONTS = ("Verdana, 'DejaVu Sans', sans-serif", "monospace")


@pytest.fixture(scope="module")
def board():
    table = leaderboard()
    return table.assign(year=table["date"].str[:4])


@pytest.fixture(scope="module")
def opened(browser, html) -> Iterator:
    """The leaderboard's page at a desk, loaded once for all tests of this file."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(600_000)  # ms: a slow machine is no fault of a page
    page.goto(f"file://{html}/chapters/leaderboard.html")
    yield page
    page.close()


@pytest.fixture
def page(opened, board):
    opened.get_by_role("button", name="Show all").click()
    opened.wait_for_function(f"document.querySelectorAll('{ROWS}:not([hidden])').length === {len(board)}")
    return opened


def models(page) -> list[str]:
    """The models that are shown, from top to bottom."""
    return [name.strip() for name in page.locator(f"{ROWS}:visible th a").all_inner_texts()]


def count(page) -> str:
    return page.locator(".fer-filters output").inner_text()


def test_it_has_all_models_and_sorts_by_a_click_and_by_keyboard(page, board):
    heads = [text.strip() for text in page.locator(".fer-board thead th").all_inner_texts()]
    assert {"Paper", "Code", "Accuracy", "ModelName", "ReleaseDate"} <= set(heads)
    assert sorted(models(page)) == sorted(board["ModelName"])
    for name in ("Accuracy", "ReleaseDate"):
        head = page.get_by_role("columnheader", name=name)
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        read = f"rows => rows.map(row => row.children[{heads.index(name)}].innerText)"
        assert page.locator(ROWS).evaluate_all(read) == [
            f"{v:.2f}" if name == "Accuracy" else v for v in sorted(board[name])
        ]
        head.get_by_role("button").press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        assert models(page)[0] == board.sort_values(name)["ModelName"].iloc[-1]
    assert page.locator(".fer-board th[aria-sort]").count() == 1


@pytest.mark.parametrize("label", FILTERS)
def test_each_filter_shows_the_models_that_it_names(page, board, label):
    select = page.get_by_role("combobox", name=label, exact=True)
    values = [value for value in select.locator("option").evaluate_all("all => all.map(o => o.value)") if value]
    assert set(values) == set(board[FILTERS[label]]) and len(values) > 1
    for value in values:
        select.select_option(value)
        wanted = set(board.loc[board[FILTERS[label]] == value, "ModelName"])
        assert set(models(page)) == wanted
        assert count(page) == f"{len(wanted)} of {len(board)} models"


def test_filters_and_search_work_together_and_stay_in_the_address(page, board):
    page.get_by_role("combobox", name="Class", exact=True).select_option("A")
    page.get_by_role("searchbox", name="Search", exact=True).fill("network")
    wanted = board[(board["comparability"] == "A") & board["Paper"].str.contains("Network")]["ModelName"]
    assert models(page) == list(wanted) and 0 < len(wanted) < (board["comparability"] == "A").sum()
    assert parse_qs(urlsplit(page.url).query) == {"class": ["A"], "search": ["network"]}
    page.reload()
    assert models(page) == list(wanted) and page.get_by_role("combobox", name="Class", exact=True).input_value() == "A"
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("location.search === ''")
    assert len(models(page)) == len(board)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("class A", lambda b: b["comparability"] == "A"),
        ("below Class: a", lambda b: (b["comparability"] == "A") & (b["verdict"] == "below")),
        ("vgg-19", lambda b: b["ModelName"] == "Segmentation VGG-19"),
        ("channel ATTENTION", lambda b: b["Paper"].str.contains("Channel")),
        ("not comparable", lambda b: (b["verdict"] == "not comparable") | b["others_comparable"].eq(False)),
        ("reports by others", lambda b: b["evidence"] == "others"),
        ("no such words", lambda b: b["ModelName"] == ""),
    ],
)
def test_the_search_knows_class_model_paper_verdict_and_evidence(page, board, asked, wanted):
    page.get_by_role("searchbox", name="Search", exact=True).fill(asked)
    names = list(board.loc[wanted(board), "ModelName"])
    assert sorted(models(page)) == sorted(names)
    assert count(page) == f"{len(names)} of {len(board)} models"


def saved(page, link) -> Path:
    """The file that a click on a link gives. From a folder a browser neither heeds the name that the link asks for nor
    saves JSON, which it shows: that is taken from where the link leads to."""
    address = Path(unquote(urlsplit(link.evaluate("a => a.href")).path))
    assert link.get_attribute("download").endswith(address.suffix)
    if address.suffix == ".json":
        return address
    with page.expect_download() as waiting:
        link.click()
    return waiting.value.path()


def test_the_downloads_are_what_leaderboard_gives(page):
    wanted = {"CSV": leaderboard().to_csv(index=False), "JSON": as_json(leaderboard())}
    for kind, content in wanted.items():
        file = saved(page, page.get_by_role("link", name=kind, exact=True))
        assert file.read_text(encoding="utf-8") == content


def test_a_models_row_leads_to_its_predictions(page):
    stored = next(one for one in read_all() if one.variant == "deep-emotion")
    row = page.locator(ROWS, has=page.get_by_role("link", name="DeepEmotion", exact=True))
    row.get_by_role("link", name="stored result").click()
    own = page.locator("#stored-deep-emotion")
    if own.get_attribute("open") is None:
        own.locator("summary").click()
    item = own.locator("li", has_text=f"deep-emotion/{stored.protocol}/seed-{stored.seed} ")
    with np.load(saved(page, item.get_by_role("link", name="predictions"))) as predictions:
        assert all(np.array_equal(predictions[name], array) for name, array in stored.predictions.items())
    record = saved(page, item.get_by_role("link", name="record")).read_text(encoding="utf-8")
    assert json.loads(record).items() >= stored.record.items()


def test_no_column_is_cut_whatever_the_font(page):
    fits = f"""() => {{
        const region = document.querySelector('{REGION}'), cell = region.closest('.cell_output');
        return [region.scrollWidth <= region.clientWidth, cell.scrollWidth <= cell.clientWidth,
                document.documentElement.scrollWidth <= innerWidth, region.getBoundingClientRect().right <= innerWidth];
    }}"""
    assert page.evaluate(fits) == [True] * 4
    for font in FONTS:
        style = page.add_style_tag(content=f".fer-board, .fer-board * {{font-family: {font} !important}}")
        assert page.evaluate(fits) == [True] * 4, font
        style.evaluate("tag => tag.remove()")


def test_on_a_phone_the_table_scrolls_in_itself_and_keeps_the_models_names(page):
    page.set_viewport_size({"width": 390, "height": 800})
    try:
        region, name = page.locator(REGION), page.locator(f"{ROWS} th").first
        assert region.evaluate("r => r.scrollWidth > r.clientWidth")
        faded = "r => parseFloat(getComputedStyle(r).getPropertyValue('--fer-fade'))"
        assert region.evaluate(faded) > 20  # px at the right edge: there is more
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        name.evaluate("th => th.scrollIntoView({block: 'center', behavior: 'instant'})")
        at = name.bounding_box()
        region.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function(f"document.querySelector('{REGION}').scrollLeft > 0")
        region.evaluate("r => { r.scrollLeft = r.scrollWidth; }")
        page.wait_for_function(f"({faded})(document.querySelector('{REGION}')) === 0")
        box = name.bounding_box()
        assert abs(box["x"] - at["x"]) < 2 and box["width"] < 0.45 * 390
        last = page.locator(f"{ROWS} td:last-child").first.bounding_box()
        assert box["x"] + box["width"] <= last["x"] and last["x"] + last["width"] <= 391
        covering = name.evaluate(
            "th => document.elementFromPoint(th.getBoundingClientRect().right - 3, th.getBoundingClientRect().y + 5)"
            "  .closest('th') === th"
        )
        assert covering, "the names lie above what scrolls below them"
        assert name.evaluate("th => getComputedStyle(th).backgroundColor") != "rgba(0, 0, 0, 0)"
    finally:
        page.set_viewport_size({"width": 1280, "height": 900})


def test_without_javascript_the_table_is_whole(browser, html, board):
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(f"file://{html}/chapters/leaderboard.html")
    assert models(plain) == list(board["ModelName"])
    assert not plain.locator(".fer-filters").is_visible() and plain.locator(".fer-board thead button").count() == 0
    assert plain.get_by_role("link", name="CSV", exact=True).is_visible()
    context.close()
