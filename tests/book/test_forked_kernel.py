"""Kernels that are forked with their imports made: what they show, what they see of the process, how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

pytest.importorskip("jupyter_client", reason="the book extra is not installed")

from jupyter_client.manager import AsyncKernelManager

from fer_repro.book import build, executed, forked_kernel, notebooks

if sys.platform != "linux":
    pytest.skip("kernels are forked on Linux only", allow_module_level=True)

# What a chapter could tell a forked kernel by, and what must be as in any other one.
CODE = """
import multiprocessing, os, sys
print("page imported:", "fer_repro.page" in sys.modules)
import matplotlib.pyplot as plt, torch
from threadpoolctl import threadpool_info
print("a setting:", os.environ.get("A_SETTING"), "threads:", {pool["num_threads"] for pool in threadpool_info()})
print("program:", sys.argv[0].rsplit("/", 1)[-1], "main:", __name__)
print("may have children:", not multiprocessing.current_process().daemon)
print("learns:", torch.nn.Linear(2, 2)(torch.ones(1, 2)).sum().backward())
_ = plt.plot([1, 2])
"""


def outputs(root, page: str) -> tuple[str, set[str]]:
    """What the executed copy of a notebook prints, and the kinds of what it shows."""
    [copy] = (root / "_build" / "html.book-source" / executed.KEPT / "chapters").glob(f"{page}.*.ipynb")
    shown = notebooks.read(copy).cells[-1].outputs
    text = "".join(one.text for one in shown if one.output_type == "stream")
    return text, {kind for one in shown for kind in one.get("data", {})}


def test_chapters_find_their_imports_made_and_all_else_as_always(tiny, monkeypatch):
    root = tiny(code=CODE, notebooks=2)
    monkeypatch.setenv("A_SETTING", "of now")  # set after the server may have begun
    build.build_book(root, jobs=2)
    threads = max(1, (os.cpu_count() or 1) // 2)
    for page in ("page", "page-2"):
        text, kinds = outputs(root, page)
        assert text.startswith("page imported: True\n") and "learns: None" in text
        assert f"a setting: of now threads: {{{threads}}}" in text
        assert "program: ipykernel_launcher main: __main__\nmay have children: True" in text
        assert any(kind.startswith("image/") for kind in kinds), "figures are shown as in a kernel that was started"


def test_only_several_chapters_on_linux_are_worth_a_server(monkeypatch):
    assert forked_kernel.pays(2) and not forked_kernel.pays(1)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not forked_kernel.pays(2)


def test_a_process_that_is_never_asked_for_ends_with_the_block():
    with forked_kernel.forked_kernel(1):
        waiting = forked_kernel.ForkedProvisioner.waiting
        assert psutil.pid_exists(waiting.pid) and waiting.poll() is None
    assert waiting.returncode is not None and forked_kernel.ForkedProvisioner.waiting is None


def test_it_ends_when_the_process_that_would_ask_it_ends():
    kernel = forked_kernel.ForkedKernel(1)
    kernel._ours.close()
    assert kernel.wait() == 0


def test_the_first_kernel_is_forked_the_second_is_started_and_both_are_interrupted_and_end():
    async def run() -> list[int]:
        numbers = []
        for _ in range(2):
            manager = AsyncKernelManager(kernel_name="python3")
            await manager.start_kernel(extra_arguments=notebooks.QUIET_KERNEL)
            client = manager.client()
            client.start_channels()
            await client.wait_for_ready(timeout=600)
            numbers.append(manager.provisioner.process.pid)
            client.execute("import time; print('begun', flush=True); time.sleep(600)")
            while (await client.get_iopub_msg(timeout=600))["msg_type"] != "stream":
                pass
            await manager.interrupt_kernel()
            while (reply := await client.get_shell_msg(timeout=600))["msg_type"] != "execute_reply":
                pass
            assert reply["content"]["ename"] == "KeyboardInterrupt"
            client.stop_channels()
            await manager.shutdown_kernel(now=True)
            assert not await manager.is_alive()
        return numbers

    with forked_kernel.forked_kernel(1):
        waiting = forked_kernel.ForkedProvisioner.waiting
        with ThreadPoolExecutor(1) as thread:  # an event loop of its own: in this thread a browser's may be running
            forked, started = thread.submit(asyncio.run, run()).result()
    assert forked == waiting.pid != started and waiting.returncode == -signal.SIGKILL
