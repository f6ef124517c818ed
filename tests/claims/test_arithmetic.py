"""Which printed numbers can be counts of images, how much that says, and what published matrices add up to."""

from __future__ import annotations

import json
import random
import re
from fractions import Fraction
from itertools import product
from math import comb

import numpy as np
import pytest

from fer_repro.claims import arithmetic as sums
from fer_repro.claims import counts_that_print, leaderboard_claims
from fer_repro.claims.published import FILE, Matrix, Printed, matrices, matrix_of, published, read
from fer_repro.cli import main
from fer_repro.data import LABELS
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.errors import FerReproError

# ---- how much a fit says ---------------------------------------------------------------------------------------------


def test_36_percent_of_two_decimal_numbers_fit_one_test_set():
    assert sums.share_that_fits(3589) == Fraction(3590, 10001) and f"{float(sums.share_that_fits(3589)):.2f}" == "0.36"
    assert sums.share_that_fits(7178) == Fraction(7179, 10001)
    assert sums.share_that_fits(3589, 3) == Fraction(3590, 100001)
    assert sums.share_that_fits(20_000) == 1 and sums.share_that_fits(1, 0) == Fraction(2, 101)


@pytest.mark.parametrize(("n", "decimals"), [(7, 0), (100, 1), (333, 1), (3589, 1), (20_000, 1), (64, 2)])
def test_the_share_is_that_of_all_numbers_one_by_one(n, decimals):
    numbers = [float(f"{number / 10**decimals:.{decimals}f}") for number in range(100 * 10**decimals + 1)]
    rounded, cut = ([bool(counts_that_print(one, n, decimals, how)) for one in numbers] for how in (False, True))
    assert sums.share_that_fits(n, decimals) == Fraction(sum(rounded), len(numbers))
    assert sums.share_that_fits(n, decimals, or_cut=True) == Fraction(sum(np.logical_or(rounded, cut)), len(numbers))


def test_the_share_is_that_of_a_sample_of_arbitrary_numbers():
    chance = random.Random(0)
    sample = [sums.fit(Printed("", f"{chance.randrange(10_001) / 100:.2f}", ""), 3589) for _ in range(4000)]
    assert abs(np.mean([bool(one.rounded) for one in sample]) - 0.359) < 0.02


@pytest.mark.parametrize(("n", "decimals"), [(0, 2), (-1, 2), (10**6, 12)])
def test_what_cannot_be_counted_exactly_is_refused(n, decimals):
    with pytest.raises(ValueError, match="images and"):
        sums.share_that_fits(n, decimals)


def test_a_fit_uses_the_decimals_as_printed():
    assert sums.fit(Printed("", "67.48", ""), 3589).rounded == (2422,)
    assert sums.fit(Printed("", "67.484", ""), 3589).rounded == (2422,)
    assert sums.fit(Printed("", "67.485", ""), 3589) == sums.Fit(Printed("", "67.485", ""), 3589, (), ())
    assert sums.fit(Printed("", "70.20", ""), 3589).rounded == ()  # and not 70.2 with one decimal
    assert sums.fit(Printed("", "70.2", ""), 3589).rounded == (2518, 2519, 2520, 2521)


def test_every_claim_is_there_as_it_is_printed():
    known = sums.printings()
    assert [one.text for one in known[:17]] == [f"{c.accuracy:.2f}" for c in leaderboard_claims().values()][:17]
    more = {(one.variant, one.text) for one in known if one.decimals > 2}
    assert more >= {("local-learning-bow", "67.484"), ("vggnet", "73.279465")}
    assert set(sums.totals()) >= {3588, 7150} and list(sums.totals())[:2] == [3589, 7178]


def test_the_claims_against_chance():
    found = sums.surprise(3589)
    pinned = {claim.variant for claim in leaderboard_claims().values() if claim.pinned}
    assert len(pinned & set(found.fitting)) == 13
    assert pinned - set(found.fitting) == {
        "resemotenet",
        "mini-resemotenet-a",
        "mini-resemotenet-b",
        "segmentation-vgg19",
    }
    p, k, n = found.share, len(found.fitting), found.claims
    assert found.probability == pytest.approx(sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1)))
    assert found.expected == pytest.approx(n * p) and found.factor == pytest.approx(1 / p)
    assert set(found.fitting) <= set(sums.surprise(7178).fitting), "k of n is 2k of 2n"


# ---- published matrices ----------------------------------------------------------------------------------------------


def made(unit, rows, counts=None):
    return Matrix("vggnet", unit, "a test", tuple(tuple(row.split()) for row in rows), counts)


def test_the_published_matrices_are_those_of_their_cards():
    known = {matrix.variant: matrix for matrix in matrices()}
    assert list(known)[:4] == ["vggnet", "residual-masking", "resemotenet", "ad-corre"]
    assert sums.values(known["vggnet"]).trace() == 2630
    mean = {name: 100 * sums.values(matrix).diagonal().mean() for name, matrix in known.items()}
    assert mean["resemotenet"] == pytest.approx(77.0) and mean["ad-corre"] / 100 == pytest.approx(71.6, abs=0.05)
    # the columns are in the order of LABELS, too: happy faces are mostly called happy
    assert all(sums.values(matrix).argmax(axis=1).tolist() == list(range(7)) for matrix in known.values())
    assert all(all(sums.whole_rows(matrix)) for matrix in known.values())


def test_row_sums_of_counts_name_the_test_set():
    matrix = matrix_of("vggnet")
    assert sums.row_sums(matrix)[0].tolist() == OFFICIAL_COUNTS[1].tolist()
    public, private, both = sums.readings(matrix)
    assert all(public.rows) and not any(private.rows) and not any(both.rows)
    assert public.accuracy == (2630 / 3589,) * 3 and public.agrees
    changed = Matrix("vggnet", "images", "", (("309", *matrix.rows[0][1:]), *matrix.rows[1:]), None)
    assert not sums.readings(changed)[0].rows[0] and not sums.readings(changed)[0].agrees


def test_a_row_of_percentages_fits_some_numbers_of_images():
    disgust = "13 77 2.7 1.8 2.7 0 2.7".split()
    assert sums.counts_of_row(disgust, "percent", 55) is sums.counts_of_row(disgust, "percent", 56) is None
    found = sums.counts_of_row(disgust, "percent", 111)
    assert found == ((14, 14), (86, 86), (3, 3), (2, 2), (3, 3), (0, 0), (3, 3))


def test_a_matrix_made_of_counts_fits_these_and_gives_their_accuracy():
    """Any matrix, printed as shares of two decimals: its rows fit their own numbers of images, whatever the counts."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = [rng.multinomial(n, rng.dirichlet(np.ones(7))) for n in OFFICIAL_COUNTS[2]]
        matrix = made("share", [" ".join(f"{k / row.sum():.2f}" for k in row) for row in rows])
        reading = sums.readings(matrix)[1]
        assert all(reading.rows) and all(sums.whole_rows(matrix))
        low, value, high = reading.accuracy
        assert low <= np.trace(rows) / 3589 <= high and high - low == pytest.approx(0.01) and low < value < high
        for row, printed, n in zip(rows, matrix.rows, OFFICIAL_COUNTS[2], strict=True):
            bounds = sums.counts_of_row(printed, "share", int(n))
            assert all(least <= k <= most for k, (least, most) in zip(row, bounds, strict=True))


def test_the_bounds_of_a_row_are_those_of_all_its_solutions():
    row = ".3 .3 .2 .1 .1 .0 .0".split()
    for n in (3, 7, 10, 11, 13):
        each = [[k for k in range(n + 1) if abs(Fraction(k, n) - Fraction(cell)) <= Fraction(1, 20)] for cell in row]
        whole = [counts for counts in product(*each) if sum(counts) == n]
        expected = tuple((min(column), max(column)) for column in zip(*whole, strict=True)) or None
        assert sums.counts_of_row(row, "share", n) == expected, n


def test_what_the_matrices_say_of_their_claims():
    found = {matrix.variant: {one.name: one for one in sums.readings(matrix)} for matrix in matrices()}
    assert not any(one.agrees for one in found["resemotenet"].values())
    assert all(one.agrees for one in found["residual-masking"].values())
    wrong = [label for label, fits in zip(LABELS, found["resemotenet"]["PrivateTest"].rows, strict=True) if not fits]
    assert wrong == ["disgust"]
    low, value, high = (100 * x for x in found["residual-masking"]["PrivateTest"].accuracy)
    assert (round(low, 2), round(value, 2), round(high, 2)) == (73.35, 73.85, 74.35)
    disgust = LABELS.index("disgust")
    assert [one.rows[disgust] for one in found["ad-corre"].values()] == [False, False, True]


def test_the_same_numbers_in_another_order_are_recognised():
    official = OFFICIAL_COUNTS[2].tolist()
    assert sums.same_numbers(matrix_of("resemotenet").class_counts) == "PrivateTest"
    assert sums.same_numbers(official) == "" and sums.same_numbers([1, *official[1:]]) == ""


def test_the_command_prints_the_same(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["audit", "--arithmetic"])
    shown = capsys.readouterr().out
    found = sums.surprise(3589)
    said = f"{len(found.fitting)} of {found.claims} claims fit, {found.expected:.1f} arbitrary ones would (35.9 %)"
    assert stop.value.code == 0 and said in shown
    assert re.search(r"resemotenet +79\.79 +none \(cut: 2864\) +5727 +2863 +5705", shown)
    with pytest.raises(SystemExit):
        main(["audit", "--arithmetic", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["chance"][0]["fitting"] == list(sums.surprise(3589).fitting)
    assert document["claims"][2]["fits"]["3589"] == {"rounded": [], "cut": [2864]}
    assert [one["agrees"] for one in document["matrices"][2]["readings"]] == [False] * 4


# ---- the file --------------------------------------------------------------------------------------------------------

WHOLE = """\
schema: 1
accuracies:
  - {variant: vggnet, printed: "73.279465", source: a notebook}
matrices:
  - variant: vggnet
    unit: percent
    source: a figure
    columns: angry disgust fear happy sad surprise neutral
    rows:
      angry: "100 0 0 0 0 0 0"
      disgust: "0 100 0 0 0 0 0"
      fear: "0 0 100 0 0 0 0"
      happy: "0 0 0 100 0 0 0"
      sad: "0 0 0 0 100 0 0"
      surprise: "0 0 0 0 0 100 0"
      neutral: "0 0 0 0 0 0 100.0"
    class_counts: null
"""


def test_a_small_file_is_read(tmp_path):
    (tmp_path / "a.yaml").write_text(WHOLE)
    [accuracy], [matrix] = read(tmp_path / "a.yaml")
    assert accuracy == Printed("vggnet", "73.279465", "a notebook") and matrix.rows[6][6] == "100.0"
    assert sums.half_units(matrix)[6, 6] == 0.05 and sums.half_units(matrix)[6, 5] == 0.5
    assert published() == read(FILE)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("schema: 1", "schema: 2", "field schema is 2"),
        ("variant: vggnet, ", "variant: nobody, ", "is 'nobody', expected one of"),
        ('"73.279465"', "73.279465", "expected a percent in quotes"),
        ('"73.279465"', '"73.285"', "expected the claim of 73.28 % with more decimals"),
        ("unit: percent", "unit: shares", "is 'shares', expected one of images, percent, share"),
        ("columns: angry", "columns: anger", "expected the seven classes"),
        ("columns: angry disgust", "columns: angry angry", "expected the seven classes"),
        ('sad: "0 0', 'sad: "0', "seven numbers in quotes"),
        ('fear: "0 0 100', 'fear: "0 0 1e2', "seven numbers in quotes"),
        ("unit: percent", "unit: images", "seven numbers in quotes"),
        ("      sad:", "      sadness:", "unknown field 'sadness'"),
        ("class_counts: null", "class_counts: {angry: 1}", "the field disgust, fear"),
        ("    source: a figure\n", "", "the field source is missing"),
    ],
)
def test_a_wrong_file_names_the_place(tmp_path, old, new, words):
    assert old in WHOLE
    (tmp_path / "a.yaml").write_text(WHOLE.replace(old, new, 1))
    with pytest.raises(FerReproError, match=words):
        read(tmp_path / "a.yaml")


def test_a_matrix_stands_there_once(tmp_path):
    matrix = WHOLE[WHOLE.index("  - variant: vggnet\n") :]
    (tmp_path / "a.yaml").write_text(WHOLE + matrix)
    with pytest.raises(FerReproError, match="vggnet stands there twice"):
        read(tmp_path / "a.yaml")
    with pytest.raises(FerReproError, match="no confusion matrix of 'emonext' is known: published are vggnet"):
        matrix_of("emonext")
