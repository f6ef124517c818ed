"""The effect of a spatial transformer on faces: the windows it chose, before and after, and how much they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fer_repro import data as data_sets
from fer_repro import papers, results
from fer_repro.data import LABELS
from fer_repro.data.synthetic import SMOKE_SIZE
from fer_repro.markup import SYNTHETIC, Html, percent, remark_note, table, text
from fer_repro.papers.deep_emotion import warp
from fer_repro.plots.figure import Canvas, Figure, Theme, canvas
from fer_repro.results import NotRecorded, Result

ENTRIES = ("x from x", "x from y", "x shift", "y from x", "y from y", "y shift")
IDENTITY = (1, 0, 0, 0, 1, 0)
SAME = 1e-3  # of half the image's edge: a fiftieth of a pixel


def recorded(result: Result) -> Mapping[str, Any]:
    """The ``windows`` that a run with a transformer recorded; `FerReproError` for a result without any."""
    windows = result.record["facts"].get("windows")
    if not windows:
        raise NotRecorded(
            f"the result of {result.variant} records no windows: its network has no transformer; "
            "run the chapter with variant deep-emotion, -input-stn or -wide-localisation"
        )
    return windows


def faces_for(result: Result) -> tuple[np.ndarray, bool]:
    """One uint8 [48,48] face for each recorded window, and whether they are synthetic.

    They are the scored faces themselves where this page's run had the data, otherwise synthetic faces of the same
    classes: FER2013's pictures are not part of the book.
    """
    wanted, own = recorded(result)["faces"], result.synthetic or result.classifier is not None
    synthetic = result.synthetic or not own
    faces = data_sets.load("synthetic", size=SMOKE_SIZE) if synthetic else data_sets.load("fer2013")
    if own:
        place = {str(name): index for index, name in enumerate(faces.ids)}
        index = [place[face["id"]] for face in wanted]
    else:
        index = [int(np.flatnonzero(faces.labels == face["label"])[0]) for face in wanted]
    return np.asarray(faces.images[index]), synthetic


def through(images: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """``images`` uint8 [N,48,48] sampled through the affine maps [N,2,3] -> float32 [N,48,48] in [0, 255]."""
    pixels, maps = (torch.tensor(values, dtype=torch.float32) for values in (images, theta))
    return warp(pixels[:, None], maps)[:, 0].numpy()


def outline(theta: np.ndarray, edge: int = 48) -> np.ndarray:
    """The window's corners in pixels, closed: float [5,2] as (x, y), where -1 and 1 are the image's outer edges."""
    corners = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1], [-1, -1, 1]], float)
    return (corners @ np.asarray(theta).T + 1) * edge / 2 - 0.5


def before_and_after(result: Result) -> Figure:
    """One face per class: as it is, with its window, and through the window."""
    chosen = recorded(result)["faces"]
    theta = np.array([face["theta"] for face in chosen]).reshape(-1, 2, 3)
    images, synthetic = faces_for(result)
    after = through(images, theta)
    names = [LABELS[face["label"]] for face in chosen]

    def draw(theme: Theme) -> Canvas:
        figure = canvas(1.0 * len(names) + 0.6, 3.5)
        axes = figure.subplots(3, len(names), squeeze=False)
        for column, name in enumerate(names):
            for row, picture in enumerate((images[column], images[column], after[column])):
                place = axes[row, column]
                place.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                place.set(xticks=[], yticks=[], xlim=(-8, 55), ylim=(55, -8))
                place.spines[:].set_visible(False)
            axes[1, column].plot(*outline(theta[column]).T, color=theme.claimed, lw=1.8)
            axes[0, column].set_title(name, loc="center", fontsize=9.5)
        for row, title in enumerate(("before", "window", "after")):
            axes[row, 0].set_ylabel(title, color=theme.ink)
        return figure

    remark = "; ".join(dict.fromkeys(filter(None, [result.remark, SYNTHETIC if synthetic else ""])))
    caption = "One face per class, the window that the localisation network chose, and the face through it."
    if synthetic and not result.synthetic:
        caption = (
            "The windows are those of the stored run, one PrivateTest face per class. The faces under them are "
            "synthetic: they show only the effect of such a window."
        )
    size = np.sqrt(np.abs(np.linalg.det(theta[:, :, :2])))
    shares = ", ".join(f"{name} {share:.0%}" for name, share in zip(names, size, strict=True))
    alt = f"Seven faces before and after the transformer; edge of the window against that of the image: {shares}."
    return Figure(draw, alt=alt, caption=caption, remark=remark)


def spread(result: Result, results_dir: Path | None = None) -> Html:
    """The six numbers of the map over all scored faces, and for every stored run whether its windows differ at all."""
    windows = recorded(result)
    entries = zip(ENTRIES, IDENTITY, windows["mean"], windows["deviation"], strict=True)
    rows = [[name, f"{identity}", f"{mean:+.3f}", f"{deviation:.3f}"] for name, identity, mean, deviation in entries]
    caption = f"The affine map over {windows['n']:,} scored faces"
    body = table(["entry", "identity", "mean", "standard deviation"], rows, caption, numeric=range(1, 4))
    return Html(remark_note(result.remark) + body + stored_runs(results_dir), caption)


def stored_runs(results_dir: Path | None = None) -> str:
    """A table of the paper's stored runs: accuracy, and the largest deviation of a window's entry between faces."""
    rows = []
    for run in results.read_all(results_dir):
        windows = run.record["facts"].get("windows")
        if windows and papers.get(run.variant).slug == "deep-emotion":
            largest = max(windows["deviation"])
            label = text(f"{run.variant}, {run.protocol}, seed {run.seed}")
            verdict = "the same for every face" if largest < SAME else "differ between faces"
            rows.append([label, percent(run.headline["accuracy"]), f"{largest:.3f}", verdict])
    if not rows:
        return "<p>No full run with a transformer is stored.</p>"
    header = ["stored run", "accuracy", "largest standard deviation", "windows"]
    return table(header, rows, "Windows of the stored runs", numeric=(1, 2))


def stopped_transformers(runs: Sequence[Result]) -> list[str]:
    """Sentences on the full runs ``runs`` whose localisation network stopped learning, and whether the accuracy shows
    it; none where no run has a transformer."""
    seeing = [run for run in runs if run.record["facts"].get("windows")]
    if not seeing:
        return []
    stopped = [run for run in seeing if _stopped(run)]
    named = ", ".join(f"{run.variant} seed {run.seed}" for run in stopped)
    lines = [
        f"In {len(stopped)} of {len(seeing)} runs with a spatial transformer the localisation network stopped "
        f"learning, so that its window is the same for every face{f': {named}' if named else ''}."
    ]
    for variant in dict.fromkeys(run.variant for run in stopped):
        own = [run for run in seeing if run.variant == variant]
        dead, alive = (
            [run.headline["accuracy"] for run in own if _stopped(run) == state and not run.one_class]
            for state in (True, False)
        )
        if dead and alive:
            lines.append(
                f"{variant} gives {_range(dead)} where the transformer stopped learning; this is "
                f"{_place(dead, alive)} where it did not, {_range(alive)} ({len(dead)} run{'s' * (len(dead) > 1)} "
                f"against {len(alive)})."
            )
        lines += [
            f"{variant} seed {run.seed} {run.one_class}, so it is left out of the comparison."
            for run in own
            if run.one_class
        ]
    return lines


def _stopped(run: Result) -> bool:
    """Whether the windows of a run are the same for every face."""
    return max(recorded(run)["deviation"]) < SAME


def _place(some: Sequence[float], others: Sequence[float]) -> str:
    """Where the accuracies ``some`` lie beside the ``others``, in words that go before "where"."""
    if max(some) < min(others):
        return "lower than"
    if min(some) > max(others):
        return "higher than"
    if min(others) <= min(some) and max(some) <= max(others):
        return "within the range of the runs"
    return "neither all lower nor all higher than"


def _range(shares: Sequence[float]) -> str:
    low, high = percent(min(shares)), percent(max(shares))
    return low if low == high else f"{low} to {high}"
