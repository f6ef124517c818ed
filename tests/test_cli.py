"""The command line: one sentence for each mistake, one JSON document for each --json, and a run that can be stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from made_results import made_result, made_unfinished
from safetensors import safe_open

from fer_repro import cli, papers, results
from fer_repro.claims import leaderboard_claims
from fer_repro.papers import PROTOCOLS

EPOCHS = 3


def call(capsys, *words: str) -> tuple[int, str, str]:
    """Exit status, stdout, stderr of ``fer-repro`` with these words."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


MISTAKES = [
    (["run", "vgnet"], "unknown variant 'vgnet': did you mean vggnet?"),
    (["run", "vggnet", "--protocol", "oficial"], "protocol is 'oficial', expected one of 'official', 'claimed'"),
    (["run", "vggnet", "--profile", "fulll"], "profile is 'fulll'"),
    (["run", "vggnet", "--device", "gpu"], "device is 'gpu'"),
    (["run", "vggnet", "--data", "fer2014"], "data is 'fer2014'"),
    (["run", "VGGNet"], "unknown variant 'VGGNet': did you mean vggnet?"),
    (["run", "vggnet", "--profile", "FULL"], "did you mean 'full'?"),
    (["run", "vggnet", "--protocol", "Official"], "did you mean 'official'?"),
    (["run", "vggnet", "--device", "CPU"], "did you mean 'cpu'?"),
    (["run", "vggnet", "--device", "cuda7"], "did you mean 'cuda'?"),
    (["run", "vggnet", "--seed", "0", "--seed", "2147483648"], "seed is 2147483648, expected a whole number from 0 to"),
    (["run", "local-learning-bow", "--profile", "smoke", "--seed", str(2**64)], "seed is 18446744073709551616"),
    (["run", "vggnet", "--seed", "-1"], "seed is -1"),
    (["checkpoint", "pack", "--out", "x", "--seed", "-1"], "seed is -1"),
    (["checkpoint", "pack", "--out", "x", "--protocol", "oficial"], "did you mean 'official'?"),
    (["checkpoint", "pack", "--out", "x", "vgnet"], "did you mean vggnet?"),
    (["export", "vggnet", "--seed", str(2**31)], "seed is 2147483648"),
    (["chapter", "vggnet", "-p", "seed", str(2**31)], "seed is 2147483648"),
    (["data", "CHECK"], "did you mean check?"),
    (["run", "vggnet", "--epochs", "0"], "epochs is 0"),
    (["run", "vggnet", "--time-budget", "soon"], "'soon' is no duration"),
    (["run"], "name the variants to run, or --all"),
    (["run", "vggnet", "--all"], "name the variants to run, or --all"),
    (["run", "vggnet", "--together", "--jobs", "2"], "--together is one process and --jobs several"),
    (["data", "look"], "unknown action 'look'"),
    (["data", "--root", "nowhere"], "'nowhere', which does not exist"),
    (["verify", "--results-dir", "nowhere"], "no results folder nowhere"),
    (["audit", "--results-dir", "nowhere"], "'nowhere' does not exist"),
    (["bench", "nothing"], "no benchmark 'nothing'"),
    (["export", "local-learning-bow"], "the method has no network"),
    (["export", "vggnet", "--runs-dir", "nowhere"], "holds no checkpoint of vggnet"),
]
WITH_JSON = ("data", "verify", "audit", "bench")
MISTAKES += [([*words, "--json"], said) for words, said in MISTAKES if words[0] in WITH_JSON]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_sentence_and_nothing_on_stdout(capsys, monkeypatch, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    status, out, err = call(capsys, *words)
    assert status == 1 and out == ""
    lines = err.splitlines()
    assert lines[-1].startswith("error: ") and said in lines[-1] and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_cuda_without_cuda_is_a_sentence(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, _, err = call(capsys, "run", "vggnet", "--device", "cuda")
    assert status == 1 and "use --device cpu" in err


@pytest.mark.parametrize("place", [["--debug", "run", "vgnet"], ["run", "vgnet", "--debug"]], ids=["before", "behind"])
def test_debug_shows_the_traceback(capsys, place):
    status, _, err = call(capsys, *place)
    assert status == 1 and "Traceback" in err and "error: unknown variant" in err


def test_an_unknown_option_is_a_usage_error(capsys):
    status, out, _ = call(capsys, "run", "vggnet", "--sed", "1")
    assert status == 2 and out == ""


def test_list_knows_every_row_and_variant(capsys):
    status, out, _ = call(capsys, "list", "--json")
    entries = {entry["id"]: entry for entry in json.loads(out)["variants"]}
    assert status == 0 and set(entries) == set(leaderboard_claims()) | set(papers.variants())
    assert entries["vggnet"]["implemented"] and entries["vggnet"]["claimed"] == 73.28
    for entry in entries.values():
        assert entry["implemented"] == (entry["id"] in papers.variants())
        assert set(entry["state"]) == set(entry["seeds"]) == set(PROTOCOLS)
    status, out, _ = call(capsys, "list")
    assert status == 0 and all(name in out for name in entries)
    kinds = {line.split()[0]: " ".join(line.split()[2:4]) for line in out.splitlines() if len(line.split()) > 3}
    assert kinds["baseline"] == "nothing claimed" and kinds["deep-emotion-no-stn"] == "ablation of"


def test_list_distinguishes_stored_and_begun(capsys, tmp_path):
    results.write(made_result(seed=4), tmp_path / "results")
    begun = tmp_path / "runs" / "vggnet" / "claimed" / "full" / "seed-0"
    begun.mkdir(parents=True)
    (begun / "checkpoint.pt").write_text("")
    _, out, _ = call(capsys, "list", "--json", "--results-dir", str(tmp_path / "results"))
    entry = next(entry for entry in json.loads(out)["variants"] if entry["id"] == "vggnet")
    assert entry["state"] == {"official": "stored, seed 4", "claimed": "begun"}
    assert entry["seeds"] == {"official": [4], "claimed": []}


def test_list_says_how_far_an_unfinished_run_came(capsys, tmp_path):
    results.write(made_unfinished(), tmp_path / "results")
    begun = tmp_path / "runs" / "vggnet" / "official" / "full" / "seed-0"
    begun.mkdir(parents=True)
    (begun / "checkpoint.pt").write_text("")
    _, out, _ = call(capsys, "list", "--json", "--results-dir", str(tmp_path / "results"))
    entry = next(entry for entry in json.loads(out)["variants"] if entry["id"] == "vggnet")
    assert entry["state"] == {"official": "unfinished: epoch 2 of 350, seed 0", "claimed": "not run"}
    assert entry["seeds"] == {"official": [], "claimed": []}, "it is no result"
    (tmp_path / "results/vggnet/official/unfinished/seed-0/history.csv").unlink()
    _, out, err = call(capsys, "list", "--json", "--results-dir", str(tmp_path / "results"))
    entry = next(entry for entry in json.loads(out)["variants"] if entry["id"] == "vggnet")
    assert entry["state"]["official"] == "damaged, unfinished seed 0" and "history.csv" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["local-learning-bow"], "local-learning-bow is not a network that is trained epoch by epoch"),
        (["vggnet", "sdafe-images"], "sdafe-images is not a network that is trained epoch by epoch"),
        (["vggnet", "--epochs", "3"], "--keep-unfinished (keep_unfinished) goes with a full run"),
        (["vggnet", "--profile", "smoke"], "--keep-unfinished (keep_unfinished) goes with a full run"),
    ],
)
@pytest.mark.parametrize("option", ["--keep-unfinished", "--score-epochs"])
def test_what_cannot_be_kept_is_refused_before_anything_runs(capsys, tmp_path, words, said, option):
    folders = ("--results-dir", str(tmp_path), "--runs-dir", str(tmp_path / "runs"))
    status, _, err = call(capsys, "run", *words, option, *folders)
    said = said.replace("--keep-unfinished", option).replace("keep_unfinished", option.strip("-").replace("-", "_"))
    assert status == 1 and said in err and not list(tmp_path.iterdir())


def test_audit_prints_all_rows(capsys):
    status, out, _ = call(capsys, "audit", "--json")
    document = json.loads(out)
    assert (
        status == 0 and len(document["rows"]) == len(leaderboard_claims()) and set(document["classes"]) == set("ABCD")
    )
    status, out, _ = call(capsys, "audit")
    assert status == 0 and all(row["variant"] in out for row in document["rows"])


def test_verify_says_how_many_and_fails_on_a_damaged_result(capsys, tmp_path):
    folder = tmp_path / "vggnet" / "official" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text('{"schema": 99}')
    status, out, _ = call(capsys, "verify", "--json", "--results-dir", str(tmp_path))
    document = json.loads(out)
    assert status == 1 and not document["ok"] and "schema version 99" in document["problems"][0]


def test_the_stored_results_verify(capsys):
    status, out, _ = call(capsys, "verify", "--json")
    assert json.loads(out)["problems"] == [] and status == 0


def test_data_describes_the_real_copy(capsys, real_root):
    status, out, _ = call(capsys, "data", "--json", "--root", real_root)
    document = json.loads(out)
    assert status == 0 and document["images"] == 35887 and document["counts"]["PrivateTest"]["disgust"] == 55
    status, out, _ = call(capsys, "data", "find", "--json", "--root", real_root)
    assert status == 0 and json.loads(out)["path"] == real_root
    status, out, _ = call(capsys, "data", "check", "--root", real_root)
    assert status == 0 and "35,887 images" in out


def test_chapter_lists_its_parameters(capsys):
    pytest.importorskip("papermill")
    status, out, _ = call(capsys, "chapter", "vggnet", "--parameters", "--json")
    listed = {entry["name"]: entry for entry in json.loads(out)["parameters"]}
    assert status == 0 and listed["seed"]["type"] == "int" and listed["profile"]["default"] == "smoke"


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["-p", "sed", "3"], "no parameter 'sed': did you mean 'seed'?"),
        (["-p", "seed", "three"], "seed is 'three', expected a whole number"),
        (["-p", "seed=-3"], "seed is -3"),
        (["-p", "profile", "smok"], "profile is 'smok'"),
        (["-p", "seed"], "parameter 'seed' has no value"),
    ],
)
def test_chapter_refuses_wrong_parameters(capsys, tmp_path, pairs, said):
    pytest.importorskip("papermill")
    status, out, err = call(capsys, "chapter", "vggnet", *pairs, "--out", str(tmp_path / "out.ipynb"))
    assert status == 1 and out == "" and said in err and list(tmp_path.iterdir()) == []


def test_chapter_executes_a_notebook_given_by_path(capsys, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    cell = nbformat.v4.new_code_cell("seed: int = 0  # a number", metadata={"tags": ["parameters"]})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": kernel}, cells=[cell, nbformat.v4.new_code_cell("print(seed)")]
    )
    source, out = tmp_path / "mine.ipynb", tmp_path / "out.ipynb"
    nbformat.write(notebook, source)
    status, printed, _ = call(capsys, "chapter", str(source), "-p", "seed", "5", "-o", str(out), "--json")
    assert status == 0 and json.loads(printed) == {"chapter": "mine", "out": str(out)}
    assert nbformat.read(out, as_version=4).cells[-1].outputs[0].text == "5\n"


def test_bench_prints_what_a_script_measured(capsys, monkeypatch, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "quick.py").write_text("def run():\n    print('noise')\n    return {'seconds': 1.5}\n")
    monkeypatch.setattr("fer_repro.speed.project_root", lambda: tmp_path)
    status, out, _ = call(capsys, "bench", "quick", "--json", "--out", str(tmp_path / "kept"))
    found = json.loads(out)["quick"]
    assert status == 0 and found["seconds"] == 1.5 and set(found) == {"seconds", "date", "code_version"}
    assert json.loads((tmp_path / "kept" / "quick-cpu.json").read_text()) == {"benchmark": "quick"} | found
    (tmp_path / "benchmarks" / "quick.py").write_text("def run():\n    raise SystemExit(3)\n")
    status, out, err = call(capsys, "bench", "--json")
    assert status == 1 and out == "" and "benchmark 'quick' failed with status 3" in err


def command(runs: Path, *more: str) -> list[str]:
    words = ["run", "vggnet", "--profile", "smoke", "--epochs", str(EPOCHS), "--runs-dir", str(runs), *more]
    return [sys.executable, "-m", "fer_repro.cli", *words]


@pytest.fixture(scope="module")
def stopped_and_resumed(tmp_path_factory):
    """A smoke run that got Ctrl-C after its first epoch, and the same command once more."""
    runs = tmp_path_factory.mktemp("runs")
    first = subprocess.Popen(command(runs), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = []
    for line in first.stdout:
        lines.append(line)
        if line.startswith("epoch 1/"):
            first.send_signal(signal.SIGINT)
    first.wait()
    second = subprocess.run(command(runs), capture_output=True, text=True, check=False)
    return runs, (first.returncode, "".join(lines), first.stderr.read()), second


def test_ctrl_c_stops_at_a_checkpoint_and_says_how_to_go_on(stopped_and_resumed):
    runs, (status, out, err), _ = stopped_and_resumed
    assert status == 130, out + err
    assert "vggnet seed 0: stopped: Ctrl-C" in out and "checkpoint" in out
    assert "give the same command again to go on" in err and "Traceback" not in err
    assert list(runs.rglob("checkpoint.pt"))


def test_the_same_command_goes_on(stopped_and_resumed):
    _, _, second = stopped_and_resumed
    assert second.returncode == 0, second.stderr
    assert re.search(r"going on after epoch \d of 3", second.stdout) and "epoch 1/3" not in second.stdout
    assert re.search(r"^vggnet seed 0: [\d.]+ % of 140 .*synthetic faces - not a result", second.stdout, re.M)


def test_a_spent_budget_stops_too(stopped_and_resumed, tmp_path):
    done = subprocess.run(command(tmp_path, "--time-budget", "0.1"), capture_output=True, text=True, check=False)
    assert done.returncode == 130 and "time budget used up" in done.stdout and "Traceback" not in done.stderr


def test_a_budget_that_gains_nothing_says_how_much_is_needed(capsys, tmp_path):
    """The advice leads on: repeating the same command would stop at the same place for ever."""
    words = ["run", "vggnet", "--profile", "smoke", "--runs-dir", str(tmp_path)]
    budget, given = "0.01", []
    while budget and len(given) < 12:
        given.append(budget)
        status, out, err = call(capsys, *words, "--time-budget", budget)
        advice = re.search(r"stopped: time budget used up before anything was gained.* --time-budget (\d+[sm])", err)
        assert status == 0 or (status == 130 and (advice or "same command again to go on" in err)), err
        budget = advice and advice[1]
    assert 2 <= len(given) < 12, "it never got anywhere"


def test_a_smoke_run_that_keeps_nothing_says_so(capsys):
    status, out, err = call(capsys, "run", "vggnet", "--profile", "smoke", "--time-budget", "0.01")
    assert status == 130 and "--time-budget" in err and "or a --runs-dir" in err and "same command again" not in err


@pytest.mark.parametrize("text", ["", "nan", "1e400", "0"])
def test_a_wrong_budget_is_never_no_budget(capsys, text):
    status, out, err = call(capsys, "run", "vggnet", "--profile", "smoke", "--time-budget", text)
    assert status == 1 and f"time budget {text!r} is no duration" in err


def test_export_writes_weights_that_load_and_a_model_card(capsys, tmp_path):
    runs, out = tmp_path / "runs", tmp_path / "export"
    words = ["vggnet", "--profile", "smoke", "--runs-dir", str(runs)]
    status, printed, err = call(capsys, "run", *words)
    assert status == 0, err
    status, printed, err = call(capsys, "export", *words, "--out", str(out))
    assert status == 0 and printed.strip() == f"exported: {out}", err
    variant = papers.get("vggnet")
    recipe = variant.recipe("official", "smoke")
    with safe_open(out / "model.safetensors", framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        assert file.metadata()["recipe_sha256"] == recipe.sha256()
    variant.build(recipe).load_state_dict(weights)
    card = (out / "README.md").read_text()
    assert "synthetic faces - not a result" in card and recipe.sha256() in card
    assert json.loads((out / "config.json").read_text())["labels"][0] == "angry"


def test_the_installed_command_is_this_one():
    script = Path(sys.executable).with_name("fer-repro")
    if not script.exists():
        pytest.skip("fer-repro is not installed as a command beside this Python")
    done = subprocess.run(
        [script, "--help"], capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "200"}
    )
    for name in ("data", "list", "run", "chapter", "book", "verify", "audit", "export", "predict", "bench"):
        assert re.search(rf"\b{name}\b", done.stdout)


LIGHT = [
    *([*words, "--help"] for words in ([], ["data"], ["list"], ["run"], ["checkpoint"], ["checkpoint", "pack"])),
    *([*words, "-h"] for words in (["checkpoint", "unpack"], ["chapter"], ["book"], ["verify"], ["audit"], ["export"])),
    ["bench", "--help"],
    ["--version"],
    ["nonsense"],
    ["run"],
    ["run", "nonsense"],
    ["run", "vggnet", "vgnet"],
    ["run", "vggnet", "--seed", "-1"],
    ["run", "--all", "--seed", str(2**31)],
    ["run", "vggnet", "--profile", "FULL"],
    ["run", "vggnet", "--device", "gpu"],
    ["run", "vggnet", "--epochs", "0"],
    ["run", "vggnet", "--jobs", "2", "--together"],
    ["chapter", "vggnet", "-p", "sed", "1"],
    ["chapter", "vggnet", "-p", "seed", "-1"],
    ["chapter", "vggnet", "-p", "profile", "FULL"],
    ["checkpoint", "pack", "-o", "x", "--part-size", "-1"],
    ["checkpoint", "pack", "-o", "x", "--part-size", "inf"],
    ["checkpoint", "pack", "-o", "x", "--seed", "-1"],
    ["export", "vgnet"],
    ["export", "vggnet", "--yes"],
    ["predict", "--help"],
    ["predict", "exports", "nowhere.png"],
    ["predict", "exports", "nowhere.png", "--variant", "vgnet"],
    ["predict", "exports", "nowhere.png", "--device", "gpu"],
    ["bench", "nothing"],
    ["bench", "train", "--device", "gpu"],
    ["book", "--profile", "FULL"],
]


def test_help_and_wrong_parameters_need_no_torch():
    """torch takes seconds to import, which nobody waits for to read that a word was misspelt."""
    pytest.importorskip("papermill")
    script = f"""
import contextlib, io, sys
from fer_repro import claims, errors, logs, parameters, project
from fer_repro import cli
for words in {LIGHT!r}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            cli.main(words)
        except SystemExit:
            pass
    if "torch" in sys.modules:
        sys.exit("torch was imported by " + " ".join(words))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def shell(line: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """A line of bash in which ``$FER`` is the command."""
    place = {"PYTHONPATH": str(Path(cli.__file__).parents[2]), "FER": f"{sys.executable} -m fer_repro.cli"}
    return subprocess.run(
        ["bash", "-c", line], cwd=cwd, env=os.environ | place | environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("$FER --version", 0, ""),
        ("$FER --help >&-", 0, ""),
        ("$FER data find --root nowhere >&- 2>&-", 1, ""),
        ("$FER --help > /dev/full", 1, "error: no space left on the disk"),
        ("$FER audit --json | head -c 10; exit ${PIPESTATUS[0]}", None, ""),
        ("PYTHONIOENCODING=ascii $FER audit", 0, ""),
        ("LC_ALL=C LANG=C $FER --help", 0, ""),
        ("mkdir gone; cd gone; rmdir ../gone; $FER verify", 1, "error: the current folder does not exist any more"),
        ("mkdir gone; cd gone; rmdir ../gone; $FER run vggnet", 1, "error: the current folder does not exist any more"),
        ("$FER run vgg$'\\xff'net", 1, "error: unknown variant 'vgg\\udcffnet'"),
        ("FER2013_ROOT=$'\\xff' $FER data", 1, "error: FER2013 was not found"),
        ("$FER checkpoint pack -o x --part-size inf", 2, "--part-size"),
    ],
)
def test_what_the_shell_does_to_a_command_never_ends_in_a_traceback(tmp_path, line, status, said):
    done = shell(line, tmp_path)
    assert status in (None, done.returncode), done.stderr
    assert said in done.stderr
    for sign in ("Traceback", "Exception ignored", "Aborted"):
        assert sign not in done.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "/x/y"), "error: /x/y cannot be used (Permission denied): correct"),
        (OSError(28, "No space left on device"), "error: no space left on the disk: free some"),
        (OSError(122, "Disk quota exceeded", "/x/y"), "error: no space left for /x/y: free some"),
        (MemoryError(), "error: not enough memory"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(capsys, monkeypatch, error, said):
    def refused(*words, **named):
        raise error

    monkeypatch.setattr("fer_repro.data.source.find", refused)
    status, _, err = call(capsys, "data")
    assert status == 1 and err.startswith(said) and len(err.splitlines()) == 1
    status, _, err = call(capsys, "data", "--debug")
    assert status == 1 and "Traceback" in err and said in err


@pytest.mark.parametrize("error", [KeyError("x"), EOFError(), RuntimeError("x"), OSError("no file")])
def test_a_defect_shows_where_it_is_and_asks_for_a_report(capsys, monkeypatch, error):
    def broken(*words, **named):
        raise error

    monkeypatch.setattr("fer_repro.data.source.find", broken)
    status, _, err = call(capsys, "data")
    assert status == 1 and "Traceback" in err and type(error).__name__ in err
    assert err.splitlines()[-1].startswith("error: this is a defect of fer-repro") and "Abort" not in err


def test_ctrl_c_where_no_command_answers_it_is_one_line(capsys, monkeypatch):
    def stop(*words, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("fer_repro.data.source.find", stop)
    assert call(capsys, "data") == (130, "", "stopped\n")


def tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("words", [["emonext-tiny"], ["--all", "--ablations"]])
def test_a_plan_writes_nothing(tmp_path, words):
    """No results folder, no run folder, no lock, no cache, no weights; nor does it ask any server."""
    home = tmp_path / "home"
    home.mkdir()
    places = {"HOME": home, "FER_REPRO_CACHE": home / "cache", "TORCH_HOME": home / "torch", "HF_HOME": home / "hf"}
    before = tree(tmp_path)
    proxy = "http://127.0.0.1:9"
    done = shell(
        f"$FER run {' '.join(words)} --plan --results-dir r --runs-dir q",
        tmp_path,
        **{name: str(place) for name, place in places.items()},
        **{"HTTPS_PROXY": proxy, "https_proxy": proxy, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0 and "to do:" in done.stdout, done.stderr
    assert tree(tmp_path) == before
