"""The served book: built again when a source changes, its readers' browsers told, and no build outlives the server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from fer_repro.book import build, serve
from fer_repro.errors import FerReproError
from fer_repro.project import project_root

pytest.importorskip("livereload", reason="the book extra is not installed")

# Puts a "book" of two files into its place, as long a build takes; fails where the source says so.
BUILD = """
import os, sys, time
from pathlib import Path
from fer_repro.cli.console import end_with_the_driver
end_with_the_driver()
out, source = Path(sys.argv[1]), Path(sys.argv[2])
text = source.read_text()
(out.parent / "builds").open("a").write("x")
while text == "forever":
    time.sleep(0.1)
if text == "fail":
    sys.exit("it failed")
out.mkdir(exist_ok=True)
(out / "index.html").write_text(f"<html><head></head><body>{text}</body></html>")
(out / "searchindex.js").write_text(text)
"""
SERVER = """
import sys
from pathlib import Path
from fer_repro.book import serve
command, out, source, port = sys.argv[1:-3], *sys.argv[-3:]
serve.serve([*command, out, source], Path(out), [Path(source)], int(port))
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind((serve.HOST, 0))
        return free.getsockname()[1]


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "page.md"
    path.write_text("first")
    return path


@pytest.fixture
def command(tmp_path) -> list[str]:
    script = tmp_path / "build.py"
    script.write_text(BUILD)
    return [sys.executable, str(script)]


@pytest.fixture
def server(tmp_path, source, command, port):
    arguments = [*command, str(tmp_path / "html"), str(source), str(port)]
    path = os.pathsep.join([str(project_root()), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen([sys.executable, "-c", SERVER, *arguments], env=os.environ | {"PYTHONPATH": path})
    yield process
    process.kill()
    process.wait()


def until(met, seconds: float = 600.0):
    end = time.monotonic() + seconds
    while not (found := met()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found


def shown(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://{serve.HOST}:{port}/", timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


async def reloaded(port: int, change) -> dict:
    """What a browser with the page open hears after ``change()``."""
    from tornado.websocket import websocket_connect

    browser = await websocket_connect(f"ws://{serve.HOST}:{port}/livereload")
    await browser.write_message(json.dumps({"command": "hello"}))
    await browser.read_message()
    await browser.write_message(json.dumps({"command": "info", "url": "/"}))
    change()
    while True:
        heard = json.loads(await asyncio.wait_for(browser.read_message(), 600))
        if heard["command"] == "reload" and "searchindex" in heard["path"]:
            return heard


def test_a_changed_source_is_built_and_browsers_load_it_again(server, source, port, tmp_path):
    page = until(lambda: shown(port))
    assert "first" in page and "livereload.js" in page
    time.sleep(3)  # the library answers changes of its first three seconds with nothing
    with ThreadPoolExecutor(1) as thread:  # an event loop of its own: in this thread a browser's may be running
        thread.submit(asyncio.run, reloaded(port, lambda: source.write_text("the second"))).result()
    assert "the second" in shown(port)
    source.write_text("fail")
    until(lambda: (tmp_path / "builds").read_text() == "xxx")
    assert "the second" in shown(port)
    server.send_signal(signal.SIGINT)
    assert server.wait(600) == 0


def test_a_killed_server_takes_its_build_along(server, source, port, tmp_path):
    until(lambda: shown(port))
    source.write_text("forever")
    until(lambda: (tmp_path / "builds").read_text() == "xx")
    family = psutil.Process(server.pid).children(recursive=True)
    assert len(family) == 1
    server.kill()
    assert not psutil.wait_procs(family, timeout=600)[1]


def test_nothing_is_served_where_there_is_no_book_or_no_port(tmp_path, source, command, port):
    out = tmp_path / "html"
    arguments = [*command, str(out), str(source)]
    source.write_text("fail")
    with pytest.raises(FerReproError, match="the book was not built, so there is nothing to serve"):
        serve.serve(arguments, out, [source], port)
    source.write_text("first")
    with socket.socket() as taken:
        taken.bind((serve.HOST, port))
        taken.listen()
        with pytest.raises(
            FerReproError, match=rf"port {port} cannot be used \(Address already in use\): name another"
        ):
            serve.serve(arguments, out, [source], port)


def test_a_change_during_a_build_is_built_after_it(source):
    builder = serve.Builder([sys.executable, "-c", "import time; time.sleep(0.5)"], [source])
    started = []
    for text in ("a", "bb", "bb"):
        source.write_text(text)
        builder.check()
        started.append(builder.process.pid)
    builder.wait()
    builder.check()
    assert started[0] == started[1] == started[2] != builder.process.pid
    builder.stop()
    last = builder.process.pid
    builder.check()
    assert builder.process.pid == last  # nothing has changed


def test_hidden_and_compiled_files_are_no_sources(tmp_path):
    for name in ("a.md", ".ipynb_checkpoints/a.md", "__pycache__/a.pyc", ".a.md.swp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [path.name for path in serve.stamps([tmp_path])] == ["a.md"]
    assert [path.name for path in serve.stamps([tmp_path / "a.md", tmp_path / "nothing"])] == ["a.md"]
    watched = {path.relative_to(project_root()).as_posix() for path in serve.stamps(build.sources_of())}
    assert {"chapters/index.md", "_toc.yml", "fer_repro/claims.yaml", "fer_repro/book/serve.py"} <= watched
