"""The one exception a user is meant to read, and the exit status of what Ctrl-C stopped."""

INTERRUPTED = 130  # as a shell reports a program that SIGINT ended


class FerReproError(Exception):
    """Bad input or a missing thing, told in one sentence: what, where, what was expected, how to mend it.

    The command line prints it without a traceback (unless ``--debug``) and exits with status 1.
    """
