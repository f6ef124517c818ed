"""A paper's own idea: read strictly, drawn for phones in both themes, described arrow by arrow."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_repro import page, papers
from fer_repro.claims import leaderboard_claims
from fer_repro.errors import FerReproError
from fer_repro.plots import idea

ROOM = Path(papers.__file__).parent
FILES = sorted([*ROOM.glob("*/idea.yaml"), *ROOM.glob("*.idea.yaml")])
# Their pictures are the steps of a method without a network, or the two of a search and of what it found.
PIPELINES = {"cnn-hyperparameters", "deep-and-handcrafted", "local-learning-bow", "sdafe"}
SMALL = """
title: A gate
caption: Values are multiplied.
boxes:
  - {id: maps, text: "maps x", at: [0, 0], kind: map}
  - {id: gate, text: "linear\\nlayer", at: [1, 0], kind: layer}
  - {id: times, text: "×", at: [1, 1], kind: join}
links: [maps > gate, gate > times, maps > times down]
"""


def written(tmp_path, text):
    path = tmp_path / "idea.yaml"
    path.write_text(text, encoding="utf8")
    return path


def test_every_paper_with_a_network_of_its_own_shows_its_idea():
    shown = {
        (path.parent.name if path.name == "idea.yaml" else path.name.split(".")[0]).replace("_", "-") for path in FILES
    }
    assert shown == {claim.slug for claim in leaderboard_claims().values()} - PIPELINES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOM)))
def test_an_idea_fits_a_phone_and_keeps_its_words_in_their_boxes(path):
    described = idea.read(path)
    figure = idea.idea(described).canvas("dark")
    assert figure.get_figwidth() <= 4.7  # at 96 pixels an inch, shown on 358 of them, 9 points stay over 9 pixels
    figure.draw_without_rendering()
    axes = figure.axes[0]
    for text, box in zip(axes.texts[len(described.links) :], described.boxes, strict=True):
        size = text.get_window_extent().transformed(axes.transData.inverted())
        half = idea._half(box)
        assert abs(size.width) <= 2 * half[0] and abs(size.height) <= 2 * half[1], box.text


def test_the_alt_text_names_every_arrow(tmp_path):
    figure = idea.idea(idea.read(written(tmp_path, SMALL)))
    assert figure.alt == "A gate, as boxes and arrows: maps x → linear layer; linear layer → ×; maps x → ×."
    assert figure.caption.endswith("Blue: feature maps or images; grey: layers and other operations.")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("gate > times", "gate > sum", "a link names the box 'sum', expected each of maps, gate, times once"),
        ("id: times", "id: gate", "expected each of maps, gate, gate once|a link names the box 'times'"),
        ("kind: join", "kind: star", "kind is 'star', expected one of map, vector"),
        ("maps > gate", "maps to gate", "expected an arrow like"),
        ("at: [1, 1]", "at: [1]", "expected a column and a row"),
        ("at: [1, 1]", "at: [1, -1]", "expected 0 to 20"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, old, new, words):
    with pytest.raises(FerReproError, match=words):
        idea.read(written(tmp_path, SMALL.replace(old, new)))


def test_a_chapter_shows_the_network_and_the_idea_below_it():
    figure = page.architecture("vggnet")
    markup = figure._repr_html_()
    assert markup.count("<figure>") == 2 and "Ten crops, in training and in the test, as boxes" in markup
    assert "VGG network" in repr(figure) and "29,890,759" in repr(figure)
    assert page.architecture("baseline")._repr_html_().count("<figure>") == 1
