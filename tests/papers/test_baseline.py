"""The plain network and its recipe, and what its chapter computes from stored runs and claims."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made_results import made_record

from fer_repro import page, papers, parameters, results
from fer_repro.claims import declared_parameters, leaderboard_claims
from fer_repro.data import LABELS
from fer_repro.errors import FerReproError
from fer_repro.evaluation import cost
from fer_repro.evaluation.statistics import mean_interval, wilson
from fer_repro.layers import ResidualBlock
from fer_repro.papers.baseline import EPOCHS, PlainResNet, comparison, figures, plain, recipe_search
from fer_repro.reproduce import reproduce
from fer_repro.results import HALVES, Result
from fer_repro.transfer.export import model_card

N = 3589


def made_run(seed: int = 0, right: int = 2400, flipped: int = 2450, minutes: float = 80.0, **changes) -> Result:
    """A full run with ``right`` images of either test set right on the plain images, ``flipped`` with flips; each
    seed is wrong on other images."""
    predictions = {}
    for half in HALVES:
        labels = np.arange(N) % len(LABELS)
        predictions |= {f"{half}_ids": np.array([f"{half}_{i}" for i in range(N)]), f"{half}_labels": labels}
        for kind, count in (("plain", right), ("views", flipped)):
            wrong = np.roll(np.arange(N) >= count, 700 * seed)
            taken = (labels + wrong) % len(LABELS)
            predictions[f"{half}_{kind}"] = np.where(np.eye(7)[taken] > 0, 0.7, 0.05).astype(np.float16)
    history = pd.DataFrame(
        {
            "stage": "train",
            "epoch": [1, 2],
            "loss": [1.9, 1.5],
            "train_accuracy": [0.45, 0.65],
            "select_accuracy": [0.5, 0.625],
            "seconds": [30 * minutes] * 2,
        }
    )
    own = {"seconds": 60 * minutes, "images_per_second": 100.0, "peak_memory_bytes": None, "device": "cpu"}
    given = {"selected_epoch": 2, "cost": own, "environment": {"cpu": "A <processor>", "gpu": None, "cores": 2}}
    return Result(made_record(predictions, "baseline", seed=seed, **(given | changes)), predictions, history)


def unfinished(seed: int) -> Result:
    """A run that was stopped after the first of two epochs."""
    return made_run(seed, status="interrupted", kind="unfinished", unfinished={"epochs_done": 1, "epochs": 2})


def stored(folder: Path, *runs: Result) -> tuple[Result, Path]:
    """The first of the ``runs``, all of which are stored, and where."""
    for run in runs:
        results.write(run, folder)
    return runs[0], folder


def plain_text(thing) -> str:
    return re.sub(r"<[^>]+>", " ", thing.body)


@pytest.mark.parametrize(("widths", "blocks"), [((32, 64, 128), (2, 2, 2)), ((8, 16), (1, 3))])
def test_widths_and_blocks_are_those_of_the_network(widths, blocks):
    network = PlainResNet(widths, blocks)
    shapes: list[torch.Size] = []
    for one in network.stages:
        assert isinstance(one, ResidualBlock)
        one.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape[1:]))
    assert network(torch.zeros(2, 1, 44, 44)).shape == (2, 7)
    side, expected = 22, []
    for index, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        side = side if index == 0 else -(-side // 2)
        expected += [(width, side, side)] * count
    assert [tuple(shape) for shape in shapes] == expected


def test_the_declared_parameters_are_those_of_the_recipe():
    recipe = papers.get("baseline").recipe("official", "full")
    assert recipe.epochs == EPOCHS
    network = cost.weightless(papers.get("baseline").build, recipe)
    assert cost.count_parameters(network) == declared_parameters("baseline")


def test_every_recipe_of_the_search_but_the_first_changes_one_thing():
    first, *others = [one.recipe for one in recipe_search.TRIED]
    assert len(recipe_search.TRIED) <= 12 and first == plain(recipe_search.EPOCHS)
    for other in others:
        changed = {f.name for f in dataclasses.fields(other) if getattr(other, f.name) != getattr(first, f.name)}
        assert len(changed) == 1, changed
    assert len({one.recipe.sha256() for one in recipe_search.TRIED}) == len(recipe_search.TRIED)


def test_what_is_stored_of_the_search_is_of_these_recipes():
    tried = {one.letter: one for one in recipe_search.TRIED}
    for row in recipe_search.SEARCH.read():
        assert row["recipe_sha256"] == tried[row["recipe"]].recipe.sha256()
        assert row["change"] == tried[row["recipe"]].change and row["n"] == N


# ---- the search ----------------------------------------------------------------------------------------------------


def line(letter: str, correct: int) -> dict:
    found = {"recipe": letter, "correct": correct, "n": N, "accuracy": round(correct / N, 4), "epochs": 6}
    return {**found, "train_accuracy": 0.6011}


def test_the_search_is_read_by_the_interval_of_its_first_recipe():
    chosen = comparison.lengthened(recipe_search.TRIED[2].recipe, 30)
    said = comparison.reading([line("A", 2000), line("B", 1900), line("C", 2030)], chosen)
    assert "3 of 11" in said[0]
    low, high = wilson(2000, N)
    assert 1900 / N < low < 2030 / N < high
    assert "B (-2.79 points)" in said[1] and said[1].endswith("from A: C.")
    assert said[2].startswith("The highest accuracy has C") and "C (A, no label smoothing)" in said[3]
    assert "60.11" in said[2] and "30 epochs instead of 6" in said[3]
    assert said[4].endswith("choice: B, C.")
    other = dataclasses.replace(chosen, batch_size=77)
    assert "none of these" in comparison.reading([line("A", 2000)], other)[-1]


def test_the_recipe_of_the_seeds_is_the_best_of_the_first_search():
    tried = {one["recipe"]: one["accuracy"] for one in recipe_search.SEARCH.read()}
    best = max(recipe_search.EARLIER, key=lambda letter: tried[letter])
    (chosen,) = (one.recipe for one in recipe_search.TRIED if one.letter == best)
    full = papers.get("baseline").recipe("official", "full")
    assert comparison.lengthened(chosen, full.epochs).sha256() == full.sha256()


def test_without_a_search_the_page_names_the_command(tmp_path):
    assert "python -m fer_repro.papers.baseline.recipe_search" in comparison.search(tmp_path).body


# ---- the runs ------------------------------------------------------------------------------------------------------


def test_stored_runs_are_all_seeds_of_todays_recipe(tmp_path):
    for seed in (2, 0):
        results.write(made_run(seed), tmp_path)
    results.write(made_run(5, recipe_sha256="0" * 64), tmp_path)
    assert [run.seed for run in figures.stored_runs(tmp_path)] == [0, 2]
    assert [run.seed for run in figures.runs_of(made_run(1), tmp_path)] == [0, 1, 2]
    assert [run.seed for run in figures.runs_of(made_run(0), tmp_path)] == [0, 2]
    stopped = unfinished(3)
    assert figures.runs_of(stopped, tmp_path) == [stopped]
    assert [run.seed for run in figures.full_runs_of(stopped, tmp_path)] == [0, 2]


@pytest.mark.parametrize("seeds", [1, 3])
def test_five_facts_seeds_and_curves_show_the_runs(seeds, tmp_path):
    runs = [made_run(seed, flipped=2450 + 20 * seed) for seed in range(seeds)]
    values = [(2450 + 20 * seed) / N for seed in range(seeds)]
    mean = f"{100 * np.mean(values):.2f}\u00a0%"
    low, high = mean_interval(values, N)
    given = stored(tmp_path, *runs)
    card, table, picture = figures.five_facts(runs), figures.seeds(*given), figures.accuracy_by_minutes(*given)
    assert mean in card.body and f"{100 * low:.2f} to {100 * high:.2f}" in card.body
    assert "80 min a seed" in card.body and "A &lt;processor&gt;, 2 cores" in card.body
    assert ("standard deviation" in card.body) == (seeds > 1)
    assert (">mean<" in table.body) == (seeds > 1) and table.body.count("<tr>") == 1 + seeds + (seeds > 1)
    assert f"{100 * 2400 / N:.2f}" in table.body and "PrivateTest, flip" in table.body
    axes = picture.canvas().axes[0]
    lines = [one for one in axes.lines if len(one.get_xdata()) == 2 and one.get_marker() == "o"]
    assert len(lines) == seeds and list(lines[0].get_xdata()) == [40.0, 80.0]
    assert "62.50\u00a0% after 80.0 min" in picture.alt


def test_an_unfinished_run_says_so_everywhere(tmp_path):
    run = unfinished(4)
    for shown in (figures.seeds(run, tmp_path), figures.flips(run, tmp_path)):
        assert "unfinished: epoch 1 of 2" in shown.body
    assert "unfinished: epoch 1 of 2" in figures.accuracy_by_minutes(run, tmp_path).alt


def test_it_says_whether_a_run_overfits():
    run = made_run()
    words = plain_text(figures.overfitting(run))
    assert (
        "epoch of this run, 2, the accuracy is 65.00" in words
        and "62.50\u00a0% on PublicTest: 2.50 points less" in words
    )
    assert "it overfits." in words and "The highest accuracy on PublicTest is that of epoch 2, 62.50" in words
    run.history = run.history.assign(train_accuracy=[0.3, 0.6], select_accuracy=[0.64, 0.625])
    words = plain_text(figures.overfitting(run))
    assert "2.50 points more" in words and "it does not overfit." in words and "that of epoch 1, 64.00" in words


def test_recipes_of_the_search_that_were_not_trained_are_named():
    some = [line(letter, 2000) for letter in "ADEFGHIJ"]
    words = " ".join(comparison.reading(some, papers.get("baseline").recipe("official", "full")))
    assert (
        "8 of 11 recipes were trained so far. Not trained: B (A, no augmentation); C (A, no label smoothing); K ("
        in words
    )
    every = [line(letter, 2000) for letter in "ABCDEFGHIJK"]
    assert "Not trained" not in " ".join(comparison.reading(every, papers.get("baseline").recipe("official", "full")))


def test_flips_are_compared_on_the_same_images(tmp_path):
    body = plain_text(figures.flips(made_run(right=2400, flipped=2450), tmp_path))
    assert f"{100 * 50 / N:+.2f}" in body and "below 0.001" in body and "in 1 of them" in body
    same = plain_text(figures.flips(made_run(right=2400, flipped=2400), tmp_path))
    assert "+0.00" in same and "1.000" in same and "in none of them" in same


def test_the_ensemble_averages_probabilities_image_by_image():
    """Two images, two seeds, by hand: a certain network outvotes a doubtful one."""
    first, second = made_run(0), made_run(1)
    sure, doubt = np.eye(7)[[0, 1]] * 0.86 + 0.02, np.full((2, 7), 0.1)
    doubt[0, 2], doubt[1, 1] = 0.4, 0.4
    for run, order, probabilities in ((first, [0, 1], sure), (second, [1, 0], doubt)):
        for half in HALVES:
            run.predictions[f"{half}_ids"] = np.array(["a", "b"])[order]
            run.predictions[f"{half}_labels"] = np.array([0, 1])[order]
            run.predictions[f"{half}_views"] = probabilities[order].astype(np.float16)
    score = figures.ensemble_score([first, second], "PrivateTest")
    assert (score["n"], score["correct"]) == (2, 2) and tuple(score["interval"]) == wilson(2, 2)
    expected = -np.mean(np.log([(0.88 + 0.1) / 2, (0.88 + 0.4) / 2]))
    assert score["log_loss"] == pytest.approx(expected, abs=1e-3)
    second.predictions["PrivateTest_ids"] = np.array(["a", "c"])
    with pytest.raises(FerReproError, match="different images of PrivateTest"):
        figures.ensemble_score([first, second], "PrivateTest")


def test_an_ensemble_needs_two_seeds(tmp_path):
    runs = [made_run(seed) for seed in range(3)]
    assert "at least two seeds" in figures.ensemble(runs[0], tmp_path).body
    three, score = figures.ensemble(*stored(tmp_path, *runs)), figures.ensemble_score(runs, "PrivateTest")
    assert f"{100 * score['accuracy']:.2f}\u00a0% on PrivateTest" in three.plain
    assert f"{100 * (score['accuracy'] - 2450 / N):+.2f} points" in three.plain


# ---- claims and the aim --------------------------------------------------------------------------------------------


def test_a_claim_is_met_where_the_intervals_overlap():
    claim = leaderboard_claims()["local-learning-bow"]
    own = comparison.bounds_of(claim)
    assert own == wilson(claim.accuracy / 100 * N, N)
    assert comparison.place(claim, (own[1], 0.9)) == comparison.ALIKE
    assert comparison.place(claim, (own[1] + 1e-6, 0.9)) == comparison.BELOW
    assert comparison.place(claim, (0.1, own[0] - 1e-6)) == comparison.ABOVE
    unknown = leaderboard_claims()["deep-emotion"]
    assert comparison.bounds_of(unknown) is None
    assert comparison.place(unknown, (0.70, 0.71)) == comparison.ALIKE
    assert comparison.place(unknown, (0.71, 0.72)) == comparison.BELOW


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_claims_are_sorted_by_the_interval(seeds, tmp_path):
    shown = comparison.claims(*stored(tmp_path, *(made_run(seed) for seed in range(seeds))))
    bounds = mean_interval([2450 / N] * seeds, N)
    known = [claim for claim in leaderboard_claims().values() if comparison.bounds_of(claim)]
    met = [claim.model for claim in known if comparison.place(claim, bounds) == comparison.ALIKE]
    assert met == ["Local Learning BOW"]
    assert shown.plain.endswith(
        f"overlaps those of 1 of the {len(known)} claims whose test images are known: {met[0]}."
    )
    assert ("ensemble of 3 seeds" in shown.body) == (seeds == 3)


def test_without_a_full_run_nothing_is_compared(tmp_path):
    stopped = unfinished(0)
    for shown in (comparison.claims(stopped, tmp_path), figures.aim(stopped, tmp_path), figures.five_facts([])):
        assert "fer-repro run baseline" in shown.body and "<figure" not in shown.body


@pytest.mark.parametrize(
    ("flipped", "minutes", "verdict"),
    [
        (2600, 90, "It is reached."),
        (2450, 90, "It is missed in accuracy."),
        (2600, 130, "It is missed in time."),
        (2450, 130, "It is missed in accuracy and in time."),
    ],
)
def test_the_sentence_about_the_aim_follows_the_runs(flipped, minutes, verdict, tmp_path):
    assert figures.aim(made_run(flipped=flipped, minutes=minutes), tmp_path).plain.endswith(verdict)


# ---- the chapter ---------------------------------------------------------------------------------------------------


def test_the_chapter_opens_without_a_claim(tmp_path):
    given = dataclasses.asdict(parameters.ChapterParameters(variant="baseline", results_dir=str(tmp_path)))
    chapter = page.open_chapter("baseline", given)
    assert chapter.claims == []
    with pytest.raises(FerReproError, match="nothing is claimed for baseline"):
        _ = chapter.claim
    assert "equal to the declared number: yes" in chapter.network().plain
    assert page.architecture("baseline").alt.startswith("plain baseline, blocks")


def test_its_card_on_a_hub_names_no_paper():
    variant = papers.get("baseline")
    card = model_card(variant, variant.recipe("official", "full"), "full", 0, made_run())
    assert "A model for which nothing is claimed" in card and "authors" not in card
    assert f"| PrivateTest | views | 2,450 of {N:,} |" in card


def test_a_smoke_run_stands_alone_and_says_so(tmp_path):
    results.write(made_run(0), tmp_path)
    smoke = reproduce("baseline", profile="smoke", epochs=1, device="cpu", results_dir=tmp_path)
    assert figures.runs_of(smoke, tmp_path) == [smoke]
    for shown in (figures.seeds(smoke, tmp_path), figures.flips(smoke, tmp_path)):
        assert "synthetic faces" in shown.body
    assert "synthetic faces" in figures.accuracy_by_minutes(smoke, tmp_path).alt
    assert "mean of 1 seed" in comparison.claims(smoke, tmp_path).body, "what is stored is compared, not the smoke run"


def test_every_part_of_the_recipe_has_a_reason():
    for one in (papers.get("baseline").recipe("official", "full"), *(t.recipe for t in recipe_search.TRIED)):
        body = figures.ingredients(one).body
        assert "<td></td>" not in body and all(str(part.name) in body for part in one.augment)
