"""A wrong number planted in stored data is found and named, also by somebody who recomputes every digest."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from made_results import made_result, made_unfinished

from fer_repro import claims, results, speed, verification
from fer_repro.book.front import NAMES
from fer_repro.errors import FerReproError
from fer_repro.project import default_results_dir, project_root
from fer_repro.results import agreement, schema
from fer_repro.verification import sources

ONE_OF_EACH = {
    "full": "deep-emotion/official/seed-0",
    "released": "deep-emotion-wide-localisation/released/deep_emotion-256-0.005-300",
    "package": "packages/fer-25.10.3",
}


def sealed(folder: Path, change: Callable[[dict[str, Any]], Any], **files: bytes) -> None:
    """Change a result as somebody would who recomputes its digests; ``files``: new bytes by name without its end."""
    record = json.loads((folder / "result.json").read_text())
    change(record)
    for stem, content in files.items():
        [name] = [name for name in record["files"] if name.startswith(stem)]
        (folder / name).write_bytes(content)
        record["files"][name] = sha256(content).hexdigest()
    record["sha256"] = schema.content_digest(record)
    (folder / "result.json").write_text(json.dumps(record, indent=1) + "\n")


@pytest.fixture
def copy_of(tmp_path) -> Callable[[str], Path]:
    def make(place: str) -> Path:
        return Path(shutil.copytree(default_results_dir() / place, tmp_path / place))

    return make


def the_problem(root: Path) -> str:
    [problem] = results.verify(root)
    assert "\n" not in problem
    return problem


# ---- a result file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_a_planted_accuracy_is_named_in_every_kind_of_evidence(copy_of, tmp_path, kind):
    folder = copy_of(ONE_OF_EACH[kind])
    assert results.verify(tmp_path) == []
    true = json.loads((folder / "result.json").read_text())["scores"]["PrivateTest"]["plain"]["accuracy"]
    sealed(folder, lambda record: record["scores"]["PrivateTest"]["plain"].update(accuracy=0.7002))
    assert f"scores/PrivateTest/plain/accuracy is 0.7002, recomputed {true}" in the_problem(tmp_path)


def test_a_planted_accuracy_of_an_unfinished_run_is_named(tmp_path):
    folder = results.write(made_unfinished(), tmp_path)
    sealed(folder, lambda record: record["scores"]["PublicTest"]["views"]["per_class"]["fear"].update(recall=0.99))
    assert "scores/PublicTest/views/per_class/fear/recall is 0.99, recomputed" in the_problem(tmp_path)


def test_the_first_mismatch_is_named_whatever_it_is(tmp_path):
    folder = results.write(made_result(), tmp_path)
    sealed(folder, lambda record: record["scores"]["PublicTest"]["plain"]["confusion"][2].__setitem__(3, 7))
    assert "scores/PublicTest/plain/confusion/2/3 is 7, recomputed" in the_problem(tmp_path)


def test_the_last_digits_of_another_processor_are_no_mismatch(tmp_path):
    folder = results.write(made_result(), tmp_path)
    loss = json.loads((folder / "result.json").read_text())["scores"]["PublicTest"]["plain"]["log_loss"]
    sealed(folder, lambda record: record["scores"]["PublicTest"]["plain"].update(log_loss=loss * (1 + 1e-14)))
    assert results.verify(tmp_path) == []
    sealed(folder, lambda record: record["scores"]["PublicTest"]["plain"].update(log_loss=loss * (1 + 1e-7)))
    assert "log_loss" in the_problem(tmp_path)


@pytest.mark.parametrize(
    ("said", "true", "words"),
    [
        ({"n": 3}, {"n": 3}, ""),
        ({"n": 3}, {"n": 4}, "x/n is 3, recomputed 4"),
        ({"a": True}, {"a": 1.0}, "x/a is True, recomputed 1.0"),
        ({"a": 0.5}, {"a": None}, "x/a is 0.5, recomputed None"),
        ([1, 2], [1], "x has 2 entries instead of 1"),
        ({"a": 1}, {"b": 1}, "x has a"),
        ({}, {"b": 1}, "x lacks b"),
        ({"a": 0.1 + 0.2}, {"a": 0.3}, ""),
    ],
)
def test_what_differs_is_said_in_words(said, true, words):
    assert agreement.difference(said, true, "x") == words


def history_of(folder: Path, change: Callable[[list[list[str]]], Any]) -> bytes:
    rows = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
    change(rows)
    return "\n".join(",".join(row) for row in rows).encode() + b"\n"


def test_a_selected_epoch_that_the_history_does_not_select_is_found(copy_of, tmp_path):
    folder = copy_of(ONE_OF_EACH["full"])
    sealed(folder, lambda record: record.update(selected_epoch=10))
    assert "selected_epoch is 10, but history.csv has the best accuracy on the select images in 63" in the_problem(
        tmp_path
    )


def test_a_history_with_another_accuracy_than_the_predictions_is_found(copy_of, tmp_path):
    folder = copy_of(ONE_OF_EACH["full"])

    def better(rows):
        rows[63][rows[0].index("select_accuracy")] = "0.61"

    sealed(folder, lambda record: None, history=history_of(folder, better))
    assert "history.csv has an accuracy of 0.61 on PublicTest in epoch 63, the predictions have 0.52" in the_problem(
        tmp_path
    )
    lines = (folder / "history.csv").read_text().splitlines()
    sealed(folder, lambda record: None, history="\n".join([lines[0], *lines[2:], ""]).encode())
    assert "the epochs of history.csv are not 1 to 79" in the_problem(tmp_path)


def test_what_a_method_recorded_is_held_to_its_counts_and_to_the_scores(copy_of, tmp_path):
    folder = copy_of("local-learning-bow/official/seed-0")
    step = {"n": 3589, "correct": 2500, "accuracy": 0.7}
    sealed(folder, lambda record: record["facts"]["ladder"][0].update(PrivateTest=step))
    assert "facts/ladder/0/PrivateTest/accuracy is 0.7, but 2500 of 3589 are" in the_problem(tmp_path)
    step["accuracy"] = 2500 / 3589

    def last(record):
        record["facts"]["ladder"][0]["PrivateTest"] = record["facts"]["ladder"][1]["PrivateTest"]
        record["facts"]["ladder"][-1]["PrivateTest"] = step

    sealed(folder, last)
    assert "facts/ladder/3/PrivateTest ends at 0.69657" in the_problem(tmp_path)


def test_forty_results_are_verified(tmp_path):
    result = made_result()
    for seed in range(40):
        result.record["seed"] = seed
        results.write(result, tmp_path)
    assert results.verify(tmp_path) == [] and len(results.all_folders(tmp_path)) == 40


# ---- a row of the claims ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("true", "planted", "words"),
    [
        ("accuracy: 67.48", "accuracy: 69.48", r"row 'local-learning-bow', field accuracy"),
        ("Accuracy: 67.48", "Accuracy: 69.48", r"the pinned rows changed"),
        ("accuracy: 73.28", "accuracy: 73.82", r"row 'vggnet', field a.* a count of 3589 images that prints 73.82"),
    ],
)
def test_a_planted_number_in_a_claims_row_is_named(tmp_path, monkeypatch, true, planted, words):
    text = claims.FILE.read_text()
    assert true in text
    path = tmp_path / "claims.yaml"
    path.write_text(text.replace(true, planted))
    monkeypatch.setattr(claims, "FILE", path)
    [problem] = sources.claims()[1]
    assert re.search(words, problem), problem


def declared(root: Path) -> sources.Found:
    stated = {folder: results.read_record(folder) for folder in results.all_folders(root)}
    return sources.declared({folder: {"kind": None, **record} for folder, record in stated.items()})


def test_a_planted_count_of_parameters_is_named(copy_of, tmp_path, monkeypatch):
    copy_of(ONE_OF_EACH["full"])
    assert declared(tmp_path) == (1, [])
    monkeypatch.setattr(sources, "declared_parameters", lambda variant: 12345)
    [problem] = declared(tmp_path)[1]
    assert "claims.yaml declares 12,345" in problem


def test_a_package_is_what_the_table_says(copy_of, tmp_path):
    folder = copy_of(ONE_OF_EACH["package"])
    assert declared(tmp_path) == (1, [])
    sealed(folder, lambda record: record["package"].update(licence="none"))
    [problem] = declared(tmp_path)[1]
    assert "package/licence is none, the table of packages says MIT" in problem


# ---- other stored tables ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slug", "true", "planted", "words"),
    [
        ("baseline", ",2141,0.5965,", ",2141,0.6965,", "accuracy is 0.6965, but 2141 of 3589 are 0.5965"),
        ("baseline", ",2141,", ",2341,", "but 2341 of 3589 are 0.6523"),
        ("baseline", "the plain recipe", "another recipe", "recipe A is 'another recipe', declared as 'the plain rec"),
        ("baseline", "cc9b10048", "cc9b10049", "recipe A has the digest of another recipe"),
        ("baseline", "\nH,", "\nZ,", "has a recipe Z, expected one of A, B"),
        ("deep-emotion", ",1837,0.5118,", ",1837,0.5218,", "accuracy is 0.5218"),
        ("deep-emotion", "train_accuracy", "training", "has other columns"),
        ("local-learning-bow", "0.5639", "0.5640", "line 2: public_test_accuracy is 0.564, but 2024 of 3589"),
        ("local-learning-bow", "0.5639", "1.5639", "expected a share"),
    ],
)
def test_a_planted_number_in_the_table_of_a_search_is_named(tmp_path, slug, true, planted, words):
    (tmp_path / slug).mkdir()
    text = (default_results_dir() / slug / "search.csv").read_text()
    assert true in text
    (tmp_path / slug / "search.csv").write_text(text)
    assert sources.searches(tmp_path) == (1, [])
    (tmp_path / slug / "search.csv").write_text(text.replace(true, planted, 1))
    [problem] = sources.searches(tmp_path)[1]
    assert words in problem and f"{slug}/search.csv" in problem


@pytest.mark.parametrize(
    ("name", "place", "key", "words"),
    [
        ("train-cpu", ("networks", "vggnet"), "ratio_fp32", "networks/vggnet/ratio_fp32 is 9.0, but ours / reference"),
        ("evaluate-cpu", ("networks", "vggnet"), "ratio", "networks/vggnet/ratio is 9.0"),
        ("augment-cpu", (), "times_faster", "times_faster is 9.0, but batched / pil_as_released is 36.5"),
    ],
)
def test_a_planted_ratio_of_speeds_is_named(tmp_path, monkeypatch, name, place, key, words):
    shutil.copytree(speed.default_store(), tmp_path / "measured")
    monkeypatch.setattr(speed, "default_store", lambda: tmp_path / "measured")
    assert sources.measurements()[1] == []
    path = tmp_path / "measured" / f"{name}.json"
    figures = json.loads(path.read_text())
    inner = figures
    for part in place:
        inner = inner[part]
    inner[key] = 9.0
    path.write_text(json.dumps(figures))
    [problem] = sources.measurements()[1]
    assert words in problem and f"{name}.json" in problem


# ---- what is generated for the front page ----------------------------------------------------------------------------


def test_a_planted_number_in_the_generated_table_and_another_picture_are_named(tmp_path):
    root = project_root()
    shutil.copytree(root / "chapters" / "generated", tmp_path / "chapters" / "generated")
    for path in (root / "chapters" / "papers").glob("*.ipynb"):
        (tmp_path / "chapters" / "papers").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "chapters" / "papers")
    count, problems = sources.front(tmp_path)
    assert count == len(NAMES) == 4 and problems == []
    table = tmp_path / "chapters" / "generated" / "verdicts.md"
    table.write_text(table.read_text().replace("67.48 %".replace(" ", "\u00a0"), "69.48\u00a0%"))
    [problem] = sources.front(tmp_path)[1]
    assert "chapters/generated/verdicts.md does not show the current claims and results" in problem
    shutil.copy(root / "chapters" / "generated" / "verdicts.md", table)
    picture = tmp_path / "chapters" / "generated" / "accuracy-over-time.png"
    shutil.copy(next((root / "_static").rglob("*.png"), _blank(tmp_path)), picture)
    assert "accuracy-over-time.png" in sources.front(tmp_path)[1][0]
    assert sources.front(tmp_path / "elsewhere") == (0, [])


def _blank(folder: Path) -> Path:
    from PIL import Image

    path = folder / "blank.png"
    Image.new("L", (4, 4)).save(path)
    return path


# ---- everything together ---------------------------------------------------------------------------------------------


def test_the_project_itself_has_no_problem_and_says_what_was_checked():
    report = verification.verify()
    assert report.problems == []
    checked = dict(report.checked)
    assert checked["stored results"] == len(results.all_folders()) and checked["claims"] >= 17
    assert {"tables of searches", "measurements of speed", "generated files of the front page"} <= set(checked)
    assert str(report).endswith(" checked, 0 problems")


def test_problems_of_all_kinds_come_together(tmp_path):
    folder = results.write(made_result(), tmp_path)
    sealed(folder, lambda record: record["scores"]["PrivateTest"]["plain"].update(accuracy=0.9))
    (tmp_path / "baseline").mkdir()
    (tmp_path / "baseline" / "search.csv").write_text("nothing")
    report = verification.verify(tmp_path)
    assert len(report.problems) == 2 and "scores/PrivateTest" in report.problems[0]
    assert "search.csv" in report.problems[1] and str(report) == (
        "1 stored results, 1 tables of searches checked, 2 problems"
    )


def test_a_book_that_is_none_is_an_error(tmp_path):
    with pytest.raises(FerReproError, match="is no built book"):
        verification.pages.compare(tmp_path, default_results_dir())
