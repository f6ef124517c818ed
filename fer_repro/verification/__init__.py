"""Everything that pages show, recomputed from where it comes: results, tables of searches, measurements of speed, the
claims, what is generated for the front page, and the pages of a built book.

`results.examined` holds the results to their predictions, ``sources`` all other stored data, ``pages`` a book.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fer_repro import results
from fer_repro.project import default_results_dir
from fer_repro.verification import pages, sources


@dataclass
class Report:
    """What was checked, as (what, how many), and one sentence for each thing that is not well."""

    checked: list[tuple[str, int]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, what: str, count: int, problems: list[str]) -> None:
        if count:
            self.checked.append((what, count))
        self.problems += problems

    def __str__(self) -> str:
        listed = ", ".join(f"{count} {what}" for what, count in self.checked)
        return f"{listed} checked, {len(self.problems)} problems"


def verify(results_dir: Path | None = None, book: Path | None = None) -> Report:
    """Recompute everything below a results folder; of the project's own also what lies beside it in the checkout.

    ``book``: the folder of a built book, whose tables are compared with the sources.
    """
    own = results_dir is None
    where = Path(results_dir) if results_dir is not None else default_results_dir()
    report = Report()
    stored = results.all_folders(where)
    stated, damaged = {}, []
    for folder, record, problem in results.examined(stored):
        damaged += [problem] if problem else []
        stated[folder] = {name: record.get(name) for name in sources.DECLARED}
    report.add("stored results", len(stored), damaged)
    whole = not report.problems  # what is made of damaged results cannot be compared with them
    report.add("tables of searches", *sources.searches(where))
    if own:
        report.add("claims", *sources.claims())
        report.add("measurements of speed", *sources.measurements())
    if whole:
        report.add("records of packages and networks", *sources.declared(stated))
    if own and whole and not report.problems:
        report.add("generated files of the front page", *sources.front(where.parent))
    if book is not None and not report.problems:
        report.add("pages", *pages.compare(Path(book), where))
    return report
