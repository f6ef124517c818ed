"""What this machine has and what can run on it: the facts behind ``fer-repro doctor``.

Importing this needs no torch, which may be what is broken. Nothing is downloaded and nothing but the cache of the data
is written.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fer_repro.errors import FerReproError
from fer_repro.project import code_version, default_runs_dir, project_root

OK, NOTE, PROBLEM = "ok", "note", "problem"
PYTHONS = ((3, 11), (3, 13))  # the oldest and the newest that `requires-python` of pyproject.toml allows
TORCH = (2, 11)
DISK = 1e9  # bytes: the cache of the data and the checkpoints of a small network
MEMORY = 2e9  # bytes that torch, the data set and a small network take, with room
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
EXTRAS = ("book", "classical", "search", "pretrained", "diffusion", "download", "parquet", "test")  # for a user
MAIN = "a full recipe on FER2013"


@dataclass(frozen=True)
class Fact:
    """One thing about this machine: ``state`` is ok, a note, or a problem without whose solution `MAIN` cannot run.

    ``values``: the same as ``text``, for a program.
    """

    name: str
    state: str
    text: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    """``facts`` by name; ``can``: what is done with this project -> why it cannot be done here, empty where it can.

    ``time``: of the cheapest and the dearest model (None where that cannot be estimated), see `times`.
    """

    facts: dict[str, Fact]
    can: dict[str, str]
    time: dict[str, Any] | None

    @property
    def ok(self) -> bool:
        return not self.can[MAIN]

    def as_json(self) -> dict[str, Any]:
        facts = {one.name: {"state": one.state, "text": one.text} | one.values for one in self.facts.values()}
        can = [{"what": what, "possible": not why, "why": why} for what, why in self.can.items()]
        return {"ok": self.ok, "facts": facts, "can": can, "time": self.time}


def examine(root: str = "", device: str = "auto") -> Report:
    """Look at this machine. ``root``: where FER2013 is (`fer_repro.data.load`); ``device``: for which times are
    estimated. Raises `FerReproError` for a device that is not here."""
    found = [python(), packages(), torch_build()]
    broken = [one for one in found if one.state == PROBLEM]
    if not broken:
        found += [gpus(), data(root), weights()]
    found += [cores(), memory(), disk(), browser(), git(), extras()]
    facts = {one.name: one for one in found}
    return Report(facts, possible(facts), None if broken else times(device))


def python() -> Fact:
    version, (low, high) = platform.python_version(), PYTHONS
    if low <= sys.version_info[:2] <= high:
        return Fact("python", OK, version, {"version": version})
    expected = f"expected {low[0]}.{low[1]} to {high[0]}.{high[1]}"
    return Fact(
        "python", PROBLEM, f"{version}, {expected}: make an environment with one of these", {"version": version}
    )


def _missing(extra: str = "") -> list[str]:
    """Packages of the core, or of an ``extra``, that are not installed."""
    absent = []
    for line in importlib.metadata.requires("fer-repro") or []:
        name, of = re.match(r"[\w.-]+", line), re.search(r"""extra == ['"](\w+)['"]""", line)
        if name and (of[1] if of else "") == extra:
            try:
                importlib.metadata.version(name[0])
            except importlib.metadata.PackageNotFoundError:
                absent.append(name[0])
    return absent


def packages() -> Fact:
    try:
        absent = _missing()
    except importlib.metadata.PackageNotFoundError:
        return Fact("packages", PROBLEM, "fer-repro is not installed here: pip install -e . in its checkout")
    if absent:
        names = ", ".join(absent)
        return Fact("packages", PROBLEM, f"{names} missing: pip install {' '.join(absent)}", {"missing": absent})
    return Fact("packages", OK, "the core's are all installed", {"missing": []})


def torch_build() -> Fact:
    try:
        import torch
        import torchvision
    except (ImportError, OSError, RuntimeError) as error:
        line = str(error).strip().partition("\n")[0]
        return Fact("torch", PROBLEM, f"does not load ({line}): install torch and torchvision that belong together")
    version, cuda = torch.__version__, torch.version.cuda
    values = {"version": version, "torchvision": torchvision.__version__, "cuda": cuda}
    if tuple(map(int, version.split(".")[:2])) < TORCH:
        return Fact(
            "torch", PROBLEM, f"{version}, expected {TORCH[0]}.{TORCH[1]} or newer: pip install -U torch", values
        )
    return Fact("torch", OK, f"{version}, built {f'for CUDA {cuda}' if cuda else 'without CUDA'}", values)


def gpus() -> Fact:
    """Every CUDA GPU with what it can do, or Apple's."""
    import torch

    from fer_repro.training.execution import has_kernels, native_bf16

    if torch.backends.mps.is_available():
        return Fact("gpu", OK, "Apple's, with --device mps in fp32 (never measured by this project)", {"gpus": ["mps"]})
    if not torch.cuda.is_available():
        driver = shutil.which("nvidia-smi") is not None
        why = "; nvidia-smi is here: torch or the driver is of the wrong version" if driver else ""
        return Fact("gpu", NOTE, f"none that torch sees{why}; runs use the CPU", {"gpus": []})
    known = []
    for index in range(torch.cuda.device_count()):
        about, place = torch.cuda.get_device_properties(index), torch.device("cuda", index)
        known.append(
            {
                "name": about.name,
                "capability": f"{about.major}.{about.minor}",
                "memory_bytes": about.total_memory,
                "kernels": has_kernels(place),
                "precision": "bf16" if native_bf16(place) else "fp16",
            }
        )
    texts = [
        f"{one['name']} (compute capability {one['capability']}, {one['memory_bytes'] / 1e9:.0f} GB"
        + (f", {one['precision']})" if one["kernels"] else ", this torch has no kernels for it)")
        for one in known
    ]
    return Fact("gpu", OK if any(one["kernels"] for one in known) else NOTE, "; ".join(texts), {"gpus": known})


def data(root: str) -> Fact:
    from fer_repro.data import load
    from fer_repro.data.load import copy_name

    try:
        faces = load("fer2013", root or None)
    except FerReproError as error:
        return Fact("data", PROBLEM, str(error))
    values = {"source": faces.source, "images": len(faces), "copy": copy_name(faces), "digest": faces.digest}
    return Fact("data", OK, f"{faces.source}: {len(faces):,} images, {values['copy']}", values)


def weights() -> Fact:
    """The files of weights that official recipes start from."""
    from fer_repro import papers, pretrained

    recipes = {name: one.recipe("official", "full") for name, one in papers.variants().items()}
    begun = {name: recipe.pretrained for name, recipe in recipes.items() if recipe.pretrained is not None}
    absent = [name for name, file in begun.items() if not pretrained.is_here(file)]
    values = {"needed": sorted(begun), "missing": absent}
    if not absent:
        return Fact("weights", OK, f"all {len(begun)} pretrained files are here", values)
    text = (
        f"not here for {len(absent)} of {len(begun)} variants that start from pretrained ones ({', '.join(absent)}): a "
        f"run fetches those that may be fetched; the others go into a folder that ${pretrained.FOLDER} names"
    )
    return Fact("weights", NOTE, text, values)


def cores() -> Fact:
    """Those that this process may use; a container's share of their time counts."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = (_read("/sys/fs/cgroup/cpu.max") or "max").partition(" ")
    share = here if not quota.isdigit() else min(here, int(quota) / int(period))
    text = f"{share:g}" + (f" ({here} seen, the container may use less)" if share < here else "")
    return Fact("cores", OK, text, {"cores": share})


def memory() -> Fact:
    """Total and available memory, within a container's limit."""
    table = dict(re.findall(r"^(\w+):\s+(\d+) kB", _read("/proc/meminfo") or "", re.MULTILINE))
    total, free = (int(table[name]) * 1024 if name in table else None for name in ("MemTotal", "MemAvailable"))
    if total is None and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = (_read("/sys/fs/cgroup/memory.max") or "").strip()
    if total is not None and limit.isdigit():
        total = min(total, int(limit))
        free = None if free is None else min(free, total)
    values = {"total_bytes": total, "available_bytes": free}
    if total is None:
        return Fact("memory", NOTE, "unknown on this system", values)
    text = f"{total / 1e9:.1f} GB" + (f", {free / 1e9:.1f} GB of it available" if free is not None else "")
    few = (total if free is None else free) < MEMORY
    return Fact("memory", NOTE if few else OK, text + f"; a run wants {MEMORY / 1e9:g} GB" * few, values)


def _read(path: str) -> str | None:
    return Path(path).read_text() if os.access(path, os.R_OK) else None


def disk() -> Fact:
    """Free space where checkpoints go."""
    place = default_runs_dir()
    while not place.exists():
        place = place.parent
    free, values = shutil.disk_usage(place).free, {"folder": str(default_runs_dir())}
    values |= {"free_bytes": free}
    if free < DISK:
        text = f"{free / 1e9:.2f} GB free for {default_runs_dir()}, expected {DISK / 1e9:g} GB: free some space"
        return Fact("disk", PROBLEM, text, values)
    return Fact("disk", OK, f"{free / 1e9:.0f} GB free for checkpoints", values)


def browser() -> Fact:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        return Fact("browser", NOTE, "no Chromium: tests that look at pages are skipped", {"path": None})
    return Fact("browser", OK, Path(found).name, {"path": found})


def git() -> Fact:
    values = {"code": code_version()}
    if shutil.which("git") is None:
        return Fact("git", NOTE, "not installed: results name no commit", values)
    version = subprocess.run(["git", "--version"], capture_output=True, text=True, check=False, timeout=60).stdout
    return Fact("git", OK, f"{version.split()[2] if version else 'no answer'}; this code is {values['code']}", values)


def extras() -> Fact:
    try:
        missing = {name: absent for name in EXTRAS if (absent := _missing(name))}
    except importlib.metadata.PackageNotFoundError:
        return Fact("extras", NOTE, "unknown: fer-repro is not installed")
    values = {"missing": missing}
    if not missing:
        return Fact("extras", OK, "all installed", values)
    return Fact("extras", NOTE, "; ".join(f"{name} lacks {', '.join(a)}" for name, a in missing.items()), values)


def possible(facts: dict[str, Fact]) -> dict[str, str]:
    """What is done with this project -> why it cannot be done here."""
    stopped = [one for one in facts.values() if one.state == PROBLEM]
    core = "; ".join(one.name for one in stopped if one.name != "data")
    missing = facts["extras"].values.get("missing", {})
    without = {name: core or f"without the extra {name}" * (name in missing) for name in EXTRAS}
    gpu = facts["gpu"].state == OK if "gpu" in facts else False
    return {
        MAIN: "; ".join(one.name for one in stopped),
        "smoke runs on synthetic faces": core,
        "chapters and the book": without["book"] or _no_checkout(),
        "the visual words": without["classical"],
        "runs on a GPU": core or ("" if gpu else "no GPU that this torch can use"),
        "tests in a browser": without["test"] or ("" if facts["browser"].state == OK else "no Chromium"),
    }


def _no_checkout() -> str:
    try:
        project_root()
    except FerReproError:
        return "no checkout of the book"
    return ""


def times(device: str) -> dict[str, Any]:
    """Seconds of a whole full run of the cheapest and the dearest model with all it builds on: official protocol, one
    seed, nothing of it done; with the device and where its speed comes from."""
    from fer_repro import papers
    from fer_repro.campaign.estimate import Estimator
    from fer_repro.parameters import RunOptions

    estimator = Estimator(RunOptions(device=device))
    models = [name for name, variant in papers.variants().items() if variant.ablation_of is None]
    ordered = sorted(_whole_runs(estimator, models))
    named = {"cheapest": ordered[0], "dearest": ordered[-1]}
    return {"device": estimator.device, "models": len(ordered), "unknown": len(models) - len(ordered)} | {
        which: {"variant": name, "seconds": seconds, "source": source}
        for which, (seconds, name, source) in named.items()
    }


def _whole_runs(estimator: Any, models: list[str]) -> Iterator[tuple[float, str, str]]:
    """Seconds, id and source of the speed, of the models of which that is known."""
    for name in models:
        if (known := estimator.whole(name)) is not None:
            yield known[0], name, known[1]
