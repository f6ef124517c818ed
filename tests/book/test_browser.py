"""The built pages in a real browser, opened from their folder: what a reader sees, clicks and searches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fer_repro.leaderboard import leaderboard

CHART = "#fer-accuracy-over-time"
LEGEND = ("claimed", "measured", "record line", "clean subset")
PAGES = ("index", "leaderboard", "protocol", "rerun", "add-a-paper", "papers/resnet18-tricks", "papers/vggnet")
SCHEMES = ("light", "dark")


class Visit:
    """One page in one window, with everything it asked for and complained about."""

    def __init__(self, browser, html: Path, width: int = 1280, scheme: str = "light") -> None:
        self.html = html
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda line: self.complaints.append(line.text) if line.type == "error" else None)

    def open(self, name: str) -> Visit:
        self.page.goto(f"file://{self.html}/chapters/{name}.html")
        self.page.wait_for_load_state("load")
        return self

    def foreign_requests(self) -> list[str]:
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]


@pytest.fixture
def visit(browser, html) -> Iterator:
    opened: list[Visit] = []

    def make(name: str, **window) -> Visit:
        opened.append(Visit(browser, html, **window))
        return opened[-1].open(name)

    yield make
    for one in opened:
        one.page.close()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_page_loads_nothing_foreign_logs_no_error_and_fits_a_phone(visit, name, scheme):
    for width in (1280, 390):
        seen = visit(name, width=width, scheme=scheme)
        seen.page.wait_for_timeout(200)
        assert seen.foreign_requests() == []
        assert seen.complaints == []
        assert seen.page.evaluate("document.documentElement.dataset.theme") == scheme
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", SCHEMES)
def test_pages_are_readable_in_both_themes(visit, scheme):
    page = visit("papers/resnet18-tricks", scheme=scheme).page
    ink, paper = page.evaluate(
        """() => [getComputedStyle(document.querySelector('article p')).color,
                  getComputedStyle(document.body).backgroundColor]"""
    )
    assert (_luminance(ink) < 0.2) == (scheme == "light") and (_luminance(paper) > 0.8) == (scheme == "light")
    other = "dark" if scheme == "light" else "light"
    assert page.locator(f"article img.only-{scheme}:visible").count() >= 3
    assert page.locator(f"article img.only-{other}:visible").count() == 0
    formula = page.locator("article math").first
    assert formula.evaluate("m => getComputedStyle(m).color") == ink
    plates = page.locator("article div.cell_output .text_html:has(.fer)")
    grounds = plates.evaluate_all("all => all.map(e => getComputedStyle(e).backgroundColor)")
    assert grounds and all(ground == "rgba(0, 0, 0, 0)" for ground in grounds)


def test_formulas_are_shown(visit):
    page = visit("papers/resnet18-tricks").page
    boxes = page.locator("article math").evaluate_all("all => all.map(m => m.getBoundingClientRect().width)")
    assert len(boxes) > 3 and min(boxes) > 2
    assert page.locator("article mfrac").first.evaluate("f => f.getBoundingClientRect().height") > 15
    assert "\\frac" not in page.locator("article").inner_text()


def test_the_chart_shows_every_claim(visit):
    page = visit("leaderboard").page
    assert page.locator(f"{CHART} .main-svg").first.bounding_box()["width"] > 400
    assert page.locator(f"{CHART} .scatterlayer .point").count() >= len(leaderboard())
    legend = [text.lower() for text in page.locator(f"{CHART} .legendtext").all_text_contents()]
    for entry in LEGEND:
        assert any(text.startswith(entry) for text in legend), (entry, legend)


@pytest.mark.parametrize("entry", LEGEND)
def test_the_legend_hides_and_shows(visit, entry):
    page = visit("leaderboard").page
    states = f"document.querySelector('{CHART}').data.map(t => t.visible)"
    before = page.evaluate(states)
    toggle = page.locator(f"{CHART} .traces", has_text=entry).first.locator(".legendtoggle")
    toggle.click()
    page.wait_for_function(f"JSON.stringify({states}).includes('legendonly')")
    hidden = page.evaluate(states)
    assert hidden.count("legendonly") >= 1 and hidden != before
    page.wait_for_timeout(500)  # or the second click would be half of a double click
    toggle.click()
    page.wait_for_function(f"!JSON.stringify({states}).includes('legendonly')")


def test_hovering_shows_the_models_name_and_its_verdict(visit):
    page = visit("leaderboard").page
    row = leaderboard().iloc[0]
    page.locator(CHART).scroll_into_view_if_needed()
    place = page.evaluate(
        f"""date => {{
            const chart = document.querySelector('{CHART}'), layout = chart._fullLayout;
            for (const trace of chart.data) {{
                const at = Array.from(trace.x || []).findIndex(x => String(x).startsWith(date));
                if (at < 0 || !String(trace.mode).includes('markers')) continue;
                const box = chart.getBoundingClientRect();
                return [box.x + layout.xaxis._offset + layout.xaxis.d2p(trace.x[at]),
                        box.y + layout.yaxis._offset + layout.yaxis.d2p(trace.y[at])];
            }}
        }}""",
        row["date"],
    )
    page.mouse.move(place[0] - 3, place[1])
    page.mouse.move(*place)
    page.wait_for_selector(f"{CHART} .hoverlayer .hovertext")
    label = page.locator(f"{CHART} .hoverlayer .hovertext").first.text_content()
    assert row["model"] in label and row["verdict"] in label, label


def test_the_table_has_all_rows_and_sorts(visit):
    page = visit("leaderboard").page
    table = page.locator("article table", has=page.get_by_role("columnheader", name="ReleaseDate")).first
    heads = [text.strip() for text in table.locator("thead th").all_inner_texts()]
    for name in ("Paper", "Code", "Accuracy", "ModelName", "ReleaseDate"):
        assert name in heads, heads
    assert table.locator("tbody tr").count() == len(leaderboard())
    column = heads.index("Accuracy")
    read = f"t => [...t.querySelectorAll('tbody tr')].map(r => parseFloat(r.children[{column}].innerText))"
    table.locator("thead th").nth(column).locator("button").click()
    first = table.evaluate(read)
    table.locator("thead th").nth(column).locator("button").click()
    second = table.evaluate(read)
    assert first == sorted(first, reverse=first[0] > first[-1]) and second == first[::-1]


def test_search_works_from_a_folder(visit, html):
    seen = visit("index")
    seen.page.goto(f"file://{html}/search.html?q=mixup")
    seen.page.wait_for_selector("#search-results li")
    assert "ResNet18" in seen.page.locator("#search-results").inner_text()
    assert seen.foreign_requests() == []


def test_the_index_leads_to_the_front_page(browser, html):
    seen = Visit(browser, html)
    seen.page.goto(f"file://{html}/index.html")
    seen.page.wait_for_url("**/chapters/index.html")
    assert seen.page.locator("article h1").inner_text().startswith("FER2013")
    seen.page.close()


def test_the_chapter_can_be_downloaded_as_a_clean_notebook(html):
    from fer_repro.book import notebooks

    notebook = notebooks.read(html / "_sources" / "chapters" / "papers" / "resnet18-tricks.ipynb")
    assert any(cell.get("outputs") for cell in notebook.cells)
    assert "papermill" not in notebook.metadata


def _luminance(colour: str) -> float:
    """ "rgb(16, 20, 30)" -> 0..1, near enough to tell ink from paper."""
    red, green, blue = (float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
