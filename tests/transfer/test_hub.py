"""Exports go to a hub and come from one, which here is a server on this machine; cards carry measured numbers only."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from fake_hub import serving
from PIL import Image
from test_pack import options, train, world  # noqa: F401 - fixtures

import fer_repro
from fer_repro import cli, papers, results
from fer_repro.errors import FerReproError
from fer_repro.loading import CARD, CONFIG, FILES, WEIGHTS
from fer_repro.reproduce import reproduce
from fer_repro.transfer.export import export, model_card

ROOT = Path(__file__).resolve().parents[2]


def call(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    reproduce("deep-emotion", profile="smoke", device="cpu", runs_dir=place)
    return place


@pytest.fixture
def hub(tmp_path):
    pytest.importorskip("huggingface_hub")
    with serving() as running:
        yield running


def client(hub, home: Path, *words: str, **more: str) -> subprocess.CompletedProcess:
    """``fer-repro`` (or Python, with -c) with these words, in a process that knows no other hub."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.address}
    environment |= {"HF_HOME": str(home / "hub"), "HOME": str(home), "HF_TOKEN": hub.token} | more
    command = [sys.executable, *([] if words[0] == "-c" else ["-m", "fer_repro.cli"]), *words]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)


def test_there_and_back(hub, runs, tmp_path):
    """A dry run asks nothing; then the three files arrive; from there a picture is classified."""
    words = ["export", "deep-emotion", "--profile", "smoke", "--runs-dir", str(runs), "--push", "user/faces"]
    (tmp_path / "exports/deep-emotion-official-seed-0").mkdir(parents=True)
    (tmp_path / "exports/deep-emotion-official-seed-0/private.txt").write_text("not for others")
    done = client(hub, tmp_path, *words)
    assert done.returncode == 0 and hub.asked == [] and hub.repositories == {}, done.stderr
    folder = tmp_path / "exports/deep-emotion-official-seed-0"
    assert done.stdout.splitlines()[1].startswith("would upload to hf://user/faces: model.safetensors (")
    assert all(f"{name} ({(folder / name).stat().st_size:,} bytes)" in done.stdout for name in FILES)
    assert "private" not in done.stdout and "--yes sends it" in done.stdout
    done = client(hub, tmp_path, *words, "--yes")
    assert done.returncode == 0 and "uploaded to hf://user/faces: model.safetensors" in done.stdout, done.stderr
    assert hub.repositories == {"user/faces": {name: (folder / name).read_bytes() for name in FILES}}
    assert "hf://user/faces" in (folder / CARD).read_text() and hub.token not in done.stdout + done.stderr

    hub.repositories["user/faces"]["program.py"] = b"raise SystemExit"
    Image.new("L", (48, 48), 99).save(tmp_path / "face.png")
    hub.asked.clear()
    done = client(hub, tmp_path, "predict", "hf://user/faces@main", "face.png", "--json")
    assert done.returncode == 0, done.stderr
    [answer] = json.loads(done.stdout)["pictures"]
    expected = fer_repro.load(folder).predict_proba(tmp_path / "face.png")[0]
    np.testing.assert_allclose(list(answer["probabilities"].values()), expected, atol=1e-6)
    assert not any("program.py" in line for line in hub.asked) and any(WEIGHTS in line for line in hub.asked)
    # Once fetched it needs no hub.
    done = client(hub, tmp_path, "predict", "hf://user/faces", "face.png", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 0 and "neutral" in done.stdout, done.stderr


def test_what_a_hub_does_not_have_or_has_damaged_is_a_sentence(hub, runs, tmp_path):
    folder = export("deep-emotion", profile="smoke", runs_dir=runs, out=tmp_path / "whole")
    whole = {name: (folder / name).read_bytes() for name in FILES}
    hub.repositories = {
        "user/cut": whole | {WEIGHTS: whole[WEIGHTS][:-9]},
        "user/half": {CARD: whole[CARD]},
        "user/other": whole | {CONFIG: b"<html>"},
    }
    wrong = {
        "hf://user/nothing": "hf://user/nothing cannot be fetched (RepositoryNotFoundError",
        "hf://user/cut@v2": "hf://user/cut@v2 cannot be fetched",
        "hf://user/cut": "is not the file that config.json names",
        "hf://user/half": "config.json cannot be read (FileNotFoundError)",
        "hf://user/other": "config.json cannot be read (JSONDecodeError)",
    }
    script = f"""
import fer_repro
for address in {list(wrong)}:
    try:
        fer_repro.load(address)
    except fer_repro.errors.FerReproError as error:
        print(error)
"""
    done = client(hub, tmp_path, "-c", script)
    assert done.returncode == 0, done.stderr
    for line, said in zip(done.stdout.splitlines(), wrong.values(), strict=True):
        assert said in line
    Image.new("L", (48, 48)).save(tmp_path / "face.png")
    done = client(
        hub, tmp_path, "predict", "hf://user/cut", "face.png", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME="new"
    )
    assert done.returncode == 1 and "hf://user/cut cannot be fetched" in done.stderr.splitlines()[-1]
    words = ["export", "deep-emotion", "--profile", "smoke", "--runs-dir", str(runs), "--push", "user/faces", "--yes"]
    for wrong in ({"HF_TOKEN": "hf_none"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        done = client(hub, tmp_path, *words, **wrong)
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 1 and "cannot be uploaded to hf://user/faces" in last and "`hf auth login`" in last
        assert "Traceback" not in done.stderr and "user/faces" not in hub.repositories


@pytest.mark.parametrize(
    "address", ["hf://", "hf://user", "hf://user/", "hf://a/b/c", "hf://../..", "hf://user/re po@v"]
)
def test_an_address_that_is_none_asks_no_hub(address):
    with pytest.raises(FerReproError, match="is no place on a hub: expected hf://USER/REPO"):
        fer_repro.load(address)


def test_without_the_package_it_is_a_sentence(capsys, monkeypatch, runs, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FerReproError, match=r"fetched by huggingface_hub, which is not installed \(pip install"):
        fer_repro.load("hf://user/faces")
    words = ["export", "deep-emotion", "--profile", "smoke", "--runs-dir", str(runs), "--out", str(tmp_path / "out")]
    status, out, err = call(capsys, *words, "--push", "user/faces")
    assert status == 0 and "would upload" in out  # a dry run needs no package
    status, out, err = call(capsys, *words, "--push", "user/faces", "--yes")
    assert status == 1 and "uploads through huggingface_hub, which is not installed" in err and "Traceback" not in err


def test_a_wrong_push_writes_nothing(capsys, monkeypatch, runs, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ["export", "deep-emotion", "--profile", "smoke", "--runs-dir", str(runs)]
    for more, said in (
        (["--yes"], "--yes goes with --push USER/REPO"),
        (["--push", "faces"], "'faces' is no repository of a hub: expected USER/REPO"),
        (["--push", "https://huggingface.co/user/faces", "--yes"], "is no repository of a hub"),
        (["--push", "hf://user/faces"], "is no repository of a hub"),
    ):
        status, out, err = call(capsys, *words, *more)
        assert status == 1 and out == "" and said in err and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


# ---- the numbers of a card -------------------------------------------------------------------------------------------


def metadata(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_a_card_carries_the_numbers_that_were_measured(options, tmp_path):  # noqa: F811
    train(options, "small")
    places = {"results_dir": options.results_dir, "runs_dir": options.runs_dir}
    card = (export("small", **places, out=tmp_path / "whole") / CARD).read_text()
    stored = results.find("small", "official", 0, Path(options.results_dir)).record["scores"]
    [index] = metadata(card)["model-index"]
    assert index["name"] == "small-official-seed-0" and metadata(card)["pipeline_tag"] == "image-classification"
    assert [entry["dataset"]["split"] for entry in index["results"]] == ["PublicTest", "PrivateTest"]
    for entry in index["results"]:
        assert entry["task"]["type"] == "image-classification" and entry["dataset"]["type"] == "fer2013"
        plain = stored[entry["dataset"]["split"]]["plain"]
        found = {(metric["type"], metric["name"]): metric["value"] for metric in entry["metrics"]}
        assert found["accuracy", "Accuracy, plain"] == plain["accuracy"] == plain["correct"] / 3589
        assert found["f1", "Macro F1, plain"] == plain["macro_f1"]
    huggingface_hub = pytest.importorskip("huggingface_hub")
    read = huggingface_hub.ModelCard(card).data  # raises where the hub's own reader misses something
    assert len(read.eval_results) == sum(len(entry["metrics"]) for entry in index["results"])

    # Rounded weights were not measured, nor were a smoke run's and those without a stored result.
    rounded = (export("small", **places, out=tmp_path / "bf16", bf16=True) / CARD).read_text()
    nothing = (export("small", runs_dir=options.runs_dir, results_dir=tmp_path, out=tmp_path / "no") / CARD).read_text()
    assert "model-index" not in rounded and "model-index" not in nothing and "so no number is given" in nothing


def test_numbers_of_other_weights_are_not_on_the_card(options, monkeypatch, tmp_path):  # noqa: F811
    """The stored result of another machine's run, or of an older recipe."""
    train(options, "small")
    places = {"results_dir": options.results_dir, "runs_dir": options.runs_dir}
    stored = results.find("small", "official", 0, Path(options.results_dir))
    older = dataclasses.replace(stored, record=stored.record | {"recipe_sha256": "0" * 64})
    elsewhere = dataclasses.replace(stored, history=stored.history.assign(loss=stored.history["loss"] + 1e-3))
    shorter = dataclasses.replace(stored, history=stored.history.iloc[:-1])
    for number, other in enumerate((older, elsewhere, shorter)):
        monkeypatch.setattr(results, "find", lambda *asked, other=other: other)
        card = (export("small", **places, out=tmp_path / str(number)) / CARD).read_text()
        assert "model-index" not in card and "3,589" not in card and "so no number is given" in card


def test_a_test_set_that_was_trained_on_is_no_number_for_a_hub(options):  # noqa: F811
    train(options, "small")
    stored = results.find("small", "official", 0, Path(options.results_dir))
    variant = papers.get("small")
    recipe = variant.recipe("official", "full")
    seen = dataclasses.replace(recipe.protocol, train=("Training", "PublicTest"))
    card = model_card(variant, dataclasses.replace(recipe, protocol=seen), "full", 0, stored)
    assert [entry["dataset"]["split"] for entry in metadata(card)["model-index"][0]["results"]] == ["PrivateTest"]
