"""How a command ends that cannot go on: one sentence for what comes from outside, a traceback for a defect of ours."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from fer_repro.errors import INTERRUPTED, FerReproError

FULL = (errno.ENOSPC, errno.EDQUOT)


class Commands(TyperGroup):
    """Answers Ctrl-C with a line, and keeps typer from ending in "Aborted." where a file is too short (`EOFError`)."""

    def invoke(self, ctx: Any) -> Any:
        try:
            os.getcwd()  # a folder that was deleted is answered before torch is imported, which then ends the process
            ended = super().invoke(ctx)
            sys.stdout.flush()  # a closed pipe shows here, where typer answers it, and not while Python shuts down
            return ended
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        except EOFError as error:
            raise RuntimeError("a file ended too early") from error


@contextmanager
def reported(debug: bool) -> Iterator[None]:
    """Ends the program with exit status 1 for an error: one sentence, with a traceback if it is a defect or ``debug``.

    The one place where that is decided. What comes from outside is a `FerReproError`, an `OSError` that says which
    file or disk, or a lack of memory; anything else is a defect of this program.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller (`>&-`)
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):  # a path or a name that the terminal cannot show is shown escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except FerReproError as error:
        said = str(error)
    except OSError as error:
        said = sentence(error)
    except MemoryError:
        said = "not enough memory: close other programs, or use a machine with more"
    except Exception as error:  # noqa: BLE001 - shown whole; the last line says whose fault it is
        # Known by its name: torch is not imported for this.
        said = NO_GPU_MEMORY if type(error).__name__ == "OutOfMemoryError" else ""
    else:
        return
    if debug or not said:
        traceback.print_exc()
    print(f"error: {said or DEFECT}", file=sys.stderr)
    sys.exit(1)


NO_GPU_MEMORY = (
    "the GPU's memory is too small for this, or other programs hold it: end those, use a larger GPU, or --device cpu"
)
DEFECT = (
    "this is a defect of fer-repro, not of your command: please report it, with the lines above, to whoever gave you "
    "this copy"
)


def sentence(error: OSError) -> str:
    """What the system refused, in words; empty where it names no file, no disk and no folder."""
    why = error.strerror or type(error).__name__
    where = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    if error.errno in FULL:
        return (
            f"no space left{f' for {where}' if where else ' on the disk'}: free some, then give the same command again"
        )
    if where:
        return f"{where} cannot be used ({why}): correct that or name another place, then give the same command again"
    try:
        os.getcwd()
    except OSError:
        return "the current folder does not exist any more: change into one that does"
    return ""
