"""Small pieces of HTML: escaped text, links, tables, boxes, and the one style sheet they share.

Everything a page shows goes through here, so that escaping is done in one place. Strings from claims, results or a data
set are text; only functions of this module write tags.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fer_repro.data.dataset import SYNTHETIC_WORDS

SYNTHETIC = SYNTHETIC_WORDS
SMOKE_TEST = "Smoke test on synthetic faces: not a result"
UNKNOWN = "unknown"

# The style sheet of every card, table and figure, without the comments of its file.
CSS = re.sub(
    r"/\*.*?\*/\s*", "", (Path(__file__).parent / "plots" / "style.css").read_text(encoding="utf-8"), flags=re.S
)


@dataclass(frozen=True)
class Html:
    """A finished piece of page: ``body`` is markup, ``plain`` what a terminal shows instead."""

    body: str
    plain: str

    def _repr_html_(self) -> str:
        return f'<style>{CSS}</style><div class="fer">{self.body}</div>'

    def __repr__(self) -> str:
        return self.plain


def text(value: Any, missing: str = UNKNOWN) -> str:
    """Escape any value; None, NaN and the empty string become ``missing``."""
    return html.escape(missing if absent(value) else str(value), quote=True)


def absent(value: Any) -> bool:
    """True for None, the empty string, NaN and NaT."""
    if value is None or value == "":
        return True
    return bool(value != value) if not isinstance(value, (list, tuple, dict)) else not value


def with_code(value: str) -> str:
    """Escape text in which `backticks` mark code, and show that as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text(value))


def shell(command: str) -> str:
    """A command as code that breaks between its words only, and inside a long value: an option stays in one piece."""
    kept = re.sub(r"(?<!\S)(--\S+|fer-repro)", r'<span class="fer-fixed">\1</span>', text(command))
    return f"<code>{kept}</code>"


def words(value: Any, missing: str = UNKNOWN) -> str:
    """Escape a value that may be a list (joined with "+"), a truth value ("yes"/"no") or missing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)) and value:
        return " + ".join(text(v) for v in value)
    return text(value, missing)


def link(url: Any, label: Any) -> str:
    """An anchor for http(s) addresses; anything else is shown as text, so that a claim cannot smuggle in a script."""
    if not isinstance(url, str) or not is_web(url):
        return text(label)
    return f'<a href="{html.escape(url, quote=True)}" rel="noopener">{text(label)}</a>'


def is_web(url: str) -> bool:
    """True for an absolute http or https address without blanks or control characters."""
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.netloc) and not any(c.isspace() or ord(c) < 32 for c in url)


SOURCE = re.compile(
    r"(?:(?P<repository>[A-Za-z\d-]+/[\w.-]*\w)(?: issues? #(?P<issue>\d+)| @(?P<commit>[\da-f]{7,40}))?"
    r"|(?P<page>(?:[\w-]+\.)+[a-z]{2,}/[^\s,;]+))(?=[\s,;]|$)"
)
"""How a source names what can be opened: a repository on GitHub, perhaps at an issue or a commit, or host and path."""


def sourced(source: str) -> str:
    """Where a fact stands, in words that name places on the web: each that a part of the words begins with is a link.
    Parts end at a semicolon. Markup."""
    return link(source, source) if is_web(source) else "; ".join(map(_part, source.split("; ")))


def _part(words: str) -> str:
    found = SOURCE.match(words)
    if not found:
        return text(words)
    if found["page"]:
        url = f"https://{found['page']}"
    else:
        place = f"/issues/{found['issue']}" if found["issue"] else f"/tree/{found['commit']}" if found["commit"] else ""
        url = f"https://github.com/{found['repository']}{place}"
    rest = words[found.end() :]
    return link(url, found[0]) + (text(rest) if rest else "")


def percent(fraction: float | None, digits: int = 2, missing: str = UNKNOWN) -> str:
    """0.7328 -> "73.28 %" (fraction 0..1; a no-break space before the sign)."""
    if absent(fraction) or not math.isfinite(fraction):
        return missing
    return f"{100 * fraction:.{digits}f}\u00a0%"


def interval(bounds: Sequence[float] | None, missing: str = UNKNOWN) -> str:
    """(0.7181, 0.7470) -> "71.81 to 74.70 %"."""
    if absent(bounds):
        return missing
    low, high = bounds
    return f"{100 * low:.2f} to {100 * high:.2f}\u00a0%"


def whole(number: float | None, missing: str = UNKNOWN) -> str:
    """29890759 -> "29,890,759"; a fraction is rounded."""
    return missing if absent(number) else f"{round(number):,}"


def per_second(number: float | None, missing: str = UNKNOWN) -> str:
    """A speed, rounded: 1634.7 -> "1,635", below 10 with one decimal: 5.911 -> "5.9"."""
    if absent(number) or round(number, 1) >= 10:
        return whole(number, missing)
    return f"{number:.1f}"


def seconds(amount: float | None, missing: str = UNKNOWN) -> str:
    """A duration in the unit a person would choose: "8.4 s", "12 min", "3.1 h"."""
    if absent(amount):
        return missing
    if amount < 100:
        return f"{amount:.1f} s"
    return f"{amount / 60:.0f} min" if amount < 5400 else f"{amount / 3600:.1f} h"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A definition list; terms are text, values are markup already."""
    return "<dl>" + "".join(f"<dt>{text(term)}</dt><dd>{value}</dd>" for term, value in pairs) + "</dl>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", numeric: Iterable[int] = ()) -> str:
    """A table whose first column heads its rows. Header and caption are text, cells are markup already.

    ``numeric``: indices of right-aligned columns. A column without a name has no header cell.
    """
    right = set(numeric)
    css = [" class=num" if index in right else "" for index in range(len(header))]
    head = "".join(f"<th{css[i]} scope=col>{text(name)}</th>" if name else "<td></td>" for i, name in enumerate(header))
    body = "".join(
        f"<tr><th{css[0]} scope=row>{first}</th>"
        + "".join(f"<td{style}>{value}</td>" for style, value in zip(css[1:], others, strict=False))
        + "</tr>"
        for first, *others in rows
    )
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    return (
        f'<div class="fer-scroll" tabindex="0" role="group" aria-label="{table_name(caption, header)}">'
        f"<table>{title}<thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def table_name(caption: str, header: Iterable[str]) -> str:
    """What a screen reader calls the box a wide table scrolls in, as the text of an attribute."""
    return text(f"Table: {caption}" if caption else f"Table of {', '.join(filter(None, header))}")


def small(value: Any, missing: str = UNKNOWN) -> str:
    """A value as small text."""
    return f'<span class="fer-small">{text(value, missing)}</span>'


def breaking(markup: str) -> str:
    """A cell's markup whose long names (of repositories, of files) break anywhere instead of widening the table."""
    return f'<div class="fer-breaks">{markup}</div>'


def with_interval(share: float | None, bounds: Sequence[float] | None, digits: int = 2) -> str:
    """A share in percent, and its interval below in small text."""
    return f"{percent(share, digits)}<br>{small(interval(bounds))}"


def note(title: str, body: str) -> str:
    """A visible remark; title is text, body is markup already."""
    return f'<div class="fer-note" role="note"><strong>{text(title)}</strong> {body}</div>'


def details(summary: str, body: str) -> str:
    """A folded piece; summary is text, body is markup already."""
    return f"<details><summary>{text(summary)}</summary>{body}</details>"


def remark_note(remark: str) -> str:
    """What every number of a result must say (`Result.remark`), as a visible remark; empty where there is nothing."""
    return note("Note:", f"{text(remark)}.") if remark else ""
