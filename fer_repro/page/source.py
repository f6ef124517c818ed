"""The source code of a method as its module has it: highlighted, folded, each class with the comments on its shapes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from fer_repro import papers
from fer_repro.errors import FerReproError
from fer_repro.markup import details, text
from fer_repro.papers.base import Variant


def shown(variant: Variant) -> tuple[Any, ...]:
    """The classes and functions that a paper's module lists in ``SHOWN``; without that list a `FerReproError`."""
    module = papers.module_of(variant.slug)
    if not hasattr(module, "SHOWN"):
        raise FerReproError(
            f"{module.__name__} has no SHOWN: list there the classes and functions of the network and the loss whose "
            "source the chapter shows"
        )
    return module.SHOWN


def source_block(objects: Iterable[Any], summary: str) -> str:
    """The source of classes and functions in one closed block, module by module; markup.

    Colours are those that the page's style sheet gives to ``highlight``.
    """
    by_module: dict[str, list[str]] = {}
    for each in objects:
        by_module.setdefault(each.__module__, []).append(inspect.getsource(each).rstrip())
    parts = []
    for name, pieces in by_module.items():
        code = highlight("\n\n\n".join(pieces), PythonLexer(), HtmlFormatter(nowrap=True))
        parts.append(
            f"<p><code>{text(name)}</code></p>"
            f'<div class="highlight"><pre tabindex="0" aria-label="Source of {text(name)}">{code}</pre></div>'
        )
    return details(summary, "".join(parts))
