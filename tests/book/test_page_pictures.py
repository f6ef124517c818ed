"""Pictures of a page are files beside it, its style sheet stands on it once, and what no browser needs is left out."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from fer_repro.book import build, notebooks, pictures
from fer_repro.errors import FerReproError

PAGE = Path("chapters/papers/page.ipynb")
CODE = """
from fer_repro.markup import Html
from fer_repro.plots.figure import Figure, canvas

def draw(theme):
    figure = canvas(4, 2)
    figure.subplots().plot([0, 1], color=theme.measured)
    return figure

display(Html("<p>first</p>", "first"), Figure(draw, alt="A line that rises."), Html("<p>last</p>", "last"))
"""


def encoded(kind: str = "WEBP", colour: str = "red") -> tuple[bytes, str]:
    stream = io.BytesIO()
    Image.new("RGB", (300, 120), colour).save(stream, kind)
    content = stream.getvalue()
    return content, f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"


def lightened(tmp_path: Path, *outputs: str) -> list[str]:
    cell = nbformat.v4.new_code_cell("1")
    cell.outputs = [nbformat.v4.new_output("display_data", data={"text/html": output}) for output in outputs]
    stream = nbformat.v4.new_output("stream", text="a line")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("text"), cell])
    cell.outputs.append(stream)
    pictures.lighten(notebook, PAGE, tmp_path)
    return [output["data"]["text/html"] for output in cell.outputs if output is not stream]


@pytest.mark.parametrize("kind, suffix", [("WEBP", "webp"), ("PNG", "png"), ("JPEG", "jpg"), ("GIF", "gif")])
def test_an_embedded_picture_becomes_a_file_with_its_size_and_its_words(tmp_path, kind, suffix):
    content, address = encoded(kind)
    [markup] = lightened(tmp_path, f'<img class="only-dark" width="150" alt="A &quot;b&quot;" src="{address}"> after')
    name = f"{hashlib.sha256(content).hexdigest()[:16]}.{suffix}"
    assert markup == (
        f'<img class="only-dark" width="150" alt="A &quot;b&quot;" src="../../_static/pictures/{name}" height="60"'
        ' loading="lazy"> after'
    )
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_bytes() == content


def test_equal_pictures_are_one_file_and_others_stay(tmp_path):
    red, blue, other = encoded()[1], encoded(colour="blue")[1], '<img src="a.png" alt="a"> <a href="data:x">x</a>'
    markup = lightened(
        tmp_path, f'<img alt="a" src="{red}"><img alt="b" src="{blue}">', f'<img alt="c" src="{red}">', other
    )
    names = pictures.NAME.findall("".join(markup))
    assert len(names) == 3 and len(set(names)) == len(list(tmp_path.iterdir())) == 2
    assert markup[2] == other and 'width="300" height="120"' in markup[0]


def test_a_style_sheet_stands_once_on_a_page(tmp_path):
    markup = lightened(
        tmp_path, "<style>p{}</style><p>1</p>", "<style>p{}</style><p>2</p>", "<style>b{}</style><p>3</p>"
    )
    assert markup == ["<style>p{}</style><p>1</p>", "<p>2</p>", "<style>b{}</style><p>3</p>"]


@pytest.mark.parametrize("broken", ["AAAA", "A"])
def test_a_picture_that_cannot_be_read_is_named(tmp_path, broken):
    with pytest.raises(FerReproError, match=r"papers/page.ipynb: an output embeds a picture that cannot be read"):
        lightened(tmp_path, f'<img alt="a" src="data:image/png;base64,{broken}">')


def test_only_the_pictures_that_are_shown_are_placed(tmp_path):
    kept, target = tmp_path / "kept", tmp_path / "target"
    for folder, names in ((kept, ("a.webp", "b.webp")), (target, ("old.webp", ".a.webp.partial"))):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)
    pictures.place(["a.webp"], kept, target)
    assert {path.name: path.read_text() for path in target.iterdir()} == {"a.webp": "a.webp"}


def test_a_built_page_shows_files_and_keeps_none_that_is_not_needed(tiny):
    root = tiny(code=CODE)
    html = build.build_book(root)
    page = (html / "chapters" / "page.html").read_text()
    tags = re.findall(r"<img[^>]*only-[^>]*>", page)
    assert len(tags) == 2 and "data:image" not in page
    for tag in tags:
        assert 'alt="A line that rises."' in tag and 'loading="lazy"' in tag and 'height="' in tag
        assert (html / "chapters" / re.search(r'src="([^"]*)"', tag)[1]).is_file()
    assert page.count("<style>") == 1
    source = html / "_sources" / "chapters" / "page.ipynb"
    assert "data:image" not in source.read_text() and "A line that rises." in source.read_text()
    kept = root / "_build" / "html.book-source" / "_build" / "executed"
    shown = {path.name for path in (html / "_static" / "pictures").iterdir()}
    assert len(shown) == 2 and {path.name for path in (kept / "pictures").iterdir()} == shown
    assert not [*html.rglob("*.map"), *html.rglob("*.ttf"), *html.glob("_static/vendor/fontawesome/*/js")]
    assert "fontawesome" in page and not re.search(r"<script[^>]*fontawesome", page)

    notebook = notebooks.read(root / "chapters" / "page.ipynb")
    notebook.cells[-1].source = "print('no picture any more')"
    notebooks.write(notebook, root / "chapters" / "page.ipynb")
    html = build.build_book(root)
    assert not list((html / "_static" / "pictures").glob("*")) and not list((kept / "pictures").iterdir())
    assert len(list(kept.rglob("*.ipynb"))) == 1
