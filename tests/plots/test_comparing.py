"""The pictures that compare: they show the numbers they were given, in both themes, and refuse to draw nothing."""

from __future__ import annotations

import numpy as np
import pytest

from fer_repro.errors import FerReproError
from fer_repro.plots import Row, forest
from fer_repro.plots.matrix import PRINTED, pair_matrix
from fer_repro.plots.panels import ByEpoch, Cloud, Reliability, by_epoch, clouds, reliability
from fer_repro.plots.ranks import rank_intervals

THREE = np.array([[np.nan, 1.0, 2.5], [1.0, np.nan, 3.0], [2.5, 3.0, np.nan]])


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
