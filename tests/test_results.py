import json

import numpy as np
import pandas as pd
import pytest
from made_results import made_result

from fer_repro import results
from fer_repro.data import FER2013
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.errors import FerReproError
from fer_repro.evaluation import metrics
from fer_repro.files import sha256_of
from fer_repro.recipe import digest
from fer_repro.results import HALVES, SCHEMA, Result


def test_written_results_read_back_equal_and_verify(tmp_path):
    result = made_result()
    folder = results.write(result, tmp_path)
    assert folder == tmp_path / "vggnet" / "official" / "seed-0"
    again = results.read(folder)
    assert again.record == json.loads(json.dumps(result.record | {"files": again.record["files"]}))
    assert all((again.predictions[k] == v).all() for k, v in result.predictions.items())
    pd.testing.assert_frame_equal(again.history, result.history)
    assert again.headline == again.score("PrivateTest", views=True) != again.score("PrivateTest", views=False)
    assert results.verify(tmp_path) == []
    assert [r.variant for r in results.read_all(tmp_path)] == ["vggnet"]


def test_a_stored_result_is_never_overwritten(tmp_path):
    results.write(made_result(), tmp_path)
    with pytest.raises(FerReproError, match="already holds a result"):
        results.write(made_result(), tmp_path)


def test_another_schema_version_is_one_sentence(tmp_path):
    _edit(results.write(made_result(), tmp_path), lambda r: r.update(schema=SCHEMA + 1))
    with pytest.raises(FerReproError, match=f"schema version {SCHEMA + 1}.*reads {SCHEMA}"):
        results.read_all(tmp_path)


def _edit(folder, change):
    record = json.loads((folder / "result.json").read_text())
    change(record)
    (folder / "result.json").write_text(json.dumps(record))


def _rescore(folder, **predictions):
    """Replace predictions and keep the file digest right, so that only the content is wrong."""
    result = results.read(folder)
    np.savez_compressed(folder / "predictions.npz", **(result.predictions | predictions))
    _edit(folder, lambda r: r["files"].update({"predictions.npz": sha256_of(folder / "predictions.npz")}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: _edit(f, lambda r: r["scores"]["PrivateTest"]["views"].update(accuracy=0.9)), "scores"),
        (lambda f: _edit(f, lambda r: r["recipe"].update(batch_size=1)), "recipe_sha256"),
        (lambda f: _edit(f, lambda r: r.update(seed=3)), "folder's name"),
        (lambda f: _edit(f, lambda r: r.update(profile="smoke")), "only finished full runs"),
        (lambda f: (f / "history.csv").write_text("epoch\n1\n"), "history.csv is not the file"),
        (lambda f: _rescore(f, PublicTest_labels=np.zeros(3589, int)), "images per class"),
        (lambda f: _rescore(f, PublicTest_labels=np.repeat(range(7), OFFICIAL_COUNTS[1])[::-1]), "scores"),
        (lambda f: _rescore(f, PublicTest_labels=np.zeros(10, int)), "3589 ids"),
        (lambda f: _rescore(f, PublicTest_plain=np.ones((3589, 7), np.float16)), "sum to 1"),
        (lambda f: _rescore(f, PublicTest_ids=np.zeros(3589, int)), "1 different"),
        (lambda f: (f / "predictions.npz").write_bytes(b"PK"), "not a readable result"),
        (lambda f: (f / "result.json").write_text("{"), "not a readable result"),
    ],
)
def test_verify_names_each_damage(tmp_path, damage, words):
    folder = results.write(made_result(), tmp_path)
    damage(folder)
    problems = results.verify(tmp_path)
    assert len(problems) >= 1 and words in " ".join(problems)


def test_a_folder_that_cannot_be_written_is_told_before_the_run(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FerReproError, match="cannot be written"):
        results.require_writable(tmp_path / "file")
    with pytest.raises(FerReproError, match="cannot be written"):
        results.write(made_result(), tmp_path / "file")


def merged_result(**changes) -> Result:
    """A run whose protocol scores the two halves as one set, with different accuracies on them."""
    result = made_result()
    rows = result.predictions["PublicTest_views"].astype(np.float32)
    rows[:2000] = np.eye(7)[result.predictions["PublicTest_labels"][:2000]]
    result.predictions["PublicTest_views"] = rows.astype(np.float16)
    usages = result.record["usages"] | {"test": ["PublicTest", "PrivateTest"]}
    result.record["recipe"]["protocol"]["test"] = usages["test"]
    result.record["recipe_sha256"] = digest(result.record["recipe"])
    result.record["selection"] = "best epoch on PublicTest (the scored images: an oracle)"
    scores = results.score_all(result.predictions, usages["test"])
    result.record |= {"usages": usages, "scores": scores} | changes
    return result


def test_two_halves_scored_as_one_set_have_one_headline(tmp_path):
    folder = results.write(merged_result(), tmp_path)
    assert results.verify(tmp_path) == []
    result = results.read(folder)
    parts = [result.score(half) for half in HALVES]
    assert result.scored == "PublicTest+PrivateTest" and parts[0]["accuracy"] > parts[1]["accuracy"] + 0.4
    assert result.headline["n"] == 7178 and result.headline["correct"] == sum(part["correct"] for part in parts)
    assert np.array_equal(result.headline["confusion"], np.add(*(part["confusion"] for part in parts)))
    assert result.headline["per_class"]["disgust"]["n"] == 111
    everything = [
        np.concatenate([result.predictions[f"{half}_{kind}"] for half in HALVES]) for kind in ("views", "labels")
    ]
    assert result.headline["log_loss"] == metrics.evaluate(*everything)["log_loss"]
    assert result.headline != result.score("PublicTest+PrivateTest", views=False)


def test_one_scored_half_is_stored_as_ever():
    assert set(made_result().record["scores"]) == set(HALVES) and made_result().scored == "PrivateTest"


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: r["scores"]["PublicTest+PrivateTest"]["views"].update(accuracy=0.7203),
        lambda r: r["scores"].pop("PublicTest+PrivateTest"),
        lambda r: r["usages"].update(test=["PublicTest"]),
    ],
)
def test_verify_recomputes_the_score_of_both_halves(tmp_path, damage):
    _edit(results.write(merged_result(), tmp_path), damage)
    assert "the scores in result.json are not those of predictions.npz" in " ".join(results.verify(tmp_path))


def test_labels_are_held_to_the_data_set_at_hand(tmp_path):
    result = made_result()
    results.write(result, tmp_path)
    ids = np.concatenate([result.predictions[f"{half}_ids"] for half in HALVES])
    labels = np.concatenate([result.predictions[f"{half}_labels"] for half in HALVES])
    usage = np.repeat(HALVES, 3589)
    faces = FER2013(np.zeros((len(ids), 48, 48), np.uint8), labels, usage, ids, "fer2013", "test", "0" * 64)
    assert results.verify(tmp_path, faces) == []
    moved = labels.copy()
    moved[[0, 3588]] = moved[[3588, 0]]
    other = FER2013(faces.images, moved, usage, ids, "fer2013", "test", "0" * 64)
    assert "2 predictions do not match" in " ".join(results.verify(tmp_path, other))
