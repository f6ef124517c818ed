"""What the stored results were made with: exact versions, the digest of the data, the hardware."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from fer_repro import results
from fer_repro.data.official import KNOWN_DIGESTS
from fer_repro.errors import FerReproError
from fer_repro.markup import Html, details, table, text, whole
from fer_repro.page.cards import hardware
from fer_repro.project import project_root
from fer_repro.results import EVIDENCE, Result

CONSTRAINTS = "constraints.txt"
# What decides the last digits of a result; the others stand in the whole list.
MAIN = ("torch", "torchvision", "numpy", "scipy", "pandas", "scikit-learn", "pillow", "timm")
BUILDS = ("jupyter-book", "Sphinx", "sphinx-book-theme", "papermill", "myst-nb")


def pinned(path: Path) -> dict[str, str]:
    """Package -> version, in the order of a file of pins. Raises `FerReproError` for a line that is not a pin."""
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    found = {}
    for line in filter(None, lines):
        match = re.fullmatch(r"([\w.-]+)==([\w.+!-]+)", line)
        if match is None:
            raise FerReproError(f"{path.name}: '{line}' is not a pin, expected name==version")
        found[match[1]] = match[2]
    return found


class EnvironmentPage:
    """``results_dir``: folder of stored results, empty for the project's own."""

    def __init__(self, results_dir: str = "") -> None:
        if results_dir and not Path(results_dir).is_dir():
            raise FerReproError(f"there is no folder of results {results_dir}: `fer-repro run --results-dir` makes one")
        where = Path(results_dir) if results_dir else None
        self.stored: list[Result] = [one for kind in EVIDENCE for one in results.read_all(where, kind)]
        self.pins = pinned(project_root() / CONSTRAINTS)

    def packages(self) -> Html:
        """The pinned versions: those that matter most, and all of them folded."""

        def rows(names: tuple[str, ...]) -> list[list[str]]:
            return [[text(name), text(self.pins[name])] for name in names]

        header = ["Package", "Version"]
        body = (
            table(header, rows(MAIN), "Computes")
            + table(header, rows(BUILDS), "Builds the book")
            + details(f"All {len(self.pins)} packages of {CONSTRAINTS}", table(header, rows(tuple(self.pins))))
        )
        return Html(body, f"{len(self.pins)} pinned packages")

    def data(self) -> Html:
        """The digests of the data that the stored results name, and how many results each has."""
        counts = Counter((one.record["data"]["name"], one.record["data"]["digest"]) for one in self.stored)
        rows = [
            [text(name), text(KNOWN_DIGESTS.get(digest), "another copy"), f"<code>{text(digest)}</code>", whole(n)]
            for (name, digest), n in counts.items()
        ]
        header = ["Data", "Copy", "sha256 over pixels, labels and usages", "Results"]
        return Html(table(header, rows, numeric=(3,)), "; ".join(digest for _, digest in counts))

    def machines(self) -> Html:
        """The hardware and the versions that the stored results were made with, and how many results each has."""
        counts = Counter(_machine(one) for one in self.stored)
        rows = [[*map(text, machine), whole(n)] for machine, n in sorted(counts.items(), key=lambda item: -item[1])]
        header = ["Hardware", "System", "Python", "torch", "torchvision", "Results"]
        return Html(table(header, rows, numeric=(5,)), f"{len(rows)} environments")


def _machine(one: Result) -> tuple[str, ...]:
    recorded = one.record["environment"]
    return (hardware(one), *(recorded.get(name) or "unknown" for name in ("system", "python", "torch", "torchvision")))
