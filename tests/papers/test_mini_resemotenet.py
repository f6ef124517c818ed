"""Distillation: the loss, the teacher's table, accepted teachers, the control without a teacher, resuming."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_repro import data, papers, results
from fer_repro.data.protocol import OFFICIAL
from fer_repro.errors import FerReproError
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.evaluation.statistics import paired_comparison
from fer_repro.layers import as_input
from fer_repro.papers import mini_resemotenet, resemotenet
from fer_repro.papers.mini_resemotenet import Distillation, figures, soft_loss, teacher_table
from fer_repro.recipe import Stage, step
from fer_repro.reproduce import reproduce
from fer_repro.training import checkpoint
from fer_repro.training.run import Interrupted, Run
from fer_repro.transforms.geometry import resize

STUDENT = papers.get("mini-resemotenet-b")
ALONE = papers.get("mini-resemotenet-b-alone")
SGD = step("sgd", lr=0.01, momentum=0.9)


@pytest.fixture(scope="module")
def splits():
    return OFFICIAL.split(data.load("synthetic", size=(49, 21, 21)))


@pytest.fixture(scope="module")
def teacher():
    """A teacher with random weights: what it says does not matter here."""
    recipe = resemotenet.recipe("official", "smoke")
    torch.manual_seed(5)
    return NetworkClassifier(resemotenet.build(recipe), recipe, "cpu")


def a_run(folder, variant=STUDENT, teacher=None, protocol="official", **changes):
    recipe = dataclasses.replace(variant.recipe(protocol, "smoke"), stages=(Stage("train", 2, SGD),), batch_size=16)
    required = {} if teacher is None else {"resemotenet": teacher}
    recipe = dataclasses.replace(recipe, **changes)
    return Run(recipe, 3, "cpu", folder, "d" * 64, required=required)


def weights(classifier):
    return classifier.model.state_dict()


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_the_soft_loss_is_hintons():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(9, 7, generator=generator) for _ in range(2))
    for temperature in (1.0, 2.0, 4.0):
        p, q = (F.softmax(z.double() / temperature, dim=1) for z in (teacher, student))
        expected = temperature**2 * (p * (p / q).log()).sum(dim=1).mean()
        found = soft_loss(student, teacher, temperature)
        assert found.item() == pytest.approx(expected.item(), rel=1e-5) and found > 0
        # log probabilities say as much as logits
        assert soft_loss(student, teacher.log_softmax(dim=1), temperature).item() == pytest.approx(
            found.item(), rel=1e-5
        )
    assert soft_loss(teacher, teacher, 4.0).item() == pytest.approx(0, abs=1e-6)


def test_the_gradient_keeps_its_size_as_the_temperature_grows():
    generator, sizes = torch.Generator().manual_seed(0), []
    teacher, start = (0.1 * torch.randn(16, 7, generator=generator) for _ in range(2))
    for temperature in (4.0, 40.0):
        student = start.clone().requires_grad_()
        soft_loss(student, teacher, temperature).backward()
        sizes.append(student.grad.norm().item())
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)


def test_the_loss_mixes_both_terms_and_uses_the_teachers_output_for_each_sample():
    table = torch.randn(2, 5, 7).log_softmax(dim=2)
    logits, targets = torch.randn(3, 7), torch.tensor([0, 3, 6])
    chosen, mirrored = torch.tensor([4, 0, 2]), torch.tensor([True, False, True])
    rows = torch.stack([table[1, 4], table[0, 0], table[1, 2]])
    hard, soft = F.cross_entropy(logits, targets), soft_loss(logits, rows, 4.0)
    for alpha in (0.0, 0.3, 1.0):
        found = Distillation(table, 4.0, alpha)(logits, targets, chosen, mirrored)
        torch.testing.assert_close(found, alpha * soft + (1 - alpha) * hard)
    own = Distillation(table, 4.0, 1.0)(rows, targets, chosen, mirrored)
    assert own.item() == pytest.approx(0, abs=1e-6)
    assert Distillation(table, 4.0, 1.0)(rows, targets, chosen, ~mirrored) > 0.1


@pytest.mark.parametrize(("temperature", "alpha"), [(0.0, 0.5), (-1.0, 0.5), (4.0, 1.5), (4.0, -0.1)])
def test_senseless_settings_are_refused(temperature, alpha):
    with pytest.raises(FerReproError, match="a positive number and one in 0..1"):
        Distillation(torch.zeros(2, 5, 7), temperature, alpha)


def test_the_table_holds_the_teachers_output_for_image_and_flipped_image(splits, teacher):
    images = splits.train.images[:9]
    teacher.model.train()  # dropout must be off all the same, and the mode must come back
    table = teacher_table(teacher, images)
    assert table.shape == (2, 9, 7) and table.dtype == np.float32 and teacher.model.training
    teacher.model.eval()
    for index, faces in enumerate((images, images[:, :, ::-1])):
        inputs = resize(as_input(torch.from_numpy(faces.copy())), teacher.recipe.input_size)
        with torch.no_grad():
            direct = teacher.model(inputs).log_softmax(dim=1)
        np.testing.assert_allclose(table[index], direct.numpy(), atol=1e-5)
    assert np.abs(table[0] - table[1]).max() > 1e-4


def test_the_loop_passes_which_image_was_flipped(splits, teacher, tmp_path, monkeypatch):
    """What the student saw of a sample is the image that the loop names, flipped where it says so."""
    seen, passed = [], []
    forward = resemotenet.ResEmoteNet.forward

    def watch(self, images):
        if self.training:
            seen.append(images.clone())
        return forward(self, images)

    def note(self, output, targets, chosen, mirrored):
        passed.append((chosen.clone(), mirrored.clone(), targets.clone()))
        return F.cross_entropy(output, targets)

    monkeypatch.setattr(resemotenet.ResEmoteNet, "forward", watch)
    monkeypatch.setattr(Distillation, "forward", note)
    STUDENT.fit(splits, a_run(tmp_path, teacher=teacher))
    assert len(seen) == len(passed) == 2 * 3  # 49 images in batches of 16; the last batch of one is dropped
    faces = torch.from_numpy(splits.train.images.copy())
    turned = 0
    for inputs, (chosen, mirrored, targets) in zip(seen, passed, strict=False):
        shown = torch.where(mirrored[:, None, None], faces[chosen].flip(-1), faces[chosen])
        torch.testing.assert_close(inputs, resize(as_input(shown), inputs.shape[-1]))
        assert (torch.from_numpy(splits.train.labels.copy())[chosen] == targets).all()
        turned += mirrored.sum().item()
    assert 20 < turned < 76


def test_alpha_zero_is_the_control_to_the_last_bit(splits, teacher, tmp_path):
    zero = a_run(tmp_path / "zero", teacher=teacher, loss=step("distillation", temperature=4.0, alpha=0.0))
    plain = a_run(tmp_path / "plain", variant=ALONE)
    half = a_run(tmp_path / "half", teacher=teacher)
    found = [variant.fit(splits, run) for variant, run in ((STUDENT, zero), (ALONE, plain), (STUDENT, half))]
    assert same(weights(found[0]), weights(found[1]))
    assert [row["loss"] for row in zero.history] == [row["loss"] for row in plain.history]
    assert not same(weights(found[0]), weights(found[2]))


def test_the_teacher_is_asked_once_and_a_resumed_run_ends_alike(splits, teacher, tmp_path, monkeypatch):
    whole = STUDENT.fit(splits, a_run(tmp_path / "whole", teacher=teacher))
    run = a_run(tmp_path / "cut", teacher=teacher)
    looks = iter(range(5))
    run.out_of_time = lambda ahead=0.0: next(looks, None) is None
    with pytest.raises(Interrupted):
        STUDENT.fit(splits, run)
    monkeypatch.setattr(mini_resemotenet, "teacher_table", lambda *_: pytest.fail("the teacher was asked again"))
    resumed = STUDENT.fit(splits, a_run(tmp_path / "cut", teacher=teacher))
    assert same(weights(whole), weights(resumed))


def test_a_run_does_not_change_its_teacher(splits, teacher, tmp_path):
    STUDENT.fit(splits, a_run(tmp_path, teacher=teacher))
    torch.manual_seed(6)
    other = NetworkClassifier(resemotenet.build(teacher.recipe), teacher.recipe, "cpu")
    with pytest.raises(FerReproError, match="begun with another resemotenet"):
        STUDENT.fit(splits, a_run(tmp_path, teacher=other))
    fresh = a_run(tmp_path, teacher=other)
    fresh.resume = False
    STUDENT.fit(splits, fresh)


def test_which_teachers_are_accepted(splits, teacher, tmp_path):
    with pytest.raises(FerReproError, match="is distilled from resemotenet, and no fitted one was given"):
        STUDENT.fit(splits, a_run(tmp_path))
    with pytest.raises(FerReproError, match="needs a network as resemotenet, got SimpleNamespace"):
        STUDENT.fit(splits, a_run(tmp_path, teacher=SimpleNamespace()))
    with pytest.raises(FerReproError, match="of the same protocol, got resemotenet under official"):
        STUDENT.fit(splits, a_run(tmp_path, teacher=teacher, protocol="claimed"))
    student = NetworkClassifier(teacher.model, STUDENT.recipe("official", "smoke"), "cpu")
    with pytest.raises(FerReproError, match="got mini-resemotenet-b under official"):
        STUDENT.fit(splits, a_run(tmp_path, teacher=student))
    for steps in ((), (step("flip"), step("flip")), (step("flip", vertical=True),), (step("flip"), step("erase"))):
        with pytest.raises(FerReproError, match="one left-right flip and nothing else"):
            STUDENT.fit(splits, a_run(tmp_path, teacher=teacher, augment=steps))


def test_students_follow_the_teachers_recipe():
    for protocol in papers.PROTOCOLS:
        base = papers.get("resemotenet").recipe(protocol, "full")
        for name, variant in papers.variants().items():
            if variant.slug != "mini-resemotenet":
                continue
            own, alone = variant.recipe(protocol, "full"), name.endswith("-alone")
            assert variant.requires == (() if alone else ("resemotenet",))
            differing = {
                field.name for field in dataclasses.fields(own) if getattr(own, field.name) != getattr(base, field.name)
            }
            assert differing == {"variant", "network", "deviations"} | (set() if alone else {"loss"})
            assert own.network["divisor"] == {"a": 2, "b": 4, "c": 8}[name.split("-")[2]]


@pytest.fixture(scope="module")
def distilled():
    return reproduce("mini-resemotenet-b", device="cpu")


def test_agreement_is_counted_on_both_test_sets(distilled):
    for usage in results.HALVES:
        counts = distilled.record["facts"]["agreement"][usage]
        assert counts["n"] == 140 and counts["student"] == distilled.score(usage)["correct"]
        assert counts["both"] <= min(counts["teacher"], counts["student"])
        assert counts["same"] == counts["both"] + counts["same_mistake"]


def as_stored(result, variant, accuracy, seed=0):
    """The same record as if it were a full run of ``variant`` with that share of right answers on either test set."""
    record = result.record | {"variant": variant, "seed": seed, "profile": "full"}
    record["data"] = record["data"] | {"name": "fer2013"}
    predictions = dict(result.predictions)
    for usage in results.HALVES:
        labels = predictions[f"{usage}_labels"]
        right = np.arange(len(labels)) < round(accuracy * len(labels))
        predictions[f"{usage}_plain"] = np.eye(7, dtype=np.float16)[np.where(right, labels, (labels + 1) % 7)]
    record["scores"] = results.score_all(predictions)
    return results.Result(record, predictions, result.history)


def test_the_table_of_students_says_not_run_and_shows_the_effect_of_distillation(distilled, tmp_path):
    empty = figures.students("official", tmp_path).body
    # A row for the teacher and for every student and control; and the sentence on the effect of distillation.
    rows = 1 + sum(variant.slug == "mini-resemotenet" for variant in papers.variants().values())
    assert empty.count("not run") == rows + 1
    student, control = (
        as_stored(distilled, name, accuracy)
        for name, accuracy in (("mini-resemotenet-b", 0.6), ("mini-resemotenet-b-alone", 0.5))
    )
    # Matched by id: another order of the same images changes nothing.
    turned = {name: rows[::-1] for name, rows in control.predictions.items()}
    for stored in (student, results.Result(control.record, turned, control.history)):
        results.write(stored, tmp_path)
    body = figures.students("official", tmp_path).body
    assert body.count("not run") == rows - 2 and "60.00" in body and "50.00" in body
    difference, low, high, p = paired_comparison(*results.paired_hits(student, control))
    assert difference == pytest.approx(0.1) and low < 0.1 < high and p == pytest.approx(2 * 0.5**14)
    assert f"+10.00 ({100 * low:+.2f} to {100 * high:+.2f})" in body
    assert "includes the selection set" in body
    assert results.merged_score(student)["n"] == 280
    other = figures.students("claimed", tmp_path)
    assert other.body.count("not run") == rows + 1, "runs of another protocol do not count"


def test_the_chapters_own_run_says_synthetic(distilled):
    for shown in (figures.agreement(distilled), figures.merged(distilled)):
        assert "not a result" in shown.body
    merged = figures.merged(distilled).body
    assert ">280<" in merged and "includes the selection set" in merged
    distilled.record["facts"].pop("agreement")
    assert "has no teacher" in figures.agreement(distilled).body


def test_the_checkpoint_holds_the_teachers_digest_but_not_its_table(splits, teacher, tmp_path):
    run = a_run(tmp_path, teacher=teacher)
    STUDENT.fit(splits, run)
    identity = {"recipe": run.recipe.sha256(), "data set": run.data_digest, "seed": 3, "device": "cpu"}
    state = checkpoint.load(tmp_path, identity)
    assert set(state["loss"]) == {"digest"} and len(list(tmp_path.glob("teacher-*.npz"))) == 1
