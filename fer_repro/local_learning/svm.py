"""Local learning: for every test image, an SVM trained only on its nearest training images.

The k nearest are those of largest kernel value. The machine is the C-SVM with free bias and hinge loss, one class
against all others, on the precomputed kernel of these k images: what LIBSVM solves. A run asks for tens of thousands
of such small problems, and the seven of one image share their kernel matrix, so they are solved together: ADMM on the
dual, where one inverse per image serves all classes and all steps, and the box constraint is a clip. At k = 200 this
is several times faster than seven calls of scikit-learn, whose decision values it matches (the tests compare them).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import optimize, sparse, special
from threadpoolctl import threadpool_limits

from fer_repro.errors import FerReproError

# Inner products of a pool with itself: all of them, or a function from int [B,k] indices to float32 [B,k,k].
Gram = np.ndarray | Callable[[np.ndarray], np.ndarray]


class _Split:
    """Sparse rows split into frequent columns, for dense products, and rare ones, which stay sparse."""

    def __init__(self, rows: sparse.csr_matrix, frequent: np.ndarray) -> None:
        self.common, self.rare = rows[:, np.flatnonzero(frequent)], rows[:, np.flatnonzero(~frequent)]

    @staticmethod
    def frequent(pool: sparse.csr_matrix) -> np.ndarray:
        """bool [columns]: used by over 8 % of the pool, where a dense product is the faster one."""
        return np.bincount(pool.indices, minlength=pool.shape[1]) > 0.08 * pool.shape[0]

    def times(self, other: _Split, low: int, high: int, out: np.ndarray, chunk: int = 512) -> None:
        """Write the inner products of the first ``len(out)`` rows with rows ``low`` to ``high`` of ``other``."""
        dense, thin = other.common[low:high].toarray().T, other.rare[low:high].T.tocsr()
        for start in range(0, len(out), chunk):
            part = slice(start, min(start + chunk, len(out)))
            out[part] = self.common[part].toarray() @ dense + (self.rare[part] @ thin).toarray()


def kernel(rows: sparse.csr_matrix, pool: sparse.csr_matrix, strip: int = 8192) -> np.ndarray:
    """Inner products of two sets of sparse vectors: float16 [len(rows), len(pool)].

    Half precision: the vectors have unit length, so a value is off by 0.0005 at most, and the kernel of a pool with
    itself takes 1.6 GB for 28,709 images.
    """
    frequent = _Split.frequent(pool)
    left, right = _Split(rows, frequent), _Split(pool, frequent)
    out = np.empty((rows.shape[0], pool.shape[0]), np.float16)
    for low in range(0, pool.shape[0], strip):
        high = min(low + strip, pool.shape[0])
        left.times(right, low, high, out[:, low:high])
    return out


def self_kernel(pool: sparse.csr_matrix, pause: Callable[[], None] = lambda: None, strip: int = 8192) -> np.ndarray:
    """`kernel(pool, pool)` by its upper half; ``pause`` is called between strips and may raise to stop."""
    parts = _Split(pool, _Split.frequent(pool))
    count = pool.shape[0]
    out = np.empty((count, count), np.float16)
    for low in range(0, count, strip):
        high = min(low + strip, count)
        parts.times(parts, low, high, out[:high, low:high])
        out[low:high, :low] = out[:low, low:high].T
        pause()
    return out


def solve(
    gram: np.ndarray,
    rows: np.ndarray,
    labels: np.ndarray,
    C: float,  # noqa: N803 - the SVM's own name
    classes: int = 7,
    tolerance: float = 5e-4,
    most_steps: int = 500,
) -> np.ndarray:
    """One-against-all SVMs of B neighbourhoods at once, evaluated at one point each.

    ``gram`` [B,k,k] and ``rows`` [B,k]: kernel among the neighbours, and with the test image; ``labels`` int [B,k].
    Returns float32 decision values [B, classes]. Steps stop when no coefficient moves or misses its bound by more
    than ``tolerance`` (times min(C, 1)). A class absent from a neighbourhood can never win: it gets the lowest value
    of the present ones, at most -1 (what the machine without positive examples answers). With one class only, that
    class gets +1.
    """
    gram, rows = gram.astype(np.float32), rows.astype(np.float32)
    count = gram.shape[1]
    target = np.where(labels[:, :, None] == np.arange(classes), np.float32(1), np.float32(-1))
    # the penalty: a typical eigenvalue of the centred kernel, which balances progress on constraint and objective;
    # where all neighbours look alike the bounds decide, whose scale is C
    spread = np.trace(gram, axis1=1, axis2=2) / count - gram.mean(axis=(1, 2))
    rho = np.maximum(spread, np.float32(max(1e-3, 0.1 / C)))[:, None, None].astype(np.float32)
    inverse = np.linalg.inv(gram + rho * np.eye(count, dtype=np.float32))
    toll = inverse.sum(axis=2, keepdims=True)
    low = np.where(target > 0, np.float32(0), np.float32(-C))
    high = np.where(target > 0, np.float32(C), np.float32(0))
    # signed dual coefficients: `free` keeps the sum-to-zero constraint, `boxed` the bounds; `gap` pulls them together
    state = [target, inverse, toll, toll.sum(axis=1, keepdims=True), rho, low, high, rows]
    boxed, gap = np.zeros_like(target), np.zeros_like(target)
    decisions = np.empty((len(gram), classes), np.float32)
    left = np.arange(len(gram))
    for step in range(most_steps):
        goal, inverted, share, total, penalty, floor, ceiling, asked = state
        free = inverted @ (goal + penalty * (boxed - gap))
        bias = free.sum(axis=1, keepdims=True) / total
        free -= share * bias
        relaxed = np.float32(1.6) * free - np.float32(0.6) * boxed
        before = boxed
        boxed = np.clip(relaxed + gap, floor, ceiling)
        gap += relaxed - boxed
        moved = np.maximum(np.abs(boxed - before), np.abs(free - boxed)).max(axis=(1, 2))
        done = (moved < tolerance * min(C, 1.0)) | (step == most_steps - 1)
        if done.any():
            # each problem stops on its own: its answer does not depend on the others of its batch
            decisions[left[done]] = (asked[done, None] @ boxed[done])[:, 0] + bias[done, 0]
            left, boxed, gap = left[~done], boxed[~done], gap[~done]
            state = [part[~done] for part in state]
        if not len(left):
            break
    present = (target > 0).any(axis=1)
    lowest = np.where(present, decisions, np.inf).min(axis=1, keepdims=True)
    return np.where(present, decisions, np.minimum(lowest, -1)).astype(np.float32)


def neighbours(similarity: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k largest per row, largest first, ties by index: [N, pool] -> int64 [N, k]."""
    if not 1 <= k <= similarity.shape[1]:
        raise FerReproError(
            f"local learning: k = {k} neighbours asked of a pool of {similarity.shape[1]} images; choose fewer"
        )
    values = -similarity.astype(np.float32)
    # a partial sort first; everything equal to the k-th value stays in, so that ties are broken by index
    limit = np.partition(values, k - 1, axis=1)[:, k - 1 : k]
    chosen = []
    for row, edge in zip(values, limit, strict=True):
        near = np.flatnonzero(row <= edge)
        chosen.append(near[np.argsort(row[near], kind="stable")][:k])
    return np.array(chosen)


def local_decisions(
    similarity: np.ndarray,
    gram: Gram,
    labels: np.ndarray,
    k: int,
    costs: tuple[float, ...],
    pause: Callable[[], None] = lambda: None,
) -> dict[float, np.ndarray]:
    """Decision values of every test image from its own local machine, for each SVM cost in ``costs``.

    ``similarity`` [N, pool]: kernel of test with training images; ``gram`` [pool, pool] (see `Gram`);
    ``labels`` int64 [pool]. Returns {C: float32 [N,7]}. ``pause`` is called between chunks and may raise to stop.
    """
    decisions = {C: np.empty((len(similarity), 7), np.float32) for C in costs}
    chunk = max(1, 400_000 // k**2)

    def work(start: int) -> None:
        part = similarity[start : start + chunk]
        near = neighbours(part, k)
        among = gram(near) if callable(gram) else gram[near[:, :, None], near[:, None, :]]
        rows = np.take_along_axis(part, near, axis=1)
        for C in costs:
            decisions[C][start : start + chunk] = solve(among, rows, labels[near], C)

    # Many small problems: one thread for each, since BLAS threads within a small problem gain little.
    workers = os.cpu_count() or 1
    starts = list(range(0, len(similarity), chunk))
    with threadpool_limits(1), ThreadPoolExecutor(workers) as crew:
        for first in range(0, len(starts), 4 * workers):
            list(crew.map(work, starts[first : first + 4 * workers]))
            pause()
    return decisions


def softmax(decisions: np.ndarray, temperature: float) -> np.ndarray:
    """Decision values [N,7] -> probabilities float32 [N,7]."""
    return special.softmax(decisions.astype(np.float64) / temperature, axis=1).astype(np.float32)


def fit_temperature(decisions: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of `softmax` with the lowest log loss on held-out images; it changes no arg max."""

    def loss(log_temperature: float) -> float:
        rows = softmax(decisions, float(np.exp(log_temperature)))
        return float(-np.log(np.maximum(rows[np.arange(len(labels)), labels], 1e-12)).mean())

    return float(np.exp(optimize.minimize_scalar(loss, bounds=(-5, 3), method="bounded").x))
