"""The commands of ``fer-repro`` around trained networks: ``run``, ``export``, ``predict``, ``checkpoint``."""

from __future__ import annotations

import sys
import time
from itertools import product
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

import fer_repro
from fer_repro import durations
from fer_repro.cli.console import (
    AcceptModified,
    AsJson,
    ResultsDir,
    Root,
    RunsDir,
    console,
    print_json,
    progress,
    table,
)
from fer_repro.errors import INTERRUPTED, FerReproError

if TYPE_CHECKING:
    from fer_repro.campaign import Outcome, Task
    from fer_repro.campaign.estimate import Estimator
    from fer_repro.campaign.plan import Plan
    from fer_repro.parameters import RunOptions

ExportsDir = Annotated[str, typer.Option(help="Folder of exported networks. Default: exports/.")]
checkpoints = typer.Typer(help="Move unfinished runs, or finished networks, from one machine to another.")


def run(
    context: typer.Context,
    variants: Annotated[list[str] | None, typer.Argument(help="Variants; `fer-repro list` shows them.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every leaderboard row that has a module.")] = False,
    ablations: Annotated[bool, typer.Option("--ablations", help="With --all: the ablations too, after them.")] = False,
    scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Random instead of pretrained weights; stored as an ablation.")
    ] = False,
    protocol: Annotated[str, typer.Option(help="official (clean) or claimed (as the number was made).")] = "official",
    profile: Annotated[
        str, typer.Option(help="full (the recipe on FER2013) or smoke (synthetic faces, seconds).")
    ] = "full",
    seed: Annotated[list[int] | None, typer.Option(help="Seed; give it several times for several runs.")] = None,
    data_set: Annotated[
        str, typer.Option("--data", help="fer2013 or synthetic instead of what the profile needs.")
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    epochs: Annotated[
        int | None, typer.Option(help="Epochs instead of the recipe's; such a run is never stored.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, each a process.")] = 1,
    together: Annotated[
        bool, typer.Option("--together", help="All seeds of a variant at once in one process, on one device.")
    ] = False,
    time_budget: Annotated[
        str | None, typer.Option(help="Stop at a checkpoint after this time: seconds, 45m, 1h30m, 01:30:00.")
    ] = None,
    results_dir: ResultsDir = "",
    runs_dir: RunsDir = "",
    root: Root = "",
    resume: Annotated[bool, typer.Option(help="Resume from the last checkpoint.")] = True,
    keep_unfinished: Annotated[
        bool,
        typer.Option("--keep-unfinished", help="Score a stopped network's best weights so far; store as unfinished."),
    ] = False,
    score_epochs: Annotated[
        bool,
        typer.Option("--score-epochs", help="Keep each epoch's weights; after training, score both test sets by each."),
    ] = False,
    accept_modified: AcceptModified = False,
    show_plan: Annotated[bool, typer.Option("--plan", help="Print what would run and when; run nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --plan: one JSON document.")] = False,
) -> None:
    """Run variants, each after what it needs and the cheapest first; skip what is stored, resume what was stopped.

    Several runs are a campaign: it prints what it did and what comes next, and the same command continues it.
    """
    from fer_repro import papers
    from fer_repro.parameters import RunOptions

    limit = None if time_budget is None else durations.parse(time_budget)
    if bool(variants) == everything:
        raise FerReproError("name the variants to run, or --all (not both): `fer-repro list` shows them")
    if ablations and not everything:
        raise FerReproError("--ablations goes with --all; ablations can also be named one by one")
    if together and jobs > 1:
        raise FerReproError("--together is one process and --jobs several: choose one of the two")
    if as_json and not show_plan:
        raise FerReproError("--json goes with --plan: runs print lines as they go")
    where = (results_dir or None, runs_dir or None, root or None)
    given = (protocol, profile, data_set, device, epochs, *where, resume)
    options = RunOptions(*given, keep_unfinished, score_epochs, accept_modified)
    for name, one in product(variants or [next(iter(papers.listed()))], seed or [0]):
        options.check_values(name, one)
    # From here on torch is needed.
    from fer_repro import results
    from fer_repro.campaign import Task, estimate, plan, runner
    from fer_repro.reproduce import require_epochs, require_weights
    from fer_repro.training.run import OUT_OF_TIME

    modified = options.modified_copy()
    if show_plan and modified is not None:  # a run says so itself
        progress(f"a modified copy of FER2013: {modified.difference}")
    kind = results.stored_as(modified)
    chosen = variants or [v.id for v in papers.variants().values() if ablations or v.ablation_of is None]
    if scratch:
        chosen = papers.from_scratch(chosen, lenient=everything)
    if not everything:
        for name in chosen:
            require_epochs(name, protocol, keep_unfinished, score_epochs)
    if not everything and not show_plan and profile != "stored":
        for name in chosen:
            if not _all_stored(name, options, seed or [0], kind):
                require_weights(name, protocol, profile)
    if everything:
        done = [name for name in chosen if _all_stored(name, options, seed or [0], kind)]
        able = _with_weights(
            [name for name in chosen if name not in done], protocol, profile, fetch=not show_plan, quiet=as_json
        )
        chosen = [name for name in chosen if name in done or name in able]
    tasks = [Task(name, one) for name in chosen for one in seed or [0]]
    runner.check(tasks, options, writes=not show_plan)
    estimator = estimate.Estimator(options)
    if show_plan:
        made = plan.plan(tasks, estimator)
        print_json(made.as_dict()) if as_json else _print_plan(made)
        return
    stored = [task for task in tasks if estimator.stored(task)]
    before = [estimator.gained(task) for task in tasks] if limit else []
    budget = None if limit is None else limit - (time.monotonic() - context.obj)
    outcomes = plan.run(tasks, options, jobs=jobs, budget=budget, estimator=estimator, together=together)
    _print_outcomes(outcomes)
    sound = len(tasks) == 1 or _print_campaign(outcomes, stored, estimator)
    ended = {outcome.state for outcome in outcomes if outcome.task not in stored}
    by_time = limit is not None and any(OUT_OF_TIME in outcome.text for outcome in outcomes)
    if by_time and ended <= {"stopped", "not started"} and before == [estimator.gained(task) for task in tasks]:
        took = time.monotonic() - context.obj
        # Twice, because up to half of a budget is kept for scoring.
        needed = 2 * max(limit, took + max(outcome.needs for outcome in outcomes))
        print(
            f"stopped: {OUT_OF_TIME} before anything was gained, so the same command would stop there again: give it "
            f"at least --time-budget {durations.least(needed)}" + ("" if estimator.keeps else " or a --runs-dir"),
            file=sys.stderr,
        )
        raise typer.Exit(INTERRUPTED)
    _exit(outcomes, sound)


def _all_stored(name: str, options: RunOptions, seeds: list[int], kind: tuple[str, str]) -> bool:
    """Whether nothing of a variant is left to run, so that nobody needs its weights; ``kind``: as `stored_as` says."""
    from fer_repro import results

    place = (options.results_path, name, options.protocol)
    return options.profile == "full" and all(results.is_stored(*place, seed, *kind) for seed in seeds)


def _with_weights(chosen: list[str], protocol: str, profile: str, *, fetch: bool, quiet: bool) -> list[str]:
    """Those whose weights and libraries are here or can be fetched; the others are named, unless ``quiet``."""
    from fer_repro import papers
    from fer_repro.evaluation.cost import weightless
    from fer_repro.reproduce import require_weights

    able = []
    for name in chosen:
        variant = papers.get(name)
        try:
            require_weights(name, protocol, profile, fetch)
            if variant.build is not None:
                weightless(variant.build, variant.recipe(protocol, profile))
            able.append(name)
        except FerReproError as error:
            if not quiet:
                print(f"{name}: left out: {error}")
    return able


def _print_plan(made: Plan) -> None:
    console.print(table(["run", "state", "estimate", "cumulative", "how it was estimated"], made.rows()))
    print(f"to do: {made.total or 'nothing'} on {made.device}, one run at a time")


def _print_outcomes(outcomes: list[Outcome]) -> None:
    """One line per run."""
    for outcome in outcomes:
        texts = [outcome.text or "done"] if outcome.state == "done" else [outcome.state, outcome.text]
        print(": ".join([str(outcome.task), *filter(None, texts)]))


def _print_campaign(outcomes: list[Outcome], stored: list[Task], estimator: Estimator) -> bool:
    """Print whether the new result files are correct, and what comes next; returns whether they are."""
    from fer_repro.campaign import plan

    new, problems = plan.verify(outcomes, stored, estimator)
    count = f"{new} new result{'s' * (new != 1)}"
    lines = [*problems, f"{count} stored in {estimator.results_dir}, {len(problems)} problems"]
    print("\n".join([*(lines if estimator.stores else []), *plan.next_runs(outcomes, estimator)]))
    return not problems


def _exit(outcomes: list[Outcome], sound: bool) -> None:
    """The exit status: 0 only where every run is done and its files are correct."""
    states = {outcome.state for outcome in outcomes}
    if states & {"stopped", "not started"}:
        print("stopped: give the same command again to go on", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)
    if states != {"done"} or not sound:
        raise typer.Exit(1)


def export(
    variant: Annotated[str, typer.Argument(help="A network variant with a finished run.")],
    protocol: Annotated[str, typer.Option(help="official or claimed.")] = "official",
    profile: Annotated[str, typer.Option(help="full, or smoke for a trial.")] = "full",
    seed: Annotated[int, typer.Option(min=0, help="The run's seed.")] = 0,
    out: Annotated[str, typer.Option("-o", "--out", help="Folder. Default: exports/VARIANT-PROTOCOL-seed-N.")] = "",
    bf16: Annotated[bool, typer.Option("--bf16", help="Weights in bf16: half the size, for inference only.")] = False,
    push: Annotated[
        str, typer.Option(metavar="USER/REPO", help="Show what would be uploaded to the Hugging Face hub.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="With --push: really upload.")] = False,
    results_dir: ResultsDir = "",
    runs_dir: RunsDir = "",
) -> None:
    """Write a finished run's weights as safetensors, with a model card for a hub; upload them with --push and --yes."""
    from fer_repro.parameters import RunOptions

    RunOptions(protocol, profile).check_values(variant, seed)
    if yes and not push:
        raise FerReproError("--yes goes with --push USER/REPO: it says that the export is really to be uploaded")
    from fer_repro.transfer import export as exports

    places = {"out": out, "results_dir": results_dir, "runs_dir": runs_dir}
    target = exports.export(variant, protocol, profile, seed, **places, bf16=bf16, hub=push)
    print(f"exported: {target}")
    if push:
        print(exports.push(target, push, upload=yes))


def predict(
    model: Annotated[str, typer.Argument(help="An exported folder, hf://USER/REPO[@REVISION], or a released file.")],
    picture: Annotated[list[str], typer.Argument(help="Picture files; they become grey and 48x48.")],
    variant: Annotated[str, typer.Option(help="Of a released file: the variant whose authors released it.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Show what a trained network sees in pictures of faces: the probability of each class."""
    from fer_repro import papers
    from fer_repro.data.pictures import faces
    from fer_repro.training import checked_device

    checked_device(device)
    if variant:
        papers.require_listed(variant)
    images = faces(picture)  # before torch is imported and anything is fetched
    network = fer_repro.load(model, variant, device)
    shares = network.predict_proba(images)
    rows = list(zip(picture, [network.labels[index] for index in shares.argmax(axis=1)], shares.tolist(), strict=True))
    if as_json:
        answers = [
            {"picture": path, "label": label, "probabilities": dict(zip(network.labels, row, strict=True))}
            for path, label, row in rows
        ]
        print_json({"model": model, "variant": network.recipe.variant, "pictures": answers})
        return
    cells = [[escape(path), label, *(f"{share:.3f}" for share in row)] for path, label, row in rows]
    console.print(table(["picture", "label", *network.labels], cells))


@checkpoints.command()
def pack(
    out: Annotated[str, typer.Option("-o", "--out", help="Folder for the parts and their manifest.")],
    variants: Annotated[list[str] | None, typer.Argument(help="Variants. Default: all that have begun.")] = None,
    protocol: Annotated[str, typer.Option(help="Only runs under this protocol.")] = "",
    profile: Annotated[str, typer.Option(help="Only runs of this profile.")] = "",
    seed: Annotated[list[int] | None, typer.Option(help="Only runs with these seeds.")] = None,
    part_size: Annotated[float, typer.Option(min=0.001, max=1e6, help="Largest part in MB (millions of bytes).")] = 15,
    inference: Annotated[
        bool, typer.Option("--inference", help="Finished networks only: weights in bf16 with their model card.")
    ] = False,
    results_dir: ResultsDir = "",
    runs_dir: RunsDir = "",
) -> None:
    """Pack run folders into size-limited parts; packing again adds only what has changed."""
    from fer_repro import papers
    from fer_repro.parameters import RunOptions

    for name, one in product(variants or [next(iter(papers.listed()))], seed or [0]):
        RunOptions(protocol or "official", profile or "full").check_values(name, one)
    from fer_repro.transfer import pack

    packed = pack.pack(
        out,
        variants or [],
        protocol=protocol,
        profile=profile,
        seeds=seed or [],
        part_size=part_size * 1e6,
        inference=inference,
        runs_dir=runs_dir,
        results_dir=results_dir,
    )
    print(f"packed: {packed} in {out}")


@checkpoints.command()
def unpack(
    folder: Annotated[str, typer.Argument(help="Folder with the manifest and all its parts.")],
    force: Annotated[bool, typer.Option("--force", help="Also replace runs that are further along here.")] = False,
    runs_dir: RunsDir = "",
    exports_dir: ExportsDir = "",
) -> None:
    """Check every part, then restore the run folders; the command that made them resumes from there."""
    from fer_repro.transfer import pack

    print(f"unpacked: {pack.unpack(folder, runs_dir=runs_dir, exports_dir=exports_dir, force=force)}")
