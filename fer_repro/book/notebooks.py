"""papermill, made strict: check a chapter's parameters, execute it, and write a complete output or none.

papermill alone runs a notebook with a misspelt parameter (exit 0, defaults used), loses parameters where the notebook
has no cell tagged ``parameters``, and marks a notebook whose cell timed out as completed. Here each is an error.
"""

from __future__ import annotations

import ast
import logging
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fer_repro import papers
from fer_repro import parameters as chapter_parameters
from fer_repro.book.follower import Follower, first_line
from fer_repro.errors import FerReproError, nearest
from fer_repro.files import atomic_write, remove_stale_temporaries
from fer_repro.processes import home_folder
from fer_repro.project import project_root

PARAMETERS_TAG = "parameters"
TYPES = {"str": str, "int": int, "float": float, "bool": bool}
# ipykernel warns on every start that its sockets on this machine are not encrypted.
QUIET_KERNEL = ["--IPKernelApp.log_level=50"]
NO_BOOK = "{what} needs {name}, which is not installed here: pip install 'fer-repro[book]'"
NO_LIMIT_NOTE = "give a larger --timeout (seconds per cell)"


@dataclass(frozen=True)
class Parameter:
    """One parameter as its cell declares it: type name, default, and the comment behind it."""

    name: str
    type: str
    default: Any
    help: str

    def parse(self, text: str) -> Any:
        """A word of the command line as a value of this parameter's type. Raises `FerReproError`."""
        if text in ("None", "null") and self.default is None:
            return None
        try:
            return {"true": True, "false": False}[text.lower()] if self.type == "bool" else TYPES[self.type](text)
        except (KeyError, ValueError) as error:
            raise FerReproError(f"parameter {self.name} is {text!r}, expected {self.expected}") from error

    @property
    def expected(self) -> str:
        kind = {"bool": "True or False", "int": "a whole number", "float": "a number", "str": "a text"}
        return kind.get(self.type, f"a value of type {self.type}") + (" or None" if self.default is None else "")

    def check(self, value: Any) -> None:
        """Raises `FerReproError` where ``value`` has another type than declared."""
        wanted = TYPES.get(self.type, object)
        numeric = wanted is float and isinstance(value, int) and not isinstance(value, bool)
        right = isinstance(value, wanted) and not (isinstance(value, bool) and wanted is int)
        if not (right or numeric or (value is None and self.default is None)):
            raise FerReproError(f"parameter {self.name} is {value!r}, expected {self.expected}")


@dataclass(frozen=True)
class Chapter:
    """A notebook of the book: where it is and which parameters it takes, in the order of its cell."""

    path: Path
    parameters: dict[str, Parameter] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        return self.path.stem

    def parameter(self, name: str) -> Parameter:
        """The parameter called ``name``; an unknown one raises `FerReproError` with the nearest."""
        if name in self.parameters:
            return self.parameters[name]
        hint = nearest(name, self.parameters, "its parameters are", most=1, quote="'")
        raise FerReproError(f"{self.path.name} has no parameter '{name}': {hint}")

    def check(self, given: Mapping[str, Any]) -> None:
        """Names, types, and for a paper's chapter the values. Raises `FerReproError`, before anything runs."""
        for name, value in given.items():
            self.parameter(name).check(value)
        if self.slug.replace("-", "_") in papers.MODULES:
            defaults = {name: parameter.default for name, parameter in self.parameters.items()}
            chapter_parameters.check(defaults | dict(given), self.slug)


def locate(chapter: str | Path) -> Path:
    """``vggnet``, ``leaderboard`` or a path -> the notebook's path. Raises `FerReproError` with the nearest names."""
    path = Path(chapter)
    if path.suffix == ".ipynb":
        if path.is_file():
            return path
        raise FerReproError(f"there is no notebook {path}: name a chapter by its slug, such as vggnet, or by its path")
    folder = project_root() / "chapters"
    known = {p.stem: p for p in sorted(folder.glob("papers/*.ipynb")) + sorted(folder.glob("*.ipynb"))}
    if str(chapter) in known:
        return known[str(chapter)]
    hint = nearest(str(chapter), known, "the chapters are", most=2)
    raise FerReproError(f"there is no chapter '{chapter}': {hint}")


def inspect(chapter: str | Path) -> Chapter:
    """Read a chapter's parameters without running it.

    Raises `FerReproError` for a missing or unreadable notebook, and where it has no cell (or two) tagged
    ``parameters``: papermill would then insert the values before the notebook's own assignments, which win.
    """
    path = locate(chapter)
    notebook = read(path)
    tagged = [cell for cell in notebook.cells if PARAMETERS_TAG in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise FerReproError(
            f"{path} has {len(tagged) or 'no'} cell{'s' if len(tagged) > 1 else ''} tagged '{PARAMETERS_TAG}', "
            "expected exactly one: tag the cell that sets the defaults, or the given parameters would have no effect"
        )
    pm = papermill("inspecting a chapter")
    try:
        found = pm.inspect_notebook(str(path))
    except Exception as error:  # papermill's or ValueError for no kernel or language, anything else for a strange one
        raise FerReproError(
            f"{path} names no kernel of Python: open it in Jupyter, choose Python 3 and save it"
        ) from error
    unseen = [name for name in _assigned(path, tagged[0].source) if name not in found]
    if unseen:
        raise FerReproError(
            f"papermill cannot read {', '.join(unseen)} in the parameters cell of {path}: give each its own line with "
            "a single '=' in it, comment included"
        )
    return Chapter(path, {name: _parameter(path, name, entry) for name, entry in found.items()})


def _assigned(path: Path, source: str) -> list[str]:
    """The names that the parameters cell sets, as Python itself reads it."""
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise FerReproError(f"the parameters cell of {path} is not Python: {error.msg}, line {error.lineno}") from error
    targets = [t for s in statements for t in getattr(s, "targets", [getattr(s, "target", None)])]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _parameter(path: Path, name: str, entry: Mapping[str, str]) -> Parameter:
    try:
        default = ast.literal_eval(entry["default"])
    except (ValueError, SyntaxError) as error:
        raise FerReproError(
            f"{path.name}: the default of parameter '{name}' is {entry['default']}, expected a plain literal"
        ) from error
    declared = entry["inferred_type_name"]
    return Parameter(name, declared if declared in TYPES else type(default).__name__, default, entry.get("help") or "")


def papermill(what: str) -> Any:
    """The papermill module, or one sentence that names the extra. Its log is turned off: errors are reported here."""
    try:
        import papermill as module
    except ImportError as error:
        raise FerReproError(NO_BOOK.format(what=what, name="papermill")) from error
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    return module


def read(path: Path) -> Any:
    """A notebook as an nbformat node. Raises `FerReproError` where the file is not one."""
    try:
        import nbformat
    except ImportError as error:
        raise FerReproError(NO_BOOK.format(what="reading a notebook", name="nbformat")) from error
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat reads a damaged file as if it were whole, and fails in any way at all
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise FerReproError(
            f"{path} is not a readable notebook ({lines[0][:200]}): take it again from where it came"
        ) from error
    return notebook


def write(notebook: Any, path: Path) -> None:
    """Write a notebook whole or not at all. Raises `FerReproError` where the folder cannot be written."""
    import nbformat

    try:
        with atomic_write(path) as file:
            file.write((nbformat.writes(notebook) + "\n").encode())
    except OSError as error:
        raise FerReproError(
            f"the notebook {path} cannot be written ({error.strerror}): choose another place"
        ) from error


def execute(
    chapter: str | Path,
    out: str | Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    timeout: float | None = None,
    kernel: str = "python3",
) -> Path:
    """Run a chapter with papermill and write the executed copy to ``out``.

    ``timeout``: seconds a single cell may take (None = no limit). The output appears only when every cell has run; what
    a failed run left is kept beside it as ``<name>.failed.ipynb``. Raises `FerReproError` for a wrong parameter
    (before anything runs), a raising or timed-out cell, a dead kernel or an unwritable place.
    """
    described, out = inspect(chapter), Path(out)
    given = dict(parameters or {})
    described.check(given)
    if out.suffix != ".ipynb":
        raise FerReproError(f"the output {out} must be a notebook: give it a name that ends in .ipynb")
    if out.exists() and out.samefile(described.path):
        raise FerReproError(f"the output {out} is the chapter itself: sources carry no outputs, so choose another name")
    partial, failed = out.with_name(f".{out.stem}.partial.ipynb"), out.with_name(f"{out.stem}.failed.ipynb")
    write(read(described.path), partial)  # fails now, not after an hour, where the place cannot be written
    for path in (partial, out):
        remove_stale_temporaries(path.parent, path.name)
    failed.unlink(missing_ok=True)
    try:
        with home_folder():
            notebook = _run(described.path, partial, given, timeout, kernel)
        _require_complete(notebook)
    except FerReproError as error:
        partial.replace(failed)
        raise FerReproError(f"chapter {described.slug}: {error} (what ran is in {failed})") from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    notebook.metadata.papermill |= {"input_path": described.path.name, "output_path": out.name}
    write(notebook, out)
    partial.unlink(missing_ok=True)
    return out


def _run(source: Path, target: Path, given: dict[str, Any], timeout: float | None, kernel: str) -> Any:
    """Run papermill; each kind of failure becomes one sentence. `KeyboardInterrupt` stops the kernel first."""
    pm = papermill("executing a chapter")
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    follower = Follower(len(read(source).cells) + bool(given))
    # In a thread, so that a signal meets this function and not nbclient's event loop, which could not go on after it.
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(
            pm.execute_notebook,
            str(source),
            str(target),
            given,
            kernel_name=kernel,
            kernel_manager_class=follower.kernel_manager_class(),
            execution_timeout=timeout,
            progress_bar=sys.stderr.isatty(),
            log_output=False,
            stdout_file=follower,
            on_cell_execute=follower.on_cell_execute,
            extra_arguments=QUIET_KERNEL,
        )
        try:
            return running.result()
        except KeyboardInterrupt:
            follower.stop(running)
            raise
        except pm.PapermillExecutionError as error:
            place = f"cell {error.cell_index + 1} ({first_line(error.source)})"
            raise FerReproError(f"{place} raised {error.ename}: {' '.join(str(error.evalue).split())}") from error
        except CellTimeoutError as error:
            raise FerReproError(f"a cell ran longer than {timeout:g} s: {NO_LIMIT_NOTE}") from error
        except DeadKernelError as error:
            raise FerReproError(
                "its kernel died, most often for lack of memory: close other programs, or use fewer jobs"
            ) from error
        except NoSuchKernel as error:
            raise FerReproError(
                f"there is no Jupyter kernel '{kernel}' here: pip install ipykernel in this environment"
            ) from error
        except OSError as error:  # of papermill, which writes after every cell, or of a kernel that cannot be started
            raise FerReproError(
                f"it cannot go on in {target.parent} ({error.strerror or error}): free space or choose another place"
            ) from error
        except RuntimeError as error:  # jupyter_client's, for a kernel that does not answer when it is started
            raise FerReproError(
                f"its kernel did not start ({first_line(str(error))}): try again when this machine does less"
            ) from error


def _require_complete(notebook: Any) -> None:
    """Check the cells themselves: papermill's metadata calls a timed-out notebook completed."""
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count is None:
            raise FerReproError(f"cell {number} ({first_line(cell.source)}) never ran")
        for error in (output for output in cell.outputs if output.output_type == "error"):
            raise FerReproError(f"cell {number} ({first_line(cell.source)}) raised {error.ename}: {error.evalue}")
