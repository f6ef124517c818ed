"""The committed index and the committed sample: whole, of one piece, and on the real data what the audit finds."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest

from fer_repro.data import audit
from fer_repro.data.audit import index, precision
from fer_repro.data.official import KNOWN_DIGESTS, LABELS, OFFICIAL_COUNTS, USAGES
from fer_repro.errors import FerReproError


def usage_of(name: str) -> str:
    return name.split("/")[1].split("_")[0]


def test_the_counts_that_everybody_knows():
    n = index.committed().numbers
    assert (n["groups"], n["images"], n["across"], n["conflict"]) == (1516, 3369, 557, 57)
    assert n["duplicates_in_training"] == {"PublicTest": 280, "PrivateTest": 288}
    assert [[n["counts"][u][c] for c in LABELS] for u in USAGES] == OFFICIAL_COUNTS.tolist()
    assert index.committed().digest in KNOWN_DIGESTS


def test_the_lists_of_ids_agree_with_the_groups_and_the_numbers():
    """The ids of the folder copy say usage and label, so the lists can be counted without the data."""
    known = index.committed()
    n, groups = known.numbers, known.groups
    members = [name for group in groups for name in group]
    assert (len(groups), len(members), len(set(members))) == (n["groups"], n["images"], n["images"])
    assert sum(len({usage_of(name) for name in group}) > 1 for group in groups) == n["across"]
    conflicts = [group for group in groups if len({name.split("/")[0] for name in group}) > 1]
    assert len(conflicts) == n["conflict"]
    assert {name for group in conflicts for name in group} == set(known.findings["conflicting"])
    seen = [group for group in groups if any(usage_of(name) == "Training" for name in group)]
    tests = {name for group in seen for name in group if usage_of(name) != "Training"}
    assert tests == set(known.findings["identical_in_training"])
    for name, ids in known.findings.items():
        assert len(set(ids)) == len(ids)
        assert Counter(map(usage_of, ids)) == Counter({u: k for u, k in n["by_usage"][name].items() if k})


def test_the_pairs_agree_with_the_numbers():
    known = index.committed()
    near = known.numbers["near"]
    assert len(known.near) == near["pairs"] and all(pair[2] >= near["threshold"] == audit.NEAR for pair in known.near)
    assert sum(usage_of(first) != usage_of(second) for first, second, _ in known.near) == near["across"]
    assert sum(first.split("/")[0] == second.split("/")[0] for first, second, _ in known.near) == near["same_label"]
    above = [band["pairs"] for band in known.bands if band["low"] >= audit.NEAR]
    assert sum(above) == near["pairs"]
    assert not set(known.findings["near_in_training"]) & set(known.findings["identical_in_training"])


def test_contradictions_within_a_split_are_counted():
    known = index.committed()
    within = {usage: known.contradictions(usage) for usage in USAGES}
    assert within["PrivateTest"] == {"groups": 2, "pairs": 36, "differ": 12}
    near = known.numbers["near"]
    assert sum(one["pairs"] for one in within.values()) == near["pairs"] - near["across"]
    ids = ["sad/PublicTest_1", "happy/PublicTest_2", "fear/Training_3", "sad/PublicTest_4"]
    groups, pairs = [ids[:2], ids[1:3]], [(ids[0], ids[3], 0.95), (ids[0], ids[1], 0.95), (ids[0], ids[2], 0.95)]
    small = dataclasses.replace(known, groups=groups, near=pairs)
    assert small.contradictions("PublicTest") == {"groups": 1, "pairs": 2, "differ": 1}
    assert small.contradictions("PrivateTest") == {"groups": 0, "pairs": 0, "differ": 0}


def test_an_image_of_several_pairs_counts_once_for_a_method_that_answers_the_same_for_linked_images():
    known = index.committed()
    assert known.same_answer() == {"images": known.numbers["near"]["images"], "right": 4262}
    ids = ["sad/Training_1", "happy/Training_2", "happy/PublicTest_3", "happy/PrivateTest_4", "fear/Training_5"]
    chain = [(ids[0], ids[1], 0.95), (ids[0], ids[2], 0.95)]  # no pair agrees, and still 2 of 3 can be right
    small = dataclasses.replace(known, groups=[], near=chain)
    assert small.same_answer() == {"images": 3, "right": 2}
    small = dataclasses.replace(known, groups=[(ids[2], ids[3]), (ids[4], "fear/Training_6")], near=chain)
    assert small.same_answer() == {"images": 4, "right": 3}, (
        "identical images are linked; those of no pair are left out"
    )
    assert dataclasses.replace(known, groups=[], near=[]).same_answer() == {"images": 0, "right": 0}


def test_it_is_written_as_it_is_read():
    content = json.loads(index.FILE.read_text(encoding="utf-8"))
    assert index.as_text(content) == index.FILE.read_text(encoding="utf-8")
    assert content["made_by"] == index.COMMAND


def test_images_are_flagged_by_finding():
    known = index.committed()
    twice, alike = known.findings["identical_in_training"][0], known.findings["near_in_training"][0]
    ids = np.array([twice, alike, "nobody"])
    assert known.flagged(ids).tolist() == [True, False, False]
    assert known.flagged(ids, index.STRICT).tolist() == [True, True, False]


def test_another_copy_is_named_and_refused(few_synthetic):
    known = index.committed()
    ids = np.array([name for group in known.groups for name in group])
    assert known.holds_for(known.digest, ids) and not known.holds_for(few_synthetic.digest, ids)
    with pytest.raises(FerReproError, match="whose ids are others: `fer-repro data audit` computes"):
        known.require(few_synthetic)
    written = dataclasses.replace(few_synthetic, digest=known.digest)  # a CSV that was written from the pictures
    with pytest.raises(FerReproError, match="whose ids are others"):
        known.require(written)
    known.require(dataclasses.replace(written, ids=ids[: len(written)]))


def test_the_command_writes_the_index_of_the_known_copy_alone(monkeypatch, tmp_path, few_synthetic):
    few = dataclasses.replace(few_synthetic.subset(slice(0, 40)), name="fer2013")
    monkeypatch.setattr(index, "load", lambda *_: few)
    with pytest.raises(FerReproError, match="is not the folder copy on Kaggle"):
        index.main(["--out", str(tmp_path / "index.json")])
    known = dataclasses.replace(few, digest=index.committed().digest, facts={"layout": "fer2013.csv"})
    monkeypatch.setattr(index, "load", lambda *_: known)
    with pytest.raises(FerReproError, match="is not the folder copy on Kaggle"):
        index.main(["--out", str(tmp_path / "index.json")])
    known = dataclasses.replace(known, facts={"layout": "folder copy"})
    monkeypatch.setattr(index, "load", lambda *_: known)
    index.main(["--out", str(tmp_path / "index.json")])
    written = json.loads((tmp_path / "index.json").read_text())
    assert written["numbers"]["counts"]["Training"]["happy"] == int((few.labels == 3).sum())
    assert "ferplus" not in written["numbers"]


def test_the_sample_has_a_judgement_for_every_pair():
    judged = precision.judged()
    assert [(band["low"], band["high"]) for band in judged["bands"]] == list(
        zip(precision.EDGES, precision.EDGES[1:], strict=False)
    )
    for band, counted in zip(judged["bands"], index.committed().bands, strict=True):
        assert len(band["pairs"]) == min(precision.SAMPLE, counted["pairs"])
        assert all(first < second and isinstance(same, bool) for first, second, same in band["pairs"])
    near = {frozenset(pair[:2]) for pair in index.committed().near}
    above = [pair for band in judged["bands"] if band["low"] >= audit.NEAR for pair in band["pairs"]]
    assert all(frozenset(pair[:2]) in near for pair in above)


@pytest.fixture(scope="module")
def audited(real):
    if not index.committed().holds_for(real.digest, real.ids):
        pytest.skip(f"FER2013_ROOT is {real.source}: the index is that of {index.committed().copy}")
    return audit.audit(real)


def test_the_index_is_what_the_audit_finds(audited):
    found = json.loads(json.dumps(index.document(audited)))
    committed = json.loads(index.FILE.read_text(encoding="utf-8"))
    assert found.keys() == committed.keys()
    for name in committed:
        assert found[name] == committed[name], name
    for usage in USAGES:
        assert audited.contradictions(usage) == index.committed().contradictions(usage)
    assert audited.same_answer() == index.committed().same_answer()


def test_the_sample_is_the_one_that_the_rule_chooses(audited, real):
    chosen = precision.chosen(real, audited.alike)
    assert chosen == [[(first, second) for first, second, _ in band["pairs"]] for band in precision.judged()["bands"]]
