"""``fer-repro doctor`` says what is here, what can run, and fails only where the main job cannot."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fer_repro import cli, doctor, papers
from fer_repro.campaign import Task, throughput
from fer_repro.campaign.estimate import Estimator
from fer_repro.doctor import MAIN, NOTE, OK, PROBLEM, Fact
from fer_repro.parameters import RunOptions


def call(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", *words])
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


@pytest.fixture(autouse=True)
def few_models(monkeypatch):
    """Counting all of them takes long."""
    few = {name: papers.get(name) for name in ("deep-emotion", "vggnet", "local-learning-bow")}
    monkeypatch.setattr(papers, "variants", lambda: few)


@pytest.fixture
def with_data(monkeypatch):
    monkeypatch.setattr(doctor, "data", lambda root: Fact("data", OK, "35,887 images"))


def test_a_machine_with_everything(capsys, with_data):
    status, out, _ = call(capsys, "--json", "--device", "cpu")
    found = json.loads(out)
    assert (status, found["ok"]) == (0, True)
    assert found["facts"]["torch"]["version"] == torch.__version__ and found["facts"]["cores"]["cores"] > 0
    assert found["facts"].keys() >= set(
        "python packages torch gpu data weights cores memory disk browser git extras".split()
    )
    first, last = found["time"]["cheapest"], found["time"]["dearest"]
    assert 0 < first["seconds"] < last["seconds"] and first["variant"] != last["variant"] and last["source"]
    assert found["time"]["models"] + found["time"]["unknown"] == 3
    assert {"what": MAIN, "possible": True, "why": ""} in found["can"]


def test_times_are_those_of_a_run_that_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "matmul_speed", lambda device: 1e12)
    options = RunOptions(results_dir=tmp_path, runs_dir=tmp_path, device="cpu")
    estimator = Estimator(options)
    for name in ("vggnet", "deep-emotion"):
        new = estimator.remaining(Task(name, 0))
        assert estimator.whole(name) == (pytest.approx(new.fitting + new.scoring), new.source)
    assert estimator.whole("local-learning-bow") is None, "no network, and nothing is stored"


def test_without_data_the_main_job_cannot_run(capsys):
    status, out, err = call(capsys, "--root", "nowhere", "--device", "cpu")
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert status == 1 and err == ""
    assert "problem" in lines["data"] and "'nowhere', which does not exist" in lines["data"]
    assert lines["a"].startswith(MAIN) and lines["a"].endswith("no: data")
    assert lines["smoke"].split()[-1] == "yes"
    assert lines["cheapest:"] and lines["dearest:"]


def test_a_torch_that_does_not_load_is_said(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    status, out, _ = call(capsys, "--json")
    found = json.loads(out)
    assert status == 1 and found["time"] is None and "gpu" not in found["facts"]
    assert found["facts"]["torch"]["state"] == PROBLEM and "does not load" in found["facts"]["torch"]["text"]
    assert {one["what"]: one["why"] for one in found["can"]}[MAIN] == "torch"
    assert "times: unknown" in call(capsys)[1]


def test_a_device_that_is_not_here_is_one_sentence(capsys, monkeypatch, with_data):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    status, out, err = call(capsys, "--device", "cuda:1")
    assert (status, out) == (1, "") and err.startswith("error: device 'cuda:1' was asked for, but torch")


def test_versions_are_those_of_the_project():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    (low, high), (major, minor) = doctor.PYTHONS, doctor.TORCH
    assert project["requires-python"] == f">={low[0]}.{low[1]},<{high[0]}.{high[1] + 1}"
    assert f"torch>={major}.{minor}" in project["dependencies"]
    assert set(doctor.EXTRAS) <= project["optional-dependencies"].keys()


def test_versions_and_packages_that_are_missing(monkeypatch):
    monkeypatch.setattr(doctor, "PYTHONS", ((3, 98), (3, 99)))
    assert doctor.python().state == PROBLEM and "expected 3.98 to 3.99" in doctor.python().text
    monkeypatch.setattr(doctor, "TORCH", (99, 0))
    assert doctor.torch_build().state == PROBLEM
    lines = ["numpy>=2", "no-such-package>=1", 'nor-this; extra == "search"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    assert doctor.packages().text == "no-such-package missing: pip install no-such-package"
    assert doctor.extras() == Fact("extras", NOTE, "search lacks nor-this", {"missing": {"search": ["nor-this"]}})

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    assert doctor.packages().state == PROBLEM and doctor.extras().state == NOTE


def test_gpus_and_what_they_can_do(monkeypatch):
    cards = [SimpleNamespace(name="Tesla T4", major=7, minor=5, total_memory=16e9)]
    cards += [SimpleNamespace(name="Tesla P100", major=6, minor=0, total_memory=17e9)]
    capability = lambda place: (cards[place.index].major, cards[place.index].minor)  # noqa: E731
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_properties", cards.__getitem__)
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
    found = doctor.gpus()
    assert found.state == OK and [one["precision"] for one in found.values["gpus"]] == ["fp16", "fp16"]
    assert [one["kernels"] for one in found.values["gpus"]] == [True, False]
    assert "Tesla T4 (compute capability 7.5, 16 GB, fp16); Tesla P100" in found.text and "no kernels" in found.text
    del cards[0]
    assert doctor.gpus().state == NOTE
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/" + name)
    assert "nvidia-smi is here" in doctor.gpus().text


def test_a_container_may_use_less_than_the_machine_has(monkeypatch):
    files = {
        "/proc/meminfo": "MemTotal:  8000000 kB\nMemAvailable:  4000000 kB\n",
        "/sys/fs/cgroup/memory.max": "1000000000\n",
        "/sys/fs/cgroup/cpu.max": "50000 100000\n",
    }
    monkeypatch.setattr(doctor, "_read", files.get)
    assert doctor.cores().values == {"cores": 0.5}
    assert doctor.memory().values == {"total_bytes": 10**9, "available_bytes": 10**9}
    assert doctor.memory().state == NOTE
    files |= {"/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/cpu.max": "max 100000\n"}
    assert doctor.memory().values == {"total_bytes": 8000000 * 1024, "available_bytes": 4000000 * 1024}
    assert doctor.memory().state == OK and doctor.cores().values["cores"] >= 1


def test_little_disk_is_a_problem(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=10**8))
    assert doctor.disk().state == PROBLEM and "0.10 GB free" in doctor.disk().text
