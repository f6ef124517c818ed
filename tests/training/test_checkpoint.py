"""Checkpoint files: whole or not there, checked when read."""

import errno
import os
import platform
import random
import subprocess
import sys
from contextlib import nullcontext, suppress

import numpy as np
import pytest
import torch
from full_disk import limited_files
from listening import listening

from fer_repro.errors import FerReproError
from fer_repro.files import atomic_write, lock
from fer_repro.training import checkpoint

IDENTITY = {"recipe": "a" * 64, "seed": 1}
CPU = torch.device("cpu")


def state(value: float) -> dict:
    return {"model": {"weight": torch.full((1000,), value)}, "history": [{"epoch": 1, "loss": 0.5}], "best": None}


def saved(folder, *values: float) -> None:
    for value in values:
        checkpoint.save(folder, IDENTITY, state(value))


def loaded(folder) -> float:
    return checkpoint.load(folder, IDENTITY)["model"]["weight"][0].item()


def test_the_newest_is_read_and_the_one_before_is_kept(tmp_path):
    assert checkpoint.load(tmp_path, IDENTITY) is None
    saved(tmp_path, 1.0)
    assert loaded(tmp_path) == 1.0
    saved(tmp_path, 2.0, 3.0)
    assert loaded(tmp_path) == 3.0
    (tmp_path / checkpoint.NAME).unlink()  # killed between the two renames
    assert loaded(tmp_path) == 2.0
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint.PREVIOUS]
    checkpoint.discard(tmp_path)
    assert checkpoint.load(tmp_path, IDENTITY) is None


def cut(content: bytearray) -> bytearray:
    return content[: len(content) // 2]


def flip_a_bit_of_a_weight(content: bytearray) -> bytearray:
    at = content.index(np.float32(2.0).tobytes() * 50) + 100
    content[at] ^= 1
    return content


@pytest.mark.parametrize("damage", [cut, flip_a_bit_of_a_weight, lambda content: bytearray(), lambda content: b"hello"])
def test_a_damaged_file_gives_way_to_the_previous_one(tmp_path, damage):
    saved(tmp_path, 1.0, 2.0)
    newest = tmp_path / checkpoint.NAME
    newest.write_bytes(damage(bytearray(newest.read_bytes())))
    said: list[str] = []
    with listening(said.append):
        assert loaded(tmp_path) == 1.0
    assert len(said) == 1 and "checkpoint.pt is damaged" in said[0]
    (tmp_path / checkpoint.PREVIOUS).write_bytes(b"")
    with pytest.raises(FerReproError, match="no readable checkpoint in .* run without resume"):
        loaded(tmp_path)


def test_a_failing_save_leaves_the_old_file(tmp_path, monkeypatch):
    saved(tmp_path, 1.0, 2.0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fails(content, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(FerReproError, match="No space left on device.*free some space"):
        saved(tmp_path, 3.0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert loaded(tmp_path) == 2.0


@pytest.mark.parametrize("size", [0, 100, 2_000, 4_096, 5_000])
def test_no_space_left_is_one_sentence_for_every_writer(tmp_path, size):
    saved(tmp_path, 1.0, 2.0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for write in (lambda: saved(tmp_path, 3.0), lambda: whole_file(tmp_path / "x")):
        with limited_files(size), pytest.raises(FerReproError, match=f"no space left in {tmp_path} .*free some space"):
            write()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before and loaded(tmp_path) == 2.0


def whole_file(path) -> None:
    with atomic_write(path) as file:
        file.write(b"x" * 6000)


def test_no_space_for_the_lock_is_one_sentence(tmp_path):
    for _ in range(2):
        with (
            limited_files(0),
            pytest.raises(FerReproError, match=f"no space left in {tmp_path}"),
            checkpoint.writer(tmp_path),
        ):
            pass
    with checkpoint.writer(tmp_path):
        assert (tmp_path / "lock").read_text().split() == [str(os.getpid())]


def test_a_full_disk_is_one_sentence(tmp_path):
    """A file system of 64 kB, where this machine lets us have one."""
    place = tmp_path / "tiny"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True).returncode:
        return  # only root may; the test above does the same in another way
    try:
        (place / "full").write_bytes(bytes(60_000))
        with pytest.raises(FerReproError, match=f"no space left in {place} .No space left on device.*free some space"):
            checkpoint.save(place, IDENTITY, state(1.0) | {"more": torch.zeros(20_000)})
        with open(place / "full", "ab") as file, suppress(OSError):
            file.write(bytes(10_000))
        with pytest.raises(FerReproError, match=f"no space left in {place}"), checkpoint.writer(place):
            pass
        (place / "full").unlink()
        with checkpoint.writer(place):
            saved(place, 1.0)
        assert loaded(place) == 1.0
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("number", ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "EINVAL"])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    def none(handle, operation):
        raise OSError(getattr(errno, number), "No locks")

    monkeypatch.setattr("fcntl.flock", none)
    marker = tmp_path / ".lock.marker"
    with checkpoint.writer(tmp_path):
        with (
            pytest.raises(FerReproError, match=rf"is in use by process {os.getpid()} on machine .*delete {marker}"),
            checkpoint.writer(tmp_path),
        ):
            pass
        assert marker.exists()
    assert not marker.exists()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for machine, free in ((platform.node(), True), ("another", False)):  # only this machine knows its processes
        marker.write_text(f"{gone.pid}\n{machine}\n")
        refused = nullcontext() if free else pytest.raises(FerReproError, match="on machine another")
        with refused, checkpoint.writer(tmp_path):
            pass


def test_a_folder_cannot_be_synced_everywhere(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_DIRECTORY")
    opened = os.open

    def no_folder(path, *more):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied")
        return opened(path, *more)

    monkeypatch.setattr(os, "open", no_folder)
    saved_file = tmp_path / "file"
    whole_file(saved_file)
    assert saved_file.stat().st_size == 6000


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"hello", b"0" * 1000, b" 4321              \n"])
def test_the_owner_of_a_lock_of_any_content(tmp_path, content):
    (tmp_path / "lock").write_bytes(content)
    with open(tmp_path / "lock", "rb") as file:
        assert lock(file.fileno())
        owner = "4321" if b"4321" in content else "unknown|0000"
        with pytest.raises(FerReproError, match=f"in use by process ({owner})"), checkpoint.writer(tmp_path):
            pass
    with checkpoint.writer(tmp_path):  # the lock ended with its file; what is written there does not matter
        pass


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    torch.save({"format": checkpoint.FORMAT, "identity": IDENTITY, "state": Harmful()}, tmp_path / checkpoint.NAME)
    with pytest.raises(FerReproError, match="no readable checkpoint"):
        checkpoint.load(tmp_path, IDENTITY)
    assert not (tmp_path / "touched").exists()


def test_another_format_or_run_is_refused(tmp_path):
    saved(tmp_path, 1.0)
    with pytest.raises(FerReproError, match=r"belongs to another recipe \(aaaaaaaaaaaa, this run has bbbbbbbbbbbb\)"):
        checkpoint.load(tmp_path, IDENTITY | {"recipe": "b" * 64})
    torch.save({"format": 0, "identity": IDENTITY, "state": {}}, tmp_path / checkpoint.NAME)
    with pytest.raises(FerReproError, match="has format 0, this version reads 1"):
        loaded(tmp_path)


def test_the_writer_cleans_up_after_a_killed_one(tmp_path):
    stale = tmp_path / f".{checkpoint.NAME}.abc.tmp"
    stale.write_bytes(b"left behind")
    with checkpoint.writer(tmp_path):
        assert not stale.exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(FerReproError, match="run folder .* cannot be written"),
        checkpoint.writer(tmp_path / "file" / "run"),
    ):
        pass


def draw() -> tuple:
    return random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item()


def test_random_states_come_back_through_a_file(tmp_path):
    np.random.randn()  # leaves the second of a pair of normals waiting in NumPy's state
    checkpoint.save(tmp_path, IDENTITY, {"random": checkpoint.random_state(CPU)})
    expected = draw()
    assert draw() != expected
    checkpoint.set_random_state(checkpoint.load(tmp_path, IDENTITY)["random"], CPU)
    assert draw() == expected


def test_seeded_blocks_are_equal_and_leave_no_trace():
    with checkpoint.seeded(3, CPU):
        first = draw()
    outside = checkpoint.random_state(CPU)
    with checkpoint.seeded(3, CPU):
        assert draw() == first
    expected = draw()
    checkpoint.set_random_state(outside, CPU)
    assert draw() == expected
