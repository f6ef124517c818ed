"""`fer_repro.load` and ``fer-repro predict``: released files, pictures of every kind, and what is refused."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from authors import documents, state_of
from damage import damaged_bytes
from PIL import Image

import fer_repro
from fer_repro import cli, papers
from fer_repro.data import LABELS
from fer_repro.errors import FerReproError
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.papers.base import from_release

VARIANT, OTHER = "deep-emotion-wide-localisation", "deep-emotion-input-stn"
FACES = np.random.default_rng(0).integers(0, 256, (3, 48, 48), np.uint8)


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, torch.Tensor]]:
    return {name: state_of(documents()[name]) for name in (VARIANT, OTHER)}


@pytest.fixture
def released(states, tmp_path) -> Path:
    torch.save(states[VARIANT], tmp_path / "released.pt")
    return tmp_path / "released.pt"


def call(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(["predict", *words])
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def refused(given, said: str, **more) -> None:
    with pytest.raises(FerReproError, match=said) as told:
        fer_repro.load(given, **more)
    assert "\n" not in str(told.value)


def test_a_released_file_predicts_pictures_of_every_kind(states, released, tmp_path):
    classifier = fer_repro.load(released, variant=VARIANT, device="cpu")
    network, recipe = from_release(papers.get(VARIANT), states[VARIANT])
    expected = NetworkClassifier(network, recipe, "cpu").predict_proba(FACES)
    assert isinstance(classifier.model, torch.nn.Module) and classifier.labels == LABELS
    assert np.array_equal(classifier.predict_proba(FACES), expected) and expected.shape == (3, 7)
    images = [Image.fromarray(face) for face in FACES]
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    for pictures in (images, paths, list(map(str, paths)), list(FACES), (FACES[0], images[1], paths[2])):
        assert np.array_equal(classifier.predict_proba(pictures), expected)
    for one in (FACES[0], images[0], paths[0], str(paths[0])):
        np.testing.assert_allclose(classifier.predict_proba(one), expected[:1], atol=1e-6)
    assert classifier.predict_proba([]).shape == (0, 7)
    with pytest.raises(FerReproError, match=r"expected uint8 \[N,48,48\]"):
        classifier.predict_proba(np.zeros((48, 48, 3), np.uint8))


class Code:
    def __reduce__(self):
        return print, ("code of the file ran",)


def test_files_that_are_no_weights_of_the_variant(states, tmp_path, capsys):
    """Cut, of another variant, with numbers that are none, a pickle with code, empty, a web page."""
    path = tmp_path / "weights.pth"
    path.write_bytes(b"")
    refused(path, "weights.pth cannot be read as weights", variant=VARIANT)
    path.write_bytes(b"<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>")
    refused(path, "weights.pth cannot be read as weights", variant=VARIANT)
    for content in (pickle.dumps(Code()), pickle.dumps({"weight": Code()})):
        path.write_bytes(content)
        refused(path, "weights.pth cannot be read as weights", variant=VARIANT)
    torch.save({"weight": Code()}, path)
    refused(path, "weights.pth cannot be read as weights", variant=VARIANT)
    torch.save(states[OTHER], path)
    refused(path, "weights.pth do not fit", variant=VARIANT)
    for wrong in (float("nan"), float("inf")):
        first = next(name for name, part in states[VARIANT].items() if part.is_floating_point())
        torch.save(states[VARIANT] | {first: torch.full_like(states[VARIANT][first], wrong)}, path)
        refused(path, "is not finite", variant=VARIANT)
    torch.save(states[VARIANT], path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-1], whole[:100]):
        path.write_bytes(content)
        refused(path, "weights.pth cannot be read as weights", variant=VARIANT)
    assert "code of the file ran" not in capsys.readouterr().out


def test_a_damaged_release_is_a_sentence_or_finite(states, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(states[OTHER], path)
    for content in damaged_bytes(path.read_bytes(), 7, 60):
        path.write_bytes(content)
        try:
            network = fer_repro.load(path, variant=OTHER, device="cpu").model
        except FerReproError as error:
            assert "\n" not in str(error)
        else:
            assert all(part.isfinite().all() for part in network.parameters())


def test_a_source_or_a_variant_that_is_none(released, tmp_path):
    refused(released, "is one file: name the folder that `fer-repro export` wrote, or .* their variant")
    refused(released, "unknown variant 'deep-emotoin': did you mean deep-emotion", variant="deep-emotoin")
    refused(released, "deep-emotion has no release", variant="deep-emotion")
    refused(released, "has no release", variant="local-learning-bow")
    refused(released, "device is 'gpu'", variant=VARIANT, device="gpu")
    refused(tmp_path / "nowhere", "name the folder that `fer-repro export` wrote")
    refused(tmp_path / "nowhere.pt", "cannot be read", variant=VARIANT)


def test_predict_prints_the_classes_with_probabilities(capsys, monkeypatch, released, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = ["a[b].png", "b.png"]
    for name, face in zip(names, FACES, strict=False):
        Image.fromarray(face).resize((60, 90)).save(name)
    expected = fer_repro.load(released, variant=VARIANT, device="cpu").predict_proba(names)
    words = [str(released), *names, "--variant", VARIANT, "--device", "cpu"]
    status, out, err = call(capsys, *words, "--json")
    document = json.loads(out)
    assert status == 0 and err == "" and document["variant"] == VARIANT and document["model"] == str(released)
    for answer, name, row in zip(document["pictures"], names, expected, strict=True):
        assert answer["picture"] == name and answer["label"] == LABELS[row.argmax()]
        assert list(answer["probabilities"]) == list(LABELS)
        np.testing.assert_allclose(list(answer["probabilities"].values()), row, rtol=1e-6)
    status, out, err = call(capsys, *words)
    header, *rows = [line.split() for line in out.splitlines()]
    assert status == 0 and header == ["picture", "label", *LABELS]
    shown = [
        [name, LABELS[row.argmax()], *(f"{share:.3f}" for share in row)]
        for name, row in zip(names, expected, strict=True)
    ]
    assert rows == shown


def test_predict_says_in_a_sentence_what_is_wrong(capsys, monkeypatch, released, tmp_path):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (48, 48)).save("face.png")
    Path("page.png").write_text("<html>")
    Image.new("L", (48, 48)).save("film.gif", save_all=True, append_images=[Image.new("L", (48, 48), 9)])
    for words, said in (
        (["nowhere", "face.png"], "nowhere/config.json cannot be read"),
        ([str(released), "face.png"], "is one file"),
        ([str(released), "face.png", "missing.png", "--variant", VARIANT], "missing.png is not there"),
        ([str(released), "page.png", "--variant", VARIANT], "page.png cannot be read as a picture (a web page)"),
        ([str(released), "film.gif", "--variant", VARIANT], "film.gif holds several pictures"),
        ([str(released), ".", "--variant", VARIANT], ". is no file"),
        ([str(released), "face.png", "--variant", "vgnet"], "did you mean vggnet?"),
        ([str(released), "face.png", "--variant", VARIANT, "--device", "gpu"], "did you mean 'cuda'?"),
        (["hf://face", "face.png"], "'hf://face' is no place on a hub"),
    ):
        status, out, err = call(capsys, *words)
        assert status == 1 and out == "" and "Traceback" not in err
        assert err.startswith("error: ") and said in err and len(err.splitlines()) == 1


def test_the_package_offers_load_without_importing_torch():
    script = (
        "import sys, fer_repro, fer_repro.cli; assert 'torch' not in sys.modules\n"
        "from fer_repro import load; assert load is fer_repro.load and load.__module__ == 'fer_repro.loading'\n"
        "assert not hasattr(fer_repro, 'laod')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
