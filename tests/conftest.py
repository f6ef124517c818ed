"""Fixtures for all tests: synthetic faces, the real data where they are at hand, and a cache of the tests' own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from listening import listening

from fer_repro.data import FER2013, load

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    # Workers side by side share the cores: one thread each.
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What tests share was dear to make, so they stay on one worker: those of a file, or of a folder with fixtures of
    its own. The contract's tests, the chapters and the GPU's tests share nothing."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = config.rootpath / nodeid.split("::")[0]
            if path.name in ("test_contract.py", "test_sources.py", "test_gpu.py"):
                return nodeid
            own = path.parent != HERE and (path.parent / "conftest.py").exists()
            return str(path.parent if own else path)

    return Together(config, log)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    """No test reads or writes the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FER_REPRO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def said() -> Iterator[list[str]]:
    """The lines that the package logs in a test."""
    lines: list[str] = []
    with listening(lines.append):
        yield lines


@pytest.fixture(scope="session")
def synthetic() -> FER2013:
    """The synthetic faces in their default size: 1600, 200, 200."""
    return load("synthetic")


@pytest.fixture(scope="session")
def few_synthetic() -> FER2013:
    """A small set of synthetic faces, three of every class at least: 210, 70, 70."""
    return load("synthetic", size=(210, 70, 70))


@pytest.fixture(scope="session")
def real_root() -> str:
    """Where FER2013 lies on this machine; skips where nobody says."""
    root = os.environ.get("FER2013_ROOT")
    if not root:
        pytest.skip("FER2013_ROOT is not set: this test needs the real data set")
    if not os.path.exists(root):
        pytest.skip(f"FER2013_ROOT is '{root}', which does not exist: this test needs the real data set")
    return root


@pytest.fixture(scope="session")
def real(real_root: str, own_cache) -> FER2013:
    """The real FER2013."""
    return load("fer2013", root=real_root)
