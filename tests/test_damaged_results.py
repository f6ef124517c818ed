"""What is not as it was written is found, said in one sentence, and keeps nobody from the other results."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import warnings
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from damage import damaged_bytes, damaged_documents
from hypothesis import given, settings
from hypothesis import strategies as st
from made_results import made_result

from fer_repro import cli, leaderboard, results
from fer_repro.campaign import Task, runner, status
from fer_repro.campaign.estimate import Estimator
from fer_repro.errors import FerReproError
from fer_repro.parameters import RunOptions
from fer_repro.project import default_results_dir
from fer_repro.results import places, schema

REAL = "deep-emotion/official/seed-0"
PLACE = "vggnet/official/seed-0"
FILES = ("result.json", "predictions.npz", "history.csv")


@pytest.fixture
def shelf(tmp_path) -> Path:
    """A results folder with a copy of a real result and a made one."""
    shutil.copytree(default_results_dir() / REAL, tmp_path / REAL)
    results.write(made_result(), tmp_path)
    return tmp_path


def sealed(folder: Path, change) -> None:
    """Change a record as somebody would who knows the digest."""
    record = json.loads((folder / "result.json").read_text())
    change(record)
    record["sha256"] = schema.content_digest(record)
    (folder / "result.json").write_text(json.dumps(record, indent=1) + "\n")


def with_arrays(folder: Path, archive: bytes) -> None:
    """Put other bytes in place of the predictions, with their digest in the record."""
    (folder / "predictions.npz").write_bytes(archive)
    digest = sha256(archive).hexdigest()
    sealed(folder, lambda record: record["files"].update({"predictions.npz": digest}))


def the_problem(shelf: Path, folder: Path) -> str:
    """The only thing that verify says, a line that names the folder; readers refuse it, and read the other one."""
    (problem,) = results.verify(shelf)
    assert str(folder) in problem and "\n" not in problem and len(problem) < 700
    with pytest.raises(FerReproError) as refused:
        results.read(folder)
    assert "\n" not in str(refused.value)
    whole, damaged = results.survey(shelf)
    assert len(whole) == 1 and list(damaged) == [folder]
    return problem


# ---- any damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_every_damage_of_a_file_is_one_sentence_and_the_other_result_is_checked(shelf, name):
    path = shelf / REAL / name
    original, same = path.read_bytes(), 0
    for number, damaged in enumerate(damaged_bytes(original, seed=12, count=120)):
        if damaged == original:
            same += 1
            continue
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            problems = results.verify(shelf)
        assert len(problems) == 1 and REAL in problems[0] and "\n" not in problems[0], number
    assert same < 10
    path.write_bytes(original)
    assert results.verify(shelf) == []


def test_every_changed_value_of_a_record_is_found(shelf):
    path = shelf / REAL / "result.json"
    record = json.loads(path.read_text())
    for where, damaged in damaged_documents(record, seed=7, count=300):
        path.write_text(json.dumps(damaged, indent=1) + "\n")
        problems = results.verify(shelf)
        assert len(problems) == 1 and REAL in problems[0] and "\n" not in problems[0], where
        with pytest.raises(FerReproError):
            results.read(path.parent)


def test_a_damaged_record_with_a_right_digest_never_brings_a_reader_down(shelf):
    """Types are checked, too: what passes can be shown by the leaderboard, a list and a plan."""
    path = shelf / REAL / "result.json"
    record = json.loads(path.read_text())
    passed = 0
    for _, damaged in damaged_documents(record, seed=8, count=150):
        if isinstance(damaged.get("sha256"), str):
            damaged["sha256"] = schema.content_digest(damaged)
        path.write_text(json.dumps(damaged))
        try:
            result = results.read(path.parent)
        except FerReproError:
            continue
        passed += 1
        assert result.headline["n"] >= 0 and result.scored and result.has_views in (True, False)
        assert isinstance(leaderboard.audit_json(shelf)["problems"], list)
    assert passed < 100


def test_a_result_without_its_own_digest_is_a_problem(shelf):
    path = shelf / PLACE / "result.json"
    path.write_text("\n".join(line for line in path.read_text().split("\n") if "sha256" not in line[:10]))
    assert "result.json lacks sha256" in the_problem(shelf, path.parent)


def test_a_changed_layout_is_found_by_verify_and_can_be_read(shelf):
    path = shelf / PLACE / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    (problem,) = results.verify(shelf)
    assert "not laid out as it was written" in problem and results.read(path.parent).seed == 0


def test_other_line_ends_are_no_damage(shelf):
    for name in ("result.json", "history.csv"):
        path = shelf / REAL / name
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert results.verify(shelf) == [] and len(results.read_all(shelf)) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(selection="last epoch"), "selection in result.json is not what its recipe says"),
        (lambda r: r["usages"].update(train=["Training", "PublicTest"]), "usages in result.json is not what"),
        (lambda r: r["recipe"].update(variant="vggnet2"), "variant in result.json is not what its recipe says"),
        (lambda r: r.update(seed=3), "folder's name"),
        (lambda r: r.update(status="fine"), "status is 'fine', expected one of done"),
        (lambda r: r["usages"].update(select=["val"]), "usages/select/0 is 'val', expected one of Training"),
        (lambda r: r["usages"].update(test=["Training"]), "usages/test is ['Training'], expected PublicTest or"),
        (lambda r: r["scores"].update(PrivateTest=None), "scores/PrivateTest is None, expected an object"),
        (lambda r: r["scores"]["PrivateTest"]["plain"].pop("ece"), "scores/PrivateTest/plain lacks ece"),
        (lambda r: r["scores"]["PrivateTest"].pop("views"), "the scores in result.json are not those"),
        (lambda r: r["facts"].update(deep=float("nan")), "facts/deep is nan, expected a finite number"),
        (lambda r: r["recipe"]["views"].update(kinds="ten"), "recipe/views has a field 'kinds'"),
        (lambda r: r.update(seed=True), "seed is True, expected a whole number"),
        (lambda r: r.update(ended="yesterday"), "ended is 'yesterday', expected a time"),
        (lambda r: r.update(variant="../vggnet"), "variant is '../vggnet', expected a name"),
    ],
)
def test_a_record_says_nothing_that_its_recipe_or_predictions_do_not(shelf, change, words):
    sealed(shelf / PLACE, change)
    (problem,) = results.verify(shelf)
    assert words in problem


def test_a_record_that_could_not_be_read_is_not_written(tmp_path):
    with pytest.raises(FerReproError, match="facts/mean is nan, expected a finite number; its checkpoint is kept"):
        results.write(made_result(facts={"mean": float("nan")}), tmp_path)
    result = made_result()
    result.predictions["PublicTest_ids"] = result.predictions["PublicTest_ids"].astype(object)
    with pytest.raises(FerReproError, match="pickled objects"):
        results.write(result, tmp_path)
    assert list(tmp_path.rglob("*")) == []


# ---- hostile archives ------------------------------------------------------------------------------------------------


def npy(array: np.ndarray, **header) -> bytes:
    """An npy file of ``array`` whose header says something else."""
    file = io.BytesIO()
    honest = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(file, honest | header)
    return file.getvalue() + array.tobytes()


def packed(entries: dict[str, bytes], **options) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def doubled() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("a.npy", npy(np.zeros(3)))
    return file.getvalue()


def encrypted() -> bytes:
    content = bytearray(packed({"a.npy": npy(np.zeros(3))}))
    content[content.index(b"PK\1\2") + 8] |= 1
    content[6] |= 1
    return bytes(content)


ZEROS = np.zeros(4, np.int64)
HOSTILE = {
    "absurd shape": lambda: packed({"a.npy": npy(ZEROS, shape=(2**62, 2**62))}),
    "shape too large for memory": lambda: packed({"a.npy": npy(ZEROS, shape=(2**44,))}),
    "no bytes, many entries": lambda: packed({"a.npy": npy(ZEROS[:0], descr="<U0", shape=(2**62,))}),
    "negative shape": lambda: packed({"a.npy": npy(ZEROS, shape=(-2, -2))}),
    "objects": lambda: packed({"a.npy": npy(ZEROS[:1], descr="|O", shape=(1,))}),
    "nested header": lambda: packed({"a.npy": b"\x93NUMPY\1\0\x10\x27" + b"(" * 10_000}),
    "npy version 9": lambda: packed({"a.npy": b"\x93NUMPY\x09\0" + b"\0" * 99}),
    "a bomb": lambda: packed({"a.npy": bytes(80 * 2**20)}),
    "many bombs": lambda: packed({f"{i}.npy": bytes(2 * 2**20) for i in range(40)}),
    "many entries": lambda: packed({f"{i}.npy": b"" for i in range(3000)}),
    "a name twice": doubled,
    "encrypted": encrypted,
    "other arrays": lambda: packed({"a.npy": npy(ZEROS)}),
    "no arrays": lambda: packed({}),
    "labels of text": lambda: packed({"PublicTest_ids.npy": npy(ZEROS), "PublicTest_labels.npy": npy(np.array(["a"]))}),
    "a file of 17 MB": lambda: bytes(17 * 2**20),
    "bzip2": lambda: packed({"a.npy": npy(ZEROS)}).replace(b"\x08\x00", b"\x0c\x00"),
}


def test_damage_inside_an_archive_with_right_checksums_is_one_sentence(shelf):
    """Headers of arrays that say anything."""
    with zipfile.ZipFile(shelf / PLACE / "predictions.npz") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for number, head in enumerate(damaged_bytes(entries["PublicTest_plain.npy"][:128], seed=3, count=100)):
        changed = head + entries["PublicTest_plain.npy"][128:]
        if changed != entries["PublicTest_plain.npy"]:
            with_arrays(shelf / PLACE, packed(entries | {"PublicTest_plain.npy": changed}))
            problems = results.verify(shelf)
            assert len(problems) <= 1 and not any("\n" in problem for problem in problems), number


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_one_sentence_and_costs_little(shelf, kind):
    with_arrays(shelf / PLACE, HOSTILE[kind]())
    assert "predictions.npz" in the_problem(shelf, shelf / PLACE)


def test_no_pickle_runs(shelf):
    class Touch:
        def __reduce__(self):
            return Path.touch, (shelf / "ran",)

    file = io.BytesIO()
    np.savez(file, PublicTest_ids=np.array([Touch()], dtype=object))
    with_arrays(shelf / PLACE, file.getvalue())
    assert "pickled objects, which are never unpacked" in the_problem(shelf, shelf / PLACE)
    assert not (shelf / "ran").exists()


# ---- places ----------------------------------------------------------------------------------------------------------


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


PLACES = {
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link to itself": _loop,
    "a dead link": lambda path: (path.unlink(), path.symlink_to("gone")),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", PLACES)
def test_something_else_in_a_files_place_is_one_sentence(shelf, name, kind):
    PLACES[kind](shelf / PLACE / name)
    assert name in the_problem(shelf, shelf / PLACE)
    assert results.is_stored(shelf, "vggnet", "official", 0)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_missing_file_is_one_sentence(shelf, name):
    (shelf / PLACE / name).unlink()
    assert f"{name}: No such file" in the_problem(shelf, shelf / PLACE)


@pytest.mark.parametrize("closed", ["vggnet", "vggnet/official", PLACE])
def test_a_folder_that_cannot_be_looked_into_is_a_problem(shelf, closed, monkeypatch):
    listed = os.listdir

    def refusing(folder):
        if Path(folder) == shelf / closed:
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(os, "listdir", refusing)
    monkeypatch.setattr(
        os, "stat", lambda path, *a, stat=os.stat, **k: (_denied(path, shelf / closed), stat(path, *a, **k))[1]
    )
    assert "Permission denied" in the_problem(shelf, shelf / closed)
    entry = next(entry for entry in status.states(shelf) if entry["id"] == "vggnet")
    assert "damaged" in entry["state"]["official"] and len(entry["damaged"]) == 1


def _denied(path, closed: Path) -> None:
    if not isinstance(path, int) and closed in Path(path).parents:
        raise PermissionError(13, "Permission denied", str(path))


@pytest.mark.parametrize("place", ["vggnet", "vggnet/claimed"])
def test_a_circle_of_links_is_a_problem_and_other_files_are_none(shelf, place):
    (shelf / "vggnet" / "search.csv").write_text("a\n")
    (shelf / "README").write_text("")
    shutil.rmtree(shelf / "vggnet/official")
    shutil.rmtree(shelf / place, ignore_errors=True)
    (shelf / place).symlink_to(shelf / place)
    assert "symbolic links" in the_problem(shelf, shelf / place)


def test_a_folder_that_is_no_seed_is_a_problem(shelf):
    (shelf / PLACE).rename(shelf / "vggnet/official/seed-x")
    assert "folder's name" in the_problem(shelf, shelf / "vggnet/official/seed-x")


# ---- the others go on ------------------------------------------------------------------------------------------------


def call(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "[" * 100_000, '{"schema": 1}', "\x00"])
def test_commands_show_what_is_damaged_and_the_rest(shelf, capsys, text):
    (shelf / PLACE / "result.json").write_text(text)
    where = ("--results-dir", str(shelf))
    code, out, _ = call(capsys, "verify", *where)
    assert code == 1 and out.splitlines()[-1] == "2 stored results checked, 1 problems" and len(out.splitlines()) == 2
    code, out, err = call(capsys, "list", "--json", *where)
    entries = {entry["id"]: entry for entry in json.loads(out)["variants"]}
    assert code == 0 and entries["vggnet"]["state"] == {"official": "damaged, seed 0", "claimed": "not run"}
    assert entries["deep-emotion"]["state"]["official"] == "stored, seed 0" and entries["vggnet"]["damaged"]
    assert err.startswith("damaged: ") and len(err.splitlines()) == 1
    code, out, err = call(capsys, "audit", "--json", *where)
    verdicts = {row["variant"]: row["verdicts"]["official"] for row in json.loads(out)["rows"]}
    assert code == 1 and err.startswith("damaged: ") and len(err.splitlines()) == 1
    assert verdicts["vggnet"]["name"] == "damaged" and PLACE in verdicts["vggnet"]["reason"]
    assert verdicts["deep-emotion"]["name"] != "damaged" and verdicts["deep-emotion"]["seeds"] == [0]
    with pytest.raises(FerReproError, match=PLACE):
        leaderboard.leaderboard(shelf)


def test_a_damaged_result_of_an_unknown_variant_is_not_passed_over(shelf, capsys):
    (shelf / "vggnet").rename(shelf / "unknown")
    for command, exit_status in (("verify", 1), ("audit", 1), ("list", 0)):
        code, out, err = call(capsys, command, "--results-dir", str(shelf))
        assert code == exit_status and "unknown/official/seed-0: the folder's name does not say" in out + err, command


def test_runs_that_do_not_belong_together_do_not_bring_the_audit_down(shelf, capsys):
    result = made_result(seed=1, data={"name": "fer2013", "source": "test", "digest": "another"})
    results.write(result, shelf)
    code, out, err = call(capsys, "audit", "--results-dir", str(shelf))
    assert code == 1 and "2 different data digests" in err and "damaged" in out


@pytest.mark.parametrize("how", ["empty", "not there", "no results in it"])
def test_nothing_to_verify_is_an_error_that_says_where(tmp_path, capsys, monkeypatch, how):
    where = tmp_path / "results"
    if how != "not there":
        where.mkdir()
    if how == "no results in it":
        (where / "vggnet" / "official" / "seed-0").mkdir(parents=True)
    monkeypatch.setattr(cli, "default_results_dir", lambda: where)
    for words in ((), ("--json",)):
        code, out, err = call(capsys, "verify", *words)
        assert code == 1 and out == "" and str(where) in err and "--results-dir" in err and err.count("\n") == 1


def test_a_campaign_fails_a_damaged_result_and_goes_on(shelf):
    (shelf / PLACE / "predictions.npz").write_bytes(b"")
    options = RunOptions(results_dir=shelf, runs_dir=shelf.parent / "runs", device="cpu")
    tasks = [Task("vggnet", 0), Task("deep-emotion", 0)]
    texts = [Estimator(options).remaining(task).text for task in tasks]
    assert texts == ["stored, but damaged: see fer-repro verify", "stored"]
    first, second = runner.run([tasks], options)
    assert first.state == "failed" and "predictions.npz" in first.text and "Traceback" not in first.text
    assert second.state == "done" and "%" in second.text


def test_what_is_stored_is_shown_where_nothing_can_be_written(shelf, capsys, monkeypatch):
    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(places, "atomic_write", refused)
    before = sorted(shelf.rglob("*"))
    where = ("--results-dir", str(shelf), "--runs-dir", str(shelf / "runs"), "--device", "cpu")
    code, out, _ = call(capsys, "run", "deep-emotion", "vggnet", *where)
    assert code == 0 and out.count("% of 3,589") == 2
    code, out, _ = call(capsys, "run", "deep-emotion", "--seed", "0", "--seed", "1", "--plan", *where)
    assert code == 0 and "not begun" in out, "a plan writes nothing, so it needs no writable folder"
    code, _, err = call(capsys, "run", "deep-emotion", "--seed", "0", "--seed", "1", *where)
    assert code == 1 and "cannot be written (Read-only file system)" in err
    assert sorted(shelf.rglob("*")) == before


def test_a_clone_with_other_line_ends_verifies(tmp_path):
    """What git does on Windows, with the repository's own attributes."""
    root, source = default_results_dir().parent, tmp_path / "source"
    shutil.copytree(root / "results" / REAL, source / "results" / REAL)
    shutil.copy(root / ".gitattributes", source)
    (source / "README.md").write_text("two\nlines\n")

    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.autocrlf=true")
        done = subprocess.run(["git", *identity, *words], capture_output=True, text=True, check=True, timeout=600)
        return done.stdout

    git("init", "-q", str(source))
    git("-C", str(source), "add", ".")
    git("-C", str(source), "commit", "-q", "-m", "a result")
    git("clone", "-q", str(source), str(tmp_path / "clone"))
    for name in FILES:
        assert (tmp_path / "clone/results" / REAL / name).read_bytes() == (
            source / "results" / REAL / name
        ).read_bytes()
    assert results.verify(tmp_path / "clone/results") == [] and len(results.read_all(tmp_path / "clone/results")) == 1
    assert git("-C", str(tmp_path / "clone"), "status", "--porcelain") == ""


# ---- whatever a record holds -----------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
COUNTS = st.none() | st.integers(0, 2**63 - 1)
RECORDS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "selected_epoch": COUNTS,
        "parameters": COUNTS,
        "multiply_adds": COUNTS,
        "code_version": TEXTS,
        "status": st.sampled_from(("done", "stopped early")),
        "data": st.fixed_dictionaries({"name": st.just("fer2013"), "source": TEXTS, "digest": TEXTS}),
        "environment": st.dictionaries(TEXTS, st.none() | TEXTS | st.integers(0, 2**40), max_size=3),
        "cost": st.fixed_dictionaries(
            {
                "seconds": st.none() | st.floats(0, 1e9),
                "images_per_second": st.none() | st.floats(0, 1e9),
                "device": TEXTS,
            }
        ),
        "started": st.datetimes().map(lambda time: time.isoformat()),
        "facts": st.dictionaries(TEXTS, JSON, max_size=3),
    }
)
BASE = made_result()


@settings(derandomize=True, max_examples=40, deadline=2000)
@given(RECORDS)
def test_any_record_is_read_back_as_it_was_written(tmp_path_factory, changes):
    root = tmp_path_factory.mktemp("any")
    folder = results.write(results.Result(BASE.record | changes, BASE.predictions, BASE.history), root)
    again = results.read(folder).record
    assert {name: again[name] for name in BASE.record} == BASE.record | changes
    assert results.verify(root) == []
    shutil.rmtree(root)


@settings(derandomize=True, max_examples=60, deadline=2000)
@given(JSON, st.data())
def test_any_single_change_of_a_record_is_found(tmp_path_factory, value, data):
    root = tmp_path_factory.mktemp("one")
    folder = results.write(BASE, root)
    record = json.loads((folder / "result.json").read_text())
    place, name = record, data.draw(st.sampled_from(sorted(record)))
    while isinstance(place[name], dict) and place[name] and data.draw(st.booleans()):
        place, name = place[name], data.draw(st.sampled_from(sorted(place[name])))
    before = json.dumps(place[name])
    place[name] = value
    (folder / "result.json").write_text(json.dumps(record, indent=1) + "\n")
    assert bool(results.verify(root)) == (json.dumps(value) != before)
    shutil.rmtree(root)
