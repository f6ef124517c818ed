"""Small pieces of HTML: escaped text, links, tables, boxes, and the one style sheet they share.

Everything a page shows goes through here, so that escaping is done in one place. Strings from claims, results or a data
set are text; only functions of this module write tags.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fer_repro.data.dataset import SYNTHETIC_WORDS

SYNTHETIC = SYNTHETIC_WORDS
UNKNOWN = "unknown"

# Colours are the theme's variables with a fallback for plain Jupyter; currentColor and alpha read on both backgrounds.
CSS = """
.fer{--fer-ink:var(--pst-color-text-base,inherit);--fer-soft:var(--pst-color-text-muted,#6b7684);
--fer-line:var(--pst-color-border,rgba(128,140,155,.4));--fer-face:var(--pst-color-surface,rgba(128,140,155,.1));
--fer-link:var(--pst-color-link,#0a7d91);--fer-tone:#6b7684;color:var(--fer-ink);font-size:.95rem;line-height:1.5;
margin:.4rem 0 1.2rem}
.fer p{margin:.35rem 0}.fer a{color:var(--fer-link)}.fer code{font-size:.88em;overflow-wrap:anywhere}
.fer figure,.fer figcaption{margin:0;padding:0}
.fer figcaption,.fer .fer-small{color:var(--fer-soft);font-size:.86rem;text-align:left}
.fer img{max-width:100%;height:auto;background:transparent!important;padding:0!important;filter:none!important}
.fer .only-dark{display:none}.fer .only-light{display:inline}
[data-theme=dark] .fer .only-dark,[data-jp-theme-light=false] .fer .only-dark{display:inline}
[data-theme=dark] .fer .only-light,[data-jp-theme-light=false] .fer .only-light{display:none!important}
html[data-theme=dark] .bd-content div.cell_output .text_html:has(.fer){background:transparent!important;
color:inherit!important;padding:0!important}
.fer-card{border:1px solid var(--fer-line);border-left:.35rem solid var(--fer-tone);border-radius:.35rem;
padding:.8rem 1.1rem .9rem;margin:.6rem 0}
.fer-kicker{color:var(--fer-soft);font-size:.78rem;letter-spacing:.07em;text-transform:uppercase;font-weight:600}
.fer-head{display:flex;flex-wrap:wrap;align-items:baseline;gap:.1rem 1rem}
.fer-big{font-size:1.75rem;font-weight:650;line-height:1.25;font-variant-numeric:tabular-nums}
.fer-name{font-size:1.12rem;font-weight:600}
.fer dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.22rem 1.1rem;margin:.55rem 0 0}
.fer dt{color:var(--fer-soft);font-weight:400;margin:0}.fer dd{margin:0;overflow-wrap:anywhere}
.fer-badge{display:inline-block;min-width:1.5em;padding:0 .45em;border-radius:.3em;font-weight:700;text-align:center;
border:1.5px solid currentColor}
.fer-note{border-left:.25rem solid #d55e00;background:var(--fer-face);padding:.5rem .9rem;border-radius:.25rem;
margin:.5rem 0}
.fer-scroll{overflow-x:auto}
.fer table{border-collapse:collapse;border:0;margin:.3rem 0;width:auto;max-width:100%;font-size:.87rem;color:inherit;
font-variant-numeric:tabular-nums}
.fer caption{caption-side:top;text-align:left;color:var(--fer-soft);font-size:.86rem;padding:.2rem 0 .4rem;
max-width:42rem}
.fer th,.fer td{padding:.32rem .55rem;border:0;border-bottom:1px solid var(--fer-line);text-align:left;
vertical-align:top;background:transparent}
.fer thead th{border-bottom:2px solid var(--fer-line);vertical-align:bottom;font-weight:600}
.fer tbody th{font-weight:500}.fer .num{text-align:right}.fer td.num,.fer-fixed{white-space:nowrap}
.fer tr{background:transparent!important}.fer tbody tr:hover{background:var(--fer-face)!important}
.fer details{margin:.5rem 0 0}.fer summary{cursor:pointer;color:var(--fer-soft)}
.fer thead button{all:unset;cursor:pointer;font-weight:600}
.fer thead button:focus-visible{outline:2px solid var(--fer-link)}
.fer thead button:hover{text-decoration:underline dotted}
.fer th[aria-sort=ascending] button::after{content:"\\2009\\2191"}
.fer th[aria-sort=descending] button::after{content:"\\2009\\2193"}
.fer input[type=search]{font:inherit;color:inherit;background:transparent;border:1px solid var(--fer-line);
border-radius:.3rem;padding:.2rem .6rem;width:16rem;max-width:100%;margin:0 .4rem}
.fer-wide{min-width:9.5rem}.fer-board table{font-size:.84rem}.fer-board th,.fer-board td{padding:.32rem .4rem}
@media(max-width:40rem){.fer dl{grid-template-columns:1fr;gap:0}.fer dd{margin-bottom:.4rem}}
"""


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
    """29890759 -> "29,890,759"."""
    return missing if absent(number) else f"{int(number):,}"


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


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    caption: str = "",
    numeric: Iterable[int] = (),
    attributes: str = "",
) -> str:
    """A table whose first column heads its rows. Header and caption are text, cells are markup already.

    ``numeric``: indices of right-aligned columns. ``attributes`` go into the table tag as they are.
    """
    right = set(numeric)
    css = ["num" if index in right else "" for index in range(len(header))]

    def cell(index: int, value: str, tag: str, more: str = "") -> str:
        return f"<{tag}{f' class={css[index]}' if css[index] else ''}{more}>{value}</{tag}>"

    head = "".join(cell(i, text(name, ""), "th", " scope=col") for i, name in enumerate(header))
    body = "".join(
        "<tr>"
        + "".join(cell(i, v, "td" if i else "th", "" if i else " scope=row") for i, v in enumerate(row))
        + "</tr>"
        for row in rows
    )
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    return (
        f"<div class=fer-scroll tabindex=0><table {attributes}>{title}<thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def note(title: str, body: str) -> str:
    """A visible remark; title is text, body is markup already."""
    return f'<div class="fer-note" role="note"><strong>{text(title)}</strong> {body}</div>'


def details(summary: str, body: str) -> str:
    """A folded piece; summary is text, body is markup already."""
    return f"<details><summary>{text(summary)}</summary>{body}</details>"


def synthetic_note(synthetic: bool) -> str:
    """The sentence that every number from synthetic faces carries, as a visible remark; empty for real data."""
    return note("Mind:", f"{text(SYNTHETIC)}.") if synthetic else ""
