"""The page on the Python interface: every name exists and is documented, and the example runs the names it shows."""

from __future__ import annotations

import ast
import html
import importlib
import inspect
import re

import pytest
import yaml

from fer_repro.project import project_root

PAGE = (project_root() / "chapters" / "api.md").read_text(encoding="utf-8")
NAMES = re.findall(r"^\.\. auto\w+:: (\S+)$", PAGE, flags=re.M)
# The small core, each of which has at least one name on the page.
CORE = ("data", "claims", "recipe", "transforms", "evaluation", "training", "results", "reproduce", "leaderboard")


def found(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_exists_is_public_and_documented(name):
    assert not name.rpartition(".")[2].startswith("_")
    assert inspect.getdoc(found(name))


def test_fields_of_data_classes_have_plain_types(html, monkeypatch):
    monkeypatch.syspath_prepend(str(project_root() / "_ext"))
    import fer_api

    assert fer_api.plain("Annotated[str | None, need.maybe(need.url)]") == "str | None"
    assert fer_api.plain("tuple[str, ...]") == "tuple[str, ...]"
    built = (html / "chapters" / "api.html").read_text(encoding="utf-8")
    assert 'id="fer_repro.claims.Claim"' in built and "Annotated" not in built and " at 0x" not in built


EXAMPLE = """
Example
=======

.. autofunction:: fer_repro.data.load
.. autofunction:: fer_repro.loading.load
.. autofunction:: fer_repro.results.read_all
.. autofunction:: fer_repro.results.survey
.. autoexception:: fer_repro.errors.FerReproError
.. autoclass:: fer_repro.recipe.Views
.. autoclass:: fer_repro.recipe.Stage
"""


def test_defaults_are_shown_and_names_of_the_page_are_links(tmp_path, monkeypatch):
    """A page of its own, built with the extension and the book's settings of Sphinx."""
    monkeypatch.syspath_prepend(str(project_root() / "_ext"))
    application = pytest.importorskip("sphinx.application")
    config = yaml.safe_load((project_root() / "_config.yml").read_text())["sphinx"]["config"]
    settings = {"extensions": ["sphinx.ext.autodoc", "fer_api"], "project": "Example"}
    settings |= {name: config[name] for name in ("default_role", "add_module_names", "nitpick_ignore_regex")}
    (tmp_path / "index.rst").write_text(EXAMPLE)
    app = application.Sphinx(
        tmp_path, None, tmp_path / "html", tmp_path / "trees", "html", settings, status=None, warning=None
    )
    app.build()
    built = (tmp_path / "html" / "index.html").read_text(encoding="utf-8")
    words = html.unescape(re.sub(r"<[^>]+>", "", built))
    assert "fer_repro.data.load(" in words and "fer_repro.loading.load(" in words
    assert "kind: str = 'plain', size: int | None = None, average: str = 'logits'" in words
    assert "Stage(name: str, epochs: int, optimiser: Step, schedule: Step = " in words, "what has to be given has none"
    for name in ("errors.FerReproError", "results.survey"):
        assert f'href="#fer_repro.{name}"' in built, name


def test_every_room_of_the_core_is_on_the_page():
    assert {name.split(".")[1] for name in NAMES} >= set(CORE)


def test_the_example_uses_names_that_exist():
    example = ast.parse(re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)[0])
    names: dict[str, object] = {}
    for line in example.body:
        if isinstance(line, ast.ImportFrom):
            exec(compile(ast.Module([line], []), "api.md", "exec"), names)
    calls = [node.func for node in ast.walk(example) if isinstance(node, ast.Call)]
    assert len(calls) == 4
    for call in calls:
        assert callable(eval(compile(ast.Expression(call), "api.md", "eval"), names))
