"""What no reader's browser needs is left out of the built book.

The theme loads Font Awesome twice, as fonts and as a script of 1.5 MB that stands before the page's first word; the
fonts show the same icons. Beside that it brings source maps, older forms of those fonts and its translations.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx

ICON_SCRIPT = re.compile(r'\s*<script src="[^"]*/fontawesome/[^"]*\.js[^"]*"></script>')
ICON_SCRIPTS, TRANSLATIONS = "_static/vendor/fontawesome/*/js", "_static/locales"
UNLOADED = ("_static/**/*.map", "_static/vendor/fontawesome/**/*.ttf", "_static/*webpack-macros.html")


def lighten(app: Sphinx, exception: Exception | None) -> None:
    """Runs when all pages are written: the script comes from the theme's template."""
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    for page in out.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        light = ICON_SCRIPT.sub("", text)
        if light != text:
            page.write_text(light, encoding="utf-8")
    for folder in [*out.glob(ICON_SCRIPTS), out / TRANSLATIONS]:
        if folder.is_dir():
            shutil.rmtree(folder)
    for pattern in UNLOADED:
        for path in out.glob(pattern):
            path.unlink()


def setup(app: Sphinx) -> dict:
    app.connect("build-finished", lighten)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
