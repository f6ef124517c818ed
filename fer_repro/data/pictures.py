"""Pictures of any kind as the grey images of 48x48 pixels that every network here takes.

In this order: the picture is turned as its EXIF orientation says; 16-bit grey levels are divided by 256; what is
transparent lies on white; colour becomes RGB and then grey by Pillow's mode "L" (ITU-R 601:
(19595 R + 38470 G + 7471 B + 32768) >> 16; colour profiles are not applied); the whole picture, whatever its shape, is
resized to 48x48 by Pillow's `Resampling.BILINEAR`, which averages over all pixels where it shrinks. Pixels of a 48x48
picture stay as they are. Nothing looks for a face: FER2013's pictures show little else, so cut to the face first.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_repro.data.kinds import HEAD, sniff
from fer_repro.data.official import SIDE
from fer_repro.errors import FerReproError

Picture: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray"
Pictures: TypeAlias = "Picture | list[Picture] | tuple[Picture, ...]"

# Of Pillow's many formats those of pictures; one of the others (EPS) would start a program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
EXPECTED = "expected a JPEG, PNG, BMP, GIF, TIFF, WebP or PNM picture"
LARGEST = 64_000_000  # pixels; a small file may claim to hold any number of them
TRANSPARENT = ("LA", "PA", "RGBA", "RGBa")


def faces(pictures: Pictures) -> np.ndarray:
    """One or a list of paths, PIL pictures or uint8 [48,48] arrays, or uint8 [N,48,48] -> uint8 [N,48,48].

    Of an animated PIL picture the current frame counts; a file that holds several pictures is refused (but for those
    that a camera adds to a JPEG). Raises `FerReproError` for the first that is no picture.
    """
    if isinstance(pictures, np.ndarray) and pictures.ndim == 3:
        return _checked(pictures, 3, "images are", "[N,48,48]")
    if not isinstance(pictures, (list, tuple)):
        return _face(pictures, "the picture")[None]
    made = [_face(picture, f"picture {number}") for number, picture in enumerate(pictures, 1)]
    return np.array(made, np.uint8).reshape(-1, SIDE, SIDE)


def _checked(array: np.ndarray, axes: int, what: str, shape: str) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim != axes or array.shape[-2:] != (SIDE, SIDE):
        raise FerReproError(
            f"{what} {array.dtype} {list(array.shape)}, expected uint8 {shape}: give pictures of another size or in "
            "colour as files or PIL pictures"
        )
    return array


def _face(picture: Any, where: str) -> np.ndarray:
    if isinstance(picture, np.ndarray):
        return _checked(picture, 2, f"{where} is", "[48,48]")
    if isinstance(picture, Image.Image):
        return _decoded(picture, where)
    if not isinstance(picture, (str, os.PathLike)):
        kind = type(picture).__name__
        raise FerReproError(f"{where} is a {kind}, expected a path, a PIL picture or a uint8 [48,48] array")
    path = Path(picture)
    if not path.is_file():
        raise FerReproError(f"{path} is {'no file' if path.exists() else 'not there'}: {EXPECTED}")
    return _decoded(path, str(path))


def _decoded(source: Path | Image.Image, where: str) -> np.ndarray:
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow's, of a size that is refused below
            if isinstance(source, Image.Image):
                return _grey(source, where)
            with Image.open(source, formats=FORMATS) as image:
                _require_one(image, where)
                image.verify()  # PNG's checksums, which decoding passes over
            with Image.open(source, formats=FORMATS) as image:
                return _grey(image, where)
    except FerReproError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(where) from error
    except Exception as error:  # noqa: BLE001 - Pillow's decoders let many kinds through where a file is damaged
        kind = None
        if isinstance(error, UnidentifiedImageError) and isinstance(source, Path):
            with source.open("rb") as file:
                kind = sniff(file.read(HEAD))
        why = kind.words if kind else f"{type(error).__name__}: {error}".splitlines()[0]
        raise FerReproError(f"{where} cannot be read as a picture ({why}): {EXPECTED}") from error


def _require_one(image: Image.Image, where: str) -> None:
    # Cameras put previews and depth maps behind the picture of a JPEG, which is then called MPO.
    if image.width * image.height > LARGEST:
        raise _too_large(where)
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise FerReproError(f"{where} holds several pictures (an animation, or pages): save the one that is meant")


def _too_large(where: str) -> FerReproError:
    return FerReproError(f"{where} has more than {LARGEST:,} pixels: cut it to the face, or make it smaller")


def _grey(image: Image.Image, where: str) -> np.ndarray:
    """One picture -> uint8 [48,48], see the head of this module."""
    if image.width * image.height > LARGEST:
        raise _too_large(where)
    # Of a PNG or PGM, older Pillows give 16 bits as 32; in a TIFF those are numbers without a known range.
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if image.mode in ("I", "F") and not deep:
        raise FerReproError(f"{where} has 32-bit grey levels of unknown range: save it with 8 or 16 bits")
    image = ImageOps.exif_transpose(image)
    if deep:
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in TRANSPARENT or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
