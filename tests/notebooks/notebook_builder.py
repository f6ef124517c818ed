"""Tiny notebooks for the tests: a few cells, the first tagged `parameters`."""

from __future__ import annotations

from pathlib import Path

import nbformat

PARAMETERS = (
    'profile: str = "smoke"  # smoke | full\nseed: int = 0  # any whole number\nepochs: int = None  # None: all'
)
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def write_notebook(path: Path, *sources: str, parameters: str | None = PARAMETERS) -> Path:
    """A notebook at ``path`` with ``sources`` as code cells; ``parameters=None`` leaves the tagged cell out."""
    notebook = nbformat.v4.new_notebook(metadata=KERNEL)
    notebook.cells.append(nbformat.v4.new_markdown_cell("# A page"))
    if parameters is not None:
        cell = nbformat.v4.new_code_cell(parameters)
        cell.metadata.tags = ["parameters"]
        notebook.cells.append(cell)
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in sources]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def texts(path: Path) -> str:
    """Everything the code cells of an executed notebook printed."""
    notebook = nbformat.read(path, as_version=4)
    return "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))
