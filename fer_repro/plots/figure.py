"""A picture that is drawn twice, for light and for dark pages, and says in words what it shows."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from PIL import Image

from fer_repro.errors import FerReproError
from fer_repro.markup import CSS, text
from fer_repro.plots.theme import LIGHT, THEMES, Theme, canvas, headline

# What a module that draws figures needs.
__all__ = ["Canvas", "Figure", "Theme", "canvas", "headline"]

CSS_PIXELS_PER_INCH = 96
SHARPNESS = 2


class Figure:
    """One picture of the book.

    ``draw(theme)`` returns a matplotlib figure. ``alt`` describes it for somebody who cannot see it; ``caption`` stands
    under it. ``remark``: what the numbers are (`Result.remark`: of synthetic faces, of an unfinished run); picture,
    caption and ``alt`` say so. ``photo``: pages embed it with lossy compression. ``metadata``: text entries of its PNG
    files. ``scrolls``: the name of the box in which a wide picture scrolls on a phone, instead of shrinking until its
    words cannot be read. Raises `FerReproError` for an empty ``alt``.
    """

    def __init__(
        self,
        draw: Callable[[Theme], Canvas],
        *,
        alt: str,
        caption: str = "",
        remark: str = "",
        photo: bool = False,
        metadata: Mapping[str, str] | None = None,
        scrolls: str = "",
    ) -> None:
        if not alt.strip():
            raise FerReproError("a figure has no alt text: say in one or two sentences what it shows")
        self.draw, self.caption, self.remark, self.photo = draw, caption, remark, photo
        self.scrolls = scrolls
        self.alt = f"{alt} ({remark})" if remark else alt
        self.metadata = dict(metadata or {})

    def canvas(self, theme: str = "light") -> Canvas:
        """The matplotlib figure in one theme."""
        if theme not in THEMES:
            raise FerReproError(f"unknown theme '{theme}' for a figure, expected light or dark")
        style = THEMES[theme]
        with mpl.rc_context(style.rc()):
            figure = self.draw(style)
            if self.remark:
                figure.supxlabel(self.remark, fontsize=8.5, style="italic", color=style.warning)
        return figure

    def png(self, theme: str = "light", background: str = "none") -> bytes:
        """PNG bytes at twice the page's resolution; transparent unless a ``background`` colour is given."""
        style, stream = THEMES.get(theme, LIGHT), io.BytesIO()
        figure = self.canvas(theme)
        with mpl.rc_context(style.rc()):
            figure.savefig(
                stream, format="png", dpi=SHARPNESS * CSS_PIXELS_PER_INCH, metadata=self.metadata, facecolor=background
            )
        return stream.getvalue()

    def save(self, path: str | Path, theme: str = "light", background: str = "none") -> Path:
        """Write a PNG file and return its path."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.png(theme, background))
        return target

    def webp(self, theme: str = "light") -> bytes:
        """The same picture as WebP, lossless unless it is a ``photo``: what pages embed, half the size of a PNG."""
        stream = io.BytesIO()
        self._pixels(theme).save(stream, "WEBP", lossless=not self.photo, quality=80 if self.photo else 50, method=1)
        return stream.getvalue()

    def _pixels(self, theme: str) -> Image.Image:
        """What `png` writes, drawn once and never compressed: ``savefig`` lays a figure out and draws it twice."""
        figure = self.canvas(theme)
        figure.set_dpi(SHARPNESS * CSS_PIXELS_PER_INCH)
        figure.set_facecolor("none")
        drawn = FigureCanvasAgg(figure)
        with mpl.rc_context(THEMES[theme].rc()):
            drawn.draw()
        return Image.fromarray(np.asarray(drawn.buffer_rgba()))

    def images(self) -> str:
        """Two <img> tags, one per theme; the theme's own class names hide the other one.

        They stand in a <div> of their own: the theme would hide a caption that follows a hidden picture.
        """
        pictures = {theme: self.webp(theme) for theme in THEMES}
        with Image.open(io.BytesIO(pictures["light"])) as picture:
            width = round(picture.width / SHARPNESS)
        alt = html.escape(self.alt, quote=True)
        tags = "".join(
            f'<img class="only-{theme}" width="{width}" alt="{alt}" '
            f'src="data:image/webp;base64,{base64.b64encode(picture).decode()}">'
            for theme, picture in pictures.items()
        )
        name = text(f"Figure: {self.scrolls}") if self.scrolls else ""
        box = f' class="fer-scroll fer-pan" tabindex="0" role="group" aria-label="{name}"' if name else ""
        return f"<div{box}>{tags}</div>"

    def figure(self) -> str:
        """The <figure> element with both pictures and the caption, without the style sheet."""
        under = f"{self.caption} {self.remark[0].upper()}{self.remark[1:]}." if self.remark else self.caption
        return f"<figure>{self.images()}<figcaption>{text(under.strip(), '')}</figcaption></figure>"

    def _repr_html_(self) -> str:
        return f'<style>{CSS}</style><div class="fer">{self.figure()}</div>'

    def __repr__(self) -> str:
        return f"Figure: {self.alt}"
