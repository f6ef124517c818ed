"""SDAFE: Training only, resumable, shared between arms; the stand-in's sizes and weights; the page's pieces."""

from __future__ import annotations

import copy
import dataclasses
import time

import numpy as np
import pytest
import torch
from listening import listening

from fer_repro import page, papers, pretrained
from fer_repro.data.protocol import Protocol, Splits
from fer_repro.errors import FerReproError
from fer_repro.evaluation.cost import count_parameters
from fer_repro.papers import sdafe
from fer_repro.papers.sdafe import figures, generated, synthesis, training
from fer_repro.recipe import step
from fer_repro.reproduce import reproduce
from fer_repro.training.run import Interrupted, Run

IMAGES = papers.get("sdafe-images")
ARMS = ["sdafe", "sdafe-real-only", "sdafe-oversampled", "sdafe-unfiltered", "sdafe-psnr", "sdafe-cosine"]
FEW = {"steps": 6, "encoder_steps": 4, "most": 4, "portion": 5}


def a_run(folder, variant=IMAGES, seed=0, **changes):
    recipe = variant.recipe("official", "smoke")
    recipe = dataclasses.replace(recipe, options=step("synthesis", **(recipe.options.kwargs() | FEW | changes)))
    return Run(recipe, seed, "cpu", folder, "digest")


@pytest.fixture(scope="module")
def splits(few_synthetic):
    return Protocol("official").split(few_synthetic)


@pytest.fixture(scope="module")
def fitted(splits, tmp_path_factory):
    run = a_run(tmp_path_factory.mktemp("images"))
    return run, IMAGES.fit(splits, run)


# ---- the stand-in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "parameters"), [("tiny", 27_825_511), ("small", 49_460_071), ("base", 87_573_639), ("large", 196_241_095)]
)
def test_the_proxy_is_a_convnext_of_every_size(size, parameters):
    with torch.device("meta"):
        assert count_parameters(sdafe.FernextProxy(size)) == parameters


def test_the_proxy_takes_imagenet_weights_and_computes_what_torchvision_does():
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    torch.manual_seed(0)
    theirs = ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=1000).eval()
    proxy = sdafe.FernextProxy(widths=(8, 16), depths=(1, 1)).eval()
    head = proxy.classifier[2].weight.clone()
    proxy.load_pretrained(theirs.state_dict())
    assert torch.equal(proxy.classifier[2].weight, head)
    images = torch.rand(2, 1, 48, 48)
    theirs.classifier[2] = proxy.classifier[2]
    torch.testing.assert_close(proxy(images), theirs(proxy.grey(images)))
    with pytest.raises(FerReproError, match="do not fit FernextProxy"):
        proxy.load_pretrained({"features.0.0.weight": torch.zeros(3)})
    with pytest.raises(FerReproError, match="unknown size"):
        sdafe.FernextProxy("huge")


def test_only_the_claimed_protocol_asks_for_anything_from_outside():
    for name in ARMS:
        official, claimed = (papers.get(name).recipe(protocol, "full") for protocol in papers.PROTOCOLS)
        assert official.pretrained is None and official.options["generator"] == "mini_diffusion"
        assert claimed.pretrained == sdafe.WEIGHTS and claimed.options["generator"] == "stable-diffusion"
        assert official.protocol.train == claimed.protocol.train == ("Training",)
        assert official.stages[0].epochs == claimed.stages[0].epochs == 40
        assert "fernext-proxy" in official.network.name and "our reading" in str(claimed.deviations)
    assert sdafe.WEIGHTS.name.split(".")[0] in dir(__import__("torchvision").models)
    assert pretrained.locate(dataclasses.replace(sdafe.WEIGHTS, file="no-such-file")) is None


# ---- Training only ---------------------------------------------------------------------------------------------------


def test_nothing_but_training_is_seen(fitted, splits, few_synthetic):
    run, classifier = fitted
    sources = set(few_synthetic.ids[few_synthetic.usage == "Training"])
    neutral = set(few_synthetic.ids[(few_synthetic.usage == "Training") & (few_synthetic.labels == 6)])
    made = classifier.generated
    assert set(made.seen) == sources and set(made.source) <= neutral
    facts = run.facts
    assert facts["fitted_on"] == {
        "n": len(sources),
        "usages": ["Training"],
        "ids_sha256": generated.ids_digest(sources),
    }
    used = set(made.source.tolist())
    assert facts["sources"] == {"n": len(used), "usages": ["Training"], "ids_sha256": generated.ids_digest(used)}
    assert facts["images_sha256"] == made.digest() and facts["status"] == "done"
    with np.load(run.folder / synthesis.STORE, allow_pickle=False) as stored:
        assert np.array_equal(stored["images"], made.images) and np.array_equal(stored["seen"], made.seen)


def test_held_out_images_cannot_change_a_generated_face(fitted, few_synthetic, tmp_path):
    """Other pictures and other labels in PublicTest and PrivateTest: the same generator, filters and faces."""
    held = few_synthetic.usage != "Training"
    images, labels = np.array(few_synthetic.images), np.array(few_synthetic.labels)
    images[held] = np.random.default_rng(1).integers(0, 256, images[held].shape)
    labels[held] = (labels[held] + 1) % 7
    other = dataclasses.replace(few_synthetic, images=images, labels=labels)
    run = a_run(tmp_path)
    again = IMAGES.fit(Protocol("official").split(other), run)
    assert again.generated.digest() == fitted[1].generated.digest()
    assert np.array_equal(again.generated.cosine, fitted[1].generated.cosine)
    facts = {key: value for key, value in run.facts.items() if key != "seconds"}
    assert facts == {key: value for key, value in fitted[0].facts.items() if key != "seconds"}


@pytest.mark.parametrize("name", ["sdafe-images", "sdafe", "sdafe-real-only"])
def test_other_images_are_refused(name, few_synthetic, tmp_path):
    merged = Protocol("merged", train=("Training", "PublicTest")).split(few_synthetic)
    variant = papers.get(name)
    with pytest.raises(FerReproError, match="may see Training images only, got images of PublicTest"):
        variant.fit(merged, a_run(tmp_path, variant))


def test_the_judge_of_a_face_has_not_seen_its_source(splits, tmp_path, monkeypatch):
    taught, asked = [], []
    loss, cosines = synthesis.mini_clip.ContrastiveLoss, synthesis.mini_clip.cosines
    monkeypatch.setattr(
        synthesis.mini_clip,
        "ContrastiveLoss",
        lambda images, *rest: taught.append(images.numpy()) or loss(images, *rest),
    )
    monkeypatch.setattr(
        synthesis.mini_clip, "cosines", lambda net, images, device: asked.append(images) or cosines(net, images, device)
    )
    maker = synthesis.Maker(splits.train, a_run(tmp_path), lambda save: None)
    label_filter = maker._mini_clip()
    judge, judged_by = label_filter.cosines, label_filter.judge
    pictures = np.asarray(splits.train.images)
    seen = [{image.tobytes() for image in part} for part in taught]
    assert seen[0] | seen[1] == {image.tobytes() for image in pictures} and not seen[0] & seen[1]
    assert all(pictures[i].tobytes() not in seen[judged_by[i]] for i in range(len(pictures)))
    rows = judge(pictures, judged_by)
    both = [judge(pictures, np.full(len(pictures), index)) for index in (0, 1)]
    assert np.array_equal(rows, np.where((judged_by == 0)[:, None], *both)) and not np.array_equal(*both)


# ---- resuming --------------------------------------------------------------------------------------------------------


def test_a_run_that_is_killed_again_and_again_ends_the_same(fitted, splits, tmp_path, monkeypatch):
    """Every third step the process "dies" without a chance to save; what was saved before is not done again."""
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    calls, steps = [], []

    class Killed(BaseException):
        pass

    def pause_of(run):
        left = [4]

        def pause(save):
            calls.append(1)
            left[0] -= 1
            if not left[0]:
                raise Killed

        return pause

    learn = training._State.run

    def counted(state, loss, number):
        return learn(state, lambda *a: steps.append(state.setup.folder.name) or loss(*a), number)

    monkeypatch.setattr(training._State, "run", counted)
    for attempt in range(40):
        run = a_run(tmp_path)
        try:
            again = synthesis.Maker(splits.train, run, pause_of(run)).make()
            break
        except Killed:
            assert attempt < 39
    assert attempt >= 4
    assert again.generated.digest() == fitted[1].generated.digest()
    whole = {"encoder-1": 4, "encoder-2": 4, "denoiser": 6}
    for name, number in whole.items():
        assert number <= steps.count(name) < 2 * number + 2, name
    probabilities = (c.predict_proba(splits.test.images) for c in (again, fitted[1]))
    assert np.array_equal(*probabilities)


def test_a_stopped_run_says_so_and_goes_on(fitted, splits, tmp_path):
    run = a_run(tmp_path)
    run.deadline = time.monotonic()
    with pytest.raises(Interrupted, match="sdafe-images: stopped .*time budget.*goes on"):
        IMAGES.fit(splits, run)
    run = a_run(tmp_path)
    assert IMAGES.fit(splits, run).generated.digest() == fitted[1].generated.digest()
    assert {row["stage"] for row in run.history} == {"encoders", "generator", "candidates", "filters"}


def test_another_setting_is_another_run(fitted, splits, tmp_path):
    IMAGES.fit(splits, a_run(tmp_path))
    with pytest.raises(FerReproError, match="belongs to another settings"):
        IMAGES.fit(splits, a_run(tmp_path, encoder_rate=1e-3))
    other = IMAGES.fit(splits, a_run(tmp_path / "other", seed=1))
    assert other.generated.digest() != fitted[1].generated.digest()


# ---- the arms --------------------------------------------------------------------------------------------------------


def test_an_arm_takes_the_faces_of_the_shared_run(fitted, splits, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(sdafe.loop, "fit", lambda build, splits, run: seen.update(train=splits.train) or NoFit(run))
    for name in ARMS:
        run = a_run(tmp_path / name, papers.get(name))
        run.required = {"sdafe-images": fitted[1]} if papers.get(name).requires else {}
        proxy = papers.get(name).fit(splits, run)
        made = [row for row in seen["train"].ids if row.startswith("generated from ")]
        assert bool(made) <= (name not in ARMS[1:3]) and len(seen["train"]) > len(splits.train)
        assert set(seen["train"].usage) == {"Training"}
        assert sum(row["generated"] for row in run.facts["added"]) == len(set(made))
        assert run.facts.get("images", {}).get("images_sha256") == (
            fitted[1].generated.digest() if papers.get(name).requires else None
        )
        assert (proxy.generated is fitted[1].generated) == bool(papers.get(name).requires)
    run = a_run(tmp_path / "strange", papers.get("sdafe"), strength=0.9)
    run.required = {"sdafe-images": fitted[1]}
    with pytest.raises(FerReproError, match="needs the faces of sdafe-images with its own settings"):
        papers.get("sdafe").fit(splits, run)
    run.required = {}
    with pytest.raises(FerReproError, match="sdafe adds the faces of sdafe-images, and none were given"):
        papers.get("sdafe").fit(splits, run)


class NoFit:
    """What an arm gets back where only its training set is of interest."""

    def __init__(self, run):
        self.model, self.recipe, self.device = torch.nn.Identity(), run.recipe, "cpu"


def test_two_arms_of_a_seed_generate_once(tmp_path):
    """Through `reproduce`, with a runs folder that stays."""
    said: dict[str, list[str]] = {}
    digests = set()
    for name in ("sdafe-unfiltered", "sdafe"):
        lines = said.setdefault(name, [])
        with listening(lines.append):
            result = reproduce(name, profile="smoke", device="cpu", runs_dir=tmp_path / "runs")
        digests.add(result.record["facts"]["images"]["images_sha256"])
    assert len(digests) == 1
    assert any("denoiser: step" in line for line in said["sdafe-unfiltered"])
    assert not any("denoiser: step" in line for line in said["sdafe"])


# ---- the page --------------------------------------------------------------------------------------------------------


def test_the_page_shows_faces_and_rates(monkeypatch):
    parameters = {
        "variant": "sdafe",
        "protocol": "official",
        "profile": "smoke",
        "seed": 0,
        "data": "",
        "device": "cpu",
        "epochs": None,
        "results_dir": "",
        "runs_dir": "",
        "resume": True,
    }
    chapter = page.open_chapter("sdafe", parameters)
    chapter.run()
    result = chapter.result
    made = result.classifier.generated
    grid = figures.faces(result)
    assert "synthetic faces" in grid.alt and f"angry {min(8, (made.classes == 0).sum())}" in grid.alt
    rates = figures.acceptance(result)
    assert f"{made.accepted.sum()} of {len(made.classes)}" in rates.plain and "synthetic faces" in rates.body
    assert "<figure>" in figures.filtered(result).body
    arms = figures.arms(result, chapter.results_dir)
    assert all(f"<code>{name}</code>" in arms.body for name in ARMS)
    assert "8,296" in figures.wanted().body and "19,546" in figures.wanted().body
    assert "2,919" in figures.distance().body
    # a stored result has no classifier: the page says where the faces are instead of failing
    result.classifier = None
    assert "a stored result keeps none" in figures.faces(result).body
    assert f"{made.accepted.sum()} of {len(made.classes)}" in figures.filtered(result).plain


def test_nothing_is_called_what_it_is_not():
    from fer_repro.page.networks import architecture
    from fer_repro.papers import model_name

    assert model_name("sdafe") == "fernext-proxy" and "fernext-proxy" in architecture("sdafe").alt
    assert "FERNeXt" not in architecture("sdafe").alt and "sdafe-images" in architecture("sdafe-images").alt


def test_the_splits_that_an_arm_selects_and_scores_on_stay_as_they_are(splits, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(sdafe.loop, "fit", lambda build, splits, run: given.update(splits=splits) or NoFit(run))
    papers.get("sdafe-oversampled").fit(splits, a_run(tmp_path, papers.get("sdafe-oversampled")))
    assert isinstance(given["splits"], Splits)
    assert given["splits"].select is splits.select and given["splits"].test is splits.test


def test_a_run_does_not_continue_weights_of_other_faces(splits, fitted, tmp_path):
    """Other faces are other data: the same folder must refuse them, and take the same ones up again."""
    arm, maker = papers.get("sdafe-unfiltered"), fitted[1]

    def fit_with(classifier):
        run = a_run(tmp_path, arm)
        run.required = {"sdafe-images": classifier}
        return arm.fit(splits, run)

    first, again = fit_with(maker), fit_with(maker)
    kept, taken_up = first.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(kept[name], taken_up[name]) for name in kept)
    other = copy.copy(maker)
    other.generated = dataclasses.replace(maker.generated, images=255 - maker.generated.images)
    with pytest.raises(FerReproError, match="data set"):
        fit_with(other)
