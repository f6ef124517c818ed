"""The cache: fast, safe against damage and against others, and never needed."""

from __future__ import annotations

import json
import multiprocessing
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from _csv_writer import write_csv
from data_copies import SMALL, make_folder, make_zip

from fer_repro.data import cache as cache_module
from fer_repro.data import source
from fer_repro.data.load import _load
from fer_repro.errors import FerReproError


@pytest.fixture
def reads(monkeypatch):
    """Counts how often a copy is really parsed and how often it is hashed."""
    count = {"read": 0, "key": 0}
    for name in count:
        original = getattr(source.Place, name)

        def counted(self, *args, name=name, original=original):
            count[name] += 1
            return original(self, *args)

        monkeypatch.setattr(source.Place, name, counted)
    return count


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.fer2013"))


def test_parsed_once_and_mapped_afterwards(tmp_path, small_csv, faces, small, reads):
    first, second = small(small_csv), small(small_csv)
    assert reads == {"read": 1, "key": 1}
    assert not first.facts["from_cache"] and second.facts["from_cache"]
    for data in (first, second):
        np.testing.assert_array_equal(data.images, faces.images)
        assert isinstance(data.images.base, np.memmap) or isinstance(data.images.base.base, np.memmap)
        for array in (data.images, data.labels, data.usage, data.ids):
            assert not array.flags.writeable
        assert data.labels.dtype == np.int64 and data.images.dtype == np.uint8
    np.testing.assert_array_equal(first.ids, second.ids)
    assert len(files(tmp_path / "cache")) == 1


def test_the_key_is_the_content(tmp_path, small_csv, small, reads):
    """The same file elsewhere is hashed but not parsed; another content at the same path is parsed."""
    small(small_csv)
    other = tmp_path / "moved" / "fer2013.csv"
    other.parent.mkdir()
    other.write_bytes(small_csv.read_bytes())
    assert small(other).facts["from_cache"] and reads == {"read": 1, "key": 2}
    assert small(other).facts["from_cache"] and reads == {"read": 1, "key": 2}


def test_a_changed_source_is_noticed(small_csv, small, reads):
    before = small(small_csv)
    status = small_csv.stat()
    text = small_csv.read_bytes()
    at = text.index(b",", 21) + 1
    digit = b"1" if text[at : at + 1] != b"1" else b"2"
    small_csv.write_bytes(text[:at] + digit + text[at + 1 :])
    os.utime(small_csv, ns=(status.st_atime_ns, status.st_mtime_ns))  # the inode's own clock still tells
    after = small(small_csv)
    assert reads["read"] == 2 and before.digest != after.digest


def test_a_picture_overwritten_in_place_is_noticed(tmp_path, pictures, small, reads):
    root = make_folder(tmp_path / "folder", pictures | {"train/notes.txt": b"a file where class folders lie"})
    before = small(root)
    assert small(root).facts["from_cache"] and reads["read"] == 1
    names = [n for n in pictures if n.startswith("train/happy")]
    (root / names[0]).write_bytes(pictures[names[1]])
    after = small(root)
    assert reads["read"] == 2 and after.digest != before.digest


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at, 2 if at < 0 else 0)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


DAMAGE = {
    "a pixel": lambda path: flip(path, 4096 + 1000),
    "the last byte": lambda path: flip(path, -1),
    "the header": lambda path: flip(path, 200),
    "the magic": lambda path: flip(path, 3),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "longer": lambda path: os.truncate(path, path.stat().st_size + 64),
    "empty": lambda path: os.truncate(path, 0),
    "gone": lambda path: path.unlink(),
    "text": lambda path: path.write_text("hello\nthere\nyou"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_cache_is_rebuilt(tmp_path, small_csv, faces, small, reads, name):
    small(small_csv)
    DAMAGE[name](files(tmp_path / "cache")[0])
    data = small(small_csv)
    np.testing.assert_array_equal(data.images, faces.images)
    assert reads["read"] == 2 and not data.facts["from_cache"]
    assert small(small_csv).facts["from_cache"] and reads["read"] == 2


def test_a_touched_but_whole_cache_is_verified_not_rebuilt(tmp_path, small_csv, small, reads):
    small(small_csv)
    os.utime(files(tmp_path / "cache")[0])
    assert small(small_csv).facts["from_cache"] and reads == {"read": 1, "key": 2}


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', json.dumps({"source": 1}), "\ud7ff"])
def test_a_damaged_stamp_costs_only_time(tmp_path, small_csv, small, reads, text):
    small(small_csv)
    (stamp,) = (tmp_path / "cache" / "stamps").iterdir()
    stamp.write_text(text)
    assert small(small_csv).facts["from_cache"] and reads == {"read": 1, "key": 2}


def test_a_wrong_copy_leaves_nothing_in_the_cache(tmp_path, small_csv, small):
    lines = small_csv.read_bytes().splitlines(keepends=True)
    small_csv.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(FerReproError):
        small(small_csv)
    assert files(tmp_path / "cache") == []


def test_a_source_that_grows_while_it_is_read(small_csv, small, monkeypatch):
    original = source.Place.read

    def read(self, capacity):
        parsed = original(self, capacity)
        with self.path.open("ab") as file:
            file.write(b"\n")
        return parsed

    monkeypatch.setattr(source.Place, "read", read)
    with pytest.raises(FerReproError, match="changed while it was read"):
        small(small_csv)


@pytest.mark.parametrize("where", ["a file in the way", "/proc/nowhere"])
def test_without_a_writable_cache_it_works_in_memory(tmp_path, small_csv, faces, small, where):
    folder = Path(where)
    if not folder.is_absolute():
        (tmp_path / "file").write_text("in the way")
        folder = tmp_path / "file" / "cache"
    with pytest.warns(UserWarning, match="cannot be written") as caught:
        data = small(small_csv, folder)
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    np.testing.assert_array_equal(data.images, faces.images)
    assert data.facts["in_memory"] and not data.images.flags.writeable


def test_a_cache_on_a_full_disk_leaves_no_half_file(tmp_path, small_csv, small, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.os, "fsync", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        assert small(small_csv).facts["in_memory"]
    assert files(tmp_path / "cache") == [] and not list((tmp_path / "cache").glob(".*.tmp"))


def test_a_readonly_cache_still_serves(tmp_path, small_csv, small, reads, monkeypatch):
    small(small_csv)
    other = tmp_path / "other.csv"
    other.write_bytes(small_csv.read_bytes())

    def refuse(self, target, parts):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache_module.Cache, "_replace", refuse)
    assert small(other).facts["from_cache"] and reads["read"] == 1


def _load_in_a_process(root: str, folder: str, barrier, answers) -> None:
    barrier.wait()
    data = _load(root, folder, SMALL)
    answers.put((data.digest, int(data.images.sum()), data.facts["from_cache"]))


def test_several_processes_at_once(tmp_path, small_csv, faces):
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(3), context.Queue()
    arguments = (str(small_csv), str(tmp_path / "cache"), barrier, answers)
    workers = [context.Process(target=_load_in_a_process, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join(600)
        assert worker.exitcode == 0
    assert {f[:2] for f in found} == {(faces.digest, int(faces.images.sum()))}
    assert sorted(f[2] for f in found) == [False, True, True], "one parses, the others find its work"
    assert len(files(tmp_path / "cache")) == 1


def test_killed_while_writing(tmp_path, small_csv, faces, small):
    """kill -9 between writing and renaming: the next one is not held up by the lock, and rebuilds."""
    script = textwrap.dedent(
        f"""
        import os, signal
        import numpy as np
        from fer_repro.data import cache
        from fer_repro.data.load import _load
        cache.os.fsync = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        _load({str(small_csv)!r}, {str(tmp_path / "cache")!r}, np.array({SMALL.tolist()}))
        """
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=600, check=False)
    assert done.returncode == -signal.SIGKILL
    left = list((tmp_path / "cache").glob(".*.tmp"))
    assert len(left) == 1 and files(tmp_path / "cache") == []
    np.testing.assert_array_equal(small(small_csv).images, faces.images)
    assert left[0].exists(), "a fresh leftover may belong to a running writer"
    os.utime(left[0], (time.time() - 2 * 86400,) * 2)
    DAMAGE["cut"](files(tmp_path / "cache")[0])
    small(small_csv)
    assert not left[0].exists(), "an old one is swept"


def test_another_program_version_is_rebuilt(tmp_path, small_csv, small, reads, monkeypatch):
    small(small_csv)
    monkeypatch.setattr(cache_module, "_MAGIC", "fer-repro-cache-2")
    assert not small(small_csv).facts["from_cache"] and reads["read"] == 2


def test_the_cache_is_held_to_the_counts_too(small_csv, small):
    small(small_csv)
    other = SMALL.copy()
    other[0, 0] += 1
    with pytest.raises(FerReproError, match="wrong counts: Training angry 5 instead of 6"):
        small(small_csv, expected=other)


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("FER_REPRO_CACHE", str(tmp_path / "here"))
    assert cache_module.default_dir() == tmp_path / "here"
    monkeypatch.delenv("FER_REPRO_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_module.default_dir() == tmp_path / ".cache" / "fer_repro"


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """A container's user: no HOME, no account; temporary files go to the folder that is returned."""
    for name in ("HOME", cache_module.VARIABLE):
        monkeypatch.delenv(name, raising=False)

    def unknown(*_):
        raise KeyError("uid not found")

    for name in ("getpwuid", "getpwnam"):
        monkeypatch.setattr(pwd, name, unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


@pytest.mark.parametrize("given", [None, "~/cache", "~nobody/cache"])
def test_without_a_home_the_cache_is_a_private_temporary_folder(homeless, small_csv, faces, reads, given):
    """And a line says where; the next process finds what this one parsed."""
    for number in (1, 2):
        with pytest.warns(UserWarning, match=r"no home folder .* is kept in .*fer_repro-\d+; set \$FER_REPRO_CACHE"):
            data = _load(small_csv, given, SMALL)
        np.testing.assert_array_equal(data.images, faces.images)
        assert reads["read"] == 1 and data.facts["from_cache"] == (number == 2)
    (private,) = homeless.iterdir()
    assert private.stat().st_mode & 0o777 == 0o700 and len(files(private)) == 1
    assert not list(Path.cwd().glob("~*"))


def test_a_temporary_folder_of_somebody_else_is_not_used(homeless, small_csv, monkeypatch):
    theirs = homeless / f"fer_repro-{os.getuid()}"
    theirs.mkdir()
    theirs.chmod(0o777)
    with pytest.warns(UserWarning, match="no home folder"):
        assert not _load(small_csv, None, SMALL).facts["in_memory"]
    assert files(theirs) == []
    theirs.rmdir()
    theirs.symlink_to(homeless)
    with pytest.warns(UserWarning, match="no home folder"):
        assert not _load(small_csv, None, SMALL).facts["in_memory"]
    assert files(homeless) == []


def test_without_a_home_or_any_place_to_write_it_works_in_memory(homeless, small_csv, faces, monkeypatch):
    def none():
        raise FileNotFoundError(2, "No usable temporary directory found")

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.warns(UserWarning, match="cannot be written"):
        data = _load(small_csv, None, SMALL)
    assert data.facts["in_memory"]
    np.testing.assert_array_equal(data.images, faces.images)


def test_a_root_in_a_home_that_is_not_known_is_not_found(homeless):
    for root in ("~/fer2013", "~nobody/fer2013"):
        with pytest.raises(FerReproError, match=f"--root is '{root}', which does not exist"):
            _load(root, None, SMALL)


def test_layouts_of_the_same_pixels_keep_their_own_entries(tmp_path, faces, small, pictures):
    write_csv(faces, tmp_path / "icml_face_data.csv", "icml_face_data.csv")
    write_csv(faces, tmp_path / "fer2013.csv")
    one, two = small(tmp_path / "icml_face_data.csv"), small(tmp_path / "fer2013.csv")
    assert one.digest == two.digest and one.facts["layout"] != two.facts["layout"]
    small(make_zip(tmp_path / "a.zip", pictures))
    assert len(files(tmp_path / "cache")) == 3
