"""The installed package on another system: no checkout, no extras, no POSIX; and what needs one of them says so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _csv_writer import repeated, write_csv
from data_copies import SMALL
from made_results import made_result
from PIL import Image

from fer_repro import results
from fer_repro.data import FER2013

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def done(tmp_path_factory, few_synthetic: FER2013) -> dict[str, list]:
    """Exit status, stdout and stderr of every step of `elsewhere`, which imports torch once for all of them."""
    place = tmp_path_factory.mktemp("Größe & Maß")
    site = place / "site packages"
    shutil.copytree(CHECKOUT / "fer_repro", site / "fer_repro", ignore=shutil.ignore_patterns("__pycache__"))
    write_csv(repeated(SMALL), place / "Gesichter né.csv")
    Image.fromarray(few_synthetic.images[0]).save(place / "Gesicht ä.png")
    results.write(made_result(parameters=29_890_759), place / "Ergebnisse für später")
    script = [sys.executable, str(Path(__file__).with_name("elsewhere.py")), str(site), str(place), str(CHECKOUT)]
    hidden = ("PYTHONPATH", "FER2013_ROOT", "FER_REPRO_RELEASED")
    variables = {name: value for name, value in os.environ.items() if name not in hidden} | {"LOGNAME": "somebody"}
    ended = subprocess.run(script, capture_output=True, encoding="utf-8", env=variables, cwd=place, timeout=600)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert not any("Traceback" in err for _, _, err in found.values()), found
    return found


@pytest.mark.parametrize(
    "step", ["list", "packages", "data", "resumed", "export", "predict", "score", "verify", "audit"]
)
def test_it_works(done, step):
    assert done[step][0] == 0, done[step]


def test_what_it_answers(done):
    assert any(one["id"] == "vggnet" and one["claimed"] for one in json.loads(done["list"][1])["variants"])
    assert json.loads(done["packages"][1])
    assert json.loads(done["data"][1])["modified"] and json.loads(done["score"][1])["synthetic"]
    (seen,) = json.loads(done["predict"][1])["pictures"]
    assert seen["picture"] == "Gesicht ä.png" and np.isclose(sum(seen["probabilities"].values()), 1, atol=1e-3)
    assert done["verify"][1].startswith("1 stored results")
    assert done["all"][1].startswith("efficientfer-lite0-scratch: left out") and done["all"][2] == "vggnet"


def test_a_run_stops_resumes_and_has_one_writer(done):
    status, out, err = done["stopped"]
    assert status == 130 and "Ctrl-C" in out and "give the same command again" in err
    status, out, _ = done["second writer"]
    assert status == 1 and "is in use by process" in out and "unknown" not in out
    assert "going on after epoch 1" in done["resumed"][1]


@pytest.mark.parametrize("step", ["book outside", "bench outside", "chapter outside", "verify outside"])
def test_what_needs_a_checkout_says_so_in_one_sentence(done, step):
    status, out, err = done[step]
    assert status == 1 and "a checkout of the book" in err and err.count("\n") == 1, (out, err)


@pytest.mark.parametrize("step", ["book without its extra", "chapter without its extra"])
def test_what_needs_an_extra_says_which(done, step):
    status, _, err = done[step]
    assert status == 1 and "pip install 'fer-repro[book]'" in err
