"""Commands and sources as markup: what may break, and what is a link."""

from __future__ import annotations

import re

import pytest

from fer_repro.claims import leaderboard_claims
from fer_repro.markup import is_web, shell, sourced
from fer_repro.page.cards import claim_card
from fer_repro.page.tables import others_table

GITHUB = "https://github.com/"


def links(markup: str) -> list[str]:
    return re.findall(r'<a href="([^"]*)"', markup)


def test_an_option_of_a_command_stays_in_one_piece():
    shown = shell("fer-repro run a-b --protocol official --file=<x>")
    assert re.findall(r'<span class="fer-fixed">(.*?)</span>', shown) == ["fer-repro", "--protocol", "--file=&lt;x&gt;"]
    assert re.sub(r"<[^>]*>", "", shown) == "fer-repro run a-b --protocol official --file=&lt;x&gt;"


@pytest.mark.parametrize(
    ("source", "addresses"),
    [
        ("owner/a.name issue #44, 2022", [f"{GITHUB}owner/a.name/issues/44"]),
        ("owner/name issues #12 and #42", [f"{GITHUB}owner/name/issues/12"]),
        ("owner/name @f9e565a, script/x.py", [f"{GITHUB}owner/name/tree/f9e565a"]),
        ("owner/name, Readme.md", [f"{GITHUB}owner/name"]),
        ("a/b @ffadfc9; c/d @0ac4a74", [f"{GITHUB}a/b/tree/ffadfc9", f"{GITHUB}c/d/tree/0ac4a74"]),
        ("example.org/paper/1, table 2", ["https://example.org/paper/1"]),
        ("https://example.org/a;b", ["https://example.org/a;b"]),
        ("arXiv 2409.10545v2, class table", []),
        ("README.md of the linked repository @85de89f", []),
        ("owner @85de89f, model.py", []),
        ("the folder models/ (executed)", []),
        ("javascript:alert(1)", []),
        ("a/b <script>", [f"{GITHUB}a/b"]),
    ],
)
def test_a_source_links_to_the_places_that_it_begins_with(source, addresses):
    shown = sourced(source)
    assert links(shown) == addresses and "<script>" not in shown
    assert re.sub(r"</?a[^>]*>", "", shown) == source.replace("<", "&lt;").replace(">", "&gt;")


def test_what_others_measured_and_the_evidence_can_be_looked_up():
    for claim in leaderboard_claims().values():
        tables = others_table([claim]) + claim_card(claim.slug).body
        for one in (*claim.others, *claim.audit.evidence):
            found = re.match(r"([\w-]+/[\w.-]+) issues? #(\d+)", one.source)
            assert found is None or f'href="{GITHUB}{found[1]}/issues/{found[2]}"' in tables, one.source
            assert all(map(is_web, links(sourced(one.source))))
