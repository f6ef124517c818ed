"""Pictures become grey 48x48 images as the module says, digit by digit; what is no picture is one sentence."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from damage import damaged_bytes
from PIL import Image, TiffImagePlugin

from fer_repro.data import pictures
from fer_repro.data.pictures import faces
from fer_repro.errors import FerReproError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (48, 48), np.uint8)
COLOUR = RNG.integers(0, 256, (48, 48, 3), np.uint8)
ORIENTATION = 0x0112


def luma(colour: np.ndarray) -> np.ndarray:
    red, green, blue = colour.astype(np.int64).transpose(2, 0, 1)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).astype(np.uint8)


def saved(folder: Path, image: Image.Image, name: str, **options) -> Path:
    image.save(folder / name, **options)
    return folder / name


def refused(given, said: str) -> None:
    with pytest.raises(FerReproError, match=said) as told:
        faces(given)
    assert "\n" not in str(told.value)


def test_arrays_pictures_and_paths_one_or_a_list(tmp_path):
    image = Image.fromarray(GREY)
    path = saved(tmp_path, image, "face.png")
    for one in (GREY, GREY[None], image, path, str(path)):
        assert np.array_equal(faces(one), GREY[None])
    several = faces([GREY, image, path, str(path)])
    assert several.dtype == np.uint8 and np.array_equal(several, np.stack([GREY] * 4))
    assert np.array_equal(faces((image, GREY)), np.stack([GREY] * 2))
    assert faces([]).shape == faces(np.empty((0, 48, 48), np.uint8)).shape == (0, 48, 48)


@pytest.mark.parametrize("form", ["png", "bmp", "gif", "tiff", "ppm", "webp"])
def test_colour_becomes_grey_by_the_stated_weights(tmp_path, form):
    flat = np.repeat(np.arange(0, 240, 5, np.uint8)[:, None], 48, 1)  # 48 colours: GIF has a palette of 256
    colour = np.stack([flat, 255 - flat, flat // 2], -1) if form == "gif" else COLOUR
    options = {"lossless": True} if form == "webp" else {}
    path = saved(tmp_path, Image.fromarray(colour), f"face.{form}", **options)
    assert np.array_equal(faces(path)[0], luma(colour))
    assert np.array_equal(faces(Image.fromarray(colour))[0], luma(colour))


def test_the_whole_picture_is_resized_with_every_pixel_counted(tmp_path):
    for size in ((96, 96), (480, 240), (31, 17), (1, 1)):
        image = Image.fromarray(RNG.integers(0, 256, size, np.uint8))
        expected = np.asarray(image.resize((48, 48), Image.Resampling.BILINEAR))
        assert np.array_equal(faces(saved(tmp_path, image, "face.png"))[0], expected)
    stripes = np.zeros((480, 480), np.uint8)
    stripes[:, ::2] = 255  # four samples of such a picture would be all black or all white
    assert abs(faces(Image.fromarray(stripes)).astype(int) - 127).max() <= 4


def test_sixteen_bits_are_the_upper_eight(tmp_path):
    deep = GREY.astype(np.uint16) * 256 + RNG.integers(0, 256, (48, 48), np.uint16)
    image = Image.fromarray(deep)
    for name in ("face.png", "face.tiff", "face.pgm"):
        assert np.array_equal(faces(saved(tmp_path, image, name))[0], GREY), name
    assert np.array_equal(faces(image)[0], GREY)
    wide = Image.fromarray(np.tile(deep, (2, 3)))
    narrow = Image.fromarray(np.tile(GREY, (2, 3))).resize((48, 48), Image.Resampling.BILINEAR)
    assert np.array_equal(faces(saved(tmp_path, wide, "wide.png"))[0], np.asarray(narrow))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_grey_levels_of_unknown_range_are_refused(tmp_path, kind):
    image = Image.fromarray(GREY.astype(kind))
    refused(saved(tmp_path, image, "face.tiff"), "face.tiff has 32-bit grey levels of unknown range")
    refused([GREY, image], "picture 2 has 32-bit grey levels")


def test_what_is_transparent_lies_on_white(tmp_path):
    alpha = np.where(np.arange(48) < 24, 255, 0).astype(np.uint8)[None].repeat(48, 0)
    expected = np.where(alpha == 255, luma(COLOUR), 255)
    rgba = Image.fromarray(np.dstack([COLOUR, alpha]))
    for name, options in (("a.png", {}), ("a.tiff", {}), ("a.webp", {"lossless": True, "exact": True})):
        assert np.array_equal(faces(saved(tmp_path, rgba, name, **options))[0], expected), name
    grey = Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(alpha)))
    assert np.array_equal(faces(saved(tmp_path, grey, "g.png"))[0], np.where(alpha == 255, GREY, 255))
    half = Image.merge("LA", (Image.new("L", (48, 48), 100), Image.new("L", (48, 48), 128)))
    assert abs(faces(half).astype(int) - 177).max() <= 1
    # One colour of a palette, of grey levels, of RGB that stands for nothing.
    for mode, white in (("P", 3), ("L", 3), ("RGB", (3, 3, 3))):
        image = Image.fromarray(np.where(alpha == 255, 200, 3).astype(np.uint8)).convert(mode)
        if mode == "P":
            image.putpalette([value for value in range(256) for _ in range(3)])
        path = saved(tmp_path, image, f"{mode}.png", transparency=white)
        assert np.array_equal(faces(path)[0], np.where(alpha == 255, 200, 255)), mode


def test_cmyk_one_bit_and_other_modes(tmp_path):
    inks = Image.fromarray(COLOUR).convert("CMYK")
    expected = luma(np.asarray(inks.convert("RGB")))
    assert np.array_equal(faces(inks)[0], expected)
    assert np.array_equal(faces(saved(tmp_path, inks, "ink.tiff"))[0], expected)
    smooth = Image.fromarray(np.tile(np.arange(48, dtype=np.uint8)[:, None, None] * 4, (1, 48, 3))).convert("CMYK")
    jpeg = saved(tmp_path, smooth, "ink.jpg", quality=100)
    assert abs(faces(jpeg)[0].astype(int) - np.arange(48)[:, None] * 4).max() <= 4
    bits = GREY > 127
    assert np.array_equal(faces(saved(tmp_path, Image.fromarray(bits), "bits.png"))[0], bits * np.uint8(255))
    for mode in ("YCbCr", "RGBX"):
        assert abs(faces(Image.fromarray(COLOUR).convert(mode))[0].astype(int) - luma(COLOUR)).max() <= 2, mode


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_camera_says(tmp_path, orientation):
    lying = RNG.integers(0, 256, (48, 48), np.uint8)
    upright = {
        1: lying,
        2: lying[:, ::-1],
        3: lying[::-1, ::-1],
        4: lying[::-1],
        5: lying.T,
        6: np.rot90(lying, -1),
        7: lying[::-1, ::-1].T,
        8: np.rot90(lying),
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(tmp_path, Image.fromarray(lying), "face.png", exif=exif)
    assert np.array_equal(faces(path)[0], upright)
    with Image.open(path) as image:
        assert np.array_equal(faces(image)[0], upright)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[ORIENTATION] = orientation
    deep = Image.fromarray(lying.astype(np.uint16) * 257)
    assert np.array_equal(faces(saved(tmp_path, deep, "deep.tiff", tiffinfo=tags))[0], upright)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tiff"])
def test_a_file_with_several_pictures_is_refused(tmp_path, name):
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    path = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:])
    refused(path, "holds several pictures")
    with Image.open(path) as image:  # here the caller has chosen the frame
        image.seek(1)
        assert abs(faces(image)[0].astype(int) - (255 - GREY)).max() <= (60 if name == "a.webp" else 0)


def test_of_a_cameras_jpeg_the_first_picture_counts(tmp_path):
    flat = [Image.new("L", (48, 48), level) for level in (40, 200)]
    path = tmp_path / "camera.jpg"
    flat[0].save(path, format="MPO", save_all=True, append_images=flat[1:])
    assert faces(path)[0].mean() == pytest.approx(40, abs=2)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def test_a_small_file_that_claims_a_huge_picture_is_refused_unread(tmp_path):
    for side in (10_000, 30_000, 2**31 - 1):
        head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        path = tmp_path / "bomb.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 10**6)))
        refused(path, "bomb.png has more than 64,000,000 pixels: cut it to the face")
    refused(Image.new("1", (8001, 8000)), "the picture has more than")


def test_no_picture_is_a_sentence(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, "JPEG")
    content = {
        "empty.png": (b"", "cannot be read as a picture"),
        "page.jpg": (b"<!DOCTYPE html><html></html>", r"cannot be read as a picture \(a web page\)"),
        "text.png": (b"a text", "cannot be read as a picture"),
        "cut.jpg": (buffer.getvalue()[:700], "cannot be read as a picture"),
        "program.eps": (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\nshowpage\n",
            "cannot be read as a picture",
        ),
        "apple.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "an AVIF or HEIF picture"),
    }
    for name, (head, said) in content.items():
        (tmp_path / name).write_bytes(head)
        refused(tmp_path / name, said)
    refused(tmp_path / "nowhere.png", "nowhere.png is not there")
    refused(tmp_path, "is no file: expected a JPEG")
    refused("a\0b.png", "is not there")
    refused([GREY, None], r"picture 2 is a NoneType, expected a path, a PIL picture or a uint8 \[48,48\] array")
    for wrong in (3, None, {GREY.tobytes(): 1}, b"face.png", iter([GREY])):
        refused(wrong, "the picture is a .*, expected a path")
    refused([[GREY]], "picture 1 is a list")
    refused(Image.new("LA", (48, 48)).convert("La"), "the picture cannot be read as a picture")


@pytest.mark.parametrize(
    "array",
    [
        COLOUR,
        GREY[:24],
        GREY / 255,
        GREY.astype(np.int64),
        np.stack([COLOUR] * 2),
        np.zeros((2, 64, 64), np.uint8),
        np.array(["face.png"]),
        np.array(3, np.uint8),
        GREY[None, None],
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_arrays_of_another_kind_are_refused(array):
    refused(array, r"expected uint8 \[(N,)?48,48\]")
    refused([array], r"picture 1 is .*, expected uint8 \[48,48\]")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_damaged_pictures(tmp_path, form):
    """A sentence, or an image; a PNG, whose parts have checksums, gives the right image or a sentence."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    buffer = io.BytesIO()
    Image.fromarray(COLOUR & 240).save(
        buffer, form, **({"exif": exif} if form in ("PNG", "JPEG", "TIFF", "WEBP") else {})
    )
    path = tmp_path / "face"
    path.write_bytes(buffer.getvalue())
    whole = faces(path)
    right = buffer.getvalue()
    # Decoding ends with the last pixel, before the sum over all of them that ends the data.
    flipped = [right[:at] + bytes([right[at] ^ 16]) + right[at + 1 :] for at in range(len(right) - 200, len(right))]
    for content in (*damaged_bytes(right, 5, 150), *(flipped if form == "PNG" else [])):
        path.write_bytes(content)
        try:
            found = faces(path)
        except FerReproError as error:
            assert "\n" not in str(error)
        else:
            assert found.shape == (1, 48, 48) and found.dtype == np.uint8
            assert form != "PNG" or np.array_equal(found, whole)


def test_no_warning_reaches_the_user(tmp_path, recwarn):
    faces(saved(tmp_path, Image.new("1", (7000, 7000)), "large.png"))
    assert not recwarn.list and pictures.LARGEST > 7000**2
