"""Damaged and hostile files: one sentence, never a traceback, never other data, and a bounded cost."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from damage import damaged_bytes
from data_copies import make_folder, make_zip

from fer_repro.data import archive, kinds
from fer_repro.errors import FerReproError


def outcome(load, path: Path) -> str | None:
    """The digest of what is read, or None where the file is refused, in one sentence."""
    try:
        return load(path).digest
    except FerReproError as error:
        message = str(error)
        assert message.isprintable() and len(message) < 1500 and path.name in message, message
        return None


def packed(form: str, files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    if form.endswith("zip"):
        method = zipfile.ZIP_STORED if form.startswith("stored") else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(out, "w", method) as file:
            for name, data in files.items():
                file.writestr(name, data)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w") as file:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    compress = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}.get(form.rsplit(".", 1)[-1], bytes)
    return compress(out.getvalue())


CHECKED = ["a.zip", "stored.zip", "a.tar.gz", "a.tar.xz", "a.tar.bz2"]


@pytest.mark.parametrize("seed, form", list(enumerate(CHECKED)))
@pytest.mark.parametrize("content", ["pictures", "csv"])
def test_damage_to_a_file_with_checksums(tmp_path, pictures, small_csv, small, seed, form, content):
    """All of it is refused, or the data are the same (the damage hit what nobody reads)."""
    files = pictures if content == "pictures" else {"fer2013.csv": small_csv.read_bytes(), "README": b"x" * 600}
    path = tmp_path / form
    whole = packed(form, files)
    path.write_bytes(whole)
    good = small(path).digest
    found = []
    for damaged in damaged_bytes(whole, seed, 60):
        path.write_bytes(damaged)
        found.append(outcome(small, path))
        assert found[-1] in (None, good)
    assert found.count(None) > 40


@pytest.mark.parametrize("seed, form", list(enumerate(["csv.gz", "csv.xz", "csv.bz2", "nested.zip", "nested.tar.gz"])))
def test_damage_to_other_wrappings(tmp_path, small_csv, faces, small, seed, form):
    text = small_csv.read_bytes()
    if form.startswith("nested"):
        whole = packed(form, {"inner.zip": packed("zip", {"fer2013.csv": text})})
    else:
        whole = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}[form[4:]](text)
    path = tmp_path / f"fer2013.{form}"
    for damaged in damaged_bytes(whole, 10 + seed, 50):
        path.write_bytes(damaged)
        assert outcome(small, path) in (None, faces.digest)


@pytest.mark.parametrize("form", ["a.tar", "fer2013.csv"])
def test_damage_to_a_file_without_checksums(tmp_path, pictures, small_csv, small, form):
    """A changed pixel cannot be seen, but the digest is then no known copy's; counts and ids are right all the same."""
    whole = small_csv.read_bytes() if form.endswith("csv") else packed(form, pictures)
    path = tmp_path / form
    path.write_bytes(whole)
    good = small(path)
    for damaged in damaged_bytes(whole, 20, 80):
        path.write_bytes(damaged)
        if outcome(small, path):
            data = small(path)
            assert data.counts().equals(good.counts()) and len(data.ids) == len(good.ids) == len(set(data.ids))


def test_damage_to_the_headers_of_a_tar(tmp_path, small):
    """Every byte of a header, and of the extensions that pax and GNU put before it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo("train/angry/" + "é" * 120 + ".jpg")
        info.pax_headers = {"GNU.sparse.major": "1", "mtime": "1.5", "comment": "x" * 90}
        file.addfile(info)
    path, rng = tmp_path / "a.tar", np.random.default_rng(0)
    for _ in range(400):
        data = bytearray(out.getvalue())
        for at in rng.integers(0, 2560, 3):
            data[at] = rng.integers(256)
        for start in range(0, 2560, 512):  # a right checksum lets the damage through to the fields
            header = data[start : start + 512]
            header[148:156] = b" " * 8
            data[start + 148 : start + 155] = b"%06o\0" % sum(header)
        path.write_bytes(data)
        assert outcome(small, path) is None


SPARSE = [
    {"GNU.sparse.size": "x"},
    {"GNU.sparse.size": "-1", "GNU.sparse.map": "0,1"},
    {"GNU.sparse.size": "9" * 40},
    {"GNU.sparse.map": "a,b", "GNU.sparse.size": "5"},
    {"GNU.sparse.map": "1", "GNU.sparse.size": "5"},
    {"GNU.sparse.map": "", "GNU.sparse.size": "5"},
    {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
    {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "-7"},
    {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1e9"},
    {"GNU.sparse.realsize": "nan"},
    {"GNU.sparse.numblocks": "-1", "GNU.sparse.offset": "q", "GNU.sparse.numbytes": "z", "GNU.sparse.size": "1"},
    {"GNU.sparse.name": "../../x", "GNU.sparse.size": "1", "GNU.sparse.map": "0,1"},
    {"size": "-512"},
    {"size": "9" * 30},
    {"size": "x"},
    {"path": "../../x"},
    {"path": ""},
    {"linkpath": "/etc/passwd", "mtime": "inf"},
    {"hdrcharset": "BINARY", "path": "\udcff\udcfe"},
]


@pytest.mark.parametrize("headers", SPARSE, ids=str)
@pytest.mark.parametrize("form", ["a.tar", "a.tar.gz", "a.zip"])
def test_malformed_pax_headers(tmp_path, small, headers, form):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo("fer2013.csv")
        info.pax_headers, info.size = headers, 700
        file.addfile(info, io.BytesIO(b"1\n" + b"x" * 698))
    data = out.getvalue()
    path = tmp_path / form
    path.write_bytes(
        {"a.tar": bytes, "a.tar.gz": gzip.compress, "a.zip": lambda d: packed("zip", {"a.tar": d})}[form](data)
    )
    assert outcome(small, path) is None


def test_headers_that_follow_each_other_for_ever(tmp_path, small):
    """Each pax header is read by a call inside the call for the one before."""
    one = tarfile.TarInfo.create_pax_global_header({"a": "b"})
    local = bytearray(one)
    local[156] = ord("x")
    local[148:156] = b" " * 8
    local[148:155] = b"%06o\0" % sum(local[:512])
    for header in (one, bytes(local)):
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(header * 5000))
        assert outcome(small, tmp_path / "a.tar.gz") is None


ODD_NAMES = ["../x", "/x", "a/../../x", "C:\\x", "..\\x", "\\\\server\\x", "a\nb/../x", "x" * 2000, "\x1b[31m/../x"]


@pytest.mark.parametrize("form", ["a.zip", "a.tar", "a.tar.bz2", "nested.zip"])
def test_names_that_lead_outside(tmp_path, pictures, small, form):
    for name in ODD_NAMES:
        files = {name: b"x"} | pictures
        data = packed("zip", {"in.tar": packed("tar", files)}) if form == "nested.zip" else packed(form, files)
        (tmp_path / form).write_bytes(data)
        assert outcome(small, tmp_path / form) is None


def bomb_zip(declared: int, real: int) -> bytes:
    """A member that promises ``declared`` bytes and gives ``real``."""
    content = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = content.compress(bytes(real)) + content.flush()
    sizes = struct.pack("<III", zlib.crc32(bytes(real)), len(data), declared)
    fixed = struct.pack("<HHHHH", 20, 0, 8, 0, 0)
    name = b"fer2013.csv"
    local = b"PK\3\4" + fixed + sizes + struct.pack("<HH", len(name), 0) + name + data
    central = b"PK\1\2" + b"\x14\3" + fixed + sizes + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0) + name
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + end


MEMBER = gzip.compress(bytes(8 << 20))  # 80 of them, one after the other, are one file of 640 MiB
BOMBS = {
    "a declared size": lambda: bomb_zip(1 << 31, 10),
    "a hidden size": lambda: bomb_zip(10, 1 << 20),
    "gzip": lambda: MEMBER * 80,
    "zeros in a tar": lambda: gzip.compress(bytes(64 << 20), 1),
    "gzip in gzip": lambda: gzip.compress(MEMBER * 80),
    "a list of members": lambda: packed("zip", {"in.zip": b"PK\5\6" + bytes(8) + struct.pack("<IIH", 1 << 30, 0, 0)}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_cost_little(tmp_path, small, name):
    path = tmp_path / ("fer2013.csv.gz" if name.startswith("gzip") else "a.tar.gz" if "tar" in name else "a.zip")
    path.write_bytes(BOMBS[name]())
    began = time.process_time()
    assert outcome(small, path) is None
    assert time.process_time() - began < 60  # unpacked whole they would take minutes, or all memory


def test_a_zip_with_a_huge_list_of_members(tmp_path, small, monkeypatch):
    """zipfile keeps an object for each member before anybody can count them."""
    monkeypatch.setattr(archive, "LARGEST_DIRECTORY", 1000)
    path = make_zip(tmp_path / "a.zip", {f"{i}.txt": b"" for i in range(50)})
    with pytest.raises(FerReproError, match=r"its list of members has [\d,]+ bytes, expected at most 1,000"):
        small(path)


def test_what_comes_out_of_a_compressed_file_is_bounded(tmp_path, small_csv, small, monkeypatch):
    path = tmp_path / "fer2013.csv.gz"
    path.write_bytes(gzip.compress(small_csv.read_bytes()))
    monkeypatch.setattr(archive, "LARGEST_MEMBER", 100_000)
    with pytest.raises(FerReproError, match="more than 100,000 bytes in one file"):
        small(path)
    monkeypatch.undo()
    monkeypatch.setattr(archive, "LARGEST_TOTAL", 50_000)
    with pytest.raises(FerReproError, match="its members hold more than 50,000 bytes"):
        small(path)


def test_no_room_for_an_archive_inside(tmp_path, pictures, small, monkeypatch):
    path = make_zip(tmp_path / "a.zip", {"in.zip": packed("zip", pictures)})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive.shutil, "copyfileobj", full)
    with pytest.raises(FerReproError, match=r"there is no room .*No space left on device.*TMPDIR"):
        small(path)


def test_damaged_pictures_in_a_folder(tmp_path, pictures, small):
    """One sentence for each, or a picture of the right size whose digest is no known copy's."""
    name = next(iter(pictures))
    folder = make_folder(tmp_path / "folder", pictures)
    for damaged in damaged_bytes(pictures[name], 30, 80):
        (folder / name).write_bytes(damaged)
        outcome(small, folder)


def test_any_bytes_are_of_some_kind_or_none(pictures):
    """Sniffing never fails, whatever the bytes."""
    samples = [b"", b"\0", b"\0e", b"\xff\xfe", b"\xff\xfee", b"emotion,pixels,Usage", next(iter(pictures.values()))]
    for sample in samples:
        for damaged in (sample, *damaged_bytes(sample + b"\n" * 600, 40, 100)):
            kinds.sniff(damaged[: kinds.HEAD])
