"""A thousand stored results: the leaderboard, the verification and the chart in seconds and memory, the pages in bytes.

    python benchmarks/scale.py [--count 1000] [--json out.json]

The results are made of random predictions and the real recipes, in a temporary folder: every model of the leaderboard
under both protocols, with as many seeds as it takes. Each measurement runs in a process of its own, so that its peak
memory is its own. Seconds count after all imports; the goal is one of processor seconds, which other work on the same
machine does not change.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import count as numbers
from itertools import islice, product
from pathlib import Path
from typing import Any

import pandas as pd

GOALS = {"processor_seconds": 10.0, "peak_bytes": 1024**3, "page_bytes": 5 * 10**6}
TESTS = Path(__file__).resolve().parents[1] / "tests"  # `made_results` lies there

# What each measured process does with ``where``, the folder of results; ``bytes``: of the page it makes.
STEPS = {
    "leaderboard": ("from fer_repro.leaderboard import leaderboard", "leaderboard(where); size = 0"),
    "verify": (
        "from fer_repro.verification import verify",
        "problems = verify(where).problems; size = 0\nassert not problems, problems[:3]",
    ),
    "chart": (
        "from fer_repro.leaderboard import baseline_band, leaderboard\n"
        "from fer_repro.page.timeline import accuracy_over_time",
        "size = len(str(accuracy_over_time(leaderboard(where), baseline_band(where))._repr_html_()).encode())",
    ),
    "status page": (
        "from fer_repro.page.status import StatusPage",
        "page = StatusPage(str(where))\n"
        "size = sum(len(part._repr_html_().encode()) for part in (page.summary(), page.models(), page.runs()))",
    ),
}
SCRIPT = """
import json, resource, sys, time
from pathlib import Path
{imports}
where, began, used = Path(sys.argv[1]), time.perf_counter(), time.process_time()
{work}
seconds, used = time.perf_counter() - began, time.process_time() - used
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({{"seconds": seconds, "processor_seconds": used, "peak_bytes": peak, "page_bytes": size}}))
"""


def make(where: Path, count: int) -> None:
    """Write ``count`` results: full runs of the leaderboard's models, both protocols, seeds from 0."""
    sys.path.append(str(TESTS))
    from made_results import made_predictions, made_record

    from fer_repro import papers, results
    from fer_repro.claims import declared_parameters, leaderboard_claims
    from fer_repro.results import Result

    predictions = made_predictions()
    models = [name for name in leaderboard_claims() if name in papers.variants()]
    runs = ((seed, *run) for seed in numbers() for run in product(models, papers.PROTOCOLS))
    made = {run: made_record(predictions, run[0], protocol=run[1]) for run in product(models, papers.PROTOCOLS)}
    for seed, name, protocol in islice(runs, count):
        record = made[name, protocol] | {"seed": seed, "parameters": declared_parameters(name) or 12345}
        results.write(Result(record, predictions, pd.DataFrame({"epoch": [1, 2], "loss": [1.9, 1.5]})), where)


def run(count: int = 1000) -> dict[str, Any]:
    """Measure and return everything, JSON-ready: seconds, peak memory and bytes of each step, the goals and whether
    they are met."""
    with tempfile.TemporaryDirectory() as temporary:
        make(Path(temporary), count)
        steps = {name: _measure(SCRIPT.format(imports=i, work=w), temporary) for name, (i, w) in STEPS.items()}
    met = {goal: all(step[goal] <= limit for step in steps.values()) for goal, limit in GOALS.items()}
    return {"count": count, "steps": steps, "goals": GOALS, "met": met}


def _measure(script: str, folder: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the measurement failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def table(result: dict[str, Any]) -> str:
    """The result for people: one line a step."""
    lines = [f"{result['count']} results: processor seconds, wall-clock seconds, peak memory, size of the page"]
    for name, step in result["steps"].items():
        times = f"{step['processor_seconds']:>8.2f} s{step['seconds']:>8.2f} s"
        lines.append(f"{name:<12}{times}{step['peak_bytes'] / 1e6:>8,.0f} MB{step['page_bytes'] / 1e3:>8,.0f} kB")
    for name, limit in result["goals"].items():
        lines.append(f"goal: {name} at most {limit:,.0f}: {'met' if result['met'][name] else 'MISSED'}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="stored results")
    parser.add_argument("--json", help="also write the result to this file")
    options = parser.parse_args()
    result = run(options.count)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))
    return 0 if all(result["met"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
