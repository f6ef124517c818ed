"""Carry runs from one machine to another: pack their newest checkpoints into small parts, unpack them elsewhere.

Nothing is compressed: trained weights are close to noise, and what compression saves is not worth its time.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fer_repro import papers
from fer_repro.errors import FerReproError
from fer_repro.files import atomic_write
from fer_repro.logs import shown
from fer_repro.project import default_runs_dir
from fer_repro.results import FINISHED
from fer_repro.training import checkpoint
from fer_repro.training.checkpoint import NAME, PREVIOUS, Standing
from fer_repro.transfer import chunks
from fer_repro.transfer.chunks import File, Packed
from fer_repro.transfer.export import WEIGHTS, export

log = logging.getLogger(__name__)

PART_SIZE = 15_000_000  # bytes


@shown()
def pack(
    out: str | Path,
    variants: Iterable[str] = (),
    *,
    protocol: str = "",
    profile: str = "",
    seeds: Iterable[int] = (),
    part_size: int = PART_SIZE,
    inference: bool = False,
    runs_dir: str | Path = "",
    results_dir: str | Path = "",
) -> str:
    """Pack the chosen runs (all, where nothing is chosen) into parts of ``part_size`` bytes in the folder ``out``.

    Of a run go its newest whole checkpoint and the finished pieces beside it; with a named variant go the runs it
    builds on. ``inference``: only finished networks, their weights in bf16, as `export` writes them. What ``out`` holds
    of other runs stays. Returns a summary. Raises `FerReproError`: nothing chosen, a run in progress, no space.
    """
    out, runs = Path(out), Path(runs_dir) if runs_dir else default_runs_dir()
    chosen = _chosen(runs, list(variants), protocol, profile, set(seeds), with_needed=not inference)
    if inference:
        chosen = [folder for folder in chosen if _exportable(folder, runs)]
    if not chosen:
        what = "finished network" if inference else "run with a checkpoint"
        raise FerReproError(f"there is no {what} to pack in {runs}: `fer-repro list` shows what was begun")
    try:
        out.mkdir(parents=True, exist_ok=True)
        before = chunks.read_manifest(out) if (out / chunks.MANIFEST).exists() else []
        made = []
        for folder in chosen:
            with checkpoint.writer(folder):
                add = _export if inference else _run
                made.append(add(folder, runs, out, part_size, Path(results_dir) if results_dir else ""))
            log.info(f"{made[-1].path}: {_told(made[-1])}")
        new = {(packed.kind, packed.path) for packed in made}
        chunks.write_manifest(out, [packed for packed in before if (packed.kind, packed.path) not in new] + made)
    except OSError as error:
        raise FerReproError(
            f"the parts cannot be written to {out} ({error.strerror}): free some space or choose another --out"
        ) from error
    return _summary(made)


def _chosen(
    runs: Path, variants: list[str], protocol: str, profile: str, seeds: set[int], *, with_needed: bool
) -> list[Path]:
    names = {papers.get(name).id for name in variants}
    found = []
    for folder in sorted(path for path in runs.glob("*/*/*/seed-*") if path.is_dir()):
        variant, under, kind, seed = folder.relative_to(runs).parts
        if names and variant not in names or protocol not in ("", under):
            continue
        if profile and kind.split("-")[0] != profile or seeds and seed not in {f"seed-{n}" for n in seeds}:
            continue
        if _pieces(folder):
            needed = sorted(papers.needs(variant)) if with_needed and names else []
            found += [other for name in needed if _pieces(other := runs / name / under / kind / seed)]
            found.append(folder)
    return list(dict.fromkeys(found))


def _pieces(folder: Path) -> dict[str, Path]:
    """What is worth carrying of a run folder, by the name it will have: no lock, no temporary, no older checkpoint."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        name = path.relative_to(folder)
        if path.name in (NAME, PREVIOUS):
            found[(name.parent / NAME).as_posix()] = path.parent  # which of the two is whole is seen when it is packed
        elif path.name != "lock" and not any(step.startswith(".") for step in name.parts):
            found[name.as_posix()] = path
    return found


def _run(folder: Path, runs: Path, out: Path, part_size: int, _: Any) -> Packed:
    files, standing = [], None
    for name, path in _pieces(folder).items():
        source = path if path.is_file() else checkpoint.newest_whole(path)
        if source is None:
            raise FerReproError(f"no checkpoint in {path} is whole: delete that folder, or name the other runs to pack")
        files.append(chunks.split(source, name, out, part_size))
        standing = checkpoint.standing(source) if name == NAME else standing
    return Packed("run", folder.relative_to(runs).as_posix(), _facts(standing), tuple(files))


def _facts(standing: Standing | None) -> dict[str, Any]:
    """For the manifest; empty for a method whose pieces tell nothing."""
    if standing is None:
        return {}
    place = {name: getattr(standing, name) for name in ("status", "epochs", "stage", "epoch", "batch")}
    return place | {"identity": dict(standing.identity)}


def _exportable(folder: Path, runs: Path) -> bool:
    path = folder.relative_to(runs)
    standing, variant, kind = checkpoint.peek(folder), papers.get(path.parts[0]), path.parts[2]
    why = (
        "no network"
        if variant.build is None
        else f"a run of kind {kind}"
        if kind not in ("full", "smoke")
        else "not finished"
        if standing is None or standing.status not in FINISHED
        else ""
    )
    if why:
        log.info(f"{path.as_posix()}: left out ({why})")
    return not why


def _export(folder: Path, runs: Path, out: Path, part_size: int, results_dir: Any) -> Packed:
    variant, protocol, profile, seed = folder.relative_to(runs).parts
    number, facts = int(seed.removeprefix("seed-")), _facts(checkpoint.peek(folder))
    with tempfile.TemporaryDirectory() as there:
        where = {"out": there, "runs_dir": runs, "results_dir": results_dir}
        made = export(variant, protocol, profile, number, bf16=True, **where)
        files = tuple(chunks.split(path, path.name, out, part_size) for path in sorted(made.iterdir()))
    trial = "" if profile == "full" else f"-{profile}"
    return Packed("export", f"{variant}-{protocol}{trial}-{seed}-bf16", facts, files)


@shown()
def unpack(folder: str | Path, *, runs_dir: str | Path = "", exports_dir: str | Path = "", force: bool = False) -> str:
    """Put back what `pack` has put into ``folder``: runs into ``runs_dir``, networks into ``exports_dir``.

    Every checksum is checked before anything is replaced. Returns a summary. Raises `FerReproError` for a part that is
    missing, damaged or unknown to the manifest, a run in progress, and (without ``force``) for a run that is further
    along here or has another recipe.
    """
    folder, runs = Path(folder), Path(runs_dir) if runs_dir else default_runs_dir()
    exports = Path(exports_dir) if exports_dir else Path("exports")
    everything = chunks.read_manifest(folder)
    if unknown := chunks.strangers(folder, everything):
        raise FerReproError(
            f"part {unknown[0]} in {folder} is unknown to its {chunks.MANIFEST}: copy the manifest that belongs to it, "
            "or delete that part"
        )
    for packed in everything:
        chunks.verify(folder, packed)
    targets = [(packed, (runs if packed.kind == "run" else exports) / packed.path) for packed in everything]
    with ExitStack() as locks:
        for packed, target in targets:
            if packed.kind == "run":
                locks.enter_context(checkpoint.writer(target))
            if not force and (why := _better_here(packed, target)):
                raise FerReproError(f"{target} {why}: nothing was unpacked; --force replaces it")
        try:
            for packed, target in targets:
                _place(folder, packed, target)
                log.info(f"{packed.path}: {_told(packed)}")
        except OSError as error:
            raise FerReproError(
                f"{error.filename or runs} cannot be written ({error.strerror}): free some space, then unpack again"
            ) from error
    return _summary(everything)


def _better_here(packed: Packed, target: Path) -> str:
    """Why what lies at ``target`` must not be replaced without being asked; empty where it may."""
    if packed.kind == "export":
        weights = next((file for file in packed.files if file.name == WEIGHTS), None)
        there = target / WEIGHTS
        same = weights is not None and there.exists() and chunks.sha256_of(there) == weights.sha256
        return "holds other weights" if there.exists() and not same else ""
    here = checkpoint.peek(target)
    if here is None:
        # A method without checkpoints: its pieces are never changed, only more of them are made.
        more = [] if packed.facts else sorted(_pieces(target).keys() - {file.name for file in packed.files})
        if more:
            return f"has come further than the packed run (it holds {more[0]})"
        # Save the checkpoints of its parts: which of two is further along only the method itself could tell.
        parted = [file for file in packed.files if file.name != NAME and file.name.endswith(NAME)]
        other = [file.name for file in parted if _differs(target / file.name, file.sha256)]
        return f"holds another {other[0]}" if other else ""
    identity = packed.facts.get("identity", {})
    other = [key for key, value in here.identity.items() if identity.get(key) != value]
    if other:
        return f"holds a run with another {' and '.join(other)}"
    place = [packed.facts.get(name) for name in ("epochs", "stage", "epoch", "batch")]
    known = all(type(value) is int for value in place)
    there = (packed.facts.get("status") != "running", *place) if known else ()
    mine = (here.status != "running", here.epochs, here.stage, here.epoch, here.batch)
    return f"has come further than the packed run (epoch {here.epochs}, {here.status})" if mine > there else ""


def _differs(path: Path, sha256: str) -> bool:
    return path.exists() and chunks.sha256_of(path) != sha256


def _place(folder: Path, packed: Packed, target: Path) -> None:
    """Write the files of one packed folder, each whole or not at all, checkpoints after everything else."""
    for file in sorted(packed.files, key=lambda file: file.name.endswith(NAME)):
        path = target / file.name
        if path.suffix == ".db":  # a journal left here belongs to the database that is replaced
            for left in path.parent.glob(f"{path.name}-*"):
                left.unlink()
        with atomic_write(path) as written:
            for block in chunks.contents(folder, file, packed.path):
                written.write(block)
        if path.name == NAME:
            (path.parent / PREVIOUS).unlink(missing_ok=True)  # the past of another copy of the run


def _count(files: Iterable[File]) -> int:
    return sum(len(file.parts) for file in files)


def _told(packed: Packed) -> str:
    facts, size = packed.facts, f"{packed.size / 1e6:,.1f} MB in {_count(packed.files)} parts"
    return f"{facts['epochs']} epochs, {facts['status']}, {size}" if {"epochs", "status"} <= facts.keys() else size


def _summary(everything: list[Packed]) -> str:
    counts = {word: sum(p.kind == kind for p in everything) for word, kind in (("run", "run"), ("network", "export"))}
    told = [f"{count} {word}{'s' * (count > 1)}" for word, count in counts.items() if count]
    size, count = sum(p.size for p in everything), sum(_count(p.files) for p in everything)
    return f"{', '.join(told) or 'nothing'}, {size / 1e6:,.1f} MB in {count} parts"
