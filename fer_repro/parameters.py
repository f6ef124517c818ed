"""The parameters of every chapter: names, types, allowed values, one check.

Importing this, and `check_values`, need no torch: a wrong value is refused before it is imported.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fer_repro import data as data_sets
from fer_repro import papers
from fer_repro.data import FER2013
from fer_repro.data.protocol import require_all_usages
from fer_repro.errors import FerReproError, nearest, one_of
from fer_repro.project import default_results_dir, default_runs_dir
from fer_repro.training import DEVICES, SEED_LIMIT, checked_device, checked_seed, whole_number

DATA_SETS = ("fer2013", "synthetic")
INJECTED = "# Parameters\n"  # the first line of the cell that papermill writes
PAPERMILL = "PAPERMILL_"  # begins the names that papermill --inject-paths adds
ALMOST = 0.9  # of difflib's ratio: one letter of a long name; `speed`, `n_epochs` and `variance` stay below it
_SCALAR = (str, int, float, bool, type(None))  # what -p of papermill sets


def _parameter(default: Any, text: str, allowed: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"help": text, "allowed": allowed})


@dataclass(frozen=True)
class ChapterParameters:
    """What a reader may set in a chapter; the same names serve papermill and the command line."""

    variant: str = _parameter("", "which variant of the paper to run (`fer-repro list` shows all)")
    protocol: str = _parameter("official", "official (clean) or claimed (as the number was made)", papers.PROTOCOLS)
    profile: str = _parameter("smoke", "smoke (seconds, synthetic faces), full (the recipe) or stored", papers.PROFILES)
    seed: int = _parameter(0, f"seed of initialisation, order and augmentation, from 0 to {SEED_LIMIT - 1}")
    data: str = _parameter("", "fer2013 or synthetic; empty = what the profile needs", ("", *DATA_SETS))
    device: str = _parameter("auto", "auto, cpu, cuda, cuda:1 or mps", DEVICES)
    epochs: int | None = _parameter(None, "epochs instead of the recipe's; such a run is never stored")
    results_dir: str = _parameter("", "folder of stored results; empty = the project's own")
    runs_dir: str = _parameter("", "folder of checkpoints; empty = the project's own, and none of a smoke run")
    resume: bool = _parameter(True, "go on from the last checkpoint if there is one")


@dataclass(frozen=True)
class RunOptions:
    """How variants are run: what `reproduce`, a campaign and ``fer-repro run`` take beside the variant and its seed.

    ``results_dir``, ``runs_dir``: None = the project's own. ``root``: where FER2013 is (see `fer_repro.data.load`).
    ``accept_modified``: that may be a copy which was cleaned on purpose; see `modified_copy`.
    """

    protocol: str = "official"
    profile: str = "full"
    data: str = ""
    device: str = "auto"
    epochs: int | None = None
    results_dir: str | Path | None = None
    runs_dir: str | Path | None = None
    root: str | Path | None = None
    resume: bool = True
    keep_unfinished: bool = False
    score_epochs: bool = False
    accept_modified: bool = False

    @property
    def results_path(self) -> Path:
        return Path(self.results_dir) if self.results_dir else default_results_dir()

    @property
    def runs_path(self) -> Path:
        return Path(self.runs_dir) if self.runs_dir else default_runs_dir()

    def check(self, variant: str, seed: int) -> ChapterParameters:
        """Raise `FerReproError` for the first wrong value."""
        self._require_storable()
        self._require_real_copy()
        return check(self._values(variant, seed))

    def check_values(self, variant: str, seed: int) -> None:
        """The same as far as it needs no torch; see `check_values`."""
        self._require_storable()
        self._require_real_copy()
        check_values(self._values(variant, seed))

    def _require_storable(self) -> None:
        if self.profile == "full" and self.epochs is None and self.data != "synthetic":
            return
        for name in ("keep_unfinished", "score_epochs"):
            if getattr(self, name):
                raise FerReproError(
                    f"{FLAGS[name]} ({name}) goes with a full run: only the recipe's own epochs on FER2013 leave "
                    "something to store"
                )

    def _require_real_copy(self) -> None:
        if not self.accept_modified:
            return
        smoke = self.profile == "smoke" and self.data != "fer2013"
        if smoke or self.profile == "stored" or self.data == "synthetic":
            raise FerReproError(
                "--accept-modified (accept_modified) goes with a run on FER2013: synthetic faces have no copy, and a "
                "stored result is shown without one"
            )
        for name in ("keep_unfinished", "score_epochs"):
            if getattr(self, name):
                raise FerReproError(
                    f"--accept-modified (accept_modified) goes without {FLAGS[name]} ({name}): of a modified copy only "
                    "the result of a finished run is stored"
                )

    def modified_copy(self) -> FER2013 | None:
        """The copy of FER2013 at hand, where a modified one is accepted and it is one; None for the official data.

        Raises `FerReproError` where nothing is found, the data are damaged, or a usage has no image.
        """
        if not self.accept_modified:
            return None
        faces = data_sets.load("fer2013", self.root, accept_modified=True)
        if not faces.modified:
            return None
        require_all_usages(faces)
        return faces

    def _values(self, variant: str, seed: int) -> dict[str, Any]:
        folders = {name: str(getattr(self, name) or "") for name in ("results_dir", "runs_dir")}
        given = vars(self) | folders | {"variant": variant, "seed": seed}
        return {name: value for name, value in given.items() if name in FIELDS}

    def of(self, variant: str) -> RunOptions:
        """The options of a campaign for one of its runs: a method without epochs has no weights of epochs to score."""
        if (self.keep_unfinished or self.score_epochs) and not papers.get(variant).has_epochs(self.protocol):
            return dataclasses.replace(self, keep_unfinished=False, score_epochs=False)
        return self

    def as_arguments(self) -> list[str]:
        """The same as options of ``fer-repro run``."""
        given = {name: value for name, value in vars(self).items() if name not in FLAGS and value not in ("", None)}
        arguments = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        changed = [name for name in FLAGS if getattr(self, name) != RUN_FIELDS[name].default]
        return arguments + [FLAGS[name] for name in changed]


# What ``fer-repro run`` calls an option that is on or off, where it is not as it is by default.
FLAGS = {
    "resume": "--no-resume",
    "keep_unfinished": "--keep-unfinished",
    "score_epochs": "--score-epochs",
    "accept_modified": "--accept-modified",
}
RUN_FIELDS = {f.name: f for f in dataclasses.fields(RunOptions)}
FIELDS = {f.name: f for f in dataclasses.fields(ChapterParameters)}


def check_names(values: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise `FerReproError` for the first name of ``values`` that is not in ``known``, with the nearest one that is."""
    for name in values:
        if name not in known:
            hint = nearest(name, known, "the parameters are", most=1, quote="'")
            raise FerReproError(f"unknown parameter '{name}': {hint}")


def set_in(namespace: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The parameters called ``known`` that a notebook's globals hold. Raises `FerReproError` for a misspelt one.

    papermill runs a notebook with a misspelt parameter as if nothing had happened, but the name lands here. Judged are
    the names that the parameters cells assign and those that are almost a parameter's; all others are the user's own.
    """
    history = [source for source in namespace.get("In") or [] if isinstance(source, str)]
    assigned = _assigned_by_parameter_cells(history, set(known)) & namespace.keys()
    almost = {name for name, value in namespace.items() if isinstance(value, _SCALAR) and _misspells(name, known)}
    judged = (name for name in namespace if name in assigned | almost and not name.startswith(("_", PAPERMILL)))
    check_names(dict.fromkeys(judged), known)
    return {name: namespace[name] for name in known if name in namespace}


def _assigned_by_parameter_cells(history: list[str], known: set[str]) -> set[str]:
    """What the newest run of the parameters cell, and the cell that papermill wrote behind it, assign.

    ``history``: the sources of the cells that ran so far, as IPython keeps them.
    """
    names: set[str] = set()
    for source in reversed(history):
        injected = source.lstrip().startswith(INJECTED)
        if not (injected or all(name in source for name in known)):
            continue
        try:
            statements = ast.parse(source).body
        except SyntaxError:  # a cell that did not run
            continue
        declared = {s.target.id for s in statements if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)}
        own = known <= declared
        if injected or own:
            targets = {t for s in statements if isinstance(s, ast.Assign) for t in s.targets}
            names |= declared | {target.id for target in targets if isinstance(target, ast.Name)}
        if own:
            break
    return names


def _misspells(name: str, known: Collection[str]) -> bool:
    """Whether ``name`` is almost a parameter's; `SEED`, `seeds`, `device2`, `epoch` are made from one on purpose."""
    lower = name.lower()
    if name in known or name.isupper():
        return False
    if lower in known:
        return True
    others = [other for other in known if not lower.startswith(other) and other != lower + "s"]
    return bool(difflib.get_close_matches(lower, others, n=1, cutoff=ALMOST))


def check_values(values: Mapping[str, Any]) -> ChapterParameters:
    """Turn ``values`` into `ChapterParameters`, or say in one sentence which name or value is wrong.

    Needs no torch, and so does not ask the papers whether a ``-scratch`` ablation exists, nor whether CUDA does.
    Raises `FerReproError`.
    """
    check_names(values, FIELDS)
    whole = ChapterParameters(**values)
    epochs = None if whole.epochs is None else whole_number("epochs", whole.epochs, 1)
    whole = dataclasses.replace(whole, seed=checked_seed(whole.seed), epochs=epochs)
    if not isinstance(whole.resume, bool):
        raise FerReproError(f"parameter resume is {whole.resume!r}, expected True or False")
    for name, described in FIELDS.items():
        value, allowed = getattr(whole, name), described.metadata["allowed"]
        if isinstance(described.default, str) and not isinstance(value, str):
            raise FerReproError(f"parameter {name} is {value!r}, expected a text")
        if name == "device":
            checked_device(value)
        elif allowed:
            one_of(name, value, allowed)
    papers.require_listed(whole.variant)
    return whole


def check(values: Mapping[str, Any], slug: str | None = None) -> ChapterParameters:
    """`check_values`, and then what only the papers and torch know: the variant, and whether the device is here.

    ``slug``: the paper whose chapter is asked; its variants are then the only ones allowed. Raises `FerReproError`.
    """
    whole = check_values(values)
    variant = papers.get(whole.variant)
    if slug is not None and variant.slug != slug:
        own = [v.id for v in papers.variants().values() if v.slug == slug]
        raise FerReproError(
            f"parameter variant is '{variant.id}', which belongs to the chapter '{variant.slug}'; this chapter "
            f"('{slug}') runs {' or '.join(own)}"
        )
    from fer_repro.training.execution import resolve_device

    resolve_device(whole.device)
    return whole


def from_namespace(namespace: Mapping[str, Any], slug: str) -> ChapterParameters:
    """Check the parameters of a running chapter, where papermill has written them into its globals (see `set_in`)."""
    given = set_in(namespace, FIELDS)
    missing = [name for name in FIELDS if name not in given]
    if missing:
        raise FerReproError(
            f"the chapter '{slug}' sets no {', '.join(missing)}: its cell tagged 'parameters' must name all of "
            f"{', '.join(FIELDS)}"
        )
    return check(given, slug)
