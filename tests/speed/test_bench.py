"""The command that measures: which options reach a script, where its figures go, and what is said of a wrong one."""

from __future__ import annotations

import json
import re

import pytest

from fer_repro import speed
from fer_repro.errors import FerReproError
from fer_repro.project import project_root

SCRIPT = """
import _helper

def run(turns=3, only=""):
    return {"turns": turns, "only": only, "helped": _helper.VALUE, "module": __name__, "device": "cuda"}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "quick.py").write_text(SCRIPT)
    (tmp_path / "plain.py").write_text("def run():\n    return {'seconds': 1.5}\n")
    (tmp_path / "_helper.py").write_text("VALUE = 7\n")
    return tmp_path


def measure(folder, what, **options):
    return speed.measure(what, folder, options)


def test_a_script_is_imported_by_its_name_and_gets_its_options(folder):
    found = measure(folder, "quick", turns=2, only=None)["quick"]
    assert found["turns"] == 2 and found["only"] == "" and found["helped"] == 7 and found["module"] == "quick"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]+\+00:00", found["date"]) and found["code_version"]


def test_all_gives_each_script_what_it_takes(folder):
    found = measure(folder, "all", turns=1)
    assert list(found) == ["plain", "quick"] and found["quick"]["turns"] == 1


def test_a_wrong_name_option_or_script_is_one_sentence(folder):
    with pytest.raises(FerReproError, match="there is no benchmark 'slow': expected one of plain, quick, all"):
        measure(folder, "slow")
    with pytest.raises(FerReproError, match="benchmark 'plain' has no option 'turns': it takes none"):
        measure(folder, "plain", turns=1)
    with pytest.raises(FerReproError, match="benchmark 'quick' has no option 'seconds': it takes turns, only"):
        measure(folder, "quick", seconds=1.0)
    (folder / "empty.py").write_text("")
    with pytest.raises(FerReproError, match="empty.py has no function run"):
        measure(folder, "empty")


def test_figures_are_stored_by_device_and_read_again(folder, tmp_path):
    where = tmp_path / "measured"
    assert speed.stored(where) == {}
    paths = speed.store({"quick": {"device": "cuda", "x": 1}, "plain": {"y": 2}}, where)
    assert [path.name for path in paths] == ["quick-cuda.json", "plain-cpu.json"]
    assert speed.stored(where) == {
        ("quick", "cuda"): {"benchmark": "quick", "device": "cuda", "x": 1},
        ("plain", "cpu"): {"benchmark": "plain", "y": 2},
    }
    paths[0].write_text("{")
    with pytest.raises(FerReproError, match="quick-cuda.json is not a readable measurement"):
        speed.stored(where)
    with pytest.raises(FerReproError, match="cannot be written"):
        speed.store({"plain": {}}, paths[0])


def test_the_benchmarks_of_this_project_are_known():
    folder = project_root() / "benchmarks"
    names = {path.stem for path in folder.glob("[a-z]*.py")}
    assert names == {"data", "augment", "train", "evaluate", "scale", "seeds"}
    for name in ("train", "evaluate", "seeds"):
        assert speed.takes(folder / f"{name}.py")[:4] == ["only", "seconds", "turns", "device"]


def test_what_is_committed_says_when_where_and_by_which_code():
    for (name, device), figures in speed.stored().items():
        assert figures["benchmark"] == name and device in ("cpu", "cuda")
        assert figures["date"] and figures["code_version"] and figures["environment"]["torch"]
        assert (figures["environment"]["gpu"] is None) == (device == "cpu")
        # Nothing that looks like an absolute path, on whatever machine it was measured.
        assert not re.search(r"(?<![\w.)])/\w+/\w|[A-Z]:\\\\", json.dumps(figures))


def test_a_refusal_is_one_sentence(folder, capfd):
    (folder / "strict.py").write_text(
        "from fer_repro.errors import FerReproError\ndef run(only=''):\n    raise FerReproError(f'no network {only}')\n"
    )
    with pytest.raises(FerReproError, match="^no network vgg$"):
        measure(folder, "strict", only="vgg")
    assert "Traceback" not in capfd.readouterr().err
