"""Stored data besides the results: each function gives how many things it checked, and a sentence for each fault."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from fer_repro import claims as claims_of_book
from fer_repro import papers, speed
from fer_repro.book import front as front_page
from fer_repro.claims import declared_parameters
from fer_repro.errors import FerReproError
from fer_repro.packages.score import described
from fer_repro.packages.table import table as package_table
from fer_repro.recipe_search import Search
from fer_repro.results import PACKAGE

Found = tuple[int, list[str]]
DECIMALS = 4  # of the accuracies in a table of a search
DECLARED = ("kind", "variant", "parameters", "package")  # fields of a record that are declared elsewhere as well
# A stored ratio is of speeds before they were rounded to four digits.
RATIO = 0.01
# Ratio -> what is divided by what, in a measurement of one network or of the augmentation.
RATIOS = {
    "ratio": ("ours", "reference"),
    "ratio_fp32": ("ours", "reference_fp32"),
    "ratio_bf16": ("ours", "reference_bf16"),
    "share_of_synthetic": ("ours", "synthetic"),
    "times_faster": ("batched", "pil_as_released"),
    "times_faster_than_built_once": ("batched", "pil_built_once"),
}


def searches(results_dir: Path) -> Found:
    """Every ``search.csv``: each accuracy is a count of its images, each line is a recipe of the paper's search."""
    paths = sorted(results_dir.glob("*/search.csv"))
    found = []
    for path in paths:
        named = "/".join(path.parts[-3:])
        try:
            found += [f"{named}: {wrong}" for wrong in _of_search(path)][:1]
        except (FerReproError, ValueError, OSError) as error:
            found.append(f"{named} is not a readable table of a search ({' '.join(str(error).split())}): restore it")
    return len(paths), found


def _of_search(path: Path) -> Iterator[str]:
    search = _declared_search(path.parent.name)
    if search is not None:
        yield from _of_declared(search, path)
    for line, row in enumerate(pd.read_csv(path).to_dict("records"), start=2):
        n, shares = row.get("n"), [name for name in row if name == "accuracy" or name == "public_test_accuracy"]
        for name in shares:
            share = row[name]
            if not isinstance(n, int) or n <= 0 or not isinstance(share, float) or not 0 <= share <= 1:
                yield f"line {line} has {name} {share} of {n} images, expected a share of a whole number"
                continue
            correct = row.get("correct", round(share * n))
            if not math.isclose(share, correct / n, abs_tol=0.51 * 10**-DECIMALS):
                yield f"line {line}: {name} is {share}, but {correct} of {n} are {correct / n:.{DECIMALS}f}"


def _declared_search(slug: str) -> Search | None:
    """The search that a paper's module declares, if it does."""
    module = f"fer_repro.papers.{slug.replace('-', '_')}"
    if find_spec(module) is None or find_spec(module).submodule_search_locations is None:  # type: ignore[union-attr]
        return None
    name = f"{module}.recipe_search"
    return importlib.import_module(name).SEARCH if find_spec(name) is not None else None


def _of_declared(search: Search, path: Path) -> Iterator[str]:
    tried = {one.letter: one for one in search.tried}
    for line, row in enumerate(search.read(path.parents[1]), start=2):
        one = tried.get(row["recipe"])
        if one is None:
            yield f"line {line} has a recipe {row['recipe']}, expected one of {', '.join(tried)}"
        elif row["change"] != one.change:
            yield f"line {line}: recipe {one.letter} is '{row['change']}', declared as '{one.change}'"
        elif row["recipe_sha256"] != one.recipe.sha256():
            yield f"line {line}: recipe {one.letter} has the digest of another recipe"


def claims() -> Found:
    """``claims.yaml``, read from the file again: its rows against the pinned leaderboard, and its arithmetic."""
    try:
        return len(claims_of_book.read(claims_of_book.FILE).claims), []
    except FerReproError as error:
        return 1, [str(error)]


def measurements() -> Found:
    """Every stored measurement of speed: each ratio is that of the speeds beside it."""
    try:
        stored = speed.stored()
    except FerReproError as error:
        return 1, [str(error)]
    found = []
    for (name, device), figures in stored.items():
        wrong = next(_wrong_ratios(figures, ""), None)
        found += [f"benchmarks/measured/{name}-{device}.json: {wrong}: measure again with --store"] if wrong else []
    return len(stored), found


def _wrong_ratios(figures: Any, where: str) -> Iterator[str]:
    if not isinstance(figures, Mapping):
        return
    for name, sides in RATIOS.items():
        ratio, above, below = (figures.get(key) for key in (name, *sides))
        known = all(isinstance(one, (int, float)) for one in (ratio, above, below))
        if known and below and not math.isclose(ratio, above / below, rel_tol=RATIO):  # type: ignore[arg-type,operator]
            yield f"{where}{name} is {ratio}, but {sides[0]} / {sides[1]} is {above / below:.4g}"  # type: ignore[operator]
    for name, inner in figures.items():
        yield from _wrong_ratios(inner, f"{where}{name}/")


def declared(stated: Mapping[Path, Mapping[str, Any]]) -> Found:
    """What results say of their network and package, against `claims.yaml` and the table of packages.

    ``stated``: the fields `DECLARED` of the record in each folder.
    """
    found, packages = [], {(one.name, one.version): one for one in package_table().scored}
    for folder, record in stated.items():
        if record["kind"] == PACKAGE:
            own = packages.get((record["package"]["name"], record["package"]["version"]))
            wrong = [
                f"package/{name} is {record['package'].get(name)}, the table of packages says {value}"
                for name, value in (described(own) if own else {}).items()
                if record["package"].get(name) != value
            ]
        else:
            count = declared_parameters(record["variant"]) if record["variant"] in papers.variants() else None
            counted = record["parameters"]
            wrong = (
                [f"parameters is {counted:,}, claims.yaml declares {count:,}"]
                if count is not None and counted is not None and counted != count
                else []
            )
        found += [f"{folder}: {wrong[0]}"] if wrong else []
    return len(stated), found


def front(root: Path) -> Found:
    """The generated chart, findings and table below ``chapters/generated`` of a checkout, if it has any."""
    if not (root / front_page.FOLDER).is_dir():
        return 0, []
    old = front_page.stale(root)
    return len(front_page.NAMES), [
        f"{front_page.FOLDER / name} does not show the current claims and results: `make front` writes it again"
        for name in old
    ]
