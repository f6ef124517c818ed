"""No page types a number without a source: each percent and each difference in points of the prose stands in
`claims.yaml` or a paper's own table, or is computed here from them; and no accuracy of ours is typed at all."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from scipy import integrate, stats
from test_chapters_text import CHAPTERS, PAGES, ROOT, text_of, without_code

from fer_repro import results
from fer_repro.claims import HALF, claim_of
from fer_repro.evaluation.statistics import wilson
from fer_repro.results import HALVES

NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
# A percent, or a difference of percents.
SHARE = re.compile(rf"(?<![\w.,])({NUMBER})[ \n\u00a0]?(?:%|points\b|percent\b)")
PROSE = [page for page in PAGES if page.parent.name != "generated"]  # that is generated, and verified


def prose(page: Path) -> str:
    """A page's sentences: without code, formulas, and links' addresses."""
    plain = re.sub(r"\$\$.+?\$\$|\$[^$]+\$", "", without_code(text_of(page)), flags=re.S)
    return re.sub(r"\]\([^)]*\)", "]", plain)


def claimed(variant: str) -> float:
    return claim_of(variant).accuracy


def error(share: float) -> float:
    """The standard error of an accuracy on one test set, in points."""
    return 100 * math.sqrt(share * (1 - share) / HALF)


def largest_of(n: int) -> float:
    """The mean of the largest of ``n`` standard normal numbers."""
    return integrate.quad(lambda x: x * n * stats.norm.pdf(x) * stats.norm.cdf(x) ** (n - 1), -8, 8)[0]


def half_width(share: float) -> float:
    low, high = wilson(share * HALF, HALF)
    return 50 * (high - low)


# Numbers that stand in no table: what they follow from. "near": a round number the sentence itself supposes.
DERIVED = {
    ("index", "73"): "near",
    ("index", "1.45"): half_width(0.73),
    ("protocol", "73"): "near",
    ("protocol", "1.45"): half_width(0.73),
    ("cnn-hyperparameters", "1.5"): error(0.72) * largest_of(30),
    ("deep-emotion", "70"): claimed("deep-emotion"),
    ("local-learning-bow", "62"): 67.484 - 5,
    ("mini-resemotenet", "0.21"): claimed("mini-resemotenet-a") - claimed("emonext"),
    ("mini-resemotenet", "6.13"): claimed("mini-resemotenet-a") - claimed("mini-resemotenet-b"),
    ("resemotenet", "2.97"): claimed("resemotenet") - claimed("residual-masking-ensemble"),
    ("residual-masking", "1.6"): 100 / 64,  # of the 64 channels of the first stage
    ("residual-masking", "1.72"): claimed("residual-masking") - 72.42,
    ("resnet18-tricks", "33"): "near",  # the setting 0.33 of random erasing
    ("resnet18-tricks", "2.5"): 0.73 * math.sqrt(2 * math.log(300)),
    ("resnet18-tricks", "0.8"): "near",  # said to be our inference
    ("resnet18-tricks", "73.7"): claimed("resnet18-tricks"),
    ("sdafe", "16.7"): 96.47 - claimed("resemotenet"),
    ("vggnet", "33"): "near",  # the setting 0.33 of random erasing
    ("vggnet", "73"): "near",
    ("vggnet", "0.74"): error(0.73),
}


@pytest.fixture(scope="module")
def sourced() -> set[str]:
    """Every number in `claims.yaml` and in the papers' and packages' tables, as printed there."""
    tables = [ROOT / "fer_repro" / "claims.yaml", *(ROOT / "fer_repro").glob("p*/**/*.yaml")]
    return {number for path in tables for number in re.findall(NUMBER, path.read_text(encoding="utf-8"))}


def printed(value: float | str, as_text: str) -> bool:
    """Whether a computed value prints as the text does: with its decimals, rounded."""
    decimals = len(as_text.partition(".")[2])
    return value == "near" or abs(value - float(as_text.replace(",", ""))) <= 0.51 * 10**-decimals


def unsourced(text: str, name: str, sourced: set[str]) -> list[str]:
    """The shares in a page's prose that have no source."""
    found = {number for number in SHARE.findall(text) if number not in sourced}
    return sorted(
        number for number in found if (name, number) not in DERIVED or not printed(DERIVED[name, number], number)
    )


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_share_in_the_prose_has_a_source(page, sourced):
    wrong = unsourced(prose(page), page.stem, sourced)
    assert wrong == [], (
        f"{page.name} types {', '.join(wrong)}: let a cell show it, put it into claims.yaml with its source, or derive "
        "it in DERIVED"
    )


def test_a_planted_number_is_found(sourced):
    text = prose(CHAPTERS / "papers" / "deep-emotion.ipynb")
    assert unsourced(text, "deep-emotion", sourced) == []
    assert unsourced(text.replace("70.02 %", "71.03 %"), "deep-emotion", sourced) == ["71.03"]
    assert unsourced("It is 1.93 points above.", "mini-resemotenet", sourced) == ["1.93"]
    assert unsourced("It is 16.8 points above.", "sdafe", sourced) == ["16.8"]


def test_every_derived_number_is_still_in_the_prose():
    by_name = {page.stem: prose(page) for page in PROSE}
    missing = [key for key in DERIVED if key[1] not in SHARE.findall(by_name[key[0]])]
    assert missing == []


def test_no_accuracy_of_ours_is_typed(sourced):
    """What we measured appears only through calls; a number that a paper happens to claim too is not ours."""
    ours = {
        f"{100 * score['accuracy']:.2f}": run.variant
        for kind in results.EVIDENCE
        for run in results.read_all(kind=kind)
        for half in HALVES
        if half in run.halves
        for score in run.record["scores"][half].values()
    }
    assert ours
    for page in PROSE:
        typed = [number for number in SHARE.findall(prose(page)) if number in ours and number not in sourced]
        assert typed == [], f"{page.name} types {typed}, which {ours[typed[0]]} measured"
