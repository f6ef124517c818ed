"""Checks of built pages: dead links, pictures without alternative text, resources from other sites, weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes that a browser loads by itself, without a click, and the elements that have them.
LOADED = {
    "src": {"script", "img", "iframe", "embed", "source", "video", "audio", "track"},
    "srcset": {"img", "source"},
    "data": {"object"},
    "poster": {"video"},
    "href": {"image"},
}
# Of <link>, only these name a page for a reader or a robot; all others are fetched.
NAMING_LINKS = {"next", "prev", "canonical", "author", "search", "index", "alternate", "license", "help"}
# Bytes of a page without its pictures, and of all files together: what a reader's line and a small host can bear.
HEAVIEST_PAGE, HEAVIEST_SITE = 600_000, 25_000_000
# The theme puts its search field on the search page twice, with one id.
KNOWN = {("search.html", "search-input")}


@dataclass
class Page(HTMLParser):
    """What one page holds: ids, links to follow, resources loaded, pictures without alternative text."""

    path: Path
    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if "id" in named:
            self.ids.append(named["id"])
        if tag == "a" and named.get("href"):
            self.links.append(named["href"])
        if tag == "link" and named.get("href") and not NAMING_LINKS & set(named.get("rel", "").split()):
            self.loaded.append(named["href"])
        for name, tags in LOADED.items():
            if tag in tags and named.get(name):
                several = [part.split()[0] for part in named[name].split(", ")]
                self.loaded += several if name == "srcset" else [named[name]]
        if tag == "img" and not named.get("alt") and named.get("role") != "presentation":
            self.silent.append(named.get("src", "")[:60])


def problems(folder: Path) -> list[str]:
    """Every fault of the pages below ``folder``, one sentence each; an empty list when all is well.

    Checked: links and resources inside the book exist, with their fragments; nothing is loaded from another host; every
    picture has alternative text; no id appears twice on a page; no page and not the whole is too heavy. Links to other
    sites are not followed.
    """
    folder = folder.resolve()  # a relative folder would make every fragment look foreign
    pages = {path: Page(path) for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts}
    if not pages:
        return [f"{folder} holds no HTML page"]
    found = [
        f"{page.path.relative_to(folder)}: {what}" for page in pages.values() for what in _faults(page, pages, folder)
    ]
    return [*_too_heavy(folder), *found]


def _too_heavy(folder: Path) -> Iterator[str]:
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    if (whole := sum(sizes.values())) > HEAVIEST_SITE:
        largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:3]
        named = ", ".join(f"{path.relative_to(folder)} ({sizes[path] / 1e6:.1f} MB)" for path in largest)
        most = f"{HEAVIEST_SITE / 1e6:.0f}"
        yield f"the book has {whole / 1e6:.1f} MB, at most {most} are allowed; the largest files are {named}"


def _faults(page: Page, pages: dict[Path, Page], folder: Path) -> Iterator[str]:
    for address in page.loaded:
        parts = urlsplit(address)
        if parts.netloc or parts.scheme in ("http", "https"):
            yield f"loads {address} from another site"
    if (size := page.path.stat().st_size) > HEAVIEST_PAGE:
        most = f"{HEAVIEST_PAGE / 1e3:.0f}"
        yield f"has {size / 1e3:.0f} kB, at most {most} are allowed: show less on it, or as a picture"
    yield from filter(None, (_dead(page, address, pages, folder) for address in [*page.loaded, *page.links]))
    yield from (f"picture {source} has no alternative text" for source in page.silent)
    for name, count in sorted(Counter(page.ids).items()):
        if count > 1 and (page.path.name, name) not in KNOWN:
            yield f"id '{name}' appears {count} times"


def _dead(page: Page, address: str, pages: dict[Path, Page], folder: Path) -> str:
    """Why an address inside the book leads nowhere, or an empty text."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:  # another site, or data:, mailto:, javascript:, which ask for no file
        return ""
    target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
    if target.is_dir():
        target /= "index.html"
    if not target.is_relative_to(folder):
        return f"link {address} leaves the book"
    if not target.is_file():
        return f"link {address} leads to no file"
    fragment = unquote(parts.fragment)
    if fragment and target in pages and fragment not in pages[target].ids:
        return f"link {address}: no id '{fragment}' on that page"
    return ""
