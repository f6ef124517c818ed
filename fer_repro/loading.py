"""A trained network, ready to predict: of an exported folder, of one on a hub, of a file that authors released."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from torch import nn

from fer_repro import papers, pretrained
from fer_repro.data import LABELS
from fer_repro.errors import FerReproError
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.files import sha256_of
from fer_repro.papers.base import from_release
from fer_repro.parameters import check_values
from fer_repro.recipe import Recipe
from fer_repro.training.execution import resolve_device

FILES = WEIGHTS, CARD, CONFIG = "model.safetensors", "README.md", "config.json"  # of an export
HUB = "hf://"
REPO = r"\w[\w.-]*/\w[\w.-]*"  # USER/REPO


def load(source: str | os.PathLike[str], variant: str = "", device: str = "auto") -> NetworkClassifier:
    """A network with its weights, by the recipe that it was trained with; bf16 weights compute in float32.

    ``source``: a folder that `fer-repro export` wrote; ``hf://USER/REPO`` or ``hf://USER/REPO@REVISION``, where such a
    folder lies on the Hugging Face hub (needs huggingface_hub; its three files are fetched into that library's cache
    and nothing else is); or a file that the authors of ``variant`` released. ``device``: auto, cpu, cuda,
    cuda:1 or mps.

    Its ``predict_proba(pictures)`` takes uint8 [N,48,48] arrays, PIL pictures or paths of picture files, one or a list
    (`fer_repro.data.pictures`), and gives float32 [N,7], one column per label of its ``labels``; ``model`` is the
    network. No code of the source is run. Raises `FerReproError` for an export that is not whole and unchanged or whose
    recipe is not today's, and for a file that does not fit the variant.
    """
    device, address = resolve_device(device), os.fspath(source)
    if address.startswith(HUB):
        network, recipe = _from_export(_fetched(address), variant)
    elif os.path.isfile(address):
        network, recipe = _from_file(Path(address), variant)
    else:
        network, recipe = _from_export(Path(address), variant)
    return NetworkClassifier(network, recipe, device)


def _from_file(path: Path, variant: str) -> tuple[nn.Module, Recipe]:
    if not variant:
        raise FerReproError(
            f"{path} is one file: name the folder that `fer-repro export` wrote, or for weights that authors released "
            "their variant (`fer-repro list` shows all)"
        )
    papers.require_listed(variant)
    known = papers.get(variant)
    return from_release(known, pretrained.tensors_of(path, known.released.wrapper if known.released else ""), str(path))


def _fetched(address: str) -> Path:
    parts = re.fullmatch(rf"{HUB}({REPO})(?:@([\w./-]+))?", address)
    if parts is None:
        raise FerReproError(f"'{address}' is no place on a hub: expected hf://USER/REPO or hf://USER/REPO@REVISION")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise FerReproError(f"{address} is fetched by huggingface_hub, which {pretrained.INSTALL}") from error
    try:
        where = snapshot_download(
            parts[1], revision=parts[2], allow_patterns=list(FILES), etag_timeout=pretrained.PATIENCE
        )
    except Exception as error:  # noqa: BLE001 - of the hub, of its HTTP library, of the disk: no common kind
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise FerReproError(
            f"{address} cannot be fetched ({why}): check the name, the connection and `hf auth login`, or copy the "
            "exported folder here"
        ) from error
    return Path(where)


def _from_export(folder: Path, asked: str) -> tuple[nn.Module, Recipe]:
    config = _config(folder / CONFIG)
    given = check_values({name: config.get(name) for name in ("variant", "protocol", "profile", "seed")})
    variant = papers.get(given.variant)
    if variant.build is None or given.profile == "stored":
        raise FerReproError(f"{folder / CONFIG} names no network of this package: export it again")
    if asked and asked != variant.id:
        raise FerReproError(f"{folder} is an export of {variant.id}, not of {asked}: leave the variant out")
    recipe = variant.recipe(given.protocol, given.profile)
    if config.get("recipe_sha256") != recipe.sha256():
        raise FerReproError(
            f"{folder} was trained with another recipe of {variant.id} than this version's "
            f"({recipe.sha256()[:12]}): load it with the code that {CARD} names, or export it again"
        )
    if config.get("labels") != list(LABELS):
        raise FerReproError(f"{folder / CONFIG} has other labels than {', '.join(LABELS)}: export it again")
    path = folder / WEIGHTS
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise FerReproError(f"{path} cannot be read ({error.strerror}): copy the whole exported folder") from error
    if config.get("weights_sha256") != digest:
        raise FerReproError(f"{path} is not the file that {CONFIG} names: copy the whole exported folder again")
    network = variant.build(recipe)
    pretrained.fill_(network, pretrained.tensors_of(path), where=str(path))
    return network, recipe


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FerReproError(
            f"{path} cannot be read ({type(error).__name__}): name the folder that `fer-repro export` wrote"
        ) from error
    if not isinstance(config, dict):
        raise FerReproError(f"{path} holds a {type(config).__name__}, expected a mapping: export it again")
    return config
