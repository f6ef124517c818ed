"""The page for every machine: its hours follow from counted work, its measurements from stored results."""

from __future__ import annotations

import re

import pytest
from made_results import made_result

from fer_repro import papers, results
from fer_repro.campaign import hours
from fer_repro.campaign.hours import Hours
from fer_repro.errors import FerReproError
from fer_repro.page import anywhere
from fer_repro.page.anywhere import AnywherePage


@pytest.fixture
def counted(monkeypatch):
    """One hour a run at the best on an A100, three on a T4, without the time that counting takes; "sdafe" uncounted."""
    times = dict(zip((one.name for one in hours.DEVICES), (3.0, 1.0, 0.3), strict=True))

    def made(name, protocol, fitted=frozenset(), hardware=hours.ASSUMED):
        low = 0.0 if name == "sdafe" else times[hardware.name]
        return Hours(low, 10 * low, False, (name,), ("sdafe",) if name == "sdafe" else ())

    for module in (hours, anywhere):
        monkeypatch.setattr(module, "gpu_hours", made)


def rows(body: str) -> list[list[str]]:
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)]


def test_the_whole_table_is_every_network_under_both_protocols_with_three_seeds(counted, tmp_path):
    page = AnywherePage(str(tmp_path))
    runs = len(set(page.models).union(*map(papers.needs, page.models))) - 1  # sdafe is not counted
    t4, a100, _ = rows(page.whole_table().body)[1:]
    assert a100[0] == "NVIDIA A100" and a100[2] == f"{runs} to {10 * runs}"
    assert a100[3] == f"{anywhere._rounded(6 * runs)} to {anywhere._rounded(60 * runs)}"
    assert t4[2] == f"{3 * runs} to {30 * runs}" and "Without an estimate" in page.whole_table().body


def test_every_model_is_listed_the_cheapest_first(counted, tmp_path):
    page = AnywherePage(str(tmp_path))
    listed = [re.sub("<[^>]+>", "", row[0]) for row in rows(page.each_model().body)[1:]]
    assert sorted(listed) == sorted(page.models) and listed[0] == "sdafe"


def test_what_a_model_builds_on_counts(tmp_path):
    """The ensemble stands below its cheapest member, with the sum first and its own run alone in small."""
    page = AnywherePage(str(tmp_path))
    shown = {re.sub("<[^>]+>", "", row[0]): row[1:] for row in rows(page.each_model().body)[1:]}
    name, device = "residual-masking-ensemble", hours.DEVICES[0]
    whole, alone = hours.gpu_hours(name, "official", hardware=device), page._alone(name, device)
    assert whole.high > alone.high and shown[name][0].startswith(anywhere._time(whole) + "<br>")
    assert anywhere._time(alone) in shown[name][0] and "e-0" not in " ".join(map(str, shown.values()))
    assert "<br>" not in shown["vggnet"][0] and '<code class="fer-id">residual-masking</code>' in shown[name][-1]
    places = list(shown)
    assert all(places.index(one) < places.index(name) for one in papers.get(name).requires if one in shown)


def test_it_says_what_was_measured_and_on_what(tmp_path):
    assert "nothing of this was measured" in AnywherePage(str(tmp_path)).measured().body
    results.write(made_result(seed=1), tmp_path)
    assert "1 full run is stored: 1 on a CPU" in AnywherePage(str(tmp_path)).measured().body
    assert "None ran on a GPU" in AnywherePage(str(tmp_path)).measured().body
    cost = {"seconds": 60.0, "images_per_second": None, "peak_memory_bytes": 1, "device": "cuda"}
    results.write(made_result(seed=2, cost=cost), tmp_path)
    words = AnywherePage(str(tmp_path)).measured().body
    assert "1 on a GPU" in words and "None ran on a GPU" not in words


def test_a_missing_folder_is_one_sentence(tmp_path):
    with pytest.raises(FerReproError, match="there is no folder of results"):
        AnywherePage(str(tmp_path / "none"))
