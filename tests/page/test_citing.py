"""How to cite: CITATION.cff is valid, and what the page shows is made from it, the claims and references.bib."""

from __future__ import annotations

import re
import shutil
from datetime import date

import pytest
import yaml
from pybtex.database import parse_string

import fer_repro
from fer_repro.claims import leaderboard_claims
from fer_repro.errors import FerReproError
from fer_repro.page.citing import CitingPage
from fer_repro.project import project_root

ROOT = project_root()
# The fields of the Citation File Format 1.2.0, and of a person or an entity among its authors.
FIELDS = set(
    "abstract authors cff-version commit contact date-released doi identifiers keywords license license-url message "
    "preferred-citation references repository repository-artifact repository-code title type url version".split()
)
PERSON = set("affiliation alias email family-names given-names name-particle name-suffix orcid website".split())
ENTITY = set("address alias city country date-end date-start email fax location name orcid region tel website".split())


def problems(citation: dict) -> list[str]:
    """What the format forbids, as far as this project's file could run into it."""
    found = [f"unknown field {name}" for name in citation.keys() - FIELDS]
    found += [f"no {name}" for name in ("authors", "cff-version", "message", "title") if not citation.get(name)]
    for one in citation.get("authors", []):
        if not (one.keys() <= PERSON or one.keys() <= ENTITY) or not ({"name", "family-names"} & one.keys()):
            found.append(f"author {one}")
    if citation.get("type") not in ("software", "dataset"):
        found.append("type")
    for name in ("repository-code", "url"):
        if name in citation and not re.fullmatch(r"https?://\S+", str(citation[name])):
            found.append(name)
    if "date-released" in citation and not isinstance(citation["date-released"], date):
        found.append("date-released")
    return found


def test_the_citation_file_is_valid_and_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert problems(citation) == [] and str(citation["cff-version"]) == "1.2.0"
    assert str(citation["version"]) == fer_repro.__version__ and citation["license"] == "MIT"


@pytest.mark.parametrize("change", [{"author": "X"}, {"title": ""}, {"authors": [{"nome": "X"}]}, {"type": "book"}])
def test_a_planted_fault_of_the_file_is_found(change):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert problems(citation | change)


def test_every_paper_has_a_block_with_two_entries_that_bibtex_reads():
    page = CitingPage(ROOT)
    blocks = page.chapters().body
    slugs = {claim.slug: claim for claim in leaderboard_claims().values()}
    assert blocks.count("<details>") == len(slugs)
    for slug, claim in slugs.items():
        assert f"{{fer_repro:{slug}," in blocks and f"{{{claim.paper.bibkey}," in blocks
        entries = parse_string(f"{page.chapter_entry(slug)}\n{page.paper_entry(claim.paper.bibkey)}", "bibtex").entries
        chapter = entries[f"fer_repro:{slug}"]
        assert chapter.fields["booktitle"] == page.citation["title"]
        assert chapter.fields["title"] == "{" + page.chapter_title(slug) + "}"
        assert str(chapter.persons["author"][0]) == "{" + page.authors.replace("_", r"\_") + "}"
    assert CitingPage(ROOT, folded=False).chapters().body.count("<pre") == len(slugs)


def test_the_address_stands_in_the_entries_only_where_there_is_one(tmp_path):
    for name in ("CITATION.cff", "_config.yml", "references.bib"):
        shutil.copy(ROOT / name, tmp_path)
    assert "url" not in CitingPage(tmp_path).book_entry()
    with (tmp_path / "CITATION.cff").open("a") as file:
        file.write('repository-code: "https://example.org/owner/name"\ndate-released: 2027-01-02\n')
    entry = parse_string(CitingPage(tmp_path).book_entry(), "bibtex").entries["fer_repro"]
    assert entry.fields["url"] == "https://example.org/owner/name" and entry.fields["year"] == "2027"
    assert "https://example.org/owner/name" in repr(CitingPage(tmp_path).book())


def test_a_paper_without_an_entry_is_named(tmp_path):
    (tmp_path / "references.bib").write_text("@misc{a,\n}\n")
    with pytest.raises(FerReproError, match="references.bib has no entry doe2026, which claims.yaml names"):
        CitingPage(tmp_path).paper_entry("doe2026")
    with pytest.raises(FerReproError, match="CITATION.cff of the checkout cannot be read"):
        CitingPage(tmp_path).book()
