"""Builds side by side, killed builds, strange places: the published book stays whole and nothing goes on by itself."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from damage import damaged_bytes, damaged_documents

from fer_repro.book import build, cleaning, notebooks
from fer_repro.errors import INTERRUPTED, FerReproError
from fer_repro.processes import home_folder
from fer_repro.project import project_root

# What `fer-repro book` does, with sources of its own. The processes of chapters import this file, and need none of it.
DRIVER = """
import sys
from pathlib import Path
if __name__ == "__main__":
    from fer_repro.book import build_book
    from fer_repro.processes import interrupting
    try:
        with interrupting():
            build_book(Path(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
"""
# The chapter of a build runs until it is let go, or for a quarter of an hour.
WAITING = """
import os, pathlib, time
here = pathlib.Path({folder!r})
(here / "kernel").write_text(str(os.getpid()))
for _ in range(9000):
    if (here / "go").exists():
        break
    time.sleep(0.1)
"""


def start(root: Path) -> subprocess.Popen:
    script = root.parent / "driver.py"
    script.write_text(DRIVER)
    output = (root.parent / "output").open("w")
    path = os.pathsep.join([str(project_root()), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(script), str(root)],
        env=os.environ | {"PYTHONPATH": path},
        stdout=output,
        stderr=subprocess.STDOUT,
    )


def until(met, seconds=600.0):
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def published(root: Path, text: str = "the old book") -> Path:
    old = root / "_build" / "html"
    old.mkdir(parents=True)
    (old / "objects.inv").write_text("")
    (old / "index.html").write_text(text)
    return old / "index.html"


def test_a_second_build_of_the_same_book_is_refused_and_one_beside_it_is_not(tiny):
    root = tiny(code="print(1)")
    waiting = WAITING.format(folder=str(root.parent))
    root = _with_code(root, waiting)
    first = start(root)
    try:
        until((root.parent / "kernel").exists)
        with pytest.raises(FerReproError, match=rf"_build/html is being built by process {first.pid}: wait"):
            build.build_book(root)
        (root.parent / "go").touch()
        other = build.build_book(root, out=root / "_build" / "other")
        assert first.wait(600) == 0, (root.parent / "output").read_text()
    finally:
        first.kill()
    for html in (other, root / "_build" / "html"):
        assert "A page" in (html / "chapters" / "page.html").read_text()


STARTED, FORKED = 1, 2  # notebooks: of one the kernel is started, of several they are forked


@pytest.mark.parametrize(
    ("number", "notebooks"),
    [(signal.SIGKILL, STARTED), (signal.SIGTERM, STARTED), (signal.SIGHUP, STARTED), (signal.SIGKILL, FORKED)],
)
def test_all_processes_of_a_killed_build_end_with_it(tiny, number, notebooks):
    root = tiny(notebooks=notebooks)
    _with_code(root, WAITING.format(folder=str(root.parent)))
    index = published(root)
    driver = start(root)
    until(lambda: (root.parent / "kernel").exists() and (root.parent / "kernel").read_text())
    family = psutil.Process(driver.pid).children(recursive=True)
    assert int((root.parent / "kernel").read_text()) in [process.pid for process in family]
    driver.send_signal(number)
    code = driver.wait(600)
    assert code == (-number if number == signal.SIGKILL else INTERRUPTED), (root.parent / "output").read_text()
    _, alive = psutil.wait_procs(family, timeout=600)
    assert not alive
    assert "Traceback" not in (root.parent / "output").read_text()
    assert index.read_text() == "the old book"


def test_kill_9_at_any_moment_leaves_a_whole_book_and_the_next_build_works(tiny):
    root, moments = tiny(), random.Random(12)
    index = published(root)
    for _ in range(3):
        driver = start(root)
        time.sleep(moments.uniform(1, 9))
        driver.kill()
        driver.wait()
        assert index.read_text() == "the old book" or (index.parent / "chapters" / "page.html").is_file()
    html = build.build_book(root)
    assert "stored 0" in (html / "chapters" / "page.html").read_text()
    assert {path.name for path in html.parent.iterdir()} == {"html", ".html.lock", "html.book-source"}


def test_a_build_that_was_killed_between_the_two_renames_is_put_right(tmp_path):
    html, out = tmp_path / "new", tmp_path / "html"
    html.mkdir()
    out.mkdir()
    (out / "index.html").write_text("old")
    (html / "index.html").write_text("new")
    out.replace(build._former(out))
    build._finish_publishing(out)
    assert (out / "index.html").read_text() == "old" and not build._former(out).exists()
    build.publish(html, out)
    assert (out / "index.html").read_text() == "new" and [path.name for path in tmp_path.iterdir()] == ["html"]
    with pytest.raises(OSError):
        build.publish(html, out)  # it is not there any more
    assert (out / "index.html").read_text() == "new"


def test_the_processes_that_lay_out_the_pages_end_too(tmp_path):
    """`end_with` in a child of its own: the reading end is its only link to this process."""
    alive, ours = os.pipe()
    code = f"from fer_repro.processes import end_with; end_with({alive}); import time; time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], pass_fds=[alive])
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(1)
    os.close(ours)
    assert child.wait(600) == INTERRUPTED
    os.close(alive)


def test_places_where_a_book_cannot_be_are_named(tiny):
    root = tiny()
    with pytest.raises(FerReproError, match=r"lies in .*chapters, a source of the book: name another folder"):
        build.build_book(root, out=root / "chapters" / "html")
    with pytest.raises(FerReproError, match="there is no results folder nowhere"):
        build.build_book(root, results_dir="nowhere")
    (root / "file").write_text("mine")
    with pytest.raises(FerReproError, match="is not a built book"):
        build.build_book(root, out=root / "file")
    with pytest.raises(FerReproError, match=r"cannot be built in .*file: .*name another folder"):
        build.build_book(root, out=root / "file" / "html")
    assert not (root / "_build").exists()


def test_a_full_disk_is_one_sentence(tiny, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(build, "build_html", full)
    with pytest.raises(FerReproError, match=r"cannot be built in .*: No space left on device; correct that or name"):
        build.build_book(tiny(), only=[])


def test_a_damaged_table_of_contents_is_one_sentence(tiny):
    root = tiny()
    toc = root / "_toc.yml"
    content = toc.read_bytes()
    documents = (yaml.safe_dump(d).encode() for _, d in damaged_documents(yaml.safe_load(content), 5, 150))
    for damaged in (*damaged_bytes(content, 5, 150), *documents):
        toc.write_bytes(damaged)
        try:
            assert all((root / page).is_file() for page in build.toc_pages(root))
        except FerReproError as error:
            assert "_toc.yml" in str(error) and "\n" not in str(error)


def test_without_an_account_and_a_home_folder(monkeypatch, tmp_path):
    def nobody(*_):
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError):
        Path.home()
    with home_folder():
        home = Path.home()
        (home / "file").touch()
        assert home.stat().st_mode & 0o077 == 0
        assert list(cleaning.private_text(notebooks.read(project_root() / "chapters" / "leaderboard.ipynb"))) == []
    assert not home.exists() and "HOME" not in os.environ
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    with home_folder():
        assert Path.home() != tmp_path / "nowhere"
    assert os.environ["HOME"] == str(tmp_path / "nowhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    with home_folder():
        assert Path.home() == tmp_path


def _with_code(root: Path, code: str) -> Path:
    page = root / "chapters" / "page.ipynb"
    notebook = notebooks.read(page)
    notebook.cells[-1].source = code
    notebooks.write(notebook, page)
    return root
