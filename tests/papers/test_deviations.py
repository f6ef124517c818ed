"""The files of deviations: read strictly, and each of their texts stands in some recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_repro import papers
from fer_repro.errors import FerReproError
from fer_repro.papers.base import deviations

ROOM = Path(papers.__file__).parent
FILES = sorted(
    [*ROOM.glob("*/deviations.yaml"), *(one for one in ROOM.glob("*.yaml") if not one.name.endswith(".idea.yaml"))]
)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOM).as_posix())
def test_every_text_stands_in_a_recipe(file):
    module = file.with_suffix(".py") if file.parent == ROOM else file.with_name("__init__.py")
    shown = {
        entry
        for variant in papers.variants().values()
        for protocol in papers.PROTOCOLS
        for profile in ("full", "smoke")
        for entry in variant.recipe(protocol, profile).deviations
    }
    groups = deviations(str(module))
    assert groups and not [entry for group in groups.values() for entry in group if entry not in shown]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "all",
        "all: [one]",
        "all: [{section: a, what: b}]",
        "all: [{section: a, what: b, why: c, who: d}]",
        "all: [{section: a, what: b, why: 3}]",
        "all: [{section: a, what: b, why: 2021-01-01}]",
        "all: [{section: a, what: b, why: c, why: d}]",
        "1: [{section: a, what: b, why: c}]",
        "[]",
        "{}",
        "all: " + "[" * 5000,
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        "a: [",
        None,
    ],
)
def test_a_damaged_file_is_named(tmp_path, text):
    if text is not None:
        (tmp_path / "deviations.yaml").write_text(text)
    with pytest.raises(FerReproError, match="deviations.yaml cannot be read as deviations"):
        deviations(str(tmp_path / "__init__.py"))
