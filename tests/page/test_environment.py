"""The environment page: its table is constraints.txt, its other tables are what the results record."""

from __future__ import annotations

import re

import pytest
from made_results import made_result

from fer_repro import results
from fer_repro.errors import FerReproError
from fer_repro.page import environment
from fer_repro.page.environment import EnvironmentPage
from fer_repro.project import project_root


def rows(markup: str) -> list[list[str]]:
    """The texts of the cells of all rows, without markup."""
    found = re.findall(r"<tr>(.*?)</tr>", markup)
    return [[re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in found]


def test_the_whole_table_is_constraints_txt():
    lines = (project_root() / "constraints.txt").read_text().split()
    folded = EnvironmentPage().packages().body.partition("<details>")[2]
    assert ["==".join(row) for row in rows(folded)[1:]] == lines


def test_the_short_tables_name_packages_that_are_pinned():
    page = EnvironmentPage()
    for name in (*environment.MAIN, *environment.BUILDS):
        assert [name, page.pins[name]] in rows(page.packages().body.partition("<details>")[0])


def test_data_and_hardware_are_what_the_results_record(tmp_path):
    results.write(made_result(seed=1), tmp_path)
    results.write(made_result(seed=2), tmp_path)
    page = EnvironmentPage(str(tmp_path))
    assert rows(page.data().body)[1:] == [["fer2013", "another copy", "0" * 64, "2"]]
    assert rows(page.machines().body)[1:] == [["unknown, 2 cores", "unknown", "3.11.7", "unknown", "unknown", "2"]]


def test_the_copy_that_our_results_come_from_is_named():
    assert "the JPEG copy on Kaggle" in EnvironmentPage().data().body


def test_a_line_that_is_no_pin_is_named(tmp_path):
    (tmp_path / "constraints.txt").write_text("numpy==2.1  # a remark\ntorch>=2\n")
    with pytest.raises(FerReproError, match=r"constraints.txt: 'torch>=2' is not a pin"):
        environment.pinned(tmp_path / "constraints.txt")
