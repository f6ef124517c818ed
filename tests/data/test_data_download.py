"""Downloading through kagglehub, with a stand-in for it: what is done with its answer, and with its failures."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
from data_copies import make_folder

from fer_repro.data import source
from fer_repro.data.download import HANDLE, download
from fer_repro.errors import FerReproError


@pytest.fixture
def kaggle(monkeypatch):
    """Puts a kagglehub in place whose ``dataset_download`` is the given function."""

    def put(function):
        module = types.ModuleType("kagglehub")
        module.dataset_download = function
        monkeypatch.setitem(sys.modules, "kagglehub", module)

    return put


def test_the_download_is_found_afterwards(tmp_path, pictures, kaggle, small, monkeypatch):
    hub = make_folder(tmp_path / "hub", pictures)
    asked = []

    def fetch(handle):
        asked.append(handle)
        return str(hub)

    kaggle(fetch)
    monkeypatch.setattr(source, "__file__", str(tmp_path / "elsewhere" / "a" / "b" / "source.py"))
    assert download() == Path("data/fer2013") and asked == [HANDLE]
    assert len(small(None)) == 60, "load finds it where the download put it"
    download()
    assert asked == [HANDLE], "what is there is not fetched again"


def test_without_kagglehub(monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(FerReproError, match=r"pip install 'fer-repro\[download\]'.*kaggle.com/datasets/msambare"):
        download()
    assert not Path("data").exists()


class Refused(Exception):
    def __init__(self, status):
        super().__init__("a long\nstory")
        self.response = types.SimpleNamespace(status_code=status)


class UnauthenticatedError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionError("no route"), "cannot be reached from here; check the network"),
        (TimeoutError(), "cannot be reached from here"),
        (Refused(401), "did not accept you; make a token"),
        (Refused(403), "did not accept you"),
        (UnauthenticatedError(), "did not accept you"),
        (Refused(500), "Refused: a long"),
        (ValueError(), "ValueError"),
    ],
)
def test_failures_are_one_sentence_with_the_mend(kaggle, error, words):
    def fail(handle):
        raise error

    kaggle(fail)
    with pytest.raises(FerReproError) as caught:
        download()
    message = str(caught.value)
    assert words in message and "\n" not in message
    assert "in a browser" in message and "FER2013_ROOT" in message
    assert not Path("data").exists(), "nothing is left behind"


def test_a_download_of_something_else(tmp_path, kaggle):
    (tmp_path / "hub").mkdir()
    kaggle(lambda handle: str(tmp_path / "hub"))
    with pytest.raises(FerReproError, match="holds no FER2013"):
        download()
    assert not Path("data").exists()


def test_a_target_in_the_way(tmp_path, pictures, kaggle):
    hub = make_folder(tmp_path / "hub", pictures)
    kaggle(lambda handle: str(hub))
    make_folder(Path("data/fer2013"), {"notes.txt": b"x"})
    with pytest.raises(FerReproError, match=r"was downloaded to .*set \$FER2013_ROOT"):
        download()
    assert (Path("data/fer2013") / "notes.txt").exists()
