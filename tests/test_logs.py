"""What a person sees of the package's log, whoever has configured logging."""

from __future__ import annotations

import io
import logging
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fer_repro import logs
from fer_repro.papers import variants
from fer_repro.reproduce import reproduce

LOG = logging.getLogger("fer_repro.training.loop")


@logs.shown()
def work() -> None:
    LOG.info("epoch 1")
    LOG.warning("a checkpoint is damaged")


def test_without_any_configuration_lines_go_to_the_standard_output_of_the_moment_and_are_taken_away_again(capsys):
    for _ in range(2):
        work()
        out, err = capsys.readouterr()
        assert out == "epoch 1\nwarning: a checkpoint is damaged\n" and err == ""
    assert logs.PACKAGE.handlers == [] and logs.PACKAGE.propagate and logs.PACKAGE.level == logging.NOTSET


def test_blocks_inside_each_other_show_a_line_once(capsys):
    with logs.shown(logs.LineHandler("stderr")), logs.shown():
        work()
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == ["epoch 1", "warning: a checkpoint is damaged"]


def test_a_handler_of_the_root_logger_repeats_nothing(capsys, monkeypatch):
    stream = logging.StreamHandler(sys.stdout)
    monkeypatch.setattr(logging.root, "handlers", [*logging.root.handlers, stream])
    work()
    assert capsys.readouterr().out.count("epoch 1") == 1


@pytest.mark.parametrize("name", ["", "fer_repro"])
def test_a_caller_who_has_configured_logging_decides(capsys, caplog, name):
    with caplog.at_level(logging.INFO, logger=name):
        work()
    assert capsys.readouterr().out == ""
    assert [record.getMessage() for record in caplog.records] == ["epoch 1", "a checkpoint is damaged"]


def test_quiet_shows_nothing(capsys, caplog):
    with logs.quiet():
        work()
    assert capsys.readouterr() == ("", "") and caplog.records == []


@pytest.mark.parametrize("block", [logs.shown, logs.quiet])
def test_threads_that_enter_and_leave_at_once_leave_the_logger_as_it_was(block):
    """What two searches side by side once left behind: a logger that no longer told the root logger anything."""
    together = threading.Barrier(8)

    def many(_: int) -> None:
        together.wait()
        for _ in range(300):
            with logs.shown(logging.StreamHandler(io.StringIO())), block():
                pass

    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(many, range(8)))
    finally:
        sys.setswitchinterval(switching)
    assert logs.PACKAGE.handlers == [] and logs.PACKAGE.propagate and logs.PACKAGE.level == logging.NOTSET


def test_lines_are_shown_until_the_last_block_ends(capsys):
    first, second = logs.shown(), logs.shown()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # as where one of two threads ends before the other
    LOG.info("epoch 2")
    with logs.quiet():
        LOG.info("nobody reads this")
        second.__exit__(None, None, None)
    LOG.info("after the last")
    assert capsys.readouterr().out == "epoch 2\n"
    assert logs.PACKAGE.handlers == [] and logs.PACKAGE.propagate and logs.PACKAGE.level == logging.NOTSET


def test_lines_are_rewritten_from_inside_out_and_in_this_thread_only(capsys):
    with logs.shown():
        with logs.rewritten(lambda line: f"[a] {line}"), logs.rewritten(lambda line: f"trial 1: {line}"):
            LOG.info("epoch 1")
            other = threading.Thread(target=lambda: LOG.info("another thread"))
            other.start()
            other.join()
        LOG.info("epoch 2")
    assert capsys.readouterr().out.splitlines() == ["[a] trial 1: epoch 1", "another thread", "epoch 2"]


def test_a_terminal_gets_the_same_words_through_rich(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    work()
    words = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert [line.rstrip() for line in words.splitlines()] == ["epoch 1", "warning: a checkpoint is damaged"]


def test_reproduce_prints_its_epochs(capsys, tmp_path):
    assert "vggnet" in variants()
    reproduce("vggnet", epochs=1, device="cpu", results_dir=tmp_path)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["epoch 1/1 train"]


def test_a_line_that_cannot_be_written_stops_work_that_is_registered_and_is_an_error_elsewhere(monkeypatch):
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    told: list[str] = []
    monkeypatch.setattr(sys, "stdout", Full())
    monkeypatch.setattr(logs, "unread", logs.Unread())
    with pytest.raises(OSError, match="No space left"):
        work()
    with logs.unread.handled(lambda: told.append("stop")):
        work()
        assert told == ["stop"] and logs.unread.happened
        work()  # the other lines go nowhere
    assert told == ["stop"]
    sys.stdout.close()
