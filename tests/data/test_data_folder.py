"""The folder copies: order, names and pictures, on disk and in archives."""

from __future__ import annotations

import numpy as np
import pytest
from data_copies import jpeg, make_folder, make_tar, make_zip

from fer_repro.data import LABELS
from fer_repro.errors import FerReproError


def copies(tmp_path, files):
    yield make_folder(tmp_path / "folder", files)
    yield make_zip(tmp_path / "copy.zip", files)
    yield make_tar(tmp_path / "copy.tar.xz", files)
    yield make_tar(tmp_path / "copy.tar.gz", files)


def test_folder_zip_and_tars_give_equal_digests(tmp_path, pictures, small):
    digests, ids = set(), set()
    for path in copies(tmp_path, pictures):
        data = small(path)
        digests.add(data.digest)
        ids.add(tuple(data.ids))
    assert len(digests) == len(ids) == 1


def test_the_order_is_by_usage_and_number_whatever_the_archive_says(tmp_path, pictures, small):
    shuffled = dict(sorted(pictures.items(), key=lambda pair: hash(pair[1])))
    forward = small(make_tar(tmp_path / "a.tar.gz", pictures))
    backward = small(make_zip(tmp_path / "b.zip", dict(reversed(shuffled.items()))))
    assert forward.digest == backward.digest
    assert list(forward.usage) == sorted(forward.usage, key=["Training", "PublicTest", "PrivateTest"].index)
    for usage in set(forward.usage):
        numbers = [int(i.rsplit("_", 1)[1]) for i in forward.ids[forward.usage == usage]]
        assert numbers == sorted(numbers) and len(numbers) > 5


def test_pixels_labels_and_ids_belong_together(tmp_path, pictures, faces, small):
    data = small(make_folder(tmp_path / "folder", pictures))
    position = {name.split("/", 1)[1].removesuffix(".jpg"): i for i, name in enumerate(pictures)}
    for row, name in enumerate(data.ids):
        i = position[name]
        assert data.labels[row] == faces.labels[i] and data.usage[row] == faces.usage[i]
        error = np.abs(data.images[row].astype(int) - faces.images[i]).mean()
        assert error < 6, "the decoded picture is another one"


def test_a_folder_around_it_and_litter_are_no_matter(tmp_path, pictures, small):
    plain = small(make_zip(tmp_path / "plain.zip", pictures))
    inside = {f"archive/fer/{name}": data for name, data in pictures.items()}
    inside |= {"archive/README.txt": b"hello", "__MACOSX/train/angry/._Training_1.jpg": b"x", "train/.DS_Store": b"x"}
    assert small(make_zip(tmp_path / "inside.zip", inside)).digest == plain.digest
    files = pictures | {"train/angry/.hidden.jpg": b"x", "train/angry/Thumbs.db": b"x", "notes.txt": b"x"}
    assert small(make_folder(tmp_path / "folder", files)).digest == plain.digest


def test_training_pictures_may_have_other_names(tmp_path, pictures, small):
    renamed = {}
    for i, (name, data) in enumerate(pictures.items()):
        renamed[f"{name.rsplit('/', 1)[0]}/im{i}.jpg" if name.startswith("train/") else name] = data
    data = small(make_folder(tmp_path / "folder", renamed))
    assert len(set(data.ids)) == len(data)
    assert all(i.split("/")[1].startswith("Training_im") for i in data.ids[data.usage == "Training"])


def one(pictures, start):
    return next(name for name in pictures if name.startswith(start))


def test_a_missing_and_a_moved_picture_are_wrong_counts(tmp_path, pictures, small):
    name = one(pictures, "test/happy/PrivateTest")
    files = {k: v for k, v in pictures.items() if k != name}
    for path in copies(tmp_path, files):
        with pytest.raises(FerReproError, match=r"59 images where FER2013 has 60.*PrivateTest happy 2 instead of 3"):
            small(path)
    files[name.replace("happy", "sad")] = pictures[name]
    with pytest.raises(FerReproError, match="PrivateTest happy 2 instead of 3, PrivateTest sad 3 instead of 2"):
        small(make_zip(tmp_path / "moved.zip", files))


BAD_NAMES = {
    "unknown class": ("train/angry/", "train/anger/", "in the class folder 'anger', expected one of angry"),
    "training picture in test": ("train/angry/", "test/angry/", "a Training picture in the folder 'test'"),
    "test picture in train": ("test/angry/", "train/angry/", r"a P\w+Test picture in the folder 'train'"),
    "no test set in the name": ("test/angry/PublicTest_", "test/angry/face_", "does not name its test set"),
}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_wrong_name_is_named(tmp_path, pictures, small, name):
    start, instead, words = BAD_NAMES[name]
    old = one(pictures, start)
    files = {(k.replace(start, instead) if k == old else k): v for k, v in pictures.items()}
    for path in copies(tmp_path, files):
        with pytest.raises(FerReproError, match=words) as caught:
            small(path)
        assert old.replace(start, instead) in str(caught.value)


def test_a_picture_that_is_there_twice(tmp_path, pictures, small):
    name = one(pictures, "train/angry")
    files = pictures | {f"again/{name}": pictures[name]}
    with pytest.raises(FerReproError, match="is there twice"):
        small(make_zip(tmp_path / "copy.zip", files))
    files = pictures | {name.replace(".jpg", ".jpeg"): pictures[name]}
    with pytest.raises(FerReproError, match="is there twice"):
        small(make_folder(tmp_path / "folder", files))


def colour(data: bytes) -> bytes:
    return jpeg(np.zeros((48, 48, 3), np.uint8))


BAD_PICTURES = {
    "cut": (lambda data: data[: len(data) // 2], "the JPEG is cut, expected an end marker"),
    "cut by little": (lambda data: data[:-2], "the JPEG is cut"),
    "empty": (lambda data: b"", "the JPEG is cut"),
    "noise": (lambda data: b"\x17" * 900 + b"\xff\xd9", "cannot be decoded"),
    "another size": (lambda data: jpeg(np.zeros((224, 224), np.uint8)), "a 224x224 picture of mode L"),
    "colour": (colour, "a 48x48 picture of mode RGB, expected 48x48 grey"),
    "huge": (lambda data: data + b"\0" * (2 << 20), r"bytes, expected a 48x48 JPEG"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_a_broken_picture_is_named(tmp_path, pictures, small, name):
    change, words = BAD_PICTURES[name]
    at = one(pictures, "train/happy")
    files = pictures | {at: change(pictures[at])}
    for path in copies(tmp_path, files):
        with pytest.raises(FerReproError, match=words) as caught:
            small(path)
        assert at in str(caught.value) and "fetch a fresh copy" in str(caught.value)


def test_every_class_is_known(pictures):
    assert {name.split("/")[1] for name in pictures} == set(LABELS)
