"""What a file is, by its first bytes and never by its name: people rename files, and browsers save login pages as zips.

`KINDS` is the table. A kind with a ``role`` is read: a form of archive (`ARCHIVES`, `COMPRESSED`), or a table, for
which `fer_repro.data.place.READERS` has a reader. Any other kind is named to the user with what to do about it.
"""

from __future__ import annotations

import codecs
import re
import tarfile
from dataclasses import dataclass

HEAD = 4096  # bytes that are enough to tell
ARCHIVES = ("zip", "tar")
COMPRESSED = ("gz", "bz2", "xz")


@dataclass(frozen=True)
class Kind:
    """``words`` name the kind in a sentence, ``advice`` says what to do where it is not read.

    ``role`` is what reads it ("" where nothing does). ``in_place_of``: under a name that promises data it is there by
    mistake, in place of them.
    """

    words: str
    role: str = ""
    advice: str = ""
    in_place_of: bool = False


CSV = Kind("a CSV with faces and labels", "csv")
_UNPACK = "unpack it and point at the folder or the CSV that comes out"
_CONVERT = "save it as a CSV with the columns emotion, pixels and Usage, or take fer2013.csv"
_PICTURE = "expected a JPEG, PNG or BMP picture"
ARRAY = Kind(
    "a single NumPy array",
    advice="save images [N,48,48], labels (0 to 6) and usage (the words Training, PublicTest, PrivateTest) in one "
    "file, np.savez('fer2013.npz', images=..., labels=..., usage=...), or take fer2013.csv",
)
INCOMPLETE = Kind("a CSV that lacks the column emotion or Usage", advice="use fer2013.csv or icml_face_data.csv")
TAR = Kind("a tar archive", "tar")
_PAGE = Kind(
    "a web page", advice="a login or an error was saved in its place, so download it again, logged in", in_place_of=True
)
_ANSWER = Kind("a JSON text", advice="a server's answer was saved in its place, so download it again", in_place_of=True)
_POINTER = Kind(
    "a Git LFS pointer without the content", advice="run `git lfs pull` in that repository", in_place_of=True
)

KINDS: tuple[tuple[re.Pattern[bytes], Kind], ...] = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE if kind.in_place_of else re.DOTALL), kind)
    for pattern, kind in (
        (rb"PK(\x03\x04|\x05\x06|\x07\x08)", Kind("a zip archive", "zip")),
        (rb".{257}ustar", TAR),
        (rb"\x1f\x8b", Kind("a gzip file", "gz")),
        (rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)", Kind("a bzip2 file", "bz2")),
        (rb"\xfd7zXZ\0", Kind("an xz file", "xz")),
        (rb"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", advice=_UNPACK)),
        (rb"Rar!\x1a\x07", Kind("a RAR archive", advice=_UNPACK)),
        (rb"\x28\xb5\x2f\xfd", Kind("a Zstandard file", advice=_UNPACK)),
        (rb"\x04\x22\x4d\x18", Kind("an LZ4 file", advice=_UNPACK)),
        (rb"\x5d\0\0.{2}", Kind("an lzma file", advice=_UNPACK)),
        (rb"\x1f\x9d", Kind("a compress (.Z) file", advice=_UNPACK)),
        (rb"PAR1", Kind("a Parquet table", "parquet")),
        (rb"ARROW1|FEA1", Kind("an Arrow table", advice=_CONVERT)),
        (rb"\x93NUMPY", ARRAY),
        (rb"\x89HDF\r\n", Kind("an HDF5 file", advice=_CONVERT)),
        (rb"\x80[\x02-\x05][\x8c\x95}\](cX]", Kind("a pickle", advice=f"pickles are never read, so {_CONVERT}")),
        (rb"SQLite format 3\0", Kind("an SQLite database", advice=_CONVERT)),
        (rb"\xff\xd8\xff", Kind("a JPEG picture")),
        (rb"\x89PNG\r\n\x1a\n", Kind("a PNG picture")),
        (rb"BM.{4}\0{4}", Kind("a BMP picture")),
        (rb"RIFF.{4}WEBP", Kind("a WebP picture", advice=_PICTURE)),
        (rb"GIF8[79]a", Kind("a GIF picture", advice=_PICTURE)),
        (rb"II\*\0|MM\0\*", Kind("a TIFF picture", advice=_PICTURE)),
        (rb"P[1-6]\s", Kind("a PNM picture", advice=_PICTURE)),
        (rb".{4}ftyp(avi|hei|mif)", Kind("an AVIF or HEIF picture", advice=_PICTURE)),
        (rb"\0\0\0\x0cjP  |\xff\x0a|\0\0\0\x0cJXL ", Kind("a JPEG 2000 or JPEG XL picture", advice=_PICTURE)),
        (rb"version https://git-lfs", _POINTER),
        (rb"(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml|head|!--)", _PAGE),
        (rb'(\xef\xbb\xbf)?\s*\{\s*["}]', _ANSWER),
    )
)


def sniff(head: bytes) -> Kind | None:
    """The kind of a file that begins with ``head`` (its first `HEAD` bytes, or all of it); None where unknown."""
    for pattern, kind in KINDS:
        if pattern.match(head):
            return kind
    names = columns(head)
    if "pixels" in names:
        return CSV if {"emotion", "usage"} <= set(names) else INCOMPLETE
    return TAR if _old_tar(head) else None


def columns(head: bytes) -> list[str]:
    """The column names in the first line of a text, in small letters; comma, semicolon or tab may part them."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = head.decode("utf-16", "replace")
    elif head[1:2] == b"\0" or head[:1] == b"\0":
        text = head.decode("utf-16-le" if head[1:2] == b"\0" else "utf-16-be", "replace")
    else:
        text = head.decode("utf-8-sig", "replace")
    return [name.strip(" \t\"'").lower() for name in re.split("[,;\t]", re.split("[\r\n]", text, maxsplit=1)[0])]


def _old_tar(head: bytes) -> bool:
    """True for the first header of a tar from before POSIX, which has a checksum and no mark."""
    try:
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True
