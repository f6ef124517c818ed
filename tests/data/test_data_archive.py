"""Archives are read as a stream, and nothing in them is trusted."""

from __future__ import annotations

import gzip
import io
import lzma
import stat
import tarfile
import zipfile

import pytest
from _csv_writer import write_csv
from data_copies import make_tar, make_zip

from fer_repro.data import archive
from fer_repro.errors import FerReproError


def plain(name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(name)


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


OUTSIDE = ["../evil.txt", "train/../../evil.txt", "/etc/evil.txt", "C:/evil.txt", "..\\evil.txt", "\\evil.txt"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("form", [".zip", ".tar.xz", ".tar.gz"])
def test_a_path_outside_the_archive(tmp_path, pictures, small, name, form):
    path = tmp_path / f"copy{form}"
    if form == ".zip":
        make_zip(path, pictures | {name: b"x"})
    else:
        make_tar(path, pictures, (plain(name),))
    before = set(tmp_path.rglob("*"))
    with pytest.raises(FerReproError, match="points outside the archive"):
        small(path)
    assert {p for p in set(tmp_path.rglob("*")) - before if "cache" not in p.parts[len(tmp_path.parts)]} == set()


@pytest.mark.parametrize(
    "info",
    [
        special("train/angry/Training_1.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        special("link", tarfile.LNKTYPE, "train/angry/Training_1.jpg"),
        special("device", tarfile.CHRTYPE),
        special("disk", tarfile.BLKTYPE),
        special("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda info: info.name,
)
def test_links_and_devices_in_a_tar(tmp_path, pictures, small, info):
    with pytest.raises(FerReproError, match=f"'{info.name}' is a link, a device or sparse"):
        small(make_tar(tmp_path / "copy.tar.gz", pictures, (info,)))


def test_a_link_in_a_zip(tmp_path, pictures, small):
    path = make_zip(tmp_path / "copy.zip", pictures)
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(info, "/etc/passwd")
    with pytest.raises(FerReproError, match="'link' is a link or a device"):
        small(path)


def test_folders_in_archives_are_fine(tmp_path, pictures, small):
    folder = special("train/", tarfile.DIRTYPE)
    assert len(small(make_tar(tmp_path / "copy.tar.xz", pictures, (folder,)))) == 60
    assert len(small(make_zip(tmp_path / "copy.zip", pictures | {"train/": b""}))) == 60


@pytest.mark.parametrize("form", [".zip", ".tar.xz", ".tar.gz"])
def test_an_oversize_member_and_an_oversize_total(tmp_path, pictures, small, monkeypatch, form):
    files = pictures | {"notes.bin": b"\0" * 300_000}
    path = make_zip(tmp_path / "a.zip", files) if form == ".zip" else make_tar(tmp_path / f"a{form}", files)
    assert len(small(path)) == 60
    monkeypatch.setattr(archive, "LARGEST_MEMBER", 200_000)
    with pytest.raises(FerReproError, match="'notes.bin' has 300,000 bytes, expected at most 200,000"):
        archive.walk(path, lambda *_: None)
    monkeypatch.setattr(archive, "LARGEST_MEMBER", 400_000)
    monkeypatch.setattr(archive, "LARGEST_TOTAL", 310_000)
    with pytest.raises(FerReproError, match="its members hold more than 310,000 bytes"):
        archive.walk(path, lambda *_: None)


def test_too_many_members(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr(archive, "MOST_MEMBERS", 50)
    for path in (make_zip(tmp_path / "a.zip", pictures), make_tar(tmp_path / "a.tar.gz", pictures)):
        with pytest.raises(FerReproError, match="more than 50 members"):
            archive.walk(path, lambda *_: None)


def test_a_header_that_swells_is_stopped(tmp_path):
    """A pax header is read into memory before anybody sees the member: 16 MiB of it compress to a few kB."""
    info = tarfile.TarInfo("x")
    info.pax_headers = {"comment": "a" * (16 << 20)}
    path = tmp_path / "bomb.tar.xz"
    with tarfile.open(path, "w:xz", format=tarfile.PAX_FORMAT) as file:
        file.addfile(info)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(FerReproError, match=r"a header or a gap of more than 1,048,576 bytes"):
        archive.walk(path, lambda *_: None)


def test_a_greedy_xz_dictionary_is_refused(tmp_path, monkeypatch):
    path = make_tar(tmp_path / "a.tar.xz", {"x": b"y" * 100})
    monkeypatch.setattr(archive, "LARGEST_DICTIONARY", 1 << 20)
    with pytest.raises(FerReproError, match="damaged or cut"):
        archive.walk(path, lambda *_: None)


@pytest.mark.parametrize("form", [".zip", ".tar.xz", ".tar.gz"])
@pytest.mark.parametrize("damage", ["cut", "cut at the end", "flipped", "noise", "empty"])
def test_a_damaged_archive(tmp_path, pictures, small, form, damage):
    path = make_zip(tmp_path / "a.zip", pictures) if form == ".zip" else make_tar(tmp_path / f"a{form}", pictures)
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 0x55
    changed = {
        "cut": bytes(data[: len(data) // 2]),
        "cut at the end": bytes(data[:-6]),
        "flipped": bytes(data),
        "noise": b"\x01" * len(data),
        "empty": b"",
    }[damage]
    path.write_bytes(changed)
    with pytest.raises(FerReproError, match=f"a{form}") as caught:
        small(path)
    assert "fetch a fresh copy" in str(caught.value)


def test_a_damaged_header_inside_a_whole_tar(tmp_path, pictures):
    """tarfile takes it for the end; the pictures behind it would just be missing."""
    raw = bytearray(gzip.decompress(make_tar(tmp_path / "a.tar.gz", pictures).read_bytes()))
    second = 512 + -(-len(next(iter(pictures.values()))) // 512) * 512
    raw[second : second + 10] = b"\xff" * 10
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(bytes(raw)))
    with pytest.raises(FerReproError, match="a damaged header after member 1"):
        archive.walk(tmp_path / "b.tar.gz", lambda *_: None)


def test_an_encrypted_zip_and_an_unknown_method(tmp_path, pictures, small):
    path = make_zip(tmp_path / "a.zip", {"fer2013.csv": b"emotion,pixels,Usage\n"})
    data = path.read_bytes()
    central = data.rfind(b"PK\x01\x02")
    locked = bytearray(data)
    locked[6] |= 1
    locked[central + 8] |= 1
    path.write_bytes(locked)
    with pytest.raises(FerReproError, match="is encrypted"):
        small(path)
    odd = bytearray(data)
    odd[8:10] = odd[central + 10 : central + 12] = b"\x63\x00"
    path.write_bytes(odd)
    with pytest.raises(FerReproError, match="'fer2013.csv' cannot be read"):
        small(path)


def test_several_xz_streams_in_a_row(tmp_path, pictures, small):
    """What `cat a.xz b.xz` and parallel compressors write."""
    raw = lzma.decompress(make_tar(tmp_path / "a.tar.xz", pictures).read_bytes())
    middle = len(raw) // 2
    joined = lzma.compress(raw[:middle]) + lzma.compress(raw[middle:]) + b"\0" * 8
    (tmp_path / "b.tar.xz").write_bytes(joined)
    assert small(tmp_path / "b.tar.xz").digest == small(tmp_path / "a.tar.xz").digest


@pytest.mark.parametrize("form", [".zip", ".tar.xz", ".tar.gz"])
def test_a_csv_in_an_archive(tmp_path, small_csv, faces, pictures, small, form):
    write_csv(faces, tmp_path / "icml.csv", "icml_face_data.csv")
    icml, csv = (tmp_path / "icml.csv").read_bytes(), small_csv.read_bytes()
    make = make_zip if form == ".zip" else make_tar
    data = small(make(tmp_path / f"a{form}", {"fer2013/README": b"x", "fer2013/fer2013.csv": csv}))
    assert data.digest == faces.digest and data.source == f"fer2013.csv in a{form}"
    # The contest's own archive: four files, of which one suffices; the original wins whatever the order.
    halves = {"train.csv": b"emotion,pixels\n", "test.csv": b"pixels\n"}
    data = small(make(tmp_path / f"b{form}", halves | {"icml_face_data.csv": icml}))
    assert data.digest == faces.digest and data.facts["layout"] == "icml_face_data.csv"
    both = {"icml_face_data.csv": icml, "fer2013.csv": csv}
    for n, files in enumerate((pictures | both, {"fer2013.csv": csv} | pictures)):
        data = small(make(tmp_path / f"c{n}{form}", files))
        assert data.digest == faces.digest and data.facts["layout"] == "fer2013.csv"
    with pytest.raises(FerReproError, match="test.csv has no labels"):
        small(make(tmp_path / f"d{form}", halves))
    with pytest.raises(FerReproError, match="holds no FER2013"):
        small(make(tmp_path / f"e{form}", {"cats.txt": b"meow"}))


def test_nothing_is_unpacked(tmp_path, pictures, small, monkeypatch):
    """No file but the cache's is written."""
    path = make_tar(tmp_path / "a.tar.xz", pictures)
    before = {p for p in tmp_path.rglob("*")}
    small(path)
    new = {p.relative_to(tmp_path) for p in tmp_path.rglob("*")} - {p.relative_to(tmp_path) for p in before}
    assert new and all(p.parts[0] == "cache" for p in new) and not any(p.suffix == ".jpg" for p in new)


def test_the_xz_stream_says_when_it_is_misused():
    with pytest.raises(io.UnsupportedOperation):
        archive._XzStream(io.BufferedReader(io.BytesIO(b""))).read()
