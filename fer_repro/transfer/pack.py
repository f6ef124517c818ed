"""Take runs from one machine to another: newest checkpoints packed into size-limited parts."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fer_repro import papers
from fer_repro.errors import FerReproError
from fer_repro.files import atomic_write, sha256_of
from fer_repro.logs import shown
from fer_repro.project import default_runs_dir
from fer_repro.results import FINISHED
from fer_repro.training import checkpoint
from fer_repro.training.checkpoint import NAME, PREVIOUS, CheckpointProgress
from fer_repro.transfer import chunks
from fer_repro.transfer.chunks import Packed
from fer_repro.transfer.export import WEIGHTS, export

log = logging.getLogger(__name__)

PART_SIZE = 15_000_000  # bytes
PLACE = ("epochs", "stage", "epoch", "batch")  # how far a checkpoint has come; see `checkpoint.CheckpointProgress`


@shown()
def pack(
    out: str | Path,
    variants: Iterable[str] = (),
    *,
    protocol: str = "",
    profile: str = "",
    seeds: Iterable[int] = (),
    part_size: float = PART_SIZE,
    inference: bool = False,
    runs_dir: str | Path = "",
    results_dir: str | Path = "",
) -> str:
    """Pack the chosen runs (all, where nothing is chosen) into parts of ``part_size`` bytes in the folder ``out``.

    Of a run its newest complete checkpoint and the finished files beside it are packed; with a named variant also the
    runs it builds on. ``inference``: only finished networks, their weights in bf16, as `export` writes them. Parts of
    other runs in ``out`` stay. Returns a summary. Raises `FerReproError`: nothing chosen, a run in progress, no space.
    """
    if not 1 <= part_size < math.inf:
        raise FerReproError(f"the parts cannot be of {part_size:g} bytes each: give a size of 1 byte or more")
    part_size = round(part_size)
    out, runs = Path(out), Path(runs_dir) if runs_dir else default_runs_dir()
    chosen = _chosen(runs, list(variants), protocol, profile, set(seeds), with_needed=not inference)
    reasons = {folder: _why_not_exportable(folder, runs) if inference else "" for folder in chosen}
    for folder, why in reasons.items():
        if why:
            log.info(f"{folder.relative_to(runs).as_posix()}: left out ({why})")
    chosen = [folder for folder in chosen if not reasons[folder]]
    if not chosen:
        what = "finished network" if inference else "run with a checkpoint"
        raise FerReproError(f"there is no {what} to pack in {runs}: `fer-repro list` shows what was begun")
    try:
        out.mkdir(parents=True, exist_ok=True)
        before = chunks.read_manifest(out) if (out / chunks.MANIFEST).exists() else []
        made = []
        for folder in chosen:
            with checkpoint.writer(folder):
                if inference:
                    made.append(_pack_export(folder, runs, out, part_size, results_dir))
                else:
                    made.append(_pack_run(folder, runs, out, part_size))
            log.info(f"{made[-1].path}: {_description(made[-1])}")
        new = {(packed.kind, packed.path) for packed in made}
        chunks.write_manifest(out, [packed for packed in before if (packed.kind, packed.path) not in new] + made)
    except OSError as error:
        raise FerReproError(
            f"the parts cannot be written to {out} ({error.filename or 'a file'}: {error.strerror}): correct that, or "
            "choose another --out"
        ) from error
    return _summary(made)


def _chosen(
    runs: Path, variants: list[str], protocol: str, profile: str, seeds: set[int], *, with_needed: bool
) -> list[Path]:
    """Run folders that hold something and fit the choice, each after the runs it needs."""
    names = {papers.get(name).id for name in variants}
    found = []
    for folder in sorted(runs.glob("*/*/*/seed-*")):
        if not chunks.is_run(folder.relative_to(runs).as_posix()):
            continue  # no folder of ours
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
    """The files of a run folder that are packed, by name, without lock, temporaries and older checkpoints.

    For a checkpoint the value is its folder: which of the two files there is whole is checked when it is packed.
    """
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        name = path.relative_to(folder)
        if path.name in (NAME, PREVIOUS):
            found[(name.parent / NAME).as_posix()] = path.parent
        elif chunks.is_file(name.as_posix()):  # neither hidden nor the lock, nor what somebody else put there
            found[name.as_posix()] = path
    return found


def _pack_run(folder: Path, runs: Path, out: Path, part_size: int) -> Packed:
    files, standing = [], None
    for name, path in _pieces(folder).items():
        # The run's own checkpoint also says how far it has come; those of a method's parts have other states.
        accepts = checkpoint.progress_of if name == NAME else bool
        source = checkpoint.newest_whole(path, accepts) if path.is_dir() else path
        if source is None:
            raise FerReproError(f"no checkpoint in {path} is whole: delete that folder, or name the other runs to pack")
        files.append(chunks.split(source, name, out, part_size))
        standing = checkpoint.progress_of(source) if name == NAME else standing
    return Packed("run", folder.relative_to(runs).as_posix(), _facts(standing), tuple(files))


def _facts(standing: CheckpointProgress | None) -> dict[str, Any]:
    """For the manifest; empty where no checkpoint says how far the run has come."""
    if standing is None:
        return {}
    return {name: getattr(standing, name) for name in ("status", *PLACE)} | {"identity": dict(standing.identity)}


def _why_not_exportable(folder: Path, runs: Path) -> str:
    """Why there are no finished weights in a run folder; empty where there are."""
    variant, _, kind, _ = folder.relative_to(runs).parts
    if papers.get(variant).build is None:
        return "no network"
    if kind not in ("full", "smoke"):
        return f"a run of kind {kind}"
    standing = checkpoint.peek(folder)
    return "" if standing is not None and standing.status in FINISHED else "not finished"


def _pack_export(folder: Path, runs: Path, out: Path, part_size: int, results_dir: str | Path) -> Packed:
    variant, protocol, profile, seed = folder.relative_to(runs).parts
    with tempfile.TemporaryDirectory() as there:
        where = {"out": there, "runs_dir": runs, "results_dir": results_dir}
        made = export(variant, protocol, profile, int(seed.removeprefix("seed-")), bf16=True, **where)
        files = tuple(chunks.split(path, path.name, out, part_size) for path in sorted(made.iterdir()))
    trial = "" if profile == "full" else f"-{profile}"
    return Packed("export", f"{variant}-{protocol}{trial}-{seed}-bf16", _facts(checkpoint.peek(folder)), files)


@shown()
def unpack(folder: str | Path, *, runs_dir: str | Path = "", exports_dir: str | Path = "", force: bool = False) -> str:
    """Restore what `pack` has put into ``folder``: runs into ``runs_dir``, networks into ``exports_dir``.

    Every checksum is checked before anything is replaced. Returns a summary. Raises `FerReproError` for a part that is
    missing, damaged or unknown to the manifest, a run in progress, and (without ``force``) for a run that is further
    along here or has another recipe.
    """
    folder, runs = Path(folder), Path(runs_dir) if runs_dir else default_runs_dir()
    exports = Path(exports_dir) if exports_dir else Path("exports")
    everything = chunks.read_manifest(folder)
    if unknown := chunks.unknown_parts(folder, everything):
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
            if not force and (why := _better_here(folder, packed, target)):
                raise FerReproError(f"{target} {why}: nothing was unpacked; --force replaces it")
        try:
            for packed, target in targets:
                _place(folder, packed, target)
                log.info(f"{packed.path}: {_description(packed)}")
        except OSError as error:
            raise FerReproError(
                f"{error.filename or runs} cannot be written ({error.strerror}): correct that, then unpack again"
            ) from error
    return _summary(everything)


def _better_here(folder: Path, packed: Packed, target: Path) -> str:
    """Why what lies at ``target`` must not be replaced without ``force``; empty where it may."""
    files = {file.name: file.sha256 for file in packed.files}

    def other_than_packed(name: str) -> bool:
        return (target / name).exists() and sha256_of(target / name) != files.get(name)

    for file in packed.files:  # only ever appended to
        if file.name.endswith(".jsonl") and other_than_packed(file.name):
            here = (target / file.name).read_bytes()
            there = b"".join(chunks.contents(folder, file, packed.path))
            if here.startswith(there):
                return f"has come further than the packed run (its {file.name} is longer)"
            if not there.startswith(here):
                return f"holds another {file.name}"
    if packed.kind == "export":
        return "holds other weights" if other_than_packed(WEIGHTS) else ""
    here = checkpoint.peek(target)
    if here is None:
        # A method without checkpoints: its pieces are never changed, only more of them are made.
        more = [] if packed.facts else sorted(_pieces(target).keys() - files.keys())
        if more:
            return f"has come further than the packed run (it holds {more[0]})"
        # Only the checkpoints of its parts change: only the method itself knows which of two is further along.
        other = [name for name in files if name != NAME and name.endswith(NAME) and other_than_packed(name)]
        return f"holds another {other[0]}" if other else ""
    identity = packed.facts.get("identity", {})
    other = [key for key, value in here.identity.items() if identity.get(key) != value]
    if other:
        return f"holds a run with another {' and '.join(other)}"
    place = [packed.facts.get(name) for name in PLACE]
    known = all(type(value) is int for value in place)
    there = (packed.facts.get("status") != "running", *place) if known else ()
    mine = (here.status != "running", *(getattr(here, name) for name in PLACE))
    return f"has come further than the packed run (epoch {here.epochs}, {here.status})" if mine > there else ""


def _place(folder: Path, packed: Packed, target: Path) -> None:
    """Write the files of one packed folder, each whole or not at all, checkpoints after everything else."""
    for file in sorted(packed.files, key=lambda file: file.name.endswith(NAME)):
        path = target / file.name
        with atomic_write(path) as written:
            written.writelines(chunks.contents(folder, file, packed.path))
        if path.name == NAME:
            (path.parent / PREVIOUS).unlink(missing_ok=True)  # it belongs to another copy of the run


def _description(packed: Packed) -> str:
    facts, size = packed.facts, _size([packed])
    return f"{facts['epochs']} epochs, {facts['status']}, {size}" if {"epochs", "status"} <= facts.keys() else size


def _size(everything: list[Packed]) -> str:
    count = sum(len(file.parts) for packed in everything for file in packed.files)
    return f"{sum(packed.size for packed in everything) / 1e6:,.1f} MB in {count} parts"


def _summary(everything: list[Packed]) -> str:
    counts = {word: sum(p.kind == kind for p in everything) for word, kind in (("run", "run"), ("network", "export"))}
    kinds = [f"{count} {word}{'s' * (count > 1)}" for word, count in counts.items() if count]
    return f"{', '.join(kinds) or 'nothing'}, {_size(everything)}"
