"""The built pages in a real browser, opened from their folder: what a reader sees, clicks and searches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fer_repro.leaderboard import leaderboard

PAGES = ("index", "leaderboard", "protocol", "packages", "baseline", "rerun", "add-a-paper")
PAGES += ("papers/deep-emotion", "papers/resnet18-tricks", "papers/vggnet", "../genindex")
SCHEMES = ("light", "dark")
# Tables that scroll sideways in their column, folded ones too; the leaderboard's own may.
TOO_WIDE = """() => {
    document.querySelectorAll("details").forEach(block => { block.open = true; });
    return [...document.querySelectorAll(".fer table")].filter(table => !table.closest(".fer-board"))
        .filter(table => table.scrollWidth > table.clientWidth + 1).map(table => table.innerText.slice(0, 60));
}"""


class Visit:
    """One page in one window, with everything it asked for and complained about."""

    def __init__(self, browser, html: Path, width: int = 1280, scheme: str = "light") -> None:
        self.html = html
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page.set_default_timeout(600_000)  # ms: a slow machine is no fault of a page
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
        assert width < 1280 or name in ("index", "leaderboard") or seen.page.evaluate(TOO_WIDE) == []
        assert seen.page.evaluate("document.documentElement.dataset.theme") == scheme
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", SCHEMES)
def test_pages_are_readable_in_both_themes(visit, scheme):
    page = visit("papers/deep-emotion", scheme=scheme).page
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


def test_the_front_pages_table_leads_to_every_chapter_and_is_not_cut(visit):
    page = visit("index").page
    table = page.locator("article table", has=page.get_by_role("columnheader", name="Claimed")).first
    links = table.locator("tbody td:first-child a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    pinned = leaderboard()
    assert links == [f"papers/{slug}.html" for slug in pinned.loc[pinned["pinned"], "slug"]]
    assert table.evaluate("t => t.scrollWidth <= t.parentElement.clientWidth + 1")


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
