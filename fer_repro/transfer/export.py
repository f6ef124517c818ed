"""Weights of a finished run, for a hub: safetensors beside a model card that says where every number comes from."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save
from torch import Tensor

from fer_repro import papers, parameters, results
from fer_repro.claims import leaderboard_claims
from fer_repro.data import LABELS
from fer_repro.errors import FerReproError
from fer_repro.evaluation.cost import weightless
from fer_repro.files import atomic_write
from fer_repro.loading import CARD, CONFIG, FILES, REPO, WEIGHTS
from fer_repro.logs import shown
from fer_repro.papers.base import Variant
from fer_repro.pretrained import INSTALL
from fer_repro.project import code_version, default_runs_dir
from fer_repro.recipe import Recipe
from fer_repro.reproduce import run_folder
from fer_repro.results import HALVES
from fer_repro.training import checkpoint
from fer_repro.training.soundness import require, require_like
from fer_repro.training.state import winner_of

CARD_TEMPLATE = """---
{metadata}---

# {variant}, {protocol} protocol, seed {seed}

{origin}

## How it was made

- trained on {train}, selected by: {selection}
- input: grey {size}x{size}, scaled to [0, 1], (x - {mean}) / {std}
- test-time augmentation: {views}
- labels, in order: {labels}
- recipe: {digest} (whole in config.json)
{rounded}
## Use

With fer_repro installed (`pip install .` in a copy of the project), in this folder:

```python
import fer_repro, numpy
network = fer_repro.load(".")  # checks this folder and runs no code from it
print(dict(zip(network.labels, network.predict_proba(numpy.zeros((1, 48, 48), numpy.uint8))[0].tolist())))
```

In place of the array: a picture's path ("face.png"), a PIL picture, or a list of them; they become grey and 48x48 as \
`fer_repro.data.pictures` says. FER2013's pictures show little but the face. In place of "." from anywhere: \
"hf://{hub}" (with huggingface_hub installed). On the command line: `fer-repro predict hf://{hub} face.png`.

## Results

{scores}
{warning}
## Limits

FER2013's labels are noisy and its faces come from a web search; a label says what a rater saw, \
not what a person feels. Not for decisions about people.
"""
METADATA = {
    "license": "mit",
    "library_name": "fer-repro",
    "pipeline_tag": "image-classification",
    "tags": ["facial-expression-recognition", "fer2013", "reproducibility"],
}
INPUTS = {"plain": "plain", "views": "test-time augmentation"}
METRICS = (("accuracy", "accuracy", "Accuracy"), ("f1", "macro_f1", "Macro F1"))
BF16 = """- weights: parameters rounded to bf16, for inference only; training cannot go on from them. Scores below, \
where there are any, were measured with the float32 weights
"""
TRAINED_ON_TEST = """
Images of a test set (PublicTest or PrivateTest) were trained on: never score these weights on that set.
"""


@shown()
def export(
    variant_id: str,
    protocol: str = "official",
    profile: str = "full",
    seed: int = 0,
    *,
    out: str | Path = "",
    results_dir: str | Path = "",
    runs_dir: str | Path = "",
    bf16: bool = False,
    hub: str = "",
) -> Path:
    """Write the selected weights of a finished run to ``out`` (``model.safetensors``, ``config.json``, ``README.md``).

    ``bf16``: parameters rounded to bfloat16, for inference only (running statistics stay float32). ``hub``: USER/REPO
    where the card says that the export lies, see `push`. Reads the run's checkpoint below ``runs_dir`` and its stored
    result, where there is one; needs no data set. Returns the folder. Raises `FerReproError` for a method without a
    network, a run that is missing or unfinished, and an unwritable place.
    """
    parameters.check({"variant": variant_id, "protocol": protocol, "profile": profile, "seed": seed})
    if hub:
        require_repo(hub)
    variant = papers.get(variant_id)
    if profile == "stored" or variant.build is None:
        why = "weights come from profile full or smoke" if variant.build else "the method has no network, so no weights"
        raise FerReproError(f"{variant_id} cannot be exported: {why}")
    recipe = variant.recipe(protocol, profile)
    folder = run_folder(Path(runs_dir) if runs_dir else default_runs_dir(), variant_id, protocol, profile, seed)
    where = Path(results_dir) if results_dir else None
    result = results.find(variant_id, protocol, seed, where) if profile == "full" else None
    state = _state(variant, recipe, folder, seed, _makes_one(variant_id, protocol, profile, seed, result))
    weights: dict[str, Tensor] = winner_of(recipe, state).weights
    if bf16:
        names = {name for name, _ in weightless(variant.build, recipe).named_parameters()}
        weights = {name: part.to(torch.bfloat16) if name in names else part for name, part in weights.items()}
    target = Path(out) if out else Path("exports") / f"{variant_id}-{protocol}-seed-{seed}"
    metadata = {
        "variant": variant_id,
        "protocol": protocol,
        "profile": profile,
        "seed": seed,
        "code_version": code_version(),
        "recipe_sha256": recipe.sha256(),
        "weights": "bf16" if bf16 else "fp32",
    }
    texts = {key: str(value) for key, value in metadata.items()}
    content = save({name: tensor.contiguous() for name, tensor in weights.items()}, metadata=texts)
    config = metadata | {"weights_sha256": sha256(content).hexdigest(), "labels": list(LABELS)}
    config |= {"recipe": recipe.as_dict()}
    files = {
        WEIGHTS: content,
        CONFIG: (json.dumps(config, indent=1) + "\n").encode(),
        CARD: model_card(variant, recipe, profile, seed, _own(result, recipe, state), bf16, hub).encode(),
    }
    try:
        for name, content in files.items():
            with atomic_write(target / name) as file:
                file.write(content)
    except OSError as error:
        raise FerReproError(
            f"the export cannot be written to {target} ({error.strerror}): choose another --out"
        ) from error
    return target


def _makes_one(variant: str, protocol: str, profile: str, seed: int, stored: results.Result | None) -> str:
    """The command that leaves a checkpoint: a stored result is only read, and a smoke run alone keeps none."""
    command = f"fer-repro run {variant} --protocol {protocol} --seed {seed}"
    if profile == "smoke":
        return f"`{command} --profile smoke --runs-dir runs` makes one, and --runs-dir runs then exports it"
    if stored is not None:
        return f"its result is stored without weights: `{command} --results-dir again`, then export --results-dir again"
    return f"`{command}` makes one"


def _state(variant: Variant, recipe: Recipe, folder: Path, seed: int, again: str) -> dict[str, Any]:
    """The run's last checkpoint; the weights that its selection rule chose fit the network that they belong to."""

    def take_up(state: dict[str, Any]) -> None:
        require(state["status"] in checkpoint.STATUSES, "status")
        if state["status"] not in results.FINISHED:
            raise FerReproError(
                f"the run in {folder} has status '{state['status']}', only a finished one is exported: {again}"
            )
        require_like(variant.build(recipe).state_dict(), winner_of(recipe, state).weights, "network")

    state = checkpoint.load(folder, {"recipe": recipe.sha256(), "seed": seed}, take_up) if folder.is_dir() else None
    if state is None:
        raise FerReproError(f"{folder} holds no checkpoint of {variant.id} with seed {seed}: {again}")
    return state


def _own(result: results.Result | None, recipe: Recipe, state: dict[str, Any]) -> results.Result | None:
    """The stored result, if it is that of these weights: of today's recipe, and with this run's losses.

    A run of the same seed on another machine leaves other weights, to which the stored numbers do not belong.
    """
    if result is None or result.record["recipe_sha256"] != recipe.sha256():
        return None
    losses = [row["loss"] for row in state["history"]]
    stored = result.history.get("loss", [])
    return result if len(stored) == len(losses) and np.allclose(stored, losses, rtol=1e-9, equal_nan=True) else None


def model_card(
    variant: Variant,
    recipe: Recipe,
    profile: str,
    seed: int,
    result: results.Result | None,
    bf16: bool = False,
    hub: str = "",
) -> str:
    """A hub's README: what the weights are, how they were made and scored, what they must not be used for."""
    claim = leaderboard_claims().get(variant.ablation_of or variant.id)
    origin = f"A model for which nothing is claimed, trained by fer_repro {code_version()}."
    if claim is not None:
        paper = f"{claim.paper.authors}: {claim.paper.title}, {claim.paper.year} ({claim.paper.url})"
        origin = f"Method of: {paper}. Re-implemented and trained by fer_repro {code_version()}; "
        origin += "not the authors' weights."
    metadata: dict[str, Any] = dict(METADATA)
    if result is not None and not bf16:  # nobody measured the rounded weights
        name = f"{variant.id}-{recipe.protocol.name}-seed-{seed}"
        metadata["model-index"] = [{"name": name, "results": _index(recipe, result)}]
    return CARD_TEMPLATE.format(
        metadata=yaml.safe_dump(metadata, sort_keys=False),
        hub=hub or "USER/REPO",
        variant=variant.id,
        protocol=recipe.protocol.name,
        seed=seed,
        origin=origin,
        train=" + ".join(recipe.protocol.train),
        selection=recipe.selection.name(recipe.protocol),
        size=recipe.input_size,
        mean=recipe.mean,
        std=recipe.std,
        views=recipe.views,
        labels=", ".join(LABELS),
        digest=recipe.sha256(),
        rounded=BF16 if bf16 else "",
        scores="\n".join(_scores(profile, result)),
        warning=TRAINED_ON_TEST if recipe.protocol.trains_on_test else "",
    )


def _index(recipe: Recipe, result: results.Result) -> list[dict[str, Any]]:
    """The stored scores as a hub reads them, an entry for each test set that was not trained on."""
    trained = set(recipe.protocol.train + (recipe.protocol.finetune or ()))
    return [
        {
            "task": {"type": "image-classification", "name": "Facial expression recognition"},
            "dataset": {"type": "fer2013", "name": f"FER2013 {half}", "split": half},
            "metrics": [
                {"type": kind, "value": score[field], "name": f"{name}, {INPUTS[views]}"}
                for views, score in kinds.items()
                for kind, field, name in METRICS
            ],
        }
        for half, kinds in result.record["scores"].items()
        if half in HALVES and half not in trained
    ]


def require_repo(hub: str) -> None:
    """Raise `FerReproError` unless ``hub`` reads USER/REPO."""
    if not re.fullmatch(REPO, hub):
        raise FerReproError(f"'{hub}' is no repository of a hub: expected USER/REPO")


def push(folder: Path, hub: str, upload: bool = False) -> str:
    """Upload an export to the repository ``hub`` (USER/REPO) of the Hugging Face hub, made where it is not there.

    Only the three files of an export, in one commit. Without ``upload`` nothing is sent. Returns what was, or would
    be, sent and where. Raises `FerReproError`.
    """
    require_repo(hub)
    files = ", ".join(f"{name} ({(folder / name).stat().st_size:,} bytes)" for name in FILES)
    if not upload:
        return f"would upload to hf://{hub}: {files}; nothing was sent, --yes sends it"
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise FerReproError(f"--push uploads through huggingface_hub, which {INSTALL}") from error
    try:
        api = HfApi(library_name="fer-repro")
        api.create_repo(hub, exist_ok=True)
        message = f"Weights exported by fer-repro {code_version()}"
        api.upload_folder(repo_id=hub, folder_path=folder, allow_patterns=list(FILES), commit_message=message)
    except Exception as error:  # noqa: BLE001 - of the hub, of its HTTP library: no common kind
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise FerReproError(
            f"{folder} cannot be uploaded to hf://{hub} ({why}): check the name, the connection and `hf auth login`; "
            "the export itself is whole"
        ) from error
    return f"uploaded to hf://{hub}: {files}"


def _scores(profile: str, result: results.Result | None) -> list[str]:
    if profile == "smoke":
        return ["Trained on synthetic faces to try the code: synthetic faces - not a result."]
    if result is None:
        return ["No result of this run is stored, so no number is given."]
    rows = ["| test set | input | correct | accuracy | 95 % interval |", "|---|---|---|---|---|"]
    for half, kinds in result.record["scores"].items():
        for kind, score in kinds.items():
            low, high = (f"{100 * bound:.2f}" for bound in score["interval"])
            correct, accuracy = f"{score['correct']:,} of {score['n']:,}", f"{100 * score['accuracy']:.2f} %"
            rows.append(f"| {half} | {kind} | {correct} | {accuracy} | {low} to {high} % |")
    return rows
