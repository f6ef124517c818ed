"""Many stored results: each file is read once, and the leaderboard unpacks no predictions."""

from __future__ import annotations

from collections import Counter

import pandas as pd
import pytest
from made_results import made_predictions, made_record

from fer_repro import results, verification
from fer_repro.errors import FerReproError
from fer_repro.leaderboard import leaderboard
from fer_repro.page.status import StatusPage
from fer_repro.results import Result, contents, folder

RUNS = 60


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Sixty runs of VGGNet that differ in their seed."""
    where, predictions = tmp_path_factory.mktemp("results"), made_predictions()
    record, history = made_record(predictions, parameters=None), pd.DataFrame({"epoch": [1, 2]})
    packed = folder._packed(predictions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder, "_packed", lambda arrays: packed)  # once, not sixty times
        for seed in range(RUNS):
            results.write(Result(record | {"seed": seed}, predictions, history), where)
    return where


@pytest.fixture
def read(monkeypatch):
    """How often each file is read, and under "unpacked" how many files of arrays are unpacked."""
    counts: Counter = Counter()
    content, arrays = contents.content, contents.arrays

    def counted(path):
        counts[path] += 1
        return content(path)

    def unpacked(*given):
        counts["unpacked"] += 1
        return arrays(*given)

    monkeypatch.setattr(contents, "content", counted)
    monkeypatch.setattr(contents, "arrays", unpacked)
    return counts


def test_the_leaderboard_reads_each_file_once_and_unpacks_none(many, read):
    board = leaderboard(many)
    assert board.set_index("variant").loc["vggnet", "seeds"] == RUNS
    assert len(read) == 3 * RUNS and set(read.values()) == {1}


def test_the_status_page_unpacks_none_and_is_small(many, read):
    body = StatusPage(str(many)).runs().body
    assert body.count("<tr>") == RUNS + 1 and not read["unpacked"]
    assert len(body) < 5000 * RUNS  # bytes a result: a thousand stay below 5 MB


def test_verification_unpacks_each_once(many, read):
    assert verification.verify(many).problems == []
    assert read.pop("unpacked") == RUNS
    assert len(read) == 3 * RUNS and set(read.values()) == {1}


def test_a_changed_file_is_seen_without_being_unpacked(many, tmp_path, read):
    (place,) = [one for one in results.stored_folders(many) if one.name == "seed-7"]
    where = tmp_path / "vggnet" / "official" / "seed-7"
    where.mkdir(parents=True)
    for name in ("result.json", "history.csv"):
        (where / name).write_bytes((place / name).read_bytes())
    (where / "predictions.npz").write_bytes((place / "predictions.npz").read_bytes() + b"\0")
    with pytest.raises(FerReproError, match="predictions.npz is not the file that result.json was written with"):
        leaderboard(tmp_path)
    assert not read["unpacked"]
