"""The generated part of the front page and the README: the still chart and the table of verdicts.

They are committed, so that a reader of the sources sees them, and written again by every build of the book. A test
fails when the committed ones are older than the results; ``make front`` renews them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from fer_repro.errors import FerReproError
from fer_repro.files import atomic_write
from fer_repro.leaderboard import VERDICTS, leaderboard
from fer_repro.markup import interval, percent
from fer_repro.page.timeline import accuracy_over_time_static, data_digest, picture_digest
from fer_repro.plots.theme import LIGHT
from fer_repro.project import project_root

FOLDER = Path("chapters/generated")
# The README shows the first one on whatever background its host has, so it brings its own.
PICTURES = {"accuracy-over-time.png": ("light", LIGHT.page), "accuracy-over-time-dark.png": ("dark", "none")}
TABLE = "verdicts.md"


def write_front(root: Path, results_dir: str = "") -> Path:
    """Write pictures and table below ``root``; returns the folder. Raises `FerReproError` where that is impossible."""
    board, folder = leaderboard(results_dir), root / FOLDER
    picture = accuracy_over_time_static(board)
    try:
        for name, (theme, background) in PICTURES.items():
            picture.save(folder / name, theme, background=background)
        with atomic_write(folder / TABLE) as file:
            file.write(verdict_table(board, slugs_with_chapter(root)).encode())
    except OSError as error:
        raise FerReproError(f"{folder} cannot be written ({error.strerror}): correct its permissions") from error
    return folder


def stale(root: Path, results_dir: str = "") -> list[str]:
    """The names of generated files below ``root`` that do not show the current claims and results."""
    board, folder = leaderboard(results_dir), root / FOLDER
    digest = data_digest(board)
    found = [name for name in PICTURES if not (folder / name).is_file() or picture_digest(folder / name) != digest]
    table = folder / TABLE
    current = table.is_file() and table.read_text() == verdict_table(board, slugs_with_chapter(root))
    return found if current else [*found, TABLE]


def slugs_with_chapter(root: Path) -> set[str]:
    return {path.stem for path in (root / "chapters" / "papers").glob("*.ipynb")}


def verdict_table(board: pd.DataFrame, chapters: Collection[str]) -> str:
    """Markdown: a sentence that counts the leaderboard's verdicts, a row for each claim; paths from ``chapters/``."""
    board = board[board["pinned"]]
    counts = [f"{n} {name}" for name in VERDICTS if (n := int((board["verdict"] == name).sum()))]
    weights = bool(board["released"].notna().any())
    lines = [
        f"Of {len(board)} claims: {', '.join(counts)}.",
        "",
        "| Model | Claimed | Measured | Verdict | Class | 95 % interval |"
        + " Released weights |" * weights
        + " Date |",
        "|---|---:|---:|---|:---:|---:|" + "---:|" * weights + ":---:|",
    ]
    for row in board.itertuples():
        name = escape(row.model)
        model = f"[{name}](papers/{row.slug}.ipynb)" if row.slug in chapters else name
        bounds = None if pd.isna(row.low) else (row.low, row.high)
        cells = [model, percent(row.claimed), percent(row.measured, missing=""), row.verdict, row.comparability]
        cells += [interval(bounds, missing=""), *[percent(row.released, missing="")] * weights, row.date]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is, in a cell of a table too."""
    return re.sub(r"([\\`*_{}\[\]<>|$#~])", r"\\\1", str(text))


if __name__ == "__main__":
    print(f"written: {write_front(project_root()).relative_to(project_root())}")
