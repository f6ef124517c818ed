"""The generated part of the front page and the README: what was found, the chart, the table of verdicts.

They are committed, so that a reader of the sources sees them, and written again by every build of the book. A test
fails when the committed ones are older than the results; ``make front`` renews them.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from fer_repro.book.front_findings import escape, front_findings
from fer_repro.errors import FerReproError
from fer_repro.files import atomic_write
from fer_repro.leaderboard import baseline_band, leaderboard
from fer_repro.markup import interval, percent
from fer_repro.page.marks import reported
from fer_repro.page.timeline import (
    DIGEST_KEY,
    accuracy_over_time,
    accuracy_over_time_static,
    data_digest,
    picture_digest,
)
from fer_repro.plots.theme import LIGHT
from fer_repro.project import project_root

FOLDER = Path("chapters/generated")
PICTURE = "accuracy-over-time.png"  # of the README
CHART = "accuracy-over-time.html"
FINDINGS, TABLE = "findings.md", "verdicts.md"
NAMES = (PICTURE, CHART, FINDINGS, TABLE)


def write_front(root: Path, results_dir: str = "") -> Path:
    """Write all of `NAMES` below ``root``; returns the folder. Raises `FerReproError` where that is impossible."""
    board, band, folder = leaderboard(results_dir), baseline_band(results_dir), root / FOLDER
    chart = f"<!-- {DIGEST_KEY}: {data_digest(board, band)} -->\n{accuracy_over_time(board, band)._repr_html_()}\n"
    try:
        # A host shows it on whatever background it has, so the picture brings its own.
        accuracy_over_time_static(board, band).save(folder / PICTURE, background=LIGHT.page)
        for name, content in {CHART: chart, **_texts(root, results_dir)}.items():
            with atomic_write(folder / name) as file:
                file.write(content.encode())
    except OSError as error:
        raise FerReproError(f"{folder} cannot be written ({error.strerror}): correct its permissions") from error
    return folder


def stale(root: Path, results_dir: str = "") -> list[str]:
    """The names of generated files below ``root`` that do not show the current claims and results."""
    digest, folder = data_digest(leaderboard(results_dir), baseline_band(results_dir)), root / FOLDER
    found = [name for name in NAMES if not (folder / name).is_file()]
    if PICTURE not in found and picture_digest(folder / PICTURE) != digest:
        found.append(PICTURE)
    if CHART not in found and digest not in (folder / CHART).read_text(encoding="utf-8").partition("\n")[0]:
        found.append(CHART)
    texts = _texts(root, results_dir)
    return found + [n for n in texts if n not in found and (folder / n).read_text(encoding="utf-8") != texts[n]]


def _texts(root: Path, results_dir: str) -> dict[str, str]:
    board, where = leaderboard(results_dir), Path(results_dir) if results_dir else None
    return {
        FINDINGS: front_findings(board, baseline_band(results_dir), where),
        TABLE: verdict_table(board, slugs_with_chapter(root)),
    }


def slugs_with_chapter(root: Path) -> set[str]:
    return {path.stem for path in (root / "chapters" / "papers").glob("*.ipynb")}


def verdict_table(board: pd.DataFrame, chapters: Collection[str]) -> str:
    """Markdown: a row for each claim of the leaderboard, with the best evidence there is; where that is no full run,
    what others report as well. Paths from ``chapters/``."""
    board = board[board["pinned"]]
    lines = ["| Model | Claimed | Best evidence on real faces | Verdict | Class |", "|---|---:|---|---|:---:|"]
    for row in board.itertuples():
        name = escape(row.model)
        model = f"[{name}](papers/{row.slug}.ipynb)" if row.slug in chapters else name
        evidence = escape(row.evidence_text)
        if pd.notna(row.measured):
            evidence = f"**{percent(row.measured)}** measured ({interval((row.low, row.high))}): {evidence}"
        elif row.evidence != "others" and (found := reported(row._asdict())) is not None:
            evidence = f"{evidence}; others: {found}"
        cells = [f"{model}, {row.date[:4]}", percent(row.claimed), evidence, row.verdict, row.comparability]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(f"written: {write_front(project_root()).relative_to(project_root())}")
