"""What the modules of the command line share: options that several commands take, and how they print."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fer_repro.logs import DRIVEN
from fer_repro.processes import end_with

# Python has no stream where the shell has closed it (``>&-``); what is printed vanishes then.
for name in ("stdout", "stderr"):
    if getattr(sys, name) is None:
        setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115

# Into a pipe or a file nothing is cut off at the width of a terminal that is not there.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout and sys.stdout.isatty() else 240)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Root = Annotated[
    str, typer.Option(help="Where FER2013 is: a folder, a CSV or an archive. Default: $FER2013_ROOT, data/fer2013.")
]
AcceptModified = Annotated[
    bool, typer.Option("--accept-modified", help="Take a copy that was cleaned on purpose; its runs are stored apart.")
]
ResultsDir = Annotated[str, typer.Option(help="Folder of stored results. Default: the project's results/.")]
RunsDir = Annotated[str, typer.Option(help="Folder of checkpoints. Default: the project's runs/.")]


def print_json(document: Any) -> None:
    """The one JSON document of a ``--json`` command, on stdout."""
    print(json.dumps(document, indent=1, ensure_ascii=False))


def progress(line: str) -> None:
    """Progress goes to stderr, so that stdout holds only the result."""
    print(line, file=sys.stderr, flush=True)


def table(header: list[str], rows: list[list[Any]]) -> Table:
    """A plain table; whole numbers get thousands separators."""
    made = Table(*header, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        made.add_row(*[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row])
    return made


def end_with_the_driver() -> None:
    """In a run that a campaign began (`fer_repro.campaign.workers`): take the end of that process for a SIGTERM.

    Its standard input is a pipe that closes then, also by kill -9; training stops at a checkpoint.
    """
    if os.environ.pop(DRIVEN, ""):
        end_with(0, signal.SIGTERM)


def print_damage(problems: Iterable[str]) -> None:
    """Stored results that are left out of what a command shows, one line each."""
    for problem in dict.fromkeys(problems):
        print(f"damaged: {problem}", file=sys.stderr)
