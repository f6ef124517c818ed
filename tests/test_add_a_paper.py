"""A paper is added to a copy of the project exactly as "Add a paper" says, and the project's tests accept it.

Everything that is written comes from the code blocks of the page, so that the page and this test cannot drift apart.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "chapters" / "add-a-paper.md"
COPIED = (
    "fer_repro",
    "chapters",
    "results",
    "tests",
    "_ext",
    "_toc.yml",
    "references.bib",
    "pyproject.toml",
    "README.md",
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
# The first line of a block that goes into a file: "# fer_repro/claims.yaml: at the end".
PLACE = re.compile(r"[#%] (\S+): (a new file|at the end|below (.+))\n")
# The pinned leaderboard, the recipes on file, the pages; the module that is printed is a paper of the copy already.
OTHERS = "(test_claims or test_leaderboard or test_golden or test_chapters_text) and not printed_module"


def blocks() -> list[tuple[str, str]]:
    """Language and content of each code block of the page, in order."""
    return BLOCK.findall(PAGE.read_text(encoding="utf-8"))


def write_block(root: Path, block: str) -> str:
    """Put one block where its first line says; returns the file's name."""
    name, place, below = PLACE.match(block).groups()
    path, content = root / name, block.split("\n", 1)[1]
    if place == "a new file":
        assert not path.exists()
        path.write_text(content, encoding="utf-8")
        return name
    before = path.read_text(encoding="utf-8")
    at = len(before)
    if below:
        at = 0
        for line in below.split(", "):
            at = before.index(f"{line}\n", at) + len(line) + 1
    path.write_text(before[:at] + content + before[at:], encoding="utf-8")
    return name


def run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def pytest_in(root: Path, *options: str) -> str:
    found = run(root, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *options)
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-1000:]
    return found.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the page's paper in it."""
    root = tmp_path_factory.mktemp("project")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, root / name)
    written = [write_block(root, block) for _, block in blocks() if PLACE.match(block)]
    assert set(written) == {"fer_repro/claims.yaml", "references.bib", "fer_repro/papers/small_net.py", "_toc.yml"}
    for language, block in blocks():
        if language == "sh" and block.startswith(("sed ", "python ")):
            command = block.replace("python ", f"{sys.executable} ", 1) if block.startswith("python ") else block
            done = run(root, "bash", "-euc", command)
            assert done.returncode == 0, done.stderr
    return root


def test_the_contract_accepts_the_paper_of_the_page(copy):
    chosen = next(re.search(r'-k "(.+)"', block)[1] for _, block in blocks() if "test_contract.py" in block)
    shown = pytest_in(copy, "tests/test_contract.py", "-k", chosen)
    assert int(re.search(r"(\d+) passed", shown)[1]) >= 12


def test_the_other_tests_accept_a_paper_that_is_not_on_the_leaderboard(copy):
    files = ("claims", "leaderboard", "golden_recipes", "chapters_text")
    assert "passed" in pytest_in(copy, *(f"tests/test_{name}.py" for name in files), "-k", OTHERS)


def test_the_leaderboard_shows_the_paper_and_says_that_it_was_added(copy):
    code = (
        "from fer_repro import leaderboard, page\n"
        "board = leaderboard.leaderboard()\n"
        "print(list(board.ModelName)[-1], len(board))\n"
        "print(page.leaderboard_table(board).body, page.claim_card('small-net').body)\n"
    )
    shown = run(copy, sys.executable, "-c", code)
    assert shown.stdout.startswith("SmallNet 18\n"), shown.stderr
    assert "18 rows, 1 of them not on the pinned leaderboard" in shown.stdout
    assert "not on the pinned leaderboard, added to this book" in shown.stdout


def test_without_its_line_of_parameters_the_paper_is_refused(copy, tmp_path):
    """The page's four places are all needed: a copy that lacks one is told which."""
    path = copy / "fer_repro" / "claims.yaml"
    whole = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"^  small-net: \d+\n", "", whole, flags=re.M), encoding="utf-8")
    try:
        shown = run(copy, sys.executable, "-c", "from fer_repro.claims import book; book()")
    finally:
        path.write_text(whole, encoding="utf-8")
    assert "parameters: the count of small-net is missing" in shown.stderr
