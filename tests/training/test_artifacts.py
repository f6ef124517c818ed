"""Finished pieces of a run: found again, made anew where damaged, never another array."""

from __future__ import annotations

import io

import numpy as np
import pytest
from damage import damaged_bytes
from full_disk import limited_files

from fer_repro.errors import FerReproError
from fer_repro.training.artifacts import ArtifactCache

ARRAY = np.arange(600, dtype=np.float32).reshape(20, 30)


def piece(folder) -> tuple[np.ndarray, bool]:
    """The array, and whether it was made anew."""
    made = []
    cache = ArtifactCache(folder, {"seed": 0}, resume=True)
    array = cache.get_or_compute("table", {}, lambda: made.append(1) or ARRAY)
    assert 0 <= cache.saved < 60
    return array, bool(made)


def test_a_damaged_piece_is_made_anew_and_never_another_one(tmp_path, said):
    piece(tmp_path)
    [path] = tmp_path.iterdir()
    whole, anew = path.read_bytes(), 0
    empty = io.BytesIO()
    np.savez(empty, array=ARRAY, seconds=np.float64("nan"))
    for content in [*damaged_bytes(whole, 3, 200), empty.getvalue()]:
        path.write_bytes(content)
        array, made = piece(tmp_path)
        assert array.dtype == ARRAY.dtype and np.array_equal(array, ARRAY)
        anew += made
    assert anew > 150 and any("is damaged" in line for line in said)


def test_a_header_that_asks_for_less_is_noticed(tmp_path):
    """numpy reads only what a header asks for, and would miss the checksum behind it."""
    piece(tmp_path)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes().replace(b"(20, 30)", b"(10, 30)"))
    assert piece(tmp_path)[1]


def test_a_piece_that_cannot_be_written_is_one_sentence(tmp_path):
    with limited_files(100), pytest.raises(FerReproError, match="no space left in .*free some space"):
        piece(tmp_path)
    assert list(tmp_path.iterdir()) == []
    piece(tmp_path)
    [path] = tmp_path.iterdir()
    path.unlink()
    path.mkdir()
    with pytest.raises(FerReproError, match=f"{path.name} cannot be written"):
        piece(tmp_path)
