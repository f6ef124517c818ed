"""``python -m fer_repro.cli``: the command where its script is not on the path, as in a campaign's workers."""

from fer_repro.cli import main

main()
