"""Finding the data, the `FER2013` object, and what `describe` says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from _csv_writer import write_csv
from data_copies import SMALL, make_folder, make_tar, make_zip

from fer_repro.data import LABELS, OFFICIAL, USAGES, describe, load, official, source
from fer_repro.errors import FerReproError


@pytest.fixture(autouse=True)
def no_project_copy(monkeypatch, tmp_path):
    """The project's own data/fer2013/ is out of the way as well."""
    monkeypatch.setattr(source, "__file__", str(tmp_path / "elsewhere" / "fer_repro" / "data" / "source.py"))


def test_nothing_found_names_the_three_places_and_the_mend():
    with pytest.raises(FerReproError) as caught:
        load()
    message = str(caught.value)
    for words in ("--root", "$FER2013_ROOT", "data/fer2013/", "fer-repro data --download"):
        assert words in message
    assert "\n" not in message


def test_the_argument_comes_before_the_variable_before_the_folder(tmp_path, small_csv, pictures, monkeypatch):
    home = make_folder(Path("data/fer2013"), pictures)
    variable = make_zip(tmp_path / "variable.zip", pictures)
    assert source.find() == source.Place(home, "folder")
    monkeypatch.setenv("FER2013_ROOT", str(variable))
    assert source.find() == source.Place(variable, "archive")
    assert source.find(small_csv) == source.Place(small_csv, "csv")


def test_the_projects_own_folder_is_found_from_elsewhere(tmp_path, pictures, monkeypatch):
    home = make_folder(tmp_path / "elsewhere" / "data" / "fer2013", pictures)
    assert source.find() == source.Place(home, "folder")


@pytest.mark.parametrize("how", ["--root", "$FER2013_ROOT"])
def test_a_place_that_was_named_must_hold_it(tmp_path, pictures, monkeypatch, how):
    """Falling through to another copy would run on other data than asked for."""
    make_folder(Path("data/fer2013"), pictures)
    empty = tmp_path / "nothing here"
    for exists in (False, True):
        if exists:
            empty.mkdir()
        root = str(empty) if how == "--root" else None
        if root is None:
            monkeypatch.setenv("FER2013_ROOT", str(empty))
        with pytest.raises(FerReproError) as caught:
            source.find(root)
        words = "which holds none" if exists else "which does not exist"
        assert f"{how} is '{empty}', {words}" in str(caught.value)
        assert "data/fer2013/" in str(caught.value) and "--download" in str(caught.value)


def test_what_a_folder_may_hold(tmp_path, small_csv, faces, pictures, small):
    folder = tmp_path / "folder"
    make_folder(folder, pictures)
    assert source.find(folder).kind == "folder"
    write_csv(faces, folder / "icml_face_data.csv", "icml_face_data.csv")
    assert source.find(folder).path.name == "icml_face_data.csv"
    (folder / "fer2013.csv").write_bytes(small_csv.read_bytes())
    assert source.find(folder).path.name == "fer2013.csv"

    torchvision = tmp_path / "root"
    (torchvision / "fer2013").mkdir(parents=True)
    (torchvision / "fer2013" / "fer2013.csv").write_bytes(small_csv.read_bytes())
    assert small(torchvision).digest == faces.digest

    box = tmp_path / "box"
    box.mkdir()
    archive = make_tar(box / "anything.tar.xz", pictures)
    assert source.find(box) == source.Place(archive, "archive")
    make_zip(box / "fer2013.zip", pictures)
    assert source.find(box).path.name == "fer2013.zip"
    make_zip(box / "msambare-fer2013.zip", pictures)
    with pytest.raises(FerReproError, match="holds several archives"):
        source.find(box)


def test_the_pair_needs_the_third_file(tmp_path, faces, small):
    """train.csv and test.csv as torchvision knows them: test.csv has no labels, icml_face_data.csv has everything."""
    folder = tmp_path / "fer2013"
    make_folder(folder, {"train.csv": b"emotion,pixels\n", "test.csv": b"pixels\n"})
    for place in (folder, folder / "train.csv", folder / "test.csv"):
        with pytest.raises(FerReproError, match=r"test.csv has no labels: put icml_face_data.csv"):
            small(place)
    write_csv(faces, folder / "icml_face_data.csv", "icml_face_data.csv")
    for place in (folder, folder / "train.csv", folder / "test.csv"):
        assert small(place).digest == faces.digest


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "cats.txt").write_text("meow")
    with pytest.raises(FerReproError, match=r"'cats.txt' is no FER2013: expected a folder, a .csv or an archive"):
        load(root=tmp_path / "cats.txt")


def test_an_unreadable_file(small_csv, small, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self.path))

    monkeypatch.setattr(source.Place, "key", refuse)
    with pytest.raises(FerReproError, match="cannot be read .Permission denied"):
        small(small_csv)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"data": "ferplus"}, "unknown data 'ferplus': expected one of fer2013, synthetic"),
        ({"data": "synthetic", "root": "x"}, "a root was given for the synthetic faces"),
        ({"size": (10, 10, 10)}, "a size was given for FER2013"),
    ],
)
def test_arguments_that_make_no_sense(arguments, words):
    with pytest.raises(FerReproError, match=words):
        load(**arguments)


def test_subset_and_split(few_synthetic):
    data = few_synthetic
    splits = OFFICIAL.split(data)
    assert [len(s) for s in (splits.train, splits.select, splits.test)] == [210, 70, 70]
    assert np.shares_memory(splits.train.images, data.images), "a usage is cut out without a copy"
    picked = data.subset([5, 3, 5])
    np.testing.assert_array_equal(picked.images, data.images[[5, 3, 5]])
    assert list(picked.ids) == [data.ids[5], data.ids[3], data.ids[5]] and picked.digest == data.digest
    mask = data.labels == 3
    np.testing.assert_array_equal(data.subset(mask).ids, data.ids[mask])
    np.testing.assert_array_equal(data.subset(slice(10, 20)).ids, data.ids[10:20])
    np.testing.assert_array_equal(data.subset([-2, -1]).ids, data.ids[-2:])
    assert len(data.subset([])) == 0
    for part in (splits.train, picked, data.subset([])):
        assert not part.images.flags.writeable and not part.labels.flags.writeable
    with pytest.raises(IndexError):
        data.subset([len(data)])


def test_counts(few_synthetic):
    frame = few_synthetic.counts()
    assert list(frame.index) == list(USAGES) and list(frame.columns) == list(LABELS)
    assert list(frame.sum(axis=1)) == [210, 70, 70]
    happy = ((few_synthetic.labels == LABELS.index("happy")) & (few_synthetic.usage == "PublicTest")).sum()
    assert frame.loc["PublicTest", "happy"] == happy
    assert few_synthetic.subset(few_synthetic.usage == "Training").counts().loc["PrivateTest"].sum() == 0


def test_describe_is_json_and_honest(small_csv, faces, small):
    report = describe(small(small_csv))
    again = json.loads(json.dumps(report))
    assert again == report
    assert report["images"] == 60 and report["kind"] == "csv" and report["source"] == "fer2013.csv"
    assert report["counts"]["Training"] == dict(zip(LABELS, SMALL[0].tolist(), strict=True))
    assert report["digest"] == faces.digest and report["digest_verified"]
    assert report["known_copy"] == "unknown copy"
    assert report["seconds_to_open"] >= 0
    assert str(small_csv.parent) not in json.dumps(report), "no path of this machine"


def test_describe_recomputes_the_digest(small_csv, small):
    data = small(small_csv)
    images = data.images.copy()
    images[0, 0, 0] ^= 1
    changed = dataclasses.replace(data, images=images)
    assert not describe(changed)["digest_verified"]


def test_describe_a_subset(few_synthetic):
    report = describe(few_synthetic.subset(few_synthetic.usage == "PublicTest"))
    assert report["images"] == 70 and report["counts"]["Training"]["happy"] == 0
    assert report["digest"] == few_synthetic.digest and report["digest_verified"] is None
    assert describe(few_synthetic)["digest_verified"] is True


def test_synthetic_faces_carry_their_words(few_synthetic):
    assert describe(few_synthetic)["note"] == "synthetic faces - not a result"
    assert "synthetic faces - not a result" in few_synthetic._repr_html_()


@pytest.mark.parametrize("form", [".csv", ".zip", ".tar.xz"])
def test_a_known_copy_is_recognised_by_the_md5_of_its_csv(tmp_path, small_csv, small, monkeypatch, form):
    text = small_csv.read_bytes()
    make = {".zip": make_zip, ".tar.xz": make_tar}.get(form)
    path = make(tmp_path / f"a{form}", {"fer/fer2013.csv": text}) if make else small_csv
    assert describe(small(path))["known_copy"] == "unknown copy"
    monkeypatch.setitem(official.KNOWN_CSV, hashlib.md5(text).hexdigest(), "the one")
    assert describe(small(path))["known_copy"] == "the one"


def test_a_known_copy_is_recognised_by_its_pixels(tmp_path, pictures, small, monkeypatch):
    data = small(make_zip(tmp_path / "a.zip", pictures))
    assert describe(data)["known_copy"] == "unknown copy"
    monkeypatch.setitem(official.KNOWN_DIGESTS, data.digest, "the one")
    assert describe(data)["known_copy"] == "the one"
