"""Small copies of FER2013 in every form, made of drawn faces."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_repro.data import LABELS, drawn, fer2013
from fer_repro.data.csv_writer import write_csv

SMALL = np.array([[5, 3, 4, 7, 5, 4, 5], [2, 1, 2, 3, 2, 2, 2], [2, 2, 1, 3, 2, 1, 2]])
Load = Callable[..., fer2013.FER2013]


@pytest.fixture(scope="session")
def faces() -> fer2013.FER2013:
    """56 drawn faces in the counts SMALL, in CSV order."""
    return drawn.repeated(SMALL)


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

    def load(root: Path, cache: Path | None = None, expected: np.ndarray = SMALL) -> fer2013.FER2013:
        return fer2013._load(root, cache or tmp_path / "cache", expected)

    return load


@pytest.fixture
def small_csv(tmp_path: Path, faces: fer2013.FER2013) -> Path:
    """fer2013.csv with the rows of ``faces``."""
    path = tmp_path / "fer2013.csv"
    write_csv(faces, path)
    return path


def jpeg(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=95)
    return out.getvalue()


@pytest.fixture(scope="session")
def pictures(faces: fer2013.FER2013) -> dict[str, bytes]:
    """path -> JPEG for every face, as in the folder copy on Kaggle; ids of one to four digits."""
    out = {}
    for i in range(len(faces)):
        half = "train" if faces.usage[i] == "Training" else "test"
        number = (i * 7919 + 3) % 3001
        out[f"{half}/{LABELS[faces.labels[i]]}/{faces.usage[i]}_{number}.jpg"] = jpeg(faces.images[i])
    return out


def make_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, files: dict[str, bytes], extra: tuple[tarfile.TarInfo, ...] = ()) -> Path:
    mode = "w:xz" if path.name.endswith("xz") else "w:gz"
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info)
    return path
