"""The command ``fer-repro``: one thin function per command; the work is done by the library.

The library is imported by the command that needs it: torch alone takes a second, and ``--help`` should not.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

import fer_repro
from fer_repro import durations
from fer_repro.cli import audit, doctor, packages, runs, scoring
from fer_repro.cli.console import (
    AcceptModified,
    AsJson,
    ResultsDir,
    Root,
    console,
    end_with_the_driver,
    print_damage,
    print_json,
    progress,
    table,
)
from fer_repro.cli.data import Ferplus, audit_data
from fer_repro.cli.failure import Commands, reported
from fer_repro.errors import INTERRUPTED, UNREAD, FerReproError, nearest, one_of
from fer_repro.logs import LineHandler, nowhere, shown, unread
from fer_repro.project import default_results_dir, project_root

app = typer.Typer(
    cls=Commands,
    help="Audit and re-run the FER2013 leaderboard.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"fer-repro {fer_repro.__version__}")
        raise typer.Exit()


@app.callback()
def common(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
) -> None:
    """Options before the command."""
    context.obj = time.monotonic()  # a time budget counts from here: importing torch belongs to it


def main(arguments: list[str] | None = None) -> None:
    """Entry point: what cannot go on is one sentence on stderr and exit status 1, see `fer_repro.cli.failure`.

    A closed output ends it quietly, after the work in hand was saved.
    """
    end_with_the_driver()
    arguments = _pair_parameters(list(sys.argv[1:] if arguments is None else arguments))
    debug = "--debug" in arguments
    try:
        with unread.handled(lambda: None), reported(debug):
            # At any place of the line: after an error a user repeats the command with --debug at its end.
            app([*["--debug"] * debug, *(argument for argument in arguments if argument != "--debug")])
    finally:
        if unread.happened:
            nowhere("stdout"), nowhere("stderr")
            sys.exit(UNREAD)


def _pair_parameters(arguments: list[str]) -> list[str]:
    """papermill's ``-p name value`` as the one argument that an option can take: ``-p name=value``."""
    if "chapter" not in arguments:
        return arguments
    paired: list[str] = []
    for argument in arguments:
        name_waits = paired[-2:-1] in (["-p"], ["--parameter"]) and "=" not in paired[-1]
        if name_waits and not argument.startswith("--"):  # else the value was forgotten
            paired[-1] += f"={argument}"
        else:
            paired.append(argument)
    return paired


@contextmanager
def _interruptible(what_stays: str) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP print one line and end with the exit status that a shell expects."""
    from fer_repro.processes import interrupting

    try:
        with interrupting():
            yield
    except KeyboardInterrupt:
        print(f"stopped: {what_stays}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def data(
    action: Annotated[
        str,
        typer.Argument(
            help="find (where it is), check (every count and digest), describe (counts) or audit (duplicates, blank "
            "images, labels that contradict each other)."
        ),
    ] = "describe",
    root: Root = "",
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the folder copy through kagglehub first.")
    ] = False,
    ferplus: Ferplus = "",
    accept_modified: AcceptModified = False,
    as_json: AsJson = False,
) -> None:
    """Find, check, describe or audit the FER2013 copy on this machine."""
    actions = ("find", "check", "describe", "audit")
    if action not in actions:
        hint = nearest(action, actions, "", most=1)
        raise FerReproError(f"unknown action '{action}', expected find, check, describe or audit{hint and f'; {hint}'}")
    if ferplus and action != "audit":
        raise FerReproError("--ferplus belongs to the audit: write `fer-repro data audit --ferplus FILE`")
    from fer_repro.data import describe, load, source

    if download:
        from fer_repro.data.download import download as fetch

        progress("fetching the folder copy of FER2013")
        fetch(root) if root else fetch()
    if action == "audit":
        audit_data(root, ferplus, accept_modified, as_json)
        return
    place = source.find(root or None)
    document: dict[str, Any] = {"path": str(place.path), "kind": place.kind}
    if action != "find":
        document |= describe(load("fer2013", root or None, accept_modified=accept_modified))
        if not document["digest_verified"]:
            raise FerReproError(
                f"the cached pixels of {place.path.name} are not those that were checked: delete the cache folder "
                "(~/.cache/fer_repro, or $FER_REPRO_CACHE) and run this again"
            )
    if as_json:
        print_json(document)
    elif action == "find":
        print(f"{place.path} ({place.kind})")
    else:
        print(f"{document['source']}: {document['images']:,} images, {document['known_copy']}, {document['digest']}")
        if document["modified"]:
            print(f"not the official FER2013: {document['modified']['words']}")
        if document["not_read"]:
            print(f"in the same folder, not read: {', '.join(document['not_read'])}")
    if action == "describe" and not as_json:
        counts = document["counts"]
        console.print(table(["usage", *next(iter(counts.values()))], [[u, *c.values()] for u, c in counts.items()]))


@app.command("list")
def list_variants(results_dir: ResultsDir = "", as_json: AsJson = False) -> None:
    """List the variants: leaderboard rows, other models and ablations, with what is stored of each."""
    from fer_repro import papers, results
    from fer_repro.campaign import status

    where = Path(results_dir) if results_dir else default_results_dir()
    if results_dir and not os.path.isdir(where):
        raise FerReproError(f"there is no results folder {where}: give one with --results-dir")
    found = results.survey(where)
    entries = status.states(where, found)
    others = (results.survey(where, kind) for kind in results.EVIDENCE if kind != results.FULL)
    print_damage(dict.fromkeys(problem for _, damaged in (found, *others) for problem in damaged.values()))
    if as_json:
        print_json({"variants": entries})
        return
    rows = [[e["id"], e["slug"], _kind(e), *e["state"].values(), ", ".join(e["released"])] for e in entries]
    console.print(table(["variant", "chapter", "kind", *papers.PROTOCOLS, "released weights"], rows))


def _kind(entry: dict[str, Any]) -> str:
    """What a variant is to the leaderboard, in words."""
    if entry["ablation_of"]:
        return f"ablation of {entry['ablation_of']}"
    if entry["claimed"] is None:
        return "nothing claimed"
    return "not on the leaderboard" if entry["added"] else "row"


app.command()(runs.run)
app.add_typer(runs.checkpoints, name="checkpoint")


@app.command()
def chapter(
    slug: Annotated[str, typer.Argument(help="A chapter's slug (vggnet, leaderboard, ...) or a notebook's path.")],
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", metavar="NAME VALUE", help="Set a parameter.")
    ] = None,
    out: Annotated[
        str, typer.Option("-o", "--out", help="The executed copy. Default: _build/executed/SLUG.ipynb.")
    ] = "",
    timeout: Annotated[
        str | None, typer.Option(help="Time that one cell may take: seconds, 45m, 1h30m. Default: no limit.")
    ] = None,
    show: Annotated[bool, typer.Option("--parameters", help="List the chapter's parameters and run nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Execute one chapter with papermill: an unknown parameter or a wrong value is an error before anything runs."""
    from fer_repro.book import notebooks

    described = notebooks.inspect(slug)
    if show:
        listed = [vars(p) for p in described.parameters.values()]
        if as_json:
            print_json({"chapter": described.slug, "parameters": listed})
        else:
            rows = [[p["name"], p["type"], repr(p["default"]), p["help"]] for p in listed]
            console.print(table(["parameter", "type", "default", "help"], rows))
        return
    given = {}
    for pair in parameter or []:
        name, equals, text = pair.partition("=")
        if not equals:
            raise FerReproError(f"parameter '{name}' has no value: write -p {name} VALUE")
        given[name] = described.parameter(name).parse(text)
    limit = None if timeout is None else durations.parse(timeout, "timeout")
    target = Path(out) if out else project_root() / "_build" / "executed" / f"{described.slug}.ipynb"
    lines = nullcontext() if sys.stderr.isatty() else shown(LineHandler("stderr"))  # a terminal has papermill's bar
    with _interruptible("nothing was written; a full run goes on from its checkpoint with the same command"), lines:
        done = notebooks.execute(described.path, target, given, timeout=limit)
    print_json({"chapter": described.slug, "out": str(done)}) if as_json else print(f"executed: {done}")


@app.command()
def book(
    profile: Annotated[str, typer.Option(help="stored (smoke where nothing is stored), smoke or full.")] = "stored",
    jobs: Annotated[int, typer.Option(min=1, help="Chapters at a time.")] = 2,
    timeout: Annotated[str, typer.Option(help="Time that one cell may take: seconds, 45m, 1h30m.")] = "30m",
    out: Annotated[str, typer.Option("-o", "--out", help="Where the finished book goes. Default: _build/html.")] = "",
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="SLUG", help="Execute only this chapter; repeatable. The others stay as they were last."),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show the book in a browser, and build it again when a source changes.")
    ] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of --serve, on this machine alone.")] = 8000,
    results_dir: ResultsDir = "",
) -> None:
    """Execute the chapters that have changed and build the book; a warning, a dead link or a failing chapter is an
    error."""
    from fer_repro import papers

    one_of("profile", profile, papers.PROFILES)
    from fer_repro.book.build import build_book, sources_of

    with _interruptible("the previous book is unchanged"):
        limit = durations.parse(timeout, "timeout")
        where = Path(out) if out else None
        if serve:
            from fer_repro.book import serve as served

            command = [sys.executable, "-m", "fer_repro.cli", "book", "--profile", profile, "--jobs", str(jobs)]
            command += ["--timeout", timeout, *(word for slug in only or () for word in ("--only", slug))]
            command += [*(["--out", out] if out else []), *(["--results-dir", results_dir] if results_dir else [])]
            served.serve(command, where or project_root() / "_build" / "html", sources_of(results_dir), port)
            return
        build_book(profile=profile, jobs=jobs, timeout=limit, out=where, only=only, results_dir=results_dir)


@app.command()
def verify(
    results_dir: ResultsDir = "",
    book: Annotated[str, typer.Option(help="Also compare the tables of a built book in this folder.")] = "",
    as_json: AsJson = False,
) -> None:
    """Recompute every stored number, and compare what is made of them with its sources."""
    from fer_repro import results, verification

    where = Path(results_dir) if results_dir else default_results_dir()
    if results_dir and not os.path.isdir(where):
        raise FerReproError(f"there is no results folder {where}: give one with --results-dir")
    checked = len(results.all_folders(where))
    if not checked:
        raise FerReproError(
            f"no stored results in {where}, expected VARIANT/PROTOCOL/seed-N/result.json: name the results folder of a "
            "checkout of the book with --results-dir (the installed package has none)"
        )
    report = verification.verify(where if results_dir else None, Path(book) if book else None)
    if as_json:
        also = dict(report.checked)
        print_json({"ok": not report.problems, "checked": checked, "also": also, "problems": report.problems})
    else:
        print("\n".join([*report.problems, str(report)]))
    if report.problems:
        raise typer.Exit(1)


app.command()(audit.audit)
app.command()(doctor.doctor)
app.command()(runs.export)
app.command()(runs.predict)
app.command()(scoring.score)
app.add_typer(packages.app, name="packages")


@app.command()
def bench(
    what: Annotated[str, typer.Argument(help="data, augment, train, evaluate, seeds, scale or all.")] = "all",
    only: Annotated[str | None, typer.Option(help="Networks, separated by commas, instead of all.")] = None,
    seconds: Annotated[str | None, typer.Option(help="How long a turn of one side lasts: seconds, 2m.")] = None,
    turns: Annotated[int | None, typer.Option(min=1, help="How often each side has its turn.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = None,
    keep: Annotated[bool, typer.Option("--store", help="Also write to benchmarks/measured, for the chapter.")] = False,
    out: Annotated[str, typer.Option("-o", "--out", help="Also write the figures into this folder.")] = "",
    as_json: AsJson = False,
) -> None:
    """Measure speed and memory side by side with what a user would do instead."""
    from fer_repro import speed as benchmarks
    from fer_repro.training import checked_device

    if device is not None:
        checked_device(device)
    turn = None if seconds is None else durations.parse(seconds, "turn")
    options = {"only": only, "seconds": turn, "turns": turns, "device": device}
    with _interruptible("nothing was written"), shown(LineHandler("stderr")):
        measured = benchmarks.measure(what, options=options)
    if keep or out:
        for path in benchmarks.store(measured, Path(out) if out else None):
            progress(f"stored: {path}")
    if as_json:
        print_json(measured)
        return
    from fer_repro.speed.tables import grids

    for name, figures in measured.items():
        for grid in grids(name, figures):
            console.print(table(grid.header, grid.rows), "\n" + grid.caption + "\n")
