"""Formulas as MathML, made while the book is built.

A published page then needs neither a script nor a font from elsewhere to show a formula. The translation is
latex2mathml's; what is done here adapts its output to MathML Core (the part that browsers draw) and to TeX's spacing. A
command that it does not know becomes a build warning, and warnings are errors in this book: no page is published with
raw TeX on it.
"""

from __future__ import annotations

import html
import re
import unicodedata
from xml.etree.ElementTree import Element, SubElement, tostring

from docutils import nodes
from latex2mathml.converter import Converter
from sphinx.locale import _
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

logger = logging.getLogger(__name__)

# latex2mathml draws these as align*, which looks the same; `align` itself would number rows from 1 on every page.
SAME_AS_ALIGN = ("aligned", "split", "gathered", "align", "gather", "gather*", "multline", "multline*", "eqnarray")
FUNCTIONS = set("arg cos cosh cot csc deg det dim exp gcd hom ker lg ln log sec sin sinh tan tanh".split())
LIMITS = {"max", "min", "inf", "sup", "lim", "arg max", "arg min", "\u2211", "\u220f", "\u22c3", "\u22c2", "\u2a06"}
# Unicode calls these symbols "mathematical operators", but a formula reads them as quantities.
QUANTITIES = set("\u221e\u2202\u2207\u2205")
VARIANTS = {
    "bold": "BOLD",
    "italic": "ITALIC",
    "bold-italic": "BOLD ITALIC",
    "double-struck": "DOUBLE-STRUCK",
    "script": "SCRIPT",
    "bold-script": "BOLD SCRIPT",
    "fraktur": "FRAKTUR",
    "sans-serif": "SANS-SERIF",
    "monospace": "MONOSPACE",
}
DIGITS = "ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE".split()
TO_LIMITS = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
SPACES = {"negativethinmathspace": "-0.167em", "negativemediummathspace": "-0.222em"}


class UnknownTeX(ValueError):
    """The TeX holds something that cannot be shown as MathML; the message says what."""


def to_mathml(tex: str, display: bool = False) -> str:
    """One TeX formula -> one ``<math>`` element as text.

    Raises `UnknownTeX` for an unknown command, an unbalanced group or an ``&`` outside an alignment.
    """
    try:
        math = Converter(display="block" if display else "inline").convert_to_element(_prepare(tex))
    except Exception as error:  # noqa: BLE001 - the library raises StopIteration and bare errors; all mean "cannot read it"
        raise UnknownTeX(f"it does not parse ({type(error).__name__})") from error
    _decode(math)
    _join_upright(math)
    _to_core(math)
    _limits_and_spaces(math)
    semantics = Element("semantics")
    semantics.append(math[0])
    SubElement(semantics, "annotation", encoding="application/x-tex").text = tex.strip()
    math[:] = [semantics]
    return tostring(math, encoding="unicode", short_empty_elements=False)


def _prepare(tex: str) -> str:
    """Rewrite what latex2mathml lacks in terms of what it has."""
    for name in SAME_AS_ALIGN:
        tex = tex.replace(rf"\begin{{{name}}}", r"\begin{align*}").replace(rf"\end{{{name}}}", r"\end{align*}")
    tex = re.sub(r"\\(begin|end)\{equation\*?\}", "", tex)
    tex = re.sub(r"\\arg\s*\\(max|min)(?![A-Za-z])", r"\\arg\1", tex)
    tex = re.sub(r"\\arg(?![A-Za-z])", r"\\operatorname{arg}", tex)
    return tex.strip()


def _decode(math: Element) -> None:
    """Turn the entities in the text into characters, and refuse what was passed through unread."""
    for element in math.iter():
        raw = element.text
        if not raw:
            continue
        text = "\u2016" if raw == r"\|" else html.unescape(raw)
        if text.startswith("\\") and len(text) > 1:
            raise UnknownTeX(f"unknown command {text}")
        if raw == "&":
            raise UnknownTeX("an '&' outside an alignment")
        if element.tag == "mi" and raw != text and len(text) == 1 and text.isascii() and text.isalpha():
            element.set("mathvariant", "normal")  # \mathrm of one letter arrives as an entity without its variant
        element.text = text.replace("\u2009", " ").replace("\u2006", " ") if element.tag in ("mo", "mi") else text


def _join_upright(math: Element) -> None:
    """A word in \\mathrm is one identifier, not a row of letters."""
    for parent in math.iter():
        joined: list[Element] = []
        for child in parent:
            upright = child.tag == "mi" and child.get("mathvariant") == "normal" and child.text
            if upright and joined and joined[-1].tag == "mi" and joined[-1].get("mathvariant") == "normal":
                joined[-1].text += child.text
            else:
                joined.append(child)
        parent[:] = joined
    for element in math.iter("mi"):
        if element.get("mathvariant") == "normal" and len(element.text or "") > 1:
            del element.attrib["mathvariant"]


def _to_core(math: Element) -> None:
    """MathML Core has no styled alphabets by attribute and no columnalign; browsers ignore both."""
    for element in math.iter():
        variant = element.get("mathvariant")
        if variant in VARIANTS and element.text:
            element.text = "".join(_styled(character, VARIANTS[variant]) for character in element.text)
            del element.attrib["mathvariant"]
        if element.tag == "mi" and _is_operator(element.text or ""):
            element.tag = "mo"
        if element.tag == "mo" and element.text == "~":
            element.text = "\u223c"
        if element.tag == "mrow" and len(element) == 1 and element[0].tag == "mo" and element[0].text in (",", "."):
            element[0].attrib.update(lspace="0", rspace="0")  # {,} is a decimal or thousands mark
        if element.tag == "mspace":
            element.attrib.pop("linebreak", None)
            element.set("width", SPACES.get(element.get("width", "0"), element.get("width", "0")))
        if element.tag == "mtable":
            for name in ("columnspacing", "rowspacing", "columnalign", "columnlines", "rowlines"):
                element.attrib.pop(name, None)
        align = element.attrib.pop("columnalign", None) if element.tag == "mtd" else None
        if align in ("left", "right"):
            element.set("style", f"text-align: {align}; padding-{align}: {'0' if align == 'right' else '0.1em'}")


def _styled(character: str, style: str) -> str:
    """The mathematical alphanumeric for one character, or the character where Unicode has none."""
    if character.isdigit():
        name = f"MATHEMATICAL {style} DIGIT {DIGITS[int(character)]}"
    elif character.isascii() and character.isalpha():
        name = f"MATHEMATICAL {style} {'CAPITAL' if character.isupper() else 'SMALL'} {character.upper()}"
    else:
        name = unicodedata.name(character, "").replace("GREEK", f"MATHEMATICAL {style}").replace("LETTER ", "")
    try:
        return unicodedata.lookup(name)
    except KeyError:
        return character


def _is_operator(text: str) -> bool:
    return len(text) == 1 and text not in QUANTITIES and unicodedata.category(text) in ("Sm", "Ps", "Pe")


def _name(element: Element) -> str:
    """The function's name where an element is one (bare, or carrying scripts)."""
    base = element[0] if element.tag in (*TO_LIMITS, *TO_LIMITS.values()) and len(element) else element
    text = base.text or ""
    known = text in FUNCTIONS | LIMITS or (base.tag == "mo" and len(text) > 1 and text.replace(" ", "").isalpha())
    return text if known and base.tag in ("mi", "mo") else ""


def _limits_and_spaces(math: Element) -> None:
    """Limits under sums and maxima, and TeX's thin space around named functions."""
    for element in math.iter():
        if element.tag in TO_LIMITS and _name(element) in LIMITS:
            element.tag = TO_LIMITS[element.tag]
            element[0].tag = "mo"
            element[0].set("movablelimits", "true")
    for parent in list(math.iter()):
        if parent.tag not in ("mrow", "mtd", "math", "mstyle"):
            continue
        spaced: list[Element] = []
        children = list(parent)
        for place, child in enumerate(children):
            name = _name(child)
            if not name or len(name) == 1:
                spaced.append(child)
                continue
            base = child[0] if len(child) else child
            base.tag = "mo"
            base.attrib.update(lspace="0", rspace="0")
            base.text = name.replace(" ", "\u00a0")
            if place and (children[place - 1].tag != "mo" or children[place - 1].text in (")", "]")):
                spaced.append(Element("mspace", width="0.167em"))
            spaced.append(child)
            following = children[place + 1] if place + 1 < len(children) else None
            if following is not None and following.tag != "mspace" and following.text not in ("(", "[", ")", ",", "="):
                spaced.append(Element("mspace", width="0.167em"))
        parent[:] = spaced


def _render(translator, node: nodes.Node, tex: str, display: bool) -> str:
    try:
        return to_mathml(tex, display)
    except UnknownTeX as problem:
        logger.warning("formula not shown: %s, in: %s", problem, tex.strip(), location=node, type="fer", subtype="math")
        return f"<code>{html.escape(tex)}</code>"


def visit_inline(translator, node: nodes.math) -> None:
    translator.body.append(f'<span class="math">{_render(translator, node, node.astext(), False)}</span>')
    raise nodes.SkipNode


def visit_block(translator, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math-block"))
    if node.get("number"):
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})')
        translator.add_permalink_ref(node, _("Link to this equation"))
        translator.body.append("</span>")
    for part in node.astext().split("\n\n"):  # a blank line parts two formulas
        if part.strip():
            translator.body.append(_render(translator, node, part, True))
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app) -> dict:
    app.add_html_math_renderer("mathml", inline_renderers=(visit_inline, None), block_renderers=(visit_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
