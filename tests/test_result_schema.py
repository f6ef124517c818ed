"""The published JSON Schema of result.json: made of the code's shapes, and true of every stored result."""

from __future__ import annotations

import copy
import json
from importlib import resources

import pytest
from damage import damaged_documents
from jsonschema import Draft202012Validator
from made_results import made_modified, made_result, made_unfinished

from fer_repro import results
from fer_repro.results import EVIDENCE, PACKAGE, RELEASED, json_schema, schema

PUBLISHED = json.loads(resources.files("fer_repro.results").joinpath("result.schema.json").read_text())
VALIDATOR = Draft202012Validator(PUBLISHED)
FOLDERS = results.all_folders()


def record_of(folder) -> dict:
    return json.loads((folder / "result.json").read_text())


def stored(kind: str) -> dict:
    """One stored record of a kind."""
    return record_of(results.stored_folders(kind=kind)[0])


def test_the_published_file_is_what_the_shapes_give():
    Draft202012Validator.check_schema(PUBLISHED)
    assert json.loads(json.dumps(json_schema.document())) == PUBLISHED, "run python -m fer_repro.results.json_schema"
    assert set(EVIDENCE) <= set(PUBLISHED["$defs"])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: "/".join(folder.parts[-3:]))
def test_every_stored_result_validates(folder):
    assert [error.message for error in VALIDATOR.iter_errors(record_of(folder))] == []


def made_with_epochs():
    result = made_result()
    result.record["files"] = dict.fromkeys((*schema.BESIDE, schema.EPOCHS), "0" * 64)
    return result


@pytest.mark.parametrize("make", [made_result, made_unfinished, made_modified, made_with_epochs])
def test_made_results_validate_and_their_other_kind_does_not(make):
    record = json.loads(json.dumps(make().record))
    assert VALIDATOR.is_valid(record)
    assert not VALIDATOR.is_valid(record | {"kind": RELEASED}) and not VALIDATOR.is_valid(record | {"kind": "other"})


@pytest.mark.parametrize("kind", [RELEASED, PACKAGE])
def test_a_kind_has_its_own_shape(kind):
    record = stored(kind)
    assert not VALIDATOR.is_valid({name: value for name, value in record.items() if name != kind})
    assert not VALIDATOR.is_valid({name: value for name, value in record.items() if name != "kind"})


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("schema",), 2),
        (("seed",), -1),
        (("status",), "fine"),
        (("recipe_sha256",), "abc"),
        (("variant",), "../vggnet"),
        (("usages", "test"), []),
        (("usages", "test"), ["Training"]),
        (("scores", "PrivateTest", "plain", "accuracy"), 50.4),
        (("scores", "PrivateTest", "plain", "confusion"), [[1]]),
        (("scores", "PrivateTest", "plain", "per_class", "happy", "recall"), "0.5"),
        (("scores", "PrivateTest", "plain", "interval"), [0.1]),
    ],
)
def test_a_wrong_value_is_found_at_its_place(where, value):
    record = copy.deepcopy(json.loads(json.dumps(made_result().record)))
    place = record
    for name in where[:-1]:
        place = place[name]
    place[where[-1]] = value
    assert schema.fault(record) and not VALIDATOR.is_valid(record)


def test_what_the_schema_refuses_the_reader_refuses():
    """The schema says less than the reader (no digests, no time), and never more."""
    record, refused = stored(results.FULL), 0
    for where, damaged in damaged_documents(record, seed=3, count=100):
        if not VALIDATOR.is_valid(damaged):
            refused += 1
            assert schema.fault(damaged), where
    assert refused > 20
