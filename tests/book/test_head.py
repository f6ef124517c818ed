"""The head of every page: one title, description, viewport and h1, tags for link previews, a favicon, a language."""

from __future__ import annotations

import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

from docutils.core import publish_doctree

sys.path.insert(0, str(Path(__file__).parents[2] / "_ext"))
import fer_head

PREVIEW = ("og:title", "og:description", "og:type", "og:site_name")
LONG = "A sentence of this page says what was measured and how. " * 9


class Head(HTMLParser):
    """Elements and <meta> of one page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: Counter[str] = Counter()
        self.meta: list[tuple[str, str]] = []
        self.language = self.icon = ""
        self.targets: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        if tag != "title" or not self.elements["body"]:  # a drawing has titles, too
            self.elements[tag] += 1
        self.ids.add(named.get("id", ""))
        if tag == "html":
            self.language = named.get("lang", "")
        elif tag == "meta":
            self.meta.append((named.get("name") or named.get("property") or "", named.get("content", "")))
        elif tag == "link" and "icon" in named.get("rel", "").split():
            self.icon = named["href"]
        elif tag == "a" and len(self.targets) < 1:
            self.targets.append(named.get("href", ""))

    def values(self, name: str) -> list[str]:
        return [content for key, content in self.meta if key == name]


def test_every_page_says_what_it_is(html):
    pages = {
        path: Head(path.read_text(encoding="utf-8")) for path in html.rglob("*.html") if "_static" not in path.parts
    }
    pages.pop(html / "index.html")  # sends the reader on to the front page
    assert len(pages) > 20
    wrong = []
    for path, page in pages.items():
        checks = {
            "one h1": page.elements["h1"] == 1,
            "one title": page.elements["title"] == 1,
            "one main": page.elements["main"] == 1,
            "one viewport": len(page.values("viewport")) == 1,
            "language": page.language == "en",
            "favicon": (path.parent / page.icon).resolve() == html / "_static" / "favicon.svg",
            "skip link first": page.targets == ["#main-content"] and "main-content" in page.ids,
            "description": [50 <= len(words) <= 300 for words in page.values("description")] == [True],
            "link preview": all(len(page.values(name)) == 1 and page.values(name)[0] for name in PREVIEW),
            "same words": page.values("og:description") == page.values("description"),
            "no address": page.values("og:url") == [],
        }
        wrong += [f"{path.relative_to(html)}: {name}: {page.meta}" for name, fine in checks.items() if not fine]
    assert wrong == []
    described = Counter(page.values("description")[0] for page in pages.values())
    assert described.most_common(1)[0][1] == 1
    assert (html / "_static" / "favicon.svg").is_file()


def written(text: str):
    return publish_doctree(text, settings_overrides={"report_level": 5})


def test_a_description_is_the_beginning_of_the_first_full_paragraph():
    lead = "A line that leads to what stands below it on this page:"
    page = f"Title\n=====\n\n{lead}\n\n- a list\n\n:math:`x` {LONG}\n\n{LONG}"
    assert fer_head.describe(written(page)) == LONG[:280].strip()
    assert fer_head.describe(
        written(f"Two words and a note [1]_ with more than fifty characters.\n\n.. [1] {LONG}")
    ) == ("Two words and a note with more than fifty characters.")
    cut = fer_head.describe(written("word " * 100))
    assert cut.endswith("word\u2026") and len(cut) <= fer_head.LONGEST


def test_a_page_with_little_text_is_described_by_it_or_by_its_title():
    assert fer_head.describe(written("Title\n=====\n\nShort.")) == "Short."
    assert heads(written("Title\n=====\n\n- a list"))["description"] == ["A & B"]


def heads(doctree=None, site="", metatags="", title="A &amp; B") -> dict[str, list[str]]:
    config = SimpleNamespace(html_baseurl=site, project="The book")
    app = SimpleNamespace(config=config, builder=SimpleNamespace(get_target_uri=lambda name: f"{name}.html"))
    context = {"metatags": metatags, "title": title}
    fer_head.head(app, "chapters/x", "page.html", context, doctree)
    page = Head(context["metatags"] + context["head_tags"])
    return {name: page.values(name) for name, _ in page.meta}


def test_an_address_is_given_only_where_one_is_set():
    assert "og:url" not in heads(written(LONG))
    for site in ("https://example.org/fer", "https://example.org/fer/"):
        assert heads(written(LONG), site)["og:url"] == ["https://example.org/fer/chapters/x.html"]


def test_the_front_matter_describes_and_text_is_escaped():
    own = '<meta content="Its &quot;own&quot; words" name="description" /><meta name="viewport" content="width=1" />'
    found = heads(written(LONG), metatags=own)
    assert found["description"] == found["og:description"] == ['Its "own" words'] and "viewport" not in found
    assert found["og:title"] == ["A & B"]
    tricky = heads(written('A sentence with <b> & "quotes" that is longer than fifty characters.'))
    assert tricky["description"] == ['A sentence with <b> & "quotes" that is longer than fifty characters.']


def test_tables_and_folds_of_a_page_have_names():
    table = (
        '<div class="pst-scrollable-table-container"><table><thead><tr><th class="head"><p></p></th>'
        '<th class="head"><p><em>Paper</em> &amp; code</p></th></tr></thead></table></div>'
    )
    body = fer_head.accessible(table + '<summary aria-label="Toggle hidden content"><p>Show code</p></summary>')
    assert 'tabindex="0" role="group" aria-label="Table of Paper &amp; code"><table><thead><tr><td></td><th' in body
    assert "<summary><p>Show code" in body
