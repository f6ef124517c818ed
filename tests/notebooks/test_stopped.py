"""`fer-repro chapter` that is stopped or killed, what it prints meanwhile, and notebooks that are damaged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from damage import damaged_bytes, damaged_documents
from notebook_builder import texts, write_notebook

from fer_repro.book import follower, notebooks
from fer_repro.errors import INTERRUPTED, FerReproError
from fer_repro.processes import interrupting
from fer_repro.project import project_root

WAITING = "import os, time; open({path!r}, 'w').write(str(os.getpid()))\nfor _ in range(9000): time.sleep(0.1)"
STUBBORN = """
import os, time
open({path!r}, 'w').write(str(os.getpid()))
while True:
    try:
        time.sleep(1)
    except KeyboardInterrupt:
        pass
"""


def _ignore_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def start(source, out, **options):
    """The command as a script starts it in the background, where SIGINT is ignored."""
    command = [sys.executable, "-m", "fer_repro.cli", "chapter", str(source), "-o", str(out)]
    path = os.pathsep.join([str(project_root()), os.environ.get("PYTHONPATH", "")])
    given = {"env": os.environ | {"PYTHONPATH": path}, "text": True, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=_ignore_ctrl_c, **given | options)


def kernel_of(trace, seconds=600.0):
    end = time.monotonic() + seconds
    while not (trace.exists() and trace.read_text()):
        assert time.monotonic() < end, "the chapter did not begin"
        time.sleep(0.05)
    return psutil.Process(int(trace.read_text()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_one_line_and_leaves_nothing(tmp_path, number):
    trace, out = tmp_path / "kernel", tmp_path / "out" / "out.ipynb"
    source = write_notebook(tmp_path / "page.ipynb", WAITING.format(path=str(trace)), "print('after')")
    process = start(source, out)
    kernel = kernel_of(trace)
    process.send_signal(number)
    printed, said = process.communicate(timeout=600)
    assert process.returncode == INTERRUPTED, said
    assert said.splitlines()[-1].startswith("stopped: nothing was written") and "Traceback" not in said
    assert "after" not in said and printed == ""
    assert not kernel.is_running() and list(out.parent.iterdir()) == []


def test_a_killed_chapter_takes_its_kernel_along_and_the_next_run_clears_up(tmp_path):
    trace, out = tmp_path / "kernel", tmp_path / "out.ipynb"
    source = write_notebook(tmp_path / "page.ipynb", WAITING.format(path=str(trace)))
    process = start(source, out)
    kernel = kernel_of(trace)
    process.kill()
    process.communicate()
    assert psutil.wait_procs([kernel], timeout=600)[1] == []
    assert (tmp_path / ".out.partial.ipynb").exists()
    (tmp_path / ".out.ipynb.abc.tmp").touch()  # as of one killed while it wrote
    notebooks.execute(write_notebook(tmp_path / "page.ipynb", "print(1)"), out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernel", "out.ipynb", "page.ipynb"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_cell_that_ignores_ctrl_c_is_killed_after_a_while_or_at_the_second(tmp_path, monkeypatch, times):
    monkeypatch.setattr(follower, "PATIENCE", 2.0 if times == 1 else 60.0)
    trace = tmp_path / "kernel"
    source = write_notebook(tmp_path / "page.ipynb", STUBBORN.format(path=str(trace)))
    kernels = []

    def press():
        kernels.append(kernel_of(trace))
        for _ in range(times):
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    began = time.monotonic()
    with interrupting(), pytest.raises(KeyboardInterrupt):
        notebooks.execute(source, tmp_path / "out.ipynb")
    pressing.join()
    assert time.monotonic() - began < 600 and not kernels[0].is_running()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernel", "page.ipynb"]


def test_nohup_stays_in_force():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupting():
            os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt), interrupting():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_pipe_gets_a_line_per_cell_and_the_lines_that_cells_print(tmp_path):
    source = write_notebook(tmp_path / "page.ipynb", "# why\nprint('epoch 1/2')\nprint('epoch 2/2')", "1 + 1")
    process = start(source, tmp_path / "out.ipynb")
    printed, said = process.communicate(timeout=600)
    assert printed == f"executed: {tmp_path / 'out.ipynb'}\n"
    lines = said.splitlines()
    assert [line.partition(": ")[2] for line in lines if "cell" in line] == [
        'cell 2/4 profile: str = "smoke"  # smoke | full',
        "cell 3/4 print('epoch 1/2')",
        "cell 4/4 1 + 1",
    ]
    at = lines.index("    epoch 1/2")
    assert lines[at + 1] == "    epoch 2/2" and all(" s: cell" in line for line in (lines[at - 1], lines[at + 2]))
    assert texts(tmp_path / "out.ipynb") == "epoch 1/2\nepoch 2/2\n"


def test_a_full_disk_or_a_kernel_that_does_not_start_is_one_sentence(tmp_path, monkeypatch):
    import papermill

    def fails(error):
        def execute(*_, **__):
            raise error

        return execute

    source = write_notebook(tmp_path / "page.ipynb", "1")
    for error, said in (
        (OSError(28, "No space left on device"), r"cannot go on in .* \(No space left on device\): free space"),
        (RuntimeError("Kernel didn't respond in 60 seconds"), r"did not start \(Kernel didn't respond in 60 seconds\)"),
    ):
        monkeypatch.setattr(papermill, "execute_notebook", fails(error))
        with pytest.raises(FerReproError, match=said):
            notebooks.execute(source, tmp_path / "out.ipynb")


@pytest.mark.filterwarnings("ignore:Cell is missing an id")
def test_a_damaged_notebook_is_one_sentence(tmp_path):
    content = notebooks.locate("vggnet").read_bytes()
    path = tmp_path / "page.ipynb"
    documents = (json.dumps(document).encode() for _, document in damaged_documents(json.loads(content), 7, 400))
    refused = 0
    for damaged in (*damaged_bytes(content, 7, 400), *documents):
        path.write_bytes(damaged)
        try:
            notebooks.inspect(path)
        except FerReproError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused > 400
