"""What GitHub runs: targets of the Makefile, by actions pinned to a commit, with no more rights than a job needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
# What a job may do beside reading the repository.
RIGHTS = {("book.yml", "deploy"): {"pages": "write", "id-token": "write"}}


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.name)
def workflow(request) -> tuple[str, dict[str, Any]]:
    return request.param.name, yaml.safe_load(request.param.read_text(encoding="utf-8"))


def called(job: dict[str, Any]) -> Iterator[str]:
    """The targets that a job makes, a name of its matrix replaced by every value."""
    for step in job["steps"]:
        for target in re.findall(r"\bmake (\$\{\{ matrix\.\w+ \}\}|[\w-]+)", step.get("run", "")):
            if target.startswith("$"):
                name = target.split("matrix.")[1].rstrip(" }")
                yield from (entry[name] for entry in job["strategy"]["matrix"]["include"])
            else:
                yield target


def test_every_job_makes_targets_of_the_makefile(workflow):
    name, content = workflow
    assert {"test", "lint", "book"} <= TARGETS and "CODE" not in TARGETS
    for job_name, job in content["jobs"].items():
        made = set(called(job))
        assert made <= TARGETS, f"{name} makes {made - TARGETS}, which the Makefile does not have"
        assert made or (name, job_name) in RIGHTS
        for step in job["steps"]:
            assert "run" not in step or "make " in step["run"]


def test_actions_are_pinned_and_rights_are_minimal(workflow):
    name, content = workflow
    assert content["permissions"] == {"contents": "read"}
    for job_name, job in content["jobs"].items():
        assert job.get("permissions", {}) == RIGHTS.get((name, job_name), {}) and job["timeout-minutes"] <= 120
        for step in job["steps"]:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step.get("uses", f"a/b@{'0' * 40}"))
    text = (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")
    assert len(re.findall(r"uses: ", text)) == len(re.findall(r"uses: \S+  # v\d+\.\d+\.\d+$", text, re.M))


def test_all_that_is_promised_runs():
    jobs = {
        target: name
        for path in WORKFLOWS
        for name, job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].items()
        for target in called(job)
    }
    assert set(jobs) >= {"lint", "actionlint", "test", "test-portable", "test-colab", "test-cluster", "book", "links"}


def test_the_lists_of_tests_exist():
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    for name in ("CORE", "PORTABLE"):
        listed = re.search(rf"^{name} := \$\(addprefix tests/,(.*)\)$", text, re.M)[1].split()
        assert listed and not [one for one in listed if not (ROOT / "tests" / one).exists()]
