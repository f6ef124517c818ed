"""What a file of weights is: its content says, never its name. What is no weights at all is named in a sentence."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from fer_repro.errors import FerReproError

TORCH_BEFORE_ZIP = b"l\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch 1.5 and older pickled first
PICKLE = re.compile(rb"\x80[\x01-\x05]|c[\w.]+\n\w+\n|[(}\]][dl]?p")
HDF5 = b"\x89HDF\r\n\x1a\n"
PAGE = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype|html|head|body|\?xml|meta|script)", re.I | re.S)
ARCHIVES = {
    b"\x1f\x8b": "a gzip archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"BZh": "a bzip2 archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
}
TENSORS_ALONE = "where you trust its origin, save its tensors alone with torch.save"
LISTED = 3  # entries of an archive that an error names


def kind_of(path: Path) -> str:
    """``keras`` (HDF5), ``safetensors``, ``npz`` or ``torch``. Raises `FerReproError` for what is none of these."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            start = file.read(1024)
    except OSError as error:
        raise unreadable(path, error.strerror or type(error).__name__) from error
    if start.startswith(HDF5):
        return "keras"
    if len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8:
        return "safetensors"
    if start.startswith(b"PK"):
        return _zip_kind(path)
    if TORCH_BEFORE_ZIP in start[:32]:
        return "torch"
    raise unreadable(path, f"it is {_named(start, path)}")


def _named(start: bytes, path: Path) -> str:
    """What the first bytes of a file that holds no weights are, in words."""
    if not start:
        return "empty"
    if PAGE.match(start):
        return (
            "a web page, not the file: Google Drive and others answer so when they ask for a confirmation or refuse; "
            "download it in a browser"
        )
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file: `git lfs pull` fetches it"
    packed = next((words for magic, words in ARCHIVES.items() if start.startswith(magic)), None)
    if packed or start[257:262] == b"ustar":
        return f"{packed or 'a tar archive'}: unpack it and name the file of weights in it"
    if PICKLE.match(start):
        return f"a bare pickle, which may run code and is refused: {TENSORS_ALONE}"
    if re.fullmatch(rb"[\t\n\r\x20-\x7e]+", start):
        return f"a text that begins with {start[:20].decode('ascii')!r}"
    if path.suffix == ".safetensors":
        return "no safetensors file, or a part of one"
    return f"of an unknown kind (it begins with {start[:4].hex(' ')})"


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # noqa: BLE001 - damaged directories make zipfile raise struct.error, UnicodeError, ...
        raise unreadable(path, "it begins like a file of torch and has no end: cut off, or damaged") from error
    if any(name.endswith("constants.pkl") for name in names):
        raise unreadable(path, "it is a TorchScript program, which is code and is not run")
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if "model.weights.h5" in names:
        raise unreadable(path, "it is of the format .keras: save the weights as .h5")
    listed = ", ".join(names[:LISTED]) or "nothing"
    raise unreadable(path, f"it is a zip archive that holds {listed!r}: unpack it and name the file of weights in it")


def unreadable(path: Path, why: str) -> FerReproError:
    """The sentence for a file that is no weights."""
    return FerReproError(
        f"{path} cannot be read as weights ({why}): expected tensors by name as safetensors, torch.save, Keras "
        "(.h5) or NumPy (.npz) write them; convert or fetch it again"
    )


def refused(error: Exception) -> str:
    """Why torch's restricted reader gave up, in words."""
    said = str(error)
    asked = re.search(r"GLOBAL\s+([\w.]+)", said)
    if asked:
        return f"it is a pickle that wants to run code, {asked[1]}, which is refused: {TENSORS_ALONE}"
    if isinstance(error, EOFError) or "central directory" in said or "Ran out of input" in said:
        return "it is cut off"
    if type(error) is ValueError and len(said) < 80:  # of `fer_repro.files.require_whole_zip`
        return f"damaged: {said}"
    return f"{type(error).__name__}: cut off, damaged, or not only tensors"
