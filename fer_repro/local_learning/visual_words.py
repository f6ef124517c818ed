"""Bag of visual words for 48x48 faces: dense SIFT, a vocabulary of words, (spatial) presence vectors.

The representation of Ionescu, Popescu and Grozea (2013) and of its 2018 successor: every image becomes, per pyramid
level, a binary vector that says which visual words occur in which cell of a g x g grid, scaled to unit length.

SIFT here is VLFeat's dense, upright one with a flat window: gradient magnitude spread linearly over 8 orientations,
summed bilinearly over 4x4 cells. Since faces are tiny, the bilinear sum is two small matrix products per orientation
map, which handles thousands of images a second; only the words need ``faiss`` (``pip install
'fer-repro[classical]'``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from scipy import ndimage, sparse

from fer_repro.errors import FerReproError

CELLS, ORIENTATIONS, EDGE = 4, 8, 48


def _faiss() -> ModuleType:
    try:
        import faiss
    except ImportError as error:
        raise FerReproError(
            "the visual words need the package faiss, which is not installed; run: pip install 'fer-repro[classical]'"
        ) from error
    return faiss


@dataclass(frozen=True)
class SiftGrid:
    """Where and how descriptors are taken.

    ``step``: pixels between neighbouring descriptors; ``cell``: width in pixels of one of the 4x4 cells (4 makes a
    16x16 patch); ``blur``: sigma of the Gaussian before the gradient, in pixels; ``root``: Hellinger form (square
    root of the L1-normalised descriptor), whose Euclidean distance is kinder to large bins.
    """

    step: int = 2
    cell: int = 4
    blur: float = 0.6
    root: bool = False

    def __post_init__(self) -> None:
        if self.step < 1 or self.cell < 1 or CELLS * self.cell > EDGE or self.blur < 0:
            raise FerReproError(
                f"{self}: expected step >= 1, blur >= 0 and cells of 1 to {EDGE // CELLS} pixels; change the recipe"
            )

    def corners(self) -> np.ndarray:
        """int64 [side]: centre of the first cell along one axis, in pixels; the grid is centred in the image."""
        reach = EDGE - (CELLS - 1) * self.cell
        first = np.arange(0, reach, self.step)
        return first + (reach - 1 - first[-1]) // 2

    def centres(self) -> np.ndarray:
        """float32 [side * side, 2]: (y, x) of every patch centre in pixels, row by row."""
        axis = self.corners() + (CELLS - 1) * self.cell / 2
        return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)


def _orientation_maps(images: np.ndarray, blur: float) -> np.ndarray:
    """uint8 [N,48,48] -> float32 [N,8,48,48]: gradient magnitude, split between the two nearest orientations."""
    smooth = images.astype(np.float32)
    if blur > 0:
        smooth = ndimage.gaussian_filter(smooth, (0, blur, blur), mode="nearest")
    dy, dx = np.gradient(smooth, axis=(1, 2))
    magnitude = np.hypot(dx, dy)
    angle = np.arctan2(dy, dx) * (ORIENTATIONS / (2 * np.pi)) % ORIENTATIONS
    low = np.floor(angle).astype(np.int64)  # may round up to 8, which is orientation 0 again
    share = (angle - low).astype(np.float32)
    maps = np.zeros((len(images), ORIENTATIONS, EDGE, EDGE), np.float32)
    np.put_along_axis(maps, (low % ORIENTATIONS)[:, None], (magnitude * (1 - share))[:, None], axis=1)
    np.put_along_axis(maps, ((low + 1) % ORIENTATIONS)[:, None], (magnitude * share)[:, None], axis=1)
    return maps


def dense_sift(images: np.ndarray, grid: SiftGrid) -> np.ndarray:
    """Descriptors of every image on the grid: uint8 [N,48,48] -> float32 [N, descriptors, 128].

    The 128 numbers are ordered cell row, cell column, orientation. Each descriptor has unit length after clipping at
    0.2 (Lowe's normalisation); a flat patch gives zeros. No low-contrast patch is dropped.
    """
    corners = grid.corners()
    # [side * 4, 48]: the triangle that weights a pixel by its distance to each cell centre
    cell_centres = (corners[:, None] + grid.cell * np.arange(CELLS)).reshape(-1, 1)
    weights = np.maximum(0, 1 - np.abs(np.arange(EDGE) - cell_centres) / grid.cell).astype(np.float32)
    n, side = len(images), len(corners)
    # two large products (first over x, then over y) instead of many small ones
    along_x = (_orientation_maps(images, grid.blur).reshape(-1, EDGE) @ weights.T).reshape(n, ORIENTATIONS, EDGE, -1)
    sums = np.ascontiguousarray(along_x.swapaxes(2, 3)).reshape(-1, EDGE) @ weights.T
    blocks = sums.reshape(n, ORIENTATIONS, side, CELLS, side, CELLS).transpose(0, 4, 2, 5, 3, 1)
    found = blocks.reshape(n, side * side, -1)
    tiny = np.float32(1e-6)
    found /= np.linalg.norm(found, axis=2, keepdims=True) + tiny
    np.minimum(found, np.float32(0.2), out=found)
    if grid.root:
        found /= found.sum(axis=2, keepdims=True) + tiny
        np.sqrt(found, out=found)
    else:
        found /= np.linalg.norm(found, axis=2, keepdims=True) + tiny
    return found


def sample_descriptors(images: np.ndarray, grid: SiftGrid, size: int, seed: int, chunk: int = 128) -> np.ndarray:
    """A random sample for the vocabulary: float32 [<= size, 128], equally many from each of at most 4,000 images."""
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(images), min(len(images), 4000), replace=False))
    each = min(-(-size // len(chosen)), len(grid.centres()))
    sample = [
        one[rng.choice(len(one), each, replace=False)]
        for start in range(0, len(chosen), chunk)
        for one in dense_sift(images[chosen[start : start + chunk]], grid)
    ]
    return rng.permutation(np.concatenate(sample))[:size]


def train_vocabulary(sample: np.ndarray, words: int, seed: int, iterations: int = 5) -> np.ndarray:
    """k-means on descriptors: float32 [M,128] -> float32 [words,128]; deterministic for a seed and thread count."""
    if len(sample) < words:
        raise FerReproError(f"vocabulary: {words} words need as many descriptors, got {len(sample)}; ask for fewer")
    kmeans = _faiss().Kmeans(
        sample.shape[1], words, niter=iterations, seed=seed, min_points_per_centroid=1, max_points_per_centroid=10**6
    )
    kmeans.train(np.ascontiguousarray(sample, np.float32))
    return np.array(kmeans.centroids)


class WordFinder:
    """Nearest words of descriptors by an inverted file over the vocabulary: the role of the paper's k-d trees.

    ``probes`` of about ``1.3 * sqrt(words)`` lists are searched; a vocabulary below 1,500 words is searched exactly.
    """

    def __init__(self, vocabulary: np.ndarray, probes: int = 6) -> None:
        faiss = _faiss()
        words, width = vocabulary.shape
        centroids = np.ascontiguousarray(vocabulary, np.float32)
        self._quantiser = faiss.IndexFlatL2(width)
        if words < 1500:
            self._index = self._quantiser
        else:
            self._index = faiss.IndexIVFFlat(self._quantiser, width, int(1.3 * words**0.5))
            self._index.cp.min_points_per_centroid = 1
            self._index.train(centroids)
            self._index.nprobe = probes
        self._index.add(centroids)

    def nearest(self, descriptors: np.ndarray, count: int = 1) -> np.ndarray:
        """float32 [..., 128] -> int32 [..., count]: indices of the nearest words, nearest first."""
        flat = np.ascontiguousarray(descriptors.reshape(-1, descriptors.shape[-1]), np.float32)
        found = self._index.search(flat, count)[1].reshape(*descriptors.shape[:-1], count).astype(np.int32)
        # the searched lists of an inverted file may hold fewer words than ``count``: repeat the nearest one
        return np.where(found < 0, found[..., :1], found)


def words_of(
    images: np.ndarray, grid: SiftGrid, finder: WordFinder, count: int, chunk: int = 128
) -> Iterator[np.ndarray]:
    """Words of every descriptor, chunk by chunk: yields uint16 [<= chunk, descriptors, count]; stores no descriptor."""
    for start in range(0, len(images), chunk):
        yield finder.nearest(dense_sift(images[start : start + chunk], grid), count).astype(np.uint16)


def spatial_words(
    words: np.ndarray, centres: np.ndarray, n_words: int, level: int, counts: bool = False
) -> sparse.csr_matrix:
    """One pyramid level: word indices [N, descriptors, r] -> CSR float32 [N, level**2 * n_words], rows of unit length.

    A descriptor belongs to the cell of the level x level grid that holds its patch centre (``centres``: float32
    [descriptors, 2], pixels). Entries say that a word occurs in a cell (presence), or how often with ``counts``.
    """
    cell = np.minimum((centres * level / EDGE).astype(np.int64), level - 1)
    offset = ((cell[:, 0] * level + cell[:, 1]) * n_words).astype(np.int32)
    columns, values, ends = [], [], [0]
    for one in words:
        found, times = np.unique(one.astype(np.int32) + offset[:, None], return_counts=True)
        weight = times.astype(np.float32) if counts else np.ones(len(found), np.float32)
        columns.append(found)
        values.append(weight / np.linalg.norm(weight))
        ends.append(ends[-1] + len(found))
    shape = (len(words), level * level * n_words)
    return sparse.csr_matrix((np.concatenate(values), np.concatenate(columns), np.array(ends)), shape=shape)


def weighted_sum(levels: Sequence[sparse.csr_matrix], weights: Sequence[float]) -> sparse.csr_matrix:
    """Vectors whose inner product is the weighted sum of the level kernels, weights scaled to sum to 1 (unit rows)."""
    if len(levels) != len(weights) or sum(weights) <= 0 or min(weights) < 0:
        raise FerReproError(f"kernel weights {tuple(weights)}: expected {len(levels)} numbers >= 0, not all zero")
    total = float(sum(weights))
    shares = [np.float32((weight / total) ** 0.5) for weight in weights]
    parts = [level * share for level, share in zip(levels, shares, strict=True) if share]
    return sparse.hstack(parts, format="csr", dtype=np.float32)
