"""The page of the Python interface: the fields of a data class with their types as the source has them, without
the readers that `typing.Annotated` adds, and their defaults; names that are on the page are links in every docstring.
"""

from __future__ import annotations

import ast
import dataclasses
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

LONG = 60  # characters; a longer default is written as three dots


def plain(annotation: str) -> str:
    """The type of an annotation: "Annotated[str, need.text]" -> "str"."""
    tree = ast.parse(annotation, mode="eval").body
    if isinstance(tree, ast.Subscript) and ast.unparse(tree.value) == "Annotated" and isinstance(tree.slice, ast.Tuple):
        return ast.unparse(tree.slice.elts[0])
    return annotation


def fields_of(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str, returned: str
) -> tuple[str, str] | None:
    """The signature of a data class: its fields. None leaves that of others as it is."""
    if what != "class":
        return None
    if not dataclasses.is_dataclass(thing):
        return "", ""
    listed = [f"{one.name}: {plain(str(one.type))}{default_of(one)}" for one in dataclasses.fields(thing) if one.init]
    return f"({', '.join(listed)})", ""


def default_of(field: dataclasses.Field) -> str:
    """ " = 'plain'", " = ..." for one that is long or has no short text; empty for a field that has to be given."""
    if field.default is not dataclasses.MISSING:
        words = repr(field.default)
    elif field.default_factory is not dataclasses.MISSING:
        words = repr(field.default_factory())
    else:
        return ""
    return f" = {words if len(words) <= LONG and ' at 0x' not in words else '...'}"


def linked(
    app: Sphinx, environment: BuildEnvironment, node: pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """The link of a name without its module, where one entry of the page has that name."""
    if node.get("refdomain") != "py" or node.get("py:class"):
        return None
    domain = environment.domains["py"]
    found = [name for name in domain.data["objects"] if name.rpartition(".")[2] == node["reftarget"]]
    if len(found) != 1 or found[0].rpartition(".")[0] in domain.data["objects"]:  # a method is not meant
        return None
    return domain.resolve_xref(
        environment, node["refdoc"], app.builder, node.get("reftype", "obj"), found[0], node, content
    )


def setup(app: Sphinx) -> dict:
    app.connect("autodoc-process-signature", fields_of)
    app.connect("missing-reference", linked)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
