"""The command ``fer-repro score``: weights of any origin on the official test sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_repro.cli.console import AsJson, ResultsDir, Root, console, print_json, table

if TYPE_CHECKING:
    from pathlib import Path

    from fer_repro.results import Result
    from fer_repro.score import Weights


def score(
    variant: Annotated[str, typer.Argument(help="Variant whose network the weights belong to (`fer-repro list`).")],
    checkpoint: Annotated[str, typer.Option("-c", "--checkpoint", help="File of weights, or an exported folder.")],
    root: Root = "",
    data_set: Annotated[str, typer.Option("--data", help="fer2013, or synthetic to try a file.")] = "fer2013",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    keep: Annotated[
        bool, typer.Option("--store", help="Also write results/VARIANT/released/NAME (no weights).")
    ] = False,
    name: Annotated[str, typer.Option(help="Name of the stored result. Default: the file's.")] = "",
    results_dir: ResultsDir = "",
    as_json: AsJson = False,
) -> None:
    """Score weights of any origin on PublicTest and PrivateTest: a paper's release, an export, a state dict.

    They are loaded as tensors only and scored by the paper's preprocessing and test-time augmentation.
    """
    from fer_repro import parameters
    from fer_repro.logs import LineHandler, shown

    parameters.check_values({"variant": variant, "data": data_set, "device": device})
    from fer_repro import score as scoring

    with shown(LineHandler("stderr")):
        weights, result, folder = scoring.score(
            variant,
            checkpoint,
            root=root or None,
            data=data_set,
            device=device,
            store=keep,
            name=name,
            results_dir=results_dir or None,
        )
    document = _document(variant, weights, result, folder)
    print_json(document) if as_json else _print(document)


def _document(variant: str, weights: Weights, result: Result, folder: Path | None) -> dict[str, Any]:
    from fer_repro import score as scoring
    from fer_repro.papers.base import TEST_SETS
    from fer_repro.recipe import Views

    claim, recipe = scoring.claim_of(variant), weights.classifier.recipe
    named = {"plain": str(Views(**result.record["recipe"]["plain"])), "views": str(recipe.views)}
    scores = {
        half: {named[kind]: {k: s[k] for k in ("n", "correct", "accuracy", "interval")} for kind, s in kinds.items()}
        for half, kinds in result.record["scores"].items()
    }
    return {
        "variant": variant,
        "origin": weights.origin,
        **weights.about,
        "recipe": f"{recipe.protocol.name} protocol, sha256 {recipe.sha256()}",
        "data": result.record["data"],
        "synthetic": result.synthetic,
        "scores": scores,
        "not_scored": {half: weights.about["why"] for half in TEST_SETS if half not in weights.test_sets},
        "claimed": claim and {"model": claim.model, "accuracy": claim.accuracy, "scored": claim.audit.scored},
        "stored": folder and str(folder),
    }


def _print(found: dict[str, Any]) -> None:
    from fer_repro.markup import SYNTHETIC

    origin = {"released": "released weights", "export": "an export of this project"}
    print(f"{found['variant']}: {origin.get(found['origin'], 'a state dict under the names of this project')}")
    lines = {
        "file": f"{found['file']}, sha256 {found['sha256']}",
        "published": " ".join(filter(None, (found["at"], found["url"] and f"({found['url']})"))),
        "licence": found["licence"],
        "conversion": found["conversion"],
        "trained on": found["trained_on"],
        "selected on": found["selected_on"],
        "input differs": found["differs"],
        "data": f"{found['data']['name']}, sha256 {found['data']['digest'][:16]}",
    }
    if found["published_file"] not in ("", found["file"]):
        lines["published"] += f"; the published file is called {found['published_file']}"
    for term, value in lines.items():
        if value:
            print(f"{term + ':':<15}{value}")
    rows = []
    for half, kinds in found["scores"].items():
        for kind, s in kinds.items():
            low, high = (f"{100 * end:.2f}" for end in s["interval"])
            rows.append(
                [half, kind, f"{s['correct']:,} of {s['n']:,}", f"{100 * s['accuracy']:.2f}", f"{low} to {high}"]
            )
    console.print(table(["test set", "test-time augmentation", "correct", "accuracy %", "95 % interval"], rows))
    for half, why in found["not_scored"].items():
        print(f"{half} is not scored: {why}")
    if found["synthetic"]:
        print(f"{SYNTHETIC}.")
    elif found["claimed"]:
        claim = found["claimed"]
        print(f"claimed: {claim['accuracy']:.2f} % by {claim['model']}, scored on {claim['scored']}")
    if found["stored"]:
        print(f"stored: {found['stored']}")
