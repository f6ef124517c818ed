"""Turns matplotlib's drawing of the chart into an inline SVG: every mark and every model's name is a link to a chapter.

One SVG serves light and dark pages: its colours are CSS variables, `colours` gives them for both. Marks carry a class
for their kind, so that a style sheet can hide a group. Nothing in it is loaded from elsewhere.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import fields
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import matplotlib as mpl

from fer_repro.leaderboard import Band
from fer_repro.page.drawing import Layout, draw
from fer_repro.page.marks import CLAIMS, KINDS, words
from fer_repro.plots.theme import LIGHT, Theme

SCALES = ("matplotlib.axis_1", "matplotlib.axis_2")
FONT = re.compile(r" font-family: [^;]*;")
LONG_NUMBER = re.compile(r"\d+\.\d{3,}")


def colours(theme: Theme) -> str:
    """The CSS variables of one theme: ``--chart-ink:#222832;...``."""
    return ";".join(f"--chart-{name}:{colour}" for name, colour in _named(theme).items())


def _named(theme: Theme) -> dict[str, str]:
    return {field.name: getattr(theme, field.name) for field in fields(theme) if field.name != "name"}


def svg(layout: Layout, band: Band | None, name: str) -> str:
    """The chart as an ``<svg>`` element of the class ``name``, which also makes its ids its own.

    Links lead to ``papers/<slug>.html``, so that it belongs on a page beside that folder.
    """
    parts = _parts(layout, band, name)
    root = Element("svg", {"class": name, "viewBox": parts["svg"][0].attrib["viewBox"]})
    shapes = SubElement(root, "defs")
    for scale in SCALES:
        SubElement(root, "g", {"class": "scale"}).extend(parts[scale])
    for what, title in (("baseline:", str(band or "")), ("record:", "the best claim up to each day")):
        group = SubElement(root, "g", {"class": what[:-1]})
        SubElement(group, "title").text = title
        group.extend(parts.get(what, []))
    claims = layout.claims
    for kind in KINDS:
        for variant, claim in claims.items():
            if tie := parts.get(f"tie-{kind}:{variant}"):
                SubElement(root, "g", {"class": f"tie k-{kind} k-{claim.kind}"}).extend(tie)
    for variant, claim in claims.items():  # in the order of time, each model with its evidence
        for kind in (*CLAIMS, *KINDS):
            if mark := parts.pop(f"{kind}:{variant}", None):
                link = _link(root, f"mark k-{kind}", claim.row, f"{claim.row.model}: {KINDS[kind]}")
                for path in [path for group in mark for path in group.findall("path")]:
                    SubElement(link, "path", {"class": "hit", "d": path.attrib["d"]})
                link.extend(mark)
    for variant, claim in claims.items():
        link = _link(root, f"name k-{claim.kind}", claim.row, claim.row.model)
        link.attrib["tabindex"] = "-1"  # the mark is reached by keyboard and leads to the same page
        link.extend(parts[f"name:{variant}"])
    for group in list(root.iter("g")):
        for found in group.findall("defs"):
            shapes.extend(found)
            group.remove(found)
    return _compact(root)


def _link(root: Element, css: str, row: object, first: str) -> Element:
    """A link to a model's chapter; its title is what a browser shows at the mark, and what is read aloud."""
    link = SubElement(root, "a", {"class": css, "href": f"papers/{row.slug}.html"})  # type: ignore[attr-defined]
    SubElement(link, "title").text = "\n".join([first, *words(row)[1:]])
    return link


def _parts(layout: Layout, band: Band | None, name: str) -> Mapping[str, list[Element]]:
    """Matplotlib's groups by their ids, and the root under "svg"; without name spaces, in the colours' variables."""
    stream = io.StringIO()
    with mpl.rc_context({**LIGHT.rc(), "svg.fonttype": "none", "svg.hashsalt": name}):
        draw(layout, LIGHT, band).savefig(stream, format="svg")
    drawn = re.sub(r' xmlns(?::\w+)?="[^"]*"|<metadata>.*?</metadata>|<!DOCTYPE.*?>', "", stream.getvalue(), flags=re.S)
    drawn = FONT.sub("", drawn.replace("xlink:href", "href"))
    for colour, value in _named(LIGHT).items():
        drawn = drawn.replace(value.lower(), f"var(--chart-{colour})")
    root = ElementTree.fromstring(drawn)
    found: dict[str, list[Element]] = {"svg": [root]}
    for group in root.iter("g"):
        named = group.attrib.pop("id", "")
        if ":" in named or named in SCALES:
            found.setdefault(named, []).append(group)
    for element in root.iter():
        element.attrib.pop("clip-path", None)
        element.text, element.tail = (element.text or "").strip(), None
        if element.tag == "path":
            element.attrib["d"] = " ".join(element.attrib["d"].split())
    return found


def _compact(root: Element) -> str:
    markup = ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)
    return LONG_NUMBER.sub(lambda number: f"{float(number[0]):.2f}", markup)
