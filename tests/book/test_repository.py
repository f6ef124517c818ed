"""The repository's address: one setting; with it every button has its target, without it nothing names a repository."""

from __future__ import annotations

import html as markup
import re
import shutil
from pathlib import Path

import pytest
import yaml

from fer_repro.book import build, notebooks, repository
from fer_repro.book.repository import Repository, parse
from fer_repro.errors import FerReproError
from fer_repro.project import project_root

ROOT = project_root()
GITHUB = "https://github.com/owner/name"


def buttons(page: Path) -> dict[str, str]:
    """Text of every button of the head of a page that leads elsewhere -> its target."""
    text = page.read_text(encoding="utf-8")
    links = re.findall(r'<a href="(https?://[^"]+)"[^>]*class="[^"]*\bbtn\b.*?</a>', text, flags=re.S)
    words = re.findall(r'<a href="https?://[^"]+"[^>]*class="[^"]*\bbtn\b(.*?)</a>', text, flags=re.S)
    names = [re.search(r'btn__text-container">([^<]*)<', one) for one in words]
    return {name[1].strip(): markup.unescape(url) for name, url in zip(names, links, strict=True) if name}


def test_with_an_address_every_button_leads_to_its_place(tiny, monkeypatch):
    monkeypatch.setenv(repository.VARIABLE, f"{GITHUB}.git/")
    html = build.build_book(tiny(), only=())
    chapter = "chapters/page"
    assert buttons(html / f"{chapter}.html") == {
        "Repository": GITHUB,
        "Suggest edit": f"{GITHUB}/edit/main/{chapter}.ipynb",
        "Open issue": f"{GITHUB}/issues/new?title=Issue%20on%20page%20%2F{chapter}.html"
        "&body=Your%20issue%20content%20here.",
        "Colab": f"https://colab.research.google.com/github/owner/name/blob/main/{chapter}.ipynb",
        "Binder": f"https://mybinder.org/v2/gh/owner/name/main?urlpath=lab/tree/{chapter}.ipynb",
    }
    plain = buttons(html / "chapters" / "plain.html")
    assert plain["Suggest edit"] == f"{GITHUB}/edit/main/chapters/plain.md" and "Colab" not in plain
    assert f'href="{GITHUB}"' in (html / "chapters" / "index.html").read_text().partition("<article")[2]


def test_without_an_address_there_is_no_button_and_no_sentence(html, monkeypatch):
    assert repository.configured(ROOT) is None
    for page in (html / "chapters").rglob("*.html"):
        assert buttons(page) == {}
        assert "source-repository-button" not in page.read_text() and "launch-buttons" not in page.read_text()


def test_a_bad_address_ends_the_build_with_one_sentence(tiny, monkeypatch):
    monkeypatch.setenv(repository.VARIABLE, "github.com/owner/name")
    with pytest.raises(
        FerReproError, match=r"FER_REPRO_REPOSITORY is 'github.com/owner/name', which is not the address"
    ):
        build.build_book(tiny(), only=())


@pytest.mark.parametrize(
    "address",
    ["owner/name", "http://example.org/a/b", "https://example.org/a", "https://a@b.org/c/d", "https://x.org/a/b?c"],
)
def test_what_is_no_address_of_a_repository_is_refused(address):
    with pytest.raises(
        FerReproError, match="repository.url of _config.yml is '.*', which is not the address of a repo"
    ):
        parse(address, "repository.url of _config.yml")


def test_a_host_that_launches_nothing_has_the_other_buttons():
    found = parse("https://example.org/owner/name", "here", "trunk")
    assert found.issues.endswith("/issues") and Repository("https://gitlab.com/a/b").issues.endswith("/a/b/-/issues")
    options = found.theme_options()
    assert options["use_edit_page_button"] and options["repository_branch"] == "trunk" and not options["launch_buttons"]
    assert found.colab("a") is None and found.binder("a") is None
    lab = Repository("https://gitlab.com/group/sub/name")
    assert lab.provider == "gitlab" and lab.colab("a") is None and "/gl/group%2Fsub%2Fname/main" in lab.binder("a")
    assert not Repository("https://bitbucket.org/a/b").theme_options()["use_issues_button"]


@pytest.fixture
def checkout(tmp_path):
    """The files that name the repository, and two notebooks."""
    for name in ("_config.yml", *repository.EDITS, "chapters/papers/vggnet.ipynb", "chapters/speed.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_address_is_written_into_the_files_that_name_it_and_taken_out_again(checkout, monkeypatch):
    config = checkout / "_config.yml"
    config.write_text(config.read_text().replace('  url: ""', f"  url: {GITHUB}"))
    names = [*repository.EDITS, "chapters/papers/vggnet.ipynb", "chapters/speed.ipynb"]
    before = {name: (checkout / name).read_bytes() for name in names}
    assert repository.write(checkout, repository.configured(checkout)) == names
    assert repository.write(checkout, repository.configured(checkout)) == []
    assert (checkout / "README.md").read_text().split("\n\n")[1] == f"Repository: [owner/name]({GITHUB})"
    assert yaml.safe_load((checkout / "CITATION.cff").read_text())["repository-code"] == GITHUB
    for hosted in ("colab", "kaggle"):
        cells = {cell.id: cell.source for cell in notebooks.read(checkout / "notebooks" / f"{hosted}.ipynb").cells}
        assert cells["set-up"].splitlines()[0] == f'REPOSITORY = "{GITHUB}"  # https://host/owner/name'
    first = notebooks.read(checkout / names[-2]).cells[0].source
    assert f"(https://colab.research.google.com/github/owner/name/blob/main/{names[-2]})" in first
    assert first.startswith("# ") and f"`%pip install git+{GITHUB}`" in first
    assert (
        repository.write(checkout, parse("https://example.org/owner/name", "here")) == names
    )  # nothing launches there
    assert not any(repository.CELL_LINE in (checkout / name).read_text() for name in names[-2:])
    repository.write(checkout, None)
    assert {name: (checkout / name).read_bytes() for name in names} == before


def test_the_committed_files_are_as_the_setting_says(tmp_path):
    for folder in ("chapters", "notebooks"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for name in ("README.md", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    assert repository.write(tmp_path, repository.configured(ROOT)) == []
