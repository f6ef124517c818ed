"""The fade at the right edge of a table that scrolls: it lies over cells, never over the caption."""

from __future__ import annotations

from fer_repro.markup import Html, table
from fer_repro.project import project_root

WORDS = "A caption of so many words that it fills its line from one end to the other, wherever the line ends. "


def test_a_caption_ends_before_the_fade(browser):
    css = (project_root() / "_static" / "fer.css").read_text(encoding="utf-8")
    tables = [table(["Name"] * columns, [["unbreakable-words"] * columns], 3 * WORDS) for columns in (9, 1)]
    shown = "".join(Html(one, "")._repr_html_() for one in tables)
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.set_content(f'<style>*{{box-sizing:border-box}}{css}</style><article class="bd-article">{shown}</article>')
    wide, narrow = page.evaluate(
        """() => [...document.querySelectorAll('.fer-scroll')].map(box => {
            const words = document.createRange();
            words.selectNodeContents(box.querySelector('caption'));
            return {scrolls: box.scrollWidth > box.clientWidth, left: box.getBoundingClientRect().right,
                    kept: parseFloat(getComputedStyle(box.querySelector('caption')).paddingRight),
                    fade: parseFloat(getComputedStyle(box).getPropertyValue('--fer-fade')),
                    end: Math.max(...[...words.getClientRects()].map(line => line.right))};
        })"""
    )
    page.close()
    assert wide["scrolls"] and wide["fade"] > 20 and wide["end"] <= wide["left"] - wide["fade"]
    assert not narrow["scrolls"] and not narrow["fade"] and narrow["kept"] == 0
