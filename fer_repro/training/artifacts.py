"""Finished pieces of a run on disk: an expensive array is made once, and a run that was killed finds it again."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_repro.files import atomic_write, require_whole_zip, writable

log = logging.getLogger(__name__)


class ArtifactCache:
    """Arrays in ``folder`` as ``<name>-<key>.npz``, each whole or not there.

    The key is a digest of ``identity`` (data, seed) and of the settings that decide the array, so that a changed
    setting never meets an old array. With ``resume=False`` nothing that lies there is used. ``saved`` counts the
    seconds that the pieces found on disk had taken to make.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], resume: bool) -> None:
        self._folder, self._identity = folder, dict(identity)
        self.saved = 0.0
        self._seen: set[Path] = set()
        if not resume:
            for left in folder.glob("*.npz"):
                with writable(left):
                    left.unlink(missing_ok=True)

    def get_or_compute(self, name: str, settings: Mapping[str, Any], make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array called ``name``: read from disk where it was made before, otherwise made and written."""
        content = json.dumps([self._identity, dict(settings)], sort_keys=True)
        path = self._folder / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}.npz"
        if path.exists():
            try:
                array, seconds = read(path)
            except Exception as error:  # noqa: BLE001 - what a damaged array raises has no common kind
                log.warning(f"{path.name} is damaged ({type(error).__name__}); making it anew")
            else:
                # a piece made or read earlier in this run is not an earlier run's work
                self.saved += 0 if path in self._seen else seconds
                self._seen.add(path)
                return array
        begin = time.monotonic()
        made = make()
        with writable(path), atomic_write(path) as file:
            np.savez(file, array=made, seconds=np.float64(time.monotonic() - begin))
        self._seen.add(path)
        return made


def read(path: Path) -> tuple[np.ndarray, float]:
    """The array of a file that `ArtifactCache` wrote, and the seconds that it took; any exception means damage."""
    require_whole_zip(path)  # numpy stops reading where a damaged header says so, and misses the checksum
    with np.load(path, allow_pickle=False) as archive:
        array, seconds = archive["array"], float(archive["seconds"])
    if not 0 <= seconds < math.inf:
        raise ValueError("seconds")
    return array, seconds
