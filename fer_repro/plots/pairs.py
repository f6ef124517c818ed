"""Contact sheets of pairs of pictures, row by row: duplicates and near-duplicates, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fer_repro.errors import FerReproError
from fer_repro.plots import image_grid
from fer_repro.plots.figure import Figure

Pair = tuple[np.ndarray, np.ndarray]
BESIDE, BETWEEN = 1, 9  # transparent pixels between the two of a pair, and between pairs


def pairs_sheet(rows: Mapping[str, Sequence[Pair]], *, alt: str, caption: str = "") -> Figure:
    """``rows``: name -> pairs of images, uint8 [H,W] each, all of one size. Raises `FerReproError` without a pair."""
    if not any(rows.values()):
        raise FerReproError("nothing to show: there is no pair of pictures")
    height, width = next(pair[0].shape for row in rows.values() for pair in row)
    step = 2 * width + BESIDE + BETWEEN
    columns = max(map(len, rows.values()))
    # One picture with transparent gaps: an axis for each pair would take seconds to lay out.
    sheet = np.zeros(((height + BETWEEN) * len(rows) - BETWEEN, step * columns - BETWEEN, 4), np.uint8)
    for row, pairs in enumerate(rows.values()):
        for column, pair in enumerate(pairs):
            for index, image in enumerate(pair):
                top, left = row * (height + BETWEEN), column * step + index * (width + BESIDE)
                cell = sheet[top : top + height, left : left + width]
                cell[..., :3], cell[..., 3] = image[..., None], 255
    size = (7.4, 7.4 * 0.8 * sheet.shape[0] / sheet.shape[1] + 0.15)  # the rest of the width is for the names
    return image_grid({"": sheet}, alt=alt, caption=caption, size=size, rows=list(rows), interpolation="bilinear")
