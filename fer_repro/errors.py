"""The one exception a user is meant to read, help with a misspelt name, and the exit status of what Ctrl-C stopped."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

INTERRUPTED = 130  # as a shell reports a program that SIGINT ended
UNREAD = 141  # as a shell reports a program whose output was closed


class FerReproError(Exception):
    """Bad input or a missing thing, in one sentence: what, where, what was expected, how to correct it.

    The command line prints it without a traceback (unless ``--debug``) and exits with status 1.
    """


# Words that older commands and notebooks may still use, and a device by its common name.
RENAMED = {"drawn": "synthetic", "gpu": "cuda"}


def nearest(asked: str, known: Iterable[str], kind: str = "expected one of", most: int = 3, quote: str = "") -> str:
    """ "did you mean a or b?", or where nothing known is like ``asked``: ``kind`` and all that is known.

    Upper and lower case are alike here: ``FULL`` is near to ``full``, ``VGGNet`` to ``vggnet``.
    """
    known = list(known)
    word = asked.strip().lower()
    word = RENAMED[word] if RENAMED.get(word) in known else word
    names = {name.lower(): name for name in known}
    near = [names[word]] if word in names else [names[one] for one in difflib.get_close_matches(word, names, n=most)]
    if near:
        return f"did you mean {' or '.join(quote + name + quote for name in near)}?"
    return f"{kind} {', '.join(known) or 'none'}"


def one_of(what: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise `FerReproError` unless the parameter ``what`` is one of the ``allowed`` words."""
    if value not in allowed:
        shown = ", ".join(repr(a) for a in allowed)
        hint = nearest(str(value), allowed, "", most=1, quote="'")
        raise FerReproError(
            f"parameter {what} is {value!r}, expected one of {shown}" + (f"; {hint}" if hint.endswith("?") else "")
        )
