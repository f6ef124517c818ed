"""Images to (spatial) presence vectors, with the expensive parts cached on disk.

Used by the visual-word method of 2013 and by its successor, which adds deep features to the same vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from fer_repro.local_learning import visual_words
from fer_repro.training.artifacts import ArtifactCache

PART = 2048  # images whose words are cached in one file
# The options that decide the words of an image, and so the cache's files.
REPRESENTATION = ("step", "blur", "root", "points_per_word", "iterations", "probes", "nearest")

# Vocabulary sizes of third-party code for the successor of the paper of 2013, one of them our choice. Patch and step
# are unknown.
ASSUMED = {
    "step": 1,
    "blur": 0.6,
    "root": False,
    "nearest": 1,
    "channels": ((4, 1, 17000), (4, 2, 14000), (4, 3, 11000), (4, 4, 8000)),
    "points_per_word": 20,
    "iterations": 5,
    "probes": 6,
}
# What a search on PublicTest settled on (results/local-learning-bow/search.csv).
SEARCHED_WORDS = ASSUMED | {
    "step": 2,
    "root": True,
    "nearest": 3,
    "channels": ((3, 1, 8000), (3, 2, 8000), (3, 3, 8000), (3, 4, 8000)),
    "points_per_word": 25,
}


def channel_words(channels: tuple[tuple[int, int, int], ...]) -> tuple[str, str, str]:
    """Cell widths, pyramid levels and vocabulary sizes as text, for the picture of a method's steps."""
    cells, levels, sizes = (dict.fromkeys(values) for values in zip(*channels, strict=True))
    fields = ", ".join(f"{level}×{level}" for level in sorted(levels))
    return " and ".join(map(str, sorted(cells))), fields, ", ".join(f"{size:,}" for size in sizes)


def local_steps(neighbours: str, options: dict[str, Any]) -> list[tuple[str, str]]:
    """The last two steps of the methods of local learning, for that picture."""
    ks, costs = ", ".join(map(str, options["k"])), ", ".join(f"{cost:g}" for cost in options["C"])
    machine = f"one against all, trained on these alone; C from {costs}"
    return [("neighbours", f"{neighbours}, k from {ks}"), ("local SVM", machine)]


class WordPyramid:
    """Vocabularies and the vectors made with them.

    ``options``: "channels", a tuple of (SIFT cell width in pixels, pyramid level, words), one per kernel, and
    the names in `REPRESENTATION` (see `visual_words`). Channels of equal cell width and words share their vocabulary.
    ``pause`` is called between parts and may raise to stop.
    """

    def __init__(self, options: dict[str, Any], artifacts: ArtifactCache, seed: int, pause: Callable[[], None]) -> None:
        self.options, self.artifacts, self.seed, self.pause = options, artifacts, seed, pause
        self.settings = {name: options[name] for name in REPRESENTATION}
        self.channels: tuple[tuple[int, int, int], ...] = options["channels"]
        self.finders: dict[tuple[int, int], visual_words.WordFinder] = {}

    def grid(self, cell: int) -> visual_words.SiftGrid:
        return visual_words.SiftGrid(self.options["step"], cell, self.options["blur"], self.options["root"])

    def fit(self, images: np.ndarray) -> None:
        """Cluster the training images' descriptors, one vocabulary per cell width and size."""
        for cell, words in dict.fromkeys((cell, words) for cell, _, words in self.channels):

            def cluster(cell: int = cell, words: int = words) -> np.ndarray:
                wanted = words * self.options["points_per_word"]
                sample = visual_words.sample_descriptors(images, self.grid(cell), wanted, self.seed)
                return visual_words.train_vocabulary(sample, words, self.seed, self.options["iterations"])

            vocabulary = self.artifacts.get_or_compute(f"vocabulary-{cell}-{words}", self.settings, cluster)
            self.finders[cell, words] = visual_words.WordFinder(vocabulary, self.options["probes"])
            self.pause()

    def vectors(self, images: np.ndarray, name: str | None = None, counts: bool = False) -> list[sparse.csr_matrix]:
        """One CSR per channel, rows of unit length: uint8 [N,48,48] -> float32 [N, level**2 * words] each.

        ``name``: of the words in the cache (None: no cache). ``counts``: the first channel alone, with counts instead
        of presence, the plain bag of words.
        """
        channels = self.channels[:1] if counts else self.channels
        matrices: dict[tuple[int, int], list[sparse.csr_matrix]] = {}
        for cell, words in dict.fromkeys((cell, words) for cell, _, words in channels):
            grid, finder = self.grid(cell), self.finders[cell, words]
            levels = [level for width, level, size in channels if (width, size) == (cell, words)]
            parts, centres = [], grid.centres()
            for start in range(0, len(images), PART):
                part = images[start : start + PART]

                def search(part: np.ndarray = part, grid: Any = grid, finder: Any = finder) -> np.ndarray:
                    return np.concatenate(list(visual_words.words_of(part, grid, finder, self.options["nearest"])))

                key = f"words-{name}-{cell}-{words}-{start:05d}"
                indices = self.artifacts.get_or_compute(key, self.settings, search) if name else search()
                parts.append([visual_words.spatial_words(indices, centres, words, level, counts) for level in levels])
                self.pause()
            matrices[cell, words] = [sparse.vstack(level, format="csr") for level in zip(*parts, strict=True)]
        return [matrices[cell, words].pop(0) for cell, _, words in channels]
