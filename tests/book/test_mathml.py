"""TeX becomes MathML that browsers draw, or a warning."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "_ext"))
from fer_mathml import UnknownTeX, to_mathml

NAMESPACE = "http://www.w3.org/1998/Math/MathML"
XML = {"m": NAMESPACE}


def parsed(tex: str, display: bool = False) -> ElementTree.Element:
    return ElementTree.fromstring(to_mathml(tex, display))


def shown(tex: str, display: bool = False) -> str:
    """The visible characters of a formula, in order."""
    row = parsed(tex, display).find("m:semantics", XML)[0]
    return "".join(row.itertext()).replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("tex", "characters"),
    [
        (r"x_i^2", "xi2"),
        (r"\hat y = \arg\max_k \frac{1}{10} \sum_{i=1}^{10} z_k(x_i)", "y^=arg maxk110\u2211i=110zk(xi)"),
        (r"\mathbb{R}^{48\times 48}", "\u211d48\u00d748"),
        (r"\mathbb{1}[y=k]", "\U0001d7d9[y=k]"),
        (r"\boldsymbol{\theta}", "\U0001d73d"),
        (r"\mathbf{x}\cdot\mathcal{L}", "\U0001d431\u00b7\u2112"),
        (r"\lambda\sim\mathrm{Beta}(\alpha,\alpha)", "\u03bb\u223cBeta(\u03b1,\u03b1)"),
        (r"\langle x, y\rangle \pm \infty", "\u27e8x,y\u27e9\u00b1\u221e"),
        (r"\big\|w\big\|", "\u2016w\u2016"),
        (r"3{,}589", "3,589"),
        (r"\text{if } n > 0", "if n>0"),
        (r"50\,\%", "50%"),
    ],
)
def test_what_a_reader_sees(tex, characters):
    assert shown(tex) == characters


def test_the_tex_is_kept_as_an_annotation():
    annotation = parsed(r"a < b").find("m:semantics/m:annotation", XML)
    assert annotation.text == r"a < b" and annotation.get("encoding") == "application/x-tex"


def test_display_formulas_are_blocks_and_sums_carry_their_limits():
    math = parsed(r"\max_k \sum_{i=1}^{n} x_i", display=True)
    assert math.get("display") == "block"
    assert math.find(".//m:munder", XML) is not None and math.find(".//m:munderover", XML) is not None


def test_a_word_is_one_upright_identifier():
    words = [element.text for element in parsed(r"\mathrm{SVM}_k").iter(f"{{{NAMESPACE}}}mi")]
    assert words == ["SVM", "k"]


def test_aligned_rows_become_a_table_without_numbers():
    for environment in ("aligned", "align", "split", "align*"):
        math = parsed(rf"\begin{{{environment}}} a &= b \\ c &= d \end{{{environment}}}", display=True)
        assert len(math.findall(".//m:mtr", XML)) == 2
        assert not math.findall(".//m:mtext", XML)


def test_named_functions_are_spaced_from_their_argument():
    assert parsed(r"2\log p").findall(".//m:mspace", XML)
    assert len(parsed(r"\log(p)").findall(".//m:mspace", XML)) == 0


def test_nothing_that_only_old_browsers_read():
    for tex in (r"\boldsymbol{\theta}", r"\begin{cases} 1 & a \\ 0 & b \end{cases}", r"a\!b"):
        for element in parsed(tex).iter():
            assert element.get("columnalign") is None and element.get("mathvariant") in (None, "normal")
            assert not element.get("width", "").startswith("negative")


@pytest.mark.parametrize(
    ("tex", "why"),
    [
        (r"\foo{x}", r"unknown command \\foo"),
        (r"a & b", "outside an alignment"),
        (r"\frac{a}{", "does not parse"),
        (r"\left( x", "does not parse"),
        (r"\label{eq} x", r"unknown command \\label"),
    ],
)
def test_what_cannot_be_shown_is_refused(tex, why):
    with pytest.raises(UnknownTeX, match=why):
        to_mathml(tex)
