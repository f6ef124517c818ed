"""Ad-Corre: the losses equal the released formulas, have gradients and floors, and are part of a resumed run."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from torch import nn

from fer_repro import data, papers
from fer_repro.claims import claim_of
from fer_repro.errors import FerReproError
from fer_repro.evaluation import cost
from fer_repro.markup import SYNTHETIC
from fer_repro.papers import ad_corre
from fer_repro.papers.ad_corre import figures, losses
from fer_repro.papers.ad_corre.losses import AdCorreLoss, RunningRecall, floor, floor_of_features, pair_weights
from fer_repro.training import checkpoint
from fer_repro.training.optim import make_optimiser, make_schedule
from fer_repro.training.run import Interrupted, Run

CHAPTER = Path(__file__).parents[2] / "chapters" / "papers" / "ad-corre.ipynb"
ALL = torch.tensor([0, 1, 2, 3, 4, 5, 6, 3, 3, 0, 6, 5])
LACKING = torch.tensor([0, 0, 2, 3, 3, 3, 6, 6])  # no disgust, sad, surprise


def random_embeddings(count, k=7, dimensions=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, k, dimensions, generator=generator)
    return nn.functional.normalize(rows, dim=-1).requires_grad_()


def numpy_terms(embeddings, labels):
    """ED, FD, MD from their definitions, entry by entry in float64."""
    e, y = embeddings.detach().double().numpy(), labels.numpy()
    count, k, _ = e.shape
    ed = [
        0 if j == m else 1 + np.corrcoef(e[i, j], e[i, m])[0, 1]
        for i, j, m in product(range(count), range(k), range(k))
    ]
    fd = [
        abs((1 if y[a] == y[b] else -1) - np.corrcoef(e[a, j], e[b, j])[0, 1])
        for j, a, b in product(range(k), range(count), range(count))
    ]
    means = np.array(
        [[np.average(e[:, j], axis=0, weights=np.where(y == c, 1, 1e-7)) for c in range(7)] for j in range(k)]
    )
    md = [
        0 if c == d else 1 + np.corrcoef(means[j, c], means[j, d])[0, 1]
        for j, c, d in product(range(k), range(7), range(7))
    ]
    return {"ED": np.mean(ed), "FD": np.mean(fd), "MD": np.mean(md)}


def ours(embeddings, labels):
    return {
        "ED": losses.embedding_discriminator(embeddings),
        "FD": losses.feature_discriminator(embeddings, labels),
        "MD": losses.mean_discriminator(embeddings, labels),
    }


# ---- the three terms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [ALL, LACKING, torch.tensor([4, 4, 4])], ids=["all", "lacking", "one class"])
@pytest.mark.parametrize("k", [2, 7, 10])
def test_values_are_those_of_the_released_formulas(labels, k):
    embeddings = random_embeddings(len(labels), k)
    expected, released = numpy_terms(embeddings, labels), figures.released_terms(embeddings, labels)
    for name, value in ours(embeddings, labels).items():
        assert value.item() == pytest.approx(expected[name], abs=2e-6), name
        assert released[name].item() == pytest.approx(expected[name], abs=1e-6), name


def test_correlation_ignores_level_and_length_and_survives_a_constant_row():
    rows = torch.randn(5, 40, generator=torch.Generator().manual_seed(1))
    found = losses.correlation(rows)
    np.testing.assert_allclose(found, np.corrcoef(rows.double()), atol=1e-6)
    torch.testing.assert_close(losses.correlation(3 * rows + 5), found, atol=1e-5, rtol=0)
    twice = losses.correlation(torch.stack((rows[0], rows[0], torch.ones(40))))
    torch.testing.assert_close(twice, torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 0]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", losses.TERMS)
def test_every_term_has_a_gradient_here_and_none_as_released(name):
    embeddings = random_embeddings(len(ALL))
    (gradient,) = torch.autograd.grad(ours(embeddings, ALL)[name], embeddings)
    assert gradient.isfinite().all() and gradient.norm() > 1e-3
    released = figures.released_terms(embeddings, ALL)[name]
    assert not released.requires_grad and figures.gradient_norm(released, embeddings) is None
    total = embeddings.square().sum() + released
    (cut,) = torch.autograd.grad(total, embeddings)
    torch.testing.assert_close(cut, 2 * embeddings.detach())


@pytest.mark.parametrize("name", losses.TERMS)
def test_every_term_reaches_the_first_convolution(name):
    network = ad_corre.build(ad_corre.recipe("ad-corre", "official", "smoke"))
    _, embeddings = network(torch.rand(7, 1, 48, 48) * 2 - 1)
    ours(embeddings, torch.arange(7))[name].backward()
    assert network.entry[0].weight.grad.norm() > 0
    assert network.classify.weight.grad is None, "only the cross-entropy trains the classifier"


def simplex(m, dimensions=32):
    """m vectors whose correlations are all -1/(m-1)."""
    return nn.functional.pad(torch.eye(m) - 1 / m, (0, dimensions - m))


@pytest.mark.parametrize(("k", "lowest"), [(7, 5 / 7), (10, 0.8), (2, 0.0)])
def test_the_floor_of_ed_is_reached_by_a_simplex_and_never_undercut(k, lowest):
    assert floor(k) == pytest.approx(lowest)
    assert floor(k) == pytest.approx((1 - 1 / (k - 1)) * k * (k - 1) / k**2)
    best = simplex(k).expand(3, k, -1)
    assert losses.embedding_discriminator(best).item() == pytest.approx(lowest, abs=1e-6)
    for seed in range(5):
        assert losses.embedding_discriminator(random_embeddings(4, k, 6, seed)) > lowest - 1e-6


def test_the_floors_of_fd_and_md_are_reached_by_a_simplex():
    labels = torch.arange(7).repeat_interleave(3)
    best = simplex(7)[labels][:, None].expand(-1, 4, -1)
    assert floor_of_features(labels) == pytest.approx(5 / 7)
    assert losses.feature_discriminator(best, labels).item() == pytest.approx(5 / 7, abs=1e-6)
    assert losses.mean_discriminator(best, labels).item() == pytest.approx(floor(7), abs=1e-5)


@pytest.mark.parametrize("counts", [(4, 4), (5, 3), (3, 2, 2), (6, 2, 1), (2, 2, 2, 1)])
def test_the_floor_of_fd_holds_for_unequal_classes(counts):
    """Reached where one direction per class can be found, by descent; never undercut on the way."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    lowest = floor_of_features(labels)
    directions = torch.randn(len(counts), 8, generator=torch.Generator().manual_seed(2)).requires_grad_()
    optimiser, value = torch.optim.Adam([directions], lr=0.05), torch.tensor(math.inf)
    for _ in range(400):
        value = losses.feature_discriminator(directions[labels][:, None], labels)
        assert value > lowest - 1e-5
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    assert value.item() == pytest.approx(lowest, abs=5e-3)


def test_opposite_classes_satisfy_fd():
    row = torch.randn(16, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([3, 6, 6, 3])
    embeddings = torch.where(labels == 3, 1.0, -1.0)[:, None, None] * row
    assert losses.feature_discriminator(embeddings, labels).item() == pytest.approx(0, abs=1e-6)
    wrong = losses.feature_discriminator(embeddings, torch.tensor([3, 3, 6, 6]))
    assert wrong.item() == pytest.approx(1.0, abs=1e-6), "half of the pairs at distance 2"


# ---- adaptivity ------------------------------------------------------------------------------------------------------


def test_running_recall_is_that_of_the_last_predictions():
    rng, memory, seen = np.random.default_rng(0), RunningRecall(30), ([], [])
    for size in (8, 8, 8, 8, 5, 8, 47):
        labels, answers = rng.integers(0, 6, size), rng.integers(0, 7, size)
        recall = memory(torch.eye(7)[torch.tensor(answers)], torch.tensor(labels))
        seen[0].extend(labels), seen[1].extend(answers)
        last = [part[-30:] for part in seen]
        share = confusion_matrix(*last, normalize="true", labels=range(7)).diagonal()
        np.testing.assert_allclose(recall, share, rtol=1e-6)
    assert recall[6] == 0, "a class that never occurred counts as always missed"


def test_pairs_weigh_from_one_to_three():
    recall = torch.tensor([1.0, 0.0, 0.75, 0.5, 0.5, 0.5, 0.5])
    found = pair_weights(recall, torch.tensor([0, 1, 2, 0]))
    expected = [[0, 2, 1.25, 1], [2, 0, 2.25, 2], [1.25, 2.25, 0, 1.25], [1, 2, 1.25, 0]]
    torch.testing.assert_close(found, torch.tensor(expected))
    assert pair_weights(torch.zeros(7), ALL).max() == 3 and pair_weights(torch.ones(7), ALL).max() == 1


def test_the_loss_follows_the_history():
    """The same batch weighs less once its classes have been recognised a thousand times."""
    embeddings, logits = random_embeddings(len(ALL)), torch.eye(7)[ALL]
    loss = AdCorreLoss()
    for _ in range(2):
        loss.parts((torch.eye(7)[(ALL + 1) % 7], embeddings), ALL)
    missed = loss.parts((logits, embeddings), ALL)["FD"]
    for _ in range(90):
        known = loss.parts((logits, embeddings), ALL)["FD"]
    assert missed > 1.5 * known
    plain = losses.feature_discriminator(embeddings, ALL)
    assert known.item() == pytest.approx(plain.item(), abs=1e-6), "the diagonal weighs nothing, and is 0 anyway"


# ---- the whole loss --------------------------------------------------------------------------------------------------


def test_the_total_is_fifty_sevenths_of_cross_entropy_and_the_terms():
    embeddings = random_embeddings(len(ALL))
    logits = torch.randn(len(ALL), 7, generator=torch.Generator().manual_seed(3))
    entropy = nn.functional.cross_entropy(logits, ALL).item()
    expected = 50 / 7 * entropy + sum(numpy_terms(embeddings, ALL).values())
    assert AdCorreLoss(adaptive=False)((logits, embeddings), ALL).item() == pytest.approx(expected, abs=1e-5)
    assert AdCorreLoss(terms=())((logits, embeddings), ALL).item() == pytest.approx(50 / 7 * entropy, abs=1e-5)
    hopeless = torch.full((1, 7), -100.0).index_fill_(1, torch.tensor(3), 0.0)
    clipped = AdCorreLoss(terms=())((hopeless, embeddings[:1]), torch.tensor([0]))
    assert clipped.item() == pytest.approx(-50 / 7 * math.log(1e-7), abs=1e-4)


def test_the_loss_needs_no_host_device_synchronisation():
    """Tensors without values run through all of it; asking one for its value would be an error."""
    with torch.device("meta"):
        loss = AdCorreLoss()
        value = loss((torch.zeros(50, 7), torch.zeros(50, 7, 256)), torch.zeros(50, dtype=torch.long))
    assert value.is_meta and value.shape == ()
    with pytest.raises(RuntimeError):
        value.item()


def test_what_the_loss_cannot_score_is_one_sentence():
    logits, embeddings = torch.zeros(3, 7), random_embeddings(3)
    for output, targets in ((logits, ALL[:3]), ((logits, embeddings), torch.eye(7)[:3])):
        with pytest.raises(FerReproError, match="take mixup out"):
            AdCorreLoss()(output, targets)
    with pytest.raises(FerReproError, match="unknown terms.*expected some of ED, FD, MD"):
        AdCorreLoss(terms=("FD", "XD"))


# ---- a run -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faces():
    return data.load("synthetic", size=(70, 35, 35))


def a_run(folder, looks=None, name="ad-corre"):
    recipe = ad_corre.recipe(name, "official", "smoke")
    loss = dataclasses.replace(recipe.loss, options=tuple(sorted((recipe.loss.kwargs() | {"history": 37}).items())))
    recipe = dataclasses.replace(recipe, stages=(recipe.stages[0].shortened(3),), loss=loss)
    run = Run(recipe, 0, "cpu", folder, "d" * 64)
    if looks is not None:
        left = iter(range(looks))
        run.out_of_time = lambda ahead=0.0: next(left, None) is None
    return run


def state_of(run):
    identity = {"recipe": run.recipe.sha256(), "data set": run.data_digest, "seed": 0, "device": "cpu"}
    return checkpoint.load(run.folder, identity)


def test_a_resumed_run_equals_the_uninterrupted_one(faces, tmp_path):
    splits = ad_corre.recipe("ad-corre", "official", "smoke").protocol.split(faces)
    straight = a_run(tmp_path / "straight")
    ad_corre.fit(splits, straight)
    expected = state_of(straight)
    for looks in (3, 4):  # inside the first epoch, then inside the second
        with pytest.raises(Interrupted):
            ad_corre.fit(splits, a_run(tmp_path / "stopped", looks))
    kept = state_of(a_run(tmp_path / "stopped"))["loss"]
    assert set(kept) == {"recall.labels", "recall.answers", "recall.next"} and kept["recall.labels"].min() >= 0
    resumed = a_run(tmp_path / "stopped")
    ad_corre.fit(splits, resumed)
    found = state_of(resumed)
    for part in ("model", "loss"):
        assert found[part].keys() == expected[part].keys()
        for name, tensor in expected[part].items():
            assert torch.equal(found[part][name], tensor), name
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in expected["history"]]
    assert [{key: value for key, value in row.items() if key != "seconds"} for row in found["history"]] == rows


def test_the_history_is_what_makes_a_resumed_run_equal(faces, tmp_path, monkeypatch):
    """The comparison above would notice a loss that begins anew."""
    splits = ad_corre.recipe("ad-corre", "official", "smoke").protocol.split(faces)
    straight = a_run(tmp_path / "straight")
    ad_corre.fit(splits, straight)
    with pytest.raises(Interrupted):
        ad_corre.fit(splits, a_run(tmp_path / "stopped", 6))
    monkeypatch.setattr(AdCorreLoss, "load_state_dict", lambda self, state: None)
    resumed = a_run(tmp_path / "stopped")
    ad_corre.fit(splits, resumed)
    assert resumed.history[-1]["loss"] != straight.history[-1]["loss"]


# ---- network and recipes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "total"), [("ad-corre", 24_545_839), ("ad-corre-ten-embeddings", 26_124_847)])
def test_the_network_is_kerass(name, total):
    recipe = ad_corre.recipe(name, "official", "full")
    with torch.device("meta"):
        network = ad_corre.build(recipe)
        network.eval()
        maps = network.entry(network.colour(torch.zeros(2, 1, 224, 224)))
        logits, embeddings = network(torch.zeros(2, 1, 224, 224))
    assert maps.shape == (2, 728, 14, 14) and network.exit(network.middle(maps)).shape == (2, 2048, 7, 7)
    assert logits.shape == (2, 7) and embeddings.shape == (2, recipe.network["embeddings"], 256)
    statistics = sum(b.numel() for n, b in network.named_buffers() if n.endswith(("running_mean", "running_var")))
    assert statistics == 54_528 and cost.count_parameters(network) + statistics == total
    assert cost.count_multiply_adds(network, (1, 1, 224, 224)) == pytest.approx(4.55e9, rel=2e-3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-3, 0.01)
        if isinstance(module, nn.Conv2d):
            assert module.bias is None


@pytest.mark.parametrize("edge", [109, 55, 28, 14])
def test_pooling_pads_as_keras_does(edge):
    maps = -torch.rand(1, 2, edge, edge) - 1
    out = -(-edge // 2)
    missing = (out - 1) * 2 + 3 - edge
    padded = nn.functional.pad(maps, (missing // 2, missing - missing // 2) * 2, value=-math.inf)
    assert torch.equal(ad_corre.max_pool_same(maps), nn.functional.max_pool2d(padded, 3, 2))


def test_embeddings_have_length_one_and_feed_the_classifier():
    network = ad_corre.build(ad_corre.recipe("ad-corre-ten-embeddings", "official", "smoke")).eval()
    logits, embeddings = network(torch.rand(3, 1, 48, 48) * 2 - 1)
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(3, 10))
    torch.testing.assert_close(network.classify(embeddings.flatten(1)), logits)


def test_what_each_variant_minimises():
    embeddings, logits = random_embeddings(7), torch.zeros(7, 7)
    found = {}
    for name in ad_corre.KINDS:
        for protocol in papers.PROTOCOLS:
            options = ad_corre.recipe(name, protocol, "full").loss.kwargs()
            found[name] = set(AdCorreLoss(**options).parts((logits, embeddings), torch.arange(7)))
    whole = {"CE", "ED", "FD", "MD"}
    assert found == {"ad-corre": whole, "ad-corre-ten-embeddings": whole, "ad-corre-cross-entropy": {"CE"}}
    assert AdCorreLoss(**ad_corre.recipe("ad-corre", "official", "full").loss.kwargs()).recall is not None


def test_the_claimed_protocol_merges_the_test_sets_and_says_oracle(few_synthetic):
    recipe = ad_corre.recipe("ad-corre", "claimed", "full")
    splits = recipe.protocol.split(few_synthetic)
    assert len(splits.train.labels) == 210 and len(splits.select.labels) == len(splits.test.labels) == 140
    assert list(recipe.protocol.test) == list(claim_of("ad-corre").audit.usages)
    assert recipe.selection.name(recipe.protocol) == (
        "best epoch on PublicTest+PrivateTest (the scored images: an oracle)"
    )


@pytest.mark.parametrize("name", ad_corre.KINDS)
@pytest.mark.parametrize("protocol", papers.PROTOCOLS)
def test_every_recipe_says_that_it_starts_from_random_weights(name, protocol):
    deviations = [d.what for d in ad_corre.recipe(name, protocol, "full").deviations]
    assert sum("RANDOM INITIAL WEIGHTS instead of ImageNet's" in what for what in deviations) == 1
    assert any("k = 7 embeddings" in what for what in deviations) == (name != "ad-corre-ten-embeddings")


def test_the_learning_rate_decays_as_in_keras():
    stage = ad_corre.recipe("ad-corre", "official", "full").stages[0]
    weight = nn.Parameter(torch.zeros(1))
    optimiser = make_optimiser(stage.optimiser, [weight])
    schedule = make_schedule(stage.schedule, optimiser, stage.epochs, 575)
    for done in range(1000):
        assert optimiser.param_groups[0]["lr"] == pytest.approx(1e-3 / (1 + 1e-5 * done))
        optimiser.step()
        schedule.after_batch()


# ---- the chapter -----------------------------------------------------------------------------------------------------


def test_the_gradient_table_shows_what_the_release_lacks():
    terms = {term.name: term for term in figures.measure_gradients("ad-corre", 0)}
    for name in losses.TERMS:
        term = terms[name]
        assert term.norm > 0 and term.released_norm is None
        assert term.value == pytest.approx(term.released, abs=1e-5) and term.value >= term.lowest
    total = terms["CE + ED + FD + MD"]
    assert total.released_norm == pytest.approx(terms["CE"].norm) and total.norm != total.released_norm
    assert total.value == pytest.approx(total.released, abs=1e-4), "the printed loss is the same"
    assert terms["FD"].norm < terms["FD, adaptive"].norm < 3.01 * terms["FD"].norm


def test_the_gradient_table_has_a_plain_text_too():
    found = figures.gradients("ad-corre-ten-embeddings", 0)
    assert (
        re.search(r"ED 0\.\d+ here, none released", found.plain)
        and SYNTHETIC in found.plain
        and SYNTHETIC in found.body
    )
    assert found.body.count(">none<") == 3 and found.body.count(">not called<") == 2 and "unknown" not in found.body


def test_overfitting_a_batch_separates_its_classes():
    panels, labels = figures.measure_correlations(0)
    untrained, without, whole = panels
    assert all(one.faces.shape == (len(labels),) * 2 and one.embeddings.shape == (7, 7) for one in panels)
    assert untrained.within - untrained.between < 0.2
    for one in (without, whole):
        assert one.within > 0.8 and one.between < 0 and min(one.terms) > 0.7
    assert whole.terms[0] < without.terms[0] - 0.02, "only the whole loss separates the embeddings of a face"
    assert figures._matrices(panels, labels.numpy()).remark == SYNTHETIC


def test_the_disgust_row_of_the_published_matrix_needs_111_images():
    """The chapter's arithmetic: which row sums give the printed percentages, and how."""
    prose = "\n".join("".join(cell["source"]) for cell in json.loads(CHAPTER.read_text())["cells"])
    rows = dict(re.findall(r"^\| (printed, %|images of 111) \|(.+)\|$", prose, flags=re.M))
    printed, images = ([cell.strip() for cell in rows[name].split("|")] for name in ("printed, %", "images of 111"))

    def solutions(total):
        fitting = []
        for share in printed:
            digits = len(share.partition(".")[2])
            fitting.append([n for n in range(total + 1) if f"{100 * n / total:.{digits}f}" == share])
        return [counts for counts in product(*fitting) if sum(counts) == total]

    assert solutions(111) == [tuple(int(n) for n in images)]
    assert solutions(55) == solutions(56) == []
