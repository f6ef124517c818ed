"""The demonstration of leakage: the released operations, both orders of work, and that it never passes for a result."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from listening import listening
from PIL import Image

from fer_repro import data, leaderboard, results
from fer_repro.campaign import status
from fer_repro.errors import FerReproError
from fer_repro.papers.resemotenet import figures, leakage
from fer_repro.papers.resemotenet.leakage import (
    ARMS,
    DEGREES,
    LABEL,
    OPERATIONS,
    Leakage,
    augmented,
    clean,
    cut,
    leaky,
    originals,
    oversampled,
)
from fer_repro.training.run import Interrupted

LEAKY, CLEAN = ARMS


@pytest.fixture(scope="module")
def faces():
    return data.load("synthetic", size=(140, 70, 70))


@pytest.fixture(scope="module")
def found():
    return leakage.demonstrate("smoke", device="cpu")


def test_operations_are_pillows(faces):
    images = faces.images[:30]
    still = np.zeros(30, int)
    for angle in (-DEGREES, -7, 0, 13, DEGREES):
        ours = augmented(images, still + 1, still + angle, still)
        theirs = np.stack([np.asarray(Image.fromarray(image).rotate(angle)) for image in images])
        assert (ours != theirs).mean() < 0.002, "the centre of a pixel may fall on the other side of an edge"
    assert (augmented(images, still + 2, still, still) == images[:, :, ::-1]).all()
    for border in (0, 3, 10):
        ours = augmented(images, still + 3, still, still + border).astype(int)
        box = (border, border, 48 - border, 48 - border)
        theirs = [np.asarray(Image.fromarray(i).crop(box).resize((48, 48), Image.Resampling.BILINEAR)) for i in images]
        assert np.abs(ours - np.stack(theirs)).max() <= 1
    assert (augmented(images, still, still + 20, still + 5) == images).all()


def test_an_oversampled_pool_is_balanced_and_its_images_are_copied_in_turn(faces):
    pool = oversampled(originals(faces.images, faces.labels, np.arange(len(faces))), np.random.default_rng(0))
    counts = np.bincount(faces.labels)
    assert (np.bincount(pool.labels) == counts.max()).all()
    assert (pool.images[: len(faces)] == faces.images).all() and (pool.operation[: len(faces)] == 0).all()
    copies = pool.at(np.arange(len(faces), len(pool.labels)))
    assert (copies.labels == faces.labels[copies.origin]).all()
    for label, n in enumerate(counts):
        used = np.bincount(copies.origin[copies.labels == label], minlength=len(faces))[faces.labels == label]
        assert used.sum() == counts.max() - n and np.ptp(used) <= 1
    kinds = np.bincount(copies.operation, minlength=len(OPERATIONS))
    assert kinds[0] == 0 and kinds[1:].min() > 0.2 * len(copies.labels)


def test_parts_are_disjoint_and_whole():
    parts = cut(100, (0.6, 0.1, 0.3), np.random.default_rng(0))
    assert [len(part) for part in parts] == [60, 10, 30]
    assert sorted(np.concatenate(parts)) == list(range(100)) and list(parts[0]) != list(range(60))


def test_only_the_first_order_puts_relatives_on_both_sides(faces):
    train, select, test = leaky(faces, "full", 0)
    share = leakage.with_sibling(test, train)
    by_hand = [origin in set(train.origin) for origin in test.origin]
    assert share.tolist() == by_hand and 0.3 < share.mean() < 0.9
    # the commonest class has no copies, the rarest has many
    counts = np.bincount(faces.labels)
    assert not share[test.labels == counts.argmax()].any() and share[test.labels == counts.argmin()].all()
    # the chapter's formula: of a class of n originals oversampled to T, about (1 - q)^(T/n - 1) have no sibling
    expected = np.mean([1 - 0.2 ** (counts.max() / counts[label] - 1) for label in test.labels])
    assert share.mean() == pytest.approx(expected, abs=0.12)

    train, select, test = clean(faces, "full", 0)
    assert not leakage.with_sibling(test, train).any() and not leakage.with_sibling(select, train).any()
    assert (test.operation == 0).all() and (select.operation == 0).all() and train.operation.any()
    assert len(np.unique(np.bincount(train.labels))) == 1
    assert sorted(np.unique(np.concatenate([p.origin for p in (train, select, test)]))) == list(range(len(faces)))


def test_equal_images_are_counted(faces):
    index = np.arange(20)
    part = originals(faces.images, faces.labels, index)
    other = originals(faces.images, faces.labels, index + 15)
    assert leakage.with_equal(part, other).tolist() == [False] * 15 + [True] * 5


def test_both_orders_are_measured_in_one_run(found):
    assert list(found.arms) == list(ARMS) and found.synthetic
    first, second = (found.arms[arm] for arm in ARMS)
    assert first["siblings"] > 0.3 and second["siblings"] == 0.0
    seen, unseen = (first["scores"][key] for key in ("images with a sibling in training", "images without one"))
    assert seen["n"] + unseen["n"] == first["n_test"] == found.reported(LEAKY)["n"]
    assert seen["correct"] + unseen["correct"] == found.reported(LEAKY)["correct"]
    assert seen["n"] == round(first["siblings"] * first["n_test"])
    assert found.reported(CLEAN)["n"] == second["n_test"] and "images without one" not in second["scores"]
    for arm in (first, second):
        for score in arm["scores"].values():
            low, high = score["interval"]
            assert low <= score["accuracy"] == score["correct"] / score["n"] <= high
    # Both arms under one recipe and of about one size.
    assert first["epochs"] == second["epochs"] and 0.8 < first["n_train"] / second["n_train"] < 1.25


def test_a_stopped_demonstration_goes_on(found, tmp_path):
    lines: list[str] = []
    with pytest.raises(Interrupted):
        leakage.demonstrate("smoke", device="cpu", runs_dir=tmp_path, time_budget=0)
    with listening(lines.append):
        again = leakage.demonstrate("smoke", device="cpu", runs_dir=tmp_path)
    assert again.reported(LEAKY) == found.reported(LEAKY) and again.reported(CLEAN) == found.reported(CLEAN)
    assert any(line.startswith(LABEL) for line in lines)
    epochs = [line for line in lines if line.startswith("epoch")]
    assert epochs and not any("PublicTest" in line for line in epochs), "the selection part is not PublicTest"


def test_wrong_profile():
    with pytest.raises(FerReproError, match="unknown profile 'stored', expected full or smoke"):
        leakage.demonstrate("stored")


def test_full_is_resemotenet_itself():
    from fer_repro.papers import resemotenet

    full, paper = leakage.recipe("full"), resemotenet.recipe("official", "full")
    assert dataclasses.replace(full, variant="resemotenet") == paper and full.sha256() != paper.sha256()


def as_measured(found) -> Leakage:
    """What a full run on FER2013 would leave, with the smoke run's figures."""
    record = json.loads(json.dumps(found.record)) | {"profile": "full"}
    record["data"]["name"] = "fer2013"
    return Leakage(record)


def test_it_is_stored_as_a_kind_of_its_own(found, tmp_path):
    with pytest.raises(FerReproError, match="only a full demonstration on FER2013 is stored"):
        leakage.store(found, tmp_path)
    assert leakage.stored(0, tmp_path) is None
    measured = as_measured(found)
    path = leakage.store(measured, tmp_path)
    assert leakage.stored(0, tmp_path) == measured
    with pytest.raises(FerReproError, match="is there already"):
        leakage.store(measured, tmp_path)
    # Nothing that reads results sees it.
    assert results.stored_folders(tmp_path) == results.read_all(tmp_path) == results.verify(tmp_path) == []
    board = leaderboard.leaderboard(tmp_path)
    assert board["measured"].isna().all()
    assert all("stored" not in state for entry in status.states(tmp_path) for state in entry["state"].values())
    for damage in ("{", "[]", json.dumps(measured.record | {"kind": "result"}), json.dumps({"schema": 1})):
        path.write_text(damage)
        with pytest.raises(FerReproError, match="restore it or measure it again"):
            leakage.stored(0, tmp_path)


def test_the_chapter_says_what_it_shows(found, tmp_path, monkeypatch):
    monkeypatch.setattr(leakage, "demonstrate", lambda *arguments, **options: found)
    shown = figures.leakage_demonstration("stored", 0, "cpu", tmp_path)
    assert "Not run on FER2013" in shown.body and "not a result" in shown.body
    assert shown.body.lower().count(LABEL) >= 2 and LABEL in shown.plain.lower()
    leakage.store(as_measured(found), tmp_path)
    real = figures.leakage_demonstration("stored", 0, "cpu", tmp_path)
    assert "Not run" not in real.body and "says nothing" not in real.body and real.body.lower().count(LABEL) >= 2
    smoke = figures.leakage_demonstration("smoke", 0, "cpu", tmp_path)
    assert "not a result" in smoke.body, "a smoke chapter shows its own demonstration"


def test_the_command(found, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(leakage, "demonstrate", lambda *arguments, **options: as_measured(found))
    leakage.main(results_dir=str(tmp_path))
    printed = capsys.readouterr().out
    assert printed.count(LABEL) == 3 and "seed-0.json" in printed
    assert f"{100 * found.reported(LEAKY)['accuracy']:.2f}" in printed and leakage.path_of(0, tmp_path).exists()
