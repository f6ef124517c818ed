"""Reading FER2013: the CSV for the first time, against torchvision; opening it again; the memory it takes.

    python benchmarks/data.py [--csv fer2013.csv] [--repeats 3] [--json out.json]

Every measurement runs in a process of its own, so that neither reader warms anything up for the other, and the two take
turns. torchvision gives the training set and the two test sets together as two data sets and reads the file for each;
`load` gives all of it. The file has been read once before, so that both find it in the page cache. torchvision's
check of the file's md5 is patched out here, because a CSV written from other faces than the original's would not pass
it. Without ``--csv`` a CSV of the full size (35,887 rows) is written from synthetic faces into a temporary folder; its
pixels have the same range as the original's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

GOALS = {"speedup": 8.0, "open_again_seconds": 0.020, "first_read_peak_bytes": 900 * 1024**2}

# Each prints one JSON line: seconds, peak memory of the process in bytes, and a sum that both readers must agree on.
_OURS = """
import json, resource, sys, time
from fer_repro.data import load
began = time.perf_counter()
data = load(root=sys.argv[1], cache_dir=sys.argv[2])
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
total = int(data.images.sum()) + int(data.labels.sum())
print(json.dumps({"seconds": seconds, "peak": peak, "total": total, "cached": data.facts["from_cache"]}))
"""
_TORCHVISION = """
import json, resource, sys, time
from torchvision.datasets import fer2013
fer2013.check_integrity = lambda *_, **__: True
began = time.perf_counter()
parts = [fer2013.FER2013(sys.argv[1], "train")]
train = time.perf_counter() - began
parts.append(fer2013.FER2013(sys.argv[1], "test"))
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
total = sum(int(image.sum()) + label for part in parts for image, label in part._samples)
print(json.dumps({"seconds": seconds, "train": train, "peak": peak, "total": total}))
"""


def _measure(script: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the measurement failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run(csv: str | os.PathLike | None = None, repeats: int = 3) -> dict[str, Any]:
    """Measure and return everything, JSON-ready: medians, every single time, the goals and whether they are met.

    ``csv`` names a file of the layout fer2013.csv; without it one is made from synthetic faces. Seconds are wall-clock
    seconds, memory is the peak resident size of the whole process in bytes.
    """
    from _csv_writer import repeated, write_csv

    with tempfile.TemporaryDirectory() as temporary:
        # torchvision wants root/fer2013/fer2013.csv.
        root = Path(temporary)
        file = root / "fer2013" / "fer2013.csv"
        file.parent.mkdir()
        if csv is None:
            write_csv(repeated(), file)
        else:
            file.symlink_to(Path(csv).resolve())
        size = len(file.read_bytes())

        ours, again, theirs = [], [], []
        for turn in range(repeats):
            cache = str(root / f"cache-{turn}")
            ours.append(_measure(_OURS, str(file), cache))
            again.append(_measure(_OURS, str(file), cache))
            theirs.append(_measure(_TORCHVISION, str(root)))
    if {m["total"] for m in (*ours, *again)} != {theirs[0]["total"]}:
        raise RuntimeError("the two readers disagree on the pixels or labels")
    if any(m["cached"] for m in ours) or not all(m["cached"] for m in again):
        raise RuntimeError("a first read came from the cache, or an opening did not")

    def median(measured: list[dict[str, Any]], what: str) -> float:
        return statistics.median(m[what] for m in measured)

    first, other, opening = median(ours, "seconds"), median(theirs, "seconds"), median(again, "seconds")
    result = {
        "csv": "synthetic faces, repeated" if csv is None else Path(csv).name,
        "csv_bytes": size,
        "repeats": repeats,
        "first_read_seconds": first,
        "torchvision_seconds": other,
        "torchvision_train_half_seconds": median(theirs, "train"),
        "speedup": other / first,
        "open_again_seconds": opening,
        "first_read_peak_bytes": int(max(m["peak"] for m in ours)),
        "torchvision_peak_bytes": int(max(m["peak"] for m in theirs)),
        "all_seconds": {
            "first_read": [m["seconds"] for m in ours],
            "open_again": [m["seconds"] for m in again],
            "torchvision": [m["seconds"] for m in theirs],
        },
        "goals": GOALS,
    }
    result["met"] = {
        "speedup": result["speedup"] >= GOALS["speedup"],
        "open_again_seconds": opening <= GOALS["open_again_seconds"],
        "first_read_peak_bytes": result["first_read_peak_bytes"] <= GOALS["first_read_peak_bytes"],
    }
    return result


def table(result: dict[str, Any]) -> str:
    """The result for people: one line a measurement, with its goal."""

    def mebibytes(value: float) -> str:
        return f"{value / 1024**2:,.0f} MiB"

    def state(what: str) -> str:
        return "met" if result["met"][what] else "MISSED"

    goals = result["goals"]
    rows = [
        ("file", f"{result['csv']}, {result['csv_bytes'] / 1e6:,.0f} MB", ""),
        ("first read, fer_repro", f"{result['first_read_seconds']:.2f} s", ""),
        ("first read, torchvision", f"{result['torchvision_seconds']:.2f} s", ""),
        ("  of it for 'train' alone", f"{result['torchvision_train_half_seconds']:.2f} s", ""),
        ("times faster", f"{result['speedup']:.1f}", f"goal >= {goals['speedup']:.0f}: {state('speedup')}"),
        (
            "opening again",
            f"{result['open_again_seconds'] * 1000:.1f} ms",
            f"goal <= {goals['open_again_seconds'] * 1000:.0f} ms: {state('open_again_seconds')}",
        ),
        (
            "peak memory, first read",
            mebibytes(result["first_read_peak_bytes"]),
            f"goal <= {mebibytes(goals['first_read_peak_bytes'])}: {state('first_read_peak_bytes')}",
        ),
        ("peak memory, torchvision", mebibytes(result["torchvision_peak_bytes"]), ""),
    ]
    lines = [f"{name:<26}{value:<34}{goal}".rstrip() for name, value, goal in rows]
    return "\n".join([*lines, f"median of {result['repeats']} (memory: the largest)"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", help="a file of the layout fer2013.csv (default: one made from synthetic faces)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="also write the result to this file")
    options = parser.parse_args()
    result = run(options.csv, options.repeats)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
    return 0 if all(result["met"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
