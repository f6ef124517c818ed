"""The figures: drawn for both themes, described in alt text, and showing the numbers they were given."""

from __future__ import annotations

import base64
import io
import re
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch import nn

from fer_repro import plots
from fer_repro.data import LABELS
from fer_repro.errors import FerReproError
from fer_repro.evaluation import cost, metrics
from fer_repro.markup import SYNTHETIC
from fer_repro.plots import Row
from fer_repro.plots.architecture import Block, content
from fer_repro.plots.figure import Figure, canvas
from fer_repro.plots.theme import DARK, LIGHT


def texts(figure: Figure, theme: str = "light") -> list[str]:
    """Every word that the picture really shows."""
    synthetic = figure.canvas(theme)
    synthetic.draw_without_rendering()
    found = [t.get_text() for t in synthetic.findobj(lambda artist: hasattr(artist, "get_text")) if t.get_visible()]
    return [word for word in found if word]


def pictures(markup: str) -> dict[str, Image.Image]:
    """The embedded images by class name."""
    found = re.findall(r'<img class="(only-\w+)"[^>]*src="data:image/webp;base64,([^"]+)"', markup)
    return {name: Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA") for name, data in found}


@pytest.fixture(scope="module")
def score() -> dict:
    """Scores of 300 made-up predictions, from the library's own metrics."""
    random = np.random.default_rng(5)
    labels = np.concatenate([np.arange(7), random.integers(0, 7, 293)])
    chances = random.dirichlet(np.ones(7), 300)
    chances[np.arange(300), labels] += 0.3
    return metrics.evaluate(chances / chances.sum(1, keepdims=True), labels)


def plain(theme):
    figure = canvas(2, 1)
    figure.add_subplot().plot([0, 1], color=theme.ink)
    return figure


def test_a_figure_needs_words():
    with pytest.raises(FerReproError, match="no alt text"):
        Figure(plain, alt=" ")
    with pytest.raises(FerReproError, match="unknown theme 'blue'"):
        Figure(plain, alt="a line").canvas("blue")


def test_a_figure_is_synthetic_for_both_themes_on_transparent_ground():
    markup = Figure(plain, alt='a "rising" line <b>', caption="<script>alert(1)</script>")._repr_html_()
    found = pictures(markup)
    assert set(found) == {"only-light", "only-dark"}
    light, dark = (np.asarray(found[name]).astype(int) for name in ("only-light", "only-dark"))
    assert light.shape[1] == 2 * 2 * 96, "two inches at twice the page's 96 pixels per inch"
    assert light[0, 0, 3] == 0 and dark[0, 0, 3] == 0
    seen = light[..., 3] > 128
    assert dark[seen][:, :3].mean() > light[seen][:, :3].mean() + 50, "the dark theme writes in light ink"
    assert markup.count('alt="a &quot;rising&quot; line &lt;b&gt;"') == 2
    assert "&lt;script&gt;alert(1)" in markup and "<script" not in markup


def test_the_caption_does_not_follow_a_hidden_picture():
    """The theme hides every figcaption that comes after an image of the other theme among its siblings."""
    markup = Figure(plain, alt="a line", caption="Under it.").figure()
    assert re.search(r"<figure><div>(<img [^>]*>){2}</div><figcaption>Under it\.</figcaption></figure>", markup)


def test_a_wide_picture_scrolls_in_a_box_with_a_name():
    markup = Figure(plain, alt="a line", scrolls="a <line>").figure()
    box = '<div class="fer-scroll fer-pan" tabindex="0" role="group" aria-label="Figure: a &lt;line&gt;">'
    assert markup.startswith(f"<figure>{box}<img")
    assert ".fer-pan img{max-width:none}" in Figure(plain, alt="a line")._repr_html_()


def test_the_page_shows_one_picture_at_a_time():
    css = Figure(plain, alt="a line")._repr_html_().split("</style>")[0]
    assert ".fer .only-dark{display:none}" in css
    assert "[data-theme=dark] .fer .only-light" in css and "[data-jp-theme-light=false] .fer .only-light" in css


def test_a_wheel_carries_the_style_sheet_and_the_scripts():
    root = Path(__file__).parents[2]
    named = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["fer_repro"]
    carried = {path for pattern in named for path in (root / "fer_repro").glob(pattern)}
    read = {path for kind in ("css", "js", "yaml") for path in (root / "fer_repro").rglob(f"*.{kind}")}
    assert {"style.css", "board_table.css", "board_table.js", "chart.js", "claims.yaml"} <= {
        path.name for path in read
    } and read <= carried


def test_synthetic_faces_are_named_in_picture_caption_and_alt():
    figure = Figure(plain, alt="a line", remark=SYNTHETIC)
    assert SYNTHETIC == "synthetic faces - not a result"
    assert SYNTHETIC in texts(figure) and SYNTHETIC in figure.alt and SYNTHETIC.capitalize() in figure.figure()
    assert SYNTHETIC not in " ".join(texts(Figure(plain, alt="a line"))) + Figure(plain, alt="a line").figure()


def test_a_saved_file_carries_its_metadata(tmp_path):
    path = Figure(plain, alt="a line", metadata={"made-from": "abc"}).save(tmp_path / "new" / "line.png")
    with Image.open(path) as image:
        assert image.format == "PNG" and image.info["made-from"] == "abc"


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_marks_stand_out_from_the_page(theme):
    """WCAG: 4.5 for text, 3 for graphics."""
    assert contrast(theme.ink, theme.page) >= 7 and contrast(theme.soft, theme.page) >= 4.5
    assert all(contrast(colour, theme.page) >= 3 for colour in (theme.measured, theme.claimed, theme.clean))


def test_learning_curves_show_what_was_recorded():
    history = pd.DataFrame(
        {
            "stage": ["train"] * 3 + ["fine-tune"],
            "epoch": [1, 2, 3, 4],
            "lr": [0.1, 0.1, 0.05, 0.01],
            "loss": [1.9, 1.5, 1.25, 1.125],
            "train_accuracy": [0.2, 0.4, 0.5, 0.55],
            "select_accuracy": [0.25, 0.35, 0.45, 0.4],
        }
    )
    one = plots.learning_curves(history[:1], selected=1, select_name="PublicTest")
    assert "curves: 1 epoch;" in one.alt and one.canvas().axes[-1].get_lines()[0].get_marker() == "o"
    figure = plots.learning_curves(history, selected=3, select_name="PublicTest")
    assert "4 epochs" in figure.alt and "from 1.900 to 1.125" in figure.alt and "at most 45.00\u00a0%" in figure.alt
    assert "scored: epoch 3" in texts(figure)
    axes = figure.canvas().axes
    lines = [list(line.get_ydata()) for one in axes for line in one.get_lines()]
    assert [1.9, 1.5, 1.25, 1.125] in lines and [25, 35, 45, 40] in [list(np.round(line, 9)) for line in lines]
    bare = plots.learning_curves(history[["epoch", "loss"]])
    assert len(bare.canvas().axes) == 1
    with pytest.raises(FerReproError, match="no epochs"):
        plots.learning_curves(history.iloc[:0])


def test_the_confusion_matrix_prints_counts_and_shares(score):
    figure = plots.confusion_matrix(score, "VGGNet, PublicTest")
    shown = texts(figure)
    counts = np.asarray(score["confusion"])
    for row, column in ((0, 0), (3, 3), (2, 4), (6, 1)):
        assert str(counts[row, column]) in shown
        assert f"{100 * counts[row, column] / counts[row].sum():.1f} %" in shown
    assert [w for w in shown if w.startswith("angry\nn = ")] == [f"angry\nn = {counts[0].sum()}"]
    assert f"angry {100 * counts[0, 0] / counts[0].sum():.1f}" in figure.alt
    worst = (counts / counts.sum(1, keepdims=True) * (1 - np.eye(7))).argmax()
    assert f"{LABELS[worst // 7]} taken for {LABELS[worst % 7]}" in figure.alt


def test_a_class_without_images_is_no_number(score):
    labels = np.array([0, 0, 1, 2, 3, 4, 5])
    score = metrics.evaluate(np.eye(7)[[0, 1, 1, 2, 3, 4, 5]], labels)
    assert "no image" in texts(plots.per_class(score)) and "0.0 %" in texts(plots.confusion_matrix(score, "few"))


def test_per_class_draws_each_recall_with_its_interval(score):
    figure = plots.per_class(score)
    axes = figure.canvas().axes[0]
    spans = [tuple(np.round(line.get_xdata(), 6)) for line in axes.get_lines() if len(line.get_xdata()) == 2]
    for name in LABELS:
        low, high = score["per_class"][name]["interval"]
        assert (round(100 * low, 6), round(100 * high, 6)) in spans
        assert f"{score['per_class'][name]['n']}" in texts(figure)


def test_a_forest_says_not_run_instead_of_drawing_a_point():
    rows = [Row("claimed", 0.7328, (0.718, 0.747), "claimed"), Row("official", None, words=("not run",))]
    figure = plots.forest(rows, "Beside the claim", alt="both")
    marks = [line for line in figure.canvas().axes[0].get_lines() if line.get_marker() not in ("", "None", None)]
    assert len(marks) == 1 and "not run" in texts(figure)
    assert marks[0].get_markerfacecolor() == LIGHT.page, "a claim is hollow"
    with pytest.raises(FerReproError, match="no row has a value"):
        plots.forest(rows[1:], "Empty", alt="none")


def test_a_ladder_is_ruled_at_its_first_step():
    rows = [
        Row("histogram", 0.53, (0.51, 0.55), words=("53.00 %", "")),
        Row("local", 0.64, None, words=("64.00 %", "+11")),
    ]
    figure = plots.ladder(rows, "Step by step")
    assert "the plainest system" in texts(figure) and "local 64.00" in figure.alt
    rules = [line.get_xdata()[0] for line in figure.canvas().axes[0].get_lines() if line.get_linestyle() == "--"]
    assert rules == [53.0]


class Small(nn.Module):
    """A net with a nested block, a parameter of its own and a layer that never runs."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
            nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
        )
        self.scale = nn.Parameter(nn.init.ones_(nn.Linear(1, 1).weight.detach()))
        self.idle = nn.Linear(5, 5)
        self.head = nn.Linear(8, 7)

    def forward(self, images):
        return self.head(self.body(images).mean((2, 3)) * self.scale)


def test_a_trace_counts_every_parameter_once_and_reads_shapes_from_the_run():
    model = Small().train()
    blocks = plots.trace(model, (2, 1, 12, 12))
    assert sum(block.parameters for block in blocks) == cost.count_parameters(model)
    assert [(block.content, block.shape) for block in blocks] == [
        ("conv 3×3, max pool 2×2", (4, 6, 6)),
        ("2 × conv 3×3", (8, 6, 6)),
        ("linear", (7,)),
        ("single parameters", ()),
    ]
    assert blocks[0].parameters == 4 * 9 + 4 + 8 and blocks[-1].parameters == 1 + 30
    assert model.training and not model._forward_hooks and not model.head._forward_hooks
    figure = plots.architecture(blocks, (1, 12, 12), "Small")
    assert f"Small: {cost.count_parameters(model):,} parameters" in texts(figure) and "8×6×6" in texts(figure)


def test_a_box_names_all_that_is_in_it():
    held = "conv 3×3, max pool 2×2, conv 3×3, max pool 2×2, conv 3×3, max pool 2×2"
    figure = plots.architecture([Block("stem", held, (4, 6, 6), 9)], (1, 12, 12), "Long")
    assert held in " ".join(" ".join(texts(figure)).split())


def test_a_network_that_does_not_fit_its_input_is_an_error():
    with pytest.raises(FerReproError, match=r"Small does not run on an input of shape \(1, 3, 12, 12\)"):
        plots.trace(Small(), (1, 3, 12, 12))
    with pytest.raises(FerReproError, match="no blocks"):
        plots.architecture([], (1, 4, 4), "Nothing")


@pytest.mark.parametrize("count", [1, 4, 5, 6, 7])
def test_a_pipeline_shows_its_steps_in_order(count):
    steps = [(f"step {i}", f"what {i} does") for i in range(count)]
    shown = texts(plots.pipeline(steps, "A method"))
    assert [word for word in shown if re.match(r"\d  step", word)] == [f"{i + 1}  step {i}" for i in range(count)]
    with pytest.raises(FerReproError, match="no steps"):
        plots.pipeline([], "A method")


def test_samples_put_every_class_in_its_row(few_synthetic):
    figure = plots.samples(few_synthetic.images, few_synthetic.labels, LABELS, each=3, remark=SYNTHETIC)
    sheet = figure.canvas().axes[0].get_images()[0].get_array()
    assert sheet.shape == (7 * 51 - 3, 3 * 51 - 3, 4)
    for label in range(7):
        first = few_synthetic.images[np.flatnonzero(few_synthetic.labels == label)[0]]
        assert np.array_equal(sheet[label * 51 : label * 51 + 48, :48, 0], first)
    assert sheet[0, 48:51, 3].max() == 0, "the gaps let the page through"
    with pytest.raises(FerReproError, match="do not fit"):
        plots.samples(few_synthetic.images, few_synthetic.labels[:5], LABELS)


def test_a_pool_is_global_only_where_one_position_is_left():
    pools = [nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d((1, 1)), nn.AdaptiveAvgPool2d((7, 7)), nn.AvgPool2d(2)]
    found = [content(pool) for pool in pools]
    assert found == ["global mean pool", "global max pool", "mean pool to 7×7", "mean pool 2×2"]
