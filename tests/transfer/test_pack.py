"""Runs packed into small parts: what is packed, what resumes from it, and every copy that is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import campaign_world
import numpy as np
import pytest
import torch
from damage import damaged_bytes, damaged_documents
from full_disk import limited_files
from listening import listening
from safetensors.torch import load_file

from fer_repro import cli, papers, results
from fer_repro.campaign import Task, plan
from fer_repro.errors import FerReproError
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.files import sha256_of
from fer_repro.parameters import RunOptions
from fer_repro.training import checkpoint
from fer_repro.training.run import Run
from fer_repro.transfer import chunks
from fer_repro.transfer import pack as packing

PART = 100_000


@pytest.fixture
def world(monkeypatch):
    campaign_world.install(monkeypatch.setattr)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # no power cut is tested here, and many files are written


@pytest.fixture
def options(world, tmp_path) -> RunOptions:
    return RunOptions(device="cpu", results_dir=str(tmp_path / "results"), runs_dir=str(tmp_path / "runs"))


def train(options: RunOptions, *variants: str, batches: int | None = None) -> list[str]:
    """Run ``variants`` with seed 0, at most so many batches in all; the states that came out."""
    left = [10**9 if batches is None else batches]

    def out_of_time(run: Run, ahead: float = 0.0) -> bool:
        left[0] -= 1
        return left[0] < 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "out_of_time", out_of_time)
        found = plan.run([Task(name, 0) for name in variants], options)
    return [outcome.state for outcome in found]


def pack(options: RunOptions, out: Path, *variants: str, **more) -> str:
    more = {"runs_dir": options.runs_dir, "part_size": PART} | more
    return packing.pack(out, variants, **more)


def unpack(out: Path, runs: str | Path, **more) -> str:
    return packing.unpack(out, runs_dir=runs, **more)


@pytest.mark.parametrize("batches", [9, 14], ids=["inside an epoch", "between two epochs"])
def test_packed_deleted_unpacked_and_resumed_equals_the_uninterrupted_run(options, tmp_path, batches):
    whole = dataclasses.replace(options, results_dir=str(tmp_path / "whole"), runs_dir=str(tmp_path / "other"))
    assert train(whole, "large") == ["done"]
    assert train(options, "large", batches=batches) == ["stopped"]
    pack(options, tmp_path / "pack")
    files = [path for path in (tmp_path / "pack").iterdir() if path.suffix == ".part"]
    assert len(files) > 3 and all(path.stat().st_size <= PART for path in files)
    shutil.rmtree(options.runs_dir)
    unpack(tmp_path / "pack", options.runs_dir)
    begun = checkpoint.peek(Path(options.runs_dir) / "large/official/full/seed-0")
    assert (begun.epochs, begun.batch) == divmod(batches, 7)
    assert train(options, "large") == ["done"]
    one, other = (results.find("large", "official", 0, Path(o.results_dir)) for o in (options, whole))
    assert all(np.array_equal(one.predictions[key], other.predictions[key]) for key in one.predictions)
    assert one.history["loss"].tolist() == other.history["loss"].tolist()


def test_a_named_run_is_packed_with_its_teacher_and_only_what_is_needed(options, tmp_path):
    train(options, "small", "pupil", batches=28 + 28 + 9)
    folder = Path(options.runs_dir) / "pupil/official/full/seed-0"
    (folder / "teacher-0123.npz").write_bytes(b"a table")
    (folder / ".checkpoint.pt.abc.tmp").write_bytes(b"left by a kill")
    assert (folder / checkpoint.NAME).exists() and (folder / checkpoint.PREVIOUS).exists()
    pack(options, tmp_path / "pack", "pupil")
    packed = {entry.path: [file.name for file in entry.files] for entry in chunks.read_manifest(tmp_path / "pack")}
    assert packed == {
        "large/official/full/seed-0": ["checkpoint.pt"],
        "pupil/official/full/seed-0": ["checkpoint.pt", "teacher-0123.npz"],
    }
    pack(options, tmp_path / "pack", "small")  # what lies there of other runs stays
    assert len(chunks.read_manifest(tmp_path / "pack")) == 3
    facts = json.loads((tmp_path / "pack" / chunks.MANIFEST).read_text())["packed"][1]["facts"]
    recipe = papers.get("pupil").recipe("official", "full")
    assert facts["epochs"] == 1 and facts["identity"]["recipe"] == recipe.sha256() and facts["identity"]["data set"]


def test_choosing_by_protocol_profile_and_seed(options, tmp_path):
    train(options, "small", batches=3)
    for more in ({"protocol": "claimed"}, {"profile": "smoke"}, {"seeds": [1]}):
        with pytest.raises(FerReproError, match="no run with a checkpoint"):
            pack(options, tmp_path / "pack", **more)
    pack(options, tmp_path / "pack", protocol="official", profile="full", seeds=[0, 1])
    with pytest.raises(FerReproError, match="unknown variant 'smal'"):
        pack(options, tmp_path / "pack", "smal")


def test_packing_again_adds_only_what_changed_and_drops_what_is_old(options, tmp_path):
    train(options, "small", "aside", batches=28 + 3)
    out = tmp_path / "pack"
    pack(options, out)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.part")}
    (out / ".0123.part.x.tmp").write_bytes(b"left by a kill")
    train(options, "aside")
    pack(options, out)
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.part")}
    kept = before.keys() & after.keys()
    assert kept and all(before[name] == after[name] for name in kept) and before.keys() - after.keys()
    assert chunks.unknown_parts(out, chunks.read_manifest(out)) == [] and not list(out.glob(".*"))
    (out / min(kept)).write_bytes(b"damaged since")
    pack(options, out)
    unpack(out, tmp_path / "there")


def test_a_damaged_newest_checkpoint_is_replaced_by_the_one_before(options, tmp_path):
    train(options, "small", batches=17)
    folder = Path(options.runs_dir) / "small/official/full/seed-0"
    content = bytearray((folder / checkpoint.NAME).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / checkpoint.NAME).write_bytes(content)
    pack(options, tmp_path / "pack")
    [packed] = chunks.read_manifest(tmp_path / "pack")
    before = checkpoint.progress_of(folder / checkpoint.PREVIOUS)
    assert packed.facts["epochs"] == before.epochs and packed.files[0].sha256 == sha256_of(before.path)
    (folder / checkpoint.PREVIOUS).unlink()
    with pytest.raises(FerReproError, match="no checkpoint in .* is whole"):
        pack(options, tmp_path / "pack")


@pytest.fixture
def packed(options, tmp_path) -> Path:
    """A stopped run, packed."""
    assert train(options, "large", batches=9) == ["stopped"]
    pack(options, tmp_path / "pack")
    return tmp_path / "pack"


def test_a_run_in_progress_is_refused(options, packed, tmp_path):
    folder = Path(options.runs_dir) / "large/official/full/seed-0"
    with checkpoint.writer(folder):
        for refused in (lambda: pack(options, packed), lambda: unpack(packed, options.runs_dir)):
            with pytest.raises(FerReproError, match=f"in use by process {os.getpid()}"):
                refused()
    unpack(packed, options.runs_dir)


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (Path.unlink, "part {} of large/official/full/seed-0/checkpoint.pt is missing"),
        (damaged, "part {} of large/official/full/seed-0/checkpoint.pt in .* is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "part {} .* is damaged"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "part {} .* is damaged"),
        (lambda path: shutil.copy(path, path.with_name("0" * 20 + ".part")), f"part {'0' * 20}.part .* is unknown"),
    ],
    ids=["missing", "one bit", "short", "long", "foreign"],
)
def test_a_bad_part_is_named_and_nothing_is_replaced(options, packed, harm, said):
    checkpoints = [path for path in Path(options.runs_dir).rglob("*.pt")]
    before = {path: sha256_of(path) for path in checkpoints}
    name = sorted(path.name for path in packed.glob("*.part"))[1]
    harm(packed / name)
    with pytest.raises(FerReproError, match=said.format(name)):
        unpack(packed, options.runs_dir, force=True)
    assert {path: sha256_of(path) for path in checkpoints} == before


def test_no_manifest_is_one_sentence(tmp_path):
    with pytest.raises(FerReproError, match="holds no manifest.json"):
        unpack(tmp_path, tmp_path / "runs")


def change(packed: Path, *where, value) -> None:
    path = packed / chunks.MANIFEST
    document = json.loads(path.read_text())
    place = document
    for step in where[:-1]:
        place = place[step]
    place[where[-1]] = value
    path.write_text(json.dumps(document))


FILE = ("packed", 0, "files", 0)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("packed", 0, "path"), "../../../etc/seed-0"),
        (("packed", 0, "path"), "/elsewhere/a/b/seed-0"),
        (("packed", 0, "path"), "large/official/full/seed-0/../../x"),
        (("packed", 0, "path"), "large/official/full/seed-0\n"),
        (("packed", 0, "path"), 5),
        (("packed", 0, "kind"), "other"),
        ((*FILE, "name"), "../checkpoint.pt"),
        ((*FILE, "name"), "/etc/passwd"),
        ((*FILE, "name"), "a/b/c/d"),
        ((*FILE, "name"), ".hidden"),
        ((*FILE, "name"), "lock"),
        ((*FILE, "size"), -1),
        ((*FILE, "size"), True),
        ((*FILE, "sha256"), "0"),
        ((*FILE, "parts", 0, "name"), "../../x.part"),
        ((*FILE, "parts", 0, "name"), "manifest.json"),
        ((*FILE, "parts", 0, "size"), 1),
        (("packed", 0, "facts"), []),
        (("packed", 0), {}),
        (("packed",), 7),
        (("format",), 99),
    ],
)
def test_a_manifest_is_not_trusted(packed, tmp_path, where, value):
    change(packed, *where, value=value)
    with pytest.raises(FerReproError, match="manifest"):
        unpack(packed, tmp_path / "elsewhere" / "runs")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("damage", ["bytes", "values"])
def test_a_damaged_manifest_is_one_sentence_and_never_another_run(packed, tmp_path, damage):
    manifest, there, refused = packed / chunks.MANIFEST, tmp_path / "elsewhere", 0
    whole = manifest.read_bytes()
    documents = (json.dumps(copy).encode() for _, copy in damaged_documents(json.loads(whole), 7, 150))
    deep = [b"[" * 100_000, b'{"format": 1, "packed": ' + b"[" * 900 + b"]" * 900 + b"}", b'{"a":' * 5000]
    for content in [*(damaged_bytes(whole, 8, 150) if damage == "bytes" else documents), *deep]:
        manifest.write_bytes(content)
        shutil.rmtree(there, ignore_errors=True)
        try:
            unpack(packed, there)
        except FerReproError:
            refused += 1
            assert placed(there) == []
        else:  # a fact was changed, or a name to another that may be: the content is what was packed
            assert placed(there) == [file["sha256"] for file in json.loads(whole)["packed"][0]["files"]]
    assert refused > 100


def placed(folder: Path) -> list[str]:
    """The digests of the files below a folder, without locks."""
    return [sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"]


def test_every_damaged_part_is_refused(packed, tmp_path):
    parts = sorted(packed.glob("*.part"))
    for number, part in enumerate(parts):
        whole = part.read_bytes()
        for content in damaged_bytes(whole, number, 12):
            if content == whole:
                continue
            part.write_bytes(content)
            with pytest.raises(FerReproError, match=f"part {part.name} of .* is damaged"):
                unpack(packed, tmp_path / "elsewhere")
        part.write_bytes(whole)
    unpack(packed, tmp_path / "elsewhere")


def test_a_part_that_is_no_file(packed, tmp_path):
    part = sorted(packed.glob("*.part"))[0]
    kept = part.rename(tmp_path / "kept")
    for make in (Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path)):
        make(part)
        with pytest.raises(FerReproError, match=f"part {part.name} of .* is missing"):
            unpack(packed, tmp_path / "elsewhere")
        part.rmdir() if part.is_dir() else part.unlink()
    part.symlink_to(kept)  # a link to what the manifest names is as good
    (packed / f"{'1' * 20}.part").mkdir()
    unpack(packed, tmp_path / "elsewhere")


def test_a_part_may_not_ask_for_more_than_it_is(packed, tmp_path):
    for size in (2**40, 2**62, 2**80):
        document = json.loads((packed / chunks.MANIFEST).read_text())
        file = document["packed"][0]["files"][0]
        file["size"], file["parts"][0]["size"] = file["size"] + size - file["parts"][0]["size"], size
        (packed / chunks.MANIFEST).write_text(json.dumps(document))
        with pytest.raises(FerReproError, match="part .* is damaged|expected a whole number"):
            unpack(packed, tmp_path / "elsewhere")


@pytest.mark.parametrize("size", [float("inf"), float("nan"), 0, -1, 1e-9, -float("inf")])
def test_a_part_size_that_is_none(options, tmp_path, size):
    with pytest.raises(FerReproError, match="parts cannot be of .* bytes each: give a size"):
        pack(options, tmp_path / "pack", part_size=size)


def test_a_large_part_size_takes_no_more_memory_than_the_file(options, packed, tmp_path):
    pack(options, tmp_path / "large", part_size=1e300)
    assert len(list((tmp_path / "large").glob("*.part"))) == 1


def test_what_is_no_file_of_a_run_is_not_packed(options, packed, tmp_path):
    folder = Path(options.runs_dir) / "large/official/full/seed-0"
    (folder / "my notes.txt").write_text("x")
    (folder / "a/b/c").mkdir(parents=True)
    (folder / "a/b/c/deep").write_text("x")
    shutil.copytree(folder, folder.with_name("seed-old"))
    pack(options, tmp_path / "again")
    assert [entry.path for entry in chunks.read_manifest(tmp_path / "again")] == ["large/official/full/seed-0"]


def test_a_longer_search_here_is_noticed(options, tmp_path):
    folder = Path(options.runs_dir) / "words/official/full/seed-0"
    folder.mkdir(parents=True)
    lines = [b'{"event": "opened"}\n', b'{"event": "begun"}\n', b'{"event": "settled"}\n']
    journal, out = folder / "search.jsonl", tmp_path / "pack"
    journal.write_bytes(b"".join(lines[:2]))
    packing.pack(out, runs_dir=options.runs_dir)
    journal.write_bytes(b"".join(lines))
    with pytest.raises(
        FerReproError, match="has come further than the packed run .its search.jsonl is longer.*--force"
    ):
        unpack(out, options.runs_dir)
    journal.write_bytes(b"another search\n")
    with pytest.raises(FerReproError, match="holds another search.jsonl"):
        unpack(out, options.runs_dir)
    journal.write_bytes(lines[0])
    unpack(out, options.runs_dir)
    assert journal.read_bytes() == b"".join(lines[:2])


def test_a_disk_that_is_full_while_packing_or_unpacking_is_one_sentence(options, packed, tmp_path):
    with limited_files(50_000), pytest.raises(FerReproError, match="no space left in .*again"):
        pack(options, tmp_path / "again")
    with limited_files(50_000), pytest.raises(FerReproError, match="no space left in .*seed-0"):
        unpack(packed, tmp_path / "elsewhere")
    unpack(packed, tmp_path / "elsewhere")


def test_parts_in_another_order_are_refused(packed, tmp_path):
    document = json.loads((packed / chunks.MANIFEST).read_text())
    change(packed, *FILE, "parts", value=document["packed"][0]["files"][0]["parts"][::-1])
    with pytest.raises(FerReproError, match="together they are not"):
        unpack(packed, tmp_path / "elsewhere")


def test_a_run_that_is_further_along_is_kept_unless_forced(options, packed):
    train(options, "large", batches=3)
    folder = Path(options.runs_dir) / "large/official/full/seed-0"
    before = checkpoint.peek(folder)
    with pytest.raises(FerReproError, match=r"further than the packed run \(epoch 1, running\).*--force"):
        unpack(packed, options.runs_dir)
    assert checkpoint.peek(folder) == before
    unpack(packed, options.runs_dir, force=True)
    assert checkpoint.peek(folder).batch == 2 < before.batch and not (folder / checkpoint.PREVIOUS).exists()
    unpack(packed, options.runs_dir)  # no further and no less


def test_a_run_of_another_recipe_is_kept_unless_forced(options, packed, monkeypatch):
    shutil.rmtree(options.runs_dir)
    known = papers.variants()
    other = dataclasses.replace(known["large"], recipe=lambda *a: dataclasses.replace(known["large"].recipe(*a), std=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(papers, "variants", lambda: known | {"large": other})
        train(options, "large", batches=3)
    with pytest.raises(FerReproError, match="holds a run with another recipe"):
        unpack(packed, options.runs_dir)
    unpack(packed, options.runs_dir, force=True)
    assert train(options, "large") == ["done"]


def test_files_of_a_method_without_checkpoints(options, packed, tmp_path):
    folder = Path(options.runs_dir) / "words/official/full/seed-0"
    (folder / "trial-01").mkdir(parents=True)
    for name in ("words-1.npz", "search.jsonl", "trial-01/weights.safetensors", "empty.npz"):
        (folder / name).write_bytes(name.encode() * (name != "empty.npz"))
    out, there = tmp_path / "words", tmp_path / "there"
    packing.pack(out, runs_dir=options.runs_dir)
    unpack(out, there)
    copied = {
        p.relative_to(there).as_posix(): p.read_bytes()
        for p in (there / "words").rglob("*")
        if p.name != "lock" and p.is_file()
    }
    assert copied["words/official/full/seed-0/trial-01/weights.safetensors"] == b"trial-01/weights.safetensors"
    assert copied["words/official/full/seed-0/empty.npz"] == b"" and len(copied) == 4
    (there / "words/official/full/seed-0/words-2.npz").write_bytes(b"more")
    with pytest.raises(FerReproError, match="it holds words-2.npz"):
        unpack(out, there)


def test_networks_for_inference_are_packed_in_bf16(options, tmp_path):
    train(options, "small", "large", batches=28 + 3)
    said: list[str] = []
    with listening(said.append):
        pack(options, tmp_path / "pack", inference=True, results_dir=options.results_dir)
    assert said[0] == "large/official/full/seed-0: left out (not finished)"
    unpack(tmp_path / "pack", tmp_path / "none", exports_dir=tmp_path / "exports")
    folder = tmp_path / "exports" / "small-official-seed-0-bf16"
    weights = load_file(folder / "model.safetensors")
    assert {part.dtype for part in weights.values()} == {torch.bfloat16} and not (tmp_path / "none").exists()
    card, config = (folder / "README.md").read_text(), json.loads((folder / "config.json").read_text())
    assert "rounded to bf16" in card and "3,589" in card and config["weights"] == "bf16"
    variant = papers.get("small")
    recipe = variant.recipe("official", "full")
    model = variant.build(recipe)
    model.load_state_dict(weights)
    faces = campaign_world.faces()
    half = faces.subset(np.flatnonzero(faces.usage == "PrivateTest"))
    rounded = NetworkClassifier(model, recipe, "cpu").predict_proba(half.images)
    stored = results.find("small", "official", 0, Path(options.results_dir)).predictions["PrivateTest_plain"]
    assert np.abs(rounded - stored.astype(np.float32)).max() < 0.05
    unpack(tmp_path / "pack", tmp_path / "none", exports_dir=tmp_path / "exports")  # the same once more
    damaged(folder / "model.safetensors")
    with pytest.raises(FerReproError, match="holds other weights"):
        unpack(tmp_path / "pack", tmp_path / "none", exports_dir=tmp_path / "exports")


def test_the_last_weights_are_exported_where_the_rule_says_last(options, tmp_path, monkeypatch):
    known = papers.variants()
    last = dataclasses.replace(known["small"].recipe("official", "full").selection, rule="last")
    other = dataclasses.replace(
        known["small"], recipe=lambda *a: dataclasses.replace(known["small"].recipe(*a), selection=last, ema=0.9)
    )
    monkeypatch.setattr(papers, "variants", lambda: known | {"small": other})
    train(options, "small")
    pack(options, tmp_path / "pack", inference=True)
    unpack(tmp_path / "pack", tmp_path / "none", exports_dir=tmp_path / "exports")
    kept = torch.load(Path(options.runs_dir) / "small/official/full/seed-0/checkpoint.pt", weights_only=True)["state"]
    weights = load_file(tmp_path / "exports" / "small-official-seed-0-bf16" / "model.safetensors")
    assert all(torch.equal(part, kept["ema"]["module"][name].bfloat16()) for name, part in weights.items())


def test_on_the_command_line(capsys, options, packed, tmp_path):
    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["checkpoint", *words])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    out, there = str(tmp_path / "again"), str(tmp_path / "there")
    status, printed, err = call("pack", "large", "--out", out, "--runs-dir", options.runs_dir, "--part-size", "0.2")
    assert (
        status == 0 and "large/official/full/seed-0: 1 epochs, running, " in printed and "packed: 1 run, " in printed
    ), err
    assert max(path.stat().st_size for path in Path(out).glob("*.part")) == 200_000
    status, printed, err = call("unpack", out, "--runs-dir", there)
    assert status == 0 and "unpacked: 1 run, " in printed, err
    status, printed, err = call("pack", "--out", out, "--runs-dir", str(tmp_path / "nothing"))
    assert status == 1 and printed == "" and "there is no run with a checkpoint to pack" in err
