"""The accuracy-over-time chart in a real browser: links, legend, words at a mark, phone, keyboard, paper, no script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fer_repro.leaderboard import leaderboard

CHART = ".fer-chart"
TIP = f"{CHART} .fer-tip"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
# Of the drawing that is shown: the links whose own middle, and for a name whose text, belongs to something else.
COVERED = """css => [...document.querySelectorAll(`.fer-chart svg a.${css}`)].filter(link => {
    const box = (link.querySelector('text') || link).getBoundingClientRect();
    const found = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
    return link.checkVisibility() && found?.closest('a') !== link;
}).map(link => link.getAttribute('aria-label'))"""
FONT_SIZES = """() => [...document.querySelectorAll('.fer-chart svg text')].filter(text => text.checkVisibility())
    .map(text => [parseFloat(getComputedStyle(text).fontSize), text.getScreenCTM()])
    .map(([size, place]) => size * Math.hypot(place.a, place.b))"""


@pytest.fixture
def visit(browser, html) -> Iterator[Callable[..., Any]]:
    """Opens a page of the book in a window of its own: width and height, or any option of a browser context."""
    contexts = []

    def make(name: str, width: int = 1280, height: int = 1600, **options: Any) -> Any:
        contexts.append(browser.new_context(**{"viewport": {"width": width, "height": height}, **options}))
        page = contexts[-1].new_page()
        page.set_default_timeout(600_000)  # ms: a slow machine is no fault of a page
        page.goto(f"file://{html}/chapters/{name}.html")
        return page

    yield make
    for context in contexts:
        context.close()


def shown(page: Any, css: str) -> int:
    return page.locator(f"{CHART} svg a.{css}:visible").count()


@pytest.mark.parametrize("name", ["index", "leaderboard"])
def test_a_click_on_a_mark_or_on_a_name_opens_the_chapter(visit, name):
    page, board = visit(name), leaderboard()
    assert shown(page, "name") == board["pinned"].sum() and shown(page, "mark") > board["pinned"].sum()
    page.locator(f"{CHART} svg.wide a.k-measured[href*=local-learning-bow]").click()
    page.wait_for_url("**/papers/local-learning-bow.html")
    page.go_back()
    page.locator(f"{CHART} svg.wide a.name text", has_text="VGGNet").click()  # a line may lead from it to its point
    page.wait_for_url("**/papers/vggnet.html")


def test_the_legend_hides_and_shows_by_mouse_and_by_keyboard(visit):
    page = visit("leaderboard")
    entries = page.locator(f"{CHART} .fer-legend label")
    assert {"record line", "claimed", "measured", "plain baseline"} <= {
        text.strip() for text in entries.all_inner_texts()
    }
    before = {kind: shown(page, f"k-{kind}") for kind in ("claimed", "clean", "measured")}
    assert all(before.values())
    entries.get_by_text("measured", exact=True).click()
    assert shown(page, "k-measured") == 0 and shown(page, "k-claimed") == before["claimed"]
    box = page.get_by_role("checkbox", name="claimed", exact=True)
    box.focus()
    page.keyboard.press("Space")
    assert shown(page, "k-claimed") == 0 and shown(page, "k-clean") == before["clean"]
    page.keyboard.press("Space")
    entries.get_by_text("measured", exact=True).click()
    assert {kind: shown(page, f"k-{kind}") for kind in before} == before


def test_pointer_and_keyboard_show_the_words_of_a_mark(visit):
    page = visit("leaderboard")
    row = leaderboard().set_index("variant").loc["vggnet"]
    tip = page.locator(TIP)
    assert tip.is_hidden()
    page.locator(f"{CHART} svg.wide a.mark.k-claimed[href*=vggnet]").hover()
    words = tip.inner_text()
    assert row["model"] in words and f"claimed {row['Accuracy']:.2f}" in words and f"verdict: {row['verdict']}" in words
    page.mouse.move(1, 1)
    assert tip.is_hidden()
    page.locator(f"{CHART} .fer-legend input").last.focus()
    page.keyboard.press("Tab")  # from the legend to the oldest claim
    oldest = leaderboard().sort_values("date")["model"].iloc[0]
    assert tip.inner_text().startswith(f"{oldest}: claimed")
    page.keyboard.press("Tab")
    assert tip.inner_text().startswith(f"{oldest}: measured")
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    page.keyboard.press("Enter")
    page.wait_for_url("**/papers/local-learning-bow.html")


@pytest.mark.parametrize("width", [1280, 390])
def test_no_mark_or_name_covers_another(visit, width):
    page = visit("index", width=width, height=4000)
    page.wait_for_selector(f"{CHART}[data-live]")
    assert page.evaluate(COVERED, "mark") == []
    assert page.evaluate(COVERED, "name") == []
    assert min(page.evaluate(FONT_SIZES)) >= 10
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_swipe_on_the_chart_scrolls_a_phone(visit):
    page = visit("index", **PHONE)
    drawing = page.locator(f"{CHART} svg.narrow")
    drawing.scroll_into_view_if_needed()
    box, before = drawing.bounding_box(), page.evaluate("scrollY")
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    finger = page.context.new_cdp_session(page)
    for kind, moved in (
        ("touchStart", 0),
        *(("touchMove", step) for step in range(-30, -330, -30)),
        ("touchEnd", None),
    ):
        points = [] if moved is None else [{"x": x, "y": y + moved}]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_function(f"scrollY > {before} + 100")
    assert page.url.endswith("/index.html")
    page.locator(f"{CHART} svg.narrow a.name", has_text="DeepEmotion").tap()
    page.wait_for_url("**/papers/deep-emotion.html")


def test_without_a_script_the_chart_is_complete(visit):
    page = visit("index", java_script_enabled=False)
    pinned = leaderboard()["pinned"].sum()
    assert shown(page, "name") == pinned and shown(page, "mark") > pinned
    assert "verdict: " in page.locator(f"{CHART} svg.wide a.mark title").first.text_content()
    page.locator(f"{CHART} .fer-legend label").get_by_text("measured", exact=True).click()
    assert shown(page, "k-measured") == 0
    page.locator(f"{CHART} svg.wide a.mark.k-clean[href*=lhc-net]").click()
    page.wait_for_url("**/papers/lhc-net.html")


def test_on_paper_it_is_the_same_picture_on_white(visit):
    page = visit("index", color_scheme="dark")
    page.emulate_media(media="print")
    assert page.locator(f"{CHART} svg.wide").is_visible()
    ink = page.locator(f"{CHART} svg.wide a.name text").first.evaluate("text => getComputedStyle(text).fill")
    assert ink == "rgb(34, 40, 50)", "the ink of light pages"
