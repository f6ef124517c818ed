"""The scripts of ``benchmarks/``, each run in a process of its own so that memory and imports are its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fer_repro.errors import FerReproError
from fer_repro.notebooks import project_root

# Every script has a run() that returns what it measured; its last line here is that as JSON.
RUN = "import json, runpy, sys; print(json.dumps(runpy.run_path(sys.argv[1])['run']()))"


def measure(what: str, say: Callable[[str], None], folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """Run one benchmark, or ``all``; name -> its figures. Raises `FerReproError` for an unknown or failing one."""
    folder = folder or project_root() / "benchmarks"
    known = sorted(path.stem for path in folder.glob("[a-z]*.py"))
    if what != "all" and what not in known:
        raise FerReproError(f"there is no benchmark '{what}': expected {', '.join(known)} or all")
    found = {}
    for name in known if what == "all" else [what]:
        say(f"measuring: {name}")
        command = [sys.executable, "-c", RUN, str(folder / f"{name}.py")]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise FerReproError(f"benchmark '{name}' failed with status {done.returncode}; what it said stands above")
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found
