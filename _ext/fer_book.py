"""What makes a built page self-contained: no script and no font from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

# sphinx-thebe comes with Jupyter Book; it declares its constants twice (a SyntaxError on every page), and its
# own script lies on a CDN.
THEBE_CONFIG = re.compile(
    r'\s*<script type="text/x-thebe-config">.*?</script>\s*<script>kernelName = .*?</script>', re.S
)
# The theme preloads its icon fonts with "crossorigin", which a browser refuses on pages opened from a folder; its style
# sheet loads the same fonts either way.
FONT_PRELOAD = re.compile(r'\s*<link rel="preload" as="font"[^>]*>')


def drop_thebe(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    body = context.get("body", "")
    if "thebe" in body:
        context["body"] = THEBE_CONFIG.sub("", body)
    context["script_files"] = [script for script in context["script_files"] if not is_thebe(script)]


def is_thebe(script: Any) -> bool:
    source = f"{getattr(script, 'filename', None) or script} {getattr(script, 'attributes', {}).get('body', '')}"
    return "thebe" in source.lower()


def drop_font_preloads(app: Sphinx, exception: Exception | None) -> None:
    """Runs when all pages are written: these tags come from the theme's template, after the page's own content."""
    if exception is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            tidy = FONT_PRELOAD.sub("", text)
            if tidy != text:
                page.write_text(tidy, encoding="utf-8")


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", drop_thebe, priority=990)
    app.connect("build-finished", drop_font_preloads)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
