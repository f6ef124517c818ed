"""``killed_world.py FOLDER SEED KILLS``: train two runs, store and pack them, killed (-9) again and again at random.

In the world of `campaign_world`. Each attempt is a fork of this process, which dies at the n-th moment of training, of
saving, of storing or of packing; after it everything must be whole or absent, and once an attempt ends, everything must
be as without kills. Prints, as JSON, how often it was killed in each kind of work.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import campaign_world
import torch

from fer_repro import results
from fer_repro.campaign import Task, plan
from fer_repro.parameters import RunOptions
from fer_repro.training import checkpoint
from fer_repro.training.soundness import digest
from fer_repro.training.step import TrainStep
from fer_repro.transfer import chunks, pack

NAMES = ("large", "pupil")
KINDS = ("training", "saving", "storing", "packing")


class Moments:
    """Counts the moments of each kind of work, and ends this process at the chosen one."""

    def __init__(self, kind: str = "", number: int = 0) -> None:
        self.chosen, self.now, self.counts = (kind, number), "", Counter()

    def __call__(self, kind: str = "") -> None:
        if not (kind := kind or self.now):
            return  # the writing of something else
        if (kind, self.counts[kind]) == self.chosen:
            os.kill(os.getpid(), signal.SIGKILL)
        self.counts[kind] += 1

    def watch(self) -> None:
        """A moment is a batch, a file just made, a file about to be synced, one about to be and one just renamed."""

        def around(function: Callable, kind: str = "") -> Callable:
            def watched(*arguments: Any, **more: Any) -> Any:
                self(kind)
                try:
                    return function(*arguments, **more)
                finally:
                    self(kind)

            return watched

        def during(function: Callable, kind: str) -> Callable:
            def work(*arguments: Any, **more: Any) -> Any:
                self.now = kind
                try:
                    return function(*arguments, **more)
                finally:
                    self.now = ""

            return work

        TrainStep.__call__ = around(TrainStep.__call__, "training")
        os.fsync, os.replace, tempfile.mkstemp = map(around, (os.fsync, os.replace, tempfile.mkstemp))
        checkpoint.save = during(checkpoint.save, "saving")
        results.write = during(results.write, "storing")
        pack.pack = during(pack.pack, "packing")


def work(where: Path) -> None:
    """The command that is given again and again."""
    options = RunOptions(device="cpu", results_dir=str(where / "results"), runs_dir=str(where / "runs"))
    outcomes = plan.run([Task(name, 0) for name in NAMES], options)
    assert [outcome.state for outcome in outcomes] == ["done", "done"], outcomes
    pack.pack(where / "pack", runs_dir=options.runs_dir, part_size=50_000)


def attempt(where: Path, kind: str = "", number: int = 0) -> bool:
    """`work` in a process of its own, which dies at a moment; whether it came to its end."""
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, -signal.SIGKILL), code
        return code == 0
    code = 1
    try:
        moments = Moments(kind, number)
        moments.watch()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        work(where)
        (where / "moments.json").write_text(json.dumps(moments.counts))
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is is shown, and makes the exit status
        traceback.print_exc()
    finally:
        os._exit(code)


def folder(where: Path, name: str) -> Path:
    return where / "runs" / name / "official" / "full" / "seed-0"


def require_whole_or_absent(where: Path) -> None:
    assert results.verify(where / "results") == []
    for name in NAMES:
        if list(folder(where, name).glob("checkpoint*.pt")):
            assert checkpoint.newest_whole(folder(where, name)) is not None
    if (where / "pack" / chunks.MANIFEST).exists():
        for packed in chunks.read_manifest(where / "pack"):
            chunks.verify(where / "pack", packed)


def end_of(where: Path) -> list[Any]:
    """All numbers that a finished campaign left, but for times."""
    found: list[Any] = []
    for name in NAMES:
        stored = results.find(name, "official", 0, where / "results")
        state = torch.load(folder(where, name) / checkpoint.NAME)["state"]
        history = [{k: v for k, v in row.items() if k != "seconds"} for row in state.pop("history")]
        state = {k: v for k, v in state.items() if k not in ("seconds", "peak")}
        found += [{name: part.tobytes() for name, part in stored.predictions.items()}, stored.record["scores"]]
        found += [history, digest(state)]
    return found


def main(where: Path, seed: int, kills: int) -> None:
    draw, killed = random.Random(seed), Counter()
    assert attempt(where / "whole")
    expected, moments = end_of(where / "whole"), json.loads((where / "whole" / "moments.json").read_text())
    assert moments.keys() == set(KINDS), moments
    place = where / "killed"
    while killed.total() < kills:
        kind = KINDS[killed.total() % len(KINDS)]
        ended = attempt(place, kind, draw.randrange(moments[kind]))
        require_whole_or_absent(place)
        if ended:  # that work had been done before, so its moment did not come
            assert end_of(place) == expected
            shutil.rmtree(place)
        else:
            killed[kind] += 1
    assert attempt(place)
    require_whole_or_absent(place)
    assert end_of(place) == expected
    assert not list(place.rglob(".*.part.*.tmp"))
    print(json.dumps(killed))


if __name__ == "__main__":
    campaign_world.install(setattr)
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
