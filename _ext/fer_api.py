"""The fields of a data class on the page of the Python interface: their types as the source has them, without the
readers that `typing.Annotated` adds."""

from __future__ import annotations

import ast
import dataclasses
from typing import Any

from sphinx.application import Sphinx


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
    listed = [f"{one.name}: {plain(str(one.type))}" for one in dataclasses.fields(thing) if one.init]
    return f"({', '.join(listed)})", ""


def setup(app: Sphinx) -> dict:
    app.connect("autodoc-process-signature", fields_of)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
