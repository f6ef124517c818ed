"""axe-core finds no fault on any page, in light and in dark, beyond those of the theme that are listed here."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

pytest.importorskip("axe_playwright_python", reason="axe-core is not installed (the extra test brings it)")

AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
CHECK = Path(__file__).with_name("axe.js").read_text(encoding="utf-8")
# Faults of the theme's own parts, as (rule, words of the selector): why they stay. The rest of the book has none.
KNOWN = {("definition-list", " > dl"): "Sphinx writes a signature of several lines as a list without terms"}
# A block that opens fades in; what is measured is what then stands there.
STILL = "*, *::before, *::after { animation: none !important; transition: none !important; }"
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 900}
# The theme makes code that scrolls reachable by keyboard some time after a window has changed its size.
SETTLED = "[...document.querySelectorAll('pre')].every(e => e.scrollWidth <= e.clientWidth || e.tabIndex === 0)"


def faults(page, path: Path, seen: set[str]) -> list[dict]:
    """Every fault that axe-core finds on one page; ``seen``: the styles of text checked so far, added to here."""
    page.set_viewport_size(DESK)
    page.goto(path.as_uri())
    page.wait_for_load_state("load")
    page.add_style_tag(content=STILL)
    page.evaluate(AXE)
    found = []
    for part, theme in (("structure", "light"), ("contrast", "light"), ("contrast", "dark"), ("phone", "light")):
        if part == "phone":
            page.set_viewport_size(PHONE)
            page.wait_for_function(SETTLED)
        known = sorted(seen) if part == "contrast" else []
        result = page.evaluate(CHECK, {"part": part, "theme": theme, "seen": known})
        seen.update(result["seen"])
        found += result["faults"]
    return found


def is_known(fault: dict) -> bool:
    return any(rule == fault["rule"] and words in fault["target"] for rule, words in KNOWN)


@pytest.fixture
def page(browser):
    one = browser.new_page(viewport=DESK, color_scheme="light")
    one.set_default_timeout(600_000)  # ms: a slow machine is no fault of a page
    yield one
    one.close()


def test_no_page_has_a_fault_beyond_the_list(html, page):
    pages = [path for path in sorted(html.rglob("*.html")) if "_static" not in path.parts]
    pages.remove(html / "index.html")  # sends the reader on to the front page
    assert len(pages) > 20
    seen: set[str] = set()
    new = [
        f"{path.relative_to(html)}: {fault}"
        for path in pages
        for fault in faults(page, path, seen)
        if not is_known(fault)
    ]
    assert new == []
    assert {key.split("|")[0] for key in seen} == {"light", "dark"}


@pytest.mark.parametrize(
    ("planted", "rule", "themes"),
    [
        ('<p style="color:#999">pale</p>', "color-contrast", {"light"}),
        ('<p style="color:#555">pale</p>', "color-contrast", {"dark"}),
        (
            "<details><summary>more</summary><table><tr><th></th></tr></table></details>",
            "empty-table-header",
            {"light"},
        ),
        (
            '<div style="width:9em;overflow:auto;height:2em"><p style="width:600px">wide</p></div>',
            "scrollable-region-focusable",
            {"light"},
        ),
        ('<button aria-label="Go">Stop</button>', "label-content-name-mismatch", {"light"}),
    ],
)
def test_a_planted_fault_is_found(page, tmp_path, planted, rule, themes):
    path = tmp_path / "page.html"
    style = "<style>[data-theme=dark] body{background:#121212;color:#eee}</style>"
    path.write_text(
        f'<!doctype html><html lang="en"><title>T</title>{style}<body><main><h1>T</h1>{planted}</main></body></html>'
    )
    found = faults(page, path, set())
    assert {(fault["rule"], fault["theme"]) for fault in found} == {(rule, theme) for theme in themes}, found
