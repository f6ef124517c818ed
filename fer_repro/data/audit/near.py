"""Near-duplicates: the same photograph twice, cropped, scaled, compressed or watermarked in another way.

A perceptual hash proposes pairs, normalised correlation confirms them. The hash of an image is the direction of its 63
lowest DCT coefficients (all but the mean: the numbers whose signs are the bits of pHash, which keep more of the pairs
for the same number of proposals when they stay numbers); a pair is proposed where the cosine of the two is at least
`ALIKE`. It is confirmed where the centre of each image, 42 x 42 pixels, lies somewhere within 3 pixels in the other
with a correlation of at least `NEAR`: brightness and contrast do not count. The threshold rests on the sample of pairs
in `fer_repro.data.audit.precision`.

What this does not look for: mirrored pictures, larger shifts, other scales. The pairs found are a lower bound.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.fft import dct, irfft2, rfft2

from fer_repro.data.audit.exact import JPEG_SPREAD, groups
from fer_repro.data.dataset import FER2013
from fer_repro.data.official import PIXELS, SIDE

LOW = 8  # the hash looks at the 8 x 8 lowest frequencies
ALIKE = 0.86
SHIFT = 3  # pixels in each direction
WINDOW = SIDE - 2 * SHIFT
NEAR = 0.92
SHOWN = 0.86  # pairs from here on are reported, so that what lies below the threshold can be seen
BLOCK, CHUNK = 1024, 512  # images, pairs at a time: about 140 MB and 10 MB


def near_duplicates(data: FER2013, group: np.ndarray | None = None, shown: float = SHOWN) -> pd.DataFrame:
    """Pairs of different images that look alike, the most alike first.

    Each image stands for all that are identical with it, by the first of them; blank images take no part. Columns:
    ``first`` and ``second`` (positions in ``data``, ascending), ``correlation`` (``shown`` to 1) and ``cosine`` (of
    the two hashes), both rounded to 4 digits. ``group``: `groups` of the data, where they are known already.
    """
    group = groups(data) if group is None else group
    first = np.unique(group, return_index=True)[1]
    rows = data.images.reshape(len(data), PIXELS)[first]
    pictures = first[rows.max(axis=1).astype(int) - rows.min(axis=1) > JPEG_SPREAD]
    images = data.images[pictures]
    pairs, cosine = _proposed(_hash(images))
    likely = _screen(images, pairs) >= shown - 0.001  # float32 is off by less; what counts is computed again
    pairs = pairs[likely]
    frame = pd.DataFrame(
        {
            "first": pictures[pairs[:, 0]],
            "second": pictures[pairs[:, 1]],
            "correlation": np.round(_confirmed(images, pairs), 4),
            "cosine": np.round(cosine[likely].astype(np.float64), 4),
        }
    )
    frame = frame[frame["correlation"] >= shown]
    return frame.sort_values(
        ["correlation", "first", "second"], ascending=[False, True, True], ignore_index=True, kind="stable"
    )


def _hash(images: np.ndarray) -> np.ndarray:
    """The hash of each image uint8 [N,48,48]: 63 numbers of length 1, float32 [N,63]."""
    basis = dct(np.eye(SIDE), axis=0, norm="ortho")[:LOW]  # float64 [8,48]
    low = np.empty((len(images), LOW * LOW - 1), np.float32)
    for at in range(0, len(images), CHUNK):
        coefficients = basis @ images[at : at + CHUNK] @ basis.T
        low[at : at + CHUNK] = coefficients.reshape(-1, LOW * LOW)[:, 1:]
    return low / np.maximum(np.linalg.norm(low, axis=1, keepdims=True), 1e-6)


def _proposed(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs int [P,2] of rows whose hashes have a cosine of at least `ALIKE`, and that, float32 [P]."""
    pairs, cosine = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    for at in range(0, len(hashes), BLOCK):
        product = hashes[at : at + BLOCK] @ hashes[at:].T
        left, right = np.nonzero(product >= ALIKE)
        later = right > left
        left, right = left[later], right[later]
        pairs.append(np.stack([left, right], axis=1) + at)
        cosine.append(product[left, right])
    return np.concatenate(pairs), np.concatenate(cosine)


def _screen(images: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The correlation that decides, in single precision, float32 [P]: the smaller one of the two directions."""
    centres, wholes, norms = _spectra(images)
    found = np.empty(len(pairs), np.float32)
    for at in range(0, len(pairs), CHUNK):
        a, b = pairs[at : at + CHUNK].T
        ways = (_correlations(centres[i], wholes[j], norms[j]).max(axis=(1, 2)) for i, j in ((a, b), (b, a)))
        found[at : at + CHUNK] = np.minimum(*ways)
    return found


def _spectra(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spectra of each image's normalised centre (conjugated) and of the whole image, complex64 [N,48,25] each, and the
    norm of the image's window at every shift, float32 [N,7,7]."""
    shape = (len(images), SIDE, SIDE // 2 + 1)
    centres, wholes = np.empty(shape, np.complex64), np.empty(shape, np.complex64)
    norms = np.empty((len(images), 2 * SHIFT + 1, 2 * SHIFT + 1), np.float32)
    for at in range(0, len(images), CHUNK):
        part = slice(at, at + CHUNK)
        whole = images[part].astype(np.float32)
        whole -= whole.mean(axis=(1, 2), keepdims=True)
        centre = np.zeros_like(whole)
        inner = whole[:, SHIFT:-SHIFT, SHIFT:-SHIFT]
        inner = inner - inner.mean(axis=(1, 2), keepdims=True)
        length = np.sqrt((inner**2).sum(axis=(1, 2), keepdims=True))
        centre[:, SHIFT:-SHIFT, SHIFT:-SHIFT] = inner / np.maximum(length, 1)
        centres[part], wholes[part] = rfft2(centre).conj(), rfft2(whole)
        spread = _window_sums(whole**2) - _window_sums(whole) ** 2 / WINDOW**2
        norms[part] = np.sqrt(np.maximum(spread, 1))
    return centres, wholes, norms


def _window_sums(values: np.ndarray) -> np.ndarray:
    """The sum over the window at every shift, float64 [n,7,7]."""
    sums = np.pad(values, ((0, 0), (1, 0), (1, 0))).cumsum(axis=1, dtype=np.float64).cumsum(axis=2)
    return (
        sums[:, WINDOW:, WINDOW:]
        - sums[:, :-WINDOW, WINDOW:]
        - sums[:, WINDOW:, :-WINDOW]
        + sums[:, :-WINDOW, :-WINDOW]
    )


def _correlations(centres: np.ndarray, wholes: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Each centre against the other image at every shift, float32 [n,7,7], row and column from -3 to 3."""
    shifts = np.arange(-SHIFT, SHIFT + 1)
    return irfft2(centres * wholes, s=(SIDE, SIDE))[:, shifts[:, None], shifts] / norms


def _confirmed(images: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The correlation that decides in double precision, float64 [P]: sums of whole numbers, so equal on every
    machine."""
    used, at = np.unique(pairs, return_inverse=True)
    centres, wholes, norms = _spectra(images[used])
    found = np.empty((len(pairs), 2))
    for way, (one, other) in enumerate(((0, 1), (1, 0))):
        for begin in range(0, len(pairs), CHUNK):
            part = slice(begin, begin + CHUNK)
            i, j = at.reshape(-1, 2)[part, one], at.reshape(-1, 2)[part, other]
            best = _correlations(centres[i], wholes[j], norms[j]).reshape(len(i), -1).argmax(axis=1)
            down, right = best // (2 * SHIFT + 1), best % (2 * SHIFT + 1)
            windows = np.lib.stride_tricks.sliding_window_view(images[used[j]], (WINDOW, WINDOW), axis=(1, 2))
            window = windows[np.arange(len(j)), down, right].reshape(len(j), -1).astype(np.float64)
            centre = images[used[i]][:, SHIFT:-SHIFT, SHIFT:-SHIFT].reshape(len(i), -1).astype(np.float64)
            found[part, way] = _correlation(centre, window)
    return found.min(axis=1)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the rows of two arrays of whole numbers, float64 [n]; 0 where a row is constant."""
    n = a.shape[1]
    dot = n * np.einsum("ij,ij->i", a, b) - a.sum(axis=1) * b.sum(axis=1)
    spread = [n * np.einsum("ij,ij->i", x, x) - x.sum(axis=1) ** 2 for x in (a, b)]
    return dot / np.sqrt(np.maximum(spread[0] * spread[1], 1))
