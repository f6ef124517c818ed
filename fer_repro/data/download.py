"""Getting the data: the folder copy on Kaggle, through kagglehub (an optional extra)."""

from __future__ import annotations

import contextlib
from pathlib import Path

from fer_repro.data.source import HOME, VARIABLE, recognise
from fer_repro.errors import FerReproError

HANDLE = "msambare/fer2013"
_BY_HAND = (
    f"or download kaggle.com/datasets/{HANDLE} in a browser and put the zip, as it is, into {HOME}/ (or point "
    f"${VARIABLE} at it)"
)


def download(into: Path | str = HOME) -> Path:
    """Fetch Kaggle's ``msambare/fer2013`` into a folder where `load` looks, and return that folder.

    Where the folder already holds FER2013, nothing is fetched. Raises `FerReproError` without kagglehub, network or
    account, each with what to do; nothing half-fetched is left in the folder.
    """
    into = Path(into)
    if into.is_dir() and recognise(into):
        return into
    try:
        import kagglehub
    except ImportError as error:
        raise FerReproError(
            "FER2013 cannot be downloaded because kagglehub is not installed; run `pip install "
            f"'fer-repro[download]'`, {_BY_HAND}"
        ) from error
    try:
        # Into kagglehub's own cache, which resumes; a link then shows it where we look.
        fetched = Path(kagglehub.dataset_download(HANDLE))
    except Exception as error:  # noqa: BLE001 - kagglehub lets requests', urllib3's and its own errors through
        raise FerReproError(_why(error)) from error
    if recognise(fetched) is None:
        raise FerReproError(
            f"the download of {HANDLE} holds no FER2013 (expected train/ and test/ with pictures); delete it from "
            f"kagglehub's cache and try again, {_BY_HAND}"
        )
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            into.rmdir()  # an empty folder made beforehand
        into.symlink_to(fetched.resolve(), target_is_directory=True)
    except OSError as error:
        raise FerReproError(
            f"FER2013 was downloaded to {fetched}, but {into} cannot point to it ({error.strerror or error}); set "
            f"${VARIABLE} to the former"
        ) from error
    return into


def _why(error: Exception) -> str:
    """One sentence for the three usual reasons: no account, no network, anything else."""
    names = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403) or names & {"UnauthenticatedError", "CredentialError"}:
        why = (
            "because Kaggle did not accept you; make a token under Settings on kaggle.com and set KAGGLE_USERNAME and "
        )
        why += "KAGGLE_KEY (or run kagglehub.login())"
    elif names & {"ConnectionError", "Timeout", "gaierror", "TimeoutError", "ProxyError", "SSLError"}:
        why = "because Kaggle cannot be reached from here; check the network and try again"
    else:
        first = (str(error).strip().splitlines() or [""])[0][:200]
        why = f"({type(error).__name__}: {first}); try again later"
    return f"FER2013 cannot be downloaded {why}, {_BY_HAND}"
