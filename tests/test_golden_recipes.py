"""The digest of every recipe equals the one on file: stored results name their recipe by it.

Moving or renaming code must change none of them. A recipe that is changed on purpose gets its new digest with
``python -m tests.test_golden_recipes``, and the stored results of the old one have to be made again.
"""

from __future__ import annotations

import json
from pathlib import Path

from fer_repro import papers

GOLDEN = Path(__file__).with_name("golden") / "recipes.json"
PROFILES = ("full", "smoke")


def digests() -> dict[str, dict[str, str]]:
    """Variant -> "protocol/profile" -> sha256 of its recipe."""
    return {
        name: {
            f"{protocol}/{profile}": variant.recipe(protocol, profile).sha256()
            for protocol in papers.PROTOCOLS
            for profile in PROFILES
        }
        for name, variant in sorted(papers.variants().items())
    }


def test_every_recipe_has_the_digest_on_file() -> None:
    on_file, today = json.loads(GOLDEN.read_text()), digests()
    assert sorted(on_file) == sorted(today)
    changed = [
        f"{name} {which}" for name in today for which in today[name] if today[name][which] != on_file[name][which]
    ]
    assert not changed


def test_the_file_covers_what_is_stored() -> None:
    """A digest on file is the one in ``result.json``, so the file protects what it is there for."""
    on_file = json.loads(GOLDEN.read_text())
    records = [json.loads(path.read_text()) for path in (GOLDEN.parents[2] / "results").glob("*/*/seed-*/result.json")]
    assert records
    for record in records:
        assert record["recipe_sha256"] == on_file[record["variant"]][f"{record['protocol']}/full"]


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(digests(), indent=1) + "\n")
