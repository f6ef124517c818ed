"""The command line that the benchmarks of training, scoring and seeds share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any


def command_line(run: Callable[..., dict[str, Any]], documentation: str) -> None:
    """Measure with the options of the command line, and print the result as JSON."""
    parser = argparse.ArgumentParser(description=documentation.splitlines()[0])
    parser.add_argument("--only", default="", help="networks, separated by commas")
    parser.add_argument("--seconds", type=float, help="of a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="auto")
    print(json.dumps(run(**vars(parser.parse_args())), indent=1))
