"""The one exception a user is meant to read, help with a misspelt name, and the exit status of what Ctrl-C stopped."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

INTERRUPTED = 130  # as a shell reports a program that SIGINT ended
UNREAD = 141  # as a shell reports a program whose output was closed


class FerReproError(Exception):
    """Bad input or a missing thing, in one sentence: what, where, what was expected, how to correct it.

    The command line prints it without a traceback (unless ``--debug``) and exits with status 1.
    """


RENAMED = {"drawn": "synthetic"}  # words that older commands and notebooks may still use


def nearest(asked: str, known: Iterable[str], kind: str = "expected one of", most: int = 3, quote: str = "") -> str:
    """ "did you mean a or b?", or where nothing known is like ``asked``: ``kind`` and all that is known."""
    known = list(known)
    near = [RENAMED[asked]] if RENAMED.get(asked) in known else difflib.get_close_matches(asked, known, n=most)
    if near:
        return f"did you mean {' or '.join(quote + name + quote for name in near)}?"
    return f"{kind} {', '.join(known) or 'none'}"
