"""The scripts of benchmarks/ import each other by name; so do these tests, and the processes that they start."""

import sys

from fer_repro.project import project_root

FOLDER = str(project_root() / "benchmarks")
if FOLDER not in sys.path:
    sys.path.append(FOLDER)
