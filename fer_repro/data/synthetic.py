"""The synthetic faces: a small stand-in for FER2013 that every machine can make.

Parametric grey 48x48 faces with brows, eyes, a nose and a mouth, under a pose, a light and noise of their own. Each of
the seven expressions is a point in a space of 15 shape parameters; a face lies somewhere between the neutral point and
its expression's (some faces are faint), is pulled a little towards another expression (some are ambiguous), and is
jittered. So a network can learn them well, but not perfectly. Classes and usages follow FER2013's proportions.

They show that every step of the book runs. Nothing computed from them is a result about a paper.
"""

from __future__ import annotations

import functools

import numpy as np

from fer_repro.data.dataset import FER2013
from fer_repro.data.official import LABELS, OFFICIAL_COUNTS, SIDE, USAGES, digest
from fer_repro.errors import FerReproError

SIZE = (1600, 200, 200)
LARGEST = 100_000
FEWEST = 3  # images of every class in a usage, where there is room
_CHUNK = 64  # faces drawn at once: their layers stay in the processor's cache

# What an expression does to the face. Lengths are in half-heights of the face, y points down (raised is < 0).
_SHAPE = (
    "brow_inner",  # height of the brow's inner end
    "brow_outer",  # height of its outer end
    "brow_arch",  # how much its middle rises
    "brow_gap",  # distance of the inner ends from the middle
    "eye_open",  # half-height of the eye
    "eye_squint",  # how far the lower lid is pushed up
    "nose_wrinkle",  # darkness of the folds beside the nose's root
    "fold",  # darkness of the folds from nose to mouth
    "mouth_y",  # height of the mouth
    "mouth_width",  # half-width
    "mouth_curve",  # how far the corners rise above the middle
    "mouth_open",  # half-height of the opening
    "upper_lip",  # how far the upper lip is pulled up in its middle
    "teeth",  # whiteness inside the mouth
    "mouth_skew",  # slope of the mouth
)
_NEUTRAL = (0.0, 0.0, 0.05, 0.16, 0.085, 0.0, 0.0, 0.15, 0.0, 0.27, 0.02, 0.015, 0.0, 0.0, 0.0)
_EXPRESSION = {
    "angry": (0.13, -0.10, 0.00, 0.08, 0.070, 0.25, 0.35, 0.30, 0.01, 0.26, -0.05, 0.045, 0.00, 0.80, 0.0),
    "disgust": (0.09, 0.02, 0.03, 0.11, 0.045, 0.45, 1.00, 0.80, -0.04, 0.24, -0.12, 0.060, 0.09, 0.45, 0.08),
    "fear": (-0.15, -0.06, 0.02, 0.10, 0.130, 0.00, 0.15, 0.15, 0.04, 0.32, -0.09, 0.080, -0.01, 0.40, 0.0),
    "happy": (-0.01, 0.00, 0.08, 0.17, 0.060, 0.50, 0.00, 0.75, -0.02, 0.37, 0.16, 0.075, -0.02, 1.00, 0.0),
    "sad": (-0.13, 0.09, 0.00, 0.12, 0.060, 0.10, 0.00, 0.25, 0.04, 0.23, -0.13, 0.015, 0.00, 0.00, 0.0),
    "surprise": (-0.17, -0.15, 0.12, 0.17, 0.140, 0.00, 0.00, 0.05, 0.06, 0.18, 0.00, 0.170, 0.00, 0.10, 0.0),
    "neutral": _NEUTRAL,
}
_SPREAD = (0.028, 0.028, 0.02, 0.02, 0.014, 0.08, 0.10, 0.12, 0.02, 0.03, 0.028, 0.012, 0.012, 0.15, 0.02)


def _proportional(total: int, weights: np.ndarray) -> np.ndarray:
    """``total`` images shared out over the classes like ``weights`` [7], at least FEWEST to each where that fits."""
    least = min(FEWEST, total // len(weights))
    ideal = weights / weights.sum() * total
    share = np.maximum(np.floor(ideal).astype(np.int64), least)
    while share.sum() < total:
        share[np.argmax(ideal - share)] += 1
    while share.sum() > total:
        share[np.argmax(np.where(share > least, share - ideal, -np.inf))] -= 1
    return share


def draw(seed: int = 0, size: tuple[int, int, int] = SIZE) -> FER2013:
    """Draw ``size`` faces for Training, PublicTest and PrivateTest; the same seed and size give the same faces.

    Raises `FerReproError` where ``size`` is not three counts of at least 7 (one a class), LARGEST in all.
    """
    try:
        counts = tuple(int(n) for n in size)
        whole = all(int(n) == n for n in size)
    except (TypeError, ValueError):
        counts, whole = (), False
    if len(counts) != len(USAGES) or not whole or min(counts) < len(LABELS) or sum(counts) > LARGEST:
        raise FerReproError(
            f"the size of the synthetic faces is {size!r}, expected three whole numbers (Training, PublicTest, "
            f"PrivateTest) of at least {len(LABELS)}, {LARGEST:,} in all; for example {SIZE}"
        )
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise FerReproError(f"the seed of the synthetic faces is {seed!r}, expected a whole number from 0 on")
    return _draw(int(seed), counts)


@functools.lru_cache(maxsize=4)
def _draw(seed: int, size: tuple[int, ...]) -> FER2013:
    images, labels, usage = [], [], []
    for code, total in enumerate(size):
        rng = np.random.default_rng([seed, code])
        label = np.repeat(np.arange(len(LABELS)), _proportional(total, OFFICIAL_COUNTS[code]))
        rng.shuffle(label)
        images.append(_faces(label, rng))
        labels.append(label)
        usage.append(np.full(total, code, np.uint8))
    pixels, label, codes = np.concatenate(images), np.concatenate(labels), np.concatenate(usage)
    words = np.array(USAGES)[codes]
    ids = np.array([f"synthetic-{seed}-{i:05d}" for i in range(len(label))])
    for array in (pixels, label, words, ids):
        array.setflags(write=False)
    facts = {"kind": "synthetic", "layout": "synthetic", "rows": len(label), "from_cache": False, "in_memory": True}
    source = f"faces synthesised by the library, seed {seed}"
    return FER2013(pixels, label, words, ids, "synthetic", source, digest(pixels, label, codes), facts)


def _shapes(label: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The shape parameters of each face: name -> float32 [N,1,1]."""
    n = len(label)
    points = np.array([_EXPRESSION[name] for name in LABELS])
    neutral = np.array(_NEUTRAL)
    # How strong the expression is, and how much of another one is mixed in.
    strength = rng.uniform(0.40, 1.1, (n, 1))
    other = rng.integers(0, len(LABELS), n)
    mix = rng.uniform(0.0, 0.36, (n, 1)) * (rng.random((n, 1)) < 0.6)
    shape = neutral + strength * ((1 - mix) * points[label] + mix * points[other] - neutral)
    shape = shape + rng.normal(size=shape.shape) * np.array(_SPREAD)
    named = {name: shape[:, k].astype(np.float32)[:, None, None] for k, name in enumerate(_SHAPE)}
    for name, low in (("eye_open", 0.02), ("mouth_width", 0.1), ("mouth_open", 0.008), ("brow_gap", 0.04)):
        named[name] = np.maximum(named[name], np.float32(low))
    for name in ("eye_squint", "nose_wrinkle", "fold", "teeth"):
        named[name] = np.clip(named[name], 0, 1)
    return named


def _faces(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Faces for the labels int64 [N]: uint8 [N,48,48]."""
    n = len(label)
    shape = _shapes(label, rng)

    def uniform(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, n).astype(np.float32)[:, None, None]

    roll = rng.normal(0, 0.10, n)
    look = {
        "cos": np.cos(roll).astype(np.float32)[:, None, None],
        "sin": np.sin(roll).astype(np.float32)[:, None, None],
        "x": uniform(-0.10, 0.10),
        "y": uniform(-0.08, 0.08),
        "scale": uniform(0.88, 1.14),
        "yaw": np.clip(rng.normal(0, 0.20, n), -0.5, 0.5).astype(np.float32)[:, None, None],
        "pitch": np.clip(rng.normal(0, 0.10, n), -0.25, 0.25).astype(np.float32)[:, None, None],
        "face_width": uniform(0.66, 0.80),
        "skin": uniform(0.42, 0.85),
        "hair": uniform(0.03, 0.45),
        "hairline": uniform(-0.80, -0.58),
        "fringe": uniform(0.0, 0.14),
        "backdrop": uniform(0.05, 0.95),
        "backdrop_slope": uniform(-0.3, 0.3),
        "light_x": uniform(-0.30, 0.30),
        "light_y": uniform(-0.25, 0.10),
        "brow_weight": uniform(0.020, 0.045),
        "brow_dark": uniform(0.45, 0.9),
        "eye_gap": uniform(0.27, 0.34),
        "eye_width": uniform(0.115, 0.15),
        "gaze": uniform(-0.04, 0.04),
        "iris": uniform(0.045, 0.065),
        "lips": uniform(0.10, 0.40),
        "glasses": (rng.random(n) < 0.12).astype(np.float32)[:, None, None],
        "beard": uniform(0.08, 0.35) * (rng.random(n) < 0.15)[:, None, None].astype(np.float32),
        "contrast": uniform(0.60, 1.05),
        "noise": uniform(0.01, 0.055),
    }
    out = np.empty((n, SIDE, SIDE), np.uint8)
    for start in range(0, n, _CHUNK):
        part = slice(start, start + _CHUNK)
        image = _render({k: v[part] for k, v in shape.items()}, {k: v[part] for k, v in look.items()})
        grain = rng.standard_normal(image.shape, np.float32)
        image = (image - np.float32(0.5)) * look["contrast"][part] + np.float32(0.5) + grain * look["noise"][part]
        out[part] = np.clip(np.rint(image * np.float32(255)), 0, 255).astype(np.uint8)
    return out


Tone = np.ndarray | np.floating | float
# Only + - * / sqrt and comparisons below: they round alike on every processor, so the faces are the same everywhere.
_EDGE = np.float32(20)  # one over the width of a soft edge, in half-heights of the image: about a pixel


def _inside(distance: np.ndarray) -> np.ndarray:
    """1 inside (distance < 0), 0 outside, a soft edge of about a pixel between."""
    return np.clip(np.float32(0.5) - distance * _EDGE, 0, 1)


def _ellipse(x: np.ndarray, y: np.ndarray, a: Tone, b: Tone) -> np.ndarray:
    """Roughly the signed distance from an ellipse with half-axes ``a`` and ``b`` around 0."""
    u, v = x / a, y / b
    return (np.sqrt(u * u + v * v) - np.float32(1)) * np.minimum(a, b)


def _paint(image: np.ndarray, cover: np.ndarray, tone: Tone) -> None:
    image += cover * (tone - image)


def _render(shape: dict[str, np.ndarray], look: dict[str, np.ndarray]) -> np.ndarray:
    """Draw a chunk of faces: float32 [n,48,48], 0 black to 1 white; parameters are float32 [n,1,1]."""
    axis = ((np.arange(SIDE, dtype=np.float32) + np.float32(0.5)) / np.float32(SIDE / 2)) - np.float32(1)
    x0, y0 = axis[None, None, :] - look["x"], axis[None, :, None] - look["y"]
    x = (x0 * look["cos"] + y0 * look["sin"]) / look["scale"]
    y = (y0 * look["cos"] - x0 * look["sin"]) / look["scale"]

    image = np.clip(look["backdrop"] + look["backdrop_slope"] * (x0 + y0), 0, 1) + np.zeros_like(x)
    width = look["face_width"]
    _paint(image, _inside(_ellipse(x, y + np.float32(0.12), width * np.float32(1.14), np.float32(0.98))), look["hair"])
    shade = look["skin"] + look["light_x"] * x + look["light_y"] * y
    shade = shade - np.float32(0.16) * (x * x / (width * width) + y * y)
    head = _inside(_ellipse(x, y - np.float32(0.06), width, np.float32(0.92)))
    forehead = _inside(look["hairline"] + look["fringe"] * x * np.float32(3) - y)
    _paint(image, head * forehead, shade)
    _paint(image, head * _inside(np.float32(0.42) - y) * look["beard"], look["hair"])

    # The features lie on a sphere that turns by yaw and pitch; u (1 + u^2/6) is the arc sine, near enough.
    u, v = np.clip(x / width, -1, 1), np.clip(y, -1, 1)
    fx = (u * (1 + u * u / np.float32(6)) + look["yaw"]) * width
    fy = v * (1 + v * v / np.float32(6)) + look["pitch"]
    _eyes_and_brows(image, fx, fy, shade, shape, look)
    _nose(image, fx, fy, shade, shape)
    _mouth(image, fx, fy, shade, shape, look)
    return image


def _eyes_and_brows(image, fx, fy, shade, shape, look) -> None:
    """Both sides at once: the face is mirrored, so |x| measures from the middle."""
    side = np.abs(fx)
    ex, ey = side - look["eye_gap"], fy + np.float32(0.13)
    opening = shape["eye_open"]
    # The lower lid of a squint pushes the eye's lower half up.
    lower = opening * (1 - np.float32(0.8) * shape["eye_squint"])
    lid = np.where(ey < 0, opening, np.maximum(lower, np.float32(0.015)))
    ball = _inside(_ellipse(ex, ey, look["eye_width"], lid))
    _paint(image, ball, np.clip(shade + np.float32(0.30), 0, 1))
    iris = _inside(_ellipse(fx - np.sign(fx) * look["eye_gap"] - look["gaze"], ey, look["iris"], look["iris"]))
    _paint(image, ball * iris, np.float32(0.06))
    # Lids: a dark rim along the upper edge, a faint bag below.
    rim = _inside(np.abs(_ellipse(ex, ey, look["eye_width"], lid)) - np.float32(0.012))
    _paint(image, rim * np.where(ey < 0, np.float32(0.75), np.float32(0.30)), np.float32(0.12))
    frame = np.abs(_ellipse(ex, ey, np.float32(0.23), np.float32(0.17))) - np.float32(0.014)
    _paint(image, _inside(frame) * look["glasses"], np.float32(0.10))

    # A brow runs from its inner to its outer end; t is 0 and 1 there.
    inner, length = shape["brow_gap"], np.float32(0.32)
    t = (side - inner) / length
    height = shape["brow_inner"] * (1 - t) + shape["brow_outer"] * t - np.float32(4) * shape["brow_arch"] * t * (1 - t)
    across = np.abs(fy + np.float32(0.33) - height) - look["brow_weight"] * (np.float32(1.25) - np.float32(0.6) * t)
    along = np.maximum(-t, t - 1) * length
    brow = _inside(np.maximum(across, along))
    _paint(image, brow * look["brow_dark"], look["hair"] * np.float32(0.5))


def _nose(image, fx, fy, shade, shape) -> None:
    dark = shade * np.float32(0.62)
    side = np.abs(fx)
    across, along = np.abs(fx - np.float32(0.05)) - np.float32(0.012), np.abs(fy - np.float32(0.08)) - np.float32(0.14)
    ridge = _inside(np.maximum(across, along))
    _paint(image, ridge * np.float32(0.35), dark)
    nostril = _inside(_ellipse(side - np.float32(0.075), fy - np.float32(0.25), np.float32(0.045), np.float32(0.03)))
    _paint(image, nostril * np.float32(0.8), shade * np.float32(0.35))
    # Disgust: two short folds across the root of the nose.
    for height in (-0.10, -0.01):
        wrinkle = np.abs(fy - np.float32(height) + side * np.float32(0.5)) - np.float32(0.014)
        wrinkle = _inside(np.maximum(wrinkle, side - np.float32(0.13)))
        _paint(image, wrinkle * shape["nose_wrinkle"] * np.float32(0.8), shade * np.float32(0.35))
    # The fold runs from beside the nostril down and outwards.
    fold = np.abs(side - np.float32(0.17) - (fy - np.float32(0.20)) * np.float32(0.75)) - np.float32(0.014)
    fold = _inside(np.maximum(fold, np.abs(fy - np.float32(0.34)) - np.float32(0.15)))
    _paint(image, fold * shape["fold"] * np.float32(0.7), shade * np.float32(0.45))


def _mouth(image, fx, fy, shade, shape, look) -> None:
    half, opening = shape["mouth_width"], shape["mouth_open"]
    my = fy - np.float32(0.50) - shape["mouth_y"] - shape["mouth_skew"] * fx
    s = np.clip(fx / half, -1, 1)
    bow = 1 - s * s  # 1 in the middle, 0 at the corners
    middle = shape["mouth_curve"] * (bow - np.float32(0.5))
    top = middle - opening * bow - shape["upper_lip"] * bow
    bottom = middle + opening * bow * np.float32(1.2)
    ends = (np.abs(fx) - half) * np.float32(0.8)
    lip = np.float32(0.045)
    lips = _inside(np.maximum(np.maximum(top - lip * bow - my, my - bottom - lip * np.float32(1.3) * bow), ends))
    _paint(image, lips * np.float32(0.8), np.maximum(shade - look["lips"], np.float32(0.05)))
    hole = _inside(np.maximum(np.maximum(top - my, my - bottom) - np.float32(0.006), ends))
    _paint(image, hole, np.float32(0.05))
    teeth = _inside(np.maximum(my - top - (bottom - top) * np.float32(0.62), top + np.float32(0.01) - my))
    _paint(image, hole * teeth * shape["teeth"], np.float32(0.92))


# Training, PublicTest, PrivateTest: enough synthetic faces for every class in every part, few enough for seconds.
SMOKE_SIZE = (280, 140, 140)
