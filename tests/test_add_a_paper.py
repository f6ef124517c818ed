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
# What counts rows, models or recipes: the pinned leaderboard, the recipes on file, the pages, the tables, the chart.
COUNTING = (
    "tests/test_claims.py",
    "tests/test_leaderboard.py",
    "tests/test_golden_recipes.py",
    "tests/test_chapters_text.py",
    "tests/page/test_board_table.py",
    "tests/page/test_page.py",
    "tests/plots/test_plots.py",
    "tests/book/test_build.py",
)
COUNTED = "claims or test_leaderboard or golden or chapters_text or board_table or counted or chart or front"
WRITTEN = {
    "fer_repro/claims.yaml",
    "references.bib",
    "fer_repro/papers/small_net.py",
    "fer_repro/papers/small_net.yaml",
    "fer_repro/papers/resemotenet/__init__.py",
    "_toc.yml",
}


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
    """A copy of the project with the page's paper and the page's second variant in it."""
    root = tmp_path_factory.mktemp("project")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, root / name)
    written = [write_block(root, block) for _, block in blocks() if PLACE.match(block)]
    assert set(written) == WRITTEN
    for language, block in blocks():
        if language == "sh" and block.startswith(("sed ", "python ")):
            command = block.replace("python ", f"{sys.executable} ", 1) if block.startswith("python ") else block
            done = run(root, "bash", "-euc", command)
            assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize(("name", "least"), [("small-net", 12), ("resemotenet-no-flip", 8)])
def test_the_contract_accepts_what_the_page_adds(copy, name, least):
    """With the page's own choice of tests."""
    commands = [block for _, block in blocks() if "test_contract.py" in block]
    (chosen,) = (found[1] for block in commands if (found := re.search(rf'-k "({name} .+)"', block)))
    shown = pytest_in(copy, "tests/test_contract.py", "tests/page/test_recipe_table.py", "-k", chosen)
    assert int(re.search(r"(\d+) passed", shown)[1]) >= least


def test_the_tests_that_count_rows_accept_a_paper_that_is_not_on_the_leaderboard(copy):
    shown = pytest_in(copy, *COUNTING, "-k", COUNTED)
    assert int(re.search(r"(\d+) passed", shown)[1]) >= 190


def test_the_paper_is_shown_and_never_counted_with_the_leaderboard(copy):
    code = (
        "from fer_repro import leaderboard, page\n"
        "from fer_repro.book import front\n"
        "from fer_repro.page import timeline\n"
        "board = leaderboard.leaderboard()\n"
        "print(list(board.ModelName)[-1], len(board), board.pinned.sum())\n"
        "print(page.leaderboard_table(board).body, page.claim_card('small-net').body)\n"
        "print(page.verdict_summary(board).body)\n"
        "print('left out:', 'SmallNet' in front.verdict_table(board, ()), 'SmallNet' in timeline._numbers("
        "timeline.points(board)), timeline.accuracy_over_time_static(board).alt.split('. ')[0])\n"
    )
    shown = run(copy, sys.executable, "-c", code)
    assert shown.stdout.startswith("SmallNet 18 17\n"), shown.stderr
    assert "17 models, and 1 not on the leaderboard" in shown.stdout
    assert shown.stdout.count("added to this book, not on the leaderboard") == 2, "in the table and on the card"
    assert "Not counted, because not on the leaderboard: SmallNet (not run)" in shown.stdout
    assert "left out: False False Accuracy on FER2013 over time, 17 claims from 2013 to 2025" in shown.stdout


def test_the_command_line_knows_both(copy):
    def cli(*arguments: str) -> str:
        done = run(copy, sys.executable, "-m", "fer_repro.cli", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    kinds = {line.split()[0]: " ".join(line.split()[2:]) for line in cli("list").splitlines() if line.strip()}
    assert kinds["small-net"].startswith("not on the leaderboard not run")
    assert kinds["resemotenet-no-flip"].startswith("ablation of resemotenet")
    assert kinds["vggnet"].startswith("row ")
    audit = cli("audit")
    assert audit.count("(not on the leaderboard)") == 1 and "small-net (not on the leaderboard)" in audit
    done = cli("run", "small-net", "resemotenet-no-flip", "--profile", "smoke", "--epochs", "1", "--device", "cpu")
    assert done.count("synthetic faces - not a result") == 2


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
