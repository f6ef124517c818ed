"""What a published chapter shows: the best evidence on real faces, named for what it is, and no smoke run as if it were
any."""

import json
import re
from importlib import import_module
from pathlib import Path

import pytest
from test_page import SECTIONS, finished, made_up, opened, shown

from fer_repro import page, papers, parameters, reproduce, results
from fer_repro.data import synthetic as synthetic_faces
from fer_repro.markup import SMOKE_TEST, SYNTHETIC, Html, percent
from fer_repro.page import comparison, evidence
from fer_repro.plots.figure import Figure
from fer_repro.project import project_root
from fer_repro.results import NotRecorded

RESULT_SECTIONS = [name for name in SECTIONS if name != "others"]
QUIET = ("curves", "scores", "confusion", "per_class")


def unfinished(variant="vggnet", done=7, **options):
    result = made_up(variant, right=0.55, **options)
    epochs = papers.get(variant).recipe("official", "full").epochs
    result.record |= {"kind": results.UNFINISHED, "status": "interrupted"}
    result.record["unfinished"] = {"epochs_done": done, "epochs": epochs}
    return result


def released(variant="vggnet", halves=("PrivateTest",)):
    """Scores of weights that others published, on one test set by default."""
    result = made_up(variant, right=0.7)
    result.predictions = {name: rows for name, rows in result.predictions.items() if name.startswith(halves)}
    fields = "at file published_file licence conversion trained_on selected_on why differs"
    words = dict.fromkeys(fields.split(), "words")
    result.record |= {
        "kind": results.RELEASED,
        "protocol": results.RELEASED,
        "seed": None,
        "selected_epoch": None,
        "usages": {"test": list(halves)},
        "selection": "words",
        "released": words | {"name": "of-theirs", "sha256": "0" * 64, "url": None},
        "scores": results.score_all(result.predictions, halves=halves),
        "facts": {},
    }
    result.history = result.history.iloc[:0, :0]
    return result


def published(slug, folder):
    chapter = opened(slug, profile="stored", results_dir=str(folder))
    chapter.run()
    return chapter


def texts_of(thing) -> list[str]:
    """What stands in place of a picture and under it; of others the page with the words for its pictures."""
    shown(thing)
    return [thing.alt, thing.figure()] if isinstance(thing, Figure) else [thing.body]


def test_the_best_evidence_comes_first(tmp_path):
    def best():
        found = evidence.best_stored("vggnet", "official", 0, tmp_path)
        return found and (found.kind, found.variant, found.label)

    assert best() is None
    results.write(unfinished("vggnet", seed=1), tmp_path)
    assert best() == ("unfinished", "vggnet", "seed 1")
    results.write(made_up(right=0.6, seed=2), tmp_path)
    assert best() == ("full", "vggnet", "seed 2")
    results.write(unfinished(), tmp_path)
    assert best() == ("unfinished", "vggnet", "")
    results.write(made_up(), tmp_path)
    assert best() == ("full", "vggnet", "")


def test_an_ablation_that_ended_comes_before_released_weights_and_an_unfinished_one(tmp_path):
    ablation, other = "deep-emotion-no-stn", "deep-emotion-wide-localisation"
    for wanted, stored in (
        (f"ablation {other}", unfinished(other)),
        (f"released weights of {ablation}", released(ablation)),
        (f"ablation {other}", made_up(other, right=0.5)),
        (f"ablation {ablation}", made_up(ablation, right=0.6)),
        ("released weights", released("deep-emotion")),
    ):
        results.write(stored, tmp_path)
        found = evidence.best_stored("deep-emotion", "official", 0, tmp_path)
        assert found.label == wanted and found.label in found.note and "decides nothing" in found.note
    assert evidence.best_stored("vggnet", "official", 0, tmp_path) is None, "another paper's evidence is not this one's"


def test_evidence_of_another_network_says_which_one_it_is(tmp_path):
    """A member of the ensemble has no masks: no reader may take its numbers for those of the masking network."""
    results.write(unfinished("residual-masking-resnet18-scratch", done=1), tmp_path)
    other = "Its network is ResNet with 29,890,759 parameters, that of residual-masking is ResidualMaskingNetwork with "
    assert (
        other + "137,796,423. It decides nothing"
        in evidence.best_stored("residual-masking", "official", 0, tmp_path).note
    )
    same = evidence.best_stored("residual-masking-resnet18", "official", 0, tmp_path)
    assert same.label.startswith("ablation") and "Its network" not in same.note


def test_a_chapter_lists_its_own_deviations_also_where_it_shows_another_variants_run(tmp_path):
    results.write(unfinished("residual-masking-resnet18-scratch", done=1), tmp_path)
    own, other = (
        papers.get(v).recipe("official", "full") for v in ("residual-masking", "residual-masking-resnet18-scratch")
    )
    before, folded = published("residual-masking", tmp_path).deviations().body.split("<details>", 1)
    folded = "<details>" + folded.partition("</details>")[0] + "</details>"
    said = str(shown(Html(before, "")))
    assert all(one.what in said for one in own.deviations) and "unfinished" not in said
    assert folded.startswith(
        "<details><summary>Deviations of residual-masking-resnet18-scratch, whose run is shown</summary>"
    )
    assert all(one.what in str(shown(Html(folded, ""))) for one in other.deviations) and "unfinished" in folded


@pytest.mark.parametrize("section", RESULT_SECTIONS)
def test_every_section_of_an_unfinished_run_says_how_far_it_came(tmp_path, section):
    results.write(unfinished(), tmp_path)
    chapter = published("vggnet", tmp_path)
    for words in texts_of(getattr(chapter, section)()):
        assert "unfinished: epoch 7 of 350" in words.lower() and SYNTHETIC not in words.lower(), section


def test_an_unfinished_run_decides_nothing_and_is_beside_the_claim_as_a_kind_of_its_own(tmp_path):
    for result in (unfinished(), unfinished(seed=1)):
        results.write(result, tmp_path)
    box = str(shown(page.verdict("vggnet", tmp_path)))
    assert "not run" in box and "No finished full run" in box
    assert "so far (official protocol, seed 1; unfinished: epoch 7 of 350); it decides nothing" in box
    chapter = published("vggnet", tmp_path)
    run = str(shown(chapter.run()))
    assert "Statusinterrupted, unfinished: epoch 7 of 350; decides nothing" in run and "Unfinished: The run of" in run
    kept = results.read_all(tmp_path, results.UNFINISHED)
    rows = comparison.claim_rows(chapter.claim, kept)
    assert [row.kind for row in rows[1:]] == ["unfinished", "unfinished", "measured"], (
        "the last one: not run as claimed"
    )
    assert [row.label for row in rows[1:3]] == [f"unfinished: epoch 7 of 350, seed {seed}" for seed in (0, 1)]
    assert rows[1].words[1] == "PrivateTest"
    assert "Hollow circles: runs that were stopped" in chapter.beside_the_claim().body
    assert "Hollow circles" not in finished_full(tmp_path).beside_the_claim().body


def finished_full(folder):
    other = folder / "full"
    results.write(made_up(), other)
    return published("vggnet", other)


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    """A published chapter without any evidence; its smoke run has few faces."""
    for module in (synthetic_faces, reproduce):
        monkeypatch.setattr(module, "SMOKE_SIZE", (70, 35, 35))
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def test_without_evidence_a_smoke_run_is_one_closed_block(nothing, capsys):
    chapter = opened("vggnet", profile="stored", results_dir=str(nothing))
    data = str(shown(chapter.data()))
    assert "FER2013" in data and "28,709" in data and SYNTHETIC not in data
    markup = chapter.run().body
    assert capsys.readouterr().out == "", "its log is in the block"
    assert markup.count("<details>") == 1 and "<strong>" not in markup.replace("<strong>Note:</strong>", "")
    before, inside = markup.split("<details>")
    assert f"<summary>{SMOKE_TEST}</summary>" in inside and inside.endswith("</details>")
    said = re.sub(r"<[^>]+>", "", before)
    assert "fer-repro run vggnet --protocol official --profile full --keep-unfinished" in said and "%" not in said
    accuracy = percent(chapter.result.headline["accuracy"])
    assert (
        f"{accuracy} on 35 synthetic faces in the place of PrivateTest" in inside
        and "epoch 1/" in inside
        and inside.count("<figure>") == 2
        and SYNTHETIC in inside
    )
    assert "What the smoke run used instead of the full recipe" in inside


def test_without_evidence_each_section_is_one_quiet_line(nothing):
    chapter = published("vggnet", nothing)
    for section in QUIET:
        thing = getattr(chapter, section)()
        assert thing.body.startswith('<p class="fer-small">') and thing.body.endswith("not run on real faces.</p>")
    assert chapter.show(lambda_of_nothing).plain == "Lambda of nothing: not run on real faces"
    assert chapter.show(lambda_of_nothing, title="Masks").plain == "Masks: not run on real faces"
    deviations = str(shown(chapter.deviations()))
    assert "<details>" not in chapter.deviations().body and SYNTHETIC not in deviations
    assert papers.get("vggnet").recipe("official", "full").sha256()[:16] in str(shown(chapter.recipe()))
    assert "Not in the picture" not in chapter.beside_the_claim().body
    assert "a shrunk network" not in str(shown(chapter.network()))


def lambda_of_nothing(result):
    raise AssertionError("a smoke run is no evidence")


def test_by_hand_a_smoke_run_shows_everything(monkeypatch):
    chapter = finished(monkeypatch, made_up(profile="smoke", data="synthetic", n=140))
    assert isinstance(chapter.confusion(), Figure) and "<details>" not in chapter.run().body
    assert chapter.show(lambda result: result.variant) == "vggnet"


@pytest.mark.parametrize("section", ["data", *RESULT_SECTIONS])
@pytest.mark.parametrize("make", [released, lambda: released(halves=results.HALVES)])
def test_released_weights_are_shown_where_nothing_of_ours_is_stored(tmp_path, section, make):
    results.write(make(), tmp_path)
    chapter = published("vggnet", tmp_path)
    for words in texts_of(getattr(chapter, section)()):
        assert SYNTHETIC not in words.lower()
        if section in ("run", "scores", "confusion", "per_class", "beside_the_claim"):
            assert "released weights" in words.lower()
    assert chapter.result.label == "released weights"


def test_each_claim_of_a_paper_has_a_figure_of_its_own(tmp_path):
    results.write(unfinished("mini-resemotenet-b"), tmp_path)
    chapter = page.open_chapter("mini-resemotenet", vars(opened_as("mini-resemotenet-b", tmp_path)))
    chapter.run()
    first, second = chapter.beside_the_claim().plain.splitlines()
    assert first.startswith("Figure: Mini-ResEmoteNet (B): claimed 70.20") and "unfinished: epoch 7" in first
    assert second.startswith("Figure: Mini-ResEmoteNet (A): claimed 76.33") and "unfinished: epoch 7" not in second


def test_an_ablation_is_shown_as_what_it_is(tmp_path):
    results.write(made_up("efficientfer-lite0", right=0.66), tmp_path)
    chapter = published("efficientfer", tmp_path)
    words = str(shown(chapter.run()))
    assert "Not run: No result of efficientfer under the official protocol" in words
    assert "ablation efficientfer-lite0" in words and "efficientfer-lite0, official protocol, full profile" in words
    for thing in (chapter.curves(), chapter.confusion(), chapter.per_class(), chapter.scores()):
        assert all("ablation efficientfer-lite0" in words.lower() for words in texts_of(thing))
    assert SYNTHETIC not in "".join(texts_of(chapter.beside_the_claim()))


def test_the_chapter_introduces_the_network_that_may_stand_in():
    """The sentences on EfficientNet-Lite0 agree with its recipe."""
    recipe = papers.get("efficientfer-lite0").recipe("official", "full")
    chapter = project_root() / "chapters" / "papers" / "efficientfer.ipynb"
    cells = ["".join(cell["source"]) for cell in json.loads(chapter.read_text(encoding="utf-8"))["cells"]]
    (own,) = (cell for cell in cells if "second network, `efficientfer-lite0`" in cell)
    size, (stage,) = recipe.input_size, recipe.stages
    assert f"{size}×{size} pixels, {stage.epochs} epochs" in own and '"ablation efficientfer-lite0"' in own
    assert recipe.loss.name == "cross-entropy" and recipe.loss["label_smoothing"] > 0
    assert not recipe.loss.kwargs().get("class_weights") and "no class weights" in own


def test_what_a_result_does_not_hold_is_one_quiet_line(monkeypatch, tmp_path):
    def mirror(result):
        raise NotRecorded("no scores of flipped images")

    results.write(released(), tmp_path)
    shown_ = published("vggnet", tmp_path).show(mirror)
    assert shown_.body == '<p class="fer-small">no scores of flipped images.</p>'


CELL = re.compile(r'chapter\.show\(figures\.(\w+)((?:, chapter\.results_dir)?)((?:, of=[^,)]+)?)(?:, title="[^"]+")?\)')


def own_figures():
    """(slug, function, whether it takes the results folder) of every picture or table of its run in a notebook."""
    for path in sorted((Path(__file__).parents[2] / "chapters/papers").glob("*.ipynb")):
        source = "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])
        for name, folder, companion in CELL.findall(source):
            if not companion:
                yield path.stem, name, bool(folder)


@pytest.mark.parametrize(("slug", "name", "folder"), list(own_figures()))
def test_the_pictures_of_each_paper_say_what_they_are_of(tmp_path, slug, name, folder):
    figure = getattr(import_module(f"fer_repro.papers.{slug.replace('-', '_')}.figures"), name)
    variant = slug if slug in papers.variants() else f"{slug}-b"
    kinds = (unfinished, released) if papers.get(variant).has_epochs("official") else (released,)
    for number, make in enumerate(kinds):
        where = tmp_path / str(number)
        results.write(make(variant), where)
        chapter = page.open_chapter(slug, vars(opened_as(variant, where)))
        chapter.run()
        words = " ".join(texts_of(chapter.show(figure, *([where] if folder else []))))
        assert SYNTHETIC not in words.lower()
        assert not re.search(r"\d\.\d+\s*%", words) or chapter.result.remark in words.lower(), words


def opened_as(variant, where):
    return parameters.ChapterParameters(variant=variant, profile="stored", results_dir=str(where))
