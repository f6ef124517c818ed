"""The page check finds planted faults, and nothing in a healthy folder."""

from __future__ import annotations

import pytest

from fer_repro.book.html_check import HEAVIEST_PAGE, HEAVIEST_SITE, problems

GOOD = """<!doctype html><html><head><link rel="stylesheet" href="_static/a.css"><link rel="next" href="https://x.org/">
<script src="_static/a.js"></script></head><body><h1 id="top">T</h1><a href="sub/b.html#here">b</a>
<a href="#top">up</a>
<a href="https://example.org/">elsewhere</a> <a href="mailto:a@b.c">write</a> <img src="_static/a.png" alt="a picture">
<img src="data:image/png;base64,AAAA" alt="drawn in"></body></html>"""


@pytest.fixture
def site(tmp_path):
    for name in ("a.css", "a.js", "a.png"):
        (tmp_path / "_static").mkdir(exist_ok=True)
        (tmp_path / "_static" / name).write_text("")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.html").write_text('<p id="here"><a href="../a.html">back</a></p>')
    (tmp_path / "a.html").write_text(GOOD)
    return tmp_path


def test_a_healthy_folder_has_no_faults(site, monkeypatch):
    assert problems(site) == []
    monkeypatch.chdir(site.parent)
    assert problems(site.relative_to(site.parent)) == []


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ('<a href="gone.html">x</a>', "link gone.html leads to no file"),
        ('<a href="sub/b.html#nowhere">x</a>', "no id 'nowhere' on that page"),
        ('<a href="#nowhere">x</a>', "no id 'nowhere'"),
        ('<a href="../outside.html">x</a>', "leaves the book"),
        ('<img src="gone.png" alt="x">', "link gone.png leads to no file"),
        ('<img src="_static/a.png">', "has no alternative text"),
        ('<p id="top">again</p>', "id 'top' appears 2 times"),
        (
            '<script src="https://cdn.example.org/x.js"></script>',
            "loads https://cdn.example.org/x.js from another site",
        ),
        ('<script src="//cdn.example.org/x.js"></script>', "from another site"),
        ('<img src="http://example.org/x.png" alt="x">', "from another site"),
        ('<link rel="stylesheet" href="https://fonts.example.org/f.css">', "from another site"),
        ('<link rel="preconnect" href="https://fonts.example.org">', "from another site"),
        ('<iframe src="https://example.org"></iframe>', "from another site"),
        ('<img srcset="_static/a.png 1x, https://example.org/b.png 2x" alt="x">', "from another site"),
        ('<script src="_static/gone.js"></script>', "leads to no file"),
    ],
)
def test_a_planted_fault_is_found(site, planted, said):
    page = site / "a.html"
    page.write_text(GOOD.replace("</body>", f"{planted}</body>"))
    found = problems(site)
    assert len(found) == 1 and found[0].startswith("a.html: ") and said in found[0], found


def test_an_empty_folder_is_a_fault(tmp_path):
    assert problems(tmp_path) == [f"{tmp_path} holds no HTML page"]


def test_a_page_and_a_book_that_are_too_heavy_are_named(tmp_path):
    page = tmp_path / "index.html"
    page.write_text(f"<p>{'x' * HEAVIEST_PAGE}</p>")
    assert problems(tmp_path) == ["index.html: has 600 kB, at most 600 are allowed: show less on it, or as a picture"]
    page.write_text("<p>x</p>")
    (tmp_path / "large.bin").write_bytes(b"\0" * HEAVIEST_SITE)
    [what] = problems(tmp_path)
    assert what.startswith("the book has 25.0 MB, at most 25 are allowed; the largest files are large.bin (25.0 MB), ")
    (tmp_path / "large.bin").unlink()
    assert problems(tmp_path) == []
