"""Parquet tables and NumPy arrays: read where each row carries its usage, else refused with what to do."""

from __future__ import annotations

import builtins
import io
import json

import numpy as np
import pytest
from damage import damaged_bytes
from data_copies import jpeg, make_folder, make_zip
from PIL import Image

from fer_repro.data import LABELS, USAGES
from fer_repro.errors import FerReproError

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402 - only where pyarrow is there


def same(data, faces, layout):
    np.testing.assert_array_equal(data.images, faces.images)
    np.testing.assert_array_equal(data.labels, faces.labels)
    np.testing.assert_array_equal(data.usage, faces.usage)
    assert data.digest == faces.digest and data.facts["layout"] == layout


def texts(faces):
    return [" ".join(map(str, face.reshape(-1))) for face in faces.images]


def png(image):
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def write(path, columns, metadata=None):
    parquet.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


FORMS = {
    "text": texts,
    "lists": lambda faces: [face.reshape(-1).tolist() for face in faces.images],
    "lists of lists": lambda faces: [face.tolist() for face in faces.images],
    "floats": lambda faces: [face.reshape(-1).astype(float).tolist() for face in faces.images],
    "Hugging Face's pictures": lambda faces: [{"bytes": png(face), "path": "a.png"} for face in faces.images],
    "bytes": lambda faces: [png(face) for face in faces.images],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_parquet_table_with_its_usages(tmp_path, faces, small, form):
    columns = {"emotion": faces.labels, "pixels": FORMS[form](faces), " Usage": faces.usage.tolist()}
    path = write(tmp_path / "fer2013.parquet", columns)
    same(small(path), faces, "Parquet table")
    assert small(path).facts["from_cache"]
    same(small(make_zip(tmp_path / "a.zip", {"data/fer2013.parquet": path.read_bytes()})), faces, "Parquet table")
    make_folder(tmp_path / "folder", {"x.parquet": path.read_bytes()})
    same(small(tmp_path / "folder"), faces, "Parquet table")


def by_usage(faces, folder, names, columns=("image", "label"), metadata=None, labels=None):
    folder.mkdir(exist_ok=True)
    for usage, name in zip(USAGES, names, strict=True):
        rows = faces.usage == usage
        own = faces.labels if labels is None else labels
        images = [{"bytes": png(face), "path": None} for face in faces.images[rows]]
        write(folder / name, {columns[0]: images, columns[1]: own[rows]}, metadata)
    return folder


def test_files_named_for_their_usages(tmp_path, faces, small):
    names = ["Training-00000-of-00001.parquet", "PublicTest-00000-of-00001.parquet", "PrivateTest.parquet"]
    same(small(by_usage(faces, tmp_path / "x", names)), faces, "Parquet table")


def test_the_names_of_the_classes_decide(tmp_path, faces, small):
    """Hugging Face's tables number the classes in an order of their own, and say which."""
    order = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
    features = {"info": {"features": {"label": {"names": order, "_type": "ClassLabel"}}}}
    labels = np.array([order.index(LABELS[label]) for label in faces.labels])
    names = [f"{usage}.parquet" for usage in USAGES]
    folder = by_usage(faces, tmp_path / "x", names, metadata={"huggingface": json.dumps(features)}, labels=labels)
    same(small(folder), faces, "Parquet table")
    with pytest.raises(FerReproError, match="wrong counts"):  # without the names it is other data
        small(by_usage(faces, tmp_path / "y", names, labels=labels))


@pytest.mark.parametrize(
    "names", [["train.parquet", "valid.parquet", "test.parquet"], ["a.parquet", "b.parquet", "c.parquet"]]
)
def test_files_that_do_not_name_their_usages_are_refused(tmp_path, faces, small, names):
    folder = by_usage(faces, tmp_path / "x", names)
    for place in (folder, folder / names[2]):
        with pytest.raises(FerReproError, match=r"has no column Usage.* or take fer2013.csv|several tables") as caught:
            small(place)
        assert str(caught.value).isprintable()


BAD = {
    "label 7": ({"emotion": 7}, "row 3 .counted from 0.: the label is '7', expected 0 to 6"),
    "label -1": ({"emotion": -1}, "row 3 .*the label is '-1'"),
    "no label": ({"emotion": None}, "row 3 .*the label is 'none'"),
    "usage": ({"Usage": "test"}, "row 3 .*Usage is 'test', expected one of Training"),
    "no usage": ({"Usage": None}, "row 3 .*Usage is 'None'"),
    "256": ({"pixels": " ".join(["256"] * 2304)}, "row 3 .*no whole numbers from 0 to 255"),
    "words": ({"pixels": "a b"}, "row 3 .*the pixels are 'a b"),
    "2303": ({"pixels": " ".join(["1"] * 2303)}, r"row 3 .*shape \(2303,\), expected 2,304"),
    "none": ({"pixels": None}, "row 3 .*no pixels"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_row_of_a_table_is_named(tmp_path, faces, small, name):
    columns = {"emotion": faces.labels.tolist(), "pixels": texts(faces), "Usage": faces.usage.tolist()}
    change, words = BAD[name]
    for column, value in change.items():
        columns[column][3] = value
    with pytest.raises(FerReproError, match=words) as caught:
        small(write(tmp_path / "fer2013.parquet", columns))
    assert str(caught.value).isprintable()


def test_a_table_of_something_else_is_refused(tmp_path, faces, small):
    with pytest.raises(FerReproError, match="x.parquet holds a, b: expected one of images"):
        small(write(tmp_path / "x.parquet", {"a": [1], "b": [2]}))
    twice = {"emotion": [0], "label": [1], "pixels": ["1"], "Usage": ["Training"]}
    with pytest.raises(FerReproError, match="as the labels"):
        small(write(tmp_path / "x.parquet", twice))
    many = {"emotion": [0] * 61, "pixels": ["1"] * 61, "Usage": ["Training"] * 61}
    with pytest.raises(FerReproError, match="61 rows"):
        small(write(tmp_path / "x.parquet", many))


def test_without_pyarrow_it_says_what_to_install(tmp_path, faces, small, monkeypatch):
    path = write(tmp_path / "x.parquet", {"a": [1]})
    original = builtins.__import__

    def without(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(FerReproError, match=r"needs pyarrow: pip install 'fer-repro\[parquet\]', or take fer2013.csv"):
        small(path)


# ---- NumPy -----------------------------------------------------------------------------------------------------------


def arrays(faces, **changes):
    return {"images": faces.images, "labels": faces.labels, "usage": faces.usage} | changes


@pytest.mark.parametrize(
    "change",
    [
        lambda faces: {},
        lambda faces: {"images": faces.images[..., None].astype(np.int64)},
        lambda faces: {"images": faces.images[:, None].astype(np.float32)},
        lambda faces: {"images": np.asfortranarray(faces.images.reshape(-1, 2304))},
        lambda faces: {"labels": np.array(LABELS)[faces.labels], "usage": faces.usage.astype("S")},
        lambda faces: {"labels": faces.labels[:, None].astype(np.float64).astype(np.uint8)},
    ],
)
def test_arrays_with_their_usages(tmp_path, faces, small, change):
    np.savez_compressed(tmp_path / "fer2013.npz", **arrays(faces, **change(faces)))
    same(small(tmp_path / "fer2013.npz"), faces, "NumPy arrays")
    (tmp_path / "folder").mkdir()
    (tmp_path / "fer2013.npz").rename(tmp_path / "folder" / "fer2013.npz")
    same(small(tmp_path / "folder"), faces, "NumPy arrays")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: {"usage": None}, "pickled Python objects, which are never unpacked"),
        (lambda f: {"labels": f.labels.astype(object)}, "pickled Python objects"),
        (lambda f: {"usage": f.codes()}, "Usage is '0', expected one of Training"),
        (lambda f: {"images": f.images / 255}, "no whole numbers from 0 to 255"),
        (lambda f: {"images": f.images / 255 > 0.5}, "pixels of the kind bool"),
        (lambda f: {"images": f.images.astype(int) - 1}, "no whole numbers from 0 to 255"),
        (lambda f: {"images": np.full(f.images.shape, np.nan)}, "no whole numbers"),
        (lambda f: {"images": np.repeat(f.images[..., None], 3, -1)}, r"shape \(48, 48, 3\)"),
        (lambda f: {"images": f.images[:-1]}, "arrays of different lengths"),
        (lambda f: {"images": np.uint8(3)}, "arrays of different lengths"),
        (lambda f: {"labels": np.eye(7)[f.labels]}, r"labels of the shape \(60, 7\)"),
        (lambda f: {"labels": f.labels + 1}, "the label is '7'|wrong counts"),
        (lambda f: {"y": f.labels}, "as the labels"),
        (lambda f: {k: np.concatenate([v, v]) for k, v in arrays(f).items()}, "120 images, expected at most 60"),
    ],
)
def test_other_arrays_are_refused(tmp_path, faces, small, change, words):
    np.savez(tmp_path / "fer2013.npz", **arrays(faces, **change(faces)))
    with pytest.raises(FerReproError, match=words) as caught:
        small(tmp_path / "fer2013.npz")
    assert str(caught.value).isprintable()


def test_arrays_without_usages_are_refused_with_what_to_do(tmp_path, faces, small):
    np.savez(tmp_path / "fer2013.npz", images=faces.images, labels=faces.labels)
    with pytest.raises(FerReproError, match="and no usages, .*add an array 'usage' with the words Training"):
        small(tmp_path / "fer2013.npz")
    np.save(tmp_path / "images.npy", faces.images)
    with pytest.raises(FerReproError, match=r"a single NumPy array; .*np.savez\('fer2013.npz'"):
        small(tmp_path / "images.npy")
    (tmp_path / "x").mkdir()
    for what, array in arrays(faces).items():
        np.save(tmp_path / "x" / f"{what}.npy", array)
    with pytest.raises(FerReproError, match=r"np.savez\('fer2013.npz'"):
        small(tmp_path / "x")


# ---- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["parquet", "npz", "pictures"])
def test_damaged_files_are_refused_or_still_hold_the_counts(tmp_path, faces, small, form):
    """A table has no checksum of its pixels; what is read has the official counts all the same."""
    columns = {"emotion": faces.labels, "Usage": faces.usage.tolist()}
    if form == "npz":
        path = tmp_path / "a.npz"
        np.savez_compressed(path, **arrays(faces))
    else:
        images = texts(faces) if form == "parquet" else [{"bytes": jpeg(face), "path": None} for face in faces.images]
        path = write(tmp_path / "a.parquet", columns | {"pixels": images})
    refused = 0
    for content in damaged_bytes(path.read_bytes(), seed=8, count=160):
        path.write_bytes(content)
        try:
            data = small(path)
        except FerReproError as error:
            assert str(error).isprintable() and len(str(error)) < 1200
            refused += 1
        else:
            np.testing.assert_array_equal(data.counts().to_numpy(), faces.counts().to_numpy())
    assert refused > 60
