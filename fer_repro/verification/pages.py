"""The pages of a built book against their sources: what the cells of each notebook show is made again, and compared.

Cells that only show stored data and claims are run in this process: calls of a page, and of a chapter that has
evidence. All their words and numbers must stand on the built page, in the same order. Pictures, and cells that train or
measure something, are left out.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from fer_repro.book import notebooks
from fer_repro.book.build import toc_pages
from fer_repro.book.front import slugs_with_chapter, verdict_table
from fer_repro.errors import FerReproError
from fer_repro.leaderboard import leaderboard
from fer_repro.logs import quiet
from fer_repro.markup import Html
from fer_repro.page import Chapter
from fer_repro.project import project_root

CELLS = {"td", "th"}
SILENT = {"style", "script"}
# Calls of these objects show stored data and claims.
OBJECTS = "page|chapter|speed|subsets|arithmetic|comparison|recipe_search"
SHOWING = re.compile(rf"^(?:display\()?\s*(?:{OBJECTS})\.|^for slug in ")
# What pages show only where FER2013 is at hand, which may differ between building and comparing.
WITH_THE_DATA = re.compile(r"^page\.(?:origin|samples|conflicts|pair_samples|hardest)\(\)$")
STAMP = "Last executed"


@dataclass
class Words(HTMLParser):
    """What a page says: every piece of text between two tags (``pieces``), and the whole text of every cell of a table
    (``cells``), in order, without blanks that do not matter."""

    markup: str
    pieces: list[str] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    silent: int = 0
    cell: list[str] | None = None

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.silent += tag in SILENT
        if tag in CELLS:
            self.cell = []

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in SILENT
        if tag in CELLS and self.cell is not None:
            self.cells += filter(None, [" ".join("".join(self.cell).split())])
            self.cell = None

    def handle_data(self, data: str) -> None:
        words = " ".join(data.split())
        if words and not self.silent and STAMP not in words:
            self.pieces.append(words)
        if self.cell is not None:
            self.cell.append(data)


def compare(book: Path, results_dir: Path) -> tuple[int, list[str]]:
    """How many pages of a built ``book`` were compared, and for each that differs from its sources the first place.

    Raises `FerReproError` for a folder without a book.
    """
    root = project_root()
    if not (book / "chapters").is_dir():
        raise FerReproError(
            f"{book} is no built book: expected the folder that `fer-repro book` writes, with chapters/"
        )
    count, found = 0, []
    for source in toc_pages(root):
        built = book / source.with_suffix(".html")
        if not built.is_file():
            found.append(f"{source.with_suffix('.html')}: no such page in {book}: build the book again")
            continue
        page = Words(built.read_text(encoding="utf-8"))
        shown = page.pieces if source.suffix == ".ipynb" else page.cells
        wrong = ""
        try:
            pieces = [*_expected(root, source, results_dir)]
            wrong = next(filter(None, (_difference(shown, own) for own in pieces)), "")
            count += bool(pieces)
        except FerReproError as error:
            wrong = f"cannot be made again ({error})"
        found += [f"{source.with_suffix('.html')}: {wrong}: build the book again"] if wrong else []
    return count, found


def _expected(root: Path, source: Path, results_dir: Path) -> Iterator[list[str]]:
    """The words of everything that a page shows of stored data, one list for each piece."""
    if source.stem == "index":
        table = verdict_table(leaderboard(results_dir), slugs_with_chapter(root))
        yield [words for line in table.splitlines() if line.startswith("| ") for words in _markdown_cells(line)]
    if source.suffix == ".ipynb":
        for piece in _pieces(root / source, results_dir):
            yield Words(piece.body).pieces


def _markdown_cells(line: str) -> list[str]:
    """The cells of a row as a page shows them: links by their words, no asterisks of bold type."""
    line = re.sub(r"(?<!\\)\*\*", "", line)
    cells = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", cell).strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    return [" ".join(re.sub(r"\\(.)", r"\1", cell).split()) for cell in cells if cell]


def _pieces(notebook: Path, results_dir: Path) -> list[Html]:
    """What the showing cells of a notebook show, run with the stored profile."""
    shown: list[Any] = []
    names: dict[str, Any] = {"display": lambda *things: shown.extend(things), "__name__": "__main__"}
    for cell in (cell for cell in notebooks.read(notebook).cells if cell.cell_type == "code"):
        if notebooks.PARAMETERS_TAG in cell.metadata.get("tags", []):
            exec(compile(cell.source, str(notebook), "exec"), names)
            given = {"profile": "stored", "results_dir": str(results_dir)}
            names.update({name: value for name, value in given.items() if name in names})
            continue
        *body, last = ast.parse(cell.source).body
        setting_up = not isinstance(last, ast.Expr)
        code = ast.unparse(last)
        chapter = names.get("chapter")
        folded = isinstance(chapter, Chapter) and chapter._folded()
        shows = SHOWING.match(code) and not WITH_THE_DATA.match(code)
        if not (setting_up or shows) or (folded and not _needs_no_run(code)):
            body = [one for one in body if isinstance(one, (ast.Import, ast.ImportFrom))]
            last = None
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            exec(compile(ast.Module(body, []), str(notebook), "exec"), names)
            if isinstance(last, ast.Expr):
                shown.append(eval(compile(ast.Expression(last.value), str(notebook), "eval"), names))
            elif last is not None:
                exec(compile(ast.Module([last], []), str(notebook), "exec"), names)
    return [one for one in shown if isinstance(one, Html)]


def _needs_no_run(code: str) -> bool:
    """Whether a cell of a chapter without evidence shows only claims and findings."""
    return bool(re.match(r"(?:page\.(?:claim_card|verdict)|chapter\.(?:findings|others))\(", code))


def _difference(shown: list[str], expected: list[str]) -> str:
    """Where a page does not show what its source gives; empty where it does. Compared from the place of the longest
    agreement on."""
    if not expected:
        return ""
    starts = [place for place, words in enumerate(shown) if words == expected[0]] or range(len(shown))
    best, at = -1, 0
    for start in starts:
        length = 0
        while length < len(expected) and start + length < len(shown) and shown[start + length] == expected[length]:
            length += 1
        if length == len(expected):
            return ""
        if length > best:
            best, at = length, start
    there = shown[at + best] if at + best < len(shown) else "nothing"
    if best <= 0:
        return f"nowhere shows '{_short(expected[0])}', with which it begins"
    apart = len(os.path.commonprefix([there, expected[best]]))
    return f"shows '{_short(there, apart)}' where the sources give '{_short(expected[best], apart)}'"


def _short(words: str, around: int = 0) -> str:
    """A piece of text as an error shows it: a hundred characters, of a longer one those ``around`` a place."""
    start = max(0, around - 50) if len(words) > 100 else 0
    part = words[start : start + 100]
    return f"{'...' if start else ''}{part}{'...' if start + 100 < len(words) else ''}"
