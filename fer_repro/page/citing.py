"""How to cite the book and each of its chapters, from CITATION.cff, the claims, the chapters and references.bib."""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from fer_repro.claims import Claim, leaderboard_claims
from fer_repro.errors import FerReproError
from fer_repro.markup import Html, details, text

KEY = "fer_repro"  # begins the BibTeX keys of the book and its chapters


class CitingPage:
    """``root``: the checkout; ``folded``: whether the entries of the chapters are. Raises `FerReproError` for
    files that are missing or have no such entry."""

    def __init__(self, root: Path, folded: bool = True) -> None:
        if not isinstance(folded, bool):
            raise FerReproError(f"parameter folded is {folded!r}, expected True or False")
        self.root, self.folded = root, folded

    @cached_property
    def citation(self) -> dict[str, Any]:
        """The fields of CITATION.cff."""
        return yaml.safe_load(self._read("CITATION.cff"))

    @cached_property
    def references(self) -> str:
        return self._read("references.bib")

    def _read(self, name: str) -> str:
        try:
            return (self.root / name).read_text(encoding="utf-8")
        except OSError as error:
            raise FerReproError(
                f"{name} of the checkout cannot be read ({error.strerror}): restore the file"
            ) from error

    def book(self) -> Html:
        """The book: a sentence, BibTeX, and CITATION.cff itself."""
        about = self.citation
        sentence = f"{self.authors} ({self.year}). {about['title']}. Version {self.version}."
        sentence += f" {about['repository-code']}" if "repository-code" in about else ""
        body = f"<p>{text(sentence)}</p>{_pre(self.book_entry())}"
        return Html(body + details("CITATION.cff", _pre(self._read("CITATION.cff").strip())), sentence)

    def chapters(self) -> Html:
        """For every paper the entry of the chapter and that of the paper itself."""
        claims = {claim.slug: claim for claim in reversed(leaderboard_claims().values())}
        parts = [self._chapter(claim) for claim in reversed(claims.values())]
        return Html("".join(parts), f"{len(parts)} chapters")

    def _chapter(self, claim: Claim) -> str:
        entries = "\n\n".join([self.chapter_entry(claim.slug), self.paper_entry(claim.paper.bibkey)])
        title = f"{self.chapter_title(claim.slug)} ({claim.paper.venue}, {claim.paper.year})"
        return details(title, _pre(entries)) if self.folded else f"<p>{text(title)}</p>{_pre(entries)}"

    @property
    def authors(self) -> str:
        names = [one.get("name") or f"{one['given-names']} {one['family-names']}" for one in self.citation["authors"]]
        return " and ".join(names)

    @property
    def version(self) -> str:
        """The version, and that it is not released where CITATION.cff has no date of a release."""
        return f"{self.citation['version']}{'' if 'date-released' in self.citation else ' (not released yet)'}"

    @property
    def year(self) -> str:
        """The year of the release, or of the copyright before the first one."""
        released = self.citation.get("date-released")
        return str(released)[:4] if released else str(yaml.safe_load(self._read("_config.yml"))["copyright"])

    def book_entry(self) -> str:
        return self._entry("misc", KEY, title=f"{{{self.citation['title']}}}", note=f"Version {self.version}")

    def chapter_entry(self, slug: str) -> str:
        about = {"title": f"{{{self.chapter_title(slug)}}}", "booktitle": self.citation["title"]}
        return self._entry("incollection", f"{KEY}:{slug}", **about, note=f"Version {self.version}")

    def _entry(self, kind: str, key: str, **fields: str) -> str:
        given = {"author": f"{{{self.authors}}}", **fields, "year": self.year}
        if "repository-code" in self.citation:
            given["url"] = self.citation["repository-code"]
        width = max(map(len, given))
        lines = [f"  {name:{width}} = {{{_escaped(value)}}}," for name, value in given.items()]
        return "\n".join([f"@{kind}{{{key},", *lines, "}"])

    def paper_entry(self, key: str) -> str:
        """An entry of references.bib as it stands there."""
        found = re.search(rf"^@\w+\{{{re.escape(key)},.*?^\}}", self.references, re.MULTILINE | re.DOTALL)
        if found is None:
            raise FerReproError(f"references.bib has no entry {key}, which claims.yaml names: add it")
        return found.group()

    def chapter_title(self, slug: str) -> str:
        """The heading of a paper's notebook."""
        cells = json.loads(self._read(f"chapters/papers/{slug}.ipynb"))["cells"]
        return "".join(cells[0]["source"]).splitlines()[0].removeprefix("# ")


def _escaped(value: str) -> str:
    """Text as BibTeX takes it."""
    return re.sub(r"([&%#$_])", r"\\\1", value)


def _pre(lines: str) -> str:
    return f'<pre tabindex="0">{text(lines)}</pre>'
