"""The section "Arithmetic of the claims": its tables and sentences are made from the claims and say what follows."""

from __future__ import annotations

import dataclasses
import re

import pytest

from fer_repro.claims import arithmetic as sums
from fer_repro.claims.published import Matrix
from fer_repro.page import arithmetic as page


def cells(body):
    rows = re.findall(r"<tr>(.*?)</tr>", body, flags=re.S)
    return [
        [re.sub("<[^>]+>", " ", cell).strip() for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", r)] for r in rows
    ]


def row_of(table, name):
    [found] = [row for row in cells(table.body) if row[0].startswith(name)][:1]
    return found


def test_every_claim_stands_with_its_counts():
    table = page.fits()
    assert cells(table.body)[0] == ["Claim", "Printed, %", "of 3,589", "of 7,178", "of 3,588", "of 7,150"]
    assert row_of(table, "ResEmoteNet")[1:] == ["79.79", "none  cut: 2,864", "5,727", "2,863", "5,705"]
    assert row_of(table, "Mini-ResEmoteNet (A)")[2:4] == ["none", "5,479"]
    assert row_of(table, "Mini-ResEmoteNet (B)")[1] == "70.20"
    assert sum(row[1] == "67.484" for row in cells(table.body)) == 1
    assert len(cells(table.body)) == 1 + len(sums.printings())


def test_chance_is_shown_beside_every_number_of_images():
    first, found = row_of(page.chance(), "3,589"), sums.surprise(3589)
    assert first[1:4] == [
        "35.9\u00a0%  3.6\u00a0% of three",
        f"{len(found.fitting)} of {found.claims}",
        f"{found.expected:.1f}",
    ]
    assert "Every fit of 3,589 is one of 7,178, so that row is no evidence of its own; 3,588 and 7,150 are there" in (
        page.chance().body
    )
    assert first[4:] == [f"{found.probability:.4f}", "2.8"]


def test_row_sums_stand_under_the_class_counts():
    table = page.row_sums()
    public, vggnet = row_of(table, "PublicTest"), row_of(table, "VGGNet")
    assert public[1:] == vggnet[1:] != row_of(table, "PrivateTest")[1:]
    assert "class counts of the source" in table.body


def test_each_matrix_is_read_as_each_set():
    rows = [row for row in cells(page.published_matrices().body) if row[0] == "ResEmoteNet"]
    assert [row[1] for row in rows] == [*sums.SETS, "class counts of the source"]
    assert rows[1][2:] == ["6 of 7  not disgust", "78.40\u00a0%  77.90 to 78.90\u00a0%", "79.79\u00a0%", "no"]


def test_the_findings_follow_from_the_numbers(monkeypatch):
    said, found = page.findings().plain, sums.surprise(3589)
    fitting = f"{len(found.fitting)} of {found.claims} claims can be a rounded count of 3,589 images"
    expected = f"{found.expected:.1f} of {found.claims} would (probability of as many or more: {found.probability:.4f})"
    for words in (
        fitting,
        f"36\u00a0% can, so that {expected}",
        "That is more than chance explains: some claims were made",
        "unless they were cut or are a mean of several runs or batches",
        "Cut after the last decimal, 79.79 % (ResEmoteNet) would fit, and so would 28\u00a0% of arbitrary numbers",
        "All of these 4 can be a rounded count of 7,178 images; of arbitrary numbers that miss 3,589 images 56\u00a0% "
        f"can, and the probability that as many of 4 do is {((7179 - 3590) / (10001 - 3590)) ** 4:.2f}.",
        "VGGNet: the rows of its matrix fit, of the official test sets, only PublicTest.",
        "The accuracy that follows, 73.28\u00a0%, agrees with the claim.",
        "77.92 to 78.92\u00a0%, does not agree with the claim",
        "the seven numbers of PrivateTest, under other classes",
    ):
        assert words in said, words
    whole = sums.surprise
    monkeypatch.setattr(sums, "surprise", lambda n, *more: dataclasses.replace(whole(n, *more), probability=0.4))
    assert "Chance explains as many" in page.findings().plain and "more than chance" not in page.findings().plain


@pytest.mark.parametrize(
    ("row", "words"), [("100 0 0 0 0 0 0", "fit every official test set"), ("50 0 0 0 0 0 0", "(at most 6 of 7 do)")]
)
def test_the_sentence_on_a_matrix_is_made_from_it(row, words):
    rows = [tuple("100" if i == j else "0" for j in range(7)) for i in range(7)]
    matrix = Matrix("vggnet", "percent", "a test", (tuple(row.split()), *rows[1:]), None)
    assert words in page._of_matrix(matrix) and "does not agree" in page._of_matrix(matrix)


def test_class_counts_of_a_source_are_no_official_test_set():
    """They fit, and no official test set does."""
    rows = [tuple("50" if j in (i, (i + 1) % 7) else "0" for j in range(7)) for i in range(7)]
    third = ("33.3333", "33.3333", "33.3333", "0", "0", "0", "0")
    matrix = Matrix("vggnet", "percent", "a test", (third, *rows[1:]), (3, 2, 2, 2, 2, 2, 2))
    assert all(sums.readings(matrix)[-1].rows) and not any(all(one.rows) for one in sums.readings(matrix)[:-1])
    said = page._of_matrix(matrix)
    most = max(sum(one.rows) for one in sums.readings(matrix)[:-1])
    assert f"do not all fit any official test set (at most {most} of 7 do)" in said and most < 7
