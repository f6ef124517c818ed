"""The pictures that compare: they show the numbers they were given, in both themes, and refuse to draw nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from fer_repro.errors import FerReproError
from fer_repro.plots import Row, confusion_matrix, forest, learning_curves, per_class, pipeline
from fer_repro.plots.dots import dots, shares
from fer_repro.plots.figure import Figure
from fer_repro.plots.intervals import CONTINUES
from fer_repro.plots.matrix import PRINTED, pair_matrix
from fer_repro.plots.panels import ByEpoch, Cloud, Reliability, by_epoch, clouds, reliability
from fer_repro.plots.ranks import rank_intervals

THREE = np.array([[np.nan, 1.0, 2.5], [1.0, np.nan, 3.0], [2.5, 3.0, np.nan]])


LONG = "Ensemble ResMaskingNet with 6 other CNNs: comparison with the claim and similar models on PrivateTest and more"
POINT = {"PrivateTest": (0.6, (0.55, 0.65))}
SCORE = {
    "accuracy": 0.5,
    "confusion": [[1, 1], [1, 1]],
    "per_class": {
        name: {"n": 2, "recall": 0.5, "interval": (0.1, 0.9), "f1": 0.5} for name in ("angry", "a long name")
    },
}
CURVE = [(0.4, 0.3, (0.2, 0.4)), (0.8, 0.9, (0.85, 0.95))]
TITLED: dict[str, Callable[[str], Figure]] = {
    "forest": lambda title: forest([Row("a model with a long name", 0.6, words=("60 %",))], title, alt="a"),
    "per class": lambda title: per_class(SCORE, title=title),
    "confusion": lambda title: confusion_matrix(SCORE, title),
    "dots": lambda title: dots({"a model whose name takes most of the width": POINT}, title, alt="a"),
    "shares": lambda title: shares({"a model with a long name": [0.5]}, ["happy"], title, alt="a"),
    "matrix": lambda title: pair_matrix(THREE, ["a model with a long name", "b", "c"], title, alt="a"),
    "ranks": lambda title: rank_intervals(["a model with a long name"], [(1, 1)], [], title, alt="a"),
    "reliability": lambda title: reliability([Reliability("a", CURVE)], title, alt="a"),
    "epochs": lambda title: by_epoch([ByEpoch("a", [1], {"PrivateTest": [0.5]})], title, alt="a"),
    "clouds": lambda title: clouds([Cloud("parameters", True, [(1e5, 0.6, "1", "full run")])], title, alt="a"),
    "pipeline": lambda title: pipeline([("resize", "to 48 pixels")], title),
}


def apart(words: Iterable[Text]) -> bool:
    """Whether no two of the words that were drawn touch."""
    boxes = [one.get_window_extent() for one in words if one.get_text()]
    return len(boxes) > 1 and not any(one.overlaps(other) for one, other in combinations(boxes, 2))


@pytest.fixture(params=["light", "dark"])
def theme(request) -> str:
    return request.param


def test_a_matrix_prints_its_lower_triangle_and_shades_what_is_not_quiet(theme):
    quiet = np.zeros((3, 3), bool)
    quiet[1, 0] = True
    axes = pair_matrix(THREE, ["a", "b", "c"], "t", alt="a", shape="{:.1f}", quiet=quiet).canvas(theme).axes[0]
    assert {(t.get_position(), t.get_text()) for t in axes.texts} == {
        ((0.5, 1.5), "1.0"),
        ((0.5, 2.5), "2.5"),
        ((1.5, 2.5), "3.0"),
    }
    assert axes.collections[1].get_array().compressed().tolist() == [2.5, 3.0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a  1", "b  2", "c  3"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "2", "3"]


def test_a_matrix_of_many_things_has_shades_only():
    size = PRINTED + 1
    table = np.arange(size * size, dtype=float).reshape(size, size)
    axes = pair_matrix(table, [str(k) for k in range(size)], "t", alt="a").canvas().axes[0]
    assert not axes.texts and axes.collections[1].get_array().count() == size * (size + 1) / 2


def test_ranks_are_bars_and_groups_that_overlap_stand_side_by_side(theme):
    groups = [(0, 1), (1, 2), (3, 4)]
    figure = rank_intervals(list("abcde"), [(1, 2), (1, 3), (2, 3), (4, 5), (4, 5)], groups, "t", alt="a")
    lines = figure.canvas(theme).axes[0].lines
    assert [tuple(line.get_xdata()) for line in lines[:10:2]] == [(1, 2), (1, 3), (2, 3), (4, 5), (4, 5)]
    assert [line.get_xdata()[0] for line in lines[1:10:2]] == [1, 2, 3, 4, 5]
    first, second, third = (line.get_xdata()[0] for line in lines[10:])
    assert first == third < second


def test_reliability_shows_both_curves_in_percent(theme):
    curve = [(0.4, 0.3, (0.2, 0.4)), (0.8, 0.9, (0.85, 0.95))]
    figure = reliability([Reliability("a", curve, curve[:1]), Reliability("b", curve)], "t", alt="a").canvas(theme)
    first = figure.axes[0]
    assert first.lines[1].get_ydata() == pytest.approx([30, 90]) and first.lines[2].get_xdata() == pytest.approx([40])
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["as predicted", "with temperature"]


def test_epochs_are_lines_and_choices_marks(theme):
    panel = ByEpoch("a", [1, 2], {"PublicTest": [0.5, 0.6], "PrivateTest": [0.4, 0.7]}, [("last epoch", 2, 0.7)])
    lines = by_epoch([panel], "t", alt="a").canvas(theme).axes[0].lines
    assert [list(line.get_ydata()) for line in lines] == [pytest.approx(v) for v in ([50, 60], [40, 70], [70])]


def test_a_cloud_names_its_points_and_says_where_nothing_is_known(theme):
    points = [(1e5, 0.6, "1", "full run"), (1e7, 0.5, "2", "package")]
    canvas = clouds([Cloud("parameters", True, points), Cloud("seconds", True, [])], "t", alt="a").canvas(theme)
    assert {t.get_text() for t in canvas.axes[0].texts} == {"1", "2"} and canvas.axes[0].get_xscale() == "log"
    assert [t.get_text() for t in canvas.axes[1].texts] == ["not known"]


@pytest.mark.parametrize("name", TITLED)
def test_a_long_title_is_not_cut(name):
    figure = TITLED[name](LONG).canvas()
    figure.draw_without_rendering()
    (title,) = (one for one in figure.findobj(Text) if one.get_text().startswith(LONG))
    box, whole = title.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
    assert all(axes.get_window_extent().y1 <= box.y0 for axes in figure.axes)
    short = TITLED[name]("Short").canvas()
    assert figure.get_figheight() > short.get_figheight() + 0.1, "the lines of the title take nothing from the picture"


@pytest.mark.parametrize("name", TITLED)
def test_a_picture_with_words_scrolls_on_a_phone_instead_of_shrinking(name):
    assert "fer-pan" in TITLED[name]("A title").images()


def test_learning_curves_scroll_on_a_phone():
    assert "fer-pan" in learning_curves(pd.DataFrame({"loss": [2.0, 1.0]})).images()


@pytest.mark.parametrize("ends", [(23.9, 53.8), (30, 31), (2, 15), (0.5, 90), (60, 4000), (1440, 3230), (4e4, 8e7)])
def test_ticks_of_a_logarithmic_axis_do_not_touch(ends):
    points = [(end, 0.6, str(k), "full run") for k, end in enumerate(ends)]
    canvas = clouds([Cloud("minutes", True, points), Cloud("other", True, points)], "t", alt="a").canvas()
    canvas.draw_without_rendering()
    axes = canvas.axes[0]
    low, high = axes.get_xlim()
    labels = [label for at, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True) if low <= at <= high]
    assert apart(labels) and len(labels) <= 7
    assert ends[0] > 5000 or all("k" not in one.get_text() for one in labels)


def test_numbers_and_names_of_a_full_matrix_do_not_touch():
    table = np.full((PRINTED, PRINTED), 88.0)
    names = ["residual-masking-resnet18-scratch\n(unfinished: epoch 1 of 51)\u00a0*\nand a third line"] * PRINTED
    canvas = pair_matrix(table, names, "t", alt="a").canvas()
    canvas.draw_without_rendering()
    axes = canvas.axes[0]
    assert apart(axes.texts) and min(one.get_fontsize() for one in axes.texts) >= 7.5
    assert apart(axes.get_yticklabels()) and min(one.get_fontsize() for one in axes.get_yticklabels()) >= 8
    wide = pair_matrix(-100 * table, ["a"] * PRINTED, "t", alt="a").canvas()
    wide.draw_without_rendering()
    assert apart(wide.axes[0].texts), "longer numbers are smaller"


def arrows(axes) -> list[tuple[float, int]]:
    """(x, mark) of every arrow head."""
    return [(line.get_xdata()[0], line.get_marker()) for line in axes.lines if line.get_marker() in (4, 5)]


@pytest.mark.parametrize("draw", ["forest", "dots"])
def test_one_interval_over_the_whole_scale_does_not_set_the_axis(draw):
    def made(interval: tuple[float, float]) -> Figure:
        values = {"a": (0.68, (0.66, 0.7)), "b": (0.5, (0.4, 0.6)), "c": (0.38, interval)}
        if draw == "dots":
            return dots({name: {"PrivateTest": point} for name, point in values.items()}, "t", alt="a", caption="C.")
        return forest([Row(name, *point) for name, point in values.items()], "t", alt="a", caption="C.")

    figure = made((0.0, 1.0))
    axes = figure.canvas().axes[0]
    low, high = axes.get_xlim()
    assert 30 < low < 38 and 70 < high < 80
    assert arrows(axes) == [(low, 4), (high, 5)] and figure.caption == f"C. {CONTINUES}"
    bars = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 1.8]
    assert bars and all(low <= x <= high for bar in bars for x in bar)
    one_side = made((0.37, 0.99))
    assert [mark for _, mark in arrows(one_side.canvas().axes[0])] == [5] and CONTINUES in one_side.caption
    ordinary = made((0.2, 0.65))
    axes = ordinary.canvas().axes[0]
    assert not arrows(axes) and axes.get_xlim()[0] < 20 and ordinary.caption == "C."


def test_seeds_are_ticks_inside_the_axes():
    row = Row("a", 0.6, (0.55, 0.65), ticks=(0.5, 0.7))
    axes = forest([row, Row("b", 0.6)], "t", alt="a").canvas().axes[0]
    ticks = [line for line in axes.lines if line.get_marker() == "|"]
    assert [list(line.get_xdata()) for line in ticks] == [[50, 70]]
    assert axes.get_xlim()[0] < 50 and axes.get_xlim()[1] > 70


@pytest.mark.parametrize(
    "make",
    [
        lambda: pair_matrix(np.zeros((1, 1)), ["a"], "t", alt="a"),
        lambda: pair_matrix(THREE, ["a", "b"], "t", alt="a"),
        lambda: rank_intervals([], [], [], "t", alt="a"),
        lambda: rank_intervals(["a"], [], [], "t", alt="a"),
        lambda: reliability([], "t", alt="a"),
        lambda: by_epoch([], "t", alt="a"),
    ],
)
def test_nothing_to_draw_is_an_error(make):
    with pytest.raises(FerReproError, match="nothing to draw for 't'"):
        make()
