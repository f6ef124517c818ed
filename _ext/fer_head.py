"""What the head of a page says about it, and the parts of Sphinx' markup that a screen reader stumbles over.

Every page gets one description, for search engines and link previews: the ``description`` of its front matter or,
where it has none, the beginning of its first full paragraph. An address in these tags must be absolute, so ``og:url``
appears only where ``html_baseurl`` says where the site is. Parts of the theme are corrected in ``templates``.
"""

from __future__ import annotations

import os
import re
from html import escape, unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

SHORTEST, FULL, LONGEST = 50, 90, 300  # characters: of a cut description, of a paragraph that is one, of any
# Pages that Sphinx makes itself.
GENERATED = {
    "search": "Search every page of this book: papers, models, protocols, measurements and the words they use.",
    "genindex": "The index of this book: every term and name with the pages on which it is explained.",
}
# What a paragraph holds beside its text.
UNREAD = (nodes.footnote_reference, nodes.citation_reference, nodes.image, nodes.raw)
DESCRIPTION = re.compile(r'<meta[^>]*\bname="description"[^>]*>')
VIEWPORT = re.compile(r'<meta[^>]*\bname="viewport"[^>]*>\s*')
TABLE_BOX = re.compile(r'<div class="pst-scrollable-table-container">(?=(.*?)</thead>)', re.S)
CELL = re.compile(r"<th\b[^>]*>(.*?)</th>", re.S)
FOLD = '<summary aria-label="Toggle hidden content">'  # myst-nb: another name than the words that stand there
EMPTY_HEAD = re.compile(r'<th class="head">(?:<p></p>)?</th>')
TAG = re.compile(r"<[^>]+>")


def describe(doctree: nodes.document) -> str:
    """The first full paragraph of a page as plain text of at most 300 characters, cut where a sentence or word ends.

    A line that only leads to something below it, and a paragraph with a formula, are not taken where the page has
    others; a page with little text has all of it, one without text none.
    """
    own = [p for p in doctree.findall(nodes.paragraph) if isinstance(p.parent, (nodes.section, nodes.document))]
    full = (_plain(paragraph) for paragraph in own if not any(paragraph.findall(nodes.math)))
    found = next((words for words in full if len(words) >= FULL), " ".join(map(_plain, own)))
    return _cut(found)


def _plain(paragraph: nodes.paragraph) -> str:
    copy = paragraph.deepcopy()
    for node in list(copy.findall(lambda one: isinstance(one, UNREAD))):
        node.parent.remove(node)
    return " ".join(copy.astext().split())


def _cut(words: str) -> str:
    if len(words) <= LONGEST:
        return words
    start = words[: LONGEST - 1]
    sentence = start.rfind(". ") + 1
    return start[:sentence] if sentence >= SHORTEST else start[: start.rfind(" ")].rstrip(",;:") + "\u2026"


def head(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give a page its description and ``og:`` tags, and correct its body."""
    # docutils writes a viewport tag of its own beside that of the layout.
    context["metatags"] = given = VIEWPORT.sub("", context.get("metatags", ""))
    title = unescape(TAG.sub("", context.get("title") or "")) or pagename
    own = DESCRIPTION.search(given)
    if own:
        described = unescape(re.search(r'\bcontent="([^"]*)"', own.group()).group(1))
    else:
        described = (
            describe(doctree) or title if doctree else GENERATED.get(pagename, f"{app.config.project}: {pagename}")
        )
    site = app.config.html_baseurl
    tags = {"og:title": title, "og:description": described, "og:type": "website", "og:site_name": app.config.project}
    if site:
        base = f"{site.rstrip('/')}/"
        tags |= {"og:url": urljoin(base, app.builder.get_target_uri(pagename))}
    lines = [f'<meta property="{name}" content="{escape(value)}">' for name, value in tags.items()]
    if not own:
        lines.insert(0, f'<meta name="description" content="{escape(described)}">')
    context["head_tags"] = "\n".join(lines)
    if "body" in context:
        context["body"] = accessible(context["body"])


def accessible(body: str) -> str:
    """Names for folds and tables: a fold has that of its words, the box of a Markdown table says what its columns are
    and is reached by keyboard; an empty corner of a table is no header."""
    return EMPTY_HEAD.sub("<td></td>", TABLE_BOX.sub(_table_box, body.replace(FOLD, "<summary>")))


def _table_box(found: re.Match[str]) -> str:
    names = [TAG.sub("", cell).strip() for cell in CELL.findall(found.group(1))]
    label = escape(unescape(f"Table of {', '.join(filter(None, names))}"))
    return f'<div class="pst-scrollable-table-container" tabindex="0" role="group" aria-label="{label}">'


def add_templates(app: Sphinx, config: Config) -> None:
    # Relative: a book is the same wherever it is built.
    own = os.path.relpath(Path(__file__).resolve().parent / "templates", Path(app.confdir).resolve())
    config.templates_path = [own, *config.templates_path]


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", add_templates)
    app.connect("html-page-context", head, priority=950)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
