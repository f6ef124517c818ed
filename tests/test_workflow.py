"""The table of runs of workflow/Snakefile: what is run, after what, and what is left out."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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
# In place of the project's Python: the table of runs, and commands that fail where a file says so, which they remove,
# and last as long as another file is there.
STAND_IN = """#!/bin/sh
case "$*" in *runs.py*) exec cat table.json;; esac
echo "$*" >> commands
echo "begin $*" >> spans
trap 'echo "end $*" >> spans' EXIT
while [ -e "hold-$3" ]; do sleep 0.1; done
out=$(echo "$*" | sed -n 's/.* --out \\([^ ]*\\).*/\\1/p')
[ -z "$out" ] || touch "$out"
case "$*" in *" run "*) variant=$(echo "$*" | sed 's/.* run \\([a-z]*\\).*/\\1/');; *) exit 0;; esac
[ ! -e "$variant.broken" ] || exit 1
[ ! -e "$variant.fails-once" ] || { rm "$variant.fails-once"; exit 1; }
"""
# In place of Slurm, on this machine: a job begins at once, and its state is a line of the file `states`.
SLURM = {
    "sbatch": """
echo "$*" >> sbatch.log
while [ $# -gt 0 ]; do
    case $1 in --wrap=*) job=${1#--wrap=};; --output) log=$2;; --job-name) name=$2;; esac
    shift
done
(
    export SLURM_JOB_ID=$$
    if sh -c "$job" > "$log" 2>&1; then state=COMPLETED; else state=FAILED; fi
    echo "$name $$|$state" >> states
) < /dev/null > /dev/null 2>&1 &
echo $$
""",
    "sacct": """
while [ $# -gt 0 ]; do [ "$1" != --name ] || name=$2; shift; done
sed -n "s/^$name //p" states
""",
    "srun": """
while case $1 in -*) true;; *) false;; esac; do shift; done
exec "$@"
""",
    "sinfo": "echo PARTITION; echo gpu*",
    "sacctmgr": "echo ours",
    "squeue": "exit 1",
    "scontrol": "exit 1",
    "scancel": "exit 0",
}


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
    """Runs Snakemake in a copy of the workflow without the project; ``commands``: the runs that it gave."""
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

    def start(*targets: str, profile: str = "local", options: Sequence[str] = (), **config: str) -> subprocess.Popen:
        """Snakemake in a process of its own, what it says in the file ``said``."""
        given = {"python": "./python", "profile": "smoke", "runs_dir": "kept", "retries": "1", **config}
        command = [SNAKEMAKE, *targets, "--profile", f"workflow/profiles/{profile}", *options]
        command += ["--config", *(f"{name}={value}" for name, value in given.items())]
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("SNAKEMAKE", "PYTHON"))}
        plain["PATH"] = f"{tmp_path / 'slurm'}{os.pathsep}{plain['PATH']}"
        (tmp_path / "commands").write_text("")
        with (tmp_path / "said").open("w") as said:
            return subprocess.Popen(command, cwd=tmp_path, env=plain, stdout=said, stderr=said)

    def run(*targets: str, **settings: Any) -> str:
        """What Snakemake said; ``run.status``: its exit status."""
        run.status = start(*targets, **settings).wait(300)
        return said()

    def said() -> str:
        return (tmp_path / "said").read_text()

    def commands(path: Path = tmp_path / "commands") -> list[str]:
        return re.findall(r" run (\w+)", path.read_text())

    def spans(path: Path = tmp_path / "spans") -> list[list[str]]:
        """What began and ended, in order: ``begin`` or ``end``, and the command."""
        return [line.split(maxsplit=1) for line in path.read_text().splitlines()] if path.exists() else []

    run.commands, run.spans, run.said, run.start, run.folder = commands, spans, said, start, tmp_path
    return run


def until(what: str, condition: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} was waited for in vain"
        time.sleep(0.1)


def test_a_failed_run_is_tried_again_and_the_others_go_on(snakemake):
    (snakemake.folder / "teacher.fails-once").touch()
    (snakemake.folder / "other.broken").touch()
    said = snakemake("runs")
    given = snakemake.commands()
    assert snakemake.status == 1 and "Trying to restart" in said, said
    assert sorted(given) == ["other", "other", "student", "teacher", "teacher"]
    assert given.index("student") > max(at for at, name in enumerate(given) if name == "teacher")
    marks = (snakemake.folder / "_build" / "workflow" / "smoke" / "runs").glob("*/*/*.done")
    assert sorted(mark.parts[-3] for mark in marks) == ["student", "teacher"]

    (snakemake.folder / "other.broken").unlink()
    said = snakemake("runs")
    assert snakemake.status == 0 and snakemake.commands() == ["other"], said


def kill_and_start_again(snakemake, verb: str, *targets: str, **settings: Any) -> None:
    """Kill the driver while a command of ``verb`` runs, start it again: no command may run beside itself."""

    def began() -> int:
        return sum(kind == "begin" and f" {verb} " in f"{command} " for kind, command in snakemake.spans())

    hold = snakemake.folder / f"hold-{verb}"
    hold.touch()
    try:
        driver = snakemake.start(*targets, **settings)
        until(f"a command {verb}", began)
        driver.kill()
        driver.wait()
        before = began()
        assert "Unlocked" in snakemake(*targets, options=["--unlock", *settings.get("options", ())])
        driver = snakemake.start(*targets, **settings)
        until(f"{verb} by the second driver", lambda: f"fer_repro.cli {verb}" in snakemake.said())
        # A second writer would begin within moments.
        end = time.monotonic() + 3
        while began() == before and time.monotonic() < end:
            time.sleep(0.1)
    finally:
        hold.unlink()
    assert driver.wait(300) == 0, snakemake.said()
    running: set[str] = set()
    for kind, command in snakemake.spans():
        assert (kind == "end") == (command in running), f"{command} ran twice at a time"
        (running.discard if kind == "end" else running.add)(command)
    assert not running and began() > before


@pytest.mark.parametrize("verb", ["run", "chapter", "book"])
def test_a_killed_driver_makes_no_second_writer(snakemake, verb):
    if not shutil.which("flock"):
        pytest.skip("this system has no flock")
    kill_and_start_again(snakemake, verb)
    assert (snakemake.folder / "_build" / "workflow" / "smoke" / "book.done").exists()
    assert "Nothing to be done" in snakemake()


def test_some_chapters_alone_for_a_trial(snakemake):
    said = snakemake(only="[one,leaderboard]")
    assert snakemake.status == 0, said
    assert (
        (snakemake.folder / "commands")
        .read_text()
        .splitlines()[-1]
        .endswith("cli book --profile smoke --only one --only leaderboard")
    )


def test_without_the_environment_of_the_project_one_sentence_names_it(snakemake):
    said = snakemake(python="no/python")
    assert snakemake.status == 1
    assert "no/python cannot be started (No such file or directory): `make setup` makes its environment" in said


def test_slurm_gets_one_gpu_for_a_run_and_keeps_a_job_whose_driver_is_killed(snakemake):
    if not shutil.which("flock"):
        pytest.skip("this system has no flock")
    (snakemake.folder / "slurm").mkdir()
    for name, text in SLURM.items():
        program = snakemake.folder / "slurm" / name
        program.write_text(f"#!/bin/sh\n{text}")
        program.chmod(0o755)
    (snakemake.folder / "states").touch()
    (snakemake.folder / "teacher.fails-once").touch()
    given = ["--default-resources", "slurm_account=ours", "slurm_partition=gpu", "--latency-wait", "1"]
    quick = ["--slurm-init-seconds-before-status-checks", "1"]
    kill_and_start_again(snakemake, "run", profile="slurm", options=[*given, *quick])
    names = snakemake.commands(snakemake.folder / "spans")
    assert names.index("student") > max(at for at, name in enumerate(names) if name == "teacher")
    for call in (snakemake.folder / "sbatch.log").read_text().split("--parsable")[1:]:
        assert "-A ours" in call and "-p gpu" in call
        assert ("gpu:1" in call or "--gpus=1" in call) == ("--comment rule_run" in call), call
