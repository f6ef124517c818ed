"""The table of runs of workflow/Snakefile: what is run, after what, and what is left out."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from made_results import made_result

from fer_repro import papers, results
from fer_repro.campaign.hours import DEVICES, SHARES, gpu_hours, hours_of_all
from fer_repro.claims import declared_parameters
from fer_repro.errors import FerReproError
from fer_repro.project import project_root

WORKFLOW = project_root() / "workflow"
SNAKEMAKE = project_root() / ".venv-cluster" / "bin" / "snakemake"
# In place of the project's Python: the table of runs, and commands that fail where a file says so, which they remove.
STAND_IN = """#!/bin/sh
case "$*" in *runs.py*) exec cat table.json;; esac
echo "$*" >> commands
case "$*" in *" run "*) variant=$(echo "$*" | sed 's/.* run \\([a-z]*\\).*/\\1/');; *) exit 0;; esac
[ ! -e "$variant.broken" ] || exit 1
[ ! -e "$variant.fails-once" ] || { rm "$variant.fails-once"; exit 1; }
"""


@pytest.fixture(scope="module")
def workflow():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(WORKFLOW))
        patch.delitem(sys.modules, "runs", raising=False)
        import runs

        yield runs


def test_the_whole_table_is_seventeen_models_with_what_they_need(workflow, monkeypatch, tmp_path):
    monkeypatch.setattr(workflow, "_hours", lambda variant, options: [1.0, 10.0])
    given = yaml.safe_load((WORKFLOW / "config.yaml").read_text(encoding="utf-8"))
    names = ("variants", "protocols", "seeds", "profile")
    rows = workflow.table(**{name: given[name] for name in names}, results_dir=str(tmp_path), runs_dir=str(tmp_path))
    asked = [row for row in rows if not row["needed"]]
    assert len(asked) == 17 * 2 * 3 and len({row["variant"] for row in asked}) == 17
    assert not any(row["stored"] for row in rows)
    known = {(row["variant"], row["protocol"], row["seed"]): row for row in rows}
    assert len(known) == len(rows)
    for row in rows:
        after = {other["variant"] for other in row["after"]}
        assert after == papers.needs(row["variant"]), row
        assert all((name, row["protocol"], row["seed"]) in known for name in after)


def test_a_stored_run_is_left_out_and_its_weights_are_fitted_by_one_run_alone(workflow, tmp_path):
    results.write(made_result(variant="resemotenet", parameters=declared_parameters("resemotenet")), tmp_path)
    minis = ["mini-resemotenet-a", "mini-resemotenet-b"]
    rows = workflow.table(minis, ["official"], [0], "smoke", str(tmp_path), str(tmp_path / "runs"))
    assert {row["variant"]: row["after"] for row in rows}["mini-resemotenet-b"] == [
        {"variant": "resemotenet", "seed": 0}
    ]
    full = workflow.table(minis, ["official"], [0], "full", str(tmp_path), str(tmp_path / "runs"))
    found = {row["variant"]: row for row in full}
    assert found["resemotenet"]["stored"] and found["resemotenet"]["needed"]
    assert found[minis[0]]["after"] == []
    assert found[minis[1]]["after"] == [{"variant": minis[0], "seed": 0}]  # one writer of the teacher's folder
    assert found[minis[0]]["hours"][1] == pytest.approx(
        gpu_hours(minis[0], "official", frozenset({"resemotenet"})).high
    )


def test_an_unknown_name_is_one_sentence(workflow, capsys):
    with pytest.raises(FerReproError, match="unknown variant 'vgnet'"):
        workflow.table(["vgnet"])
    assert workflow.main({"variants": ["vgnet"]}) == 1
    assert "error: unknown variant 'vgnet'" in capsys.readouterr().err


def test_hours_of_a_table_count_each_network_once():
    both, teacher = (
        hours_of_all(["resemotenet", "mini-resemotenet-a"], ["official"]),
        gpu_hours("resemotenet", "official"),
    )
    mini = gpu_hours("mini-resemotenet-a", "official", frozenset({"resemotenet"}))
    assert both.low == pytest.approx(teacher.low + mini.low) and both.high == pytest.approx(
        both.low * SHARES[1] / SHARES[0]
    )
    hours = [gpu_hours("vggnet", "official", hardware=device).low for device in DEVICES]
    assert hours == sorted(hours, reverse=True)
    assert hours[0] / hours[1] == pytest.approx(DEVICES[1].peak["bf16"] / DEVICES[0].peak["bf16"])


def test_the_environment_of_the_cluster_is_pinned():
    pins = (WORKFLOW / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!-]+", line) for line in pins)
    wanted = (WORKFLOW / "requirements.txt").read_text(encoding="utf-8").split()
    assert wanted and all(any(line.startswith(f"{name}==") for line in pins) for name in wanted)


@pytest.fixture
def snakemake(tmp_path):
    """Runs Snakemake in a copy of the workflow without the project; ``commands``: those of `fer-repro` that it gave."""
    if not SNAKEMAKE.exists():
        pytest.skip("Snakemake is not here: make setup-cluster")
    shutil.copytree(WORKFLOW, tmp_path / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    row = {"protocol": "official", "seed": 0, "stored": False, "needed": False, "hours": None, "folder": "results"}
    teacher = {"variant": "teacher", "slug": "one", "after": []}
    student = {"variant": "student", "slug": "two", "after": [{"variant": "teacher", "seed": 0}]}
    other = {"variant": "other", "slug": "two", "after": []}
    (tmp_path / "table.json").write_text(json.dumps([row | one for one in (student, teacher, other)]))
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)

    def run() -> subprocess.CompletedProcess[str]:
        command = [SNAKEMAKE, "runs", "--profile", "workflow/profiles/local", "--config", "python=./python"]
        given = ["profile=smoke", "runs_dir=kept", "retries=1"]
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("SNAKEMAKE", "PYTHON"))}
        (tmp_path / "commands").write_text("")
        return subprocess.run(
            [*command, *given], cwd=tmp_path, env=plain, capture_output=True, text=True, timeout=300, check=False
        )

    def commands(path: Path = tmp_path / "commands") -> list[str]:
        return re.findall(r" run (\w+)", path.read_text())

    run.commands, run.folder = commands, tmp_path
    return run


def test_a_failed_run_is_tried_again_and_the_others_go_on(snakemake):
    (snakemake.folder / "teacher.fails-once").touch()
    (snakemake.folder / "other.broken").touch()
    done = snakemake()
    given = snakemake.commands()
    assert done.returncode == 1 and "Trying to restart" in done.stderr, done.stderr
    assert sorted(given) == ["other", "other", "student", "teacher", "teacher"]
    assert given.index("student") > max(at for at, name in enumerate(given) if name == "teacher")
    marks = (snakemake.folder / "_build" / "workflow" / "smoke" / "runs").glob("*/*/*.done")
    assert sorted(mark.parts[-3] for mark in marks) == ["student", "teacher"]

    (snakemake.folder / "other.broken").unlink()
    done = snakemake()
    assert done.returncode == 0 and snakemake.commands() == ["other"], done.stderr
