"""Buttons and links to the public repository, made from the one setting that `fer_repro.book.repository` reads; without
an address there are none."""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError

from fer_repro.book.repository import configured
from fer_repro.errors import FerReproError

CONTRIBUTING = "chapters/contributing"


def set_buttons(app: Sphinx, config: Config) -> None:
    """Before the theme reads its options."""
    try:
        repository = configured(Path(app.confdir))
    except FerReproError as error:
        raise ConfigError(str(error)) from error
    if repository:
        config.html_theme_options = {**config.html_theme_options, **repository.theme_options()}


def name_on_pages(app: Sphinx, page: str, content: list[str]) -> None:
    """A last sentence on the front page, and on the page that says how to report something."""
    repository = configured(Path(app.confdir))
    if repository and page == app.config.root_doc:
        content[0] += f"\n\nSources, results and the place for questions: [{repository.name}]({repository.url}).\n"
    if repository and page == CONTRIBUTING:
        content[0] += f"\n\nThe place for reports and questions: [issues of {repository.name}]({repository.issues}).\n"


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", set_buttons)
    app.connect("source-read", name_on_pages)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
