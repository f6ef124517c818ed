"""Pictures of executed chapters as files of their own, and each style sheet once on a page.

In a notebook that somebody executes, every output carries its pictures and its style sheet. On a published page that
would make every reader load all pictures of both themes before the first word, so a browser gets them as files: only
those it shows, when they come into view, and each once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from fer_repro.errors import FerReproError
from fer_repro.files import atomic_write

PLACE = Path("_static", "pictures")  # of the book
KINDS = {"webp": "webp", "png": "png", "jpeg": "jpg", "gif": "gif"}
DIGITS = 16  # of the content's digest, in a picture's name
NAME = re.compile(rf"{PLACE.as_posix()}/([0-9a-f]{{{DIGITS}}}\.(?:{'|'.join(KINDS.values())}))")
TAG = re.compile(r"<img\b[^>]*>")
EMBEDDED = re.compile(rf'\bsrc="data:image/({"|".join(KINDS)});base64,([\w+/=\s]+)"')
WIDTH = re.compile(r'\bwidth="(\d+)"')
STYLE = re.compile(r"<style>.*?</style>", re.S)


def lighten(notebook: Any, page: Path, folder: Path) -> None:
    """Write the pictures that the HTML outputs of a notebook embed into ``folder``, and let the outputs refer to them.

    Changes ``notebook`` in place; ``page``: its place in the book. A style sheet that stood in an output before is
    dropped. Raises `FerReproError` for a picture that cannot be read and `OSError` where ``folder`` cannot be written.
    """
    up = "../" * len(page.parent.parts)
    seen: set[str] = set()
    for data in _html_outputs(notebook):
        markup = TAG.sub(lambda tag: _as_file(tag.group(), up, folder, page), data["text/html"])
        data["text/html"] = STYLE.sub(lambda style: _once(style.group(), seen), markup)


def _html_outputs(notebook: Any) -> Iterator[Any]:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if isinstance(output.get("data", {}).get("text/html"), str):
                yield output["data"]


def _once(style: str, seen: set[str]) -> str:
    if style in seen:
        return ""
    seen.add(style)
    return style


def _as_file(tag: str, up: str, folder: Path, page: Path) -> str:
    """An ``<img>`` with its picture in a file, its size on the page, and the wish to be loaded when it is seen."""
    found = EMBEDDED.search(tag)
    if not found:
        return tag
    try:
        content = base64.b64decode("".join(found[2].split()), validate=True)
        with Image.open(io.BytesIO(content)) as picture:
            width, height = picture.size
    except (binascii.Error, UnidentifiedImageError, OSError) as error:
        raise FerReproError(
            f"{page}: an output embeds a picture that cannot be read ({error}): draw it again"
        ) from error
    name = f"{hashlib.sha256(content).hexdigest()[:DIGITS]}.{KINDS[found[1]]}"
    if not (folder / name).is_file():
        with atomic_write(folder / name) as file:
            file.write(content)
    shown = WIDTH.search(tag)
    size = "" if shown else f' width="{width}"'
    size += f' height="{round(height * int(shown[1]) / width) if shown else height}" loading="lazy"'
    return tag.replace(found.group(), f'src="{up}{PLACE.as_posix()}/{name}"{size}')


def shown_in(notebook: Path) -> set[str]:
    """The names of the pictures that a lightened notebook refers to."""
    return set(NAME.findall(notebook.read_text(encoding="utf-8")))


def place(names: Iterable[str], kept: Path, target: Path) -> None:
    """Make ``target`` hold exactly the pictures ``names`` of the folder ``kept``."""
    names = set(names)
    target.mkdir(parents=True, exist_ok=True)
    for path in target.iterdir():
        if path.name not in names:
            path.unlink()
    for name in names:
        if not (target / name).is_file():
            partial = target / f".{name}.partial"
            shutil.copyfile(kept / name, partial)
            partial.replace(target / name)
