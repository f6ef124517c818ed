"""``fer-repro data audit``: the findings of a copy as text and as JSON, and what belongs to it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from test_cli import call

from fer_repro.data.audit import index


@pytest.fixture
def copy(monkeypatch, few_synthetic):
    """Synthetic faces under FER2013's name: one of PrivateTest is also in Training, with another label."""
    images, labels = few_synthetic.images.copy(), few_synthetic.labels.copy()
    images[-1], labels[-1] = images[0], (labels[0] + 1) % 7
    found = dataclasses.replace(few_synthetic, images=images, labels=labels, name="fer2013", source="made-up.csv")
    monkeypatch.setattr("fer_repro.data.load", lambda *_, **__: found)
    return found


def test_the_findings_as_text(capsys, copy):
    status, out, err = call(capsys, "data", "audit")
    assert status == 0 and "made-up.csv" in out and "comparing all images" in err
    assert "1 groups with 2 images, 1 groups across splits, 1 with conflicting labels" in out
    assert "does not hold for these ids" in out and "FER+" not in out


def test_the_findings_as_json(capsys, copy):
    status, out, _ = call(capsys, "data", "audit", "--json")
    document = json.loads(out)
    assert status == 0 and not document["index_holds"] and document["digest"] == copy.digest
    assert document["findings"]["identical_in_training"] == [str(copy.ids[-1])]
    assert document["lookup"]["PrivateTest"]["identical"]["correct"] == 0 and document["ferplus"] is None
    assert np.sum([list(row.values()) for row in document["counts"].values()]) == len(copy)


def test_votes_that_do_not_belong_are_refused_before_the_work(capsys, copy, tmp_path):
    status, out, err = call(capsys, "data", "audit", "--ferplus", str(tmp_path / "fer2013new.csv"))
    assert (status, out) == (1, "") and "follow the rows of fer2013.csv" in err


def test_votes_belong_to_the_audit_alone(capsys):
    status, out, err = call(capsys, "data", "describe", "--ferplus", "votes.csv")
    assert (status, out) == (1, "") and "write `fer-repro data audit --ferplus FILE`" in err
    status, _, err = call(capsys, "data", "audti")
    assert status == 1 and "did you mean audit?" in err


def test_the_real_copy(capsys, real_root, real):
    status, out, _ = call(capsys, "data", "audit", "--json", "--root", real_root)
    document = json.loads(out)
    assert status == 0 and document["index_holds"] == index.committed().holds_for(real.digest, real.ids)
    if document["index_holds"]:
        known = index.committed()
        assert document["groups"] == 1516 and document["findings"] == known.findings
        assert document["bands"] == known.bands
