"""Tables of built pages are compared with their sources; a planted number is named with the one it replaced."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from fer_repro.book import front
from fer_repro.leaderboard import leaderboard
from fer_repro.markup import percent
from fer_repro.page.findings import against
from fer_repro.project import default_results_dir, project_root
from fer_repro.verification import pages

ROOT = project_root()
PIECES = cache(pages._pieces)  # what a page shows is the same in every test
SHOWN = ("chapters/index.md", "chapters/leaderboard.ipynb", "chapters/packages.ipynb", "chapters/pretraining.ipynb")
SHOWN += ("chapters/papers/deep-emotion.ipynb", "chapters/papers/vggnet.ipynb", "chapters/speed.ipynb")


def as_html(page: Path) -> str:
    """A page as Sphinx makes it, as far as its tables and lists go: what the cells show stands between other things."""
    if page.suffix == ".md":
        rows = [line for line in (ROOT / front.FOLDER / front.TABLE).read_text().splitlines() if line.startswith("| ")]
        cells = ["".join(f"<td><p>{cell}</p></td>" for cell in pages._markdown_cells(row)) for row in rows]
        return f"<ul><li>menu</li></ul><table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
    shown = PIECES(ROOT / page, default_results_dir())
    return "<ul><li>menu</li></ul>" + "<p>words</p>".join(piece._repr_html_() for piece in shown)


@pytest.fixture(scope="module")
def made() -> dict[Path, str]:
    return {Path(name): as_html(Path(name)) for name in SHOWN}


@pytest.fixture
def book(made, tmp_path, monkeypatch) -> Path:
    """A built book of a few pages."""
    monkeypatch.setattr(pages, "toc_pages", lambda root: list(made))
    monkeypatch.setattr(pages, "_pieces", PIECES)
    for page, html in made.items():
        path = tmp_path / page.with_suffix(".html")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html)
    return tmp_path


def planted(book: Path, name: str, true: str, wrong: str) -> list[str]:
    path = book / "chapters" / name
    html = path.read_text()
    assert true in html, f"{name} does not show {true}"
    path.write_text(html.replace(true, wrong, 1))
    found = pages.compare(book, default_results_dir())[1]
    path.write_text(html)
    return found


def of_deep_emotion() -> tuple[str, str]:
    """Two numbers that pages show of it, which change with every seed: what was measured, and how far the claim is."""
    [row] = [row for row in leaderboard().itertuples() if row.variant == "deep-emotion"]
    return percent(row.measured).split("\u00a0")[0], against(row.claimed, row.measured, "measured").split(" than")[0]


def test_a_true_book_agrees_and_every_planted_number_is_named(book):
    assert pages.compare(book, default_results_dir()) == (len(SHOWN), [])
    [wrong] = planted(book, "index.html", "67.48 %", "69.48 %")
    assert wrong.startswith("chapters/index.html: shows '69.48 %' where the sources give '67.48 %'")
    measured, gap = of_deep_emotion()
    [wrong] = planted(book, "leaderboard.html", measured, "70.48")
    assert "chapters/leaderboard.html: shows" in wrong and "70.48" in wrong and measured in wrong
    [wrong] = planted(book, "packages.html", "66.82", "76.82")
    assert "chapters/packages.html" in wrong and "76.82" in wrong and "66.82" in wrong
    [wrong] = planted(book, "pretraining.html", "31.18 points more", "1.18 points more")
    assert "1.18 points more" in wrong
    [wrong] = planted(book, "papers/vggnet.html", "73.28", "73.82")
    assert "chapters/papers/vggnet.html" in wrong and "73.82" in wrong and "73.28" in wrong
    [wrong] = planted(book, "papers/deep-emotion.html", gap, "9.54 points more")
    assert "9.54 points more" in wrong and gap in wrong
    [wrong] = planted(book, "speed.html", "2.46", "3.46")
    assert "chapters/speed.html" in wrong and "3.46" in wrong
    (book / "chapters" / "index.html").unlink()
    [wrong] = pages.compare(book, default_results_dir())[1]
    assert "chapters/index.html: no such page" in wrong


@pytest.mark.parametrize(
    ("shown", "expected", "words"),
    [
        ("a b c d", "b c", ""),
        ("a b c d", "", ""),
        ("a b x d", "b c", "shows 'x' where the sources give 'c'"),
        ("a b c b d", "b d", ""),
        ("a b", "b c", "shows 'nothing' where the sources give 'c'"),
        ("a b", "z", "nowhere shows 'z', with which it begins"),
    ],
)
def test_where_pages_differ(shown, expected, words):
    assert pages._difference(shown.split(), expected.split()) == words


def test_cells_are_read_as_words():
    html = (
        "<table><tr><th scope=row>a&amp;b<br>c</th><td> 1\n 2 </td><td></td></tr></table><p>no</p><li>x <b>y</b></li>"
    )
    words = pages.Words(f"<style>p {{}}</style><script>1</script>{html}<p>Last executed today</p>")
    assert words.cells == ["a&bc", "1 2"]
    assert words.pieces == ["a&b", "c", "1 2", "no", "x", "y"]
    assert pages._markdown_cells(r"| [A\|b](papers/a.ipynb), 2025 | 1 % |  | not \*run\* |") == [
        "A|b, 2025",
        "1 %",
        "not *run*",
    ]
