"""Chapters' kernels that have their imports already: forked from one process that made them for the whole book.

Every chapter imports `fer_repro.page`, and with it torch and most of what hangs on it. Where processes can be forked, a
server of Python's own (`multiprocessing`'s "forkserver") imports it once; a chapter's process is forked from there, and
the chapter's kernel from that process, before it has any thread that works.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import EntryPoint
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

# What the server imports; a module that is not installed is left out, and the chapter that needs it says so. Not the
# backend of the figures in notebooks, which looks for its notebook when it is imported.
IMPORTED = ("papermill", "ipykernel.kernelapp", "torch._dynamo", "fer_repro.page")
NAME = "forked-kernel"
INLINE = "module://matplotlib_inline.backend_inline"  # where figures go that a cell does not return
LAUNCHER = ["-m", "ipykernel_launcher"]


def pays(chapters: int) -> bool:
    """Whether to fork kernels for so many chapters: one imports as much as the server would.

    On Linux only; the libraries of macOS do not work in a forked process.
    """
    return sys.platform == "linux" and chapters > 1


def context() -> BaseContext:
    """How the processes start that fork a kernel: from the server, which imports when the first one is asked for."""
    forkserver = get_context("forkserver")
    forkserver.set_forkserver_preload(list(IMPORTED))
    return forkserver


class ForkedKernel:
    """A process that waits until it is given the arguments of a kernel, with what jupyter_client asks of a `Popen`.

    ``threads``: how many its libraries use. Make it before this process has threads that work.
    """

    stdin = stdout = stderr = None

    def __init__(self, threads: int) -> None:
        self.returncode: int | None = None
        self._asking = threading.Lock()  # nbclient's thread and the one that stops a chapter
        theirs, self._ours = Pipe(duplex=False)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                self._ours.close()
                _become_kernel(theirs, threads)
                status = 0
            except BaseException:  # noqa: BLE001 - nothing of it may reach the code around this call
                sys.excepthook(*sys.exc_info())
            finally:
                with suppress(OSError, ValueError):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(status)
        theirs.close()

    def start(self, arguments: list[str], environment: Mapping[str, str]) -> None:
        """Let it become the kernel."""
        self._ours.send((arguments, dict(environment)))

    def poll(self) -> int | None:
        return self._waited(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int | None:
        return self._waited(0)

    def _waited(self, options: int) -> int | None:
        with self._asking:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, options)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """End it, whether it was used or not."""
        self._ours.close()
        self.kill()
        self.wait()


def _become_kernel(commands: Connection, threads: int) -> None:
    """Wait for the arguments, then be what ``python -m ipykernel_launcher`` is; return at once where none come."""
    os.setsid()  # interrupts reach the group that it leads, as of a kernel that was started
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        arguments, environment = commands.recv()
    except EOFError:
        return
    os.environ.clear()
    os.environ.update(environment)
    from ipykernel.kernelapp import IPKernelApp
    from matplotlib import rcParams
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)  # the libraries were loaded before the environment of this kernel was known
    rcParams["backend"] = os.environ.get("MPLBACKEND", INLINE)  # read from there when matplotlib was imported
    sys.argv = ["ipykernel_launcher", *arguments]
    IPKernelApp.launch_instance(arguments)


class ForkedProvisioner(LocalProvisioner):
    """Gives the waiting process to the first kernel that is started; any other is started as always."""

    waiting: ForkedKernel | None = None

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> dict[str, Any]:
        kernel, type(self).waiting = type(self).waiting, None
        if kernel is None or cmd[1:3] != LAUNCHER:
            return await super().launch_kernel(cmd, **kwargs)
        # Read from the environment when ipykernel was imported: whose end it waits for.
        parent = f"--IPKernelApp.parent_handle={os.getpid()}"
        kernel.start([*cmd[3:], parent], kwargs.get("env") or os.environ)
        self.process, self.pid, self.pgid = kernel, kernel.pid, kernel.pid
        return self.connection_info


@contextmanager
def forked_kernel(threads: int) -> Iterator[None]:
    """The first kernel that starts inside the block is forked from this process, as it is when the block begins."""
    factory = KernelProvisionerFactory.instance()
    place = f"{ForkedProvisioner.__module__}:{ForkedProvisioner.__name__}"
    factory.provisioners[NAME] = EntryPoint(NAME, place, KernelProvisionerFactory.GROUP_NAME)
    before, factory.default_provisioner_name = factory.default_provisioner_name, NAME
    kernel = ForkedProvisioner.waiting = ForkedKernel(threads)
    try:
        yield
    finally:
        factory.default_provisioner_name, ForkedProvisioner.waiting = before, None
        kernel.close()
