"""The public repository of the book: its address is one setting, and everything that names it is made from that.

The setting is ``repository.url`` of ``_config.yml``, empty where the project has no public address; the environment
variable ``FER_REPRO_REPOSITORY`` comes before it. `write` puts the address into the committed files that name it
(README, CITATION.cff, the first cell of every chapter, the set-up cell of the notebooks for Colab and Kaggle), or takes
it out of them. Buttons and the front page get it when the book is built (``_ext/fer_repository.py``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from fer_repro.book import notebooks
from fer_repro.errors import FerReproError
from fer_repro.files import atomic_write
from fer_repro.project import project_root

VARIABLE = "FER_REPRO_REPOSITORY"
HOSTS = {"github": "GitHub", "gitlab": "GitLab", "bitbucket": "Bitbucket"}
COLAB, BINDER = "https://colab.research.google.com", "https://mybinder.org"
# What begins the lines that `write` puts in, so that it finds them again.
README_LINE, CELL_LINE, CITATION_LINE = "Repository: ", "Run this page elsewhere: ", "repository-code: "
SET_UP_LINE = re.compile(r'(REPOSITORY = \\")[^"\\]*(\\")')


@dataclass(frozen=True)
class Repository:
    """``url``: https://host/owner/name without a slash at the end; ``branch``: where the sources of the book lie."""

    url: str
    branch: str = "main"

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc.lower()

    @property
    def provider(self) -> str:
        """Whose layout of addresses the host has: GitHub's, where its name does not say another."""
        return next((name for name in HOSTS if name in self.host), "github")

    @property
    def name(self) -> str:
        """owner/name"""
        return urlsplit(self.url).path.strip("/")

    @property
    def issues(self) -> str:
        """Where its issues are."""
        return f"{self.url}/{'-/' if self.provider == 'gitlab' else ''}issues"

    def colab(self, path: str) -> str | None:
        """Where Colab opens a notebook of the repository; None for a host that Colab cannot read."""
        return f"{COLAB}/github/{self.name}/blob/{self.branch}/{path}" if self.host == "github.com" else None

    def binder(self, path: str) -> str | None:
        """Where Binder opens it; None for a host that it has no short address for."""
        at = {"github.com": f"gh/{self.name}", "gitlab.com": f"gl/{self.name.replace('/', '%2F')}"}.get(self.host)
        return f"{BINDER}/v2/{at}/{self.branch}?urlpath=lab/tree/{path}" if at else None

    def theme_options(self) -> dict[str, object]:
        """What the theme makes the repository, edit, issue and launch buttons from."""
        launch = {
            "notebook_interface": "jupyterlab",
            "colab_url": COLAB if self.colab("") else "",
            "binderhub_url": BINDER if self.binder("") else "",
        }
        return {
            "repository_url": self.url,
            "repository_branch": self.branch,
            "repository_provider": self.provider,
            "path_to_docs": "",
            "use_repository_button": True,
            "use_edit_page_button": True,
            "use_issues_button": self.provider != "bitbucket",  # for which the theme has none
            "launch_buttons": launch if self.colab("") or self.binder("") else {},
        }


def configured(root: Path) -> Repository | None:
    """The repository that is set, None where none is. Raises `FerReproError` for what is not the address of one."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8")).get("repository") or {}
    given, where = os.environ.get(VARIABLE), f"the variable {VARIABLE}"
    if given is None:
        given, where = config.get("url") or "", "repository.url of _config.yml"
    return parse(str(given), where, str(config.get("branch") or "main"))


def parse(address: str, where: str, branch: str = "main") -> Repository | None:
    """An address as a `Repository`, None for an empty one; ``where`` it was read, for the error."""
    address = address.strip()
    if not address:
        return None
    url = address.rstrip("/").removesuffix(".git")
    parts = urlsplit(url)
    plain = re.fullmatch(r"(?:/[\w.~-]+){2,}", parts.path) and re.fullmatch(r"[\w.-]+(?::\d+)?", parts.netloc)
    if parts.scheme != "https" or not plain or parts.query or parts.fragment:
        raise FerReproError(
            f"{where} is '{address}', which is not the address of a repository: expected https://host/owner/name, or "
            "nothing where there is none"
        )
    return Repository(url, branch)


def write(root: Path, repository: Repository | None) -> list[str]:
    """Put the address into the committed files below ``root``, or take it out of them where there is none; returns the
    names of those that changed. Raises `FerReproError` for a notebook that cannot be read."""
    changed = [name for name, edit in EDITS.items() if _rewrite(root / name, edit, repository)]
    for path in sorted((root / "chapters").rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            name = path.relative_to(root).as_posix()
            changed += [name] if _write_cell(path, name, repository) else []
    return changed


def _rewrite(path: Path, edit: Callable[[str, Repository | None], str], repository: Repository | None) -> bool:
    old = path.read_text(encoding="utf-8")
    new = edit(old, repository)
    if new != old:
        with atomic_write(path) as file:
            file.write(new.encode())
    return new != old


def _readme(text: str, repository: Repository | None) -> str:
    """The line below the title."""
    title, _, rest = text.partition("\n\n")
    if rest.startswith(README_LINE):
        rest = rest.partition("\n\n")[2]
    line = f"{README_LINE}[{repository.name}]({repository.url})\n\n" if repository else ""
    return f"{title}\n\n{line}{rest}"


def _citation(text: str, repository: Repository | None) -> str:
    """The last line."""
    kept = re.sub(rf"^{CITATION_LINE}.*\n", "", text, flags=re.MULTILINE)
    return kept + (f'{CITATION_LINE}"{repository.url}"\n' if repository else "")


def _set_up(text: str, repository: Repository | None) -> str:
    """The line of a notebook's set-up cell that says what is cloned; ``text``: the file, where a quote is escaped."""
    return SET_UP_LINE.sub(lambda found: f"{found[1]}{repository.url if repository else ''}{found[2]}", text)


EDITS = {
    "README.md": _readme,
    "CITATION.cff": _citation,
    "notebooks/colab.ipynb": _set_up,
    "notebooks/kaggle.ipynb": _set_up,
}


def first_cell_line(path: str, repository: Repository | None) -> str:
    """What the first cell of a notebook says of running it elsewhere; empty where nothing can."""
    if repository is None:
        return ""
    places = [("Colab", repository.colab(path)), ("Binder", repository.binder(path))]
    links = ", ".join(f"[{name}]({url})" for name, url in places if url)
    install = f"`%pip install git+{repository.url}`"
    return f"{CELL_LINE}{links}. On Colab begin with {install}." if links else ""


def _write_cell(path: Path, name: str, repository: Repository | None) -> bool:
    notebook = notebooks.read(path)
    first = notebook.cells[0]
    parts = [part for part in first.source.split("\n\n") if not part.startswith(CELL_LINE)]
    line = first_cell_line(name, repository)
    source = "\n\n".join([parts[0], *([line] if line else []), *parts[1:]])
    if first.cell_type != "markdown" or source == first.source:
        return False
    first.source = source
    notebooks.write(notebook, path)
    return True


if __name__ == "__main__":
    root = project_root()
    written = write(root, configured(root))
    print(f"written: {', '.join(written) or 'nothing, all of it is as the setting says'}")
