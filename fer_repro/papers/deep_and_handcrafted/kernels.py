"""Blocks of features side by side under one linear kernel: the kernel of the whole is the sum of the blocks' kernels.

A block is any array with one row per image (float [N,D], of this book's networks or loaded from a ``.npy`` file, or
sparse); every row is scaled to length 1, so that all blocks weigh the same. The neighbours are then those of the
largest sum of cosines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import sparse

from fer_repro.errors import FerReproError
from fer_repro.local_learning import svm

Block = np.ndarray | sparse.csr_matrix
Blocks = Mapping[str, Block]


def unit_rows(block: Block) -> Block:
    """Every row scaled to length 1, float32; a row of zeros stays one."""
    if sparse.issparse(block):
        lengths = np.sqrt(np.asarray(block.multiply(block).sum(axis=1))).ravel()
        return sparse.diags(1 / np.where(lengths > 0, lengths, 1)).dot(block).tocsr().astype(np.float32)
    rows = np.asarray(block, np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def unit_blocks(blocks: Blocks) -> dict[str, Block]:
    """`unit_rows` of every block."""
    return {name: unit_rows(block) for name, block in blocks.items()}


def stacked(first: Blocks, second: Blocks) -> dict[str, Block]:
    """The rows of ``first``, then those of ``second``, block by block."""

    def both(*parts: Block) -> Block:
        return sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.concatenate(parts)

    return {name: both(block, second[name]) for name, block in first.items()}


def joined(blocks: Blocks, names: Sequence[str]) -> Block:
    """The named blocks side by side; sparse as soon as one of them is."""
    parts = [blocks[name] for name in names]
    if any(sparse.issparse(part) for part in parts):
        return sparse.hstack([sparse.csr_matrix(part) for part in parts], format="csr", dtype=np.float32)
    return np.hstack(parts)


class Pool:
    """The blocks of the training images, and the kernels among them and with others.

    ``pause`` is called between parts and may raise to stop. A sparse block's kernel with itself is cached (2 bytes for
    every pair of images), a dense block's is computed for the neighbours at hand.
    """

    def __init__(self, blocks: Blocks, labels: np.ndarray, pause: Callable[[], None] = lambda: None) -> None:
        sizes = {name: block.shape[0] for name, block in blocks.items()}
        if not sizes or set(sizes.values()) != {len(labels)}:
            raise FerReproError(f"fusion: blocks of {sizes} rows for {len(labels)} labels, expected one row per label")
        self.blocks = unit_blocks(blocks)
        self.labels, self.pause = np.asarray(labels), pause
        self._cached: dict[str, np.ndarray] = {}

    def similarity(self, blocks: Blocks, names: Sequence[str]) -> np.ndarray:
        """The summed kernel of other images with the pool, float32 [N, pool]; ``blocks`` as in the pool."""
        return sum(self.one_similarity(name, blocks[name]) for name in names)

    def one_similarity(self, name: str, block: Block) -> np.ndarray:
        """One block's kernel with the pool, float32 [N, pool]."""
        rows, own = unit_rows(block), self.blocks[name]
        if rows.shape[1] != own.shape[1] or sparse.issparse(rows) != sparse.issparse(own):
            raise FerReproError(
                f"fusion: block '{name}' has {rows.shape[1]} columns, the pool's has {own.shape[1]}: both must come "
                "from one network, or one vocabulary"
            )
        self.pause()
        return svm.kernel(rows, own).astype(np.float32) if sparse.issparse(own) else rows @ own.T

    def gram(self, names: Sequence[str]) -> svm.Gram:
        """The summed kernel among neighbours: int [B,k] indices -> float32 [B,k,k]."""
        for name in names:
            if sparse.issparse(self.blocks[name]) and name not in self._cached:
                self._cached[name] = svm.self_kernel(self.blocks[name], self.pause)

        def among(near: np.ndarray) -> np.ndarray:
            total = np.zeros((*near.shape, near.shape[1]), np.float32)
            for name in names:
                if name in self._cached:
                    total += self._cached[name][near[:, :, None], near[:, None, :]]
                else:
                    rows = self.blocks[name][near]
                    total += rows @ rows.swapaxes(1, 2)
            return total

        return among
