"""An export is loaded by what its model card says, literally; what is damaged or foreign is refused in a sentence."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import damaged_bytes, damaged_documents

from fer_repro import load, papers
from fer_repro.data import LABELS
from fer_repro.errors import FerReproError
from fer_repro.loading import CARD, CONFIG, WEIGHTS
from fer_repro.reproduce import reproduce
from fer_repro.transfer import pack
from fer_repro.transfer.export import export

ROOT = Path(__file__).resolve().parents[2]
SMOKE = {"profile": "smoke", "device": "cpu"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A smoke run's predictions on black pictures, and its three exports: whole, in bf16, packed for inference."""
    there = tmp_path_factory.mktemp("exports")
    result = reproduce("deep-emotion", runs_dir=there / "runs", **SMOKE)
    folders = {
        kind: export("deep-emotion", profile="smoke", runs_dir=there / "runs", out=there / kind, bf16=kind == "bf16")
        for kind in ("whole", "bf16")
    }
    pack.pack(there / "parts", inference=True, runs_dir=there / "runs")
    pack.unpack(there / "parts", runs_dir=there / "runs", exports_dir=there / "unpacked")
    [folders["packed"]] = (there / "unpacked").iterdir()
    return result, folders


@pytest.mark.parametrize("kind", ["whole", "bf16", "packed"])
def test_the_cards_code_predicts_a_face(made, kind):
    _, folders = made
    card = (folders[kind] / CARD).read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```$", card, re.M | re.S)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folders[kind],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = ast.literal_eval(done.stdout)
    assert list(shown) == list(LABELS) and sum(shown.values()) == pytest.approx(1, abs=1e-5)
    assert len(code.splitlines()) == 3


def test_a_loaded_network_predicts_as_the_one_that_was_trained(made, few_synthetic):
    result, folders = made
    faces = np.asarray(few_synthetic.images[:20])
    trained = result.classifier.predict_proba(faces)
    assert np.array_equal(load(folders["whole"], device="cpu").predict_proba(faces), trained)
    for kind in ("bf16", "packed"):
        rounded = load(folders[kind], device="cpu").predict_proba(faces)
        assert np.allclose(rounded, trained, atol=0.02) and not np.array_equal(rounded, trained)
        assert next(load(folders[kind], device="cpu").model.parameters()).dtype == torch.float32


@pytest.fixture
def copy(made, tmp_path):
    return Path(shutil.copytree(made[1]["whole"], tmp_path / "copy"))


def test_a_damaged_export_is_refused(copy):
    weights, config = (copy / name for name in (WEIGHTS, CONFIG))
    whole = weights.read_bytes()
    for content in damaged_bytes(whole, 1, 40):
        if content != whole:
            weights.write_bytes(content)
            with pytest.raises(FerReproError, match=WEIGHTS):
                load(copy)
    weights.write_bytes(whole)
    before = config.read_bytes()
    needed = ("variant", "protocol", "profile", "seed", "recipe_sha256", "weights_sha256", "labels")
    for number, (where, document) in enumerate(damaged_documents(json.loads(before), 2, 200)):
        config.write_text(json.dumps(document))
        try:
            load(copy)
        except FerReproError as error:
            assert "\n" not in str(error)
        else:
            # Another seed, and what is not read, change no prediction.
            assert where == "seed" or where.split("/")[0] not in needed, (number, where)
    for content in damaged_bytes(before, 3, 60):  # a sentence, or a change of what is not read
        config.write_bytes(content)
        try:
            load(copy)
        except FerReproError:
            continue
    config.write_bytes(before)
    load(copy)


def test_an_export_of_another_recipe_or_an_absent_folder_is_refused(copy, monkeypatch, tmp_path):
    variant = papers.get("deep-emotion")
    other = dataclasses.replace(
        variant, recipe=lambda *asked: dataclasses.replace(variant.recipe(*asked), batch_size=3)
    )
    monkeypatch.setattr(papers, "variants", lambda: {"deep-emotion": other})
    with pytest.raises(FerReproError, match="trained with another recipe of deep-emotion"):
        load(copy)
    for nothing in (tmp_path / "nowhere", copy / WEIGHTS, tmp_path, "", "a\0b"):
        with pytest.raises(FerReproError, match="name the folder that `fer-repro export` wrote"):
            load(nothing)


def test_an_export_without_a_checkpoint_says_what_makes_one(tmp_path):
    """A stored result alone is read, not trained, by the command that made it."""
    with pytest.raises(FerReproError, match="stored without weights.*--results-dir again"):
        export("deep-emotion", runs_dir=tmp_path)
    with pytest.raises(FerReproError, match="`fer-repro run deep-emotion --protocol official --seed 77` makes one"):
        export("deep-emotion", seed=77, runs_dir=tmp_path)
    with pytest.raises(FerReproError, match="--profile smoke --runs-dir runs` makes one"):
        export("deep-emotion", profile="smoke", runs_dir=tmp_path)
