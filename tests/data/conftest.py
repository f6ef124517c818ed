"""Small copies of FER2013 in every form, made of synthetic faces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from _csv_writer import repeated, write_csv
from data_copies import SMALL, jpeg

from fer_repro.data import FER2013, LABELS
from fer_repro.data.load import _load

Load = Callable[..., FER2013]


@pytest.fixture(scope="session")
def faces() -> FER2013:
    """Synthetic faces in the counts SMALL, in CSV order."""
    return repeated(SMALL)


@pytest.fixture(autouse=True)
def no_data_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is found unless a test says where: no variable, and a current folder without data/fer2013/."""
    monkeypatch.delenv("FER2013_ROOT", raising=False)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)


@pytest.fixture
def small(tmp_path: Path) -> Load:
    """`load` held to the counts SMALL, with a cache of the test's own."""

    def load(root: Path, cache: Path | None = None, expected: np.ndarray = SMALL) -> FER2013:
        return _load(root, cache or tmp_path / "cache", expected)

    return load


@pytest.fixture
def small_csv(tmp_path: Path, faces: FER2013) -> Path:
    """fer2013.csv with the rows of ``faces``."""
    path = tmp_path / "fer2013.csv"
    write_csv(faces, path)
    return path


@pytest.fixture(scope="session")
def pictures(faces: FER2013) -> dict[str, bytes]:
    """path -> JPEG for every face, as in the folder copy on Kaggle; ids of one to four digits."""
    out = {}
    for i in range(len(faces)):
        half = "train" if faces.usage[i] == "Training" else "test"
        number = (i * 7919 + 3) % 3001
        out[f"{half}/{LABELS[faces.labels[i]]}/{faces.usage[i]}_{number}.jpg"] = jpeg(faces.images[i])
    return out
