"""Which code this is, where git can say it and where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import fer_repro
from fer_repro import project

VERSION = fer_repro.__version__


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "safe.directory=*")
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True, timeout=600
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A repository with one commit, inside another repository, in which this code seems to lie."""
    outer = tmp_path / "outer"
    inner = outer / "Secret Name"
    (inner / "fer_repro").mkdir(parents=True)
    (inner / "fer_repro" / "project.py").write_text("one\n")
    (outer / "other").write_text("")
    for folder, content in ((outer, "other"), (inner, "fer_repro")):
        git(folder, "init", "-q")
        git(folder, "add", content)
        git(folder, "commit", "-q", "-m", f"of {content}")
    monkeypatch.setattr(project, "__file__", str(inner / "fer_repro" / "project.py"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return inner


def commit(folder: Path) -> str:
    return git(folder, "rev-parse", "HEAD")[:12]


def test_the_commit_and_whether_tracked_files_differ(checkout):
    assert project.code_version() == f"{VERSION} ({commit(checkout)})"
    (checkout / "untracked").write_text("")
    assert project.code_version() == f"{VERSION} ({commit(checkout)})"
    (checkout / "fer_repro" / "project.py").write_text("two\n")
    assert project.code_version() == f"{VERSION} ({commit(checkout)}+changed)"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_a_checkout_of_another_owner_keeps_its_commit(checkout):
    for path in (checkout, *checkout.rglob("*")):
        os.chown(path, 12345, 12345)
    with pytest.raises(subprocess.CalledProcessError, match="128"):
        subprocess.run(["git", "status"], cwd=checkout, check=True, capture_output=True)
    (checkout / "fer_repro" / "project.py").write_text("two\n")
    assert project.code_version() == f"{VERSION} ({commit(checkout)}+changed)"


def test_a_work_tree_of_its_own_has_its_own_commit(checkout, monkeypatch):
    tree = checkout.parent / "tree"
    git(checkout, "worktree", "add", "-q", "-b", "side", str(tree))
    (tree / "fer_repro" / "project.py").write_text("two\n")
    git(tree, "commit", "-q", "-a", "-m", "on the side")
    monkeypatch.setattr(project, "__file__", str(tree / "fer_repro" / "project.py"))
    assert project.code_version() == f"{VERSION} ({commit(tree)})" != f"{VERSION} ({commit(checkout)})"
    shutil.rmtree(checkout / ".git")
    assert project.code_version() == f"{VERSION} (git refused: not a git repository)"


def test_a_hooks_variables_point_to_no_other_repository(checkout, monkeypatch):
    own, other = commit(checkout), checkout.parent
    variables = {"GIT_DIR": other / ".git", "GIT_WORK_TREE": other, "GIT_INDEX_FILE": other / ".git" / "index"}
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    assert project.code_version() == f"{VERSION} ({own})"


DAMAGE = {
    "an empty .git": lambda dot: (shutil.rmtree(dot), dot.mkdir()),
    "a .git that points nowhere": lambda dot: (shutil.rmtree(dot), dot.write_text("gitdir: /no/such/place\n")),
    "a .git of noise": lambda dot: (shutil.rmtree(dot), dot.write_bytes(b"\xff\xfe\x00")),
    "no HEAD": lambda dot: (dot / "HEAD").unlink(),
    "a HEAD of noise": lambda dot: (dot / "HEAD").write_bytes(b"\xff\xfe\x00"),
    "a damaged index": lambda dot: (dot / "index").write_bytes(b"noise"),
    "a damaged config": lambda dot: (dot / "config").write_text("[core\n"),
    "no objects": lambda dot: (shutil.rmtree(dot / "objects"), (dot / "objects").mkdir()),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_repository_says_so_and_names_no_path(checkout, kind):
    """Nor is the commit of the repository around it taken."""
    DAMAGE[kind](checkout / ".git")
    said = project.code_version()
    assert said.startswith(f"{VERSION} (git refused: ") and said.endswith(")") and "\n" not in said
    assert len(said) > len(f"{VERSION} (git refused: )") and len(said) < 150
    assert not any(word in said for word in ("Secret", "outer", str(checkout.parent.parent.name), "/"))


def test_a_repository_without_a_commit_says_so(checkout):
    shutil.rmtree(checkout / ".git")
    git(checkout, "init", "-q")
    assert project.code_version() == f"{VERSION} (no commit)"


@pytest.mark.parametrize("present", [False, True], ids=["no git", "a git that cannot be run"])
def test_where_git_does_not_run_the_version_says_so(checkout, monkeypatch, present):
    if present:
        (checkout / "git").write_text("")
    monkeypatch.setenv("PATH", str(checkout))
    assert project.code_version().startswith(f"{VERSION} (git did not run: ")


def test_without_a_repository_it_is_the_version_alone(checkout):
    shutil.rmtree(checkout / ".git")
    assert project.code_version() == VERSION


def test_no_two_files_of_tests_have_one_name():
    """pytest imports them by their bare names, and collects nothing of the second one."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("*.py") if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []
