"""What people have on disk: every form that is read gives the same arrays, and any other is one sentence."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_copies import jpeg, make_folder, make_tar, make_zip
from PIL import Image

from fer_repro.data import LABELS, describe, kinds, official, source
from fer_repro.errors import FerReproError


@pytest.fixture(autouse=True)
def no_project_copy(monkeypatch, tmp_path):
    """The project's own data/fer2013/ is out of the way as well."""
    monkeypatch.setattr(source, "__file__", str(tmp_path / "elsewhere" / "fer_repro" / "data" / "source.py"))


def sentence(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message and message.isprintable() and len(message) < 1500
    return message


def refused(load, path: Path) -> str:
    with pytest.raises(FerReproError) as caught:
        load(path)
    return sentence(caught)


def tar_bytes(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zip_bytes(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def parts(text: bytes) -> dict[str, bytes]:
    """train.csv and test.csv with all columns, out of a fer2013.csv."""
    header, *rows = text.splitlines(keepends=True)
    train = [row for row in rows if row.rstrip().endswith(b"Training")]
    return {"train.csv": header + b"".join(train), "test.csv": header + b"".join(r for r in rows if r not in train)}


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("train.csv", "test.csv"), ("Train.CSV", "Test.CSV"), ("fer_train", "fer_test.txt")])
def test_labelled_parts_are_read_together(tmp_path, small_csv, faces, small, names):
    """Decided by the header: train.csv and test.csv that hold emotion and Usage are FER2013."""
    files = dict(zip(names, parts(small_csv.read_bytes()).values(), strict=True))
    folder = make_folder(tmp_path / "pair", files)
    for root in (folder, *(folder / name for name in names)):
        data = small(root)
        assert data.digest == faces.digest and list(data.ids) == [f"row-{i:05d}" for i in range(60)]
    assert describe(data)["known_copy"] == "unknown copy"
    for pack in (make_zip(tmp_path / "a.zip", files), make_tar(tmp_path / "a.tar.gz", dict(reversed(files.items())))):
        assert small(pack).digest == faces.digest
    first = folder / names[0]
    first.write_bytes(first.read_bytes().replace(b" ", b"  ", 1))
    assert not small(folder).facts["from_cache"], "a change in one part is noticed"


def test_three_parts_are_read_together(tmp_path, small_csv, faces, small):
    header, *rows = small_csv.read_bytes().splitlines(keepends=True)
    usages = {
        u: [r for r in rows if r.rstrip().endswith(b"," + u)] for u in (b"Training", b"PublicTest", b"PrivateTest")
    }
    files = {f"{u.decode().lower()}.csv": header + b"".join(r) for u, r in usages.items()}
    assert small(make_folder(tmp_path / "three", files)).digest == faces.digest


def test_parts_that_hold_the_same_images_are_refused(tmp_path, small_csv, small):
    text = small_csv.read_bytes()
    message = refused(small, make_folder(tmp_path / "a", {"train.csv": text, "test.csv": text}))
    assert "'test.csv' and 'train.csv' both hold images of Training" in message
    message = refused(small, make_folder(tmp_path / "b", {"one.csv": text, "one (1).csv": text}))
    assert "holds several tables with all columns (one (1).csv, one.csv)" in message
    message = refused(small, make_zip(tmp_path / "c.zip", {"one.csv": text, "one (1).csv": text}))
    assert "holds several tables with all columns (one (1).csv, one.csv)" in message


def test_one_part_alone_is_a_wrong_count(tmp_path, small_csv, small):
    folder = make_folder(tmp_path / "half", {"train.csv": parts(small_csv.read_bytes())["train.csv"]})
    assert "train.csv: 33 images where FER2013 has 60" in refused(small, folder)


@pytest.mark.parametrize(
    "name", ["fer2013", "FER2013.CSV", "fer2013 (1).csv", "fer2013.csv.txt", "fer2013.zip", "data.bin"]
)
def test_a_csv_under_any_name(tmp_path, small_csv, faces, small, name):
    folder = make_folder(tmp_path / "folder", {name: small_csv.read_bytes(), "README.md": b"# hello"})
    for root in (folder, folder / name):
        assert small(root).digest == faces.digest and describe(small(root))["source"] == name


def test_a_browsers_copy_beside_the_file_is_named_and_not_read(tmp_path, small_csv, faces, pictures, small):
    text = small_csv.read_bytes()
    files = {"fer2013.csv": text, "fer2013 (1).csv": text[:-9], "archive.zip": zip_bytes(pictures)} | pictures
    report = describe(small(make_folder(tmp_path / "folder", files)))
    assert report["digest"] == faces.digest and report["source"] == "fer2013.csv"
    assert report["not_read"] == ["fer2013 (1).csv", "the folders of pictures", "archive.zip"]
    files = {"archive.zip": zip_bytes(pictures), "archive (1).zip": zip_bytes(pictures)}
    message = refused(small, make_folder(tmp_path / "twice", files))
    assert "holds several archives (archive (1).zip, archive.zip); point --root" in message


COMPRESSED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_compressed_csv(tmp_path, small_csv, faces, small, suffix, monkeypatch):
    text = small_csv.read_bytes()
    path = tmp_path / f"fer2013.csv{suffix}"
    path.write_bytes(COMPRESSED[suffix](text))
    data = small(path)
    assert data.digest == faces.digest and data.source == f"fer2013.csv in fer2013.csv{suffix}"
    monkeypatch.setitem(official.KNOWN_CSV, __import__("hashlib").md5(text).hexdigest(), "the one")
    assert describe(data)["known_copy"] == "the one"
    path.write_bytes(COMPRESSED[suffix](text)[:-5])
    assert f"fer2013.csv{suffix}: the archive is damaged or cut" in refused(small, path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("comma", [",", ";", "\t", ", "])
def test_the_header_is_known_in_any_encoding(encoding, comma):
    head = f'"emotion"{comma}pixels{comma}Usage\r\n0{comma}1 2 3'.encode(encoding)
    assert kinds.sniff(head) is kinds.CSV
    assert kinds.sniff("emotion,pixels\n".encode(encoding)) is kinds.INCOMPLETE


OTHERWISE = {
    "semicolons": lambda text: text.replace(b",", b";"),
    "tabs": lambda text: text.replace(b",", b"\t"),
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "UTF-16 without a mark": lambda text: text.decode().encode("utf-16-le"),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_csv_that_was_saved_otherwise_says_how_to_save_it(tmp_path, small_csv, small, name):
    small_csv.write_bytes(OTHERWISE[name](small_csv.read_bytes()))
    for root in (small_csv, make_folder(tmp_path / "folder", {"faces": small_csv.read_bytes()})):
        assert "not in UTF-8 with commas between them; save it so" in refused(small, root)
    small_csv.write_bytes(b"\n".join(parts(b"emotion,pixels,Usage\n").values()).replace(b"\n", b"\r"))
    assert "no header line" in refused(small, small_csv)


# --- folders of pictures ----------------------------------------------------------------------------------------------


def renamed(pictures: dict[str, bytes], change) -> dict[str, bytes]:
    files = {change(*name.split("/")): data for name, data in pictures.items()}
    assert len(files) == len(pictures)
    return files


SPELLINGS = {
    "capitals": lambda split, label, name: f"{split.title()}/{label.title()}/{name}",
    "shouting": lambda split, label, name: f"{split}/{label}/{name}".upper(),
    "splits as folders": lambda split, label, name: f"{name.split('_')[0]}/{label}/{name}",
    "splits as folders, spelt otherwise": lambda split, label, name: (
        f"{name.split('_')[0].lower().replace('test', '_test')}/{label}/{name}"
    ),
    "test sets below test": lambda split, label, name: "/".join(
        [split, *([name.split("_")[0]] if split == "test" else []), label, name]
    ),
    "jpeg": lambda split, label, name: f"{split}/{label}/{name.replace('.jpg', '.JPEG')}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_other_spellings_of_the_folders(tmp_path, pictures, small, spelling):
    plain = small(make_zip(tmp_path / "plain.zip", pictures))
    files = renamed(pictures, SPELLINGS[spelling])
    copies = [make_zip(tmp_path / "a.zip", files), make_tar(tmp_path / "a.tar.xz", files)]
    copies.append(make_folder(tmp_path / "folder", files))
    for path in copies:
        data = small(path)
        assert data.digest == plain.digest and list(data.ids) == list(plain.ids)


def test_any_names_in_folders_of_the_splits(tmp_path, pictures, small):
    """Training/PublicTest/PrivateTest say all: the names of the files may be any."""
    plain = small(make_zip(tmp_path / "plain.zip", pictures))
    files = renamed(pictures, lambda split, label, name: f"{name.split('_')[0]}/{label}/face{name.split('_')[1]}")
    data = small(make_folder(tmp_path / "folder", files))
    assert data.digest == plain.digest and len(set(data.ids)) == 60
    assert {i.split("/")[1].split("_")[0] for i in data.ids} == {"Training", "PublicTest", "PrivateTest"}


@pytest.mark.parametrize("form", ["PNG", "BMP"])
def test_a_lossless_copy_of_the_pictures_is_the_same_copy(tmp_path, pictures, small, form):
    plain = small(make_zip(tmp_path / "plain.zip", pictures))

    def converted(data: bytes) -> bytes:
        out = io.BytesIO()
        Image.open(io.BytesIO(data)).save(out, form)
        return out.getvalue()

    files = {name.replace(".jpg", f".{form.lower()}"): converted(data) for name, data in pictures.items()}
    for path in (make_folder(tmp_path / "folder", files), make_zip(tmp_path / "a.zip", files)):
        data = small(path)
        assert data.digest == plain.digest and list(data.ids) == list(plain.ids)
    name = next(iter(files))
    changed = bytearray(files[name])
    if form == "PNG":
        changed[-30] ^= 1
        assert f"'{name}': the PNG cannot be decoded" in refused(
            small, make_folder(tmp_path / "b", {**files, name: changed})
        )
    cut = files[name][:-40]
    assert f"'{name}': the {form} cannot be decoded" in refused(
        small, make_folder(tmp_path / "c", {**files, name: cut})
    )


OTHER = {
    "webp": ("WEBP", "a WebP picture, expected a 48x48 grey JPEG, PNG or BMP"),
    "gif": ("GIF", "a GIF picture, expected"),
    "tiff": ("TIFF", "a TIFF picture, expected"),
    "pgm": ("PPM", "it is a PNM picture, expected"),
}


@pytest.mark.parametrize("suffix", OTHER)
def test_other_formats_are_named(tmp_path, pictures, small, suffix):
    out = io.BytesIO()
    Image.new("L", (48, 48)).save(out, OTHER[suffix][0])
    files = {name.replace(".jpg", f".{suffix}"): out.getvalue() for name in pictures}
    for path in (make_folder(tmp_path / "folder", files), make_zip(tmp_path / "a.zip", files)):
        assert OTHER[suffix][1] in refused(small, path)


SECOND = [
    "Training_1 (1).jpg",
    "Training_1(2).JPG",
    "Training_1 - Copy.jpg",
    "Copy of Training_1.jpg",
    "Training_1 copy 2.png",
]


@pytest.mark.parametrize("second", SECOND)
def test_a_second_copy_of_a_picture_is_never_another_image(tmp_path, pictures, small, second):
    """Also where it would make up the count, because one picture is missing."""
    missing = next(name for name in pictures if name.startswith("train/happy"))
    files = {k: v for k, v in pictures.items() if k != missing} | {f"train/happy/{second}": pictures[missing]}
    for path in (make_folder(tmp_path / "folder", files), make_zip(tmp_path / "a.zip", files)):
        message = refused(small, path)
        assert f"'train/happy/{second}' looks like a second copy of 'Training_1'" in message and "delete it" in message


def test_a_second_copy_of_a_picture_with_another_name(tmp_path, pictures, small):
    other = {}
    for i, (name, data) in enumerate(pictures.items()):
        other[f"{name.rsplit('/', 1)[0]}/im{i}.jpg" if name.startswith("train/") else name] = data
    names = [name for name in other if name.startswith("train/happy")]
    other[names[0].replace(".jpg", " (1).jpg")] = other.pop(names[1])
    message = refused(small, make_folder(tmp_path / "folder", other))
    assert "(1).jpg' is a second copy of" in message and names[0] in message
    # Windows numbers the files that it renames together: no name is another one's copy.
    numbered = {}
    for i, (name, data) in enumerate(pictures.items()):
        numbered[f"{name.rsplit('/', 1)[0]}/face ({i}).jpg" if name.startswith("train/") else name] = data
    assert len(small(make_folder(tmp_path / "numbered", numbered))) == 60


@pytest.mark.parametrize("coded", ["0", "anger", "Happiness", "06_neutral"])
def test_classes_are_not_guessed(tmp_path, pictures, small, coded):
    files = renamed(pictures, lambda split, label, name: f"{split}/{coded if label == 'angry' else label}/{name}")
    for path in (make_folder(tmp_path / "folder", files), make_zip(tmp_path / "a.zip", files)):
        message = refused(small, path)
        assert f"in the class folder '{coded}', expected one of {', '.join(LABELS)}" in message


def test_a_split_that_is_no_split_is_named(tmp_path, pictures, small):
    files = renamed(pictures, lambda split, label, name: f"images/{split.replace('test', 'validation')}/{label}/{name}")
    for path in (make_folder(tmp_path / "folder", files), make_zip(tmp_path / "a.zip", files)):
        assert "lies in the folder 'validation', expected train and test, or Training, PublicTest" in refused(
            small, path
        )


# --- archives ---------------------------------------------------------------------------------------------------------

LITTER = {
    "__MACOSX/train/angry/._Training_1.jpg": b"x",
    "__MACOSX/._fer2013.csv": b"\0\5\26\7",
    "._fer2013.csv": b"\0\5\26\7emotion,pixels,Usage",
    ".DS_Store": b"x",
    "train/angry/.Training_9.jpg": b"x",
    "train/angry/Thumbs.db": b"x",
    "train/desktop.ini": b"x",
}
PACKS = {
    "plain.tar": tar_bytes,
    "a.tar.gz": lambda f: gzip.compress(tar_bytes(f)),
    "a.tgz": lambda f: gzip.compress(tar_bytes(f)),
    "a.tar.bz2": lambda f: bz2.compress(tar_bytes(f)),
    "a.tbz2": lambda f: bz2.compress(tar_bytes(f)),
    "a.txz": lambda f: lzma.compress(tar_bytes(f)),
    "stored.ZIP": lambda f: zip_bytes(f, zipfile.ZIP_STORED),
    "bzip2.zip": lambda f: zip_bytes(f, zipfile.ZIP_BZIP2),
    "backslash.zip": lambda f: zip_bytes({n.replace("/", "\\"): d for n, d in f.items()}),
    "tar in a.zip": lambda f: zip_bytes({"fer2013.tar": tar_bytes(f)}),
    "tar.gz in a.zip": lambda f: zip_bytes({"x/fer2013.tar.gz": gzip.compress(tar_bytes(f)), "readme.txt": b"x"}),
    "zip in a.zip": lambda f: zip_bytes({"fer2013.zip": zip_bytes(f)}),
    "zip in tar.tar.gz": lambda f: gzip.compress(tar_bytes({"fer2013.zip": zip_bytes(f)})),
    "tar in zip in a.zip": lambda f: zip_bytes({"archive.zip": zip_bytes({"fer2013.tar": tar_bytes(f)})}),
    "a tar named.zip": tar_bytes,
    "a zip named.tar.gz": zip_bytes,
    "no suffix": lambda f: gzip.compress(tar_bytes(f)),
    "archive (1).zip": zip_bytes,
}


@pytest.mark.parametrize("pack", PACKS)
def test_every_archive_gives_the_same_data(tmp_path, pictures, faces, small_csv, small, pack):
    plain = small(make_zip(tmp_path / "plain.zip", pictures))
    box = tmp_path / "box"
    box.mkdir()
    before = set(tmp_path.rglob("*"))
    for files, digest in (
        (pictures | LITTER, plain.digest),
        ({f"./archive/{name}": data for name, data in pictures.items()}, plain.digest),
        ({"fer2013/fer2013/fer2013.csv": small_csv.read_bytes()} | LITTER, faces.digest),
    ):
        (box / pack).write_bytes(PACKS[pack](files))
        assert small(box / pack).digest == digest
        assert small(box).digest == digest, "in a folder, too"
    new = {p.relative_to(tmp_path).parts[0] for p in set(tmp_path.rglob("*")) - before}
    assert new == {"box", "cache"}, "nothing is unpacked"


def test_splits_in_archives_of_their_own(tmp_path, pictures, small):
    """train.zip and test.zip in one archive, each with class folders: an archive stands for a folder of its name."""
    plain = small(make_zip(tmp_path / "plain.zip", pictures))
    inner = {
        s: zip_bytes({n[len(s) + 1 :]: d for n, d in pictures.items() if n.startswith(s)}) for s in ("train", "test")
    }
    path = make_zip(tmp_path / "a.zip", {f"{split}.zip": data for split, data in inner.items()})
    assert small(path).digest == plain.digest


def test_the_contests_own_archive(tmp_path, small_csv, faces, small):
    """icml_face_data.csv beside a fer2013.tar.gz: the original CSV wins, wherever it lies."""
    text = small_csv.read_bytes()
    inner = gzip.compress(tar_bytes({"fer2013/fer2013.csv": text, "fer2013/README": b"x"}))
    outer = {"example_submission.csv": b"a,b\n", "train.csv": b"emotion,pixels\n", "test.csv": b"pixels\n"}
    data = small(make_zip(tmp_path / "challenges.zip", outer | {"fer2013.tar.gz": inner}))
    assert data.digest == faces.digest and data.facts["layout"] == "fer2013.csv"


def test_archives_in_archives_end(tmp_path, pictures, small):
    data = zip_bytes(pictures)
    for level in range(8):
        data = zip_bytes({f"{level}.zip": data})
    (tmp_path / "a.zip").write_bytes(data)
    assert "archives, each inside the next" in refused(small, tmp_path / "a.zip")


# --- what is not there ------------------------------------------------------------------------------------------------

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 301072766\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Login</title></head></html>"
REFUSED = {
    "a pointer": ("fer2013.csv", POINTER, "'fer2013.csv' is a Git LFS pointer without the content; run `git lfs pull`"),
    "a pointer for a zip": ("archive.zip", POINTER, "'archive.zip' is a Git LFS pointer"),
    "a page": ("fer2013.zip", PAGE, "'fer2013.zip' is a web page; a login or an error was saved in its place"),
    "a page for a csv": ("fer2013.csv", b"<html>", "'fer2013.csv' is a web page"),
    "an answer": ("fer2013.zip", b'{"code":403,"message":"Permission denied"}', "'fer2013.zip' is a JSON text"),
    "7z": ("fer2013.7z", b"7z\xbc\xaf\x27\x1c\0\4", "'fer2013.7z' is a 7z archive; unpack it"),
    "rar": ("fer2013.rar", b"Rar!\x1a\x07\x01\0", "is a RAR archive; unpack it"),
    "zstd": ("fer2013.tar.zst", b"\x28\xb5\x2f\xfd\x04", "is a Zstandard file; unpack it"),
    "hdf5": ("fer2013.h5", b"\x89HDF\r\n\x1a\n", "is an HDF5 file; save it as a CSV"),
    "empty zip": ("fer2013.zip", b"", "'fer2013.zip' is no archive, or its beginning is damaged"),
    "votes": ("fer2013new.csv", b"Usage,Image name,neutral\n", "expected the columns emotion, pixels, Usage"),
    "no header": ("fer2013.csv", b"0,1 2 3,Training\n", "the columns emotion, pixels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_stands_in_place_of_the_data_is_named(tmp_path, small, name):
    file, content, words = REFUSED[name]
    folder = make_folder(tmp_path / "folder", {file: content})
    message = refused(small, folder / file)
    assert words in message
    message = refused(small, folder)
    assert f"'{file}'" in message
    if name != "votes":
        assert words.replace("the columns emotion, pixels", "columns emotion, pixels") in message
    assert file in refused(small, make_zip(tmp_path / "a.zip", {file: content}))


def test_a_missing_place_says_what_is_there_and_what_is_accepted(tmp_path, small):
    folder = make_folder(tmp_path / "folder", {f"file{i}.txt": b"x" for i in range(9)} | {"sub/notes.md": b"x"})
    message = refused(small, folder)
    assert "which holds none, only file0.txt, file1.txt" in message and "and 4 more" in message
    (tmp_path / "nothing").mkdir()
    nothing = refused(small, tmp_path / "nothing")
    assert "which holds none: the folder is empty" in nothing
    gone = refused(small, tmp_path / "gone")
    assert "which does not exist" in gone
    cats = refused(small, make_zip(tmp_path / "cats.zip", {"cats/1.jpg": b"x", "readme.txt": b"x"}))
    assert "it holds cats/1.jpg, readme.txt" in cats
    assert "it holds no file" in refused(small, make_zip(tmp_path / "none.zip", {"folder/": b""}))
    for said in (message, nothing, gone, cats):
        for words in (
            "emotion, pixels and Usage",
            "train/<class>/",
            "PublicTest",
            *LABELS,
            ".zip, .tar, .gz, .bz2, .xz",
        ):
            assert words in said


def test_folders_in_folders(tmp_path, pictures, small_csv, faces, small):
    text = small_csv.read_bytes()
    for at in ("fer2013/fer2013", "a/b/c", "archive (1)/data"):
        assert small(make_folder(tmp_path / at.replace("/", "-"), {f"{at}/fer2013.csv": text})).digest == faces.digest
    plain = small(make_zip(tmp_path / "plain.zip", pictures))
    deep = make_folder(
        tmp_path / "deep", {f"archive/{n}": d for n, d in pictures.items()} | {"cats.zip": zip_bytes({})}
    )
    assert small(deep).digest == plain.digest
    assert small(make_folder(tmp_path / "packed", {"a/b/archive.zip": zip_bytes(pictures)})).digest == plain.digest
    two = make_folder(tmp_path / "two", {"a/fer2013.csv": text, "b/fer2013.csv": text})
    assert "holds several copies (a/fer2013.csv, b/fer2013.csv)" in refused(small, two)
    again = make_folder(tmp_path / "again", {"fer2013/fer2013.csv": text, "fer2013 (1)/fer2013.csv": text[:-9]})
    assert describe(small(again))["not_read"] == ["fer2013 (1)/fer2013.csv"]
    split = {"train.zip": zip_bytes({}), "test.zip": zip_bytes({})}
    assert "unpack them into one folder" in refused(small, make_folder(tmp_path / "split", split))


def test_links(tmp_path, pictures, small_csv, faces, small):
    real = make_folder(tmp_path / "real", pictures | {"more/fer2013.csv": small_csv.read_bytes()})
    box = tmp_path / "box"
    box.mkdir()
    (box / "loop").symlink_to(box)
    (box / "self").symlink_to("self")
    (box / "gone.csv").symlink_to("nowhere")
    assert "holds none, only gone.csv, loop/, self" in refused(small, box)
    (box / "faces.csv").symlink_to(real / "more" / "fer2013.csv")
    assert small(box).digest == faces.digest
    (tmp_path / "link").symlink_to(real)
    assert small(tmp_path / "link").digest == small(real).digest
    assert "does not exist" in refused(small, box / "self")


def test_pipes_and_odd_names(tmp_path, small):
    os.mkfifo(tmp_path / "pipe")
    assert "is neither a file nor a folder" in refused(small, tmp_path / "pipe")
    box = make_folder(tmp_path / "box", {"a\nb\x1b[31m.txt": b"x"})
    os.mkfifo(box / "fer2013.csv")
    Path(os.fsdecode(os.fsencode(box) + b"/\xff\xfe.csv")).write_bytes(b"x")
    assert "holds none, only a?b?[31m.txt, fer2013.csv" in refused(small, box)
    assert "cannot be read" in refused(small, tmp_path / ("x" * 300))
    assert "does not exist" in refused(small, Path("a\0b"))
    odd = os.fsdecode(b"train/angry/\xff.jpg")
    assert "is damaged" in refused(small, make_folder(tmp_path / "odd", {odd: jpeg(np.zeros((48, 48), np.uint8))}))


def test_a_file_or_folder_that_may_not_be_read(tmp_path, small_csv, pictures, small, monkeypatch):
    """As another user sees it: root may read everything, so the refusal is made here."""
    real = (Path.open, os.scandir)

    def refuse(path):
        if "secret" in str(path):
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", lambda self, *a, **k: (refuse(self), real[0](self, *a, **k))[1])
    monkeypatch.setattr(os, "scandir", lambda path=".": (refuse(path), real[1](path))[1])
    box = make_folder(tmp_path / "box", {"notes.txt": b"x"})
    (box / "secret.csv").touch()
    for root in (box, box / "secret.csv"):
        assert "secret.csv' cannot be read (Permission denied)" in refused(small, root)
    (box / "fer2013.csv").symlink_to(small_csv)
    assert len(small(box)) == 60, "another file in the folder does no harm"
    (tmp_path / "secret folder").mkdir()
    assert "secret folder' cannot be read (Permission denied)" in refused(small, tmp_path / "secret folder")
