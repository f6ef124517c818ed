"""A copy that was cleaned on purpose: refused with the way named, loaded where asked for, never official data."""

from __future__ import annotations

import numpy as np
import pytest
from _csv_writer import write_csv
from data_copies import SMALL, jpeg, make_folder, make_tar, make_zip

from fer_repro.data import USAGES, describe, load
from fer_repro.data.load import _load
from fer_repro.data.official import MODIFIED, differences, in_words
from fer_repro.data.protocol import OFFICIAL, require_all_usages
from fer_repro.errors import FerReproError


@pytest.fixture
def accept(tmp_path):
    return lambda root, cache=None: _load(root, cache or tmp_path / "cache", SMALL, accept_modified=True)


@pytest.fixture
def cleaned(faces):
    """The faces without all that are angry in Training and one that is sad in PublicTest."""
    sad = np.flatnonzero((faces.labels == 4) & (faces.usage == "PublicTest"))[0]
    keep = ~((faces.labels == 0) & (faces.usage == "Training"))
    keep[sad] = False
    return faces.subset(keep)


WORDS = "Training: 5 angry missing; PublicTest: 1 sad missing; PrivateTest: complete"


def copies(cleaned, pictures, tmp_path):
    """The cleaned set in every form that is read."""
    table = tmp_path / "csv" / "fer2013.csv"
    table.parent.mkdir()
    write_csv(cleaned, table)
    other = tmp_path / "icml" / "icml_face_data.csv"
    other.parent.mkdir()
    write_csv(cleaned, other, "icml_face_data.csv")
    angry = {name: data for name, data in pictures.items() if not name.startswith("train/angry/")}
    del angry[next(name for name in angry if name.startswith("test/sad/PublicTest"))]
    arrays = tmp_path / "copy.npz"
    np.savez(arrays, images=cleaned.images, labels=cleaned.labels, usage=cleaned.usage)
    return {
        "csv": table,
        "icml": other,
        "folder": make_folder(tmp_path / "folder", angry),
        "zip": make_zip(tmp_path / "copy.zip", angry),
        "tar": make_tar(tmp_path / "copy.tar.gz", angry),
        "npz": arrays,
    }


@pytest.mark.parametrize("form", ["csv", "icml", "folder", "zip", "tar", "npz"])
def test_every_form_is_refused_with_the_way_and_loaded_where_that_is_taken(
    form, cleaned, pictures, tmp_path, small, accept
):
    place = copies(cleaned, pictures, tmp_path)[form]
    with pytest.raises(FerReproError, match="wrong counts: Training angry 0 instead of 5.*--accept-modified"):
        small(place)
    data = accept(place)
    assert data.name == MODIFIED and data.modified and data.difference == WORDS
    assert len(data) == len(cleaned) and data.counts().loc["Training", "angry"] == 0
    again = accept(place)
    assert again.facts["from_cache"] and again.digest == data.digest and again.difference == WORDS
    with pytest.raises(FerReproError, match="wrong counts"):  # the cache holds it now, and it is no official copy
        small(place)


def test_a_complete_copy_is_the_official_data_whatever_was_accepted(small_csv, small, accept):
    data = accept(small_csv)
    assert data.name == "fer2013" and not data.modified and data.difference == "" and data.differences == ()
    assert describe(data)["modified"] is None and small(small_csv).digest == data.digest


def test_surplus_and_moved_images_are_named(faces, pictures, tmp_path, small, accept):
    extra = {f"train/happy/Training_{9000 + i}.jpg": jpeg(faces.images[i]) for i in range(2)}
    moved = next(name for name in pictures if name.startswith("test/fear/PrivateTest"))
    files = {name: data for name, data in pictures.items() if name != moved} | extra
    files[moved.replace("fear", "neutral")] = pictures[moved]
    place = make_folder(tmp_path / "folder", files)
    with pytest.raises(FerReproError, match="more pictures than the 60 that are accepted .*--accept-modified"):
        small(place)
    assert accept(place).difference == (
        "Training: 2 happy surplus; PublicTest: complete; PrivateTest: 1 fear missing, 1 neutral surplus"
    )


def test_there_is_a_limit_to_the_surplus(small_csv, accept):
    lines = small_csv.read_bytes().splitlines(keepends=True)
    small_csv.write_bytes(b"".join([*lines, *lines[1:], lines[-1]]))
    with pytest.raises(FerReproError, match="more rows than the 120 that are accepted"):
        accept(small_csv)


def test_the_differences_are_those_of_the_counts():
    found = SMALL.copy()
    found[1, 3] += 2
    found[2, 6] -= 1
    one, other = differences(found, SMALL)
    assert (one.usage, one.label, one.found, one.official) == ("PublicTest", "happy", 5, 3)
    assert str(other) == "1 neutral missing" and differences(SMALL, SMALL) == ()
    assert in_words([one, other]) == "Training: complete; PublicTest: 2 happy surplus; PrivateTest: 1 neutral missing"


def test_the_report_names_every_difference(cleaned, pictures, tmp_path, accept):
    report = describe(accept(copies(cleaned, pictures, tmp_path)["csv"]))
    assert report["name"] == MODIFIED and report["known_copy"] == "modified copy" and report["digest_verified"]
    assert report["modified"]["words"] == WORDS
    assert report["modified"]["differences"] == [
        {"usage": "Training", "label": "angry", "found": 0, "official": 5},
        {"usage": "PublicTest", "label": "sad", "found": 1, "official": 2},
    ]


def test_it_says_what_it_is_on_a_page_and_in_the_name_of_a_folder(cleaned, pictures, tmp_path, small_csv, accept):
    data = accept(copies(cleaned, pictures, tmp_path)["csv"])
    assert f"a modified copy of FER2013: {WORDS}" in data._repr_html_()
    assert data.folder_name == f"fer2013-modified-{data.digest[:12]}" and accept(small_csv).folder_name == "fer2013"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda lines: [*lines[:-1], lines[-1][: len(lines[-1]) // 2]], "seems cut here"),
        (lambda lines: [lines[0], lines[1].replace(b" ", b" 999 ", 1), *lines[2:]], "expected a whole number"),
        (lambda lines: lines[:1], "no image in it"),
    ],
)
def test_what_is_damaged_stays_refused(small_csv, accept, spoil, words):
    small_csv.write_bytes(b"".join(spoil(small_csv.read_bytes().splitlines(keepends=True))))
    with pytest.raises(FerReproError, match=words):
        accept(small_csv)


def test_a_cut_picture_and_a_second_copy_stay_refused(pictures, tmp_path, accept):
    name = next(iter(pictures))
    cut = make_folder(tmp_path / "cut", pictures | {name: pictures[name][:-40]})
    with pytest.raises(FerReproError, match="the JPEG is cut"):
        accept(cut)
    double = make_folder(tmp_path / "double", pictures | {name.replace(".jpg", " (1).jpg"): pictures[name]})
    with pytest.raises(FerReproError, match="looks like a second copy"):
        accept(double)


def test_a_class_may_be_empty_and_a_usage_may_not(cleaned, faces, tmp_path, pictures, accept):
    data = accept(copies(cleaned, pictures, tmp_path)["csv"])
    splits = OFFICIAL.split(data)
    assert len(splits.train) == SMALL[0].sum() - 5 and 0 not in splits.train.labels
    require_all_usages(data)
    for usage, use in zip(USAGES, ("train on", "select by", "score"), strict=True):
        path = tmp_path / usage / "fer2013.csv"
        path.parent.mkdir()
        write_csv(faces.subset(faces.usage != usage), path)
        with pytest.raises(FerReproError, match=f"has no image of {usage}, so there is nothing to {use}"):
            require_all_usages(accept(path))


def test_synthetic_faces_have_no_copy():
    with pytest.raises(FerReproError, match="accept_modified was given for the synthetic faces"):
        load("synthetic", accept_modified=True)
    assert not load("synthetic", size=(14, 7, 7)).modified
