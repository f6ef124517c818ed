"""Finished pieces of a run on disk: an expensive array is made once, and a run that was killed finds it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_repro.files import atomic_write


class Shelf:
    """Arrays kept in ``folder`` as ``<name>-<key>.npy``, each whole or not there.

    The key is a digest of ``identity`` (data, seed) and of the settings that decide the array, so that a changed setting
    never meets an old array. With ``resume=False`` nothing that lies there is used.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], resume: bool, say: Callable[[str], None]) -> None:
        self._folder, self._identity, self._say = folder, dict(identity), say
        if not resume:
            for left in folder.glob("*.npy"):
                left.unlink(missing_ok=True)

    def keep(self, name: str, settings: Mapping[str, Any], make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array called ``name``: read where it was kept before, otherwise made and kept."""
        content = json.dumps([self._identity, dict(settings)], sort_keys=True, default=str)
        path = self._folder / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}.npy"
        if path.exists():
            try:
                return np.load(path, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                self._say(f"warning: {path.name} is damaged ({type(error).__name__}); making it anew")
        made = make()
        with atomic_write(path) as file:
            np.save(file, made, allow_pickle=False)
        return made
