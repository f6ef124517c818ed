"""Two plain networks of Keras: that of ``facemood`` (HDF5) and that of ``emotion-model`` (.keras in a pickle)."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from fer_repro.errors import FerReproError
from fer_repro.layers import keras_batch_norm
from fer_repro.packages.networks.base import Family, State, as_float
from fer_repro.packages.resize import opencv_linear, pillow_bicubic
from fer_repro.pretrained import keras

MOOD_SIZE, MOOD_WIDTHS = 170, (32, 60, 80, 100, 120)
EMOTION_SIZE, EMOTION_WIDTHS = 96, (32, 64, 128)
KERAS_WEIGHTS = "model.weights.h5"  # in a .keras file
LOCAL_HEADER, END_OF_ZIP = b"PK\x03\x04", b"PK\x05\x06"
END_LENGTH = 22  # bytes of a zip's end record without a comment
LARGEST = 256 << 20  # bytes of weights; the package's have 96 million


class Flat(nn.Module):
    """[N,C,H,W] -> [N,H*W*C]: Keras keeps channels last, so its linear layers expect them to change first."""

    def forward(self, features: Tensor) -> Tensor:
        # Channels last, then one vector: [N,H*W*C]
        return features.permute(0, 2, 3, 1).flatten(1)


class MoodCNN(nn.Module):
    """Five times convolution, ReLU, batch norm, pooling; two linear layers: [N,3,170,170] -> logits [N,7]."""

    def __init__(self) -> None:
        super().__init__()
        pairs = list(zip((3, *MOOD_WIDTHS), MOOD_WIDTHS, strict=False))
        self.convs = nn.ModuleList(nn.Conv2d(before, after, 3) for before, after in pairs)
        self.norms = nn.ModuleList(keras_batch_norm(after) for _, after in pairs)
        self.flat, self.hidden = Flat(), nn.Linear(MOOD_WIDTHS[-1] * 9, 128)
        self.hidden_norm, self.head = keras_batch_norm(128, flat=True), nn.Linear(128, 7)

    def forward(self, images: Tensor) -> Tensor:
        # Without padding, the norm after the ReLU, halved: [N,120,3,3]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            images = nn.functional.max_pool2d(norm(conv(images).relu()), 2)
        # No activation between the two linear layers, only the norm: [N,7]
        return self.head(self.hidden_norm(self.hidden(self.flat(images))))


class EmotionCNN(nn.Module):
    """Three convolutions, two poolings, two linear layers: [N,1,96,96] -> logits [N,5]."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = EMOTION_WIDTHS
        self.conv2d, self.conv2d_1 = nn.Conv2d(1, first, 3), nn.Conv2d(first, second, 3)
        self.conv2d_2, self.flat = nn.Conv2d(second, third, 3), Flat()
        self.dense, self.dense_1 = nn.Linear(third * 22**2, 128), nn.Linear(128, 5)

    def forward(self, images: Tensor) -> Tensor:
        # Two convolutions without padding, halved: [N,64,46,46]
        features = nn.functional.max_pool2d(self.conv2d_1(self.conv2d(images).relu()).relu(), 2)
        # One more, halved: [N,128,22,22]
        features = nn.functional.max_pool2d(self.conv2d_2(features).relu(), 2)
        # Two linear layers: [N,5]
        return self.dense_1(self.dense(self.flat(features)).relu())


def mood_weights(files: Sequence[Path]) -> State:
    """The state of `MoodCNN` from Keras' file."""
    state = keras.counted(keras.as_torch(keras.read(files[0])), ("conv2d", "batch_normalization", "dense"))
    names = {f"conv2d_{place}": f"convs.{place}" for place in range(len(MOOD_WIDTHS))}
    names |= {f"batch_normalization_{place}": f"norms.{place}" for place in range(len(MOOD_WIDTHS))}
    names |= {"batch_normalization_5": "hidden_norm", "dense_0": "hidden", "dense_1": "head"}
    parts = ((name.partition("."), part) for name, part in state.items())
    return {f"{names.get(layer, layer)}.{kind}": part for (layer, _, kind), part in parts}


def emotion_weights(files: Sequence[Path]) -> State:
    """The state of `EmotionCNN` from the pickle, of which nothing is run."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / KERAS_WEIGHTS
        _cut_out(files[0], target)
        return keras.as_torch(keras.read(target))


def _cut_out(pickle: Path, target: Path) -> None:
    """Write the weights of the .keras file that stands in ``pickle`` as plain bytes to ``target``.

    The pickle holds the zip as one array of bytes: from the first header of a zip to the end of its last record.
    """
    try:
        content = pickle.read_bytes()
        begin, end = content.find(LOCAL_HEADER), content.rfind(END_OF_ZIP)
        if not 0 <= begin < end:
            raise ValueError("no zip archive in it")
        inside = target.with_name("model.keras")
        inside.write_bytes(content[begin : end + END_LENGTH])
        with zipfile.ZipFile(inside) as archive:
            entry = archive.getinfo(KERAS_WEIGHTS)
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > LARGEST:
                raise ValueError(f"{KERAS_WEIGHTS} is compressed or larger than {LARGEST:,} bytes")
            target.write_bytes(archive.read(entry))  # compares the checksum
    except (OSError, ValueError, LookupError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise FerReproError(
            f"{pickle} holds no .keras file that can be read ({type(error).__name__}: {error}): fetch it again"
        ) from error


def mood_inputs(images: np.ndarray) -> Tensor:
    """uint8 [N,48,48] -> float32 [N,3,170,170] in [0, 1]: Pillow's default kernel, three equal channels."""
    return (as_float(pillow_bicubic(images, MOOD_SIZE)) / 255).expand(-1, 3, -1, -1)


def emotion_inputs(images: np.ndarray) -> Tensor:
    """uint8 [N,48,48] -> float32 [N,1,96,96] in [0, 1]. The package wants pictures of that size; OpenCV makes them."""
    return as_float(opencv_linear(images, EMOTION_SIZE)) / 255


MOOD = Family("CNN for 170 pixels", MoodCNN, mood_weights, mood_inputs)
EMOTION = Family("CNN for 96 pixels", EmotionCNN, emotion_weights, emotion_inputs)
