"""The scripts of ``benchmarks/``, each run in a process of its own so that memory and imports are its own."""

from __future__ import annotations

import ast
import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fer_repro.errors import FerReproError, nearest
from fer_repro.files import atomic_write
from fer_repro.project import project_root

log = logging.getLogger(__name__)

# Every script has a run() that returns what it measured; its last line here is that as JSON.
# Imported by its name, so that what it defines can be sent to the processes it starts.
RUN = """
import importlib, json, sys
from fer_repro.errors import FerReproError
sys.path.insert(0, sys.argv[1])
try:
    print(json.dumps(importlib.import_module(sys.argv[2]).run(**json.loads(sys.argv[3]))))
except FerReproError as error:
    print(json.dumps({"refused": str(error)}))
"""


def measure(
    what: str, folder: Path | None = None, options: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Run one benchmark, or ``all``; name -> its figures, with the date and the code that was measured.

    ``options`` go to the ``run`` of each script that has them; one script alone must have all of them. Raises
    `FerReproError` for an unknown or failing one.
    """
    from fer_repro.project import code_version

    folder = folder or project_root() / "benchmarks"
    known = sorted(path.stem for path in folder.glob("[a-z]*.py"))
    if what != "all" and what not in known:
        raise FerReproError(f"there is no benchmark '{what}': {nearest(what, [*known, 'all'])}")
    found = {}
    for name in known if what == "all" else [what]:
        script = folder / f"{name}.py"
        taken = takes(script)
        given = {key: value for key, value in (options or {}).items() if value is not None}
        if what != "all" and (unknown := [key for key in given if key not in taken]):
            raise FerReproError(
                f"benchmark '{name}' has no option '{unknown[0]}': it takes {', '.join(taken) or 'none'}"
            )
        log.info(f"measuring: {name}")
        command = [sys.executable, "-c", RUN, str(folder), name]
        command.append(json.dumps({key: value for key, value in given.items() if key in taken}))
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise FerReproError(f"benchmark '{name}' failed with status {done.returncode}; its output is above")
        figures = json.loads(done.stdout.splitlines()[-1])
        if "refused" in figures:  # a `FerReproError`: bad options
            raise FerReproError(figures["refused"])
        stamp = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "code_version": code_version()}
        found[name] = figures | stamp
    return found


def takes(script: Path) -> list[str]:
    """The names of the options that a script's ``run`` has."""
    for statement in ast.parse(script.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "run":
            return [argument.arg for argument in statement.args.args]
    raise FerReproError(f"{script.name} has no function run(): a benchmark's run() returns what it measured")


def default_store() -> Path:
    """``benchmarks/measured/``: what the chapter on speed shows."""
    return project_root() / "benchmarks" / "measured"


def store(found: Mapping[str, dict[str, Any]], folder: Path | None = None) -> list[Path]:
    """Write each benchmark's figures to ``<name>-<cpu|cuda>.json``, whole or not at all; the files' paths."""
    folder = folder or default_store()
    written = []
    for name, figures in found.items():
        path = folder / f"{name}-{figures.get('device', 'cpu')}.json"
        try:
            with atomic_write(path) as file:
                file.write((json.dumps({"benchmark": name} | figures, indent=1) + "\n").encode())
        except OSError as error:
            raise FerReproError(f"{path} cannot be written ({error.strerror}): choose another folder") from error
        written.append(path)
    return written


def stored(folder: Path | None = None) -> dict[tuple[str, str], dict[str, Any]]:
    """(benchmark, device) -> figures of every measurement that is stored; empty where none is."""
    found = {}
    for path in sorted((folder or default_store()).glob("*-*.json")):
        name, _, device = path.stem.rpartition("-")
        try:
            found[name, device] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FerReproError(
                f"{path} is not a readable measurement ({error}): measure again with --store"
            ) from error
    return found
