"""Executed chapters made ready for a published page: without this machine's folders, times and users."""

from __future__ import annotations

import getpass
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fer_repro.book.notebooks import PARAMETERS_TAG
from fer_repro.errors import FerReproError
from fer_repro.project import project_root

INJECTED_TAG = "injected-parameters"
PROMPTS = {
    PARAMETERS_TAG: "Parameters of this chapter and their defaults",
    INJECTED_TAG: "Parameters this page was built with",
}


def clean(notebook: Any, name: str) -> None:
    """Prepare an executed notebook for publishing, in place.

    Drops papermill's metadata (paths, times) and folds the parameter cells. Raises `FerReproError` where an output
    shows this machine's folders or user.
    """
    for part in (notebook, *notebook.cells):
        part.metadata.pop("papermill", None)
        part.metadata.pop("execution", None)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        for tag, prompt in PROMPTS.items():
            if tag in tags:
                cell.metadata.tags = [*tags, "hide-input"]
                cell.metadata.mystnb = {"code_prompt_show": prompt, "code_prompt_hide": prompt}
                cell.source = re.sub(r"\A# Parameters\n", "", cell.source)
        if INJECTED_TAG in tags:
            cell.id = INJECTED_TAG  # papermill's differs with every run
    for number, text in private_text(notebook):
        raise FerReproError(
            f"chapter {name}: the output of cell {number} shows {text!r}, a path of this machine: do not print it"
        )


def private_text(notebook: Any) -> Iterator[tuple[int, str]]:
    """(cell number, text) for each output that shows a home folder or another absolute path of this machine."""
    folders = {str(p) for p in (Path.home(), project_root(), Path.cwd(), Path(sys.prefix))} - {"/"}
    with suppress(KeyError, OSError):  # a container's user id needs no account
        folders.add(f"/home/{getpass.getuser()}")
    own = "|".join(re.escape(folder) for folder in sorted(folders, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w.:/-])(?:{own}|/Users/\w+|[A-Z]:\\Users\\\w+)(?:/[\w./-]*)?\b")
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            for text in _texts(output):
                if found := pattern.search(text):
                    yield number, found.group()[:80]


def _texts(output: Any) -> Iterator[str]:
    yield str(output.get("text", ""))
    yield "\n".join(output.get("traceback", []))
    for kind, value in output.get("data", {}).items():
        if not kind.startswith("image/"):
            # Pictures inside HTML are base64, whose alphabet has slashes: not a path.
            yield re.sub(r"base64,[\w+/=]+", "", value if isinstance(value, str) else str(value))
